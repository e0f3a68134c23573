"""Write files that appear whole or not at all: a temporary file, fsync, rename.

What the disk refuses is said in one line.
"""

from __future__ import annotations

import errno
import os
import platform
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from moe_prompts.errors import InputError

#: No room: on the disk, in a quota, above the size that a file may have here.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
#: Not allowed, for this user or for everybody.
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
#: No folder where one is expected, or one where a file is.
MISPLACED = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST)
TEMPORARY = ".tmp"
#: Their names: that of the file, the host and the number of the process.
_LEFT = re.compile(r"\..+@(?P<host>[^@]*)-(?P<process>[0-9]+)" + re.escape(TEMPORARY))
AN_HOUR = 3600.0


def reason(error: OSError) -> str:
    """Return what the system says of an error, in one line."""
    return error.strerror or (str(error).splitlines() or [type(error).__name__])[0]


def remedy(error: OSError) -> str:
    """Return what a user can do about an error of the system."""
    if error.errno in FULL:
        return "make room"
    if error.errno in MISPLACED:
        return "choose a file in an existing folder"
    return "see to it that you may read and write there" if error.errno in FORBIDDEN else "see to the disk or its mount"


def entries(folder: Path, ending: str) -> list[Path]:
    """Return the files of a folder with this ending, in the order of their names.

    There are none where there is no folder.
    ``Path.glob`` takes a folder that may not be read for an empty one; here that is an error.
    """
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    return [folder / name for name in sorted(names) if name.endswith(ending)]


@contextmanager
def appearing(path: Path, sync: bool = True) -> Iterator[IO[bytes]]:
    """Give a file to write that becomes ``path`` when the block of code ends.

    sync  True: the content is on the disk before ``path`` appears; False: the system writes it when it likes,
          so that a loss of power may leave a part of it. A kill of the process leaves it whole in any case

    If that block raises, or the process is killed, ``path`` stays as it was. Raises ``InputError`` where
    the system refuses: no room on the disk or in a quota, no permission, an error of the disk.
    """
    # Hosts that share a folder may have processes of one number. The name as text: a path costs more than the
    # file.
    temporary = os.path.join(path.parent, f".{path.name}@{platform.node()}-{os.getpid()}{TEMPORARY}")
    try:
        with _made(temporary) as file:
            yield file
            file.flush()
            if sync:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):  # on a disk that is away this fails, too; the first error is told, a resume clears it
            os.unlink(temporary)
        if not isinstance(error, OSError):
            raise
        raise InputError(
            f"cannot write {path} ({reason(error)}); what is there stays whole: {remedy(error)}, and repeat the "
            "command, a study with --resume"
        ) from error


def _made(path: str) -> IO[bytes]:
    """Make a file anew.

    One of this name was left by a killed process of the same number, or laid there as a link.
    """
    try:
        return open(path, "xb")
    except FileExistsError:
        os.unlink(path)
        return open(path, "xb")


def write_atomically(path: Path, content: bytes, sync: bool = True) -> None:
    """Write ``content`` to ``path``, whole or not at all. Raises as ``appearing`` does."""
    with appearing(path, sync) as file:
        file.write(content)


def clear_left(folder: Path) -> None:
    """Remove temporary files that ended processes of this host left in a folder that no lock guards.

    Those of other hosts stay for an hour, since nobody here knows whether their process still writes.
    """
    if not folder.is_dir():  # what stands in its place is said where the folder is made
        return
    for path in entries(folder, TEMPORARY):
        found = _LEFT.fullmatch(path.name)
        if found is None:  # not ours
            continue
        try:
            here = found["host"] == platform.node()
            over = not _is_running(int(found["process"])) if here else time.time() - path.stat().st_mtime > AN_HOUR
        except FileNotFoundError:
            continue
        if over:
            path.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    """Return whether this host has a process of this number."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


def sync_folder(path: Path) -> None:
    """Make names that appeared in the folder ``path`` last through a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

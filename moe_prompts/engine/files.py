"""Write files that appear whole or not at all: a temporary file, fsync, rename.

A full disk is said in one line.
"""

from __future__ import annotations

import errno
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from moe_prompts.errors import InputError

#: No room: on the disk, in a quota, above the size that a file may have here.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
TEMPORARY = ".tmp"


@contextmanager
def appearing(path: Path) -> Iterator[IO[bytes]]:
    """Give a file to write that becomes ``path`` when the block of code ends.

    If that block raises, or the process is killed, ``path`` stays as it was. Raises ``InputError`` where
    there is no room: the disk, a quota or the largest size of a file.
    """
    # Hosts that share a folder may have processes of one number.
    temporary = path.with_name(f".{path.name}.{platform.node()}-{os.getpid()}{TEMPORARY}")
    try:
        temporary.unlink(missing_ok=True)  # of a killed process of the same number
        with open(temporary, "xb") as file:  # never through a link that somebody else laid there
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.errno in FULL:
            raise InputError(
                f"cannot write {path} ({error.strerror}); what is there stays whole: make room, and repeat the "
                f"command, a study with --resume"
            ) from error
        raise
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path``, whole or not at all. Raises as ``appearing`` does."""
    with appearing(path) as file:
        file.write(content)


def sync_folder(path: Path) -> None:
    """Make names that appeared in the folder ``path`` last through a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

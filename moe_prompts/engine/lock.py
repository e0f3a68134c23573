"""Let one run at a time work in a folder, by an advisory lock.

The operating system takes the lock back when the process ends, however it ends. ``flock`` holds on local
disks, and between hosts on NFS (version 4, or 3 with its lock service) and on Lustre mounted with ``flock``.
Mounts with ``nolock``, ``local_lock=flock`` or ``localflock`` keep it within one host.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
import secrets
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from moe_prompts.errors import InputError

NAME = ".lock"
#: The file system has no locks.
UNKNOWN = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)


@contextmanager
def locked(folder: Path, to_read: bool = False) -> Iterator[None]:
    """Hold the lock of ``folder`` while the block of code runs.

    to_read  the folder is only read: one that cannot be written to needs no lock, since no run can work in it

    Raises ``InputError`` at once, naming host and process, if another run holds the folder, and if its lock
    is no regular file. Where the file system has no locks, a warning is printed.
    """
    # Kept between runs: a file that is removed could be locked by two, the one that still has it open and the
    # next.
    try:
        file = _opened(folder / NAME)
    except OSError as error:
        if to_read and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            yield
            return
        raise
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"{folder} is in use by {_holder(file)}; wait for it, stop it, or choose another --out"
            ) from error
        except OSError as error:
            if error.errno not in UNKNOWN:
                raise
            print(f"{folder}: no locks on this file system; see to it that no other run works here", file=sys.stderr)
        file.seek(0)
        file.truncate()
        since = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
        holder = {"host": platform.node(), "process": os.getpid(), "since": since, "token": secrets.token_hex(8)}
        json.dump(holder, file)
        file.flush()
        os.fsync(file.fileno())  # workers on other hosts look for the token
        yield


def _opened(path: Path) -> IO[str]:
    """Open the lock's file to read and write; never through a link, nor a file with a name elsewhere."""
    expected = f"expected a file of its own, or none: remove {path}"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise InputError(f"{path} is a link; {expected}") from error
        if error.errno in (errno.ENXIO, errno.EISDIR):
            raise InputError(f"{path} is no regular file; {expected}") from error
        raise
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        os.close(descriptor)
        raise InputError(f"{path} is no regular file, or has another name elsewhere; {expected}")
    return open(descriptor, "r+", encoding="utf-8")


def token_of(folder: Path) -> str | None:
    """Return the token of the run that holds ``folder``, or held it last; None if none is to be seen."""
    try:
        return json.loads((folder / NAME).read_text(encoding="utf-8"))["token"]
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return None


def _holder(file: IO[str]) -> str:
    """Return who holds a lock, from what its file says."""
    try:
        file.seek(0)
        holder = json.load(file)
        return f"process {holder['process']} on {holder['host']} (since {holder['since']} UTC)"
    except (ValueError, KeyError, TypeError):  # it has the lock, but not yet written who it is
        return "another run"

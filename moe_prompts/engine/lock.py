"""One run in a folder at a time: an advisory lock that the system takes back when its process ends, however it ends.

flock holds on local disks, and between hosts on NFS (version 4, or 3 with its lock service) and on Lustre mounted with
``flock``. Mounts with ``nolock``, ``local_lock=flock`` or ``localflock`` keep it within one host.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from moe_prompts.errors import InputError

NAME = ".lock"
#: The file system has no locks.
UNKNOWN = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder; raise ``InputError`` at once, naming host and process, if another run holds it."""
    # Kept between runs: a file that is removed could be locked by two, the one that still has it open and the next.
    with open(folder / NAME, "a+", encoding="utf-8") as file:
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
        file.truncate(0)
        since = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
        holder = {"host": platform.node(), "process": os.getpid(), "since": since, "token": secrets.token_hex(8)}
        json.dump(holder, file)
        file.flush()
        os.fsync(file.fileno())  # workers on other hosts look for the token
        yield


def token_of(folder: Path) -> str | None:
    """Of the run that holds the folder, or held it last; None where there is none to be seen."""
    try:
        return json.loads((folder / NAME).read_text(encoding="utf-8"))["token"]
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def _holder(file) -> str:
    file.seek(0)
    text = file.read()
    if not text:  # it has the lock, but not yet written who it is
        return "another run"
    holder = json.loads(text)
    return f"process {holder['process']} on {holder['host']} (since {holder['since']} UTC)"

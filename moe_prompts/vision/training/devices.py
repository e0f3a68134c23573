"""Choose the GPU that a process uses: processes of one host take numbers from 0 on, and go round the devices.

    device of process i = cuda:(i mod number of devices that this process sees)

A process holds its number by locking a file. The system frees the lock when the process ends, so the next
process takes the place of a dead one, and two runs on one host do not crowd one device. The files lie in the
user's runtime folder; no link is followed and no file is written to.
"""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
from functools import cache
from itertools import count
from pathlib import Path

from moe_prompts.errors import InputError

#: Open as long as the process lives.
_held: list[int] = []


def device_of(number: int, devices: int) -> str:
    """Return the device of the process with this number on a host, as "cuda:1".

    devices  how many GPUs torch sees; raises ``InputError`` if that is none
    """
    if devices < 1:
        raise InputError("device cuda; torch sees no GPU in this process: use cpu")
    return f"cuda:{number % devices}"


def runtime_folder() -> Path:
    """Return the folder of this user's device numbers, which need not exist.

    It lies in XDG_RUNTIME_DIR where the system made that, else in the folder for temporary files.
    """
    given = os.environ.get("XDG_RUNTIME_DIR")
    if given and Path(given).is_dir() and os.stat(given).st_uid == os.getuid():
        return Path(given) / "moe-prompts-devices"
    return Path(tempfile.gettempdir()) / f"moe-prompts-devices-{os.getuid()}"


def take_number(folder: Path) -> int:
    """Return the lowest number that no living process holds; this process holds it from now on.

    Raises ``InputError`` unless ``folder`` is this user's own and closed to others: whoever could write there
    could lay links to this user's files.
    """
    parent = _own_folder(folder)
    try:
        for number in count():
            descriptor = _own_file(folder, str(number), parent)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                continue
            _held.append(descriptor)
            return number
    finally:
        os.close(parent)
    raise AssertionError("numbers do not end")


def _own_folder(folder: Path) -> int:
    """Return a descriptor of the folder, which is made if it is not there; others may not even read it."""
    expected = f"expected a folder of this user that nobody else may write to: remove {folder}, or set XDG_RUNTIME_DIR"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise InputError(f"{folder} cannot hold device numbers ({error.strerror}); {expected}") from error
    status = os.fstat(descriptor)
    if status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        os.close(descriptor)
        raise InputError(f"{folder} belongs to another user, or others may write to it; {expected}")
    return descriptor


def _own_file(folder: Path, name: str, parent: int) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(name, flags, 0o600, dir_fd=parent)
    except OSError as error:
        raise InputError(f"{folder / name} cannot be opened ({error.strerror}); remove it") from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.getuid() or status.st_nlink > 1:
        os.close(descriptor)
        raise InputError(f"{folder / name} is no regular file of this user alone; remove it")
    return descriptor


@cache
def own_device(name: str) -> str:
    """Return the device of this process for "cuda", and any other name unchanged."""
    if name != "cuda":
        return name
    import torch

    return device_of(take_number(runtime_folder()), torch.cuda.device_count())


def processes(device: str, workers: int | None, executor: str | None, scheduler: str | None) -> int | None:
    """Return how many workers to start: ``workers``, or one for each GPU where the user said nothing."""
    if device != "cuda" or workers is not None or scheduler is not None or executor == "in-process":
        return workers
    import torch

    return torch.cuda.device_count()

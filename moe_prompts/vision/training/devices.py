"""Which GPU a process uses: processes of one host take numbers from 0 on, and go round the devices.

    device of process i = cuda:(i mod number of devices that this process sees)

A number is a locked file that the system frees when its process ends, so that whoever follows a dead worker takes its
place, and two runs on one host do not crowd one device.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from functools import cache
from itertools import count
from pathlib import Path
from typing import IO

from moe_prompts.errors import InputError

#: Open as long as the process lives.
_held: list[IO[str]] = []


def device_of(number: int, devices: int) -> str:
    """Of the process with this number on a host."""
    if devices < 1:
        raise InputError("device cuda; torch sees no GPU in this process: use cpu")
    return f"cuda:{number % devices}"


def take_number(folder: Path) -> int:
    """The lowest number that no living process holds; this one holds it from now on."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in count():
        file = open(folder / str(number), "w", encoding="utf-8")  # noqa: SIM115 - held until the process ends
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            continue
        _held.append(file)
        return number
    raise AssertionError("numbers do not end")


@cache
def own_device(name: str) -> str:
    """``cpu`` as it is; of ``cuda`` the device of this process."""
    if name != "cuda":
        return name
    import torch

    folder = Path(tempfile.gettempdir()) / f"moe-prompts-devices-{os.getuid()}"
    return device_of(take_number(folder), torch.cuda.device_count())


def processes(device: str, workers: int | None, executor: str | None, scheduler: str | None) -> int | None:
    """``workers``, or one for each GPU where nothing else is said."""
    if device != "cuda" or workers is not None or scheduler is not None or executor == "in-process":
        return workers
    import torch

    return torch.cuda.device_count()

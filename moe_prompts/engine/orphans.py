"""End workers with the process that started them, however that process ends.

A worker that outlives its run would go on computing, hold its memory, and write a block into a folder that
may belong to another run by then. The kernel's parent-death signal is no help: it fires when the *thread*
that started the worker ends. So a thread of the worker waits for the end of the parent process.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

#: Between two looks at the parent where the system cannot wait for its end, in seconds.
LOOKED_EVERY = 0.5


def end_with(parent: int) -> None:
    """End this process as soon as the process ``parent``, which started it, has ended."""
    try:
        descriptor = os.pidfd_open(parent)
    except ProcessLookupError:
        os._exit(1)
    except OSError:  # an old kernel, or a container that forbids it
        descriptor = None
    threading.Thread(target=_end_after, args=(parent, descriptor), daemon=True).start()


def _end_after(parent: int, descriptor: int | None) -> None:
    """Wait for the end of the parent process, and end this one at once."""
    if descriptor is None:
        while os.getppid() == parent:
            time.sleep(LOOKED_EVERY)
    else:
        waiting = select.poll()
        waiting.register(descriptor, select.POLLIN)
        while not waiting.poll():
            pass
    os._exit(1)


@contextmanager
def deaf_to_interrupts() -> Iterator[None]:
    """Make workers that start inside this block of code deaf to Ctrl-C.

    A terminal sends an interrupt to every process of its group. The command itself hears it when the block of
    code has ended, and ends the workers. Processes and threads inherit which signals their maker blocks, so
    no worker has a moment in which an interrupt would end it with a traceback.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

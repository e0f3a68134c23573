"""Run the blocks of a study in this process, in processes of this machine, or on a cluster.

An executor is a value with one method, ``map(run_block, blocks)``, which yields a receipt for each block as
it finishes. A worker draws its own data and writes its own file. So a block that is run twice, because its
first worker died, writes the same rows. Blocks travel to workers; rows never travel back.
"""

from __future__ import annotations

import ast
import logging
import os
import re
import secrets
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from moe_prompts.engine.grid import Block
from moe_prompts.engine.orphans import deaf_to_interrupts, end_with
from moe_prompts.errors import InputError

if TYPE_CHECKING:
    from distributed import Client

Receipt = Any
RunBlock = Callable[[Block], Receipt]
NAMES = ("in-process", "joblib", "dask")
#: Deaths of workers that a run survives: after each its blocks go to others.
MOST_DEATHS = 3
RESUME = "finished blocks are kept: repeat the command with --resume"
#: Blocks at the scheduler: enough to feed workers and to call for more, few beside a million; how often
#: workers are counted, in seconds.
AHEAD, AHEAD_PER_WORKER, COUNTED_EVERY = 256, 3, 5.0
#: Processes for each core, and at the least, that are started without being asked twice.
MOST_PER_CORE, MOST_ANYWAY = 4, 16
#: How dask talks.
TRANSPORTS = ("tcp", "tls", "ws", "wss", "ucx")
#: For a scheduler to answer.
PATIENCE = "10s"


class Executor(Protocol):
    """Say what an executor must offer: ``map``. Any object with this method will do."""

    def map(self, run_block: RunBlock, blocks: Sequence[Block]) -> Iterable[Receipt]:
        """Call ``run_block`` on every block, and yield what it returns as blocks finish, in any order."""
        ...


@dataclass(frozen=True)
class InProcess:
    """Run one block after the other in this process, in the given order."""

    def map(self, run_block: RunBlock, blocks: Sequence[Block]) -> Iterator[Receipt]:
        """Yield ``run_block(block)`` for each block in turn."""
        return map(run_block, blocks)


@dataclass(frozen=True)
class Joblib:
    """Run blocks in processes of this machine, one thread each, with joblib's loky.

    workers  number of processes, at least 1
    insist   allow more of them than this machine has use for: above 16, and above 4 for each core

    Raises ``InputError`` for other numbers of workers.
    """

    workers: int
    insist: bool = False

    def __post_init__(self) -> None:
        _check_workers(self.workers, self.insist)

    def map(self, run_block: RunBlock, blocks: Sequence[Block]) -> Iterator[Receipt]:
        """Yield the receipts of the blocks in the order in which they end.

        Where a worker is killed, the blocks that have not ended are given to new workers. After
        ``MOST_DEATHS`` such deaths an ``InputError`` says how to go on.
        """
        from joblib.externals.loky.process_executor import TerminatedWorkerError

        left = dict(enumerate(blocks))
        for _ in range(MOST_DEATHS):
            try:
                for number, receipt in self._pass(run_block, left):
                    del left[number]
                    yield receipt
                return
            except TerminatedWorkerError:
                continue
        raise InputError(
            f"worker processes were killed {MOST_DEATHS} times, most likely for want of memory; {RESUME} and fewer "
            f"--workers than {self.workers}"
        )

    def _pass(self, run_block: RunBlock, left: dict[int, Block]) -> Iterator[tuple[int, Receipt]]:
        """Give the blocks that are left to new workers, and yield number and receipt as they end."""
        from joblib import Parallel, delayed

        parallel = Parallel(
            n_jobs=self.workers,
            backend="loky",
            return_as="generator_unordered",
            batch_size=1,
            pre_dispatch="n_jobs",
            initializer=end_with,
            initargs=(os.getpid(),),
        )
        with deaf_to_interrupts():  # workers start here, and later from threads that start here
            return parallel(delayed(_numbered)(run_block, number, block) for number, block in list(left.items()))


def _numbered(run_block: RunBlock, number: int, block: Block) -> tuple[int, Receipt]:
    return number, run_block(block)


@dataclass(frozen=True)
class Dask:
    """Run blocks on workers of dask.distributed, one thread each.

    The costliest blocks go first, few of them at a time. A block whose worker dies goes to another one.
    Workers must see the run's folder and have the packages of this process (``runner.check_worker``).

    workers    number of processes that are started here and end with the run; unused where ``scheduler`` is
               given
    scheduler  address of a running scheduler, whose workers are used instead, such as tcp://host:8786
    insist     allow more workers than this machine has use for
    dashboard  show the web page of the cluster that is started here, to every user of this machine
    """

    workers: int = 1
    scheduler: str | None = None
    insist: bool = False
    dashboard: bool = False

    def __post_init__(self) -> None:
        _check_workers(self.workers, self.insist)

    def map(self, run_block: RunBlock, blocks: Sequence[Block]) -> Iterator[Receipt]:
        """Yield the receipts of the blocks in the order in which they end.

        Raises ``InputError`` where dask is not installed, no scheduler answers, workers do not start or die,
        or their packages differ from those of this process.
        """
        if not blocks:
            return
        with self._client() as client:
            yield from _stream(client, run_block, sorted(blocks, key=lambda block: -block.cost))

    @contextmanager
    def _client(self) -> Iterator[Client]:
        try:
            from distributed import Client, LocalCluster
        except ModuleNotFoundError as error:
            raise InputError(
                'the executor dask needs dask.distributed; try: pip install -e ".[cluster]" -c requirements.lock'
            ) from error
        if self.scheduler is None:
            yield from self._of_its_own(Client, LocalCluster)
            return
        check_address(self.scheduler)
        try:
            client = Client(self.scheduler, timeout=PATIENCE, set_as_default=False)
        except Exception as error:  # each of dask's transports has errors of its own
            said = (str(error) or type(error).__name__).splitlines()[0]
            raise InputError(
                f"no dask scheduler answers at {self.scheduler} ({said}); expected an address such as "
                f"tcp://host:8786 of a running `dask scheduler`"
            ) from error
        with client:
            yield client

    def _of_its_own(self, client_of: type, cluster_of: type) -> Iterator[Client]:
        """Start a cluster that ends with the run, closed to other users of this machine.

        Its scheduler would run any code that is sent to it. So it listens on loopback only, and talks only to
        who has the certificate that was made for this run. There is no memory limit, as with joblib.
        """
        refuse_unguarded()
        own: dict[str, Any] = {
            "n_workers": self.workers,
            "threads_per_worker": 1,
            "processes": True,
            "memory_limit": 0,
            "host": "127.0.0.1",
            "protocol": "tls://",
            "security": True,
            "dashboard_address": "127.0.0.1:0" if self.dashboard else None,
            "worker_dashboard_address": None,
            # Warnings of an interrupt (tasks cancelled, workers slow to end) would bury the one line that
            # says it.
            "silence_logs": logging.ERROR,
        }
        with ExitStack() as stack:
            try:
                with deaf_to_interrupts(), _quiet_start():
                    cluster = stack.enter_context(cluster_of(**own))
                    client = stack.enter_context(client_of(cluster, set_as_default=False))
            except ImportError as error:
                raise InputError(
                    f"the executor dask makes certificates with the package cryptography ({error}); try: "
                    'pip install -e ".[cluster]" -c requirements.lock'
                ) from error
            except Exception as error:
                said = (str(error) or type(error).__name__).splitlines()[0]
                raise InputError(
                    f"dask's workers did not start ({said}): one was killed, most likely for want of memory, or the "
                    f"machine lacks processes or files; {RESUME} and fewer --workers than {self.workers}"
                ) from error
            yield client


def check_address(address: str) -> None:
    """Raise ``InputError`` if ``address`` cannot be that of a scheduler: malformed, or of an unknown host."""
    expected = "expected one such as tcp://host:8786 of a running `dask scheduler`"
    if address.startswith("inproc://"):  # a scheduler in this process has no host and no port
        return
    found = re.fullmatch(r"(?:([a-z]+)://)?(\[[0-9a-fA-F:.]+\]|[^\s/:\[\]]+):(\d{1,5})/?", address)
    if not found or found[1] not in (None, *TRANSPORTS) or not 0 < int(found[3]) < 2**16:
        raise InputError(f"--scheduler {address!r:.80} is no address; {expected}")
    try:
        socket.getaddrinfo(found[2].strip("[]"), int(found[3]))
    except (OSError, UnicodeError) as error:
        raise InputError(f"--scheduler {address}: no host of this name ({error}); {expected}") from error


def refuse_unguarded() -> None:
    """Raise ``InputError`` where new processes would run the main script anew instead of loading it.

    Processes that are spawned load the main script. What stands outside ``if __name__ == "__main__":`` runs
    in each of them, so a run that is started there would start itself again and again. The script's line that
    led to this call tells whether it is so.
    """
    main = sys.modules.get("__main__")
    path, frame = getattr(main, "__file__", None), sys._getframe()
    while frame is not None and not (frame.f_code.co_name == "<module>" and frame.f_globals is vars(main)):
        frame = frame.f_back  # type: ignore[assignment]
    if path is None or frame is None or not os.path.isfile(path):
        return  # an interpreter, a notebook, or another thread: nothing is loaded anew, or the line is not known
    try:
        tree = ast.parse(Path(path).read_text(encoding="utf-8"))
    except (SyntaxError, ValueError):
        return
    for node in tree.body:
        if node.lineno <= frame.f_lineno <= (node.end_lineno or node.lineno):
            guarded = isinstance(node, ast.If) and "__name__" in {
                name.id for name in ast.walk(node.test) if isinstance(name, ast.Name)
            }
            if not guarded:
                raise InputError(
                    f"{path}, line {frame.f_lineno}, starts processes that load this file, and would start them again "
                    'in each; put what runs under `if __name__ == "__main__":`'
                )


@contextmanager
def _quiet_start() -> Iterator[None]:
    """Silence dask while it starts: it logs a traceback for each worker that fails, and one line says it."""
    logger = logging.getLogger("distributed")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _stream(client: Client, run_block: RunBlock, blocks: Sequence[Block]) -> Iterator[Receipt]:
    """Yield receipts as blocks end, with a bounded number of blocks at the scheduler."""
    from distributed import KilledWorker, as_completed
    from distributed.client import FutureCancelledError

    waiting, running = iter(blocks), as_completed(loop=client.loop, with_results=True)
    run = secrets.token_hex(4)  # a key is never used twice, or the scheduler would answer from memory
    limit, counted = AHEAD, -COUNTED_EVERY
    try:
        while True:
            if time.monotonic() > counted + COUNTED_EVERY:
                limit, counted = max(AHEAD, AHEAD_PER_WORKER * len(client.ncores())), time.monotonic()
            for block in islice(waiting, limit - running.count()):
                running.add(client.submit(_on_worker, run_block, block, key=f"{block.name}-{run}", pure=False))
            if not running.count():
                return
            _, receipt = next(running)
            if isinstance(receipt, BaseException):  # of futures that were cancelled; errors of blocks are raised
                raise receipt
            yield receipt
    except KilledWorker as error:
        raise InputError(
            f"{str(error.task).rpartition('-')[0]} was on several workers that died, most likely for want of memory; "
            f"{RESUME} and workers with more"
        ) from error
    except (ModuleNotFoundError, RuntimeError) as error:
        missing = error if isinstance(error, ModuleNotFoundError) else error.__cause__  # of workers, of the scheduler
        if not isinstance(missing, ModuleNotFoundError):
            raise
        raise InputError(
            f"dask's scheduler or workers cannot import {missing.name}; start them in the environment of this command"
        ) from error
    except (FutureCancelledError, OSError) as error:
        logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # its tracebacks would bury the one line
        said = str(error).splitlines()[0]
        raise InputError(f"the dask scheduler is gone ({said}); {RESUME} and a scheduler that runs") from error
    finally:
        if client.status == "running":
            client.cancel(list(running.futures))


def _on_worker(run_block: RunBlock, block: Block) -> Receipt:
    """Run a block on a worker of dask, once it is checked that the worker has one thread."""
    from distributed import get_worker

    threads = get_worker().state.nthreads
    if threads != 1:
        raise InputError(
            f"a dask worker has {threads} threads; expected one thread in a process: `dask worker --nthreads 1`"
        )
    return run_block(block)


def _check_workers(workers: int, insist: bool) -> None:
    if workers < 1:
        raise InputError(f"workers = {workers}; expected at least 1")
    most = max(MOST_ANYWAY, MOST_PER_CORE * available_cores())
    if workers > most and not insist:
        raise InputError(
            f"workers = {workers}; expected at most {most} on {available_cores()} cores, as more only take memory: "
            "choose fewer, or say that you mean it (--insist; insist=True)"
        )


def executor_for(
    workers: int | None, name: str | None = None, scheduler: str | None = None, insist: bool = False
) -> Executor:
    """Return the executor that the options ``--workers``, ``--executor`` and ``--scheduler`` ask for.

    workers    number of processes; None means all cores
    name       "in-process", "joblib" or "dask"; None means joblib, and in-process where there is one worker
    scheduler  address of a running dask scheduler, with "dask" only
    insist     allow any number of workers

    Raises ``InputError`` for an unknown name, and for options that contradict each other.
    """
    if name not in (None, *NAMES):
        raise InputError(f"--executor {name}; expected one of {', '.join(NAMES)}")
    if scheduler is not None and name != "dask":
        raise InputError(f"--scheduler {scheduler} without --executor dask; expected both or neither")
    if scheduler is not None and workers is not None:
        raise InputError(f"--workers {workers} with --scheduler; how many workers it has is the scheduler's business")
    if name == "in-process" and workers not in (None, 1):
        raise InputError(f"--workers {workers} with --executor in-process; expected joblib or dask")
    count = available_cores() if workers is None else workers
    if name == "dask":
        return Dask(1 if scheduler else count, scheduler, insist)
    return InProcess() if name == "in-process" or (name is None and count == 1) else Joblib(count, insist)


def available_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

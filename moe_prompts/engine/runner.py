"""Run a study, with a progress bar.

Every line runs on its smallest data first, so that a first table can be shown; then blocks run from large to
small data.
"""

from __future__ import annotations

import platform
import shlex
import sys
import time
import traceback
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import ThreadpoolController
from tqdm import tqdm

from moe_prompts.checks import expect, flag, shown
from moe_prompts.engine.code import package_code
from moe_prompts.engine.executors import Executor, InProcess
from moe_prompts.engine.grid import Block, Part, Row, RunCell, Study
from moe_prompts.engine.lock import token_of
from moe_prompts.engine.progress import TimeLeft, clock
from moe_prompts.engine.shards import FOREIGN, SEGMENT, Shards
from moe_prompts.engine.store import RunFolder, versions
from moe_prompts.errors import InputError

#: What is done with the first rows of a run.
Look = Callable[[pd.DataFrame], None]
#: Seconds between two looks at the time left, and how many times longer than such a look itself.
EVERY, RARELY = 0.5, 50.0
#: Blocks that may raise before a run gives up.
MOST_RAISED = 100
#: Seconds of a block from which on its file is waited for until it is on the disk.
SYNCED_FROM = 0.5


@dataclass(frozen=True)
class Receipt:
    """Hold what a worker answers for a block.

    block      its name
    cost       of the block, in the units of its study
    seconds    that it took, of the clock
    processor  seconds that it took of a processor
    error      how it ended if not with rows: type and text of the exception; "" otherwise
    """

    block: str
    cost: float
    seconds: float
    processor: float
    error: str = ""


@dataclass(frozen=True)
class BlockRunner:
    """Hold what a worker needs. Called with a block, it writes the block's file and returns a ``Receipt``.

    run       the study's function
    entropy   the study's seed
    folder    of the run
    seal      of the study, which stands in the block's file
    token     of the run, which everyone who sees its folder finds there
    versions  of the packages of the main process, and the fingerprint of this package's sources
    """

    run: RunCell
    entropy: int
    folder: Path
    seal: str
    token: str | None
    versions: tuple[tuple[str, str], ...]

    def __call__(self, block: Block) -> Receipt:
        with RunFolder(self.folder).explaining_errors():  # here, since dask has errors of the system of its own
            return self._finished(block)

    def _finished(self, block: Block) -> Receipt:
        check_worker(self.folder, self.token, self.versions)
        shards = _shards(self.folder, self.seal)
        began, worked = time.perf_counter(), time.process_time()
        took = lambda: (time.perf_counter() - began, time.process_time() - worked)
        # Sums depend on how many threads share them: one, everywhere, so that results do not depend on the
        # machine.
        try:
            with _pools(len(sys.modules)).limit(limits=1):
                rows = checked_rows(self.run(block.cell, block.replicates, self.entropy), block)
            content = shards.content(block.name, rows, time.perf_counter() - began, platform.node())
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # sys.exit in a fit ends the fit, not the run
            RunFolder(self.folder).write_error(block.name, traceback.format_exc())
            return Receipt(block.name, block.cost, *took(), f"{type(error).__name__}: {error}")
        seconds, processor = took()
        # To wait for the disk costs more than to run a quick block again, should the power fail within the
        # seconds until the system writes it; its checksum then tells that it is not whole.
        shards.write(block.name, content, sync=seconds >= SYNCED_FROM)
        return Receipt(block.name, block.cost, seconds, processor)


@lru_cache(maxsize=1)
def _shards(folder: Path, seal: str) -> Shards:
    """Return the blocks of a run; what a worker knows of them does not change between two of its blocks."""
    return Shards(folder, [seal])


def checked_rows(rows: Any, block: Block) -> list[Row]:
    """Return ``rows`` as a list.

    Raises ``InputError`` if they are no dicts, or not those of all replicates of ``block``.
    """
    expected = "expected a list of dicts, at least one row for each replicate"
    if not isinstance(rows, list | tuple) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"the study's function returned no list of rows but {type(rows).__name__}; {expected}")
    if len(rows) < len(block.replicates):
        raise InputError(
            f"the study's function returned {len(rows)} rows for {len(block.replicates)} replicates; {expected}"
        )
    named = {row["replicate"] for row in rows if isinstance(row.get("replicate"), int | np.integer)}
    if named and named != set(block.replicates):
        raise InputError(
            f"the study's function returned rows of the replicates {sorted(map(int, named))} for those of "
            f"{list(block.replicates)}; {expected}"
        )
    return list(rows)


def first_look(blocks: Sequence[Block]) -> list[Block]:
    """Return the first block of every cell on the smallest data: enough for a first table, after seconds.

    The list is empty where all data are of one size. A cell of data size 0 draws no data and is left for
    later.
    """
    sizes = {block.cell.data_size for block in blocks if block.cell.data_size > 0}
    if len(sizes) < 2:
        return []
    return [block for block in blocks if block.cell.data_size == min(sizes) and block.replicates[0] == 0]


def in_turn(blocks: Sequence[Block], first: Sequence[Block]) -> list[Block]:
    """Return blocks in the order in which they run: those of ``first``, then the rest.

    Among those of ``first`` the cheap ones begin, so that every sort of cell has soon shown how fast it is.
    The rest runs from large to small data; blocks on the same data stay together, so that they can share what
    they draw.
    """
    names = {block.name for block in first}
    early = sorted((block for block in blocks if block.name in names), key=lambda block: block.cost)
    late = sorted((block for block in blocks if block.name not in names), key=lambda block: -block.cell.data_size)
    return early + late


@lru_cache(maxsize=1)
def _pools(modules: int) -> ThreadpoolController:
    """Return the thread pools of this process.

    They are looked for again when there are more modules, which may bring others.
    """
    return ThreadpoolController()


@cache
def check_worker(folder: Path, token: str | None, wanted: tuple[tuple[str, str], ...]) -> None:
    """Raise ``InputError`` unless this process sees the run's folder and has the command's packages.

    It looks once in every process.

    folder  of the run
    token   that the command wrote there
    wanted  names and versions of the command's packages
    """
    here = f"worker {platform.node()}"
    found = token_of(folder)
    if found != token:
        raise InputError(
            f"{here} does not see {folder} as this run's folder; expected one that all workers share: give --out on a "
            f"shared file system"
        )
    own = versions_here()
    differing = [
        f"{name} {own.get(name)} there, {version} here" for name, version in wanted if own.get(name) != version
    ]
    if differing:
        raise InputError(
            f"{here} has other versions ({'; '.join(differing)}); expected the same everywhere: start workers in the "
            f"environment of this command"
        )


def versions_here() -> dict[str, str]:
    """Return what workers must have in common with the command: versions and this package's sources."""
    return versions() | {"moe-prompts' sources": package_code()}


def run_study(
    study: Study,
    out: Path,
    *,
    executor: Executor | None = None,
    resume: bool = False,
    allow: Collection[str] = (),
    progress: bool = True,
    look: Look | None = None,
) -> pd.DataFrame:
    """Run what is missing of the study, write results.parquet, and return all of its rows.

    Interrupted, it leaves the finished blocks; ``resume=True`` completes them to the same table,
    bit-identical on one kind of processor.

    study     what to run
    out       folder of the run
    executor  where blocks run; in this process by default
    resume    complete the run that is in ``out``
    allow     what is refused otherwise: "code change" (rows of changed code beside those of the old, noted in
              meta.json), "clear" (remove blocks of which no meta.json says what they are), "size" (more than
              1e7 fits)
    progress  show a progress bar
    look      is called once with the rows of ``first_look``, as soon as the last of these blocks has ended

    Raises ``InputError`` where ``out`` holds another study or is in use, and at the end where blocks raised
    an error.

    >>> import tempfile
    >>> from pathlib import Path
    >>> import moe_prompts as mp
    >>> from moe_prompts.study.gaussian import gaussian_study
    >>> made = gaussian_study(sizes=[200], replicates=2, entropy=0, truths=["gmoe-1"], ks=[3])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     rows = mp.run_study(made, Path(folder) / "run", progress=False)
    >>> rows[["n", "replicate"]].values.tolist()
    [[200, 0], [200, 1]]
    """
    folder, executor = _checked_run(study, out, executor)
    resume, progress = flag(resume, "resume"), flag(progress, "progress")
    if look is not None and not callable(look):
        raise InputError(f"look = {shown(look)}; expected a function of the first rows, or None")
    with folder.explaining_errors(), folder.opened(study, resume, allow) as (shards, finished):
        _work(study, folder, shards, study.blocks, finished, executor, progress, look)
        return folder.merge(study, shards)


def run_part(
    study: Study,
    out: Path,
    part: Part,
    *,
    executor: Executor | None = None,
    resume: bool = False,
    allow: Collection[str] = (),
    progress: bool = True,
) -> int:
    """Run only the blocks of ``part``, for folders that ``gather`` puts together; return how many there are.

    The other arguments are those of ``run_study``, which writes the table once the whole is there.
    """
    folder, executor = _checked_run(study, out, executor)
    resume, progress = flag(resume, "resume"), flag(progress, "progress")
    with folder.explaining_errors(), folder.opened(study, resume, allow) as (shards, finished):
        blocks = part.chosen(study.blocks)
        _work(study, folder, shards, blocks, finished, executor, progress)
        return len(blocks)


def _checked_run(study: Study, out: Path, executor: Executor | None) -> tuple[RunFolder, Executor]:
    """Return the folder of a run and its executor, or raise ``InputError`` where a study cannot run so."""
    expect(study, Study, "study")
    if executor is not None and (isinstance(executor, type) or not callable(getattr(executor, "map", None))):
        raise InputError(f"executor = {shown(executor)}; expected one with a method map, such as Joblib(2), or None")
    return RunFolder(expect(out, (str, PathLike), "out, the folder of a run")), executor or InProcess()


def _work(
    study: Study,
    folder: RunFolder,
    shards: Shards,
    blocks: Sequence[Block],
    finished: set[str],
    executor: Executor,
    progress: bool,
    look: Look | None = None,
) -> None:
    """Run what is missing of ``blocks``."""
    for path in shards.set_aside:
        what = "of another study" if path.name.endswith(FOREIGN) else "damaged"
        print(f"{path}: {what} and set aside; its blocks are run again", file=sys.stderr)
    shards.set_aside.clear()
    first = first_look(blocks)
    missing = in_turn([block for block in blocks if block.name not in finished], first)
    waited_for = {block.name for block in first} - finished
    left = TimeLeft(missing, getattr(executor, "workers", 1))
    runner = BlockRunner(
        study.run,
        study.entropy,
        folder.path.resolve(),
        shards.seals[-1],
        token_of(folder.path),
        tuple(versions_here().items()),
    )
    alone, raised = shards.alone, []
    due = 0.0
    bar_format = "{desc} {percentage:3.0f}%|{bar}| {elapsed} done{postfix}"
    with tqdm(total=1.0, desc=study.name, bar_format=bar_format, disable=not progress) as bar:
        for receipt in executor.map(runner, missing):
            left.end(receipt.block, receipt.seconds, receipt.processor)
            if (now := time.perf_counter()) >= due or not left.waiting:
                bar.set_postfix_str(f"about {clock(left.seconds)} left", refresh=False)
                bar.update(left.share - bar.n)
                # To expect takes as long as there are blocks: seldom enough that a million of them do not
                # notice.
                due = now + max(EVERY, RARELY * (time.perf_counter() - now))
            if receipt.error:
                raised.append(receipt)
                if len(raised) == MOST_RAISED:
                    break
            else:
                alone.append(receipt.block)
            if len(alone) >= SEGMENT:
                shards.compact(alone)
                alone = []
            if receipt.block in waited_for:
                waited_for.discard(receipt.block)
                if not waited_for and not raised and look is not None:
                    with tqdm.external_write_mode():
                        look(folder.read(shards, [block.name for block in first]))
    if raised:
        first, more = raised[0], f" and {len(raised) - 3} more" if len(raised) > 3 else ""
        raise InputError(
            f"{len(raised)} of {len(missing)} blocks raised an error: {', '.join(one.block for one in raised[:3])}"
            f"{more}; the first {first.error}. Tracebacks are in {folder.errors}, all other blocks are kept: mend the "
            f"cause and repeat the command with --out {shlex.quote(str(folder.path))} --resume"
        )

"""Run a study: blocks on the largest data first, each drawn, fitted and written where it runs, with a progress bar."""

from __future__ import annotations

import platform
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import pandas as pd
from threadpoolctl import ThreadpoolController
from tqdm import tqdm

from moe_prompts.engine.executors import Executor, InProcess
from moe_prompts.engine.grid import Block, Part, RunCell, Study
from moe_prompts.engine.lock import token_of
from moe_prompts.engine.shards import SEGMENT
from moe_prompts.engine.store import RunFolder, versions
from moe_prompts.errors import InputError

#: Blocks that may raise before a run gives up.
MOST_RAISED = 100


@dataclass(frozen=True)
class Receipt:
    """Of a block: its cost, and how it ended if not with rows."""

    block: str
    cost: float
    error: str = ""


@dataclass(frozen=True)
class BlockRunner:
    """What a worker needs. Called with a block, it writes the block's shard and returns a receipt.

    token     of the run, found in its folder by everyone who sees it
    versions  of the packages of the main process
    """

    run: RunCell
    entropy: int
    folder: Path
    token: str | None
    versions: tuple[tuple[str, str], ...]

    def __call__(self, block: Block) -> Receipt:
        check_worker(self.folder, self.token, self.versions)
        folder = RunFolder(self.folder)
        began = time.perf_counter()
        # Sums depend on how many threads share them: one, everywhere, so that results do not depend on the machine.
        try:
            with _pools(len(sys.modules)).limit(limits=1):
                rows = self.run(block.cell, block.replicates, self.entropy)
        except Exception as error:
            folder.write_error(block.name, traceback.format_exc())
            return Receipt(block.name, block.cost, f"{type(error).__name__}: {error}")
        folder.shards.write(block.name, rows, time.perf_counter() - began, platform.node())
        return Receipt(block.name, block.cost)


@lru_cache(maxsize=1)
def _pools(modules: int) -> ThreadpoolController:
    """The thread pools of this process; looked for again when there are more modules, which may bring others."""
    return ThreadpoolController()


@cache
def check_worker(folder: Path, token: str | None, wanted: tuple[tuple[str, str], ...]) -> None:
    """Once in every process: it must see the run's folder, the very one, and have the same packages."""
    here = f"worker {platform.node()}"
    found = token_of(folder)
    if found != token:
        raise InputError(
            f"{here} does not see {folder} as this run's folder; expected one that all workers share: give --out on a "
            f"shared file system"
        )
    own = versions()
    differing = [
        f"{name} {own.get(name)} there, {version} here" for name, version in wanted if own.get(name) != version
    ]
    if differing:
        raise InputError(
            f"{here} has other versions ({'; '.join(differing)}); expected the same everywhere: start workers in the "
            f"environment of this command"
        )


def run_study(
    study: Study, out: Path, *, executor: Executor | None = None, resume: bool = False, progress: bool = True
) -> pd.DataFrame:
    """All rows of the study, from ``out`` where blocks are finished there; writes results.parquet and returns it.

    Interrupted, it leaves the finished blocks; ``resume=True`` completes them to the identical table.
    """
    folder = RunFolder(out)
    with folder.opened(study, resume) as finished:
        _work(study, folder, study.blocks, finished, executor or InProcess(), progress)
        return folder.merge(study)


def run_part(
    study: Study,
    out: Path,
    part: Part,
    *,
    executor: Executor | None = None,
    resume: bool = False,
    progress: bool = True,
) -> int:
    """Only the blocks of ``part``, for folders that ``gather`` puts together; returns how many there are.

    A table is written by ``run_study`` on the whole alone.
    """
    folder = RunFolder(out)
    with folder.opened(study, resume) as finished:
        blocks = part.chosen(study.blocks)
        _work(study, folder, blocks, finished, executor or InProcess(), progress)
        return len(blocks)


def _work(
    study: Study, folder: RunFolder, blocks: Sequence[Block], finished: set[str], executor: Executor, progress: bool
) -> None:
    """Run what is missing of ``blocks``."""
    for path in folder.shards.set_aside:
        print(f"{path}: damaged and set aside; its blocks are run again", file=sys.stderr)
    missing = sorted((block for block in blocks if block.name not in finished), key=lambda block: -block.cell.data_size)
    total = sum(block.cost for block in blocks)
    done = sum(block.cost for block in blocks if block.name in finished)
    runner = BlockRunner(
        study.run, study.entropy, folder.path.resolve(), token_of(folder.path), tuple(versions().items())
    )
    alone, raised = folder.shards.alone, []
    bar_format = "{desc} {percentage:3.0f}%|{bar}| {elapsed} done, about {remaining} left"
    with tqdm(total=total, initial=done, desc=study.name, bar_format=bar_format, disable=not progress) as bar:
        for receipt in executor.map(runner, missing):
            bar.update(min(receipt.cost, total - bar.n))  # sums of costs round
            if receipt.error:
                raised.append(receipt)
                if len(raised) == MOST_RAISED:
                    break
            else:
                alone.append(receipt.block)
            if len(alone) >= SEGMENT:
                folder.shards.compact(alone)
                alone = []
    if raised:
        first, more = raised[0], f" and {len(raised) - 3} more" if len(raised) > 3 else ""
        raise InputError(
            f"{len(raised)} of {len(missing)} blocks raised an error: {', '.join(one.block for one in raised[:3])}"
            f"{more}; the first {first.error}. Tracebacks are in {folder.errors}, all other blocks are kept: mend the "
            f"cause and repeat the command with --out {folder.path} --resume"
        )

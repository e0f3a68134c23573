"""Run a study: blocks on the largest data first, each drawn, fitted and written where it runs, with a progress bar."""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from moe_prompts.study.executors import Executor, InProcess
from moe_prompts.study.grid import Block, RunCell, Study
from moe_prompts.study.store import RunFolder


@dataclass(frozen=True)
class BlockRunner:
    """What a worker needs. Called with a block, it writes the block's shard and returns its cost as the receipt."""

    run: RunCell
    entropy: int
    folder: RunFolder

    def __call__(self, block: Block) -> float:
        began = time.perf_counter()
        # Sums depend on how many threads share them: one, everywhere, so that results do not depend on the machine.
        with threadpool_limits(limits=1):
            rows = self.run(block.cell, block.replicates, self.entropy)
        timing = {"block": block.name, "seconds": time.perf_counter() - began, "host": platform.node()}
        self.folder.write_block(block.name, rows, timing)
        return block.cost


def run_study(
    study: Study, out: Path, *, executor: Executor | None = None, resume: bool = False, progress: bool = True
) -> pd.DataFrame:
    """All rows of the study, from ``out`` where blocks are finished there; writes results.parquet and returns it.

    Interrupted, it leaves the finished blocks; ``resume=True`` completes them to the identical table.
    """
    executor = executor or InProcess()
    folder = RunFolder(out)
    folder.open(study, resume)
    finished = folder.finished(study)
    blocks = study.blocks
    missing = sorted((block for block in blocks if block.name not in finished), key=lambda block: -block.cell.data_size)
    total = sum(block.cost for block in blocks)
    done = total - sum(block.cost for block in missing)
    bar_format = "{desc} {percentage:3.0f}%|{bar}| {elapsed} done, about {remaining} left"
    with tqdm(total=total, initial=done, desc=study.name, bar_format=bar_format, disable=not progress) as bar:
        runner = BlockRunner(study.run, study.entropy, folder)
        for cost in executor.map(runner, missing):
            bar.update(cost)
    return folder.merge(study).to_pandas()

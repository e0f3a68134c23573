"""Who runs the blocks: a value with one method, ``map(run_block, blocks)``, that yields receipts as blocks finish."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from moe_prompts.errors import InputError
from moe_prompts.study.grid import Block

Receipt = Any
RunBlock = Callable[[Block], Receipt]


class Executor(Protocol):
    def map(self, run_block: RunBlock, blocks: Sequence[Block]) -> Iterable[Receipt]: ...


@dataclass(frozen=True)
class InProcess:
    """One block after the other, here."""

    def map(self, run_block: RunBlock, blocks: Sequence[Block]) -> Iterator[Receipt]:
        return map(run_block, blocks)


@dataclass(frozen=True)
class Joblib:
    """``workers`` processes, one thread each; receipts come in the order in which blocks end."""

    workers: int

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise InputError(f"workers = {self.workers}; expected at least 1")

    def map(self, run_block: RunBlock, blocks: Sequence[Block]) -> Iterator[Receipt]:
        from joblib import Parallel, delayed

        parallel = Parallel(
            n_jobs=self.workers,
            backend="loky",
            return_as="generator_unordered",
            batch_size=1,
            pre_dispatch="n_jobs",
        )
        return parallel(delayed(run_block)(block) for block in blocks)


def executor_for(workers: int) -> Executor:
    return InProcess() if workers == 1 else Joblib(workers)


def available_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

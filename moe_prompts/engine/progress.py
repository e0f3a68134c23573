"""Estimate how long a run will take from how long its blocks took.

A study's table of costs is a guess. A block of cost c is expected to take

    c * speed * line * size   seconds of a processor,   and   slowness   times as many of the clock.

``speed`` belongs to the sort of cell; ``line`` and ``size`` are factors of what the cell fits and of its data
size. They are learned from the blocks that have ended. A few blocks move a factor little, and the factor of a
size that has not run yet lies between those of its neighbours. ``slowness`` is that of the last blocks. Where
other programs wanted the processors and no longer do, seconds of a processor stay much the same, and only
those of the clock were too many.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from math import exp, log
from typing import Any

import numpy as np

from moe_prompts.engine.grid import Block

#: A factor of a line or a size counts as much as so many blocks that took what the table says.
PRIOR = 0.25
#: The last blocks are those of this share of all seconds, and at least of so many seconds.
RECENT, RECENT_SECONDS = 0.1, 15.0
SWEEPS = 5
#: Seconds below which a block counts as this long.
SHORTEST = 1e-4

Sort = tuple[str, str, int]


def sort_of(block: Block) -> Sort:
    """Return what alike blocks have in common: type of cell, line and data size.

    The line is the cell's label without the data size.
    """
    cell = block.cell
    return type(cell).__name__, re.sub(r"_n\d+$", "", cell.label), cell.data_size


class TimeLeft:
    """Estimate how long the ``missing`` blocks take on ``workers`` processes."""

    def __init__(self, missing: Sequence[Block], workers: int = 1) -> None:
        self.workers = max(workers, 1)
        self.waiting = {block.name: (sort_of(block), block.cost) for block in missing}
        self.ended: list[tuple[Sort, float, float, float]] = []

    def end(self, name: str, seconds: float, processor: float) -> None:
        """Note that the block ``name`` ended after so many seconds of the clock, and of a processor."""
        sort, cost = self.waiting.pop(name)
        self.ended.append((sort, cost, seconds, processor))

    @property
    def seconds(self) -> float:
        """Return the expected time to the end of the run, in seconds.

        It assumes that workers end together, unless the longest block alone takes more.
        """
        together, longest = self._work_left()
        return self._slowness() * max(together / self.workers, longest)

    @property
    def share(self) -> float:
        """Return the share of the work that is done, between 0 and 1."""
        if not self.waiting:
            return 1.0
        done = sum(processor for *_, processor in self.ended)
        return done / (done + self._work_left()[0]) if done > 0 else 0.0

    def _work_left(self) -> tuple[float, float]:
        """Return the seconds of a processor expected for all waiting blocks, and for the longest of them."""
        if not self.ended or not self.waiting:
            return 0.0, 0.0
        expected = self._expected()
        each = [cost * expected(sort) for sort, cost in self.waiting.values()]
        return sum(each), max(each)

    def _expected(self) -> Callable[[Sort], float]:
        """Return a function that gives, for a sort of blocks, the expected seconds of a processor per cost.

        The model is additive in logarithms: log(seconds / cost) = speed of the kind of cell + line + size.
        Line and size are fitted in turn, each to what the other leaves; ``SWEEPS`` rounds are enough for a
        guess.
        """
        cells: dict[Sort, list[float]] = defaultdict(list)
        for sort, cost, _, processor in self.ended:
            cells[sort].append(log(max(processor, SHORTEST) / cost))
        means = {sort: (sum(logs) / len(logs), len(logs)) for sort, logs in cells.items()}
        of_kind: dict[str, list[float]] = defaultdict(list)
        for sort, logs in cells.items():
            of_kind[sort[0]] += logs
        speed = {kind: sum(logs) / len(logs) for kind, logs in of_kind.items()}
        overall = sum(map(sum, of_kind.values())) / len(self.ended)
        line: dict[tuple[str, str], float] = defaultdict(float)
        size: dict[tuple[str, int], float] = defaultdict(float)
        for _ in range(SWEEPS):
            line = _factors(
                (sort[:2], mean - speed[sort[0]] - size[sort[0], sort[2]], n) for sort, (mean, n) in means.items()
            )
            size = _factors(
                ((sort[0], sort[2]), mean - speed[sort[0]] - line[sort[:2]], n) for sort, (mean, n) in means.items()
            )
        # A size that has not run yet is placed between its neighbours on the logarithmic scale.
        seen = {kind: sorted((log(n + 1), factor) for (of, n), factor in size.items() if of == kind) for kind in speed}

        def expected(sort: Sort) -> float:
            kind, _, n = sort
            if kind not in speed:
                return exp(overall)
            return exp(speed[kind] + line[sort[:2]] + float(np.interp(log(n + 1), *np.transpose(seen[kind]))))

        return expected

    def _slowness(self) -> float:
        """Return how many seconds of the clock the last blocks took for each second of a processor."""
        enough = max(RECENT * sum(seconds for _, _, seconds, _ in self.ended), RECENT_SECONDS)
        clock, processor = 0.0, 0.0
        for _, _, s, p in reversed(self.ended):
            clock, processor = clock + s, processor + p
            if clock >= enough:
                break
        return _ratio(clock, processor)


def _factors(rests: Iterable[tuple[Any, float, int]]) -> dict[Any, float]:
    """Return the mean of what is left in each group, drawn to 0 where few blocks speak."""
    total: dict[Any, float] = defaultdict(float)
    count: dict[Any, float] = defaultdict(lambda: PRIOR)
    for key, rest, n in rests:
        total[key] += n * rest
        count[key] += n
    return defaultdict(float, {key: total[key] / count[key] for key in total})


def _ratio(above: float, below: float) -> float:
    """Return a ratio, and 1 where there is nothing to divide."""
    return above / below if above > 0 and below > 0 else 1.0


def clock(seconds: float) -> str:
    """Return seconds as minutes and seconds, such as 2:31, or 1:02:31 from an hour on.

    >>> clock(151.2)
    '2:31'
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"

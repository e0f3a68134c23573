"""Search for a global maximum in stages.

All starts climb a subsample, the best distinct summits go on to more data, and the best certified one is
returned. Every model's search shares this. A certificate is about a local maximum only. A global maximum is
sought by several starts, and the share of starts whose path ended on the best summit says how often it was
found.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from moe_prompts.checks import settings
from moe_prompts.estimators.result import FitResult, SearchResult

#: Paths that end within this many nats of each other on the same data count as one summit.
SAME_SUMMIT = 1e-3
#: A fit and the number of starts that led to it.
Summit = tuple[FitResult, int]


@dataclass(frozen=True)
class Stages:
    """Say how many starts, points and rescues a search spends.

    first_stage  number of pairs on which all starts climb first; at least 1
    finalists    how many distinct summits go on to the next stage; at least 1
    rescues      how many further starts are tried, one at a time, while no summit has been certified; at
                 least 0

    Raises ``InputError`` where a number is below its bound.
    """

    first_stage: int = 5_000
    finalists: int = 2
    rescues: int = 4

    def __post_init__(self) -> None:
        settings(self, first_stage=1, finalists=1, rescues=0)


def searched(
    summits: Callable[[list[Any]], list[Summit]], draw: Callable[[int], Any], count: int, rescues: int
) -> SearchResult:
    """Return the best summit of ``count`` starts, and of up to ``rescues`` more while none is certified.

    summits  climbs from a list of starts and returns the distinct summits, best first
    draw     returns the start with the given number, 0, 1, ...
    count    how many starts climb together
    rescues  how many further starts may follow, one at a time

    Returns the best fit, the number of starts tried, and the share of them whose path ended on the best fit.
    """
    found = summits([draw(number) for number in range(count)])
    tried = count
    # A search that certified nothing has found no answer yet, so it goes on; one start at a time, since the
    # first that is certified ends it.
    while not found[0][0].certified and tried < count + rescues:
        found = distinct(found + summits([draw(tried)]))
        tried += 1
    best, votes = found[0]
    return SearchResult(best, tried, votes / tried)


def distinct(fits: list[Summit]) -> list[Summit]:
    """Return the distinct summits of ``fits``: certified ones first, then by log-likelihood.

    Certified fits within ``SAME_SUMMIT`` nats of each other are one summit, and their votes are added. Fits
    without a certificate are never merged: two paths that stopped early may stop at the same height on
    different slopes.
    """
    order = sorted(fits, key=lambda pair: (not pair[0].certified, -np.nan_to_num(pair[0].log_likelihood, nan=-np.inf)))
    summits: list[Summit] = []
    for fit, votes in order:
        for index, (other, have) in enumerate(summits):
            if fit.certified and other.certified and abs(fit.log_likelihood - other.log_likelihood) <= SAME_SUMMIT:
                summits[index] = (other, have + votes)
                break
        else:
            summits.append((fit, votes))
    return summits

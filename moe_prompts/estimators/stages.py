"""A search in stages: starts climb a subsample, the best distinct summits go on, the best certified one is returned.

What the searches of all models share. A certificate is of a local maximum; several starts are how a global one is
sought, and the share of starts whose path ended on the best says how often it was found.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from moe_prompts.errors import InputError
from moe_prompts.estimators.result import FitResult, SearchResult

#: Paths that end within this many nats of each other on the same data count as one summit.
SAME_SUMMIT = 1e-3
#: A fit and the number of starts that led to it.
Summit = tuple[FitResult, int]


@dataclass(frozen=True)
class Stages:
    """first_stage     pairs on which all starts climb
    finalists       distinct summits that go on to the next stage
    rescues         further starts, one at a time, while none has been certified
    """

    first_stage: int = 5_000
    finalists: int = 2
    rescues: int = 4

    def __post_init__(self) -> None:
        if self.first_stage < 1 or self.finalists < 1 or self.rescues < 0:
            raise InputError(
                f"{type(self).__name__}: first_stage = {self.first_stage}, finalists = {self.finalists}, rescues = "
                f"{self.rescues}; expected >= 1, >= 1 and >= 0"
            )


def searched(
    summits: Callable[[list[Any]], list[Summit]], draw: Callable[[int], Any], count: int, rescues: int
) -> SearchResult:
    """The first of the summits of ``count`` draws; of further draws too, one at a time, while none is certified."""
    found = summits([draw(number) for number in range(count)])
    tried = count
    while not found[0][0].certified and tried < count + rescues:
        found = distinct(found + summits([draw(tried)]))
        tried += 1
    best, votes = found[0]
    return SearchResult(best, tried, votes / tried)


def distinct(fits: list[Summit]) -> list[Summit]:
    """Summits, certified ones first, then by likelihood; votes of paths that met are added."""
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

"""The best of several starts: screened on a subsample, finished on all the data, with the share that agrees.

A certificate is of a local maximum. Where the global one is meant, several starts climb a subsample first (it is cheap
and an exact local maximum there), the best distinct summits go on to all the data, and the best certified one is
returned with the share of starts whose path ended on it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from moe_prompts.errors import InputError
from moe_prompts.estimators.gaussian.compression import RESOLUTION
from moe_prompts.estimators.gaussian.moments import Scale
from moe_prompts.estimators.gaussian.newton import NewtonOptions, climb, compressed, finish, newton
from moe_prompts.estimators.gaussian.starts import Start
from moe_prompts.estimators.gaussian.streaming import passes_of
from moe_prompts.estimators.result import FitResult, SearchResult
from moe_prompts.models.data import Data
from moe_prompts.models.gaussian_gated import GaussianGatedFamily, GaussianGatedMoE

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


@dataclass(frozen=True)
class SearchOptions(Stages):
    """As ``Stages``; ``newton``: here atoms stay as wide as ``RESOLUTION``. From data, narrower ones are spurious
    maxima on a handful of points, outside the compact parameter space of the theory."""

    newton: NewtonOptions = field(default_factory=lambda: NewtonOptions(min_eigenvalue=RESOLUTION**2))


def best_of(
    family: GaussianGatedFamily,
    sample: Data,
    start: Start,
    rng_of: Callable[[int], np.random.Generator],
    options: SearchOptions | None = None,
) -> SearchResult:
    """Certified maximum likelihood from ``start.count`` draws, draw i with the generator ``rng_of(i)``.

    A single draw climbs all the data at once and is not rescued: it asks for the maximum next to that start.
    """
    options = options or SearchOptions()
    family.check_sample(sample)
    Scale.of(sample, None)  # a constant column is refused before a start trips over it
    draw = lambda number: start.draw(family, sample, rng_of(number))
    if start.count == 1:
        return SearchResult(newton(family, sample, draw(0), options.newton), 1, 1.0)
    layout = lambda data: passes_of(family, data, min_eigenvalue=options.newton.min_eigenvalue)
    few = layout(sample.head(options.first_stage)) if sample.n >= 2 * options.first_stage else None
    full, short = layout(sample), compressed(family, sample, options.newton)

    def summits(starts: list[GaussianGatedMoE]) -> list[Summit]:
        """On all the data, certified ones first; of the compressed summits only the best that holds is finished."""
        paths = [(params, 1) for params in starts]
        if few is not None:
            first = distinct([(climb(few, params, options.newton), votes) for params, votes in paths])
            paths = [(fit.value, votes) for fit, votes in first[: options.finalists]]
        if short is None:
            return distinct([(climb(full, params, options.newton), votes) for params, votes in paths])
        finished = []
        for rough, votes in distinct([(climb(short, params, options.newton), votes) for params, votes in paths]):
            finished.append((finish(full, rough, rough.value, options.newton), votes))
            if finished[-1][0].certified:
                break
        return distinct(finished)

    return searched(summits, draw, start.count, options.rescues)


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

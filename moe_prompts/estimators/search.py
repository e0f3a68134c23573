"""The best of several starts: screened on a subsample, finished on all the data, with the share that agrees.

A certificate is of a local maximum. Where the global one is meant, several starts climb a subsample first (it is cheap
and an exact local maximum there), the best distinct summits go on to all the data, and the best certified one is
returned with the share of starts whose path ended on it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moe_prompts.errors import InputError
from moe_prompts.estimators.compression import RESOLUTION
from moe_prompts.estimators.moments import DataPasses
from moe_prompts.estimators.newton import NewtonOptions, climb, compressed, finish, newton
from moe_prompts.estimators.result import FitResult
from moe_prompts.estimators.starts import Start
from moe_prompts.models.gaussian_gated import GaussianGatedFamily, Sample

#: Paths that end within this many nats of each other on the same data count as one summit.
SAME_SUMMIT = 1e-3


@dataclass(frozen=True)
class SearchOptions:
    """first_stage     pairs on which all starts climb
    finalists       distinct summits that go on to the next stage
    newton          here atoms stay as wide as ``RESOLUTION``: from data, narrower ones are spurious maxima on a handful
                    of points, outside the compact parameter space of the theory
    """

    first_stage: int = 5_000
    finalists: int = 2
    newton: NewtonOptions = NewtonOptions(min_eigenvalue=RESOLUTION**2)

    def __post_init__(self) -> None:
        if self.first_stage < 1 or self.finalists < 1:
            raise InputError(
                f"SearchOptions: first_stage = {self.first_stage}, finalists = {self.finalists}; expected both >= 1"
            )


@dataclass(frozen=True)
class SearchResult:
    """``best`` fit on all the data; ``starts`` how many began; ``share`` of them whose path ended on ``best``."""

    best: FitResult
    starts: int
    share: float


def best_of(
    family: GaussianGatedFamily,
    sample: Sample,
    start: Start,
    rngs: list[np.random.Generator],
    options: SearchOptions | None = None,
) -> SearchResult:
    """Certified maximum likelihood from ``len(rngs)`` draws of ``start``; one draw climbs the full data at once."""
    options = options or SearchOptions()
    if not rngs:
        raise InputError("best_of: no random generators; expected one for each start")
    draws = [start.draw(family, sample, rng) for rng in rngs]
    if len(draws) == 1:
        return SearchResult(newton(family, sample, draws[0], options.newton), 1, 1.0)
    layout = lambda data: DataPasses(family, data, min_eigenvalue=options.newton.min_eigenvalue)
    paths = [(params, 1) for params in draws]
    if sample.n >= 2 * options.first_stage:
        few = layout(sample.head(options.first_stage))
        summits = _distinct([(climb(few, params, options.newton), votes) for params, votes in paths])
        paths = [(fit.value, votes) for fit, votes in summits[: options.finalists]]
    full, short = layout(sample), compressed(family, sample, options.newton)
    if short is None:
        best, votes = _distinct([(climb(full, params, options.newton), votes) for params, votes in paths])[0]
    else:
        tries = []
        for rough, votes in _distinct([(climb(short, params, options.newton), votes) for params, votes in paths]):
            tries.append((finish(full, rough, rough.value, options.newton), votes))
            if tries[-1][0].certified:
                break
        best, votes = _distinct(tries)[0]
    return SearchResult(best, len(rngs), votes / len(rngs))


def _distinct(fits: list[tuple[FitResult, int]]) -> list[tuple[FitResult, int]]:
    """Summits, certified ones first, then by likelihood; votes of paths that met are added."""
    order = sorted(fits, key=lambda pair: (not pair[0].certified, -np.nan_to_num(pair[0].log_likelihood, nan=-np.inf)))
    summits: list[tuple[FitResult, int]] = []
    for fit, votes in order:
        for index, (other, have) in enumerate(summits):
            if fit.certified and other.certified and abs(fit.log_likelihood - other.log_likelihood) <= SAME_SUMMIT:
                summits[index] = (other, have + votes)
                break
        else:
            summits.append((fit, votes))
    return summits

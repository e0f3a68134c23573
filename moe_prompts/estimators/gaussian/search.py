"""The best of several starts: screened on a subsample, finished on all the data, with the share that agrees.

A certificate is of a local maximum. Where the global one is meant, several starts climb a subsample first (it is cheap
and an exact local maximum there), the best distinct summits go on to all the data, and the best certified one is
returned with the share of starts whose path ended on it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from moe_prompts.estimators.gaussian.compression import RESOLUTION
from moe_prompts.estimators.gaussian.moments import Scale
from moe_prompts.estimators.gaussian.newton import NewtonOptions, climb, compressed, finish, newton
from moe_prompts.estimators.gaussian.starts import Start
from moe_prompts.estimators.gaussian.streaming import passes_of
from moe_prompts.estimators.result import SearchResult
from moe_prompts.estimators.stages import Stages, Summit, distinct, searched
from moe_prompts.models.data import Data
from moe_prompts.models.gaussian_gated import GaussianGatedFamily, GaussianGatedMoE


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

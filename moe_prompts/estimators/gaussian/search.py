"""Find the best of several Gaussian-gated fits, screened on a subsample and finished on all the data.

A certificate is about a local maximum. Where the global one is meant, several starts climb a subsample first,
which is cheap and ends in an exact local maximum there. The best distinct summits go on to all the data, and
the best certified one is returned with the share of starts whose path ended on it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from moe_prompts.checks import expect, generator, generators, given, settings
from moe_prompts.errors import InputError
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
    """Set how a search spends its effort: the numbers of ``Stages``, and how each fit climbs.

    first_stage, finalists, rescues
            pairs, summits and further starts that the search spends, as ``Stages`` says
    newton  options of each climb; here atoms stay as wide as ``RESOLUTION``, since narrower ones are, from
            data, spurious maxima on a handful of points, outside the compact parameter space of the theory

    >>> import moe_prompts as mp
    >>> mp.SearchOptions(newton=mp.NewtonOptions(max_iterations=50)).newton.max_iterations
    50
    """

    newton: NewtonOptions = field(default_factory=lambda: NewtonOptions(min_eigenvalue=RESOLUTION**2))

    def __post_init__(self) -> None:
        super().__post_init__()
        settings(self, newton=NewtonOptions)


def best_of(
    family: GaussianGatedFamily,
    sample: Data,
    start: Start,
    rng_of: Callable[[int], np.random.Generator],
    options: SearchOptions | None = None,
) -> SearchResult:
    """Return the best certified Gaussian-gated fit of several starts.

    family   what the model may be: dimensions, number of atoms, ties, frozen atoms
    sample   pairs x (n, d), y (n, l), held in memory or streamed
    start    where fits begin and how many do, such as ``mp.starts.data(8)``
    rng_of   returns the generator of start i, so that a start does not depend on the others
    options  stages and guards; ``SearchOptions()`` by default

    Returns the best fit, the number of starts tried and the share that ended on it. A single start climbs all
    the data at once and is not rescued: it asks for the maximum next to that start.

    Raises ``InputError`` where the sample does not fit the family, or where a column of it is constant.

    >>> import numpy as np
    >>> import moe_prompts as mp
    >>> data = mp.sample("gmoe-1", n=500, seed=0)
    >>> rng_of = lambda i: np.random.default_rng([0, i])
    >>> found = mp.best_of(mp.truth("gmoe-1").family, data, mp.starts.data(4), rng_of)
    >>> found.best.certified, found.starts
    (True, 4)
    """
    options = given(options, SearchOptions, "best_of: options")
    expect(family, GaussianGatedFamily, "best_of: family")
    if not callable(getattr(start, "draw", None)):
        raise InputError(f"best_of: start = {start!r}; expected one of starts, as starts.data(4)")
    generators(rng_of, "best_of")
    family.check_sample(sample)
    Scale.of(sample, None)  # a constant column is refused before a start trips over it
    draw = lambda number: start.draw(family, sample, generator(rng_of(number), "best_of"))
    if start.count == 1:
        return SearchResult(newton(family, sample, draw(0), options.newton), 1, 1.0)
    layout = lambda data: passes_of(family, data, min_eigenvalue=options.newton.min_eigenvalue)
    few = layout(sample.head(options.first_stage)) if sample.n >= 2 * options.first_stage else None
    full, short = layout(sample), compressed(family, sample, options.newton)

    def summits(starts: list[GaussianGatedMoE]) -> list[Summit]:
        """Return the summits on all the data, certified ones first.

        Of the compressed summits only the best that holds on the data is finished.
        """
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

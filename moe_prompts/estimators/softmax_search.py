"""The best of several starts of softmax gates, in the stages of ``search``: a thinned sample first, then all the data.

From data most summits are spurious: an atom on a handful of points, or a gate that separates. Wider guards than those
beside the truth keep climbs in the compact parameter space of the theory, and certified fits go first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from moe_prompts.errors import InputError
from moe_prompts.estimators.compression import RESOLUTION
from moe_prompts.estimators.result import SearchResult
from moe_prompts.estimators.search import Stages, Summit, distinct, searched
from moe_prompts.estimators.softmax import SoftmaxLikelihood, SoftmaxOptions, softmax_climb
from moe_prompts.estimators.softmax_starts import data_start, split_start
from moe_prompts.models.data import Sample
from moe_prompts.models.softmax_gated import SoftmaxGatedFamily, SoftmaxGatedMoE

#: From data an atom must explain at least this many points.
POINTS_FROM_DATA = 20.0


@dataclass(frozen=True)
class SoftmaxSearchOptions(Stages):
    """As ``Stages``; ``newton``: here with the guards that starts from data need."""

    newton: SoftmaxOptions = field(
        default_factory=lambda: SoftmaxOptions(min_points=POINTS_FROM_DATA, min_noise_sd=RESOLUTION)
    )


def softmax_best_of(
    family: SoftmaxGatedFamily,
    sample: Sample,
    draw: Callable[[np.random.Generator], SoftmaxGatedMoE],
    count: int,
    rng_of: Callable[[int], np.random.Generator],
    options: SoftmaxSearchOptions | None = None,
) -> SearchResult:
    """Certified maximum likelihood from ``count`` draws of a start, draw i with the generator ``rng_of(i)``.

    A single draw climbs all the data at once and is not rescued: it asks for the maximum next to that start.
    """
    if count < 1:
        raise InputError(f"softmax_best_of: count = {count}; expected at least 1 start")
    options = options or SoftmaxSearchOptions()
    layout = lambda data: SoftmaxLikelihood(family, data, options.newton.min_points, options.newton.min_noise_sd)
    full = layout(sample)
    few = layout(sample.thinned(options.first_stage)) if sample.n >= 2 * options.first_stage else None
    if count == 1:
        return SearchResult(softmax_climb(full, draw(rng_of(0)), options.newton), 1, 1.0)

    def summits(starts: list[SoftmaxGatedMoE]) -> list[Summit]:
        """On all the data, certified ones first."""
        paths = [(params, 1) for params in starts]
        if few is not None:
            first = distinct([(softmax_climb(few, params, options.newton), votes) for params, votes in paths])
            paths = [(fit.value, votes) for fit, votes in first[: options.finalists]]
        return distinct([(softmax_climb(full, params, options.newton), votes) for params, votes in paths])

    return searched(summits, lambda number: draw(rng_of(number)), count, options.rescues)


def softmax_from_data(
    sample: Sample,
    k: int,
    count: int,
    rng_of: Callable[[int, int], np.random.Generator],
    options: SoftmaxSearchOptions | None = None,
) -> SearchResult:
    """Certified maximum likelihood with ``k`` atoms, knowing the data only; draw i of j atoms has ``rng_of(j, i)``.

    Up to two atoms start from clusters. More start from the best fit with one atom less, a random atom split in two:
    from clusters, surplus atoms cut a line in pieces, and gates between pieces of one line separate.
    """
    family = SoftmaxGatedFamily(sample.x.shape[1], k)
    if k <= 2:
        draw = lambda rng: data_start(sample, k, rng)
    else:
        smaller = softmax_from_data(sample, k - 1, count, rng_of, options).best.value
        draw = lambda rng: split_start(smaller, sample, rng)
    return softmax_best_of(family, sample, draw, count, lambda number: rng_of(k, number), options)

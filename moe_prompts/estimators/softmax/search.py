"""The best of several starts of softmax gates, in the stages of ``search``: thinned samples first, then all the data.

From data most summits are spurious: an atom on a needle of points, or a gate that separates. A wider guard than beside
the truth keeps climbs in the compact parameter space of the theory, surplus atoms begin as halves of others, and
certified fits go first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from moe_prompts.errors import InputError
from moe_prompts.estimators.result import SearchResult
from moe_prompts.estimators.softmax.likelihood import SoftmaxLikelihood, SoftmaxOptions, softmax_climb
from moe_prompts.estimators.softmax.starts import data_start, split_start
from moe_prompts.estimators.stages import Stages, Summit, distinct, searched
from moe_prompts.models.data import Sample
from moe_prompts.models.softmax_gated import SoftmaxGatedFamily, SoftmaxGatedMoE

#: From data, an atom's smallest noise in standardised units. With .03, the guard of Gaussian gates, a third of the
#: searches with surplus atoms ended in collapse; the 3e-4 from beside the truth lets needles through.
NOISE_FROM_DATA = 0.01
#: Each stage has this many times the pairs of the one before.
GROWTH = 4


@dataclass(frozen=True)
class SoftmaxSearchOptions(Stages):
    """As ``Stages``; ``newton``: here with the guard that starts from data need."""

    newton: SoftmaxOptions = field(default_factory=lambda: SoftmaxOptions(min_noise_sd=NOISE_FROM_DATA))

    def stages(self, n: int) -> list[int]:
        """Pairs in each stage: ``first_stage`` and four times more each time, as long as that is at most n / 2; n."""
        sizes, size = [], self.first_stage
        while 2 * size <= n:
            sizes.append(size)
            size *= GROWTH
        return [*sizes, n]


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
    family.check_sample(sample)
    sizes = options.stages(sample.n) if count > 1 else [sample.n]
    guards = options.newton.min_points, options.newton.min_noise_sd
    layouts = [SoftmaxLikelihood(family, sample.thinned(size), *guards) for size in sizes]

    def summits(starts: list[SoftmaxGatedMoE]) -> list[Summit]:
        """On all the data, certified ones first; the best of each stage go on to the next."""
        paths = [(params, 1) for params in starts]
        for layout in layouts:
            found = distinct([(softmax_climb(layout, params, options.newton), votes) for params, votes in paths])
            paths = [(fit.value, votes) for fit, votes in found[: options.finalists]]
        return found

    if count == 1:
        return SearchResult(summits([draw(rng_of(0))])[0][0], 1, 1.0)
    return searched(summits, lambda number: draw(rng_of(number)), count, options.rescues)


def softmax_from_data(
    sample: Sample,
    k: int,
    count: int,
    rng_of: Callable[[int], np.random.Generator],
    options: SoftmaxSearchOptions | None = None,
    smaller: SoftmaxGatedMoE | None = None,
) -> SearchResult:
    """As ``softmax_best_of``, knowing the data only: from clusters, or from a random atom of ``smaller`` split in two.

    ``smaller`` is a fit with k - 1 atoms, to be given where atoms are surplus: from clusters these cut a line in
    pieces, and gates between pieces of one line separate.
    """
    if smaller is not None and smaller.k != k - 1:
        raise InputError(f"softmax_from_data: smaller has {smaller.k} atoms; expected k - 1 = {k - 1}")
    draw = lambda rng: data_start(sample, k, rng) if smaller is None else split_start(smaller, sample, rng)
    return softmax_best_of(SoftmaxGatedFamily(sample.x.shape[1], k), sample, draw, count, rng_of, options)

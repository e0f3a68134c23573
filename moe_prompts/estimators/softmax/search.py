"""Find the best of several softmax-gated fits: starts climb thinned samples first, a few then all data.

From data most summits are spurious: an atom sits on a needle of points, or a gate separates. Three things
help. A wider guard than beside the truth keeps climbs in the compact parameter space of the theory, surplus
atoms begin as halves of others, and certified fits go first. The stages have sizes

    first_stage * 4^j   as long as that is at most n / 2,   and last n.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from moe_prompts.checks import count as checked_count
from moe_prompts.checks import expect, generators, given
from moe_prompts.errors import InputError
from moe_prompts.estimators.result import SearchResult
from moe_prompts.estimators.softmax.likelihood import SoftmaxLikelihood, SoftmaxOptions, softmax_climb
from moe_prompts.estimators.softmax.starts import data_start, split_start
from moe_prompts.estimators.stages import Stages, Summit, distinct, searched
from moe_prompts.models.data import Sample, StreamedSample
from moe_prompts.models.softmax_gated import SoftmaxGatedFamily, SoftmaxGatedMoE

#: The smallest noise of an atom in standardised units where starts come from data. With .03, the guard of
#: Gaussian gates, a third of the searches with surplus atoms ended in collapse; the 3e-4 from beside the
#: truth lets needles through.
NOISE_FROM_DATA = 0.01
#: Each stage has this many times the pairs of the one before.
GROWTH = 4


@dataclass(frozen=True)
class SoftmaxSearchOptions(Stages):
    """Set how a search of softmax gates spends its effort: ``Stages``, and how each fit climbs.

    newton  options of each climb, here with the guard that starts from data need
    """

    newton: SoftmaxOptions = field(default_factory=lambda: SoftmaxOptions(min_noise_sd=NOISE_FROM_DATA))

    def stages(self, n: int) -> list[int]:
        """Return the number of pairs in each stage, for a sample of n.

        It is ``first_stage`` and four times more each time, as long as that is at most n / 2, and n at the
        end.
        """
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
    """Return the best certified softmax-gated fit of ``count`` starts.

    family   dimensions and number of atoms of the model
    sample   pairs x (n, d), y (n, 1)
    draw     returns a start, given a generator
    count    number of starts; at least 1
    rng_of   returns the generator of start i, so that a start does not depend on the others
    options  stages and guards; ``SoftmaxSearchOptions()`` by default

    A single start climbs all the data at once and is not rescued: it asks for the maximum next to that start.

    Raises ``InputError`` where ``count`` < 1 or the sample does not fit the family.
    """
    count = checked_count(count, 1, "softmax_best_of: count")
    generators(rng_of, "softmax_best_of")
    options = given(options, SoftmaxSearchOptions, "softmax_best_of: options")
    family.check_sample(sample)
    sizes = options.stages(sample.n) if count > 1 else [sample.n]
    guards = options.newton.min_points, options.newton.min_noise_sd
    layouts = [SoftmaxLikelihood(family, sample.thinned(size), *guards) for size in sizes]

    def summits(starts: list[SoftmaxGatedMoE]) -> list[Summit]:
        """Return the summits on all the data; the best of each stage go on to the next."""
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
    """Return the best certified softmax-gated fit with ``k`` atoms, knowing the data only.

    Starts come from clusters, or from a random atom of ``smaller`` split in two. ``smaller`` is a fit with k
    - 1 atoms, to be given where atoms are surplus: clusters cut a line in pieces there, and gates between
    pieces of one line separate. The other arguments and the result are those of ``softmax_best_of``.

    Raises ``InputError`` where ``smaller`` does not have k - 1 atoms, or where ``softmax_best_of`` does.
    """
    k = checked_count(k, 1, "softmax_from_data: k")
    expect(sample, (Sample, StreamedSample), "softmax_from_data: sample")
    if smaller is not None:
        expect(smaller, SoftmaxGatedMoE, "softmax_from_data: smaller")
    SoftmaxGatedFamily(sample.d, k).check_sample(sample)
    if smaller is not None and smaller.k != k - 1:
        raise InputError(f"softmax_from_data: smaller has {smaller.k} atoms; expected k - 1 = {k - 1}")
    draw = lambda rng: data_start(sample, k, rng) if smaller is None else split_start(smaller, sample, rng)
    return softmax_best_of(SoftmaxGatedFamily(sample.x.shape[1], k), sample, draw, count, rng_of, options)


def softmax_grown(
    sample: Sample,
    k: int,
    count: int,
    rng_of: Callable[[int, int], np.random.Generator],
    options: SoftmaxSearchOptions | None = None,
) -> SearchResult:
    """Return the best certified softmax-gated fit with ``k`` atoms of a search that grows atom by atom.

    Fits with 2, .., k atoms begin at the best fit with one atom less, a random atom of it split in two.

    rng_of  returns the generator of start i with j atoms, ``rng_of(j, i)``

    The other arguments and the result are those of ``softmax_from_data``.
    """
    k = checked_count(k, 1, "softmax_grown: k")
    found = softmax_from_data(sample, 1, 1, lambda number: rng_of(1, number), options)
    for atoms in range(2, k + 1):
        draw = lambda number, atoms=atoms: rng_of(atoms, number)
        found = softmax_from_data(sample, atoms, count, draw, options, found.best.value)
    return found

"""Search for the global maximum of a Gaussian-gated likelihood, and say how sure one can be of it.

A certificate is about a local maximum, and one start beside the truth often ends below the best of several.
The search grows. At each number of atoms, from 1 to k, it climbs from clusters of the data, from slices of it
along random directions, from every split of every atom of the best fit with one atom less, and from that fit
with a small atom put where it gains most. The best certified summit is the estimate. Beside it stand how many
starts ended on it, and in which ways, and how far below it the next summit lies. Starts that are held back
until the search is over say what it may have missed: clusters, slices and small atoms at random points, in
turn.

Splits keep mean and covariance of the atom: along an eigenvector v of its joint covariance of (x, y), with
eigenvalue lambda, the halves have means m +- t sqrt(lambda) v and lose t^2 lambda v v' of their covariance.

A small atom f beside a fit of density p gains, to second order in its weight, at most

    (sum_i r_i)^2 / (2 sum_i r_i^2),   r_i = f(z_i) / p(z_i) - 1,   at the weight sum_i r_i / sum_i r_i^2.

Round atoms of several widths at random points of the data are ranked by it. Many global maxima of
over-fitted samples have such an atom on few points; clusters, slices and splits seldom lead there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count

import numpy as np

from moe_prompts.checks import expect, generators, given, settings
from moe_prompts.errors import InputError
from moe_prompts.estimators.gaussian.compression import RESOLUTION, WORTHWHILE, compressed_once
from moe_prompts.estimators.gaussian.moments import Scale
from moe_prompts.estimators.gaussian.newton import NewtonOptions, climb, compressed, finish
from moe_prompts.estimators.gaussian.starts import START_POINTS, data, from_clusters, variances
from moe_prompts.estimators.gaussian.streaming import passes_of
from moe_prompts.estimators.result import FitResult
from moe_prompts.estimators.summits import GlobalResult
from moe_prompts.models.data import Data, Sample
from moe_prompts.models.gaussian_gated import GaussianGatedFamily, GaussianGatedMoE

#: Half the distance of the halves of a split, in standard deviations of the atom along it.
APART = 0.6
#: Sorts of starts.
WAYS = ("data", "slice", "split", "insert")
#: Points of the data at which small atoms are tried, their widths in standard deviations of the data, and how
#: many pairs tell what they gain where the data have no short quadrature.
TRIED, WIDTHS, SCORED = 200, (0.05, 0.1, 0.2, 0.4), 20_000
#: Least and largest weight of a small atom.
WEIGHTS = (0.005, 0.2)


@dataclass(frozen=True)
class GlobalOptions:
    """Say how much a search for the global maximum spends.

    data_starts  starts from clusters of the data, as many from slices, and as many with a small atom beside
                 the fit with one atom less; at least 1. Small samples need more: with 60 pairs and k = 3
                 a slow test takes 64, to end as high as the best of all slices in 19 of 20 samples
    growth       the same while the search grows, at numbers of atoms below k; at least 1
    held_back    further ones, when the search is over; at least 0
    newton       options of each climb; atoms stay as wide as ``RESOLUTION``, as in ``SearchOptions``

    Raises ``InputError`` where a number is below its bound.

    >>> import moe_prompts as mp
    >>> mp.GlobalOptions(data_starts=2, growth=1, held_back=0).data_starts
    2
    >>> mp.GlobalOptions(data_starts=0)
    Traceback (most recent call last):
        ...
    moe_prompts.errors.InputError: GlobalOptions: data_starts = 0; expected a whole number of at least 1
    """

    data_starts: int = 8
    growth: int = 2
    held_back: int = 8
    newton: NewtonOptions = field(default_factory=lambda: NewtonOptions(min_eigenvalue=RESOLUTION**2))

    def __post_init__(self) -> None:
        settings(self, data_starts=1, growth=1, held_back=0, newton=NewtonOptions)


def global_maximum(
    family: GaussianGatedFamily,
    sample: Data,
    rng_of: Callable[[int], np.random.Generator],
    options: GlobalOptions | None = None,
) -> GlobalResult:
    """Return the best certified Gaussian-gated fit that growing, splitting and many starts find.

    family   what the model may be: dimensions, number of atoms, ties, frozen atoms
    sample   pairs x (n, d), y (n, l), held in memory or streamed
    rng_of   returns the generator of start i, so that a start does not depend on the others
    options  numbers of starts and guards; ``GlobalOptions()`` by default

    Raises ``InputError`` where the sample does not fit the family, a column of it is constant, or no start
    ends on a certified summit.

    >>> import numpy as np
    >>> import moe_prompts as mp
    >>> sample = mp.sample("gmoe-1", n=500, seed=0)
    >>> found = mp.global_maximum(mp.truth("gmoe-1").family, sample, lambda i: np.random.default_rng([0, i]))
    >>> found.best.certified, found.reached > 1, found.missed
    (True, True, 0)
    """
    return grown(family, sample, rng_of, given(options, GlobalOptions, "global_maximum: options"))[-1]


def grown(
    family: GaussianGatedFamily,
    sample: Data,
    rng_of: Callable[[int], np.random.Generator],
    options: GlobalOptions,
    sought: int | None = None,
) -> list[GlobalResult]:
    """Return what ``global_maximum`` finds at every number of atoms from 1 to that of the family.

    sought  the smallest number of atoms whose global maximum is asked for; the family's by default. Below it
            the search only grows: fewer starts, and none held back
    """
    expect(family, GaussianGatedFamily, "global_maximum: family")
    sought = family.k if sought is None else sought
    generators(rng_of, "global_maximum")
    family.check_sample(sample)
    Scale.of(sample, None)  # a constant column is refused before a start trips over it
    numbers = count()
    results: list[GlobalResult] = []
    for k in range(1, family.k + 1):
        level = _Level(replace(family, k=k), sample, options, results[-1].best.value if results else None)
        starts, later = (options.data_starts, options.held_back) if k >= sought else (options.growth, 0)
        results.append(level.searched(lambda: rng_of(next(numbers)), starts, later))
    return results


class _Level:
    """Hold the search at one number of atoms: the data laid out once, and the best fit with one atom less.

    Where a short quadrature of the data pays, all starts climb it, and the best goes on to the data.
    """

    def __init__(
        self, family: GaussianGatedFamily, sample: Data, options: GlobalOptions, smaller: GaussianGatedMoE | None
    ) -> None:
        self.family, self.sample, self.options, self.smaller = family, sample, options, smaller
        self.full = passes_of(family, sample, min_eigenvalue=options.newton.min_eigenvalue)
        self.short = compressed(family, sample, options.newton)

    def climbed(self, start: GaussianGatedMoE) -> FitResult:
        """Return the fit from a start, on the short quadrature where there is one."""
        return climb(self.full if self.short is None else self.short, start, self.options.newton)

    def finished(self, fits: list[FitResult]) -> FitResult:
        """Return the highest fit that is certified on the data."""
        ranked = sorted((fit for fit in fits if fit.certified), key=lambda fit: -fit.log_likelihood)
        for fit in ranked:
            if self.short is None:
                return fit
            on_data = finish(self.full, fit, fit.value, self.options.newton)
            if on_data.certified:
                return on_data
        raise InputError(
            f"global_maximum: none of {len(fits)} starts with k = {self.family.k} ends on a certified summit; expected "
            "one: give more data or fewer atoms"
        )

    def searched(self, rng: Callable[[], np.random.Generator], of_each: int, held_back: int) -> GlobalResult:
        """Return what the search finds at this number of atoms.

        rng        makes the generator of the next start
        of_each    starts of each sort, beside all splits
        held_back  starts that climb when the best is known, to tell what was missed
        """
        start = data(1)
        begins = [("data", start.draw(self.family, self.sample, rng())) for _ in range(of_each)]
        begins += [("slice", sliced(self.family, self.sample, rng())) for _ in range(of_each)]
        if self.smaller is not None:
            begins += [("split", params) for params in splits(self.family, self.smaller)]
            found = inserted(self.family, self.smaller, self.sample, rng(), of_each)
            begins += [("insert", params) for params in found]
        fits = [(way, self.climbed(params)) for way, params in begins]
        # Of other draws than the search itself: where one ends higher, the search has missed a summit.
        later = [self.climbed(self.held_back(number, rng())) for number in range(held_back)]
        best = self.finished([fit for _, fit in fits] + later)
        return GlobalResult.of(best, fits, later, WAYS)

    def held_back(self, number: int, rng: np.random.Generator) -> GaussianGatedMoE:
        """Return the held-back start of this number: clusters, slices and small atoms, in turn."""
        if number % 3 == 1:
            return sliced(self.family, self.sample, rng)
        if number % 3 == 2 and self.smaller is not None:
            return inserted(self.family, self.smaller, self.sample, rng, 1, tried=1)[0]
        return data(1).draw(self.family, self.sample, rng)


def sliced(family: GaussianGatedFamily, sample: Data, rng: np.random.Generator) -> GaussianGatedMoE:
    """Return a start from k slices of the data along a random direction of the standardised (x, y).

    The cuts are at random ranks, and every slice gets the mean and covariance of its points.
    """
    few = sample.head(START_POINTS)
    z = np.concatenate([few.x, few.y], axis=1)
    spread = z.std(axis=0)
    along = (z / np.where(spread > 0, spread, 1.0)) @ rng.standard_normal(z.shape[1])
    cuts = np.sort(rng.integers(1, few.n, size=family.k - 1)) if few.n > 1 else np.zeros(family.k - 1)
    labels = np.searchsorted(cuts, along.argsort().argsort(), side="right")
    return from_clusters(family, few, labels, variances(sample, few))


def splits(family: GaussianGatedFamily, smaller: GaussianGatedMoE) -> Iterator[GaussianGatedMoE]:
    """Yield starts of a family from a fit with one free atom less: each free atom in halves along each axis.

    family   the family with k free atoms
    smaller  parameters with k - 1 free atoms, listed first, then the frozen ones
    """
    free = smaller.k - family.n_frozen
    weights, means, covs = smaller.to_joint()
    for atom in range(free):
        sizes, axes = np.linalg.eigh(covs[atom])
        for size, axis in zip(sizes, axes.T, strict=True):
            order = [*range(free), atom]
            w, m, S = weights[order].copy(), means[order].copy(), covs[order].copy()
            w[[atom, -1]] /= 2
            m[atom] += APART * np.sqrt(size) * axis
            m[-1] -= APART * np.sqrt(size) * axis
            S[[atom, -1]] -= APART**2 * size * np.outer(axis, axis)
            made = GaussianGatedMoE.from_joint(w / w.sum(), m, S, family.d)
            if family.frozen is not None:
                made = made.joined(family.frozen, float(weights[free:].sum()))
            yield family.project(made)


def inserted(
    family: GaussianGatedFamily,
    smaller: GaussianGatedMoE,
    sample: Data,
    rng: np.random.Generator,
    most: int,
    tried: int = TRIED,
) -> list[GaussianGatedMoE]:
    """Return starts of a family from a fit with one free atom less and a small round atom beside its own.

    family   the family with k free atoms
    smaller  parameters with k - 1 free atoms, listed first, then the frozen ones
    sample   the data; what an atom gains is summed over their short quadrature, or over the first pairs
    rng      source of the points and, where one point is tried, of the width
    most     how many starts at most: those that gain most, none inside another's width
    tried    at how many points of the data atoms are tried; with 1, one of random width is taken as it is
    """
    few = sample.head(START_POINTS)
    spread = np.sqrt(variances(sample, few))
    points = np.concatenate([few.x, few.y], axis=1)[rng.choice(few.n, size=min(tried, few.n), replace=False)]
    widths = WIDTHS if tried > 1 else (float(rng.choice(WIDTHS)),)
    nodes, counts = _nodes(sample)
    z = np.concatenate([nodes.x, nodes.y], axis=1)
    log_p = smaller.log_density(nodes.x, nodes.y)
    norm = -0.5 * z.shape[1] * np.log(2 * np.pi) - np.log(spread).sum()
    # Coordinate by coordinate: a sum over an axis this short costs more than all else.
    apart = [column - point[:, None] for column, point in zip(z.T, points.T, strict=True)]
    tries = []
    for width in widths:
        squares = np.zeros((len(points), len(z)))
        for steps, unit in zip(apart, width * spread, strict=True):
            squares += (steps / unit) ** 2
        with np.errstate(over="ignore"):  # an atom far outside the fit gains without bound to second order
            r = np.exp(norm - z.shape[1] * np.log(width) - 0.5 * squares - log_p) - 1
            first, second = r @ counts, (r**2) @ counts
        gains = np.where((first > 0) & (second > 0), first, 0.0) ** 2 / np.where(second > 0, second, 1.0)
        weights = np.clip(np.where(second > 0, first / np.where(second > 0, second, 1.0), 0.0), *WEIGHTS)
        tries += [(gain, point, width, weight) for gain, point, weight in zip(gains, points, weights, strict=True)]
    tries.sort(key=lambda one: -np.nan_to_num(one[0], nan=-1.0))
    chosen: list[tuple] = []
    for one in tries:
        apart = [np.linalg.norm((one[1] - other[1]) / spread) > max(one[2], other[2]) for other in chosen]
        if all(apart) and len(chosen) < most:
            chosen.append(one)
    return [_beside(family, smaller, point, width * spread, weight) for _, point, width, weight in chosen]


def _nodes(sample: Data) -> tuple[Sample, np.ndarray]:
    """Return pairs and how often each counts, over which a sum stands for that over the sample."""
    if (sample.d, sample.l) == (1, 1) and sample.n >= WORTHWHILE:
        return compressed_once(sample)
    few = sample.head(SCORED)
    return few, np.ones(few.n)


def _beside(
    family: GaussianGatedFamily, smaller: GaussianGatedMoE, point: np.ndarray, width: np.ndarray, weight: float
) -> GaussianGatedMoE:
    """Return the free atoms of ``smaller``, one more of a mean, deviations and weight, and the frozen ones."""
    free = smaller.k - family.n_frozen
    weights, means, covs = smaller.to_joint()
    mass = weights[:free].sum()
    w: np.ndarray = np.append(weights[:free] / mass * (1 - weight), weight)
    m, S = np.concatenate([means[:free], point[None]]), np.concatenate([covs[:free], np.diag(width**2)[None]])
    made = GaussianGatedMoE.from_joint(w / w.sum(), m, S, family.d)
    return family.project(made if family.frozen is None else made.joined(family.frozen, float(weights[free:].sum())))

"""Search for the global maximum of a Gaussian-gated likelihood, and say how sure one can be of it.

A certificate is about a local maximum, and one start beside the truth often ends below the best of several.
The search grows. At each number of atoms, from 1 to k, it climbs from clusters of the data, from slices of it
along random directions, and from every split of every atom of the best fit with one atom less. The best
certified summit is the estimate. Beside it stand how many starts ended on it, and in which ways, and how far
below it the next summit lies. Starts that are held back until the search is over say what it may have missed:
each climbs from clusters of its own.

Splits keep mean and covariance of the atom: along an eigenvector v of its joint covariance of (x, y), with
eigenvalue lambda, the halves have means m +- t sqrt(lambda) v and lose t^2 lambda v v' of their covariance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from moe_prompts.checks import expect, generators
from moe_prompts.errors import InputError
from moe_prompts.estimators.gaussian.compression import RESOLUTION
from moe_prompts.estimators.gaussian.moments import Scale
from moe_prompts.estimators.gaussian.newton import NewtonOptions, climb
from moe_prompts.estimators.gaussian.starts import START_POINTS, data, from_clusters, variances
from moe_prompts.estimators.gaussian.streaming import passes_of
from moe_prompts.estimators.result import FitResult
from moe_prompts.estimators.stages import SAME_SUMMIT
from moe_prompts.models.data import Data
from moe_prompts.models.gaussian_gated import GaussianGatedFamily, GaussianGatedMoE

#: Half the distance of the halves of a split, in standard deviations of the atom along it.
APART = 0.6
#: Sorts of starts.
WAYS = ("data", "slice", "split")


@dataclass(frozen=True)
class GlobalOptions:
    """Say how much a search for the global maximum spends.

    data_starts  starts from clusters of the data at each number of atoms, and as many from slices; at least 1
    held_back    further ones, when the search is over; at least 0
    newton       options of each climb; atoms stay as wide as ``RESOLUTION``, as in ``SearchOptions``

    Raises ``InputError`` where a number is below its bound.
    """

    data_starts: int = 8
    held_back: int = 8
    newton: NewtonOptions = field(default_factory=lambda: NewtonOptions(min_eigenvalue=RESOLUTION**2))

    def __post_init__(self) -> None:
        if self.data_starts < 1 or self.held_back < 0:
            raise InputError(
                f"GlobalOptions: data_starts = {self.data_starts}, held_back = {self.held_back}; expected >= 1 and >= 0"
            )


@dataclass(frozen=True)
class GlobalResult:
    """Hold the best certified fit that was found, and what speaks for its being the best there is.

    best         the best certified fit of all starts, held-back ones among them
    starts       how many starts climbed with k atoms before the held-back ones
    reached      how many of them ended within ``SAME_SUMMIT`` nats of the best fit of the search
    ways         which sorts of them did: "data", "slice", "split"
    next_nats    nats from the best fit of the search down to its next certified summit; NaN if there is none
    held_back    how many starts were held back
    missed       how many of them ended above the best fit of the search
    missed_nats  nats by which the highest of them did; 0 if none did
    """

    best: FitResult
    starts: int
    reached: int
    ways: tuple[str, ...]
    next_nats: float
    held_back: int
    missed: int
    missed_nats: float


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
    options = options or GlobalOptions()
    expect(family, GaussianGatedFamily, "global_maximum: family")
    generators(rng_of, "global_maximum")
    family.check_sample(sample)
    Scale.of(sample, None)  # a constant column is refused before a start trips over it
    start, number, smaller = data(options.data_starts), 0, None
    fits: list[tuple[str, FitResult]] = []
    for k in range(1, family.k + 1):
        own = replace(family, k=k)
        passes = passes_of(own, sample, min_eigenvalue=options.newton.min_eigenvalue)
        begins = []
        for _ in range(options.data_starts):
            begins.append(("data", start.draw(own, sample, rng_of(number))))
            begins.append(("slice", sliced(own, sample, rng_of(number + 1))))
            number += 2
        if smaller is not None:
            begins += [("split", params) for params in splits(own, smaller)]
        fits = [(way, climb(passes, params, options.newton)) for way, params in begins]
        best = _best([fit for _, fit in fits], k)
        smaller = best.value
    later = [
        climb(passes, start.draw(family, sample, rng_of(number + extra)), options.newton)
        for extra in range(options.held_back)
    ]
    gains = [fit.log_likelihood - best.log_likelihood for fit in later if fit.certified]
    above = [gain for gain in gains if gain > SAME_SUMMIT]
    ended = {way: [fit.log_likelihood for one, fit in fits if one == way and fit.certified] for way in WAYS}
    down = [best.log_likelihood - value for values in ended.values() for value in values]
    others = [gap for gap in down if gap > SAME_SUMMIT]
    return GlobalResult(
        best=_best([best, *later], family.k),
        starts=len(fits),
        reached=len(down) - len(others),
        ways=tuple(way for way, ends in ended.items() if ends and best.log_likelihood - max(ends) <= SAME_SUMMIT),
        next_nats=min(others, default=float("nan")),
        held_back=len(later),
        missed=len(above),
        missed_nats=max(above, default=0.0),
    )


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


def _best(fits: list[FitResult], k: int) -> FitResult:
    """Return the highest certified fit."""
    certified = [fit for fit in fits if fit.certified]
    if not certified:
        raise InputError(
            f"global_maximum: none of {len(fits)} starts with k = {k} ends on a certified summit; expected one: give "
            "more data or fewer atoms"
        )
    return max(certified, key=lambda fit: fit.log_likelihood)

"""Search for the global maximum of a softmax-gated likelihood, and say what it may have missed.

The search grows, as that of Gaussian gates does: at each number of atoms, from 1 to k, it climbs from
clusters of the data, from slices of it along random directions, from every split of every atom of the
best fit with one atom less, and from that fit with a small atom put where it gains most. The best
certified summit is the estimate. Starts that are held back until then say what it may have missed.

Splits. An atom of the smaller fit explains point i with probability r_i and leaves the residual e_i. For each
coordinate u of its score,

    u = x_1, .., x_d, e, e x_1, .., e x_d, e^2,

its points are divided softly, with weights r sigmoid(+-c u) for u standardised, once sharply (c = 2) and once
hardly at all (c = .2), so that the climb finds its own way down from the saddle. Each half gets its own
regression, and the gates of the two share the parent's mass and follow the means of their inputs.

Small atoms. Beside a fit of density p(y | x) and logits l_k, an atom of weight w, h(x) = e^{t'(x - x0)} /
sum_k e^{l_k(x)} and density f(y | x) adds, to first order in w, r_i = h(x_i) (f / p - 1) to the
log-likelihood of a point, and gains at most about (sum r)^2 / (2 sum r^2), at the weight sum r / sum r^2.
Level lines through random points of the data, of several widths and tilts t, are ranked by it.

The compact set. Gates can be as steep as they like, and between two points of the data a step costs
nothing: of over-fitted samples many of the highest paths end on no finite maximum. Theory assumes a
compact parameter space. Here it holds gates whose slopes differ by at most ``max_slope`` per standard
deviation of x, and atoms that are as wide as starts from data need (``NOISE_FROM_DATA``). Certified fits
outside, and ends without a certificate, do not count; how much higher the highest of them is stands
beside the result.

Large samples. A start climbs a thinned sample first. Starts that reach one summit there share the climb
of all the data that follows, and every summit goes on to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count

import numpy as np

from moe_prompts.checks import expect, generators, given, settings
from moe_prompts.errors import InputError
from moe_prompts.estimators.gaussian.starts import START_POINTS, from_clusters, variances
from moe_prompts.estimators.result import FitResult
from moe_prompts.estimators.softmax.likelihood import SoftmaxLikelihood, SoftmaxOptions, softmax_climb
from moe_prompts.estimators.softmax.search import NOISE_FROM_DATA
from moe_prompts.estimators.softmax.starts import data_start, from_gaussian, split_start
from moe_prompts.estimators.stages import SAME_SUMMIT
from moe_prompts.estimators.summits import GlobalResult
from moe_prompts.models.data import Sample
from moe_prompts.models.gaussian_gated import GaussianGatedFamily
from moe_prompts.models.softmax_gated import SoftmaxGatedFamily, SoftmaxGatedMoE

#: Sorts of starts.
WAYS = ("data", "slice", "split", "insert")
#: Largest difference of two gates' slopes, per standard deviation of x.
MAX_SLOPE = 20.0
#: How sharply a coordinate divides an atom's points, and how many points' worth of the parent keep halves
#: regular.
SHARP, PARENT = (2.0, 0.2), 5.0
#: Points of the data through which small atoms are tried, their widths in standard deviations of y, and how
#: fast their gates fall on either side, per standard deviation of x.
TRIED, WIDTHS, TILTS = 100, (0.05, 0.1, 0.2, 0.4), (-3.0, 0.0, 3.0)
#: Least and largest weight of a small atom at its point.
WEIGHTS = (0.005, 0.2)


@dataclass(frozen=True)
class SoftmaxGlobalOptions:
    """Say how much a search for the global maximum of softmax gates spends, and within which bounds.

    data_starts  starts from clusters of the data, and as many from slices; at least 1
    inserts      starts with a small atom beside the fit with one atom less; at least 1
    growth       each of these while the search grows, at numbers of atoms below k; at least 1
    held_back    further ones, when the search is over; at least 0
    first_stage  pairs that starts climb first, where there are twice as many; at least 1
    max_slope    largest difference of two gates' slopes, per standard deviation of x
    newton       options of each climb

    Raises ``InputError`` where a number is outside its range.

    >>> from moe_prompts.estimators.softmax.global_search import SoftmaxGlobalOptions
    >>> SoftmaxGlobalOptions(data_starts=2, growth=1, held_back=0).max_slope
    20.0
    """

    data_starts: int = 4
    inserts: int = 8
    growth: int = 2
    held_back: int = 8
    first_stage: int = 5_000
    max_slope: float = MAX_SLOPE
    newton: SoftmaxOptions = field(default_factory=lambda: SoftmaxOptions(min_noise_sd=NOISE_FROM_DATA))

    def __post_init__(self) -> None:
        settings(self, data_starts=1, inserts=1, growth=1, held_back=0, first_stage=1)
        settings(self, max_slope="(0, inf)", newton=SoftmaxOptions)


def softmax_global_maximum(
    family: SoftmaxGatedFamily,
    sample: Sample,
    rng_of: Callable[[int], np.random.Generator],
    options: SoftmaxGlobalOptions | None = None,
) -> tuple[GlobalResult, float]:
    """Return the best certified softmax-gated fit of growing, splitting and many starts, and what is above.

    family   dimensions and number of atoms of the model
    sample   pairs x (n, d), y (n, 1)
    rng_of   returns the generator of start i, so that a start does not depend on the others
    options  numbers of starts and bounds; ``SoftmaxGlobalOptions()`` by default

    Returns the result, and the nats from the best fit up to the highest end of a path that does not
    count: one without a certificate, or outside the compact set. It is 0 where none is higher.

    Raises ``InputError`` where the sample does not fit the family, a column of it is constant, or no
    start ends on a certified summit in the compact set.

    >>> import numpy as np
    >>> import moe_prompts as mp
    >>> from moe_prompts.estimators.softmax.global_search import softmax_global_maximum
    >>> sample, family = mp.softmax_sample("sgame", n=500, seed=0), mp.softmax_truth("sgame").family(2)
    >>> found, above = softmax_global_maximum(family, sample, lambda i: np.random.default_rng([0, i]))
    >>> found.best.certified, found.reached > 1, found.missed, above
    (True, True, 0, 0.0)
    """
    options = given(options, SoftmaxGlobalOptions, "softmax_global_maximum: options")
    expect(family, SoftmaxGatedFamily, "softmax_global_maximum: family")
    generators(rng_of, "softmax_global_maximum")
    family.check_sample(sample)
    numbers, smaller = count(), None
    for k in range(1, family.k + 1):
        level = _Level(replace(family, k=k), sample, options, smaller)
        few = (options.growth, options.growth, 0)
        each = (options.data_starts, options.inserts, options.held_back) if k == family.k else few
        found = level.searched(lambda: rng_of(next(numbers)), *each)
        smaller = found[0].best.value
    return found


class _Level:
    """Hold the search at one number of atoms: the data laid out once, and the best fit with one atom less."""

    def __init__(
        self,
        family: SoftmaxGatedFamily,
        sample: Sample,
        options: SoftmaxGlobalOptions,
        smaller: SoftmaxGatedMoE | None,
    ) -> None:
        self.family, self.sample, self.options, self.smaller = family, sample, options, smaller
        self.few = sample.thinned(START_POINTS)
        guards = options.newton.min_points, options.newton.min_noise_sd
        self.full = SoftmaxLikelihood(family, sample, *guards)
        staged = sample.n >= 2 * options.first_stage
        self.thin = SoftmaxLikelihood(family, sample.thinned(options.first_stage), *guards) if staged else None
        self.met: list[tuple[float, FitResult]] = []

    def climbed(self, start: SoftmaxGatedMoE) -> FitResult:
        """Return the fit of all the data from a start, which climbs the thinned sample first."""
        if self.thin is None:
            return softmax_climb(self.full, start, self.options.newton)
        rough = softmax_climb(self.thin, start, self.options.newton)
        for height, fit in self.met:
            if rough.certified and abs(height - rough.log_likelihood) <= SAME_SUMMIT:
                return fit
        # A path that collapsed on few points may do better on all of them.
        fit = softmax_climb(self.full, rough.value if rough.certified else start, self.options.newton)
        if rough.certified:
            self.met.append((rough.log_likelihood, fit))
        return fit

    def searched(
        self, rng: Callable[[], np.random.Generator], of_data: int, inserts: int, held_back: int
    ) -> tuple[GlobalResult, float]:
        """Return what the search finds at this number of atoms, and the nats up to what does not count.

        rng        makes the generator of the next start
        of_data    starts from clusters, and from slices, beside all splits
        inserts    starts with a small atom
        held_back  starts that climb when the best is known, to tell what was missed
        """
        fits = [(way, self.climbed(start)) for way, start in self.starts(rng, of_data, inserts)]
        # Of other draws than the search itself: where one ends higher, the search has missed a summit.
        later = [self.climbed(self.held_back(number, rng())) for number in range(held_back)]
        every = [fit for _, fit in fits] + later
        counted = [fit for fit in every if self.counts(fit)]
        if not counted:
            raise InputError(
                f"softmax_global_maximum: none of {len(every)} starts with k = {self.family.k} ends on a certified "
                "summit in the compact set; expected one: give more data or fewer atoms"
            )
        best = max(counted, key=lambda fit: fit.log_likelihood)
        found = GlobalResult.of(
            best, [(way, fit) for way, fit in fits if self.counts(fit)], [f for f in later if self.counts(f)], WAYS
        )
        above = [fit.log_likelihood - best.log_likelihood for fit in every if not self.counts(fit)]
        highest = max((nats for nats in above if nats > SAME_SUMMIT), default=0.0)
        return replace(found, starts=len(fits), held_back=len(later)), float(highest)

    def counts(self, fit: FitResult) -> bool:
        """Say whether a fit is a certified summit in the compact set."""
        return fit.certified and steepness(fit.value, self.sample) <= self.options.max_slope

    def starts(
        self, rng: Callable[[], np.random.Generator], of_data: int, inserts: int
    ) -> Iterator[tuple[str, SoftmaxGatedMoE]]:
        """Yield the starts of the search, each with its sort."""
        for _ in range(of_data):
            yield "data", data_start(self.sample, self.family.k, rng())
        for _ in range(of_data):
            yield "slice", sliced(self.family, self.few, rng())
        if self.smaller is not None:
            yield from (("split", start) for start in splits(self.smaller, self.few))
            yield from (("insert", start) for start in inserted(self.smaller, self.few, rng(), inserts))

    def held_back(self, number: int, rng: np.random.Generator) -> SoftmaxGatedMoE:
        """Return the held-back start of this number: clusters, slices, small atoms and random splits, in turn."""
        if number % 4 == 1 or self.smaller is None:
            return sliced(self.family, self.few, rng)
        if number % 4 == 2:
            return inserted(self.smaller, self.few, rng, 1, tried=1)[0]
        if number % 4 == 3:
            return split_start(self.smaller, self.sample, rng)
        return data_start(self.sample, self.family.k, rng)


def steepness(params: SoftmaxGatedMoE, sample: Sample) -> float:
    """Return the largest difference of two gates' slopes, per standard deviation of x."""
    slopes = params.gate_slopes * sample.x.std(axis=0)
    return float(np.linalg.norm(slopes[:, None] - slopes[None], axis=2).max())


def sliced(family: SoftmaxGatedFamily, few: Sample, rng: np.random.Generator) -> SoftmaxGatedMoE:
    """Return a start from k slices of the data along a random direction of the standardised (x, y).

    The cuts are at random ranks. Every slice gets its own regression, and gates follow the slices' means.
    """
    z = np.concatenate([few.x, few.y], axis=1)
    along = (z / np.sqrt(variances(few, few))) @ rng.standard_normal(z.shape[1])
    cuts = np.sort(rng.integers(1, few.n, size=family.k - 1)) if few.n > 1 else np.zeros(family.k - 1)
    return of_labels(family, few, np.searchsorted(cuts, along.argsort().argsort(), side="right"))


def of_labels(family: SoftmaxGatedFamily, few: Sample, labels: np.ndarray) -> SoftmaxGatedMoE:
    """Return a start from clusters 0 .. k - 1 of the data, with gates that share one covariance."""
    gates = GaussianGatedFamily(family.d, 1, family.k, tied_gate=True)
    return from_gaussian(from_clusters(gates, few, labels, variances(few, few)))


def splits(smaller: SoftmaxGatedMoE, few: Sample) -> Iterator[SoftmaxGatedMoE]:
    """Yield starts from a fit with one atom less: each atom in halves along each coordinate of its score.

    smaller  the fit
    few      the data, or some of them
    """
    joint = smaller.gate_logits(few.x) + _log_normal(few.y - smaller.expert_means(few.x), smaller.noise_vars)
    r = np.exp(joint - np.logaddexp.reduce(joint, axis=1, keepdims=True))
    for atom in range(smaller.k):
        e = few.y[:, 0] - smaller.expert_means(few.x)[:, atom]
        for u in (*few.x.T, e, *(e * column for column in few.x.T), e**2):
            for sharp in SHARP:
                made = halved(smaller, few, atom, r[:, atom], u, sharp)
                if made is not None:
                    yield made


def _log_normal(residuals: np.ndarray, noise_vars: np.ndarray) -> np.ndarray:
    return -0.5 * (np.log(2 * np.pi * noise_vars) + residuals**2 / noise_vars)


def halved(
    smaller: SoftmaxGatedMoE, few: Sample, atom: int, r: np.ndarray, u: np.ndarray, sharp: float
) -> SoftmaxGatedMoE | None:
    """Return a fit with one atom in two halves, or None where the atom has no spread along ``u``.

    atom  which one
    r     (n,)  the probabilities with which it explains the points
    u     (n,)  the coordinate that divides them
    sharp how sharply it does
    """
    mass = r.sum()
    u = u - r @ u / mass if mass > 0 else u
    spread = np.sqrt(r @ u**2 / mass) if mass > 0 else 0.0
    if not spread > 0:
        return None
    X = np.concatenate([np.ones((few.n, 1)), few.x], axis=1)
    own = np.append(smaller.intercepts[atom], smaller.slopes[atom])
    gram = PARENT / mass * (X * r[:, None]).T @ X
    coefficients, noise, centres, sizes = [], [], [], []
    for side in (1, -1):
        weight = r / (1 + np.exp(np.clip(-side * sharp * u / spread, -50, 50)))
        G, m = (X * weight[:, None]).T @ X, (X * weight[:, None]).T @ few.y[:, 0]
        coefficients.append(np.linalg.lstsq(G + gram, m + gram @ own, rcond=None)[0])
        residuals = few.y[:, 0] - X @ coefficients[-1]
        noise.append((weight @ residuals**2 + PARENT * smaller.noise_vars[atom]) / (weight.sum() + PARENT))
        centres.append(weight @ few.x / weight.sum())
        sizes.append(weight.sum())
    middle = r @ few.x / mass
    between = sizes[0] * sizes[1] / mass**2 * np.outer(centres[0] - centres[1], centres[0] - centres[1])
    within = ((few.x - middle) * r[:, None]).T @ (few.x - middle) / mass - between
    turn = np.linalg.lstsq(within, centres[0] - centres[1], rcond=None)[0]
    height = np.log(sizes[0] / sizes[1]) - 0.5 * turn @ (centres[0] + centres[1])
    both = smaller.atoms(np.append(np.arange(smaller.k), atom))
    pair = [atom, smaller.k]
    gate_slopes, gate_intercepts = both.gate_slopes.copy(), both.gate_intercepts.copy()
    slopes, intercepts, noise_vars = both.slopes.copy(), both.intercepts.copy(), both.noise_vars.copy()
    for at, sign, one, variance in zip(pair, (1, -1), coefficients, noise, strict=True):
        gate_slopes[at] += sign * turn / 2
        gate_intercepts[at] += sign * height / 2 - np.log(2)
        intercepts[at], slopes[at], noise_vars[at] = one[0], one[1:], variance
    return SoftmaxGatedMoE(gate_intercepts, gate_slopes, slopes, intercepts, noise_vars)


def inserted(
    smaller: SoftmaxGatedMoE, few: Sample, rng: np.random.Generator, most: int, tried: int = TRIED
) -> list[SoftmaxGatedMoE]:
    """Return starts from a fit with one atom less and a small level atom beside its own.

    smaller  the fit
    few      the data, or some of them: what an atom gains is summed over them
    rng      source of the points and, where one point is tried, of width and tilt
    most     how many starts at most: those that gain most, none inside another's width
    tried    through how many points of the data atoms are tried; with 1, one is taken as it is
    """
    spread_x, spread_y = few.x.std(axis=0), float(few.y.std())
    points = rng.choice(few.n, size=min(tried, few.n), replace=False)
    widths = WIDTHS if tried > 1 else (float(rng.choice(WIDTHS)),)
    tilts = TILTS if tried > 1 else (float(rng.choice(TILTS)),)
    log_p, log_mass = smaller.log_density(few), np.logaddexp.reduce(smaller.gate_logits(few.x), axis=1)
    tries = []
    for point in points:
        x0, y0 = few.x[point], few.y[point, 0]
        lifts = []
        for tilt in tilts:
            t = tilt / spread_x / np.sqrt(smaller.d)
            # The largest is taken out, so that a steep tilt does not overflow; weights take it back.
            lift = (few.x - x0) @ t - log_mass
            lifts.append((t, np.exp(lift - lift.max()), np.exp(lift[point] - lift.max())))
        for width in widths:
            log_f = _log_normal(few.y[:, 0] - y0, np.array((width * spread_y) ** 2))
            with np.errstate(over="ignore"):  # an atom far outside the fit gains without bound
                raised = np.exp(log_f - log_p) - 1
            for t, lifted, lifted_there in lifts:
                with np.errstate(over="ignore"):
                    r = lifted * raised
                    first, second = float(r.sum()), float((r**2).sum())
                sound = first > 0 and 0 < second < np.inf
                gain = first**2 / second if sound else 0.0
                at_point = first / second * lifted_there if sound else 0.0
                share = float(np.clip(at_point, *WEIGHTS))
                tries.append((gain, int(point), width, t, share))
    tries.sort(key=lambda one: -one[0])
    chosen: list[SoftmaxGatedMoE] = []
    used: list[tuple[np.ndarray, float]] = []
    for _, point, width, t, share in tries:
        at = np.append(few.x[point] / spread_x, few.y[point, 0] / spread_y)
        if len(chosen) < most and all(np.linalg.norm(at - there) > max(width, other) for there, other in used):
            used.append((at, width))
            chosen.append(_beside(smaller, few, point, width * spread_y, t, np.log(share) + log_mass[point]))
    return chosen


def _beside(
    smaller: SoftmaxGatedMoE, few: Sample, point: int, width: float, tilt: np.ndarray, logit: float
) -> SoftmaxGatedMoE:
    """Return a fit with one level atom more through a point, whose gate has a tilt and a logit there."""
    append = lambda values, last: np.concatenate([values, np.reshape(last, (1, *np.shape(values)[1:]))])
    return SoftmaxGatedMoE(
        gate_intercepts=append(smaller.gate_intercepts, logit - tilt @ few.x[point]),
        gate_slopes=append(smaller.gate_slopes, tilt),
        slopes=append(smaller.slopes, np.zeros(smaller.d)),
        intercepts=append(smaller.intercepts, few.y[point, 0]),
        noise_vars=append(smaller.noise_vars, width**2),
    )

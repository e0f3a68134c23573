"""Fit prompts by certified least squares: every start climbs down to a certified minimum of Q in a box.

    Q(theta) = sum_i |y_i - f(x_i; theta)|^2 / (2 s^2)

Fits begin in the family's own coordinates. What has not converged after a round goes on in
``PairCoordinates`` of its two nearest prompts: an over-specified fit, whose surplus prompt shares the cell of
another, lies in a valley that is curved in (b, theta) and straight there. Rounds alternate, because a third
prompt may join or the box may stop a pair. On request adaptive prompts with a bias go on in
``KeyCoordinates`` instead: they have a valley of their own where the truth is a fixed prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from moe_prompts.checks import expect, flag, generator, given, listed, numbers, settings, whole
from moe_prompts.errors import InputError
from moe_prompts.estimators.prompts.coordinates import coordinates_of_pair
from moe_prompts.estimators.prompts.key_coordinates import KeyCoordinates
from moe_prompts.estimators.prompts.levenberg_marquardt import Minima, minimise
from moe_prompts.estimators.prompts.objective import Box, PromptObjective, data_sets
from moe_prompts.estimators.result import GAP_TOLERANCE, FitResult, FitStatus, SearchResult
from moe_prompts.models.data import RegressionData
from moe_prompts.models.prompt_attention import PromptAttention, PromptFamily

#: Iterations of a round in the family's coordinates and in those of a pair.
ROUND, PAIR_ROUND = 12, 100
#: The same in those of keys, which are chosen anew in each round.
KEY_ROUND = 30
#: Smallest eigenvalue of the scaled Hessian that makes a minimum of fits in coordinates of keys; below, a
#: saddle of the valley's floor looks the same.
DEFINITE = 1e-9
#: Iterations more for a start that meets the tolerance at the end of a round, to confirm its certificate.
POLISH = 8
#: Minima within this many nats of each other on the same data count as one.
SAME_MINIMUM = 1e-2
#: A mass at its bound is a logit at its bound up to this.
ROUNDING = 1e-12
#: A stalled fit may end on a bound that is nearer than this share of the box's width. Of 55 fits of experts
#: that stalled, 41 did so between 4e-12 and 2e-8 of it, the others beyond 4e-2.
BESIDE = 1e-6
#: More prompts than any sequence of tokens has.
MOST_PROMPTS = 10**6
#: Standard deviation of near starts around the truth, and of random starts.
NEAR_SPREAD, RANDOM_SPREAD = 0.1, 1.5


@dataclass(frozen=True)
class LeastSquaresOptions:
    """Set the box of a fit and when it stops.

    box             bounds of the parameters
    max_iterations  after so many no further round begins; one has up to 112, and relu goes through all of
                    them three times; at least 1
    tolerance       estimated gain left, in nats, below which a minimum is certified; above 0

    Raises ``InputError`` where a number is outside its range.

    >>> import moe_prompts as mp
    >>> mp.LeastSquaresOptions(max_iterations=2).max_iterations
    2
    """

    box: Box = field(default_factory=Box)
    max_iterations: int = 200
    tolerance: float = GAP_TOLERANCE

    def __post_init__(self) -> None:
        settings(self, box=Box, max_iterations=1, tolerance="(0, inf)")


def least_squares(
    family: PromptFamily,
    data: Sequence[RegressionData],
    starts: Sequence[np.ndarray],
    noise: float,
    options: LeastSquaresOptions | None = None,
    keys: bool = False,
) -> list[SearchResult]:
    """Fit each data set by least squares from several starts, and certify the minimum reached.

    family   prompt kind, head and number of prompts
    data     data sets, which share their points x
    starts   for each data set vectors (count, size) where fits begin
    noise    standard deviation s of the outputs, known; it makes Q a negative log-likelihood in nats
    options  box and stopping rule; ``LeastSquaresOptions()`` by default
    keys     whether rounds after the first are in the coordinates of keys, which adaptive prompts with a bias
             need where the truth is a fixed prompt: without them few of those fits are certified. A
             certificate then asks for ``relative_lmin`` above 1e-9, too

    Returns for each data set the best certified minimum of Q over its starts, all climbed together. ``share``
    is the part of a data set's starts that ended within ``SAME_MINIMUM`` nats of the best. Where the lowest
    end is not certified and no certified one is as low, that is what the status says.

    Raises ``InputError`` where starts have the wrong shape or entries that are not finite, where data do not
    fit the family, or where a family has no coordinates of keys and ``keys`` asks for them.

    >>> import numpy as np
    >>> import moe_prompts as mp
    >>> truth = mp.prompt_truth("attention-tanh")
    >>> data = mp.prompt_data("attention-tanh", n=10_000, seed=0)
    >>> start = mp.vector_near_truth(truth.params, k=2, number=0, rng=np.random.default_rng(0))
    >>> [found] = mp.least_squares(truth.params.family, [data], [start[None]], noise=truth.noise)
    >>> found.best.certified
    True
    """
    options = given(options, LeastSquaresOptions, "least_squares: options")
    data = data_sets(data, "least squares")
    objective = PromptObjective(family, data, noise)
    starts = [numbers(block, "least_squares: starts") for block in listed(starts, "least_squares: starts")]
    if len(starts) != len(data) or any(
        block.ndim != 2 or not block.size or block.shape[1] != family.size for block in starts
    ):
        raise InputError(
            f"least_squares: starts of shapes {[np.shape(block) for block in starts]} for {len(data)} data sets; "
            f"expected (count, {family.size}) for each"
        )
    if not all(np.isfinite(block).all() for block in starts):
        raise InputError("least_squares: starts have NaN or infinite entries; expected finite numbers")
    if flag(keys, "least_squares: keys") and not KeyCoordinates.applies(family):
        raise InputError(
            f"least_squares: {family.k} {family.kind} prompts have no coordinates of keys; expected adaptive ones with "
            "a bias and an analytic activation, k p at most hidden (k + p) for outputs of p entries, or keys=False"
        )
    sets = np.repeat(np.arange(len(data)), [len(block) for block in starts])
    minima = climb(objective, np.concatenate(starts), sets, options, keys)
    return best_of_each(family, minima, sets, len(data))


def best_of_each(family: Any, minima: Minima, sets: np.ndarray, count: int) -> list[SearchResult]:
    """Return the best minimum of each of ``count`` data sets; minimum i is of the data set ``sets[i]``."""
    return [_best(family, minima, np.flatnonzero(sets == r)) for r in range(count)]


def climb(
    objective: Any, starts: np.ndarray, sets: np.ndarray, options: LeastSquaresOptions, keys: bool = False
) -> Minima:
    """Return a minimum from each start (S, size) on its data set (S,), with its certificate.

    The certificate is that of the last of Q's stages, and iterations add up over the stages. ``keys`` is
    that of ``least_squares``.
    """
    iterations = np.zeros(len(starts), dtype=int)
    for stage in objective.stages():
        found = (_key_rounds if keys else _rounds)(stage, starts, sets, options)
        starts = found.vectors
        iterations += found.iterations
    return replace(found, iterations=iterations)


def _rounds(objective: Any, starts: np.ndarray, sets: np.ndarray, options: LeastSquaresOptions) -> Minima:
    """Return the minima after rounds in the family's coordinates and in those of pairs, in turn."""
    lower, upper = objective.bounds(options.box)
    found = minimise(objective, starts, sets, lower, upper, ROUND, options.tolerance, POLISH)
    while len(rows := np.flatnonzero(_may_go_on(found, options.max_iterations))):
        if objective.pairable > 1:
            _follow_pairs(objective, found, rows, sets, options)
        rows = rows[~found.certified[rows]]
        if len(rows):
            plain = minimise(objective, found.vectors[rows], sets[rows], lower, upper, ROUND, options.tolerance, POLISH)
            found.replace(rows, plain, plain.vectors)
    _put_on_bounds(objective, found, sets, options)
    return found


def _put_on_bounds(objective: Any, found: Minima, sets: np.ndarray, options: LeastSquaresOptions) -> None:
    """Certify those of ``found`` that stalled beside the box, at the minimum on the box next to them.

    Along a flat valley that runs into the box, the last steps gain less than the rounding of Q: the path stalls
    so near to the bound that f hardly changes, but not on it, and no certificate holds there. With the
    parameters that are ``BESIDE`` their bound put on it, a descent of few steps finds the minimum on the bound.
    It is taken where it is certified and Q is not higher by more than the tolerance.
    """
    lower, upper = objective.bounds(options.box)
    stalled = np.flatnonzero([status is FitStatus.STALLED for status in found.status])
    near = np.where(np.isfinite(upper - lower), BESIDE * (upper - lower), 0.0)
    x = found.vectors[stalled]
    at_lower, at_upper = (x > lower) & (x - lower < near), (x < upper) & (upper - x < near)
    beside = (at_lower | at_upper).any(axis=1)
    if not beside.any():
        return
    rows = stalled[beside]
    starts = np.where(at_lower, lower, np.where(at_upper, upper, x))[beside]
    ended = minimise(objective, starts, sets[rows], lower, upper, ROUND, options.tolerance, POLISH)
    better = ended.certified & (ended.values <= found.values[rows] + options.tolerance)
    found.replace(rows[better], ended.chosen(better), ended.vectors[better])


def _key_rounds(objective: Any, starts: np.ndarray, sets: np.ndarray, options: LeastSquaresOptions) -> Minima:
    """Return the minima after a round in the family's coordinates and others in those of keys.

    What the box has stopped in one round may go on in the next, whose coordinates are others.
    """
    lower, upper = objective.bounds(options.box)
    found = minimise(objective, starts, sets, lower, upper, ROUND, options.tolerance, POLISH)
    while len(rows := np.flatnonzero(~found.certified & (found.iterations < options.max_iterations))):
        usable = KeyCoordinates(objective, options.box, found.vectors[rows], sets[rows]).usable
        for own, straight in ((rows[usable], True), (rows[~usable], False)):
            if not len(own):
                continue
            if not straight:
                plain = minimise(
                    objective, found.vectors[own], sets[own], lower, upper, ROUND, options.tolerance, POLISH
                )
                found.replace(own, plain, plain.vectors)
                continue
            keys, number = KeyCoordinates(objective, options.box, found.vectors[own], sets[own]), np.arange(len(own))
            begin = keys.phi(found.vectors[own], number)
            minima = minimise(keys, begin, number, *keys.bounds(), KEY_ROUND, options.tolerance, POLISH)
            found.replace(own, minima, np.clip(keys.vectors(minima.vectors, number), lower, upper))
    _put_on_bounds(objective, found, sets, options)
    # On the floor of the valley a stationary point may be a saddle, whose curvature is below rounding.
    flat = found.certified & ~(found.relative_lmin > DEFINITE)
    found.status[flat] = FitStatus.NOT_CERTIFIED
    return found


def _may_go_on(found: Minima, max_iterations: int) -> np.ndarray:
    """Say which minima (S,) have neither ended nor used up their iterations."""
    open_ends = np.array([status is FitStatus.NOT_CERTIFIED for status in found.status])
    return open_ends & (found.iterations < max_iterations)


def _follow_pairs(
    objective: Any, found: Minima, rows: np.ndarray, sets: np.ndarray, options: LeastSquaresOptions
) -> None:
    """Go on with ``rows`` of ``found``, each in the coordinates of its two nearest prompts."""
    own = sets[rows]
    columns = _nearest_first(objective, found.vectors[rows])
    pair = coordinates_of_pair(objective, (0, 1))
    turned = np.take_along_axis(found.vectors[rows], columns, axis=1)
    minima = minimise(pair, pair.phi(turned), own, *pair.bounds(options.box), PAIR_ROUND, options.tolerance, POLISH)
    vectors = np.empty_like(turned)
    np.put_along_axis(vectors, columns, pair.vectors(minima.vectors, own), axis=1)
    lower, upper = objective.bounds(options.box)
    inside = np.all((vectors >= lower - ROUNDING) & (vectors <= upper + ROUNDING), axis=1)
    found.replace(rows[inside], minima.chosen(inside), np.clip(vectors[inside], lower, upper))
    # Where the pair has left the box: go on from the nearest point of it, if that is an improvement.
    outside, clipped = rows[~inside], np.clip(vectors[~inside], lower, upper)
    values = objective.at(clipped, sets[outside]).value
    better = values < found.values[outside]
    found.iterations[outside] += minima.iterations[~inside]
    found.vectors[outside[better]], found.values[outside[better]] = clipped[better], values[better]


def _nearest_first(objective: Any, vectors: np.ndarray) -> np.ndarray:
    """Return where each number of a vector (S, size) is taken from to bring its two nearest prompts to the front.

    Q and its bounds do not know the order of prompts that may form pairs. So all starts share the coordinates
    of the pair (0, 1) and are climbed together, whichever two prompts are the nearest.
    """
    family = objective.family
    _, atoms, _ = family.split(vectors)
    distance = np.linalg.norm(atoms[:, :, None] - atoms[:, None], axis=3)
    distance[:, *np.tril_indices(family.k)] = np.inf
    distance[:, :, objective.pairable :] = np.inf
    nearest = distance.reshape(len(vectors), -1).argmin(axis=1)
    pairs = zip(*np.divmod(nearest, family.k), strict=True)
    order = np.array([[i, j, *(l for l in range(family.k) if l not in (i, j))] for i, j in pairs])  # (S, k)
    slots = np.array([family.slot(prompt) for prompt in range(family.k)])
    shared = np.tile(np.arange(family.k + slots.size, vectors.shape[1]), (len(vectors), 1))
    return np.concatenate([order, slots[order].reshape(len(vectors), -1), shared], axis=1)


def _best(family: Any, minima: Minima, rows: np.ndarray) -> SearchResult:
    """Return the best of the minima ``rows`` of one data set, certified ones first among those that tie."""
    lowest = minima.values[rows].min()
    tied = rows[minima.values[rows] <= lowest + SAME_MINIMUM]
    best = min(tied, key=lambda i: (not minima.certified[i], minima.values[i]))
    fit = FitResult(
        value=family.unpack(minima.vectors[best]),
        status=minima.status[best],
        certificate=minima.certificate(best),
        log_likelihood=-float(minima.values[best]),
        iterations=int(minima.iterations[best]),
    )
    return SearchResult(fit, len(rows), len(tied) / len(rows))


def vector_near_truth(truth: PromptAttention, k: int, number: int, rng: np.random.Generator) -> np.ndarray:
    """Return the vector of a prompt truth plus N(0, .1^2) on every parameter: a start of ``least_squares``.

    ``moe_prompts.near_truth`` is an older name of it. Not ``starts.near_truth``, which returns a rule that
    draws starts of Gaussian-gated fits.

    truth   parameters to stay close to, with k_true prompts
    k       number of prompts of the start; at least k_true
    number  which true prompt the first surplus one splits; the others follow in turn
    rng     source of the noise

    Raises ``InputError`` where k < k_true.

    >>> import numpy as np
    >>> import moe_prompts as mp
    >>> truth = mp.prompt_truth("attention-fixed").params
    >>> mp.vector_near_truth(truth, k=3, number=0, rng=np.random.default_rng(0)).shape
    (9,)
    """
    expect(truth, PromptAttention, "vector_near_truth")
    generator(rng, "vector_near_truth")
    k = whole(k, 1, "vector_near_truth: k", most=MOST_PROMPTS)
    number = whole(number, 0, "vector_near_truth: number")
    if k < truth.k:
        raise InputError(f"vector_near_truth: k = {k} prompts cannot sit at all {truth.k} true ones; raise k")
    atoms = [*range(truth.k), *((number + i) % truth.k for i in range(k - truth.k))]
    vector = truth.chosen(atoms).vector
    return vector + NEAR_SPREAD * rng.standard_normal(len(vector))


near_truth = vector_near_truth


def random_start(family: PromptFamily, rng: np.random.Generator, box: Box) -> np.ndarray:
    """Return a random vector (size,) in the box.

    The logit biases b are uniform on the lower three quarters of their box, and everything else is N(0,
    1.5^2), clipped to its box.

    family  the class of prompts, whose ``size`` is the length of the vector
    rng     generator of the draws
    box     bounds of all parameters

    >>> import numpy as np
    >>> import moe_prompts as mp
    >>> family = mp.prompt_truth("attention-fixed").params.family
    >>> mp.random_start(family, np.random.default_rng(0), mp.Box()).shape == (family.size,)
    True
    """
    expect(family, PromptFamily, "random_start: family")
    generator(rng, "random_start")
    expect(box, Box, "random_start: box")
    low, high = box.b
    b = rng.uniform(low, low + 0.75 * (high - low), family.k)
    return np.concatenate([b, np.clip(RANDOM_SPREAD * rng.standard_normal(family.size - family.k), *box.theta)])


def population_minima(
    family: PromptFamily,
    population: RegressionData,
    noise: float,
    rng: np.random.Generator,
    count: int = 20,
    options: LeastSquaresOptions | None = None,
    also: Sequence[np.ndarray] = (),
) -> Minima:
    """Return the minima of the expected Q from random starts, best first.

    They are what a family that does not contain the truth tends to as n grows, and upper bounds of the floor:
    more starts may find lower ones.

    family      prompt kind, head and number of prompts
    population  the truth's own responses, with weights instead of a sample
    noise       standard deviation s of the outputs
    rng         source of the random starts
    count       number of random starts
    options     box and stopping rule; ``LeastSquaresOptions()`` by default
    also        further starts (size,)
    """
    options = given(options, LeastSquaresOptions, "population_minima: options")
    starts = np.array([*also, *(random_start(family, rng, options.box) for _ in range(count))])
    objective = PromptObjective(family, [population], noise)
    return climb(objective, starts, np.zeros(len(starts), dtype=int), options).sorted()

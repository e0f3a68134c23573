"""Fit gated experts by least squares, certified, from starts beside the truth, from the data and at random.

Q(theta) = sum_i (y_i - f(x_i))^2 / (2 s^2) is climbed down as for prompts (``estimators.prompts``):
rounds in the family's own coordinates and in those of the two nearest experts. Softmax gates are known up
to a translation of all (b_l, beta_l): one expert, the reference, has b = 0 and beta = 0. In fits it is
the last one, after a first round has told which two experts are nearest and neither of them is put last.
A box bounds what is left, so that masses are bounded relative to that of the reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace

import numpy as np

from moe_prompts.checks import expect, generator, given, listed, numbers, whole
from moe_prompts.errors import InputError
from moe_prompts.estimators.experts.heights import HeightCoordinates
from moe_prompts.estimators.prompts.coordinates import PairCoordinates
from moe_prompts.estimators.prompts.least_squares import LeastSquaresOptions, best_of_each, climb
from moe_prompts.estimators.prompts.objective import Box, PromptPoint, around_means, at_same_points, data_sets, noise_of
from moe_prompts.estimators.result import SearchResult
from moe_prompts.models.data import RegressionData
from moe_prompts.models.expert_regression import ExpertFamily, ExpertMap, ExpertRegression, Gate

#: Bounds in which experts are sought: gate intercepts, and all other parameters.
EXPERT_BOX = Box(b=(-2.5, 2.5), theta=(-8.0, 8.0))
EXPERT_OPTIONS = LeastSquaresOptions(box=EXPERT_BOX)


@dataclass(frozen=True)
class ExpertBox(Box):
    """Bound the intercepts c of experts apart from all other parameters.

    c  lowest and highest intercept of an expert

    With c bounded away from 0 no expert sigma(a'x + c) with sigma(0) = 0 is the zero function. Otherwise a
    surplus one vanishes at a = 0, c = 0, whatever its gate.

    Raises ``InputError`` where an interval is empty or not finite.

    >>> ExpertBox(c=(0.25, 5.0)).c
    (0.25, 5.0)
    """

    c: tuple[float, float] = (-5.0, 5.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "c", Box(theta=self.c).theta)


#: Sigmoid gates sum to anything, so that a surplus expert must be kept from being the zero function.
SIGMOID_BOX = ExpertBox(b=(-2.5, 2.5), theta=(-8.0, 8.0), c=(0.25, 8.0))
#: Where a surplus expert is pressed against that bound fits follow long valleys.
SIGMOID_OPTIONS = LeastSquaresOptions(box=SIGMOID_BOX, max_iterations=800)


def options_of(gate: Gate) -> LeastSquaresOptions:
    """Return the options with which studies and profiles fit experts with such gates."""
    return EXPERT_OPTIONS if gate == "softmax" else SIGMOID_OPTIONS


#: Standard deviation of near starts around the truth; and steepness of the gates of data starts.
NEAR_SPREAD, STEEP = 0.1, 3.0


class ExpertObjective:
    """Evaluate Q of a family of experts on data sets that share their points x.

    family  gate, activation and number of experts
    data    data sets at the same points
    noise   standard deviation s of the output

    Raises ``InputError`` where there are no data, where they do not fit the family or differ in their points,
    or where ``noise`` is not positive.
    """

    def __init__(self, family: ExpertFamily, data: Sequence[RegressionData], noise: float) -> None:
        expect(family, ExpertFamily, "experts: family")
        data = data_sets(data, "experts")
        self.noise = noise_of(noise, "ExpertObjective")
        at_same_points(data, (family.d, 1), "ExpertObjective", f"expected d = {family.d} and one output")
        self.family, self.map = family, ExpertMap(family, data[0].x)
        self.weights, self.centre, self.remainder = around_means(data)
        #: Whose gate is 0; None where gates are not known up to a translation only.
        self.reference: int | None = family.k - 1 if family.gate == "softmax" else None
        #: What straightens the valley of a pair.
        self.coordinates = PairCoordinates if family.gate == "softmax" else HeightCoordinates

    @property
    def pairable(self) -> int:
        """Return how many experts, from the first on, may have coordinates of pairs: not the reference."""
        return self.family.k - (self.reference is not None)

    def beside(self, experts: Sequence[int]) -> ExpertObjective:
        """Return the objective whose reference is none of ``experts``.

        Raises ``InputError`` where no expert is left.
        """
        if self.reference is None or self.reference not in experts:
            return self
        left = [l for l in range(self.family.k) if l not in experts]
        if not left:
            raise InputError(f"experts: {self.family.k} with a softmax gate, all of them free; expected one more")
        other = copy(self)
        other.reference = left[-1]
        return other

    def normal(self, vectors: np.ndarray) -> np.ndarray:
        """Return the vectors (S, size) with the same f at which the gate of the reference is 0."""
        if self.reference is None:
            return vectors
        out = vectors.copy()
        gates = self.map.own[:, : 1 + self.family.d]  # (k, 1 + d)
        out[:, gates] -= out[:, gates[self.reference]][:, None]
        return out

    def stages(self) -> list[ExpertObjective]:
        """Return what is minimised in turn: Q itself.

        Raises ``InputError`` for an activation with a kink, whose minima have no derivative.
        """
        if not self.family.activation.analytic:
            raise InputError(f"experts with {self.family.sigma}: least squares needs an activation without a kink")
        return [self]

    def bounds(self, box: Box) -> tuple[np.ndarray, np.ndarray]:
        """Return the lower and upper ends (size,) of the coordinates in the box: 0 at the reference."""
        of_b = np.arange(self.family.size) < self.family.k
        lower, upper = np.where(of_b, box.b[0], box.theta[0]), np.where(of_b, box.b[1], box.theta[1])
        if isinstance(box, ExpertBox):
            lower[self.map.own[:, -1]], upper[self.map.own[:, -1]] = box.c
        if self.reference is not None:
            held = self.map.own[self.reference, : 1 + self.family.d]
            lower[held] = upper[held] = 0.0
        return lower, upper

    def vectors(self, phi: np.ndarray, sets: np.ndarray) -> np.ndarray:
        """Return phi itself: the coordinates are the family's own."""
        return phi

    def at(self, vectors: np.ndarray, sets: np.ndarray) -> PromptPoint:
        """Return the objective at vectors (S, size), each on the data set that ``sets`` (S,) names."""
        return PromptPoint(self, self.map.at(vectors), sets)

    def retract(self, vectors: np.ndarray) -> np.ndarray:
        """Return the vectors as they are: no symmetry is left."""
        return vectors

    def gauges(self, vectors: np.ndarray) -> np.ndarray:
        """Return no directions (S, size, 0)."""
        return np.zeros((*vectors.shape, 0))


def fit_experts(
    family: ExpertFamily,
    data: Sequence[RegressionData],
    starts: Sequence[np.ndarray],
    noise: float,
    options: LeastSquaresOptions | None = None,
) -> list[SearchResult]:
    """Fit each data set from several starts, and return its best certified minimum.

    family   gate, activation and number of experts
    data     data sets, which share their points x
    starts   for each data set vectors (count, size) where fits begin
    noise    standard deviation s of the output, known
    options  box and stopping rule; ``EXPERT_OPTIONS`` by default

    Raises ``InputError`` where starts have the wrong shape or entries that are not finite, or where data do
    not fit the family.

    >>> import numpy as np
    >>> from moe_prompts.models.expert_truths import expert_data, expert_truth
    >>> truth = expert_truth("experts-softmax-tanh")
    >>> data = expert_data("experts-softmax-tanh", n=10_000, seed=0)
    >>> start = near_experts(truth.params, k=2, number=0, rng=np.random.default_rng(0))
    >>> [found] = fit_experts(truth.family(2), [data], [start[None]], noise=truth.noise)
    >>> found.best.certified
    True
    """
    options = EXPERT_OPTIONS if options is None else given(options, LeastSquaresOptions, "fit_experts: options")
    data = data_sets(data, "fit_experts")
    objective = ExpertObjective(family, data, noise)
    starts = [numbers(block, "fit_experts: starts") for block in listed(starts, "fit_experts: starts")]
    shapes = [block.shape for block in starts]
    if len(starts) != len(data) or any(len(s) != 2 or not s[0] or s[1] != family.size for s in shapes):
        raise InputError(
            f"fit_experts: starts of shapes {shapes} for {len(data)} data sets; expected (count, {family.size}) for "
            "each"
        )
    if not all(np.isfinite(block).all() for block in starts):
        raise InputError("fit_experts: starts have NaN or infinite entries; expected finite numbers")
    sets = np.repeat(np.arange(len(data)), [len(block) for block in starts])
    vectors, before = objective.normal(np.concatenate(starts)), np.zeros(len(sets), dtype=int)
    # Gates of a softmax are known up to a translation: one expert is the reference, and it can be in no pair
    # of ``PairCoordinates``. So it should not be one of two that share a cell. After one iteration the expert
    # that is farthest from any other can be told, and becomes the last, which is the reference.
    if objective.reference is not None and family.k > 2:
        first = climb(objective, vectors, sets, replace(options, max_iterations=1))
        vectors, before = _apart_last(objective, first.vectors), first.iterations
    minima = climb(objective, vectors, sets, options)
    return best_of_each(family, replace(minima, iterations=minima.iterations + before), sets, len(data))


def _apart_last(objective: ExpertObjective, vectors: np.ndarray) -> np.ndarray:
    """Return the vectors (S, size) with the expert that is farthest from any other last, as the reference."""
    family = objective.family
    _, atoms, _ = family.split(vectors)
    distance = np.linalg.norm(atoms[:, :, None] - atoms[:, None], axis=3)
    distance[:, np.arange(family.k), np.arange(family.k)] = np.inf
    last = distance.min(axis=2).argmax(axis=1)
    order = np.array([[*(l for l in range(family.k) if l != one), one] for one in last])
    by_expert = vectors[:, objective.map.own][np.arange(len(vectors))[:, None], order]  # (S, k, 1 + q)
    out = np.empty_like(vectors)
    out[:, objective.map.own] = by_expert
    return objective.normal(out)


def near_experts(truth: ExpertRegression, k: int, number: int, rng: np.random.Generator) -> np.ndarray:
    """Return the vector of a truth plus N(0, .1^2) on every parameter, surplus experts beside true ones.

    truth   parameters to stay close to, with k_true experts
    k       number of experts of the start; at least k_true
    number  which true expert the first surplus one splits; the others follow in turn
    rng     source of the noise

    Raises ``InputError`` where k < k_true.
    """
    expect(truth, ExpertRegression, "near_experts")
    generator(rng, "near_experts")
    k, number = whole(k, 1, "near_experts: k"), whole(number, 0, "near_experts: number")
    if k < truth.k:
        raise InputError(f"near_experts: k = {k} experts cannot sit at all {truth.k} true ones; raise k")
    vector = truth.chosen([*range(truth.k), *((number + i) % truth.k for i in range(k - truth.k))]).vector
    return vector + NEAR_SPREAD * rng.standard_normal(len(vector))


def data_start(
    family: ExpertFamily, data: RegressionData, rng: np.random.Generator, box: Box = EXPERT_BOX
) -> np.ndarray:
    """Return a start (size,) that knows the data only.

    k points of the design are drawn as centres; each gate is steepest around its centre, and each expert is
    the least-squares line of sigma^-1(y) over the points nearest to its centre, with y moved into
    sigma([-2, 2]): such starts suit outputs of order 1.
    """
    centres = data.x[rng.choice(len(data.x), family.k, replace=False)]
    weights = np.maximum(data.weights, 0.0)
    means = data.sums[:, 0] / np.where(weights > 0, weights, 1.0)
    nearest = ((data.x[:, None] - centres) ** 2).sum(axis=2).argmin(axis=1)
    # The inverse of sigma by a table: all activations here rise where they are inverted.
    table = np.linspace(-2, 2, 401)
    heights = np.maximum.accumulate(family.activation.value(table))
    arguments = np.interp(means * (1.0 if family.gate == "softmax" else 2.0), heights, table)
    design = np.concatenate([data.x, np.ones((len(data.x), 1))], axis=1)
    atoms = np.empty((family.k, family.atom_size))
    for l in range(family.k):
        root = np.sqrt(weights * (nearest == l))[:, None]
        line, *_ = np.linalg.lstsq(root * design, root[:, 0] * arguments, rcond=None)
        atoms[l] = np.concatenate([STEEP * centres[l], line])
    # A softmax with logits STEEP (c'x - |c|^2 / 2) is largest where c is nearest.
    b = -0.5 * STEEP * (centres**2).sum(axis=1)
    return np.concatenate([np.clip(b, *box.b), np.clip(atoms, *box.theta).ravel()])


def random_experts(family: ExpertFamily, rng: np.random.Generator, box: Box = EXPERT_BOX) -> np.ndarray:
    """Return a random vector (size,) in the box: b uniform in [-1, 1], everything else N(0, 1.5^2)."""
    b, rest = rng.uniform(-1, 1, family.k), 1.5 * rng.standard_normal(family.size - family.k)
    return np.concatenate([np.clip(b, *box.b), np.clip(rest, *box.theta)])

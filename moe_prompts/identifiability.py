"""Tell without noise what decides the rate of prompts, before any data are drawn.

Where a fit has one prompt more than the truth, two of its prompts share the cell of a true one. How well can
the others hide the split? With the spread of the pair (mass-weighted root mean square about its barycentre)
held at eps,

    profile(eps) = min |f_G - f_G*|_{L2},
    local exponent 1: regular, n^-1/2;  2: n^-1/4;  infinite: not identified.

Setting profile(eps_n) = s / sqrt(n) predicts the median split error with no fitted constant. Two numbers sum
it up:

kappa1  the smallest singular value of the Jacobian at the truth: 0 where the truth itself is not identified
kappa2  min over prompts and unit directions u of |P D2[u, u]|, D2 half the second derivative of a prompt's
        part of f (denominator held) and P the projection off the span of the Jacobian: 0 where splits are
        invisible to second order, so that the exponent is above 2

Asymptotically eps_n^4 = s^2 / (kappa2^2 n).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from moe_prompts.checks import expect, generator, given, numbers, real, whole
from moe_prompts.errors import InputError
from moe_prompts.estimators.experts.least_squares import ExpertObjective, fit_experts, near_experts, options_of
from moe_prompts.estimators.prompts.coordinates import OnSphere, PairCoordinates, coordinates_of_pair
from moe_prompts.estimators.prompts.least_squares import LeastSquaresOptions, least_squares, vector_near_truth
from moe_prompts.estimators.prompts.levenberg_marquardt import minimise
from moe_prompts.estimators.prompts.objective import Box, PromptObjective, data_sets
from moe_prompts.estimators.result import GAP_TOLERANCE, SearchResult
from moe_prompts.models.data import RegressionData
from moe_prompts.models.expert_regression import ExpertFamily, ExpertMap, ExpertValues
from moe_prompts.models.expert_truths import ExpertTruth
from moe_prompts.models.multi_head import MultiHeadValues, prompt_map
from moe_prompts.models.prompt_attention import PromptAttention, PromptFamily, PromptKind
from moe_prompts.models.prompt_derivatives import PromptValues
from moe_prompts.models.prompt_truths import PromptTruth
from moe_prompts.models.regression_truths import RegressionTruth
from moe_prompts.models.zero_initialised import ZeroInitialisedValues
from moe_prompts.shown import Shown

#: Spreads at which profiles are computed, beside the two between which the local exponent is read.
EPS = (0.0125, 0.025, 0.05, 0.1, 0.2, 0.4)
#: Singular values of a Jacobian below this share of the largest one are zero.
ZERO_TANGENT = 1e-9
#: kappa2 below this is zero up to the rounding of second derivatives, and a profile below this is zero: both
#: times the order of magnitude of the outputs (``order_of_outputs``).
ZERO_KAPPA2, ZERO_PROFILE = 1e-5, 1e-12
#: Random directions of a split that are tried without noise, beside the least visible one; how many of the
#: minima found there serve as starts for each data set.
DIRECTIONS, NOISY_STARTS = 8, 2
#: Random starts of Newton's method for kappa2 where q is small.
STARTS = 24
#: Steps of Newton's method for kappa2; a minimum of 0, where its error shrinks by a third a step, takes the
#: most.
QUARTIC_STEPS = 80
#: A mass at its bound is a logit at its bound up to this.
ROUNDING = 1e-12
#: Fixed prompts of more dimensions than this take kappa2 without the tensor of all pairs of directions, from
#: so many starts.
DENSE, FEW_STARTS = 24, 2
#: Size of a profile in the log-likelihood of the pairs that stand for the population.
NATS = 100.0
MAX_ITERATIONS = 400


@dataclass(frozen=True, repr=False)
class Kappas(Shown):
    """Hold kappa1 and kappa2 of a truth.

    kappa1              smallest singular value of the Jacobian; 0 where the truth is not identified
    kappa2              the smallest of ``per_prompt``; 0 where splits are invisible to second order
    per_prompt  (k,)    kappa2 of each prompt
    directions  (k, q)  unit directions that attain them
    """

    kappa1: float
    kappa2: float
    per_prompt: np.ndarray
    directions: np.ndarray


Objective = PromptObjective | ExpertObjective


def _objective(family: PromptFamily | ExpertFamily, data: Sequence[RegressionData], noise: float) -> Objective:
    """Return the sum of squares of a family on some data sets."""
    if isinstance(family, ExpertFamily):
        return ExpertObjective(family, data, noise)
    return PromptObjective(family, data, noise)


def _box_of(truth: RegressionTruth) -> Box:
    """Return the box in which fits to a truth are sought."""
    return options_of(truth.params.gate).box if isinstance(truth, ExpertTruth) else Box()


def _values(truth: RegressionTruth) -> PromptValues | MultiHeadValues | ZeroInitialisedValues | ExpertValues:
    """Return f and what its derivatives need at the truth, on its design."""
    if isinstance(truth, ExpertTruth):
        return ExpertMap(truth.params.family, truth.x).at(truth.params.vector[None])
    return prompt_map(truth.params.family, truth.x).at(truth.params.vector[None])


def kappas(truth: RegressionTruth, rng: np.random.Generator) -> Kappas:
    """Return kappa1 and kappa2 of a truth on its design.

    truth  a named truth of prompts or of gated experts, or one made by hand
    rng    source of the starts of a descent: the minimum over directions is the best of several

    >>> import numpy as np
    >>> import moe_prompts as mp
    >>> found = mp.kappas(mp.prompt_truth("attention-tanh"), np.random.default_rng(0))
    >>> found.kappa1 > 0.01, found.kappa2 > 0.01
    (True, True)
    """
    expect(truth, (PromptTruth, ExpertTruth), "kappas: truth")
    generator(rng, "kappas")
    family, values = truth.params.family, _values(truth)
    root = 1 / np.sqrt(len(truth.x))
    jacobian = values.jacobian()[0].reshape(family.size, -1) * root
    left, sizes, _ = np.linalg.svd(jacobian.T, full_matrices=False)
    # Exact symmetries (relu's scales, translations of softmax gates) have singular value 0.
    span = left[:, : family.n_parameters]
    per_prompt, directions = [], []
    quartic: Quartic
    for l in range(family.k):
        if (
            isinstance(values, PromptValues | MultiHeadValues)
            and family.kind.base == "fixed"
            and family.atom_size > DENSE
        ):
            quartic, starts = SplitQuartic.of(values, l, span), _unseen_first(values, FEW_STARTS, rng)
        else:
            second = second_order_part(values, l).reshape(family.atom_size, family.atom_size, -1) * root
            off = second - (second @ span) @ span.T
            quartic = DenseQuartic(np.einsum("abm,cdm->abcd", off, off))
            starts = rng.standard_normal((STARTS, family.atom_size))
        size, direction = _smallest_quartic(quartic, starts)
        per_prompt.append(size)
        directions.append(direction)
    return Kappas(float(sizes[family.n_parameters - 1]), min(per_prompt), np.array(per_prompt), np.array(directions))


def represented(truth: PromptTruth, kind: PromptKind, rng: np.random.Generator) -> PromptAttention:
    """Return the truth written as prompts of a kind that contains it.

    truth  a named truth of prompt regression, or one made by hand
    kind   the truth's own; for fixed prompts and prefixes also decoupled, for fixed ones adaptive with a bias
    rng    source of the free numbers: of many representations by adaptive prompts it is a random one

    A fixed prompt is W2 sigma(a_l) for any biases a_l whose sigma(a_l) are independent, with W1 = 0 beside
    them.

    Raises ``InputError`` for a kind of which no representation is known here.
    """
    params = truth.params
    if kind == params.kind:
        return params
    hidden = truth.family(kind, params.k).hidden
    if params.kind.base in ("fixed", "prefix") and kind.base == "decoupled":
        return params.separate
    if params.kind.base == "fixed" and kind.bias and params.k <= hidden:
        return by_biases(truth, kind, rng.standard_normal((params.k, hidden)))
    raise InputError(f"represented: {truth.name} as {kind} prompts; expected a kind that contains fixed prompts")


def by_biases(truth: PromptTruth, kind: PromptKind, biases: np.ndarray) -> PromptAttention:
    """Return a truth of fixed prompts as adaptive ones with biases (k, r) and W1 = 0 beside them."""
    params = truth.params
    W1 = np.concatenate([np.zeros((*biases.shape, params.head.reads)), biases[:, :, None]], axis=2)
    W2 = np.linalg.lstsq(kind.activation.value(biases), params.atoms, rcond=None)[0].T
    return PromptAttention.adaptive(params.head, params.b, W1, W2, kind.sigma, bias=True)


def tangent_rank(truth: PromptTruth, kind: PromptKind, rng: np.random.Generator) -> int:
    """Return the rank of the Jacobian of f in a class at a truth that it contains.

    Where it is the number of parameters, the truth is regular in the class, and the expected risk of least
    squares is s^2 rank / n for large n. Where it is smaller, the class is singular there: some directions
    show at second order only, and no general prediction is known.

    truth, kind, rng  as for ``represented``, at whose random representation the rank is read

    >>> import numpy as np
    >>> import moe_prompts as mp
    >>> kind = mp.PromptKind.parse("adaptive:gelu:bias")
    >>> tangent_rank(mp.prompt_truth("attention-fixed"), kind, np.random.default_rng(0))
    14
    """
    params = represented(truth, kind, rng)
    jacobian = prompt_map(params.family, truth.x).at(params.vector[None]).jacobian()[0]
    sizes = np.linalg.svd(jacobian.reshape(len(params.vector), -1), compute_uv=False)
    return int((sizes > ZERO_TANGENT * sizes[0]).sum())


def second_order_part(
    values: PromptValues | MultiHeadValues | ZeroInitialisedValues | ExpertValues, l: int
) -> np.ndarray:
    """Return half the second derivative of prompt l's part of f, with f and its denominator held.

    It is (e^{b_l} / 2) d2/dtheta_l2 { e^{s_l} (v_l - f) / den }, of shape (q, q, outputs, m).
    For several heads it is the sum of the parts of the heads, each with its own den and f, through the output
    projection.
    """
    if isinstance(values, ExpertValues):
        return 0.5 * values.second(l)[0, 1:, 1:, None]  # without b, a weight
    if isinstance(values, MultiHeadValues):
        parts = [second_order_part(part, l) for part in values.parts]
        return np.sum([O @ part for O, part in zip(values.map.outputs, parts, strict=True)], axis=0)
    if isinstance(values, ZeroInitialisedValues):
        return values.factor[0] * second_order_part(values.part, l)
    map = values.map
    family, head = map.family, map.family.one_head
    q, m = family.atom_size, map.queries.shape[1]
    shape = (1, family.k, head.p)
    ds = values.chain(np.broadcast_to(map.queries, (*shape, m)), np.zeros((*shape, m)))[0, l, :q]
    by_value = np.broadcast_to(head.C.T[:, :, None], (*shape, head.l, m))
    dv = values.chain(np.zeros_like(by_value), by_value)[0, l, :q]
    gap = np.broadcast_to(values.experts[0, l] - values.f[0], (head.l, m))
    mixed = ds[:, None, None] * dv[None]
    total = ds[:, None, None] * ds[None, :, None] * gap + mixed + mixed.swapaxes(0, 1)
    if family.kind.base == "prefix":
        by_key = np.broadcast_to(map.queries[:, None] * gap, (*shape, head.l, m))
        total[np.arange(q), np.arange(q)] += values.bends(by_key, by_value)[0, l]
    if family.kind.base == "adaptive":
        assert values.hidden is not None
        bend = family.kind.activation.second(values.hidden[0, l])  # (r, m)
        by_unit = (map.queries.T @ values.w2[0]).T[:, None] * gap + (head.C @ values.w2[0]).T[:, :, None]  # (r, l, m)
        outer = map.inputs[:, None] * map.inputs[None]  # (D, D, m)
        D = len(map.inputs)
        for u in range(family.hidden):
            own = slice(u * D, (u + 1) * D)
            total[own, own] += bend[u] * by_unit[u] * outer[:, :, None]
    return 0.5 * values.gates[0, l] * total


class Quartic(Protocol):
    """Describe |L[u, u]|^2 of a symmetric bilinear L with values in some space, at directions u (S, q)."""

    def at(self, u: np.ndarray) -> np.ndarray:
        """Return |L[u, u]|^2 (S,)."""
        ...

    def bends(self, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return L[u, u]'L[a, b] and L[u, a]'L[u, b] for all axes a and b, each (S, q, q)."""
        ...


class DenseQuartic:
    """Hold gram (q, q, q, q) = L[a, b]'L[c, d], symmetric in each pair and under exchange of the pairs."""

    def __init__(self, gram: np.ndarray) -> None:
        q = self.q = len(gram)
        self.pairs, self.crossed = gram.reshape(q * q, q * q), gram.transpose(0, 2, 1, 3).reshape(q * q, q * q)

    def _square(self, u: np.ndarray) -> np.ndarray:
        return (u[:, :, None] * u[:, None]).reshape(-1, self.q * self.q)

    def at(self, u: np.ndarray) -> np.ndarray:
        """Return |L[u, u]|^2 (S,)."""
        return ((self._square(u) @ self.pairs) * self._square(u)).sum(axis=1)

    def bends(self, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return L[u, u]'L[a, b] and L[u, a]'L[u, b], each (S, q, q)."""
        shape = (-1, self.q, self.q)
        return (self._square(u) @ self.pairs).reshape(shape), (self._square(u) @ self.crossed.T).reshape(shape)


@dataclass(frozen=True)
class SplitQuartic:
    """Hold |P D2[u, u]|^2 of one fixed prompt without the tensor D2, whose size is q^2 outputs m.

        D2[u, w] = sum_h (g_h / 2) [ (Q_h'u)(Q_h'w) gap_h + (Q_h'u) C_h w + (Q_h'w) C_h u ]

    over the heads h, with gates g_h (m,), queries Q_h (q, m), gap_h (l, m) the prompt's value less f_h, and
    C_h (l, q), the last two after the output projection.

    parts  for each head half g_h, Q_h, gap_h and C_h
    span   (l m, rank) orthonormal: what P takes out
    root   weight of a point's value, m^-1/2
    """

    parts: tuple[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray], ...]
    span: np.ndarray
    root: float

    @classmethod
    def of(cls, values: PromptValues | MultiHeadValues, l: int, span: np.ndarray) -> SplitQuartic:
        """Return it of prompt l; ``span`` as in the class."""
        heads: Sequence[PromptValues]
        if isinstance(values, MultiHeadValues):
            heads, outputs = values.parts, values.map.outputs
        else:
            heads, outputs = (values,), (np.eye(values.f.shape[1]),)
        parts = tuple(
            (
                one.gates[0, l] / 2,
                one.map.queries,
                O @ (one.experts[0, l] - one.f[0]),
                O @ one.map.family.one_head.C,
            )
            for one, O in zip(heads, outputs, strict=True)
        )
        return cls(parts, span, 1 / np.sqrt(values.f.shape[2]))

    def along(self, u: np.ndarray) -> np.ndarray:
        """Return D2[u, a] weighted, for one u (q,) and all axes a (q, l m), nothing taken out."""
        total = np.zeros((len(u), *self.parts[0][2].shape))
        for half, Q, gap, C in self.parts:
            s = half * (u @ Q)
            total += Q[:, None] * (s * gap + half * (C @ u)[:, None]) + C.T[:, :, None] * s
        return total.reshape(len(u), -1) * self.root

    def off(self, rows: np.ndarray) -> np.ndarray:
        """Return P of rows (.., l m)."""
        return rows - (rows @ self.span) @ self.span.T

    def at(self, u: np.ndarray) -> np.ndarray:
        """Return |P D2[u, u]|^2 (S,)."""
        return np.array([(self.off(self.twice(one)) ** 2).sum() for one in u])

    def twice(self, u: np.ndarray) -> np.ndarray:
        """Return D2[u, u] (l m,) weighted, for one u (q,), nothing taken out."""
        total = np.zeros(self.parts[0][2].shape)
        for half, Q, gap, C in self.parts:
            s = u @ Q
            total += half * (s**2 * gap + 2 * s * (C @ u)[:, None])
        return total.ravel() * self.root

    def bends(self, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return L[u, u]'L[a, b] and L[u, a]'L[u, b] of L = P D2, each (S, q, q)."""
        inner, crossed = [], []
        for one in u:
            rows = self.off(self.along(one))
            crossed.append(rows @ rows.T)
            residual = (one @ rows).reshape(self.parts[0][2].shape) * self.root
            total = np.zeros((len(one), len(one)))
            for half, Q, gap, C in self.parts:
                mixed = (Q * half) @ residual.T @ C
                total += (Q * (half * (residual * gap).sum(axis=0))) @ Q.T + mixed + mixed.T
            inner.append(total)
        return np.array(inner), np.array(crossed)


def _unseen_first(values: PromptValues | MultiHeadValues, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return starts (count, q) for the least visible split: half those that keys see least, half at random."""
    heads = values.parts if isinstance(values, MultiHeadValues) else (values,)
    queries = np.concatenate([one.map.queries.T - one.map.queries.mean(axis=1) for one in heads])
    least = np.linalg.svd(queries, full_matrices=True)[2][::-1][: count // 2]
    return np.concatenate([least, rng.standard_normal((count - len(least), queries.shape[1]))])


def _smallest_quartic(quartic: Quartic, starts: np.ndarray) -> tuple[float, np.ndarray]:
    """Return min over unit u of |L[u, u]| and where it is.

    Damped Newton steps on the sphere, from all starts (S, q) at once.
    """
    u = starts / np.linalg.norm(starts, axis=1, keepdims=True)
    q = u.shape[1]
    damping, value = np.full(len(u), 1e-3), quartic.at(u)
    unit = max(float(value.max()), np.finfo(float).tiny)
    for _ in range(QUARTIC_STEPS):
        inner, crossed = quartic.bends(u)
        gradient = 4 * (inner @ u[:, :, None])[:, :, 0]
        off_u = np.eye(q) - u[:, :, None] * u[:, None]
        hessian = 4 * inner + 8 * crossed - 4 * value[:, None, None] * np.eye(q)
        lam, basis = np.linalg.eigh(off_u @ hessian @ off_u)
        along = (basis.swapaxes(1, 2) @ (off_u @ gradient[:, :, None]))[:, :, 0]
        step = -(basis @ (along / (np.abs(lam) + damping[:, None] * unit))[:, :, None])[:, :, 0]
        trial = u + step
        trial /= np.linalg.norm(trial, axis=1, keepdims=True)
        reached = quartic.at(trial)
        better = reached < value
        u[better], value[better] = trial[better], reached[better]
        # Where a step gained nothing a shorter one may; where none does any more, rounding has been reached.
        damping = np.where(better, np.maximum(damping / 5, 1e-15), damping * 4)
        if (damping > 1e6).all():
            break
    best = int(value.argmin())
    return float(np.sqrt(max(value[best], 0.0))), u[best]


def order_of_outputs(signal: float) -> float:
    """Return the power of 100 nearest to the root of ``signal`` = E |f*|^2: 1 for outputs of .1 to 10.

    What counts as zero is a share of it. As a power of 100 it is 1 for every named truth, and moves with the
    unit of the outputs.
    """
    return 100.0 ** round(np.log10(signal) / 4) if signal > 0 else 1.0


@dataclass(frozen=True, repr=False)
class Profile(Shown):
    """Hold the profile of a truth at several spreads.

    eps        (E,)  spreads, ascending
    value      (E,)  profile there; NaN where no split of that spread stays in a cell
    cell       (E,)  whose split hides best
    certified  (E,)  whether that minimum has a certificate; without one it is an upper bound
    unit             order of magnitude of the outputs, of which 1e-12 counts as zero
    """

    eps: np.ndarray
    value: np.ndarray
    cell: np.ndarray
    certified: np.ndarray
    unit: float = 1.0

    @property
    def exponents(self) -> np.ndarray:
        """Return the local exponents (E - 1,) between spreads; infinite where splits are invisible."""
        if self.vanishes:
            return np.full(len(self.eps) - 1, np.inf)
        return np.diff(np.log(self.value)) / np.diff(np.log(self.eps))

    @property
    def vanishes(self) -> bool:
        """Say whether splits are invisible at the smallest spread."""
        return bool(self.value[0] < ZERO_PROFILE * self.unit)

    def predicted_split(self, n: np.ndarray, noise: float) -> np.ndarray:
        """Return eps_n with profile(eps_n) = noise / sqrt(n), by log-log interpolation.

        n      sample sizes
        noise  standard deviation of the outputs

        The profile is extended below with its last exponent. The result is infinite where no spread in the
        profile is visible at that n.
        """
        known = np.isfinite(self.value)
        if self.vanishes or known.sum() < 2:
            return np.full(np.shape(n), np.inf)
        # A larger spread that is seen less (relu on a grid) cannot be told from a smaller one: the profile
        # from below.
        level, spread = np.log(np.maximum.accumulate(self.value[known])), np.log(self.eps[known])
        wanted = np.log(noise / np.sqrt(np.asarray(n, dtype=float)))
        inside = np.interp(wanted, level, spread)
        below = spread[0] + (wanted - level[0]) * (spread[1] - spread[0]) / (level[1] - level[0])
        return np.where(wanted > level[-1], np.inf, np.exp(np.where(wanted < level[0], below, inside)))


def profile(
    truth: RegressionTruth,
    rng: np.random.Generator,
    surplus: int = 1,
    eps: Sequence[float] = EPS,
    box: Box | None = None,
    directions: int = DIRECTIONS,
) -> Profile:
    """Compute the noise-free profile of fits with one prompt more than the truth has, or none.

    truth    a named truth of prompts or of gated experts, or one made by hand
    rng      source of the directions in which splits are tried
    surplus  1 for one prompt too many, 0 for as many as the truth has
    eps      at least two positive spreads
    box      bounds of the parameters; by default those of fits, ``Box()`` or ``EXPERT_BOX``
    directions  random directions of a split that are tried beside the least visible one; at least 0

    With ``surplus`` 1, eps is the spread of two prompts in the cell of a true one, with 0 the distance of a
    prompt from a true one; the smallest over the true prompts counts. Fits whose prompts do not stay in that
    cell are left out: beyond about half the distance between true prompts there are none, and a spread means
    something else.

    Raises ``InputError`` for other spreads or another surplus.

    >>> import numpy as np
    >>> import moe_prompts as mp
    >>> truth = mp.prompt_truth("attention-fixed")
    >>> found = mp.profile(truth, np.random.default_rng(0), eps=(0.025, 0.05))
    >>> np.round(found.exponents, 1)
    array([1.9])
    """
    spreads = np.sort(np.atleast_1d(numbers(eps, "profile: eps")).ravel())
    if len(spreads) < 2 or not spreads[0] > 0 or not np.isfinite(spreads).all():
        raise InputError(f"profile: eps = {eps!r}; expected at least two positive spreads")
    if surplus not in (0, 1):
        raise InputError(f"profile: surplus = {surplus}; expected 0 (exact) or 1 (one prompt too many)")
    box = expect(box or _box_of(truth), Box, "profile: box")
    directions = whole(directions, 0, "profile: directions")
    found = kappas(truth, rng)
    # So many pairs that the smallest visible profile is hundreds of nats, and the tolerance far below it.
    unit = order_of_outputs(truth.signal)
    if surplus:
        pairs = NATS * (truth.noise / (max(found.kappa2, ZERO_KAPPA2 * unit) * spreads**2)) ** 2
    else:
        pairs = NATS * (truth.noise / (found.kappa1 * spreads)) ** 2
    family = truth.params.family.with_k(truth.k_true + surplus)
    objective = _objective(family, [truth.population(n) for n in pairs], truth.noise)
    values = np.full((truth.k_true, len(spreads)), np.nan)
    certified = np.zeros(values.shape, dtype=bool)
    for l in range(truth.k_true):
        hold, beside = _hold(truth, l, surplus, spreads), objective.beside((l, truth.k_true)[: 1 + surplus])
        lines = np.array([found.directions[l], *rng.standard_normal((directions, family.atom_size))])
        starts = _along(hold(beside), _split_at(truth, beside, l), lines)
        for index, ends in enumerate(_held_minima(beside, hold, starts, truth, l, box, GAP_TOLERANCE * NATS)):
            if len(ends.values):
                values[l, index] = np.sqrt(max(ends.values[0], 0.0) * 2 * truth.noise**2 / pairs[index])
                certified[l, index] = ends.certified[0]
    cell = np.where(np.isnan(values), np.inf, values).argmin(axis=0)
    best = cell, np.arange(len(spreads))
    return Profile(spreads, values[best], cell, certified[best], unit)


Hold = Callable[[Objective], OnSphere]


def _split_at(truth: RegressionTruth, objective: Objective, l: int) -> np.ndarray:
    """Return the truth, with surplus prompts at prompt l, as a vector (1, size) of ``objective``."""
    surplus = objective.family.k - truth.k_true
    return objective.normal(truth.params.chosen([*range(truth.k_true), *[l] * surplus]).vector[None])


def _hold(truth: RegressionTruth, l: int, surplus: int, eps: np.ndarray) -> Hold:
    """Return what makes of Q the Q with eps (R,) held.

    eps is the spread of prompt l and the surplus one, or the distance of prompt l from the true one.
    """

    def hold(objective: Objective) -> OnSphere:
        if surplus:
            pair = coordinates_of_pair(objective, (l, truth.k_true))
            return OnSphere(pair, pair.split, np.zeros(objective.family.atom_size), eps)
        slot = objective.family.slot(l)
        return OnSphere(objective, slot, _split_at(truth, objective, l)[0, slot], eps)

    return hold


def _along(held: OnSphere, base: np.ndarray, lines: np.ndarray) -> np.ndarray:
    """Return coordinates (S, size) of a vector (1, size), moved along lines (S, q)."""
    if isinstance(held.base, PairCoordinates):
        base = held.base.phi(base)
    starts = np.tile(base, (len(lines), 1))
    starts[:, held.held] = lines
    return starts


@dataclass(frozen=True)
class HeldMinima:
    """Hold the minima of one data set with a split held, lowest first.

    phi        (S, size)  coordinates
    vectors    (S, size)  vectors of the family
    values     (S,)       Q, in nats
    certified  (S,)       which have a certificate
    """

    phi: np.ndarray
    vectors: np.ndarray
    values: np.ndarray
    certified: np.ndarray


def _held_minima(
    objective: Objective,
    hold: Hold,
    starts: np.ndarray,
    truth: RegressionTruth,
    l: int,
    box: Box,
    tolerance: float = GAP_TOLERANCE,
) -> list[HeldMinima]:
    """Return for each data set where ``starts`` (S, size) lead to, in the box and the cell of prompt l."""
    sets = np.repeat(np.arange(len(hold(objective).eps)), len(starts))
    phi = np.tile(starts, (sets[-1] + 1, 1))
    for stage in objective.stages():
        held = hold(stage)
        minima = minimise(held, phi, sets, *held.bounds(box), MAX_ITERATIONS, tolerance)
        phi = minima.vectors
    vectors = held.vectors(phi, sets)
    lower, upper = objective.bounds(box)
    kept = np.all((vectors >= lower - ROUNDING) & (vectors <= upper + ROUNDING), axis=1)
    _, (true,), _ = objective.family.split(_split_at(truth, objective, l))
    kept &= [_in_cell(true[: truth.k_true], objective.family.split(vector)[1], l) for vector in vectors]
    found = []
    for r in range(sets[-1] + 1):
        rows = np.flatnonzero(kept & (sets == r))
        rows = rows[np.argsort(minima.values[rows], kind="stable")]
        found.append(HeldMinima(phi[rows], vectors[rows], minima.values[rows], minima.certified[rows]))
    return found


def _in_cell(true: np.ndarray, atoms: np.ndarray, l: int) -> bool:
    """Say whether prompt l, and the surplus one if there is one, lie in the cell of true prompt l.

    true, atoms  (k_true, q) and (k, q) parameters of the true and of the fitted prompts
    """
    mine = atoms[[l, *range(len(true), len(atoms))]]
    return bool((np.linalg.norm(mine[:, None] - true, axis=2).argmin(axis=1) == l).all())


def likelihood_gaps(
    truth: RegressionTruth,
    data: Sequence[RegressionData],
    spread: float,
    rng: np.random.Generator,
    options: LeastSquaresOptions | None = None,
) -> np.ndarray:
    """Return for each data set the nats lost by holding the split of prompt 0, everything else free (R,).

    truth    a named truth of prompts or of gated experts, or one made by hand
    data     data sets that share their points
    spread   spread at which the split is held; positive
    rng      source of the directions and starts
    options  box and stopping rule; those of fits by default

    The gaps are bounded as n grows where splits are invisible, and proportional to n where they are not. The
    held fit is in the box, and its pair in the cell of prompt 0; the gap is NaN where there is none. The free
    fit starts from near the truth and from the held one, so that the gap is not negative.

    Raises ``InputError`` where ``spread`` is not positive or there are no data.

    >>> import numpy as np
    >>> import moe_prompts as mp
    >>> truth = mp.prompt_truth("attention-fixed")
    >>> data = [mp.prompt_data("attention-fixed", 10_000, seed=0)]
    >>> mp.likelihood_gaps(truth, data, 0.4, np.random.default_rng(0)) > 5
    array([ True])
    """
    expect(truth, (PromptTruth, ExpertTruth), "likelihood_gaps: truth")
    spread = real(spread, "(0, inf)", "likelihood_gaps: spread")
    data = data_sets(data, "likelihood_gaps")
    experts = isinstance(truth, ExpertTruth)
    usual = options_of(truth.params.gate) if isinstance(truth, ExpertTruth) else None
    options = given(options or usual, LeastSquaresOptions, "likelihood_gaps: options")
    family = truth.params.family.with_k(truth.k_true + 1)
    lines = np.array([kappas(truth, rng).directions[0], *rng.standard_normal((DIRECTIONS, family.atom_size))])
    # The least visible splits without noise, then from there with each data set.
    population = _objective(family, [truth.population(data[0].n)], truth.noise).beside((0, truth.k_true))
    hold = _hold(truth, 0, 1, np.array([spread]))
    first = _along(hold(population), _split_at(truth, population, 0), lines)
    (ends,) = _held_minima(population, hold, first, truth, 0, options.box)
    starts = np.concatenate([ends.phi[:NOISY_STARTS], first[:1]])
    hold = _hold(truth, 0, 1, np.full(len(data), spread))
    objective = _objective(family, data, truth.noise).beside((0, truth.k_true))
    held = _held_minima(objective, hold, starts, truth, 0, options.box, options.tolerance)
    start: Callable[..., np.ndarray] = near_experts if experts else vector_near_truth
    fit: Callable[..., list[SearchResult]] = fit_experts if experts else least_squares
    near = [start(truth.params, family.k, number, rng) for number in range(truth.k_true)]
    free = fit(family, data, [np.array([*near, *one.vectors[:1]]) for one in held], truth.noise, options)
    pairs = zip(held, free, strict=True)
    return np.array([one.values[0] + fit.best.log_likelihood if len(one.values) else np.nan for one, fit in pairs])

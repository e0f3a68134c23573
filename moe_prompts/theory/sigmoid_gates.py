"""Show that splits of a flat sigmoid gate are seen to second order: where one has no slope they have n^-1/4.

Let an expert m h(x), h = sigma(a'x + c), whose gate has the height m and no slope, be fitted by several with
heights m_i = s(b_i), gate slopes beta_i and parameters eta_i = (a_i, c_i) near its own, s the logistic
function. To second order they differ from it by

    (sum m_i - m) h  +  sum s'_i beta_i'x h  +  sum m_i d_i'[x; 1] h'
    + 1/2 sum s''_i (beta_i'x)^2 h  +  sum s'_i (beta_i'x) (d_i'[x; 1]) h'  +  1/2 sum m_i (d_i'[x; 1])^2 h'',

d_i = eta_i - eta, s'_i = m_i (1 - m_i), s''_i = s'_i (1 - 2 m_i). Where the functions x^r sigma^(j), |r| <=
2, j = 0, 1, 2, and the first derivatives of all other experts are independent (``independence`` proves it
at given parameters, in intervals), |f - f*| bounds the coefficient of each, up to terms of third order:

    x^r h'', |r| = 2 and less:   sum m_i d_i d_i',
    x^r h,   |r| = 2:            Q = sum s''_i beta_i beta_i',     |r| = 1:  sum s'_i beta_i.

The first is positive definite in the d_i. Q has a negative term where a height is above 1/2, but no more
than one is, since sum m_i = m < 1. On sum s'_i beta_i = 0 it is positive definite for every m < 1, in each
direction: with one negative coefficient that is so if and only if sum s'_i^2 / s''_i < 0, that is sum
G(m_i) < 0 with

    G(t) = t (1 - t) / (1 - 2 t),   G(1 - t) = -G(t),   G'' = 2 / (1 - 2 t)^3 > 0 for t < 1/2,   G(0) = 0.

A convex G with G(0) = 0 is superadditive: for m_1 > 1/2 the sum over all others is at most G(m_2 + .. ) <
G(1 - m_1) = -G(m_1). (Where m_1 = 1/2 its term of Q is zero and the constraint ends the rest.) Hence sum m_i
(|beta_i|^2 + |d_i|^2) <= C |f - f*| for heights bounded away from 0, and splits have n^-1/4.

A gate with a slope has no split: s(beta'x + b) is no sum of several such gates in the box near one another.
What fits with one expert more then tend to is the best of them without noise. An expert that can be the zero
function, as tanh and gelu at a = 0, c = 0, makes a surplus expert vanish whatever its gate, in both cases.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import sympy as sp
from mpmath.ctx_iv import MPIntervalContext

from moe_prompts.errors import InputError
from moe_prompts.models.expert_regression import ExpertMap, ExpertRegression
from moe_prompts.theory.arithmetic import DIGITS
from moe_prompts.theory.zero_initialised import Independence

#: Intervals of so many digits.
_IV = MPIntervalContext()
_IV.dps = DIGITS


def independence(truth: ExpertRegression, x: np.ndarray) -> Independence:
    """Return how many of the functions of the module are independent on points, proved in intervals.

    truth  tanh experts with sigmoid gates; the first gate has no slope
    x      (m, d), points of a design, at least as many as there are functions

    The functions are x^r sigma^(j)(a'x + c) of the first expert, |r| <= 2, j = 0, 1, 2, and the first
    derivatives of all others. Their values at chosen points are eliminated with interval pivots: a pivot that
    excludes zero is not zero, and ``rank`` is the number of them, a lower bound.

    Raises ``InputError`` for other gates or experts, for a first gate with a slope, and for too few points.

    >>> from moe_prompts.models.expert_truths import expert_truth
    >>> truth = expert_truth("experts-sigmoid-tanh-flat")
    >>> independence(truth.params, truth.x)
    Independence(columns=24, rank=24)
    """
    if truth.kind != "sigmoid:tanh" or truth.beta[0].any():
        raise InputError(
            f"independence: {truth.kind}, first gate slope {truth.beta[0].tolist()}; expected sigmoid:tanh with a "
            "first gate without slope"
        )
    powers = [r for r in product(range(3), repeat=truth.d) if sum(r) <= 2]
    columns = 3 * len(powers) + (truth.k - 1) * (2 + 2 * truth.d)
    if len(x) < columns:
        raise InputError(f"independence: {len(x)} points; expected at least {columns}")
    rows = [_values(truth, point, powers) for point in _chosen(truth, x, powers, columns)]
    return Independence(columns, _pivots(rows))


def _values(truth: ExpertRegression, point: np.ndarray, powers: list[tuple[int, ...]]) -> list:
    """Return the functions at one point, as intervals."""
    number, one = _IV.mpf, _IV.mpf(1)
    at = [number(float(v)) for v in point]

    def argument(slopes: np.ndarray, intercept: float):
        return sum((number(float(s)) * v for s, v in zip(slopes, at, strict=True)), number(float(intercept)))

    def tanh(z):
        return one - 2 / (_IV.exp(2 * z) + one)

    t = tanh(argument(truth.eta[0, :-1], truth.eta[0, -1]))
    bend = one - t * t
    found = []
    for r in powers:
        monomial = one
        for v, power in zip(at, r, strict=True):
            for _ in range(power):
                monomial = monomial * v
        found += [monomial * t, monomial * bend, monomial * -2 * t * bend]
    for l in range(1, truth.k):
        gate = one / (one + _IV.exp(-argument(truth.beta[l], truth.b[l])))
        t = tanh(argument(truth.eta[l, :-1], truth.eta[l, -1]))
        for weight in (gate * (one - gate) * t, gate * (one - t * t)):
            found += [weight, *(weight * v for v in at)]
    return found


def _chosen(truth: ExpertRegression, x: np.ndarray, powers: list[tuple[int, ...]], count: int) -> np.ndarray:
    """Return points at which the functions are far from dependent, one after the other in floating point."""
    values = ExpertMap(truth.family, x).at(truth.vector[None])
    own = truth.family.activation
    z = values.arguments[0, 0]
    monomials = [np.prod(x ** np.array(r), axis=1) for r in powers]
    of_first = [m * part for m in monomials for part in (own.value(z), own.first(z), own.second(z))]
    others = [values.jacobian()[0, own_of, 0] for own_of in values.map.own[1:]]
    left = np.concatenate([of_first, *others]).T  # (m, columns)
    left = left / np.linalg.norm(left, axis=0)
    chosen: list[int] = []
    for _ in range(count):
        size = (left**2).sum(axis=1)
        size[chosen] = -1.0
        chosen.append(int(size.argmax()))
        row = left[chosen[-1]] / max(np.linalg.norm(left[chosen[-1]]), np.finfo(float).tiny)
        left = left - (left @ row)[:, None] * row
    return x[chosen]


def _pivots(rows: list[list]) -> int:
    """Return how many pivots of an elimination exclude zero."""
    rows, rank = [list(row) for row in rows], 0
    for column in range(len(rows[0])):
        sizes = [abs(row[column]).a if 0 not in row[column] else _IV.mpf(0).a for row in rows[rank:]]
        best = max(range(len(sizes)), key=lambda i: sizes[i], default=None)
        if best is None or not sizes[best] > 0:
            continue
        rows[rank], rows[rank + best] = rows[rank + best], rows[rank]
        top = rows[rank]
        for row in rows[rank + 1 :]:
            factor = row[column] / top[column]
            for j in range(column + 1, len(row)):
                row[j] = row[j] - factor * top[j]
            row[column] = _IV.mpf(0)
        rank += 1
    return rank


def convexity() -> dict[str, bool]:
    """Return whether G is odd about 1/2, zero at 0, and has G'' = 2 / (1 - 2t)^3, by symbols."""
    t = sp.Symbol("t")
    G = t * (1 - t) / (1 - 2 * t)
    return {
        "G(1 - t) = -G(t)": sp.simplify(G.subs(t, 1 - t) + G) == 0,
        "G(0) = 0": G.subs(t, 0) == 0,
        "G'' = 2 / (1 - 2t)^3": sp.simplify(sp.diff(G, t, 2) - 2 / (1 - 2 * t) ** 3) == 0,
    }


def definite(heights: list[sp.Rational]) -> bool:
    """Return whether Q is positive definite on sum s'_i beta_i = 0, exactly, for given heights.

    heights  rational numbers above 0 with a sum below 1, at least two

    Q is eliminated to the plane, and its leading minors are looked at.

    Raises ``InputError`` for other heights.

    >>> import sympy as sp
    >>> definite([sp.Rational(7, 10), sp.Rational(1, 5), sp.Rational(1, 20)])
    True
    """
    if len(heights) < 2 or not all(m > 0 for m in heights) or not sum(heights) < 1:
        raise InputError(f"definite: heights {heights}; expected at least two above 0 with a sum below 1")
    slope = [m * (1 - m) for m in heights]
    bend = [s * (1 - 2 * m) for s, m in zip(slope, heights, strict=True)]
    # beta_1 = -sum s'_i beta_i / s'_1 over the others.
    last = [-s / slope[0] for s in slope[1:]]
    size = len(last)
    form = sp.Matrix(size, size, lambda i, j: bend[0] * last[i] * last[j] + (bend[i + 1] if i == j else 0))
    return all(form[:k, :k].det() > 0 for k in range(1, size + 1))

from fractions import Fraction
from itertools import product
from math import factorial

import numpy as np
import pytest
import sympy as sp

from moe_prompts import InputError
from moe_prompts.theory.systems import PARAMETERS, index_set, s1, s2

T, D1, D2, EPS = sp.symbols("t D1 D2 eps")
#: Orders of D1 and D2 that each parameter brings, read off the generating functions.
ORDERS = {
    "softmax-gaussian": ((1, 0), (1, 1), (0, 1), (0, 2)),
    "gaussian-gated": ((1, 0), (2, 0), (1, 1), (0, 1), (0, 2)),
}


def exponent(kind, delta, gamma):
    """Logarithm of the atom's generating function in formal D1, D2, leading part.

    softmax: e^{beta x} times the generating function of N(y; ax + b, s) at D2, x = D1. Gaussian gate: that of the joint
    Gaussian of (x, y) at (D1, D2) / eps, mean and gate covariance moved by eps^weight delta, divided by the true one.
    """
    if kind == "softmax-gaussian":
        beta, a, b, s = delta
        return beta * D1 + (a * D1 + b) * D2 + s * D2**2 / 2
    c, big_gamma, a, b, nu = (value * EPS**weight for value, weight in zip(delta, (1, 2, 2, 1, 2), strict=True))
    x, y, gate = D1 / EPS, D2 / EPS, gamma + big_gamma
    log = c * x + (a * c + b) * y + gate * x**2 / 2 + a * gate * x * y + (nu + a**2 * gate) * y**2 / 2
    return sp.expand(log - gamma * x**2 / 2).subs(EPS, 0)


def random_rationals(rng, *shape):
    values = [
        sp.Rational(int(p), int(q)) for p, q in zip(rng.integers(-9, 10, 99), rng.integers(1, 8, 99), strict=True)
    ]
    return np.array(values[: np.prod(shape)], dtype=object).reshape(shape).tolist()


class TestS1:
    def test_coefficients_of_the_exponential_series(self):
        w, q1, q2 = (sp.symbols(f"{name}1:3") for name in ("w", "a", "b"))
        series = sum(
            weight * sp.series(sp.exp(a * T + b * T**2), T, 0, 7).removeO()
            for weight, a, b in zip(w, q1, q2, strict=True)
        )
        expected = [sp.expand(series).coeff(T, alpha) for alpha in range(1, 7)]
        assert [sp.expand(row) for row in s1(w, q1, q2, 6)] == expected

    def test_exact_in_every_ring(self):
        weights, q1, q2 = (1, 2), (3, -1), (-2, 5)
        rows = s1(weights, q1, q2, 5)
        assert rows[:2] == [1, Fraction(9, 2) - 2 + 1 + 10]
        assert all(type(row) is Fraction for row in rows)

        _, u = sp.ring("u", sp.QQ)
        polynomials = s1([1 + 0 * u, u], [u + 1, -1 + 0 * u], [-u, 5 + 0 * u], 5)
        assert [row.evaluate(u, 2) for row in polynomials] == rows
        rationals = s1(*([sp.Integer(value) for value in values] for values in (weights, q1, q2)), 5)
        assert all(isinstance(row, sp.Rational) for row in rationals)
        assert rationals == rows

        matrices = s1([sp.diag(1, 2)], [sp.diag(3, -1)], [sp.diag(-2, 5)], 5)  # one matrix holds both atoms
        assert [row.trace() for row in matrices] == rows

    def test_weighted_homogeneity(self):
        rng = np.random.default_rng(0)
        weights, q1, q2 = random_rationals(rng, 3, 4)
        scaled = s1(weights, [3 * q for q in q1], [9 * q for q in q2], 5)
        assert scaled == [3**alpha * row for alpha, row in enumerate(s1(weights, q1, q2, 5), start=1)]


class TestIndexSets:
    @pytest.mark.parametrize("kind", PARAMETERS)
    def test_brute_force(self, kind):
        for l1, l2 in product(range(6), repeat=2):
            everything = product(range(l1 + l2 + 1), repeat=len(ORDERS[kind]))
            totals = (
                (alpha, np.array(alpha) @ np.array(ORDERS[kind])) for alpha in everything if sum(alpha) <= l1 + l2
            )
            assert index_set(kind, l1, l2) == {alpha for alpha, total in totals if tuple(total) == (l1, l2)}

    def test_by_hand(self):
        assert index_set("softmax-gaussian", 1, 2) == {(1, 0, 2, 0), (1, 0, 0, 1), (0, 1, 1, 0)}
        assert index_set("gaussian-gated", 2, 1) == {(2, 0, 0, 1, 0), (0, 1, 0, 1, 0), (1, 0, 1, 0, 0)}


class TestS2:
    @pytest.mark.parametrize("kind", PARAMETERS)
    @pytest.mark.parametrize("gamma", [1, sp.Rational(3, 5)])
    def test_generating_function(self, kind, gamma):
        order, rng = 4, np.random.default_rng(1)
        weights, deltas = random_rationals(rng, 3), random_rationals(rng, 3, len(PARAMETERS[kind]))
        generating = 0
        for w, delta in zip(weights, deltas, strict=True):
            log = exponent(kind, delta, gamma)  # without constant term: powers beyond ``order`` do not count
            generating += w * sum(log**k / factorial(k) for k in range(order + 1))
        expected = sp.Poly(generating, D1, D2)
        rows = s2(kind, weights, deltas, order, gamma)
        assert list(rows) == [(l1, n - l1) for n in range(1, order + 1) for l1 in range(n, -1, -1)]
        assert rows == {row: expected.coeff_monomial(D1 ** row[0] * D2 ** row[1]) for row in rows}

    @pytest.mark.parametrize("kind", PARAMETERS)
    def test_rows_of_the_response_are_s1(self, kind):
        rng = np.random.default_rng(2)
        weights, deltas = random_rationals(rng, 3), random_rationals(rng, 3, len(PARAMETERS[kind]))
        b, variance = PARAMETERS[kind].index("b"), -1  # s or nu
        rows = s2(kind, weights, deltas, 5)
        expected = s1(weights, [delta[b] for delta in deltas], [delta[variance] / 2 for delta in deltas], 5)
        assert [rows[0, l2] for l2 in range(1, 6)] == expected

    def test_rows_of_the_gaussian_gate_are_s1(self):
        rng = np.random.default_rng(3)
        weights, deltas = random_rationals(rng, 3), random_rationals(rng, 3, 5)
        rows = s2("gaussian-gated", weights, deltas, 5, 7)
        expected = s1(weights, [delta[0] for delta in deltas], [delta[1] / 2 for delta in deltas], 5)
        assert [rows[l1, 0] for l1 in range(1, 6)] == expected

    def test_integers_stay_exact(self):
        rows = s2("softmax-gaussian", [1], [(1, 2, 3, 5)], 2)
        assert rows == {(1, 0): 1, (0, 1): 3, (2, 0): Fraction(1, 2), (1, 1): 5, (0, 2): 7}
        assert all(isinstance(value, int | Fraction) for value in rows.values())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: s1([1], [0], [0], 0), "order = 0; expected at least 1"),
        (lambda: s1([1, 1], [0], [0, 0], 2), "given 2 weights, 1 q1, 2 q2; expected one of each per atom"),
        (lambda: s1([], [], [], 2), "at least one atom"),
        (
            lambda: s2("softmax", [1], [(0, 0, 0, 0)], 2),
            "kind = 'softmax'; expected one of softmax-gaussian, gaussian-",
        ),
        (lambda: s2("softmax-gaussian", [1], [(0, 0, 0, 0)], 0), "order = 0"),
        (lambda: s2("softmax-gaussian", [1, 1], [(0, 0, 0, 0)], 2), "given 2 weights, 1 deltas"),
        (lambda: s2("gaussian-gated", [1], [(0, 0, 0, 0)], 2), "4 differences; expected those of c, Gamma, a, b, nu"),
        (lambda: index_set("gaussian", 1, 1), "kind = 'gaussian'"),
        (lambda: index_set("gaussian-gated", 1, -1), r"row \(1, -1\); expected two orders >= 0"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()

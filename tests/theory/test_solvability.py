import json
from fractions import Fraction
from functools import cache, partial
from math import comb, factorial

import numpy as np
import pytest
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.polynomial.hermite_e import hermegauss
from numpy.testing import assert_allclose
from scipy.optimize import least_squares

from moe_prompts import InputError
from moe_prompts.losses.gaussian_voronoi import rbar
from moe_prompts.theory.solvability import (
    eliminate_m2,
    gauss_hermite_witness,
    lift,
    rational_witness,
    symmetric_family_m3,
    unequal_witness,
)
from moe_prompts.theory.systems import s1, s2

two_atoms, symmetric_atoms = cache(eliminate_m2), cache(symmetric_family_m3)
RATIONAL = {"m = 2": partial(rational_witness, 2), "m = 3": partial(rational_witness, 3), "unequal": unequal_witness}
CERTIFICATES = {
    **RATIONAL,
    "Gauss-Hermite": partial(gauss_hermite_witness, 4),
    "lifted": lambda: lift(unequal_witness(), "gaussian-gated", 2, 3),
    "elimination": two_atoms,
    "symmetric": symmetric_atoms,
}


def fractions(values):
    return [Fraction(value) for value in values]


def differences(certificate):
    return [fractions(delta) for delta in certificate["deltas"]]


@pytest.mark.parametrize("name", CERTIFICATES)
def test_certificates_are_data(name):
    certificate = CERTIFICATES[name]()
    assert json.loads(json.dumps(certificate)) == certificate


class TestGaussHermite:
    @pytest.mark.parametrize("m", range(2, 9))
    def test_all_rows_vanish_but_the_last(self, m):
        residuals = fractions(gauss_hermite_witness(m)["residuals"])
        assert residuals == [0] * (rbar(m) - 1) + [Fraction(-factorial(m), factorial(2 * m))]

    def test_the_last_row_by_hand(self):
        assert [gauss_hermite_witness(m)["residuals"][-1] for m in (2, 3, 4, 5)] == [
            "-1/12",
            "-1/120",
            "-1/1680",
            "-1/30240",
        ]

    @pytest.mark.parametrize("m", [2, 3, 4, 5])
    def test_residuals_from_power_sums(self, m):
        """The same sums over roots by Newton's identities and the double sum for the exponential."""
        witness = gauss_hermite_witness(m)
        modulus, weights = fractions(witness["modulus"]), fractions(witness["weights"])[::-1]
        power_sums = [Fraction(m)]
        for k in range(1, 4 * m):
            newton = k * modulus[k] if k <= m else 0
            power_sums.append(-newton - sum(modulus[i] * power_sums[k - i] for i in range(1, min(k - 1, m) + 1)))
        assert sum(w * power_sums[k] for k, w in enumerate(weights)) == 1
        rows = [
            sum(
                w * power_sums[k + alpha - 2 * j] * Fraction(-1, 2) ** j / (factorial(alpha - 2 * j) * factorial(j))
                for k, w in enumerate(weights)
                for j in range(alpha // 2 + 1)
            )
            for alpha in range(1, 2 * m + 1)
        ]
        assert rows == fractions(witness["residuals"])

    @pytest.mark.parametrize("m", range(2, 9))
    def test_nodes_and_weights_are_those_of_the_quadrature(self, m):
        witness = gauss_hermite_witness(m)
        nodes, weights = hermegauss(m)
        assert_allclose(np.polyval(fractions(witness["modulus"]), nodes).astype(float), 0, atol=1e-9)
        assert_allclose(np.polyval(fractions(witness["weights"]), nodes).astype(float), weights / np.sqrt(2 * np.pi))
        rows = s1(weights / weights.sum(), nodes, [-0.5] * m, rbar(m))
        assert_allclose(rows, [float(Fraction(value)) for value in witness["residuals"]], atol=1e-12)


class TestRationalWitnesses:
    @pytest.mark.parametrize("name", RATIONAL)
    def test_all_rows_vanish_but_the_last(self, name):
        witness = RATIONAL[name]()
        weights, q1, q2 = (fractions(witness[key]) for key in ("weights", "q1", "q2"))
        t = sp.Symbol("t")
        generating = sp.Poly(
            sum(
                w * sum((a * t + b * t**2) ** k / factorial(k) for k in range(rbar(witness["m"]) + 1))
                for w, a, b in zip(weights, q1, q2, strict=True)
            ),
            t,
        )
        rows = [generating.coeff_monomial(t**alpha) for alpha in range(1, rbar(witness["m"]) + 1)]
        assert rows == fractions(witness["residuals"])
        assert rows[:-1] == [0] * (rbar(witness["m"]) - 1)
        assert rows[-1] != 0
        assert min(weights) > 0
        assert any(q1)

    def test_by_hand(self):
        assert rational_witness(3)["weights"] == ["1", "4", "1"]  # p = (1, 2, 1)
        assert [witness()["residuals"][-1] for witness in RATIONAL.values()] == ["-1/6", "-1/540", "-7/216"]


class TestLift:
    @pytest.mark.parametrize("name", RATIONAL)
    def test_gaussian_gate(self, name):
        """Row (l1, l2) is [D1^l1 D2^l2] f_{l1+l2} (D1 + lam D2)^{l1+l2}."""
        witness, lam, gamma = RATIONAL[name](), Fraction(-2, 3), Fraction(5, 4)
        lifted = lift(witness, "gaussian-gated", lam, gamma)
        deltas = differences(lifted)
        assert all(a != 0 for _, _, a, _, _ in deltas)
        rows = s2("gaussian-gated", fractions(lifted["weights"]), deltas, lifted["order"] + 1, gamma)
        assert {f"{l1},{l2}": str(value) for (l1, l2), value in rows.items()} == lifted["residuals"]
        f = fractions(witness["residuals"])
        assert rows == {(l1, l2): f[l1 + l2 - 1] * comb(l1 + l2, l1) * lam**l2 for l1, l2 in rows}
        assert all(value == 0 for (l1, l2), value in rows.items() if l1 + l2 <= lifted["order"])

    @pytest.mark.parametrize("name", RATIONAL)
    def test_softmax_gate(self, name):
        witness = RATIONAL[name]()
        lifted = lift(witness, "softmax-gaussian")
        rows = s2("softmax-gaussian", fractions(lifted["weights"]), differences(lifted), rbar(witness["m"]))
        assert [str(rows[0, l2]) for l2 in range(1, rbar(witness["m"]) + 1)] == witness["residuals"]
        assert not any(value for (l1, _), value in rows.items() if l1)

    def test_joint_moments(self):
        """The atoms' joint Gaussians, moved by eps, share all moments of order <= 2m - 1 with the true one."""
        lam, gamma, nu, eps = 2, 3, sp.Rational(1, 2), sp.Rational(1, 10)
        lifted = lift(rational_witness(2), "gaussian-gated", lam, gamma)
        x, y = sp.symbols("x y")

        def moments(c, big_gamma, a, b, nu):
            log = (
                c * x
                + (a * c + b) * y
                + big_gamma * x**2 / 2
                + a * big_gamma * x * y
                + (nu + a**2 * big_gamma) * y**2 / 2
            )
            return sp.Poly(sum(log**k / sp.factorial(k) for k in range(4)), x, y)

        weights = fractions(lifted["weights"])
        mixture = 0
        for w, delta in zip(weights, differences(lifted), strict=True):
            c, big_gamma, a, b, d_nu = (sp.Rational(value) for value in delta)
            # joint mean eps q1 v and covariance + eps^2 2 q2 v v' in the atom's own parameters
            gate = gamma + eps**2 * big_gamma
            slope = eps**2 * a * gamma / gate
            intercept = eps * b - slope * eps * c
            noise = nu + eps**2 * d_nu - slope**2 * gate
            mixture += w / sum(weights) * moments(eps * c, gate, slope, intercept, noise)
        difference = sp.Poly(mixture - moments(0, gamma, 0, 0, nu), x, y)
        assert all(value == 0 for powers, value in difference.terms() if sum(powers) <= lifted["order"])


class TestElimination:
    def test_two_atoms(self):
        found = two_atoms()
        assert found["residuals"] == ["0", "0", "0", "w*(w - 1)*(w**2 - w + 1)/36"]
        assert found["eliminant"] == "(p2**2 + 1)*(p2**2 - p2 + 1)*(p2**2 + p2 + 1)"
        assert found["zeros"] == found["eliminant_zeros"] == 0

    def test_three_symmetric_atoms(self):
        found = symmetric_atoms()
        u = sp.Symbol("u")
        quadratic = 12 * u**2 + 12 * u + 1
        assert sp.simplify(sp.sympify(found["weights"][0]) + quadratic / 4) == 0
        f6 = quadratic * (60 * u**2 + 12 * u + 1) / (2160 * (2 * u + 1))
        assert sp.simplify(sp.sympify(found["residuals"][-1]) - f6) == 0
        assert found["zeros"] == 0
        assert found["except"] == ["-1/2"]

    @pytest.mark.parametrize("name", ["two", "three"])
    def test_points_of_the_families_solve_s1(self, name):
        found, variable, values = {
            "two": (two_atoms(), "w", ["1/10", "1/2", "6/7"]),
            "three": (symmetric_atoms(), "u", ["-9/10", "-3/5", "-1/4", "-1/10"]),
        }[name]
        for value in map(sp.Rational, values):
            at = {sp.Symbol(variable): value}
            lists = [[sp.sympify(entry).subs(at) for entry in found[key]] for key in ("weights", "q1", "q2")]
            assert min(lists[0]) > 0
            rows = s1(*lists, found["order"])
            assert rows[:-1] == [0] * (found["order"] - 1)
            assert rows[-1] == sp.sympify(found["residuals"][-1]).subs(at) != 0

    def test_the_unequal_witness_is_in_the_symmetric_family(self):
        found, witness = symmetric_atoms(), unequal_witness()
        at = {sp.Symbol("u"): sp.Rational(-1, 4)}
        assert [str(16 * sp.sympify(entry).subs(at)) for entry in found["weights"]] == witness["weights"]
        assert [str(sp.sympify(entry).subs(at)) for entry in found["q2"]] == witness["q2"]

    def test_weights_are_positive_between_the_stated_ends(self):
        found = symmetric_atoms()
        low, high = (float(sp.sympify(end)) for end in found["between"])
        weight = sp.lambdify(sp.Symbol("u"), sp.sympify(found["weights"][0]))
        u = np.linspace(low, high, 101)[1:-1]
        assert (weight(u) > 0).all()
        assert (weight(np.array([low - 0.01, high + 0.01])) < 0).all()


class TestSignChanges:
    """The counts that the upper bound rests on, seen in numbers."""

    @staticmethod
    def changes(terms, grid):
        """Sign changes on the grid of sum c N(mu, s); points where rounding could decide the sign are left out."""
        parts = np.array([c * np.exp(-((grid - mu) ** 2) / (2 * s)) / np.sqrt(s) for c, mu, s in terms])
        total = parts.sum(axis=0)
        signs = np.sign(total[np.abs(total) > 1e-12 * np.abs(parts).sum(axis=0)])
        return int((signs[1:] != signs[:-1]).sum())

    @settings(max_examples=40, deadline=None)
    @given(seed=st.integers(0, 10_000), k=st.integers(1, 6))
    def test_k_gaussians_change_sign_at_most_2k_minus_2_times(self, seed, k):
        rng = np.random.default_rng(seed)
        terms = zip(rng.normal(size=k), rng.normal(scale=2, size=k), rng.choice([0.1, 0.3, 1, 3], k), strict=True)
        assert self.changes(list(terms), np.linspace(-12, 12, 4001)) <= 2 * (k - 1)

    @pytest.mark.parametrize("m", [2, 3, 4, 5])
    def test_both_bounds_are_attained_by_the_witness(self, m):
        """Moments 0..2m - 1 vanish: at least 2m sign changes; m + 1 Gaussians: at most 2m."""
        nodes, weights = hermegauss(m)
        v = 1.3
        atoms = [(w / weights.sum(), x, v - 1) for w, x in zip(weights, nodes, strict=True)]
        assert self.changes([*atoms, (-1, 0, v)], np.linspace(-8, 8, 4001)) == 2 * m


class TestNumericalSearch:
    """Least squares for S1 with weights >= .05 and sum q1^2 = 1."""

    @staticmethod
    def smallest_residual(m, order, starts):
        rng = np.random.default_rng(0)

        def residuals(z):
            free, q1, q2 = z[:m], z[m : 2 * m], z[2 * m :]
            weights = 0.05 + (1 - 0.05 * m) * np.exp(free) / np.exp(free).sum()
            return np.array(s1(list(weights), list(q1 / np.linalg.norm(q1)), list(q2), order), dtype=float)

        fits = (
            least_squares(residuals, rng.normal(size=3 * m), xtol=1e-13, ftol=1e-13, gtol=1e-13) for _ in range(starts)
        )
        return min(np.linalg.norm(fit.fun) for fit in fits)

    def test_two_atoms_cancel_to_order_3(self):
        assert self.smallest_residual(2, 3, starts=3) < 1e-10

    def test_two_atoms_do_not_cancel_to_order_4(self):
        """f_4 of the elimination at the smallest weight is nearly the smallest residual there is."""
        w = 0.05
        f4 = w * (1 - w) * (w**2 - w + 1) / 36 / (w**2 + (1 - w) ** 2) ** 2  # scaled to sum q1^2 = 1: 1.5e-3
        assert 0.9 * f4 < self.smallest_residual(2, 4, starts=12) <= f4

    def test_three_atoms_cancel_to_order_5(self):
        assert self.smallest_residual(3, 5, starts=6) < 1e-10


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gauss_hermite_witness(1), "m = 1; expected at least 2 atoms"),
        (lambda: rational_witness(1), "m = 1; expected 2 or 3"),
        (lambda: rational_witness(4), "m = 4; expected 2 or 3, for other m >= 2 use gauss_hermite_witness"),
        (lambda: lift(rational_witness(2), "softmax"), "kind = 'softmax'; expected one of softmax-gaussian"),
        (
            lambda: lift(gauss_hermite_witness(2), "gaussian-gated"),
            "not a rational solution of S1; try rational_witness",
        ),
        (lambda: lift(two_atoms(), "gaussian-gated"), "not a rational solution of S1"),
        (lambda: lift(rational_witness(2), "gaussian-gated", 0), "lam = 0, gamma = 1; expected lam != 0"),
        (lambda: lift(rational_witness(2), "gaussian-gated", 1, -1), "gamma = -1; expected lam != 0 .* gamma > 0"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()

"""Prove when m atoms in one Voronoi cell stop hiding each other: at order rbar(m) = 2 m, for m >= 2.

    S1(m, r):   f_alpha = sum_{l=1..m} w_l [t^alpha] exp(q1_l t + q2_l t^2) = 0,
                alpha = 1..r,   w_l = p_l^2 > 0

A solution is trivial if every q1_l is 0. rbar(m) is the smallest r for which S1(m, r) has only trivial
solutions, and r~(m) is the same for the two systems S2 of ``systems``, whose solutions are trivial if every b
is 0 (softmax gate) or every b and every c is 0 (Gaussian gate). The theorem is rbar(m) = r~(m) = 2 m for
m >= 2.

It is derived in this project. Published are rbar(2) = 4, rbar(3) = 6 and rbar(m) >= 7 for m >= 4 (Ho and
Nguyen, Annals of Statistics 2016), with which it agrees. The functions below are what a computer can add to
the proof: exact witnesses of the lower bound, and the cases m = 2 (complete) and m = 3 (symmetric atoms) of
the upper bound by elimination.

Lower bound, rbar(m) >= 2 m
    Let X_1..X_m be the roots of the Hermite polynomial He_m (weight e^{-x^2/2}) and w_l the weights of
    Gauss-Hermite quadrature, positive with sum 1. The quadrature is exact to degree 2 m - 1, so sum w_l
    exp(X_l t) and E exp(Z t) = exp(t^2 / 2), Z ~ N(0, 1), agree up to O(t^{2m}). With q1_l = X_l and q2_l =
    -1/2,
        sum_l w_l exp(q1_l t + q2_l t^2) = exp(-t^2 / 2) sum_l w_l exp(X_l t) = 1 + O(t^{2m}).
    So S1(m, 2m - 1) holds with q1 != 0. The quadrature misses E Z^{2m} by m!, hence f_{2m} = -m! / (2m)!.

Upper bound, rbar(m) <= 2 m
    S(f) is the number of sign changes of f: the largest N for which f(x_0), .., f(x_N) are non-zero and
    alternate in sign at some x_0 < .. < x_N. For a signed measure sum_i c_i delta_{y_i} + h(x) dx with
    continuous h, the sign at y_i is that of c_i, elsewhere that of h.

    1. Convolution with a Gaussian density phi diminishes variation: S(phi * nu) <= S(nu) if that is finite.
       With S = S(nu) the line splits into consecutive intervals I_0 < .. < I_S, some perhaps single points,
       in which nu has one sign, alternately, so phi * nu = +-sum_j (-1)^j g_j, where g_j = phi * |nu
       restricted to I_j|. For x_0 < .. < x_S,
           det[g_j(x_i)] = integral over y_j in I_j of det[phi(x_i - y_j)] prod_j |nu|(dy_j) > 0,
       since det[phi(x_i - y_j)] is a positive factor times det[exp(x_i y_j / s)], s the variance of phi. That
       determinant is positive: a sum of n exponentials has at most n - 1 real zeros (Rolle), so the
       determinant never vanishes for increasing x and y, and it is positive for x far apart, where its
       diagonal dominates. Now let phi * nu alternate at x_0 < .. < x_{S+1}. The column (phi * nu)(x_i) is a
       combination of the S + 1 columns g_j(x_i), so the (S+2) x (S+2) determinant of them all is zero.
       Expanded along the first column it is sum_i (-1)^i (phi * nu)(x_i) times a positive minor, a sum of
       non-zero terms of one sign: a contradiction.
    2. A combination of K >= 1 distinct Gaussian densities with non-zero coefficients has S <= 2 (K - 1). By
       induction on K. Let s be the smallest variance, shared by g of them with means y_1..y_g. Then f = N(0,
       s) * nu, where nu = sum_i c_i delta_{y_i} + h, and h combines the other K - g densities with s taken
       from their variances. If K = g then h = 0 and S(f) <= S(nu) <= g - 1. Otherwise take points where nu
       alternates and strike out those among y_1..y_g: each costs at most 2 changes, and the changes left are
       h's. Hence S(f) <= S(nu) <= S(h) + 2 g <= 2 (K - g - 1) + 2 g = 2 (K - 1).
    3. A non-zero f whose moments 0..r vanish (f continuous, all moments finite) has S(f) >= r + 1: otherwise
       some polynomial of degree S(f) <= r has the sign of f wherever both are non-zero, and its integral
       against f is positive, yet a combination of vanishing moments.
    4. Distinct Gaussian densities are linearly independent: in a combination of their moment generating
       functions exp(mu t + s t^2 / 2), the one with the largest (s, mu), in lexicographic order, dominates as
       t -> infinity.

    Let S1(m, 2m) hold. The equations are homogeneous in w, so let sum w_l = 1. Take v > 2 max |q2_l| and
    multiply sum_l w_l exp(q1_l t + q2_l t^2) = 1 + O(t^{2m+1}) by exp(v t^2 / 2): the mixture sum_l w_l
    N(q1_l, 2 q2_l + v) and N(0, v) have the same moments 0..2m. Their difference f combines at most m + 1
    distinct Gaussians. If f were not 0, it would have at least 2 m + 1 sign changes by 3 and at most 2 m by
    2. So f = 0. The weights are positive, so atoms that coincide cannot cancel, and by 4 every atom is N(0,
    v): q1_l = 0 (and q2_l = 0). QED

r~ = rbar, for both gates
    r~ <= rbar by restriction: the rows (0, l2) of S2 contain b and s only (softmax gate), and are f_{l2} of
    S1 with q1 = b, q2 = s / 2. In the Gaussian gate the rows (0, l2) are S1 with (b, nu / 2) and the rows
    (l1, 0) are S1 with (c, Gamma / 2). A non-trivial solution of S2 to order r therefore contains one of
    S1(m, r).
    r~ >= rbar by extension: a solution of S1 solves S2 with b = q1, s or nu = 2 q2, and everything else 0.
    ``lift`` also gives one with a != 0.
    At order 2m every other parameter is 0 as well, not only b and c. Softmax gate with b = 0: row (2, 0) is
    sum w beta^2 / 2, so beta = 0; then row (0, 4) is sum w s^2 / 8 and row (2, 2) is sum w a^2 / 2. Gaussian
    gate with b = c = 0: rows (4, 0), (0, 4) and (2, 2) are sum w Gamma^2 / 8, sum w nu^2 / 8 and, with these
    0, a positive multiple of sum w a^2. All have order at most 4 <= 2m. By weighted homogeneity and
    compactness every parameter of weight t then has |Delta|^(2m/t) bounded by the rows.
    Published rows may lack the factors 2^{-a4} and Gamma*^a3 2^{-(a2+a5)}; rescaling s, Gamma, nu and a
    absorbs them and leaves b and c as they are.

Two cautions
    Non-trivial means q1 != 0, not (q1, q2) != 0: q1 = 0 with sum w_l q2_l = 0 solves S1(m, 3), so a search
    that normalises |(q1, q2)| can stop there for r <= 3. Normalise q1.
    Weights must be bounded below: as w_l -> 0 the residual tends to 0 even where no solution exists, since an
    atom without mass can be anywhere. "The smallest residual is 0" says something only under w_l >= delta.

Sources of the tools: Karlin, Total Positivity (1); Kalai, Moitra and Valiant, STOC 2010 (2, for distinct
variances).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from functools import reduce
from math import factorial
from typing import Any

import sympy as sp
from sympy.polys.orthopolys import hermite_prob_poly

from moe_prompts.errors import InputError
from moe_prompts.losses.gaussian_voronoi import rbar
from moe_prompts.theory.systems import PARAMETERS, s1, s2

Certificate = dict[str, Any]

X = sp.Symbol("X")

#: m -> (p, q1, q2) in rational numbers, w = p^2; both are Gauss-Hermite up to a scale of q1.
RATIONAL_WITNESSES: dict[int, tuple[Sequence[int], Sequence[int], Sequence[Fraction]]] = {
    2: ((1, 1), (1, -1), (Fraction(-1, 2),) * 2),
    3: ((1, 2, 1), (-1, 0, 1), (Fraction(-1, 6),) * 3),
}


def gauss_hermite_witness(m: int) -> Certificate:
    """Return a non-trivial solution of S1(m, 2m - 1), at the nodes of Gauss-Hermite quadrature.

        w = (m-1)! / (m He_{m-1}(X)^2),   q1 = X,   q2 = -1/2   at the roots X of He_m

    "modulus" is He_m; "weights", "q1" and "q2" are polynomials in X modulo it, all as coefficients from the
    highest power. A sum over atoms is a trace: f_alpha = sum_l g(X_l) = trace of multiplication by g in Q[X]
    / (He_m), computed as the matrix g(companion matrix of He_m). "residuals" are f_1..f_2m: 0 except the
    last, -m! / (2m)!.

    The weights are positive, being squares: the roots are real, simple and no roots of He_{m-1}. Their sum is
    1.

    Raises ``InputError`` for m below 2.
    """
    if m < 2:
        raise InputError(f"Gauss-Hermite witness: m = {m}; expected at least 2 atoms in the cell")
    modulus, previous = (hermite_prob_poly(n, X, polys=True).set_domain(sp.QQ) for n in (m, m - 1))
    weights = (previous.invert(modulus) ** 2 * sp.Rational(factorial(m - 1), m)).rem(modulus)
    root = sp.Matrix.companion(modulus)
    one = sp.eye(m)
    masses = reduce(lambda value, coefficient: value * root + coefficient * one, weights.all_coeffs(), 0 * one)
    rows = s1([masses], [root], [-one / 2], rbar(m))
    return {
        "kind": "s1-witness",
        "m": m,
        "modulus": _strings(modulus.all_coeffs()),
        "weights": _strings(weights.all_coeffs()),
        "q1": ["1", "0"],
        "q2": ["-1/2"],
        "residuals": _strings(row.trace() for row in rows),
    }


def rational_witness(m: int) -> Certificate:
    """Return a non-trivial solution of S1(m, 2m - 1) in rational numbers, known for m = 2 and 3.

    Its weights are w = p^2 with p rational. Raises ``InputError`` for other m.
    """
    if m not in RATIONAL_WITNESSES:
        raise InputError(f"rational witness: m = {m}; expected 2 or 3, for other m >= 2 use gauss_hermite_witness")
    p, q1, q2 = RATIONAL_WITNESSES[m]
    return _witness([value**2 for value in p], q1, q2)


def unequal_witness() -> Certificate:
    """Return a non-trivial solution of S1(3, 5) with unequal q2.

    It is the member u = -1/4 of ``symmetric_family_m3``, with weights times 16.
    """
    return _witness((5, 6, 5), (-1, 0, 1), (Fraction(-1, 4), Fraction(-5, 12), Fraction(-1, 4)))


def _witness(weights: Sequence[Any], q1: Sequence[Any], q2: Sequence[Any]) -> Certificate:
    m = len(weights)
    return {
        "kind": "s1-witness",
        "m": m,
        "modulus": None,
        "weights": _strings(weights),
        "q1": _strings(q1),
        "q2": _strings(q2),
        "residuals": _strings(s1(weights, q1, q2, rbar(m))),
    }


def lift(witness: Mapping[str, Any], kind: str, lam: Fraction | int = 1, gamma: Fraction | int = 1) -> Certificate:
    """Return a rational witness of S1 as one of S2 to order 2 m - 1; in the Gaussian gate with a != 0.

        softmax-gaussian   (beta, a, b, s) = (0, 0, q1, 2 q2)
        gaussian-gated     (c, Gamma, a, b, nu) = (q1, 2 q2, 2 lam q2 / Gamma*, lam q1, 2 lam^2 q2)

    The Gaussian-gated atom is the joint Gaussian of (x, y). Its mean moves by q1 v and its covariance by 2 q2
    v v', v = (1, lam), so its generating function is exp(q1 D + q2 D^2), D = D1 + lam D2, and row (l1, l2) is
    f_{l1+l2} binom(l1 + l2, l1) lam^l2. ``lam`` is not 0, ``gamma`` is Gamma* > 0; the softmax gate uses
    neither.

    "residuals" has the rows of orders 1..2m under the keys "l1,l2"; those of order 2 m need not be 0.

    Raises ``InputError`` for another kind, for a witness that is no rational solution of S1, and for other
    values of ``lam`` and ``gamma``.
    """
    if kind not in PARAMETERS:
        raise InputError(f"lift: kind = {kind!r}; expected one of {', '.join(PARAMETERS)}")
    if witness.get("kind") != "s1-witness" or witness["modulus"] is not None:
        raise InputError(
            "lift: the witness is not a rational solution of S1; try rational_witness(m) or unequal_witness()"
        )
    lam, gamma = Fraction(lam), Fraction(gamma)
    if lam == 0 or gamma <= 0:
        raise InputError(f"lift: lam = {lam}, gamma = {gamma}; expected lam != 0 (else a = 0) and gamma > 0")
    weights, q1, q2 = ([Fraction(value) for value in witness[name]] for name in ("weights", "q1", "q2"))
    deltas: list[tuple[Fraction | int, ...]]
    if kind == "softmax-gaussian":
        deltas = [(0, 0, mean, 2 * var) for mean, var in zip(q1, q2, strict=True)]
    else:
        deltas = [
            (mean, 2 * var, 2 * lam * var / gamma, lam * mean, 2 * lam**2 * var)
            for mean, var in zip(q1, q2, strict=True)
        ]
    order = rbar(witness["m"])
    rows = s2(kind, weights, deltas, order, gamma)
    return {
        "kind": "s2-witness",
        "model": kind,
        "m": witness["m"],
        "order": order - 1,
        "gamma": str(gamma),
        "weights": _strings(weights),
        "deltas": [_strings(delta) for delta in deltas],
        "residuals": {f"{l1},{l2}": str(value) for (l1, l2), value in rows.items()},
    }


def eliminate_m2() -> Certificate:
    """Show by elimination, twice, that S1(2, 4) has only trivial solutions; return the certificate.

    Weighted homogeneity (q1, q2) -> (lam q1, lam^2 q2), homogeneity in w and f_1 = 0 allow w = (w, 1 - w) and
    q1 = (1 - w, -w). f_2 = f_3 = 0 are linear in q2, with determinant -w (1 - w) != 0, and leave f_4(w):
    "residuals" are f_1..f_4 after that, "zeros" counts the zeros of f_4 in 0 < w < 1 (Sturm).

    Without this normal form: p_1 = q1_1 = 1 (scales), p_2 != 0 by the extra unknown 1 / p_2. The
    lexicographic Groebner basis contains a polynomial in p_2 alone, the "eliminant", with "eliminant_zeros"
    real zeros.
    """
    w, q21, q22 = sp.symbols("w q21 q22")
    weights, q1 = [w, 1 - w], [1 - w, -w]
    rows = s1(weights, q1, [q21, q22], 4)
    solution = sp.solve(rows[1:3], [q21, q22], dict=True)[0]
    residuals = [sp.factor(row.subs(solution)) for row in rows]
    f4 = sp.Poly(residuals[-1], w)

    p2, q12, inverse = sp.symbols("p2 q12 inverse")
    raw = [sp.expand(row) for row in s1([1, p2**2], [1, q12], [q21, q22], 4)]
    basis = sp.groebner([*raw, 1 - inverse * p2], inverse, q12, q21, q22, p2, order="lex")
    [eliminant] = [element for element in basis.exprs if element.free_symbols == {p2}]
    return {
        "kind": "elimination",
        "m": 2,
        "order": 4,
        "weights": _strings(weights),
        "q1": _strings(q1),
        "q2": _strings(sp.factor(solution[q]) for q in (q21, q22)),
        "residuals": _strings(residuals),
        # count_roots includes the ends
        "zeros": int(f4.count_roots(0, 1)) - sum(f4.eval(end) == 0 for end in (0, 1)),
        "eliminant": str(sp.factor(eliminant)),
        "eliminant_zeros": int(sp.Poly(eliminant, p2).count_roots()),
    }


def symmetric_family_m3() -> Certificate:
    """Show that no non-trivial solution of S1(3, 6) is symmetric; return the certificate.

    Symmetric means w = (w, 1 - 2w, w), q1 = (-1, 0, 1), q2 = (u, v, u).

    f_1 = f_3 = f_5 = 0 by symmetry. f_2 = 0 gives v = -w (1 + 2u) / (1 - 2w), and f_4 = 0 then gives w(u), a
    parabola that opens downwards. 1 - 2w = 3 (2u + 1)^2 / 2, so the weights are positive for u strictly
    between the two zeros of w ("between"), except at u = -1/2 ("except"). "residuals" are f_1..f_6 along this
    curve, and "zeros" counts the real zeros of f_6 that are no zeros of w (Sturm).
    """
    u, v, w = sp.symbols("u v w")
    weights, q1, q2 = [w, 1 - 2 * w, w], [-1, 0, 1], [u, v, u]
    rows = s1(weights, q1, q2, 6)
    middle = {v: sp.solve(rows[1], v)[0]}
    [mass] = [root for root in sp.solve(rows[3].subs(middle), w) if root != 0]

    def along(expression: Any) -> sp.Expr:
        """Return ``expression`` as a function of u alone."""
        return sp.factor(sp.sympify(expression).subs(middle).subs(w, mass))

    residuals = [along(row) for row in rows]
    rest = sp.Poly(sp.fraction(sp.cancel(residuals[-1] / mass))[0], u)
    return {
        "kind": "symmetric-family",
        "m": 3,
        "order": 6,
        "weights": _strings(along(value) for value in weights),
        "q1": _strings(q1),
        "q2": _strings(along(value) for value in q2),
        "residuals": _strings(residuals),
        "between": _strings(sp.Poly(mass, u).real_roots()),
        "except": _strings(sorted(set(sp.Poly(along(weights[1]), u).real_roots()))),
        "zeros": int(rest.count_roots()),
    }


def _strings(values: Iterable[Any]) -> list[str]:
    return [str(value) for value in values]

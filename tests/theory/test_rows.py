from fractions import Fraction
from functools import cache
from itertools import product
from math import factorial, prod

import pytest
import sympy as sp

from moe_prompts import InputError
from moe_prompts.theory.atoms import KINDS, atom
from moe_prompts.theory.dependences import dependences
from moe_prompts.theory.jets import multi_indices
from moe_prompts.theory.rows import grading, taylor_rows

SOFTMAX, GATED = "softmax-gaussian", "gaussian-gated"
WEIGHTS = {SOFTMAX: (1, 2, 1, 2), GATED: (1, 2, 2, 1, 2)}
#: (order of D1, order of D2) that each parameter brings: beta, a, b, s and c, Gamma, a, b, nu.
ORDERS = {
    SOFTMAX: ((1, 0), (1, 1), (0, 1), (0, 2)),
    GATED: ((1, 0), (2, 0), (1, 1), (0, 1), (0, 2)),
}
CASES = [
    (SOFTMAX, 2, None),
    (SOFTMAX, 4, None),
    (GATED, 2, None),
    (GATED, 2, {"c": 0}),
    (GATED, 3, None),
    (GATED, 3, {"c": 0}),
    *(pytest.param(GATED, 4, c, marks=pytest.mark.slow) for c in (None, {"c": 0})),
    pytest.param(SOFTMAX, 6, None, marks=pytest.mark.slow),
]


@cache
def rows_of(kind, order, centred):
    return taylor_rows(atom(kind), order, {"c": 0} if centred else None)


def index_set(kind, l1, l2):
    """J by brute force: alpha with the orders (l1, l2)."""
    most = [min([l for l, o in zip((l1, l2), orders, strict=True) if o] or [0]) for orders in ORDERS[kind]]
    for alpha in product(*(range(n + 1) for n in most)):
        totals = [sum(count * orders[i] for count, orders in zip(alpha, ORDERS[kind], strict=True)) for i in (0, 1)]
        if totals == [l1, l2]:
            yield alpha


def key(kind, l1, l2):
    """D1^l1 D2^l2 as derivative by the parameters beta, b or c, b."""
    return (l1, 0, l2, 0) if kind == SOFTMAX else (l1, 0, 0, l2, 0)


def expected(kind, l1, l2, gamma):
    """sum over J of prod Delta^alpha / alpha! 2^-a4, or Gamma*^a3 2^-(a2 + a5)."""
    found = {}
    for alpha in index_set(kind, l1, l2):
        halves = alpha[3] if kind == SOFTMAX else alpha[1] + alpha[4]
        power = Fraction(1) if kind == SOFTMAX else gamma ** alpha[2]
        found[alpha] = power / (2**halves * prod(map(factorial, alpha)))
    return found


class TestRows:
    @pytest.mark.parametrize(("kind", "order", "stratum"), CASES)
    def test_as_many_as_published(self, kind, order, stratum):
        rows = rows_of(kind, order, stratum is not None)
        wanted = {key(kind, l1, n - l1) for n in range(1, order + 1) for l1 in range(n + 1)}
        assert set(rows.reductions) == wanted
        assert len(rows.reductions) == {2: 5, 3: 9, 4: 14, 6: 27}[order]
        assert rows.order == order

    @pytest.mark.parametrize(("kind", "order", "stratum"), CASES)
    def test_published_polynomials(self, kind, order, stratum):
        """The softmax rows are those of the published J without remainder, the Gaussian-gated ones to leading order."""
        rows = rows_of(kind, order, stratum is not None)
        theta = {str(p): Fraction(int(v.p), int(v.q)) for p, v in rows.mixture.cells[0].theta.items()}
        for n in range(1, order + 1):
            for l1 in range(n + 1):
                kappa = key(kind, l1, n - l1)
                wanted = expected(kind, l1, n - l1, theta.get("Gamma"))
                assert rows.leading(kappa) == wanted
                if kind == SOFTMAX:
                    assert rows.row(kappa) == wanted
                assert {rows.weight(alpha) for alpha in wanted} == {n}

    @pytest.mark.parametrize("kind", WEIGHTS)
    def test_weights_are_found(self, kind):
        report = dependences(atom(kind), 2)
        assert tuple(grading(report).values()) == WEIGHTS[kind]
        assert rows_of(kind, 2, False).weights == grading(report)

    def test_other_weights(self):
        assert list(taylor_rows(atom("location-scale"), 3).weights.values()) == [1, 2]
        assert list(taylor_rows(atom("fixed", d=2), 2).weights.values()) == [1, 1]

    def test_higher_terms_off_the_centre(self):
        """Phi_{0,1} = b + c* a + ..: the slope enters the row of b with a term of higher weight, unless c* = 0."""
        a_alone, b_alone = (0, 0, 1, 0, 0), (0, 0, 0, 1, 0)
        centred, generic = rows_of(GATED, 2, True), rows_of(GATED, 2, False)
        c, *_ = generic.mixture.cells[0].theta.values()
        assert generic.row(key(GATED, 0, 1))[b_alone] == centred.row(key(GATED, 0, 1))[b_alone] == 1
        assert generic.row(key(GATED, 0, 1))[a_alone] == Fraction(int(c.p), int(c.q))
        assert a_alone not in centred.row(key(GATED, 0, 1))

    @pytest.mark.parametrize("kind", WEIGHTS)
    def test_rows_of_a_higher_order_continue_those_of_a_lower(self, kind):
        """Monomials of weight <= 2 are derivatives by generators of order <= 2, which both expansions know."""
        low, high = rows_of(kind, 2, False), rows_of(kind, 3, False)
        for kappa in low.reductions:
            first, second = (
                {alpha: v for alpha, v in rows.row(kappa).items() if rows.weight(alpha) <= 2} for rows in (low, high)
            )
            assert first == second != {}


def coefficients_of(made, theta, order):
    """alpha -> monomial of the inputs -> coefficient of q = D^alpha u / u, from D_p (u q) = u (D_p q + q D_p log u).

    Variances s enter as r = 1 / s, D_s = -r^2 d/dr, so that everything is a polynomial.
    """
    (part,) = made.values
    inverse = {p: sp.Symbol(f"r_{p}") for p in made.positive}
    ring = sp.QQ[(*made.inputs, *(inverse.get(p, p) for p in made.params))]
    place = [1 / theta[p] if p in inverse else theta[p] for p in made.params]
    rates = []
    for p in made.params:
        variable = ring.from_sympy(inverse.get(p, p))
        slope = sp.diff(part.log_factor, p).subs({s: 1 / r for s, r in inverse.items()})
        rates.append((variable, -(variable**2) if p in inverse else 1, ring.from_sympy(sp.expand(slope))))
    quotients = {(0,) * len(made.params): ring.one}
    for alpha in multi_indices(len(made.params), order)[1:]:
        i = next(i for i, count in enumerate(alpha) if count)
        lower = quotients[(*alpha[:i], alpha[i] - 1, *alpha[i + 1 :])]
        variable, speed, slope = rates[i]
        quotients[alpha] = lower.diff(variable) * speed + lower * slope
    found, size = {}, len(made.inputs)
    for alpha, quotient in quotients.items():
        found[alpha] = table = {}
        for exponents, coefficient in quotient.terms():
            powers = prod(Fraction(int(v.p), int(v.q)) ** e for v, e in zip(place, exponents[size:], strict=True))
            value = Fraction(int(coefficient.numerator), int(coefficient.denominator)) * powers
            table[exponents[:size]] = table.get(exponents[:size], 0) + value
    return found


class TestFunctionals:
    @pytest.mark.parametrize(
        ("kind", "order", "centred"), [(SOFTMAX, 2, False), (SOFTMAX, 4, False), (GATED, 2, False), (GATED, 3, True)]
    )
    def test_certificates_map_derivatives_to_the_rows(self, kind, order, centred):
        """One functional on coefficients of monomials sends every D^alpha u to its coordinate along D^kappa u."""
        rows = rows_of(kind, order, centred)
        derivatives = coefficients_of(rows.mixture.atom, rows.mixture.cells[0].theta, order)
        for kappa, reductions in rows.reductions.items():
            certificate = rows.functional(kappa)
            assert certificate["row"] == list(kappa)
            assert {component for component, _, _ in certificate["functional"]} == {0}
            weights = {tuple(exponents): Fraction(text) for _, exponents, text in certificate["functional"]}
            for alpha, coefficients in derivatives.items():
                found = sum(weight * coefficients.get(exponents, 0) for exponents, weight in weights.items())
                assert found == reductions.get(alpha, 0)
            stated = {tuple(alpha): Fraction(text) for alpha, text in certificate["polynomial"]}
            assert stated == rows.row(kappa)

    @pytest.mark.parametrize("kind", [SOFTMAX, GATED])
    def test_reductions_of_the_generators_themselves(self, kind):
        rows = rows_of(kind, 3, False)
        for kappa in rows.reductions:
            assert {other: rows.reductions[other].get(kappa, 0) for other in rows.reductions} == {
                other: int(other == kappa) for other in rows.reductions
            }


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.startswith("adaptive")])
def test_atoms_with_hidden_units_have_no_rows(kind):
    with pytest.raises(InputError, match="expected an atom without hidden units"):
        taylor_rows(atom(kind, d=1), 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: taylor_rows(atom(SOFTMAX), 0), "order 0; expected at least 1"),
        (lambda: taylor_rows(atom(GATED), 2, {"s": 1}), "stratum 's'"),
        (lambda: taylor_rows(atom(GATED), 2, {"nu": -1}), "expected a positive number"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()

from fractions import Fraction
from itertools import product
from math import factorial, prod

import mpmath
import numpy as np
import pytest
import sympy as sp
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sympy.polys.matrices import DomainMatrix

from moe_prompts import InputError
from moe_prompts.theory.arithmetic import PRIME, Exact, Modular, PowerSeries, Real, Residues, evaluate, residue
from moe_prompts.theory.dependences import echelon, interval_pivots

A, B = sp.symbols("a b")
THIN = mpmath.mpf(10) ** -50
fractions = st.fractions(-4, 4, max_denominator=1000)
residues = st.lists(st.integers(0, PRIME - 1), min_size=3, max_size=3)
exactly = settings(max_examples=25, deadline=None)


def rational(value):
    return sp.Rational(value.numerator, value.denominator)


def ends(interval):
    """Both ends, without rounding."""
    return tuple(mpmath.mp.make_mpf(end) for end in interval._mpi_)


def exact_value(name, argument):
    """120 digits of the function."""
    if name == "Heaviside":
        return mpmath.mpf(argument > 0)
    return getattr(mpmath, name)(mpmath.mpf(argument.numerator) / argument.denominator)


class TestResidues:
    @exactly
    @given(a=residues, b=residues)
    def test_ring_of_integers_modulo_the_prime(self, a, b):
        x, y = (Residues(np.array(v, dtype=np.int64)) for v in (a, b))
        assert (x + y).array.tolist() == [(p + q) % PRIME for p, q in zip(a, b, strict=True)]
        assert (x * y).array.tolist() == [p * q % PRIME for p, q in zip(a, b, strict=True)]

    @pytest.mark.parametrize("value", [PRIME - 1, PRIME - 2, 1, 0])
    def test_largest_products_fit(self, value):
        x = Residues(np.array([value], dtype=np.int64))
        assert (x * x).array.tolist() == [value * value % PRIME]

    @exactly
    @given(value=fractions)
    def test_rationals(self, value):
        found = residue(rational(value))
        assert 0 <= found < PRIME
        assert (found * value.denominator - value.numerator) % PRIME == 0

    @exactly
    @given(a=st.lists(st.integers(1, PRIME - 1), min_size=3, max_size=3))
    def test_inverse(self, a):
        numbers = Modular(3, np.random.default_rng(0))
        x = Residues(np.array(a, dtype=np.int64))
        assert (x * numbers.inverse(x)).array.tolist() == [1, 1, 1]

    def test_random_values(self):
        numbers = Modular(500, np.random.default_rng(0))
        assert set(numbers.random_bits().array.tolist()) == {0, 1}
        draws = numbers.random().array
        assert len(set(draws.tolist())) > 490
        assert ((draws > 0) & (draws < PRIME)).all()

    def test_functions_have_no_residue(self):
        with pytest.raises(TypeError, match="exp has no residue"):
            evaluate(sp.exp(A), {A: Modular(1, np.random.default_rng(0)).random()}, Modular(1, None))


class TestEvaluate:
    EXPRESSIONS = (A + B / 3 - 7, A**3 * B - A * B**2 / 5, (A + 2 * B) / (B**2 + 1) - A**-2, sp.Rational(-3, 4) * A)

    @pytest.mark.parametrize("expression", EXPRESSIONS, ids=str)
    def test_rational_expressions_in_every_ring(self, expression):
        a, b = sp.Rational(5, 7), sp.Rational(-11, 3)
        exact = expression.subs({A: a, B: b})
        modular = Modular(2, np.random.default_rng(0))
        found = evaluate(expression, {A: modular.rational(a), B: modular.rational(b)}, modular)
        assert found.array.tolist() == [residue(exact)] * 2
        ring = Exact(())
        assert ring.ring.to_sympy(evaluate(expression, {A: ring.rational(a), B: ring.rational(b)}, ring)) == exact
        real, iv = Real(intervals=False), Real(intervals=True)
        near = evaluate(expression, {A: real.rational(a), B: real.rational(b)}, real)
        low, high = ends(evaluate(expression, {A: iv.rational(a), B: iv.rational(b)}, iv))
        with mpmath.workdps(120):
            value = mpmath.mpf(exact.p) / exact.q
            assert abs(mpmath.mpf(near) - value) < THIN
            assert low <= value <= high < low + THIN

    def test_polynomials_with_symbols(self):
        numbers = Exact((A, B))
        values = {A: numbers.symbol(A), B: numbers.symbol(B)}
        expression = (A - B / 2) ** 3 * (A + 1)
        assert numbers.ring.to_sympy(evaluate(expression, values, numbers)) == sp.expand(expression)

    def test_what_no_ring_knows(self):
        with pytest.raises(TypeError, match="cannot evaluate"):
            evaluate(A ** sp.Rational(1, 3), {A: 1}, Exact(()))
        with pytest.raises(TypeError, match="no interval arithmetic for sinh"):
            evaluate(sp.sinh(A), {A: Real(intervals=True).rational(1)}, Real(intervals=True))
        with pytest.raises(TypeError, match="tanh is no polynomial"):
            evaluate(sp.tanh(A), {A: 1}, Exact(()))


class TestReal:
    @pytest.mark.parametrize("name", ["erf", "tanh", "exp", "Heaviside"])
    @exactly
    @given(argument=fractions)
    def test_intervals_contain_the_value_and_are_narrow(self, name, argument):
        assume(name != "Heaviside" or argument != 0)
        numbers = Real(intervals=True)
        low, high = ends(numbers.function(name, numbers.rational(argument)))
        with mpmath.workdps(120):
            assert low <= exact_value(name, argument) <= high
            assert high - low < THIN

    @pytest.mark.parametrize("name", ["log", "sqrt"])
    @exactly
    @given(argument=st.fractions(Fraction(1, 1000), 4, max_denominator=1000))
    def test_intervals_of_positive_arguments(self, name, argument):
        numbers = Real(intervals=True)
        low, high = ends(numbers.function(name, numbers.rational(argument)))
        with mpmath.workdps(120):
            value = exact_value(name, argument)
            assert low <= value <= high
            assert high - low < THIN

    @pytest.mark.parametrize("name", ["erf", "tanh", "exp"])
    @pytest.mark.parametrize("centre", [Fraction(0), Fraction(-3, 2), Fraction(7, 2)])
    def test_wide_intervals_contain_the_values_of_all_their_points(self, name, centre):
        numbers, radius = Real(intervals=True), Fraction(1, 50)
        wide = numbers.rational(centre) + numbers.context.mpf([-1, 1]) * numbers.rational(radius)
        low, high = ends(numbers.function(name, wide))
        with mpmath.workdps(120):
            for part in range(-10, 11):
                assert low <= exact_value(name, centre + radius * Fraction(part, 10)) <= high

    @pytest.mark.parametrize("name", ["erf", "tanh", "exp"])
    @exactly
    @given(argument=fractions)
    def test_sixty_digits(self, name, argument):
        numbers = Real(intervals=False)
        found = numbers.function(name, numbers.rational(argument))
        with mpmath.workdps(120):
            value = exact_value(name, argument)
            assert abs(mpmath.mpf(found) - value) <= mpmath.mpf(10) ** -57 * max(1, abs(value))

    def test_pi(self):
        low, high = ends(Real(intervals=True).function("pi", None))
        with mpmath.workdps(120):
            assert low < mpmath.pi < high < low + THIN

    @pytest.mark.parametrize("intervals", [False, True])
    def test_no_step_on_the_kink(self, intervals):
        numbers = Real(intervals)
        with pytest.raises(InputError, match="kink of the activation"):
            numbers.function("Heaviside", numbers.rational(0))
        if intervals:
            with pytest.raises(InputError, match="kink of the activation"):
                numbers.function("Heaviside", numbers.context.mpf([-1, 2]))


PLACE = {A: sp.Rational(2, 3), B: sp.Rational(-5, 4)}
FUNCTIONS = {
    "product": (A**2 - A * B / 2 + 3) * (B**3 + A - 1),
    "inverse": 1 / (A**2 + A * B + 7),
    "quotient": (A + B**2) / (2 * A - B) ** 2 - B / A,
}


class TestSeries:
    """Coefficient of Delta^alpha in f(theta + Delta) = D^alpha f / alpha!."""

    def coefficients(self, function, order):
        found = {}
        for alpha in product(range(order + 1), repeat=2):
            if sum(alpha) <= order:
                value = sp.diff(function, A, alpha[0], B, alpha[1]).subs(PLACE)
                found[alpha] = value / prod(map(factorial, alpha))
        return {alpha: value for alpha, value in found.items() if value != 0}

    def algebra(self, numbers, order):
        """The algebra, and theta + Delta in it."""
        algebra = PowerSeries(numbers, 2, order)
        return algebra, {p: algebra.variable(i, numbers.rational(v)) for i, (p, v) in enumerate(PLACE.items())}

    def flat(self, series):
        assert all(sum(alpha) == degree for degree, part in enumerate(series.parts) for alpha in part)
        return {alpha: value for part in series.parts for alpha, value in part.items()}

    def rationals(self, series):
        return {alpha: sp.QQ.to_sympy(value) for alpha, value in self.flat(series).items() if value}

    @pytest.mark.parametrize("order", [0, 1, 4])
    @pytest.mark.parametrize("name", FUNCTIONS)
    def test_rational_functions(self, name, order):
        algebra, values = self.algebra(Exact(()), order)
        expected = self.coefficients(FUNCTIONS[name], order)
        assert self.rationals(evaluate(FUNCTIONS[name], values, algebra)) == expected

    @pytest.mark.parametrize("name", FUNCTIONS)
    def test_residues(self, name):
        algebra, values = self.algebra(Modular(1, np.random.default_rng(0)), 3)
        found = {
            alpha: int(value.array[0]) for alpha, value in self.flat(evaluate(FUNCTIONS[name], values, algebra)).items()
        }
        expected = {alpha: residue(value) for alpha, value in self.coefficients(FUNCTIONS[name], 3).items()}
        assert {alpha: value for alpha, value in found.items() if value} == expected

    def test_exponential(self):
        algebra, values = self.algebra(Exact(()), 4)
        inner = A**2 * B - 3 * B
        found = algebra.exp(evaluate(inner, values, algebra).nilpotent())
        assert self.rationals(found) == self.coefficients(sp.exp(inner - inner.subs(PLACE)), 4)

    def test_logarithm_up_to_its_constant(self):
        algebra, values = self.algebra(Exact(()), 4)
        inner = A**2 * B**2 + 1
        found = evaluate(sp.log(inner), values, algebra)
        assert self.rationals(found) == self.coefficients(sp.log(inner / inner.subs(PLACE)), 4)

    def test_other_functions_are_unknowns(self):
        algebra, values = self.algebra(Exact(()), 2)
        with pytest.raises(TypeError, match="no series for tanh"):
            evaluate(sp.tanh(A), values, algebra)


class TestIntervalPivots:
    @staticmethod
    def intervals(matrix):
        numbers = Real(intervals=True)
        return [[numbers.rational(value) for value in matrix.row(i)] for i in range(matrix.rows)]

    @staticmethod
    def random(size, seed):
        rng = np.random.default_rng(seed)
        return sp.Matrix(size, size, lambda *_: sp.Rational(int(rng.integers(-20, 21)), int(rng.integers(1, 10))))

    @pytest.mark.parametrize("seed", range(1, 5))
    def test_lower_bound_of_a_regular_matrix(self, seed):
        """Pivots of elimination in the given order are ratios of leading minors."""
        matrix = self.random(5, seed)
        minors = [1, *(matrix[:k, :k].det() for k in range(1, 6))]
        pivots = [abs(minors[k + 1] / minors[k]) for k in range(5)]
        bound = interval_pivots(self.intervals(matrix))
        assert 0 < bound == pytest.approx(float(min(pivots)), rel=1e-15)  # as a float

    @pytest.mark.parametrize("seed", range(4))
    def test_singular(self, seed):
        matrix = self.random(5, seed)
        matrix[4, :] = matrix[0, :] / 3 - matrix[2, :] / 7
        with pytest.raises(ArithmeticError, match="interval pivot contains zero"):
            interval_pivots(self.intervals(matrix))

    def test_order_of_pivots_is_not_changed(self):
        with pytest.raises(ArithmeticError, match="interval pivot contains zero"):
            interval_pivots(self.intervals(sp.Matrix([[0, 1], [1, 0]])))

    def test_input_stays(self):
        matrix = self.intervals(self.random(3, 0))
        before = [row[:] for row in matrix]
        interval_pivots(matrix)
        assert all(x is y for row, old in zip(matrix, before, strict=True) for x, y in zip(row, old, strict=True))


@pytest.mark.parametrize(("rows", "columns", "rank"), [(6, 9, 4), (9, 6, 6), (5, 5, 0), (7, 7, 3)])
@pytest.mark.parametrize("seed", range(3))
def test_echelon_is_the_reduced_form_over_the_prime_field(rows, columns, rank, seed):
    rng = np.random.default_rng(seed)
    left, right = rng.integers(0, PRIME, (rows, rank)), rng.integers(0, PRIME, (rank, columns))
    right[:, :2] *= rng.integers(0, 2, 2)  # columns without pivot
    matrix = np.array(left.astype(object) @ right.astype(object) % PRIME if rank else 0 * rng.integers(0, 2, (5, 5)))
    matrix = matrix.astype(np.int64)
    field = sp.GF(PRIME)
    table = [[field(int(value)) for value in row] for row in matrix]
    expected, pivots = DomainMatrix(table, matrix.shape, field).rref()
    before = matrix.copy()
    found, places = echelon(matrix)
    assert tuple(places) == pivots
    reduced = [[int(value) % PRIME for value in row] for row in expected.to_list()]
    assert found.tolist() == reduced[: len(pivots)]
    assert (matrix == before).all()

from functools import cache
from itertools import product
from math import comb

import mpmath
import numpy as np
import pytest
import sympy as sp

from moe_prompts import InputError
from moe_prompts.theory.arithmetic import Real, evaluate
from moe_prompts.theory.atoms import PLAIN, Component, T, X, Y, atom
from moe_prompts.theory.dependences import symbolic_derivative
from moe_prompts.theory.jets import derivatives, multi_indices
from moe_prompts.theory.kernels import KERNELS, kernel

#: Textbook formulas, written without the symbols and identities of the kernels.
ACTIVATIONS = {
    "tanh": (sp.exp(T) - sp.exp(-T)) / (sp.exp(T) + sp.exp(-T)),
    "sigmoid": 1 / (1 + sp.exp(-T)),
    "gelu": T * sp.erfc(-T / sp.sqrt(2)) / 2,
    "silu": T / (1 + sp.exp(-T)),
    "softplus": sp.log(1 + sp.exp(T)),
    "relu": T * sp.Heaviside(T),
    "leaky_relu": T * sp.Heaviside(T) + T / 100 * sp.Heaviside(-T),
    "identity": T,
    "square": T**2,
}
SMOOTH = [name for name in KERNELS if kernel(name).smooth]
ATOMS = {
    made.name: made
    for made in (
        *map(atom, PLAIN),
        atom("location-scale", bias=True),
        atom("softmax-linear", normaliser=True, bias=True),
        *(atom(kind, d=d) for kind in ("fixed", "prefix", "decoupled") for d in (1, 2)),
        *(atom(f"adaptive:{name}", d=1) for name in KERNELS),
        *(atom(f"adaptive:{name}", d=2) for name in (*SMOOTH, "relu")),
        atom("fixed", d=3, rank=2),
        atom("decoupled", d=2, rank=1),
        atom("adaptive:gelu", d=2, rank=1),
        atom("adaptive:tanh", d=1, hidden=2),
        atom("adaptive:tanh", d=2, hidden=2),
    )
}
LONGER = [name for name in ATOMS if name.startswith("adaptive") and "d=2" in name and "relu" not in name]
CASES = [pytest.param(name, marks=pytest.mark.slow if name in LONGER else ()) for name in ATOMS]
SMALL = ("softmax-linear", "adaptive:tanh d=1 hidden=1")


def normal(z, variance):
    """N(z; 0, variance) without its constant."""
    return sp.exp(-(z**2) / (2 * variance)) / sp.sqrt(variance)


def by_the_book(made):
    """Each component of the model, the gate last, straight from the papers' formulas."""
    p, x = {str(q): q for q in made.params}, X[0]
    kind, d, rank = made.spec["kind"], made.spec.get("d", 0), made.spec.get("rank", made.spec.get("d", 0))
    weight = sp.exp(p["logw"]) if "logw" in p else 1
    if kind == "location-scale":
        return [weight * normal(Y - p["b"], p["s"])]
    if kind == "covariate-free":
        return [normal(Y - p["a"] * x - p["b"], p["s"])]
    if kind == "gaussian-gated":
        return [normal(x - p["c"], p["Gamma"]) * normal(Y - p["a"] * x - p["b"], p["nu"])]
    if kind == "gaussian-gated-constant":
        return [normal(x - p["c"], p["Gamma"]) * normal(Y - p["b"], p["nu"])]
    if kind == "softmax-gaussian":
        gate = sp.exp(p["beta"] * x)
        return [gate * normal(Y - p["a"] * x - p["b"], p["s"]), gate]
    if kind == "softmax-linear":
        gate = weight * sp.exp(p["beta"] * x)
        return [gate * (p["a"] * x + p["b"]), gate]
    if kind == "fixed":
        key = value = [p[f"p{i + 1}"] for i in range(d)]
    elif kind == "prefix":
        key = [p[f"p{i + 1}"] for i in range(d)]
        value = [one + one**2 for one in key]
    elif kind == "decoupled":
        key, value = ([p[f"{name}{i + 1}"] for i in range(size)] for name, size in (("k", rank), ("v", d)))
    else:
        sigma, units = ACTIVATIONS[kind.partition(":")[2]], range(1, made.spec["hidden"] + 1)
        hidden = [sigma.subs(T, sum(p[f"w{j}_{i + 1}"] * X[i] for i in range(d))) for j in units]
        key = value = [sum(p[f"z{i + 1}_{j}"] * hidden[j - 1] for j in units) for i in range(d)]
    gate = sp.exp(sum(X[i] * key[i] for i in range(rank)))
    return [*(gate * part for part in value), gate]


def parts_of(made):
    return made.values + ((made.gate,) if made.gate else ())


def place_of(made):
    """Random rational parameters and inputs, off every kink."""
    rng = np.random.default_rng(0)
    draw = lambda: sp.Rational(int(rng.integers(20, 60)), 40)
    theta = {p: draw() * (1 if p in made.positive else int(rng.choice([-1, 1]))) for p in made.params}
    return theta, {q: draw() * int(rng.choice([-1, 1])) for q in made.inputs}


def almost_everywhere(expression):
    return expression.replace(sp.DiracDelta, lambda *_: sp.Integer(0))


def numbers_of(expressions, place, digits):
    """Values of many expressions at one rational place."""
    step = {"Heaviside": lambda t, *_: mpmath.mpf(t > 0)}
    function = sp.lambdify(list(place), list(expressions), modules=[step, "mpmath"], cse=True)
    with mpmath.workdps(digits):
        return [mpmath.mpf(v) for v in function(*(mpmath.mpf(int(v.p)) / int(v.q) for v in place.values()))]


def differentiated(function, params, order):
    """alpha -> D^alpha of the function, by SymPy."""
    found = {}
    for alpha in multi_indices(len(params), order):
        if not any(alpha):
            found[alpha] = function
            continue
        i = next(i for i, count in enumerate(alpha) if count)
        lower = (*alpha[:i], alpha[i] - 1, *alpha[i + 1 :])
        found[alpha] = almost_everywhere(sp.diff(found[lower], params[i]))
    return found


@cache
def expected(name, order, digits=60):
    """For each component of an atom at its place, alpha -> D^alpha u / exp(log_factor)."""
    made, found = ATOMS[name], []
    theta, inputs = place_of(made)
    for part in parts_of(made):
        table = differentiated(made.function(part), made.params, order)
        factor = made.function(Component(part.log_factor, sp.Integer(1)))
        scale, *values = numbers_of([factor, *table.values()], theta | inputs, digits)
        with mpmath.workdps(digits):
            found.append({alpha: v / scale for alpha, v in zip(table, values, strict=True)})
    return found


def values_of(made, numbers):
    """Parameters, inputs, hidden units and their kernels at the atom's place."""
    values = {q: numbers.rational(v) for part in place_of(made) for q, v in part.items()}
    return values | {q: evaluate(f, values, numbers) for unit in made.units for q, f in unit.functions.items()}


def jets(made, order, numbers):
    """What the code under test finds there."""
    values = values_of(made, numbers)
    theta, inputs = ({q: values[q] for q in part} for part in place_of(made))
    return derivatives(made, parts_of(made), order, theta, inputs, values, numbers)


def agree(found, wanted):
    """To 50 digits."""
    with mpmath.workdps(60):
        return abs(mpmath.mpf(found) - wanted) <= mpmath.mpf(10) ** -50 * max(1, abs(wanted))


class TestMultiIndices:
    @pytest.mark.parametrize(("size", "order"), [(1, 4), (3, 2), (5, 3)])
    def test_all_of_them_low_orders_first(self, size, order):
        found = multi_indices(size, order)
        assert set(found) == {alpha for alpha in product(range(order + 1), repeat=size) if sum(alpha) <= order}
        assert len(found) == comb(size + order, order)
        assert [sum(alpha) for alpha in found] == sorted(map(sum, found))
        assert found[1 : size + 1] == [tuple(int(i == j) for i in range(size)) for j in range(size)]


class TestDerivatives:
    @pytest.mark.parametrize("name", CASES)
    def test_second_order(self, name):
        self.compare(name, 2)

    @pytest.mark.parametrize("name", SMALL)
    def test_third_order(self, name):
        self.compare(name, 3)

    def compare(self, name, order):
        found = jets(ATOMS[name], order, Real(intervals=False))
        for values, wanted in zip(found, expected(name, order), strict=True):
            assert set(values) <= set(wanted)
            assert all(agree(values.get(alpha, 0), value) for alpha, value in wanted.items())

    @pytest.mark.parametrize("name", ["gaussian-gated", *SMALL, "adaptive:gelu d=1 hidden=1"])
    def test_intervals_contain_the_derivatives(self, name):
        found = jets(ATOMS[name], 2, Real(intervals=True))
        for values, wanted in zip(found, expected(name, 2, digits=120), strict=True):
            for alpha, interval in values.items():
                low, high = (mpmath.mp.make_mpf(end) for end in interval._mpi_)
                with mpmath.workdps(120):
                    assert low - mpmath.mpf(10) ** -110 <= wanted[alpha] <= high + mpmath.mpf(10) ** -110
                    assert high - low < mpmath.mpf(10) ** -45

    @pytest.mark.parametrize("name", CASES)
    def test_symbolic_derivatives(self, name):
        made = ATOMS[name]
        numbers, values = Real(intervals=False), values_of(made, Real(intervals=False))
        for part, wanted in zip(parts_of(made), expected(name, 2), strict=True):
            for alpha, number in wanted.items():
                assert agree(evaluate(symbolic_derivative(made, part, alpha), values, numbers), number)


@pytest.mark.parametrize("name", ATOMS)
def test_the_atom_is_the_model(name):
    made = ATOMS[name]
    theta, inputs = place_of(made)
    components = [made.function(part) for part in parts_of(made)]
    book = by_the_book(made)
    values = numbers_of([*components, *book], theta | inputs, 60)
    assert len(components) == len(book)
    assert all(map(agree, values[: len(book)], values[len(book) :]))


class TestKernels:
    POINTS = (sp.Rational(-9, 5), sp.Rational(-1, 3), sp.Rational(4, 7), sp.Rational(5, 2))

    def functions(self, sigma):
        return dict(zip(sigma.symbols, sigma.functions, strict=True))

    def values(self, expressions):
        """[point][expression]."""
        return [numbers_of(expressions, {T: point}, 60) for point in self.POINTS]

    @pytest.mark.parametrize("name", KERNELS)
    def test_value(self, name):
        sigma = kernel(name)
        for found, wanted in self.values([sigma.value.xreplace(self.functions(sigma)), ACTIVATIONS[name]]):
            assert agree(found, wanted)

    @pytest.mark.parametrize("name", KERNELS)
    def test_symbols_differentiate_to_polynomials(self, name):
        sigma = kernel(name)
        functions = self.functions(sigma)
        slopes = [almost_everywhere(sp.diff(function, T)) for function in sigma.functions]
        rules = [sp.sympify(rule).xreplace(functions) for rule in sigma.derivatives]
        for values in self.values([*slopes, *rules]):
            assert all(map(agree, values[: len(slopes)], values[len(slopes) :]))

    @pytest.mark.parametrize("name", KERNELS)
    def test_third_derivative_of_the_activation(self, name):
        sigma = kernel(name)
        polynomial, function = sigma.value, ACTIVATIONS[name]
        for _ in range(3):
            polynomial, function = sigma.derive(polynomial), almost_everywhere(sp.diff(function, T))
        for found, wanted in self.values([polynomial.xreplace(self.functions(sigma)), function]):
            assert agree(found, wanted)

    @pytest.mark.parametrize("name", KERNELS)
    def test_homogeneity(self, name):
        """sigma(ct) = c^q sigma(t) for the declared q; without one, sigma(2t) / sigma(t) is not constant."""
        sigma, function = kernel(name), ACTIVATIONS[name]
        scaled = function.subs(T, sp.Rational(7, 3) * T)
        if sigma.homogeneity is not None:
            for found, value in self.values([scaled, function]):
                with mpmath.workdps(60):
                    assert agree(found, (mpmath.mpf(7) / 3) ** sigma.homogeneity * value)
        else:
            *_, first, second = (found / value for found, value in self.values([scaled, function]))
            assert abs(first - second) > 0.01

    @pytest.mark.parametrize("name", KERNELS)
    def test_flags(self, name):
        """Only the step functions have kinks, and only they take the values 0 and 1."""
        sigma = kernel(name)
        binary = bool(sigma.symbols) and all(v in (0, 1) for row in self.values(sigma.functions) for v in row)
        assert sigma.binary == binary
        assert sigma.smooth == (not ACTIVATIONS[name].has(sp.Heaviside))

    def test_unknown(self):
        with pytest.raises(InputError, match="unknown activation 'sine'; expected one of tanh, sigmoid"):
            kernel("sine")

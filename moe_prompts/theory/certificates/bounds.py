"""Check row bounds, and curves along which f hardly moves."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import lru_cache
from itertools import product
from typing import Any

import sympy as sp

from moe_prompts.theory.atoms import Atom, atom
from moe_prompts.theory.certificates.basis import (
    Claims,
    Refuted,
    check_sizes,
    claims,
    component_derivative,
    configuration_of,
    named,
    parts_of,
    require,
    theta_of,
    vanishes,
)
from moe_prompts.theory.mixture import Mixture

Polynomial = dict[tuple[int, ...], Fraction]


def _fraction(value: Any) -> Fraction:
    value = sp.Rational(value)
    return Fraction(int(value.p), int(value.q))


# Rows -------------------------------------------------------------------------------------------------------


def row(certificate: Mapping[str, Any]) -> tuple[Mixture, Polynomial]:
    """Check that the functional, applied to every derivative up to the order, gives the polynomial.

    Returns the mixture and the polynomial. Raises ``Refuted`` where it does not.
    """
    mixture = Mixture.from_json(certificate["mixture"])
    made, order = mixture.atom, mixture.cells[0].order
    require(certificate["order"] == order, "the order of the row is not that of its mixture")
    require(mixture.alone and not made.units, "rows are for an atom by itself without hidden units")
    functional = {(int(c), tuple(map(int, e))): _fraction(v) for c, e, v in certificate["functional"]}
    polynomial = {tuple(map(int, alpha)): _fraction(v) for alpha, v in certificate["polynomial"]}
    spec, theta, found = made.key(), tuple(mixture.cells[0].theta.items()), {}
    places = len(made.values) + (1 if made.normaliser else 0)
    for alpha in product(range(order + 1), repeat=len(made.params)):
        if not 0 < sum(alpha) <= order:
            continue
        value = Fraction(0)
        for place in range(places):
            terms = _terms(spec, place, alpha, theta)
            value += sum((functional.get((place, e), Fraction(0)) * c for e, c in terms), Fraction(0))
        if value:
            found[alpha] = value / math.prod(map(math.factorial, alpha))
    require(found == polynomial, f"row {certificate['row']} is not what its functional gives")
    kappa = tuple(map(int, certificate["row"]))
    require(found.get(kappa) == Fraction(1, math.prod(map(math.factorial, kappa))), "the functional misses its own row")
    return mixture, polynomial


@lru_cache(maxsize=4096)
def _terms(
    spec: str, place: int, alpha: tuple[int, ...], theta: tuple[tuple[sp.Symbol, sp.Rational], ...]
) -> list[tuple[tuple[int, ...], Fraction]]:
    """Return exponents of the inputs and coefficients in one derivative at ``theta``.

    They are kept, since all rows of a bound read them.
    """
    at_theta = component_derivative(spec, place, alpha).xreplace(dict(theta))
    return [(e, _fraction(c)) for e, c in sp.Poly(at_theta, *atom(**json.loads(spec)).inputs, domain=sp.QQ).terms()]


def _row(certificate: Mapping[str, Any]) -> Claims:
    row(certificate)
    return {}


def _index(made: Atom, name: str) -> int:
    names = [str(p) for p in made.params]
    require(name in names, f"{name} is no parameter of {made.name}")
    return names.index(name)


def _place(certificate: Mapping[str, Any], of: Mixture) -> int:
    """Return m of the over-fitted cell to which rows of ``of`` apply, once it is checked that they do.

    Rows of order 4 at least are needed, of the same atom with the same parameters zero. Only gauges may be
    invisible to first order, and an exact cell or a frozen expert must pin the gates.
    """
    mixture, sizes, cell = _configuration(certificate)
    made = mixture.atom
    if mixture.alone or cell is None or sizes[cell] < 2:
        raise Refuted("rows are applied to a cell of several atoms")
    same = {key: value for key, value in of.atom.spec.items() if key != "normaliser"}
    require(same == made.spec and of.atom.normaliser == (made.gate is not None and not made.positive), "another atom")
    require(made.gate is None or bool(mixture.frozen) or min(sizes) == 1, "nothing pins the gates")
    require(of.cells[0].order >= 4, "rows to order 4 are needed")
    first, theorem = certificate["first order"], f"rbar({sizes[cell]}) = {2 * sizes[cell]}"
    require(first["kind"] in ("first-order", "definite"), "the first order is no certificate of first order")
    require(configuration_of(first) == certificate["mixture"], "the first order is of another configuration")
    claims(first)
    require(certificate.get("theorem", theorem) == theorem, "the theorem is another one")
    for p in made.params:
        require((mixture.cells[cell].theta[p] == 0) == (of.cells[0].theta[p] == 0), f"{p} is zero in one place only")
    return sizes[cell]


def _configuration(certificate: Mapping[str, Any]) -> tuple[Mixture, list[int], int | None]:
    """Return the mixture, the atoms per cell and the cell in question of a certificate.

    A cell of one atom is seen to first order, others to second.
    """
    mixture, sizes, cell = Mixture.from_json(certificate["mixture"]), certificate["sizes"], certificate["cell"]
    check_sizes(mixture, sizes)
    require(cell is None or (isinstance(cell, int) and 0 <= cell < len(sizes)), "there is no such cell")
    return mixture, sizes, cell


def _s1_block(certificate: Mapping[str, Any]) -> Claims:
    """Check that the rows n = 1, 2, .. in the powers of D_q are [t^n] exp(q t + kappa s t^2)."""
    kappa = sp.Rational(certificate["kappa"])
    require(kappa != 0, "kappa is 0")
    t = sp.Symbol("t")
    for n, part in enumerate(certificate["rows"], start=1):
        mixture, polynomial = row(part)
        made = mixture.atom
        q, s = (_index(made, certificate[name]) for name in ("q", "s"))
        require(tuple(part["row"]) == tuple(n * (i == q) for i in range(len(made.params))), f"row {n} is another one")
        a, b = made.params[q], made.params[s]
        series = sp.expand(sp.Add(*((a * t + kappa * b * t**2) ** k / sp.factorial(k) for k in range(1, n + 1))))
        expected = sp.Poly(series.coeff(t, n), *made.params).terms()
        require(polynomial == {e: _fraction(c) for e, c in expected}, f"row {n} is not [t^{n}] exp(q t + kappa s t^2)")
    require(len(certificate["rows"]) >= 4, "expected the rows 1 to 4 at least")
    m, cell = _place(certificate, mixture), certificate["cell"]
    return {(cell, certificate["q"]): Fraction(2 * m), (cell, certificate["s"]): Fraction(m)}


def _homogeneous(certificate: Mapping[str, Any]) -> Claims:
    """Check that the leading rows are S2, which has only trivial solutions at order 2m.

    The parts of least weight of all rows are the coefficients of D1^i D2^j in the generating function of S2.
    """
    weights = {name: int(w) for name, w in certificate["weights"].items()}
    order = int(certificate["rows"][0]["order"])
    seen = set()
    for part in certificate["rows"]:
        mixture, polynomial = row(part)
        made = mixture.atom
        require(set(weights) == {str(p) for p in made.params}, "the weights are not those of the parameters")
        grades = [weights[str(p)] for p in made.params]
        weight = {alpha: sum(e * g for e, g in zip(alpha, grades, strict=True)) for alpha in polynomial}
        leading = {alpha: c for alpha, c in polynomial.items() if weight[alpha] == min(weight.values())}
        generators = [i for i, g in enumerate(grades) if g == 1]
        require(len(generators) == 2 and made.spec["kind"] in FAMILIES, "expected a family with two generators")
        place = tuple(part["row"][i] for i in generators)
        require(leading == _s2_row(mixture, place), f"the leading part of row {place} is not that of S2")
        seen.add(place)
    require(
        seen == {(i, j) for i in range(order + 1) for j in range(order + 1) if 1 <= i + j <= order}, "rows are missing"
    )
    m, cell = _place(certificate, mixture), certificate["cell"]
    return {(cell, name): Fraction(2 * m, w) for name, w in weights.items()}


#: Families whose S2 has only the solution 0 at order 2m (``solvability``).
FAMILIES = ("softmax-gaussian", "gaussian-gated")


def _s2_row(mixture: Mixture, place: tuple[int, ...]) -> Polynomial:
    made, names = mixture.atom, named(mixture.atom)
    D1, D2 = sp.symbols("D1 D2")
    if made.spec["kind"] == "softmax-gaussian":
        beta, a, b, s = (names[k] for k in ("beta", "a", "b", "s"))
        exponent = beta * D1 + b * D2 + a * D1 * D2 + s * D2**2 / 2
    else:
        c, G, a, b, nu = (names[k] for k in ("c", "Gamma", "a", "b", "nu"))
        truth = mixture.cells[0].theta[G]
        exponent = c * D1 + b * D2 + G * D1**2 / 2 + truth * a * D1 * D2 + nu * D2**2 / 2
    series = sp.Add(*(exponent**k / sp.factorial(k) for k in range(1, sum(place) + 1)))
    found = sp.Poly(sp.expand(series), D1, D2).coeff_monomial(D1 ** place[0] * D2 ** place[1])
    return {e: _fraction(c) for e, c in sp.Poly(found, *made.params).terms()}


def _peeled(certificate: Mapping[str, Any]) -> Claims:
    """Check for an even pure power, beside monomials that are all absorbed.

    Hoelder's inequality absorbs them, with the bounds that are given.
    """
    mixture, polynomial = row(certificate["row"])
    made, power = mixture.atom, int(certificate["power"])
    place = _index(made, certificate["param"])
    inverse = {_index(made, given["param"]): 1 / theta_of(given, certificate) for given in certificate["given"]}
    pure = tuple(power * (i == place) for i in range(len(made.params)))
    require(power >= 2 and power % 2 == 0 and pure in polynomial, "the row has no such pure even power")
    for alpha in polynomial:
        total = sum(Fraction(e, power) if i == place else e * inverse.get(i, Fraction(0)) for i, e in enumerate(alpha))
        require(alpha == pure or total >= 1, f"the monomial {alpha} is not absorbed")
    _place(certificate, mixture)
    return {(certificate["cell"], certificate["param"]): Fraction(power)}


# Curves -----------------------------------------------------------------------------------------------------


def _one_atom(certificate: Mapping[str, Any]) -> Claims:
    """Check that the parameter belongs to a cell of one atom, or is shared by all.

    f is smooth in its parameters, of which this is one, so theta is at least 1.
    """
    mixture, sizes, cell = _configuration(certificate)
    made, name = mixture.atom, certificate["param"]
    p = made.params[_index(made, name)]
    require(p not in made.pinned, f"{name} is pinned")
    require((p in made.shared) == (cell is None), f"{name} does not belong there")
    require(cell is None or sizes[cell] == 1, "the cell has several atoms")
    return {(cell, name): Fraction(1)}


def _split(certificate: Mapping[str, Any]) -> Claims:
    """Check that the cell has two atoms, and a direction along the parameter in which the atom is smooth."""
    mixture, sizes, cell = _configuration(certificate)
    made, name = mixture.atom, certificate["param"]
    p = made.params[_index(made, name)]
    if cell is None or sizes[cell] < 2:
        raise Refuted("a split needs two atoms in its cell")
    require(p not in {*made.shared, *made.pinned}, f"{name} is a parameter of all atoms")
    if certificate["along"] == "itself":
        require(all(unit.kernel.smooth for unit in made.units), "the activation has a kink that the split moves")
        return {(cell, name): Fraction(2)}
    require(
        certificate["along"] == "scale of its unit", "a split is along the parameter itself or the scale of its unit"
    )
    unit = next(unit for unit in made.units if p in unit.argument.free_symbols)
    scale = sp.Symbol("r", positive=True)
    scaled = unit.argument.xreplace({q: scale * q for q in made.params if q in unit.argument.free_symbols})
    require(sp.expand(scaled - scale * unit.argument) == 0, "scaling the unit does not scale its argument")
    require(unit.kernel.homogeneity is not None, "the activation is not homogeneous: scaling moves its kink")
    require(mixture.cells[cell].theta[p] != 0, f"{name} is 0 and does not move with the scale")
    return {(cell, name): Fraction(2)}


def _witness(certificate: Mapping[str, Any]) -> Claims:
    """Check that f_1..f_{2m-1} of S1 vanish, f_{2m} and some q1 do not, and masses are positive."""
    m, modulus = int(certificate["m"]), certificate["modulus"]
    require(m >= 2, "expected m >= 2")
    x = sp.Symbol("x")
    if modulus is None:
        weights, q1, q2 = ([sp.Rational(v) for v in certificate[name]] for name in ("weights", "q1", "q2"))
        require(len(weights) == len(q1) == len(q2) == m, "expected m atoms")
        require(all(w > 0 for w in weights) and any(q1), "masses are not positive, or all q1 are 0")
        found = [
            sp.Add(*(w * _s1_term(a, b, n) for w, a, b in zip(weights, q1, q2, strict=True)))
            for n in range(1, 2 * m + 1)
        ]
    else:
        hermite = [sp.Poly(1, x), sp.Poly(x, x)]
        for n in range(1, m):
            hermite.append(sp.Poly(x, x) * hermite[n] - n * hermite[n - 1])
        given, weight, a, b = (_polynomial(certificate[name], x) for name in ("modulus", "weights", "q1", "q2"))
        require(given == hermite[m], f"the modulus is not He_{m}")
        square = (weight * m * hermite[m - 1] ** 2 - sp.factorial(m - 1)).rem(hermite[m])
        require(square.is_zero, "the masses are not (m-1)! / (m He_{m-1}^2), so not known to be positive")
        require(not a.rem(hermite[m]).is_zero, "all q1 are 0")
        sums = _power_sums(hermite[m], m)
        found = []
        for n in range(1, 2 * m + 1):
            value = (weight * sp.Poly(_s1_term(a.as_expr(), b.as_expr(), n), x)).rem(hermite[m])
            found.append(sp.Add(*(c * sums[e[0]] for e, c in value.terms())))
    require([str(v) for v in found] == certificate["residuals"], "the residuals are other ones")
    require(not any(found[:-1]) and found[-1] != 0, "the first 2m - 1 residuals do not vanish, or the last does")
    return {}


def _polynomial(coefficients: list[str], x: sp.Symbol) -> sp.Poly:
    return sp.Poly([sp.Rational(c) for c in coefficients], x)


def _s1_term(q1: sp.Expr, q2: sp.Expr, n: int) -> sp.Expr:
    """Return [t^n] exp(q1 t + q2 t^2)."""
    return sp.Add(*(q1 ** (n - 2 * j) * q2**j / (sp.factorial(n - 2 * j) * sp.factorial(j)) for j in range(n // 2 + 1)))


def _power_sums(polynomial: sp.Poly, m: int) -> list[sp.Rational]:
    """Return the sums of the powers 0..m-1 of the roots, by Newton's identities."""
    c = polynomial.all_coeffs()
    sums = [sp.Integer(m)]
    for n in range(1, m):
        sums.append(-n * c[n] - sp.Add(*(c[i] * sums[n - i] for i in range(1, n))))
    return sums


def _gauss_hermite(certificate: Mapping[str, Any]) -> Claims:
    """Check that atoms at Gauss-Hermite nodes hide each other to order 2 m.

    Moved along eps q1, eps^2 q2, they multiply the transform of the true atom by exp(q1 tau + q2 tau^2).
    """
    _witness(certificate["witness"])
    mixture, sizes, cell = _configuration(certificate)
    made, m, name, weight = mixture.atom, int(certificate["m"]), certificate["param"], int(certificate["weight"])
    if cell is None or int(certificate["witness"]["m"]) != m:
        raise Refuted("the witness is for another number of atoms, or for no cell")
    require(certificate["witness"]["q2"] == ["-1/2"], "expected q2 = -1/2 at all nodes")
    eps, q1, lam = sp.symbols("eps q1 lam")
    if certificate["all cells"]:
        require(made.spec["kind"] == "softmax-gaussian" and not mixture.frozen, "no curve that moves all cells alike")
        require(2 <= m <= min(sizes), "a cell has fewer atoms")
        moved = _tilted_curve(eps, q1, lam)
    else:
        require(2 <= m <= sizes[cell], "the cell has fewer atoms")
        moved = _curve(made.spec["kind"], eps, q1, sp.Rational(-1, 2))
    require(name in moved, f"{name} does not move along the curve")
    low = sp.expand(sp.series(moved[name], eps, 0, weight + 1).removeO())
    require(all(low.coeff(eps, k) == 0 for k in range(weight)) and low.coeff(eps, weight) != 0, "another order in eps")
    return {(cell, name): Fraction(2 * m, weight)}


def _curve(family: str, eps: sp.Symbol, q1: sp.Symbol, q2: sp.Rational) -> dict[str, sp.Expr]:
    """Return the displacements of the parameters along the curve, once its transform is checked.

    The check is log(transform / true transform) = q1 tau + q2 tau^2.
    """
    x, y = sp.symbols("x y")
    if family in ("location-scale", "covariate-free", "softmax-gaussian"):
        # Transform in y of N(y; mean, s): exp(mean y + s y^2 / 2); mean and s move by eps q1, 2 eps^2 q2.
        moved = {"b": eps * q1, "s": 2 * eps**2 * q2}
        ratio = moved["b"] * y + moved["s"] * y**2 / 2
        require(sp.expand(ratio - q1 * (eps * y) - q2 * (eps * y) ** 2) == 0, "the curve is not that of S1")
        return moved
    if family == "gaussian-gated-constant":
        # A product of two Gaussians; either factor can be moved alone.
        return {"c": eps * q1, "Gamma": 2 * eps**2 * q2, "b": eps * q1, "nu": 2 * eps**2 * q2}
    require(family == "gaussian-gated", f"no curve for {family}")
    c, G, a, b, nu, v = sp.symbols("c G a b nu v")
    # The joint Gaussian of (x, y): mean moves by eps q1 (1, v), covariance by 2 eps^2 q2 (1, v)(1, v)'.
    mean = (c + eps * q1, a * c + b + eps * q1 * v)
    spread = 2 * eps**2 * q2
    xx, xy, yy = G + spread, a * G + spread * v, nu + a**2 * G + spread * v**2
    slope = xy / xx
    atom = {"c": mean[0], "Gamma": xx, "a": slope, "b": mean[1] - slope * mean[0], "nu": yy - slope * xy}

    def log_transform(c: sp.Expr, Gamma: sp.Expr, a: sp.Expr, b: sp.Expr, nu: sp.Expr) -> sp.Expr:
        """Return log E exp(x X + y Y)."""
        square = Gamma * x**2 + 2 * a * Gamma * x * y + (nu + a**2 * Gamma) * y**2
        return c * x + (a * c + b) * y + square / 2

    start = {"c": c, "Gamma": G, "a": a, "b": b, "nu": nu}
    tau = eps * (x + v * y)
    left = log_transform(**atom) - log_transform(**start) - q1 * tau - q2 * tau**2
    require(sp.simplify(left) == 0, "the curve is not that of S1")
    return {name: sp.simplify(value - start[name]) for name, value in atom.items()}


def _tilted_curve(eps: sp.Symbol, q1: sp.Symbol, lam: sp.Symbol) -> dict[str, sp.Expr]:
    """Return the displacements that move all cells of a softmax-gaussian mixture alike, once checked.

    Numerators and gates gain the common factor exp(eps^2 lam^2 x^2 / 2), which cancels.
    """
    x, y = sp.symbols("x y")
    q2 = sp.Rational(-1, 2)
    moved = {"beta": eps * lam * q1, "a": 2 * eps**2 * lam * q2, "b": eps * q1, "s": 2 * eps**2 * q2}
    ratio = moved["beta"] * x + (moved["a"] * x + moved["b"]) * y + moved["s"] * y**2 / 2
    tau, common = eps * (lam * x + y), -q2 * eps**2 * lam**2 * x**2
    require(sp.expand(ratio - q1 * tau - q2 * tau**2 - common) == 0, "numerators are not those of S1")
    gate_tau = eps * lam * x
    require(sp.expand(moved["beta"] * x - q1 * gate_tau - q2 * gate_tau**2 - common) == 0, "gates are not those of S1")
    return moved


def _invisible(certificate: Mapping[str, Any]) -> Claims:
    """Check a curve of parameters with the same f."""
    mixture, _, cell = _configuration(certificate)
    made, how, name = mixture.atom, certificate["how"], certificate["param"]
    ways = {"affine": _affine, "cosh": _cosh, "alone": _alone, "orbit": _orbit}
    require(how in ways, f"no such way to be invisible: {how}")
    require((cell is None) == (how == "orbit"), "an orbit moves all cells, everything else one")
    ways[how](made, mixture, certificate)
    return {(cell, name): math.inf}


def _explicit(made: Atom, place: Mapping[sp.Symbol, sp.Expr]) -> list[tuple[sp.Expr, sp.Expr]]:
    """Return log_factor and value of all components as functions, at the given parameters."""
    functions = {symbol: value for unit in made.units for symbol, value in unit.functions.items()}
    return [
        (part.log_factor.xreplace(functions).xreplace(place), part.value.xreplace(functions).xreplace(place))
        for part in parts_of(made)
    ]


def _affine(made: Atom, mixture: Mixture, certificate: Mapping[str, Any]) -> None:
    """Check that factors stand still and values are affine in t at theta + t direction.

    Two atoms at +-t with half the mass each are then one atom.
    """
    cell, names, t = int(certificate["cell"]), named(made), sp.Symbol("t0")
    require(certificate["sizes"][cell] >= 2, "a split needs two atoms in its cell")
    direction = {names[name]: sp.Rational(v) for name, v in certificate["direction"].items()}
    require(direction.get(names[certificate["param"]], 0) != 0, "the direction does not move the parameter")
    require(not set(direction) & {*made.shared, *made.pinned}, "the direction moves a parameter of all atoms")
    place = {p: value + t * direction.get(p, sp.Integer(0)) for p, value in mixture.cells[cell].theta.items()}
    for log_factor, value in _explicit(made, place):
        require(vanishes(sp.diff(log_factor, t)), "the gate moves")
        require(vanishes(sp.diff(value, t, 2)), "the value is not affine along the direction")


def _cosh(made: Atom, mixture: Mixture, certificate: Mapping[str, Any]) -> None:
    """Check that nothing pins the gates.

    Shifting them by +-delta then multiplies every component of every cell by e^{+-delta input}.
    """
    require(not mixture.frozen, "frozen experts pin the gates")
    require(min(certificate["sizes"]) >= 2, "a cell of one atom pins the gates")
    _shift(made, certificate["param"])


def _shift(made: Atom, name: str) -> None:
    names = named(made)
    require(name in names and names[name] in made.gate_shift, f"{name} does not shift gates")
    p, t = names[name], sp.Symbol("t0")
    start = _explicit(made, {})
    shifts = set()
    for (log_factor, value), (before, old) in zip(_explicit(made, {p: p + t}), start, strict=True):
        require(sp.expand(value - old) == 0, f"{name} moves a value")
        shifts.add(sp.expand(log_factor - before))
    require(len(shifts) == 1, f"{name} shifts components differently")
    left = shifts.pop()
    require(sp.diff(left, t, 2) == 0 and not left.free_symbols & set(made.params), f"{name} does not act as a shift")


def _alone(made: Atom, mixture: Mixture, certificate: Mapping[str, Any]) -> None:
    """Check that there is one expert and nothing else: its gate cancels."""
    require(len(mixture.cells) == 1 and not mixture.frozen, "there are other experts")
    _shift(made, certificate["param"])


def _orbit(made: Atom, mixture: Mixture, certificate: Mapping[str, Any]) -> None:
    """Check that w -> r w and z -> z / r^degree for one hidden unit leave its contribution as it is."""
    r, degree = sp.Symbol("r", positive=True), int(certificate["degree"])
    unit = made.units[0]
    w = [p for p in made.params if p in unit.argument.free_symbols]
    require(certificate["param"] in map(str, w), "the parameter is no weight of the first unit")
    sigma = unit.kernel.value.xreplace(dict(zip(unit.kernel.symbols, unit.kernel.functions, strict=True)))
    t = sp.Symbol("t")
    scaled = sigma.xreplace({t: r * t}).replace(
        lambda e: isinstance(e, sp.Heaviside), lambda e: sp.Heaviside(sp.expand(e.args[0] / r))
    )
    require(vanishes(sp.expand(scaled - r**degree * sigma)), "the activation is not homogeneous of that degree")
    require(
        sp.expand(unit.argument.xreplace({p: r * p for p in w}) - r * unit.argument) == 0, "the argument does not scale"
    )


#: Kind of certificate -> its check.
CHECKS: dict[str, Callable[[Mapping[str, Any]], Claims]] = {
    "row": _row,
    "s1-block": _s1_block,
    "homogeneous": _homogeneous,
    "peeled": _peeled,
    "one atom": _one_atom,
    "split": _split,
    "s1-witness": _witness,
    "gauss-hermite": _gauss_hermite,
    "invisible": _invisible,
}

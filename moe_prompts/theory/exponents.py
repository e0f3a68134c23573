"""Derive exponents from dependences and rows.

theta is the smallest number with |Delta|^theta <= C ||f - f*||, and the rate of a group of parameters is
n^{-1/(2 theta)}, up to logarithms.

Upper bounds on theta (the group is at least so fast)
    first order   1: the first derivatives are independent and the cell holds one atom
    definite      2: no positive semidefinite second-order part is invisible (``definite``)
    S1 block      2m for q and m for s, where rows n = 1..2m are [t^n] exp(q t + kappa s t^2): rbar(m) = 2m
    homogeneous   2m / weight, where the leading rows are S2, which has only trivial solutions at order 2m
    peeled        2j: some row is q^{2j} plus monomials prod |q_i|^{e_i} with
                  sum_i e_i / theta_i + e_q / 2j >= 1, which Hoelder's inequality absorbs
Lower bounds on theta (curves along which f hardly moves)
    one atom      1: f is smooth in its parameters
    split         2: two atoms at theta* +- eps cancel to first order
    Gauss-Hermite 2m / weight: m atoms at the nodes of a quadrature cancel below order 2m
    invisible     infinite: a curve of parameters along which f does not move at all

Exponents are local: fitted atoms are near the true one of their cell, except along directions that have no
rate. Upper bounds from rows assume that the derivatives of different cells, gates included, are independent
at every order, which holds wherever something pins the gates (docs/algebra.md has the argument); at first and
second order it is certified. An exponent is proved where both bounds meet. What needs derivatives that exist
almost everywhere only is numeric.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import sympy as sp
from sympy.polys.matrices import DomainMatrix

from moe_prompts.losses.gaussian_voronoi import rbar
from moe_prompts.theory.atoms import Atom, atom
from moe_prompts.theory.definite import Definiteness, separate
from moe_prompts.theory.dependences import DependenceReport, SecondOrder, dependences, second_order_parts
from moe_prompts.theory.mixture import Column, mixture
from moe_prompts.theory.rows import Polynomial, Rows, taylor_rows
from moe_prompts.theory.solvability import gauss_hermite_witness
from moe_prompts.theory.systems import index_set

Theta = Fraction | float
Certificate = dict[str, Any]
#: Lower bounds that hold in every smooth model.
TRIVIAL = ("one atom", "split")
#: Rows are computed to this order; the closed forms of the Gaussian derivatives carry them on
#: (``solvability``).
ROW_ORDER = 4


@dataclass(frozen=True)
class Bound:
    """Hold one bound on theta.

    ``certificate`` proves that theta is at most (upper) or at least (lower) ``theta``.
    """

    theta: Theta
    method: str
    certificate: Certificate


@dataclass(frozen=True)
class Exponent:
    """Hold what is known about one exponent.

    theta         its value, infinite where there is no rate, None where only a trivial bound is known
    status        "proved", "numeric", "one-sided" (theta is a lower bound: no faster than n^{-1/(2 theta)})
                  or "undetermined"
    upper, lower  the best bounds from both sides
    """

    theta: Theta | None
    status: str
    upper: Bound | None
    lower: Bound | None


def settle(uppers: Iterable[Bound], lowers: Iterable[Bound], numeric: bool) -> Exponent:
    """Return the best bounds from both sides, and what they leave open.

    Raises ``ArithmeticError`` where they contradict each other.
    """
    upper = min(uppers, key=lambda bound: bound.theta, default=None)
    lower = max(lowers, key=lambda bound: (bound.theta, bound.method not in TRIVIAL), default=None)
    if lower is not None and lower.theta == math.inf:
        return Exponent(math.inf, "proved", None, lower)
    if upper is not None and lower is not None and upper.theta < lower.theta:
        raise ArithmeticError(
            f"bounds contradict each other: {upper.method} {upper.theta}, {lower.method} {lower.theta}"
        )
    if upper is not None and lower is not None and upper.theta == lower.theta:
        return Exponent(upper.theta, "numeric" if numeric else "proved", upper, lower)
    if lower is not None and lower.method not in TRIVIAL:
        return Exponent(lower.theta, "one-sided", upper, lower)
    return Exponent(None, "undetermined", upper, lower)


def slowest_of(parts: list[Exponent]) -> Exponent:
    """Return the exponent of a group of parameters: the slowest of them."""
    ranks = {"proved": 0, "numeric": 1, "one-sided": 2, "undetermined": 3}
    none = [part for part in parts if part.theta == math.inf]
    if none:
        return none[0]
    worst = max(parts, key=lambda part: (ranks[part.status], part.theta or 0))
    slowest = max((part for part in parts if part.theta is not None), key=lambda part: part.theta or 0, default=worst)
    return worst if worst.theta is None else Exponent(slowest.theta, worst.status, slowest.upper, slowest.lower)


class Analysis:
    """Hold what algebra says about one configuration: true atoms fitted by ``sizes`` atoms each.

    ``frozen`` experts are known beside them.
    """

    def __init__(self, made: Atom, sizes: list[int], frozen: int, stratum: Mapping[str, Any] | None) -> None:
        self.atom, self.sizes, self.frozen, self.stratum = made, sizes, frozen, stratum
        self.mixture = mixture(made, [1 if m == 1 else 2 for m in sizes], frozen, stratum)
        self._by_cell: dict[int, dict[sp.Symbol, list[Bound]]] = {}

    @cached_property
    def report(self) -> DependenceReport:
        """Return the dependences of the configuration."""
        return dependences(self.mixture)

    @cached_property
    def rank_certificate(self) -> Certificate:
        """Return all dependences, and a minor that proves that there are no more."""
        null = [
            [[[column.cell, list(column.alpha)], str(value)] for column, value in vector.items() if value]
            for vector in self.report.null
        ]
        return {"kind": "rank", "minor": self.report.minor, "null": null}

    @cached_property
    def first_order_certificate(self) -> Certificate:
        """Return the certificate that only gauges are invisible to first order."""
        return {"kind": "first-order", "rank": self.rank_certificate}

    @cached_property
    def gauge(self) -> list[dict[Column, sp.Rational]]:
        """Return the invisible first-order directions that come with every conditional model.

        Without frozen experts they scale all masses and translate all gates.
        """
        if self.atom.gate is None or self.frozen:
            return []
        zero = (0,) * len(self.atom.params)
        units = [tuple(int(q == p) for q in self.atom.params) for p in self.atom.gate_shift]
        return [{Column(j, alpha): c.weight for j, c in enumerate(self.mixture.cells)} for alpha in (zero, *units)]

    @cached_property
    def lost(self) -> bool:
        """Say whether directions other than gauges are lost to first order, or kernels hide dependences."""
        vectors = [vector for vector in self.report.null if all(column.order <= 1 for column in vector)]
        return not self.report.agree or _rank(vectors + self.gauge) > len(self.gauge)

    @cached_property
    def second(self) -> SecondOrder:
        """Return the second-order parts of all dependences."""
        return second_order_parts(self.report)

    @cached_property
    def definiteness(self) -> Definiteness:
        """Return what decides whether a split hides to second order."""
        return separate(self.second.matrices, len(self.second.places))

    @cached_property
    def second_order_certificate(self) -> Certificate:
        """Return the certificate that no split hides to second order, or of one that does."""
        found = self.definiteness
        matrix = found.separator if found.separator is not None else found.hidden
        return {
            "kind": "definite" if found.separator is not None else "hidden",
            "rank": self.rank_certificate,
            "places": [list(place) for place in self.second.places],
            "matrix": None if matrix is None else [[str(v) for v in matrix.row(i)] for i in range(matrix.rows)],
        }

    # Which parameters no data can show ----------------------------------------------------------------------

    @cached_property
    def tilted(self) -> bool:
        """Say whether all cells together can hide a split of gates.

        beta_j +- delta multiplies numerator and denominator by cosh(delta x) alike, where every cell has two
        atoms or more, none is frozen and gates tilt nothing else.
        """
        if not self.atom.gate_shift or self.frozen or min(self.sizes) < 2:
            return False
        shifts = set(self.atom.gate_shift)
        return not any(part.value.free_symbols & shifts for part in self.atom.values)

    def invisible(self, cell: int, p: sp.Symbol) -> Bound | None:
        """Return a curve that moves ``p`` in ``cell`` and not f, or None."""
        if p in self.atom.gate_shift and self.tilted:
            return Bound(math.inf, "cosh", self._invisible("cosh", cell, p))
        if p in self.atom.gate_shift and len(self.sizes) == 1 and not self.frozen:
            return Bound(math.inf, "one expert", self._invisible("alone", cell, p))
        if self.sizes[cell] >= 2:
            for direction in self._directions(cell):
                if p in direction and is_affine(self.atom, self.mixture.cells[cell].theta, direction):
                    certificate = self._invisible("affine", cell, p)
                    certificate["direction"] = {str(q): str(v) for q, v in direction.items()}
                    return Bound(math.inf, "affine", certificate)
        return None

    @property
    def anchored(self) -> bool:
        """Say whether something pins the gates to higher than first order.

        It is an exact cell or a frozen expert, or there are no gates.
        """
        return self.atom.gate is None or self.frozen > 0 or min(self.sizes) == 1

    @cached_property
    def configuration(self) -> dict[str, Any]:
        """Return the configuration as certificates name it."""
        return {"mixture": self.mixture.to_json(), "sizes": self.sizes}

    def _invisible(self, how: str, cell: int, p: sp.Symbol) -> Certificate:
        return {"kind": "invisible", "how": how, **self.configuration, "cell": cell, "param": str(p)}

    def _directions(self, cell: int) -> list[dict[sp.Symbol, sp.Rational]]:
        """Return columns whose squares sum to the part of the invisible M that lies in ``cell``."""
        hidden = self.definiteness.hidden
        if hidden is None:
            return []
        places = self.second.places
        rows = [row for row, (j, _) in enumerate(places) if j == cell]
        left, found = hidden.extract(rows, rows), []
        for k in range(len(rows)):
            if left[k, k]:
                column = left[:, k] / left[k, k]
                found.append({self.atom.params[places[rows[i]][1]]: column[i] for i in range(len(rows)) if column[i]})
                left = left - left[k, k] * column * column.T
        return found

    # Bounds -------------------------------------------------------------------------------------------------

    @cached_property
    def rows(self) -> Rows | None:
        """Return the rows of one cell, or None for atoms with hidden units.

        The gate is a component of its own, which is what independent cells make of it.
        """
        if self.atom.units:
            return None
        gaussian = bool(self.atom.positive)
        alone = self.atom if gaussian else atom(**{**self.atom.spec, "normaliser": True})
        return taylor_rows(alone, ROW_ORDER, self.stratum)

    def exponent(self, cell: int, p: sp.Symbol) -> Exponent:
        """Return the exponent of the parameter ``p`` in ``cell``."""
        m = self.sizes[cell]
        hidden = self.invisible(cell, p)
        if hidden is not None:
            return settle([], [hidden], numeric=False)
        uppers: list[Bound] = []
        if not self.lost:
            if m == 1:
                uppers = [Bound(Fraction(1), "first order", self.first_order_certificate)]
            elif self.definiteness.separator is not None:
                uppers = [Bound(Fraction(2), "definite", self.second_order_certificate)]
            elif self.rows is not None and self.anchored:
                if cell not in self._by_cell:
                    self._by_cell[cell] = self._row_bounds(cell)
                uppers = self._by_cell[cell].get(p, [])
        return settle(uppers, self._lowers(cell, p), self._numeric)

    def shared(self, p: sp.Symbol) -> Exponent:
        """Return the exponent of a parameter common to all atoms.

        It is of first order, provided that no split hides.
        """
        settled = self.definiteness.separator is not None and not self.lost
        certificate = self.second_order_certificate if max(self.sizes) > 1 else self.first_order_certificate
        uppers = [Bound(Fraction(1), "first order", certificate)] if settled else []
        return settle(uppers, [self._smooth(None, p)], self._numeric)

    @property
    def _numeric(self) -> bool:
        return any(not unit.kernel.smooth for unit in self.atom.units) and max(self.sizes) > 1

    def _smooth(self, cell: int | None, p: sp.Symbol) -> Bound:
        certificate = {"kind": "one atom", **self.configuration, "cell": cell, "param": str(p)}
        return Bound(Fraction(1), "one atom", certificate)

    def _lowers(self, cell: int, p: sp.Symbol) -> list[Bound]:
        m = self.sizes[cell]
        if m == 1:
            return [self._smooth(cell, p)]
        split = {
            "kind": "split",
            **self.configuration,
            "cell": cell,
            "param": str(p),
            # Along w itself the kink of a homogeneous activation stays where it is.
            "along": "itself" if all(unit.kernel.smooth for unit in self.atom.units) else "scale of its unit",
        }
        found = [Bound(Fraction(2), "split", split)]
        family = self.atom.spec["kind"]
        single, every = LIFTS.get(family, {}), ALL_CELLS.get(family, {}) if self.tilted else {}
        if str(p) in single or str(p) in every:
            atoms = m if str(p) in single else min(self.sizes)
            weight = single.get(str(p)) or every[str(p)]
            certificate = {
                "kind": "gauss-hermite",
                **self.configuration,
                "all cells": str(p) not in single,
                "cell": cell,
                "m": atoms,
                "param": str(p),
                "weight": weight,
                "witness": gauss_hermite_witness(atoms),
            }
            found.append(Bound(Fraction(2 * atoms, weight), "Gauss-Hermite", certificate))
        return found

    def _row_bounds(self, cell: int) -> dict[sp.Symbol, list[Bound]]:
        rows, m = self.rows, self.sizes[cell]
        if rows is None:
            return {}
        place = {**self.configuration, "cell": cell, "first order": self.first_order_certificate}
        found: dict[sp.Symbol, list[Bound]] = {p: [] for p in self.atom.params}
        for p, bound in (*_s1_blocks(rows, m, place), *_homogeneous(rows, m, place)):
            found[p].append(bound)
        while True:
            known = {p: min(bounds, key=lambda bound: bound.theta) for p, bounds in found.items() if bounds}
            fresh = _peeled(rows, known, place)
            if fresh is None:
                return found
            found[fresh[0]].append(fresh[1])


def _rank(vectors: list[dict[Column, sp.Rational]]) -> int:
    columns = sorted({column for vector in vectors for column in vector}, key=repr)
    if not columns:
        return 0
    rows = [[sp.QQ.from_sympy(sp.Rational(vector.get(column, 0))) for column in columns] for vector in vectors]
    return DomainMatrix(rows, (len(rows), len(columns)), sp.QQ).rank()


def is_affine(made: Atom, theta: Mapping[sp.Symbol, sp.Rational], direction: Mapping[sp.Symbol, sp.Rational]) -> bool:
    """Say whether log_factor is constant and the value affine in t at theta + t direction.

    Atoms at +-t, of half the mass each, then make the same function as one atom. This is for polynomials
    only: a direction that moves an activation is not affine.
    """
    moving = {p for p, value in direction.items() if value}
    if any(unit.symbols and unit.argument.free_symbols & moving for unit in made.units):
        return False
    t = sp.Symbol("t0")
    place = {p: value + t * direction.get(p, sp.Integer(0)) for p, value in theta.items()}
    arguments = {unit.symbol: unit.argument for unit in made.units}
    for part in (*made.values, *((made.gate,) if made.gate else ())):
        log_factor, value = (sp.expand(e.xreplace(arguments).xreplace(place)) for e in (part.log_factor, part.value))
        if sp.diff(log_factor, t) != 0 or sp.expand(sp.diff(value, t, 2)) != 0:
            return False
    return True


#: Kind -> parameter -> order in eps at which it moves along the Gauss-Hermite curve of one cell, on which
#: mean and covariance of the Gaussian move by eps q1 v and 2 eps^2 q2 v v'.
LIFTS = {
    "location-scale": {"b": 1, "s": 2},
    "covariate-free": {"b": 1, "s": 2},
    "softmax-gaussian": {"b": 1, "s": 2},
    "gaussian-gated": {"c": 1, "Gamma": 2, "a": 2, "b": 1, "nu": 2},
    "gaussian-gated-constant": {"c": 1, "Gamma": 2, "b": 1, "nu": 2},
}
#: The same where every cell moves alike, so that a factor common to numerator and denominator cancels.
ALL_CELLS = {"softmax-gaussian": {"a": 2}}


def _s1_blocks(rows: Rows, m: int, place: Mapping[str, Any]) -> list[tuple[sp.Symbol, Bound]]:
    """Return bounds for the pairs (q, s) whose rows are those of S1.

    These are, in the powers of D_q, [t^n] exp(q t + kappa s t^2) for n = 1..order.
    """
    found = []
    params = rows.params
    for i, q in enumerate(params):
        for k, s in enumerate(params):
            kappas = rows.reductions.get(_power(len(params), i, 2), {}).get(_power(len(params), k, 1))
            if i == k or not kappas:
                continue
            powers = [_power(len(params), i, n) for n in range(1, rows.order + 1)]
            if all(rows.row(power) == s1_row(len(params), i, k, kappas, n) for n, power in enumerate(powers, 1)):
                certificate = {
                    "kind": "s1-block",
                    **place,
                    "q": str(q),
                    "s": str(s),
                    "kappa": str(kappas),
                    "rows": [rows.functional(power) for power in powers],
                    "theorem": f"rbar({m}) = {rbar(m)}",
                }
                found.append((q, Bound(Fraction(rbar(m)), "S1 block", certificate)))
                found.append((s, Bound(Fraction(rbar(m), 2), "S1 block", certificate)))
    return found


def _power(size: int, place: int, power: int) -> tuple[int, ...]:
    return tuple(power * (i == place) for i in range(size))


def s1_row(size: int, q: int, s: int, kappa: Fraction, n: int) -> Polynomial:
    """Return [t^n] exp(q t + kappa s t^2) as a polynomial in all parameters."""
    row = {}
    for pairs in range(n // 2 + 1):
        alpha = tuple((n - 2 * pairs) * (i == q) + pairs * (i == s) for i in range(size))
        row[alpha] = kappa**pairs / (math.factorial(n - 2 * pairs) * math.factorial(pairs))
    return row


def _homogeneous(rows: Rows, m: int, place: Mapping[str, Any]) -> list[tuple[sp.Symbol, Bound]]:
    """Return theta = 2m / weight for all parameters, where the leading rows are those of S2."""
    kind = rows.mixture.atom.spec["kind"]
    if kind not in ("softmax-gaussian", "gaussian-gated"):
        return []
    theta = {str(p): Fraction(int(v.p), int(v.q)) for p, v in rows.mixture.cells[0].theta.items()}
    for kappa in rows.reductions:
        if rows.leading(kappa) != s2_row(kind, kappa, theta):
            return []
    certificate = {
        "kind": "homogeneous",
        **place,
        "weights": {str(p): w for p, w in rows.weights.items()},
        "rows": [rows.functional(kappa) for kappa in rows.reductions],
        "theorem": f"rbar({m}) = {rbar(m)}",
    }
    return [(p, Bound(Fraction(rbar(m), rows.weights[p]), "homogeneous", certificate)) for p in rows.params]


def s2_row(kind: str, kappa: tuple[int, ...], theta: Mapping[str, Fraction]) -> Polynomial:
    """Return a row of S2 from the published index set, with the constants of the atom at theta*."""
    if kind == "softmax-gaussian":
        found = index_set(kind, kappa[0], kappa[2])
        constants = {alpha: Fraction(1, 2 ** alpha[3]) for alpha in found}
    else:
        found = index_set(kind, kappa[0], kappa[3])
        constants = {alpha: theta["Gamma"] ** alpha[2] / 2 ** (alpha[1] + alpha[4]) for alpha in found}
    return {alpha: value / math.prod(map(math.factorial, alpha)) for alpha, value in constants.items()}


def _peeled(rows: Rows, known: Mapping[sp.Symbol, Bound], where: Mapping[str, Any]) -> tuple[sp.Symbol, Bound] | None:
    """Return a parameter with a better theta = 2j, or None where there is none.

    Its 2j-th power stands in a row of otherwise absorbed monomials.
    """
    inverse = [1 / Fraction(known[p].theta) if p in known else Fraction(0) for p in rows.params]
    for power in range(2, rows.order + 1, 2):
        for i, p in enumerate(rows.params):
            if p in known and known[p].theta <= power:
                continue
            for kappa in rows.reductions:
                row, pure = rows.row(kappa), _power(len(rows.params), i, power)
                if pure not in row or not absorbed(row, pure, i, power, inverse):
                    continue
                used = {j for alpha in row if alpha != pure for j, e in enumerate(alpha) if e and j != i}
                given = [
                    {"param": str(q), "theta": str(known[q].theta), "certificate": known[q].certificate}
                    for j, q in enumerate(rows.params)
                    if j in used and q in known
                ]
                certificate = {
                    "kind": "peeled",
                    **where,
                    "param": str(p),
                    "power": power,
                    "row": rows.functional(kappa),
                    "given": given,
                }
                return p, Bound(Fraction(power), "peeled", certificate)
    return None


def absorbed(row: Polynomial, pure: tuple[int, ...], place: int, power: int, inverse: list[Fraction]) -> bool:
    """Say whether every other monomial is at most a small multiple of the pure power, plus C ||f - f*||."""
    for alpha in row:
        if alpha == pure:
            continue
        total = sum(
            (Fraction(e, power) if i == place else e * inverse[i] for i, e in enumerate(alpha) if e), Fraction(0)
        )
        if total < 1:
            return False
    return True

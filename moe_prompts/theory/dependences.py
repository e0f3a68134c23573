"""Find all linear dependences, to an order, among the derivatives of an atom or the columns of a mixture.

    sum_alpha c_alpha(theta) D^alpha u(.; theta) = 0   for all inputs

says that moving the parameters along c is not seen at that order. Dependences are found by evaluating
truncated series at random points modulo a prime, and proved by exact polynomials. That nothing else is
dependent is shown with the real functions at 60 digits, and proved by interval arithmetic for one minor.
Kernels enter the exact part as independent unknowns, which over-estimates the rank where they are not (w =
0): such a report says so, loudly.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from typing import Any

import mpmath
import numpy as np
import sympy as sp
from sympy.polys.matrices import DomainMatrix

from moe_prompts.checks import expect, whole
from moe_prompts.errors import InputError
from moe_prompts.seeds import address
from moe_prompts.theory.arithmetic import DIGITS, PRIME, Real, residue
from moe_prompts.theory.atoms import Atom, Component
from moe_prompts.theory.jets import Alpha
from moe_prompts.theory.mixture import Column, Mixture, exact_place, mixture, modular_place, real_place

#: Working precisions, tried in turn: at d digits pivots above 10^-d/2 count and those left must be rounding,
#: below 10^(12 - d). Pivots of many nearly dependent columns fall gradually, and then more digits are needed.
PRECISIONS = (DIGITS, 2 * DIGITS, 4 * DIGITS, 8 * DIGITS)
#: Identities with more terms get rational coefficients at one place instead of closed forms.
MOST_TERMS = 9
#: Highest order of derivatives that is asked for.
MOST_ORDER = 20


class RankWarning(UserWarning):
    """Warn that formal and numeric rank differ: functions taken as independent are dependent here."""


@dataclass(frozen=True)
class Identity:
    """Hold one linear dependence: ``column`` is the sum of ``coefficients`` times other columns.

    column        the column that depends on others
    coefficients  column -> closed form in the parameters, or a rational number at the report's own parameters
    closed        whether coefficients are closed forms
    derived       whether it follows from identities of lower order, by differentiation
    """

    column: Column
    coefficients: dict[Column, sp.Expr]
    closed: bool
    derived: bool

    def text(self, params: tuple[sp.Symbol, ...], cells: int) -> str:
        """Return the identity as it is printed."""

        def term(column: Column, value: sp.Expr) -> str:
            label, value = column.label(params, cells), sp.factor(value)
            if value.is_Integer:
                return f"{'' if value == 1 else '-' if value == -1 else value} {label}".strip().replace("- u", "-u")
            return f"({value}) {label}"

        if not self.closed and len(self.coefficients) > 4:
            return f"{self.column.label(params, cells)} = a combination of {len(self.coefficients)} columns"
        right = " + ".join(term(c, v) for c, v in self.coefficients.items() if v != 0) or "0"
        return f"{self.column.label(params, cells)} = {right}"


@dataclass(frozen=True, repr=False)
class DependenceReport:
    """Hold all dependences of a mixture, and what proves that there are no more.

    mixture       what was looked at, at which parameters
    order         highest order of the derivatives
    formal_rank   rank with kernels as unknowns
    numeric_rank  rank of the real functions; only this one counts
    identities    the dependences, one per dependent column
    null          every dependence as rational coefficients at the parameters of ``mixture``, in the order of
                  ``identities``
    minor         certificate of a lower bound on the rank
    gap           smallest accepted and largest rejected pivot
    generic       whether the dependences hold at all parameters
    """

    mixture: Mixture
    order: int
    formal_rank: int
    numeric_rank: int
    identities: tuple[Identity, ...]
    null: tuple[dict[Column, sp.Rational], ...]
    minor: dict[str, Any]
    gap: tuple[str, str]
    generic: bool

    @property
    def columns(self) -> tuple[Column, ...]:
        """Return the columns that were looked at."""
        return self.mixture.columns

    @property
    def agree(self) -> bool:
        """Say whether formal and numeric rank agree."""
        return self.formal_rank == self.numeric_rank

    @property
    def primitive(self) -> tuple[Identity, ...]:
        """Return the identities that no identity of lower order implies."""
        return tuple(identity for identity in self.identities if not identity.derived)

    def text(self, identity: Identity) -> str:
        """Return an identity as it is printed, with the names of the parameters."""
        return identity.text(self.mixture.atom.params, len(self.mixture.cells))

    def __str__(self) -> str:
        lines = [
            f"{self.mixture.atom.name}, order {self.order}: rank {self.numeric_rank} of {len(self.columns)} columns",
            *(f"  {self.text(identity)}" for identity in self.primitive),
        ]
        hidden = len(self.identities) - len(self.primitive)
        if hidden:
            lines.append(f"  and {hidden} that follow from these by differentiation")
        if not self.agree:
            lines.insert(1, f"  FORMAL RANK {self.formal_rank} DIFFERS FROM NUMERIC RANK {self.numeric_rank}")
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """Return the text for a notebook."""
        return f"<pre>{escape(str(self))}</pre>"

    def certificates(self) -> list[dict[str, Any]]:
        """Return the certificates of the minor and of every identity."""
        return [self.minor, *(self.identity_certificate(identity) for identity in self.identities)]

    def identity_certificate(self, identity: Identity) -> dict[str, Any]:
        """Return the certificate of one identity."""
        params = self.mixture.atom.params
        terms = [[_address(identity.column), "-1"]]
        terms += [[_address(c), sp.sstr(v)] for c, v in identity.coefficients.items() if v != 0]
        fixed = {str(p): str(v) for p, v in self.mixture.cells[0].theta.items()}
        return {
            "kind": "identity",
            "mixture": self.mixture.to_json(),
            "terms": terms,
            "at": None if identity.closed and self.generic else fixed,
            "closed": identity.closed,
            "params": [str(p) for p in params],
        }


def _address(column: Column) -> list[Any]:
    return [column.cell, list(column.alpha)]


def dependences(of: Atom | Mixture, order: int = 2, stratum: Mapping[str, Any] | None = None) -> DependenceReport:
    """Find all linear dependences among the derivatives of an atom or a mixture.

    of       an atom, or a mixture (its own orders count then)
    order    highest order of the derivatives; at least 1
    stratum  parameters held at given rational values, such as {"c": 0}; the derivatives by them are still
             columns

    Returns the report. It warns (``RankWarning``) where formal and numeric rank differ.

    Raises ``InputError`` where the order is below 1, or a stratum is given with a mixture.

    >>> import moe_prompts as mp
    >>> from moe_prompts.theory.atoms import atom
    >>> report = mp.dependences(atom("location-scale"))
    >>> report.numeric_rank < len(report.columns)
    True
    """
    expect(of, (Atom, Mixture), "dependences")
    order = whole(order, 1, "dependences: order", most=MOST_ORDER)
    if isinstance(of, Mixture) and stratum is not None:
        raise InputError(f"stratum {dict(stratum)} with a mixture, which has its parameters; expected an atom")
    joint = of if isinstance(of, Mixture) else mixture(of, [order], stratum=stratum, alone=True)
    order = max(cell.order for cell in joint.cells)
    rng = np.random.default_rng([address(joint.atom.key()), order, len(joint.cells)])
    reduced, pivots = _reduced(joint, rng, random_theta=False)
    again, pivots_again = _reduced(joint, rng, random_theta=True)
    generic = (
        isinstance(of, Atom)
        and stratum is None
        and pivots_again == pivots
        and not ((again != 0) ^ (reduced != 0)).any()
    )
    free = [j for j in range(len(joint.columns)) if j not in pivots]
    supports = [[p for row, p in enumerate(pivots) if reduced[row, j]] for j in free]
    derived = _derived(joint, free, supports, reduced, pivots) if generic else [False] * len(free)
    exact = ExactColumns(joint)
    identities, null = [], []
    for j, support, follows in zip(free, supports, derived, strict=True):
        rational = exact.solve(j, support)
        columns = [joint.columns[p] for p in support]
        null.append({joint.columns[j]: sp.Integer(-1), **dict(zip(columns, rational, strict=True))})
        closed = isinstance(of, Atom) and not follows and len(support) <= MOST_TERMS
        values = _closed_form(joint, joint.columns[j], columns, stratum) if closed else rational
        identities.append(Identity(joint.columns[j], dict(zip(columns, values, strict=True)), closed, follows))
    numeric, minor, gap = _numeric(joint, rng)
    if numeric != len(pivots):
        warnings.warn(
            f"{joint.atom.name}: formal rank {len(pivots)} but numeric rank {numeric}: at these parameters functions "
            "that are independent in general (activations, or the gates of different cells) coincide; only the numeric "
            "rank counts, and dependences beyond the formal ones are seen to many digits, not proved",
            RankWarning,
            stacklevel=2,
        )
    return DependenceReport(joint, order, len(pivots), numeric, tuple(identities), tuple(null), minor, gap, generic)


def _reduced(joint: Mixture, rng: np.random.Generator, random_theta: bool) -> tuple[np.ndarray, list[int]]:
    """Return the reduced row echelon form modulo the prime at random points, and its pivot columns."""
    numbers, place = modular_place(joint, 2 * _enough(joint), rng, random_theta)
    blocks = []
    for row in joint.evaluated(numbers, place):
        zero = np.zeros(numbers.points, dtype=np.int64)
        blocks.append(np.stack([zero if value is None else value.array for value in row], axis=1))
    return echelon(np.concatenate(blocks))


def echelon(matrix: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Return the non-zero rows of the reduced row echelon form modulo the prime, and its pivot columns."""
    matrix = matrix % PRIME
    pivots: list[int] = []
    for column in range(matrix.shape[1]):
        row = len(pivots)
        below = np.flatnonzero(matrix[row:, column])
        if not len(below):
            continue
        matrix[[row, row + below[0]]] = matrix[[row + below[0], row]]
        matrix[row] = matrix[row] * pow(int(matrix[row, column]), -1, PRIME) % PRIME
        others = np.flatnonzero(matrix[:, column])
        others = others[others != row]
        matrix[others] = (matrix[others] - matrix[others, column][:, None] * matrix[row] % PRIME) % PRIME
        pivots.append(column)
        if len(pivots) == len(matrix):
            break
    return matrix[: len(pivots)], pivots


class ExactColumns:
    """Hold the columns as polynomials with rational coefficients at the mixture's own parameters."""

    def __init__(self, joint: Mixture) -> None:
        self.joint = joint

    @cached_property
    def columns(self) -> list[dict[tuple, Any]]:
        """Return for every column its coefficients by monomial (with its component)."""
        numbers, place, symbols = exact_place(self.joint)
        binary = bool(self.joint.atom.units) and self.joint.atom.units[0].kernel.binary
        inputs = len(self.joint.atom.inputs)
        kernels = sum(len(unit.symbols) for unit in self.joint.atom.units) * len(self.joint.cells)
        found: list[dict[tuple, Any]] = [{} for _ in self.joint.columns]
        for component, row in enumerate(self.joint.evaluated(numbers, place)):
            for column, value in zip(found, row, strict=True):
                if value is None:
                    continue
                for exponents, coefficient in _terms(value, len(symbols)):
                    if binary:
                        # H^2 = H
                        middle = tuple(min(e, 1) for e in exponents[inputs : inputs + kernels])
                        exponents = (*exponents[:inputs], *middle, *exponents[inputs + kernels :])
                    key = (component, exponents)
                    column[key] = column.get(key, 0) + coefficient
        return [{key: value for key, value in column.items() if value} for column in found]

    def solve(self, column: int, support: list[int]) -> list[sp.Rational]:
        """Return the coefficients with column = sum of them times the support, exactly.

        Raises ``ArithmeticError`` where the column is dependent modulo the prime but not exactly.
        """
        target, basis = self.columns[column], [self.columns[p] for p in support]
        keys = sorted(set(target).union(*basis))
        if not support:
            if keys:
                raise ArithmeticError(f"column {column} vanishes modulo a prime but not exactly")
            return []
        rows = [[sp.QQ(b.get(key, 0)) for b in basis] + [sp.QQ(target.get(key, 0))] for key in keys]
        matrix = DomainMatrix(rows, (len(rows), len(support) + 1), sp.QQ)
        solved, pivots = matrix.rref()
        if pivots != tuple(range(len(support))):
            raise ArithmeticError(f"column {column} is dependent modulo a prime but not exactly")
        return [sp.QQ.to_sympy(solved[i, len(support)].element) for i in range(len(support))]


def _terms(value: Any, symbols: int) -> Iterable[tuple[tuple[int, ...], Any]]:
    if hasattr(value, "terms"):
        return value.terms()
    return [((0,) * symbols, value)]


def symbolic_derivative(made: Atom, part: Component, alpha: Alpha) -> sp.Expr:
    """Return (D^alpha u) / exp(log_factor) as a polynomial in inputs and kernel symbols."""
    value = part.value
    for p, count in zip(made.params, alpha, strict=True):
        slope = _total(made, part.log_factor, p)
        for _ in range(count):
            value = _total(made, value, p) + value * slope
    return value


def _total(made: Atom, expression: sp.Expr, p: sp.Symbol) -> sp.Expr:
    """Return d/dp through the hidden units."""
    result = sp.diff(expression, p)
    for unit in made.units:
        speed = sp.diff(unit.argument, p)
        if speed == 0:
            continue
        chain = sp.diff(expression, unit.symbol)
        for symbol, derivative in zip(unit.symbols, unit.kernel.derivatives, strict=True):
            chain += sp.diff(expression, symbol) * unit.localised(derivative)
        result += speed * chain
    return result


def _closed_form(
    joint: Mixture, column: Column, support: list[Column], stratum: Mapping[str, Any] | None
) -> list[sp.Expr]:
    """Return coefficients over Q(theta), solved on the support and checked on every monomial."""
    made = joint.atom
    fixed = {p: joint.cells[0].theta[p] for p in made.params if str(p) in (stratum or {})}
    free = [p for p in made.params if p not in fixed]
    domain = sp.QQ.frac_field(*free) if free else sp.QQ
    symbols = [s for unit in made.units for s in unit.symbols]
    arguments = {unit.symbol: unit.argument for unit in made.units}
    binary = bool(made.units) and made.units[0].kernel.binary
    table: dict[tuple, list[Any]] = {}
    for place, item in enumerate([*support, column]):
        for component, part in enumerate(made.components):
            expression = symbolic_derivative(made, part, item.alpha).xreplace(arguments).xreplace(fixed)
            polynomial = sp.Poly(expression, *made.inputs, *symbols, domain=domain)
            for exponents, coefficient in polynomial.rep.terms():
                if binary:
                    cut = len(made.inputs)
                    exponents = (*exponents[:cut], *(min(e, 1) for e in exponents[cut:]))
                row = table.setdefault((component, exponents), [domain.zero] * (len(support) + 1))
                row[place] = row[place] + coefficient
    rows = [row for _, row in sorted(table.items()) if any(row)]
    if not support:
        if rows:
            raise ArithmeticError(f"{column} vanishes modulo a prime but not exactly")
        return []
    matrix = DomainMatrix(rows, (len(rows), len(support) + 1), domain)
    solved, pivots = matrix.to_field().rref()
    if pivots != tuple(range(len(support))):
        raise ArithmeticError(f"{column} is dependent modulo a prime but not over the rational functions")
    return [sp.factor(domain.to_sympy(solved[i, len(support)].element)) for i in range(len(support))]


def _derived(
    joint: Mixture, free: list[int], supports: list[list[int]], reduced: np.ndarray, pivots: list[int]
) -> list[bool]:
    """Say which identities lie in the span of derivatives of identities of lower order, order by order.

    Differentiating sum_alpha c_alpha D^alpha u = 0 by theta_i gives sum_alpha (d_i c_alpha) D^alpha u +
    c_alpha D^{alpha+i} u = 0, compared modulo the prime at the report's parameters.
    """
    place = {column.alpha: j for j, column in enumerate(joint.columns)}
    theta = joint.cells[0].theta
    span = np.zeros((0, len(joint.columns)), dtype=np.int64)
    fresh: list[dict[Alpha, sp.Expr]] = []
    verdicts = {}
    top = max(column.order for column in joint.columns)
    for order in range(top + 1):
        prolonged = []
        for coefficients in fresh:
            for i, p in enumerate(joint.atom.params):
                vector: dict[Alpha, sp.Expr] = {}
                for alpha, value in coefficients.items():
                    raised = (*alpha[:i], alpha[i] + 1, *alpha[i + 1 :])
                    vector[alpha] = vector.get(alpha, sp.Integer(0)) + sp.diff(value, p)
                    vector[raised] = vector.get(raised, sp.Integer(0)) + value
                prolonged.append(vector)
        if prolonged:
            rows = np.zeros((len(prolonged), len(joint.columns)), dtype=np.int64)
            for row, vector in zip(rows, prolonged, strict=True):
                for alpha, value in vector.items():
                    row[place[alpha]] = residue(value.xreplace(theta))
            span = echelon(np.concatenate([span, rows]))[0]
        primitive = []
        for j, support in zip(free, supports, strict=True):
            if joint.columns[j].order != order:
                continue
            own = np.zeros((1, len(joint.columns)), dtype=np.int64)
            own[0, j] = PRIME - 1
            for p in support:
                own[0, p] = reduced[pivots.index(p), j]
            longer = echelon(np.concatenate([span, own]))[0]
            verdicts[j] = len(longer) == len(span)
            if not verdicts[j]:
                span = longer
                primitive.append((j, support))
        # What is new at this order, derivatives included, is differentiated for the next one.
        fresh = prolonged
        if order < top:
            for j, support in primitive:
                if len(support) > MOST_TERMS:
                    continue
                columns = [joint.columns[p] for p in support]
                values = _closed_form(joint, joint.columns[j], columns, None)
                fresh.append(
                    {
                        joint.columns[j].alpha: sp.Integer(-1),
                        **{column.alpha: value for column, value in zip(columns, values, strict=True)},
                    }
                )
    return [verdicts[j] for j in free]


def _enough(joint: Mixture) -> int:
    """Return a number of points that shows every column.

    With kinks a column may be seen on one side of each only.
    """
    points = -(-len(joint.columns) // joint.components) + 5
    return points if all(unit.kernel.smooth for unit in joint.atom.units) else 4 * points


def _points(joint: Mixture, rng: np.random.Generator) -> list[tuple[sp.Rational, ...]]:
    """Return distinct rational points, none of them on a kink."""
    count = _enough(joint)
    half = max(64, 2 * count)
    # Odd numerators avoid the symmetry points of the inputs; a permutation keeps points distinct.
    draws = np.stack([rng.permutation(np.arange(-half, half)) for _ in joint.atom.inputs], axis=1)
    points = [tuple(sp.Rational(2 * int(v) + 1, 64) for v in row) for row in draws]
    kinked = [
        unit.argument.xreplace(cell.theta)
        for unit in joint.atom.units
        if not unit.kernel.smooth
        for cell in joint.cells
    ]
    if any(argument == 0 for argument in kinked):
        raise InputError(
            f"{joint.atom.name}: all inputs lie on the kink of the activation at these parameters, where it has no "
            "derivatives; take others"
        )
    inputs = joint.atom.inputs
    off = lambda point: all(a.xreplace(dict(zip(inputs, point, strict=True))) != 0 for a in kinked)
    return [point for point in points if off(point)][:count]


def _numeric(joint: Mixture, rng: np.random.Generator) -> tuple[int, dict[str, Any], tuple[str, str]]:
    """Return the rank of the real functions by full pivoting, and the accepted minor, proved in interval arithmetic."""
    points = _points(joint, rng)
    for digits in PRECISIONS:
        order, pivots = _pivots_at(joint, points, digits)
        rank = sum(1 for p in pivots if p > mpmath.mpf(10) ** (-digits // 2))
        rejected = pivots[rank] if rank < len(pivots) else None
        if rejected is None or rejected < mpmath.mpf(10) ** (12 - digits):
            break
    else:
        raise ArithmeticError(
            f"{joint.atom.name}: pivots fall to {mpmath.nstr(rejected, 3)} without a gap at {digits} digits; the rank "
            "is not decided"
        )
    chosen = order[:rank]
    minor = {
        "kind": "minor",
        "mixture": joint.to_json(),
        "digits": digits,
        "rows": [[[str(v) for v in points[row // joint.components]], row % joint.components] for row, _ in chosen],
        "columns": [_address(joint.columns[column]) for _, column in chosen],
        "smallest_pivot": f"{_interval_minor(joint, points, chosen, digits):.4e}",
    }
    return rank, minor, (mpmath.nstr(pivots[rank - 1], 3), "none" if rejected is None else mpmath.nstr(rejected, 3))


def _pivots_at(joint: Mixture, points: list, digits: int) -> tuple[list[tuple[int, int]], list[Any]]:
    """Return pivots and sizes of the values at ``points`` by full pivoting, with rows scaled to size 1."""
    numbers, values = Real(intervals=False, digits=digits), []
    for point in points:
        for row in joint.evaluated(numbers, real_place(joint, point, numbers)):
            values.append([numbers.context.mpf(0) if value is None else value for value in row])
    scale = [max(abs(v) for v in row) or numbers.context.mpf(1) for row in values]
    scaled = [[v / s for v in row] for row, s in zip(values, scale, strict=True)]
    return _full_pivots(scaled, len(joint.columns), numbers.context.mpf(10) ** (-digits // 2))


def _full_pivots(values: list[list[Any]], columns: int, zero: Any) -> tuple[list[tuple[int, int]], list[Any]]:
    """Return (row, column) and size of each pivot of a Gaussian elimination with full pivoting.

    It ends at the first size that is not above ``zero``.
    """
    left, rows = {i: row[:] for i, row in enumerate(values)}, list(range(columns))
    order, sizes = [], []
    while left and rows:
        size, i, j = max((abs(row[j]), i, j) for i, row in left.items() for j in rows)
        order.append((i, j))
        sizes.append(size)
        if not size > zero:
            break
        pivot = left.pop(i)
        rows.remove(j)
        for row in left.values():
            factor = row[j] / pivot[j]
            if factor:
                for column in rows:
                    row[column] -= factor * pivot[column]
    return order, sizes


def _interval_minor(joint: Mixture, points: list, chosen: Sequence[tuple[int, int]], digits: int) -> float:
    """Return a lower bound of the least absolute pivot when the minor is eliminated in intervals."""
    numbers = Real(intervals=True, digits=digits)
    rows: dict[int, list[list[Any]]] = {}
    matrix = []
    for row, _ in chosen:
        point, component = divmod(row, joint.components)
        if point not in rows:
            rows[point] = joint.evaluated(numbers, real_place(joint, points[point], numbers))
        full = rows[point][component]
        matrix.append([numbers.context.mpf(0) if full[j] is None else full[j] for _, j in chosen])
    return interval_pivots(matrix)


def interval_pivots(matrix: list[list[Any]]) -> float:
    """Return the smallest lower bound of |pivot| in the given order.

    Raises ``ArithmeticError`` where an interval pivot contains zero.
    """
    matrix, smallest = [row[:] for row in matrix], float("inf")
    for k in range(len(matrix)):
        pivot = matrix[k][k]
        if 0 in pivot:
            raise ArithmeticError("an interval pivot contains zero: the minor is not proved; use more digits")
        smallest = min(smallest, float(abs(pivot).a))
        for row in matrix[k + 1 :]:
            factor = row[k] / pivot
            for j in range(k + 1, len(matrix)):
                row[j] = row[j] - factor * matrix[k][j]
    return smallest


@dataclass(frozen=True)
class SecondOrder:
    """Hold the second-order parts M of all dependences: u moves by sum_ij M_ij u_ij / 2 without being seen.

    places    (cell, parameter index) of each row of M, over the cells seen to second order
    matrices  the M, one per dependence that has one
    """

    places: tuple[tuple[int, int], ...]
    matrices: tuple[sp.Matrix, ...] = field(default=())


def second_order_parts(report: DependenceReport) -> SecondOrder:
    """Return M of every dependence of order <= 2, at the report's parameters."""
    joint = report.mixture
    params = joint.atom.params
    places = tuple(
        (j, i)
        for j, cell in enumerate(joint.cells)
        if cell.order >= 2
        for i, p in enumerate(params)
        if p not in joint.held
    )
    index = {place: row for row, place in enumerate(places)}
    matrices = []
    for vector in report.null:
        matrix = sp.zeros(len(places), len(places))
        for column, value in vector.items():
            if column.cell is None or column.order != 2:
                continue
            first, *rest = [i for i, count in enumerate(column.alpha) for _ in range(count)]
            a, b = index[column.cell, first], index[column.cell, rest[0]]
            matrix[a, b] += value
            matrix[b, a] += value
        if any(matrix):
            matrices.append(matrix)
    return SecondOrder(places, tuple(matrices))

"""Check identities, ranks and first orders.

Identities are multiplied out, minors are eliminated again in interval arithmetic, definiteness is read off
determinants and characteristic polynomials.
"""

from __future__ import annotations

import ast
import json
import math
import operator
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import lru_cache
from typing import Any

import sympy as sp
from sympy.polys.matrices import DomainMatrix

from moe_prompts.theory.arithmetic import Real, evaluate
from moe_prompts.theory.atoms import Atom
from moe_prompts.theory.certificates.basis import (
    Address,
    Claims,
    Refuted,
    address,
    all_addresses,
    component_derivative,
    derivative,
    named,
    parts_of,
    require,
    vanishes,
)
from moe_prompts.theory.certificates.limits import POWER
from moe_prompts.theory.mixture import Mixture


class Functions:
    """Hold the columns of a mixture as expressions.

    Symbols stand for the factors e^{..} of cells and frozen experts.
    """

    def __init__(self, mixture: Mixture) -> None:
        self.mixture = mixture
        self.factors: dict[sp.Symbol, sp.Expr] = {}
        self._names: dict[tuple[sp.Expr, int], sp.Symbol] = {}

    def factor(self, place: int, cell: int) -> sp.Symbol:
        """Return the symbol of the factor e^{..} of a component in a cell."""
        made = self.mixture.atom
        part = parts_of(made)[place]
        functions = {symbol: value for unit in made.units for symbol, value in unit.functions.items()}
        exponent = part.log_factor.xreplace(functions).xreplace(self.mixture.cells[cell].theta)
        return self._name((part.log_factor, cell), exponent)

    def _name(self, key: tuple[sp.Expr, int], exponent: sp.Expr) -> sp.Symbol:
        if key not in self._names:
            self._names[key] = sp.Dummy(f"e{len(self._names)}")
            self.factors[self._names[key]] = exponent
        return self._names[key]

    def moved(self, place: int, where: Address) -> sp.Expr:
        """Return D^alpha of a component with its factor.

        For a parameter that all cells share it is the weighted sum over all cells.
        """
        cells = [where[0]] if where[0] is not None else range(len(self.mixture.cells))
        weights = [sp.Integer(1)] if where[0] is not None else [cell.weight for cell in self.mixture.cells]
        pairs = zip(weights, cells, strict=True)
        return sp.Add(*(w * self.factor(place, j) * derivative(self.mixture, place, (j, where[1])) for w, j in pairs))

    def total(self, place: int) -> sp.Expr:
        """Return the component at the truth, frozen experts included."""
        zero = (0,) * len(self.mixture.atom.params)
        terms = [cell.weight * self.moved(place, (j, zero)) for j, cell in enumerate(self.mixture.cells)]
        for i, (values, gate) in enumerate(self.mixture.frozen):
            part = (*values, gate)[place]
            terms.append(self._name((part.log_factor, -1 - i), part.log_factor) * part.value)
        return sp.Add(*terms)

    def column(self, component: int, where: Address) -> sp.Expr:
        """Return one row of a column.

        For an atom alone it lacks the factor; for a conditional model it is multiplied by the model's
        denominator.
        """
        made = self.mixture.atom
        if self.mixture.alone:
            return derivative(self.mixture, component, where)
        if made.gate is None:
            return self.moved(component, where)
        gate = len(made.values)
        return self.moved(component, where) * self.total(gate) - self.moved(gate, where) * self.total(component)

    @property
    def components(self) -> int:
        """Return the number of rows per point."""
        made = self.mixture.atom
        return len(made.values) + (1 if self.mixture.alone and made.normaliser else 0)


def dependent(functions: Functions, terms: list[tuple[Address, sp.Rational]]) -> bool:
    """Say whether the sum of columns is zero for all inputs."""
    mixture = functions.mixture
    cells = {where[0] for where, _ in terms}
    if not mixture.alone and mixture.atom.gate is not None and len(cells) == 1 and None not in cells:
        # Zero in numerator and gate apart is zero in the quotient.
        places = range(len(parts_of(mixture.atom)))
        if all(vanishes(sp.Add(*(c * derivative(mixture, p, where) for where, c in terms))) for p in places):
            return True
    return all(
        vanishes(sp.Add(*(c * functions.column(component, where) for where, c in terms)))
        for component in range(functions.components)
    )


def rational_function(text: str, names: Mapping[str, sp.Symbol]) -> sp.Expr:
    """Return an expression that a certificate holds as text.

    It may hold parameters and whole numbers with + - * / **. Nothing in a certificate is ever evaluated as
    code. Raises ``Refuted`` for anything else.
    """

    def build(node: ast.AST, power: int = 1) -> sp.Expr:
        if isinstance(node, ast.Constant) and isinstance(node.value, int):
            return sp.Integer(node.value)
        if isinstance(node, ast.Name) and node.id in names:
            return names[node.id]
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return -build(node.operand, power)
        if isinstance(node, ast.BinOp) and type(node.op) in OPERATIONS:
            if isinstance(node.op, ast.Pow):
                by = node.right.value if isinstance(node.right, ast.Constant) else None
                if not isinstance(by, int) or by not in range(17):
                    raise Refuted(f"{text} has a power that is no whole number up to 16")
                power *= by
                if power > POWER:
                    raise Refuted(f"{text} has powers of powers beyond {POWER}")
            return OPERATIONS[type(node.op)](build(node.left, power), build(node.right))
        raise Refuted(f"{text} is no rational function of the parameters")

    return build(ast.parse(text, mode="eval").body)


OPERATIONS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}


def _identity(certificate: Mapping[str, Any]) -> Claims:
    mixture = Mixture.from_json(certificate["mixture"])
    made, names = mixture.atom, named(mixture.atom)
    terms = [(address(where), rational_function(text, names)) for where, text in certificate["terms"]]
    require(any(value != 0 for _, value in terms), "the identity has no terms")
    require(len({where for where, _ in terms}) == len(terms), "a derivative is listed twice")
    require({where for where, _ in terms} <= all_addresses(mixture), "a derivative is not of this mixture")
    if certificate["at"] is not None:
        theta = {names[name]: sp.Rational(value) for name, value in certificate["at"].items()}
        require(theta == dict(mixture.cells[0].theta), "the parameters are not those of the mixture")
        fixed = [(where, sp.Rational(value.xreplace(theta))) for where, value in terms]
        require(dependent(Functions(mixture), fixed), "the sum of derivatives is not zero at the given parameters")
        return {}
    require(mixture.alone and len(mixture.cells) == 1, "closed forms are for an atom by itself")
    for place in range(Functions(mixture).components):
        total = sp.Add(*(value * component_derivative(made.key(), place, where[1]) for where, value in terms))
        require(vanishes(total), f"the sum of derivatives is not zero in component {place}")
    return {}


def _minor(certificate: Mapping[str, Any]) -> tuple[Mixture, set[Address]]:
    """Return the mixture and the independent columns of a minor, once checked.

    The minor is a square matrix of values of columns at points. Its columns are independent where the pivots,
    computed in intervals, exclude zero.
    """
    mixture = Mixture.from_json(certificate["mixture"])
    columns = [address(where) for where in certificate["columns"]]
    rows = [(tuple(sp.Rational(v) for v in point), int(component)) for point, component in certificate["rows"]]
    require(len(rows) == len(columns) > 0, "the minor is not square")
    require(
        len(set(columns)) == len(columns) and set(columns) <= all_addresses(mixture), "columns repeat or do not exist"
    )
    functions, numbers = Functions(mixture), Real(intervals=True, digits=int(certificate["digits"]))
    require(all(0 <= component < functions.components for _, component in rows), "a component does not exist")
    wanted = sorted({component for _, component in rows})
    expressions = [functions.column(component, where) for component in wanted for where in columns]
    shared, reduced = sp.cse([*functions.factors.values(), *expressions], order="none")
    exponents, values = reduced[: len(functions.factors)], reduced[len(functions.factors) :]
    cache: dict[tuple, list[list[Any]]] = {}
    matrix: list[list[Any]] = []
    for point, component in rows:
        if point not in cache:
            cache[point] = _values(mixture, point, functions, shared, exponents, values, numbers)
        start = wanted.index(component) * len(columns)
        matrix.append(cache[point][start : start + len(columns)])
    smallest = math.inf
    for k, pivot in enumerate(matrix):
        require(0 not in pivot[k], f"interval pivot {k + 1} of {len(matrix)} contains zero")
        smallest = min(smallest, float(abs(pivot[k]).a))
        for below in matrix[k + 1 :]:
            ratio = below[k] / pivot[k]
            below[k + 1 :] = [b - ratio * a for a, b in zip(pivot[k + 1 :], below[k + 1 :], strict=True)]
    require(math.isclose(float(certificate["smallest_pivot"]), smallest, rel_tol=1e-3), "the smallest pivot is another")
    return mixture, set(columns)


def _values(
    mixture: Mixture, point: tuple, functions: Functions, shared: list, exponents: list, values: list, numbers: Real
) -> list[Any]:
    place: dict[sp.Symbol, Any] = {
        x: numbers.rational(value) for x, value in zip(mixture.atom.inputs, point, strict=True)
    }
    # Factors may occur in common subexpressions, so exponents come first; they contain none themselves.
    pending = dict(shared)

    def need(expression: sp.Expr) -> None:
        for symbol in expression.free_symbols:
            if symbol in pending and symbol not in place:
                need(pending[symbol])
                place[symbol] = evaluate(pending[symbol], place, numbers)

    for name, exponent in zip(functions.factors, exponents, strict=True):
        need(exponent)
        place[name] = numbers.function("exp", evaluate(exponent, place, numbers))
    found = []
    for value in values:
        need(value)
        found.append(evaluate(value, place, numbers))
    return found


Null = list[list[tuple[Address, sp.Rational]]]


def _rank(certificate: Mapping[str, Any]) -> tuple[Mixture, Null]:
    """Check that the minor and the dependences account for every column."""
    return _rank_of(json.dumps(certificate))


@lru_cache(maxsize=64)
def _rank_of(text: str) -> tuple[Mixture, Null]:
    """Return mixture and null space of a rank certificate, once checked; one rank serves many bounds."""
    certificate = json.loads(text)
    mixture, columns = _minor(certificate["minor"])
    null = [[(address(where), sp.Rational(value)) for where, value in vector] for vector in certificate["null"]]
    functions = Functions(mixture)
    require({where for vector in null for where, _ in vector} <= all_addresses(mixture), "a column does not exist")
    require(all(len({where for where, _ in vector}) == len(vector) for vector in null), "a column is listed twice")
    for vector in null:
        require(dependent(functions, vector), f"not a dependence: {vector}")
    everything = sorted(all_addresses(mixture), key=repr)
    rows = [[sp.QQ.from_sympy(dict(vector).get(where, sp.Integer(0))) for where in everything] for vector in null]
    independent = DomainMatrix(rows, (len(null), len(everything)), sp.QQ).rank() if null else 0
    require(independent == len(null), "the dependences are themselves dependent")
    require(len(columns) + len(null) == len(everything), "minor and dependences do not account for every column")
    return mixture, null


def second_order(mixture: Mixture, null: Null, places: list[tuple[int, int]]) -> list[sp.Matrix]:
    """Return the matrix M of each dependence.

    An entry is the coefficient of u_ij, doubled on the diagonal, which makes M symmetric.
    """
    index = {place: row for row, place in enumerate(places)}
    found = []
    for vector in null:
        matrix = sp.zeros(len(places), len(places))
        for (cell, alpha), value in vector:
            if cell is None or sum(alpha) != 2:
                continue
            i, j = (k for k, count in enumerate(alpha) for _ in range(count))
            matrix[index[cell, i], index[cell, j]] += value
            matrix[index[cell, j], index[cell, i]] += value
        found.append(matrix)
    return found


def _only_gauges(mixture: Mixture, null: Null, parts: list[sp.Matrix]) -> None:
    """Check that as many dependences lack second orders as the model has gauges.

    Gauges scale all masses and shift all gates.
    """
    gauges = 0 if mixture.alone or mixture.atom.gate is None or mixture.frozen else 1 + len(mixture.atom.gate_shift)
    require(len(null) - flat_rank(parts) == gauges, "a first-order direction is invisible and no gauge")


def _seen_to_second(mixture: Mixture) -> list[tuple[int, int]]:
    """Return the (cell, parameter) pairs of the cells seen to second order."""
    made = mixture.atom
    held = set() if mixture.alone else {*made.pinned, *made.shared}
    free = [i for i, p in enumerate(made.params) if p not in held]
    return [(j, i) for j, cell in enumerate(mixture.cells) if cell.order >= 2 for i in free]


def _shared(made: Atom) -> Claims:
    return {(None, str(p)): Fraction(1) for p in made.shared if p not in made.pinned}


def _first_order(certificate: Mapping[str, Any]) -> Claims:
    """Return theta = 1 in cells of one atom, once it is checked that only gauges hide to first order.

    Shared parameters have theta = 1, too, if all cells are of one atom.
    """
    mixture, null = _rank(certificate["rank"])
    require(not mixture.alone, "an atom by itself is no configuration")
    _only_gauges(mixture, null, second_order(mixture, null, _seen_to_second(mixture)))
    made = mixture.atom
    single: Claims = {
        (j, str(p)): Fraction(1)
        for j, cell in enumerate(mixture.cells)
        if cell.order == 1
        for p in made.params
        if p not in {*made.pinned, *made.shared}
    }
    return single | (_shared(made) if all(cell.order == 1 for cell in mixture.cells) else {})


def _split_parts(
    certificate: Mapping[str, Any],
) -> tuple[Mixture, Null, list[sp.Matrix], sp.Matrix, list[tuple[int, int]]]:
    mixture, null = _rank(certificate["rank"])
    places = [(int(j), int(i)) for j, i in certificate["places"]]
    require(places == _seen_to_second(mixture), "the rows of the matrix are not the parameters seen to second order")
    matrix = sp.Matrix([[sp.Rational(v) for v in row] for row in certificate["matrix"]])
    require(matrix.shape == (len(places), len(places)) and matrix == matrix.T, "the matrix is not symmetric")
    return mixture, null, second_order(mixture, null, places), matrix, places


def _inner(a: sp.Matrix, b: sp.Matrix) -> sp.Rational:
    return sp.Add(*(x * y for x, y in zip(a, b, strict=True)))


def flat_rank(matrices: list[sp.Matrix]) -> int:
    """Return the rank of matrices as vectors."""
    if not matrices or not matrices[0].rows:
        return 0
    rows = [[sp.QQ.from_sympy(v) for v in matrix] for matrix in matrices]
    return DomainMatrix(rows, (len(rows), len(rows[0])), sp.QQ).rank()


def _definite(certificate: Mapping[str, Any]) -> Claims:
    """Check that Y > 0 is orthogonal to every invisible M, and that only gauges hide first orders alone."""
    mixture, null, parts, matrix, places = _split_parts(certificate)
    require(all(_inner(matrix, part) == 0 for part in parts), "Y is not orthogonal to the second-order parts")
    size = matrix.rows
    minors = [matrix[:k, :k].det(method="bareiss") for k in range(1, size + 1)]
    require(all(minor > 0 for minor in minors), "Y is not positive definite")
    _only_gauges(mixture, null, parts)
    second: Claims = {(j, str(mixture.atom.params[i])): Fraction(2) for j, i in places}
    return second | _shared(mixture.atom)


def _hidden(certificate: Mapping[str, Any]) -> Claims:
    """Check that M >= 0, not 0, is the second-order part of a dependence."""
    _, _, parts, matrix, _ = _split_parts(certificate)
    require(any(matrix), "M is zero")
    require(flat_rank([*parts, matrix]) == flat_rank(parts), "M is not the second-order part of a dependence")
    signs = sp.Matrix(-matrix).charpoly().all_coeffs()
    require(all(c >= 0 for c in signs), "M is not positive semidefinite")
    return {}


def _proves_no_bound(check: Callable[[Mapping[str, Any]], Any]) -> Callable[[Mapping[str, Any]], Claims]:
    def checked(certificate: Mapping[str, Any]) -> Claims:
        check(certificate)
        return {}

    return checked


#: Kind of certificate -> its check.
CHECKS: dict[str, Callable[[Mapping[str, Any]], Claims]] = {
    "identity": _identity,
    "minor": _proves_no_bound(_minor),
    "rank": _proves_no_bound(_rank),
    "first-order": _first_order,
    "definite": _definite,
    "hidden": _hidden,
}

"""Write a mixture at a truth as columns whose linear dependences decide rates, to first and second order.

A joint density moves by sum_cells w_j sum_alpha moments_alpha D^alpha u_j. A conditional model f = num / den
moves, up to the positive factor 1 / den, by the same sum of

    D^alpha num_j - D^alpha gate_j f*,      f* = (frozen + sum_i w_i num_i) / (frozen + sum_i w_i gate_i):

the true f* ties the cells together. A cell with one fitted atom moves to first order (order 1), one with
several to second and more. Columns are multiplied by the true denominator, so that polynomials stay
polynomials.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import sympy as sp

from moe_prompts.checks import expect, shown
from moe_prompts.errors import InputError
from moe_prompts.seeds import address
from moe_prompts.theory.arithmetic import Exact, Modular, Real, evaluate
from moe_prompts.theory.atoms import Atom, Component, atom
from moe_prompts.theory.jets import Alpha, derivatives, multi_indices

Theta = dict[sp.Symbol, sp.Rational]
#: What is formal has a name: a kernel symbol or log_factor, and its cell (-1, -2, .. for frozen experts).
Formal = tuple[sp.Expr, int]


@dataclass(frozen=True)
class Cell:
    """Hold a true atom at ``theta`` with mass ``weight``, whose fitted atoms are seen to ``order``."""

    theta: Theta
    order: int
    weight: sp.Rational


@dataclass(frozen=True)
class Column:
    """Name a column: D^alpha of the atom of ``cell``; cell None: by a shared parameter, summed over cells."""

    cell: int | None
    alpha: Alpha

    @property
    def order(self) -> int:
        """Return the order of the derivative."""
        return sum(self.alpha)

    def label(self, params: tuple[sp.Symbol, ...], cells: int) -> str:
        """Return the column as it is printed, as in u_ab, or u2_ab for the second of several cells."""
        place = str(self.cell + 1) if self.cell is not None and cells > 1 else ""
        names = [str(p) for p, count in zip(params, self.alpha, strict=True) for _ in range(count)]
        name = ("" if all(len(name) == 1 for name in names) else " ").join(names)
        return f"u{place}" + (f"_({name})" if " " in name or "_" in name else f"_{name}" if name else "")


@dataclass(frozen=True)
class Mixture:
    """Hold true atoms in their cells, with the frozen experts beside them.

    atom    what one expert contributes
    cells   the true atoms, each with its parameters, mass and order
    frozen  pre-trained experts with known parameters, as components of numerator and gate in the inputs
    alone   one atom by itself: each component (the gate among them if it has a normaliser) is a row of its
            own
    """

    atom: Atom
    cells: tuple[Cell, ...]
    frozen: tuple[tuple[tuple[Component, ...], Component], ...] = ()
    alone: bool = False

    @cached_property
    def held(self) -> frozenset[sp.Symbol]:
        """Return the parameters that give no columns of their own in a cell."""
        return frozenset() if self.alone else frozenset((*self.atom.pinned, *self.atom.shared))

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """Return the columns, low orders first, within an order as cells and parameters are listed."""
        params = self.atom.params
        found = [
            Column(j, alpha)
            for j, cell in enumerate(self.cells)
            for alpha in multi_indices(len(params), cell.order)
            if not any(count and p in self.held for p, count in zip(params, alpha, strict=True))
        ]
        if not self.alone:
            free = [i for i, p in enumerate(params) if p in self.atom.shared and p not in self.atom.pinned]
            found += [Column(None, tuple(int(i == place) for i in range(len(params)))) for place in free]
        return tuple(sorted(found, key=lambda column: column.order))

    @property
    def components(self) -> int:
        """Return the number of rows per point."""
        return len(self.atom.components) if self.alone else len(self.atom.values)

    def to_json(self) -> dict[str, Any]:
        """Return the mixture as certificates hold it."""
        cells = [
            {
                "theta": {str(p): str(value) for p, value in cell.theta.items()},
                "order": cell.order,
                "weight": str(cell.weight),
            }
            for cell in self.cells
        ]
        return {"atom": self.atom.spec, "cells": cells, "frozen": len(self.frozen), "alone": self.alone}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Mixture:
        """Return the mixture that a certificate holds.

        Raises ``InputError`` where it is none.
        """
        made = atom(**data["atom"])
        names = {str(p): p for p in made.params}
        cells = tuple(
            Cell(
                {names[name]: sp.Rational(value) for name, value in cell["theta"].items()},
                int(cell["order"]),
                sp.Rational(cell["weight"]),
            )
            for cell in data["cells"]
        )
        found = cls(made, cells, frozen_experts(made, int(data["frozen"])), bool(data["alone"]))
        found.check()
        return found

    def check(self) -> None:
        """Raise ``InputError`` unless masses and variances are positive and shared parameters agree."""
        made = self.atom
        if not self.cells or (self.alone and len(self.cells) != 1):
            raise InputError(f"{len(self.cells)} cells; expected one of an atom alone, at least one of a mixture")
        for cell in self.cells:
            if cell.order < 1 or cell.weight <= 0 or set(cell.theta) != set(made.params):
                raise InputError("a cell needs an order of at least 1, a positive mass and all parameters")
            if any(cell.theta[p] <= 0 for p in made.positive):
                raise InputError("a variance is not positive")
            if self.alone:
                continue
            if any(cell.theta[p] != self.cells[0].theta[p] for p in made.shared):
                raise InputError("a parameter shared by all atoms differs between cells")
            if any(cell.theta[p] != value for p, value in made.pinned.items()):
                raise InputError("a pinned parameter is not at its value")

    def evaluated(self, numbers: Any, place: PlaceValues) -> list[list[Any]]:
        """Return the values [component][column] at one place; None stands for zero."""
        by_cell = [
            derivatives(
                self.atom,
                self.parts,
                max(cell.order, 1 if self.atom.shared else cell.order),
                place.theta(j),
                place.inputs,
                place.kernels(j),
                numbers,
            )
            for j, cell in enumerate(self.cells)
        ]
        if self.alone:
            return [[found.get(column.alpha) for column in self.columns] for found in by_cell[0]]
        if self.atom.gate is None:
            return [[self._scaled(by_cell, place, 0, column, numbers) for column in self.columns]]
        weights = [numbers.rational(cell.weight) for cell in self.cells]
        zero = (0,) * len(self.atom.params)
        gate = len(self.atom.values)

        def total(component: int) -> Any:
            part = self.parts[component]
            terms = [
                weights[j] * place.factor(j, part.log_factor) * found[component][zero]
                for j, found in enumerate(by_cell)
            ]
            terms += [place.frozen(i, component) for i in range(len(self.frozen))]
            return sum(terms[1:], terms[0])

        minus, denominator = numbers.rational(sp.Integer(-1)), total(gate)
        rows = []
        for component in range(gate):
            numerator = minus * total(component)
            row = []
            for column in self.columns:
                top = self._scaled(by_cell, place, component, column, numbers)
                bottom = self._scaled(by_cell, place, gate, column, numbers)
                parts = ([top * denominator] if top is not None else []) + (
                    [bottom * numerator] if bottom is not None else []
                )
                row.append(sum(parts[1:], parts[0]) if parts else None)
            rows.append(row)
        return rows

    @property
    def parts(self) -> tuple[Component, ...]:
        """Return the components that are evaluated, the gate last if there is one."""
        if self.alone:
            return self.atom.components
        return self.atom.values + ((self.atom.gate,) if self.atom.gate else ())

    def _scaled(self, by_cell: list, place: PlaceValues, component: int, column: Column, numbers: Any) -> Any:
        """Return D^alpha of one component with its factor.

        A shared parameter moves all cells, by their weights.
        """
        factor = self.parts[component].log_factor
        if column.cell is not None:
            value = by_cell[column.cell][component].get(column.alpha)
            return None if value is None else place.factor(column.cell, factor) * value
        terms = [
            numbers.rational(cell.weight) * place.factor(j, factor) * by_cell[j][component][column.alpha]
            for j, cell in enumerate(self.cells)
            if column.alpha in by_cell[j][component]
        ]
        return sum(terms[1:], terms[0]) if terms else None


class PlaceValues:
    """Hold the values of everything at one place: parameters, inputs, kernel symbols and factors e^{..}."""

    def __init__(
        self,
        mixture: Mixture,
        numbers: Any,
        inputs: Mapping[sp.Symbol, Any],
        unknown: Callable[[Formal, bool], Any] | None,
        thetas: list[Mapping[sp.Symbol, Any]] | None = None,
    ) -> None:
        """Take a mixture to numbers at some inputs.

        ``unknown(name, binary)`` makes a value for what is formal. Where it is None, functions are computed
        as real numbers.
        """
        self.mixture, self.numbers, self.inputs, self.unknown = mixture, numbers, inputs, unknown
        self._thetas = thetas or [
            {p: numbers.rational(value) for p, value in cell.theta.items()} for cell in mixture.cells
        ]
        self._made: dict[Formal, Any] = {}

    def theta(self, cell: int) -> Mapping[sp.Symbol, Any]:
        """Return the parameters of a cell."""
        return self._thetas[cell]

    def kernels(self, cell: int) -> dict[sp.Symbol, Any]:
        """Return the values of the kernel symbols of a cell."""
        found: dict[sp.Symbol, Any] = {}
        values = {**self.inputs, **self._thetas[cell]}
        for unit in self.mixture.atom.units:
            for symbol in unit.symbols:
                name = (symbol, cell)
                if name not in self._made:
                    if self.unknown is None:
                        self._made[name] = evaluate(unit.functions[symbol], values, self.numbers)
                    else:
                        self._made[name] = self.unknown(name, unit.kernel.binary)
                found[symbol] = self._made[name]
        return found

    def factor(self, cell: int, log_factor: sp.Expr) -> Any:
        """Return the value of a factor e^{..} of a cell."""
        name = (log_factor, cell)
        if name not in self._made:
            if self.unknown is None:
                values = {**self.inputs, **self._thetas[cell], **self.kernels(cell)}
                values |= {
                    unit.symbol: evaluate(unit.argument, values, self.numbers) for unit in self.mixture.atom.units
                }
                self._made[name] = self.numbers.function("exp", evaluate(log_factor, values, self.numbers))
            else:
                self._made[name] = self.unknown(name, False)
        return self._made[name]

    def frozen(self, index: int, component: int) -> Any:
        """Return a frozen expert's contribution to a component."""
        values, gate = self.mixture.frozen[index]
        part = (*values, gate)[component]
        name = (part.log_factor, -1 - index)
        if name not in self._made:
            if self.unknown is None:
                exponent = evaluate(part.log_factor, self.inputs, self.numbers)
                self._made[name] = self.numbers.function("exp", exponent)
            else:
                self._made[name] = self.unknown(name, False)
        return self._made[name] * evaluate(part.value, self.inputs, self.numbers)


def modular_place(
    mixture: Mixture, points: int, rng: np.random.Generator, random_theta: bool
) -> tuple[Modular, PlaceValues]:
    """Return random residues for inputs, kernel symbols and factors, at ``points`` places at once.

    With ``random_theta`` the parameters that are not 0 are random as well.
    """
    numbers = Modular(points, rng)
    thetas: list[Mapping[sp.Symbol, Any]] | None = None
    if random_theta:
        shared = {p: _constant(numbers, rng) for p in mixture.atom.shared}
        thetas = [
            {
                p: numbers.rational(value) if value == 0 else shared.get(p) or _constant(numbers, rng)
                for p, value in cell.theta.items()
            }
            for cell in mixture.cells
        ]
    inputs = {x: numbers.random() for x in mixture.atom.inputs}
    unknown = lambda _, binary: numbers.random_bits() if binary else numbers.random()
    return numbers, PlaceValues(mixture, numbers, inputs, unknown, thetas)


def _constant(numbers: Modular, rng: np.random.Generator) -> Any:
    return numbers.rational(sp.Integer(int(rng.integers(1, 2**31 - 1))))


def exact_place(mixture: Mixture) -> tuple[Exact, PlaceValues, tuple[sp.Symbol, ...]]:
    """Return inputs, kernel symbols and factors as polynomials, at the mixture's own rational parameters."""
    cells, parts = range(len(mixture.cells)), [part.log_factor for part in mixture.parts]
    names: list[Formal] = [(symbol, j) for j in cells for unit in mixture.atom.units for symbol in unit.symbols]
    names += [(factor, j) for j in cells for factor in dict.fromkeys(parts)]
    for i, (values, gate) in enumerate(mixture.frozen):
        names += [(factor, -1 - i) for factor in dict.fromkeys(part.log_factor for part in (*values, gate))]
    symbols = {name: sp.Symbol(f"q{i}") for i, name in enumerate(names)}
    everything = (*mixture.atom.inputs, *symbols.values())
    numbers = Exact(everything)
    inputs = {x: numbers.symbol(x) for x in mixture.atom.inputs}
    return numbers, PlaceValues(mixture, numbers, inputs, lambda name, _: numbers.symbol(symbols[name])), everything


def real_place(mixture: Mixture, point: tuple[sp.Rational, ...], numbers: Real) -> PlaceValues:
    """Return the place with real numbers or intervals at a point of the inputs."""
    inputs = {x: numbers.rational(value) for x, value in zip(mixture.atom.inputs, point, strict=True)}
    return PlaceValues(mixture, numbers, inputs, None)


def held(stratum: Mapping[str, Any] | None) -> dict[str, sp.Rational]:
    """Return the values at which a stratum holds parameters, as fractions; none for None.

    A float means the decimal number that it prints as. Raises ``InputError`` for what is no map to numbers.
    """
    found = {}
    for name, value in expect({} if stratum is None else stratum, Mapping, "stratum").items():
        try:
            found[name] = sp.Rational(str(value))
        except (TypeError, ValueError):
            found[name] = sp.nan
        if not found[name].is_finite:
            raise InputError(f"stratum: {name} = {shown(value)}; expected a number, such as 0 or 1/2")
    return found


def generic_theta(made: Atom, cell: int, stratum: Mapping[str, Any] | None = None) -> Theta:
    """Return rational parameters drawn from the atom's name, the same on every machine.

    cell     number of the cell, which has its own draw
    stratum  parameters held at given values, by name

    Raises ``InputError`` where the stratum names a parameter that the atom lacks.
    """
    names = {str(p): p for p in made.params}
    for name in held(stratum):
        if name not in names:
            raise InputError(f"stratum {name!r}: {made.name} has the parameters {', '.join(names)}")
    own, common = (np.random.default_rng([address(made.key()), place]) for place in (cell + 1, 0))
    theta: Theta = {}
    for p in made.params:
        rng = common if p in made.shared else own
        size = sp.Rational(2 * int(rng.integers(64, 192)) + 1, 256)
        theta[p] = size if p in made.positive or rng.random() < 0.5 else -size
    for name, value in held(stratum).items():
        theta[names[name]] = value
        if names[name] in made.positive and theta[names[name]] <= 0:
            raise InputError(f"stratum {name} = {value}; expected a positive number, it is a variance")
    return theta


def frozen_experts(made: Atom, count: int) -> tuple[tuple[tuple[Component, ...], Component], ...]:
    """Return ``count`` known experts, as components of numerator and gate.

    They are of the atom's own kind for densities and linear experts. Otherwise they are eta (x, 1) with gate
    e^{x'Ax}. Raises ``InputError`` for a joint density, whose cells do not interact.
    """
    if count and made.gate is None:
        raise InputError(
            f"{count} frozen experts in {made.name}, a joint density whose cells do not interact; expected 0"
        )
    found = []
    for index in range(count):
        if made.units or made.spec["kind"] in ("fixed", "decoupled"):
            rng = np.random.default_rng([address("frozen"), index])
            draw = lambda rng=rng: sp.Rational(int(rng.integers(-16, 17)), 16)
            x = made.inputs
            logit = sp.Add(*(draw() * p * q for i, p in enumerate(x) for q in x[i:]))
            values = tuple(Component(logit, sp.Add(*(draw() * p for p in x), draw())) for _ in made.values)
            found.append((values, Component(logit, sp.Integer(1))))
        else:
            theta = generic_theta(made, 1000 + index)
            parts = [
                Component(part.log_factor.subs(theta), part.value.subs(theta))
                for part in (*made.values, made.gate or Component(sp.Integer(0), sp.Integer(1)))
            ]
            found.append((tuple(parts[:-1]), parts[-1]))
    return tuple(found)


def mixture(
    made: Atom, orders: Sequence[int], frozen: int = 0, stratum: Mapping[str, Any] | None = None, alone: bool = False
) -> Mixture:
    """Return a mixture whose cells are seen to ``orders``, at generic parameters and with unequal masses.

    made     the atom
    orders   highest order of derivatives in each cell
    frozen   number of known experts beside the cells
    stratum  parameters held at given values, by name
    alone    one atom by itself

    Raises ``InputError`` where the stratum fixes a parameter that a symmetry makes a choice of coordinates.
    """
    # A pinned parameter is a choice of coordinates: 1, or a column of the identity where a whole block is
    # pinned.
    choice = {} if alone else {p: sp.Rational(value) for p, value in made.pinned.items()}
    fixed = [str(p) for p in choice if str(p) in (stratum or {})]
    if fixed:
        raise InputError(
            f"stratum {', '.join(fixed)}: a symmetry of {made.name} makes this parameter a choice of coordinates "
            f"({', '.join(f'{p} = {v}' for p, v in choice.items())}); expected others"
        )
    cells = tuple(
        Cell(generic_theta(made, j, stratum) | choice, order, sp.Rational(2 + j, 3)) for j, order in enumerate(orders)
    )
    return Mixture(made, cells, frozen_experts(made, frozen), alone)

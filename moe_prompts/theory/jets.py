"""Compute all partial derivatives of an atom up to an order, at one place, without symbolic differentiation.

    u(theta* + Delta) / exp(log_factor(theta*))
        = sum_alpha Delta^alpha / alpha! D^alpha u / exp(log_factor(theta*))

The atom is evaluated once, with truncated power series in Delta for its parameters; their coefficients are
the derivatives.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations_with_replacement
from math import factorial, prod
from typing import Any

import sympy as sp

from moe_prompts.theory.arithmetic import PowerSeries, Series, evaluate
from moe_prompts.theory.atoms import Atom, Component, Unit

Alpha = tuple[int, ...]


def multi_indices(size: int, order: int) -> list[Alpha]:
    """Return all alpha with |alpha| <= order, low orders first.

    Within an order they come as the parameters are listed.
    """
    found = []
    for degree in range(order + 1):
        for chosen in combinations_with_replacement(range(size), degree):
            found.append(tuple(chosen.count(i) for i in range(size)))
    return found


def derivatives(
    atom: Atom,
    parts: tuple[Component, ...],
    order: int,
    theta: Mapping[sp.Symbol, Any],
    inputs: Mapping[sp.Symbol, Any],
    kernels: Mapping[sp.Symbol, Any],
    numbers: Any,
) -> list[dict[Alpha, Any]]:
    """Return for each component a table alpha -> D^alpha u / exp(log_factor) at ``theta``.

    Derivatives that are missing in it are zero.

    parts    the components that are evaluated
    order    highest order
    theta    values of the parameters
    inputs   values of the inputs
    kernels  values of every unit's kernel symbols
    numbers  the kind of numbers (``arithmetic``)
    """
    params = atom.params
    algebra = PowerSeries(numbers, len(params), order)
    values: dict[sp.Symbol, Series] = {x: algebra.constant(value) for x, value in inputs.items()}
    values |= {p: algebra.variable(i, theta[p]) for i, p in enumerate(params)}
    for unit in atom.units:
        values |= _unit(unit, values, kernels, algebra)
    found, factors = [], {}
    for part in parts:
        if part.log_factor not in factors:
            exponent = evaluate(part.log_factor, values, algebra)
            factors[part.log_factor] = algebra.exp(exponent.nilpotent())
        series = factors[part.log_factor] * evaluate(part.value, values, algebra)
        found.append(
            {
                alpha: numbers.rational(sp.Integer(prod(map(factorial, alpha)))) * value
                for degree in series.parts
                for alpha, value in degree.items()
            }
        )
    return found


def _unit(unit: Unit, values: dict, kernels: Mapping[sp.Symbol, Any], algebra: PowerSeries) -> dict:
    """Return the series of a unit's argument and kernel symbols.

    They are Taylor series by the kernel's own rule of differentiation.
    """
    argument = evaluate(unit.argument, values, algebra)
    place = {unit.symbol: argument.constant} | {s: kernels[s] for s in unit.symbols}
    found = {unit.symbol: argument}
    for local, symbol in zip(unit.kernel.symbols, unit.symbols, strict=True):
        taylor, derivative = [], local
        for k in range(algebra.order + 1):
            scaled = unit.localised(derivative) / sp.factorial(k)
            taylor.append(evaluate(scaled, place, algebra.numbers))
            derivative = unit.kernel.derive(derivative)
        found[symbol] = algebra.compose(taylor, argument.nilpotent())
    return found

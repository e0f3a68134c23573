"""Evaluate one expression in five kinds of numbers, by one evaluator.

They are residues modulo a prime, exact polynomials, 60 digits, intervals, and truncated power series over any
of them.

Residues find a linear dependence, exact polynomials prove it, digits show that nothing else is dependent, and
intervals make a proof of that: an interval pivot that excludes zero is a pivot that is not zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import mpmath
import numpy as np
import sympy as sp
from mpmath.ctx_iv import MPIntervalContext

from moe_prompts.errors import InputError

#: 2^31 - 1: products of two residues fit into 64 bits.
PRIME = 2**31 - 1
DIGITS = 60


class Numbers(Protocol):
    """Describe what ``evaluate`` needs to know about numbers beside + and *."""

    def rational(self, value: sp.Rational) -> Any:
        """Return a rational number as one of these numbers."""
        ...

    def inverse(self, value: Any) -> Any:
        """Return 1 / value."""
        ...

    def function(self, name: str, argument: Any) -> Any:
        """Return the named function of the argument.

        Raises ``TypeError`` for functions that these numbers do not have.
        """
        ...


def evaluate(expression: sp.Expr, values: Mapping[sp.Symbol, Any], numbers: Numbers) -> Any:
    """Return the expression with ``values`` for its symbols.

    It may hold sums, products, whole and half powers, and functions that the numbers know. Raises
    ``TypeError`` for anything else.
    """
    if isinstance(expression, sp.Rational):
        return numbers.rational(expression)
    if expression.is_Symbol:
        return values[expression]
    if expression.is_Add or expression.is_Mul:
        result, *rest = (evaluate(part, values, numbers) for part in expression.args)
        for part in rest:
            result = result + part if expression.is_Add else result * part
        return result
    if expression.is_Pow and expression.exp.is_Integer:
        base = evaluate(expression.base, values, numbers)
        exponent = int(expression.exp)
        return power(base if exponent > 0 else numbers.inverse(base), abs(exponent))
    if expression.is_Pow and (2 * expression.exp).is_Integer:
        root = numbers.function("sqrt", evaluate(expression.base, values, numbers))
        return power(root if expression.exp > 0 else numbers.inverse(root), abs(int(2 * expression.exp)))
    if expression is sp.pi:
        return numbers.function("pi", None)
    if expression.is_Function:
        return numbers.function(type(expression).__name__, evaluate(expression.args[0], values, numbers))
    raise TypeError(f"cannot evaluate {expression} of type {type(expression).__name__}")


def power(base: Any, exponent: int) -> Any:
    """Return base^exponent, exponent >= 1, by multiplication alone."""
    result = base
    for _ in range(exponent - 1):
        result = result * base
    return result


class Residues:
    """Hold vectors modulo ``PRIME``."""

    __slots__ = ("array",)

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __add__(self, other: Residues) -> Residues:
        return Residues((self.array + other.array) % PRIME)

    def __mul__(self, other: Residues) -> Residues:
        return Residues(self.array * other.array % PRIME)


def residue(value: sp.Rational | int) -> int:
    """Return a rational number modulo ``PRIME``."""
    value = sp.Rational(value)
    return int(value.p) * pow(int(value.q), -1, PRIME) % PRIME


class Modular:
    """Compute with residues of ``points`` random evaluations at once."""

    def __init__(self, points: int, rng: np.random.Generator) -> None:
        self.points, self.rng = points, rng

    def rational(self, value: sp.Rational) -> Residues:
        """Return the residue of a rational number at every point."""
        return Residues(np.full(self.points, residue(value), dtype=np.int64))

    def inverse(self, value: Residues) -> Residues:
        """Return the inverses modulo the prime."""
        return Residues(np.array([pow(int(v), -1, PRIME) for v in value.array], dtype=np.int64))

    def random(self) -> Residues:
        """Return random residues, none of them 0."""
        return Residues(self.rng.integers(1, PRIME, self.points))

    def random_bits(self) -> Residues:
        """Return random zeros and ones."""
        return Residues(self.rng.integers(0, 2, self.points))

    def function(self, name: str, argument: Any) -> Residues:
        """Raise ``TypeError``: functions have no residues and enter as independent unknowns."""
        raise TypeError(f"{name} has no residue; functions enter as independent unknowns")


class Exact:
    """Compute with polynomials with rational coefficients in ``symbols``."""

    def __init__(self, symbols: tuple[sp.Symbol, ...]) -> None:
        self.ring = sp.QQ[symbols] if symbols else sp.QQ

    def rational(self, value: sp.Rational) -> Any:
        """Return a rational number as a polynomial."""
        return self.ring.from_sympy(sp.Rational(value))

    def symbol(self, value: sp.Symbol) -> Any:
        """Return a symbol as a polynomial."""
        return self.ring.from_sympy(value)

    def inverse(self, value: Any) -> Any:
        """Return 1 / value, for a value that is a constant."""
        return self.ring.from_sympy(1 / self.ring.to_sympy(value))

    def function(self, name: str, argument: Any) -> Any:
        """Raise ``TypeError``: functions are no polynomials and enter as independent unknowns."""
        raise TypeError(f"{name} is no polynomial; functions enter as independent unknowns")


class Real:
    """Compute with real numbers of ``digits`` digits, or with intervals that contain the exact result."""

    def __init__(self, intervals: bool, digits: int = DIGITS) -> None:
        self.context = MPIntervalContext() if intervals else mpmath.MPContext()
        self.context.dps = digits
        self.intervals = intervals

    def rational(self, value: sp.Rational) -> Any:
        """Return a rational number, rounded or enclosed."""
        value = sp.Rational(value)
        return self.context.mpf(int(value.p)) / self.context.mpf(int(value.q))

    def inverse(self, value: Any) -> Any:
        """Return 1 / value."""
        return self.context.mpf(1) / value

    def function(self, name: str, argument: Any) -> Any:
        """Return the named function of the argument.

        Raises ``InputError`` at the kink of a step, and ``TypeError`` for functions without interval
        arithmetic.
        """
        context = self.context
        if name == "pi":
            return +context.pi
        if name in ("exp", "log", "sqrt", "sin", "cos"):
            return getattr(context, name)(argument)
        if name == "tanh":
            e = context.exp(-2 * argument)
            return (1 - e) / (1 + e)
        if name == "erf":
            return self._erf(argument) if self.intervals else context.erf(argument)
        if name == "Heaviside":
            if not (argument > 0 or argument < 0):
                raise InputError("a point lies on the kink of the activation; take another one")
            return context.mpf(1 if argument > 0 else 0)
        raise TypeError(f"no interval arithmetic for {name}")

    def _erf(self, z: Any) -> Any:
        """Return erf(z) = 2 / sqrt(pi) sum_n (-1)^n z^(2n+1) / (n! (2n+1)), enclosed.

        Once terms fall, the next one bounds what is left out.
        """
        context = self.context
        square, term, total, n = z * z, z, z, 0
        tiny = context.mpf(10) ** (-context.dps)
        while not (n > square and abs(term) < tiny):
            n += 1
            term = -term * square / n
            total = total + term / (2 * n + 1)
        rest = abs(term * square / ((n + 1) * (2 * n + 3))).b
        return 2 / context.sqrt(context.pi) * (total + context.mpf([-rest, rest]))


class Series:
    """Hold a polynomial in the displacements Delta of the parameters, truncated at an order.

    ``parts[degree][alpha]`` is the coefficient of Delta^alpha.
    """

    __slots__ = ("order", "parts")

    def __init__(self, order: int, parts: list[dict[tuple[int, ...], Any]]) -> None:
        self.order, self.parts = order, parts

    def __add__(self, other: Series) -> Series:
        parts = [dict(part) for part in self.parts]
        for mine, theirs in zip(parts, other.parts, strict=True):
            for alpha, value in theirs.items():
                mine[alpha] = mine[alpha] + value if alpha in mine else value
        return Series(self.order, parts)

    def __mul__(self, other: Series) -> Series:
        parts: list[dict[tuple[int, ...], Any]] = [{} for _ in self.parts]
        for i, left in enumerate(self.parts):
            for j, right in enumerate(other.parts[: self.order - i + 1]):
                found = parts[i + j]
                for alpha, a in left.items():
                    for beta, b in right.items():
                        gamma = tuple(map(int.__add__, alpha, beta))
                        product = a * b
                        found[gamma] = found[gamma] + product if gamma in found else product
        return Series(self.order, parts)

    @property
    def constant(self) -> Any:
        """Return the constant term."""
        return next(iter(self.parts[0].values()))

    def nilpotent(self) -> Series:
        """Return the series without its constant."""
        return Series(self.order, [{}, *self.parts[1:]])


class PowerSeries:
    """Compute with truncated power series over ``numbers`` in ``size`` displacements."""

    def __init__(self, numbers: Any, size: int, order: int) -> None:
        self.numbers, self.size, self.order = numbers, size, order

    def constant(self, value: Any) -> Series:
        """Return a constant series."""
        return Series(self.order, [{(0,) * self.size: value}, *({} for _ in range(self.order))])

    def variable(self, index: int, value: Any) -> Series:
        """Return value + Delta_index."""
        series = self.constant(value)
        if self.order:
            unit = tuple(int(i == index) for i in range(self.size))
            series.parts[1][unit] = self.numbers.rational(sp.Integer(1))
        return series

    def rational(self, value: sp.Rational) -> Series:
        """Return a rational number as a constant series."""
        return self.constant(self.numbers.rational(value))

    def compose(self, taylor: list[Any], inner: Series) -> Series:
        """Return sum_k taylor[k] inner^k, for an ``inner`` without constant."""
        total, factor = self.constant(taylor[0]), None
        for coefficient in taylor[1:]:
            factor = inner if factor is None else factor * inner
            total = total + self.constant(coefficient) * factor
        return total

    def inverse(self, value: Series) -> Series:
        """Return 1 / value, by the geometric series."""
        first = self.numbers.inverse(value.constant)
        minus = self.numbers.rational(sp.Integer(-1))
        ratio = self.constant(minus * first) * value.nilpotent()
        ones = [self.numbers.rational(sp.Integer(1))] * (self.order + 1)
        return self.constant(first) * self.compose(ones, ratio)

    def exp(self, exponent: Series) -> Series:
        """Return exp of a series without constant."""
        taylor = [self.numbers.rational(sp.Rational(1, sp.factorial(k))) for k in range(self.order + 1)]
        return self.compose(taylor, exponent)

    def function(self, name: str, argument: Series) -> Series:
        """Return log up to its constant, which cancels in exp(log_factor(theta) - log_factor(theta*))."""
        if name != "log":
            raise TypeError(f"no series for {name}; functions enter as independent unknowns")
        ratio = self.constant(self.numbers.inverse(argument.constant)) * argument.nilpotent()
        taylor = [sp.Integer(0), *(sp.Rational((-1) ** (k + 1), k) for k in range(1, self.order + 1))]
        return self.compose([self.numbers.rational(c) for c in taylor], ratio)

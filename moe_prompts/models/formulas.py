"""Read a function of one variable from text, and compute with it and its derivatives.

    "x/sqrt(1+x**2)"   ->   sigma, sigma', sigma''   as functions of arrays

The text is read by Python's own parser into a tree, and only sums, products, quotients, powers, numbers and
the functions of ``FUNCTIONS`` are taken from it. Nothing of the text is ever evaluated as code.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from moe_prompts.errors import InputError

#: Functions that a formula may call; all have interval arithmetic, which the algebra of rates needs.
FUNCTIONS = ("exp", "log", "sqrt", "tanh", "erf", "sigmoid", "sin", "cos")
VARIABLES = ("x", "t")
LONGEST, LARGEST_POWER = 200, 12
#: Where a formula must have finite values, with two derivatives: inputs of hidden units in the studies are
#: smaller.
RANGE = np.linspace(-40.0, 40.0, 1601)


def parsed(text: str) -> Any:
    """Return a formula as a SymPy expression in the symbol t.

    text  a formula in x (or t), such as ``x/sqrt(1+x**2)``, of at most 200 characters

    Raises ``InputError`` for anything but numbers, x, pi, + - * /, powers by a fixed multiple of 1/2 of at
    most 12, and the functions of ``FUNCTIONS``.

    >>> parsed("x*sigmoid(2*x)").free_symbols
    {t}
    """
    if not isinstance(text, str) or not text.strip() or len(text) > LONGEST:
        raise InputError(f"formula {text!r:.60}; expected a text of 1 to {LONGEST} characters such as 'x/sqrt(1+x**2)'")
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise InputError(f"formula {text!r} cannot be read; expected one in Python's spelling: {_EXPECTED}") from None
    import sympy as sp

    made = _expression(tree.body, text, sp)
    if made.has(sp.zoo, sp.nan, sp.oo):
        raise InputError(f"formula {text!r} divides by zero; expected a function that is finite everywhere")
    if not made.free_symbols:
        raise InputError(f"formula {text!r} is a constant; expected a function of x")
    return made


_EXPECTED = f"x, numbers, pi, + - * / **, {', '.join(FUNCTIONS)}"


def _expression(node: ast.expr, text: str, sp: Any) -> Any:
    """Return the SymPy expression of a node of Python's syntax tree."""
    match node:
        case ast.Constant(value=bool()):
            pass
        case ast.Constant(value=int() | float() as number) if abs(number) < 1e6:
            return sp.Rational(repr(number))
        case ast.Name(id="pi"):
            return sp.pi
        case ast.Name(id=name) if name in VARIABLES:
            return sp.Symbol("t")
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=operand):
            value = _expression(operand, text, sp)
            return -value if isinstance(sign, ast.USub) else value
        case ast.BinOp(left=left, op=op, right=right):
            a, b = _expression(left, text, sp), _expression(right, text, sp)
            if isinstance(op, ast.Pow):
                if not (b.is_Rational and abs(b) <= LARGEST_POWER and (2 * b).is_Integer):
                    raise InputError(
                        f"formula {text!r}: power {b}; expected a fixed multiple of 1/2, at most {LARGEST_POWER}"
                    )
                # Powers of powers would grow without bound: numbers of a million digits, polynomials of
                # degree 1e9.
                if a.has(sp.Pow) or (a.is_Rational and max(abs(a.p), a.q) >= 1e6):
                    raise InputError(f"formula {text!r}: a power of a power, or of a large number; expected one power")
                return a**b
            operations: dict[type, Callable] = {
                ast.Add: lambda: a + b,
                ast.Sub: lambda: a - b,
                ast.Mult: lambda: a * b,
                ast.Div: lambda: a / b,
            }
            if type(op) in operations:
                return operations[type(op)]()
        case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name in FUNCTIONS:
            inner = _expression(argument, text, sp)
            # The logistic function as a tanh: no exponential overflows, and one symbol serves all
            # derivatives.
            return (1 + sp.tanh(inner / 2)) / 2 if name == "sigmoid" else getattr(sp, name)(inner)
    raise InputError(f"formula {text!r}: {ast.unparse(node)} is not understood; expected {_EXPECTED}")


@dataclass(frozen=True)
class Formula:
    """Hold a formula or one of its derivatives; calling it computes the values on an array.

    text   the formula, which ``parsed`` reads
    order  which derivative: 0 for the function itself

    It is text and a number, so that it travels to the workers of a study as it stands.

    >>> import numpy as np
    >>> Formula("x/sqrt(1+x**2)", 1)(np.array([0.0, 1.0])).round(3).tolist()
    [1.0, 0.354]
    """

    text: str
    order: int = 0

    def __call__(self, t: np.ndarray) -> np.ndarray:
        """Return the values at ``t``, of the shape of ``t``."""
        t = np.asarray(t, dtype=float)
        return np.broadcast_to(np.asarray(_compiled(self.text, self.order)(t), dtype=float), t.shape).copy()


@cache
def _compiled(text: str, order: int) -> Callable[[np.ndarray], Any]:
    import sympy as sp

    derivative = sp.diff(parsed(text), sp.Symbol("t"), order)
    # From SymPy's own tree of what ``parsed`` let through.
    return sp.lambdify(sp.Symbol("t"), derivative, modules=["scipy", "numpy"], cse=True)


def finite(text: str) -> None:
    """Raise ``InputError`` where a formula or its first two derivatives are not finite on [-40, 40]."""
    for order, name in enumerate(("it", "its first derivative", "its second derivative")):
        with np.errstate(all="ignore"):
            bad = ~np.isfinite(Formula(text, order)(RANGE))
        if bad.any():
            raise InputError(
                f"formula {text!r}: {name} is no finite number at {RANGE[bad][0]:g}; expected a smooth function that "
                f"can be computed on [{RANGE[0]:g}, {RANGE[-1]:g}]"
            )

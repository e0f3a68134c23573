"""Write activations as elements of a differential ring: polynomials in t and few symbols, closed under d/dt.

    tanh: T' = 1 - T^2             sigmoid: S' = S (1 - S)
    gelu: t P, P' = f, f' = -t f   relu: t H, H' = 0, H^2 = H

Differentiating a prompt's contribution then never leaves the polynomials in the inputs and these symbols,
where linear dependences can be decided exactly. The symbols are treated as independent unknowns, which they
are as functions of t unless the argument w'x degenerates (w = 0): there the formal rank is too high, and only
numbers tell.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import sympy as sp

from moe_prompts.errors import InputError
from moe_prompts.models.activations import ACTIVATIONS
from moe_prompts.models.formulas import parsed

T = sp.Symbol("t")


@dataclass(frozen=True)
class Kernel:
    """Hold an activation sigma as a polynomial in t and few symbols.

    name         what ``adaptive:NAME`` calls it
    symbols      the symbols
    value        sigma as a polynomial in t and the symbols
    derivatives  d symbol / dt, likewise
    functions    the symbols as functions of t
    homogeneity  q with sigma(ct) = c^q sigma(t) for c > 0
    smooth       whether derivatives exist everywhere
    binary       whether the symbols take the values 0 and 1 only
    """

    name: str
    symbols: tuple[sp.Symbol, ...]
    value: sp.Expr
    derivatives: tuple[sp.Expr, ...]
    functions: tuple[sp.Expr, ...]
    homogeneity: int | None = None
    smooth: bool = True
    binary: bool = False

    def derive(self, expression: sp.Expr) -> sp.Expr:
        """Return d/dt of a polynomial in t and the symbols."""
        chain = (sp.diff(expression, s) * d for s, d in zip(self.symbols, self.derivatives, strict=True))
        return sp.expand(sp.diff(expression, T) + sum(chain, sp.Integer(0)))


def _kernels() -> tuple[Kernel, ...]:
    t = T
    S, P, f, H, L, Y = sp.symbols("S P f H L T")
    # The logistic function as a tanh, whose derivatives sympy writes as polynomials in itself.
    logistic, step = (1 + sp.tanh(t / 2)) / 2, sp.Heaviside(t)
    leak = sp.Rational(1, 100)
    return (
        Kernel("tanh", (Y,), Y, (1 - Y**2,), (sp.tanh(t),)),
        Kernel("sigmoid", (S,), S, (S * (1 - S),), (logistic,)),
        Kernel(
            "gelu",
            (P, f),
            t * P,
            (f, -t * f),
            ((1 + sp.erf(t / sp.sqrt(2))) / 2, sp.exp(-(t**2) / 2) / sp.sqrt(2 * sp.pi)),
        ),
        Kernel("silu", (S,), t * S, (S * (1 - S),), (logistic,)),
        Kernel("softplus", (L, S), L, (S, S * (1 - S)), (sp.log(1 + sp.exp(t)), logistic)),
        Kernel("relu", (H,), t * H, (sp.Integer(0),), (step,), homogeneity=1, smooth=False, binary=True),
        Kernel(
            "leaky_relu",
            (H,),
            t * (leak + (1 - leak) * H),
            (sp.Integer(0),),
            (step,),
            homogeneity=1,
            smooth=False,
            binary=True,
        ),
        Kernel("identity", (), t, (), (), homogeneity=1),
        Kernel("square", (), t**2, (), (), homogeneity=2),
    )


KERNELS: dict[str, Kernel] = {kernel.name: kernel for kernel in _kernels()}


def kernel(name: str) -> Kernel:
    """Return the kernel with this name: one of ``KERNELS``, or of an activation that was added as a formula.

    Raises ``InputError`` for an unknown name, and for an added activation that has no formula.
    """
    if name in KERNELS:
        return KERNELS[name]
    added = ACTIVATIONS.get(name)
    if added is None:
        raise InputError(f"unknown activation {name!r}; expected one of {', '.join(KERNELS)}")
    if not added.formula:
        raise InputError(
            f"activation {name!r} was added without a formula; algebra needs add_activation(NAME, FORMULA)"
        )
    return of_formula(name, added.formula)


def known(name: str) -> bool:
    """Say whether ``kernel`` knows an activation."""
    return name in KERNELS or bool(name in ACTIVATIONS and ACTIVATIONS[name].formula)


@cache
def of_formula(name: str, text: str) -> Kernel:
    """Return the kernel of an activation that is given as a formula.

    Each function in it becomes a symbol whose derivative is a polynomial in t and the symbols,

        E = exp(u): u'E     Y = tanh(u): u'(1 - Y^2)     L = log(u): u'R     R = 1/u: -u'R^2
        Q = u^(-1/2): -u'Q^3/2     F = 2/sqrt(pi) exp(-u^2): -2uu'F     P = erf(u): u'F
        S = sin(u): u'C     C = cos(u): -u'S

    with u itself such a polynomial. Symbols need not be independent as functions of t. A dependence among
    them that the algebra overlooks makes the formal rank larger than the numeric one, which ``rate_table``
    says.

    Raises ``InputError`` for a formula that ``formulas.parsed`` refuses.

    >>> of_formula("isru", "x/sqrt(1+x**2)").value
    Q0*t
    """
    ring = _Ring()
    value = sp.expand(ring.element(parsed(text)))
    return Kernel(name, tuple(ring.symbols), value, tuple(ring.derivatives), tuple(ring.functions))


class _Ring:
    """Collect symbols with their derivatives, until an expression is a polynomial in t and them."""

    def __init__(self) -> None:
        self.symbols: list[sp.Symbol] = []
        self.derivatives: list[sp.Expr] = []
        self.functions: list[sp.Expr] = []

    def element(self, expression: sp.Expr) -> sp.Expr:
        """Return an expression as a polynomial in t and the symbols."""
        if expression.is_Rational or expression == T:
            return expression
        if expression.is_Add or expression.is_Mul:
            return expression.func(*(self.element(part) for part in expression.args))
        if expression.is_Pow and expression.base is not sp.E and (2 * expression.exp).is_Integer:
            return self._power(expression.base, expression.exp)
        # exp(u) is a power of e in SymPy's own eyes.
        if isinstance(expression, sp.exp):
            return self._symbol("E", expression, lambda own: self._slope(expression.args[0]) * own)
        if isinstance(expression, sp.tanh):
            return self._symbol("Y", expression, lambda own: self._slope(expression.args[0]) * (1 - own**2))
        if isinstance(expression, sp.log):
            u = expression.args[0]
            return self._symbol("L", expression, lambda own: self._slope(u) * self.element(1 / u))
        if isinstance(expression, sp.erf):
            return self._symbol("P", expression, lambda own: self._slope(expression.args[0]) * self._bell(expression))
        if isinstance(expression, sp.sin | sp.cos):
            u, sine = expression.args[0], isinstance(expression, sp.sin)
            other, sign = (sp.cos(u), 1) if sine else (sp.sin(u), -1)
            return self._symbol(
                "S" if sine else "C", expression, lambda own: sign * self._slope(u) * self.element(other)
            )
        # A constant such as sqrt(2) or pi: a symbol whose derivative is zero.
        if not expression.free_symbols:
            return self._symbol("K", expression, lambda own: sp.Integer(0))
        raise InputError(f"no rule of differentiation for {expression}; expected sums, powers and known functions")

    def _power(self, base: sp.Expr, exponent: sp.Rational) -> sp.Expr:
        """Return u^m as a power of u, 1/u or u^(-1/2)."""
        if exponent.is_Integer:
            if exponent > 0:
                return self.element(base) ** exponent
            inverse = self._symbol("R", 1 / base, lambda own: -self._slope(base) * own**2)
            return inverse ** (-exponent)
        root = self._symbol("Q", 1 / sp.sqrt(base), lambda own: sp.Rational(-1, 2) * self._slope(base) * own**3)
        if exponent < 0:
            return root ** int(-2 * exponent)
        return self.element(base) ** (exponent + sp.Rational(1, 2)) * root

    def _bell(self, expression: sp.Expr) -> sp.Expr:
        u = expression.args[0]
        bell = 2 / sp.sqrt(sp.pi) * sp.exp(-(u**2))
        return self._symbol("F", bell, lambda own: -2 * self.element(u) * self._slope(u) * own)

    def _slope(self, expression: sp.Expr) -> sp.Expr:
        return self.element(sp.diff(expression, T))

    def _symbol(self, letter: str, function: sp.Expr, derivative: Callable[[sp.Symbol], sp.Expr]) -> sp.Symbol:
        """Return the symbol of a function; a new one gets its derivative, which may need further symbols."""
        if function in self.functions:
            return self.symbols[self.functions.index(function)]
        own = sp.Symbol(f"{letter}{len(self.symbols)}")
        place = len(self.symbols)
        self.symbols.append(own)
        self.functions.append(function)
        self.derivatives.append(sp.Integer(0))
        self.derivatives[place] = sp.expand(derivative(own))
        return own

"""Write activations as elements of a differential ring: polynomials in t and few symbols, closed under d/dt.

    tanh: T' = 1 - T^2             sigmoid: S' = S (1 - S)
    gelu: t P, P' = f, f' = -t f   relu: t H, H' = 0, H^2 = H

Differentiating a prompt's contribution then never leaves the polynomials in the inputs and these symbols,
where linear dependences can be decided exactly. The symbols are treated as independent unknowns, which they
are as functions of t unless the argument w'x degenerates (w = 0): there the formal rank is too high, and only
numbers tell.
"""

from __future__ import annotations

from dataclasses import dataclass

import sympy as sp

from moe_prompts.errors import InputError

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
    """Return the kernel with this name.

    Raises ``InputError`` for an unknown name.
    """
    if name not in KERNELS:
        raise InputError(f"unknown activation {name!r}; expected one of {', '.join(KERNELS)}")
    return KERNELS[name]

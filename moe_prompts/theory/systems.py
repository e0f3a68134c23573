"""Write the polynomial systems that decide how fast the atoms of one Voronoi cell are found.

The likelihood of m atoms that share a cell, expanded around their common true atom, is a combination of
independent derivatives. Its coefficients must vanish for the atoms to hide, and their leading parts are

    S1, location-scale
        f_alpha   = sum_l w_l [t^alpha] exp(q1 t + q2 t^2)
    S2, softmax gate
        f_{l1,l2} = sum_l w_l [D1^l1 D2^l2] exp(beta D1 + b D2 + a D1 D2 + s D2^2 / 2)
    S2, Gaussian gate
        f_{l1,l2} = sum_l w_l [D1^l1 D2^l2]
                    exp(c D1 + b D2 + Gamma D1^2 / 2 + Gamma* a D1 D2 + nu D2^2 / 2)

with w_l > 0 the masses and the other letters the atoms' differences from the true one. S2 is written as
published, as a sum over multi-indices: row (l1, l2) collects the monomials whose exponents lie in J(l1, l2).
In the Gaussian-gated case Gamma* is the true covariance of the gate, and the rows are the leading parts for
every c*.

Sources: S1 Ho and Nguyen, Annals of Statistics 2016; S2 arXiv 2305.03288 (softmax gate), 2305.07572 (Gaussian
gate).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from functools import reduce
from math import factorial
from operator import add, mul
from typing import Any

from moe_prompts.errors import InputError

MultiIndex = tuple[int, ...]

#: The differences of one atom, in the order of the multi-indices.
PARAMETERS = {
    "softmax-gaussian": ("beta", "a", "b", "s"),
    "gaussian-gated": ("c", "Gamma", "a", "b", "nu"),
}


def _softmax_gaussian(l1: int, l2: int) -> Iterator[MultiIndex]:
    """Yield (a1, a2, a3, a4) with a1 + a2 = l1 and a2 + a3 + 2 a4 = l2."""
    for a4 in range(l2 // 2 + 1):
        for a2 in range(min(l1, l2 - 2 * a4) + 1):
            yield l1 - a2, a2, l2 - 2 * a4 - a2, a4


def _gaussian_gated(l1: int, l2: int) -> Iterator[MultiIndex]:
    """Yield (a1, .., a5) with a1 + 2 a2 + a3 = l1 and a3 + a4 + 2 a5 = l2."""
    for a3 in range(min(l1, l2) + 1):
        for a2 in range((l1 - a3) // 2 + 1):
            for a5 in range((l2 - a3) // 2 + 1):
                yield l1 - a3 - 2 * a2, a2, a3, l2 - a3 - 2 * a5, a5


#: Kind -> the published J, as a function of the row (l1, l2).
INDEX_SETS: dict[str, Callable[[int, int], Iterator[MultiIndex]]] = {
    "softmax-gaussian": _softmax_gaussian,
    "gaussian-gated": _gaussian_gated,
}


def index_set(kind: str, l1: int, l2: int) -> frozenset[MultiIndex]:
    """Return the published J(l1, l2): exponents of the monomials in row (l1, l2) of S2.

    They are in the order of ``PARAMETERS``. Raises ``InputError`` for an unknown kind and for negative
    orders.
    """
    _check_kind(kind)
    if min(l1, l2) < 0:
        raise InputError(f"index set: row ({l1}, {l2}); expected two orders >= 0")
    return frozenset(INDEX_SETS[kind](l1, l2))


def s1(weights: Sequence[Any], q1: Sequence[Any], q2: Sequence[Any], order: int) -> list[Any]:
    """Return [f_1, .., f_order], f_alpha = sum_l w_l [t^alpha] exp(q1_l t + q2_l t^2).

    There is one entry per atom in each list. The result is exact in whatever is given: ints and Fractions
    give Fractions; elements of a commutative ring over the rationals (polynomials, matrices that commute)
    give elements of it; SymPy expressions come back unexpanded. Raises ``InputError`` for lists of different
    lengths and orders below 1.
    """
    _check_order(order)
    _check_lengths("s1", weights=weights, q1=q1, q2=q2)
    atoms = [[w * term for term in _scaled_terms(a, b, order)] for w, a, b in zip(weights, q1, q2, strict=True)]
    return [
        reduce(add, column) * Fraction(1, factorial(alpha))
        for alpha, column in enumerate(zip(*atoms, strict=True), start=1)
    ]


def _scaled_terms(q1: Any, q2: Any, order: int) -> list[Any]:
    """Return H_alpha = alpha! [t^alpha] exp(q1 t + q2 t^2) for alpha = 1..order.

    The recurrence H_alpha = q1 H_{alpha-1} + 2 (alpha - 1) q2 H_{alpha-2} has integer coefficients, so it
    runs in any commutative ring; the division by alpha! is left to the end.
    """
    terms = [1, q1]
    for alpha in range(2, order + 1):
        terms.append(q1 * terms[-1] + 2 * (alpha - 1) * (q2 * terms[-2]))
    return terms[1 : order + 1]


def s2(
    kind: str, weights: Sequence[Any], deltas: Sequence[Sequence[Any]], order: int, gamma: Any = 1
) -> dict[tuple[int, int], Any]:
    """Return the rows of S2: {(l1, l2): f_{l1,l2}} for 1 <= l1 + l2 <= order.

        f_{l1,l2} = sum_l w_l sum_{alpha in J(l1,l2)} const(alpha) prod_i delta_i^alpha_i / alpha_i!

    const is 2^{-a4} (softmax gate) or Gamma*^a3 2^{-(a2+a5)} (Gaussian gate). The result is exact as that of
    ``s1``.

    kind     one of ``PARAMETERS``
    weights  one per atom
    deltas   one tuple per atom, in the order of ``PARAMETERS``
    order    highest l1 + l2, at least 1
    gamma    Gamma*; it has no part in the softmax gate

    Raises ``InputError`` for anything else.
    """
    _check_kind(kind)
    _check_order(order)
    _check_lengths("s2", weights=weights, deltas=deltas)
    for delta in deltas:
        if len(delta) != len(PARAMETERS[kind]):
            names = ", ".join(PARAMETERS[kind])
            raise InputError(f"s2: an atom has {len(delta)} differences; expected those of {names} for {kind}")
    half = Fraction(1, 2)
    constants = {"softmax-gaussian": (1, 1, 1, half), "gaussian-gated": (1, half, gamma, 1, half)}[kind]
    atoms = [[value * constant for value, constant in zip(delta, constants, strict=True)] for delta in deltas]
    rows = [(l1, total - l1) for total in range(1, order + 1) for l1 in range(total, -1, -1)]
    return {
        row: reduce(
            add,
            (
                w * _divided_power(atom, alpha)
                for w, atom in zip(weights, atoms, strict=True)
                for alpha in INDEX_SETS[kind](*row)
            ),
        )
        for row in rows
    }


def _divided_power(values: Sequence[Any], alpha: MultiIndex) -> Any:
    """Return prod_i values_i^alpha_i / alpha_i!.

    Exponents 0 are skipped, since 0^0 is an error in some rings.
    """
    return reduce(mul, (x**a * Fraction(1, factorial(a)) for x, a in zip(values, alpha, strict=True) if a))


def _check_kind(kind: str) -> None:
    if kind not in PARAMETERS:
        raise InputError(f"S2: kind = {kind!r}; expected one of {', '.join(PARAMETERS)}")


def _check_order(order: int) -> None:
    if order < 1:
        raise InputError(f"polynomial system: order = {order}; expected at least 1")


def _check_lengths(system: str, **lists: Sequence[Any]) -> None:
    lengths = {name: len(values) for name, values in lists.items()}
    if len(set(lengths.values())) > 1 or 0 in lengths.values():
        given = ", ".join(f"{length} {name}" for name, length in lengths.items())
        raise InputError(f"{system}: given {given}; expected one of each per atom, and at least one atom")

"""Count by exact arithmetic how many derivatives of zero-initialised attention are independent.

With B and C the identity and key = value = p the mean of the prompts is

    f = sum_l w_l e^{p_l'x} p_l / Z,   Z = sum_l w_l e^{p_l'x},   output tanh(alpha) f.

Times Z^2 its derivatives by b_l, by p_l and by alpha, and the second ones by p_l, are sums of e^{(p_l +
p_m)'x} times polynomials in x. At rational parameters with different p_l + p_m these are vectors of
rationals, whose rank is exact. One dependence of first order is there for all parameters, the common part of
all b. Where it is the only one, no combination of second derivatives lies in the span of the first: splits
are seen to second order and have n^-1/4, all else n^-1/2. The rank is that of these parameters, and so of all
but a set of measure zero.

A non-linear prompt key = value = s(p) with s' != 0 is another name of the same parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from sympy import QQ
from sympy.polys.matrices import DomainMatrix

from moe_prompts.errors import InputError

#: A polynomial in x1, x2, ..: powers -> coefficient; and sums of exponentials: exponent -> polynomial.
Polynomial = dict[tuple[int, ...], Fraction]
Exponentials = dict[tuple[Fraction, ...], Polynomial]


@dataclass(frozen=True)
class Independence:
    """Hold a number of derivatives and the exact rank of them."""

    columns: int
    rank: int

    @property
    def dependences(self) -> int:
        """Return how many dependences there are."""
        return self.columns - self.rank


def independence(
    prompts: Sequence[Sequence[Fraction]], masses: Sequence[Fraction], split: Sequence[int]
) -> Independence:
    """Return the rank of all first derivatives and of the second ones by the prompts ``split``.

    prompts  L rational vectors, with L(L + 1)/2 different sums of two
    masses   L positive rationals w_l
    split    numbers of prompts that are split in two, each once

    Raises ``InputError`` where sums of two prompts coincide, and for numbers that do not fit each other.

    >>> from fractions import Fraction as F
    >>> independence([(F(1), F(2)), (F(-3), F(1, 2))], [F(1), F(2)], split=[0])
    Independence(columns=10, rank=9)
    """
    if not prompts or len(masses) != len(prompts) or not set(split) <= set(range(len(prompts))):
        raise InputError(
            f"independence: {len(prompts)} prompts, {len(masses)} masses, split {list(split)}; expected as many masses "
            "as prompts, at least one, and split among their numbers"
        )
    L, d = len(prompts), len(prompts[0])
    sums = {
        (l, m): tuple(a + b for a, b in zip(prompts[l], prompts[m], strict=True)) for l in range(L) for m in range(L)
    }
    if len(set(sums.values())) != L * (L + 1) // 2:
        raise InputError("independence: sums of two prompts coincide; expected prompts in general position")
    units = [tuple(int(i == j) for j in range(d)) for i in range(d)]
    constant = (0,) * d

    def column(l: int, output: int, of_gate: Polynomial, of_value: Polynomial) -> Exponentials:
        """Return w_l e^{s_l} [of_gate (p_l - f) + of_value] Z^2 / Z for one output: a sum over prompts m."""
        found: Exponentials = {}
        for m in range(L):
            scale = masses[l] * masses[m]
            gap = prompts[l][output] - prompts[m][output]
            for part, factor in ((of_gate, gap), (of_value, Fraction(1))):
                for powers, coefficient in part.items():
                    _add(found, sums[l, m], powers, scale * factor * coefficient)
        return found

    def of_prompt(l: int, of_gate: Polynomial, value_of: dict[int, Polynomial]) -> list[Exponentials]:
        return [column(l, output, of_gate, value_of.get(output, {})) for output in range(d)]

    one = Fraction(1)
    columns = [of_prompt(l, {constant: one}, {}) for l in range(L)]  # by b_l
    columns += [of_prompt(l, {units[i]: one}, {i: {constant: one}}) for l in range(L) for i in range(d)]
    factor: list[Exponentials] = [{} for _ in range(d)]  # by alpha: f Z^2
    for (l, m), exponent in sums.items():
        for output in range(d):
            _add(factor[output], exponent, constant, masses[l] * masses[m] * prompts[l][output])
    columns.append(factor)
    for l in split:
        for i in range(d):
            for j in range(i, d):
                square = tuple(a + b for a, b in zip(units[i], units[j], strict=True))
                value_of = {i: {units[j]: one}, j: {units[i]: one}} if i != j else {i: {units[i]: Fraction(2)}}
                columns.append(of_prompt(l, {square: one}, value_of))
    places = sorted({(o, e, p) for c in columns for o, part in enumerate(c) for e, poly in part.items() for p in poly})
    rows = [[QQ(*_ratio(c[o].get(e, {}).get(p, Fraction(0)))) for o, e, p in places] for c in columns]
    return Independence(len(columns), DomainMatrix(rows, (len(rows), len(places)), QQ).rank())


def _add(to: Exponentials, exponent: tuple[Fraction, ...], powers: tuple[int, ...], value: Fraction) -> None:
    here = to.setdefault(exponent, {})
    here[powers] = here.get(powers, Fraction(0)) + value


def _ratio(value: Fraction) -> tuple[int, int]:
    return value.numerator, value.denominator

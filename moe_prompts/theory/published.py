"""List published exponents, for the column of comparison only: no rate is derived from anything here.

theta is as in ``exponents``: the rate is n^{-1/(2 theta)}. With r = r(m) = 4, 6 for m = 2, 3 and "at least 7"
beyond:

    location-scale     b: r, s: r/2                             Ho and Nguyen, Annals of Statistics 2016
    softmax-gaussian   beta, b: r, a, s: r/2                    arXiv 2305.03288
    gaussian-gated     c, b: r, Gamma, nu: r/2,                 arXiv 2305.07572
                       a: 2 (type I), r/2 (type II, where c* = 0)
    fixed, prefix      2                                        arXiv 2410.02200
    decoupled          slower than any power of 1/n,            arXiv 2410.02200
                       key and value together
    adaptive           2 for tanh, gelu                         arXiv 2501.18936
    softmax-linear     slower than any power of 1/n,            arXiv 2402.02952
                       all parameters together

Rates of relu are asked here: the assumptions of arXiv 2501.18936 on activations may exclude kinks. What is
stated of all parameters together is compared with the groups that have no rate, and with no other.

Cells of one atom have n^{-1/2} throughout. The powers are those of the papers' loss functions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from moe_prompts.theory.exponents import Exponent, Theta

CITATIONS = {
    "location-scale": "Ho and Nguyen, Annals of Statistics 2016",
    "softmax-gaussian": "arXiv 2305.03288",
    "gaussian-gated": "arXiv 2305.07572",
    "fixed": "arXiv 2410.02200",
    "prefix": "arXiv 2410.02200",
    "decoupled": "arXiv 2410.02200",
    "adaptive:tanh": "arXiv 2501.18936",
    "adaptive:gelu": "arXiv 2501.18936",
    "softmax-linear": "arXiv 2402.02952",
}
#: Powers r(m) / divisor of the losses; "a" of the Gaussian-gated model depends on c*.
DIVISORS = {
    "location-scale": {"b": 1, "s": 2},
    "softmax-gaussian": {"beta": 1, "b": 1, "a": 2, "s": 2},
    "gaussian-gated": {"c": 1, "b": 1, "Gamma": 2, "nu": 2},
}


#: Stated to have no rate together with the others: the groups of which it is true, found by the algebra.
TOGETHER = {"decoupled": ("v",), "softmax-linear": ("a", "b")}


@dataclass(frozen=True)
class Published:
    """Hold a published exponent.

    theta     n^{-1/(2 theta)}
    bound     whether theta is only known to be at least this, since r(m) >= 7 is all that is published for m
              >= 4
    citation  the paper
    """

    theta: Theta
    bound: bool
    citation: str

    @property
    def text(self) -> str:
        """Return the rate as it is printed."""
        if self.theta == math.inf:
            return "none"
        if self.bound:
            return f"n^(-1/{'(2r)' if self.theta == 7 else 'r'}), r >= 7"
        return f"n^(-1/{2 * Fraction(self.theta)})"


def published(
    kind: str, options: Mapping[str, Any], group: str, m: int, stratum: Mapping[str, Any]
) -> Published | None:
    """Return what is published for a group of parameters in a cell of m atoms, or None."""
    citation = CITATIONS.get(kind)
    if citation is None or options.get("rank"):
        return None
    if m == 1:
        return Published(Fraction(1), False, citation)
    r = {2: 4, 3: 6}.get(m, 7)
    if kind in DIVISORS:
        if group in DIVISORS[kind]:
            return Published(Fraction(r, DIVISORS[kind][group]), m >= 4, citation)
        return (
            Published(Fraction(r, 2), m >= 4, citation)
            if stratum.get("c") == 0
            else Published(Fraction(2), False, citation)
        )
    if kind in TOGETHER:
        return Published(math.inf, False, citation) if group in TOGETHER[kind] else None
    return Published(Fraction(2), False, citation)


def agreement(found: Exponent, known: Published | None) -> str:
    """Say how the derived exponent compares with the published one.

    A faster published rate is contradicted; a slower one is valid but loose.
    """
    if known is None or found.theta is None:
        return ""
    if found.status == "one-sided":
        return "consistent" if found.theta <= known.theta or known.bound else "no: published is too fast"
    if found.theta == known.theta:
        return "yes"
    if found.theta > known.theta:
        return "yes" if known.bound and found.theta != math.inf else "no: published is too fast"
    return "published is looser"

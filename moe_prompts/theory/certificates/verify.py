"""Check whether a certificate is true, from the definition of the atoms alone.

The means are others than those that found it. Derivatives are taken by sympy from the explicit functions,
identities are multiplied out, minors are eliminated again in interval arithmetic, definiteness is read off
determinants and characteristic polynomials, and witnesses are summed. Of the code that makes certificates
only the definitions of atoms and mixtures and the interval functions are used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from moe_prompts.errors import InputError
from moe_prompts.shown import Shown
from moe_prompts.theory.certificates import bounds, ranks
from moe_prompts.theory.certificates.basis import (
    LOWER,
    ORBIT,
    REGISTER,
    UPPER,
    Claims,
    Refuted,
    check_sizes,
    claims,
    configuration_of,
    require,
)
from moe_prompts.theory.certificates.limits import excess
from moe_prompts.theory.mixture import Mixture

REGISTER.update(ranks.CHECKS)
REGISTER.update(bounds.CHECKS)


@dataclass(frozen=True, repr=False)
class Verification(Shown):
    """Say whether every statement of a certificate was found true.

    ok      whether it was; the verification itself is truthy then
    reason  which statement was not true
    """

    ok: bool
    reason: str

    def __bool__(self) -> bool:
        return self.ok


def verify(certificate: Mapping[str, Any]) -> Verification:
    """Check a certificate of ``rate_table``, ``dependences`` or ``solvability``, or its JSON read back.

    Returns a ``Verification``, truthy if every statement holds. Derivatives, ranks and witnesses are computed
    again by other means than those that found them.

    Raises ``InputError`` where there is no certificate of a known kind.

    >>> import moe_prompts as mp
    >>> from moe_prompts.theory.solvability import rational_witness
    >>> bool(mp.verify(rational_witness(2)))
    True
    """
    kind = certificate.get("kind") if isinstance(certificate, Mapping) else None
    if not isinstance(kind, str) or kind not in REGISTER:
        given = kind if isinstance(certificate, Mapping) else type(certificate).__name__
        given = (
            given if not isinstance(given, str | list | tuple | dict) or len(str(given)) < 60 else f"{given!s:.57}..."
        )
        raise InputError(
            f"certificate of kind {given!r}; expected a dict with kind one of {', '.join(sorted(REGISTER))}"
        )
    return _checked(certificate, lambda: claims(certificate))


def _checked(untrusted: Mapping[str, Any], check: Callable[[], Any]) -> Verification:
    if too_large := excess(untrusted):
        return Verification(False, f"larger than any certificate of this package: {too_large}")
    try:
        check()
    except Refuted as fault:
        return Verification(False, str(fault))
    except Exception as fault:  # a certificate is untrusted input: whatever breaks on it is a fault of it
        said = " ".join(str(fault).split())  # it may quote what was read, with line ends of any kind
        return Verification(False, f"not a well-formed certificate: {type(fault).__name__}: {said}")
    return Verification(True, "every statement holds")


def verify_table(table: Mapping[str, Any]) -> Verification:
    """Check a rate table as ``RateTable.to_json`` writes it, read back.

    Every certificate is checked, that no row is missing, and that theta, slope and status of every row follow
    from the certificates that it names. Other entries are text. Returns a ``Verification``.

    >>> import json
    >>> import moe_prompts as mp
    >>> table = json.loads(mp.rate_table("softmax-gaussian", cells=[1, 1]).to_json())
    >>> bool(mp.verify_table(table))
    True
    """
    return _checked(table, lambda: _check_table(table))


def _check_table(table: Mapping[str, Any]) -> None:
    configuration, sizes = table["configuration"], table["configuration"]["sizes"]
    mixture = Mixture.from_json(configuration["mixture"])
    made = mixture.atom
    check_sizes(mixture, sizes)
    found = {}
    for name, certificate in table["certificates"].items():
        require(certificate["kind"] in UPPER + LOWER, f"{name} bounds nothing")
        require(configuration_of(certificate) == configuration["mixture"], f"{name} is about another configuration")
        require(certificate.get("sizes", sizes) == sizes, f"{name} is about other sizes")
        found[name] = (certificate["kind"] in UPPER, claims(certificate))
    numeric = any(not unit.kernel.smooth for unit in made.units) and max(configuration["sizes"]) > 1
    for row in table["rates"]:
        cell = None if row["cell"] is None else int(row["cell"]) - 1
        orbit = row["group"] == ORBIT
        require(row["m"] == (None if cell is None else sizes[cell]), f"row {row['group']}: the cell has another size")
        if orbit:
            names = [name for sides in row["certificates"].values() for name in sides.values() if name is not None]
            require(
                bool(names) and all(table["certificates"][name].get("how") == "orbit" for name in names), "no orbit"
            )
        held = set() if cell is None else {*made.shared, *made.pinned}
        group = {str(p) for p in made.groups.get(row["group"], ()) if p not in held and p not in made.pinned}
        require(
            orbit or (bool(group) and set(row["certificates"]) == group), f"row {row['group']} does not cover its group"
        )
        thetas = [_settled(cell, p, sides, found, numeric) for p, sides in row["certificates"].items()]
        theta, status = _slowest(thetas)
        require(row["slope"] == slope_of(theta), f"row {row['group']}, cell {row['cell']}: slope {slope_of(theta)}")
        require(
            row["theta"] == theta and row["status"] == status,
            f"row {row['group']}, cell {row['cell']}: {theta}, {status}",
        )
    listed, common = {(row["group"], row["cell"]) for row in table["rates"]}, {*made.shared, *made.pinned}
    for name, params in made.groups.items():
        cells = [j + 1 for j in range(len(sizes))] if set(params) - common else []
        every = [None] if set(params) & set(made.shared) - set(made.pinned) else []
        require(all((name, cell) in listed for cell in (*cells, *every)), f"rows of {name} are missing")


def slope_of(theta: str) -> str | None:
    """Return -1 / (2 theta) as text, 0 where there is no rate."""
    return None if theta == "" else "0" if theta == "infinite" else str(-1 / (2 * Fraction(theta)))


def _settled(
    cell: int | None,
    param: str,
    sides: Mapping[str, str | None],
    found: Mapping[str, tuple[bool, Claims]],
    numeric: bool,
) -> tuple[float, str, bool]:
    """Return (theta, status, whether a bound is known) of one parameter."""
    bounds: dict[str, Fraction | float | None] = {}
    for side, name in sides.items():
        if name is None:
            bounds[side] = None
            continue
        upper, claimed = found[name]
        require(upper == (side == "upper") and (cell, param) in claimed, f"{name} is no {side} bound of {param}")
        bounds[side] = claimed[cell, param]
    low, high = bounds["lower"], bounds["upper"]
    if low == math.inf:
        return math.inf, "proved", True
    if low is not None and low == high:
        return float(low), "numeric" if numeric else "proved", True
    trivial = sides["lower"] is None or sides["lower"].startswith(("split", "one atom"))
    return float(low or 0), "undetermined" if trivial else "one-sided", not trivial


def _slowest(parts: list[tuple[float, str, bool]]) -> tuple[str, str]:
    """Return theta as text and the status of a group, from those of its parameters."""
    if any(theta == math.inf for theta, _, _ in parts):
        return "infinite", "proved"
    order = ["proved", "numeric", "one-sided", "undetermined"]
    status = max((status for _, status, _ in parts), key=order.index)
    if status == "undetermined":
        return "", status
    return str(Fraction(max(theta for theta, _, _ in parts))), status

"""Limit how large a certificate may be, before anything in it is computed.

A certificate is read from a file that anybody may have written. Numbers of a billion digits, derivatives of
order a million or powers of powers would keep a check busy for ever; the largest of this package's own
certificates are noted beside the bounds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

#: Levels of lists and dicts (own: 10), entries in all (own: 1335), characters of a text (own: 143), digits of
#: a number (own: 31), decimal exponent of a number.
DEPTH, ENTRIES, TEXT, DIGITS, EXPONENT = 24, 100_000, 4000, 200, 400
#: Whole numbers (own: 60), and those under these names (own, in this order: 4, 3, 3, 1, 60, 2, 2, 1, 2, 2).
NUMBER = 1000
NAMED = {
    "order": 8,
    "m": 12,
    "sizes": 12,
    "frozen": 8,
    "digits": 1000,
    "weight": 32,
    "weights": 32,
    "degree": 16,
    "power": 16,
    "hidden": 3,
}
#: Derivatives of one cell: (order + 1)^(number of parameters) (own: 6561).
DERIVATIVES = 20_000
#: Levels of powers multiply up to this (own: 16).
POWER = 32

_EXPONENT = re.compile(r"[\d.]_?[eE][+-]?(\d[\d_]*)")


def excess(certificate: Any) -> str | None:
    """Return what is too large in a certificate or a table, in one line; None if nothing is."""
    entries = 0

    def look(value: Any, name: str, most: int, depth: int) -> str | None:
        nonlocal entries
        entries += 1
        if entries > ENTRIES:
            return f"more than {ENTRIES} entries"
        if depth > DEPTH:
            return f"more than {DEPTH} levels of lists and dicts"
        if isinstance(value, Mapping):
            return _cells(value) or next(
                (
                    found
                    for key, one in value.items()
                    if (
                        found := _text(str(key), name, NUMBER)
                        or look(one, str(key), min(most, NAMED.get(key, NUMBER)), depth + 1)
                    )
                ),
                None,
            )
        if isinstance(value, list | tuple):
            return next((found for one in value if (found := look(one, name, most, depth + 1))), None)
        if isinstance(value, str):
            return _text(value, name, most)
        if isinstance(value, int | float):
            return None if abs(value) <= most else _large(name, most)  # not so for infinity and NaN
        return None if value is None else f"{name} is of type {type(value).__name__}"

    return look(certificate, "certificate", NUMBER, 0)


def _large(name: str, most: int) -> str:
    return f"{name} has a number beyond {most}"


def _text(text: str, name: str, most: int) -> str | None:
    if len(text) > TEXT:
        return f"{name} has a text of {len(text)} characters, more than {TEXT}"
    if any(len(found.replace("_", "")) > DIGITS for found in re.findall(r"[\d_]+", text)):
        return f"{name} has a number of more than {DIGITS} digits"
    if any(len(found) > 3 or int(found) > EXPONENT for found in _EXPONENT.findall(text)):
        return f"{name} has a number with an exponent beyond {EXPONENT}"
    # Where a name has a bound of its own, a number written as text is one, too.
    if (
        (most < NUMBER or name in NAMED)
        and re.fullmatch(r"\s*[+-]?[\d_]+\s*", text)
        and abs(int(text.replace("_", ""))) > most
    ):
        return _large(name, most)
    return None


def _cells(value: Mapping[str, Any]) -> str | None:
    """Return what is wrong with the size of a mixture's cells, or None.

    Its derivatives are as many as its orders and parameters make them.
    """
    cells = value.get("cells") if "atom" in value else None
    for cell in cells if isinstance(cells, list) else []:
        order, theta = (cell.get("order"), cell.get("theta")) if isinstance(cell, Mapping) else (None, None)
        if isinstance(order, int | float | str) and isinstance(theta, Mapping):
            try:
                many = (min(abs(int(order)), NUMBER) + 1) ** min(len(theta), NUMBER)
            except (ValueError, OverflowError):
                continue  # no whole number: the check of the mixture says so
            if many > DERIVATIVES:
                return f"a cell with {len(theta)} parameters has more than {DERIVATIVES} derivatives"
    return None

"""Tables of rates, each derived once per process: some take seconds, and several files of tests ask for the same."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from moe_prompts.theory.table import RateTable, rate_table


def table(model: str, cells: Iterable[int], stratum: Iterable[tuple[str, Any]] = (), **options: Any) -> RateTable:
    """``rate_table`` with the ``stratum`` in pairs; a reader changes nothing in what it returns."""
    return _table(model, tuple(cells), tuple(stratum), tuple(sorted(options.items())))


@cache
def _table(model: str, cells: tuple[int, ...], stratum: tuple, options: tuple) -> RateTable:
    return rate_table(model, list(cells), stratum=dict(stratum), **dict(options))

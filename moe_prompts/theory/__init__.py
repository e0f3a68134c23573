"""The algebra's predictions, as data: what a study compares its slopes with, without importing SymPy."""

from __future__ import annotations

import json
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from importlib import resources

from moe_prompts.errors import InputError


@dataclass(frozen=True)
class Prediction:
    """error ~ n^exponent; ``over`` says on which sizes the exponent is read: "grid" or "last decade"."""

    exponent: Fraction
    over: str
    source: str


@cache
def predictions() -> tuple[dict[str, str], ...]:
    """All entries of predictions.json."""
    text = resources.files(__package__).joinpath("predictions.json").read_text(encoding="utf-8")
    return tuple(json.loads(text)["predictions"])


def predict(model: str, truth_kind: str, kind: str, cell_sizes: str, group: str) -> Prediction | None:
    """The predicted exponent of ``group`` ("risk", "D", ...), or None where theory is silent.

    ``cell_sizes``: "exact", "over", "contained" or "misspecified", as in the file's schema.
    """
    wanted = {"model": model, "truth_kind": truth_kind, "kind": kind, "cell_sizes": cell_sizes, "group": group}
    found = [entry for entry in predictions() if all(entry[key] in (value, "*") for key, value in wanted.items())]
    if len(found) > 1:
        raise InputError(f"predictions.json has {len(found)} entries for {wanted}; expected at most one")
    return Prediction(Fraction(found[0]["exponent"]), found[0]["over"], found[0]["source"]) if found else None

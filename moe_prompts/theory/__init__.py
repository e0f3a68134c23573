"""Rates predicted by algebra; what a study compares its slopes with is read from a file, without importing
SymPy.

kernels, atoms         what one expert contributes, as elements of a differential ring
arithmetic, jets       all partial derivatives at one place: residues, exact, 60 digits, intervals
mixture, dependences   linear dependences among the derivatives of an atom, or of all cells of a truth together
rows, systems          Taylor rows of an over-fitted cell; the polynomial systems S1 and S2 of the literature
solvability            rbar(m) = 2m: the proof and exact witnesses
definite, exponents    from dependences, rows and witnesses to exponents
table                  rate_table(model, cells=[..])
published              published exponents, for comparison only
certificates           is a certificate true? checked by other means than those that made it
study_predictions      predictions.json
"""

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


def predict(model: str, truth_kind: str, kind: str, fit_class: str, group: str) -> Prediction | None:
    """The predicted exponent of ``group`` ("risk", "D", ...), or None where theory is silent.

    ``fit_class``: "exact", "over", "contained" or "misspecified", as in the file's schema.
    """
    wanted = {"model": model, "truth_kind": truth_kind, "kind": kind, "fit_class": fit_class, "group": group}
    found = [entry for entry in predictions() if all(entry[key] in (value, "*") for key, value in wanted.items())]
    if len(found) > 1:
        raise InputError(f"predictions.json has {len(found)} entries for {wanted}; expected at most one")
    return Prediction(Fraction(found[0]["exponent"]), found[0]["over"], found[0]["source"]) if found else None

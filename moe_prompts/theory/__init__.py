"""Predict rates by algebra.

What a study compares its slopes with is read from a file, without importing SymPy.

kernels, atoms        what one expert contributes, as elements of a differential ring
arithmetic, jets      all partial derivatives at one place: residues, exact, 60 digits, intervals
mixture, dependences  linear dependences among the derivatives of an atom, or of all cells of a truth
rows, systems         Taylor rows of an over-fitted cell; the polynomial systems S1 and S2 of the literature
solvability           rbar(m) = 2m: the proof and exact witnesses
definite, exponents   from dependences, rows and witnesses to exponents
zero_initialised      exact ranks of derivatives of zero-initialised attention
temperature           a common divisor of all logits that is estimated, too
sigmoid_gates         splits of sigmoid gates: what is seen to second order
table                 rate_table(model, cells=[..])
published             published exponents, for comparison only
certificates          is a certificate true? checked by other means than those that made it
study_predictions     predictions.json
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from importlib import resources

from moe_prompts.checks import named
from moe_prompts.errors import InputError
from moe_prompts.models.activations import ACTIVATIONS
from moe_prompts.shown import Shown


@dataclass(frozen=True, repr=False)
class Prediction(Shown):
    """Hold a predicted rate: error ~ n^exponent.

    exponent  as a fraction
    over      on which sizes it is read: "grid" (all) or "last decade"
    source    the derivation or paper
    """

    exponent: Fraction
    over: str
    source: str


@cache
def predictions() -> tuple[dict[str, str], ...]:
    """Return all entries of predictions.json."""
    text = resources.files(__package__).joinpath("predictions.json").read_text(encoding="utf-8")
    return tuple(json.loads(text)["predictions"])


def predict(model: str, truth_kind: str, kind: str, fit_class: str, group: str) -> Prediction | None:
    """Return the predicted exponent of a group of parameters, or None where theory is silent.

    model       such as "gaussian-gated", "softmax-gated" or "prompt-attention"
    truth_kind  kind of prompt of the truth
    kind        kind of prompt that is fitted
    fit_class   "exact", "over", "contained" or "misspecified", as in the file's schema
    group       what is measured: "risk", "D", ...

    Prefixes have one prediction for all functions without kinks; it is derived where the key's has no zero
    slope. Of an activation that was added as a formula, rates are derived when they are first asked for
    (seconds).

    Raises ``InputError`` where the file has several entries for the same question.

    >>> import moe_prompts as mp
    >>> str(mp.predict("gaussian-gated", "adaptive", "adaptive", "exact", "D").exponent)
    '-1/2'
    """
    for name, value in (("model", model), ("truth_kind", truth_kind), ("kind", kind), ("fit_class", fit_class)):
        named(value, f"predict: {name}")
    named(group, "predict: group")
    truth_kind, kind = _without_functions(truth_kind), _without_functions(kind)
    wanted = {"model": model, "truth_kind": truth_kind, "kind": kind, "fit_class": fit_class, "group": group}
    entries = (*predictions(), *_of_added(truth_kind, kind))
    found = [entry for entry in entries if all(entry[key] in (value, "*") for key, value in wanted.items())]
    if len(found) > 1:
        raise InputError(f"predictions.json has {len(found)} entries for {wanted}; expected at most one")
    return Prediction(Fraction(found[0]["exponent"]), found[0]["over"], found[0]["source"]) if found else None


def _without_functions(kind: str) -> str:
    """Return "prefix" for prefixes without a kink, which have one prediction; other kinds as they are."""
    base, *functions = kind.split(":")
    smooth = base == "prefix" and all(name in ACTIVATIONS and ACTIVATIONS[name].analytic for name in functions)
    return base if smooth else kind


def _of_added(truth_kind: str, kind: str) -> tuple[dict[str, str], ...]:
    """Return what algebra derives for an activation that was added as a formula, on a truth of its kind."""
    base, _, name = kind.partition(":")
    formula = ACTIVATIONS[name].formula if base == "adaptive" and name in ACTIVATIONS else ""
    if not formula or truth_kind not in (kind, f"{kind}, singular B"):
        return ()
    return _derived(kind, truth_kind != kind, formula)


@cache
def _derived(kind: str, singular: bool, formula: str) -> tuple[dict[str, str], ...]:
    from moe_prompts.theory.study_predictions import of_prompts

    return tuple(of_prompts(kind, singular))

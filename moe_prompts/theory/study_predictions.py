"""Turn derived exponents into what a study measures: ``predictions.json``.

A study that reads the file never imports SymPy.

    singleton   slowest group of the cells of one atom                     n^{-1/(2 theta)}
    split       slowest group of the cells of two                          n^{-1/(2 theta)}
    D           slowest term of the Voronoi loss, which raises |Delta| to a power q: n^{-q / (2 theta)}
    L2, risk    a theorem about parametric families, not algebra

Where some group has no rate, atoms need not stay in their cells, and of the parameters nothing is predicted.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from moe_prompts.losses.gaussian_voronoi import rbar
from moe_prompts.theory.certificates.basis import ORBIT
from moe_prompts.theory.table import RateTable, rate_table

SCHEMA = {
    "model, truth_kind, kind": "prompt kind of the truth and of the estimator: 'fixed', 'adaptive', 'softmax' for "
    "softmax-gated Gaussian experts, for attention also "
    "'decoupled', 'prefix' and 'adaptive:SIGMA', of a truth ', singular B' where its key projection loses directions; "
    "'*' is any",
    "fit_class": "'exact' (one atom in each cell), 'over' (more atoms than the truth has), 'contained' (another kind, "
    "which contains the truth) or 'misspecified' (the family does not contain the truth)",
    "group": "what is measured",
    "exponent": "p in error ~ n^p, a fraction as text",
    "over": "'grid' (all n of the study) or 'last decade' (asymptotic claims about a plateau)",
    "status": "'proved', 'numeric' (activations with kinks) or 'theorem' (published, not derived)",
    "written by": "python experiments/predicted_rates.py --write",
}
ACTIVATIONS = ("tanh", "gelu", "sigmoid", "relu", "identity")
REGRESSION = "regression function of a parametric family: arXiv 2410.02200, arXiv 2501.18936"
PROJECTION = "the risk of a family that does not contain the truth tends to that of its projection"
DENSITY = (
    "arXiv 2305.07572: the density converges in Hellinger distance at n^-1/2 (up to logarithms), the risk at its square"
)
#: Cells that a study meets: one atom more than the truth can make one cell of two, two more one of three.
LARGEST = 3


def study_predictions() -> dict[str, Any]:
    """Return the content of predictions.json."""
    return {"schema": SCHEMA, "predictions": [*_gaussian_gated(), *_softmax_gated(), *_attention()]}


def to_text(table: dict[str, Any]) -> str:
    """Return the predictions as JSON with one line per entry, which makes readable differences."""
    lines = ",\n    ".join(json.dumps(entry) for entry in table["predictions"])
    return f'{{\n  "schema": {json.dumps(table["schema"])},\n  "predictions": [\n    {lines}\n  ]\n}}\n'


def _entry(
    model: str, truth: str, kind: str, fit_class: str, group: str, exponent: Fraction, status: str, source: str
) -> dict:
    return {
        "model": model,
        "truth_kind": truth,
        "kind": kind,
        "fit_class": fit_class,
        "group": group,
        "exponent": str(exponent),
        "over": "last decade" if fit_class == "misspecified" else "grid",
        "status": status,
        "source": source,
    }


def _source(table: RateTable) -> str:
    """Return the configurations and methods that were derived."""
    methods = {b.method: None for rate in table.rates for b in (rate.exponent.upper,) if b is not None}
    return f"derived for {table.model}, cells {','.join(map(str, table.cells))}: {', '.join(methods)}"


def _status(table: RateTable) -> str:
    found = {rate.exponent.status for rate in table.rates if rate.exponent.theta != math.inf}
    return "numeric" if "numeric" in found else "proved"


def _slowest(table: RateTable, power_of: Any) -> Fraction | None:
    """Return -min over groups of power / (2 theta); None where a group has no rate or none is known."""
    slowest = Fraction(0)
    for rate in table.rates:
        theta = rate.exponent.theta
        if rate.group == ORBIT:
            continue
        if theta is None or theta == math.inf or rate.exponent.status not in ("proved", "numeric"):
            return None
        power = power_of(rate.group, rate.m or 1)
        if power is not None:
            exponent = Fraction(power) / (2 * Fraction(theta))
            slowest = exponent if not slowest else min(slowest, exponent)
    return -slowest


def intrinsic_power(group: str, m: int) -> Fraction:
    """Return the power of a group in the intrinsic Voronoi loss of Gaussian gates, in a cell of m."""
    return Fraction(1) if m == 1 else Fraction(rbar(m), 1 if group in ("c", "b") else 2)


def softmax_power(group: str, m: int) -> Fraction:
    """Return the power of a group in the intrinsic Voronoi loss of softmax gates, in a cell of m."""
    return Fraction(1) if m == 1 else Fraction({"beta": 2, "a": 2, "b": rbar(m), "s": rbar(m) // 2}[group])


def prompt_power(_: str, m: int) -> int:
    """Return the power of every group in the Voronoi loss of prompts, in a cell of m."""
    return 1 if m == 1 else 2


def _gaussian_gated() -> Iterator[dict[str, str]]:
    """Yield the predictions of Gaussian gates.

    A fixed prompt is a constant expert; an adaptive one on a fixed truth is an affine one at a* = 0.
    """
    model = "gaussian-gated"
    for truth, kind, atom, stratum in (
        ("adaptive", "adaptive", model, None),
        ("fixed", "adaptive", model, {"a": 0}),
        ("fixed", "fixed", "gaussian-gated-constant", None),
    ):
        for fit_class, sizes in (("exact", [1, 1]), ("over", list(range(1, LARGEST + 1)))):
            table = rate_table(atom, sizes, stratum=stratum)
            exponent = _slowest(table, intrinsic_power)
            yield _entry(model, truth, kind, fit_class, "risk", Fraction(-1), "theorem", DENSITY)
            if exponent is not None:
                yield _entry(model, truth, kind, fit_class, "D", exponent, _status(table), _source(table))
    for truth, kind in (("adaptive", "adaptive"), ("adaptive", "fixed"), ("fixed", "adaptive"), ("fixed", "fixed")):
        yield _entry(model, truth, kind, "misspecified", "risk", Fraction(0), "theorem", PROJECTION)


def _softmax_gated() -> Iterator[dict[str, str]]:
    """Yield the predictions of softmax gates.

    Some cell holds one atom: were every cell over-fitted, gate slopes would have no rate.
    """
    for fit_class, sizes in (("exact", [1, 1]), ("over", list(range(1, LARGEST + 1)))):
        table = rate_table("softmax-gaussian", sizes)
        for group, power in (("D", softmax_power), ("singleton", _of_singletons)):
            exponent = _slowest(table, power)
            if exponent is not None:
                entry = ("softmax-gated", "softmax", "softmax", fit_class, group)
                yield _entry(*entry, exponent, _status(table), _source(table))


def _of_singletons(_: str, m: int) -> int | None:
    return 1 if m == 1 else None


def _of_splits(_: str, m: int) -> int | None:
    return 1 if m > 1 else None


def of_prompts(kind: str, singular: bool) -> Iterator[dict[str, str]]:
    """Yield the entries of one kind of prompt on a truth of its own kind.

    kind      such as "fixed" or "adaptive:gelu"
    singular  whether the key projection loses a direction
    """
    model, suffix, rank = "prompt-attention", ", singular B" if singular else "", 1 if singular else None
    hidden = 2 if kind.startswith("adaptive:") else None
    for fit_class, sizes in (("exact", [1, 1]), ("over", [1, 2])):
        yield _entry(model, kind + suffix, kind, fit_class, "L2", Fraction(-1, 2), "theorem", REGRESSION)
        table = rate_table(kind, sizes, frozen=2, d=2, hidden=hidden, rank=rank)
        for group, power in (("D", prompt_power), ("singleton", _of_singletons), ("split", _of_splits)):
            exponent = _slowest(table, power)
            if exponent:
                yield _entry(model, kind + suffix, kind, fit_class, group, exponent, _status(table), _source(table))


def _attention() -> Iterator[dict[str, str]]:
    """Yield the predictions of a head with d = d' = 2 and two hidden units.

    A singular B sees one direction of a key.
    """
    model = "prompt-attention"
    for kind in ("fixed", "decoupled", *(f"adaptive:{name}" for name in ACTIVATIONS)):
        for singular in (False, True):
            # Directions of a key that no logit sees are no parameters of decoupled atoms, but they are of the
            # study's.
            if not (kind == "decoupled" and singular):
                yield from of_prompts(kind, singular)
    yield from of_prompts("prefix", False)
    yield _entry(model, "*", "*", "contained", "L2", Fraction(-1, 2), "theorem", REGRESSION)
    yield _entry(model, "*", "*", "misspecified", "L2", Fraction(0), "theorem", PROJECTION)

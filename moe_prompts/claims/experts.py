"""Judge claims about regression by gated experts (E): least squares, with experts of one unit or linear ones.

With a softmax gate a split of an expert sigma(a x + c) shows at second order. One dependence is left
among its derivatives to second order, u_(beta c) = u_a, so that they are not independent; it hides no
split, since no positive semidefinite matrix has it as its second-order part (``theory.definite``). A
linear expert hides splits to all orders: two experts a x + c +- h(x) with one gate and half of the mass
each are the expert between them.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from moe_prompts.claims.algebra import rate_of, verified
from moe_prompts.claims.claim import DERIVED, Claim, Line, Tables
from moe_prompts.claims.evidence import slope_line
from moe_prompts.claims.prompts import CERTIFIED_RULE, NO_RATE_RULE, split_rates
from moe_prompts.estimators.result import FitStatus
from moe_prompts.intervals import share_interval
from moe_prompts.study.attention import STUDY_FITS
from moe_prompts.study.attention_report import SPLIT, D
from moe_prompts.tables import short

SOFTMAX = "experts-softmax"
TANH, GELU, LINEAR = (f"experts-softmax-{sigma}" for sigma in ("tanh", "gelu", "identity"))
LEAST_SQUARES = "arXiv 2402.02952"
#: Nats by which one search must be below another to count as having missed its minimum.
MISSED = 0.01
SEARCH_RULE = (
    f"{CERTIFIED_RULE}; a fit is the best of starts beside the truth, from the data and at random, in the box that "
    "bounds masses to e^(-2.5) .. e^2.5 of that of the expert farthest from the others"
)


def fits_of(rows: pd.DataFrame, truth: str, fit_class: str) -> pd.DataFrame:
    """Return the fits of one class to one truth."""
    return rows[(rows["study"] == STUDY_FITS) & (rows["truth"] == truth) & (rows["fit_class"] == fit_class)]


def search_line(rows: pd.DataFrame) -> Line:
    """Return how often blind starts, and those beside the truth, missed the best minimum; not judged."""
    said, first = [], rows.iloc[0]
    for n, own in rows[rows["status"] == FitStatus.CERTIFIED.name].groupby("n"):
        blind, near = (
            share_interval(int((own[column] > MISSED).sum()), len(own)) for column in ("data_misses", "near_misses")
        )
        said.append(f"n = {short(n)}: {blind.value:.0%} and {near.value:.0%}")
    name = f"{first['truth']}, k = {first['k']}: fits whose best minimum blind starts missed, and near ones missed"
    return Line(name, "", "; ".join(said), None)


def strong(tables: Tables, seed: int) -> list[Line]:
    """Return the lines of E-softmax: certificates, slopes of exact and over-fitted fits, profiles, gaps."""
    rows, lines = tables[SOFTMAX], [verified(f"softmax-network:{sigma}", 1, 2) for sigma in ("tanh", "gelu", "sigmoid")]
    for truth in (TANH, GELU):
        over = fits_of(rows, truth, "over")
        lines.append(slope_line(fits_of(rows, truth, "exact"), D, -0.5, seed))
        lines += [slope_line(over, D, -0.5, seed), slope_line(over, SPLIT, -0.25, seed)]
    seen = split_rates(rows[rows["truth"].isin([TANH, GELU])], "n^-1/4")
    return [*lines, *seen, *(search_line(fits_of(rows, truth, "over")) for truth in (TANH, GELU))]


def linear(tables: Tables, seed: int) -> list[Line]:
    """Return the lines of E-linear: certificates, a slope of exact fits, and no rate with one too many."""
    rows = tables[SOFTMAX]
    return [
        verified("softmax-linear", 1, 2),
        slope_line(fits_of(rows, LINEAR, "exact"), D, -0.5, seed),
        *split_rates(rows[rows["truth"] == LINEAR], "no rate", seed),
    ]


#: The algebra has other letters than the models.
LETTERS = "b is here the intercept c of an expert"


def _rates(models: Sequence[str]) -> str:
    return "; ".join(rate_of(model, 1, 2) for model in models)


CLAIMS = [
    Claim(
        id="E-softmax",
        statement="Softmax-gated experts sigma(a'x + c), least squares: with as many as there are the loss D has "
        "n^-1/2; with one too many D has n^-1/2 and split experts n^-1/4 (tanh, gelu; sigmoid by algebra "
        "only).",
        source=f"{LEAST_SQUARES} for strongly identifiable experts (theorem number not seen); with the intercept "
        f"c, and gelu: {DERIVED}",
        prediction=lambda: (
            f"{_rates(['softmax-network:tanh', 'softmax-network:sigmoid', 'softmax-network:gelu'])} ({LETTERS})"
        ),
        needs={SOFTMAX: (TANH, GELU)},
        rule="certificates are verified; a profile exponent within .12 of 2 with a gap above 5 nats at some n; "
        f"{SEARCH_RULE}",
        judge=strong,
        limits="experts of more than one unit; configurations that nobody selected (these were chosen for large kappas "
        "among 300 draws); masses that may vanish, for which no atom has a rate. Other seeds were looked at on both "
        "truths while the fit was made to converge. A run was stopped after its first blocks, which nobody looked at, "
        "because its loss took most of the time; before the run that is judged gaps were also asked for to 1e-3 nats.",
    ),
    Claim(
        id="E-linear",
        statement="Softmax-gated linear experts, least squares: with as many as there are the loss D has n^-1/2; with "
        "one too many the experts have no rate. Nor have the gates then: a third expert with the slope 2 beta_2 - "
        "beta_1 gives the same f, too.",
        source=f"{LEAST_SQUARES} for polynomial experts (theorem number not seen); as many as there are: {DERIVED}",
        prediction=lambda: f"{_rates(['softmax-linear'])} ({LETTERS}; rates of beta are those of splits)",
        needs={SOFTMAX: (LINEAR,)},
        rule=f"certificates are verified; with as many as there are: {SEARCH_RULE}; with one too many: {NO_RATE_RULE}",
        judge=linear,
        limits="a minimax statement: one truth is looked at, and its likelihood along one split. Polynomials of higher "
        "degree were not looked at.",
    ),
]

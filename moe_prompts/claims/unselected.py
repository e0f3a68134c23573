"""Claim the rates of prompts in configurations that nobody selected (P-unselected).

The reference configuration was chosen for large kappas. Here ten random configurations, whose numbers are
drawn from the registered seed, are reported whole. A configuration can be regular and still be far from its
asymptotic rate at the sizes of a run: this is read off its own noise-free profile, which predicts the split
error at every n with no fitted constant. A split is judged where the slope of that prediction over the grid
lies in the band around -1/4; elsewhere the line says what the profile predicts, and is not judged.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from moe_prompts.claims.claim import SECOND_SEED, Claim, Line, Tables
from moe_prompts.claims.evidence import slope_line
from moe_prompts.claims.prompts import PREFIX, SLOPE_RULE, VAPT
from moe_prompts.intervals import Verdict
from moe_prompts.models.prompt_truths import prompt_truth
from moe_prompts.slopes import BAND, slope_weights
from moe_prompts.study.attention import STUDY_FITS
from moe_prompts.study.attention_report import SPLIT, D, profile_of

RUN = "attention-unselected"
#: Kinds in turn; numbers of ``random_configuration`` are drawn without replacement.
COUNT, KINDS = 10, ("fixed", "gelu", "tanh")
NUMBERS = np.random.default_rng([SECOND_SEED, COUNT]).choice(np.arange(1_000, 10_000), COUNT, replace=False)
TRUTHS = tuple(f"attention-random-{number}-{KINDS[i % len(KINDS)]}" for i, number in enumerate(NUMBERS))
SPLIT_RATE = -0.25


def unselected(tables: Tables, seed: int) -> list[Line]:
    """Return the loss and the split of every configuration, in the order in which they were drawn."""
    rows = tables[RUN]
    fits, lines = rows[(rows["study"] == STUDY_FITS) & (rows["fit_class"] == "over")], []
    for name in TRUTHS:
        own = fits[fits["truth"] == name]
        lines.append(slope_line(own, D, -0.5, seed))
        lines.append(split_line(own, predicted_slope(rows, name), seed))
    return [*lines, share_line(lines)]


def share_line(lines: list[Line]) -> Line:
    """Return how many of the lines hold, are open, fail or are not judged."""
    counts = [(sum(line.verdict is verdict for line in lines), verdict) for verdict in (*Verdict, None)]
    said = ", ".join(f"{count} {verdict.value if verdict else 'not judged'}" for count, verdict in counts if count)
    return Line(f"all {len(lines)} lines", "they hold", said, None)


def predicted_slope(rows: pd.DataFrame, truth: str) -> float:
    """Return the slope of the split error that the profile of a truth predicts over the sizes of its fits.

    It is NaN where the profile bounds the split at no two sizes.
    """
    sizes = np.array(sorted(rows.loc[(rows["study"] == STUDY_FITS) & (rows["truth"] == truth), "n"].unique()))
    splits = profile_of(rows, truth, 1).predicted_split(sizes, prompt_truth(truth).noise)
    known = np.isfinite(splits)
    if known.sum() < 2:
        return float("nan")
    return float(slope_weights(np.log(sizes[known].astype(float))) @ np.log(splits[known]))


def split_line(rows: pd.DataFrame, predicted: float, seed: int) -> Line:
    """Return the line of the split error, with what the profile predicts of it beside what was measured."""
    line = slope_line(rows, SPLIT, SPLIT_RATE, seed)
    if np.isnan(predicted):
        return replace(line, found=f"{line.found}; its profile bounds no split at these n", verdict=None)
    asymptotic = abs(predicted - SPLIT_RATE) <= BAND
    said = f"{line.found}; its profile predicts {predicted:.3f}" + ("" if asymptotic else ": not yet asymptotic")
    return replace(line, found=said, verdict=line.verdict if asymptotic else None)


CLAIMS = [
    Claim(
        id="P-unselected",
        statement="With one prompt too many, fixed and adaptive (gelu, tanh) prompts have loss D n^-1/2 and split "
        "prompts n^-1/4 in configurations that nobody selected: ten drawn by seed.",
        source=f"{PREFIX}, {VAPT}",
        prediction=lambda: "as P-over; where a configuration is not yet asymptotic, its noise-free profile says so",
        needs={RUN: TRUTHS},
        rule=f"{SLOPE_RULE}; a split is judged where the slope that its own profile predicts over these n lies within "
        f"{BAND:g} of -1/4",
        judge=unselected,
        limits="that rates are slower anywhere: all open lines have slopes in their bands. Four of the six have too "
        "few fits with a certificate at some n: 1248 at 1e8, and 6612 at 1e4 and 1e6. The split of 4333 and the loss "
        "of 7088 have them all, and chances of .97 and .92 to hold if true; their intervals leave the band "
        "nevertheless, as two of twenty lines may. As first drawn, eleven lines were open. Drawn again by later "
        "code five of them hold: at 1e8 rounding decides which fits stall, at minima that are the same to 1e-10 nats. "
        "After the first rows had been seen, fits that stall beside the box were certified on it: without that the "
        "five hold, too, but both lines of 5514 are open.",
    ),
]

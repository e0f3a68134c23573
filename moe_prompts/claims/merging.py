"""Judge model selection by merging the atoms of one over-fitted model (G-merge, S-merge).

A theorem of consistency says nothing of any n. Here the truth itself says from which n on its criterion,
without the noise of a fit, chooses its number of atoms; a line is judged where the largest n of the run is
beyond it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd

from moe_prompts.claims.claim import DERIVED, Claim, Line, Tables
from moe_prompts.claims.evidence import earlier, share_odds, slope_line
from moe_prompts.claims.prompts import CERTIFIED_RULE
from moe_prompts.estimators.result import FitStatus
from moe_prompts.intervals import Interval, Verdict, share_interval, within
from moe_prompts.study.merging import right_from
from moe_prompts.study.softmax_merging import softmax_right_from
from moe_prompts.study.summary import Measure, measured_slope

#: The earlier run and the later one, which the verdicts are of, and that of softmax gates.
RUN, AGAIN, SOFTMAX = "merging", "merging-again", "softmax-merging"
PUBLISHED = tuple(f"gmoe-{model}" for model in (1, 2, 3, 4))
#: Drawn from their numbers, and selected by nobody; frozen experts are free here.
RANDOM = tuple(f"prompts-random-{number}" for number in range(1, 6))
TRUTHS = (*PUBLISHED, *RANDOM)
#: Softmax-gated ones of three experts and of two, drawn by seed and selected by nobody: the first of each.
SOUGHT = (*(f"softmax-three-{number}" for number in range(1, 6)), "softmax-random-1", "softmax-random-2")
MERGED = Measure("merged", "merged_loss", "loss D of the fit merged to k*")
HEIGHT = Measure("height", "height_surplus", "height of the last surplus merge")
#: A number of experts counts as found where the interval of the share of right choices at the largest n lies
#: above this; and as not found where it lies below.
FOUND = 0.7
#: What a design is asked to tell from each other: shares of right choices.
RIGHT, WRONG = 0.99, 0.5


def share_verdict(share: Interval) -> Verdict:
    """Return whether a number of experts is found: the whole interval of its share lies above ``FOUND``."""
    return within(share.low, share.high, (FOUND, 1.0))


def choice_line(rows: pd.DataFrame, name: str, begin: float) -> Line:
    """Return the share of right choices at the largest n of one truth; shares at the others stand beside it.

    A fit that was not made, or that has no certificate, is no right choice. ``begin`` is the n from which the
    truth itself is right.
    """
    right = (rows["chosen"] == rows["k_true"]) & (rows["status"] == FitStatus.CERTIFIED.name)
    by_size = right.groupby(rows["n"]).agg(["sum", "size"])
    largest = by_size.iloc[-1]
    share = share_interval(int(largest["sum"]), int(largest["size"]))
    shares = ", ".join(f"{hits}/{size} (n = {n})" for n, hits, size in by_size.itertuples())
    seen = begin <= by_size.index[-1]
    shown = f"{shares}; at the largest n {share.value:.2f} [{share.low:.2f}, {share.high:.2f}]; without noise right "
    return Line(
        name=f"{name}, k = {rows['k'].iloc[0]} merged: k* = {rows['k_true'].iloc[0]} chosen",
        claimed="share to 1",
        found=shown + (f"from n = {max(begin, 1):.0f}" if seen else f"from n = {begin:.3g} only: not judged"),
        verdict=share_verdict(share) if seen else None,
        estimate=share,
        odds=share_odds(share.count, (FOUND, 1.0), RIGHT, WRONG) if seen else None,
    )


def height_line(rows: pd.DataFrame, seed: int) -> Line:
    """Return how fast the last surplus merge comes down, beside the bound; it is shown and not judged."""
    found = measured_slope(rows, HEIGHT, "grid", seed)
    first = rows.iloc[0]
    bound = 1 / (2 * (first["k"] - first["k_true"] + 1))
    return Line(
        f"{first['truth']}, k = {first['k']}: {HEIGHT.shown}",
        f"at least n^-{bound:.3g}",
        f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]",
        None,
        Interval(found.value, found.low, found.high, found.replicates),
    )


def lines_of(rows: pd.DataFrame, truths: Sequence[str], begin_of: Callable[[str], float], seed: int) -> list[Line]:
    """Return choices, losses of the merged model, and heights, truth by truth.

    begin_of  returns the n from which a truth itself is right
    """
    of = {name: rows[rows["truth"] == name] for name in truths}
    return [
        *(choice_line(own, name, begin_of(name)) for name, own in of.items()),
        *(slope_line(own, MERGED, -0.5, seed) for own in of.values()),
        *(height_line(own, seed) for own in of.values()),
    ]


def merging(tables: Tables, seed: int) -> list[Line]:
    """Return the lines of G-merge, and those that an earlier draw with fewer starts was judged on."""
    before = [line for line in lines_of(tables[RUN], TRUTHS, right_from, seed) if line.verdict]
    return [*lines_of(tables[AGAIN], TRUTHS, right_from, seed), *(earlier(line) for line in before)]


def softmax_merging(tables: Tables, seed: int) -> list[Line]:
    """Return the lines of S-merge."""
    return lines_of(tables[SOFTMAX], SOUGHT, softmax_right_from, seed)


SHARE_RULE = (
    "the number: the 90 % interval (Clopper and Pearson) of the share of right choices at the largest n lies above "
    f"{FOUND:g} (holds) or below (fails), where the criterion of the truth itself is right at that n; the merged loss: "
    f"{CERTIFIED_RULE}"
)

CLAIMS = [
    Claim(
        id="G-merge",
        statement="Gaussian-gated, two experts too many, fitted from the data: merging the nearest atoms of that fit "
        "chooses the true number of experts, and the merged model is learned at n^-1/2.",
        source=f"arXiv 2505.13052, after arXiv 2403.01684; in units of the fitted law: {DERIVED}",
        prediction=lambda: (
            "D of the merged model n^(-1/2): weight, mean and covariance of a cell are first-order terms of its "
            "density; heights of surplus merges n^(-1/rbar(m)) or faster, rbar(3) = 6 "
            "(moe_prompts/estimators/gaussian/merging.py)"
        ),
        needs={AGAIN: TRUTHS, RUN: TRUTHS},
        rule=SHARE_RULE,
        judge=merging,
        limits="one expert against two (the criterion begins at two); experts that overlap more than these; "
        "misspecified models, for which the papers recommend it; that it is better than BIC, which was not run. Other "
        "seeds were looked at on gmoe-1, 2 and 3 before the first run: all their choices from n = 300 on were right. "
        "The random truths were not looked at then, but for one data set of prompts-adaptive.",
    ),
    Claim(
        id="S-merge",
        statement="Softmax-gated, fitted from the data with k = 2 k* - 1 experts: merging the nearest atoms of that "
        "fit chooses the true number of experts, and the merged model is learned at n^-1/2.",
        source=f"arXiv 2510.12744, after arXiv 2403.01684; dissimilarity, units and what a merge keeps: {DERIVED}",
        prediction=lambda: (
            "D of the merged model n^(-1/2): mass, slope of the gate, level, slope and noise of a merged cell are "
            "first-order terms of its density; heights of surplus merges n^(-1/rbar(m)) or faster "
            "(moe_prompts/estimators/softmax/merging.py)"
        ),
        needs={SOFTMAX: SOUGHT},
        rule=SHARE_RULE,
        judge=softmax_merging,
        limits="one expert against two (the criterion begins at two), so that of two experts it says only that there "
        "are no three; fits all of whose cells are shared, whose gates are not identified; that a fit is the highest "
        "maximum: it is the best of a search that grows by splitting. The distance of two atoms was bounded when "
        "criteria of the truths were known and no data (moe_prompts/estimators/softmax/merging.py). Six data sets of "
        "each truth at n = 1e3 and 1e4 and two at 1e5, of the seed of quick runs, then chose the replicates: 18 of 18 "
        "choices at 1e5 were right, 38 of 54 at 1e3. Two more truths of two experts were looked at there and left out, "
        "since replicates cost more.",
    ),
]

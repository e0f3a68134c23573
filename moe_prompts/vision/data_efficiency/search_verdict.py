"""Judge T-search: say why adaptive students miss planted prompts, and where the best one crosses.

The question is whether certified second-order fits from ordinary starts reach the floor. Three outcomes are
fixed beforehand:

    landscape  certified fits from ordinary starts stay above the floor
    algorithm  certified fits reach it, and SGD does not from any start that was tried
    start      certified fits reach it, and so does SGD from some start

A fit *reaches* the floor where its excess risk on new images is at most ``REACHED``. It counts if it is
certified. With k of m counted fits at the floor, certified fits *reach it* where the lower end of the
one-sided 90 % interval of the share (Clopper and Pearson) lies above ``SHARE``, and *stay above* where its
upper end lies below. Otherwise, or with fewer than ``LEAST`` counted fits, or if less than ``CERTIFIED`` of
the fits are certified, nothing is decided. SGD reaches the floor from a start where at least half of its
fits on fresh images do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import binom

from moe_prompts.estimators.result import FitStatus
from moe_prompts.intervals import Verdict, share_interval
from moe_prompts.shown import Ending
from moe_prompts.tables import markdown
from moe_prompts.vision.data_efficiency.curves import FRESH, PLANTED, overtakes_from, predicted_crossing
from moe_prompts.vision.data_efficiency.search import DRAWN, FIXED, FROM_FIXED, OFFICIAL, ORDINARY
from moe_prompts.vision.training.statuses import TRAINED

LANDSCAPE, ALGORITHM, START = "landscape", "algorithm", "start"
#: Where nothing is decided, the outcome is the word of all verdicts for that.
OPEN = Verdict.UNDECIDED.value
#: What each outcome says of the claim that the landscape is why searches miss what is planted.
VERDICTS = {
    LANDSCAPE: Verdict.HOLDS,
    ALGORITHM: Verdict.FAILS,
    START: Verdict.FAILS,
    OPEN: Verdict.UNDECIDED,
}
#: Excess risk in nats at which a fit has reached the floor: a fifth of the floor of fixed prompts, .27.
REACHED = 0.05
#: Floor of fixed prompts in nats on the adaptive truth: their excess risk on fresh images after SGD.
FIXED_FLOOR = 0.266
#: The share of starts that is worth a search (four starts find it), the levels of its one-sided ends, the
#: least number of counted fits, and the least share of certified ones.
SHARE, ENDS, LEAST, CERTIFIED = 0.25, (0.1, 0.9), 9, 0.8
#: The share of starts that reach the floor where the landscape is to blame: about one of 24 fits. Odds take
#: it for the truth (docs/search_for_prompts.md, on the power of the design).
SELDOM = 0.05
#: Methods of ``data_efficiency.py`` whose class holds an adaptive truth, and that do not begin at it.
SGD = ("vapt", "vapt_offset")


@dataclass(frozen=True)
class SearchVerdict:
    """Hold what T-search says.

    outcome   one of the three, or that nothing is decided
    reached   k, counted fits from ordinary starts that reach the floor
    counted   m, certified fits from ordinary starts
    fits      of ordinary starts, certified or not
    low, high one-sided 90 % ends of the share
    sgd       shares of SGD's fits that reach it, by start
    sizes     n of the fits from ordinary starts
    """

    outcome: str
    reached: int
    counted: int
    fits: int
    low: float
    high: float
    sgd: dict[str, float]
    sizes: tuple[int, ...] = ()

    def __str__(self) -> str:
        if not self.fits:
            starts = " and ".join(f"'{start}'" for start in ORDINARY)
            return (
                f"T-search: not judged. Its rule takes fits to an adaptive teacher's law from {starts}; there are none"
            )
        sgd = ", ".join(f"{name} {share:.0%}" for name, share in self.sgd.items()) or "not run"
        at = f" at n = {', '.join(map(str, self.sizes))}" if self.sizes else ""
        return (
            f"T-search{at}: {self.outcome}. {self.reached} of {self.counted} certified fits from ordinary starts reach "
            f"{REACHED:g} nats (share {self.low:.2f} to {self.high:.2f}, one-sided 90 % ends); {self.fits} fits in "
            f"all. SGD on fresh images: {sgd}"
        )


def often(reached: int, counted: int) -> bool | None:
    """Return whether fits reach the floor (True), stay above it (False), or neither is decided (None)."""
    share = share_interval(reached, counted, ENDS)
    if counted < LEAST or share.low <= SHARE <= share.high:
        return None
    return share.low > SHARE


def power(share: float, counted: int, says: bool) -> float:
    """Return how often the rule says ``says`` with m counted fits that reach the floor with this share."""
    k = np.arange(counted + 1)
    right = [often(int(one), counted) is says for one in k]
    return float(binom.pmf(k, counted, share)[right].sum())


def search_verdict(rows: pd.DataFrame, sgd: pd.DataFrame | None = None) -> SearchVerdict:
    """Return the verdict of a run of ``search.search_study``.

    rows  its rows; those on the teacher's law from ordinary starts, on adaptive truths, are judged
    sgd   rows of a run of ``data_efficiency.py`` with fresh images, or None
    """
    own = ordinary(rows)
    counted = own[own["status"] == FitStatus.CERTIFIED.name]
    reached = int((counted["excess"] <= REACHED).sum())
    share = share_interval(reached, len(counted), ENDS)
    shares = {} if sgd is None else sgd_shares(sgd)
    decided = often(reached, len(counted)) if len(own) and len(counted) >= CERTIFIED * len(own) else None
    if decided is None or (decided and not shares):
        outcome = OPEN
    elif not decided:
        outcome = LANDSCAPE
    else:
        outcome = START if max(shares.values()) >= 0.5 else ALGORITHM
    sizes = tuple(sorted(int(n) for n in own["n"].unique()))
    return SearchVerdict(outcome, reached, len(counted), len(own), share.low, share.high, shares, sizes)


def ordinary(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that are judged: on the teacher's law, from ordinary starts, on adaptive truths."""
    return rows[(rows["targets"] == "law") & rows["start"].isin(ORDINARY) & (rows["truth"] == PLANTED[1])]


def sgd_shares(curves: pd.DataFrame) -> dict[str, float]:
    """Return the share of SGD's fits on fresh images that reach the floor, by method."""
    fresh = curves[(curves["task"] == PLANTED[1]) & (curves["n"] == FRESH) & (curves["status"] == TRAINED)]
    found = fresh[fresh["method"].isin(SGD)].groupby("method", sort=False)["excess"]
    return {str(name): float((values <= REACHED).mean()) for name, values in found}


def crossing_of_search(rows: pd.DataFrame, floor: float) -> tuple[float, float]:
    """Return predicted and observed n at which the best searchable student crosses the fixed one.

    The best searchable one is the certified fit, from a start that knows nothing of the teacher, of the
    least cross-entropy on its own images. Only rows on drawn labels count. The observed crossing is that of
    the mean difference of excess risks, as ``curves.overtakes_from`` has it: from there on the searchable one
    is ahead. It is NaN where the run has fewer than two sizes with both.

    floor  of the fixed student, in nats
    """
    drawn = rows[(rows["targets"] == "drawn") & (rows["status"] == FitStatus.CERTIFIED.name)]
    key = ["truth", "teacher", "n", "number"]
    able = drawn[drawn["start"].isin([OFFICIAL, DRAWN, FROM_FIXED])].sort_values("train_excess", kind="stable")
    best = able.groupby(key).first().reset_index()
    fixed = drawn[drawn["start"] == FIXED]
    both = best.merge(fixed, on=key, suffixes=("", "_fixed"))
    if not len(both):
        return np.nan, np.nan
    predicted = predicted_crossing(float((both["parameters"] - both["parameters_fixed"]).mean()), floor)
    ahead = (both["excess_fixed"] - both["excess"]).groupby(both["n"]).mean()
    if len(ahead) < 2:
        return predicted, np.nan
    return predicted, overtakes_from(ahead.index.to_numpy(dtype=float), ahead.to_numpy())


def text(rows: pd.DataFrame, sgd: pd.DataFrame | None = None) -> str:
    """Return the table of all fits, how often each start reaches the floor, and the verdict."""
    head = ["truth", "teacher", "targets", "n", "start", "number", "P", "left on its images", "excess", "gap", "status"]
    named = ("truth", "teacher", "targets", "n", "start", "number", "parameters")
    body = [
        [
            *(str(getattr(row, name)) for name in named),
            f"{row.train_excess:.5f}",
            f"{row.excess:.4f}",
            f"{row.gap_nats:.1e}",
            str(row.status).lower().replace("_", " "),
        ]
        for row in rows.itertuples()
    ]
    lines = [f"- {line}" for line in (*by_start(rows), *said_crossing(rows))]
    verdict = search_verdict(rows, sgd)
    return "\n\n".join(
        [
            "Certified fits of planted prompts: nats per image left on their own images, excess risk on new ones",
            markdown(head, body),
            "\n".join(lines),
            f"**{verdict}**",
        ]
    )


def ending_of(rows: pd.DataFrame, sgd: pd.DataFrame | None = None) -> Ending:
    """Return what the command prints: a sentence for each start, and the verdict."""
    lines = [f"- {line}" for line in (*by_start(rows), *said_crossing(rows))]
    return Ending([*lines, str(search_verdict(rows, sgd))])


def said_crossing(rows: pd.DataFrame) -> list[str]:
    """Return a sentence on the crossing of the best fit that can be searched for, where labels were drawn."""
    predicted, observed = crossing_of_search(rows, FIXED_FLOOR)
    if np.isnan(predicted):
        return []
    seen = {np.inf: "adaptive prompts are not ahead at the largest n", 0.0: "adaptive prompts are ahead at every n"}
    found = "one n alone shows no crossing" if np.isnan(observed) else seen.get(observed, f"seen at n = {observed:.0f}")
    return [f"crossing of the best adaptive fit with fixed prompts: predicted n = {predicted:.0f}; {found}"]


def by_start(rows: pd.DataFrame) -> list[str]:
    """Return a sentence for each start: fits, how many are certified and at the floor, and their risks."""
    said = []
    for (truth, targets, n, start), own in rows.groupby(["truth", "targets", "n", "start"], sort=False):
        certified = own[own["status"] == FitStatus.CERTIFIED.name]
        reached = int((certified["excess"] <= REACHED).sum())
        span = f"{own['excess'].min():.3f} to {own['excess'].max():.3f}"
        left = f"{own['train_excess'].min():.4f} to {own['train_excess'].max():.4f}"
        said.append(
            f"{truth}, {targets}, n = {n}, start {start}: {len(certified)} of {len(own)} fits certified, {reached} of "
            f"these at the floor; excess {span} nats on new images, {left} on their own"
        )
    return said

"""6 CLAIM: what somebody says, what theory predicts, what decides, and what came out.

A claim is judged on several lines of evidence. It *holds* if every line holds, *fails* if one fails, and else is *not
decidable here*. Rules and seed are fixed before the data are drawn: ``judge`` sees nothing but the tables of its runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from moe_prompts.estimators.result import FitStatus
from moe_prompts.intervals import Verdict

#: Seed of the page: no test, no quick run and no default of any other command uses it. Its predecessor 1618033 was
#: retired with the first edition of the rules.
REGISTERED_SEED = 2_718_281
QUICK_SEED = 314_159
#: A slope of certified fits decides where at least this share of fits is certified at every n: below, they are a
#: selection.
MIN_CERTIFIED = 0.9

DERIVED = "derived here"

#: Run -> its table.
Tables = Mapping[str, pd.DataFrame]


@dataclass(frozen=True)
class Line:
    """One line of evidence: what was looked at, what is claimed of it, what came out."""

    name: str
    claimed: str
    found: str
    verdict: Verdict


@dataclass(frozen=True)
class Claim:
    """``needs``: run -> the truths that it looks at; a claim about formulas needs no run.

    source      who states it; "derived here" if this project does
    prediction  the sentence that theory makes of it, asked of ``theory`` when called
    rule        in words, for the reader; ``judge(tables, seed)`` is the same in numbers
    limits      what a reader might take from the claim and what its evidence does not show; "" if nothing
    """

    id: str
    statement: str
    source: str
    prediction: Callable[[], str]
    needs: Mapping[str, Sequence[str]]
    rule: str
    judge: Callable[[Tables, int], list[Line]]
    limits: str = ""


@dataclass(frozen=True)
class Judgement:
    claim: Claim
    prediction: str
    lines: tuple[Line, ...]

    @property
    def verdict(self) -> Verdict:
        return combined([line.verdict for line in self.lines])


def judged(claim: Claim, tables: Tables, seed: int) -> Judgement:
    return Judgement(claim, claim.prediction(), tuple(claim.judge(tables, seed)))


def combined(verdicts: Sequence[Verdict]) -> Verdict:
    """Return the verdict of all lines; nothing is decided without one."""
    if Verdict.FAILS in verdicts:
        return Verdict.FAILS
    return Verdict.HOLDS if verdicts and set(verdicts) == {Verdict.HOLDS} else Verdict.UNDECIDED


def true_or_false(condition: bool) -> Verdict:
    """Return the verdict on what is computed without noise."""
    return Verdict.HOLDS if condition else Verdict.FAILS


def slope_lines(summary: pd.DataFrame, rows: pd.DataFrame, measures: Sequence[str]) -> list[Line]:
    """The verdicts of the lines of ``study.summary.summarise(rows, ..)`` on the named measures, where theory predicts a
    rate."""
    chosen = summary[summary["measure"].isin(measures) & summary["predicted"].notna()]
    shares = {key: least_certified(fits) for key, fits in rows.groupby(["truth", "kind", "k"])}
    return [slope_line(line, shares[line.truth, line.kind, line.k]) for line in chosen.itertuples()]


def least_certified(rows: pd.DataFrame) -> float:
    """The smallest share of certified fits at any n."""
    return float((rows["status"] == FitStatus.CERTIFIED.name).groupby(rows["n"]).mean().min())


def slope_line(line, least: float) -> Line:
    """``least`` share of certified fits; undecided where it is too small, unless all fits are used."""
    few = least < MIN_CERTIFIED and not line.all_fits
    used = "all fits" if line.all_fits else f"{line.certified:.0%} certified (least at one n: {least:.0%})"
    return Line(
        name=f"{line.truth}, {line.kind}, k = {line.k}: {line.measure}",
        claimed=f"n^{line.predicted:g}",
        found=f"{line.slope:.2f} [{line.low:.2f}, {line.high:.2f}], {used}",
        verdict=Verdict.UNDECIDED if few else Verdict(line.verdict),
    )

"""Define a claim: what somebody says, what theory predicts, what decides, and the result.

A claim is judged on several lines of evidence. It *holds* if every line holds, *fails* if one fails, is *not
decidable here* if one of the others is, and is *faster than claimed* if an upper bound holds with room to
spare. Rules and seed are fixed before the data are drawn: ``judge`` sees nothing but the tables of its runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from moe_prompts.intervals import Interval, Verdict

#: Seed of the first runs of the page, and of those that the second edition of the rules added. No test, no
#: quick run and no default of any other command uses one of them. (1618033 was retired with a draft of the
#: rules.) The third is that of runs that were added to the second edition, the fourth that of runs on
#: prefixes and gated attention, the fifth that of runs of softmax-gated experts, the sixth that of runs of
#: sigmoid-gated ones, the seventh that of searches for global maxima of softmax gates, the eighth that of
#: runs that complete earlier ones, and the ninth that of fits whose atoms are merged, and of
#: certified ones at a singular truth.
REGISTERED_SEED, SECOND_SEED, THIRD_SEED, FOURTH_SEED = 2_718_281, 1_732_051, 2_236_067, 2_645_751
FIFTH_SEED, SIXTH_SEED, SEVENTH_SEED, EIGHTH_SEED = 3_316_625, 3_605_551, 4_358_899, 4_795_832
NINTH_SEED = 5_385_165
QUICK_SEED = 314_159

DERIVED = "derived here"

#: Run -> its table.
Tables = Mapping[str, pd.DataFrame]


@dataclass(frozen=True)
class Odds:
    """Say how often a design says *holds*, by simulation from its own scatter.

    right    the share of simulated runs that hold where the prediction is true
    wrong    the share that hold where ``instead`` is true
    instead  the nearest wrong prediction in words
    needed   replicates at the sizes of the run with which four of five runs would hold, where that was asked;
             0 if 1024 would not do
    """

    right: float
    wrong: float
    instead: str
    needed: int | None = None


@dataclass(frozen=True)
class Line:
    """Hold one line of evidence: what was looked at, what is claimed of it, what was found, the verdict.

    verdict   None where theory makes no prediction: the line is shown, not judged
    estimate  the number that was judged, unrounded, with its interval; None where there is no such number
    odds      what the design could decide; None where nothing was drawn at random, or no simulation stands
              for it
    exact     whether formulas decide alone, so that there are no data and no odds
    """

    name: str
    claimed: str
    found: str
    verdict: Verdict | None
    estimate: Interval | None = None
    odds: Odds | None = None
    exact: bool = False


@dataclass(frozen=True)
class Claim:
    """Hold a claim and how it is judged.

    id          a letter for its group and a word, such as "P-over"
    statement   the claim, in a sentence
    source      who states it; "derived here" if this project does
    prediction  the sentence that theory makes of it, asked of ``theory`` when called
    needs       run -> the truths that the claim looks at; empty for a claim about formulas
    rule        how it is judged, in words for the reader
    judge       the same in numbers: ``judge(tables, seed)`` returns the lines of evidence
    limits      what a reader might take from the claim and what its evidence does not show; "" if nothing
    basis       what is looked at beside the runs; "" if nothing
    """

    id: str
    statement: str
    source: str
    prediction: Callable[[], str]
    needs: Mapping[str, Sequence[str]]
    rule: str
    judge: Callable[[Tables, int], list[Line]]
    limits: str = ""
    basis: str = ""


@dataclass(frozen=True)
class Judgement:
    """Hold the result for a claim: the prediction as theory states it, and the lines of evidence."""

    claim: Claim
    prediction: str
    lines: tuple[Line, ...]

    @property
    def verdict(self) -> Verdict:
        """Return the verdict that all lines together give."""
        return combined([line.verdict for line in self.lines])


def judged(claim: Claim, tables: Tables, seed: int) -> Judgement:
    """Return a claim judged on the tables of its runs; ``seed`` is that of intervals and simulations."""
    return Judgement(claim, claim.prediction(), tuple(claim.judge(tables, seed)))


def combined(verdicts: Sequence[Verdict | None]) -> Verdict:
    """Return the verdict of all lines that are judged; nothing is decided without one."""
    for verdict in (Verdict.FAILS, Verdict.UNDECIDED, Verdict.FASTER):
        if verdict in verdicts:
            return verdict
    return Verdict.HOLDS if Verdict.HOLDS in verdicts else Verdict.UNDECIDED


def exact_line(name: str, claimed: str, found: str, condition: bool) -> Line:
    """Return the line of what is computed without data: it holds if ``condition`` does, and else fails."""
    return Line(name, claimed, found, Verdict.HOLDS if condition else Verdict.FAILS, exact=True)

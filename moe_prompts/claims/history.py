"""Keep what the page said of each claim before, and why it may say something else now.

The first edition judged the runs of ``REGISTERED_SEED`` with percentile intervals, on both sides of every
prediction, and without saying what its designs could decide. Its verdicts stay as they were; they are not
computed again.
"""

from __future__ import annotations

from dataclasses import dataclass

from moe_prompts.intervals import Verdict

HELD, FAILED, OPEN = Verdict.HOLDS, Verdict.FAILS, Verdict.UNDECIDED


@dataclass(frozen=True)
class First:
    """Hold the verdict of the first edition on a claim, and what was changed since.

    verdict  what it was
    change   what was changed since in words and rules, and why; "" if nothing but the intervals
    id       what the claim was called, where it had another name
    """

    verdict: Verdict
    change: str = ""
    id: str = ""


#: Claim -> what the first edition said. A claim that is not here is new.
FIRST: dict[str, First] = {
    "P-density": First(HELD),
    "P-exact": First(HELD),
    "P-over": First(HELD),
    "P-decoupled": First(HELD),
    "P-identity": First(
        HELD, "It said this of the identity with any number of hidden units; with one, algebra proves n^-1/4."
    ),
    "P-rank": First(
        HELD, "It did not say that it holds of single heads alone: heads of a network share their prompts."
    ),
    "P-floor": First(HELD, "It did not say that a floor is that of a box."),
    "P-cross": First(
        HELD,
        "It said s^2 P / n of every truth in the class; that needs a tangent of rank P, and its band could not tell "
        "14 from 18.",
    ),
    "G-exact": First(HELD),
    "G-over": First(OPEN),
    "G-published": First(
        OPEN, "Published losses and reruns of the procedure stood in one claim; now each has its own."
    ),
    "G-rerun": First(OPEN, "It stood within G-published.", "G-published"),
    "G-published-local": First(
        FAILED,
        "It said maximum likelihood estimator, and compared with the local maximum of the same start.",
        "G-published-mle",
    ),
    "G-type1": First(FAILED),
    "S-exact": First(HELD),
    "S-over": First(OPEN),
    "S-published": First(
        FAILED,
        "Theorems are upper bounds: a slope that is steeper than -1/2 is faster than claimed and no failure. Published "
        "losses and reruns stood in one claim; now each has its own.",
    ),
    "S-rerun": First(FAILED, "It stood within S-published.", "S-published"),
    "S-published-local": First(
        OPEN,
        "It said maxima, and looked at the local maximum of one start; its power was not said.",
        "S-published-mle",
    ),
    "S-cosh": First(HELD),
    "A-rbar": First(HELD, "It did not name its upper bound as a corollary of a known proposition."),
}


@dataclass(frozen=True)
class Earlier:
    """Hold the verdict on a claim before lines of it were drawn again, and why they were.

    Rule, design and seed of the later draw stood on the page before its data; lines of the earlier one stay
    in the claim's table, and are not judged any more.
    """

    verdict: Verdict
    reason: str


#: Claim -> what it was before lines of it were drawn again.
EARLIER: dict[str, Earlier] = {
    "P-heads": Earlier(
        OPEN,
        "Both slopes of fixed prompts lay in their bands and stayed open: at n = 1e7 21 of 24 fits had a certificate, "
        "where the rule asks for 90 %. The later run ends at 3.2e6 and has 96 replicates. By later code 22 of the 24 "
        "have one: the rows shown are those.",
    ),
    "G-merge": Earlier(
        OPEN,
        "Eight of eighteen lines were open, since 36 of 576 searches gave up on a certificate after eight starts, an "
        "atom at the guard. The later searches take up to 32 starts more, and there are 48 replicates for 16.",
    ),
}

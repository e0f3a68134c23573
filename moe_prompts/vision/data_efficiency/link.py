"""Hold predictions beside what was observed: excess risks, floors and crossings, with rules fixed beforehand.

V-excess  P_eff / (2 n) beside half of the gap between test and training loss, over all tasks, methods and n
V-floor   the method with the lower floor is the more accurate one at the largest n
V-cross   two methods cross at n* = (P_a - P_f) / (2 (F_f - F_a)), with effective parameters for P
V-winner  the method with the lower F + P_eff / (2 n) has the lower test loss, at every n but the largest

docs/pretrained_study.md says the rules in words. A rule gives a verdict from the tables, whatever it is, and
says "not measured" where the table lacks what it needs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import binom

from moe_prompts.intervals import Verdict, mean_interval, standard_error
from moe_prompts.shown import Ending
from moe_prompts.tables import markdown
from moe_prompts.vision.data_efficiency.curves import FRESH, comparable, crossing, mean_curves, predicted_crossing
from moe_prompts.vision.training.statuses import TRAINED

#: V-excess: what counts as near, and the shares of cells from which it holds and up to which it fails.
FACTOR, MOST, FEW = 2.0, 0.75, 0.5
#: V-floor, V-cross and V-winner: the largest probability by chance, and the fewest tasks.
LEVEL, TASKS = 0.1, 4
FIXED, ADAPTIVE = "vpt_deep", "vapt"


@dataclass(frozen=True)
class RuleFinding:
    """Hold what a rule says of a claim, and the numbers that it says it of.

    claim    name of the claim
    verdict  what the rule decides; None where the run did not measure what the rule needs
    found    the numbers, in words
    counted  how many agreements and disagreements a coin is asked about; 0 for a rule without a coin
    tasks    of how many tasks they are
    smoke    what makes the run smaller than those that rules judge, in words; "" if nothing does
    """

    claim: str
    verdict: Verdict | None
    found: str
    counted: int = 0
    tasks: int = 0
    smoke: str = ""

    def __str__(self) -> str:
        said = "not measured" if self.verdict is None else self.verdict.value
        if self.verdict is not None and self.smoke:
            said = f"not judged ({self.smoke})"
        return f"{self.claim}: {said}. {self.found}"


def excess_table(effective: pd.DataFrame, curves: pd.DataFrame) -> pd.DataFrame:
    """Return predicted and observed excess of each (task, method, n), in nats.

    effective  rows of ``effective.effective_study``
    curves     rows of the run that they belong to, whose replicates give what is observed

    ``predicted`` is P_eff / (2 n), ``counted`` P / (2 n) with all parameters; ``half_gap`` is the mean over
    replicates of half of test less training loss, ``half_gap_error`` its standard error (NaN with one of its
    ``fits``), ``above_floor`` the mean test loss above that on fresh images (NaN without them). ``ratio`` is
    half_gap / predicted. Where one of several fits of a cell could not be counted, the cell is not: the mean
    of the others would be too low.
    """
    sound = curves[curves["status"] == TRAINED]
    rows = []
    counted_fits = effective[effective["status"] == TRAINED]
    for (task, method, n), group in counted_fits.groupby(["task", "method", "n"], sort=False):
        own = sound[(sound["task"] == task) & (sound["method"] == method)]
        here, fresh = own[own["n"] == n], own[own["n"] == FRESH]
        gaps = (here["cross_entropy"] - here["train_loss"]) / 2
        gap = float(gaps.mean())
        counted, used = float(group["all_parameters"].iloc[0]), float(group["effective"].mean(skipna=False))
        size = int(str(n))
        rows.append(
            {
                "task": task,
                "method": method,
                "n": size,
                "all_parameters": int(counted),
                "effective": used,
                "counted": counted / (2 * size),
                "predicted": used / (2 * size),
                "half_gap": gap,
                "half_gap_error": standard_error(gaps.to_numpy()),
                "fits": len(gaps),
                "above_floor": float(here["cross_entropy"].mean() - fresh["cross_entropy"].mean()),
                "ratio": gap / (used / (2 * size)),
            }
        )
    return pd.DataFrame(rows)


def excess_verdict(table: pd.DataFrame) -> RuleFinding:
    """Return V-excess from ``excess_table``: how many cells lie within a factor of two of the prediction.

    A cell whose parameters could not be counted does not.
    """
    ratio = table["ratio"].to_numpy()
    near = float(((ratio >= 1 / FACTOR) & (ratio <= FACTOR)).mean())
    verdict = Verdict.HOLDS if near >= MOST else Verdict.FAILS if near <= FEW else Verdict.UNDECIDED
    missing = int(np.isnan(ratio).sum())
    if missing == len(ratio):
        return RuleFinding("V-excess", None, "No fit could be counted with so few images")
    found = f"{near:.0%} of {len(ratio)} cells within a factor of {FACTOR:g}; observed over predicted "
    low, median, high = np.nanquantile(ratio, [0.0, 0.5, 1.0])
    found += f"{median:.2f} in the median, {low:.2f} to {high:.2f}" + f"; {missing} not counted" * bool(missing)
    return RuleFinding("V-excess", verdict, found)


def floor_table(curves: pd.DataFrame) -> pd.DataFrame:
    """Return the winner that floors predict, and the observed one, of each task with floors of both methods.

    curves  rows of a run

    The predicted winner has the lower loss on fresh images (``floor_fixed``, ``floor_adaptive``, in nats).
    The observed one has the higher mean accuracy (``accuracy_fixed``, ``accuracy_adaptive``) at the largest
    n that either was run at. A tie has no winner (""), and agrees with nothing. ``left_out`` names the tasks
    that lack one of these four numbers.
    """
    means = mean_curves(curves)
    rows = []
    for task, own in means[means["method"].isin([FIXED, ADAPTIVE])].groupby("task", sort=False):
        by = own.set_index(["method", "n"])
        largest = int(own["n"].max())
        floors = [float(by["cross_entropy"].get((method, FRESH), np.nan)) for method in (FIXED, ADAPTIVE)]
        accuracies = [float(by["accuracy"].get((method, largest), np.nan)) for method in (FIXED, ADAPTIVE)]
        if largest == FRESH or np.isnan([*floors, *accuracies]).any():
            continue
        predicted, observed = _winner(-floors[0], -floors[1]), _winner(*accuracies)
        rows.append(
            {
                "task": task,
                "n": largest,
                "floor_fixed": floors[0],
                "floor_adaptive": floors[1],
                "predicted": predicted,
                "accuracy_fixed": accuracies[0],
                "accuracy_adaptive": accuracies[1],
                "observed": observed,
                "agree": predicted == observed != "",
            }
        )
    return pd.DataFrame(rows)


def left_out(curves: pd.DataFrame) -> list[str]:
    """Return the tasks of which ``floor_table`` has no row, though both methods and fresh images were run.

    curves  rows of a run
    """
    table = floor_table(curves)
    counted = set(table["task"]) if len(table) else set()
    own = curves[curves["method"].isin([FIXED, ADAPTIVE])]
    run = [
        str(task)
        for task, rows in own.groupby("task", sort=False)
        if rows["method"].nunique() == 2 and (rows["n"] == FRESH).any()
    ]
    return [task for task in run if task not in counted]


def _winner(fixed: float, adaptive: float) -> str:
    """Return the method with the larger value, or "" where they are equal."""
    return FIXED if fixed > adaptive else ADAPTIVE if adaptive > fixed else ""


def floor_verdict(curves: pd.DataFrame) -> RuleFinding:
    """Return V-floor from the rows of a run: agreements of winners over tasks, against a coin."""
    table = floor_table(curves)
    agree, lacking = list(table["agree"]) if len(table) else [], ", ".join(left_out(curves))
    if lacking and not agree:
        return RuleFinding("V-floor", None, f"No floor, or no accuracy at the largest n, of both methods: {lacking}")
    more = f"; not counted, without a floor or an accuracy of both: {lacking}" if lacking else ""
    return _against_a_coin("V-floor", agree, f"the method with the lower floor is the more accurate one{more}")


def cross_verdict(curves: pd.DataFrame, table: pd.DataFrame, entropy: int) -> RuleFinding:
    """Return V-cross: tasks whose predicted n* lies in the interval of the observed crossing.

    curves   rows of a run
    table    its ``excess_table``; effective parameters are those at the largest n
    entropy  of the run, for the interval's resampling
    """
    right, told = [], []
    for task, own in table.groupby("task", sort=False):
        largest = own[own["n"] == own["n"].max()].set_index("method")["effective"]
        rows = curves[curves["task"] == task]
        floors = rows[rows["n"] == FRESH].groupby("method")["cross_entropy"].mean()
        if not {FIXED, ADAPTIVE} <= set(largest.index) & set(floors.index):
            continue
        n = predicted_crossing(float(largest[ADAPTIVE] - largest[FIXED]), float(floors[FIXED] - floors[ADAPTIVE]))
        if not comparable(curves, str(task), FIXED, ADAPTIVE, "cross_entropy"):
            told.append(f"{task} does not count: {not_compared(FIXED, ADAPTIVE)}")
            continue
        seen = crossing(curves, str(task), FIXED, ADAPTIVE, entropy, "cross_entropy")
        sizes = rows[rows["n"] != FRESH]["n"]
        # Beyond the sizes that were run nothing is seen but the side.
        inside = seen["low"] <= n <= seen["high"] or (n > sizes.max() and np.isinf(seen["high"]))
        inside = inside or (n < sizes.min() and seen["low"] == 0)
        right.append(inside)
        ends = f"[{_in_words(seen['low'])}, {_in_words(seen['high'])}]"
        told.append(f"{task} n* {_in_words(n)}, seen {ends}")
    return _against_a_coin("V-cross", right, "the crossing is where it was predicted" + "".join(f"; {t}" for t in told))


def not_compared(fixed: str, adaptive: str) -> str:
    """Return the sentence on two methods that ``curves.crossing`` cannot compare."""
    return f"{adaptive} and {fixed} are not compared: no replicate has both at every n"


def _in_words(n: float) -> str:
    """Return a number of images, "never" for an infinite one, "not counted" for NaN."""
    return "never" if np.isinf(n) else "not counted" if np.isnan(n) else f"{n:.0f}"


def winner_table(curves: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Return the winner that F + P_eff / (2 n) predicts, and the observed one, of each task and n.

    curves  rows of a run
    table   its ``excess_table``; effective parameters are those at the largest n that it has

    ``predicted_fixed`` and ``predicted_adaptive`` are F + P_eff / (2 n) in nats, ``loss_fixed`` and
    ``loss_adaptive`` mean test losses; the winner has the lower one. ``low`` and ``high`` are Student's 90 %
    interval of the loss of adaptive prompts less that of fixed ones, replicate by replicate. A tie has no
    winner (""), and agrees with nothing. Tasks without floors or effective parameters of both are left out.
    """
    sound = curves[curves["status"] == TRAINED]
    rows = []
    for task, own in sound.groupby("task", sort=False):
        floors = own[own["n"] == FRESH].groupby("method")["cross_entropy"].mean()
        counted = table[table["task"] == task]
        used = counted[counted["n"] == counted["n"].max()].set_index("method")["effective"]
        if not {FIXED, ADAPTIVE} <= set(floors.index) & set(used.index):
            continue
        for n, here in own[own["n"] != FRESH].groupby("n"):
            size = int(str(n))
            losses = here.pivot(index="replicate", columns="method", values="cross_entropy")
            losses = losses.reindex(columns=[FIXED, ADAPTIVE]).dropna()
            if losses.empty:
                continue
            predicted = [float(floors[method] + used[method] / (2 * size)) for method in (FIXED, ADAPTIVE)]
            means = [float(losses[method].mean()) for method in (FIXED, ADAPTIVE)]
            apart = mean_interval((losses[ADAPTIVE] - losses[FIXED]).to_numpy())
            names = [_winner(-values[0], -values[1]) for values in (predicted, means)]
            rows.append(
                {
                    "task": task,
                    "n": size,
                    "predicted_fixed": predicted[0],
                    "predicted_adaptive": predicted[1],
                    "predicted": names[0],
                    "loss_fixed": means[0],
                    "loss_adaptive": means[1],
                    "low": apart.low,
                    "high": apart.high,
                    "observed": names[1],
                    "agree": names[0] == names[1] != "",
                }
            )
    return pd.DataFrame(rows)


def judged_winners(winners: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of ``winner_table`` that V-winner judges: all n but the largest of each task."""
    return winners[winners["n"] < winners.groupby("task")["n"].transform("max")] if len(winners) else winners


def winner_verdict(winners: pd.DataFrame) -> RuleFinding:
    """Return V-winner from ``winner_table``: agreements over all n but the largest, against a coin."""
    judged = judged_winners(winners)
    if len(winners) and not len(judged):
        return RuleFinding("V-winner", None, "The run has one n only; the rule leaves the largest out")
    agree = [bool(right) for right in judged["agree"]] if len(judged) else []
    tasks = int(judged["task"].nunique()) if len(judged) else 0
    what = "the method with the lower F + P_eff / (2 n) has the lower test loss"
    missing = int((judged["predicted"] == "").sum()) if len(judged) else 0
    what += f"; {missing} have no prediction" * bool(missing)
    return _against_a_coin("V-winner", agree, what, "cells (task, n)", tasks)


def coin_verdict(agree: int, count: int, tasks: int) -> Verdict:
    """Return what so many agreements say beside those of a coin.

    agree  k, at most ``count``
    count  how many could agree
    tasks  of how many tasks they are; fewer than ``TASKS`` decide nothing

    >>> coin_verdict(4, 4, 4).value, coin_verdict(8, 8, 3).value, coin_verdict(0, 4, 4).value
    ('holds', 'not decidable here', 'fails')
    """
    if tasks >= TASKS and binom.sf(agree - 1, count, 0.5) <= LEVEL:
        return Verdict.HOLDS
    if tasks >= TASKS and binom.cdf(agree, count, 0.5) <= LEVEL:
        return Verdict.FAILS
    return Verdict.UNDECIDED


def _against_a_coin(
    claim: str, right: list[bool], what: str, of: str = "tasks", tasks: int | None = None
) -> RuleFinding:
    """Return what agreements say that a coin would reach with probability ``LEVEL`` at most.

    right  whether the prediction agrees, one entry for each of what is counted
    what   the sentence that agrees
    of     what is counted
    tasks  of how many tasks they are; by default each entry is one
    """
    k, count = sum(right), len(right)
    if not count:
        return RuleFinding(claim, None, "The run has no floors (fresh images) of both methods")
    tasks = count if tasks is None else tasks
    return RuleFinding(claim, coin_verdict(k, count, tasks), f"In {k} of {count} {of} {what}", count, tasks)


def ending_of(table: pd.DataFrame, findings: list[RuleFinding]) -> Ending:
    """Return what the command prints: a sentence for each finding, and the table in 80 columns."""
    body = [
        [
            str(row.task).removeprefix("stand-in:"),
            row.method,
            str(row.n),
            str(row.all_parameters),
            f"{row.effective:.0f}",
            f"{row.predicted:.3f}",
            f"{row.half_gap:.3f}",
            f"{row.ratio:.2f}",
        ]
        for row in table.itertuples()
    ]
    header = ["task", "method", "n", "P", "P_eff", "predicted", "observed", "observed / predicted"]
    legend = (
        "P: parameters; P_eff: those that the fit uses, from its Fisher information, nan where it would not be below "
        "the number of images whose gradients are taken; predicted: excess risk P_eff / (2 n) in nats; observed: half "
        "of test less training cross-entropy."
    )
    return Ending([str(finding) for finding in findings], header, body, legend, keys=3)


def winners_text(table: pd.DataFrame) -> str:
    """Return ``floor_table`` in Markdown; the rule of V-floor stands on docs/pretrained_study.md."""
    head = ["task", "n", f"floor {FIXED}", f"floor {ADAPTIVE}", "predicted", FIXED, ADAPTIVE, "observed", "agree"]
    body = [
        [
            row.task,
            str(row.n),
            f"{row.floor_fixed:.3f}",
            f"{row.floor_adaptive:.3f}",
            row.predicted or "none",
            f"{row.accuracy_fixed:.1%}",
            f"{row.accuracy_adaptive:.1%}",
            row.observed or "none",
            "yes" if row.agree else "no",
        ]
        for row in table.itertuples()
    ]
    return markdown(head, body)


def losses_text(winners: pd.DataFrame) -> str:
    """Return ``winner_table`` in Markdown; the rule of V-winner stands on docs/pretrained_study.md."""
    head = ["task", "n", f"F + P_eff / (2 n) of {FIXED}", f"of {ADAPTIVE}", "predicted", f"test loss of {FIXED}"]
    head += [f"of {ADAPTIVE}", "difference, 90 % interval", "observed", "agree"]
    body = [
        [
            row.task,
            str(row.n),
            f"{row.predicted_fixed:.3f}",
            f"{row.predicted_adaptive:.3f}",
            row.predicted or "none",
            f"{row.loss_fixed:.3f}",
            f"{row.loss_adaptive:.3f}",
            f"{row.loss_adaptive - row.loss_fixed:+.3f} [{row.low:+.3f}, {row.high:+.3f}]",
            row.observed or "none",
            "yes" if row.agree else "no",
        ]
        for row in winners.itertuples()
    ]
    return markdown(head, body)


def findings_of(curves: pd.DataFrame, table: pd.DataFrame, entropy: int) -> list[RuleFinding]:
    """Return what every rule of the module says of a run.

    curves   rows of the run
    table    its ``excess_table``
    entropy  of the run, for resampling
    """
    return [
        excess_verdict(table),
        floor_verdict(curves),
        cross_verdict(curves, table, entropy),
        winner_verdict(winner_table(curves, table)),
    ]


def text(table: pd.DataFrame, findings: list[RuleFinding], winners: pd.DataFrame) -> str:
    """Return the table of excess, a line for each finding, and ``winner_table`` where it has rows."""
    head = ["task", "method", "n", "P", "P_eff", "P / (2 n)", "P_eff / (2 n)", "half gap", "above floor"]
    body = [
        [
            row.task,
            row.method,
            str(row.n),
            str(row.all_parameters),
            f"{row.effective:.1f}",
            f"{row.counted:.2f}",
            f"{row.predicted:.3f}",
            f"{row.half_gap:.3f}",
            "-" if np.isnan(row.above_floor) else f"{row.above_floor:.3f}",
        ]
        for row in table.itertuples()
    ]
    lines = "\n".join(f"- {finding}" for finding in findings)
    told = f"\n\nTest losses in nats, predicted and observed\n\n{losses_text(winners)}" if len(winners) else ""
    return f"Excess risk in nats, predicted and observed\n\n{markdown(head, body)}\n\n{lines}{told}"

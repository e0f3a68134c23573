"""Report curves over n: tables in words for planted truths and for tasks, crossings, and the figures."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from moe_prompts.figures.style import STYLE, column, finding, legend_of
from moe_prompts.shown import Ending
from moe_prompts.tables import markdown
from moe_prompts.vision.data_efficiency.curves import (
    CLASS_HOLDS_TRUTH,
    FRESH,
    PLANTED,
    above_floor,
    comparable,
    crossing,
    differences,
    mean_curves,
    regular,
)
from moe_prompts.vision.data_efficiency.figures import draw_above_floor, draw_excess, draw_over_n
from moe_prompts.vision.data_efficiency.link import floor_table, left_out, not_compared, winners_text
from moe_prompts.vision.figures import ordered

#: Pairs whose crossing is reported.
PAIRS = (("vpt_deep", "vapt"), ("vpt_matched", "vapt"), ("vpt_large", "vapt"))
#: And on the adaptive truth, where the student that starts at the teacher is an adaptive one.
ADAPTIVE_PAIRS = (*PAIRS, ("vpt_deep", "at_teacher"), ("vpt_matched", "at_teacher"))
#: Claims on accuracy, each with a rule for one task at n = ``CLAIMED_AT``: the method that is said to be more
#: accurate, and the other (docs/pretrained_study.md).
CLAIMS = {
    "V-prompts": ("vpt_deep", "linear"),
    "V-gain": ("vapt", "vpt_deep"),
    "V-dependence": ("vapt", "vapt_shuffled"),
    "V-gain-tokens": ("vapt_tokens", "vpt_deep"),
    "V-gain-vpt": ("vapt_vpt", "vpt_deep"),
    "V-gain-gain": ("vapt_gain", "vpt_deep"),
    "V-start-tokens": ("vapt_tokens", "vapt"),
    "V-start-vpt": ("vapt_vpt", "vapt"),
    "V-start-gain": ("vapt_gain", "vapt"),
}
#: n of that rule. At other n a difference is told without the name of a claim.
CLAIMED_AT = 800
#: Pairs whose claims are on means over tasks (``claim_lines.MEANS``): on one task they are differences.
OTHER_PAIRS = (("vapt", "vapt_constant"), ("vapt", "lora"))
#: All pairs that are told, by claim or by a sentence.
TOLD = CLAIMS | {f"{better} above {other}": (better, other) for better, other in OTHER_PAIRS}
#: Methods whose distance to the floor is drawn.
ABOVE_FLOOR = ("vpt_deep", "vpt_matched", "vapt")


def text(results: pd.DataFrame, entropy: int) -> str:
    """Return all tables and crossings of a run, as Markdown."""
    planted, tasks = _both(mean_curves(results))
    parts = []
    if len(planted):
        parts += [
            "Planted prompts: mean excess risk in nats over replicates (given images it is exact) +- standard error",
            table_of(planted, "excess", 1, ".3f"),
            "The teacher's accuracy that students reach, percent",
            table_of(planted, "accuracy", 100, ".1f"),
            crossings(results, planted, "excess", entropy),
        ]
    if len(tasks):
        parts += [
            "Tasks: accuracy on test in percent +- standard error over replicates",
            table_of(tasks, "accuracy", 100, ".1f"),
            *differences_of(results[~results["task"].isin(PLANTED)]),
            "Cross-entropy on test in nats",
            table_of(tasks, "cross_entropy", 1, ".3f"),
        ]
        if (tasks["n"] == FRESH).any():
            parts += [
                "Floor (cross-entropy on test after fresh images), log-log slope above it with its 90 % interval, and "
                "the P / (2 n) that a regular method would pay",
                slopes_of(results, tasks, entropy),
                *winners_of(results[~results["task"].isin(PLANTED)]),
            ]
        parts += [
            crossings(results, tasks, "cross_entropy", entropy),
        ]
    failed = int(planted["failed"].sum() + tasks["failed"].sum())
    if failed:
        parts.append(f"{failed} of {len(results)} trainings diverged; they are left out of means.")
    return "\n\n".join(part for part in parts if part)


def figures_of(results: pd.DataFrame, entropy: int, names: Sequence[str] = ("planted", "tasks")) -> dict[str, Figure]:
    """Return the figures by name: "planted" and "tasks", each where there are such rows."""
    planted, tasks = _both(mean_curves(results))
    drawn = {}
    if "planted" in names and len(planted):
        drawn["planted"] = planted_figure(planted, results, entropy)
    if "tasks" in names and len(tasks):
        drawn["tasks"] = tasks_figure(tasks)
    return drawn


def _both(found: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    planted = found["task"].isin(PLANTED)
    return found[planted], found[~planted]


def table_of(found: pd.DataFrame, value: str, scale: float, digits: str) -> str:
    """Return a Markdown table with a row for each task and method, and a column for each n.

    value   a column of ``curves.mean_curves``
    scale   factor on it, as 100 for percent
    digits  how numbers are written, as ".1f"
    """
    return markdown(*_columns(found, _sizes(found), value, scale, digits))


def _sizes(found: pd.DataFrame) -> list[int]:
    return sorted(found["n"].unique(), key=lambda n: np.inf if n == FRESH else n)


def _columns(
    found: pd.DataFrame, sizes: Sequence[int], value: str, scale: float, digits: str
) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of ``table_of``, with a column for each of ``sizes``."""
    heads = ["fresh images" if n == FRESH else f"n = {n}" for n in sizes]
    body = []
    for (task, method, parameters), group in found.groupby(["task", "method", "parameters"], sort=False):
        by_n = group.set_index("n")[[value, f"{value}_error"]].reindex(sizes) * scale
        cells = [_mean(mean, error, digits) for mean, error in by_n.itertuples(index=False)]
        body.append([str(task), str(method), str(parameters), *cells])
    return ["task", "method", "parameters", *heads], body


def ending_of(results: pd.DataFrame, entropy: int) -> Ending:
    """Return what the command prints: who is better from which n on, and excess or accuracy against n."""
    curves = mean_curves(results)
    planted, tasks = _both(curves)
    header: list[str] = []
    findings: list[str] = []
    body: list[list[str]] = []
    legend: list[str] = []
    for found, value, shown, scale, digits, what in (
        (planted, "excess", "excess", 1, ".3f", "of planted truths: mean excess risk in nats"),
        (tasks, "cross_entropy", "accuracy", 100, ".1f", "of tasks: accuracy on test in percent"),
    ):
        if len(found):
            findings += [
                f"{line.removeprefix('- ')}." for line in crossings(results, found, value, entropy).splitlines()
            ]
            header, rows = _columns(found, _sizes(curves), shown, scale, digits)
            body += [[row[0].removeprefix("stand-in:"), *row[1:]] for row in rows]
            legend.append(what)
    if len(tasks):
        for row in differences(results[~results["task"].isin(PLANTED)], TOLD).itertuples():
            interval = "" if np.isnan(row.low) else f" [{100 * row.low:+.1f}, {100 * row.high:+.1f}]"
            by = f"{row.better} above {row.other} at n = {row.n} by {100 * row.difference:+.1f}{interval} points"
            claimed = row.claim in CLAIMS and row.n == CLAIMED_AT
            findings.append(
                f"{row.task}: {row.claim} {row.verdict} ({by})." if claimed else f"{row.task}: {by} ({row.verdict})."
            )
    failed = int(planted["failed"].sum() + tasks["failed"].sum())
    if failed:
        findings.append(f"{failed} of {len(results)} trainings diverged; they are left out of means.")
    said = f"n: training images; numbers are {'; '.join(legend)}, +- standard error over replicates. "
    said += "parameters: of prompts, without the head. fresh images: every step on new images."
    return Ending(findings, header, body, said, keys=2)


def differences_of(results: pd.DataFrame) -> list[str]:
    """Return a title and a Markdown table of differences in accuracy; nothing where no pair is there.

    A row has the name of a claim where the claim's rule is one for a task, at the n of the row.
    """
    found = differences(results, TOLD)
    if not len(found):
        return []
    body = [
        [
            str(row.task),
            (f"{row.claim}: " if row.claim in CLAIMS and row.n == CLAIMED_AT else "")
            + f"{row.better} above {row.other}",
            f"{row.n}",
            f"{100 * row.difference:+.1f}",
            "-" if np.isnan(row.low) else f"[{100 * row.low:+.1f}, {100 * row.high:+.1f}]",
            f"{row.count}",
            str(row.verdict),
        ]
        for row in found.itertuples()
    ]
    heads = ["task", "claim", "n", "points", "90 % interval", "replicates", "verdict"]
    return ["Differences of accuracy in points, replicate by replicate", markdown(heads, body)]


def winners_of(results: pd.DataFrame) -> list[str]:
    """Return heading and table of the winners that floors predict, or nothing without floors of both."""
    table, lacking = floor_table(results), ", ".join(left_out(results))
    more = [f"Without a floor or an accuracy at the largest n of both methods: {lacking}"] if lacking else []
    if table.empty:
        return more
    heading = (
        "Winner that floors predict (test loss after fresh images, nats), and the more accurate method on n images; "
        f"a coin would agree in all with probability {0.5 ** len(table):.2g}"
    )
    return [heading, winners_text(table), *more]


def slopes_of(results: pd.DataFrame, found: pd.DataFrame, entropy: int) -> str:
    """Return a Markdown table of floors and of slopes above them, a row for each task and method."""
    largest = int(found["n"].max())
    body = []
    for (task, method, parameters), _ in found.groupby(["task", "method", "parameters"], sort=False):
        at = above_floor(results, task, method, entropy, "cross_entropy")
        slope = "-" if np.isnan(at["slope"]) else f"{at['slope']:.2f} [{at['low']:.2f}, {at['high']:.2f}]"
        floor = _mean(at["floor"], np.nan, ".3f")
        body.append([str(task), str(method), floor, slope, f"{float(regular(parameters, largest)):.2f}"])
    return markdown(["task", "method", "floor", "slope above it", f"P / (2 n) at n = {largest}"], body)


def crossings(results: pd.DataFrame, found: pd.DataFrame, value: str, entropy: int) -> str:
    """Return a line for each pair of methods on each task: from which n on the adaptive one is better.

    A pair that no replicate has at every n is named as such.
    """
    lines = []
    for task, group in found.groupby("task", sort=False):
        there, known = set(group["method"]), dict.fromkeys(CLASS_HOLDS_TRUTH.get(str(task), ()), 0.0)
        for fixed, adaptive in ADAPTIVE_PAIRS if task == PLANTED[1] else PAIRS:
            if {fixed, adaptive} <= there:
                if not comparable(results, str(task), fixed, adaptive, value):
                    lines.append(f"- {task}: {not_compared(fixed, adaptive)}")
                    continue
                at = crossing(results, str(task), fixed, adaptive, entropy, value, known)
                largest = int(group[group["method"].isin([fixed, adaptive])]["n"].max())
                shown = f"{value.replace('_', '-')} than {fixed}"
                lines.append(
                    f"- {task}: {adaptive} {_observed(at, shown, largest)}; predicted from floors and parameters: "
                    f"{_predicted(at['predicted'])}"
                )
    return "\n".join(lines)


def _observed(at: dict[str, float], shown: str, largest: int) -> str:
    """Return from which n on the adaptive method was better, in words that follow its name.

    at       of ``curves.crossing``
    shown    what is compared, such as "excess than vpt_deep"
    largest  the largest n
    """
    n, low, high = at["observed"], at["low"], at["high"]
    # Without a crossing the rule speaks of the largest n: at smaller ones the method may have been better.
    found = (
        f"does not have less {shown} at n = {largest}, the largest" if np.isinf(n) else f"has less {shown} {_from(n)}"
    )
    crosses = 0 < n < np.inf
    if not crosses and low == n == high:
        return found
    if crosses and low > 0 and high < np.inf:
        return f"{found} [{low:.0f}, {high:.0f}]"
    return f"{found} (90 % interval: {_from(low)}, to {_from(high)})"


def _mean(mean: float, error: float, digits: str) -> str:
    return "-" if np.isnan(mean) else f"{mean:{digits}}" + ("" if np.isnan(error) else f" +- {error:{digits}}")


def _from(n: float) -> str:
    return "at every n" if n == 0 else "at no n" if np.isinf(n) else f"from n = {n:.0f} on"


def _predicted(n: float) -> str:
    return "nothing (no fresh images)" if np.isnan(n) else f"{n:.0f}" if 0 < n < np.inf else _from(n)


#: What stands on the figures for a reader of them alone.
BARS = "bars: 90 % intervals of the mean over replicates"
EXPLAINED = f"{BARS}; fresh: new images at every step"


def planted_figure(found: pd.DataFrame, results: pd.DataFrame, entropy: int) -> Figure:
    """Draw excess risk against n, a panel for each truth, with observed and predicted crossing.

    found    rows of ``curves.mean_curves``
    results  the rows that they are means of
    entropy  seed of the run, from which resamples are drawn
    """
    truths = list(dict.fromkeys(found["task"]))
    with plt.rc_context(STYLE):
        figure, grid = column(len(truths), 2.0, 1.4, sharex=True)
        for ax, truth in zip(grid[:, 0], truths, strict=True):
            own = found[found["task"] == truth]
            draw_excess(ax, own)
            name = {PLANTED[0]: "fixed truth", PLANTED[1]: "adaptive truth"}[truth]
            finding(ax, f"{name}: {draw_crossing(ax, results, own, truth, entropy)}")
            ax.label_outer()
        legend_of(figure, grid[:, 0], 1, f"student (parameters); {EXPLAINED}")
    return figure


def draw_crossing(ax: Axes, results: pd.DataFrame, found: pd.DataFrame, truth: str, entropy: int) -> str:
    """Draw from which n on an adaptive student is better than a fixed one, and return it in words.

    A band is the 90 % interval of the observed crossing, the line in it the crossing, a dotted line the
    predicted one. The adaptive student is that which starts at the teacher, where the truth is adaptive and
    it was trained.
    Where there is a crossing the axis of nats becomes linear, as the interpolation between two sizes is.
    """
    there = set(found["method"])
    adaptive = "at_teacher" if truth == PLANTED[1] and "at_teacher" in there else "vapt"
    if not {"vpt_deep", adaptive} <= there:
        return "no fixed and adaptive student to compare"
    if not comparable(results, truth, "vpt_deep", adaptive):
        return not_compared("vpt_deep", adaptive)
    known = dict.fromkeys(CLASS_HOLDS_TRUTH.get(truth, ()), 0.0)
    at = crossing(results, truth, "vpt_deep", adaptive, entropy, "excess", known)
    if not 0 < at["observed"] < np.inf:
        own = found[found["method"].isin(["vpt_deep", adaptive])]["n"]
        least, most = min(n for n in own if n), max(own)
        ahead = "behind" if at["observed"] else "ahead of"
        return f"adaptive prompts are {ahead} fixed ones at n = {least} to {most}"
    if np.isfinite([at["low"], at["high"]]).all():
        ax.axvspan(at["low"], at["high"], color="0.85", linewidth=0, zorder=0)
    ax.axvline(at["observed"], color="0.35", linewidth=0.8, zorder=0, label="crossing observed (band: 90 %)")
    # Between two sizes the crossing is linear in nats and in log n: on such axes lines meet where it is
    # drawn.
    ax.set_yscale("linear")
    ax.set_ylim(bottom=0)
    told = ""
    if 0 < at["predicted"] < np.inf:
        ax.axvline(at["predicted"], color="0.1", linewidth=0.8, linestyle=":", zorder=0, label="crossing predicted")
        told = f"; predicted {at['predicted']:.0f}"
    who = "an adaptive student that starts at the teacher" if adaptive == "at_teacher" else "the adaptive student"
    return f"{who} is ahead of the fixed one beyond n = {at['observed']:.0f} [{at['low']:.0f}, {at['high']:.0f}]{told}"


def ahead(accuracies: pd.Series) -> str:
    """Return in words which method has the highest mean accuracy, and how far the next three are behind.

    accuracies  shares in [0, 1], by method; NaN where no training ended
    """
    found = accuracies.dropna().nlargest(4)
    if found.empty:
        return "no training ended"
    first, *others = found.items()
    name, most = first
    behind = ", ".join(f"{100 * (most - value):.0f} points above {method}" for method, value in others)
    return f"{name} is right on {100 * most:.0f}\u00a0% in the mean" + (f", {behind}" if behind else "")


def tasks_figure(found: pd.DataFrame) -> Figure:
    """Draw accuracy against n, a panel for each task; below it, where floors were measured, excess.

    That is the cross-entropy of prompts above the floor, beside P / (2 n).
    """
    tasks = list(dict.fromkeys(found["task"]))
    prompts = [name for name in ABOVE_FLOOR if name in ordered(found["method"])]
    floors = (found["n"] == FRESH).any()
    explained = f"lines without marks: P / (2 n); {EXPLAINED}" if floors else BARS
    with plt.rc_context(STYLE):
        figure, grid = column(len(tasks) * (2 if floors else 1), 1.9, 0.9)
        panels = iter(grid[:, 0])
        for task in tasks:
            own, name = found[found["task"] == task], task.removeprefix("stand-in:")
            ax = next(panels)
            draw_over_n(ax, own, "accuracy")
            low, high = ax.get_ylim()
            ax.set_ylim(max(0, low), min(100, high))
            largest = own[own["n"] == own["n"].max()].set_index("method")["accuracy"]
            finding(ax, f"{name}, {own['n'].max()} images: {ahead(largest)}")
            if floors:
                ax = next(panels)
                draw_above_floor(ax, own, prompts)
                finding(ax, f"{name}: cross-entropy above the floor of fresh images")
        legend_of(figure, grid[:, 0], 3, explained)
    return figure

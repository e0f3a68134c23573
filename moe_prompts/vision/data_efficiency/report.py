"""Report curves over n: tables in words for planted truths and for tasks, crossings, and the figures."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from moe_prompts.figures.style import DOUBLE, SINGLE, STYLE, legend_of
from moe_prompts.shown import Ending
from moe_prompts.tables import markdown
from moe_prompts.vision.data_efficiency.curves import (
    FRESH,
    HOLDS,
    PLANTED,
    above_floor,
    crossing,
    differences,
    mean_curves,
    regular,
)
from moe_prompts.vision.data_efficiency.figures import draw_above_floor, draw_excess, draw_over_n
from moe_prompts.vision.figures import ordered

#: Pairs whose crossing is reported.
PAIRS = (("vpt_deep", "vapt"), ("vpt_matched", "vapt"), ("vpt_large", "vapt"))
#: And on the adaptive truth, where the student that starts at the teacher is an adaptive one.
ADAPTIVE_PAIRS = (*PAIRS, ("vpt_deep", "at_teacher"), ("vpt_matched", "at_teacher"))
#: Claims on accuracy: the method that is said to be more accurate, and the other (docs/pretrained_study.md).
CLAIMS = {
    "V-prompts": ("vpt_deep", "linear"),
    "V-gain": ("vapt", "vpt_deep"),
    "V-dependence": ("vapt", "vapt_shuffled"),
    "V-gain-tokens": ("vapt_tokens", "vpt_deep"),
    "V-gain-vpt": ("vapt_vpt", "vpt_deep"),
    "V-start-tokens": ("vapt_tokens", "vapt"),
    "V-start-vpt": ("vapt_vpt", "vapt"),
}
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
            ]
        parts += [
            crossings(results, tasks, "cross_entropy", entropy),
        ]
    failed = int(planted["failed"].sum() + tasks["failed"].sum())
    if failed:
        parts.append(f"{failed} of {len(results)} trainings diverged; they are left out of means.")
    return "\n\n".join(part for part in parts if part)


def figures_of(results: pd.DataFrame, names: Sequence[str] = ("planted", "tasks")) -> dict[str, Figure]:
    """Return the figures by name: "planted" and "tasks", each where there are such rows."""
    rows = dict(zip(("planted", "tasks"), _both(mean_curves(results)), strict=True))
    draw = {"planted": planted_figure, "tasks": tasks_figure}
    return {name: draw[name](rows[name]) for name in names if len(rows[name])}


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
        for row in differences(results[~results["task"].isin(PLANTED)], CLAIMS).itertuples():
            interval = "" if np.isnan(row.low) else f" [{100 * row.low:+.1f}, {100 * row.high:+.1f}]"
            findings.append(
                f"{row.task}: {row.claim}, {row.better} above {row.other} at n = {row.n}: {100 * row.difference:+.1f}"
                f"{interval} points, {row.verdict}."
            )
    failed = int(planted["failed"].sum() + tasks["failed"].sum())
    if failed:
        findings.append(f"{failed} of {len(results)} trainings diverged; they are left out of means.")
    said = f"n: training images; numbers are {'; '.join(legend)}, +- standard error over replicates. "
    said += "parameters: of prompts, without the head. fresh images: every step on new images."
    return Ending(findings, header, body, said, keys=2)


def differences_of(results: pd.DataFrame) -> list[str]:
    """Return a title and a Markdown table of differences in accuracy; nothing where no pair is there."""
    found = differences(results, CLAIMS)
    if not len(found):
        return []
    body = [
        [
            str(row.task),
            f"{row.claim}: {row.better} above {row.other}",
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
    """Return a line for each pair of methods on each task: from which n on the adaptive one is better."""
    lines = []
    for task, group in found.groupby("task", sort=False):
        there, known = set(group["method"]), dict.fromkeys(HOLDS.get(str(task), ()), 0.0)
        for fixed, adaptive in ADAPTIVE_PAIRS if task == PLANTED[1] else PAIRS:
            if {fixed, adaptive} <= there:
                at = crossing(results, str(task), fixed, adaptive, entropy, value, known)
                lines.append(
                    f"- {task}: {adaptive} has less {value.replace('_', '-')} than {fixed} from n = "
                    f"{_size(at['observed'])} on [{_size(at['low'])}, {_size(at['high'])}]; predicted from floors and "
                    f"parameters: {_size(at['predicted'])}"
                )
    return "\n".join(lines)


def _mean(mean: float, error: float, digits: str) -> str:
    return "-" if np.isnan(mean) else f"{mean:{digits}}" + ("" if np.isnan(error) else f" +- {error:{digits}}")


def _size(n: float) -> str:
    if np.isnan(n):
        return "not without fresh images"
    return "the smallest" if n == 0 else "never" if np.isinf(n) else f"{n:.0f}"


#: What stands on the figures for a reader of them alone.
BARS = "bars: 90 % intervals of the mean over replicates"
EXPLAINED = f"{BARS}; fresh: new images at every step"


def planted_figure(found: pd.DataFrame) -> Figure:
    """Draw excess risk against n, a panel for each truth."""
    truths = list(dict.fromkeys(found["task"]))
    with plt.rc_context(STYLE):
        figure = Figure(figsize=(DOUBLE if len(truths) > 1 else SINGLE, 3.1), layout="constrained")
        axes = figure.subplots(1, len(truths), squeeze=False, sharey=True)[0]
        for ax, truth in zip(axes, truths, strict=True):
            draw_excess(ax, found[found["task"] == truth])
            ax.set_title({PLANTED[0]: "fixed truth", PLANTED[1]: "adaptive truth"}[truth])
            ax.label_outer()
        legend_of(figure, axes, len(truths), f"student (parameters); {EXPLAINED}")
    return figure


def tasks_figure(found: pd.DataFrame) -> Figure:
    """Draw a row of panels for each task.

    They are the accuracy of prompts beside the grey baselines; that of VAPT beside its controls; and, where
    floors were measured, the cross-entropy of prompts above the floor beside P / (2 n).
    """
    tasks = list(dict.fromkeys(found["task"]))
    methods = ordered(found["method"])
    controls = [name for name in methods if name.startswith("vapt")]
    others = [name for name in methods if name == "vapt" or name not in controls]
    prompts = [name for name in ABOVE_FLOOR if name in methods]
    titles = ["prompts and baselines", "VAPT and its controls"]
    explained = f"marks of one n stand side by side; {BARS}"
    if (found["n"] == FRESH).any():
        titles.append("above the floor")
        explained = f"right: lines without marks are P / (2 n); {EXPLAINED}"
    with plt.rc_context(STYLE):
        figure = Figure(figsize=(DOUBLE, 1.9 * len(tasks) + 1.1), layout="constrained")
        axes = figure.subplots(len(tasks), len(titles), squeeze=False, sharex="col")
        for row, task in zip(axes, tasks, strict=True):
            own = found[found["task"] == task]
            for ax, chosen in zip(row, (others, controls), strict=False):
                draw_over_n(ax, own, "accuracy", chosen)
            low, high = zip(*(ax.get_ylim() for ax in row[:2]), strict=True)
            for ax in row[:2]:
                ax.set_ylim(max(0, min(low)), min(100, max(high)))
            row[1].set_ylabel("")
            if len(titles) == 3:
                draw_above_floor(row[2], own, prompts)
            for ax, title in zip(row, titles, strict=True):
                ax.set_title(f"{task.removeprefix('stand-in:')}: {title}")
        for ax in axes[:-1].ravel():
            ax.set_xlabel("")
        legend_of(figure, axes[-1], 5, explained)
    return figure

"""Draw accuracy and excess risk against the number of images: ``draw_*(ax, table)`` draw on given axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from moe_prompts.figures.style import SINGLE, STYLE, column, finding, legend_of
from moe_prompts.intervals import half_width
from moe_prompts.vision.data_efficiency.curves import regular
from moe_prompts.vision.figures import (
    COLOURS,
    _draw_by_task,
    _method_style,
    ordered,
)
from moe_prompts.vision.tasks.named import short
from moe_prompts.vision.tasks.procedural import FORMULAS

#: Name, colour, line and marker of students of planted prompts.
STUDENT_STYLES = {
    "vpt_deep": ("fixed, as many as the teacher", COLOURS["VPT"], "-", "o"),
    "vpt_matched": ("fixed, more tokens", COLOURS["VPT"], (0, (5, 2)), "P"),
    "vpt_large": ("fixed, most tokens", COLOURS["VPT"], ":", "v"),
    "vapt": ("adaptive", COLOURS["VAPT"], "--", "s"),
    "vapt_constant": ("adaptive form, blind to the image", COLOURS["VAPT"], ":", "D"),
    "vapt_offset": ("adaptive with free vectors", COLOURS["VAPT"], "-.", "^"),
    "at_teacher": ("the teacher's class, from the teacher", "0.4", "-", "*"),
}
#: Optimisers of a screening: colour, marker and filling; blue and orange are those of prompts.
OPTIMISER_STYLES = {
    "sgd": ("0.0", "o", True),
    "sgd-mu": ("0.0", "v", False),
    "adamw": ("0.5", "s", True),
    "adamw-mu": ("0.5", "^", False),
    "lamb": ("0.3", "D", False),
}
#: Series of differences, in their order: colour, marker, whether it is filled.
SERIES_STYLES = (("0.0", "o", True), ("0.3", "D", False), ("0.3", "^", True), ("0.6", "s", True))
#: Starts of second-order searches: colour and marker. The first two know nothing of the teacher.
START_STYLES = {
    "official": (COLOURS["VAPT"], "o"),
    "teacher's law": (COLOURS["VAPT"], "s"),
    "fixed first": ("#31a354", "^"),
    "fixed alone": (COLOURS["VPT"], "v"),
    "teacher": ("0.4", "*"),
}
#: Up to so many nats differences of losses stand on a linear axis, beyond on a logarithmic one.
LINEAR = 0.5
#: Colours of tasks, none of which is one of a method.
TASK_COLOURS = ("0.0", "#31a354", "0.55", "#756bb1")
#: Least nats that are drawn on a logarithmic axis: fits that stay at the teacher leave 0 up to rounding.
LEAST_DRAWN = 1e-3
#: Place of fresh images on the axis of n, as a multiple of the largest n.
FRESH_AT = 2.2


def draw_excess(ax: Axes, table: pd.DataFrame) -> None:
    """Draw excess risk against n for each student on one truth.

    Bars are 90 % intervals of the mean over replicates; the marks at the right are fresh images.

    table  rows of ``curves.mean_curves`` of one planted truth
    """
    for name in [name for name in STUDENT_STYLES if name in set(table["method"])]:
        label, colour, line, marker = STUDENT_STYLES[name]
        own = table[table["method"] == name]
        # The teacher's class is another one for each truth.
        said = label if name == "at_teacher" else f"{label} ({own['parameters'].iloc[0]})"
        style = {"color": colour, "linestyle": line, "marker": marker, "label": said}
        _draw_over_n(ax, own, "excess", table["n"].max(), **style)
    _sizes_axis(ax, table)
    ax.set_yscale("log")
    ax.yaxis.set_minor_locator(NullLocator())
    ax.set_ylabel("excess risk, nats")


def draw_over_n(ax: Axes, table: pd.DataFrame, value: str, methods: Sequence[str] | None = None) -> None:
    """Draw accuracy in percent or cross-entropy in nats against n, a line for each method on one task.

    Bars and marks are as in ``draw_excess``. The dash-dotted line of accuracy is chance, where the task is
    known.

    table    rows of ``curves.mean_curves`` of one task
    value    "accuracy" or "cross_entropy"
    methods  which to draw; None: all
    """
    shown = table.assign(accuracy=100 * table["accuracy"], accuracy_error=100 * table["accuracy_error"])
    names = ordered(table["method"] if methods is None else methods)
    for name in names:
        own = shown[shown["method"] == name]
        style = _method_style(name) | {"label": name}
        _draw_over_n(ax, own, value, shown["n"].max(), **style)
    known = chance(str(table["task"].iloc[0]))
    if value == "accuracy" and known is not None:
        ax.axhline(100 * known, color="0.2", linewidth=0.7, linestyle=(0, (1, 1)), label="chance")
    _sizes_axis(ax, table)
    ax.set_ylabel({"accuracy": "accuracy on test, percent", "cross_entropy": "cross-entropy on test, nats"}[value])


def chance(task: str) -> float | None:
    """Return the accuracy of a guess on a task that needs no download, 1 / classes; None for others."""
    name = short(task)
    if name == task or not (name == "digits" or name in FORMULAS):
        return None
    return 1 / (10 if name == "digits" else FORMULAS[name].classes)


def draw_above_floor(ax: Axes, table: pd.DataFrame, methods: Sequence[str]) -> None:
    """Draw cross-entropy above the floor of fresh images against n.

    A line without marks is what a regular method with as many parameters would pay, P / (2 n). Methods
    without fresh images are left out.

    table  as in ``draw_over_n``
    """
    for name in methods:
        own = table[(table["method"] == name) & (table["n"] > 0)].sort_values("n")
        floor = table[(table["method"] == name) & (table["n"] == 0)]["cross_entropy"]
        if own.empty or floor.empty:
            continue
        style, parameters = _method_style(name), own["parameters"].iloc[0]
        above = own["cross_entropy"] - float(floor.iloc[0])
        ax.errorbar(
            own["n"],
            above.where(above > 0),
            yerr=half_width(own["cross_entropy_error"], own["fits"]),
            elinewidth=0.6,
            label=name,
            **style,
        )
        expected = regular(parameters, own["n"].to_numpy())
        ax.plot(own["n"], expected, color=style["color"], linestyle=style["linestyle"], linewidth=0.8)
    _sizes_axis(ax, table[table["n"] > 0])
    ax.set_yscale("log")
    ax.set_ylabel("excess cross-entropy, nats")


def _draw_over_n(ax: Axes, own: pd.DataFrame, value: str, largest: float, **style) -> None:
    """Draw one method: a line over n, and its mark right of it for fresh images."""
    finite = own[own["n"] > 0].sort_values("n")
    bars = half_width(finite[f"{value}_error"], finite["fits"])
    ax.errorbar(finite["n"], finite[value], yerr=bars, elinewidth=0.6, **style)
    floor = own[own["n"] == 0][value]
    alone = style | {"linestyle": "none", "label": None}
    ax.plot([FRESH_AT * largest] * len(floor), floor, **alone)


def _sizes_axis(ax: Axes, table: pd.DataFrame) -> None:
    """Set ticks at the sizes, and at fresh images where the table has them."""
    sizes = sorted(n for n in table["n"].unique() if n)
    fresh = [FRESH_AT * max(sizes)] if (table["n"] == 0).any() else []
    ax.set_xscale("log")
    ax.set_xticks([*sizes, *fresh], [*(str(n) for n in sizes), *("fresh" for _ in fresh)])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("training images n")


def draw_predicted(ax: Axes, table: pd.DataFrame) -> None:
    """Draw observed excess against predicted excess in nats on logarithmic axes; on the line they are equal.

    The band is a factor of two to each side. Larger marks are larger n. Bars are 90 % intervals of what was
    observed, over replicates; the prediction is of one fit.

    table  rows of ``link.excess_table``
    """
    positive = table[(table["predicted"] > 0) & (table["half_gap"] > 0)]
    ends = positive[["predicted", "half_gap"]]
    span = np.array([ends.min().min() / 1.5, ends.max().max() * 1.5]) if len(positive) else np.array([0.1, 1.0])
    ax.fill_between(span, span / 2, span * 2, color="0.9", linewidth=0)
    ax.plot(span, span, color="0.4", linestyle=":")
    sizes = sorted(positive["n"].unique())
    for method in ordered(positive["method"]):
        own = positive[positive["method"] == method]
        style = _method_style(method) | {"linestyle": "none", "label": method}
        for n, rows in own.groupby("n"):
            style["markersize"] = 4 + 2 * sizes.index(n)
            bars = half_width(rows["half_gap_error"].to_numpy(), rows["fits"].to_numpy())
            ax.errorbar(rows["predicted"], rows["half_gap"], yerr=bars, elinewidth=0.6, **style)
            style["label"] = None
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlim(*span)
    ax.set_ylim(*span)
    ax.set_aspect("equal")
    ax.set_xlabel(r"predicted: $P_{\rm eff}\,/\,(2n)$, nats")
    ax.set_ylabel("observed: half of test - training loss, nats")
    ratio = positive["ratio"]
    near = int(((ratio >= 0.5) & (ratio <= 2)).sum())
    if positive.empty:
        finding(ax, "no fit could be counted, or none has a positive gap", 46)
        return
    finding(
        ax,
        f"observed is {ratio.min():.1f} to {ratio.max():.1f} times predicted; {near} of {len(ratio)} marks lie within "
        "a factor of two (grey)",
        46,
    )
    ax.legend()
    told = ", ".join(str(n) for n in sizes)
    ax.annotate(
        f"small to large:\nn = {told}\nbars: 90 % intervals",
        (0.98, 0.02),
        xycoords="axes fraction",
        ha="right",
        va="bottom",
        fontsize=6.5,
    )


def draw_winners(ax: Axes, winners: pd.DataFrame) -> None:
    """Draw observed against predicted differences of test losses in nats, adaptive less fixed prompts.

    In the grey quarters both have the same sign, so the predicted winner wins; on the dotted line they are
    equal. Larger marks are larger n. Bars are 90 % intervals over replicates.

    winners  rows of ``link.winner_table``
    """
    predicted = (winners["predicted_adaptive"] - winners["predicted_fixed"]).to_numpy()
    observed = (winners["loss_adaptive"] - winners["loss_fixed"]).to_numpy()
    drawn = np.concatenate([winners["low"], winners["high"], observed])
    across, up = (1.3 * float(np.abs(own[np.isfinite(own)]).max()) for own in (predicted, drawn))
    for sign in (-1, 1):
        ax.fill_between([0, sign * across], 0, sign * up, color="0.9", linewidth=0)
    ax.plot([-across, across], [-across, across], color="0.4", linestyle=":")
    sizes = sorted(winners["n"].unique())
    for number, (task, own) in enumerate(winners.groupby("task", sort=False)):
        marker, name = "osD^vP*"[number % 7], short(str(task))
        for i in own.index:
            place = winners.index.get_loc(i)
            low, high = max(observed[place] - own["low"][i], 0), max(own["high"][i] - observed[place], 0)
            size = 3 + 1.5 * sizes.index(own["n"][i])
            ax.errorbar(
                predicted[place],
                observed[place],
                yerr=[[low], [high]],
                fmt=marker,
                color=TASK_COLOURS[number % len(TASK_COLOURS)],
                markersize=size,
                elinewidth=0.6,
                label=name if i == own.index[0] else None,
            )
    ax.set_xscale("symlog", linthresh=LINEAR)
    ax.set_yscale("symlog", linthresh=LINEAR)
    ax.set_xlim(-across, across)
    ax.set_ylim(-up, up)
    for axis, end in ((ax.xaxis, across), (ax.yaxis, up)):
        shown = [value for value in (0.5, 1, 2, 5, 10, 20, 50) if value < end]
        ticks = [*(-value for value in shown), 0, *shown]
        axis.set_ticks(ticks, [f"{value:g}" for value in ticks])
        axis.set_minor_locator(NullLocator())
    ax.set_xlabel(f"predicted: loss of adaptive - fixed prompts,\nnats (both axes linear up to {LINEAR:g})")
    ax.set_ylabel("observed, nats")
    agree = int(winners["agree"].sum())
    finding(ax, f"the predicted winner has the lower test loss in {agree} of {len(winners)} marks (grey)", 46)
    told = ", ".join(str(n) for n in sizes)
    ax.legend(loc="lower right", fontsize=6.5, title=f"small to large:\nn = {told}", title_fontsize=6.5)


def methods_figure(table: pd.DataFrame, differences: pd.DataFrame) -> Figure:
    """Return the figure of many methods at one n: accuracies by task, and how far VAPT is ahead in the mean.

    Bars are 90 % intervals over replicates. Where one of the second panel does not cross 0, its difference is
    decided.

    table        rows of ``curves.mean_curves`` of several tasks at one n
    differences  rows of ``curves.mean_differences`` whose better method is "vapt"
    """
    tasks = table["task"].nunique()
    rows = tasks * (table["method"].nunique() + 1)
    with plt.rc_context(STYLE):
        heights = (0.105 * rows + 0.6, 0.22 * len(differences) + 0.85)
        figure = Figure(figsize=(SINGLE, sum(heights) + 0.75), layout="constrained")
        above, below = figure.subplots(2, 1, height_ratios=heights)
        shown = table.assign(task=table["task"].map(short), accuracy=100 * table["accuracy"])
        _draw_by_task(above, shown, 100 * half_width(table["accuracy_error"], table["fits"]))
        above.set_xlabel("accuracy on test, percent")
        most = table.loc[table.groupby("task", sort=False)["accuracy"].idxmax(), "method"]
        led = ", ".join(f"{name} on {count}" for name, count in most.value_counts(sort=False).items())
        finding(
            above, f"n = {int(table['n'].iloc[0])}: the highest mean accuracy is that of {led} of {tasks} tasks", 46
        )
        for place, row in enumerate(differences.itertuples()):
            style = _method_style(str(row.other)) | {"linestyle": "none"}
            ends = [[100 * (row.difference - row.low)], [100 * (row.high - row.difference)]]
            below.errorbar(100 * row.difference, place, xerr=ends, elinewidth=0.6, **style)
        below.axvline(0, color="0.4", linestyle=":")
        below.set_yticks(range(len(differences)), differences["other"])
        below.set_ylim(len(differences) - 0.5, -0.5)
        below.set_xlabel("vapt less this method, points, mean of tasks")
        ahead = differences.loc[differences["low"] > 0, "other"]
        behind = differences.loc[differences["high"] < 0, "other"]
        said = [f"{word} {', '.join(names)}" for word, names in (("above", ahead), ("below", behind)) if len(names)]
        finding(below, f"in the mean vapt is decidedly {' and '.join(said) if said else 'above or below none'}", 46)
        legend_of(figure, [above], 3, "bars: 90 % intervals over replicates")
    return figure


def gains_figure(differences: pd.DataFrame, published: float) -> Figure:
    """Return the figure of how far adaptive prompts are ahead of fixed ones: by task, and in the mean.

    Bars are 90 % intervals over replicates.

    differences  rows of ``curves.differences`` and ``curves.mean_differences``, whose claims say by what both
                 are trained; at most four of these, or of n, are told apart
    published    the published gain, in points
    """
    tasks = list(dict.fromkeys(differences["task"]))
    series = list(dict.fromkeys(zip(differences["claim"], differences["n"], strict=True)))
    several = differences["n"].nunique() > 1
    with plt.rc_context(STYLE):
        figure = Figure(figsize=(SINGLE, 0.15 * len(tasks) * (len(series) + 0.5) + 1.2), layout="constrained")
        ax = figure.subplots()
        ax.axvline(0, color="0.4", linestyle=":")
        label = f"published for VTAB-1K, {published:+.1f} points"
        ax.axvline(published, color=COLOURS["VAPT"], linestyle="--", label=label)
        for place, (name, n) in enumerate(series):
            chosen = (differences["claim"] == name) & (differences["n"] == n)
            own = differences[chosen].set_index("task").reindex(tasks)
            colour, marker, filled = SERIES_STYLES[place]
            style: dict[str, Any] = {"color": colour, "marker": marker}
            style["markerfacecolor"] = colour if filled else "white"
            at = np.arange(len(tasks)) + 0.5 * (place - (len(series) - 1) / 2) / len(series)
            ends = 100 * np.array([own["difference"] - own["low"], own["high"] - own["difference"]], dtype=float)
            said = f"both by {name}" + f", n = {n}" * several
            ax.errorbar(100 * own["difference"], at, xerr=ends, linestyle="none", label=said, **style)
        ax.set_yticks(range(len(tasks)), [short(task) for task in tasks])
        ax.set_ylim(len(tasks) - 0.5, -0.5)
        ax.axhline(len(tasks) - 1.5, color="0.8", linewidth=0.6)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_xlabel("vapt less vpt_deep, points of accuracy on test")
        own = differences[differences["task"] == tasks[-1]]
        said = "; ".join(
            f"n = {n}: "
            + ", ".join(
                f"{100 * row.difference:+.1f} [{100 * row.low:+.1f}, {100 * row.high:+.1f}] by {row.claim}"
                for row in rows.itertuples()
            )
            for n, rows in own.groupby("n", sort=False)
        )
        finding(ax, f"{short(tasks[-1])}, adaptive less fixed prompts, {said}", 46)
        legend_of(figure, [ax], 1, "bars: 90 % intervals over replicates")
    return figure


def learning_figure(table: pd.DataFrame) -> Figure:
    """Return the figure of accuracy against n on several tasks, a line for each method and series of runs.

    Bars are 90 % intervals of each method over replicates; they are not those of a difference of two methods.
    Of two series the first has hollow marks.

    table  rows of ``curves.mean_curves`` of several tasks, with a column ``series``: what follows the name of
           the method in the legend
    """
    tasks, series = list(dict.fromkeys(table["task"])), list(dict.fromkeys(table["series"]))
    shown = table.assign(accuracy=100 * table["accuracy"], accuracy_error=100 * table["accuracy_error"])
    with plt.rc_context(STYLE):
        figure, axes = column((len(tasks) + 1) // 2, 1.25, 1.1, across=2)
        for ax in axes.flat[len(tasks) :]:
            ax.remove()
        for ax, task in zip(axes.flat, tasks, strict=False):
            for said in series:
                of_series = shown[(shown["task"] == task) & (shown["series"] == said)]
                for name in ordered(of_series["method"]):
                    style = _method_style(name) | {"label": name + said}
                    if said == series[0] and len(series) > 1:
                        style["markerfacecolor"] = "white"
                    own = of_series[of_series["method"] == name]
                    _draw_over_n(ax, own, "accuracy", shown["n"].max(), **style)
            _sizes_axis(ax, shown[shown["task"] == task])
            ax.set_title(short(task), loc="left")
        figure.supylabel("accuracy on test, percent")
        legend_of(figure, axes.flat[: len(tasks)], 2, "bars: 90 % intervals over replicates")
    return figure


def starts_figure(summary: pd.DataFrame) -> Figure:
    """Return the figure of a screening: excess risk of every start, a panel for each kind of truth.

    Bars are 90 % intervals of the mean over teachers. The optimisers of a start stand in rows of their own
    around its name.

    summary  rows of ``screening.screening_table``
    """
    truths = list(dict.fromkeys(summary["task"]))
    students = list(dict.fromkeys(summary["student"]))[::-1]
    with plt.rc_context(STYLE):
        figure = Figure(figsize=(SINGLE, (0.24 * len(students) + 0.75) * len(truths) + 0.6), layout="constrained")
        axes = figure.subplots(len(truths), 1, squeeze=False)[:, 0]
        for ax, truth in zip(axes, truths, strict=True):
            own = summary[summary["task"] == truth]
            optimisers = [name for name in OPTIMISER_STYLES if name in set(own["optimiser"])]
            for place, optimiser in enumerate(optimisers):
                colour, marker, filled = OPTIMISER_STYLES[optimiser]
                rows = own[own["optimiser"] == optimiser].set_index("student").reindex(students)
                aside = 0.5 * (place - (len(optimisers) - 1) / 2) / len(optimisers)
                style = {"color": colour, "marker": marker, "linestyle": "none", "label": optimiser}
                style["markerfacecolor"] = colour if filled else "white"
                bars = half_width(rows["error"].to_numpy(), rows["teachers"].to_numpy())
                ax.errorbar(rows["excess"], np.arange(len(students)) - aside, xerr=bars, **style)
            ax.set_yticks(range(len(students)), [student_said(name) for name in students])
            ax.set_xlim(left=0)
            ax.set_xlabel("excess risk on new images, nats")
            best = own.loc[own["excess"].idxmin()]
            above = best["excess"] + half_width(best["error"], best["teachers"])
            near = int((own["excess"] <= above).sum()) - 1
            finding(
                ax,
                f"{truth.removeprefix('planted-')} truth: least mean {best['excess']:.2g} of "
                f"{student_said(best['student'])} with {best['optimiser']}; {near} of {len(own) - 1} other means lie "
                "in its interval",
                44,
            )
        told = "rows: prompts and their start, once for each optimiser; bars: 90 % intervals of the mean over teachers"
        legend_of(figure, axes, 3, told)
    return figure


def student_said(name: str) -> str:
    """Return a student of a screening in words: its prompts, and their start if it is not the only one."""
    if name.startswith("fixed"):
        start = name.removeprefix("fixed").removeprefix("-")
        return f"VPT ({start})" if start else "VPT"
    return f"VAPT ({name})"


def search_figure(rows: pd.DataFrame, reached: float, fixed: float) -> Figure:
    """Return the figure of a search: excess risk on new images of every fit beside what is left on its own.

    Full marks are certified fits, open ones are not. Below the lower line a fit has reached the floor. Less
    than ``LEAST_DRAWN`` is drawn there.

    rows     of ``search.search_study``
    reached  excess risk in nats at which a fit has reached the floor
    fixed    floor of fixed prompts, in nats
    """
    with plt.rc_context(STYLE):
        figure = Figure(figsize=(SINGLE, 2.9), layout="constrained")
        ax = figure.subplots()
        for start in [name for name in START_STYLES if name in set(rows["start"])]:
            colour, marker = START_STYLES[start]
            own = rows[rows["start"] == start]
            certified = own["status"] == "CERTIFIED"
            style: dict[str, Any] = {"color": colour, "marker": marker, "linestyle": "none"}
            for kept, filled in ((own[certified], True), (own[~certified], False)):
                x, y = (kept[name].clip(lower=LEAST_DRAWN) for name in ("train_excess", "excess"))
                ax.plot(x, y, **style, markerfacecolor=colour if filled else "none")
            ax.plot([], [], **style, label=start)
        for height, said in ((reached, "floor counts as reached below this line"), (fixed, "floor of fixed prompts")):
            ax.axhline(height, color="0.4", linestyle=":", linewidth=0.8)
            ax.annotate(said, (0.02, height), xycoords=("axes fraction", "data"), va="bottom", fontsize=6.5)
        ax.set_xscale("log")
        ax.set_yscale("log")
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axis.set_minor_locator(NullLocator())
        ax.set_xlabel("excess risk on its own training images, nats")
        ax.set_ylabel("excess risk on new images, nats")
        certified, least = rows["status"] == "CERTIFIED", rows["excess"].min()
        below = int((certified & (rows["excess"] <= reached)).sum())
        share = f"{below} of {int(certified.sum())} certified fits"
        finding(ax, f"{share} reach the floor; least excess of all {least:.2g} nats")
        told = ["start of a fit (teacher's law: drawn as a teacher is)"]
        if not certified.all():
            told.append("full: certified, open: not")
        if (rows[["train_excess", "excess"]] < LEAST_DRAWN).any(axis=None):
            told.append(f"{LEAST_DRAWN:g} stands for less, too")
        legend_of(figure, [ax], 3, "; ".join(told))
    return figure

"""Figures of prompted models: ``draw_*(ax, ...)`` take arrays or tables and draw on given axes, as in ``plots``."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.image import AxesImage

from moe_prompts.vision.curves import regular

#: As in ``plots``: fixed prompts in blue, adaptive ones in orange.
COLOURS = {"VPT": "#2b7bba", "VAPT": "#e6550d"}


def draw_mass(ax: Axes, mass: np.ndarray, image: np.ndarray | None = None, top: float | None = None) -> AxesImage:
    """Share of the gate on prompts over the grid of patches, mass (Gh, Gw) in [0, 1], coloured from 0 to ``top``.

    image  (H, W) or (H, W, 3), drawn as the line halfway between its darkest and brightest places

    Returns what a colour bar wants.
    """
    shown = ax.imshow(mass, cmap="Oranges", vmin=0, vmax=mass.max() if top is None else top, interpolation="nearest")
    if image is not None:
        grey = image if image.ndim == 2 else image.mean(axis=2)
        rows = np.linspace(-0.5, mass.shape[0] - 0.5, grey.shape[0])
        columns = np.linspace(-0.5, mass.shape[1] - 0.5, grey.shape[1])
        ax.contour(columns, rows, grey, levels=[(grey.min() + grey.max()) / 2], colors="#2b7bba", linewidths=1.2)
    ax.set_xticks([])
    ax.set_yticks([])
    return shown


def draw_input_dependence(ax: Axes, table: pd.DataFrame) -> None:
    """How much prompt experts vary with the image, by block: a dot for each prompt, a line through their mean.

    table  rows of ``prompt_table`` with a column ``method``; heads are averaged
    """
    methods = list(table["method"].unique())
    for place, (method, rows) in enumerate(table.groupby("method", sort=False)):
        each = rows.groupby(["block", "prompt"])["variation"].mean().reset_index()
        colour = COLOURS.get(str(method).split("-")[0], "0.4")
        aside = 0.12 * (place - (len(methods) - 1) / 2)
        ax.plot(each["block"] + aside, each["variation"], "o", color=colour, alpha=0.35, markersize=3, linestyle="none")
        mean = each.groupby("block")["variation"].mean()
        ax.plot(mean.index + aside, mean, color=colour, label=str(method))
    ax.set_xlabel("block")
    ax.set_ylabel("variation of prompt experts")
    ax.set_xticks(sorted(table["block"].unique()))
    ax.set_ylim(bottom=-0.02)


#: Order, colour and marker of methods in ``draw_accuracies``; controls are hollow.
MARKS = {
    "linear": ("0.5", "s", True),
    "bias": ("0.5", "D", True),
    "full": ("0.1", "s", True),
    "vpt_shallow": (COLOURS["VPT"], "v", True),
    "vpt_deep": (COLOURS["VPT"], "o", True),
    "vpt_matched": (COLOURS["VPT"], "P", True),
    "vapt": (COLOURS["VAPT"], "o", True),
    "vapt_constant": (COLOURS["VAPT"], "s", False),
    "vapt_shuffled": (COLOURS["VAPT"], "X", False),
    "vapt_pooled": (COLOURS["VAPT"], "^", False),
}


def draw_accuracies(ax: Axes, table: pd.DataFrame) -> None:
    """Accuracy in percent of each method on each task, a row for each task; bars are one standard deviation over seeds.

    table  as ``report.scores`` gives it
    """
    tasks = list(dict.fromkeys(table["task"]))
    methods = [name for name in MARKS if name in set(table["method"])]
    for place, method in enumerate(methods):
        colour, marker, filled = MARKS[method]
        own = table[table["method"] == method].set_index("task").reindex(tasks)
        aside = 0.7 * ((place + 0.5) / len(methods) - 0.5)
        ax.errorbar(
            own["accuracy"], np.arange(len(tasks)) + aside, xerr=own["std"], fmt=marker, color=colour, markersize=5,
            markerfacecolor=colour if filled else "white", linewidth=1, label=method,
        )  # fmt: skip
    for line in range(len(tasks) - 1):
        ax.axhline(line + 0.5, color="0.85", linewidth=0.8)
    ax.set_yticks(range(len(tasks)), tasks)
    ax.set_ylim(len(tasks) - 0.5, -0.5)
    ax.set_xlabel("accuracy on test, percent (bars: one standard deviation over seeds)")
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)


#: Name, colour and line of students of planted prompts.
STUDENTS = {
    "vpt_deep": ("fixed, as many as the teacher", COLOURS["VPT"], "-"),
    "vpt_matched": ("fixed, more tokens", COLOURS["VPT"], "--"),
    "vpt_large": ("fixed, most tokens", COLOURS["VPT"], ":"),
    "vapt": ("adaptive", COLOURS["VAPT"], "-"),
    "vapt_constant": ("adaptive form, blind to the image", COLOURS["VAPT"], ":"),
    "vapt_offset": ("adaptive with free vectors", COLOURS["VAPT"], "--"),
    "at_teacher": ("the teacher's class, from the teacher", "0.4", "-"),
}


def draw_excess(ax: Axes, table: pd.DataFrame) -> None:
    """Excess risk against n for each student on one truth; bars are two standard errors, right marks are fresh images.

    table  rows of ``curves.curves`` of one planted truth
    """
    for name, (label, colour, line) in STUDENTS.items():
        own = table[table["method"] == name]
        if not own.empty:
            # The teacher's class is another one for each truth.
            said = label if name == "at_teacher" else f"{label} ({own['parameters'].iloc[0]})"
            _draw_over_n(ax, own, "excess", table["n"].max(), color=colour, linestyle=line, marker="o", label=said)
    _sizes_axis(ax, table)
    ax.set_yscale("log")
    ax.set_ylabel("excess risk, nats")


def draw_over_n(ax: Axes, table: pd.DataFrame, value: str) -> None:
    """Accuracy in percent or cross-entropy in nats against n, a line for each method on one task; bars and marks as in
    ``draw_excess``.

    table  rows of ``curves.curves`` of one task
    """
    shown = table.assign(accuracy=100 * table["accuracy"], accuracy_error=100 * table["accuracy_error"])
    for name, (colour, marker, filled) in MARKS.items():
        own = shown[shown["method"] == name]
        if not own.empty:
            face = colour if filled else "white"
            line = "-" if filled else ":"
            _draw_over_n(
                ax, own, value, shown["n"].max(), color=colour, linestyle=line, marker=marker, markerfacecolor=face,
                label=name,
            )  # fmt: skip
    _sizes_axis(ax, table)
    ax.set_ylabel({"accuracy": "accuracy on test, percent", "cross_entropy": "cross-entropy on test, nats"}[value])


def draw_above_floor(ax: Axes, table: pd.DataFrame, methods: tuple[str, ...]) -> None:
    """Cross-entropy above the floor of fresh images against n, and dotted what a regular method with as many parameters
    would pay, P / (2 n).

    table  as in ``draw_over_n``
    """
    for name in methods:
        own = table[(table["method"] == name) & (table["n"] > 0)].sort_values("n")
        floor = table[(table["method"] == name) & (table["n"] == 0)]["cross_entropy"]
        if own.empty or floor.empty:
            continue
        colour, marker, _ = MARKS[name]
        parameters = own["parameters"].iloc[0]
        above = own["cross_entropy"] - float(floor.iloc[0])
        ax.errorbar(
            own["n"], above.where(above > 0), yerr=2 * own["cross_entropy_error"], color=colour, marker=marker,
            markersize=4, label=f"{name} ({parameters})",
        )  # fmt: skip
        ax.plot(own["n"], regular(parameters, own["n"].to_numpy()), color=colour, linestyle=":", linewidth=1)
    _sizes_axis(ax, table[table["n"] > 0])
    ax.set_yscale("log")
    ax.set_ylabel("cross-entropy above the floor, nats")


def _draw_over_n(ax: Axes, own: pd.DataFrame, value: str, largest: float, **style) -> None:
    """One method: a line over n, and a mark right of it for fresh images."""
    finite = own[own["n"] > 0].sort_values("n")
    ax.errorbar(finite["n"], finite[value], yerr=2 * finite[f"{value}_error"], markersize=4, **style)
    floor = own[own["n"] == 0][value]
    ax.plot([1.6 * largest] * len(floor), floor, marker="_", markersize=12, color=style["color"], linestyle="none")


def _sizes_axis(ax: Axes, table: pd.DataFrame) -> None:
    sizes = sorted(n for n in table["n"].unique() if n)
    ax.set_xscale("log")
    ax.set_xticks(sizes, [str(n) for n in sizes])
    ax.minorticks_off()
    ax.set_xlabel("n training images")

"""Figures of prompted models: ``draw_*(ax, ...)`` take arrays or tables and draw on given axes, as in ``plots``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from matplotlib.ticker import NullLocator

from moe_prompts.vision.data_efficiency.curves import regular

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
        family = str(method).split("-")[0]
        style: dict[str, Any] = {"color": COLOURS.get(family, "0.4"), "marker": "o" if family == "VPT" else "s"}
        aside = 0.12 * (place - (len(methods) - 1) / 2)
        ax.plot(each["block"] + aside, each["variation"], alpha=0.35, markersize=2.5, linestyle="none", **style)
        mean = each.groupby("block")["variation"].mean()
        dashes = "-" if family == "VPT" else "--"
        ax.plot(mean.index + aside, mean, label=str(method), linestyle=dashes, **style)
    ax.set_xlabel("block")
    ax.set_ylabel("variation of prompt experts (share)")
    ax.set_xticks(sorted(table["block"].unique()))
    ax.set_ylim(bottom=-0.02)


#: Order, colour, marker and filling of methods; baselines are grey, controls hollow.
MARKS = {
    "vpt_deep": (COLOURS["VPT"], "o", True),
    "vpt_matched": (COLOURS["VPT"], "P", True),
    "vpt_shallow": (COLOURS["VPT"], "v", True),
    "vapt": (COLOURS["VAPT"], "s", True),
    "vapt_constant": (COLOURS["VAPT"], "D", False),
    "vapt_shuffled": (COLOURS["VAPT"], "X", False),
    "vapt_pooled": (COLOURS["VAPT"], "^", False),
    "linear": ("0.6", "d", True),
    "bias": ("0.6", "<", True),
    "full": ("0.25", "p", True),
}
#: Where ``MARKS`` has no line for a method.
UNKNOWN = ("0.4", "*", True)
DASHES = {COLOURS["VPT"]: "-", COLOURS["VAPT"]: "--"}


def ordered(methods: Iterable[str]) -> list[str]:
    """Those of ``MARKS`` in its order, then others as they come."""
    there = list(dict.fromkeys(methods))
    return [name for name in MARKS if name in there] + [name for name in there if name not in MARKS]


def _method_style(name: str) -> dict[str, Any]:
    colour, marker, filled = MARKS.get(name, UNKNOWN)
    dashes = DASHES.get(colour, "-.") if filled else ":"
    return {
        "color": colour,
        "marker": marker,
        "linestyle": dashes,
        "markerfacecolor": colour if filled else "white",
    }


def draw_accuracies(ax: Axes, table: pd.DataFrame) -> None:
    """Accuracy in percent of each method on each task, a row for each task; bars are one standard deviation over seeds.

    table  as ``report.scores`` gives it
    """
    tasks = list(dict.fromkeys(table["task"]))
    methods = ordered(table["method"])
    for place, method in enumerate(methods):
        style = _method_style(method) | {"linestyle": "none"}
        own = table[table["method"] == method].set_index("task").reindex(tasks)
        aside = 0.7 * ((place + 0.5) / len(methods) - 0.5)
        ax.errorbar(own["accuracy"], np.arange(len(tasks)) + aside, xerr=own["std"], label=method, **style)
    for line in range(len(tasks) - 1):
        ax.axhline(line + 0.5, color="0.85", linewidth=0.8)
    ax.set_yticks(range(len(tasks)), tasks)
    ax.set_ylim(len(tasks) - 0.5, -0.5)
    ax.set_xlabel("accuracy on test, percent (bars: one standard deviation over seeds)")
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))


#: Name, colour, line and marker of students of planted prompts.
STUDENTS = {
    "vpt_deep": ("fixed, as many as the teacher", COLOURS["VPT"], "-", "o"),
    "vpt_matched": ("fixed, more tokens", COLOURS["VPT"], (0, (5, 2)), "P"),
    "vpt_large": ("fixed, most tokens", COLOURS["VPT"], ":", "v"),
    "vapt": ("adaptive", COLOURS["VAPT"], "--", "s"),
    "vapt_constant": ("adaptive form, blind to the image", COLOURS["VAPT"], ":", "D"),
    "vapt_offset": ("adaptive with free vectors", COLOURS["VAPT"], "-.", "^"),
    "at_teacher": ("the teacher's class, from the teacher", "0.4", "-", "*"),
}
#: Place of fresh images on the axis of n, as a multiple of the largest n.
FRESH_AT = 2.2


def draw_excess(ax: Axes, table: pd.DataFrame) -> None:
    """Excess risk against n for each student on one truth; bars are two standard errors, right marks are fresh images.

    table  rows of ``curves.curves`` of one planted truth
    """
    students = [name for name in STUDENTS if name in set(table["method"])]
    for place, name in enumerate(students):
        label, colour, line, marker = STUDENTS[name]
        own = table[table["method"] == name]
        # The teacher's class is another one for each truth.
        said = label if name == "at_teacher" else f"{label} ({own['parameters'].iloc[0]})"
        style = {"color": colour, "linestyle": line, "marker": marker, "label": said}
        _draw_over_n(ax, own, "excess", table["n"].max(), _aside(place, len(students)), **style)
    _sizes_axis(ax, table)
    ax.set_yscale("log")
    ax.yaxis.set_minor_locator(NullLocator())
    ax.set_ylabel("excess risk, nats")


def draw_over_n(ax: Axes, table: pd.DataFrame, value: str, methods: Sequence[str] | None = None) -> None:
    """Accuracy in percent or cross-entropy in nats against n, a line for each of ``methods`` (default: all) on one
    task; bars and marks as in ``draw_excess``.

    table  rows of ``curves.curves`` of one task
    """
    shown = table.assign(accuracy=100 * table["accuracy"], accuracy_error=100 * table["accuracy_error"])
    names = ordered(table["method"] if methods is None else methods)
    for place, name in enumerate(names):
        own = shown[shown["method"] == name]
        style = _method_style(name) | {"label": name}
        _draw_over_n(ax, own, value, shown["n"].max(), _aside(place, len(names)), **style)
    _sizes_axis(ax, table)
    ax.set_ylabel({"accuracy": "accuracy on test, percent", "cross_entropy": "cross-entropy on test, nats"}[value])


def _aside(place: int, count: int) -> float:
    """A factor on n that keeps bars apart."""
    return 1.06 ** (place - (count - 1) / 2)


def draw_above_floor(ax: Axes, table: pd.DataFrame, methods: Sequence[str]) -> None:
    """Cross-entropy above the floor of fresh images against n, and as a line without marks what a regular method with
    as many parameters would pay, P / (2 n).

    table  as in ``draw_over_n``
    """
    for place, name in enumerate(methods):
        own = table[(table["method"] == name) & (table["n"] > 0)].sort_values("n")
        floor = table[(table["method"] == name) & (table["n"] == 0)]["cross_entropy"]
        if own.empty or floor.empty:
            continue
        style, parameters = _method_style(name), own["parameters"].iloc[0]
        above = own["cross_entropy"] - float(floor.iloc[0])
        ax.errorbar(
            own["n"] * _aside(place, len(methods)), above.where(above > 0), yerr=2 * own["cross_entropy_error"],
            elinewidth=0.6, label=name, **style,
        )  # fmt: skip
        expected = regular(parameters, own["n"].to_numpy())
        ax.plot(own["n"], expected, color=style["color"], linestyle=style["linestyle"], linewidth=0.8)
    _sizes_axis(ax, table[table["n"] > 0])
    ax.set_yscale("log")
    ax.set_ylabel("excess cross-entropy, nats")


def _draw_over_n(ax: Axes, own: pd.DataFrame, value: str, largest: float, aside: float, **style) -> None:
    """One method: a line over n, and its mark right of it for fresh images."""
    finite = own[own["n"] > 0].sort_values("n")
    ax.errorbar(finite["n"] * aside, finite[value], yerr=2 * finite[f"{value}_error"], elinewidth=0.6, **style)
    floor = own[own["n"] == 0][value]
    alone = style | {"linestyle": "none", "label": None}
    ax.plot([FRESH_AT * aside * largest] * len(floor), floor, **alone)


def _sizes_axis(ax: Axes, table: pd.DataFrame) -> None:
    """Ticks at the sizes, and at fresh images where the table has them."""
    sizes = sorted(n for n in table["n"].unique() if n)
    fresh = [FRESH_AT * max(sizes)] if (table["n"] == 0).any() else []
    ax.set_xscale("log")
    ax.set_xticks([*sizes, *fresh], [*(str(n) for n in sizes), *("fresh" for _ in fresh)])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("training images n")

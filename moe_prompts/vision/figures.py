"""Draw figures of prompted models: ``draw_*(ax, ...)`` take arrays or tables and draw on given axes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.image import AxesImage

#: As in ``moe_prompts.figures``: fixed prompts in blue, adaptive ones in orange.
COLOURS = {"VPT": "#2b7bba", "VAPT": "#e6550d"}


def draw_mass(ax: Axes, mass: np.ndarray, image: np.ndarray | None = None, top: float | None = None) -> AxesImage:
    """Draw the share of the gate that goes to prompts over the grid of patches.

    mass   (Gh, Gw) in [0, 1]
    image  (H, W) or (H, W, 3), drawn as the line halfway between its darkest and brightest places; None: none
    top    where the colours end; they begin at 0; None: at the largest mass

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
    """Draw how much prompt experts vary with the image, by block.

    Each dot is a prompt; a line goes through their mean.

    table  rows of ``prompt_table`` with a column ``method``; heads are averaged
    """
    for method, rows in table.groupby("method", sort=False):
        each = rows.groupby(["block", "prompt"])["variation"].mean().reset_index()
        family = str(method).split("-")[0]
        style: dict[str, Any] = {"color": COLOURS.get(family, "0.4"), "marker": "o" if family == "VPT" else "s"}
        ax.plot(each["block"], each["variation"], alpha=0.35, markersize=2.5, linestyle="none", **style)
        mean = each.groupby("block")["variation"].mean()
        dashes = "-" if family == "VPT" else "--"
        ax.plot(mean.index, mean, label=str(method), linestyle=dashes, **style)
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
    "vpt_tokens": (COLOURS["VPT"], "o", False),
    "vapt_tokens": ("#1b9e77", "s", True),
    "vapt_orthogonal": ("#1b9e77", "D", False),
    "vapt_gain": ("#7570b3", "^", True),
    "vapt_offset": ("#a6761d", "X", False),
    "vapt_vpt": ("#a6761d", "P", True),
    "linear": ("0.6", "d", True),
    "bias": ("0.6", "<", True),
    "bias_blocks": ("0.6", ">", False),
    "full": ("0.25", "p", True),
    "lora": ("0.25", "*", False),
}
#: Where ``MARKS`` has no line for a method.
UNKNOWN = ("0.4", "*", True)
DASHES = {COLOURS["VPT"]: "-", COLOURS["VAPT"]: "--"}


def ordered(methods: Iterable[str]) -> list[str]:
    """Return the methods of ``MARKS`` in its order, then others as they come, each once."""
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
    """Draw the accuracy in percent of each method on each task, a row for each task.

    Bars are one standard deviation over seeds.

    table  as ``report.scores`` gives it
    """
    _draw_by_task(ax, table, table["std"])
    ax.set_xlabel("accuracy on test, percent (bars: one standard deviation over seeds)")
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))


def _draw_by_task(ax: Axes, table: pd.DataFrame, bars: pd.Series) -> None:
    """Draw accuracies in percent with bars of these half lengths, a row for each task and a mark for each method."""
    tasks = list(dict.fromkeys(table["task"]))
    methods = ordered(table["method"])
    for place, method in enumerate(methods):
        style = _method_style(method) | {"linestyle": "none"}
        own = table.assign(bar=bars)[table["method"] == method].set_index("task").reindex(tasks)
        aside = 0.7 * ((place + 0.5) / len(methods) - 0.5)
        ax.errorbar(own["accuracy"], np.arange(len(tasks)) + aside, xerr=own["bar"], label=method, **style)
    for line in range(len(tasks) - 1):
        ax.axhline(line + 0.5, color="0.85", linewidth=0.8)
    ax.set_yticks(range(len(tasks)), tasks)
    ax.set_ylim(len(tasks) - 0.5, -0.5)

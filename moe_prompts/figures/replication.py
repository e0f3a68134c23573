"""Draw the replications: ``draw_*(ax, lines)`` take lines of ``replication_report`` and draw their curves."""

from __future__ import annotations

from typing import Any, Literal

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from moe_prompts.figures.style import DOUBLE, STYLE, draw_guide, log_log
from moe_prompts.study.replication_report import FILE, FROM_N

#: How each source is drawn and called, in the order of the legend; fits from data are open, on top of the others.
SOURCES: dict[str, tuple[dict[str, Any], str]] = {
    FILE: ({"color": "0.7", "linewidth": 2.0}, "published losses"),
    "start": ({"color": "tab:green", "marker": "v", "linestyle": "-."}, "start of the published procedure"),
    "published": (
        {"color": "tab:blue", "marker": "o", "markersize": 2.0, "zorder": 3},
        "published procedure, run again",
    ),
    "certified": ({"color": "tab:red", "marker": "s"}, "certified maximum, same starts"),
    "certified-data": (
        {"color": "tab:purple", "marker": "D", "markerfacecolor": "none", "linestyle": "--"},
        "certified maximum, starts from data",
    ),
}
LOSS_NAMES = {"published": "loss as published", "translated": "loss, smallest over translations"}


def draw_replication(ax: Axes, lines: pd.DataFrame) -> None:
    """Draw median loss against n, one colour per source; ``lines`` are those of one truth, k and loss."""
    levels = []
    for source, (style, label) in SOURCES.items():
        for line in lines[lines["source"] == source].itertuples():
            ax.plot(line.sizes, line.medians, label=label, **style)
            levels += line.medians
    ax.set_ylim(min(levels) / 2, max(levels) * 3)
    log_log(ax)


def draw_ratio(ax: Axes, lines: pd.DataFrame) -> None:
    """Draw median loss over that of the published procedure, run again, at the sizes that both have.

    ``lines`` are those of one truth, k and loss. The line at 1 is the published procedure.
    """
    below = lines[lines["source"] == "published"].iloc[0]
    level = dict(zip(below["sizes"], below["medians"], strict=True))
    ax.axhline(1, **SOURCES["published"][0] | {"marker": "", "label": SOURCES["published"][1]})
    for source, (style, label) in SOURCES.items():
        for line in lines[lines["source"] == source].itertuples():
            if source != "published":
                both = [(n, loss / level[n]) for n, loss in zip(line.sizes, line.medians, strict=True) if n in level]
                ax.plot(*zip(*both, strict=True), label=label, **style)
    log_log(ax)


def ratio_title(summary: pd.DataFrame) -> str:
    """Return what the ratios say: how far the certified maxima lie above the published procedure."""
    ratios = []
    for _, lines in summary[summary["loss"] == "published"].groupby(["truth", "k"]):
        curves = {line.source: dict(zip(line.sizes, line.medians, strict=True)) for line in lines.itertuples()}
        logs = [np.log(curves["certified"][n] / loss) for n, loss in curves["published"].items() if n >= FROM_N]
        if logs:
            ratios.append(float(np.exp(np.mean(logs))))
    if not ratios:
        return "median loss over that of the published procedure"
    return f"loss of certified maxima: {min(ratios):.2g} to {max(ratios):.2g} times that of the published procedure"


def panels(summary: pd.DataFrame) -> list[list[tuple[str, int, str]]]:
    """Return (truth, k, loss) of each panel, by row and column.

    Gaussian gates have a row for each k and a column for each truth, softmax gates a row for each loss and a
    column for each k.
    """
    ours = summary[summary["source"] != FILE]
    truths, ks = ours["truth"].unique(), sorted(ours["k"].unique())
    if (ours["loss"] == "translated").any():
        return [[(truths[0], k, loss) for k in ks] for loss in LOSS_NAMES]
    return [[(truth, k, "published") for truth in truths] for k in ks]


def replication_figure(summary: pd.DataFrame) -> Figure:
    """Return the figure with a panel for each of ``panels``.

    Gaussian gates show ratios to the published procedure, whose slopes the figure would else hide; softmax
    gates show losses. A row has one scale, unless its losses differ by decades.
    """
    grid = panels(summary)
    shared: Literal["none", "row"] = "none" if len({loss for row in grid for *_, loss in row}) > 1 else "row"
    down, across = len(grid), len(grid[0])
    handles: dict[str, Line2D] = {}
    ratio = grid[0][0][0].startswith("gmoe")
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            down,
            across,
            figsize=(DOUBLE, 1.7 * down + 0.7),
            layout="constrained",
            squeeze=False,
            sharex="col",
            sharey=shared,
        )
        for row, places in zip(axes, grid, strict=True):
            limits = []
            for ax, (truth, k, loss) in zip(row, places, strict=True):
                chosen = (summary["truth"] == truth) & (summary["k"] == k) & (summary["loss"] == loss)
                (draw_ratio if ratio else draw_replication)(ax, summary[chosen])
                ax.set_title(f"{truth}, k = {k}")
                limits.append(ax.get_ylim())
            if shared == "row":
                row[0].set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
                log_log(row[0])
            row[0].set_ylabel("loss / published procedure" if ratio else LOSS_NAMES[places[0][2]])
            for ax in row:
                if not ratio:
                    draw_guide(ax, -0.5, r"slope $n^{-1/2}$", "--")
                handles |= {str(line.get_label()): line for line in ax.get_lines() if line.get_label()[0] != "_"}
        for ax in axes[-1]:
            ax.set_xlabel("number of pairs n")
        if ratio:
            figure.suptitle(ratio_title(summary), fontsize="medium")
        figure.legend(
            handles.values(), handles.keys(), loc="outside lower center", ncols=3, title="medians over data sets"
        )
    return figure

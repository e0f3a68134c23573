"""Draw the replications: ``draw_*(ax, lines)`` take lines of ``replication_report`` and draw their curves."""

from __future__ import annotations

from typing import Any, Literal

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from moe_prompts.figures.style import DOUBLE, STYLE, draw_guide, log_log
from moe_prompts.study.replication_report import FILE

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
    """Draw median loss against n, and its mean dotted, one colour per source.

    ``lines`` are those of one truth, k and loss. Medians set the scale: means that single losses move leave
    the panel.
    """
    levels = []
    for source, (style, label) in SOURCES.items():
        for line in lines[lines["source"] == source].itertuples():
            ax.plot(line.sizes, line.medians, label=label, **style)
            ax.plot(line.sizes, line.means, color=style["color"], linestyle=":", linewidth=1.0)
            levels += line.medians
    ax.set_ylim(min(levels) / 2, max(levels) * 3)
    log_log(ax)


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

    The losses of a row have one scale, unless they differ by decades.
    """
    grid = panels(summary)
    shared: Literal["none", "row"] = "none" if len({loss for row in grid for *_, loss in row}) > 1 else "row"
    down, across = len(grid), len(grid[0])
    handles: dict[str, Line2D] = {}
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
                draw_replication(ax, summary[chosen])
                ax.set_title(f"{truth}, k = {k}")
                limits.append(ax.get_ylim())
            if shared == "row":
                row[0].set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
                log_log(row[0])
            row[0].set_ylabel(LOSS_NAMES[places[0][2]])
            for ax in row:
                draw_guide(ax, -0.5, r"slope $n^{-1/2}$", "--")
                handles |= {str(line.get_label()): line for line in ax.get_lines() if line.get_label()[0] != "_"}
        for ax in axes[-1]:
            ax.set_xlabel("number of pairs n")
        handles["dotted: means, which may leave the panel"] = Line2D([], [], color="0.3", linestyle=":", linewidth=1.0)
        figure.legend(
            handles.values(), handles.keys(), loc="outside lower center", ncols=3, title="medians over data sets"
        )
    return figure

"""7 FIGURE of the replications: ``draw_*(ax, lines)`` take lines of ``replication_summary`` and draw their curves."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from moe_prompts.plots import STYLE, draw_guide
from moe_prompts.study.replication_summary import FILE

#: Colour, mark and words of each source, in the order of the legend.
SOURCES = {
    FILE: ("0.6", "", "published losses"),
    "start": ("tab:green", "v", "start of the published procedure"),
    "published": ("tab:blue", "o", "published procedure, here"),
    "certified": ("tab:red", "s", "certified maximum, same starts"),
    "certified-data": ("tab:purple", "D", "certified maximum, starts from data"),
}
TITLES = {"published": "loss as published", "translated": "smallest over translations of the gate"}


def draw_replication(ax: Axes, lines: pd.DataFrame) -> None:
    """Median loss (solid) and mean (dotted) against n, one colour per source; the lines of one truth, k and loss."""
    for source, (colour, marker, label) in SOURCES.items():
        for line in lines[lines["source"] == source].itertuples():
            width = 2.4 if source == FILE else 1.2
            ax.plot(line.sizes, line.medians, color=colour, marker=marker, label=label, linewidth=width, markersize=3)
            ax.plot(line.sizes, line.means, color=colour, linestyle=":", linewidth=1.0)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("number of pairs n")


def replication_figure(summary: pd.DataFrame) -> Figure:
    """Gaussian gates: a panel per model and k. Softmax gates: a panel per k and loss."""
    losses = [loss for loss in TITLES if (summary["loss"] == loss).any()]
    columns = list(dict.fromkeys(zip(summary["truth"], summary["k"], strict=True)))
    ours = summary[summary["source"] != FILE]
    columns = [column for column in columns if ((ours["truth"] == column[0]) & (ours["k"] == column[1])).any()]
    rows = losses if len(losses) > 1 else sorted({k for _, k in columns})
    with plt.rc_context(STYLE):
        across = len(columns) if len(losses) > 1 else len({name for name, _ in columns})
        figure, grid = plt.subplots(
            len(rows), across, figsize=(2.6 * across + 0.6, 2.3 * len(rows) + 0.8), layout="constrained", squeeze=False,
            sharex="col", sharey="row",
        )  # fmt: skip
        places = (
            {(name, k, loss): (rows.index(loss), place) for place, (name, k) in enumerate(columns) for loss in losses}
            if len(losses) > 1
            else {
                (name, k, losses[0]): (rows.index(k), list(dict.fromkeys(n for n, _ in columns)).index(name))
                for name, k in columns
            }
        )
        for (name, k, loss), (row, column) in places.items():
            ax = grid[row, column]
            lines = summary[(summary["truth"] == name) & (summary["k"] == k) & (summary["loss"] == loss)]
            draw_replication(ax, lines)
            ax.set_title(f"{name}, k = {k}")
        handles = {}
        for ax in grid.ravel():
            handles |= dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
            draw_guide(ax, -0.5, r"slope $n^{-1/2}$", "--")
        for row, name in enumerate(rows):
            grid[row, 0].set_ylabel(TITLES.get(str(name), TITLES["published"]))
        for ax in grid[:-1].ravel():
            ax.set_xlabel("")
        handles |= dict(zip(*reversed(grid[0, 0].get_legend_handles_labels()), strict=True))
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3, frameon=False)
    return figure

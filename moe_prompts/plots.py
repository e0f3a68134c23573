"""7 FIGURE: ``draw_*(ax, ...)`` take a table and draw it on given axes; they fit nothing and save nothing.

Levels are medians over certified replicates, bars their 90 % bootstrap intervals, both on the scale that is drawn.
"""

from __future__ import annotations

from math import ceil
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from moe_prompts.study.summary import LOSS, RISK, Measure, measured_slope

STYLE: dict[Any, Any] = {
    "font.size": 8, "axes.labelsize": 8, "axes.titlesize": 8.5, "legend.fontsize": 7, "axes.spines.top": False,
    "axes.spines.right": False, "pdf.fonttype": 42, "savefig.dpi": 200, "lines.linewidth": 1.2, "lines.markersize": 4,
}  # fmt: skip
#: Fixed prompts in blues, adaptive ones in oranges; darker and with other marks for more atoms.
SHADES = {"fixed": ("Blues", "o^vDP"), "adaptive": ("Oranges", "sX*hp")}
COLUMNS = 3  # panels in a row


def _line_style(kind: str, rank: int, count: int) -> dict:
    base, _, option = kind.partition(":")
    colours, markers = SHADES[base]
    shade = 0.45 + 0.5 * (rank / max(count - 1, 1))
    marker = markers[rank % len(markers)]
    return {"color": plt.get_cmap(colours)(shade), "marker": marker, "linestyle": "--" if option else "-"}


def draw_levels(ax: Axes, results: pd.DataFrame, measure: Measure, entropy: int) -> None:
    """One line per kind and k: the median error against n with its interval; a step aside keeps bars apart."""
    lines = [
        (str(kind), k, rank, of_kind["k"].nunique(), rows)
        for kind, of_kind in results.groupby("kind", sort=False)
        for rank, (k, rows) in enumerate(of_kind.groupby("k"))
    ]
    for place, (kind, k, rank, count, rows) in enumerate(lines):
        found = measured_slope(rows, measure, "grid", entropy)
        if not len(found.n):
            continue
        aside = 1.025 ** (place - (len(lines) - 1) / 2)
        label = f"{kind}, k = {k}" + (" (exact)" if rows["cell_sizes"].iloc[0] == "exact" else "")
        bars = np.abs(found.band.T - found.level)
        style = _line_style(kind, rank, count)
        ax.errorbar(found.n * aside, found.level, yerr=bars, label=label, capsize=1.2, elinewidth=0.7, **style)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("number of pairs n")


def draw_risk(ax: Axes, results: pd.DataFrame, entropy: int) -> None:
    """Prediction risk against n for one prompt truth."""
    draw_levels(ax, results, RISK, entropy)
    ax.set_ylabel(r"risk $E|\hat m-m^*|^2\ /\ E|m^*|^2$")
    ax.set_title(f"{results['truth'].iloc[0]} ({results['truth_kind'].iloc[0]} truth)")


def draw_loss(ax: Axes, results: pd.DataFrame, entropy: int) -> None:
    """Parameter loss D against n for one truth."""
    draw_levels(ax, results, LOSS, entropy)
    ax.set_ylabel("parameter loss D (Voronoi)")
    ax.set_title(f"{results['truth'].iloc[0]}, start {results['start'].iloc[0].replace('_', ' ')}")


def draw_guide(ax: Axes, exponent: float, label: str) -> None:
    """A thin dotted line of a predicted slope through the centre of the panel."""
    low, high = ax.get_xlim()
    bottom, top = ax.get_ylim()
    at_low = np.sqrt(bottom * top) * (high / low) ** (-exponent / 2)
    ends = np.array([low, high])
    ax.plot(ends, at_low * (ends / low) ** exponent, color="0.5", linewidth=0.9, linestyle=":", zorder=0, label=label)
    ax.set_xlim(low, high)
    ax.set_ylim(bottom, top)


def sample_efficiency_figure(results: pd.DataFrame, entropy: int) -> Figure:
    """Prediction risk for each prompt truth on one scale, then parameter loss for the published model.

    Without the published model, parameter loss of the fits whose family contains the truth.
    """
    prompts, published = results[results["n_frozen"] > 0], results[results["n_frozen"] == 0]
    risk = [rows for _, rows in prompts.groupby("truth", sort=False)]
    loss = [rows for _, rows in published.groupby("truth", sort=False)]
    if not loss:
        contained = prompts[prompts["cell_sizes"] != "misspecified"]
        loss = [rows for _, rows in contained.groupby("truth", sort=False)]
    count = len(risk) + len(loss)
    columns = min(count, COLUMNS)
    lines = ceil(count / columns)
    with plt.rc_context(STYLE):
        figure, grid = plt.subplots(
            lines, columns, figsize=(3.3 * columns, 4.1 * lines), layout="constrained", squeeze=False
        )
        axes = list(grid.ravel())
        for ax, rows in zip(axes, risk, strict=False):
            draw_risk(ax, rows, entropy)
        limits = [ax.get_ylim() for ax in axes[: len(risk)]]
        for ax in axes[: len(risk)]:
            ax.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
            draw_guide(ax, -1.0, r"slope $n^{-1}$")
        for ax, rows in zip(axes[len(risk) :], loss, strict=False):
            draw_loss(ax, rows, entropy)
            draw_guide(ax, -0.5, r"slope $n^{-1/2}$")
        for ax in axes[:count]:
            ax.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, handlelength=2.2)
        for ax in axes[count:]:
            ax.remove()
    return figure


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """As PDF and PNG; returns the paths."""
    paths = [folder / f"{name}.{suffix}" for suffix in ("pdf", "png")]
    with plt.rc_context(STYLE):
        for path in paths:
            figure.savefig(path)
    plt.close(figure)
    return paths

"""7 FIGURE: ``draw_*(ax, ...)`` take a table and draw it on given axes; they fit nothing and save nothing.

Levels are medians over certified replicates, bars their 90 % bootstrap intervals, both on the scale that is drawn.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from moe_prompts.study.summary import LOSS, RISK, Measure, measured_slope

STYLE = {
    "font.size": 8, "axes.labelsize": 8, "axes.titlesize": 8.5, "legend.fontsize": 6.8, "axes.spines.top": False,
    "axes.spines.right": False, "pdf.fonttype": 42, "figure.dpi": 100, "savefig.dpi": 200, "lines.linewidth": 1.3,
    "lines.markersize": 4,
}  # fmt: skip
#: Fixed prompts in blues and adaptive ones in oranges, darker with more atoms; markers tell kinds apart in grey too.
SHADES = {"fixed": ("Blues", "o"), "adaptive": ("Oranges", "s")}


def style_of(kind: str, rank: int, count: int) -> dict:
    base, _, option = kind.partition(":")
    colours, marker = SHADES[base]
    shade = 0.45 + 0.5 * (rank / max(count - 1, 1))
    return {"color": plt.get_cmap(colours)(shade), "marker": marker, "linestyle": "--" if option else "-"}


def draw_levels(ax: Axes, results: pd.DataFrame, measure: Measure, entropy: int) -> None:
    """One line per kind and k: the median error against n with its interval."""
    for kind, of_kind in results.groupby("kind", sort=False):
        ks = sorted(of_kind["k"].unique())
        for rank, k in enumerate(ks):
            rows = of_kind[of_kind["k"] == k]
            found = measured_slope(rows, measure, "grid", entropy)
            if not len(found.n):
                continue
            label = f"{kind}, k = {k}" + (" (exact)" if k == rows["k_true"].iloc[0] and _specified(rows) else "")
            line = style_of(str(kind), rank, len(ks))
            bars = np.abs(found.band.T - found.level)
            ax.errorbar(found.n, found.level, yerr=bars, label=label, capsize=1.5, elinewidth=0.8, **line)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("number of pairs n")


def _specified(rows: pd.DataFrame) -> bool:
    """Does the fitted family contain the truth?"""
    return rows["truth_kind"].iloc[0] == "fixed" or str(rows["kind"].iloc[0]).startswith("adaptive")


def draw_guide(ax: Axes, exponent: float, text: str, *, corner: str = "lower left") -> None:
    """A thin grey line of the predicted slope through the drawn range, named in words."""
    low, high = ax.get_xlim()
    bottom, top = ax.get_ylim()
    n = np.array([low, high])
    anchor = bottom * (top / bottom) ** 0.10 if corner == "lower left" else top / (top / bottom) ** 0.10
    at_low = anchor * (high / low) ** (-exponent) if corner == "lower left" else anchor
    ax.plot(n, at_low * (n / low) ** exponent, color="0.55", linewidth=0.9, linestyle=":", zorder=0, label=text)
    ax.set_xlim(low, high)
    ax.set_ylim(bottom, top)


def draw_risk(ax: Axes, results: pd.DataFrame, entropy: int) -> None:
    """Prediction risk against n for one prompt truth."""
    draw_levels(ax, results, RISK, entropy)
    ax.set_ylabel(r"risk $E|\hat m-m^*|^2\ /\ E|m^*|^2$")
    draw_guide(ax, -1.0, r"slope $n^{-1}$")


def draw_loss(ax: Axes, results: pd.DataFrame, entropy: int) -> None:
    """Parameter loss D against n for one truth."""
    draw_levels(ax, results, LOSS, entropy)
    ax.set_ylabel("Voronoi loss D")
    draw_guide(ax, -0.5, r"slope $n^{-1/2}$")


TITLES = {"adaptive": "truth made of adaptive prompts", "fixed": "truth made of fixed prompts"}


def sample_efficiency_figure(results: pd.DataFrame, entropy: int) -> Figure:
    """Risk panels for the prompt truths, parameter loss for the published model (or, without one, the prompt truths)."""
    prompts = results[results["n_frozen"] > 0]
    published = results[results["n_frozen"] == 0]
    panels = [("risk", name, rows) for name, rows in prompts.groupby("truth", sort=False)]
    panels += [("loss", name, rows) for name, rows in published.groupby("truth", sort=False)]
    if not len(published):
        well = prompts[prompts["kind"].str.startswith("adaptive") | (prompts["truth_kind"] == "fixed")]
        panels += [("loss", name, rows) for name, rows in list(well.groupby("truth", sort=False))[:1]]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(panels), figsize=(3.3 * len(panels), 3.4), layout="constrained", squeeze=False)
        risk_axes = []
        for ax, (what, name, rows) in zip(axes[0], panels, strict=True):
            if what == "risk":
                draw_levels(ax, rows, RISK, entropy)
                ax.set_title(f"{name}\n{TITLES[rows['truth_kind'].iloc[0]]}")
                risk_axes.append(ax)
            else:
                draw_loss(ax, rows, entropy)
                ax.set_title(f"{name}\nparameters, {rows['start'].iloc[0].replace('_', ' ')} start")
        limits = [ax.get_ylim() for ax in risk_axes]
        for ax in risk_axes:  # one scale, so that panels can be read against each other
            ax.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
            draw_guide(ax, -1.0, r"slope $n^{-1}$")
            ax.set_ylabel(r"risk $E|\hat m-m^*|^2\ /\ E|m^*|^2$")
        for ax in axes[0]:
            ax.legend(frameon=False, loc="best", handlelength=1.8, labelspacing=0.3)
    return figure


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """As PDF and PNG; returns the paths."""
    paths = [folder / f"{name}.{suffix}" for suffix in ("pdf", "png")]
    with plt.rc_context(STYLE):
        for path in paths:
            figure.savefig(path)
    plt.close(figure)
    return paths

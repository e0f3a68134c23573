"""Draw error against n for Gaussian and softmax gates and for prompts, from a table.

Functions ``draw_*(ax, ...)`` draw on given axes; they fit nothing and save nothing. Levels are medians over
certified replicates, and bars their 90 % bootstrap intervals. Both are computed on the scale that is drawn.
"""

from __future__ import annotations

from math import ceil
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from moe_prompts.figures.style import (
    BARS,
    COLUMNS,
    STYLE,
    _width,
    draw_guide,
    legend_below,
    legend_of,
    log_log,
    note,
    one_scale,
    spoken,
)
from moe_prompts.study import softmax
from moe_prompts.study.summary import LOSS, RISK, Measure, measured_slope

#: Fixed prompts in blues, adaptive ones in oranges, decoupled ones in greens, each with dashes of its own; darker and
#: with other marks for more atoms.
SHADES: dict[str, tuple[str, str, Any]] = {
    "softmax": ("Purples", "o^vDP", "-"),
    "fixed": ("Blues", "o^vDP", "-"),
    "adaptive": ("Oranges", "sX*hp", "--"),
    "decoupled": ("Greens", "<>8Hd", "-."),
    "prefix": ("YlOrBr", "d8H<>", (0, (3, 1, 1, 1))),
}
#: Family of kinds -> the (kind, k) of its lines, in the order of their shades and marks.
Ranks = dict[str, list[tuple[str, int]]]


def _line_style(kind: str, rank: int, count: int) -> dict:
    base, *options = kind.split(":")
    colours, markers, dashes = SHADES[base]
    shade = 0.45 + 0.5 * (rank / max(count - 1, 1))
    return {
        "color": plt.get_cmap(colours)(shade),
        "marker": markers[rank % len(markers)],
        "linestyle": ":" if {"tied", "bias"} & set(options) else dashes,
    }


def draw_levels(
    ax: Axes,
    results: pd.DataFrame,
    measure: Measure,
    entropy: int,
    ranks: Ranks | None = None,
    *,
    all_fits: bool = False,
) -> None:
    """Draw one line per kind and k: the median error against n with its interval.

    results   rows of one panel
    measure   which error
    entropy   seed of the run, from which resamples are drawn
    ranks     of all panels (``ranks_of``), so that a line looks the same in each; default: those of these
              results
    all_fits  use fits without a certificate as well
    """
    ranks = ranks or ranks_of(results)
    lines = [
        (str(kind), k, rows)
        for kind, of_kind in results.groupby("kind", sort=False)
        for k, rows in of_kind.groupby("k")
    ]
    for kind, k, rows in lines:
        found = measured_slope(rows, measure, "grid", entropy, all_fits=all_fits)
        if not len(found.n):
            continue
        bars = np.abs(found.band.T - found.level)
        family = ranks[_family(kind)]
        style = _line_style(kind, family.index((kind, k)), len(family))
        noun = spoken(kind) if _of_prompts(rows) else "experts"
        ax.errorbar(found.n, found.level, yerr=bars, label=f"{k} {noun}", elinewidth=0.6, **style)
    log_log(ax)
    ax.set_xlabel("number of pairs n")


def _of_prompts(rows: pd.DataFrame) -> bool:
    """Prompts stand beside frozen experts, which Gaussian gates count; softmax gates have none."""
    return rows["kind"].iloc[0] != "softmax" and not (rows["n_frozen"] == 0).any()


def ranks_of(results: pd.DataFrame) -> Ranks:
    """Return the ranks of every line that the results hold: kinds as they come, k ascending."""
    ranks: Ranks = {}
    for kind, rows in results.groupby("kind", sort=False):
        ranks.setdefault(_family(str(kind)), []).extend((str(kind), k) for k in sorted(rows["k"].unique()))
    return ranks


def _family(kind: str) -> str:
    return kind.partition(":")[0]


def draw_risk(ax: Axes, results: pd.DataFrame, entropy: int, ranks: Ranks | None = None) -> None:
    """Draw prediction risk against n for one prompt truth."""
    draw_levels(ax, results, RISK, entropy, ranks)
    ax.set_ylabel(r"risk $E|\hat m-m^*|^2\ /\ E|m^*|^2$")
    ax.set_title(f"{results['truth'].iloc[0]} ({results['truth_kind'].iloc[0]} truth)")


def draw_loss(ax: Axes, results: pd.DataFrame, entropy: int, ranks: Ranks | None = None) -> None:
    """Draw the parameter loss D against n for one truth."""
    draw_levels(ax, results, LOSS, entropy, ranks)
    ax.set_ylabel("parameter loss D (Voronoi)")
    ax.set_title(f"{results['truth'].iloc[0]} ({results['k_true'].iloc[0]:.0f} experts)")


def softmax_figure(results: pd.DataFrame, entropy: int) -> Figure:
    """Return the figure of softmax gates: parameter loss against n, one panel per truth, on one scale."""
    groups = [rows for _, rows in results[results["notice"] == ""].groupby("truth", sort=False)]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            1, len(groups), figsize=(_width(len(groups)), 2.9), layout="constrained", squeeze=False, sharey=True
        )
        for ax, rows in zip(axes[0], groups, strict=True):
            draw_levels(ax, rows, softmax.D, entropy)
            draw_guide(ax, -0.5, r"slope $n^{-1/2}$")
            ax.set_title(f"{rows['truth'].iloc[0]}, certified fits from near truth")
            legend_below(ax)
        axes[0, 0].set_ylabel("parameter loss D (Voronoi), median")
        note(figure, BARS)
    return figure


def sample_efficiency_figure(results: pd.DataFrame, entropy: int) -> Figure:
    """Return the figure of prediction risk and of parameter loss against n.

    Each prompt truth has a panel of risk; these panels have one scale. The published model has panels of
    parameter loss; without it, parameter loss is that of the fits whose family contains the truth.
    """
    prompts, published = results[results["n_frozen"] > 0], results[results["n_frozen"] == 0]
    risk = [rows for _, rows in prompts.groupby("truth", sort=False)]
    loss = [rows for _, rows in published.groupby("truth", sort=False)]
    if not loss:
        contained = prompts[prompts["fit_class"] != "misspecified"]
        loss = [rows for _, rows in contained.groupby("truth", sort=False)]
    count = len(risk) + len(loss)
    columns = min(count, COLUMNS)
    lines = ceil(count / columns)
    with plt.rc_context(STYLE):
        figure, grid = plt.subplots(
            lines, columns, figsize=(_width(columns), 1.9 * lines + 0.9), layout="constrained", squeeze=False
        )
        axes = list(grid.ravel())
        for ax, rows in zip(axes, risk, strict=False):
            draw_risk(ax, rows, entropy, ranks_of(prompts))
        if risk:
            one_scale(axes[: len(risk)])
            for ax in axes[: len(risk)]:
                draw_guide(ax, -1.0, r"slope $n^{-1}$")
            legend_of(figure, axes[: len(risk)], 4, f"fitted (all panels: median of certified fits; {BARS})")
        for ax, rows in zip(axes[len(risk) :], loss, strict=False):
            draw_loss(ax, rows, entropy)
            draw_guide(ax, -0.5, r"slope $n^{-1/2}$")
            ax.legend(loc="upper right")
        for ax in axes[count:]:
            ax.remove()
    return figure

"""Draw error against n for Gaussian and softmax gates and for prompts, from a table.

Functions ``draw_*(ax, ...)`` draw on given axes; they fit nothing and save nothing. Levels are medians over
certified replicates, and bars their 90 % bootstrap intervals. Both are computed on the scale that is drawn.
"""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from moe_prompts.figures.style import (
    BARS,
    STYLE,
    TITLE,
    column,
    draw_guide,
    finding,
    legend_of,
    log_log,
    one_scale,
    power,
    spoken,
)
from moe_prompts.slopes import BAND
from moe_prompts.study import softmax
from moe_prompts.study.summary import LOSS, RISK, Measure, measured_slope

#: Experts of both kinds of gates in purples, fixed prompts in blues, adaptive ones in oranges, decoupled ones
#: in greens, each with dashes of its own; darker and with other marks for more atoms.
SHADES: dict[str, tuple[str, str, Any]] = {
    "experts": ("Purples", "o^vDP", (0, (6, 1))),
    "fixed": ("Blues", "o^vDP", "-"),
    "adaptive": ("Oranges", "sX*hp", "--"),
    "decoupled": ("Greens", "<>8Hd", "-."),
    "prefix": ("YlOrBr", "d8H<>", (0, (3, 1, 1, 1))),
}
#: Where ``SHADES`` has no line for a family.
OTHERS = ("Greys", "o^vDP", (0, (3, 1)))
#: Family of kinds -> the (kind, k) of its lines, in the order of their shades and marks.
Ranks = dict[str, list[tuple[str, int]]]
#: Kind in words -> the slopes of its lines.
Slopes = dict[str, list[float]]


def line_style(kind: str, rank: int, count: int) -> dict:
    """Return colour, mark and dashes of line ``rank`` of the ``count`` lines of one family of kinds."""
    base, *options = kind.split(":")
    colours, markers, dashes = SHADES.get(base, OTHERS)
    shade = 0.55 + 0.4 * (rank / max(count - 1, 1))
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
) -> Slopes:
    """Draw one line per kind and k, the median error against n with its interval, and return their slopes.

    results   rows of one panel
    measure   which error
    entropy   seed of the run, from which resamples are drawn
    ranks     of all panels (``ranks_of``), so that a line looks the same in each; default: those of these
              results
    all_fits  use fits without a certificate as well
    """
    ranks = ranks or ranks_of(results)
    slopes: Slopes = {}
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
        if _of_prompts(rows):
            noun, family = spoken(kind), ranks[_family(kind)]
            style = line_style(kind, family.index((kind, k)), len(family))
        else:
            noun, sizes = "experts", sorted(results["k"].unique())
            style = line_style("experts", sizes.index(k), len(sizes))
        ax.errorbar(found.n, found.level, yerr=bars, label=f"{k} {noun}", elinewidth=0.6, **style)
        slopes.setdefault(noun, []).append(found.value)
    log_log(ax)
    ax.set_xlabel("number of pairs n")
    return slopes


def slopes_said(slopes: Slopes) -> str:
    """Return in words how lines fall: the range of slopes of each kind, or that it stops.

    A kind stops where every slope is within .08 of 0, the band of verdicts.
    """
    said, stopped = [], []
    for kind, values in slopes.items():
        if np.all(np.abs(values) <= BAND):
            stopped.append(kind)
        else:
            steep, flat = power(min(values)), power(max(values))
            said.append(f"{kind} {flat}" + (f" to {steep}" if steep != flat else ""))
    return "; ".join([", ".join(said), *([f"{', '.join(stopped)}: no fall"] if stopped else [])]).removeprefix("; ")


def _of_prompts(rows: pd.DataFrame) -> bool:
    """Return whether rows are fits of prompts.

    Prompts stand beside frozen experts, which Gaussian gates count; softmax gates have none.
    """
    return rows["kind"].iloc[0] != "softmax" and not (rows["n_frozen"] == 0).any()


def ranks_of(results: pd.DataFrame) -> Ranks:
    """Return the ranks of every line that the results hold: kinds as they come, k ascending."""
    ranks: Ranks = {}
    for kind, rows in results.groupby("kind", sort=False):
        ranks.setdefault(_family(str(kind)), []).extend((str(kind), k) for k in sorted(rows["k"].unique()))
    return ranks


def _family(kind: str) -> str:
    return kind.partition(":")[0]


def draw_risk(ax: Axes, results: pd.DataFrame, entropy: int, ranks: Ranks | None = None, width: int = TITLE) -> None:
    """Draw prediction risk against n for one prompt truth; its title has lines of ``width`` characters."""
    slopes = draw_levels(ax, results, RISK, entropy, ranks)
    ax.set_ylabel(r"risk $E|\hat m-m^*|^2\,/\,E|m^*|^2$")
    name = str(results["truth"].iloc[0]).removeprefix("prompts-")
    kind = str(results["truth_kind"].iloc[0])
    finding(ax, f"{kind} truth{'' if name == kind else f' {name}'}: {slopes_said(slopes)}", width)


def draw_loss(ax: Axes, results: pd.DataFrame, entropy: int, ranks: Ranks | None = None, width: int = TITLE) -> None:
    """Draw the parameter loss D against n for one truth; its title has lines of ``width`` characters."""
    slopes = draw_levels(ax, results, LOSS, entropy, ranks)
    ax.set_ylabel("parameter loss D (Voronoi)")
    finding(
        ax, f"truth {results['truth'].iloc[0]}, {results['k_true'].iloc[0]:.0f} experts: {slopes_said(slopes)}", width
    )


def softmax_figure(results: pd.DataFrame, entropy: int) -> Figure:
    """Return the figure of softmax gates: parameter loss against n, one panel per truth, on one scale."""
    groups = [rows for _, rows in results[results["notice"] == ""].groupby("truth", sort=False)]
    with plt.rc_context(STYLE):
        figure, grid = column(len(groups), sharey=True, sharex=True)
        for ax, rows in zip(grid[:, 0], groups, strict=True):
            slopes = draw_levels(ax, rows, softmax.D, entropy)
            draw_guide(ax, -0.5, r"slope $n^{-1/2}$")
            finding(ax, f"truth {rows['truth'].iloc[0]}: D of {slopes_said(slopes)}")
            ax.set_ylabel("parameter loss D (Voronoi)")
            ax.label_outer()
        legend_of(figure, grid[:, 0], 2, f"median of certified fits from near the truth; {BARS}")
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
    across = 1 if len(risk) + len(loss) <= 4 else 2
    with plt.rc_context(STYLE):
        down = -(-(len(risk) + len(loss)) // across)
        figure, grid = column(down, 1.75 if across == 1 else 2.2, 1.0, across)
        axes, width = list(grid.ravel()), TITLE if across == 1 else TITLE // 2 - 6
        for ax, rows in zip(axes, risk, strict=False):
            draw_risk(ax, rows, entropy, ranks_of(prompts), width)
        if risk:
            one_scale(axes[: len(risk)])
            for ax in axes[: len(risk)]:
                draw_guide(ax, -1.0, r"slope $n^{-1}$")
        for ax, rows in zip(axes[len(risk) :], loss, strict=False):
            draw_loss(ax, rows, entropy, width=width)
            draw_guide(ax, -0.5, r"slope $n^{-1/2}$")
        for ax in axes[len(risk) + len(loss) :]:
            ax.remove()
        legend_of(figure, [ax for ax in axes if ax.figure], 2, f"fitted (median of certified fits; {BARS})")
    return figure

"""Draw the replications: ``draw_*(ax, lines)`` take lines of ``replication_report`` and draw their curves."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from moe_prompts.estimators.result import FitStatus
from moe_prompts.figures.style import STYLE, column, draw_guide, finding, in_lines, legend_of, log_log, power
from moe_prompts.intervals import percentiles
from moe_prompts.seeds import bootstrap_rng
from moe_prompts.study.replication_report import ENDLESS, FILE, FROM_N, LOSSES

#: How each source is drawn and called, in the order of the legend; fits from data are open, on top of the
#: others.
SOURCES: dict[str, tuple[dict[str, Any], str]] = {
    FILE: ({"color": "0.7", "linewidth": 2.0}, "published losses"),
    "start": ({"color": "#2f9e44", "marker": "v", "linestyle": "-."}, "start of the published procedure"),
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
#: Bars of ratios and medians are read by eye.
RATIO_RESAMPLES = 1_000
#: Losses whose ratio is this near to 1 are called the same.
SAME = 0.05
LOSS_NAMES = {"published": "loss as published", "translated": "least over\ntranslations"}


def draw_replication(ax: Axes, lines: pd.DataFrame, fits: pd.DataFrame | None = None) -> None:
    """Draw median loss against n, one colour per source.

    lines  of one truth, k and loss
    fits   rows of the run of that truth and k, from which 90 % intervals are drawn; None: no intervals
    """
    levels = []
    for source, (style, label) in SOURCES.items():
        for line in lines[lines["source"] == source].itertuples():
            ax.plot(line.sizes, line.medians, label=label, **style)
            levels += line.medians
            if fits is not None and source != FILE:
                bars = median_bars(fits, source, str(line.loss))
                at = [n for n in line.sizes if n in bars]
                ax.vlines(at, *np.transpose([bars[n] for n in at]), color=style["color"], linewidth=0.6)
    ax.set_ylim(min(levels) / 2, max(levels) * 3)
    log_log(ax)


def draw_ratio(ax: Axes, lines: pd.DataFrame, fits: pd.DataFrame | None = None) -> None:
    """Draw median loss over that of the published procedure, run again, at the sizes that both have.

    The line at 1 is the published procedure.

    lines  of one truth, k and loss
    fits   rows of the run of that truth and k, from which 90 % intervals are drawn; None: no intervals
    """
    below = lines[lines["source"] == "published"].iloc[0]
    level = dict(zip(below["sizes"], below["medians"], strict=True))
    ax.axhline(1, **SOURCES["published"][0] | {"marker": "", "label": SOURCES["published"][1]})
    for source, (style, label) in SOURCES.items():
        for line in lines[lines["source"] == source].itertuples():
            if source != "published":
                both = [(n, loss / level[n]) for n, loss in zip(line.sizes, line.medians, strict=True) if n in level]
                ax.plot(*zip(*both, strict=True), label=label, **style)
                if fits is not None and source != FILE:
                    bars = ratio_bars(fits, source, str(line.loss))
                    at = [n for n, _ in both if n in bars]
                    ax.vlines(at, *np.transpose([bars[n] for n in at]), color=style["color"], linewidth=0.6)
    log_log(ax)


def median_bars(fits: pd.DataFrame, source: str, loss: str) -> dict[int, tuple[float, float]]:
    """Return n -> the 90 % bootstrap interval of the median loss of a procedure over data sets.

    fits    rows of one truth and k
    source  the procedure
    loss    one of ``LOSSES``
    """
    rng, bars = bootstrap_rng(0, "median", source, loss), {}
    for n, losses in _counted(fits, source).groupby("n")[LOSSES[loss]]:
        values = np.minimum(losses.dropna().to_numpy(), ENDLESS)
        if len(values):
            drawn = np.median(values[rng.integers(len(values), size=(RATIO_RESAMPLES, len(values)))], axis=1)
            low, high = percentiles(drawn)
            bars[int(str(n))] = float(low), float(high)
    return bars


def _counted(fits: pd.DataFrame, *sources: str) -> pd.DataFrame:
    """Return the fits of some procedures; of those that climb to maxima, the certified ones."""
    certified = (fits["status"] == FitStatus.CERTIFIED.name) | ~fits["procedure"].str.startswith("certified")
    return fits[certified & fits["procedure"].isin(sources)]


def ratio_bars(fits: pd.DataFrame, source: str, loss: str) -> dict[int, tuple[float, float]]:
    """Return n -> the 90 % bootstrap interval of a ratio of medians: of a procedure over the published one.

    Data sets are resampled for both procedures alike, which saw the same ones.

    fits    rows of one truth and k
    source  the procedure above the line
    loss    one of ``LOSSES``
    """
    column_of = LOSSES[loss]
    wide = (
        _counted(fits, source, "published")
        .pivot(index=["n", "replicate"], columns="procedure", values=column_of)
        .dropna()
    )
    rng, bars = bootstrap_rng(0, "ratio", source, loss), {}
    for n, pairs in wide.groupby(level="n"):
        values = np.minimum(pairs[[source, "published"]].to_numpy(), ENDLESS)
        drawn = np.median(values[rng.integers(len(values), size=(RATIO_RESAMPLES, len(values)))], axis=1)
        low, high = percentiles(drawn[:, 0] / drawn[:, 1])
        bars[int(str(n))] = float(low), float(high)
    return bars


def ratio_title(summary: pd.DataFrame) -> str:
    """Return what the ratios say: how far the certified maxima lie above the published procedure.

    Each panel has a geometric mean over the sizes from ``FROM_N`` on; the title has the least and the
    largest.
    """
    ratios = []
    for _, lines in summary[summary["loss"] == "published"].groupby(["truth", "k"]):
        curves = {line.source: dict(zip(line.sizes, line.medians, strict=True)) for line in lines.itertuples()}
        # The file has lines of truths and k that the run may lack.
        ours, level = curves.get("certified", {}), curves.get("published", {})
        logs = [np.log(ours[n] / level[n]) for n in sorted(ours.keys() & level.keys()) if n >= FROM_N]
        if logs:
            ratios.append(float(np.exp(np.mean(logs))))
    if not ratios:
        return "median loss over that of the published procedure"
    low, high = f"{min(ratios):.2g}", f"{max(ratios):.2g}"
    found = f"certified maxima have {low if low == high else f'{low} to {high}'} times the loss"
    return (
        f"{found}\nof the published procedure, which stops at no maximum\n"
        f"(geometric mean over n >= {FROM_N:g}, least and largest of all panels)"
    )


def height(lines: pd.DataFrame) -> str:
    """Return in words where the certified maxima stand beside the published procedure, run again.

    The ratio of their losses is a geometric mean over the sizes from ``FROM_N`` on; the same: within 5 %.

    lines  of one truth, k and loss
    """
    curves = {line.source: dict(zip(line.sizes, line.medians, strict=True)) for line in lines.itertuples()}
    ours, level = curves.get("certified", {}), curves.get("published", {})
    logs = [np.log(ours[n] / level[n]) for n in sorted(ours.keys() & level.keys()) if n >= FROM_N]
    if not logs:
        return "no certified maximum"
    ratio = float(np.exp(np.mean(logs)))
    if abs(ratio - 1) <= SAME:
        return "maxima have the loss of the procedure"
    digits = f"{float(f'{ratio:.2g}'):,.0f}" if ratio >= 10 else f"{ratio:.2g}"
    return f"maxima have {digits} times the loss of the procedure"


def published_slopes(summary: pd.DataFrame) -> str:
    """Return in words which slopes the losses in the paper's files have, for each k."""
    own = summary[(summary["source"] == FILE) & np.isfinite(summary["slope"])].sort_values("k")
    powers = ", ".join(f"{power(line.slope)} with {line.k} experts" for line in own.itertuples())
    return f"theory says {power(-0.5)}; losses as published have {powers}" if powers else f"theory says {power(-0.5)}"


def panels(summary: pd.DataFrame) -> list[list[tuple[str, int, str]]]:
    """Return (truth, k, loss) of each panel, by row and column.

    Gaussian gates have a row for each truth and a column for each k, softmax gates a row for each k and a
    column for each loss.
    """
    ours = summary[summary["source"] != FILE]
    truths, ks = ours["truth"].unique(), sorted(ours["k"].unique())
    if (ours["loss"] == "translated").any():
        return [[(truths[0], k, loss) for loss in LOSS_NAMES] for k in ks]
    return [[(truth, k, "published") for k in ks] for truth in truths]


def replication_figure(summary: pd.DataFrame, results: pd.DataFrame | None = None) -> Figure:
    """Return the figure with a panel for each of ``panels``.

    Gaussian gates show ratios to the published procedure, whose slopes the figure would else hide, on one
    scale; softmax gates show losses, a row on one scale.

    results  rows of the run, from which intervals are drawn
    """
    grid = panels(summary)
    ratio = grid[0][0][0].startswith("gmoe")
    with plt.rc_context(STYLE):
        figure, axes = column(
            len(grid), 1.45 if ratio else 1.75, 1.35, len(grid[0]), sharex="all" if ratio else "row", sharey="row"
        )
        for row, places in zip(axes, grid, strict=True):
            for ax, (truth, k, loss) in zip(row, places, strict=True):
                chosen = (summary["truth"] == truth) & (summary["k"] == k) & (summary["loss"] == loss)
                fits = None if results is None else results[(results["truth"] == truth) & (results["k"] == k)]
                if ratio:
                    draw_ratio(ax, summary[chosen], fits)
                    ax.set_title(f"{truth}, k = {k}")
                else:
                    draw_replication(ax, summary[chosen], fits)
                    finding(ax, f"k = {k}: {height(summary[chosen])}", 21)
            limits = [line for ax in row for line in ax.dataLim.intervaly]
            row[0].set_ylim(min(limits) / 1.5, max(limits) * 1.5)
            for ax in row:
                log_log(ax)
                if not ratio:
                    draw_guide(ax, -0.5, r"slope $n^{-1/2}$")
                    ax.set_ylabel(LOSS_NAMES[places[list(row).index(ax)][2]])
                    ax.set_xlabel("number of pairs n")
            if ratio:
                row[0].set_ylabel("loss / published")
        if ratio:
            for ax in axes[-1]:
                ax.set_xlabel("number of pairs n")
            figure.suptitle(ratio_title(summary), fontsize="medium")
        else:
            figure.suptitle(in_lines(published_slopes(summary)), fontsize="medium")
        bars = "; bars: 90 % bootstrap intervals" if results is not None else ""
        legend_of(figure, axes.ravel(), 1, f"medians over data sets{bars}")
    return figure

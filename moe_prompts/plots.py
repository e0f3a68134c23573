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

from moe_prompts.slopes import Slope
from moe_prompts.study import softmax
from moe_prompts.study.attention import FITS, GAPS, PROFILES
from moe_prompts.study.attention_report import SPLIT, D, profile_of
from moe_prompts.study.report import GAUSSIAN, of_study
from moe_prompts.study.summary import LOSS, RISK, Measure, measured_slope

STYLE: dict[Any, Any] = {
    "font.size": 8, "axes.labelsize": 8, "axes.titlesize": 8.5, "legend.fontsize": 7, "axes.spines.top": False,
    "axes.spines.right": False, "pdf.fonttype": 42, "savefig.dpi": 200, "lines.linewidth": 1.2, "lines.markersize": 4,
}  # fmt: skip
#: Fixed prompts in blues, adaptive ones in oranges, decoupled ones in greens; darker and with other marks for more
#: atoms.
SHADES = {
    "softmax": ("Purples", "o^vDP"),
    "fixed": ("Blues", "o^vDP"),
    "adaptive": ("Oranges", "sX*hp"),
    "decoupled": ("Greens", "<>8Hd"),
}
#: One colour and mark for each truth of the attention study, where kinds are told apart rather than numbers of prompts.
TRUTH_STYLES = ("o", "<", "s", "X", "*", "h", "P", "D")
COLUMNS = 3  # panels in a row
#: Truths in the panel of parameter errors: more would hide each other.
TRUTHS_SHOWN = 4
PROFILE_FLOOR = 1e-9  # where vanishing profiles are drawn


def _line_style(kind: str, rank: int, count: int) -> dict:
    base, *options = kind.split(":")
    colours, markers = SHADES[base]
    shade = 0.45 + 0.5 * (rank / max(count - 1, 1))
    marker = markers[rank % len(markers)]
    return {
        "color": plt.get_cmap(colours)(shade),
        "marker": marker,
        "linestyle": "--" if {"tied", "bias"} & set(options) else "-",
    }


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


def softmax_figure(results: pd.DataFrame, entropy: int) -> Figure:
    """Parameter loss of softmax gates against n, one panel per truth, on one scale."""
    groups = [rows for _, rows in results[results["notice"] == ""].groupby("truth", sort=False)]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            1, len(groups), figsize=(3.5 * len(groups), 3.9), layout="constrained", squeeze=False, sharey=True
        )
        for ax, rows in zip(axes[0], groups, strict=True):
            draw_levels(ax, rows, softmax.D, entropy)
            draw_guide(ax, -0.5, r"slope $n^{-1/2}$")
            ax.set_title(f"{rows['truth'].iloc[0]}, certified fits from near truth")
            ax.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, handlelength=2.2)
        axes[0, 0].set_ylabel("parameter loss D (Voronoi), median")
    return figure


def draw_guide(ax: Axes, exponent: float, label: str, linestyle: str = ":") -> None:
    """A thin line of a predicted slope through the centre of the panel."""
    low, high = ax.get_xlim()
    bottom, top = ax.get_ylim()
    at_low = np.sqrt(bottom * top) * (high / low) ** (-exponent / 2)
    ends = np.array([low, high])
    ax.plot(
        ends, at_low * (ends / low) ** exponent, color="0.5", linewidth=0.9, linestyle=linestyle, zorder=0, label=label
    )
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


def attention_figure(results: pd.DataFrame, entropy: int) -> Figure:
    """Prediction risk of every kind of prompt on an adaptive truth, parameter errors of each truth's own kind with one
    prompt too many, and noise-free profiles: dashed exact, solid with one prompt too many."""
    with plt.rc_context(STYLE):
        figure, (risk, loss, profiles) = plt.subplots(1, 3, figsize=(9.9, 4.4), layout="constrained")
        draw_attention_risk(risk, results, entropy)
        draw_attention_loss(loss, results, entropy)
        draw_profiles(profiles, results)
        for ax in (risk, loss, profiles):
            ax.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, handlelength=2.2)
    return figure


def draw_attention_risk(ax: Axes, results: pd.DataFrame, entropy: int) -> None:
    """Of the first truth that other kinds than its own are fitted to, an adaptive one if there is."""
    fits = results[results["study"] == FITS]
    several = [name for name, rows in fits.groupby("truth", sort=False) if rows["kind"].nunique() > 1] or [
        fits["truth"].iloc[0]
    ]
    chosen = next(
        (name for name in several if fits.loc[fits["truth"] == name, "truth_kind"].iloc[0].startswith("adaptive")),
        several[0],
    )
    rows = fits[fits["truth"] == chosen]
    draw_levels(ax, rows, RISK, entropy)
    draw_guide(ax, -1.0, r"slope $n^{-1}$")
    ax.set_ylabel(r"risk $E|\hat f-f^*|^2\ /\ E|f^*|^2$")
    ax.set_title(f"{chosen}: prediction risk")


def draw_attention_loss(ax: Axes, results: pd.DataFrame, entropy: int) -> None:
    """Fits of the first truths with one prompt too many, with 90 % intervals: D (mean over data sets, which runaways
    move) and, dashed, the error of split prompts (median) where they have a rate."""
    fits = results[(results["study"] == FITS) & (results["cell_sizes"] == "over")]
    fits = fits[fits["k"] == fits["k_true"] + 1]
    chosen = fits["truth"].unique()[:TRUTHS_SHOWN]
    for place, truth in enumerate(chosen):
        rows, name = fits[fits["truth"] == truth], truth.removeprefix("attention-")
        vanishes = profile_of(results, truth, 1).vanishes
        _draw_error(ax, measured_slope(rows, D, "grid", entropy, "mean", all_fits=vanishes), place, f"{name}: D")
        if not vanishes:
            _draw_error(ax, measured_slope(rows, SPLIT, "grid", entropy), place, f"{name}: split", linestyle="--")
    ax.set_xscale("log")
    ax.set_yscale("log")
    draw_guide(ax, -0.5, r"slope $n^{-1/2}$")
    draw_guide(ax, -0.25, r"slope $n^{-1/4}$", "-.")
    ax.set_xlabel("number of pairs n")
    ax.set_ylabel("error of parameters")
    ax.set_title("one prompt too many: parameters")


def _draw_error(ax: Axes, found: Slope, place: int, label: str, linestyle: str = "-") -> None:
    if len(found.n):
        bars = np.abs(found.band.T - found.level)
        style = _truth_style(place) | {"linestyle": linestyle}
        ax.errorbar(found.n * 1.03**place, found.level, yerr=bars, label=label, capsize=1.2, elinewidth=0.7, **style)


def draw_profiles(ax: Axes, results: pd.DataFrame) -> None:
    """Least error without noise against the spread held; profiles that vanish stand on the floor of the panel."""
    profiles = results[results["study"] == PROFILES]
    for place, truth in enumerate(profiles["truth"].unique()):
        style, name = _truth_style(place), truth.removeprefix("attention-")
        exact, over = profile_of(results, truth, 0), profile_of(results, truth, 1)
        ax.plot(exact.eps, exact.value, linestyle="--", linewidth=0.7, color=style["color"])
        ax.plot(
            over.eps,
            np.maximum(over.value, PROFILE_FLOOR),
            label=f"{name} (vanishes)" if over.vanishes else name,
            **style,
        )
    ax.set_xscale("log")
    ax.set_yscale("log")
    ticks = sorted(profiles["eps"].unique())
    ax.set_xticks(ticks, [f"{eps:g}" for eps in ticks])
    ax.minorticks_off()
    draw_guide(ax, 1.0, "exponent 1")
    draw_guide(ax, 2.0, "exponent 2", "-.")
    ax.set_ylim(PROFILE_FLOOR / 2, None)
    ax.set_xlabel("distance or spread held, eps")
    ax.set_ylabel(r"least $\|f-f^*\|$ without noise")
    ax.set_title("noise-free profiles (dashed: exact)")


def _truth_style(place: int) -> dict:
    return {"color": plt.get_cmap("tab10")(place % 10), "marker": TRUTH_STYLES[place % len(TRUTH_STYLES)]}


def draw_gaps(ax: Axes, results: pd.DataFrame) -> None:
    """Mean nats lost by holding a split, against n, with the range over data sets."""
    gaps = results[results["study"] == GAPS]
    for place, (truth, rows) in enumerate(gaps.groupby("truth", sort=False)):
        by_n = rows.groupby("n")["gap"]
        mean, low, high = by_n.mean(), by_n.min(), by_n.max()
        bars = np.abs(np.array([low, high]) - mean.to_numpy())
        style = _truth_style(place)
        ax.errorbar(
            mean.index * 1.03**place,
            mean,
            yerr=bars,
            label=str(truth).removeprefix("attention-"),
            capsize=1.2,
            elinewidth=0.7,
            **style,
        )
    ax.set_xscale("log")
    ax.set_yscale("symlog", linthresh=1)
    ax.set_ylim(0, 3 * gaps["gap"].max())
    ax.set_xlabel("number of pairs n")
    ax.set_ylabel("nats lost by holding the split")
    ax.set_title("likelihood gap of a split")


def identifiability_figure(results: pd.DataFrame) -> Figure:
    """Noise-free profiles, and the likelihood gaps of a held split."""
    with plt.rc_context(STYLE):
        figure, (profiles, gaps) = plt.subplots(1, 2, figsize=(8.2, 4.6), layout="constrained")
        draw_profiles(profiles, results)
        draw_gaps(gaps, results)
        for ax in (profiles, gaps):
            ax.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3, handlelength=2.2)
    return figure


def figures(results: pd.DataFrame, entropy: int) -> dict[str, Figure]:
    """Of each study in the results, by the name of its file."""
    drawn = {}
    gated, attention = of_study(results, GAUSSIAN), of_study(results, FITS)
    if len(attention):
        drawn["attention"] = attention_figure(attention, entropy)
    if len(gated):
        drawn["sample_efficiency"] = sample_efficiency_figure(gated, entropy)
    gates = of_study(results, softmax.FITS)
    if len(gates):
        drawn["softmax_gates"] = softmax_figure(gates, entropy)
    return drawn


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """As PDF and PNG; returns the paths."""
    paths = [folder / f"{name}.{suffix}" for suffix in ("pdf", "png")]
    with plt.rc_context(STYLE):
        for path in paths:
            figure.savefig(path)
    plt.close(figure)
    return paths

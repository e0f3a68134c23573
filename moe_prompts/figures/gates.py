"""7 FIGURE: ``draw_*(ax, ...)`` take a table and draw it on given axes; they fit nothing and save nothing.

Levels are medians over certified replicates, bars their 90 % bootstrap intervals, both on the scale that is drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib import rc_params_from_file
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from moe_prompts.study import softmax
from moe_prompts.study.attention import FITS, GAPS, PROFILES
from moe_prompts.study.attention_report import SPLIT, D, profile_of
from moe_prompts.study.report import GAUSSIAN, of_study
from moe_prompts.study.summary import LOSS, RISK, Measure, measured_slope

#: The one style, of experiments and of ``paper_figures/style.mplstyle``, which leads here.
STYLE: dict[Any, Any] = dict(
    rc_params_from_file(Path(__file__).with_name("style.mplstyle"), use_default_template=False)
)
#: Widths in inches at which figures are read: a column and a page.
SINGLE, DOUBLE = 3.4, 7.0
#: Fixed prompts in blues, adaptive ones in oranges, decoupled ones in greens, each with dashes of its own; darker and
#: with other marks for more atoms.
SHADES: dict[str, tuple[str, str, str]] = {
    "softmax": ("Purples", "o^vDP", "-"),
    "fixed": ("Blues", "o^vDP", "-"),
    "adaptive": ("Oranges", "sX*hp", "--"),
    "decoupled": ("Greens", "<>8Hd", "-."),
}
#: Family of kinds -> the (kind, k) of its lines, in the order of their shades and marks.
Ranks = dict[str, list[tuple[str, int]]]
#: What bars are, as a note of figures.
BARS = "bars: 90 % bootstrap intervals"
#: One colour and mark for each truth of the attention study, where kinds are told apart rather than numbers of prompts.
TRUTH_STYLES = ("o", "<", "s", "X", "*", "h", "P", "D")
COLUMNS = 3  # panels in a row
#: Truths in the panel of parameter errors: more would hide each other.
TRUTHS_SHOWN = 4
PROFILE_FLOOR = 1e-9  # where vanishing profiles are drawn


def _line_style(kind: str, rank: int, count: int) -> dict:
    base, *options = kind.split(":")
    colours, markers, dashes = SHADES[base]
    shade = 0.45 + 0.5 * (rank / max(count - 1, 1))
    return {
        "color": plt.get_cmap(colours)(shade),
        "marker": markers[rank % len(markers)],
        "linestyle": ":" if {"tied", "bias"} & set(options) else dashes,
    }


def spoken(kind: str) -> str:
    """``adaptive:gelu:bias`` as ``adaptive (gelu, bias)``."""
    base, _, options = kind.partition(":")
    return f"{base} ({', '.join(options.split(':'))})" if options else base


def draw_levels(
    ax: Axes, results: pd.DataFrame, measure: Measure, entropy: int, ranks: Ranks | None = None, *,
    all_fits: bool = False,
) -> None:  # fmt: skip
    """One line per kind and k: the median error against n with its interval; a step aside keeps bars apart.

    ranks  as ``ranks_of`` all panels, so that a line looks the same in each (default: of these results)
    """
    ranks = ranks or ranks_of(results)
    lines = [
        (str(kind), k, rows)
        for kind, of_kind in results.groupby("kind", sort=False)
        for k, rows in of_kind.groupby("k")
    ]
    for place, (kind, k, rows) in enumerate(lines):
        found = measured_slope(rows, measure, "grid", entropy, all_fits=all_fits)
        if not len(found.n):
            continue
        aside = 1.025 ** (place - (len(lines) - 1) / 2)
        bars = np.abs(found.band.T - found.level)
        family = ranks[_family(kind)]
        style = _line_style(kind, family.index((kind, k)), len(family))
        noun = spoken(kind) if _of_prompts(rows) else "experts"
        ax.errorbar(found.n * aside, found.level, yerr=bars, label=f"{k} {noun}", elinewidth=0.6, **style)
    log_log(ax)
    ax.set_xlabel("number of pairs n")


def _of_prompts(rows: pd.DataFrame) -> bool:
    """Prompts stand beside frozen experts, which Gaussian gates count; softmax gates have none."""
    return rows["kind"].iloc[0] != "softmax" and not (rows["n_frozen"] == 0).any()


def ranks_of(results: pd.DataFrame) -> Ranks:
    """Of every line that the results hold: kinds as they come, k ascending."""
    ranks: Ranks = {}
    for kind, rows in results.groupby("kind", sort=False):
        ranks.setdefault(_family(str(kind)), []).extend((str(kind), k) for k in sorted(rows["k"].unique()))
    return ranks


def _family(kind: str) -> str:
    return kind.partition(":")[0]


def log_log(ax: Axes) -> None:
    """Both axes; small ticks only where an axis spans few decades, where they are needed to read it."""
    ax.set_xscale("log")
    ax.set_yscale("log")
    for axis, (low, high) in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())):
        if high > 100 * low:
            axis.set_minor_locator(NullLocator())


def draw_risk(ax: Axes, results: pd.DataFrame, entropy: int, ranks: Ranks | None = None) -> None:
    """Prediction risk against n for one prompt truth."""
    draw_levels(ax, results, RISK, entropy, ranks)
    ax.set_ylabel(r"risk $E|\hat m-m^*|^2\ /\ E|m^*|^2$")
    ax.set_title(f"{results['truth'].iloc[0]} ({results['truth_kind'].iloc[0]} truth)")


def draw_loss(ax: Axes, results: pd.DataFrame, entropy: int, ranks: Ranks | None = None) -> None:
    """Parameter loss D against n for one truth."""
    draw_levels(ax, results, LOSS, entropy, ranks)
    ax.set_ylabel("parameter loss D (Voronoi)")
    ax.set_title(f"{results['truth'].iloc[0]} ({results['k_true'].iloc[0]:.0f} experts)")


def softmax_figure(results: pd.DataFrame, entropy: int) -> Figure:
    """Parameter loss of softmax gates against n, one panel per truth, on one scale."""
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


def _width(panels: int) -> float:
    return SINGLE if panels == 1 else DOUBLE


def legend_below(ax: Axes, ncols: int = 2, title: str | None = None) -> None:
    ax.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=ncols, title=title, handlelength=1.8, columnspacing=0.9,
        handletextpad=0.5,
    )  # fmt: skip


def legend_of(figure: Figure, axes: Iterable[Axes], ncols: int, title: str | None = None) -> None:
    """One legend below the figure, of every label in ``axes`` once."""
    handles: dict[str, Any] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=ncols, title=title)


def note(figure: Figure, text: str) -> None:
    """A line below the panels that says what they do not; with ``legend_of`` it is that legend's title."""
    figure.supxlabel(text, color="0.25")


def draw_guide(ax: Axes, exponent: float, label: str, linestyle: Any = ":") -> None:
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


def one_scale(axes: Sequence[Axes]) -> None:
    """The same y limits, which hold what each shows."""
    limits = [ax.get_ylim() for ax in axes]
    for ax in axes:
        ax.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
        log_log(ax)


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


def attention_figure(results: pd.DataFrame, entropy: int) -> Figure:
    """Prediction risk of every kind of prompt on an adaptive truth, parameter errors of each truth's own kind with one
    prompt too many, and noise-free profiles: dashed exact, solid with one prompt too many."""
    with plt.rc_context(STYLE):
        figure, (risk, loss, profiles) = plt.subplots(1, 3, figsize=(DOUBLE, 3.6), layout="constrained")
        draw_attention_risk(risk, results, entropy)
        draw_attention_loss(loss, results, entropy)
        draw_profiles(profiles, results)
        legend_below(risk, title="fitted")
        legend_below(loss, title="truth and kind of prompts")
        legend_below(profiles, title="truth and kind of prompts")
        note(figure, f"medians (D, the Voronoi loss: means) over data sets; {BARS}")
    return figure


def compared_truths(results: pd.DataFrame) -> list[str]:
    """Of the attention study, those that other kinds than their own are fitted to; the first if there is none."""
    fits = results[results["study"] == FITS]
    several = [str(name) for name, rows in fits.groupby("truth", sort=False) if rows["kind"].nunique() > 1]
    return several or [str(fits["truth"].iloc[0])]


def draw_attention_risk(
    ax: Axes, results: pd.DataFrame, entropy: int, truth: str | None = None, ranks: Ranks | None = None
) -> None:
    """Of one truth; by default the first adaptive one that other kinds are fitted to, if there is."""
    fits = results[results["study"] == FITS]
    several = compared_truths(results)
    adaptive = [name for name in several if fits.loc[fits["truth"] == name, "truth_kind"].iloc[0].startswith("adapt")]
    rows = fits[fits["truth"] == (truth or [*adaptive, *several][0])]
    draw_levels(ax, rows, RISK, entropy, ranks, all_fits=truth is not None)
    if truth is None:
        draw_guide(ax, -1.0, r"slope $n^{-1}$")
    ax.set_ylabel(r"risk $E|\hat f-f^*|^2\ /\ E|f^*|^2$")
    ax.set_title(f"truth: {rows['k_true'].iloc[0]:.0f} {spoken(rows['truth_kind'].iloc[0])} prompts")


def prediction_risk_figure(results: pd.DataFrame, entropy: int) -> Figure:
    """Fixed against adaptive: a panel for each truth that several kinds are fitted to, on one scale; dotted the least
    risk of classes that do not contain the truth."""
    truths = compared_truths(results)
    fits = results[(results["study"] == FITS) & results["truth"].isin(truths)]
    with plt.rc_context(STYLE):
        figure, grid = plt.subplots(
            1, len(truths), figsize=(_width(len(truths)), 3.4), layout="constrained", squeeze=False
        )
        axes = list(grid[0])
        for ax, truth in zip(axes, truths, strict=True):
            draw_attention_risk(ax, results, entropy, truth, ranks_of(fits))
        one_scale(axes)
        for ax, truth in zip(axes, truths, strict=True):
            draw_floors(ax, fits[fits["truth"] == truth])
            draw_guide(ax, -1.0, r"slope $n^{-1}$", (0, (5, 3)))
            ax.label_outer()
        legend_of(figure, axes, 4, f"prompts fitted (median of all fits; {BARS})")
    return figure


def draw_floors(ax: Axes, results: pd.DataFrame) -> None:
    """The least risk of each class that does not contain the truth, without noise."""
    missed = results[results["cell_sizes"] == "misspecified"]
    for floor in missed.groupby(["kind", "k"])["population_relative_risk"].median():
        ax.axhline(floor, color="0.2", linewidth=0.7, linestyle=":", zorder=3, label="least risk of the class")


def draw_attention_loss(ax: Axes, results: pd.DataFrame, entropy: int) -> None:
    """Fits of the first truths with one prompt too many, with 90 % intervals: D (mean over data sets, which runaways
    move) and, dashed, the error of split prompts (median) where they have a rate."""
    over = own_fits(results, 1)
    for place, truth in enumerate(over["truth"].unique()[:TRUTHS_SHOWN]):
        vanishes = profile_of(results, truth, 1).vanishes
        _draw_error(ax, over, entropy, place, truth, D, f"{_short(truth)}: D", "mean", vanishes)
        if not vanishes:
            _draw_error(ax, over, entropy, place, truth, SPLIT, f"{_short(truth)}: split", linestyle="--")
    log_log(ax)
    draw_guide(ax, -0.5, r"slope $n^{-1/2}$")
    draw_guide(ax, -0.25, r"slope $n^{-1/4}$", "-.")
    ax.set_xlabel("number of pairs n")
    ax.set_ylabel("error of parameters")
    ax.set_title("one prompt too many: parameters")


def own_fits(results: pd.DataFrame, surplus: int) -> pd.DataFrame:
    """Of each truth's own kind, with ``surplus`` prompts too many."""
    word = "over" if surplus else "exact"
    fits = results[(results["study"] == FITS) & (results["cell_sizes"] == word)]
    return fits[fits["k"] == fits["k_true"] + surplus]


def _short(truth: str) -> str:
    return truth.removeprefix("attention-")


def _draw_error(
    ax: Axes, fits: pd.DataFrame, entropy: int, place: int, truth: str, measure: Measure, label: str,
    statistic: str = "median", all_fits: bool = False, linestyle: str = "-",
) -> None:  # fmt: skip
    rows = fits[fits["truth"] == truth]
    found = measured_slope(rows, measure, "grid", entropy, statistic, all_fits=all_fits)
    if len(found.n):
        bars = np.abs(found.band.T - found.level)
        style = _truth_style(place) | {"linestyle": linestyle}
        if all_fits:
            style |= {"markerfacecolor": "white", "linestyle": ":"}
        ax.errorbar(found.n * 1.03**place, found.level, yerr=bars, label=label, elinewidth=0.6, **style)


#: Panels of ``parameter_rates_figure``: prompts too many, measure, title, guide.
RATE_PANELS = (
    (0, D, "as many prompts as there are: D", (-0.5, r"slope $n^{-1/2}$", "--")),
    (1, D, "one too many: D", (-0.5, r"slope $n^{-1/2}$", "--")),
    (1, SPLIT, "one too many: split prompts", (-0.25, r"slope $n^{-1/4}$", "-.")),
)


def parameter_rates_figure(results: pd.DataFrame, entropy: int) -> Figure:
    """Parameter errors of each truth's own kind against n, exact and with one prompt too many; hollow and dotted where
    profiles vanish, so that theory denies a rate: then of all fits."""
    truths = results.loc[results["study"] == FITS, "truth"].unique()
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 3, figsize=(DOUBLE, 3.1), layout="constrained")
        for ax, (surplus, measure, title, guide) in zip(axes, RATE_PANELS, strict=True):
            fits = own_fits(results, surplus)
            for place, truth in enumerate(truths):
                vanishes = bool(surplus) and profile_of(results, truth, 1).vanishes
                if truth in set(fits["truth"]):
                    _draw_error(ax, fits, entropy, place, truth, measure, _short(truth), all_fits=vanishes)
            log_log(ax)
            draw_guide(ax, *guide)
            ax.set_title(title)
            ax.set_xlabel("number of pairs n")
        axes[0].set_ylabel("parameter loss D (Voronoi)")
        axes[2].set_ylabel("distance of split prompts")
        legend_of(
            figure, axes, 5,
            f"truth and kind of prompts (median of certified fits; {BARS}; hollow: no rate by theory, of all fits)",
        )  # fmt: skip
    return figure


def draw_profiles(ax: Axes, results: pd.DataFrame) -> None:
    """Least error without noise against the spread held; profiles that vanish stand on the floor of the panel; dashed
    with as many prompts as there are, solid with one too many."""
    draw_exact_profiles(ax, results, {"linestyle": (0, (4, 2)), "linewidth": 0.7, "marker": "none"}, named=False)
    draw_over_profiles(ax, results)
    draw_guide(ax, 1.0, "exponent 1")
    draw_guide(ax, 2.0, "exponent 2", "-.")
    ax.set_ylim(PROFILE_FLOOR / 2, None)
    ax.set_xlabel("distance or spread held, eps")
    ax.set_title("noise-free profiles (dashed: exact)")


def draw_exact_profiles(ax: Axes, results: pd.DataFrame, style: dict | None = None, named: bool = True) -> None:
    """With as many prompts as there are: least error against the distance held."""
    for place, truth in enumerate(_profiled(results)):
        exact = profile_of(results, truth, 0)
        label = _short(truth) if named else None
        ax.plot(exact.eps, exact.value, label=label, **(_truth_style(place) | (style or {})))
    _profile_axes(ax, results)


def draw_over_profiles(ax: Axes, results: pd.DataFrame) -> None:
    """With one prompt too many: least error against the spread held; hollow where it vanishes."""
    silent: list[str] = []
    for place, truth in enumerate(_profiled(results)):
        style, over = _truth_style(place), profile_of(results, truth, 1)
        if over.vanishes:
            style |= {"markerfacecolor": "white", "linestyle": ":"}
            silent.append(_short(truth))
        ax.plot(over.eps, np.maximum(over.value, PROFILE_FLOOR), label=_short(truth), **style)
    if silent:
        ax.annotate(
            "vanish: " + ",\n".join([", ".join(silent[:2]), *silent[2:]]), (0.5, PROFILE_FLOOR),
            xycoords=("axes fraction", "data"), xytext=(0, 4), textcoords="offset points", ha="center", va="bottom",
            fontsize=6.5,
        )  # fmt: skip
    _profile_axes(ax, results)


def _profiled(results: pd.DataFrame) -> list[str]:
    return list(results.loc[results["study"] == PROFILES, "truth"].unique())


def _profile_axes(ax: Axes, results: pd.DataFrame) -> None:
    log_log(ax)
    ticks = sorted(results.loc[results["study"] == PROFILES, "eps"].unique())
    # Every second one, from the largest.
    ax.set_xticks(ticks, [f"{eps:g}" if (len(ticks) - place) % 2 else "" for place, eps in enumerate(ticks)])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_ylabel(r"least $\|f-f^*\|$ without noise")


def profiles_figure(results: pd.DataFrame) -> Figure:
    """Noise-free profiles: exact, and with one prompt too many."""
    with plt.rc_context(STYLE):
        figure, (exact, over) = plt.subplots(1, 2, figsize=(DOUBLE, 3.1), layout="constrained", sharey=True)
        draw_exact_profiles(exact, results)
        draw_over_profiles(over, results)
        over.set_ylim(PROFILE_FLOOR / 2, None)
        draw_guide(exact, 1.0, "exponent 1", "--")
        draw_guide(over, 2.0, "exponent 2", "-.")
        exact.set_title("as many prompts as there are")
        exact.set_xlabel("distance of parameters held, eps")
        over.set_title("one prompt too many")
        over.set_xlabel("spread of split prompts held, eps")
        over.label_outer()
        exact.legend(loc="lower right", ncols=2, title="truth and kind of prompts")
        over.legend(over.get_lines()[-1:], ["exponent 2"], loc="lower right", bbox_to_anchor=(1, 0.25))
        note(
            figure,
            f"least over all parameters that hold eps: no data, no noise; what is below {PROFILE_FLOOR:g} stands there",
        )
    return figure


def _truth_style(place: int) -> dict:
    return {"color": plt.get_cmap("tab10")(place % 10), "marker": TRUTH_STYLES[place % len(TRUTH_STYLES)]}


def draw_gaps(ax: Axes, results: pd.DataFrame) -> None:
    """Mean nats lost by holding a split, against n, with the range over data sets."""
    gaps = results[results["study"] == GAPS]
    # Places of the profiles, so that a truth looks the same beside them.
    for place, truth in enumerate(_profiled(results)):
        by_n = gaps.loc[gaps["truth"] == truth].groupby("n")["gap"]
        mean, low, high = by_n.mean(), by_n.min(), by_n.max()
        bars = np.abs(np.array([low, high]) - mean.to_numpy())
        ax.errorbar(
            mean.index * 1.03**place, mean, yerr=bars, label=_short(truth), elinewidth=0.6, **_truth_style(place)
        )
    ax.set_xscale("log")
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_yscale("symlog", linthresh=1)
    ax.set_ylim(0, 3 * gaps["gap"].max())
    ax.set_xlabel("number of pairs n")
    ax.set_ylabel("nats lost by holding the split")
    ax.set_title("likelihood gap of a split")


def identifiability_figure(results: pd.DataFrame) -> Figure:
    """Noise-free profiles, and the likelihood gaps of a held split."""
    with plt.rc_context(STYLE):
        figure, (profiles, gaps) = plt.subplots(1, 2, figsize=(DOUBLE, 3.7), layout="constrained")
        draw_profiles(profiles, results)
        draw_gaps(gaps, results)
        legend_of(figure, [profiles], 5, "truth and kind of prompts (gaps: mean over data sets; bars: their range)")
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


#: What the formats would write of time and version: left out, so that the same figure is the same file.
UNDATED: dict[str, dict[str, None]] = {
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
}


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """As PDF and PNG; returns the paths."""
    paths = {suffix: folder / f"{name}.{suffix}" for suffix in UNDATED}
    with plt.rc_context(STYLE):
        # Laid out once, for the PNG, whose places the PDF keeps: layout is the larger part of drawing.
        for suffix in reversed(UNDATED):
            figure.savefig(paths[suffix], metadata=UNDATED[suffix])
            figure.set_layout_engine("none")
    plt.close(figure)
    return list(paths.values())

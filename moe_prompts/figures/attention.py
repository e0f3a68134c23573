"""Draw the attention study: risk, errors of parameters, noise-free profiles and likelihood gaps."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from moe_prompts.figures.gates import (
    Ranks,
    draw_levels,
    ranks_of,
)
from moe_prompts.figures.style import (
    BARS,
    DOUBLE,
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
from moe_prompts.study.attention import STUDY_FITS, STUDY_GAPS, STUDY_PROFILES
from moe_prompts.study.attention_report import SPLIT, D, profile_of
from moe_prompts.study.summary import RISK, Measure, measured_slope

#: One colour and mark for each truth of the attention study, where kinds are told apart rather than numbers of prompts.
TRUTH_STYLES = ("o", "<", "s", "X", "*", "h", "P", "D")
#: Truths in the panel of parameter errors: more would hide each other.
TRUTHS_SHOWN = 3
SAME_FLOOR = 0.7  # of a smaller class's floor: above it two lines can hardly be told apart on a log scale
PROFILE_FLOOR = 1e-9  # where vanishing profiles are drawn


def attention_figure(results: pd.DataFrame, entropy: int) -> Figure:
    """Return the figure of the attention study: risk, errors of parameters, noise-free profiles.

    The first panel has the prediction risk of every kind of prompt on an adaptive truth. The second has the
    parameter errors of each truth's own kind with one prompt too many. In the third, profiles are dashed
    where there are as many prompts as in the truth, and solid where there is one too many.
    """
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
    """Return the truths that other kinds than their own are fitted to; the first truth if there is none."""
    fits = results[results["study"] == STUDY_FITS]
    several = [str(name) for name, rows in fits.groupby("truth", sort=False) if rows["kind"].nunique() > 1]
    return several or [str(fits["truth"].iloc[0])]


def draw_attention_risk(
    ax: Axes, results: pd.DataFrame, entropy: int, truth: str | None = None, ranks: Ranks | None = None
) -> None:
    """Draw prediction risk against n for every kind of prompt on one truth.

    truth  its name; default: the first adaptive one that other kinds are fitted to, if there is one
    ranks  of all panels (``ranks_of``), so that a line looks the same in each
    """
    fits = results[results["study"] == STUDY_FITS]
    several = compared_truths(results)
    adaptive = [name for name in several if fits.loc[fits["truth"] == name, "truth_kind"].iloc[0].startswith("adapt")]
    rows = fits[fits["truth"] == (truth or [*adaptive, *several][0])]
    if truth is None:
        rows = told_apart(rows)
    draw_levels(ax, rows, RISK, entropy, ranks, all_fits=truth is not None)
    if truth is None:
        draw_guide(ax, -1.0, r"slope $n^{-1}$")
    ax.set_ylabel(r"risk $E|\hat f-f^*|^2\ /\ E|f^*|^2$")
    ax.set_title(f"truth: {rows['k_true'].iloc[0]:.0f} {spoken(rows['truth_kind'].iloc[0])} prompts")


def told_apart(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of one truth without lines that a figure cannot show beside each other.

    A class that does not hold the truth is left out where its floor is above 70 % of a smaller one's.
    """
    floors = rows[rows["fit_class"] == "misspecified"].groupby(["kind", "k"])["population_relative_risk"].median()
    hidden = [
        (kind, k)
        for (kind, k), floor in floors.items()
        if any(floor > SAME_FLOOR * other for (like, fewer), other in floors.items() if like == kind and fewer < k)
    ]
    return rows[[(kind, k) not in hidden for kind, k in zip(rows["kind"], rows["k"], strict=True)]]


def prediction_risk_figure(results: pd.DataFrame, entropy: int) -> Figure:
    """Return the figure of fixed against adaptive prompts.

    It has a panel for each truth that several kinds are fitted to, on one scale. Dotted lines are the least
    risk of classes that do not contain the truth.
    """
    truths = compared_truths(results)
    fits = results[(results["study"] == STUDY_FITS) & results["truth"].isin(truths)]
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
    """Draw the least risk, without noise, of each class that does not contain the truth."""
    missed = results[results["fit_class"] == "misspecified"]
    for floor in missed.groupby(["kind", "k"])["population_relative_risk"].median():
        ax.axhline(floor, color="0.2", linewidth=0.7, linestyle=":", zorder=3, label="least risk of the class")


def draw_attention_loss(ax: Axes, results: pd.DataFrame, entropy: int) -> None:
    """Draw parameter errors against n for the first truths, with one prompt too many and 90 % intervals.

    Solid lines are D (mean over data sets, which runaways move). Dashed lines are the error of split prompts
    (median), where they have a rate.
    """
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
    """Return the fits of each truth's own kind, with ``surplus`` prompts too many."""
    word = "over" if surplus else "exact"
    fits = results[(results["study"] == STUDY_FITS) & (results["fit_class"] == word)]
    return fits[fits["k"] == fits["k_true"] + surplus]


def _short(truth: str) -> str:
    return truth.removeprefix("attention-")


def _draw_error(
    ax: Axes,
    fits: pd.DataFrame,
    entropy: int,
    place: int,
    truth: str,
    measure: Measure,
    label: str,
    statistic: str = "median",
    all_fits: bool = False,
    linestyle: str = "-",
) -> None:
    rows = fits[fits["truth"] == truth]
    found = measured_slope(rows, measure, "grid", entropy, statistic, all_fits=all_fits)
    if len(found.n):
        bars = np.abs(found.band.T - found.level)
        style = _truth_style(place) | {"linestyle": linestyle}
        if all_fits:
            style |= {"markerfacecolor": "white", "linestyle": ":"}
        ax.errorbar(found.n, found.level, yerr=bars, label=label, elinewidth=0.6, **style)


#: Panels of ``parameter_rates_figure``: prompts too many, measure, title, guide.
RATE_PANELS = (
    (0, D, "as many prompts as there are: D", (-0.5, r"slope $n^{-1/2}$", "--")),
    (1, D, "one too many: D", (-0.5, r"slope $n^{-1/2}$", "--")),
    (1, SPLIT, "one too many: split prompts", (-0.25, r"slope $n^{-1/4}$", "-.")),
)


def parameter_rates_figure(results: pd.DataFrame, entropy: int) -> Figure:
    """Return the figure of parameter errors of each truth's own kind against n.

    Panels show fits with as many prompts as there are and with one too many. Lines are hollow and dotted
    where profiles vanish, so that theory denies a rate; there they are of all fits.
    """
    truths = results.loc[results["study"] == STUDY_FITS, "truth"].unique()
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
            figure,
            axes,
            5,
            f"truth and kind of prompts (median of certified fits; {BARS}; hollow: no rate by theory, of all fits)",
        )
    return figure


def draw_profiles(ax: Axes, results: pd.DataFrame) -> None:
    """Draw the least error without noise against the spread held.

    Profiles that vanish stand on the floor of the panel. Lines are dashed with as many prompts as there are,
    and solid with one too many.
    """
    draw_exact_profiles(ax, results, {"linestyle": (0, (4, 2)), "linewidth": 0.7, "marker": "none"}, named=False)
    draw_over_profiles(ax, results)
    draw_guide(ax, 1.0, "exponent 1")
    draw_guide(ax, 2.0, "exponent 2", "-.")
    ax.set_ylim(PROFILE_FLOOR / 2, None)
    ax.set_xlabel("distance or spread held, eps")
    ax.set_title("noise-free profiles (dashed: exact)")


def draw_exact_profiles(ax: Axes, results: pd.DataFrame, style: dict | None = None, named: bool = True) -> None:
    """Draw the least error against the distance held, with as many prompts as there are."""
    for place, truth in enumerate(_profiled(results)):
        exact = profile_of(results, truth, 0)
        label = _short(truth) if named else None
        ax.plot(exact.eps, exact.value, label=label, **(_truth_style(place) | (style or {})))
    _profile_axes(ax, results)


def draw_over_profiles(ax: Axes, results: pd.DataFrame) -> None:
    """Draw the least error against the spread held, with one prompt too many; hollow where it vanishes."""
    silent: list[str] = []
    for place, truth in enumerate(_profiled(results)):
        style, over = _truth_style(place), profile_of(results, truth, 1)
        if over.vanishes:
            style |= {"markerfacecolor": "white", "linestyle": ":"}
            silent.append(_short(truth))
        ax.plot(over.eps, np.maximum(over.value, PROFILE_FLOOR), label=_short(truth), **style)
    if silent:
        ax.annotate(
            "vanish: " + ",\n".join([", ".join(silent[:2]), *silent[2:]]),
            (0.5, PROFILE_FLOOR),
            xycoords=("axes fraction", "data"),
            xytext=(0, 4),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=6.5,
        )
    _profile_axes(ax, results)


def _profiled(results: pd.DataFrame) -> list[str]:
    return list(results.loc[results["study"] == STUDY_PROFILES, "truth"].unique())


def _profile_axes(ax: Axes, results: pd.DataFrame) -> None:
    log_log(ax)
    ticks = sorted(results.loc[results["study"] == STUDY_PROFILES, "eps"].unique())
    # Every second one, from the largest.
    ax.set_xticks(ticks, [f"{eps:g}" if (len(ticks) - place) % 2 else "" for place, eps in enumerate(ticks)])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_ylabel(r"least $\|f-f^*\|$ without noise")


def profiles_figure(results: pd.DataFrame) -> Figure:
    """Return the figure of noise-free profiles: exact, and with one prompt too many."""
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
    """Draw the mean nats lost by holding a split against n, with the range over data sets."""
    gaps = results[results["study"] == STUDY_GAPS]
    # Places of the profiles, so that a truth looks the same beside them.
    for place, truth in enumerate(_profiled(results)):
        by_n = gaps.loc[gaps["truth"] == truth].groupby("n")["gap"]
        mean, low, high = by_n.mean(), by_n.min(), by_n.max()
        bars = np.abs(np.array([low, high]) - mean.to_numpy())
        ax.errorbar(mean.index, mean, yerr=bars, label=_short(truth), elinewidth=0.6, **_truth_style(place))
    ax.set_xscale("log")
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_yscale("symlog", linthresh=1)
    ax.set_ylim(0, 3 * gaps["gap"].max())
    ax.set_xlabel("number of pairs n")
    ax.set_ylabel("nats lost by holding the split")
    ax.set_title("likelihood gap of a split")


def identifiability_figure(results: pd.DataFrame) -> Figure:
    """Return the figure of noise-free profiles and of the likelihood gaps of a held split."""
    with plt.rc_context(STYLE):
        figure, (profiles, gaps) = plt.subplots(1, 2, figsize=(DOUBLE, 3.7), layout="constrained")
        draw_profiles(profiles, results)
        draw_gaps(gaps, results)
        legend_of(figure, [profiles], 5, "truth and kind of prompts (gaps: mean over data sets; bars: their range)")
    return figure

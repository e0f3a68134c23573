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
    line_style,
    ranks_of,
    slopes_said,
)
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
from moe_prompts.intervals import half_width
from moe_prompts.study.attention import STUDY_FITS, STUDY_GAPS, STUDY_PROFILES
from moe_prompts.study.attention_report import SPLIT, D, profile_of
from moe_prompts.study.summary import RISK, Measure, measured_slope

#: Truths in the panel of parameter errors: more would hide each other.
TRUTHS_SHOWN = 3
SAME_FLOOR = 0.7  # of a smaller class's floor: above it two lines can hardly be told apart on a log scale
PROFILE_FLOOR = 1e-9  # where vanishing profiles are drawn


def attention_figure(results: pd.DataFrame, entropy: int) -> Figure:
    """Return the figure of the attention study: risk, distances of split prompts, noise-free profiles.

    The first panel has the prediction risk of every kind of prompt on an adaptive truth. The second has the
    distance of split prompts of the first truths' own kinds, with one prompt too many. The third has the
    profiles of the same truths; those that vanish share one line.
    """
    with plt.rc_context(STYLE):
        figure, grid = column(3, 1.75, 1.0)
        risk, splits, profiles = grid[:, 0]
        draw_attention_risk(risk, results, entropy)
        draw_attention_splits(splits, results, entropy)
        draw_profiles(profiles, results, shown_truths(results))
        told = "first panel: number and kind of prompts fitted; others: truths, with one prompt too many"
        legend_of(figure, grid[:, 0], 2, f"{told}; medians over data sets; {BARS}; hollow: no rate by theory")
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
    slopes = draw_levels(ax, rows, RISK, entropy, ranks or ranks_of(fits), all_fits=truth is not None)
    if truth is None:
        draw_guide(ax, -1.0, r"slope $n^{-1}$")
    ax.set_ylabel(r"risk $E|\hat f-f^*|^2\,/\,E|f^*|^2$")
    known = f"truth: {rows['k_true'].iloc[0]:.0f} {spoken(rows['truth_kind'].iloc[0])} prompts"
    finding(ax, f"{known}. Risk of {slopes_said(slopes)}")


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
        figure, grid = column(len(truths), 1.8, 1.35, sharex=True)
        axes = list(grid[:, 0])
        for ax, truth in zip(axes, truths, strict=True):
            draw_attention_risk(ax, results, entropy, truth, ranks_of(fits))
        one_scale(axes)
        for ax, truth in zip(axes, truths, strict=True):
            draw_floors(ax, fits[fits["truth"] == truth])
            draw_guide(ax, -1.0, r"slope $n^{-1}$")
            ax.label_outer()
        legend_of(figure, axes, 2, f"prompts fitted (median of all fits; {BARS})")
    return figure


def draw_floors(ax: Axes, results: pd.DataFrame) -> None:
    """Draw the least risk, without noise, of each class that does not contain the truth."""
    missed = results[results["fit_class"] == "misspecified"]
    for floor in missed.groupby(["kind", "k"])["population_relative_risk"].median():
        ax.axhline(floor, color="0.2", linewidth=0.7, linestyle=":", zorder=3, label="least risk of the class")


def draw_attention_splits(ax: Axes, results: pd.DataFrame, entropy: int) -> None:
    """Draw the median distance of split prompts against n for the first truths, with one prompt too many.

    Lines are hollow and dotted where the profile vanishes, so that theory denies a rate; there they are of
    all fits.
    """
    said = _draw_errors(ax, results, entropy, 1, SPLIT, shown_truths(results)[:TRUTHS_SHOWN])
    draw_guide(ax, -0.25, r"slope $n^{-1/4}$")
    ax.set_xlabel("number of pairs n")
    ax.set_ylabel("distance of split prompts")
    finding(ax, f"one prompt too many: split prompts of {said}")


def shown_truths(results: pd.DataFrame) -> list[str]:
    """Return the first truths that are over-fitted, and all whose profiles vanish."""
    over = list(own_fits(results, 1)["truth"].unique())
    silent = [truth for truth in _profiled(results) if profile_of(results, truth, 1).vanishes]
    return list(dict.fromkeys([*over[:TRUTHS_SHOWN], *silent]))


def _draw_errors(
    ax: Axes, results: pd.DataFrame, entropy: int, surplus: int, measure: Measure, truths: list[str]
) -> str:
    """Draw the median error of each truth's own kind; return its slopes in words where theory has a rate."""
    fits, slopes, silent = own_fits(results, surplus), [], []
    for truth in truths:
        vanishes = bool(surplus) and profile_of(results, truth, 1).vanishes
        rows = fits[fits["truth"] == truth]
        if rows.empty:
            continue
        found = measured_slope(rows, measure, "grid", entropy, all_fits=vanishes)
        if not len(found.n):
            continue
        style = _truth_style(results, truth)
        if vanishes:
            style |= {"markerfacecolor": "white", "linestyle": ":"}
            silent.append(_short(truth))
        else:
            slopes.append((_short(truth), found.value))
        ax.errorbar(
            found.n, found.level, yerr=np.abs(found.band.T - found.level), label=_short(truth), elinewidth=0.6, **style
        )
    log_log(ax)
    if len(slopes) > TRUTHS_SHOWN:
        steep, flat = min(value for _, value in slopes), max(value for _, value in slopes)
        said = f"{len(slopes)} truths {power(flat)} to {power(steep)}"
    else:
        said = ", ".join(f"{name} {power(value)}" for name, value in slopes)
    return said + (f"; no rate by theory: {', '.join(silent)}" if silent else "")


def own_fits(results: pd.DataFrame, surplus: int) -> pd.DataFrame:
    """Return the fits of each truth's own kind, with ``surplus`` prompts too many."""
    word = "over" if surplus else "exact"
    fits = results[(results["study"] == STUDY_FITS) & (results["fit_class"] == word)]
    return fits[fits["k"] == fits["k_true"] + surplus]


def _short(truth: str) -> str:
    return truth.removeprefix("attention-")


#: Rows of ``parameter_rates_figure``: prompts too many, measure, title, guide.
RATE_PANELS = (
    (0, D, "exact, D of", (-0.5, r"slope $n^{-1/2}$")),
    (1, D, "one too many, D of", (-0.5, r"slope $n^{-1/2}$")),
    (1, SPLIT, "one too many, split of", (-0.25, r"slope $n^{-1/4}$")),
)


def parameter_rates_figure(results: pd.DataFrame, entropy: int) -> Figure:
    """Return the figure of parameter errors of each truth's own kind against n.

    Rows show fits with as many prompts as there are and with one too many, on one scale. Adaptive truths
    stand at the right, the others at the left. Lines are hollow and dotted where profiles vanish, so that
    theory denies a rate; there they are of all fits.
    """
    fits = results[results["study"] == STUDY_FITS]
    kinds = fits.drop_duplicates("truth").set_index("truth")["truth_kind"]
    adaptive = kinds.str.startswith("adaptive")
    halves = [half for half in (list(kinds.index[~adaptive]), list(kinds.index[adaptive])) if half]
    with plt.rc_context(STYLE):
        figure, grid = column(len(RATE_PANELS), 1.95, 1.0, len(halves), sharex=True, sharey="row")
        for row, (surplus, measure, title, guide) in zip(grid, RATE_PANELS, strict=True):
            said = [
                _draw_errors(ax, results, entropy, surplus, measure, half) for ax, half in zip(row, halves, strict=True)
            ]
            for ax, text in zip(row, said, strict=True):
                draw_guide(ax, *guide)
                finding(ax, f"{title} {text}", TITLE // len(halves))
                ax.set_xlabel("number of pairs n")
                ax.set_ylabel("distance of split prompts" if measure is SPLIT else "parameter loss D (Voronoi)")
                ax.label_outer()
        legend_of(
            figure,
            grid.ravel(),
            3,
            "left: fixed and decoupled truths, right: adaptive ones; exact: as many prompts as there are (median of "
            f"certified fits; {BARS}; hollow: no rate by theory, of all fits)",
        )
    return figure


def draw_profiles(ax: Axes, results: pd.DataFrame, truths: list[str] | None = None) -> None:
    """Draw the least error without noise against the spread held, with one prompt too many.

    Profiles that vanish are one line on the floor of the panel.

    truths  which; default: all
    """
    if draw_over_profiles(ax, results, truths):
        ax.set_ylim(PROFILE_FLOOR / 2, None)
    draw_guide(ax, 2.0, "exponent 2")
    ax.set_xlabel("spread of split prompts held, eps")


def draw_exact_profiles(ax: Axes, results: pd.DataFrame) -> list[float]:
    """Draw the least error against the distance held, with all prompts and no other; return the exponents."""
    exponents = []
    for truth in _profiled(results):
        exact = profile_of(results, truth, 0)
        ax.plot(exact.eps, exact.value, label=_short(truth), **_truth_style(results, truth))
        exponents.append(exact.exponents[0])
    _profile_axes(ax, results)
    return exponents


def draw_over_profiles(ax: Axes, results: pd.DataFrame, truths: list[str] | None = None) -> list[str]:
    """Draw the least error against the spread held, with one prompt too many.

    Truths where it vanishes are one hollow line. They are returned.
    """
    silent: list[str] = []
    exponents: list[float] = []
    for truth in _profiled(results):
        if truths is not None and truth not in truths:
            continue
        style, over = _truth_style(results, truth), profile_of(results, truth, 1)
        label: str | None = _short(truth)
        if over.vanishes:
            style |= {"markerfacecolor": "white", "linestyle": ":"}
            # All stand on one line, which the first of them draws.
            label = _short(truth) if not silent else None
            silent.append(_short(truth))
        else:
            exponents.append(over.exponents[0])
        if label:
            ax.plot(over.eps, np.maximum(over.value, PROFILE_FLOOR), label=label, **style)
    _profile_axes(ax, results)
    said = f"exponents {min(exponents):.2f} to {max(exponents):.2f}" if exponents else ""
    if silent:
        line = "hollow" if len(silent) == 1 else "one hollow line"
        said += f"{'; ' if said else ''}none where a split changes nothing ({', '.join(silent)}: {line})"
    finding(ax, f"one too many, no noise: {said}")
    return silent


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
        figure, grid = column(2, 1.85, 1.25)
        exact, over = grid[:, 0]
        exponents = draw_exact_profiles(exact, results)
        draw_profiles(over, results)
        draw_guide(exact, 1.0, "exponent 1")
        finding(
            exact, f"as many prompts as there are, no noise: exponents {min(exponents):.2f} to {max(exponents):.2f}"
        )
        exact.set_xlabel("distance of parameters held, eps")
        told = f"least error over all parameters that hold eps; what is below {PROFILE_FLOOR:g} stands there, hollow"
        legend_of(figure, grid[:, 0], 3, f"truth and kind of prompts ({told})")
    return figure


def _truth_style(results: pd.DataFrame, truth: str) -> dict:
    """Return the style of a truth: that of its kind, darker and with another mark for each further one."""
    kinds = results.drop_duplicates("truth").set_index("truth")["truth_kind"]
    families = kinds.str.extract(r"^(\w+)", expand=False)  # "adaptive:gelu", "fixed, singular B"
    family = str(families[truth])
    like = list(families.index[families == family])
    return line_style(family, like.index(truth), len(like))


def draw_gaps(ax: Axes, results: pd.DataFrame) -> None:
    """Draw the mean nats lost by holding a split against n, with its 90 % interval over data sets."""
    gaps = results[results["study"] == STUDY_GAPS]
    for truth in _profiled(results):
        by_n = gaps.loc[gaps["truth"] == truth].groupby("n")["gap"]
        mean, count = by_n.mean(), by_n.count().to_numpy()
        bars = half_width(by_n.std(ddof=1).to_numpy() / np.sqrt(count), count)
        ax.errorbar(mean.index, mean, yerr=bars, label=_short(truth), elinewidth=0.6, **_truth_style(results, truth))
    ax.set_xscale("log")
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_yscale("symlog", linthresh=1)
    ax.set_ylim(0, 3 * gaps["gap"].max())
    ax.set_xlabel("number of pairs n")
    ax.set_ylabel("nats lost by holding the split")
    means = gaps.groupby(["truth", "n"])["gap"].mean().unstack()
    ends = means[[means.columns[0], means.columns[-1]]].dropna()
    rising = int((ends[ends.columns[-1]] > 10 * ends[ends.columns[0]]).sum())
    said = f"data come to see the split: the gap grows more than tenfold in {rising} of {len(ends)} truths"
    absent = [_short(str(truth)) for truth in means.index if truth not in ends.index]
    finding(ax, said + (f" (not measured: {', '.join(absent)})" if absent else ""))


def identifiability_figure(results: pd.DataFrame) -> Figure:
    """Return the figure of noise-free profiles and of the likelihood gaps of a held split."""
    with plt.rc_context(STYLE):
        figure, grid = column(2, 2.0, 1.25)
        profiles, gaps = grid[:, 0]
        draw_profiles(profiles, results)
        draw_gaps(gaps, results)
        legend_of(figure, [profiles], 3, "truth and kind of prompts (gaps: mean over data sets, with 90 % intervals)")
    return figure

"""Report the study of prompts planted in all heads of a block: tables, a verdict, and the figure.

Rules, fixed before any row was drawn:

some heads   h heads with h d_h < d: no rate. It *holds* if a split of one unit changes f by less than 1e-12
             of the outputs' order of magnitude, and *fails* otherwise
all heads    H d_h = d: n^-1/4, that is exponent 2. It *holds* if the exponent of the held split between its
             two smallest spreads is within .12 of 2 where both changes exceed that 1e-12 and have ended,
             *fails* if the exponent is elsewhere, and is *not decidable here* if a change does not exceed it
             or has not ended
right class  the mean of n risk / (s^2 P) over all fits is in [.9, 1.1], by the rule of one head (``report``)

How many pairs it takes to see a split of one unit is s^2 / change^2, with no verdict: theory names the
exponent, not its factor.
"""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from moe_prompts.figures.style import STYLE, column, finding, legend_of, power
from moe_prompts.identifiability import ZERO_PROFILE
from moe_prompts.intervals import Verdict
from moe_prompts.shown import Ending
from moe_prompts.tables import markdown
from moe_prompts.vision.planted_head.report import facts, judgements, ratios, risk_curves, risks
from moe_prompts.vision.planted_head.study import HEADS, PROFILES

#: Where the exponent of the split in all heads must lie.
EXPONENT, HALF_WIDTH = 2.0, 0.12
#: Numbers of heads that the figure shows beside all of them.
SHOWN = (1, 2, 3)


def block_report(results: pd.DataFrame | None, noise_free: pd.DataFrame, head: dict[str, Any], entropy: int) -> str:
    """Return all tables and the verdict as text.

    The arguments are those of ``report.report``; ``results`` None: nothing was fitted
    """
    lines = [f"- {sentence}" for sentence, _ in [*split_lines(noise_free), *_risk_lines(results, entropy)]]
    parts = [facts(noise_free, head), heads_table(noise_free), profile_table(noise_free)]
    if results is not None:
        found = risk_curves(results)
        parts += [risks(found, noise_free), ratios(found)]
    return "\n\n".join([*parts, "\n".join(["Verdict", *lines])])


def _risk_lines(results: pd.DataFrame | None, entropy: int) -> list[tuple[str, str]]:
    return [] if results is None else list(judgements(results, entropy).values())


def block_ending(results: pd.DataFrame | None, noise_free: pd.DataFrame, entropy: int) -> Ending:
    """Return what the command prints: a line for each number of heads, and how the risks lie."""
    body = []
    for row, (_, word) in zip(_heads(noise_free).itertuples(), split_lines(noise_free), strict=True):
        body.append([f"{row.heads} of {row.of}", str(row.silent), _predicted(row), _changed(row), word])
    risks_of = [f"{sentence}." for sentence, _ in _risk_lines(results, entropy)]
    header = ["heads", "silent directions", "predicted", "change by a split of one unit", "verdict"]
    legend = (
        "change: of f, along a silent direction where there is one and along the least visible one found where there "
        "is none; the tables and risks are in summary.md."
    )
    return Ending(["What the heads of a block see of a split prompt.", *risks_of], header, body, legend, keys=1)


def split_lines(noise_free: pd.DataFrame) -> list[tuple[str, str]]:
    """Return, for each number of heads, a sentence on splits of a fixed prompt and its verdict."""
    lines = []
    for row in _heads(noise_free).itertuples():
        name = f"first {row.heads} of {row.of} heads, {row.heads * row.keys} of {row.width} directions"
        zero = ZERO_PROFILE * row.unit
        if row.heads * row.keys < row.width:
            word = (Verdict.HOLDS if row.split_change < zero else Verdict.FAILS).value
            change = f"{row.split_change:.0e}" if row.silent else "not silent in any direction"
            lines.append((f"{name}: predicted no rate; a split of one unit changes f by {change}: {word}", word))
            continue
        own = noise_free[noise_free["what"] == PROFILES].sort_values("eps")
        (low, high), spreads = own["profile"].iloc[:2], own["eps"].iloc[:2]
        slope = float(np.log(high / low) / np.log(spreads.iloc[1] / spreads.iloc[0]))
        if low <= zero or not own["certified"].iloc[:2].all():
            word = Verdict.UNDECIDED.value
        else:
            word = (Verdict.HOLDS if abs(slope - EXPONENT) <= HALF_WIDTH else Verdict.FAILS).value
        sizes = ", ".join(f"{value:.1e}" for value in (low, high))
        lines.append(
            (
                f"{name}: predicted n^-1/4, exponent 2; held splits of {spreads.iloc[0]:g} and {spreads.iloc[1]:g} "
                f"units change f by {sizes}, exponent {slope:.3f}: {word}",
                word,
            )
        )
    return lines


def heads_table(noise_free: pd.DataFrame) -> str:
    """Return what the first heads see of a prompt, and from how many pairs on a split of one unit is seen."""
    header = [
        *("heads", "directions keys see", "values see", "f sees", "silent splits", "of those f sees"),
        *("change by a silent split", "pairs: loudest axis", "median axis", "faintest axis"),
    ]
    body = []
    for row in _heads(noise_free).itertuples():
        seen = np.sort(np.array(row.visible))[::-1]
        at = [seen[0], np.median(seen), seen[-1]]
        pairs = [f"{(row.noise / value) ** 2:.0e}" if value > 0 else "never" for value in at]
        counts = [row.by_logit, row.by_value, row.together, row.silent, row.silent_seen]
        change = f"{row.split_change:.0e}" if row.silent else "none"
        body.append([str(row.heads), *(str(int(count)) for count in counts), change, *pairs])
    note = (
        "Axes: the directions of a prompt in which the logits of these heads vary most, .., least over the images. "
        "Pairs: s^2 / change^2, with the second-order change of f by a split of one unit along an axis after the "
        "truth's own parameters have done what they can."
    )
    return f"{markdown(header, body)}\n\n{note}"


def profile_table(noise_free: pd.DataFrame) -> str:
    """Return the held split in all heads: spreads, changes, their local exponents, and pairs to see them."""
    own = noise_free[noise_free["what"] == PROFILES].sort_values("eps")
    noise, eps, value = _heads(noise_free)["noise"].iloc[-1], own["eps"].to_numpy(), own["profile"].to_numpy()
    slopes = np.diff(np.log(value)) / np.diff(np.log(eps))
    body = [
        [f"{e:g}", f"{v:.2e}", s, f"{(noise / v) ** 2:.0e}", "yes" if ended else "no"]
        for e, v, s, ended in zip(eps, value, ["", *(f"{s:.3f}" for s in slopes)], own["certified"], strict=True)
    ]
    table = markdown(["spread, all heads", "change of f", "local exponent", "pairs", "ended"], body)
    return f"{table}\n\nkappa2, the least found over directions: {own['kappa2'].iloc[0]:.1e}."


def _heads(noise_free: pd.DataFrame) -> pd.DataFrame:
    rows = noise_free[noise_free["what"] == HEADS].sort_values("heads")
    whole = ["heads", "of", "width", "keys", "by_logit", "by_value", "together", "silent", "silent_seen"]
    return rows.astype(dict.fromkeys(whole, int))


def _predicted(row: Any) -> str:
    return "no rate" if row.heads * row.keys < row.width else "n^-1/4"


def _changed(row: Any) -> str:
    return f"{row.split_change:.0e}" if row.silent else f"{min(row.visible):.0e}"


# Figure -----------------------------------------------------------------------------------------------------


def draw_visible(ax: Axes, noise_free: pd.DataFrame) -> None:
    """Draw what a split of one unit changes along the axes of a prompt, by number of heads.

    A line ends where the change is 0.
    """
    rows = _heads(noise_free)
    most = rows["heads"].max()
    shown = [count for count in (*SHOWN, most) if count in set(rows["heads"])]
    for count in dict.fromkeys(shown):
        row = rows[rows["heads"] == count].iloc[0]
        seen = np.sort(np.array(row["visible"]))[::-1]
        seen = seen[seen > 0]
        dashes = {1: ":", 2: "-.", 3: "--"}.get(count if count != most else 0, "-")
        (line,) = ax.plot(np.arange(1, len(seen) + 1), seen, dashes, label=f"{count} of {most} heads")
        ax.plot(len(seen), seen[-1], "o", markersize=3, color=line.get_color())
    ax.set_yscale("log")
    ax.set_xlim(0, rows["width"].iloc[0] * 1.03)
    ax.set_xlabel("axes of a prompt, most visible first")
    ax.set_ylabel(r"change of $f$, split of 1 unit")


def draw_held(ax: Axes, noise_free: pd.DataFrame) -> None:
    """Draw the held split in all heads against its spread, beside a line of exponent 2."""
    own = noise_free[noise_free["what"] == PROFILES].sort_values("eps")
    eps, value = own["eps"].to_numpy(), own["profile"].to_numpy()
    ax.plot(eps, value, "o", label="all heads, least visible split")
    ax.plot(eps, value[0] * (eps / eps[0]) ** 2, "-", linewidth=0.8, label="exponent 2")
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.set_xticks(eps, [f"{e:g}" for e in eps])
    ax.minorticks_off()
    ax.set_xlabel("spread of the split, units of a token's feature")
    ax.set_ylabel(r"least change of $f$")


def _power_of_ten(count: float) -> str:
    return f"$10^{{{round(np.log10(count))}}}$"


def planted_block_figure(noise_free: pd.DataFrame) -> Figure:
    """Draw what splits change in 1, 2, 3 and all heads, and the held split in all of them."""
    rows = _heads(noise_free)
    first, last = rows.iloc[0], rows.iloc[-1]
    own = noise_free[noise_free["what"] == PROFILES].sort_values("eps")
    value, eps = own["profile"].to_numpy(), own["eps"].to_numpy()
    slope = np.log(value[1] / value[0]) / np.log(eps[1] / eps[0])
    pairs = [_power_of_ten((last["noise"] / size) ** 2) for size in (max(last["visible"]), min(last["visible"]))]
    unit = own.loc[own["eps"] == 1, "profile"]
    hidden = f"; a unit of it takes {_power_of_ten((last['noise'] / unit.iloc[0]) ** 2)} pairs" if len(unit) else ""
    with plt.rc_context(STYLE):
        figure, grid = column(2, 1.75, 1.35)
        axes = grid[:, 0]
        draw_visible(axes[0], noise_free)
        finding(
            axes[0],
            f"one head sees splits in {first['width'] - first['silent']} of {first['width']} directions, all "
            f"{last['heads']} in {last['width'] - last['silent']}; one unit takes {pairs[0]} pairs along the first "
            f"axis, {pairs[1]} along the last",
        )
        draw_held(axes[1], noise_free)
        finding(
            axes[1],
            f"the least visible split of all, along no axis, has exponent {slope:.2f} in all heads (theory: 2, so "
            f"{power(-0.25)}){hidden}",
        )
        legend_of(figure, axes, 1, "dots at ends of lines: the last axis that is seen at all")
    return figure

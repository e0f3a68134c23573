"""Draw the map of claims on prompts in attention: each with its verdict, measured slopes beside predicted ones.

python paper_figures/claims_map.py
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import runs
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from moe_prompts.claims.claim import REGISTERED_SEED
from moe_prompts.errors import InputError
from moe_prompts.figures.style import SINGLE, STYLE
from moe_prompts.slopes import BAND

FAMILIES = {
    "P": "prompts in attention",
    "G": "Gaussian-gated experts",
    "S": "softmax-gated experts",
    "E": "regression by gated experts",
    "A": "algebra",
}
#: Verdict -> word and mark: told apart without colour.
VERDICTS: dict[str, tuple[str, dict[str, Any]]] = {
    "holds": ("holds", {"marker": "o", "color": "#2b7bba"}),
    "fails": ("fails", {"marker": "X", "color": "#c03020"}),
    "faster than claimed": ("faster", {"marker": "v", "color": "#2b7bba", "markerfacecolor": "white"}),
    "not decidable here": ("open", {"marker": "s", "color": "0.35", "markerfacecolor": "white"}),
}
RATE = re.compile(r"n\^(-[\d.]+)$")
FLOOR = re.compile(r"risk ([\d.]+)%, without noise")
SHOWN = (-1.05, 0.45)
#: Characters of a line of a finding, height of one in inches, and what stands above and below the rows.
FINDING, LINE, HEAD, FOOT = 36, 0.092, 0.4, 0.95


def figure(run: Path, families: Sequence[str] = ("P",)) -> Figure:
    """Return a row for each claim of ``claims.json``: its name and verdict, and what was measured.

    run       folder of ``claims.json``
    families  first letters of the claims that are shown, of ``FAMILIES``; all of them would not fit a page

    The words of the claims are in ``docs/claims.md``. Claims on trainings of networks, which have no slopes,
    are left to ``pretrained``.
    """
    try:
        every = json.loads((run / "claims.json").read_text(encoding="utf-8"))
        claims = [claim for claim in every if claim["id"][0] in families]
        heights = [_rows(claim) for claim in claims]
    except FileNotFoundError as error:
        raise InputError(
            f"{run} has no claims.json; expected the folder of a finished experiments/claims.py"
        ) from error
    except (ValueError, RecursionError, LookupError, TypeError, StopIteration) as error:
        raise InputError(
            f"{run / 'claims.json'} was not written by experiments/claims.py, or is damaged; repeat that command"
        ) from error
    shown = list(dict.fromkeys(claim["id"][0] for claim in claims))
    total = sum(heights) + 1.5 * len(shown)
    height = total * LINE + HEAD + FOOT
    with plt.rc_context(STYLE):
        drawn = plt.figure(figsize=(SINGLE, height))
        bottom, tall = FOOT / height, total * LINE / height
        words = drawn.add_axes((0.01, bottom, 0.26, tall), xlim=(0, 1), ylim=(total, 0))
        slopes = drawn.add_axes((0.275, bottom, 0.59, tall), xlim=SHOWN, ylim=(total, 0))
        words.axis("off")
        slopes.patch.set_visible(False)  # headings reach over it
        top = 0.0
        for family in shown:
            words.text(0, top + 0.9, f"{family}: {FAMILIES[family]}", weight="bold", va="center")
            top += 1.5
            for claim, rows in zip(claims, heights, strict=True):
                if claim["id"][0] == family:
                    draw_claim(words, slopes, claim, top, rows)
                    top += rows
        _finish(drawn, slopes, height, claims)
    return drawn


def draw_claim(words: Axes, slopes: Axes, claim: dict[str, Any], top: float, rows: float) -> None:
    """Draw words on the left and slopes on the right, or what was found where there are none."""
    middle = top + rows / 2
    for ax in (words, slopes):
        ax.axhline(top, color="0.88", linewidth=0.5, zorder=0)
    word, style = VERDICTS[claim["verdict"]]
    words.plot(0.04, middle + 0.55, markersize=4, **style)
    words.text(0.1, middle + 0.55, word, fontsize=6.5, va="center")
    words.text(0, middle - 0.6, claim["id"], fontsize=6.5, va="center")
    lines = _slopes(claim)
    ends = [top + 0.15, top + rows - 0.15]
    for rate in {rate for rate, *_ in lines}:
        slopes.fill_betweenx(ends, rate - BAND, rate + BAND, color="0.87", linewidth=0, zorder=0.5)
        slopes.plot([rate, rate], ends, color="0.55", linewidth=1, solid_capstyle="butt", zorder=1)
    floors = [float(found[1]) for line in claim["evidence"] if (found := FLOOR.match(line["found"]))]
    if floors:
        told = f"floors: risk {min(floors):.1f}\nto {max(floors):.1f} %"
        slopes.text(SHOWN[0] + 0.02, middle, told, fontsize=6.5, va="center", linespacing=1.1)
    for place, (_, value, low, high, verdict) in enumerate(lines):
        y = top + 0.35 + (rows - 0.7) * (place + 0.5) / len(lines)
        _, style = VERDICTS[verdict]
        slopes.plot([low, high], [y, y], color=style["color"], linewidth=0.7)
        slopes.plot(value, y, markersize=2.4, markeredgewidth=0.5, **style)
    if not lines:
        slopes.text(SHOWN[0] + 0.02, middle, "\n".join(_finding(claim)), fontsize=6.5, va="center", linespacing=1.1)
    judged = [line["verdict"] for line in claim["evidence"] if line["verdict"] in VERDICTS]
    held = judged.count("holds")
    slopes.text(
        1.02,
        middle,
        f"{held} of {len(judged)}",
        transform=slopes.get_yaxis_transform(),
        fontsize=6.5,
        va="center",
    )


def _rows(claim: dict[str, Any]) -> float:
    """Return the height in lines of text: of its words, and so that slopes stay apart."""
    return 0.4 + max(len(_finding(claim)), 2, 0.15 * len(_slopes(claim)))


def _slopes(claim: dict[str, Any]) -> list[tuple[float, float, float, float, str]]:
    """Return (claimed rate, slope, ends of its interval, verdict) of the lines of evidence that have them."""
    found = []
    for line in [line for line in claim["evidence"] if line["verdict"] in VERDICTS]:  # the others are not judged
        rate = RATE.match(line["claimed"])
        if (rate or line["claimed"] == "floor") and line.get("low") is not None:
            claimed = float(rate[1]) if rate else 0.0
            found.append((claimed, line["estimate"], line["low"], line["high"], line["verdict"]))
    return found


def _finding(claim: dict[str, Any]) -> list[str]:
    """Return what decides a claim without slopes: the first line of evidence that has its verdict."""
    if _slopes(claim):
        return []
    line = next(line for line in claim["evidence"] if line["verdict"] == claim["verdict"])
    return textwrap.wrap(f"claimed {line['claimed']}, found {line['found']}", FINDING, break_on_hyphens=False)


def _finish(drawn: Figure, slopes: Axes, height: float, claims: list[dict[str, Any]]) -> None:
    slopes.set_yticks([])
    slopes.spines["left"].set_visible(False)
    slopes.set_xticks([-1, -0.75, -0.5, -0.25, 0, 0.25], ["-1", "", "-1/2", "-1/4", "0", "1/4"])
    slopes.set_xlabel("exponent of n (or what was found in words)")
    given = [claim["verdict"] for claim in claims]
    counts = {word: given.count(verdict) for verdict, (word, _) in VERDICTS.items()}
    told = ", ".join(f"{count} {word.removesuffix('s')}" for word, count in counts.items() if count)
    drawn.text(0.01, 1 - 0.06 / height, f"{len(claims)} claims: {told}", fontsize=7.5, va="top")
    slopes.text(1.02, 1.0, "lines\nhold", transform=slopes.transAxes, fontsize=6.5, va="bottom")
    handles = [Line2D([], [], linestyle="none", markersize=4, **style) for _, style in VERDICTS.values()]
    handles += [Patch(color="0.87"), Line2D([], [], color="#2b7bba", linewidth=0.7)]
    names = [*VERDICTS, f"predicted ± {BAND:g}", "90 % interval (may leave axis)"]
    drawn.legend(handles, names, loc="lower center", ncols=2, bbox_to_anchor=(0.5, 0.03 / height))


DRAWING = runs.Drawing(
    name="claims_map",
    figure=figure,
    data=runs.HERE.parent / "docs",
    # With the seed named, the command leaves the page and the tables in docs/ as they are.
    command=f"python experiments/claims.py --seed {REGISTERED_SEED}",
    time="30 minutes on 2 cores",
)

if __name__ == "__main__":
    DRAWING.main(__doc__)

"""Share among all figures: one style, widths, legends, guides, and how a figure is saved."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import rc_params_from_file
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from moe_prompts.checks import shown
from moe_prompts.engine.files import appearing
from moe_prompts.errors import InputError

#: The one style, of experiments and of ``paper_figures/style.mplstyle``, which leads here.
STYLE: dict[Any, Any] = dict(
    rc_params_from_file(Path(__file__).with_name("style.mplstyle"), use_default_template=False)
)
#: Width in inches of every figure: a column of print, in which panels stand below each other.
SINGLE = 3.4
#: What bars are, as a note of figures.
BARS = "bars: 90 % bootstrap intervals"
#: Characters in a line of a title, and of the line below a figure, at that width.
TITLE, NOTE = 50, 62


def column(panels: int, tall: float = 1.65, below: float = 0.9, across: int = 1, **options: Any) -> tuple[Figure, Any]:
    """Return a figure of the width of a column, and its panels (rows, across).

    panels   number of rows
    tall     height of one in inches
    below    height of legend and notes in inches
    options  of ``plt.subplots``
    """
    size = (SINGLE, panels * tall + below)
    return plt.subplots(panels, across, figsize=size, layout="constrained", squeeze=False, **options)


def finding(ax: Axes, text: str, width: int = TITLE) -> None:
    """Put what a panel shows above it, from its left end, in lines of ``width`` characters."""
    ax.set_title(in_lines(text, width), loc="left")


def in_lines(text: str, width: int = TITLE) -> str:
    """Return a text in lines of ``width`` characters, none of which ends within a formula."""
    # A formula is one word, about half as wide as its source.
    formulas = re.findall(r"\$[^$]*\$", text)
    words = {chr(0xE000 + place) * (len(formula) // 2): formula for place, formula in enumerate(formulas)}
    for word, formula in words.items():
        text = text.replace(formula, word, 1)
    wrapped = textwrap.fill(text, width, break_on_hyphens=False, break_long_words=False)
    for word, formula in words.items():
        wrapped = wrapped.replace(word, formula)
    return wrapped


def power(exponent: float) -> str:
    """Return n to a power, as text of a figure."""
    return f"$n^{{{exponent:.2f}}}$"


def spoken(kind: str) -> str:
    """Return a kind in words: ``adaptive:gelu:bias`` becomes ``adaptive (gelu, bias)``."""
    base, _, options = kind.partition(":")
    return f"{base} ({', '.join(options.split(':'))})" if options else base


def log_log(ax: Axes) -> None:
    """Set both axes to log scales.

    Small ticks remain only where an axis spans few decades and they are needed to read it.
    """
    ax.set_xscale("log")
    ax.set_yscale("log")
    for axis, (low, high) in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())):
        if high > 100 * low:
            axis.set_minor_locator(NullLocator())


def legend_of(figure: Figure, axes: Iterable[Axes], ncols: int = 2, title: str | None = None) -> None:
    """Put one legend below the figure: every label in ``axes`` once, under the lines of ``title``."""
    handles: dict[str, Any] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    title = title and textwrap.fill(_whole(title), NOTE)
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=ncols, title=title)


def note(figure: Figure, text: str) -> None:
    """Put a line below the panels that says what they do not; with ``legend_of``, use its title instead."""
    figure.supxlabel(textwrap.fill(_whole(text), NOTE), color="0.25")


def _whole(text: str) -> str:
    """Return a text in which no line ends between a number and its percent sign."""
    return re.sub(r"(\d) %", "\\1\u00a0%", text)


#: Dashes of guides by their slope, the same in all figures; dots are left to floors and chance.
GUIDES: dict[float, Any] = {
    -1.0: (0, (7, 2)),
    -0.5: (0, (4, 1.5, 1, 1.5)),
    -0.25: (0, (4, 1.5, 1, 1.5, 1, 1.5)),
    1.0: (0, (7, 2)),
    2.0: (0, (1, 1)),
}


def draw_guide(ax: Axes, exponent: float, label: str) -> None:
    """Draw a thin line of slope ``exponent``, one of ``GUIDES``, through the centre of a log-log panel.

    Raises ``InputError`` for a slope that has no dashes of its own.
    """
    if exponent not in GUIDES:
        slopes = ", ".join(f"{one:g}" for one in GUIDES)
        raise InputError(f"draw_guide: exponent = {shown(exponent)}; expected one of {slopes}, or new dashes in GUIDES")
    low, high = ax.get_xlim()
    bottom, top = ax.get_ylim()
    at_low = np.sqrt(bottom * top) * (high / low) ** (-exponent / 2)
    ends = np.array([low, high])
    heights = at_low * (ends / low) ** exponent
    ax.plot(ends, heights, color="0.5", linewidth=0.9, linestyle=GUIDES[exponent], zorder=0, label=label)
    ax.set_xlim(low, high)
    ax.set_ylim(bottom, top)


def one_scale(axes: Sequence[Axes]) -> None:
    """Give all axes the same y limits, which hold what each shows."""
    limits = [ax.get_ylim() for ax in axes]
    for ax in axes:
        ax.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
        log_log(ax)


#: What the formats would write of time and version: left out, so that the same figure is the same file.
UNDATED: dict[str, dict[str, None]] = {
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
}


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Save a figure as PDF and PNG, each whole or not at all, and return the paths.

    Raises ``InputError`` where the system refuses; a file of that name then stays as it was.
    """
    paths = {suffix: folder / f"{name}.{suffix}" for suffix in UNDATED}
    with plt.rc_context(STYLE):
        # Laid out once, for the PNG, whose places the PDF keeps: layout is the larger part of drawing.
        for suffix in reversed(UNDATED):
            with appearing(paths[suffix]) as file:
                figure.savefig(file, format=suffix, metadata=UNDATED[suffix])
            figure.set_layout_engine("none")
    plt.close(figure)
    return list(paths.values())

"""Figures of prompted models: ``draw_*(ax, ...)`` take arrays or tables and draw on given axes, as in ``plots``."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

#: As in ``plots``: fixed prompts in blue, adaptive ones in orange.
COLOURS = {"VPT": "#2b7bba", "VAPT": "#e6550d"}


def draw_mass(ax: Axes, mass: np.ndarray, image: np.ndarray | None = None, top: float | None = None) -> None:
    """Share of the gate on prompts over the grid of patches, mass (Gh, Gw) in [0, 1], up to ``top``.

    image  (H, W) or (H, W, 3), drawn as contours of its brightness
    """
    shown = ax.imshow(mass, cmap="Oranges", vmin=0, vmax=mass.max() if top is None else top, interpolation="nearest")
    ax.figure.colorbar(shown, ax=ax, shrink=0.8, label="gate on prompts")
    if image is not None:
        grey = image if image.ndim == 2 else image.mean(axis=2)
        rows = np.linspace(-0.5, mass.shape[0] - 0.5, grey.shape[0])
        columns = np.linspace(-0.5, mass.shape[1] - 0.5, grey.shape[1])
        ax.contour(columns, rows, grey, levels=3, colors="0.3", linewidths=0.5)
    ax.set_xticks([])
    ax.set_yticks([])


def draw_input_dependence(ax: Axes, table: pd.DataFrame) -> None:
    """How much prompt experts vary with the image, by block: a dot for each prompt, a line through their mean.

    table  rows of ``prompt_table`` with a column ``method``; heads are averaged
    """
    methods = list(table["method"].unique())
    for place, (method, rows) in enumerate(table.groupby("method", sort=False)):
        each = rows.groupby(["block", "prompt"])["variation"].mean().reset_index()
        colour = COLOURS.get(str(method).split("-")[0], "0.4")
        aside = 0.12 * (place - (len(methods) - 1) / 2)
        ax.plot(each["block"] + aside, each["variation"], "o", color=colour, alpha=0.35, markersize=3, linestyle="none")
        mean = each.groupby("block")["variation"].mean()
        ax.plot(mean.index + aside, mean, color=colour, label=str(method))
    ax.set_xlabel("block")
    ax.set_ylabel("variation of prompt experts with the image")
    ax.set_xticks(sorted(table["block"].unique()))
    ax.set_ylim(bottom=-0.02)

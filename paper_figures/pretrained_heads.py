"""Draw what trained prompts do inside the blocks of a pretrained Vision Transformer.

python paper_figures/pretrained_heads.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import runs
from matplotlib.figure import Figure

from moe_prompts.figures.style import STYLE, column, finding, note
from moe_prompts.vision.figures import draw_input_dependence


def figure(run: Path) -> Figure:
    """Draw, block by block, how much prompt experts vary with the image, and which share of the gate they take."""
    table = runs.read_table(run, "experiments/head_as_moe.py", "block", "variation", "mass")
    # A row is one prompt; of a head's gate its prompts take the sum.
    heads = table.groupby(["method", "block", "head"], sort=False)["mass"].sum().reset_index()
    with plt.rc_context(STYLE):
        drawn, grid = column(2, 1.75, 0.5)
        above, below = grid[:, 0]
        draw_input_dependence(above, table)
        above.set_ylim(-0.03, 1)
        finding(above, f"in one training experts vary with the image: {said(table, 'variation')}")
        draw_input_dependence(below, heads.rename(columns={"mass": "variation", "head": "prompt"}))
        below.set_ylabel("share of the gate")
        below.set_ylim(-0.03, None)
        finding(below, f"in one training prompts take this share of the gate: {said(heads, 'mass')}")
        above.set_ylabel("variation of experts")
        below.legend()
        note(
            drawn,
            "small marks: prompts, mean over heads (above), heads (below); lines: their mean; one training of each "
            "kind, so no intervals",
        )
    return drawn


def said(table: pd.DataFrame, value: str) -> str:
    """Return the range over blocks of the mean of a column, for each method."""
    means = table.groupby(["method", "block"])[value].mean().groupby("method").agg(["min", "max"])
    return ", ".join(
        f"{method} {f'{least:.2f} to {most:.2f}' if round(most, 2) else '0'}"
        for method, (least, most) in means.iterrows()
    )


DRAWING = runs.Drawing(
    name="pretrained_heads",
    figure=figure,
    data=runs.DATA / "pretrained_heads",
    command="python experiments/head_as_moe.py --backbone dinov2-small-focus --size 98 --last-blocks 6",
    time="5 minutes of one core",
)

if __name__ == "__main__":
    DRAWING.main(__doc__)

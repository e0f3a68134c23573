"""Draw what was measured of prompts planted in one head of a frozen block.

python paper_figures/planted_head.py
"""

from __future__ import annotations

from pathlib import Path

import runs
from matplotlib.figure import Figure

from moe_prompts.vision.planted_head.report import planted_head_figure


def figure(run: Path) -> Figure:
    """Return the risk on both truths, and splits with one prompt too many."""
    return planted_head_figure(runs.read_table(run, "experiments/planted_head.py", "price", "floor"))


DRAWING = runs.Drawing(
    name="planted_head",
    figure=figure,
    data=runs.DATA / "planted_head",
    command="python experiments/planted_head.py",
    time="4 minutes of one core",
)

if __name__ == "__main__":
    DRAWING.main(__doc__)

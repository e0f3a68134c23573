"""Accuracy of prompts on a pretrained backbone against the number of training images.

python paper_figures/pretrained.py
"""

from __future__ import annotations

from pathlib import Path

import runs
from matplotlib.figure import Figure


def figure(run: Path) -> Figure:
    """Accuracy of a linear head, of fixed and of adaptive prompts, and of the control with another image's prompts."""
    return runs.efficiency_figure(run, "tasks")


DRAWING = runs.Drawing(
    name="pretrained",
    figure=figure,
    data=runs.DATA / "pretrained_dsprites_loc",
    command="python experiments/data_efficiency.py --preset real-first --task dsprites_loc",
    time="35 minutes of one core",
)

if __name__ == "__main__":
    DRAWING.main(__doc__)

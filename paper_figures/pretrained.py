"""Accuracy of prompts on a pretrained backbone against the number of training images.

python paper_figures/pretrained.py
"""

from __future__ import annotations

from pathlib import Path

import runs
from matplotlib.figure import Figure

#: The committed runs of the two tasks; a run of your own is drawn alone.
FIRST, SECOND = runs.DATA / "pretrained_dsprites_loc", runs.DATA / "pretrained_count"


def figure(run: Path) -> Figure:
    """Accuracy of a linear head, of fixed and of adaptive prompts, and of the control with another image's prompts."""
    return runs.efficiency_figure(run, "tasks", *([SECOND] if run == FIRST else []))


DRAWING = runs.Drawing(
    name="pretrained",
    figure=figure,
    data=FIRST,
    command="python experiments/data_efficiency.py --preset real-first --task stand-in:dsprites_loc",
    time="35 minutes of one core",
)

if __name__ == "__main__":
    DRAWING.main(__doc__)

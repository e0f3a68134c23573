"""Draw the accuracy of prompts on a pretrained backbone against the number of training images.

python paper_figures/pretrained.py
"""

from __future__ import annotations

from pathlib import Path

import runs
from matplotlib.figure import Figure

#: The committed runs of the two tasks; a run of your own is drawn alone.
FIRST, SECOND = runs.DATA / "pretrained_dsprites_loc", runs.DATA / "pretrained_count"


def figure(run: Path) -> Figure:
    """Return the accuracy of a linear head, of both kinds of prompts, and of the control with swapped prompts."""
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

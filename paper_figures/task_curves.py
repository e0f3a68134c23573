"""Draw the accuracy of prompts against the number of training images.

python paper_figures/task_curves.py
"""

from __future__ import annotations

from pathlib import Path

import runs
from matplotlib.figure import Figure


def figure(run: Path) -> Figure:
    """Draw the accuracy of all methods, and cross-entropy of prompts beside what theory says of as many parameters."""
    return runs.efficiency_figure(run, "tasks")


DRAWING = runs.Drawing(
    name="task_curves",
    figure=figure,
    data=runs.DATA / "task_curves",
    command="python experiments/data_efficiency.py",
    time="12 minutes on 2 cores",
)

if __name__ == "__main__":
    DRAWING.main(__doc__)

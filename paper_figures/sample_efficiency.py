"""Draw Gaussian gates: risk of fixed and adaptive prompts, parameter loss.

python paper_figures/sample_efficiency.py
"""

from __future__ import annotations

from pathlib import Path

import runs
from matplotlib.figure import Figure

from moe_prompts.figures.gates import sample_efficiency_figure
from moe_prompts.study.report import GAUSSIAN


def figure(run: Path) -> Figure:
    """Return the prediction risk by truth, and the parameter loss of the published model."""
    rows, entropy = runs.read(run, GAUSSIAN)
    return sample_efficiency_figure(rows, entropy)


DRAWING = runs.Drawing(
    name="sample_efficiency",
    figure=figure,
    **runs.FIRST_COMMAND,
)

if __name__ == "__main__":
    DRAWING.main(__doc__)

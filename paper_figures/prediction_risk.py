"""Draw the prediction risk of fixed, decoupled and adaptive prompts on truths of each kind.

python paper_figures/prediction_risk.py
"""

from __future__ import annotations

from pathlib import Path

import runs
from matplotlib.figure import Figure

from moe_prompts.figures.attention import prediction_risk_figure
from moe_prompts.study.attention import STUDY_FITS


def figure(run: Path) -> Figure:
    """Return a panel for each truth."""
    rows, entropy = runs.read(run, STUDY_FITS)
    return prediction_risk_figure(rows, entropy)


DRAWING = runs.Drawing(
    name="prediction_risk",
    figure=figure,
    **runs.FIRST_COMMAND,
)

if __name__ == "__main__":
    DRAWING.main(__doc__)

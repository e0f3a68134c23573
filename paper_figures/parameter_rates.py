"""Draw parameter rates of prompts in attention, exact and with one too many.

python paper_figures/parameter_rates.py
"""

from __future__ import annotations

from pathlib import Path

import runs
from matplotlib.figure import Figure

from moe_prompts.figures.attention import parameter_rates_figure
from moe_prompts.study.attention import STUDY_FITS


def figure(run: Path) -> Figure:
    """Return loss D exact, and loss D and split prompts with one too many."""
    rows, entropy = runs.read(run, STUDY_FITS)
    return parameter_rates_figure(rows, entropy)


DRAWING = runs.Drawing(
    name="parameter_rates",
    figure=figure,
    **runs.FIRST_COMMAND,
)

if __name__ == "__main__":
    DRAWING.main(__doc__)

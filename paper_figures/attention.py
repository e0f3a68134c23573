"""Draw prompts in attention: prediction risk, parameter errors and noise-free profiles.

python paper_figures/attention.py
"""

from __future__ import annotations

from pathlib import Path

import runs
from matplotlib.figure import Figure

from moe_prompts.figures.attention import attention_figure
from moe_prompts.study.attention import STUDY_FITS


def figure(run: Path) -> Figure:
    """Return three panels of the attention study."""
    rows, entropy = runs.read(run, STUDY_FITS)
    return attention_figure(rows, entropy)


DRAWING = runs.Drawing(
    name="attention",
    figure=figure,
    **runs.FIRST_COMMAND,
)

if __name__ == "__main__":
    DRAWING.main(__doc__)

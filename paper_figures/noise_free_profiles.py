"""Draw noise-free profiles of prompts in attention, exact and with one too many.

python paper_figures/noise_free_profiles.py
"""

from __future__ import annotations

from pathlib import Path

import runs
from matplotlib.figure import Figure

from moe_prompts.figures.attention import profiles_figure
from moe_prompts.study.attention import STUDY_FITS


def figure(run: Path) -> Figure:
    """Return the least error against what is held."""
    rows, _ = runs.read(run, STUDY_FITS)
    return profiles_figure(rows)


DRAWING = runs.Drawing(
    name="noise_free_profiles",
    figure=figure,
    **runs.FIRST_COMMAND,
)

if __name__ == "__main__":
    DRAWING.main(__doc__)

"""Noise-free profiles of prompts in attention, exact and with one too many.

python paper_figures/noise_free_profiles.py
"""

from __future__ import annotations

from pathlib import Path

import runs
from matplotlib.figure import Figure

from moe_prompts import plots
from moe_prompts.study.attention import FITS


def figure(run: Path) -> Figure:
    """Least error against what is held."""
    rows, _ = runs.read(run, FITS)
    return plots.profiles_figure(rows)


DRAWING = runs.Drawing(
    name="noise_free_profiles",
    figure=figure,
    data=runs.DATA / "sample_efficiency",
    command="python experiments/sample_efficiency.py --n 1e3..1e6",
    time="11 minutes on 2 cores",
)

if __name__ == "__main__":
    DRAWING.main(__doc__)

"""Draw prompts in attention in three random configurations that nobody selected.

python paper_figures/attention_random.py
"""

from __future__ import annotations

from pathlib import Path

import runs
from matplotlib.figure import Figure

from moe_prompts.figures.attention import identifiability_figure
from moe_prompts.study.attention import STUDY_FITS


def figure(run: Path) -> Figure:
    """Return noise-free profiles and likelihood gaps, side by side."""
    rows, _ = runs.read(run, STUDY_FITS)
    return identifiability_figure(rows)


DRAWING = runs.Drawing(
    name="attention_random",
    figure=figure,
    data=runs.DATA / "attention_random",
    command="python experiments/sample_efficiency.py --study attention --truth random --n 1e3,1e4,1e5,1e6",
    time="4 minutes on 2 cores",
)

if __name__ == "__main__":
    DRAWING.main(__doc__)

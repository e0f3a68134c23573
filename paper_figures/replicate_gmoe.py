"""Draw the published Gaussian-gated simulation, run again.

python paper_figures/replicate_gmoe.py
"""

from __future__ import annotations

from pathlib import Path

import runs
from matplotlib.figure import Figure

from moe_prompts.figures.replication import replication_figure


def figure(run: Path) -> Figure:
    """Return losses by truth and k: published ones, and what each procedure has again."""
    return replication_figure(runs.read_summary(run), runs.read_table(run, "experiments/replicate.py", "procedure"))


DRAWING = runs.Drawing(
    name="replicate_gmoe",
    figure=figure,
    data=runs.DATA / "replicate_gmoe",
    command="python experiments/replicate.py --paper gmoe",
    time="13 minutes of one core",
)

if __name__ == "__main__":
    DRAWING.main(__doc__)

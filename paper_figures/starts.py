"""Draw the excess risk of starts and optimisers of prompts on planted truths.

python paper_figures/starts.py
"""

from __future__ import annotations

from pathlib import Path

import runs
from matplotlib.figure import Figure


def figure(run: Path) -> Figure:
    """Return the excess risk of every start with every optimiser, a panel for each kind of truth."""
    from moe_prompts.vision.data_efficiency.figures import starts_figure
    from moe_prompts.vision.data_efficiency.screening import screening_table

    table = runs.read_table(run, "experiments/starts.py", "student", "optimiser", "excess")
    return starts_figure(screening_table(table))


DRAWING = runs.Drawing(
    name="starts",
    figure=figure,
    data=runs.DATA / "starts",
    command="python experiments/starts.py --preset part",
    time="10 minutes of one core",
)

if __name__ == "__main__":
    DRAWING.main(__doc__)

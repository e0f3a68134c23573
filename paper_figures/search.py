"""Draw what second-order searches for planted prompts reach, beside what they leave on their own images.

python paper_figures/search.py
"""

from __future__ import annotations

from pathlib import Path

import runs
from matplotlib.figure import Figure


def figure(run: Path) -> Figure:
    """Return the excess risk of every fit, by its start."""
    from moe_prompts.vision.data_efficiency.figures import search_figure
    from moe_prompts.vision.data_efficiency.search_verdict import FIXED_FLOOR, REACHED

    table = runs.read_table(run, "experiments/search.py", "targets", "start", "train_excess")
    return search_figure(table, REACHED, FIXED_FLOOR)


DRAWING = runs.Drawing(
    name="search",
    figure=figure,
    data=runs.DATA / "search",
    command="python experiments/search.py --preset judged --sgd paper_figures/data/planted_vit",
    time="4.9 hours of one busy core",
)

if __name__ == "__main__":
    DRAWING.main(__doc__)

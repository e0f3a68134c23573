"""Draw predicted beside observed excess of prompts on a pretrained backbone.

python paper_figures/predicted_excess.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import runs
from matplotlib.figure import Figure

from moe_prompts.engine.store import read_table
from moe_prompts.figures.style import SINGLE, STYLE
from moe_prompts.vision.data_efficiency.figures import draw_predicted
from moe_prompts.vision.data_efficiency.link import excess_table


def figure(run: Path) -> Figure:
    """Draw half of the gap between test and training loss against P_eff / (2 n); the band is a factor of two."""
    table = excess_table(read_table(run), read_table(runs.DATA / "pretrained_dsprites_loc"))
    with plt.rc_context(STYLE):
        drawn = Figure(figsize=(SINGLE, 3.2), layout="constrained")
        draw_predicted(drawn.subplots(), table)
    return drawn


DRAWING = runs.Drawing(
    name="predicted_excess",
    figure=figure,
    data=runs.DATA / "predicted_excess",
    command="python experiments/predicted_excess.py --run paper_figures/data/pretrained_dsprites_loc",
    time="10 minutes of one core",
)

if __name__ == "__main__":
    DRAWING.main(__doc__)

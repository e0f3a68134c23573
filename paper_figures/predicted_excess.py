"""Draw predicted beside observed excess of prompts on a pretrained backbone.

python paper_figures/predicted_excess.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import runs
from matplotlib.figure import Figure

from moe_prompts.engine.store import read_table
from moe_prompts.figures.style import STYLE, column, finding
from moe_prompts.vision.data_efficiency.claim_lines import FLOORS, all_counted, table_of
from moe_prompts.vision.data_efficiency.figures import draw_predicted, draw_winners
from moe_prompts.vision.data_efficiency.link import excess_table, winner_table

#: The committed run on dsprites_loc, and the part that it belongs to.
FIRST, NO_FLOORS = runs.DATA / "predicted_excess_again", "100 steps"


def figure(run: Path) -> Figure:
    """Draw half of the gap between test and training loss against P_eff / (2 n); the band is a factor of two.

    The committed run is drawn with that on count; below, the same for the four tasks with floors, and the differences
    of test losses that theory predicts there. A run of your own is drawn alone.
    """
    with plt.rc_context(STYLE):
        drawn, axes = column(3 if run == FIRST else 1, tall=3.05, below=0)
        if run != FIRST:
            draw_predicted(axes[0, 0], excess_table(read_table(run), read_table(runs.DATA / "pretrained_dsprites_loc")))
            return drawn
        tables = {part: table_of(runs.DATA, part) for part in (NO_FLOORS, FLOORS)}
        two, four = (all_counted(runs.DATA, part, table) for part, table in tables.items())
        for ax, table, of in ((axes[0, 0], two, "two tasks, 100 steps"), (axes[1, 0], four, "four tasks, 200 steps")):
            draw_predicted(ax, table)
            finding(ax, f"{of}: {' '.join(ax.get_title(loc='left').split())}", 46)
        draw_winners(axes[2, 0], winner_table(tables[FLOORS], four))
    return drawn


DRAWING = runs.Drawing(
    name="predicted_excess",
    figure=figure,
    data=FIRST,
    command="python experiments/predicted_excess.py --run paper_figures/data/pretrained_dsprites_loc",
    time="10 minutes of one core",
)

if __name__ == "__main__":
    DRAWING.main(__doc__)

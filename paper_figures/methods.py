"""Draw the accuracy of ways to tune a pretrained backbone on 200 labelled images.

python paper_figures/methods.py
"""

from __future__ import annotations

from pathlib import Path

import runs
from matplotlib.figure import Figure

from moe_prompts.engine.store import read_table
from moe_prompts.vision.data_efficiency.claim_lines import SEVENTH, SIXTH, joined
from moe_prompts.vision.data_efficiency.curves import mean_curves, mean_differences
from moe_prompts.vision.data_efficiency.figures import methods_figure

#: The committed run on letters, with which those on three other tasks are drawn; a run of your own is drawn alone.
FIRST = runs.DATA / SIXTH[0]


def figure(run: Path) -> Figure:
    """Return accuracies of all methods by task, and how far VAPT is ahead of each in the mean of the tasks."""
    table = joined(runs.DATA, SIXTH, SEVENTH) if run == FIRST else read_table(run)
    # Full tuning was trained on two of the four tasks, at rates that are too high for it.
    table = table[table["method"] != "full"] if run == FIRST else table
    pairs = {name: ("vapt", name) for name in table["method"].unique() if name != "vapt"}
    return methods_figure(mean_curves(table), mean_differences(table, pairs))


DRAWING = runs.Drawing(
    name="methods",
    figure=figure,
    data=FIRST,
    command="python experiments/data_efficiency.py --preset real-third --methods linear,vpt_deep,vapt,vapt_constant "
    "--n 200 --reps 5 --fresh-reps 0 --tune-by accuracy --task letters --seed 3",
    time="25 minutes of one core",
)

if __name__ == "__main__":
    DRAWING.main(__doc__)

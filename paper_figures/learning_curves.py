"""Draw accuracy of fixed and adaptive prompts on a pretrained backbone against the number of training images.

python paper_figures/learning_curves.py
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import runs
from matplotlib.figure import Figure

from moe_prompts.errors import InputError
from moe_prompts.vision.data_efficiency.claim_lines import (
    BY_LAMB,
    FIFTEENTH,
    NINETEENTH,
    TWELFTH,
    TWENTY_FIRST,
    TWENTY_SECOND,
)
from moe_prompts.vision.data_efficiency.curves import mean_curves, mean_over_tasks
from moe_prompts.vision.data_efficiency.figures import learning_figure

#: The committed run on letters with 100 images, with which all others by LAMB on its six tasks are drawn; a run
#: of your own is drawn alone.
FIRST = runs.DATA / next(iter(FIFTEENTH))
#: What follows a method's name in the legend -> committed runs, at all n.
SERIES = {
    ", 200 steps": (*FIFTEENTH, *TWENTY_SECOND, *(run for run in TWELFTH if run.endswith("_lamb"))),
    ", 600 steps": (*NINETEENTH, *TWENTY_FIRST),
}


def figure(run: Path) -> Figure:
    """Return accuracy against n of both kinds of prompt, on each task and, where there are several, in the mean."""
    series = {said: [runs.DATA / name for name in names] for said, names in SERIES.items()}
    parts = []
    for said, folders in series.items() if run == FIRST else [("", [run])]:
        columns = ("task", "method", "n", "accuracy")
        rows = pd.concat([runs.read_table(folder, "experiments/data_efficiency.py", *columns) for folder in folders])
        rows = rows[rows["method"].isin(BY_LAMB)]
        if rows.empty:
            raise InputError(f"{run} has rows of other methods alone; expected {' or '.join(BY_LAMB)}")
        means = [mean_over_tasks(rows)] if rows["task"].nunique() > 1 else []
        parts.append(mean_curves(pd.concat([rows, *means])).assign(series=said))
    return learning_figure(pd.concat(parts))


DRAWING = runs.Drawing(
    name="learning_curves",
    figure=figure,
    data=FIRST,
    command="python experiments/data_efficiency.py --preset real-third --methods vpt_deep,vapt --optimiser lamb "
    "--lr 0.032,0.128,0.512,2.048 --n 100 --reps 5 --fresh-reps 0 --tune-by accuracy --task letters --seed 6",
    time="20 minutes of one core",
)

if __name__ == "__main__":
    DRAWING.main(__doc__)

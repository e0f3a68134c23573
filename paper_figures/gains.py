"""Draw how far adaptive prompts are ahead of fixed ones on a pretrained backbone, by how both are trained.

python paper_figures/gains.py
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import runs
from matplotlib.figure import Figure

from moe_prompts.errors import InputError
from moe_prompts.vision.data_efficiency.claim_lines import FIFTEENTH, NINETEENTH, PUBLISHED_GAIN, TWELFTH, table_of_runs
from moe_prompts.vision.data_efficiency.curves import differences, mean_differences
from moe_prompts.vision.data_efficiency.figures import gains_figure

#: The committed run on letters by SGD, with which all others of its part, those of 600 steps and those at 100
#: images are drawn; a run of your own is drawn alone.
FIRST = runs.DATA / next(iter(TWELFTH))
#: What is compared, by how both are trained.
PAIRS = {
    "SGD": ("vapt", "vpt_deep"),
    "LAMB": ("vapt_lamb", "vpt_deep_lamb"),
    "LAMB with 600 steps": ("vapt_lamb_600_bfloat16", "vpt_deep_lamb_600_bfloat16"),
}


def figure(run: Path) -> Figure:
    """Return the difference of both kinds of prompt, by task and in the mean; of one run at its largest n."""
    own = runs.read_table(run, "experiments/data_efficiency.py", "task", "method", "n", "accuracy")
    committed = (TWELFTH, NINETEENTH, FIFTEENTH)
    parts = []
    for table in [table_of_runs(runs.DATA, tuple(part)) for part in committed] if run == FIRST else [own]:
        parts.append(differences(table, PAIRS))
        if table["task"].nunique() > 1:
            parts.append(mean_differences(table, PAIRS))
    found = pd.concat(parts)
    if found.empty:
        raise InputError(f"{run} has {', '.join(own['method'].unique())}; expected vapt and vpt_deep on its tasks")
    return gains_figure(found, 100 * PUBLISHED_GAIN)


DRAWING = runs.Drawing(
    name="gains",
    figure=figure,
    data=FIRST,
    command="python experiments/data_efficiency.py --preset real-third --methods linear,vpt_deep,vapt --n 1000 "
    "--reps 5 --fresh-reps 0 --tune-by accuracy --task letters --seed 6",
    time="20 minutes of one core",
)

if __name__ == "__main__":
    DRAWING.main(__doc__)

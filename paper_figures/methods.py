"""Draw the accuracy of ways to tune a pretrained backbone on 200 labelled images.

python paper_figures/methods.py
"""

from __future__ import annotations

from pathlib import Path

import runs
from matplotlib.figure import Figure

from moe_prompts.errors import InputError
from moe_prompts.vision.data_efficiency.claim_lines import ELEVENTH, SEVENTH, SIXTH, joined
from moe_prompts.vision.data_efficiency.curves import mean_curves, mean_differences
from moe_prompts.vision.data_efficiency.figures import methods_figure

#: The committed run on letters, with which those on three other tasks are drawn; a run of your own is drawn alone.
FIRST = runs.DATA / SIXTH[0]


def figure(run: Path) -> Figure:
    """Return accuracies of methods on all tasks at the largest n, and how far VAPT is ahead of each in the mean."""
    own = runs.read_table(run, "experiments/data_efficiency.py", "task", "method", "n", "accuracy")
    table = joined(runs.DATA, SIXTH, (*SEVENTH, *ELEVENTH)) if run == FIRST else own
    table = table[table["n"] == table["n"].max()]
    # A mean over tasks needs all of them; full tuning was trained on two of the four.
    trained_on = table.groupby("method")["task"].nunique()
    table = table[table["method"].map(trained_on) == table["task"].nunique()]
    pairs = {name: ("vapt", name) for name in table["method"].unique() if name != "vapt"}
    if len(pairs) == table["method"].nunique() or not pairs:
        raise InputError(f"{run} has {', '.join(trained_on.index)} on its tasks; expected vapt, and others beside it")
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

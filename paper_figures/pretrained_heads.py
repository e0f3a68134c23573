"""Draw what trained prompts do inside the blocks of a pretrained Vision Transformer.

python paper_figures/pretrained_heads.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import runs
from matplotlib.figure import Figure

from moe_prompts.figures.style import DOUBLE, STYLE, note
from moe_prompts.vision.figures import draw_input_dependence


def figure(run: Path) -> Figure:
    """Draw, block by block, how much prompt experts vary with the image, and which share of the gate they take."""
    table = runs.read_table(run, "experiments/head_as_moe.py", "block", "variation", "mass")
    # A row is one prompt; of a head's gate its prompts take the sum.
    heads = table.groupby(["method", "block", "head"], sort=False)["mass"].sum().reset_index()
    with plt.rc_context(STYLE):
        drawn, (left, right) = plt.subplots(1, 2, figsize=(DOUBLE, 2.6), layout="constrained")
        draw_input_dependence(left, table)
        left.set_ylim(-0.03, 1)
        left.set_title("do experts depend on the image?")
        draw_input_dependence(right, heads.rename(columns={"mass": "variation", "head": "prompt"}))
        right.set_ylabel("share of the gate on prompts")
        right.set_title("are they asked?")
        right.set_ylim(-0.03, None)
        left.legend()
        note(drawn, "small marks: prompts, mean over heads (left), heads (right); lines: their mean")
    return drawn


DRAWING = runs.Drawing(
    name="pretrained_heads",
    figure=figure,
    data=runs.DATA / "pretrained_heads",
    command="python experiments/head_as_moe.py --backbone dinov2-small-focus --size 98 --last-blocks 6 --steps 100",
    time="4 minutes of one core",
)

if __name__ == "__main__":
    DRAWING.main(__doc__)

"""Draw how much prompt experts vary with the image, by block of a small Vision Transformer.

python paper_figures/input_dependence.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import runs
from matplotlib.figure import Figure

from moe_prompts.figures.style import SINGLE, STYLE, finding, note
from moe_prompts.vision.figures import draw_input_dependence


def figure(run: Path) -> Figure:
    """Draw the variation sqrt(mean |f - mean f|^2 / mean |f|^2) of prompt experts f over images.

    It is exactly 0 for fixed prompts.
    """
    table = runs.read_table(run, "experiments/head_as_moe.py", "block", "variation")
    with plt.rc_context(STYLE):
        drawn, ax = plt.subplots(figsize=(SINGLE, 2.5), layout="constrained")
        draw_input_dependence(ax, table)
        ax.set_ylim(-0.03, 1)
        ax.legend(loc="lower right", bbox_to_anchor=(1, 0.1))
        later = table[table["block"] > 0].groupby(["method", "block"])["variation"].mean().groupby("method")
        said = [
            f"those of {name} {f'by {least:.2f} to {most:.2f}' if most else 'do not'}"
            for name, (least, most) in later.agg(["min", "max"]).iterrows()
        ]
        finding(ax, f"after block 0 prompt experts vary with the image: {', '.join(said)}")
        note(
            drawn,
            "0: the same on all images, as VAPT's prompts are in block 0; small marks: prompts, mean over heads; "
            "lines: their mean; one network, so no intervals",
        )
    return drawn


DRAWING = runs.Drawing(
    name="input_dependence",
    figure=figure,
    data=runs.DATA / "head_as_moe",
    command="python experiments/head_as_moe.py",
    time="3 minutes of one busy core",
)

if __name__ == "__main__":
    DRAWING.main(__doc__)

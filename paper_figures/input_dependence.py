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
            f"of {name} by\u00a0{f'{least:.2f} to {most:.2f}' if most else '0'}"
            for name, (least, most) in later.agg(["min", "max"]).iterrows()
        ]
        finding(ax, f"in one training prompt experts vary with the image (after block 0): {', '.join(said)}")
        note(
            drawn,
            "0: the same on all images, as VAPT's prompts are in block 0; small marks: each prompt, mean over heads; "
            "lines: mean over prompts; one training of each kind, so no intervals",
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

"""Draw what the heads of one block of a pretrained Vision Transformer see of a split prompt.

python paper_figures/planted_block.py
"""

from __future__ import annotations

from pathlib import Path

import runs
from matplotlib.figure import Figure

from moe_prompts.vision.planted_head.block_report import planted_block_figure


def figure(run: Path) -> Figure:
    """Return what a split changes in 1, 2, 3 and all heads, and the held split in all of them."""
    return planted_block_figure(runs.read_table(run, "experiments/planted_head.py --all-heads", "heads", "visible"))


DRAWING = runs.Drawing(
    name="planted_block",
    figure=figure,
    data=runs.DATA / "planted_block",
    command="python experiments/planted_head.py --backbone dinov2-small-focus --size 56 --block 9 --all-heads"
    " --noise-free",
    time="1 minute of one core",
)

if __name__ == "__main__":
    DRAWING.main(__doc__)

"""Draw what was measured of prompts planted in one head of the pretrained ViT-S.

python paper_figures/planted_head_pretrained.py
"""

from __future__ import annotations

import planted_head
import runs

DRAWING = runs.Drawing(
    name="planted_head_pretrained",
    figure=planted_head.figure,
    data=runs.DATA / "planted_head_pretrained",
    command="python experiments/planted_head.py --backbone dinov2-small-focus --size 56 --block 9 --head 0 "
    "--n 1e4,1e5,1e6 --reps 8",
    time="8 minutes of one core",
)

if __name__ == "__main__":
    DRAWING.main(__doc__)

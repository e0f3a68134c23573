"""Draw what was measured of prompts planted in a whole Vision Transformer.

python paper_figures/planted_vit.py
"""

from __future__ import annotations

from pathlib import Path

import runs
from matplotlib.figure import Figure


def figure(run: Path) -> Figure:
    """Return the excess risk of students against n."""
    return runs.efficiency_figure(run, "planted")


DRAWING = runs.Drawing(
    name="planted_vit",
    figure=figure,
    data=runs.DATA / "planted_vit",
    command="python experiments/data_efficiency.py --task planted-fixed,planted-adaptive --preset night --students "
    "vpt_deep,vpt_matched,vapt,vapt_constant,vapt_offset,at_teacher",
    time="95 minutes of one busy core",
)

if __name__ == "__main__":
    DRAWING.main(__doc__)

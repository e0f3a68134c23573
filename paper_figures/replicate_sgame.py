"""Draw the published softmax-gated simulation, run again.

python paper_figures/replicate_sgame.py
"""

from __future__ import annotations

import replicate_gmoe
import runs

DRAWING = runs.Drawing(
    name="replicate_sgame",
    figure=replicate_gmoe.figure,
    data=runs.DATA / "replicate_sgame",
    command="python experiments/replicate.py --paper sgame",
    time="18 minutes of one busy core",
)

if __name__ == "__main__":
    DRAWING.main(__doc__)

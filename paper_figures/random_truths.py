"""Draw Gaussian gates on five random truths that nobody selected.

python paper_figures/random_truths.py
"""

from __future__ import annotations

import runs
import sample_efficiency

DRAWING = runs.Drawing(
    name="random_truths",
    figure=sample_efficiency.figure,
    data=runs.DATA / "random_truths",
    command="python experiments/sample_efficiency.py --study gaussian --truth random --n 1e3,1e4,1e5",
    time="8 minutes on 1 core",
)

if __name__ == "__main__":
    DRAWING.main(__doc__)

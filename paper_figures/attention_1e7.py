"""Draw prompts in attention up to n = 1e7.

python paper_figures/attention_1e7.py
"""

from __future__ import annotations

import attention
import runs

DRAWING = runs.Drawing(
    name="attention_1e7",
    figure=attention.figure,
    data=runs.DATA / "attention_1e7",
    command="python experiments/sample_efficiency.py --study attention",
    time="5 minutes on 2 cores",
)

if __name__ == "__main__":
    DRAWING.main(__doc__)

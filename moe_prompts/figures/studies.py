"""Draw the figures of a run of ``experiments/sample_efficiency.py``, whichever studies it holds."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from moe_prompts.figures.attention import (
    attention_figure,
)
from moe_prompts.figures.gates import (
    sample_efficiency_figure,
    softmax_figure,
)
from moe_prompts.study import softmax
from moe_prompts.study.attention import STUDY_FITS
from moe_prompts.study.report import GAUSSIAN, of_study


def figures(results: pd.DataFrame, entropy: int) -> dict[str, Figure]:
    """Return the figure of each study in the results, by the name of its file."""
    drawn = {}
    gated, attention = of_study(results, GAUSSIAN), of_study(results, STUDY_FITS)
    if len(attention):
        drawn["attention"] = attention_figure(attention, entropy)
    if len(gated):
        drawn["sample_efficiency"] = sample_efficiency_figure(gated, entropy)
    gates = of_study(results, softmax.MODEL)
    if len(gates):
        drawn["softmax_gates"] = softmax_figure(gates, entropy)
    return drawn

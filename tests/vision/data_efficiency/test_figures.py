"""Bars of curves over n are the intervals of the means that they stand on."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from moe_prompts.intervals import mean_interval
from moe_prompts.vision.data_efficiency.curves import mean_curves
from moe_prompts.vision.data_efficiency.figures import draw_excess, draw_over_n, starts_figure
from moe_prompts.vision.data_efficiency.screening import screening_table
from moe_prompts.vision.training.statuses import TRAINED

VALUES = {50: (0.30, 0.34, 0.41), 200: (0.12, 0.13, 0.17)}


@pytest.mark.parametrize("draw", ["excess", "cross_entropy"])
def test_bars_are_90_percent_intervals(draw):
    rows = [
        {"task": "planted-fixed", "method": "vpt_deep", "parameters": 10, "n": n, "status": TRAINED}
        | {"excess": value, "cross_entropy": value, "accuracy": value}
        for n, own in VALUES.items()
        for value in own
    ]
    table = mean_curves(pd.DataFrame(rows))
    figure, ax = plt.subplots()
    if draw == "excess":
        draw_excess(ax, table)
    else:
        draw_over_n(ax, table, "cross_entropy")
    (bars,) = ax.containers[0].lines[2]
    drawn = np.array([segment[:, 1] for segment in bars.get_segments()])
    wanted = [(one.low, one.high) for one in (mean_interval(np.array(own)) for own in VALUES.values())]
    np.testing.assert_allclose(drawn, wanted, rtol=1e-12)
    plt.close(figure)


def test_bars_of_starts_are_90_percent_intervals_over_teachers():
    """A bar of a start is Student's interval of its three teachers, from the rows themselves."""
    excess = {"official": (0.30, 0.34, 0.41), "tokens": (0.12, 0.13, 0.17)}
    rows = [
        {"task": "planted-fixed", "teacher": teacher, "student": student, "optimiser": "sgd", "parameters": 10}
        | {"excess": value, "lr": 0.05, "gradient_ratio": 2.0, "chosen": True}
        for student, own in excess.items()
        for teacher, value in enumerate(own)
    ]
    figure = starts_figure(screening_table(pd.DataFrame(rows)))
    (bars,) = figure.axes[0].containers[0].lines[2]
    drawn = np.array([segment[:, 0] for segment in bars.get_segments()])
    wanted = [(one.low, one.high) for one in (mean_interval(np.array(own)) for own in reversed(excess.values()))]
    np.testing.assert_allclose(drawn, wanted, rtol=1e-12)
    assert "bars: 90 % intervals" in " ".join(figure.legends[0].get_title().get_text().split())

"""Bars of curves over n are the intervals of the means that they stand on."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from moe_prompts.intervals import mean_interval
from moe_prompts.vision.data_efficiency.curves import differences, mean_curves, mean_differences, mean_over_tasks
from moe_prompts.vision.data_efficiency.figures import (
    draw_excess,
    draw_over_n,
    draw_winners,
    gains_figure,
    learning_figure,
    methods_figure,
    starts_figure,
)
from moe_prompts.vision.data_efficiency.screening import screening_table
from moe_prompts.vision.training.statuses import DIVERGED, TRAINED

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


def test_winners_stand_where_both_differences_are():
    """Two marks: at (.2, .1) with its interval, in a grey quarter, and at (-.1, .3), in a white one."""
    rows = pd.DataFrame(
        {
            "task": ["stand-in:count", "stand-in:count"],
            "n": [50, 200],
            "predicted_fixed": [1.0, 1.0],
            "predicted_adaptive": [1.2, 0.9],
            "loss_fixed": [2.0, 2.0],
            "loss_adaptive": [2.1, 2.3],
            "low": [0.05, 0.2],
            "high": [0.15, 0.4],
            "agree": [True, False],
        }
    )
    figure, ax = plt.subplots()
    draw_winners(ax, rows)
    marks = [container.lines[0].get_xydata()[0] for container in ax.containers]
    np.testing.assert_allclose(marks, [(0.2, 0.1), (-0.1, 0.3)], rtol=1e-12)
    bars = [container.lines[2][0].get_segments()[0][:, 1] for container in ax.containers]
    np.testing.assert_allclose(bars, rows[["low", "high"]], rtol=1e-12)
    sizes = [container.lines[0].get_markersize() for container in ax.containers]
    assert sizes[0] < sizes[1]
    assert "in 1 of 2 marks" in " ".join(ax.get_title(loc="left").split())
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["count"]
    assert ax.get_legend().get_title().get_text().endswith("n = 50, 200")
    plt.close(figure)


def test_the_dotted_line_of_winners_is_where_both_differences_are_equal():
    """Also where axes are logarithmic: the line between its two ends goes through (2, 2), as drawn."""
    rows = pd.DataFrame(
        {
            "task": ["stand-in:count"],
            "n": [50],
            "predicted_fixed": [1.0],
            "predicted_adaptive": [9.0],
            "loss_fixed": [1.0],
            "loss_adaptive": [4.0],
            "low": [2.0],
            "high": [4.0],
            "agree": [True],
        }
    )
    figure, ax = plt.subplots()
    draw_winners(ax, rows)
    [line] = [line for line in ax.lines if line.get_linestyle() == ":"]
    ends, (between,) = (ax.transData.transform(points) for points in (line.get_xydata(), [(2.0, 2.0)]))
    (a, b), (c, d) = ends[1] - ends[0], between - ends[0]
    assert a * d == pytest.approx(b * c, rel=1e-9)
    plt.close(figure)


def test_methods_stand_at_their_accuracies_and_differences():
    """Two tasks and three replicates; the mean difference of vapt and linear is 20 points, and decided."""
    rows = [
        {
            "task": task,
            "n": 200,
            "status": TRAINED,
            "method": method,
            "parameters": 1,
            "replicate": i,
            "accuracy": value,
        }
        for task in ("stand-in:count", "letters")
        for method, values in {"linear": (0.2, 0.3, 0.4), "vapt": (0.4, 0.51, 0.59)}.items()
        for i, value in enumerate(values)
    ]
    table = pd.DataFrame(rows).assign(cross_entropy=1.0, train_loss=1.0)
    differences = mean_differences(table, {"linear": ("vapt", "linear")})
    figure = methods_figure(mean_curves(table), differences)
    above, below = figure.axes
    marks = {container.get_label(): container.lines[0].get_xydata() for container in above.containers}
    assert set(marks) == {"linear", "vapt"}
    np.testing.assert_allclose(marks["vapt"][:, 0], [50, 50], rtol=1e-12)
    np.testing.assert_allclose(marks["linear"][:, 0], [30, 30], rtol=1e-12)
    assert [label.get_text() for label in above.get_yticklabels()] == ["count", "letters"]
    (mark,) = [container.lines[0].get_xydata()[0] for container in below.containers]
    np.testing.assert_allclose(mark, (20, 0), atol=1e-12)
    (bar,) = [container.lines[2][0].get_segments()[0][:, 0] for container in below.containers]
    np.testing.assert_allclose(bar, 100 * differences[["low", "high"]].to_numpy()[0], rtol=1e-12)
    said = " ".join(below.get_title(loc="left").split())
    assert said == "in the mean vapt is decidedly above linear"
    assert "vapt on 2 of 2 tasks" in " ".join(above.get_title(loc="left").split())


def test_gains_stand_by_task_and_in_the_mean():
    """Two tasks and three replicates: 10 and 20 points by SGD, 1 and 11 by LAMB; tolerances are those of rounding."""
    rows = [
        {"task": task, "n": 1000, "status": TRAINED, "method": method, "replicate": i, "accuracy": value + 0.01 * i}
        for task, gain in (("stand-in:count", 0.1), ("letters", 0.2))
        for method, value in (("vpt_deep", 0.3), ("vapt", 0.3 + gain), ("a", 0.5), ("b", 0.4 + gain))
        for i in range(3)
    ]
    rows = pd.DataFrame(rows)
    rows.loc[rows["method"] == "b", "accuracy"] += 0.03 * (rows["replicate"] == 2)
    pairs = {"SGD": ("vapt", "vpt_deep"), "LAMB": ("b", "a")}
    table = pd.concat([differences(rows, pairs), mean_differences(rows, pairs)])
    figure = gains_figure(table, 3.5)
    (ax,) = figure.axes
    assert [text.get_text() for text in ax.get_yticklabels()] == ["count", "letters", "mean of 2 tasks"]
    marks = {container.get_label(): container.lines[0].get_xydata() for container in ax.containers}
    np.testing.assert_allclose(marks["both by SGD"][:, 0], [10, 20, 15], rtol=1e-12)
    np.testing.assert_allclose(marks["both by LAMB"][:, 0], [1, 11, 6], rtol=1e-12)
    assert (marks["both by LAMB"][:, 1] > marks["both by SGD"][:, 1]).all()
    for container, name in zip(ax.containers, pairs, strict=True):
        bars = [segment[:, 0] for segment in container.lines[2][0].get_segments()]
        np.testing.assert_allclose(bars, 100 * table.loc[table["claim"] == name, ["low", "high"]], atol=1e-10)
    lines = [line.get_xdata()[0] for line in ax.lines if len(set(line.get_xdata())) == 1 and len(line.get_xdata()) == 2]
    assert lines[:2] == [0, 3.5]
    said = " ".join(ax.get_title(loc="left").split())
    assert said.startswith(
        "mean of 2 tasks, adaptive less fixed prompts, n = 1000: +15.0 [+15.0, +15.0] by SGD, +6.0 ["
    )
    # Rows at a smaller n are a series of their own.
    few = table[table["claim"] == "LAMB"].assign(n=100)
    (ax,) = gains_figure(pd.concat([table, few]), 3.5).axes
    marks = {container.get_label(): container.lines[0] for container in ax.containers}
    assert list(marks) == ["both by SGD, n = 1000", "both by LAMB, n = 1000", "both by LAMB, n = 100"]
    assert len({mark.get_marker() for mark in marks.values()}) == 3
    assert "; n = 100: +6.0 [" in " ".join(ax.get_title(loc="left").split())


def test_learning_curves_stand_by_task_and_in_the_mean():
    """Two tasks and two series: means of the rows, bars as Student's, and hollow marks where there are several."""
    rows = [
        {"task": task, "n": n, "status": TRAINED, "method": "vapt", "parameters": 10, "replicate": i}
        | {"accuracy": value + more}
        for task, more in (("stand-in:count", 0.0), ("letters", 0.2))
        for n, own in VALUES.items()
        for i, value in enumerate(own)
    ]
    rows = pd.DataFrame(rows)
    lost = rows.assign(status=np.where((rows["task"] == "letters") & (rows["replicate"] == 2), DIVERGED, TRAINED))
    mean = mean_over_tasks(lost)
    assert mean.groupby("n")["replicate"].apply(list).tolist() == [[0, 1], [0, 1]]
    assert set(mean["task"]) == {"mean of 2 tasks"}
    table = mean_curves(pd.concat([rows, mean_over_tasks(rows)]))
    both = pd.concat([table.assign(series=", few"), table[table["n"] == 200].assign(series=", many")])
    axes = learning_figure(both).axes
    assert [ax.get_title(loc="left") for ax in axes] == ["count", "letters", "mean of 2 tasks"]
    for ax, more in zip(axes, (0, 20, 10), strict=True):
        few, many = ax.containers
        assert (few.get_label(), many.get_label()) == ("vapt, few", "vapt, many")
        assert few.lines[0].get_markerfacecolor() == "white" != many.lines[0].get_markerfacecolor()
        wanted = [100 * np.mean(own) + more for own in VALUES.values()]
        np.testing.assert_allclose(few.lines[0].get_xydata()[:, 1], wanted, rtol=1e-12)
        np.testing.assert_allclose(many.lines[0].get_xydata(), [(200, wanted[1])], rtol=1e-12)
        bars = [segment[:, 1] for segment in few.lines[2][0].get_segments()]
        ends = [mean_interval(100 * np.array(own) + more) for own in VALUES.values()]
        np.testing.assert_allclose(bars, [(one.low, one.high) for one in ends], rtol=1e-12)
    # One series alone has filled marks and no text after its methods.
    [few] = learning_figure(table.assign(series="")).axes[0].containers
    assert few.get_label() == "vapt"
    assert few.lines[0].get_markerfacecolor() == few.lines[0].get_color()

"""Curves over n: means, slopes above a floor, crossings, by hand."""

import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from moe_prompts.errors import InputError
from moe_prompts.vision.data_efficiency import report as curves_report
from moe_prompts.vision.data_efficiency.curves import (
    FRESH,
    above_floor,
    crossing,
    differences,
    mean_curves,
    overtakes_from,
    predicted_crossing,
    regular,
)
from moe_prompts.vision.training.statuses import DIVERGED, TRAINED


def rows(fixed, adaptive, floors=(0.3, 0.1), counts=(100, 300)):
    """Excess risks {n: risks over replicates} of two students on the adaptive truth."""
    both = (("vpt_deep", fixed, floors[0], counts[0]), ("vapt", adaptive, floors[1], counts[1]))
    return pd.DataFrame(
        {
            "task": "planted-adaptive",
            "method": student,
            "n": n,
            "replicate": replicate,
            "parameters": count,
            "excess": risk,
            "accuracy": 0.5,
            "cross_entropy": 1 + risk,
            "status": TRAINED,
        }
        for student, by_n, floor, count in both
        for n, risks in (by_n | {FRESH: (floor, floor)}).items()
        for replicate, risk in enumerate(risks)
    )


def test_a_crossing_by_hand():
    """Differences -.2 and .1 at 100 and 10 000: two thirds of the way in log n; predicted 200 / (2 * .2)."""
    table = rows({100: (0.5, 0.7), 10_000: (0.4, 0.4)}, {100: (0.7, 0.9), 10_000: (0.3, 0.3)})
    found = crossing(table, "planted-adaptive", "vpt_deep", "vapt", entropy=0)
    assert found["observed"] == pytest.approx(100 * 100 ** (2 / 3))
    assert found["predicted"] == pytest.approx(500)
    assert found["low"] == pytest.approx(found["observed"])  # all replicates differ alike
    assert found["high"] == pytest.approx(found["observed"])


def test_lines_of_the_figure_meet_at_the_crossing_that_is_drawn():
    """On the page, of the two straight pieces between 100 and 10 000."""
    table = rows({100: (0.5, 0.7), 10_000: (0.2, 0.2)}, {100: (0.9, 1.1), 10_000: (0.1, 0.1)})
    found = crossing(table, "planted-adaptive", "vpt_deep", "vapt", entropy=0)
    figure = curves_report.planted_figure(mean_curves(table), table, 0)
    (ax,) = figure.axes
    (x0, x1), fixed = ax.transData.transform([(100, 0.6), (10_000, 0.2)]).T
    _, adaptive = ax.transData.transform([(100, 1.0), (10_000, 0.1)]).T
    before, after = adaptive - fixed
    meet, _ = ax.transData.inverted().transform((x0 + (x1 - x0) * before / (before - after), 0))
    assert meet == pytest.approx(found["observed"])
    plt.close(figure)


def test_intervals_hold_what_resampled_replicates_say():
    """Three replicates whose own crossings are 1000, none and below 100: an interval from 0 to infinity."""
    fixed = {100: (0.4, 0.4, 0.6), 10_000: (0.6, 0.4, 0.6)}
    adaptive = {100: (0.5, 0.5, 0.5), 10_000: (0.5, 0.5, 0.5)}
    table = rows(fixed, adaptive)
    found = crossing(table[table["n"] > 0], "planted-adaptive", "vpt_deep", "vapt", entropy=0)
    assert found["low"] == 0
    assert found["high"] == np.inf
    assert np.isnan(found["predicted"])


def test_no_crossing_within_the_sizes():
    up, down = {100: (0.5,) * 2, 1000: (0.5,) * 2}, {100: (0.4,) * 2, 1000: (0.4,) * 2}
    assert crossing(rows(up, down), "planted-adaptive", "vpt_deep", "vapt", 0)["observed"] == 0
    assert crossing(rows(down, up), "planted-adaptive", "vpt_deep", "vapt", 0)["observed"] == np.inf


@pytest.mark.parametrize(
    ("extra", "gap", "expected"),
    [(200, 0.2, 500), (-50, 0.2, 0), (200, -0.1, np.inf), (200, 0.0, np.inf), (-50, -0.1, np.inf)],
)
def test_predicted_crossings(extra, gap, expected):
    """The lower floor wins at large n; the fewer parameters at small n."""
    assert predicted_crossing(extra, gap) == expected


def test_a_count_that_is_missing_has_no_crossing_where_the_gap_is_positive():
    assert np.isnan(predicted_crossing(np.nan, 0.1))
    assert predicted_crossing(np.nan, -0.1) == np.inf  # no count changes that


def test_a_crossing_is_where_the_regular_curves_cross():
    n = predicted_crossing(200, 0.2)
    assert regular(100, n, floor=0.3) == pytest.approx(regular(300, n, floor=0.1))


def test_methods_that_share_no_replicate_cannot_cross():
    table = rows({100: (0.5,)}, {100: (0.5,)})
    table.loc[table["method"] == "vapt", "status"] = DIVERGED
    with pytest.raises(InputError, match="no replicate has both vpt_deep and vapt at every n"):
        crossing(table, "planted-adaptive", "vpt_deep", "vapt", 0)


def test_a_method_that_failed_at_one_n_does_not_end_the_report():
    """Every other number is told, and the pair that lost its n is named, in the report, on the terminal, in figures."""
    falling = {n: (0.3 + n**-0.5, 0.31 + n**-0.5) for n in (100, 1000, 10_000)}
    table = rows(falling, falling)
    table.loc[(table["method"] == "vapt") & (table["n"] == 1000), "status"] = DIVERGED
    both = pd.concat([table, table.assign(task="stand-in:count")])
    said = "vapt and vpt_deep are not compared: no replicate has both at every n"
    for text in (curves_report.text(both, 0), "\n".join(curves_report.ending_of(both, 0).findings)):
        assert f"planted-adaptive: {said}" in text
        assert f"count: {said}" in text
        assert "4 of 32 trainings diverged" in text
    figures = curves_report.figures_of(both, 0)
    assert set(figures) == {"planted", "tasks"}
    (ax,) = figures["planted"].axes
    titles = [ax.get_title(loc=place) for place in ("left", "center", "right")]
    assert said in " ".join(" ".join([*titles, *(text.get_text() for text in ax.texts)]).split())
    for figure in figures.values():
        plt.close(figure)


@pytest.mark.parametrize("which", ["at the largest n", "at every n", "on images that are counted"])
def test_a_report_is_written_whatever_failed(which):
    falling = {n: (0.3 + n**-0.5, 0.31 + n**-0.5) for n in (100, 1000)}
    table = rows(falling, falling)
    failed = {"at the largest n": table["n"] == 1000, "at every n": table["n"] >= 0}.get(which, table["n"] > 0)
    table["status"] = np.where(failed, DIVERGED, TRAINED)
    both = pd.concat([table, table.assign(task="stand-in:count")])
    text = curves_report.text(both, 0)
    assert "are not compared" in text
    assert f"{2 * failed.sum()} of {len(both)} trainings diverged" in text
    assert f"{2 * failed.sum()} of {len(both)} trainings diverged; they are left out of means." in (
        curves_report.ending_of(both, 0).findings
    )
    for figure in curves_report.figures_of(both, 0).values():
        plt.close(figure)


def test_another_method_with_its_own_n_takes_no_part_in_a_crossing():
    table = rows({100: (0.5, 0.7), 10_000: (0.4, 0.4)}, {100: (0.7, 0.9), 10_000: (0.3, 0.3)})
    more = table[table["n"] == 100].assign(method="linear", n=50_000)
    alone = crossing(table, "planted-adaptive", "vpt_deep", "vapt", 0)
    assert crossing(pd.concat([table, more]), "planted-adaptive", "vpt_deep", "vapt", 0) == alone
    late = table[table["method"] == "vpt_deep"].assign(method="vpt_large", excess=0.01)
    late = late[late["n"] != 100]
    text = curves_report.text(pd.concat([table, more, late]), 0)
    assert "vapt has less excess than vpt_deep from n = 2154 on [2154, 2154]" in text
    assert "vapt and vpt_large are not compared" in text
    behind = rows({100: (0.5,) * 2}, {100: (0.7,) * 2})
    assert "than vpt_deep at n = 100, the largest" in curves_report.text(pd.concat([behind, more]), 0)


def test_a_crossing_needs_training_images():
    table = rows({}, {})
    with pytest.raises(InputError, match="no replicate has both"):
        crossing(table, "planted-adaptive", "vpt_deep", "vapt", 0)


@pytest.mark.parametrize(
    ("apart", "expected"),
    [((1, -1), np.inf), ((-1, 1), 1000), ((1, 1), 0), ((-1, 0), np.inf), ((1, -1, 1), 100_000), ((-1, 1, -1), np.inf)],
)
def test_the_lead_that_counts_is_that_at_the_largest_n(apart, expected):
    sizes = np.array([1e2, 1e4, 1e6])[: len(apart)]
    assert overtakes_from(sizes, np.array(apart, dtype=float)) == pytest.approx(expected)


def test_means_leave_out_what_diverged_and_count_it():
    table = rows({100: (0.5, 0.7, 9.0)}, {100: (0.5,) * 3})
    table.loc[table["excess"] == 9.0, "status"] = DIVERGED
    row = mean_curves(table).set_index(["method", "n"]).loc["vpt_deep", 100]
    assert row["excess"] == pytest.approx(0.6)
    assert row["excess_error"] == pytest.approx(np.std([0.5, 0.7], ddof=1) / 2**0.5)
    assert (row["fits"], row["failed"]) == (2, 1)


def test_the_slope_above_a_floor_is_that_of_the_power_law_it_was_made_from():
    fixed = {n: tuple(0.3 + c * n**-0.5 for c in (0.9, 1.0, 1.1)) for n in (100, 1000, 10_000)}
    at = above_floor(rows(fixed, fixed), "planted-adaptive", "vpt_deep", 0, "excess")
    assert at["floor"] == pytest.approx(0.3)
    assert at["slope"] == pytest.approx(-0.5)
    assert at["low"] < -0.5 < at["high"]
    assert at["sizes"] == 3


def test_there_is_no_slope_without_a_floor_or_below_it():
    fixed = {100: (0.5, 0.5), 1000: (0.2, 0.4)}
    table = rows(fixed, fixed)
    at = above_floor(table, "planted-adaptive", "vpt_deep", 0, "excess")
    assert np.isnan(at["slope"])
    assert at["sizes"] == 1
    assert np.isnan(above_floor(table[table["n"] > 0], "planted-adaptive", "vpt_deep", 0, "excess")["floor"])


def test_the_report_of_planted_prompts_by_hand():
    """The adaptive student holds the truth: its floor counts as 0, whatever fresh images gave, and n* = 200 / .6."""
    table = rows({100: (0.5, 0.7), 10_000: (0.4, 0.4)}, {100: (0.7, 0.9), 10_000: (0.3, 0.3)})
    text = re.sub(" +", " ", curves_report.text(table, 0))
    assert "| planted-adaptive | vpt_deep | 100 | 0.600 +- 0.100 | 0.400 +- 0.000 | 0.300 +- 0.000 |" in text
    assert "vapt has less excess than vpt_deep from n = 2154 on [2154, 2154]; predicted from floors and" in text
    assert text.endswith("parameters: 333")


def test_the_report_of_tasks_by_hand():
    """Cross-entropies above a floor of 1.3 that fall as n^-1/2."""
    fixed = {n: tuple(0.3 + c * n**-0.5 for c in (0.9, 1.0, 1.1)) for n in (100, 1000, 10_000)}
    text = re.sub(" +", " ", curves_report.text(rows(fixed, fixed, (0.3, 0.3)).assign(task="stand-in:count"), 0))
    assert "| stand-in:count | vapt | 1.300 | -0.50 [" in text
    assert "| 0.01 |" in text  # P / (2 n) = 300 / 20 000
    said = "vapt does not have less cross-entropy than vpt_deep at n = 10000, the largest"
    assert f"{said}; predicted from floors and parameters: at no n" in text


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ((np.inf, np.inf, np.inf), "does not have less risk than vpt at n = 800, the largest"),
        (
            (np.inf, 0.0, np.inf),
            "does not have less risk than vpt at n = 800, the largest (90 % interval: at every n, to at no n)",
        ),
        ((0.0, 0.0, 0.0), "has less risk than vpt at every n"),
        ((0.0, 0.0, 60.0), "has less risk than vpt at every n (90 % interval: at every n, to from n = 60 on)"),
        ((70.0, 60.0, np.inf), "has less risk than vpt from n = 70 on (90 % interval: from n = 60 on, to at no n)"),
        ((70.0, 70.0, 70.0), "has less risk than vpt from n = 70 on [70, 70]"),
    ],
)
def test_crossings_are_told_in_words(found, said):
    at = dict(zip(("observed", "low", "high"), found, strict=True))
    assert curves_report._observed(at, "risk than vpt", 800) == said


def with_accuracies(*rows: tuple[str, int, list[float]]) -> pd.DataFrame:
    """Rows of a task: method, n and the accuracy of each replicate."""
    return pd.DataFrame(
        [
            {"task": "count", "method": method, "n": n, "replicate": at, "accuracy": value, "status": TRAINED}
            for method, n, values in rows
            for at, value in enumerate(values)
        ]
    )


def test_differences_are_paired_by_replicate_at_the_largest_n():
    table = with_accuracies(
        ("vapt", 100, [0.0, 0.0, 0.0]),
        ("vapt", 800, [0.5, 0.7, 0.9]),
        ("vpt_deep", 800, [0.4, 0.58, 0.82]),
        ("linear", FRESH, [1.0, 1.0, 1.0]),
    )
    pairs = {"gain": ("vapt", "vpt_deep"), "loss": ("vpt_deep", "vapt"), "absent": ("vapt", "linear")}
    found = differences(table, pairs).set_index("claim")
    assert list(found.index) == ["gain", "loss"]
    gain = found.loc["gain"]
    assert (gain["n"], gain["count"]) == (800, 3)
    # Differences .1, .12, .08: mean .1, sd .02, and Student's 95 % quantile with 2 degrees of freedom is 2.92.
    assert gain["difference"] == pytest.approx(0.1)
    assert gain["low"] == pytest.approx(0.1 - 2.91999 * 0.02 / np.sqrt(3), abs=1e-6)
    assert gain["verdict"] == "holds"
    assert found.loc["loss", "verdict"] == "fails"


@pytest.mark.parametrize(("n", "named"), [(200, False), (800, True), (3200, False)])
def test_a_claim_is_named_where_its_rule_applies(n, named):
    """V-gain is judged task by task at n = 800, V-blind and V-lora in the mean of four tasks only."""
    table = with_accuracies(
        *(
            (method, n, [value, value, value + 0.01])
            for method, value in (("vapt", 0.5), ("vpt_deep", 0.4), ("vapt_constant", 0.3), ("lora", 0.2))
        )
    ).assign(parameters=10, cross_entropy=1.0)
    told = (curves_report.text(table, 0), "\n".join(curves_report.ending_of(table, 0).findings))
    for text in told:
        assert ("V-gain" in text) == named
        assert "V-blind" not in text
        assert "V-lora" not in text
        assert all(f"vapt above {other}" in text for other in ("vpt_deep", "vapt_constant", "lora"))
    assert f"count: vapt above lora at n = {n} by +30.0" in told[1]


def test_differences_that_scatter_or_stand_alone_decide_nothing():
    table = with_accuracies(("vapt", 50, [0.5, 0.3, 0.4]), ("vpt_deep", 50, [0.4, 0.4, 0.4]))
    assert differences(table, {"gain": ("vapt", "vpt_deep")})["verdict"].tolist() == ["not decidable here"]
    clear = with_accuracies(("vapt", 50, [0.5, 0.51]), ("vpt_deep", 50, [0.4, 0.41]))
    assert differences(clear, {"gain": ("vapt", "vpt_deep")})["verdict"].tolist() == ["not decidable here"]
    diverged = table.assign(status=np.where(table["replicate"] == 1, DIVERGED, TRAINED))
    assert differences(diverged, {"gain": ("vapt", "vpt_deep")})["count"].tolist() == [2]

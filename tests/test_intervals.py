"""Intervals against their coverage and SciPy, and the rule by which they decide."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from moe_prompts import Verdict
from moe_prompts.intervals import LEVEL, MIN_REPLICATES, Interval, mean_interval, percentiles, within
from moe_prompts.slopes import slope

HOLDS, FAILS, OPEN = Verdict.HOLDS, Verdict.FAILS, Verdict.UNDECIDED


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.8, 1.2, HOLDS), (0.75, 1.25, HOLDS), (0.7, 1.2, OPEN), (0.1, 0.7, FAILS), (1.3, 2, FAILS), (0.1, 2, OPEN),
        (np.nan, 1, OPEN), (1, np.inf, OPEN),
    ],
)  # fmt: skip
def test_a_prediction_holds_where_the_whole_interval_lies_in_its_band(low, high, verdict):
    assert within(low, high, (0.75, 1.25)) is verdict
    assert Interval(1.0, low, high, 32).verdict((0.75, 1.25)) is verdict
    assert Interval(1.0, low, high, MIN_REPLICATES - 1).verdict((0.75, 1.25)) is OPEN


@pytest.mark.parametrize("exponent", [-0.62, -0.5, -0.36])
def test_slopes_are_judged_by_the_same_rule(exponent):
    """The verdict of a slope is that of its interval in the band, for slopes inside, across the edge and outside."""
    rng = np.random.default_rng(0)
    sizes = (1_000, 10_000, 100_000)
    found = slope({n: n**exponent * np.exp(0.2 * rng.standard_normal(32)) for n in sizes}, rng)
    assert found.verdict(-0.5) is within(found.low, found.high, (-0.58, -0.42))


def test_no_band_is_met_by_a_slope_without_sizes():
    assert slope({}, np.random.default_rng(0)).verdict(-0.5) is OPEN


@pytest.mark.parametrize("count", [2, 5, 32])
def test_mean_interval_is_students(count):
    values = np.random.default_rng(count).standard_normal(count) * 3 + 7
    found = mean_interval(values)
    low, high = stats.t.interval(LEVEL, count - 1, loc=values.mean(), scale=stats.sem(values))
    assert_allclose([found.value, found.low, found.high], [values.mean(), low, high], rtol=1e-12)
    assert found.count == count


@pytest.mark.parametrize("count", [3, 8, 32])
def test_mean_interval_covers_as_often_as_it_says(count):
    """4000 intervals of normal values: 90 %, with four binomial standard errors of .5 %; the normal law's quantile in
    place of Student's would cover 77 % of three."""
    draws = np.random.default_rng(0).standard_normal((4000, count))
    covered = [found.low <= 0 <= found.high for found in map(mean_interval, draws)]
    assert abs(np.mean(covered) - 0.9) < 4 * np.sqrt(0.9 * 0.1 / 4000)


def test_too_few_or_broken_values_have_no_interval():
    assert np.isnan([mean_interval(np.ones(1)).low, mean_interval(np.ones(1)).high]).all()
    assert np.isnan(mean_interval(np.array([*range(9), np.nan])).low)
    assert np.isnan(mean_interval(np.array([])).value)
    assert mean_interval(np.array([])).verdict((0, 1)) is OPEN


def test_another_scale_keeps_ends_and_count():
    found = mean_interval(np.log(np.array([1.0, 2.0, 4.0])))
    scaled = found.on(np.exp)
    assert_allclose([scaled.value, scaled.low, scaled.high], np.exp([found.value, found.low, found.high]))
    assert scaled.value == pytest.approx(2.0)
    assert scaled.count == 3


def test_percentiles_are_quantiles_of_each_column():
    draws = np.random.default_rng(0).standard_normal((999, 3))
    assert_allclose(percentiles(draws), np.quantile(draws, [0.05, 0.95], axis=0))
    assert percentiles(draws[:, 0]).shape == (2,)


def test_percentiles_of_draws_that_are_not_all_reached():
    """Of a hundred draws the last ten are infinite: the upper end is, and the lower is a draw."""
    draws = np.array([*range(90), *[np.inf] * 10], dtype=float)
    low, high = percentiles(draws)
    assert low in draws
    assert high == np.inf

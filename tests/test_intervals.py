"""Intervals against their coverage and SciPy, and the rule by which they decide."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from moe_prompts import Verdict
from moe_prompts.intervals import (
    LEVEL,
    MIN_REPLICATES,
    Interval,
    bounded_by,
    half_width,
    mean_interval,
    percentiles,
    standard_error,
    variance_of_log_mean,
    variance_of_log_quantile,
    within,
)
from moe_prompts.slopes import slope

HOLDS, FAILS, OPEN, FASTER = Verdict.HOLDS, Verdict.FAILS, Verdict.UNDECIDED, Verdict.FASTER


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


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (-0.55, -0.45, HOLDS), (-0.9, -0.45, HOLDS), (-0.74, -0.69, FASTER), (-0.55, -0.3, OPEN), (-0.4, -0.3, FAILS),
        (-0.9, -0.3, OPEN), (np.nan, -0.5, OPEN), (-np.inf, -0.5, OPEN),
    ],
)  # fmt: skip
def test_an_upper_bound_is_judged_on_its_slow_side(low, high, verdict):
    assert bounded_by(low, high, (-0.58, -0.42)) is verdict


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


def test_half_widths_are_those_of_the_intervals():
    """Half-widths of standard errors are those of the intervals; one value has none, and neither has NaN."""
    samples = [np.random.default_rng(count).standard_normal(count) for count in (2, 5, 32)]
    halves = half_width([stats.sem(values) for values in samples], [len(values) for values in samples])
    found = [mean_interval(values) for values in samples]
    assert_allclose(halves, [(one.high - one.low) / 2 for one in found], rtol=1e-12)
    assert np.isnan(half_width(np.nan, 1))
    assert_allclose([standard_error(values) for values in samples], [stats.sem(values) for values in samples])
    assert np.isnan(standard_error(np.ones(1)))


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
    """The last ten of a hundred draws are infinite: so is the upper end, and the lower is a draw."""
    draws = np.array([*range(90), *[np.inf] * 10], dtype=float)
    low, high = percentiles(draws)
    assert low in draws
    assert high == np.inf


@pytest.mark.parametrize("statistic", ["median", "mean", "q90"])
def test_estimates_lie_in_the_middle_of_their_intervals(statistic):
    """Percentiles of a bootstrap leave a mean outside that one huge error moves: -1.18 [-1.16, -.80]."""
    rng = np.random.default_rng(4)
    errors = {n: n**-0.5 * np.exp(0.5 * rng.standard_normal(16)) for n in (1_000, 10_000, 100_000)}
    errors[1_000][0] = 1e5
    found = slope(errors, rng, statistic)
    assert found.low <= found.value <= found.high
    assert_allclose(found.high - found.value, found.value - found.low, rtol=1e-9)


def test_intervals_of_slopes_do_not_depend_on_the_generator():
    errors = {n: n**-0.5 * np.exp(np.random.default_rng(n).standard_normal(16)) for n in (1_000, 10_000)}
    one, other = (slope(errors, np.random.default_rng(seed)) for seed in (0, 1))
    assert (one.low, one.high) == (other.low, other.high)


@pytest.mark.parametrize("m", [2, 3, 5, 16, 17])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_variance_of_a_quantile_is_that_of_resampling(m, share):
    """Against 100 000 resamples: the variance of a variance is below 5 / draws here, four standard errors 3 %."""
    rng = np.random.default_rng(m)
    values = np.exp(0.7 * rng.standard_normal((3, m)))
    for one, found in zip(values, variance_of_log_quantile(values, share), strict=True):
        resampled = np.log(np.quantile(rng.choice(one, size=(100_000, m)), share, axis=1))
        assert found == pytest.approx(resampled.var(), rel=0.03)


def test_variance_of_the_median_of_many_is_known():
    """pi / 2 sigma^2 / m for normal logs; of 100 000 in a moment, their binomials beyond the largest number. The
    bootstrap's own estimate scatters by some m^(-1/4) / 2."""
    logs = 0.7 * np.random.default_rng(0).standard_normal((40, 10_000))
    found = variance_of_log_quantile(np.exp(logs), 0.5)
    assert found.mean() == pytest.approx(np.pi / 2 * 0.49 / 10_000, rel=0.05)
    assert variance_of_log_quantile(np.exp(0.7 * np.random.default_rng(1).standard_normal(100_000)), 0.5) > 0


def test_variance_of_a_mean_is_the_jackknifes():
    values = np.exp(np.random.default_rng(0).standard_normal(9))
    without = np.array([np.log(np.delete(values, one).mean()) for one in range(9)])
    assert_allclose(variance_of_log_mean(values), 8 / 9 * ((without - without.mean()) ** 2).sum(), rtol=1e-12)
    # A total less its largest value would be 0 in floating point.
    values = np.array([1.0, 2.0, 1e100])
    without = np.log([(2 + 1e100) / 2, 1e100 / 2, 1.5])
    assert_allclose(variance_of_log_mean(values), 2 / 3 * ((without - without.mean()) ** 2).sum(), rtol=1e-12)

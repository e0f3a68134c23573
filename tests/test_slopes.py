import numpy as np
import pytest
from numpy.testing import assert_allclose

from moe_prompts import InputError, Verdict, slope
from moe_prompts.slopes import n_to_reach, runaway_share

SIZES = (1000, 10_000, 100_000, 1_000_000)


def power_law(exponent, replicates, rng, noise=0.4):
    return {n: n**exponent * np.exp(noise * rng.standard_normal(replicates)) for n in SIZES}


def test_exact_power_law():
    found = slope({n: np.full(4, 3.0 * n**-0.25) for n in SIZES}, np.random.default_rng(0))
    assert_allclose([found.value, found.low, found.high], -0.25, atol=1e-12)
    assert_allclose(found.local, -0.25, atol=1e-12)
    assert_allclose(found.level, 3.0 * np.array(SIZES) ** -0.25)


@pytest.mark.parametrize("statistic", ["mean", "median"])
def test_interval_covers_the_exponent_about_as_often_as_it_says(statistic):
    rng = np.random.default_rng(1)
    trials = 200
    hits = 0
    for _ in range(trials):
        found = slope(power_law(-0.5, 16, rng), rng, statistic, resamples=200)
        hits += found.low <= -0.5 <= found.high
    # percentile intervals of 16 replicates undercover a little; four binomial standard errors below 85 %
    assert hits / trials > 0.85 - 4 * np.sqrt(0.85 * 0.15 / trials)
    assert hits / trials < 0.99


def test_verdict_rule():
    rng = np.random.default_rng(0)
    tight = slope(power_law(-0.5, 200, rng, noise=0.1), rng)
    assert tight.verdict(-0.5) is Verdict.HOLDS
    assert tight.verdict(-0.25) is Verdict.FAILS
    assert tight.verdict(-0.5 + 0.08) is Verdict.UNDECIDED  # the interval lies across the edge of the band


def test_no_verdict_from_too_little():
    rng = np.random.default_rng(0)
    few = slope({n: values[:4] for n, values in power_law(-0.5, 4, rng, noise=0.01).items()}, rng)
    assert few.verdict(-0.5) is Verdict.UNDECIDED
    near = slope({n: n**-0.5 * np.exp(0.01 * rng.standard_normal(50)) for n in (1000, 2000)}, rng)
    assert near.verdict(-0.25) is Verdict.UNDECIDED


def test_a_size_with_one_replicate_keeps_the_other_intervals():
    rng = np.random.default_rng(0)
    samples = power_law(-0.5, 20, rng, noise=0.05)
    samples[1_000_000] = np.array([1.0])  # far off the law
    found = slope(samples, rng)
    assert np.isnan(found.band[3]).all()
    assert np.isfinite(found.band[:3]).all()
    assert abs(found.value + 0.5) < 0.05
    assert found.replicates == 20


def test_missing_replicates():
    one = slope({1000: np.array([1.0]), 10_000: np.array([0.1])}, np.random.default_rng(0))
    assert_allclose(one.value, -1)
    assert np.isnan(one.low)
    assert one.verdict(-1.0) is Verdict.UNDECIDED
    nothing = slope({1000: np.array([])}, np.random.default_rng(0))
    assert np.isnan(nothing.value)


def test_failed_fits_must_be_left_out():
    with pytest.raises(InputError, match="not all positive and finite"):
        slope({1000: np.array([1.0, np.nan])}, np.random.default_rng(0))
    with pytest.raises(InputError, match="expected one of median, mean, q90"):
        slope({1000: np.array([1.0])}, np.random.default_rng(0), "mode")


def test_runaway_share():
    assert runaway_share(np.array([1.0, 1.0, 1.0, 100.0])) == 0.25


def test_n_to_reach():
    n = np.array([1e3, 1e4, 1e5])
    assert_allclose(n_to_reach(n, 1 / n, 1e-4), 1e4)
    assert_allclose(n_to_reach(n, 1 / n, 10**-4.5), 10**4.5)
    assert n_to_reach(n, 1 / n, 1e-6) == np.inf
    assert n_to_reach(n, 1 / n, 1.0) == 1e3
    assert_allclose(n_to_reach(n, np.array([1e-3, 1e-2, 1e-4]), 1e-3), 10**4.5)  # counts from where it stays below

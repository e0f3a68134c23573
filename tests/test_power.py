"""Power against the law of the slope where it is known, and against the verdicts of simulated runs one by one."""

import numpy as np
import pytest
from commands import call
from scipy.stats import norm

from moe_prompts import InputError, power
from moe_prompts.designs import nearest_wrong, replicates_needed
from moe_prompts.intervals import Verdict
from moe_prompts.slopes import slope

SIZES = [1_000, 10_000, 100_000]


def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("statistic", ["median", "mean", "q90"])
@pytest.mark.parametrize("bound", [False, True])
def test_equals_the_rule_of_slopes_applied_to_runs_one_by_one(statistic, bound):
    """Shares of 400 runs and of 1000 agree within four standard errors of their difference, .12 at most."""
    draws, verdicts, covered = np.random.default_rng(1), [], []
    for _ in range(400):
        samples = {n: np.exp(-0.5 * np.log(n) + 0.5 * draws.standard_normal(16)) for n in SIZES}
        found = slope(samples, draws, statistic, resamples=1)  # resamples are for levels alone
        verdicts.append(found.verdict(-0.45, bound=bound))
        covered.append(found.low <= -0.5 <= found.high)
    shares = power(SIZES, 16, 0.5, rng(), predicted=-0.45, true=-0.5, statistic=statistic, bound=bound)
    for verdict, share in {
        Verdict.HOLDS: shares.holds,
        Verdict.FAILS: shares.fails,
        Verdict.UNDECIDED: shares.undecided,
        Verdict.FASTER: shares.faster,
    }.items():
        assert share == pytest.approx(np.mean([v is verdict for v in verdicts]), abs=0.12)
    assert shares.covers == pytest.approx(np.mean(covered), abs=0.12)
    assert shares.holds + shares.fails + shares.undecided + shares.faster == pytest.approx(1)


@pytest.mark.parametrize("statistic", ["median", "mean"])
@pytest.mark.parametrize("scatter", [0.3, 0.8])
@pytest.mark.parametrize("sizes", [SIZES, [1_000, 5_623, 31_623, 177_828, 1_000_000]], ids=["3", "5"])
def test_intervals_cover_nine_times_of_ten(statistic, scatter, sizes):
    """With 16 replicates, median and mean, to two points: 10 000 simulated runs know a share to .003."""
    assert power(sizes, 16, scatter, rng(), statistic=statistic, simulations=10_000).covers == pytest.approx(
        0.9, abs=0.02
    )


def test_intervals_cover_scatter_that_is_skew():
    """Logs of squared normal numbers, as losses of one parameter have: within three points."""
    draws = np.random.default_rng(5)
    run = {n: draws.standard_normal(20_000) ** 2 / n for n in SIZES}
    for statistic in ("median", "mean"):
        found = power(SIZES, 16, run, rng(), -1.0, statistic=statistic, simulations=4_000)
        assert found.covers == pytest.approx(0.9, abs=0.03)


def test_known_law_of_the_mean_of_few_replicates():
    """For small scatter the slope of the mean is normal, sd = scatter / sqrt(R) / sqrt(sum of centred squares)."""
    scatter, R = 0.2, 64
    spread = np.sqrt(((np.log(SIZES) - np.log(SIZES).mean()) ** 2).sum())
    sd = scatter / np.sqrt(R) / spread
    half = norm.ppf(0.95) * sd
    band = 2.0 * half
    expected = 2 * norm.cdf((band - half) / sd) - 1
    found = power(SIZES, R, scatter, rng(), statistic="mean", band=band)
    assert found.holds == pytest.approx(expected, abs=0.08)  # three standard errors and the bootstrap's narrowness


def test_more_replicates_and_more_decades_decide_more():
    few, many = (power(SIZES, count, 0.8, rng()).holds for count in (16, 128))
    wide = power([1_000, 31_623, 1_000_000], 16, 0.8, rng()).holds
    assert few + 0.1 < many
    assert few < wide


def test_wrong_exponents_do_not_hold():
    for wrong in nearest_wrong(-0.5):
        assert power(SIZES, 32, 0.3, rng(), predicted=-0.5, true=wrong).holds == 0
        assert power(SIZES, 32, 0.3, rng(), predicted=-0.5, true=wrong).fails > 0.95


def test_scatter_of_a_run_is_its_residuals():
    """Errors of any level and unit have the scatter of their logs."""
    draws = np.random.default_rng(3)
    run = {n: 1e12 * n**-0.25 * np.exp(0.5 * draws.standard_normal(4000)) for n in SIZES}
    assert power(SIZES, 16, run, rng()).holds == pytest.approx(power(SIZES, 16, 0.5, rng()).holds, abs=0.1)
    assert power([500, 5_000_000], 16, run, rng()).holds > 0  # sizes that the run lacks borrow the nearest


def test_replicates_needed_reach_what_is_wanted(monkeypatch):
    needed = replicates_needed(SIZES, 0.5, rng())
    assert power(SIZES, needed, 0.5, rng()).holds > 0.7
    assert power(SIZES, needed // 2, 0.5, rng()).holds < 0.9
    monkeypatch.setattr("moe_prompts.designs.MOST", 16)  # as 1024 does, in a hundredth of the time
    assert replicates_needed([1_000, 5_000], 20.0, rng()) is None


def test_an_upper_bound_is_not_contradicted_by_a_faster_slope():
    two_sided, one_sided = (power(SIZES, 32, 0.3, rng(), true=-1.0, bound=bound) for bound in (False, True))
    assert two_sided.fails > 0.95
    assert two_sided.faster == 0
    assert one_sided.faster > 0.95
    assert power(SIZES, 32, 0.3, rng(), true=-0.25, bound=True).fails > 0.95


def test_designs_that_the_rule_does_not_judge_decide_nothing():
    assert power(SIZES, 4, 0.1, rng()).undecided == 1
    assert power([1_000, 2_000], 100, 0.1, rng()).undecided == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1_000], 16, 0.5), "at least two different sizes"),
        ((SIZES, 1, 0.5), "replicates = 1"),
        ((SIZES, 16, 0.0), "scatter = 0.0; expected a number"),
        ((SIZES, 16, {1_000: [1.0]}), "without two errors at any size"),
        ((SIZES, 16, {1_000: [1.0, -1.0]}), "not all positive and finite"),
    ],
)
def test_wrong_input_is_one_clear_line(arguments, message):
    with pytest.raises(InputError, match=message):
        power(*arguments, rng())


def test_the_command_prints_a_table_and_one_line_for_wrong_input(tmp_path):
    done = call("power.py", "--n", "1e3,1e4,1e5", "--scatter", ".3", "--replicates", "32", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "holds if true" in done.stdout
    for arguments, message in [
        (["--run", "nowhere"], "expected the folder of a finished run"),
        (["--run", "x", "--scatter", "1"], "expected no --scatter"),
        (["--run", "x", "--n", "1e3,1e4"], "--run brings its own n; expected no --n"),
        (["--run", "x", "--replicates", "4"], "expected no --replicates"),
        (["--column", "loss"], "--column loss without --run"),
        (["--n", "1e3"], "at least two different sizes"),
    ]:
        done = call("power.py", *arguments, cwd=tmp_path)
        assert done.returncode == 2
        assert message in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1

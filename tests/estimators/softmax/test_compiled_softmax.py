"""Compiled softmax passes against those in NumPy: ordinary sums, ends of blocks, separated gates, far logits."""

import numpy as np
import pytest
from commands import agree_when_compiled_and_loaded
from numpy.testing import assert_allclose, assert_array_equal

from moe_prompts import Sample, SoftmaxGatedFamily, compilation, softmax_newton
from moe_prompts.estimators.softmax.likelihood import KERNELS, SoftmaxLikelihood
from moe_prompts.estimators.trust_region import CollapseError
from moe_prompts.models.softmax_truths import softmax_sample, softmax_truth

loops = pytest.importorskip(KERNELS)
ROUTES = ("numpy", "compiled")


def both(monkeypatch, d, k, n, seed=0, gate_size=1.0):
    """The likelihood by both routes, and a point."""
    rng = np.random.default_rng([seed, d, k, n])
    data = Sample(rng.standard_normal((n, d)), rng.standard_normal((n, 1)))
    found = []
    for route in ROUTES:
        monkeypatch.setenv(compilation.VARIABLE, route)
        found.append(SoftmaxLikelihood(SoftmaxGatedFamily(d, k), data, min_points=0.0))
    q = d + 1
    theta = rng.standard_normal((k - 1) * q + k * q + k)
    theta[: (k - 1) * q] *= gate_size
    return *found, theta


def assert_same_derivatives(one, other, theta, size=1e-13):
    """Value and derivatives, to ``size`` of the largest sum of r u u', of which the Hessian is a difference."""
    largest = np.abs(other._compiled_sums(theta, exact=True)[2]).max()
    for plain, fast in zip(one.derivatives(theta), other.derivatives(theta), strict=True):
        assert_allclose(fast, plain, rtol=size, atol=size * largest)


def assert_same(one, other, theta, size=1e-12):
    """Value, derivatives and a step of EM, to ``size`` of the largest entry of each."""
    assert_same_derivatives(one, other, theta)
    for plain, fast in zip(one._step_sums(theta), other._step_sums(theta), strict=True):
        assert_allclose(fast, plain, rtol=0, atol=size * max(np.abs(plain).max(), 1.0))
    (value, step), (fast_value, fast_step) = one.em_step(theta), other.em_step(theta)
    assert fast_value == pytest.approx(value, rel=1e-13)
    # A step solves systems of condition up to 1e4.
    assert_allclose(fast_step, step, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_sums_are_those_of_numpy(monkeypatch, d, k):
    assert_same(*both(monkeypatch, d, k, 2 * loops.BLOCK + 17))


@pytest.mark.parametrize("n", [loops.BLOCK - 1, loops.BLOCK, loops.BLOCK + 1])
def test_ends_of_blocks(monkeypatch, n):
    assert_same(*both(monkeypatch, 1, 2, n))


@pytest.mark.parametrize("gate_size", [30.0, 200.0])
def test_gates_that_nearly_or_quite_separate(monkeypatch, gate_size):
    """Logits of hundreds: gates are 0 or 1 up to less than the least double."""
    assert_same_derivatives(*both(monkeypatch, 1, 3, 700, gate_size=gate_size))


def test_residuals_beyond_every_density(monkeypatch):
    """Noise so small that log densities are -1e8: the largest is taken out of each point first."""
    one, other, theta = both(monkeypatch, 1, 2, 300)
    theta[-2:] = np.log(1e-7)
    # Densities that differ by rounding of 1e8 shift what the two atoms share.
    assert_same_derivatives(one, other, theta, size=1e-12)


def test_what_is_no_number_collapses_on_both_routes(monkeypatch):
    one, other, theta = both(monkeypatch, 1, 2, 100)
    theta[0] = np.nan
    for likelihood in (one, other):
        with pytest.raises(CollapseError):
            likelihood.derivatives(theta)
        with pytest.raises(CollapseError):
            likelihood.em_step(theta)
    theta[0] = 1e300  # products with it overflow
    for likelihood in (one, other):
        with np.errstate(all="ignore"), pytest.raises(CollapseError):
            likelihood.derivatives(theta * 1e9)


def test_fits_end_on_the_same_maximum(monkeypatch):
    """Certified fits agree to 1e-9 of the log-likelihood, whatever the route."""
    truth = softmax_truth("sgame")
    for seed in range(4):
        data, fits = softmax_sample("sgame", 1000, seed, 0), []
        for route in ROUTES:
            monkeypatch.setenv(compilation.VARIABLE, route)
            fits.append(softmax_newton(truth.family(2), data, truth.params))
        assert fits[0].status is fits[1].status
        assert fits[1].log_likelihood == pytest.approx(fits[0].log_likelihood, rel=1e-9)
        assert fits[0].passes == fits[1].passes


def test_order_in_memory_changes_nothing(monkeypatch):
    monkeypatch.setenv(compilation.VARIABLE, "compiled")
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((400, 2)), rng.standard_normal((400, 2))
    family, theta = SoftmaxGatedFamily(2, 2), rng.standard_normal(11)
    # Means are summed in another order where memory lies otherwise, so the points are standardised beforehand.
    one, other = (SoftmaxLikelihood(family, Sample(points, y[:, :1])) for points in (x, np.asfortranarray(x)))
    other.X = one.X
    for a, b in zip(one.derivatives(theta), other.derivatives(theta), strict=True):
        assert_array_equal(a, b)


SUMS = """
import hashlib, numpy as np
from moe_prompts import Sample, SoftmaxGatedFamily
from moe_prompts.estimators.softmax.likelihood import SoftmaxLikelihood
rng, said = np.random.default_rng(0), hashlib.sha256()
likelihood = SoftmaxLikelihood(SoftmaxGatedFamily(1, 3), Sample(*rng.standard_normal((2, 1300, 1))))
theta = rng.standard_normal(13)
for part in (*likelihood.derivatives(theta), *likelihood.em_step(theta)):
    said.update(np.asarray(part).tobytes())
print(said.hexdigest())
"""


@pytest.mark.slow
def test_a_process_that_compiles_and_one_that_loads_agree_to_the_last_bit(tmp_path):
    agree_when_compiled_and_loaded(SUMS, tmp_path)

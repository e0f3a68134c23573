"""Sums over chunks against exact ones, and fits of a streamed sample against those of the same sample in memory."""

import math

import numpy as np
import pytest
from cases import FAMILIES, member
from numpy.testing import assert_allclose, assert_array_equal

from moe_prompts import (
    EMOptions,
    FitStatus,
    InputError,
    LeastSquaresOptions,
    NewtonOptions,
    Sample,
    StreamedSample,
    best_of,
    em,
    least_squares,
    near_truth,
    newton,
    prompt_data,
    prompt_truth,
    sample,
    starts,
    streamed,
    truth,
)
from moe_prompts.estimators.gaussian.chart import Chart
from moe_prompts.estimators.gaussian.compression import compress
from moe_prompts.estimators.gaussian.moments import DataPasses
from moe_prompts.estimators.gaussian.monomials import Monomials
from moe_prompts.estimators.gaussian.streaming import StreamedPasses, compensated_sum, passes_of
from moe_prompts.study import gaussian
from moe_prompts.study.softmax import softmax_study

#: What the streamed fit must share with the one in memory, relative to the size of each array of parameters.
EQUAL = 1e-10
FIELDS = ("weights", "gate_means", "gate_covs", "slopes", "intercepts", "noise_covs")


def in_chunks(data, chunk):
    draw = lambda size: (Sample(data.x[a : a + size], data.y[a : a + size]) for a in range(0, data.n, size))
    return StreamedSample(draw, data.n, data.d, data.l, chunk)


# Sums ---------------------------------------------------------------------------------------------------------------


def test_compensated_sum_keeps_what_a_plain_sum_loses():
    terms = [np.array([1.0, 1.0]), np.array([1e100, 1e-3]), np.array([1.0, 2.0]), np.array([-1e100, 3.0])]
    assert_array_equal(compensated_sum(terms), [2.0, 6.001])
    assert sum(terms)[0] == 0


def test_compensated_sum_of_many_terms_is_the_exact_one():
    """To one rounding, where a plain sum of these is off by many. Oracle: math.fsum."""
    rng = np.random.default_rng(0)
    terms = rng.standard_normal((5_000, 3)) * 10.0 ** rng.integers(-8, 9, (5_000, 3))
    exact = np.array([math.fsum(column) for column in terms.T])
    off = np.abs(compensated_sum(terms) - exact) / np.spacing(np.abs(exact))
    assert off.max() <= 1
    assert (np.abs(terms.cumsum(axis=0)[-1] - exact) / np.spacing(np.abs(exact))).max() > 10
    with pytest.raises(InputError, match="no terms"):
        compensated_sum([])


@pytest.mark.parametrize("name", ["affine", "affine beside frozen", "constant beside frozen", "affine, d = 2"])
def test_sums_over_chunks_are_those_of_extended_precision(name):
    """L, S and Q at n = 2001 in chunks of 400, the last of one pair. Oracle: long double, one exact sum at the end.

    A term of either sum is known to a few eps of the largest term that it was made of; the sums of the moduli bound it.
    """
    family = FAMILIES[name]
    data = member(family, 0).sample(2001, np.random.default_rng(1))
    passes = StreamedPasses(family, in_chunks(data, 400))
    params = passes.scale.inward(member(family, 2))
    chart = Chart(family)
    W, log_frozen_mass = chart.coefficients(chart.atoms(chart.theta_of(params)))
    z = np.concatenate(
        [
            (data.y - passes.scale.shift_y) / passes.scale.scale_y,
            (data.x - passes.scale.shift_x) / passes.scale.scale_x,
        ],
        axis=1,
    ).astype(np.longdouble)
    logs = joint_logs(params, z)
    density = np.exp(logs).sum(axis=1)
    r = (np.exp(logs) / density[:, None])[:, : family.k]
    pairs = Monomials.of(z.shape[1]).pairs
    h = np.concatenate([np.ones((len(z), 1)), z], axis=1)
    phi = h[:, pairs[:, 0]] * h[:, pairs[:, 1]]
    products = np.eye(family.k) * r[:, :, None] - r[:, :, None] * r[:, None]
    L, S, Q = passes.e2(W, log_frozen_mass)
    assert_allclose(L, math.fsum(np.log(density).astype(float)), rtol=1e-13)
    assert_allclose(S, np.einsum("nk,np->kp", r, phi).astype(float), atol=1e-12 * float(np.abs(phi).sum(axis=0).max()))
    exact = np.einsum("nkj,np,nq->kjpq", products, phi, phi).astype(float)
    assert_allclose(Q, exact, atol=1e-12 * float((phi**2).sum(axis=0).max()))
    again, S_again = passes.e1(W, log_frozen_mass)
    assert_allclose(again, L, rtol=1e-14)
    assert_allclose(S_again, S, rtol=1e-13, atol=1e-12)
    assert vars(passes.counts) == {"e1": 1, "e2": 1}


def joint_logs(params, z):
    """log pi_k N(z; mu_k, Sigma_k) (n, k), z = (y, x), in the precision of z. With long double there is no LAPACK: the
    expert's and the gate's factors, both by the textbook formula for up to two columns."""
    l = params.l
    y, x = z[:, :l], z[:, l:]
    columns = []
    for k in range(params.k):
        residual = y - x @ params.slopes[k].T.astype(z.dtype) - params.intercepts[k]
        gate = log_normal(x - params.gate_means[k], params.gate_covs[k])
        columns.append(np.log(z.dtype.type(params.weights[k])) + gate + log_normal(residual, params.noise_covs[k]))
    return np.stack(columns, axis=1)


def log_normal(e, cov):
    cov, log_2pi = cov.astype(e.dtype), np.log(8 * np.arctan(e.dtype.type(1)))
    if len(cov) == 1:
        return -(log_2pi + np.log(cov[0, 0]) + e[:, 0] ** 2 / cov[0, 0]) / 2
    determinant = cov[0, 0] * cov[1, 1] - cov[0, 1] * cov[1, 0]
    square = cov[1, 1] * e[:, 0] ** 2 - 2 * cov[0, 1] * e[:, 0] * e[:, 1] + cov[0, 0] * e[:, 1] ** 2
    return -(2 * log_2pi + np.log(determinant) + square / determinant) / 2


# Fits ---------------------------------------------------------------------------------------------------------------


def assert_same_fit(got, expected):
    """Path, parameters, log-likelihood and certificate; gaps are in nats, curvatures in units of complete data."""
    assert (got.status, got.iterations, got.passes) == (expected.status, expected.iterations, expected.passes)
    for field in FIELDS:
        value = getattr(expected.value, field)
        assert_allclose(getattr(got.value, field), value, rtol=0, atol=EQUAL * np.abs(value).max())
    assert_allclose(got.log_likelihood, expected.log_likelihood, rtol=EQUAL)
    assert_allclose(got.certificate.gap_nats, expected.certificate.gap_nats, rtol=0, atol=EQUAL)
    assert_allclose(got.certificate.relative_lmin, expected.certificate.relative_lmin, rtol=0, atol=EQUAL)


@pytest.mark.parametrize(
    ("name", "experts", "k", "n", "chunk"),
    [
        ("prompts-adaptive", "affine", 2, 20_001, 1000),  # the last chunk is one pair, less than one for each atom
        ("prompts-adaptive", "affine", 2, 60_007, 9_999),  # compressed
        ("prompts-fixed", "constant", 3, 60_007, 9_999),
        ("gmoe-1", "affine", 4, 60_007, 9_999),
        ("gmoe-3", "affine", 3, 5_003, 700),  # d = 2, never compressed
    ],
)
def test_streamed_fit_is_the_fit_in_memory(name, experts, k, n, chunk):
    known = truth(name)
    family = known.family_with(k, experts)
    held, source = sample(name, n, seed=1), streamed(name, n, seed=1, chunk=chunk)
    start = starts.near_truth(known.params, known.k_true).draw(family, held, np.random.default_rng(2))
    expected, got = newton(family, held, start), newton(family, source, start)
    assert expected.certified
    assert ("compressed_e2" in got.passes) == (n >= 50_000)
    assert_same_fit(got, expected)


def test_flat_maxima_agree_once_rounding_alone_is_left():
    """Over-specified: within 1e-6 nats the point is a matter of rounding; one more step of Newton settles it."""
    known, polish = truth("gmoe-1"), NewtonOptions(gap_tolerance=1e-18)
    family = known.family_with(5, "affine")
    held, source = sample("gmoe-1", 60_007, seed=0), streamed("gmoe-1", 60_007, seed=0, chunk=20_000)
    start = starts.near_truth(known.params, known.k_true).draw(family, held, np.random.default_rng(0))
    got, expected = newton(family, source, start, polish), newton(family, held, start, polish)
    assert expected.certificate.relative_lmin < 1e-2
    assert max(got.certificate.gap_nats, expected.certificate.gap_nats) < 1e-15
    for field in FIELDS:
        value = getattr(expected.value, field)
        assert_allclose(getattr(got.value, field), value, rtol=0, atol=EQUAL * np.abs(value).max())


def test_search_from_data_and_em_are_the_same_too():
    known = truth("prompts-adaptive")
    held, source = sample("prompts-adaptive", 11_003, seed=4), streamed("prompts-adaptive", 11_003, seed=4, chunk=2_000)
    rng_of = lambda number: np.random.default_rng([5, number])
    expected, got = (best_of(known.family, data, starts.data(2), rng_of) for data in (held, source))
    assert (got.starts, got.share) == (expected.starts, expected.share)
    assert_same_fit(got.best, expected.best)
    options = EMOptions(max_iterations=30)
    assert_same_fit(*(em(known.family, data, known.params, options) for data in (source, held)))


@pytest.mark.parametrize("name", ["prompts-adaptive", "gmoe-1"])
def test_compression_of_chunks_is_that_of_the_whole(name):
    """Each cell's sums, whenever its points arrive; rounding of the cells' corners moves nodes by some ulp."""
    nodes, weights = compress(sample(name, 80_003, 0))
    got, got_weights = compress(streamed(name, 80_003, 0, chunk=5_000))
    assert_allclose(np.concatenate([got.x, got.y]), np.concatenate([nodes.x, nodes.y]), rtol=0, atol=1e-13)
    assert_allclose(got_weights, weights, rtol=0, atol=1e-12 * np.abs(weights).max())


def test_study_streams_large_samples_to_the_same_rows(monkeypatch):
    cell = gaussian.GaussianCell("prompts-adaptive", "adaptive", 2, 12_345, "data", 2)
    (expected,) = gaussian.run_cell(cell, (1,), 0)
    monkeypatch.setattr(gaussian, "HELD_PAIRS", 12_344)
    monkeypatch.setattr(gaussian, "sample", None)
    gaussian._data.cache_clear()
    (got,) = gaussian.run_cell(cell, (1,), 0)
    gaussian._data.cache_clear()
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, float) and name not in ("gap_nats", "relative_lmin"):
            # errors are differences of parameters near 1, and known as well as those
            assert_allclose(got[name], value, rtol=EQUAL, atol=EQUAL)
        elif not isinstance(value, float):
            assert got[name] == value


def test_what_streams_do_not_take():
    family, source = truth("gmoe-1").family, streamed("gmoe-1", 1000, 0, chunk=100)
    with pytest.raises(InputError, match="weights for a StreamedSample of n = 1000"):
        newton(family, source, truth("gmoe-1").params, weights=np.ones(1000))
    with pytest.raises(InputError, match="data have d = 1 inputs"):
        passes_of(FAMILIES["affine, d = 2"], source)
    with pytest.raises(InputError, match="n = 2 pairs for k = 3 atoms"):
        passes_of(family, streamed("gmoe-1", 2, 0))
    flat = in_chunks(Sample(np.ones((50, 1)), np.arange(50.0)[:, None]), 8)
    with pytest.raises(InputError, match="column 0 of x is constant"):
        passes_of(family, flat)
    assert isinstance(passes_of(family, source.held()), DataPasses)


def test_fewer_pairs_than_parameters_is_a_status():
    fit = newton(truth("gmoe-1").family, streamed("gmoe-1", 12, 0, chunk=5), truth("gmoe-1").params)
    assert fit.status is FitStatus.TOO_FEW_POINTS


# Other models -------------------------------------------------------------------------------------------------------


def test_attention_takes_any_n_as_the_statistics_of_its_design():
    """n = 1e8 pairs are 256 counts and sums: as fast as any n, and as exact."""
    known, data = prompt_truth("attention-fixed"), prompt_data("attention-fixed", 10**8, seed=0)
    assert (data.n, data.weights.sum(), len(data.x)) == (10**8, 10**8, 256)
    # sums of outputs against their mean: noise .1 sqrt(count), a chi-square of 512 with sd sqrt(2 / 512) about 1
    errors = (data.sums - data.weights[:, None] * known.params.regression(data.x)) / np.sqrt(data.weights)[:, None]
    assert abs((errors**2).mean() / known.noise**2 - 1) < 5 * math.sqrt(2 / errors.size)
    start = near_truth(known.params, 2, 0, np.random.default_rng(1))
    (fit,) = least_squares(known.params.family, [data], [np.array([start])], known.noise, LeastSquaresOptions())
    assert fit.best.certified


def test_softmax_study_refuses_what_it_would_hold():
    with pytest.raises(InputError, match="n = 100000000: softmax-gated fits hold all pairs in memory, at most 1000000"):
        softmax_study(sizes=[1000, 10**8], replicates=1, entropy=0)


@pytest.mark.slow
def test_memory_does_not_grow_with_n():
    """A fit of 4e6 pairs, of which sample and layout alone would be 350 MB, in less than 250 MB with Python itself."""
    import subprocess
    import sys

    code = (
        "from moe_prompts.study.gaussian import GaussianCell, run_cell\n"
        "(row,) = run_cell(GaussianCell('prompts-adaptive', 'adaptive', 2, 4_000_000, 'data', 2), (0,), 0)\n"
        # Not ru_maxrss: it begins with the memory of the process that this one was started from.
        "(peak,) = [line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM:')]\n"
        "print(row['status'], int(peak) / 1024)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    status, peak = done.stdout.split()
    assert status == "CERTIFIED"
    assert float(peak) < 250

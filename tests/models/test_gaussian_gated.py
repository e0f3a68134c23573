import numpy as np
import pytest
from cases import FAMILIES, member, random_params
from numpy.testing import assert_allclose
from oracles import component_densities
from scipy.special import logsumexp

from moe_prompts import GaussianGatedFamily, GaussianGatedMoE, InputError, Sample

FOUR_SIGMA = 4.0  # two-sided probability 6e-5 that a correct sampler fails


@pytest.fixture(params=[(1, 1, 3), (2, 1, 2), (2, 3, 4)], ids=lambda p: f"d={p[0]},l={p[1]},k={p[2]}")
def params(request):
    d, l, k = request.param
    return random_params(np.random.default_rng(7), k, d, l)


@pytest.fixture
def points(params):
    return params.sample(20, np.random.default_rng(3))


def test_log_density_equals_enumeration(params, points):
    expected = np.log(component_densities(params, *points).sum(axis=1))
    assert_allclose(params.log_density(*points), expected, rtol=1e-10)


def test_responsibilities_equal_enumeration(params, points):
    table = component_densities(params, *points)
    assert_allclose(params.responsibilities(*points), table / table.sum(axis=1, keepdims=True), rtol=1e-9, atol=1e-14)


def test_regression_is_the_conditional_mean_by_quadrature():
    params = random_params(np.random.default_rng(7), 3, 1, 1)
    y = np.linspace(-30, 30, 20_001)
    for x in (-1.0, 0.3, 2.0):
        marginal = np.logaddexp.reduce(params.log_gate_terms([[x]]), axis=1)
        density = np.exp(params.log_density(np.full_like(y, x), y) - marginal)
        assert_allclose(density.sum() * (y[1] - y[0]), 1, rtol=1e-10)
        assert_allclose(params.regression([[x]])[0, 0], (y * density).sum() * (y[1] - y[0]), rtol=1e-9)


def test_joint_mixture_round_trip_and_density(params, points):
    weights, means, covs = params.to_joint()
    back = GaussianGatedMoE.from_joint(weights, means, covs, params.d)
    for name in ("weights", "gate_means", "gate_covs", "slopes", "intercepts", "noise_covs"):
        assert_allclose(getattr(back, name), getattr(params, name), rtol=1e-9, atol=1e-12)
    z = np.concatenate([points.x, points.y], axis=1)
    from scipy.stats import multivariate_normal

    joint = sum(w * multivariate_normal(m, c).pdf(z) for w, m, c in zip(weights, means, covs, strict=True))
    assert_allclose(np.exp(params.log_density(*points)), joint, rtol=1e-9)


def test_sample_has_the_mixture_moments(params):
    n = 200_000
    sample = params.sample(n, np.random.default_rng(0))
    z = np.concatenate([sample.x, sample.y], axis=1)
    weights, means, covs = params.to_joint()
    mean = weights @ means
    cov = np.einsum("k,kij->ij", weights, covs + np.einsum("ki,kj->kij", means - mean, means - mean))
    assert (np.abs(z.mean(axis=0) - mean) < FOUR_SIGMA * np.sqrt(np.diag(cov) / n)).all()
    centred = z - mean
    products = np.einsum("ni,nj->nij", centred, centred)
    assert (np.abs(products.mean(axis=0) - cov) < FOUR_SIGMA * products.std(axis=0) / np.sqrt(n)).all()


def test_rescaled_is_the_law_of_the_rescaled_data(params, points):
    shift_x, scale_x = np.arange(1.0, params.d + 1), 0.5 + np.arange(params.d)
    shift_y, scale_y = -np.ones(params.l), 2.0 + np.arange(params.l)
    moved = params.rescaled(shift_x, scale_x, shift_y, scale_y)
    volume = np.log(scale_x).sum() + np.log(scale_y).sum()
    there = moved.log_density((points.x - shift_x) / scale_x, (points.y - shift_y) / scale_y)
    assert_allclose(there - volume, params.log_density(*points), rtol=1e-9)


@pytest.mark.parametrize("name", FAMILIES)
def test_projection_keeps_mean_and_variance_of_y_and_is_idempotent(name):
    family = FAMILIES[name]
    start = random_params(np.random.default_rng(5), family.k, family.d, family.l)
    inside = family.project(start)
    again = family.project(inside)
    for field in ("weights", "gate_means", "gate_covs", "slopes", "intercepts", "noise_covs"):
        assert_allclose(getattr(again, field), getattr(inside, field), rtol=1e-12, atol=1e-12)
    if not family.tied_gate:
        free = np.arange(family.k)
        _, means, covs = inside.atoms(free).to_joint()
        _, wanted_means, wanted_covs = start.to_joint()
        assert_allclose(means, wanted_means, rtol=1e-12)
        assert_allclose(covs[:, family.d :, family.d :], wanted_covs[:, family.d :, family.d :], rtol=1e-12)
    assert inside.k == family.k + family.n_frozen
    assert family.experts == "affine" or not inside.slopes[: family.k].any()


def good() -> dict:
    return {
        name: getattr(member(FAMILIES["affine"], 0), name).copy()
        for name in ("weights", "gate_means", "gate_covs", "slopes", "intercepts", "noise_covs")
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": np.array([0.5, 0.2, 0.2])}, "sum to 0.9; expected positive numbers with sum 1"),
        ({"weights": np.array([1.2, -0.1, -0.1])}, "expected positive numbers"),
        ({"gate_means": np.zeros((2, 1))}, r"gate_means has shape \(2, 1\); expected \(3, 1\)"),
        ({"slopes": np.zeros((3, 1, 2))}, "slopes has shape"),
        ({"weights": np.ones((3, 1)) / 3}, r"expected \(k,\), \(k, d\), \(k, l\)"),
        (
            {"noise_covs": np.array([[[0.1]], [[-0.1]], [[0.2]]])},
            r"noise_covs\[1\] has smallest eigenvalue -0.1",
        ),
        ({"intercepts": np.array([[0.0], [np.nan], [0.0]])}, "intercepts has NaN"),
    ],
)
def test_bad_parameters_get_one_clear_error(change, message):
    with pytest.raises(InputError, match=message):
        GaussianGatedMoE(**{**good(), **change})


def test_asymmetric_covariance_is_refused():
    params = random_params(np.random.default_rng(0), 1, 2, 1)
    covs = params.gate_covs.copy()
    covs[0, 0, 1] += 0.1
    with pytest.raises(InputError, match="asymmetric"):
        GaussianGatedMoE([1.0], params.gate_means, covs, params.slopes, params.intercepts, params.noise_covs)


def test_parameters_cannot_be_changed_in_place():
    params = member(FAMILIES["affine"], 0)
    with pytest.raises(ValueError, match="read-only"):
        params.weights[0] = 0.5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GaussianGatedFamily(1, 1, 0), "k = 0; expected a whole number of at least 1"),
        (lambda: GaussianGatedFamily(1, 1, 2, "linear"), "expected 'affine' or 'constant'"),
        (
            lambda: GaussianGatedFamily(2, 1, 2, frozen=FAMILIES["affine beside frozen"].frozen),
            "frozen atoms have d = 1",
        ),
        (lambda: Sample([[0.0], [np.nan]], [[0.0], [1.0]]), "x has 1 rows with NaN"),
        (lambda: Sample([[0.0], [1.0]], [[0.0]]), "x has 2 rows and y has 1"),
        (lambda: member(FAMILIES["affine"], 0).sample(0, np.random.default_rng(0)), "n = 0"),
        (
            lambda: FAMILIES["affine"].project(member(FAMILIES["affine, d = 2"], 0)),
            "start has 2 atoms with d = 2",
        ),
        (lambda: member(FAMILIES["affine, d = 2"], 0).regression([[0.0]]), r"x has shape \(1, 1\); expected \(n, 2\)"),
        (lambda: member(FAMILIES["affine"], 0).regression([[np.nan]]), "x has NaN"),
        (lambda: member(FAMILIES["affine, l = 2"], 0).log_density(np.zeros(5), np.zeros(5)), r"y has shape \(5, 1\)"),
        (lambda: GaussianGatedMoE.from_joint([1.0], [[0.0, 0.0]], [[[1.0]]], 1), "from_joint"),
    ],
)
def test_bad_input_gets_one_clear_error(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_a_pair_that_no_atom_reaches_has_no_density():
    """Log densities of -1e378 are -inf, and their sum is -inf, not NaN."""
    params = GaussianGatedMoE.univariate([0.5, 0.5], [-1, 1], [1e-100, 1e-100], [1, -1], [0, 0], [0.1, 0.1])
    with np.errstate(over="ignore"):
        assert params.log_density([[1e139]], [[0.0]]) == [-np.inf]
    near = params.log_density([[1.0], [-1.0 + 1e-51]], [[0.0], [0.3]])
    terms = params.log_gate_terms(np.array([[1.0], [-1.0 + 1e-51]])) + params.log_expert_terms(
        np.array([[1.0], [-1.0 + 1e-51]]), np.array([[0.0], [0.3]])
    )
    assert_allclose(near, logsumexp(terms, axis=1), rtol=1e-14)

"""The passes against enumeration, the derivatives against finite differences, for every family in the table."""

import numpy as np
import pytest
from cases import FAMILIES, member, random_params
from numpy.testing import assert_allclose
from oracles import component_densities, numeric_gradient

from moe_prompts import InputError, Sample, compilation
from moe_prompts.estimators.gaussian.chart import Chart
from moe_prompts.estimators.gaussian.moments import DataPasses


@pytest.fixture(params=compilation.ROUTES, autouse=True)
def route(request, monkeypatch):
    monkeypatch.setenv(compilation.VARIABLE, request.param)


@pytest.fixture(params=FAMILIES, ids=lambda name: name)
def case(request, route):
    family = FAMILIES[request.param]
    rng = np.random.default_rng(11)
    data = random_params(rng, 3, family.d, family.l).sample(300, rng)
    passes = DataPasses(family, data, weights=rng.uniform(0.5, 2.0, data.n))
    chart = Chart(family)
    params = passes.scale.inward(member(family, 2))
    return passes, chart, params, chart.theta_of(params)


def standardised(passes):
    scale = passes.scale
    x, y = passes.sample
    return (x - scale.shift_x) / scale.scale_x, (y - scale.shift_y) / scale.scale_y


def test_e_step_equals_enumeration(case):
    passes, chart, params, theta = case
    value, S = passes.e1(*chart.coefficients(chart.atoms(theta)))
    x, y = standardised(passes)
    table = component_densities(params, x, y)
    assert_allclose(value, passes.weights @ np.log(table.sum(axis=1)), rtol=1e-10)
    r = passes.weights[:, None] * (table / table.sum(axis=1, keepdims=True))[:, : passes.family.k]
    h = np.concatenate([np.ones((len(x), 1)), y, x], axis=1)
    pairs = passes.monomials.pairs
    assert_allclose(S, r.T @ (h[:, pairs[:, 0]] * h[:, pairs[:, 1]]), rtol=1e-9, atol=1e-9)


def test_second_pass_agrees_with_the_first_and_with_enumeration(case):
    passes, chart, params, theta = case
    coefficients = chart.coefficients(chart.atoms(theta))
    value, S, Q = passes.e2(*coefficients)
    first_value, first_S = passes.e1(*coefficients)
    assert_allclose(value, first_value, rtol=1e-13)
    assert_allclose(S, first_S, rtol=1e-12, atol=1e-10)
    x, y = standardised(passes)
    table = component_densities(params, x, y)
    r = (table / table.sum(axis=1, keepdims=True))[:, : passes.family.k]
    h = np.concatenate([np.ones((len(x), 1)), y, x], axis=1)
    phi = h[:, passes.monomials.pairs[:, 0]] * h[:, passes.monomials.pairs[:, 1]]
    missing = np.einsum("nk,kj->nkj", r, np.eye(r.shape[1])) - r[:, :, None] * r[:, None, :]
    expected = np.einsum("n,nkj,np,nq->kjpq", passes.weights, missing, phi, phi, optimize=True)
    assert_allclose(Q, expected, rtol=1e-8, atol=1e-8)


def test_chart_round_trip_and_size(case):
    passes, chart, params, theta = case
    assert chart.p == passes.family.n_parameters == len(theta)
    back = chart.params_of(theta, passes.frozen)
    for name in ("weights", "gate_means", "gate_covs", "slopes", "intercepts", "noise_covs"):
        assert_allclose(getattr(back, name), getattr(params, name), rtol=1e-9, atol=1e-12)


def test_gradient_and_hessian_equal_finite_differences(case):
    passes, chart, _, theta = case

    def value(at):
        return passes.e1(*chart.coefficients(chart.atoms(at)))[0]

    def gradient(at):
        atoms = chart.atoms(at)
        return chart.curvature(atoms, *passes.e2(*chart.coefficients(atoms))[1:], passes.total)[0]

    atoms = chart.atoms(theta)
    g, H, information = chart.curvature(atoms, *passes.e2(*chart.coefficients(atoms))[1:], passes.total)
    # central differences with step 1e-5: truncation ~ 1e-10, rounding ~ 1e-16 * |L| / 1e-5 ~ 1e-8, relative to |g|, |H|
    assert np.abs(g - numeric_gradient(value, theta, 1e-5)).max() < 1e-6 * np.abs(g).max()
    assert np.abs(H - numeric_gradient(gradient, theta, 1e-5)).max() < 1e-6 * np.abs(H).max()
    assert_allclose(H, H.T, rtol=1e-9, atol=1e-9 * np.abs(H).max())
    assert np.linalg.eigvalsh(information)[0] > 0


def test_weights_count_points():
    family = FAMILIES["affine"]
    data = member(family, 0).sample(50, np.random.default_rng(0))
    counts = np.random.default_rng(1).integers(1, 4, 50)
    repeated = Sample(np.repeat(data.x, counts, axis=0), np.repeat(data.y, counts, axis=0))
    chart = Chart(family)
    weighted, plain = DataPasses(family, data, counts.astype(float)), DataPasses(family, repeated)
    theta = chart.theta_of(plain.scale.inward(member(family, 2)))
    coefficients = chart.coefficients(chart.atoms(theta))
    for a, b in zip(weighted.e2(*coefficients), plain.e2(*coefficients), strict=True):
        assert_allclose(a, b, rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize("frozen", [False, True])
def test_points_far_from_every_atom_do_not_underflow(frozen):
    family = FAMILIES["affine beside frozen" if frozen else "affine"]
    params = member(family, 0)
    data = params.sample(2000, np.random.default_rng(0))
    x, y = data.x.copy(), data.y.copy()
    y[0] += 1000 * y.std()  # about 1e6 nats below its neighbours in standardised units
    passes, chart = DataPasses(family, Sample(x, y)), Chart(family)
    coefficients = chart.coefficients(chart.atoms(chart.theta_of(passes.scale.inward(params))))
    expected = params.log_density(x, y).sum() + passes.total * passes.scale.log_volume
    assert_allclose(passes.e1(*coefficients)[0], expected, rtol=1e-10)
    assert_allclose(passes.e2(*coefficients)[0], expected, rtol=1e-10)


@pytest.mark.parametrize(
    ("data", "weights", "message"),
    [
        (
            Sample(np.zeros((20, 1)), np.random.default_rng(0).random((20, 1))),
            None,
            "column 0 of x is constant",
        ),
        (Sample(np.random.default_rng(0).random((2, 1)), np.zeros((2, 1))), None, "n = 2 pairs for k = 3"),
        (Sample(np.random.default_rng(0).random((9, 2)), np.zeros((9, 1))), None, "expects d = 1, l = 1"),
        (Sample(*np.random.default_rng(0).random((2, 9, 1))), np.ones(3), r"weights \(3,\): expected \(9,\)"),
    ],
)
def test_bad_data_get_one_clear_error(data, weights, message):
    with pytest.raises(InputError, match=message):
        DataPasses(FAMILIES["affine"], data, weights)

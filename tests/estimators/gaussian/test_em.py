import warnings

import numpy as np
import pytest
from cases import FAMILIES, member
from numpy.testing import assert_allclose

from moe_prompts import EMOptions, FitStatus, GaussianGatedFamily, InputError, em, newton, truth
from moe_prompts.estimators.gaussian.em import m_step
from moe_prompts.estimators.gaussian.moments import DataPasses


@pytest.mark.parametrize("name", FAMILIES)
def test_em_never_descends_beyond_rounding(name):
    family = FAMILIES[name]
    data = member(family, 0).sample(800, np.random.default_rng(1))
    fit = em(family, data, member(family, 3), EMOptions(max_iterations=60, certify=False))
    path = np.array(fit.history["log_likelihood"])
    assert len(path) > 20
    assert np.diff(path).min() > -1e-12 * np.abs(path).max()  # n terms of size |L| / n, summed in double precision


@pytest.mark.parametrize("name", FAMILIES)
def test_m_step_maximises_the_expected_complete_likelihood(name):
    """No admissible small change of the M-step's answer does better, judged by enumeration over the points."""
    family = FAMILIES[name]
    rng = np.random.default_rng(4)
    data = member(family, 0).sample(200, rng)
    passes = DataPasses(family, data)
    x, y = (
        (data.x - passes.scale.shift_x) / passes.scale.scale_x,
        (data.y - passes.scale.shift_y) / passes.scale.scale_y,
    )
    current = passes.scale.inward(member(family, 0))
    r = current.responsibilities(x, y)
    h = np.concatenate([np.ones((len(x), 1)), y, x], axis=1)
    pairs = passes.monomials.pairs
    best = m_step(passes, r[:, : family.k].T @ (h[:, pairs[:, 0]] * h[:, pairs[:, 1]]))

    def expected(params):
        return (r * (params.log_gate_terms(x) + params.log_expert_terms(x, y))).sum()

    from moe_prompts.estimators.gaussian.chart import Chart

    chart = Chart(family)
    theta = chart.theta_of(best)
    top = expected(best)
    for direction in rng.standard_normal((30, chart.p)):
        for size in (1e-3, 1e-1):
            assert expected(chart.params_of(theta + size * direction, passes.frozen)) <= top + 1e-9 * abs(top)


def test_em_and_newton_certify_the_same_maximum():
    known = truth("gmoe-1")
    data = known.params.sample(2000, np.random.default_rng(0))
    slow = em(known.family, data, known.params)
    fast = newton(known.family, data, known.params)
    assert slow.status is fast.status is FitStatus.CERTIFIED
    assert abs(slow.log_likelihood - fast.log_likelihood) < 2e-6  # the certificate's own gap, twice


def test_em_agrees_with_scikit_learn_step_by_step_and_at_the_optimum():
    mixture = pytest.importorskip("sklearn.mixture")
    family = GaussianGatedFamily(1, 1, 3)
    known, start = member(family, 0), member(family, 3)
    data = known.sample(1500, np.random.default_rng(2))
    z = np.concatenate([data.x, data.y], axis=1)
    weights, means, covs = start.to_joint()

    def peer(steps, tol):
        mixture_ = mixture.GaussianMixture(
            3,
            covariance_type="full",
            reg_covar=0,
            tol=tol,
            max_iter=steps,
            weights_init=weights,
            means_init=means,
            precisions_init=np.linalg.inv(covs),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", category=UserWarning)  # one step does not converge, as intended
            return mixture_.fit(z)

    ours, theirs = em(family, data, start, EMOptions(max_iterations=1)), peer(1, 0)
    assert_allclose(ours.log_likelihood, theirs.score(z) * data.n, rtol=1e-12)
    assert_allclose(ours.value.to_joint()[1], theirs.means_, rtol=1e-11)

    ours, theirs = em(family, data, start), peer(2000, 1e-15)
    gap = theirs.score(z) * data.n - ours.log_likelihood
    # the peer goes on to rounding (about 1e-16 n |L|), so what it gains is what our certificate says is left
    assert_allclose(gap, ours.certificate.gap_nats, atol=1e-8)
    # at a gap g parameters are off by about sqrt(2 g / (n lmin)) spreads = 5e-5; three of those
    assert_allclose(ours.value.to_joint()[1], theirs.means_, atol=1.5e-4)


def test_em_reports_what_it_has_not_reached():
    known = truth("gmoe-1")
    data = known.params.sample(1000, np.random.default_rng(0))
    start = known.params.atoms([0, 0, 1, 2])
    fit = em(GaussianGatedFamily(1, 1, 4), data, start, EMOptions(max_iterations=3))
    assert fit.status is FitStatus.NOT_CERTIFIED
    assert "raise max_iterations" in fit.status.advice
    assert fit.iterations == 3
    assert fit.certificate.gap_nats > 1e-6


def test_em_flags_a_collapsing_atom():
    """Ten copies of one point: an atom that takes them has no width."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 100, 1))
    x[:10], y[:10] = 6, 6
    from moe_prompts import GaussianGatedMoE, Sample

    start = GaussianGatedMoE.univariate([0.9, 0.1], [0, 6], [1, 0.01], [0, 0], [0, 6], [1, 0.01])
    fit = em(GaussianGatedFamily(1, 1, 2), Sample(x, y), start)
    assert fit.status is FitStatus.COLLAPSED
    assert not fit.certified


def test_em_flags_an_atom_that_no_point_needs():
    """Judged where it starts, an atom far from all data explains none: no certificate, whatever its gradient."""
    known = truth("gmoe-1").params
    far = known.rescaled([1e3], [1.0], [0.0], [1.0]).atoms([0]).joined(known, 0.9)
    data = known.sample(200, np.random.default_rng(0))
    fit = em(GaussianGatedFamily(1, 1, 4), data, far, EMOptions(max_iterations=0))
    assert fit.status is FitStatus.COLLAPSED
    assert fit.detail.startswith("an atom explains")


def test_bad_options_are_refused():
    with pytest.raises(InputError, match="max_iterations = -1"):
        EMOptions(max_iterations=-1)

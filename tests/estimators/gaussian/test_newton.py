import numpy as np
import pytest
from cases import FAMILIES, member
from numpy.testing import assert_allclose

from moe_prompts import (
    FitStatus,
    GaussianGatedFamily,
    GaussianGatedMoE,
    InputError,
    NewtonOptions,
    Sample,
    best_of,
    em,
    newton,
    starts,
    truth,
)
from moe_prompts.estimators import trust_region
from moe_prompts.estimators.trust_region import POLISHED, Spectrum, TrustRegionOptions, ascend, trust_region_step
from moe_prompts.study.gaussian import GaussianCell, run_cell

SAME = 2e-6  # nats: two certified fits of one maximum, each within 1e-6


@pytest.mark.parametrize("name", FAMILIES)
def test_certified_maxima_of_every_family_cannot_be_improved(name):
    """An independent optimiser (BFGS on enumerated densities) gains no more than the certificate allows."""
    from scipy.optimize import minimize

    from moe_prompts.estimators.gaussian.chart import Chart

    family = FAMILIES[name]
    data = member(family, 0).sample(400, np.random.default_rng(1))
    fit = newton(family, data, member(family, 0))
    assert fit.status is FitStatus.CERTIFIED
    assert fit.certificate.gap_nats <= 1e-6
    assert fit.certificate.relative_lmin > 0
    assert_allclose(fit.log_likelihood, fit.value.log_density(*data).sum(), rtol=1e-10)
    chart = Chart(family)

    def loss(theta):
        return -chart.params_of(theta, family.frozen).log_density(*data).sum()

    polished = minimize(loss, chart.theta_of(fit.value), method="BFGS", options={"gtol": 1e-6, "maxiter": 100})
    # BFGS sees the sum to rounding, about 1e-16 * |L| * sqrt(n)
    assert -polished.fun - fit.log_likelihood < 1e-6 + 1e-10 * abs(polished.fun)


def test_the_log_likelihood_of_the_fit_equals_scikit_learns():
    mixture = pytest.importorskip("sklearn.mixture")
    known = truth("gmoe-1")
    data = known.params.sample(3000, np.random.default_rng(0))
    fit = newton(GaussianGatedFamily(1, 1, 4), data, known.params.atoms([0, 1, 1, 2]))
    weights, means, covs = fit.value.to_joint()
    z = np.concatenate([data.x, data.y], axis=1)
    peer = mixture.GaussianMixture(
        4,
        covariance_type="full",
        reg_covar=0,
        tol=1e-14,
        max_iter=200,
        weights_init=weights,
        means_init=means,
        precisions_init=np.linalg.inv(covs),
    ).fit(z)
    assert_allclose(fit.log_likelihood, peer.score(z) * data.n, atol=1e-6)  # the peer gains nothing from our maximum
    assert_allclose(peer.means_, means, atol=1e-3)


def test_relabelling_the_start_relabels_the_fit():
    known = truth("gmoe-1")
    data = known.params.sample(2000, np.random.default_rng(0))
    family = GaussianGatedFamily(1, 1, 4)
    start = starts.near_truth(known.params).draw(family, data, np.random.default_rng(1))
    order = [2, 0, 3, 1]
    a, b = newton(family, data, start), newton(family, data, start.atoms(order))
    assert a.certified
    assert abs(a.log_likelihood - b.log_likelihood) < SAME
    assert_allclose(b.value.gate_means, a.value.gate_means[order], atol=1e-4)


def test_likelihood_never_decreases_along_the_path():
    known = truth("gmoe-1")
    data = known.params.sample(5000, np.random.default_rng(0))
    start = starts.near_truth(known.params).draw(GaussianGatedFamily(1, 1, 5), data, np.random.default_rng(0))
    path = np.array(newton(GaussianGatedFamily(1, 1, 5), data, start).history["log_likelihood"])
    assert len(path) > 5
    assert np.diff(path).min() > -1e-11 * np.abs(path).max()


def test_a_larger_model_is_at_least_as_likely_on_the_same_data():
    known = truth("gmoe-1")
    for seed in range(3):
        data = known.params.sample(2000, np.random.default_rng(seed))
        exact = newton(known.family, data, known.params)
        over = newton(GaussianGatedFamily(1, 1, 4), data, exact.value.atoms([0, 0, 1, 2]))
        assert over.log_likelihood > exact.log_likelihood - SAME


def test_compressed_climb_ends_on_the_same_maximum():
    known = truth("prompts-adaptive")
    data = known.params.sample(60_000, np.random.default_rng(0))
    family = known.family_with(3, "affine")
    start = starts.near_truth(known.params, known.k_true).draw(family, data, np.random.default_rng(1))
    through = newton(family, data, start)
    plain = newton(family, data, start, NewtonOptions(compress=False))
    assert through.certified
    assert plain.certified
    assert "compressed_e2" in through.passes
    assert "compressed_e2" not in plain.passes
    assert abs(through.log_likelihood - plain.log_likelihood) < SAME
    assert through.passes["e2"] < plain.passes["e2"]


def test_a_quadrature_of_the_truth_gives_the_population_fit():
    """Weighted nodes in place of a sample: the exact family recovers the truth itself."""
    known = truth("prompts-fixed")
    from moe_prompts import Evaluation

    nodes = Evaluation(known.params)
    start = known.family.project(known.params.rescaled([0.1], [1.1], [-0.1], [0.9]))
    fit = newton(known.family, Sample(nodes.x, nodes.y), start, weights=1e4 * nodes.weights)
    assert fit.certified
    # 4096 Sobol points per atom: integration error about 1e-3 of each parameter's spread
    assert_allclose(fit.value.intercepts, known.params.intercepts, atol=3e-3)
    assert_allclose(fit.value.gate_means, known.params.gate_means, atol=3e-3)


def test_a_collapsing_component_is_a_status_not_a_number():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 100, 1))
    x[:10], y[:10] = 6, 6
    start = GaussianGatedMoE.univariate([0.9, 0.1], [0, 6], [1, 0.01], [0, 0], [0, 6], [1, 0.01])
    fit = newton(GaussianGatedFamily(1, 1, 2), Sample(x, y), start)
    assert fit.status is FitStatus.COLLAPSED
    assert "try another start" in fit.status.advice
    assert not fit.certificate.holds()


def test_too_few_points_are_a_status():
    known = truth("gmoe-1")
    data = known.params.sample(12, np.random.default_rng(0))
    for fit in (newton(known.family, data, known.params), em(known.family, data, known.params)):
        assert fit.status is FitStatus.TOO_FEW_POINTS
        assert np.isnan(fit.log_likelihood)
        assert "raise n or lower k" in fit.status.advice


def test_data_that_cannot_be_fitted_are_refused():
    known, n = truth("gmoe-1"), 60_000
    x, y = np.zeros(n), np.random.default_rng(0).standard_normal(n)
    with pytest.raises(InputError, match="column 0 of x is constant"):
        newton(known.family, Sample(x, y), known.params)
    with pytest.raises(InputError, match="column 0 of x is constant"):
        best_of(known.family, Sample(x, y), starts.data(1), np.random.default_rng)
    data = known.params.sample(100, np.random.default_rng(0))
    with pytest.raises(InputError, match="weights: smallest -1"):
        newton(known.family, data, known.params, weights=-np.ones(100))
    for options in ({"radius": -1.0}, {"corrector_steps": -3}, {"min_eigenvalue": -1.0}):
        with pytest.raises(InputError, match=next(iter(options))):
            NewtonOptions(**options)


def test_running_out_of_iterations_is_a_status():
    known = truth("gmoe-1")
    data = known.params.sample(1000, np.random.default_rng(0))
    fit = newton(
        GaussianGatedFamily(1, 1, 4),
        data,
        known.params.atoms([0, 0, 1, 2]),
        NewtonOptions(max_iterations=1, em_warmup=0),
    )
    assert fit.status is FitStatus.NOT_CERTIFIED
    assert not fit.certified
    assert len(fit.history["log_likelihood"]) == 2
    assert fit.history["log_likelihood"][-1] == fit.log_likelihood


def test_bad_options_and_starts_are_refused():
    known = truth("gmoe-1")
    data = known.params.sample(100, np.random.default_rng(0))
    with pytest.raises(InputError, match="gap_tolerance = 2"):
        NewtonOptions(gap_tolerance=2)
    with pytest.raises(InputError, match="start has 3 atoms"):
        newton(GaussianGatedFamily(1, 1, 4), data, known.params)


class TestTrustRegionStep:
    """Against a dense search over the disc."""

    @pytest.mark.parametrize(
        ("values", "gradient", "radius"),
        [
            ((-2.0, -1.0), (0.3, -0.4), 5.0),  # interior
            ((-2.0, -1.0), (3.0, -4.0), 0.5),  # on the boundary
            ((-2.0, 1.0), (0.3, 0.4), 0.7),  # negative curvature of -H
            ((-2.0, 1.0), (0.3, 0.0), 0.7),  # the hard case
            ((-1.0, 0.0), (0.2, 0.1), 1.5),  # flat direction
        ],
    )
    def test_gain_is_the_largest_in_the_disc(self, values, gradient, radius):
        values, gradient = np.array(values), np.array(gradient)
        step, gain, _ = trust_region_step(values, gradient, radius)
        assert np.linalg.norm(step) <= radius * (1 + 1e-9)
        angle, r = np.meshgrid(np.linspace(0, 2 * np.pi, 721), np.linspace(0, radius, 201))
        s = np.stack([r * np.cos(angle), r * np.sin(angle)])
        gains = np.einsum("i,ijk->jk", gradient, s) + 0.5 * np.einsum("i,ijk->jk", values, s**2)
        assert gain >= gains.max() - 1e-9
        assert_allclose(gain, gradient @ step + 0.5 * (values * step) @ step)


def test_flat_maxima_of_small_samples_are_polished():
    """At the tolerance of 1e-6 nats up to 5e-9 of the log-likelihood was left, on which two routes may differ."""
    cell = GaussianCell("gmoe-1", "adaptive", 4, 1_000, "near_truth", 1)
    rows = run_cell(cell, tuple(range(12)), 0)
    certified = [row for row in rows if row["status"] == "CERTIFIED"]
    assert len(certified) >= 10
    assert max(row["gap_nats"] for row in certified) <= POLISHED * 1_000


class Quartic:
    """A log-likelihood of one observation, -(x^4 + x^2 / 1e3) / 4; below ``bent`` its curvature has no certificate."""

    total = 1.0

    def __init__(self, bent=0.0):
        self.bent = bent

    def em(self, theta, steps):
        return theta

    def evaluate(self, theta):
        (x,) = theta
        curvature = -(3 * x**2 + 5e-4) if x >= self.bent else 1.0
        gradient = np.array([-(x**3) - 5e-4 * x])
        return -(x**4) / 4 - 2.5e-4 * x**2, Spectrum.of(gradient, np.array([[curvature]]), np.ones((1, 1)))


def test_a_certificate_that_polishing_loses_is_given_back(monkeypatch):
    begin, options = np.array([0.5]), TrustRegionOptions()
    fine = ascend(Quartic(), begin, options)
    with monkeypatch.context() as patch:
        patch.setattr(trust_region, "POLISH", 0)
        rough = ascend(Quartic(), begin, options)
    assert fine.value > rough.value
    lost = ascend(Quartic(bent=0.99 * rough.theta[0]), begin, options)
    assert lost.status is rough.status is FitStatus.CERTIFIED
    assert (lost.value, lost.theta[0], lost.certificate) == (rough.value, rough.theta[0], rough.certificate)

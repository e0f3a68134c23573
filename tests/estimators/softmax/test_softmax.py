import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from oracles import numeric_gradient
from scipy import stats
from scipy.optimize import minimize
from scipy.special import logsumexp

from moe_prompts import EMOptions, FitStatus, GaussianGatedFamily, InputError, Sample, starts
from moe_prompts.estimators.result import Certificate
from moe_prompts.estimators.softmax import likelihood as softmax
from moe_prompts.estimators.softmax.likelihood import SoftmaxLikelihood, SoftmaxOptions, softmax_em, softmax_newton
from moe_prompts.estimators.softmax.starts import data_start, published_start
from moe_prompts.estimators.trust_region import Ascent, Spectrum, no_history
from moe_prompts.models.softmax_gated import SoftmaxGatedFamily, SoftmaxGatedMoE
from moe_prompts.models.softmax_truths import softmax_sample, softmax_truth

FIELDS = ("gate_intercepts", "gate_slopes", "slopes", "intercepts", "noise_vars")
SIZES = [(1, 1), (2, 1), (3, 1), (1, 2), (2, 2), (3, 2)]  # (k, d)
SAME = 2e-6  # nats: two certified fits of one maximum, each within 1e-6
TRUTH = softmax_truth("sgame").params


def random_params(seed: int, k: int, d: int) -> SoftmaxGatedMoE:
    rng = np.random.default_rng([seed, k, d])
    return SoftmaxGatedMoE(
        0.5 * rng.standard_normal(k),
        rng.standard_normal((k, d)),
        rng.standard_normal((k, d)),
        2 * rng.standard_normal(k),
        rng.uniform(0.3, 1.5, k),
    )


def random_case(seed: int, k: int, d: int, n: int = 250) -> tuple[SoftmaxGatedMoE, Sample]:
    """Parameters and data that they did not make, in units far from standard."""
    rng = np.random.default_rng([seed, k, d, n])
    data = random_params(seed, k, d).respond(rng.standard_normal((n, d)), rng)
    x, y = 3 + 2 * data.x, 5 * data.y - 7
    return random_params(seed + 1, k, d).rescaled(-1.5 * np.ones(d), 0.5 * np.ones(d), 1.4, 0.2), Sample(x, y)


def likelihood_at(seed: int, k: int, d: int, n: int = 250) -> tuple[SoftmaxLikelihood, np.ndarray]:
    params, data = random_case(seed, k, d, n)
    likelihood = SoftmaxLikelihood(SoftmaxGatedFamily(d, k), data)
    return likelihood, likelihood.theta_of(params)


def enumerated(likelihood: SoftmaxLikelihood, theta: np.ndarray) -> float:
    """The log-likelihood of the model, in standardised units: n log sd(y) more than in those of the data."""
    value = likelihood.params_of(theta).log_density(likelihood.sample).sum()
    return value + likelihood.total * np.log(likelihood.sample.y.std())


def standardised(data: Sample) -> tuple[np.ndarray, np.ndarray]:
    """X = (1, x) (n, q) and y (n,)."""
    z = (data.x - data.x.mean(axis=0)) / data.x.std(axis=0)
    return np.column_stack([np.ones(data.n), z]), (data.y[:, 0] - data.y.mean()) / data.y.std()


def split(theta: np.ndarray, k: int, q: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gate (k, q) with the last row zero, experts (k, q) as (b, a), log variances (k,)."""
    gate = np.append(theta[: (k - 1) * q], np.zeros(q)).reshape(k, q)
    return gate, theta[(k - 1) * q : (2 * k - 1) * q].reshape(k, q), theta[(2 * k - 1) * q :]


def log_terms(theta: np.ndarray, k: int, X: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """log gates and log expert densities (n, k), by SciPy."""
    gate, experts, log_vars = split(theta, k, X.shape[1])
    logits = X @ gate.T
    normal = [stats.norm(X @ e, np.exp(v / 2)).logpdf(y) for e, v in zip(experts, log_vars, strict=True)]
    return logits - logsumexp(logits, axis=1, keepdims=True), np.stack(normal, axis=1)


def posterior(theta: np.ndarray, k: int, X: np.ndarray, y: np.ndarray) -> np.ndarray:
    """r_ik (n, k)."""
    joint = np.exp(sum(log_terms(theta, k, X, y)))
    return joint / joint.sum(axis=1, keepdims=True)


def numeric_hessian(function, at: np.ndarray, step: float = 2e-3) -> np.ndarray:
    """Fourth order: (4 D_h - D_2h) / 3 of nested central differences."""
    nested = lambda h: numeric_gradient(lambda theta: numeric_gradient(function, theta, h), at, h)
    return (4 * nested(step) - nested(2 * step)) / 3


def certified(k: int, n: int, replicate: int, **options):
    data = softmax_sample("sgame", n, 0, replicate)
    start = published_start(TRUTH, k, n, np.random.default_rng(replicate))
    return data, softmax_newton(SoftmaxGatedFamily(1, k), data, start, SoftmaxOptions(**options))


def steeper(params: SoftmaxGatedMoE, factor: float) -> SoftmaxGatedMoE:
    """All logits multiplied: the same thresholds between atoms."""
    values = {name: getattr(params, name) for name in FIELDS}
    gates = {name: factor * values[name] for name in ("gate_intercepts", "gate_slopes")}
    return SoftmaxGatedMoE(**(values | gates))


def step_data(n: int = 500) -> Sample:
    """Experts of the published truth, the one below .32 and the other above it."""
    step = SoftmaxGatedMoE([-3.2e4, 0], [[1e5], [0]], TRUTH.slopes, TRUTH.intercepts, TRUTH.noise_vars)
    return step.respond(np.linspace(0, 1, n)[:, None], np.random.default_rng(0))


@pytest.mark.parametrize(("k", "d"), SIZES)
class TestDerivatives:
    def test_value_is_the_log_density_in_standardised_units(self, k, d):
        likelihood, theta = likelihood_at(0, k, d)
        value = likelihood.derivatives(theta)[0]
        X, y = standardised(likelihood.sample)
        assert_allclose(value, enumerated(likelihood, theta), rtol=1e-12)
        assert_allclose(value, logsumexp(sum(log_terms(theta, k, X, y)), axis=1).sum(), rtol=1e-12)

    def test_vector_and_parameters_are_one_to_one(self, k, d):
        params, data = random_case(1, k, d)
        likelihood = SoftmaxLikelihood(SoftmaxGatedFamily(d, k), data)
        theta = likelihood.theta_of(params)
        assert theta.shape == (likelihood.family.n_parameters,)
        back, pinned = likelihood.params_of(theta), params.pinned()
        for name in FIELDS:
            assert_allclose(getattr(back, name), getattr(pinned, name), rtol=1e-12, atol=1e-12)
        assert_allclose(likelihood.theta_of(back), theta, rtol=1e-12, atol=1e-12)

    def test_gradient_is_the_slope_of_the_log_density(self, k, d):
        likelihood, theta = likelihood_at(2, k, d)
        expected = numeric_gradient(lambda at: enumerated(likelihood, at), theta, 1e-5)
        # error of the differences: eps |L| / h = 1e-8 and h^2 |L'''| = 1e-7
        assert_allclose(likelihood.derivatives(theta)[1], expected, rtol=1e-6, atol=1e-6)

    def test_hessian_is_the_slope_of_the_gradient(self, k, d):
        likelihood, theta = likelihood_at(3, k, d)
        hessian = likelihood.derivatives(theta)[2]
        expected = numeric_gradient(lambda at: likelihood.derivatives(at)[1], theta, 1e-5)
        assert_allclose(hessian, expected, rtol=1e-6, atol=1e-6 * np.abs(hessian).max())
        assert_allclose(hessian, hessian.T, rtol=1e-11, atol=1e-11 * np.abs(hessian).max())

    def test_complete_data_information_block_by_block(self, k, d):
        """Gate: Hessian of multinomial logistic regression, whatever the labels. Experts: sum r X X' / s and r / 2."""
        likelihood, theta = likelihood_at(4, k, d)
        X, y = standardised(likelihood.sample)
        q = d + 1
        information = likelihood.derivatives(theta)[3]
        r = posterior(theta, k, X, y)
        expected = np.zeros_like(information)
        gates = (k - 1) * q
        if k > 1:
            of_gate = lambda g: (r * log_terms(np.append(g, theta[gates:]), k, X, y)[0]).sum()
            expected[:gates, :gates] = -numeric_hessian(of_gate, theta[:gates])
        for j, variance in enumerate(np.exp(split(theta, k, q)[2])):
            own = slice(gates + j * q, gates + (j + 1) * q)
            expected[own, own] = (X * r[:, [j]]).T @ X / variance
            expected[gates + k * q + j, gates + k * q + j] = r[:, j].sum() / 2
        assert_allclose(information, expected, atol=1e-7 * np.abs(information).max())

    def test_sums_do_not_depend_on_the_size_of_blocks(self, k, d, monkeypatch):
        likelihood, theta = likelihood_at(5, k, d)
        whole = (*likelihood.derivatives(theta), *likelihood.em_step(theta))
        monkeypatch.setattr(softmax, "BLOCK", 7)
        for a, b in zip(whole, (*likelihood.derivatives(theta), *likelihood.em_step(theta)), strict=True):
            assert_allclose(a, b, rtol=1e-10, atol=1e-10 * np.abs(b).max())


class TestEMStep:
    @pytest.mark.parametrize(("k", "d"), SIZES)
    def test_experts_are_weighted_least_squares(self, k, d):
        likelihood, theta = likelihood_at(6, k, d)
        X, y = standardised(likelihood.sample)
        r = posterior(theta, k, X, y)
        value, moved = likelihood.em_step(theta)
        _, experts, log_vars = split(moved, k, d + 1)
        assert_allclose(value, enumerated(likelihood, theta), rtol=1e-12)
        for j in range(k):
            root = np.sqrt(r[:, j])
            expected = np.linalg.lstsq(X * root[:, None], y * root, rcond=None)[0]
            assert_allclose(experts[j], expected, rtol=1e-9, atol=1e-10)
            assert_allclose(np.exp(log_vars[j]), np.average((y - X @ expected) ** 2, weights=r[:, j]), rtol=1e-9)

    @pytest.mark.parametrize(("k", "d"), [(2, 1), (3, 1), (4, 2)])
    def test_gate_steps_on_fixed_soft_labels_end_at_logistic_regression(self, k, d):
        """scikit-learn on every point repeated once per class, with weight r_ik."""
        linear_model = pytest.importorskip("sklearn.linear_model")
        likelihood, theta = likelihood_at(7, k, d)
        X, y = standardised(likelihood.sample)
        q, n = d + 1, len(X)
        r = np.random.default_rng(7).dirichlet(np.ones(k), size=n) * (0.5 + posterior(theta, k, X, y))
        r /= r.sum(axis=1, keepdims=True)
        for _ in range(30):
            gates = np.exp(log_terms(theta, k, X, y)[0])
            score = (r - gates).T @ X
            weights = np.einsum("ik,kl->ikl", gates, np.eye(k)) - gates[:, :, None] * gates[:, None, :]
            information = np.einsum("ikl,ip,iq->kplq", weights, X, X).reshape(k * q, k * q)
            of_gates = np.logaddexp.reduce(X @ split(theta, k, q)[0].T, axis=1).sum()
            moved = likelihood._gate_step(theta, score, information, r.T @ X, of_gates)
            theta = np.append(moved, theta[(k - 1) * q :])
        ours = split(theta, k, q)[0]
        peer = linear_model.LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000).fit(
            np.repeat(X[:, 1:], k, axis=0), np.tile(np.arange(k), n), sample_weight=r.ravel()
        )
        theirs = np.column_stack([peer.intercept_, peer.coef_])
        if k == 2:  # it gives the difference of the two classes
            theirs = np.stack([np.zeros(q), theirs[0]])
        assert_allclose(ours, theirs - theirs[-1], atol=1e-5)  # the peer's gradient is 1e-10 per point at best

    def test_gate_of_the_fit_is_logistic_regression_where_outputs_tell_the_atom(self):
        """Experts 20 standard deviations apart: responsibilities are labels."""
        linear_model = pytest.importorskip("sklearn.linear_model")
        gate = np.array([0.3, -0.5, 0]), np.array([[1, 0], [-1, 2], [0, 0]])
        params = SoftmaxGatedMoE(*gate, np.zeros((3, 2)), [-20, 0, 20], np.ones(3))
        rng = np.random.default_rng(0)
        data = params.respond(rng.standard_normal((400, 2)), rng)
        labels = np.digitize(data.y[:, 0], [-10, 10])
        peer = linear_model.LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000).fit(data.x, labels)
        for fit in (softmax_newton, softmax_em):
            found = fit(SoftmaxGatedFamily(2, 3), data, params)
            assert found.status is FitStatus.CERTIFIED
            # at a gap of 1e-6 nats coefficients are off by at most sqrt(2e-6 / 20), 20 about the least information
            assert_allclose(found.value.gate_slopes, peer.coef_ - peer.coef_[-1], atol=3e-4)
            assert_allclose(found.value.gate_intercepts, peer.intercept_ - peer.intercept_[-1], atol=3e-4)
            for j in range(3):
                assert_allclose(found.value.noise_vars[j], _least_squares(data, labels == j)[1], rtol=1e-3)

    @settings(max_examples=25, deadline=None)
    @given(seed=st.integers(0, 10_000), k=st.integers(1, 4), d=st.integers(1, 2))
    def test_never_descends_beyond_rounding(self, seed, k, d):
        start, data = random_case(seed, k, d)
        fit = softmax_em(SoftmaxGatedFamily(d, k), data, start, EMOptions(max_iterations=40, certify=False))
        path = np.array(fit.history["log_likelihood"])
        assume(len(path) > 5)  # the others collapsed at once
        # a sum of n terms, each known to eps |log p|; the gate step tolerates 1e-14 n
        assert np.diff(path).min() > -1e-13 * (np.abs(path).max() + data.n)

    @pytest.mark.parametrize("k", [2, 3])
    def test_contracts_by_one_minus_the_relative_curvature(self, k):
        """At a maximum the EM map has the derivative I + I_c^-1 H: ties EM, Hessian and information together."""
        data, fit = certified(k, 2000, 1, gap_tolerance=1e-12)
        assert fit.certified
        likelihood = SoftmaxLikelihood(SoftmaxGatedFamily(1, k), data)
        theta = likelihood.theta_of(fit.value)
        _, _, hessian, information = likelihood.derivatives(theta)
        expected = np.eye(len(theta)) + np.linalg.solve(information, hessian)
        measured = numeric_gradient(lambda at: likelihood.em_step(at)[1], theta, 1e-5).T
        assert_allclose(measured, expected, atol=2e-5 * np.abs(expected).max())
        slowest = np.linalg.eigvals(measured).real.max()
        assert_allclose(1 - slowest, fit.certificate.relative_lmin, rtol=1e-3)


def _least_squares(data: Sample, rows: np.ndarray | slice = slice(None)) -> tuple[np.ndarray, float]:
    """(b, a) and the mean squared residual."""
    X = np.column_stack([np.ones(data.n), data.x])[rows]
    coefficients = np.linalg.lstsq(X, data.y[rows, 0], rcond=None)[0]
    return coefficients, float(((data.y[rows, 0] - X @ coefficients) ** 2).mean())


class TestCertifiedFits:
    @pytest.mark.parametrize("fit", [softmax_newton, softmax_em])
    def test_one_atom_is_least_squares(self, fit):
        start, data = random_case(0, 1, 2)
        found = fit(SoftmaxGatedFamily(2, 1), data, start)
        (intercept, *slope), variance = _least_squares(data)
        assert found.status is FitStatus.CERTIFIED
        assert_allclose(found.value.intercepts, [intercept], rtol=1e-8)
        assert_allclose(found.value.slopes, [slope], rtol=1e-8)
        assert_allclose(found.value.noise_vars, [variance], rtol=1e-8)
        assert_allclose(found.log_likelihood, -0.5 * data.n * (np.log(2 * np.pi * variance) + 1), rtol=1e-12)

    @pytest.mark.parametrize(("k", "replicate"), [(2, 0), (3, 1)])
    def test_gradient_vanishes_and_minus_hessian_is_positive_definite(self, k, replicate):
        """Judged by differences of the enumerated density alone."""
        data, fit = certified(k, 1000, replicate)
        assert fit.status is FitStatus.CERTIFIED
        assert_allclose(fit.log_likelihood, fit.value.log_density(data).sum(), rtol=1e-12)
        likelihood = SoftmaxLikelihood(SoftmaxGatedFamily(1, k), data)
        theta = likelihood.theta_of(fit.value)
        value = lambda at: enumerated(likelihood, at)
        minus = -numeric_hessian(value, theta, 1e-3)
        assert np.linalg.eigvalsh(minus)[0] > 0
        gradient = numeric_gradient(value, theta, 1e-5)
        # differences of |L| = 1e3 over 1e-5 are known to 1e-8; curvatures are 1 to 1e4
        assert 0.5 * gradient @ np.linalg.solve(minus, gradient) < 2e-6

    @pytest.mark.parametrize(("k", "d"), [(2, 1), (3, 1), (2, 2)])
    def test_no_other_optimiser_gains_more_than_the_certificate_allows(self, k, d):
        params = random_params(2, k, d)
        rng = np.random.default_rng(1)
        data = params.respond(1.5 * rng.standard_normal((400, d)), rng)
        fit = softmax_newton(SoftmaxGatedFamily(d, k), data, params)
        assert fit.status is FitStatus.CERTIFIED
        assert fit.certificate.gap_nats <= 1e-6
        likelihood = SoftmaxLikelihood(SoftmaxGatedFamily(d, k), data)
        at = likelihood.theta_of(fit.value)
        polished = minimize(lambda theta: -enumerated(likelihood, theta), at, method="BFGS", options={"maxiter": 50})
        gained = -polished.fun - enumerated(likelihood, at)
        assert gained < 1e-6 + 1e-10 * abs(polished.fun)

    @pytest.mark.parametrize(("k", "replicate"), [(2, 0), (3, 4)])
    def test_em_and_newton_reach_the_same_maximum(self, k, replicate):
        data, fast = certified(k, 2000, replicate, gap_tolerance=1e-9)
        start = published_start(TRUTH, k, data.n, np.random.default_rng(replicate))
        slow = softmax_em(SoftmaxGatedFamily(1, k), data, start, EMOptions(gap_tolerance=1e-9))
        assert fast.status is slow.status is FitStatus.CERTIFIED
        assert abs(fast.log_likelihood - slow.log_likelihood) < 1e-6
        for name in FIELDS:
            # at a gap g in a direction of relative curvature c parameters are off by sqrt(2 g / (c n)) spreads: 1e-5
            assert_allclose(getattr(slow.value, name), getattr(fast.value, name), rtol=3e-4, atol=3e-4, err_msg=name)

    def test_likelihood_never_decreases_along_the_path(self):
        for replicate in range(4):
            _, fit = certified(3, 1000, replicate)
            path = np.array(fit.history["log_likelihood"])
            assert len(path) > 3
            assert np.diff(path).min() > -1e-12 * np.abs(path).max()
            assert path[-1] == fit.log_likelihood
            assert len(fit.history["gap_nats"]) == len(fit.history["relative_lmin"]) == len(path)

    def test_a_larger_model_is_at_least_as_likely(self):
        for replicate in range(3):
            data, exact = certified(2, 2000, replicate)
            over = softmax_newton(SoftmaxGatedFamily(1, 3), data, exact.value.atoms([0, 1, 1]))
            assert over.log_likelihood > exact.log_likelihood - SAME

    def test_estimates_are_within_their_standard_errors(self):
        """n = 1e4, k = k_true: (theta_hat - theta*) is N(0, (-H)^-1), and the squares of its z-scores average 1."""
        z = []
        for replicate in range(8):
            data, fit = certified(2, 10_000, replicate)
            assert fit.status is FitStatus.CERTIFIED
            likelihood = SoftmaxLikelihood(SoftmaxGatedFamily(1, 2), data)
            found = likelihood.theta_of(fit.value)
            covariance = np.linalg.inv(-likelihood.derivatives(found)[2])
            z.append((found - likelihood.theta_of(TRUTH)) / np.sqrt(np.diag(covariance)))
        assert np.abs(z).max() < 5
        # 64 squares; correlated within a replicate, so at worst 8 independent ones: 8 +- 4 of 4 each
        assert 0.3 < np.mean(np.square(z)) < 2.5


class TestInvariance:
    @pytest.mark.parametrize(("k", "replicate"), [(2, 0), (3, 1)])
    def test_order_of_the_starts_atoms(self, k, replicate):
        data, fit = certified(k, 1000, replicate)
        start = published_start(TRUTH, k, data.n, np.random.default_rng(replicate))
        order = np.roll(np.arange(k), 1)
        turned = softmax_newton(SoftmaxGatedFamily(1, k), data, start.atoms(order))
        assert turned.status is fit.status is FitStatus.CERTIFIED
        assert abs(turned.log_likelihood - fit.log_likelihood) < SAME
        expected = fit.value.atoms(order).pinned()
        for name in FIELDS:
            assert_allclose(getattr(turned.value, name), getattr(expected, name), rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("fit", [softmax_newton, softmax_em])
    def test_translation_of_the_starts_gate(self, fit):
        data, start = softmax_sample("sgame", 1000, 0), published_start(TRUTH, 2, 1000, np.random.default_rng(0))
        one, other = (fit(SoftmaxGatedFamily(1, 2), data, s) for s in (start, start.translated(11.0, [-6.0])))
        assert_allclose(other.log_likelihood, one.log_likelihood, rtol=1e-12)
        for name in FIELDS:
            assert_allclose(getattr(other.value, name), getattr(one.value, name), rtol=1e-7, atol=1e-9)
        assert one.value.gate_intercepts[-1] == 0
        assert (one.value.gate_slopes[-1] == 0).all()

    @pytest.mark.parametrize(("k", "replicate"), [(2, 0), (3, 1)])
    @pytest.mark.parametrize("fit", [softmax_newton, softmax_em])
    def test_units_of_the_data(self, fit, k, replicate):
        """x -> 3 x + 1, y -> y / 2 - 4: the log-likelihood gains n log 2."""
        data, n = softmax_sample("sgame", 500, 0, replicate), 500
        start = published_start(TRUTH, k, n, np.random.default_rng(replicate))
        family, units = SoftmaxGatedFamily(1, k), ([-1 / 3], [1 / 3], 8.0, 2.0)
        options = EMOptions(max_iterations=50) if fit is softmax_em else None
        one = fit(family, data, start, options)
        other = fit(family, Sample(3 * data.x + 1, data.y / 2 - 4), start.rescaled(*units), options)
        assert one.status is other.status
        assert abs(other.log_likelihood - one.log_likelihood - n * np.log(2)) < SAME
        expected = one.value.rescaled(*units).pinned()
        for name in FIELDS:
            assert_allclose(getattr(other.value, name), getattr(expected, name), rtol=1e-4, atol=1e-4)


class TestStatuses:
    @pytest.mark.parametrize("fit", [softmax_newton, softmax_em])
    def test_a_gate_that_jumps_between_two_grid_points_separates(self, fit):
        """The certificate of every maximum holds, and a steeper gate is likelier still."""
        data = step_data()
        found = fit(SoftmaxGatedFamily(1, 2), data, TRUTH)
        assert found.status is FitStatus.SEPARATED
        assert "no finite maximum exists" in found.status.advice
        assert found.detail.startswith("gate logits change by")
        assert found.certificate.gap_nats < 1e-6
        assert found.certificate.relative_lmin > 1e-8
        level = found.value.log_density(data).sum()
        gains = [steeper(found.value, factor).log_density(data).sum() - level for factor in (1.1, 2, 10)]
        assert 0 < gains[0] < gains[1] < gains[2] < 2e-6

    def test_published_starts_separate_too(self):
        _, fit = certified(3, 1000, 25)
        assert fit.status is FitStatus.SEPARATED
        assert fit.certificate.holds()
        _, indulgent = certified(3, 1000, 25, max_logit_step=1e6)
        assert indulgent.status is FitStatus.CERTIFIED  # nothing else tells it from a maximum
        assert indulgent.log_likelihood == fit.log_likelihood

    @pytest.mark.parametrize("fit", [softmax_newton, softmax_em])
    def test_a_gate_that_jumps_within_a_gap_of_the_inputs_separates(self, fit):
        """Spread over all points the jump would be small."""
        rng = np.random.default_rng(1)
        x = np.concatenate([rng.uniform(0, 0.3, 500), rng.uniform(0.6, 1, 500)])[:, None]
        step = SoftmaxGatedMoE([-450, 0], [[1000], [0]], TRUTH.slopes, TRUTH.intercepts, TRUTH.noise_vars)
        data = step.respond(x, rng)
        found = fit(SoftmaxGatedFamily(1, 2), data, TRUTH)
        assert found.status is FitStatus.SEPARATED
        assert np.ptp(found.value.gate_logits(x)[:, 0]) / data.n < 1
        assert steeper(found.value, 2).log_density(data).sum() > found.value.log_density(data).sum()

    def test_logit_step_is_the_mean_one_or_that_where_one_atom_takes_over(self):
        of = lambda x, gate: self._step(np.asarray(x), *gate)
        assert_allclose(of(np.arange(101), ([1, 2, 0], [3, -1, 0])), 4)  # between the first two: 4 x - 1
        assert_allclose(of([0, 0.1, 0.2, 0.9, 1], ([-5, 0], [10, 0])), 7)  # from -3 to 4; 2.5 on average
        assert_allclose(of([0.9, 1, 0, 0.2, 0.1], ([-1, 0], [10, 0])), 2.5)  # crossed beside .1, where steps are 1
        assert_allclose(of([0, 0.1, 0.2, 0.9, 1], ([1, 0], [10, 0])), 2.5)  # never crossed
        assert of([0, 0.1, 1], ([7], [9])) == 0

    @staticmethod
    def _step(x, intercepts, slopes) -> float:
        k = len(slopes)
        likelihood = SoftmaxLikelihood(SoftmaxGatedFamily(1, k), Sample(x, np.cos(7 * x)))
        params = SoftmaxGatedMoE(intercepts, np.c_[slopes], np.zeros((k, 1)), np.zeros(k), np.ones(k))
        return likelihood.logit_step(likelihood.theta_of(params))

    @pytest.mark.parametrize("fit", [softmax_newton, softmax_em])
    def test_too_few_points(self, fit):
        data = Sample(*(part[::40] for part in softmax_sample("sgame", 250, 0)))
        assert data.n == SoftmaxGatedFamily(1, 2).n_parameters - 1
        found = fit(SoftmaxGatedFamily(1, 2), data, TRUTH)
        assert found.status is FitStatus.TOO_FEW_POINTS
        assert np.isnan(found.log_likelihood)
        assert not found.certificate.holds()
        assert "raise n or lower k" in found.status.advice

    @pytest.mark.parametrize("fit", [softmax_newton, softmax_em])
    def test_an_atom_that_explains_nothing_collapses(self, fit):
        both = TRUTH.atoms([0, 1, 1])
        far = SoftmaxGatedMoE([-8, 0, -50], [[25], [0], [0]], both.slopes, [15, -5, 100], both.noise_vars)
        found = fit(SoftmaxGatedFamily(1, 3), softmax_sample("sgame", 500, 0), far)
        assert found.status is FitStatus.COLLAPSED
        assert found.detail == "an atom explains 0 points"
        assert not found.certificate.holds()
        assert "try another start" in found.status.advice

    @pytest.mark.parametrize("fit", [softmax_newton, softmax_em])
    @pytest.mark.parametrize(("points", "status"), [(4, FitStatus.COLLAPSED), (8, FitStatus.CERTIFIED)])
    def test_an_atom_needs_five_points(self, fit, points, status):
        """Outputs of their own, spread over all inputs and about a line."""
        x, y = softmax_sample("sgame", 500, 0)
        rows = np.linspace(20, 480, points).astype(int)
        y = y.copy()
        y[rows] = 30 + np.random.default_rng(0).standard_normal((points, 1))
        start = SoftmaxGatedMoE([-8, 0, -4], [[25], [0], [0]], [[-20], [20], [0]], [15, -5, 30], [0.09, 0.16, 1])
        found = fit(SoftmaxGatedFamily(1, 3), Sample(x, y), start)
        assert found.status is status
        assert found.detail == ("an atom explains 4 points" if points == 4 else "")

    @pytest.mark.parametrize("fit", [softmax_newton, softmax_em])
    def test_an_atom_on_a_line_of_its_own_collapses(self, fit):
        """Outputs without noise beside the others: the likelihood is unbounded there."""
        x, y = softmax_sample("sgame", 500, 0)
        y = np.where(np.arange(500)[:, None] % 10 == 0, 30 + 2 * x, y)
        start = SoftmaxGatedMoE([-8, 0, -2], [[25], [0], [0]], [[-20], [20], [2]], [15, -5, 30], [0.09, 0.16, 0.01])
        found = fit(SoftmaxGatedFamily(1, 3), Sample(x, y), start)
        assert found.status is FitStatus.COLLAPSED
        assert "smaller than the guard" in found.detail

    def test_running_out_of_iterations(self):
        data = softmax_sample("sgame", 1000, 0)
        start = published_start(TRUTH, 3, 1000, np.random.default_rng(0))
        family = SoftmaxGatedFamily(1, 3)
        fast = softmax_newton(family, data, start, SoftmaxOptions(max_iterations=1, em_warmup=0))
        slow = softmax_em(family, data, start, EMOptions(max_iterations=1))
        for found in (fast, slow):
            assert found.status is FitStatus.NOT_CERTIFIED
            assert not found.certified
            assert found.iterations == 1
            assert found.history["log_likelihood"][-1] == found.log_likelihood
        assert slow.passes == {"e1": 1, "e2": 1}
        assert len(slow.history["log_likelihood"]) == 2

    def test_columns_without_variation_are_refused(self):
        rng = np.random.default_rng(0)
        ones, free = np.ones((50, 1)), rng.standard_normal((50, 1))
        for x, y, column in ((ones, free, 0), (free, ones, 1), (np.hstack([free, ones]), free, 1)):
            d = x.shape[1]
            for fit in (softmax_newton, softmax_em):
                with pytest.raises(InputError, match=rf"column {column % d} of {'xy'[column // d]} is constant"):
                    fit(SoftmaxGatedFamily(d, 2), Sample(x, y), random_params(0, 2, d))

    @pytest.mark.parametrize("value", [0.1, -1e6 / 3])
    def test_columns_constant_up_to_rounding_are_refused(self, value):
        """The standard deviation of 50 times 0.1 is 4e-17; a spread of 1e-9 of the size is data."""
        rng = np.random.default_rng(0)
        x, y = np.full((50, 1), value), rng.standard_normal((50, 1))
        for data, column in ((Sample(x, y), 0), (Sample(y, x), 1)):
            with pytest.raises(InputError, match=f"column 0 of {'xy'[column]} is constant"):
                softmax_newton(SoftmaxGatedFamily(1, 1), data, TRUTH.atoms([0]))
        fit = softmax_newton(
            SoftmaxGatedFamily(1, 1), Sample(x * (1 + 1e-9 * rng.random((50, 1))), y), TRUTH.atoms([0])
        )
        assert fit.status is FitStatus.CERTIFIED

    def test_inputs_that_depend_on_each_other_are_a_status(self):
        x = np.linspace(0, 1, 500)[:, None]
        flat = lambda slopes: np.hstack([slopes, 0 * slopes])
        params = SoftmaxGatedMoE(
            TRUTH.gate_intercepts, flat(TRUTH.gate_slopes), flat(TRUTH.slopes), TRUTH.intercepts, TRUTH.noise_vars
        )
        data = params.respond(np.hstack([x, 2 * x + 1]), np.random.default_rng(0))
        assert not softmax_newton(SoftmaxGatedFamily(2, 2), data, params).certified

    def test_bad_options_starts_and_samples_are_refused(self):
        data, family = softmax_sample("sgame", 100, 0), SoftmaxGatedFamily(1, 2)
        with pytest.raises(InputError, match="SoftmaxOptions: max_logit_step = 0"):
            SoftmaxOptions(max_logit_step=0)
        with pytest.raises(InputError, match="SoftmaxOptions: max_iterations = 0"):
            SoftmaxOptions(max_iterations=0)
        for fit in (softmax_newton, softmax_em):
            with pytest.raises(InputError, match="start has k = 3, d = 1; expected k = 2"):
                fit(family, data, TRUTH.atoms([0, 0, 1]))
            with pytest.raises(InputError, match="sample has 1 inputs and 2 outputs"):
                fit(family, Sample(data.x, np.hstack([data.y, data.y])), TRUTH)

    @pytest.mark.parametrize(
        ("lmin", "status"), [(2e-8, FitStatus.CERTIFIED), (0.5e-8, FitStatus.FLAT), (1e-15, FitStatus.FLAT)]
    )
    def test_curvature_that_is_rounding_is_flat(self, lmin, status, monkeypatch):
        reached = Certificate("maximum likelihood", 1e-9, lmin)
        arrive = lambda likelihood, theta, options: Ascent(theta, -1.0, FitStatus.CERTIFIED, reached, 0, no_history())
        monkeypatch.setattr(softmax, "ascend", arrive)
        fit = softmax_newton(SoftmaxGatedFamily(1, 2), softmax_sample("sgame", 100, 0), TRUTH)
        assert fit.status is status


class TestEqualAtoms:
    """Two equal atoms are a stationary point of every ascent that treats them alike, and no maximum."""

    def test_their_curvature_certifies_nothing(self):
        """One expert written twice: stationary, flat along the gate alone, a saddle with the experts."""
        data = random_case(0, 1, 1)[1]
        one = softmax_newton(SoftmaxGatedFamily(1, 1), data, random_case(0, 1, 1)[0])
        likelihood = SoftmaxLikelihood(SoftmaxGatedFamily(1, 2), data)
        theta = likelihood.theta_of(one.value.atoms([0, 0]))
        value, gradient, hessian, information = likelihood.derivatives(theta)
        assert_allclose(value, enumerated(likelihood, theta), rtol=1e-12)
        assert np.abs(gradient).max() < 1e-9 * data.n
        assert_allclose(hessian[:2, :2], 0, atol=1e-9 * data.n)
        assert np.abs(hessian[:2, 2:]).max() > 1e-3 * data.n
        assert Spectrum.of(gradient, hessian, information).certificate.relative_lmin < 1e-8

    def test_newton_leaves_them_where_the_data_hold_two_experts(self):
        data, exact = certified(2, 2000, 0)
        for label in (0, 1):
            fit = softmax_newton(SoftmaxGatedFamily(1, 2), data, TRUTH.atoms([label, label]))
            assert fit.status is FitStatus.CERTIFIED
            assert abs(fit.log_likelihood - exact.log_likelihood) < SAME

    @pytest.mark.parametrize("seed", range(5))
    def test_newton_leaves_them_where_the_data_hold_one_expert(self, seed):
        """A certificate is given only after the two have parted and gained."""
        rng = np.random.default_rng(seed)
        x = np.linspace(0, 1, 300)
        data = Sample(x, 1 + 2 * x + 0.3 * (rng.standard_normal(300) if seed % 2 else rng.uniform(-1, 1, 300)))
        one = softmax_newton(SoftmaxGatedFamily(1, 1), data, TRUTH.atoms([0]))
        fit = softmax_newton(SoftmaxGatedFamily(1, 2), data, one.value.atoms([0, 0]))
        assert fit.log_likelihood > one.log_likelihood + 0.01
        parted = max(np.ptp(getattr(fit.value, name), axis=0).max() for name in ("slopes", "intercepts", "noise_vars"))
        assert parted > 0.01
        assert fit.certificate.relative_lmin > 1e-8 or not fit.certified

    def test_em_stays_and_says_so(self):
        data = softmax_sample("sgame", 500, 0)
        fit = softmax_em(SoftmaxGatedFamily(1, 2), data, TRUTH.atoms([0, 0]), EMOptions(max_iterations=200))
        assert fit.status is FitStatus.NOT_CERTIFIED
        assert fit.certificate.relative_lmin < 0
        assert_allclose(fit.value.slopes[0], fit.value.slopes[1])
        assert "newton" in fit.detail


class TestPublishedStart:
    def test_labels_are_uniform_over_those_in_which_every_true_atom_appears(self):
        """k = 3, k_true = 2, the last atom at the last true one: (0, 0, 1), (0, 1, 1) and (1, 0, 1), a third each."""
        draws = [published_start(TRUTH, 3, 1000, np.random.default_rng(seed)) for seed in range(600)]
        labels = np.array([np.abs(s.slopes[:, 0, None] - TRUTH.slopes[:, 0]).argmin(axis=1) for s in draws])
        assert (labels[:, -1] == 1).all()
        patterns, counts = np.unique(labels, axis=0, return_counts=True)
        assert_array_equal(patterns, [[0, 0, 1], [0, 1, 1], [1, 0, 1]])
        assert stats.chisquare(counts).pvalue > 1e-3

    def test_k_true_atoms_are_the_true_ones_in_order(self):
        for seed in range(10):
            drawn = published_start(TRUTH, 2, 100, np.random.default_rng(seed))
            assert_allclose(drawn.slopes, TRUTH.slopes, atol=0.2)

    @pytest.mark.parametrize("n", [100, 100_000])
    def test_noise_has_the_published_size(self, n):
        """One number for all gates and one for all experts; variances up by |N(0, (.005 n^-.25)^2)| each."""
        draws = [published_start(TRUTH, 2, n, np.random.default_rng(seed)) for seed in range(1000)]
        noise = {name: np.array([(getattr(s, name) - getattr(TRUTH, name)).ravel() for s in draws]) for name in FIELDS}
        for first, second, size in (
            ("gate_intercepts", "gate_slopes", 0.005 * n**-0.083),
            ("intercepts", "slopes", 0.05 * n**-0.083),
        ):
            both = np.hstack([noise[first], noise[second]])
            assert_allclose(both, both[:, :1] @ np.ones((1, 4)), atol=1e-12)
            assert stats.kstest(both[:, 0] / size, "norm").pvalue > 1e-3
        assert abs(np.corrcoef(noise["slopes"][:, 0], noise["gate_slopes"][:, 0])[0, 1]) < 4 / np.sqrt(1000)
        widened = np.array([s.noise_vars for s in draws]) - [0.3, 0.4]
        for column in widened.T:
            assert stats.kstest(column / (0.005 * n**-0.25), "halfnorm").pvalue > 1e-3
        assert abs(np.corrcoef(widened.T)[0, 1]) < 4 / np.sqrt(1000)

    def test_variances_start_at_standard_deviations_only_as_published(self):
        published, honest = (published_start(TRUTH, 2, 100, np.random.default_rng(0), flag) for flag in (True, False))
        assert_allclose(published.noise_vars - honest.noise_vars, [0.3 - 0.09, 0.4 - 0.16], rtol=1e-12)
        assert (honest.noise_vars > TRUTH.noise_vars).all()
        assert_array_equal(published.slopes, honest.slopes)
        assert_array_equal(published.gate_slopes, honest.gate_slopes)

    def test_fewer_atoms_than_true_ones_are_refused(self):
        with pytest.raises(InputError, match="k = 1 atoms cannot sit at all 2 true ones; raise k"):
            published_start(TRUTH, 1, 100, np.random.default_rng(0))


class TestDataStart:
    @pytest.mark.parametrize(("k", "d"), [(1, 1), (2, 1), (4, 1), (3, 2)])
    def test_gates_are_the_posterior_of_the_gaussian_clusters(self, k, d):
        """softmax_k = pi_k N(x; c_k, Gamma) / sum_j pi_j N(x; c_j, Gamma); experts are the clusters' own."""
        data = random_case(0, k, d)[1]
        ours = data_start(data, k, np.random.default_rng(3))
        drawn = starts.data(1).draw(GaussianGatedFamily(d, 1, k, tied_gate=True), data, np.random.default_rng(3))
        density = [
            pi * np.atleast_1d(stats.multivariate_normal(c, drawn.gate_covs[0]).pdf(data.x))
            for pi, c in zip(drawn.weights, drawn.gate_means, strict=True)
        ]
        assert_allclose(ours.gates(data.x), (np.array(density) / np.sum(density, axis=0)).T, rtol=1e-9)
        assert_allclose(ours.expert_means(data.x), data.x @ drawn.slopes[:, 0].T + drawn.intercepts[:, 0])
        assert_allclose(ours.noise_vars, drawn.noise_covs[:, 0, 0])

    def test_is_a_function_of_its_generator_and_fits(self):
        data, family = softmax_sample("sgame", 2000, 0), SoftmaxGatedFamily(1, 2)
        one, same, other = (data_start(data, 2, np.random.default_rng(seed)) for seed in (0, 0, 1))
        assert_array_equal(one.slopes, same.slopes)
        assert not np.array_equal(one.slopes, other.slopes)
        best = max(softmax_newton(family, data, start).log_likelihood for start in (one, other))
        assert best > TRUTH.log_density(data).sum()

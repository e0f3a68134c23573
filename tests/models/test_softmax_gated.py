import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from moe_prompts import InputError, Sample
from moe_prompts.models.softmax_gated import SoftmaxGatedFamily, SoftmaxGatedMoE
from moe_prompts.models.softmax_truths import SOFTMAX_TRUTHS, softmax_sample, softmax_truth
from moe_prompts.seeds import data_rng

FIELDS = ("gate_intercepts", "gate_slopes", "slopes", "intercepts", "noise_vars")
SIZES = [(1, 1), (2, 1), (3, 1), (3, 2), (4, 3)]  # (k, d)


def random_params(seed: int, k: int, d: int) -> SoftmaxGatedMoE:
    rng = np.random.default_rng([seed, k, d])
    return SoftmaxGatedMoE(
        rng.standard_normal(k),
        2 * rng.standard_normal((k, d)),
        rng.standard_normal((k, d)),
        rng.standard_normal(k),
        rng.uniform(0.2, 1.5, k),
    )


def random_pairs(seed: int, n: int, d: int) -> Sample:
    rng = np.random.default_rng([seed, n, d])
    return Sample(rng.standard_normal((n, d)), 2 * rng.standard_normal((n, 1)))


def changed(params: SoftmaxGatedMoE, **arrays) -> SoftmaxGatedMoE:
    return SoftmaxGatedMoE(**({name: getattr(params, name) for name in FIELDS} | arrays))


def enumerated_density(params: SoftmaxGatedMoE, x: np.ndarray, y: float) -> float:
    """sum_k e^{beta_k' x + beta0_k} N(y; a_k' x + b_k, s_k) / sum_k e^{beta_k' x + beta0_k}, one term at a time."""
    joint, normaliser = 0.0, 0.0
    for atom in range(params.k):
        gate = np.exp(sum(params.gate_slopes[atom] * x) + params.gate_intercepts[atom])
        mean = sum(params.slopes[atom] * x) + params.intercepts[atom]
        joint += gate * stats.norm(mean, params.noise_vars[atom] ** 0.5).pdf(y)
        normaliser += gate
    return joint / normaliser


def assert_same(one: SoftmaxGatedMoE, other: SoftmaxGatedMoE, **tolerance) -> None:
    for name in FIELDS:
        assert_allclose(getattr(one, name), getattr(other, name), err_msg=name, **tolerance)


@pytest.mark.parametrize(("k", "d"), SIZES)
class TestDensity:
    def test_is_the_sum_over_atoms(self, k, d):
        params, data = random_params(0, k, d), random_pairs(0, 20, d)
        expected = [enumerated_density(params, x, y[0]) for x, y in zip(data.x, data.y, strict=True)]
        assert_allclose(np.exp(params.log_density(data)), expected, rtol=1e-12)

    def test_integrates_to_one_and_its_mean_is_the_regression(self, k, d):
        """Trapezoidal rule, which converges exponentially for smooth functions that vanish at both ends."""
        params = random_params(1, k, d)
        y = np.linspace(-30, 30, 1201)  # means within 10 of 0, standard deviations in [.44, 1.3]
        for x in random_pairs(1, 3, d).x:
            density = np.exp(params.log_density(Sample(np.tile(x, (len(y), 1)), y)))
            assert_allclose(density.sum() * (y[1] - y[0]), 1, rtol=1e-12)
            mean = (y * density).sum() * (y[1] - y[0])
            assert_allclose(params.regression(x)[0, 0], mean, rtol=1e-12, atol=1e-12)

    def test_gates_are_a_distribution(self, k, d):
        params, x = random_params(2, k, d), random_pairs(2, 50, d).x
        assert_allclose(params.gates(x).sum(axis=1), 1, rtol=1e-14)
        odds = np.exp(params.gate_logits(x))
        assert_allclose(params.gates(x), odds / odds.sum(axis=1, keepdims=True), rtol=1e-12)

    def test_a_translation_of_the_gate_changes_nothing(self, k, d):
        params, data = random_params(3, k, d), random_pairs(3, 50, d)
        rng = np.random.default_rng(3)
        for size in (1, 30):
            moved = params.translated(size * rng.standard_normal(), size * rng.standard_normal(d))
            # logits of size 100 are known to 1e-14
            assert_allclose(moved.log_density(data), params.log_density(data), rtol=1e-12, atol=1e-12)
            assert_allclose(moved.gates(data.x), params.gates(data.x), rtol=1e-12)
            assert_allclose(moved.regression(data.x), params.regression(data.x), rtol=1e-12, atol=1e-13)
            assert_same(moved.pinned(), params.pinned(), rtol=1e-13, atol=1e-13)

    def test_pinned_is_the_translation_that_ends_at_zero(self, k, d):
        params, x = random_params(4, k, d), random_pairs(4, 20, d).x
        pinned = params.pinned()
        assert pinned.gate_intercepts[-1] == 0
        assert (pinned.gate_slopes[-1] == 0).all()
        assert_allclose(pinned.gate_slopes - pinned.gate_slopes[0], params.gate_slopes - params.gate_slopes[0])
        assert_allclose(pinned.gates(x), params.gates(x), rtol=1e-12)
        assert_array_equal(pinned.pinned().gate_intercepts, pinned.gate_intercepts)

    def test_rescaled_is_the_law_of_the_rescaled_variables(self, k, d):
        """p((y - t) / c | (x - s) / r) = c p(y | x)."""
        params, data = random_params(5, k, d), random_pairs(5, 50, d)
        rng = np.random.default_rng(5)
        s, r, t, c = rng.standard_normal(d), rng.uniform(0.3, 3, d), 1.7, 0.4
        inner = params.rescaled(s, r, t, c)
        inside = Sample((data.x - s) / r, (data.y - t) / c)
        assert_allclose(inner.log_density(inside), params.log_density(data) + np.log(c), rtol=1e-11, atol=1e-11)
        assert_allclose(inner.gates(inside.x), params.gates(data.x), rtol=1e-12)
        assert_allclose(inner.regression(inside.x), (params.regression(data.x) - t) / c, rtol=1e-11, atol=1e-11)
        assert_same(inner.rescaled(-s / r, 1 / r, -t / c, 1 / c), params, rtol=1e-13, atol=1e-13)

    def test_the_order_of_atoms_changes_nothing(self, k, d):
        params, data = random_params(6, k, d), random_pairs(6, 20, d)
        order = np.random.default_rng(6).permutation(k)
        assert_allclose(params.atoms(order).log_density(data), params.log_density(data), rtol=1e-13)
        assert_allclose(params.atoms(order).gates(data.x), params.gates(data.x)[:, order], rtol=1e-13)


def test_steep_gates_and_far_outputs_do_not_overflow():
    step = SoftmaxGatedMoE([-5e7, 0], [[1e8], [0]], [[0], [0]], [3, -3], [0.1, 0.1])
    assert_array_equal(step.gates(np.array([[0.4], [0.6]])), [[0, 1], [1, 0]])
    assert_allclose(
        step.log_density(Sample([0.4, 0.6], [1e3, 1e3])), stats.norm([-3, 3], 0.1**0.5).logpdf(1e3), rtol=1e-13
    )


def test_masses_are_exponentials_of_the_intercepts():
    assert_allclose(random_params(0, 3, 1).translated(np.log(2), [5.0]).masses, 2 * random_params(0, 3, 1).masses)


class TestRespond:
    def test_each_atom_answers_as_often_as_its_gate_and_with_its_own_normal(self):
        """Experts so far apart that the output tells the atom."""
        params = SoftmaxGatedMoE([0.5, 0.0, -0.3], [[1.0], [0.0], [-2.0]], [[1], [2], [-1]], [-50, 0, 50], [0.2, 1, 3])
        n = 30_000
        for at in (-0.4, 0.8):
            y = params.respond(np.full((n, 1), at), np.random.default_rng(7)).y[:, 0]
            atom = np.digitize(y, [-25, 25])
            gates = params.gates(np.array([[at]]))[0]
            # four standard errors of a share, a mean and a variance
            shares = np.bincount(atom, minlength=3) / n
            assert (np.abs(shares - gates) < 4 * np.sqrt(gates * (1 - gates) / n)).all()
            for j in range(3):
                own, spread = y[atom == j], params.noise_vars[j]
                mean = params.slopes[j, 0] * at + params.intercepts[j]
                assert abs(own.mean() - mean) < 4 * (spread / len(own)) ** 0.5
                assert abs(own.var() - spread) < 4 * spread * (2 / len(own)) ** 0.5

    @pytest.mark.parametrize(("k", "d"), [(2, 1), (3, 2)])
    def test_outputs_follow_the_mixture(self, k, d):
        """Kolmogorov and Smirnov: the distance of 20 000 outputs from sum_k gate_k Phi is no rare one."""
        params = random_params(8, k, d)
        at = np.random.default_rng(9).standard_normal(d)
        y = params.respond(np.tile(at, (20_000, 1)), np.random.default_rng(10)).y[:, 0]
        gates, means = params.gates(at)[0], params.expert_means(at)[0]
        cdf = lambda v: stats.norm(means, params.noise_vars**0.5).cdf(np.asarray(v)[:, None]) @ gates
        assert stats.kstest(y, cdf).pvalue > 1e-4

    def test_is_a_function_of_inputs_and_generator(self):
        params, x = random_params(0, 3, 2), random_pairs(0, 30, 2).x
        one, same, other = (params.respond(x, np.random.default_rng(seed)) for seed in (1, 1, 2))
        assert_array_equal(one.x, x)
        assert_array_equal(one.y, same.y)
        assert not np.array_equal(one.y, other.y)


class TestChecks:
    def test_parameters_are_copied_and_cannot_be_written(self):
        slopes = np.zeros((2, 1))
        params = changed(random_params(0, 2, 1), slopes=slopes)
        slopes[0] = 1
        assert (params.slopes == 0).all()
        with pytest.raises(ValueError, match="read-only"):
            params.slopes[0] = 1

    @pytest.mark.parametrize(
        ("arrays", "message"),
        [
            ({"gate_intercepts": [[0.0, 0.0]]}, r"gate_intercepts \(1, 2\).*expected \(k,\) and \(k, d\)"),
            ({"gate_slopes": [1.0, 0.0]}, r"gate_slopes \(2,\); expected \(k,\) and \(k, d\)"),
            ({"gate_intercepts": [0.0]}, r"gate_intercepts has shape \(1,\); expected \(2,\) for k = 2 atoms"),
            ({"slopes": [[1.0, 2.0], [0.0, 1.0]]}, r"slopes has shape \(2, 2\); expected \(2, 1\).*d = 1 inputs"),
            ({"intercepts": [0.0, 1.0, 2.0]}, r"intercepts has shape \(3,\); expected \(2,\)"),
            ({"noise_vars": 1.0}, r"noise_vars has shape \(\); expected \(2,\)"),
            ({"gate_slopes": [[np.nan], [0.0]]}, "gate_slopes has NaN or infinite entries"),
            ({"gate_intercepts": [-np.inf, 0.0]}, "gate_intercepts has NaN or infinite entries"),
            ({"noise_vars": [1.0, np.nan]}, "noise_vars has NaN or infinite entries"),
            ({"noise_vars": [1.0, 0.0]}, r"noise_vars \[1.0, 0.0\]; expected positive variances \(not standard"),
            ({"noise_vars": [-1.0, 1.0]}, "expected positive variances"),
        ],
    )
    def test_parameters_that_do_not_fit_are_refused(self, arrays, message):
        with pytest.raises(InputError, match=message):
            changed(random_params(0, 2, 1), **arrays)

    def test_samples_of_another_shape_are_refused(self):
        params = random_params(0, 2, 1)
        with pytest.raises(InputError, match="sample has 1 inputs and 2 outputs; expected 1 and 1"):
            params.log_density(Sample(np.zeros((5, 1)), np.zeros((5, 2))))
        with pytest.raises(InputError, match="sample has 2 inputs and 1 outputs"):
            params.log_density(Sample(np.zeros((5, 2)), np.zeros(5)))
        for x in (np.zeros((10, 2)), np.zeros(10)):
            with pytest.raises(InputError, match=r"respond: x has shape \(10.*\); expected \(n, 1\)"):
                params.respond(x, np.random.default_rng(0))


class TestFamily:
    @pytest.mark.parametrize(("k", "d", "expected"), [(1, 1, 3), (2, 1, 8), (3, 1, 13), (3, 2, 18)])
    def test_free_parameters_are_counted(self, k, d, expected):
        assert SoftmaxGatedFamily(d, k).n_parameters == expected
        pinned = random_params(0, k, d).pinned()
        assert sum(getattr(pinned, name).size for name in FIELDS) - (d + 1) == expected  # one gate is given

    def test_a_start_comes_back_pinned(self):
        params = random_params(0, 3, 2)
        assert_same(SoftmaxGatedFamily(2, 3).check(params), params.pinned(), rtol=0)

    def test_what_does_not_fit_is_refused(self):
        with pytest.raises(InputError, match="d = 0; expected a whole number of at least 1"):
            SoftmaxGatedFamily(0, 2)
        with pytest.raises(InputError, match="k = 0; expected"):
            SoftmaxGatedFamily(1, 0)
        family = SoftmaxGatedFamily(1, 2)
        with pytest.raises(InputError, match="start has k = 3, d = 1; expected k = 2, d = 1"):
            family.check(random_params(0, 3, 1))
        with pytest.raises(InputError, match="start has k = 2, d = 2"):
            family.check(random_params(0, 2, 2))
        with pytest.raises(InputError, match="sample has 2 inputs and 1 outputs; expected d = 1 and 1"):
            family.check_sample(Sample(np.zeros((5, 2)), np.zeros(5)))
        with pytest.raises(InputError, match="sample has 1 inputs and 2 outputs"):
            family.check_sample(Sample(np.zeros(5), np.zeros((5, 2))))
        family.check_sample(Sample(np.zeros(5), np.zeros(5)))


class TestScenarios:
    @pytest.mark.parametrize("name", ["sgame", "sgame-uniform"])
    def test_published_truth_has_the_published_numbers(self, name):
        known = softmax_truth(name)
        assert (known.name, known.k_true, known.params.d) == (name, 2, 1)
        assert_array_equal(known.params.gate_intercepts, [-8, 0])
        assert_array_equal(known.params.gate_slopes, [[25], [0]])
        assert_array_equal(known.params.intercepts, [15, -5])
        assert_array_equal(known.params.slopes, [[-20], [20]])
        assert_allclose(np.sqrt(known.params.noise_vars), [0.3, 0.4], rtol=1e-15)
        assert known.family(3) == SoftmaxGatedFamily(1, 3)

    @pytest.mark.parametrize("name", SOFTMAX_TRUTHS)
    def test_a_sample_is_reproducible_and_what_studies_draw(self, name):
        x, y = softmax_sample(name, 100, seed=4)
        again = softmax_truth(name).sample(100, data_rng(4, name, 100, 0))
        assert_array_equal(x, again.x)
        assert_array_equal(y, again.y)
        for other in (softmax_sample(name, 100, seed=5), softmax_sample(name, 100, seed=4, replicate=1)):
            assert not np.array_equal(y, other.y)
        assert softmax_sample(name, 100.0, seed=4).n == 100

    def test_inputs_are_the_grid_or_uniform(self):
        assert_allclose(softmax_sample("sgame", 11, 0).x[:, 0], np.arange(11) / 10, atol=1e-15)
        x = softmax_sample("sgame-uniform", 5000, 0).x[:, 0]
        assert stats.kstest(x, "uniform").pvalue > 1e-4

    def test_unknown_names_and_bad_sizes_are_refused(self):
        with pytest.raises(InputError, match="unknown softmax-gated truth 'sgame-2'; expected one of sgame, sgame-uni"):
            softmax_truth("sgame-2")
        for n in (0, -3, 2.5):
            with pytest.raises(InputError, match=f"n = {n}; expected a whole number of at least 1"):
                softmax_sample("sgame", n, 0)


@pytest.mark.parametrize("delta", [1e-3, 0.5, 3.0, -10.0])
def test_atoms_split_all_alike_leave_the_density_as_it_is(delta):
    """beta_j +- delta with half the mass each: numerator and denominator are multiplied by cosh(delta x)."""
    known = softmax_truth("sgame").params
    both = known.atoms([0, 0, 1, 1])
    split = changed(
        both,
        gate_intercepts=both.gate_intercepts - np.log(2),
        gate_slopes=both.gate_slopes + delta * np.array([[1], [-1], [1], [-1]]),
    )
    data = softmax_sample("sgame", 500, 0)
    ratio = np.exp(split.log_density(data) - known.log_density(data))
    assert np.abs(ratio - 1).max() < 1e-14
    assert_allclose(split.regression(data.x), known.regression(data.x), rtol=1e-12, atol=1e-13)


def test_one_atom_split_alone_changes_the_density():
    known = softmax_truth("sgame").params
    both = known.atoms([0, 0, 1])
    split = changed(
        both,
        gate_intercepts=both.gate_intercepts - np.log([2, 2, 1]),
        gate_slopes=both.gate_slopes + np.array([[3], [-3], [0]]),
    )
    data = softmax_sample("sgame", 500, 0)
    assert np.abs(split.log_density(data) - known.log_density(data)).max() > 0.01

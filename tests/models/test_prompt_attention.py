import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from oracles import numeric_gradient
from prompt_cases import KINDS, SHAPES, points, random_head, random_prompts
from scipy.optimize import brentq
from scipy.special import softmax

from moe_prompts import InputError
from moe_prompts.identifiability import represented, tangent_rank
from moe_prompts.models.activations import ACTIVATIONS, rounded_relu
from moe_prompts.models.data import RegressionData, Sample
from moe_prompts.models.prompt_attention import (
    Head,
    PromptAttention,
    PromptFamily,
    PromptKind,
    from_head,
    token_wise,
)
from moe_prompts.models.prompt_derivatives import PromptMap
from moe_prompts.models.prompt_truths import midpoint_grid, prompt_truth, random_configuration, reference_head

FOUR_SIGMA = 4.0  # two-sided probability 6e-5 that a correct sampler fails in one of the numbers compared
UNITS = [kind for kind in KINDS if kind.startswith("adaptive") and kind != "adaptive:identity"]
ROUNDING = 1e-14  # of f relative to the largest f: some tens of operations


SIGMA = {
    "tanh": math.tanh,
    "gelu": lambda t: t * (1 + math.erf(t / math.sqrt(2))) / 2,
    "relu": lambda t: max(t, 0.0),
    "sigmoid": lambda t: 1 / (1 + math.exp(-t)),
    "identity": lambda t: t,
}


def key_and_value(params, l, point):
    """Return key and value of prompt l at one point, unit by unit."""
    atom, p = params.atoms[l], params.head.p
    if params.kind.base == "fixed":
        return atom, atom
    if params.kind.base == "decoupled":
        return atom[:p], atom[p:]
    if params.kind.base == "prefix":
        key, value = SIGMA[params.kind.sigma], SIGMA[params.kind.value]
        return np.array([key(t) for t in atom]), np.array([value(t) for t in atom])
    seen = np.append(point, 1) if params.kind.bias else point
    units = [SIGMA[params.kind.sigma](w @ seen) for w in atom.reshape(params.W2.shape[1], -1)]
    made = sum(unit * column for unit, column in zip(units, params.W2.T, strict=True))
    return made, made


def slow_regression(params, x):
    """f by the formula, one point and one expert at a time."""
    head, rows = params.head, []
    for point in x:
        masses, experts = [], []
        for A, alpha, a, eta in zip(head.A, head.alpha, head.a, head.eta, strict=True):
            masses.append(math.exp(point @ A @ point + alpha @ point + a))
            experts.append(eta @ np.append(point, 1))
        for l in range(params.k):
            key, value = key_and_value(params, l, point)
            masses.append(math.exp((head.B @ key) @ point + head.beta @ key + params.b[l]))
            experts.append(head.C @ value + head.c)
        rows.append(sum(e * h for e, h in zip(masses, experts, strict=True)) / sum(masses))
    return np.array(rows)


def assert_same_f(params, other):
    x = np.random.default_rng(2).uniform(-1, 1, (50, params.head.d))
    expected = params.regression(x)
    assert_allclose(other.regression(x), expected, rtol=0, atol=ROUNDING * np.abs(expected).max())


@pytest.mark.parametrize("shape", SHAPES, ids=["distinct", "all 1", "p < d"])
@pytest.mark.parametrize("kind", KINDS)
class TestRegression:
    def test_equals_a_loop_over_points(self, kind, shape):
        params = random_prompts(kind, **shape)
        x = points(params)
        assert_allclose(params.regression(x), slow_regression(params, x), rtol=1e-12, atol=1e-13)

    def test_map_gives_f_of_several_vectors_at_once(self, kind, shape):
        several = [random_prompts(kind, seed=0, **shape)]
        family, rng = several[0].family, np.random.default_rng(5)
        several += [family.unpack(rng.standard_normal(family.size)) for _ in range(2)]
        x = points(several[0])
        values = PromptMap(family, x).at(np.array([params.vector for params in several]))
        for f, params in zip(values.f, several, strict=True):
            assert_allclose(f, slow_regression(params, x).T, rtol=1e-12, atol=1e-13)
        assert_array_equal(values.chosen(np.array([2, 0])).f, values.f[[2, 0]])

    def test_vector_and_unpack_are_inverse(self, kind, shape):
        params = random_prompts(kind, **shape)
        again = params.family.unpack(params.vector)
        for name in ("b", "atoms", "W2"):
            assert_allclose(getattr(again, name), getattr(params, name), rtol=1e-15)  # relu divides by norms once more


def test_gates_are_probabilities_and_f_is_their_mean_of_experts():
    params = random_prompts("adaptive:tanh")
    x = points(params)
    assert_allclose(params.gates(x).sum(axis=1), 1, rtol=1e-14)
    one = replace(params, head=replace(params.head, eta=np.zeros_like(params.head.eta), C=0 * params.head.C))
    assert_allclose(one.regression(x), params.gates(x)[:, 2:].sum(axis=1)[:, None] * params.head.c, rtol=1e-13)


def test_large_logits_do_not_overflow():
    params = random_prompts("fixed")
    sure = replace(params, b=np.array([0.0, 2000.0, 0.0]))
    x = points(params)
    expected = np.broadcast_to(params.head.C @ params.atoms[1] + params.head.c, (len(x), params.head.l))
    assert_allclose(sure.regression(x), expected, rtol=1e-14)
    assert_allclose(PromptMap(sure.family, x).at(sure.vector[None]).f[0].T, expected, rtol=1e-14)


class TestDerivatives:
    @pytest.mark.parametrize("shape", SHAPES, ids=["distinct", "all 1", "p < d"])
    @pytest.mark.parametrize("kind", KINDS)
    def test_jacobian_equals_central_differences(self, kind, shape):
        params = random_prompts(kind, **shape)
        map = PromptMap(params.family, points(params))
        assert_jacobian_equals_differences(map, params.vector)

    @pytest.mark.parametrize("shape", SHAPES, ids=["distinct", "all 1", "p < d"])
    @pytest.mark.parametrize("kind", KINDS)
    def test_curvature_equals_second_differences(self, kind, shape):
        params = random_prompts(kind, **shape)
        map = PromptMap(params.family, points(params))
        assert_curvature_equals_differences(map, params.vector)

    def test_a_rounded_relu_may_stand_in(self):
        params = random_prompts("adaptive:relu")
        map = PromptMap(params.family, points(params), rounded_relu(50.0))  # wide: a parabola everywhere here
        assert_jacobian_equals_differences(map, params.vector)
        assert_curvature_equals_differences(map, params.vector)

    @pytest.mark.parametrize("kind", KINDS)
    def test_several_vectors_have_each_their_own_derivatives(self, kind):
        params = random_prompts(kind)
        x, rng = points(params), np.random.default_rng(1)
        vectors = np.array([params.vector, 1.1 * params.vector])
        vectors = np.array([params.family.unpack(v).vector for v in vectors])  # unit columns again
        residual = rng.standard_normal((2, params.head.l, len(x)))
        map = PromptMap(params.family, x)
        together = map.at(vectors)
        for s in range(2):
            alone = map.at(vectors[s : s + 1])
            assert_allclose(together.jacobian()[s], alone.jacobian()[0], rtol=1e-12, atol=1e-13)
            expected = alone.curvature(residual[s : s + 1])[0]
            assert_allclose(together.curvature(residual)[s], expected, rtol=1e-11, atol=1e-12)

    @pytest.mark.parametrize("kind", KINDS)
    def test_jacobian_and_curvature_equal_autodiff(self, kind):
        torch = pytest.importorskip("torch", reason="autodiff is the second road to the derivatives")
        params = random_prompts(kind)
        x = points(params)
        f, theta = torch_regression(torch, params.family, x), torch.tensor(params.vector)
        residual = np.random.default_rng(4).standard_normal((params.head.l, len(x)))
        lean = lambda t: (torch.tensor(residual) * f(t)).sum()
        values = PromptMap(params.family, x).at(params.vector[None])
        assert_allclose(values.f[0], f(theta).numpy(), rtol=1e-12, atol=1e-13)
        jacobian = torch.func.jacrev(f)(theta).numpy()  # (l, m, size)
        assert_allclose(values.jacobian()[0], np.moveaxis(jacobian, 2, 0), rtol=1e-10, atol=1e-12)
        hessian = torch.func.jacrev(torch.func.grad(lean))(theta).numpy()
        assert_allclose(values.curvature(residual[None])[0], hessian, rtol=1e-9, atol=1e-11)


def assert_jacobian_equals_differences(map, vector):
    f = lambda v: map.at(v[None]).f[0]
    # step 1e-5: truncation of order 1e-10, rounding of order 1e-16 / 1e-5
    assert_allclose(map.at(vector[None]).jacobian()[0], numeric_gradient(f, vector, 1e-5), rtol=1e-6, atol=1e-8)


def assert_curvature_equals_differences(map, vector):
    rng, values, step = np.random.default_rng(3), map.at(vector[None]), 1e-4
    residual = rng.standard_normal(values.f.shape)
    curvature = values.curvature(residual)[0]
    assert_allclose(curvature, curvature.T, rtol=1e-12, atol=1e-12)
    g = lambda v: (residual * map.at(v[None]).f).sum()
    for u in rng.standard_normal((20, len(vector))) / np.sqrt(len(vector)):
        second = (g(vector + step * u) - 2 * g(vector) + g(vector - step * u)) / step**2
        # rounding of order 10 * 1e-16 / step^2 = 1e-7, truncation of order step^2 times fourth derivatives
        assert_allclose(u @ curvature @ u, second, rtol=1e-5, atol=1e-5)


def torch_regression(torch, family, x):
    """theta -> f (l, m): the formula once more, for autodiff."""
    head, kind, k, q = family.head, family.kind, family.k, family.atom_size
    A, a, eta, B, C, alpha, beta, c = (
        torch.tensor(getattr(head, name)) for name in ("A", "a", "eta", "B", "C", "alpha", "beta", "c")
    )
    x = torch.tensor(x)
    one = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
    sigma = {
        "tanh": torch.tanh,
        "gelu": torch.nn.functional.gelu,
        "relu": torch.relu,
        "sigmoid": torch.sigmoid,
    }
    frozen = torch.einsum("mi,nij,mj->mn", x, A, x) + x @ alpha.T + a
    frozen_experts = torch.einsum("nlj,mj->mnl", eta, one)

    def keys_and_values(atoms, shared):
        if kind.base == "prefix":
            made = (sigma.get(name, lambda t: t)(atoms) for name in (kind.sigma, kind.value))
            return tuple(one.expand(len(x), k, q) for one in made)
        if kind.base != "adaptive":
            both = atoms.expand(len(x), k, q)
            return both[:, :, : head.p], both[:, :, -head.p :]
        hidden = torch.einsum("kri,mi->mkr", atoms.reshape(k, family.hidden, -1), one if kind.bias else x)
        if kind.sigma == "identity":
            return hidden, hidden
        W2 = shared.reshape(head.p, family.hidden)
        if kind.sigma == "relu":
            W2 = W2 / torch.linalg.norm(W2, dim=0)
        made = sigma[kind.sigma](hidden) @ W2.T
        return made, made

    def f(theta):
        keys, values = keys_and_values(theta[k : k + k * q].reshape(k, q), theta[k + k * q :])
        logits = torch.einsum("mp,mkp->mk", x @ B + beta, keys) + theta[:k]
        gates = torch.softmax(torch.cat([frozen, logits], dim=1), dim=1)
        return torch.einsum("mn,mnl->lm", gates, torch.cat([frozen_experts, values @ C.T + c], dim=1))

    return f


D = 3  # features of a token


def real_head(d_h, biased, seed=0):
    """W_Q, W_K, W_V and their biases, or none; d_v = 2."""
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal((D, d_h)), rng.standard_normal((D, d_h)), rng.standard_normal((D, 2))
    bias = (rng.standard_normal(d_h), rng.standard_normal(d_h), rng.standard_normal(2)) if biased else None
    return weights, bias


def projected(weights, bias, tokens, keys, values):
    """Q of the tokens, K and V of the tokens with prompts appended."""
    W_Q, W_K, W_V = weights
    c_q, c_k, c_v = bias or (0, 0, 0)
    return tokens @ W_Q + c_q, np.vstack([tokens, keys]) @ W_K + c_k, np.vstack([tokens, values]) @ W_V + c_v


def attention(Q, K, V):
    return softmax(Q @ K.T / np.sqrt(Q.shape[1]), axis=1) @ V


@pytest.mark.parametrize("biased", [False, True], ids=["plain", "biased"])
@pytest.mark.parametrize("n_tokens", [1, 2, 5])
@pytest.mark.parametrize("d_h", [1, 2, D])
class TestRealHead:
    def test_fixed_and_decoupled_prompts_are_appended_tokens(self, d_h, n_tokens, biased):
        weights, bias = real_head(d_h, biased)
        rng = np.random.default_rng(1)
        tokens, keys, values = (rng.standard_normal((n, D)) for n in (n_tokens, 2, 2))
        shared = attention(*projected(weights, bias, tokens, keys, keys))
        prefixes = attention(*projected(weights, bias, tokens, keys, values))
        for query in range(n_tokens):
            head = from_head(*weights, n_tokens, bias, query)
            assert_row(PromptAttention.fixed(head, np.zeros(2), keys), tokens, shared[query])
            assert_row(PromptAttention.decoupled(head, np.zeros(2), keys, values), tokens, prefixes[query])

    @pytest.mark.parametrize("sigma", ["tanh", "gelu", "relu"])
    def test_token_wise_prompts_are_features_of_mixed_tokens(self, d_h, n_tokens, biased, sigma):
        weights, bias = real_head(d_h, biased)
        rng = np.random.default_rng(1)
        tokens, projectors = rng.standard_normal((n_tokens, D)), rng.standard_normal((2, n_tokens))
        W1, W2 = rng.standard_normal((4, D)), rng.standard_normal((D, 4))
        prompts = np.vectorize(SIGMA[sigma])(projectors @ tokens @ W1.T) @ W2.T
        expected = attention(*projected(weights, bias, tokens, prompts, prompts))
        for query in range(n_tokens):
            head = from_head(*weights, n_tokens, bias, query)
            params = PromptAttention.adaptive(head, np.zeros(2), token_wise(W1, projectors), W2, sigma)
            assert_row(params, tokens, expected[query])

    def test_torch_attention_agrees(self, d_h, n_tokens, biased):
        torch = pytest.importorskip("torch", reason="its attention is what the vision part runs")
        weights, bias = real_head(d_h, biased)
        rng = np.random.default_rng(1)
        tokens, prompts = rng.standard_normal((n_tokens, D)), rng.standard_normal((2, D))
        Q, K, V = (torch.tensor(one)[None] for one in projected(weights, bias, tokens, prompts, prompts))
        expected = torch.nn.functional.scaled_dot_product_attention(Q, K, V)[0].numpy()
        for query in range(n_tokens):
            head = from_head(*weights, n_tokens, bias, query)
            assert_row(PromptAttention.fixed(head, np.zeros(2), prompts), tokens, expected[query])


def assert_row(params, tokens, expected):
    assert_allclose(params.regression(tokens.reshape(1, -1))[0], expected, rtol=1e-12, atol=1e-12)


def moved_apart(params, shift):
    """Prompt 0 split into two equal halves, moved by +shift and -shift; shift has the size of an atom."""
    atoms = params.chosen([0, 0, 1]).atoms.copy()
    atoms[0] += shift
    atoms[1] -= shift
    return replace(params.chosen([0, 0, 1]), atoms=atoms)


class TestBlindDirections:
    """Two equal halves of a prompt move apart, by any length, and f stays as it is."""

    @pytest.mark.parametrize("kind", KINDS)
    def test_equal_parts_of_a_prompt(self, kind):
        params = random_prompts(kind, k=2)
        assert_same_f(params, params.chosen([0, 0, 1]))
        assert_same_f(params, params.chosen([1, 0, 1, 1]))

    @pytest.mark.parametrize("name", ["attention-decoupled", "attention-random-1-decoupled"])
    def test_values_of_decoupled_prompts_with_one_key(self, name):
        params = prompt_truth(name).params
        assert_same_f(params, moved_apart(params, np.array([0, 0, 0.8, -1.3])))

    @pytest.mark.parametrize("name", ["attention-identity", "attention-random-1-identity"])
    def test_linear_prompts_along_antisymmetric_logits(self, name):
        params = prompt_truth(name).params
        shift = np.linalg.solve(params.head.B, [[0, 1.5], [-1.5, 0]])
        assert_same_f(params, moved_apart(params, shift.ravel()))

    @pytest.mark.parametrize("name", ["attention-fixed-rank1", "attention-random-1-fixed-rank1"])
    def test_fixed_prompts_along_the_null_space_of_a_singular_projection(self, name):
        params = prompt_truth(name).params
        assert_same_f(params, moved_apart(params, 1.2 * np.linalg.svd(params.head.B)[2][1]))

    def test_prefixes_whose_key_stands_still(self):
        """A relu key does not move where p < 0, and identity values average."""
        params = prompt_truth("attention-prefix_relu_identity").params
        assert params.atoms[0, 0] < -0.3
        assert_same_f(params, moved_apart(params, np.array([0.3, 0.0])))

    def test_separate_keys_and_values_are_the_same_prompts(self):
        params = prompt_truth("attention-prefix_tanh_gelu").params
        apart = prompt_truth("attention-prefix_tanh_gelu-separate").params
        assert str(apart.kind) == "decoupled"
        assert_same_f(params, apart)
        assert_same_f(prompt_truth("attention-fixed").params, prompt_truth("attention-fixed-separate").params)

    def test_another_direction_is_seen(self):
        params = prompt_truth("attention-fixed-rank1").params
        seen = moved_apart(params, 0.1 * np.linalg.svd(params.head.B)[2][0])
        assert np.abs(seen.regression(midpoint_grid()) - params.regression(midpoint_grid())).max() > 1e-3


def with_units(params, W1, W2):
    """The same head and masses, other hidden units: W1 (k, r, D)."""
    return PromptAttention.adaptive(params.head, params.b, W1, W2, params.kind.sigma, params.kind.bias)


class TestSymmetriesOfHiddenUnits:
    @pytest.mark.parametrize("kind", UNITS)
    def test_permutation(self, kind):
        params = random_prompts(kind, hidden=4)
        W1, order = params.atoms.reshape(params.k, 4, -1), [2, 0, 3, 1]
        assert_same_f(params, with_units(params, W1[:, order], params.W2[:, order]))

    def test_sign_of_tanh(self):
        params = random_prompts("adaptive:tanh", hidden=4)
        W1, signs = params.atoms.reshape(params.k, 4, -1), np.array([1, -1, -1, 1])
        assert_same_f(params, with_units(params, W1 * signs[:, None], params.W2 * signs))

    def test_scale_of_relu_has_a_normal_form(self):
        params = random_prompts("adaptive:relu", hidden=4)
        W1, scales = params.atoms.reshape(params.k, 4, -1), np.array([0.3, 1, 7, 2.5])
        rescaled = with_units(params, W1 * scales[:, None], params.W2 / scales)
        assert_same_f(params, rescaled)
        assert_allclose(rescaled.vector, params.vector, rtol=1e-14)
        assert_allclose(np.linalg.norm(rescaled.W2, axis=0), 1, rtol=1e-14)

    def test_only_the_product_counts_with_the_identity(self):
        rng = np.random.default_rng(0)
        head, b, W1, W2 = random_head(rng), np.zeros(2), rng.standard_normal((2, 4, 3)), rng.standard_normal((5, 4))
        G = rng.standard_normal((4, 4)) + 3 * np.eye(4)
        one = PromptAttention.adaptive(head, b, W1, W2, "identity")
        other = PromptAttention.adaptive(head, b, G @ W1, W2 @ np.linalg.inv(G), "identity")
        assert_allclose(other.vector, one.vector, rtol=1e-12, atol=1e-13)

    @pytest.mark.parametrize(
        ("kind", "scales"), [("adaptive:relu", 2), ("adaptive:tanh", 0), ("adaptive:identity", 0), ("fixed", 0)]
    )
    def test_scales_of_relu_are_no_parameters(self, kind, scales):
        family = random_prompts(kind, hidden=2).family
        assert family.size - family.n_parameters == scales


@pytest.mark.parametrize("sigma", ["tanh", "gelu"])
def test_adaptive_prompts_with_bias_contain_fixed_ones(sigma):
    """W1_l = (0, t_l) and W2 = s I with s sigma(t_l) = p_l; s so large that p_l / s is in the range of gelu."""
    fixed = random_prompts("fixed", d=3, p=2)
    s = 10 * np.abs(fixed.atoms).max()
    at = np.vectorize(lambda v: brentq(lambda t: SIGMA[sigma](t) - v, -0.7, 0.7, xtol=1e-16))(fixed.atoms / s)
    W1 = np.concatenate([np.zeros((3, 2, 3)), at[:, :, None]], axis=2)
    adaptive = PromptAttention.adaptive(fixed.head, fixed.b, W1, s * np.eye(2), sigma, bias=True)
    x = points(fixed)
    assert_allclose(adaptive.regression(x), fixed.regression(x), rtol=0, atol=1e-10)  # the precision of the root


class TestActivations:
    T = np.linspace(-4, 4, 80)  # an even number of points: none at the kink, 0

    @pytest.mark.parametrize("sigma", [*ACTIVATIONS.values(), rounded_relu(0.33)], ids=[*ACTIVATIONS, "rounded relu"])
    def test_derivatives_equal_central_differences(self, sigma):
        difference = lambda f: (f(self.T + 1e-5) - f(self.T - 1e-5)) / 2e-5
        assert_allclose(sigma.first(self.T), difference(sigma.value), rtol=1e-8, atol=1e-9)
        assert_allclose(sigma.second(self.T), difference(sigma.first), rtol=1e-8, atol=1e-9)

    @pytest.mark.parametrize("name", ACTIVATIONS)
    def test_value_equals_the_definition(self, name):
        assert_allclose(ACTIVATIONS[name].value(self.T), [SIGMA[name](t) for t in self.T], rtol=1e-11, atol=1e-15)

    @pytest.mark.parametrize("name", ACTIVATIONS)
    def test_symmetries_are_those_declared(self, name):
        sigma = ACTIVATIONS[name]
        assert np.allclose(sigma.value(-self.T), -sigma.value(self.T)) == sigma.odd
        assert np.allclose(sigma.value(3 * self.T), 3 * sigma.value(self.T)) == sigma.homogeneous

    @pytest.mark.parametrize("width", [1e-3, 0.33, 2.0])
    def test_rounded_relu_is_within_a_quarter_of_its_width(self, width):
        t = np.linspace(-2, 2, 401) * width
        error = rounded_relu(width).value(t) - np.maximum(t, 0)
        assert (error >= -1e-16).all()
        assert_allclose(error.max(), width / 4, rtol=1e-12)
        assert (error[np.abs(t) >= width] == 0).all()


@pytest.mark.parametrize("text", KINDS)
def test_kind_round_trip(text):
    assert str(PromptKind.parse(text)) == text
    assert PromptKind.parse(str(PromptKind.parse(text))) == PromptKind.parse(text)


def test_adaptive_alone_is_gelu():
    assert PromptKind.parse("adaptive") == PromptKind("adaptive", "gelu")


class TestTruths:
    def few_cells(self):
        return replace(prompt_truth("attention-gelu"), x=midpoint_grid(2))

    def test_design_has_the_moments_of_n_pairs(self):
        known, n, replicates, rng = self.few_cells(), 50, 4000, np.random.default_rng(0)
        data = [known.data(n, rng) for _ in range(replicates)]
        counts, sums = np.array([one.weights for one in data]), np.array([one.sums for one in data])
        f, share = known.params.regression(known.x), 1 / len(known.x)
        assert (counts.sum(axis=1) == n).all()
        noise = sums - counts[:, :, None] * f
        for draws, mean, variance in (
            (sums, n * share * f, n * share * (known.noise**2 + (1 - share) * f**2)),
            (noise, 0, n * share * known.noise**2 * np.ones_like(f)),
        ):
            assert (np.abs(draws.mean(axis=0) - mean) < FOUR_SIGMA * np.sqrt(variance / replicates)).all()
            squares = (draws - mean) ** 2
            assert (
                np.abs(squares.mean(axis=0) - variance) < FOUR_SIGMA * squares.std(axis=0) / np.sqrt(replicates)
            ).all()

    @pytest.mark.parametrize("n", [1, 1000, 10**12])
    def test_design_costs_the_same_for_any_n(self, n):
        known = prompt_truth("attention-tanh")
        data = known.data(n, np.random.default_rng(0))
        assert data.weights.sum() == data.n == n
        assert data.sums.shape == (len(known.x), 2) == (256, 2)
        assert not data.sums[data.weights == 0].any()

    def test_population_has_no_noise(self):
        known = prompt_truth("attention-decoupled")
        data = known.population(512)
        assert_array_equal(data.weights, 2)
        assert_array_equal(data.sums, 2 * known.params.regression(known.x))
        assert known.population().weights.sum() == data.weights.sum() / 512 == 1

    def test_sample_has_the_moments_of_the_noise(self):
        known, n = prompt_truth("attention-fixed"), 20_000
        x, y = known.params.sample(n, np.random.default_rng(0), known.noise)
        z = (y - known.params.regression(x)) / known.noise
        assert np.abs(x).max() <= 1
        assert (np.abs(z.mean(axis=0)) < FOUR_SIGMA / np.sqrt(n)).all()
        assert (np.abs((z**2).mean(axis=0) - 1) < FOUR_SIGMA * np.sqrt(2 / n)).all()

    def test_a_name_is_a_configuration(self):
        for kind in ("fixed", "adaptive:relu"):
            one, again, other = (random_configuration(number, kind).params for number in (3, 3, 4))
            assert_array_equal(one.vector, again.vector)
            assert_array_equal(one.head.A, again.head.A)
            assert not np.allclose(one.vector, other.vector)
        relu, fixed = prompt_truth("attention-random-3-relu").params, prompt_truth("attention-random-3-fixed").params
        assert_array_equal(relu.b, fixed.b)
        assert_array_equal(relu.head.B, fixed.head.B)

    @pytest.mark.parametrize("prefix", ["attention-", "attention-random-2-"])
    @pytest.mark.parametrize("suffix", ["", "-rank1"])
    @pytest.mark.parametrize("kind", ["fixed", "decoupled", *ACTIVATIONS])
    def test_every_truth_lies_in_its_family_and_is_named(self, prefix, kind, suffix):
        known = prompt_truth(prefix + kind + suffix)
        family = known.family(known.params.kind, known.k_true)
        assert known.name == prefix + kind + suffix
        assert_allclose(family.unpack(known.params.vector).vector, known.params.vector, rtol=1e-15)
        assert known.kind == str(known.params.kind) + (", singular B" if suffix else "")
        assert np.linalg.matrix_rank(known.params.head.B) == (1 if suffix else 2)


def test_statistics_give_the_sum_of_squares_up_to_a_constant():
    """For the pairs themselves and for the cells of a design."""
    one, other = prompt_truth("attention-tanh").params, prompt_truth("attention-gelu").params
    rng, cells = np.random.default_rng(0), midpoint_grid(3)
    where = rng.integers(len(cells), size=60)
    sample = Sample(cells[where], rng.standard_normal((60, 2)))
    sums = np.zeros((len(cells), 2))
    np.add.at(sums, where, sample.y)
    by_cell = RegressionData(cells, np.bincount(where, minlength=len(cells)), sums, 60)
    squares = lambda params: ((sample.y - params.regression(sample.x)) ** 2).sum()
    for data in (RegressionData.of(sample), by_cell):
        objective = lambda params, data=data: (
            data.weights @ (params.regression(data.x) ** 2).sum(axis=1)
            - 2 * (params.regression(data.x) * data.sums).sum()
        )
        assert_allclose(objective(one) - objective(other), squares(one) - squares(other), rtol=1e-11)
        assert data.n == 60


HEAD = prompt_truth("attention-gelu").params.head
GELU = PromptKind("adaptive", "gelu")
ONES = np.ones((2, 2, 2))


def changed_head(**change):
    return Head(**{**{name: getattr(HEAD, name) for name in ("A", "a", "eta", "B", "C")}, **change})


def with_nan(shape):
    return np.where(np.arange(np.prod(shape)).reshape(shape) == 1, np.nan, 1.0)


BAD = {
    "unknown sigma": (
        lambda: PromptAttention.adaptive(HEAD, [0, 0], ONES, np.eye(2), "swish"),
        "unknown activation 'swish'; expected one of tanh, gelu",
    ),
    "unknown base": (
        lambda: PromptKind("linear"),
        "unknown prompt kind 'linear'; expected fixed, decoupled, prefix or adaptive",
    ),
    "fixed with sigma": (lambda: PromptKind("fixed", "gelu"), "fixed prompts have no activation and no bias"),
    "decoupled with bias": (lambda: PromptKind("decoupled", bias=True), "decoupled prompts have no activation"),
    "k = 0": (lambda: PromptFamily(HEAD, GELU, 0), "k = 0; expected a whole number of at least 1"),
    "k = 1.5": (lambda: PromptFamily(HEAD, GELU, 1.5), "k = 1.5"),
    "hidden = 0": (lambda: PromptFamily(HEAD, GELU, 1, 0), "hidden = 0; expected a whole number of at least 1"),
    "no hidden units": (
        lambda: PromptAttention.adaptive(HEAD, [0], np.ones((1, 0, 2)), np.ones((2, 0))),
        r"W1 \(1, 0, 2\), W2 \(2, 0\); expected",
    ),
    "no prompts": (lambda: PromptAttention.fixed(HEAD, [], np.zeros((0, 2))), r"b \(0,\).*k >= 1"),
    "vector": (lambda: PromptFamily(HEAD, GELU, 1).unpack(np.zeros(8)), r"shape \(8,\); expected \(9,\)"),
    "prompts": (
        lambda: PromptAttention.fixed(HEAD, [0, 0], np.ones((2, 3))),
        r"atoms has shape \(2, 3\); expected \(2, 2\)",
    ),
    "masses": (
        lambda: PromptAttention.fixed(HEAD, [0, 0, 0], np.ones((2, 2))),
        r"atoms has shape \(2, 2\); expected \(3, 2\)",
    ),
    "W1 of wrong width": (
        lambda: PromptAttention.adaptive(HEAD, [0, 0], np.ones((2, 2, 3)), np.eye(2)),
        r"atoms has shape \(2, 6\); expected \(2, 4\)",
    ),
    "W1 of one prompt": (
        lambda: PromptAttention.adaptive(HEAD, [0], np.ones((2, 2)), np.eye(2)),
        r"W1 \(2, 2\), W2 \(2, 2\); expected \(k, r, d\)",
    ),
    "units of W1 and W2": (
        lambda: PromptAttention.adaptive(HEAD, [0, 0], ONES, np.ones((2, 3))),
        r"W1 \(2, 2, 2\), W2 \(2, 3\)",
    ),
    "W2 of the identity": (
        lambda: PromptAttention(HEAD, PromptKind("adaptive", "identity"), [0], np.ones((1, 4)), 2 * np.eye(2)),
        "with the identity W2 is I",
    ),
    "NaN in W1": (lambda: PromptAttention.adaptive(HEAD, [0, 0], with_nan((2, 2, 2)), np.eye(2)), "atoms has NaN"),
    "NaN in W2": (lambda: PromptAttention.adaptive(HEAD, [0, 0], ONES, with_nan((2, 2))), "W2 has NaN"),
    "infinite mass": (lambda: PromptAttention.fixed(HEAD, [0, np.inf], np.eye(2)), "b has NaN or infinite"),
    "zero column of relu": (
        lambda: PromptAttention.adaptive(HEAD, [0, 0], ONES, [[1, 0], [1, 0]], "relu"),
        "W2 has a zero column",
    ),
    "x of wrong width": (
        lambda: prompt_truth("attention-gelu").params.regression(np.zeros((4, 3))),
        r"x of shape \(4, 3\)",
    ),
    "x without rows": (lambda: prompt_truth("attention-gelu").params.gates(np.zeros(2)), r"expected \(points, 2\)"),
    "no frozen experts": (
        lambda: changed_head(A=np.zeros((0, 2, 2)), a=[], eta=np.zeros((0, 2, 3))),
        "no frozen experts; expected N >= 1",
    ),
    "A not square": (lambda: changed_head(A=np.zeros((2, 3, 2))), r"A has shape \(2, 3, 2\); expected \(2, 2, 2\)"),
    "A of one expert": (lambda: changed_head(A=np.zeros((2, 2))), r"A \(2, 2\).*expected \(N, d, d\)"),
    "C of wrong width": (lambda: changed_head(C=np.zeros((2, 3))), r"C has shape \(2, 3\); expected \(2, 2\)"),
    "beta": (lambda: changed_head(beta=np.zeros(3)), r"beta has shape \(3,\); expected \(2,\)"),
    "NaN in eta": (lambda: changed_head(eta=with_nan((2, 2, 3))), "eta has NaN"),
    "unknown truth": (
        lambda: prompt_truth("attention-swish"),
        "unknown truth 'attention-swish'; expected attention-KIND",
    ),
    "unknown suffix": (lambda: prompt_truth("attention-gelu-rank2"), "unknown truth 'attention-gelu-rank2'"),
    "no number": (lambda: prompt_truth("attention-random-gelu"), "unknown truth"),
    "grid": (lambda: midpoint_grid(0), "0 cells per axis; expected at least 1"),
    "no tokens": (
        lambda: from_head(*real_head(2, False)[0], 0),
        "tokens = 0, query = 0; expected whole numbers, tokens >= 1",
    ),
    "half a token": (lambda: from_head(*real_head(2, False)[0], 1.5), "tokens = 1.5"),
    "query": (lambda: from_head(*real_head(2, False)[0], 2, query=2), "query = 2; expected"),
    "negative query": (lambda: from_head(*real_head(2, False)[0], 2, query=-1), "query = -1"),
    "bias of a head": (
        lambda: from_head(*real_head(2, False)[0], 2, (np.zeros(3), np.zeros(2), np.zeros(2))),
        r"bias of shapes \(3,\), \(2,\), \(2,\); expected \(2,\), \(2,\), \(2,\)",
    ),
    "W_K": (lambda: from_head(np.ones((3, 2)), np.ones((3, 1)), np.ones((3, 2)), 2), r"W_K \(3, 1\)"),
    "W_V": (lambda: from_head(np.ones((3, 2)), np.ones((3, 2)), np.ones((2, 2)), 2), r"W_V \(2, 2\)"),
    "NaN in W_Q": (lambda: from_head(with_nan((3, 2)), np.ones((3, 2)), np.ones((3, 2)), 2), "NaN"),
    "NaN in data": (
        lambda: RegressionData(np.zeros((2, 1)), np.ones(2), [[0.0], [np.nan]], 2),
        "sums has NaN or infinite values; drop or impute these rows first",
    ),
    "axes of data": (
        lambda: RegressionData(np.zeros(2), np.ones(2), np.ones((2, 1)), 2),
        r"x has shape \(2,\); expected 2 axes",
    ),
    "rows of data": (
        lambda: RegressionData(np.zeros((2, 1)), np.ones(3), np.ones((2, 1)), 2),
        "2 points, 3 weights and 2 sums",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_clear_error(case):
    make, message = BAD[case]
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "linear",
        "fixed:gelu",
        "decoupled:bias",
        "adaptive:",
        "adaptive:swish",
        "adaptive:gelu:tanh",
        "adaptive:gelu:bias:bias",
    ],
)
def test_bad_kind_gets_one_clear_error(text):
    with pytest.raises(InputError, match=f"unknown prompt kind '{text}'; expected fixed, decoupled, adaptive"):
        PromptKind.parse(text)


def test_parameters_cannot_be_changed_in_place():
    params = prompt_truth("attention-gelu").params
    for array in (params.b, params.W2, params.head.A):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda head: PromptAttention(
                head, PromptKind("adaptive", "relu"), np.zeros(1), np.ones((1, 4)), 2 * np.eye(2)
            ),
            r"columns of W2 of length \[2.0, 2.0\]; expected 1",
        ),
        (lambda head: PromptAttention.adaptive(head, [], np.zeros((0, 2, 2)), np.eye(2)), "with k and r at least 1"),
        (
            lambda head: PromptAttention.adaptive(head, [0], np.ones((1, 2, 2)), np.full((2, 2), np.inf), "relu"),
            "W2 has NaN or infinite entries",
        ),
        (
            lambda head: PromptAttention.decoupled(head, [0], np.ones((1, 1)), np.ones((1, 3))),
            r"keys has shape \(1, 1\); expected \(1, 2\)",
        ),
        (lambda head: from_head(np.eye(2), np.eye(2), np.eye(2), 2, query=0.5), "expected whole numbers"),
        (lambda head: from_head(np.eye(2), np.eye(2), np.eye(2), 2, (np.zeros(2),) * 2), "2 biases; expected three"),
    ],
)
def test_more_wrong_input(build, message):
    with pytest.raises(InputError, match=message):
        build(reference_head())


def test_regression_refuses_nan():
    with pytest.raises(InputError, match="all finite"):
        prompt_truth("attention-fixed").params.regression(np.array([[np.nan, 0.0]]))


@pytest.mark.parametrize("n", [0, -1, 1.5])
def test_no_sample_of_no_size(n):
    known, rng = prompt_truth("attention-fixed"), np.random.default_rng(0)
    with pytest.raises(InputError, match=f"n = {n}.* expected a whole number of at least 1"):
        known.params.sample(n, rng, 0.1)
    with pytest.raises(InputError, match=f"n = {n}; expected a whole number of at least 1"):
        known.data(n, rng)


@pytest.mark.parametrize("seed", range(3))
def test_adaptive_prompts_with_a_bias_are_singular_on_a_fixed_truth(seed):
    """At every representation of the truth (W1 = 0 beside the bias) the Jacobian has rank 14 of P = 18."""
    known = prompt_truth("attention-fixed")
    family = known.family(PromptKind.parse("adaptive:gelu:bias"), 2)
    biases = np.random.default_rng(seed).standard_normal((2, 2))
    W1 = np.zeros((2, 2, 3))
    W1[:, :, 2] = biases
    W2 = np.linalg.solve(family.kind.activation.value(biases), known.params.atoms).T
    params = PromptAttention.adaptive(known.params.head, known.params.b, W1, W2, "gelu", bias=True)
    assert_allclose(params.regression(known.x), known.params.regression(known.x), atol=1e-12)
    jacobian = PromptMap(family, known.x).at(params.vector[None]).jacobian()[0].reshape(family.size, -1)
    sizes = np.linalg.svd(jacobian, compute_uv=False)
    assert family.n_parameters == 18
    assert sizes[13] > 1e-6 * sizes[0]
    assert sizes[14] < 1e-12 * sizes[0]  # rounding of sums over 256 points


@pytest.mark.parametrize(
    ("name", "kind", "rank"),
    [
        ("attention-fixed", "fixed", 6), ("attention-fixed", "decoupled", 10), ("attention-decoupled", "decoupled", 10),
        ("attention-gelu", "adaptive:gelu", 14), ("attention-fixed", "adaptive:gelu:bias", 14),
        ("attention-fixed", "adaptive:tanh:bias", 14), ("attention-relu", "adaptive:relu", 12),
    ],
)  # fmt: skip
def test_rank_of_the_tangent_at_a_truth(name, kind, rank):
    """The representation is the truth, and its Jacobian has the rank of the regular classes' number of parameters."""
    known, parsed = prompt_truth(name), PromptKind.parse(kind)
    params = represented(known, parsed, np.random.default_rng(0))
    assert_allclose(params.regression(known.x), known.params.regression(known.x), atol=1e-12)
    for seed in range(3):
        assert tangent_rank(known, parsed, np.random.default_rng(seed)) == rank


def test_a_class_that_does_not_contain_the_truth_has_no_tangent_there():
    with pytest.raises(InputError, match="expected a kind that contains fixed prompts"):
        represented(prompt_truth("attention-gelu"), PromptKind.parse("fixed"), np.random.default_rng(0))

"""Zero-initialised attention: against a loop over points, a network's formula, differences, and its symmetries."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose
from prompt_cases import KINDS, points, random_head, random_prompts
from scipy.special import softmax

from moe_prompts import InputError, MultiHead
from moe_prompts.estimators.prompts.least_squares import LeastSquaresOptions, least_squares, near_truth
from moe_prompts.estimators.prompts.objective import Box, PromptObjective
from moe_prompts.identifiability import kappas, profile, second_order_part
from moe_prompts.losses.prompt_voronoi import prompt_errors
from moe_prompts.models.data import RegressionData
from moe_prompts.models.multi_head import prompt_map
from moe_prompts.models.prompt_attention import MASS, PromptAttention, ZeroInitialised, from_head
from moe_prompts.models.prompt_truths import prompt_truth
from moe_prompts.models.zero_initialised import zero_initialised

ALPHA = -0.6


def gated(kind):
    return zero_initialised(random_prompts(kind), ALPHA)


@pytest.mark.parametrize("kind", KINDS)
class TestFunctionAndDerivatives:
    def test_regression_is_that_of_two_softmaxes(self, kind):
        """The tokens alone, and the prompts of a head whose frozen experts have no mass."""
        params = gated(kind)
        x = points(params)
        plain = params.head.head
        keys, values = params.prompts(x)
        expected = []
        for point, key, value in zip(x, keys, values, strict=True):
            frozen = [
                point @ A @ point + alpha @ point + a for A, alpha, a in zip(plain.A, plain.alpha, plain.a, strict=True)
            ]
            tokens = softmax(frozen) @ [eta @ [*point, 1] for eta in plain.eta]
            own = [(plain.B @ one) @ point + plain.beta @ one + b for one, b in zip(key, params.b, strict=True)]
            expected.append(tokens + np.tanh(ALPHA) * softmax(own) @ [plain.C @ one + plain.c for one in value])
        assert_allclose(params.regression(x), expected, rtol=1e-12, atol=1e-12)
        found = prompt_map(params.family, x).at(params.vector[None])
        assert_allclose(found.f[0].T, expected, rtol=1e-12, atol=1e-12)

    def test_derivatives_equal_central_differences(self, kind):
        params, h = gated(kind), 1e-6
        x = points(params)
        map, steps = prompt_map(params.family, x), h * np.eye(params.family.size)
        values = map.at(params.vector[None])
        ahead, behind = map.at(params.vector + steps), map.at(params.vector - steps)
        # Truncation h^2 and rounding 1e-16 / h are both near 1e-10.
        assert_allclose(values.jacobian()[0], (ahead.f - behind.f) / (2 * h), rtol=1e-6, atol=1e-8)
        residual = np.random.default_rng(3).standard_normal((1, params.head.l, len(x)))
        expected = ((ahead.jacobian() - behind.jacobian()) * residual[0]).sum(axis=(2, 3)) / (2 * h)
        found = values.curvature(residual)[0]
        if params.kind.sigma == "relu":  # columns of W2 have unit length: derivatives along them are of the retraction
            w2 = params.family.w2_slot
            free = np.r_[: w2.start, w2.stop : params.family.size]
            found, expected = found[np.ix_(free, free)], expected[np.ix_(free, free)]
        assert_allclose(found, expected, rtol=1e-6, atol=1e-6)

    def test_objective_equals_differences_with_what_holds_b(self, kind):
        params = gated(kind)
        x, rng, h = points(params), np.random.default_rng(5), 1e-5
        sums = rng.standard_normal((len(x), params.head.l))
        data = [RegressionData(x, np.full(len(x), 2.0), sums, 18)]
        made = PromptObjective(params.family, data, 0.5).stages()[0]
        vector = made.retract((params.vector + 0.3 * rng.standard_normal(params.family.size))[None])
        one, yes = np.zeros(1, dtype=int), np.ones(1, dtype=bool)
        gradient, metric, rest = made.at(vector, one).derivatives(one, yes)
        steps, many = h * np.eye(params.family.size), np.zeros(params.family.size, dtype=int)
        change = made.at(vector + steps, many).value - made.at(vector - steps, many).value
        assert_allclose(gradient[0], change / (2 * h), rtol=1e-5, atol=1e-6)
        if params.kind.sigma == "relu":
            return  # differences step over its kinks, rounded over 1e-2
        slope = lambda v: made.at(v, many).derivatives(np.arange(len(many)), many == 1)[0]
        hessian = (slope(vector + steps) - slope(vector - steps)) / (2 * h)
        assert_allclose((metric + rest)[0], hessian, rtol=1e-4, atol=1e-5 * np.abs(hessian).max())

    def test_vector_and_unpack_are_inverse_and_masses_are_normal(self, kind):
        params = gated(kind)
        again = params.family.unpack(params.vector)
        assert_allclose(again.vector, params.vector, rtol=1e-14, atol=1e-14)
        assert_allclose(np.exp(params.b).sum(), MASS, rtol=1e-14)
        moved = params.vector.copy()
        moved[: params.k] += 0.7  # a common part of all b
        assert_allclose(params.family.unpack(moved).vector, params.vector, rtol=1e-13, atol=1e-13)


def test_a_head_of_a_network_with_an_adapter():
    """LLaMA-Adapter: softmax over tokens and over prompts apart, the second behind tanh(alpha), times the values."""
    rng = np.random.default_rng(0)
    D, tokens, k = 4, 3, 2
    W_Q, W_K, W_V = rng.standard_normal((3, D, 2))
    prompts, X = rng.standard_normal((k, D)), rng.standard_normal((tokens, D))
    every = np.concatenate([prompts, X])
    scores = X[0] @ W_Q @ (every @ W_K).T / np.sqrt(2)
    both = np.concatenate([np.tanh(0.3) * softmax(scores[:k]), softmax(scores[k:])])
    expected = both @ every @ W_V
    made = zero_initialised(PromptAttention.fixed(from_head(W_Q, W_K, W_V, tokens), np.zeros(k), prompts), 0.3)
    assert_allclose(made.regression(X.reshape(1, -1))[0], expected, rtol=1e-12)


def test_prompts_change_nothing_where_the_factor_is_zero():
    params = zero_initialised(random_prompts("fixed"), 0.0)
    x = points(params)
    assert_allclose(params.regression(x), params.head.tokens(x), rtol=0, atol=0)
    jacobian = prompt_map(params.family, x).at(params.vector[None]).jacobian()[0]
    assert not jacobian[:-1].any()
    assert jacobian[-1].any()


def test_separate_prompts_lose_the_factor_and_the_place_of_the_keys():
    params = zero_initialised(random_prompts("decoupled"), ALPHA)
    p, c = params.head.p, np.tanh(ALPHA) / np.tanh(1.1)
    head = replace(params.head.head, c=np.zeros(params.head.l))  # a bias of values pins their scale
    params = replace(params, head=ZeroInitialised(head))
    atoms = params.atoms.copy()
    atoms[:, :p] += np.random.default_rng(1).standard_normal(p)
    atoms[:, p:] *= c
    x = points(params)
    other = replace(params, atoms=atoms, factor=np.array([1.1]))
    assert_allclose(other.regression(x), params.regression(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["fixed", "prefix_tanh_tanh", "prefix_tanh_gelu"])
def test_the_minimum_is_scipys_and_truths_are_recovered(name):
    from scipy.optimize import least_squares as peer

    known = prompt_truth(f"attention-{name}-zeroinit")
    family, rng = known.params.family, np.random.default_rng(0)
    starts = np.array([near_truth(known.params, 2, i, rng) for i in range(4)])
    [found] = least_squares(family, [known.population(10**10)], [starts], known.noise)
    assert found.best.certified
    assert_allclose(found.best.value.vector, known.params.vector, rtol=0, atol=2e-6)

    data = known.data(2_000, rng)
    [found] = least_squares(family, [data], [starts], known.noise)
    assert found.best.certified
    cells = data.weights > 0
    root = np.sqrt(data.weights[cells])[:, None] / known.noise
    means = data.sums[cells] / data.weights[cells, None]
    residual = lambda vector: (root * (family.unpack(vector).regression(data.x[cells]) - means)).ravel()
    tight = {"xtol": 1e-14, "ftol": 1e-14, "gtol": 1e-10, "max_nfev": 400}
    best = peer(residual, np.clip(known.params.vector, *Box().bounds(family)), bounds=Box().bounds(family), **tight)
    assert_allclose(best.cost, -found.best.log_likelihood, rtol=1e-8)


def test_the_second_order_part_and_the_profile():
    """The factor times that of prompts among themselves; a split falls at n^-1/4 where the exponent is 2."""
    known = prompt_truth("attention-fixed-zeroinit")
    values = prompt_map(known.params.family, known.x).at(known.params.vector[None])
    assert_allclose(second_order_part(values, 0), np.tanh(0.8) * second_order_part(values.part, 0), rtol=1e-14)
    rng = np.random.default_rng(0)
    assert kappas(known, rng).kappa1 > 1e-3
    assert kappas(known, rng).kappa2 > 1e-3
    assert abs(profile(known, rng, eps=(0.0125, 0.025)).exponents[0] - 2) < 0.12


def test_the_loss_knows_the_factor():
    params = prompt_truth("attention-fixed-zeroinit").params
    moved = replace(params, factor=params.factor + 0.25)
    assert prompt_errors(moved, params).factor_error == pytest.approx(0.25)
    assert prompt_errors(moved, params).loss == pytest.approx(0.25)
    with pytest.raises(InputError, match="cannot be compared"):
        prompt_errors(prompt_truth("attention-fixed").params, params)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: zero_initialised(prompt_truth("attention-fixed-heads2").params, 0.1), "expected a single Head"),
        (lambda: zero_initialised(gated("fixed"), 0.1), "zero-initialised already"),
        (lambda: zero_initialised(random_prompts("fixed"), np.inf), "alpha"),
        (lambda: ZeroInitialised(MultiHead((random_head(np.random.default_rng(0)),))), "ZeroInitialised: head"),
        (lambda: replace(gated("fixed"), factor=np.zeros(2)), "factor has shape"),
        (lambda: replace(random_prompts("fixed"), factor=np.zeros(1)), "factor has shape"),
    ],
)
def test_bad_input_gets_one_clear_error(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_boxes_hold_the_factor():
    family = gated("fixed").family
    lower, upper = LeastSquaresOptions().box.bounds(family)
    assert (lower[-1], upper[-1]) == (-5.0, 5.0)

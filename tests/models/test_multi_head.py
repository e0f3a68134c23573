"""Several heads that share their prompts: against a loop over heads, a whole block of attention, and differences."""

import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import softmax
from test_prompt_attention import KINDS, points, random_head, slow_regression

from moe_prompts import InputError, MultiHead, from_block
from moe_prompts.estimators.prompts.least_squares import least_squares, near_truth
from moe_prompts.identifiability import kappas, profile, second_order_part
from moe_prompts.models.multi_head import MultiHeadMap, divided, prompt_map
from moe_prompts.models.prompt_attention import PromptAttention, PromptFamily, PromptKind
from moe_prompts.models.prompt_derivatives import PromptMap
from moe_prompts.models.prompt_truths import prompt_truth, reference_head


def several(kind, seed=0, k=3, hidden=2):
    """Two heads with other numbers of experts and outputs, a projection of their outputs and a shift."""
    rng = np.random.default_rng(seed)
    heads = (random_head(rng, n_frozen=2, l=4), random_head(rng, n_frozen=3, l=2))
    head = MultiHead(heads, rng.standard_normal((3, 6)), rng.standard_normal(3))
    family = PromptFamily(head, PromptKind.parse(kind), k, hidden)
    return family.unpack(0.7 * rng.standard_normal(family.size))


def of_head(params, number):
    """The same prompts beside one of the heads."""
    return replace(params, head=params.head.heads[number])


@pytest.mark.parametrize("kind", KINDS)
class TestFunctionAndDerivatives:
    def test_regression_is_the_projected_sum_over_heads(self, kind):
        params = several(kind)
        x = points(params)
        apart = np.concatenate([slow_regression(of_head(params, number), x) for number in (0, 1)], axis=1)
        expected = apart @ params.head.out.T + params.head.shift
        assert_allclose(params.regression(x), expected, rtol=1e-12, atol=1e-12)
        values = prompt_map(params.family, x).at(params.vector[None])
        assert_allclose(values.f[0], expected.T, rtol=1e-12, atol=1e-12)

    def test_jacobian_against_central_differences(self, kind):
        params = several(kind)
        x, h = points(params), 1e-6
        map = prompt_map(params.family, x)
        found = map.at(params.vector[None]).jacobian()[0]
        steps = h * np.eye(params.family.size)
        ahead, behind = map.at(params.vector + steps).f, map.at(params.vector - steps).f
        # Truncation h^2 and rounding 1e-16 / h are both near 1e-10.
        assert_allclose(found, (ahead - behind) / (2 * h), rtol=1e-7, atol=1e-8)

    def test_curvature_against_differences_of_the_jacobian(self, kind):
        params, rng = several(kind), np.random.default_rng(3)
        x, h = points(params), 1e-6
        map = prompt_map(params.family, x)
        residual = rng.standard_normal((1, params.head.l, len(x)))
        found = map.at(params.vector[None]).curvature(residual)[0]
        steps = h * np.eye(params.family.size)
        change = map.at(params.vector + steps).jacobian() - map.at(params.vector - steps).jacobian()
        expected = (change * residual[0]).sum(axis=(2, 3)) / (2 * h)
        if params.kind.sigma == "relu":  # columns of W2 have unit length: derivatives along them are of the retraction
            free = slice(0, params.family.size - params.family.shared_size)
            found, expected = found[free, free], expected[free, free]
        assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def attention(X, prompts, W_Q, W_K, W_V, W_O, heads, bias):
    """Multi-head attention of tokens X (N, D) with prompts appended to keys and values, row by row of the formula."""
    c_q, c_k, c_v, c_o = bias
    every = np.concatenate([X, prompts])
    Q, K, V = X @ W_Q + c_q, every @ W_K + c_k, every @ W_V + c_v
    d_h, d_v = W_Q.shape[1] // heads, W_V.shape[1] // heads
    joined = []
    for h in range(heads):
        q, key, value = Q[:, h * d_h : (h + 1) * d_h], K[:, h * d_h : (h + 1) * d_h], V[:, h * d_v : (h + 1) * d_v]
        joined.append(softmax(q @ key.T / math.sqrt(d_h), axis=1) @ value)
    return np.concatenate(joined, axis=1) @ W_O + c_o


@pytest.mark.parametrize("biased", [True, False], ids=["biases", "no biases"])
def test_from_block_is_the_attention_of_a_block(biased):
    rng = np.random.default_rng(7)
    N, D, heads, d_h, d_v, k = 4, 6, 3, 2, 5, 2
    W_Q, W_K = rng.standard_normal((2, D, heads * d_h))
    W_V, W_O = rng.standard_normal((D, heads * d_v)), rng.standard_normal((heads * d_v, 7))
    sizes = (heads * d_h, heads * d_h, heads * d_v, 7)
    bias = tuple(rng.standard_normal(size) if biased else np.zeros(size) for size in sizes)
    prompts = rng.standard_normal((k, D))
    for query in (0, 2):
        made = from_block(W_Q, W_K, W_V, W_O, heads, N, bias=bias if biased else None, query=query)
        params = PromptAttention.fixed(made, np.zeros(k), prompts)
        X = rng.standard_normal((3, N, D))
        expected = [attention(one, prompts, W_Q, W_K, W_V, W_O, heads, bias)[query] for one in X]
        assert_allclose(params.regression(X.reshape(3, -1)), expected, rtol=1e-11, atol=1e-11)
    gates = params.gates(X.reshape(3, -1))
    assert gates.shape == (3, heads, N + k)
    assert_allclose(gates.sum(axis=2), 1, rtol=1e-13)


@pytest.mark.parametrize("kind", ["fixed", "gelu"])
def test_one_part_is_the_head_itself(kind):
    known = prompt_truth(f"attention-{kind}")
    whole = replace(known.params, head=divided(known.params.head, [[0, 1]]))
    assert_allclose(whole.regression(known.x), known.params.regression(known.x), rtol=0, atol=1e-13)
    assert_allclose(
        MultiHeadMap(whole.family, known.x).at(whole.vector[None]).jacobian(),
        PromptMap(known.params.family, known.x).at(known.params.vector[None]).jacobian(),
        rtol=0,
        atol=1e-12,
    )


def test_second_order_part_of_several_heads_is_the_projected_one():
    params = several("adaptive:tanh")
    x = points(params)
    found = second_order_part(prompt_map(params.family, x).at(params.vector[None]), 1)
    parts = [second_order_part(PromptMap(of_head(params, h).family, x).at(params.vector[None]), 1) for h in range(2)]
    expected = np.einsum("ow,abwm->abom", params.head.out, np.concatenate(parts, axis=2))
    assert_allclose(found, expected, rtol=1e-12, atol=1e-13)


class TestSplitsOfFixedPrompts:
    """What decides whether a split is seen: the kernel of all key projections together."""

    def test_one_head_of_one_dimension_hides_splits_and_two_of_them_do_not(self):
        rng = np.random.default_rng(0)
        spreads = (0.0125, 0.025)
        assert profile(prompt_truth("attention-fixed-rank1"), rng, eps=spreads).vanishes
        found = profile(prompt_truth("attention-fixed-heads2"), rng, eps=spreads)
        assert abs(found.exponents[0] - 2) < 0.05  # the limit as eps -> 0; .003 away here
        assert kappas(prompt_truth("attention-fixed-heads2"), rng).kappa2 > 0.1

    def test_two_heads_with_equal_key_projections_hide_what_one_hides(self):
        known = prompt_truth("attention-fixed-rank1")
        head = known.params.head
        twice = MultiHead((replace(head, C=head.C[:1], eta=head.eta[:, :1], c=head.c[:1]), head))
        both = replace(known, params=replace(known.params, head=twice))
        assert both.kind == "fixed, singular B, 2 heads"
        assert profile(both, np.random.default_rng(0), eps=(0.0125, 0.025)).vanishes

    def test_a_direction_that_values_lose_is_still_seen_through_keys(self):
        """C_h of rank 1 in every head: the second-order part keeps (x'B_h u)^2 (v_h - f_h)."""
        known = prompt_truth("attention-fixed-heads2")
        flat = tuple(replace(head, C=head.C * np.array([1.0, 0.0])) for head in known.params.head.heads)
        poor = replace(known, params=replace(known.params, head=MultiHead(flat, known.params.head.out)))
        found = kappas(poor, np.random.default_rng(0))
        assert found.kappa1 > 1e-3
        assert found.kappa2 > 1e-3  # a hundred times what counts as zero


def test_fits_from_the_truth_end_beside_it():
    """Certified, and with risk of the order s^2 P / n: the estimators take several heads as they take one."""
    known = prompt_truth("attention-fixed-heads2")
    n, rng = 100_000, np.random.default_rng(5)
    family = known.family(PromptKind("fixed"), 2)
    start = near_truth(known.params, 2, 0, rng)
    fit = least_squares(family, [known.data(n, rng)], [start[None]], known.noise)[0].best
    assert fit.certified
    gain = n * ((fit.value.regression(known.x) - known.params.regression(known.x)) ** 2).sum(axis=1).mean()
    # n risk / s^2 is chi-squared with P = 6 degrees of freedom: above 27 with probability 1.4e-4.
    assert gain / known.noise**2 < 27


def test_names_of_truths_with_two_heads():
    known = prompt_truth("attention-random-3-gelu-heads2")
    assert known.kind == "adaptive:gelu, 2 heads"
    assert known.params.head.l == 2
    assert_array_equal(known.params.b, prompt_truth("attention-random-3-gelu").params.b)


HEAD = reference_head()
WRONG = {
    "no heads": (lambda: MultiHead(()), "at least one Head"),
    "not a head": (lambda: MultiHead((1,)), "at least one Head"),
    "prompts of other sizes": (
        lambda: MultiHead((random_head(np.random.default_rng(0)), random_head(np.random.default_rng(0), p=2))),
        r"p = \[5, 2\]",
    ),
    "projection of another width": (lambda: MultiHead((HEAD, HEAD), np.eye(3)), r"expected \(outputs, 4\)"),
    "shift of another length": (lambda: MultiHead((HEAD,), np.eye(2), np.ones(3)), r"shift has shape \(3,\)"),
    "projection with NaN": (lambda: MultiHead((HEAD,), np.full((2, 2), np.nan)), "out has NaN"),
    "a direction twice": (lambda: divided(HEAD, [[0], [0]]), "in exactly one part"),
    "an empty part": (lambda: divided(HEAD, [[0, 1], []]), "in exactly one part"),
    "heads that do not divide": (
        lambda: from_block(*np.ones((4, 3, 3)), heads=2, tokens=1),
        "expected widths that 2 divides",
    ),
    "three biases": (
        lambda: from_block(*np.ones((4, 2, 2)), heads=2, tokens=1, bias=(0, 0, 0)),
        "3 biases; expected four",
    ),
    "half a head": (lambda: from_block(*np.ones((4, 2, 2)), heads=0.5, tokens=1), "heads = 0.5"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_one_clear_line(case):
    call, message = WRONG[case]
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)

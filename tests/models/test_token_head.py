"""Heads in coordinates of their tokens: the same as ``from_head``, derivatives, and what of a prompt is visible."""

import numpy as np
import pytest

from moe_prompts.errors import InputError
from moe_prompts.models.prompt_attention import PromptAttention, PromptFamily, PromptKind, from_head
from moe_prompts.models.prompt_derivatives import PromptMap
from moe_prompts.models.token_head import (
    TokenMap,
    blind_basis,
    head_of_tokens,
    seen,
    spanned,
    unseen,
    visibility,
    visible_basis,
)

N, D, WIDTH, M = 3, 6, 2, 20


def parts(seed=0):
    """Random projections with biases, and tokens (M, N, D)."""
    rng = np.random.default_rng(seed)
    W_Q, W_K, W_V = rng.standard_normal((3, D, WIDTH))
    return (W_Q, W_K, W_V, tuple(rng.standard_normal((3, WIDTH)))), rng.standard_normal((M, N, D))


def adaptive(head, rng, k=2, hidden=2):
    W1 = rng.standard_normal((k, hidden, head.reads))
    return PromptAttention.adaptive(head, rng.standard_normal(k), W1, rng.standard_normal((head.p, hidden)))


def test_all_tokens_make_the_head_of_the_package():
    (W_Q, W_K, W_V, bias), tokens = parts()
    whole = TokenMap(np.eye(N * D).reshape(N, D, N * D), np.zeros((N, D)))
    x, query = tokens.reshape(M, -1), 1
    ours = head_of_tokens((W_Q, W_K, W_V, bias), whole, query)
    theirs = from_head(W_Q, W_K, W_V, N, bias, query)
    for name in ("A", "a", "eta", "B", "C", "alpha", "beta", "c"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=0, atol=1e-13)
    for found, expected in zip(ours.gates_and_experts(x), theirs.gates_and_experts(x), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("keep", [2, M - 2])
def test_a_head_in_coordinates_is_the_head_on_those_tokens(keep):
    projections, tokens = parts()
    of, z, kept = TokenMap.principal(tokens, keep)
    rng = np.random.default_rng(1)
    prompts, b = rng.standard_normal((2, D)), rng.standard_normal(2)
    whole = from_head(*projections[:3], N, projections[3], 1)
    expected = PromptAttention.fixed(whole, b, prompts).regression(of.tokens(z).reshape(M, -1))
    found = PromptAttention.fixed(head_of_tokens(projections, of, 1), b, prompts).regression(z)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose((z**2).mean(axis=0), 1, rtol=1e-12)
    left = ((tokens - of.tokens(z)) ** 2).sum() / ((tokens - tokens.mean(axis=0)) ** 2).sum()
    assert kept == pytest.approx(1 - left, abs=1e-12)


def test_chosen_outputs_are_combinations_of_the_head_s():
    projections, tokens = parts()
    of, z, _ = TokenMap.principal(tokens, 4)
    turn = np.linalg.qr(np.random.default_rng(2).standard_normal((WIDTH, WIDTH)))[0][:, :1]
    prompts = np.random.default_rng(3).standard_normal((2, D))
    whole, one = (head_of_tokens(projections, of, 0, outputs=outputs) for outputs in (None, turn))
    outputs = [PromptAttention.fixed(head, np.zeros(2), prompts).regression(z) for head in (whole, one)]
    np.testing.assert_allclose(outputs[0] @ turn, outputs[1], rtol=0, atol=1e-13)


def test_adaptive_prompts_read_the_first_coordinates_alone():
    projections, tokens = parts()
    of, z, _ = TokenMap.principal(tokens, 5)
    head = head_of_tokens(projections, of, 0, 2)
    params = adaptive(head, np.random.default_rng(4))
    moved = z.copy()
    moved[:, 2:] += 1
    for before, after in zip(params.prompts(z), params.prompts(moved), strict=True):
        np.testing.assert_array_equal(before, after)
    assert params.family.n_parameters == 2 * (1 + 2 * 2) + D * 2
    assert PromptFamily(head, PromptKind.parse("adaptive:gelu:bias"), 2).n_parameters == 2 * (1 + 2 * 3) + D * 2


@pytest.mark.parametrize("kind", ["fixed", "adaptive:gelu", "adaptive:gelu:bias"])
def test_derivatives_against_differences(kind):
    """Central differences with step 1e-6: 1e-8 is their rounding."""
    projections, tokens = parts()
    of, z, _ = TokenMap.principal(tokens, 5)
    family = PromptFamily(head_of_tokens(projections, of, 0, 2), PromptKind.parse(kind), 2)
    vector = np.random.default_rng(5).standard_normal(family.size)
    map, step = PromptMap(family, z), 1e-6 * np.eye(family.size)
    jacobian = map.at(vector[None]).jacobian()[0]
    differences = (map.at(vector + step).f - map.at(vector - step).f) / 2e-6
    np.testing.assert_allclose(jacobian, differences, rtol=0, atol=1e-8)
    np.testing.assert_allclose(map.at(vector[None]).f[0].T, family.unpack(vector).regression(z), rtol=0, atol=1e-13)


def test_visible_coordinates_say_all_and_blind_ones_nothing():
    projections, tokens = parts()
    of, z, _ = TokenMap.principal(tokens, 8)
    head, rng = head_of_tokens(projections, of, 0, 3), np.random.default_rng(6)
    assert visibility(head).by_logit == visibility(head).by_value == WIDTH
    assert visibility(head).together == 2 * WIDTH
    assert visibility(head).blind == D - 2 * WIDTH
    basis, blind = visible_basis(head), blind_basis(head)
    np.testing.assert_allclose(basis.T @ blind, 0, atol=1e-14)
    fixed = PromptAttention.fixed(head, rng.standard_normal(2), rng.standard_normal((2, D)))
    for params in (fixed, adaptive(head, rng)):
        np.testing.assert_allclose(seen(params, basis, 0.7).regression(z), params.regression(z), rtol=0, atol=1e-13)
    assert seen(fixed, basis).family.n_parameters == 2 * (1 + 2 * WIDTH)


def test_spans():
    rows = np.array([[1.0, 0, 0], [2, 0, 0]])
    np.testing.assert_allclose(np.abs(spanned(rows)), [[1], [0], [0]], atol=1e-15)
    assert unseen(rows).shape == (3, 2)
    assert spanned(np.zeros((2, 3))).shape == (3, 0)


def test_wrong_input_is_refused():
    projections, tokens = parts()
    with pytest.raises(InputError, match=r"coordinates = 99; the tokens of 20 images vary in 18: expected 1 to 18"):
        TokenMap.principal(tokens, 99)
    of, _, _ = TokenMap.principal(tokens, 4)
    with pytest.raises(InputError, match=r"prompts read 5 coordinates; expected 0 \(all\) to 4"):
        head_of_tokens(projections, of, 0, 5)
    head = head_of_tokens(projections, of, 0)
    params = PromptAttention.decoupled(head, np.zeros(1), np.ones((1, D)), np.ones((1, D)))
    with pytest.raises(InputError, match="seen: decoupled prompts; expected fixed ones"):
        seen(params, visible_basis(head))

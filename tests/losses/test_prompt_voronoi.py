import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from moe_prompts import InputError
from moe_prompts.losses.prompt_voronoi import MAX_HIDDEN, prompt_errors, prompt_loss
from moe_prompts.models.prompt_attention import Head, PromptAttention, PromptFamily, PromptKind
from moe_prompts.models.prompt_truths import reference_head

HEAD = reference_head()
UNITS = ["adaptive:tanh", "adaptive:gelu", "adaptive:relu", "adaptive:sigmoid", "adaptive:gelu:bias"]
KINDS = ["fixed", "decoupled", "adaptive:identity", *UNITS]
ROUNDING = 1e-13  # of sums of some tens of numbers of order 1


def random_prompts(kind, k=2, hidden=3, seed=0):
    family = PromptFamily(HEAD, PromptKind.parse(kind), k, hidden)
    return family.unpack(np.random.default_rng(seed).standard_normal(family.size))


def fixed(masses, prompts):
    return PromptAttention.fixed(HEAD, np.log(masses), prompts)


def with_units(params, change):
    """Other hidden units: ``change`` of W1 (k, r, D) and W2 (p, r)."""
    W1, W2 = change(params.atoms.reshape(params.k, params.W2.shape[1], -1), params.W2)
    return PromptAttention.adaptive(params.head, params.b, W1, W2, params.kind.sigma, params.kind.bias)


@pytest.mark.parametrize("kind", KINDS)
class TestZero:
    def test_at_the_truth_in_any_order(self, kind):
        params = random_prompts(kind, k=3)
        assert prompt_loss(params, params) == 0
        assert prompt_loss(params.chosen([2, 0, 1]), params) == 0

    def test_where_a_prompt_is_split_into_equal_parts(self, kind):
        params = random_prompts(kind)
        errors = prompt_errors(params.chosen([0, 1, 1]), params)
        assert errors.loss < ROUNDING  # of the masses alone
        assert errors.labels.tolist() == [0, 1, 1]
        assert errors.sharing.tolist() == [False, True, True]
        assert (errors.split_rms, errors.barycentre_error, errors.singleton_error, errors.w2_error) == (0, 0, 0, 0)

    def test_nowhere_else(self, kind):
        params = random_prompts(kind)
        assert prompt_loss(random_prompts(kind, seed=1), params) > 0.1
        assert prompt_loss(params.chosen([0]), params) > 0.1


@pytest.mark.parametrize("kind", UNITS)
def test_permuted_hidden_units_are_no_error(kind):
    params = random_prompts(kind, hidden=4)
    order = [2, 0, 3, 1]
    assert prompt_loss(with_units(params, lambda W1, W2: (W1[:, order], W2[:, order])), params) < ROUNDING


@pytest.mark.parametrize("signs", [[-1, 1, 1], [1, -1, -1], [-1, -1, -1]])
@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1]])
def test_signs_of_tanh_are_no_error(signs, order):
    params = random_prompts("adaptive:tanh")
    flip = lambda W1, W2: ((W1 * np.array(signs)[:, None])[:, order], (W2 * np.array(signs))[:, order])
    assert prompt_loss(with_units(params, flip), params) == 0


@pytest.mark.parametrize("kind", ["adaptive:gelu", "adaptive:sigmoid", "adaptive:relu"])
def test_signs_of_other_activations_are_errors(kind):
    params = random_prompts(kind)
    assert prompt_loss(with_units(params, lambda W1, W2: (-W1, -W2)), params) > 0.1


def test_scales_of_relu_are_no_error():
    params = random_prompts("adaptive:relu")
    scales = np.array([0.2, 3, 10])
    rescale = lambda W1, W2: ((W1 * scales[:, None])[:, [1, 2, 0]], (W2 / scales)[:, [1, 2, 0]])
    assert prompt_loss(with_units(params, rescale), params) < ROUNDING


def test_scales_of_tanh_are_errors():
    params = random_prompts("adaptive:tanh")
    assert prompt_loss(with_units(params, lambda W1, W2: (2 * W1, W2 / 2)), params) > 0.1


def test_only_the_product_of_identity_prompts_counts():
    rng = np.random.default_rng(0)
    W1, W2, G = rng.standard_normal((2, 3, 2)), rng.standard_normal((2, 3)), rng.standard_normal((3, 3)) + 4 * np.eye(3)
    one = PromptAttention.adaptive(HEAD, np.zeros(2), W1, W2, "identity")
    other = PromptAttention.adaptive(HEAD, np.zeros(2), G @ W1, W2 @ np.linalg.inv(G), "identity")
    assert prompt_loss(other, one) < ROUNDING


class TestByHand:
    """Masses and displacements that can be followed on paper."""

    truth = fixed([1, 2, 0.5], [[0, 0], [4, 0], [0, 4]])

    def test_one_shared_cell_one_singleton_and_one_empty_cell(self):
        errors = prompt_errors(fixed([0.5, 0.25, 3], [[0.3, 0], [0, -0.4], [4, 0.5]]), self.truth)
        assert errors.labels.tolist() == [0, 0, 1]
        assert_allclose(errors.mass, [0.75 - 1, 3 - 2, -0.5], rtol=1e-14)
        assert_allclose(errors.mass_error, 0.25 + 1 + 0.5)
        assert_allclose(errors.loss, 1.75 + (0.5 * 0.3**2 + 0.25 * 0.4**2) + 3 * 0.5)
        assert_allclose(errors.singleton_error, 0.5)
        assert_allclose(errors.split_rms, np.sqrt((0.5 * 0.3**2 + 0.25 * 0.4**2) / 0.75))
        assert_allclose(errors.barycentre_error, np.hypot(0.5 * 0.3, 0.25 * 0.4) / 0.75)
        assert errors.w2_error == 0

    def test_the_largest_error_of_each_sort_counts(self):
        near_two = fixed([1, 1, 1, 1, 0.5], [[0.1, 0], [0.3, 0], [4, 0.5], [4, -0.5], [0, 4.7]])
        errors = prompt_errors(near_two, self.truth)
        assert_allclose(errors.barycentre_error, 0.2)  # 0 in the second cell
        assert_allclose(errors.split_rms, np.sqrt((0.01 + 0.09 + 0.25 + 0.25) / 4))
        assert_allclose(errors.singleton_error, 0.7)
        assert_allclose(errors.loss, 1 + 0.6 + 0.5 * 0.7)  # mass 2 for 1, then exact

        two_alone = prompt_errors(fixed([1, 2], [[0.1, 0], [4, 0.6]]), self.truth)
        assert_allclose(two_alone.singleton_error, 0.6)

    def test_w2_and_a_moved_unit(self):
        truth = random_prompts("adaptive:gelu")
        W1, W2 = truth.atoms.reshape(2, 3, 2).copy(), truth.W2.copy()
        W1[1, 2] += [0.03, 0.04]
        W2[0, 1] += 0.01
        W2[1, 2] -= 0.02
        order = [1, 2, 0]
        errors = prompt_errors(PromptAttention.adaptive(HEAD, truth.b, W1[:, order], W2[:, order]), truth)
        assert_allclose(errors.w2_error, np.hypot(0.01, 0.02))
        assert_allclose(errors.singleton_error, 0.05)
        assert_allclose(errors.loss, np.exp(truth.b[1]) * 0.05 + np.hypot(0.01, 0.02))

    def test_one_permutation_holds_for_all_prompts(self):
        truth = random_prompts("adaptive:gelu", hidden=2)
        W1 = truth.atoms.reshape(2, 2, 2).copy()
        W1[1] = W1[1, ::-1]
        moved = PromptAttention.adaptive(HEAD, truth.b, W1, truth.W2)
        assert prompt_loss(moved, truth) > 0.1

    def test_a_tie_goes_to_the_first_cell(self):
        assert prompt_errors(fixed([1], [[2, 0]]), self.truth).labels.tolist() == [0]

    def test_undefined_errors_are_nan(self):
        alone = prompt_errors(self.truth, self.truth)
        assert np.isnan([alone.split_rms, alone.barycentre_error]).all()
        assert alone.singleton_error == 0
        shared = prompt_errors(fixed([1, 1], [[0, 0.1], [0.1, 0]]), self.truth)
        assert np.isnan(shared.singleton_error)
        assert np.isfinite([shared.split_rms, shared.barycentre_error, shared.loss]).all()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), k=st.integers(1, 5), kind=st.sampled_from(KINDS))
def test_loss_is_non_negative_and_blind_to_labels(seed, k, kind):
    truth, fitted = random_prompts(kind), random_prompts(kind, k, seed=seed)
    loss = prompt_loss(fitted, truth)
    order = np.random.default_rng(seed).permutation(k)
    assert loss >= 0
    assert_allclose(prompt_loss(fitted.chosen(order), truth), loss, rtol=1e-12)
    if kind in UNITS:
        turned = with_units(fitted, lambda W1, W2: (W1[:, [1, 2, 0]], W2[:, [1, 2, 0]]))
        assert_allclose(prompt_loss(turned, truth), loss, rtol=1e-12, atol=ROUNDING)


@pytest.mark.parametrize(
    ("fitted", "truth", "message"),
    [
        ("fixed", "decoupled", "fitted fixed prompts with 2 parameters each and W2 .*, true decoupled ones with 4"),
        ("adaptive:gelu", "adaptive:tanh", "different kinds or sizes cannot be compared, their predictions can"),
        ("adaptive:gelu:bias", "adaptive:gelu", "fitted adaptive:gelu:bias prompts"),
        ("adaptive:identity", "fixed", "different kinds"),
    ],
)
def test_different_kinds_are_refused(fitted, truth, message):
    with pytest.raises(InputError, match=message):
        prompt_loss(random_prompts(fitted), random_prompts(truth))


def test_other_numbers_of_hidden_units_are_refused():
    with pytest.raises(InputError, match=r"fitted adaptive:gelu prompts with 4 parameters each and W2 .* with 6"):
        prompt_loss(random_prompts("adaptive:gelu", hidden=2), random_prompts("adaptive:gelu", hidden=3))


def test_too_many_hidden_units_are_refused():
    most, more = (random_prompts("adaptive:gelu", hidden=r) for r in (MAX_HIDDEN, MAX_HIDDEN + 1))
    assert prompt_loss(most, most) == 0
    with pytest.raises(InputError, match="6 hidden units; expected at most 5"):
        prompt_loss(more, more)


def test_prompts_of_another_size_are_refused():
    head = reference_head()
    thin = Head(head.A, head.a, head.eta, np.ones((2, 1)), np.ones((2, 1)))
    one = PromptAttention.adaptive(thin, [0], np.ones((1, 2, 2)), np.ones((1, 2)))
    two = PromptAttention.adaptive(head, [0], np.ones((1, 2, 2)), np.ones((2, 2)))
    with pytest.raises(InputError, match="different kinds or sizes cannot be compared"):
        prompt_loss(one, two)

"""Exact ranks of derivatives of zero-initialised attention, against Jacobians in floating point."""

from fractions import Fraction

import numpy as np
import pytest

from moe_prompts import InputError
from moe_prompts.identifiability import second_order_part
from moe_prompts.models.multi_head import prompt_map
from moe_prompts.models.prompt_attention import Head, PromptAttention
from moe_prompts.models.prompt_truths import midpoint_grid
from moe_prompts.models.zero_initialised import zero_initialised
from moe_prompts.theory.zero_initialised import independence

#: Prompts, and numbers of independent derivatives by hand: (k - 1) + 2 k + 1 and three for each split prompt.
GENERAL = [(Fraction(1), Fraction(2)), (Fraction(-3, 2), Fraction(1, 2)), (Fraction(2, 3), Fraction(-1))]


def numeric_rank(prompts, masses, split):
    """The rank of the same columns on a grid, with B = C = I: singular values fall by orders of magnitude at once."""
    head = Head(np.zeros((1, 2, 2)), np.zeros(1), np.zeros((1, 2, 3)), np.eye(2), np.eye(2))
    plain = PromptAttention.fixed(head, np.log(np.array(masses, dtype=float)), np.array(prompts, dtype=float))
    params = zero_initialised(plain, 0.7)
    values = prompt_map(params.family, 2 * midpoint_grid(12)).at(params.vector[None])
    columns = list(values.jacobian()[0].reshape(params.family.size, -1))
    for l in split:
        second = second_order_part(values, l)
        columns += [second[0, 0].ravel(), second[0, 1].ravel(), second[1, 1].ravel()]
    scaled = np.array(columns) / np.linalg.norm(columns, axis=1, keepdims=True)
    return int((np.linalg.svd(scaled, compute_uv=False) > 1e-10).sum())


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("which", ["none", "first", "all"])
def test_the_common_part_of_b_is_the_only_dependence(count, which):
    split = {"none": [], "first": [0], "all": list(range(count))}[which]
    masses = [Fraction(1), Fraction(3, 2), Fraction(2)][:count]
    found = independence(GENERAL[:count], masses, split)
    assert found.columns == 3 * count + 1 + 3 * len(split)
    assert found.dependences == 1
    assert found.rank == numeric_rank(GENERAL[:count], masses, split)


def test_one_prompt_has_no_gate():
    """A single prompt shows only tanh(alpha) p: b, the key and the split along it are lost."""
    found = independence(GENERAL[:1], [Fraction(1)], [])
    assert (found.columns, found.rank) == (4, 2)


def test_sums_that_coincide_are_refused():
    line = [(Fraction(i), Fraction(0)) for i in range(3)]
    with pytest.raises(InputError, match="sums of two prompts coincide"):
        independence(line, [Fraction(1)] * 3, [0])


def test_prompts_on_a_line_through_zero_keep_all_but_the_common_part():
    """Both entries of every prompt are equal: still no further dependence, as values across the line show."""
    same = [(Fraction(1), Fraction(1)), (Fraction(-2), Fraction(-2))]
    found = independence(same, [Fraction(1), Fraction(2)], [0])
    assert found.dependences == 1
    assert found.rank == numeric_rank(same, [Fraction(1), Fraction(2)], [0])

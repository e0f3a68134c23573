"""Coordinates of heights, against differences; and fits of two sigmoid gates in one cell, with their certificates."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from moe_prompts.errors import InputError
from moe_prompts.estimators.experts.heights import HeightCoordinates
from moe_prompts.estimators.experts.least_squares import (
    SIGMOID_BOX,
    SIGMOID_OPTIONS,
    ExpertBox,
    ExpertObjective,
    fit_experts,
    near_experts,
)
from moe_prompts.models.expert_truths import expert_data, expert_truth

FLAT, SLOPED = "experts-sigmoid-tanh-flat", "experts-sigmoid-tanh"
ONE, STEP = np.zeros(1, dtype=int), 1e-6


def coordinates(pair):
    truth, rng = expert_truth(FLAT), np.random.default_rng(0)
    objective = ExpertObjective(truth.family(3), [truth.data(10_000, rng)], truth.noise)
    return HeightCoordinates(objective, pair), near_experts(truth.params, 3, 0, rng)[None]


@pytest.mark.parametrize("pair", [(0, 2), (1, 2)])
def test_derivatives_are_those_of_differences(pair):
    """Central differences of step 1e-6 are right to about 1e-9 of values of order one."""
    heights, vector = coordinates(pair)
    phi = heights.phi(vector)
    assert_allclose(heights.vectors(phi, ONE), vector, rtol=0, atol=1e-14)
    moves = STEP * np.eye(phi.shape[1])
    gradient = np.random.default_rng(1).standard_normal(phi.shape)
    central = lambda of: np.stack([(of(phi + e) - of(phi - e))[0] / (2 * STEP) for e in moves], axis=-1)
    assert_allclose(heights.chain(phi, ONE)[0], central(lambda at: heights.inner(at, ONE)), atol=1e-7)
    pulled = central(lambda at: (heights.chain(at, ONE) * gradient[:, :, None]).sum(axis=1))
    assert_allclose(heights.bend(phi, ONE, gradient)[0], pulled, atol=1e-7)


def test_the_sum_of_slopes_stays_while_the_split_moves():
    """What f feels at first order does not move with h: the sum of s' beta, and that of m (a, c)."""
    heights, vector = coordinates((0, 2))
    phi = heights.phi(vector)
    moved = phi.copy()
    moved[:, heights.split] += 0.3
    sums = []
    for at in (phi, moved):
        b, atoms, _ = heights.family.split(heights.vectors(at, ONE)[0])
        m = 1 / (1 + np.exp(-b[[0, 2]]))
        sums.append([*(m * (1 - m)) @ atoms[[0, 2], :2], *m @ atoms[[0, 2], 2:]])
    assert_allclose(sums[1], sums[0], rtol=0, atol=1e-13)


def test_a_fit_that_splits_a_flat_gate_is_certified():
    """In coordinates of masses e^b such fits ended without a certificate after 236 iterations."""
    truth = expert_truth(FLAT)
    data = [expert_data(FLAT, 1_000_000, 5, replicate) for replicate in range(2)]
    rng = np.random.default_rng(1)
    starts = [np.array([near_experts(truth.params, 3, 0, rng)]) for _ in data]
    for found in fit_experts(truth.family(3), data, starts, truth.noise, SIGMOID_OPTIONS):
        assert found.best.certified
        # Chi-squared of 256 cells less what 18 parameters take: half of it is 119 in the mean, with deviation 11.
        assert 75 < -found.best.log_likelihood < 165


def test_intercepts_of_experts_stay_in_their_own_interval():
    truth = expert_truth(SLOPED)
    starts = near_experts(truth.params, 3, 0, np.random.default_rng(0))[None]
    (found,) = fit_experts(truth.family(3), [truth.population(1_000_000)], [starts], truth.noise, SIGMOID_OPTIONS)
    intercepts = found.best.value.atoms[:, -1]
    assert intercepts.min() == pytest.approx(SIGMOID_BOX.c[0], abs=1e-12)
    assert truth.params.atoms[:, -1].min() > SIGMOID_BOX.c[0]
    with pytest.raises(InputError, match="empty or not finite"):
        ExpertBox(c=(1.0, 0.0))

"""What is derived of sigmoid gates: independence in intervals, definiteness, and the expansion itself."""

from dataclasses import replace

import numpy as np
import pytest
import sympy as sp
from scipy.special import expit

from moe_prompts.errors import InputError
from moe_prompts.models.expert_regression import ExpertRegression
from moe_prompts.models.expert_truths import expert_truth
from moe_prompts.theory.sigmoid_gates import convexity, definite, independence

FLAT = expert_truth("experts-sigmoid-tanh-flat")


def test_functions_of_a_split_are_independent():
    found = independence(FLAT.params, FLAT.x)
    assert (found.columns, found.rank) == (24, 24)


def test_two_flat_gates_over_one_expert_are_dependent():
    """The second expert's derivatives by b, beta, c and a are then all among the first one's."""
    first = FLAT.params.atoms[0]
    twice = ExpertRegression("sigmoid", "tanh", FLAT.params.b, np.array([first, first]))
    assert independence(twice, FLAT.x).rank == 18


def test_the_expansion_is_that_of_f():
    """What the module's formula leaves out of f is of third order: half the step, an eighth of the rest."""
    params, rng = FLAT.params, np.random.default_rng(0)
    heights = np.array([0.7, 0.3]) * expit(params.b[0])
    slope = heights * (1 - heights)
    bend = slope * (1 - 2 * heights)
    moves = rng.standard_normal((2, params.atoms.shape[1]))
    z = FLAT.x @ params.eta[0, :2] + params.eta[0, 2]
    h, first = np.tanh(z), 1 - np.tanh(z) ** 2
    second, left = -2 * h * first, []
    for step in (1e-2, 5e-3):
        u = step * moves[:, :2] @ FLAT.x.T
        d = step * (moves[:, 2:4] @ FLAT.x.T + moves[:, 4:])
        own = slope @ u * h + heights @ d * first
        own += 0.5 * bend @ u**2 * h + slope @ (u * d) * first + 0.5 * heights @ d**2 * second
        atoms = np.array([params.atoms[0] + step * moves[0], params.atoms[0] + step * moves[1], params.atoms[1]])
        split = replace(params, b=np.append(np.log(heights / (1 - heights)), params.b[1]), atoms=atoms)
        left.append(np.abs((split.regression(FLAT.x) - params.regression(FLAT.x))[:, 0] - own).max())
    assert left[0] / left[1] == pytest.approx(8, rel=0.1)


def test_slopes_of_gates_are_seen_for_all_heights_below_one():
    """Exactly, for 60 random sets of 2 to 4 heights, a third of them with one above 1/2; and by eigenvalues."""
    rng, above = np.random.default_rng(0), 0
    assert all(convexity().values())
    for _ in range(60):
        shares = rng.dirichlet(np.full(rng.integers(3, 6), 0.5))[:-1]
        heights = [sp.Rational(int(1000 * share) + 1, 1010) for share in shares]
        if sum(heights) >= 1:
            continue
        above += bool(max(heights) > sp.Rational(1, 2))
        assert definite(heights)
        m = np.array([float(height) for height in heights])
        slope = m * (1 - m)
        plane = np.linalg.svd(slope[None])[2][1:].T
        assert np.linalg.eigvalsh(plane.T @ np.diag(slope * (1 - 2 * m)) @ plane)[0] > 0
    assert above > 10


def test_heights_of_one_hide_a_split():
    """At a sum of one the form is zero along some split: the bound on the height is sharp."""
    m = np.array([0.7, 0.3])
    slope = m * (1 - m)
    beta = np.array([1.0, -slope[0] / slope[1]])
    assert (slope * (1 - 2 * m)) @ beta**2 == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: independence(expert_truth("experts-sigmoid-tanh").params, FLAT.x), "first gate without slope"),
        (lambda: independence(FLAT.params, FLAT.x[:10]), "expected at least 24"),
        (lambda: definite([sp.Rational(1, 2), sp.Rational(1, 2)]), "a sum below 1"),
    ],
)
def test_bad_input_is_named_in_one_line(call, message):
    with pytest.raises(InputError, match=message):
        call()

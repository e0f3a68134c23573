"""Searches of softmax gates as rows, and the noise-free choice of the truth that they look at."""

import numpy as np
import pytest
from softmax_profile import profile, quadrature

from moe_prompts.claims.gated import SOFTMAX_SOUGHT
from moe_prompts.models.softmax_truths import DRAWN, random_softmax, softmax_sample, softmax_truth
from moe_prompts.study.softmax_global import SoftmaxGlobalCell, run_cell, softmax_global_study

NAMES = [f"softmax-random-{number}" for number in range(1, DRAWN + 1)]


def test_a_row_says_what_its_search_found():
    cell = SoftmaxGlobalCell(SOFTMAX_SOUGHT, 3, 500)
    (row,) = run_cell(cell, (0,), 5)
    assert row["status"] == "CERTIFIED"
    assert row["loss_intrinsic"] > 0
    assert 1 <= row["reached"] <= row["starts_tried"]
    assert row["held_back"] == 4
    assert row["steepness"] <= 20
    # The estimate is the higher one of the search and the start beside the truth.
    assert row["uncounted_nats"] >= 0
    assert run_cell(cell, (0,), 5) == [row]


def test_a_search_that_cannot_be_made_is_a_row():
    (row,) = run_cell(SoftmaxGlobalCell(SOFTMAX_SOUGHT, 3, 3), (0,), 5)
    assert row["status"] in ("FAILED", "RAISED")
    assert np.isnan(row["loss_intrinsic"])


def test_the_study_has_a_cell_for_each_size():
    study = softmax_global_study(sizes=[500, 1_000], replicates=8, entropy=1, truths=[SOFTMAX_SOUGHT], ks=[3])
    assert [cell.n for cell in study.cells] == [500, 1_000]
    assert study.identity["softmax_truths_used"][SOFTMAX_SOUGHT]["intercepts"] == random_softmax(8).intercepts.tolist()


def test_a_quadrature_sums_over_the_law_of_a_truth():
    """Oracle: moments of y by hand, E y = sum_k E g_k(x) m_k(x), and second moments alike."""
    known = softmax_truth(SOFTMAX_SOUGHT).params
    pairs, weights = quadrature(known, -1.0, 1.0)
    x = np.linspace(-1, 1, 4_001)[:, None]
    gates, means = known.gates(x), known.expert_means(x)
    assert weights.sum() == pytest.approx(1)
    # Midpoints with steps of 1/20 err by about (1/20)^2 / 24 times a second derivative of order one.
    assert weights @ pairs.y[:, 0] == pytest.approx((gates * means).sum(axis=1).mean(), abs=2e-3)
    second = (gates * (means**2 + known.noise_vars)).sum(axis=1).mean()
    assert weights @ pairs.y[:, 0] ** 2 == pytest.approx(second, abs=5e-3)


def test_splits_of_the_truth_that_is_looked_at_are_seen_from_a_million_pairs_on():
    """At a loss of .1 the likelihood falls by 3.6 nats where n = 1e6."""
    assert 3 < 1e6 * profile(softmax_truth(SOFTMAX_SOUGHT), 0.1) < 4.2


@pytest.mark.slow
def test_small_splits_are_seen_as_the_square_of_their_loss():
    """KL is of second order in the loss: four times the loss is seen about sixteen times as well."""
    known = softmax_truth(SOFTMAX_SOUGHT)
    small, large = (profile(known, loss) for loss in (0.1, 0.4))
    assert 12 < large / small < 18


@pytest.mark.slow
def test_the_truth_that_is_looked_at_shows_its_splits_best():
    seen = {name: profile(softmax_truth(name), 0.1) for name in NAMES}
    assert max(seen, key=seen.get) == SOFTMAX_SOUGHT


def test_drawn_truths_have_masses_near_one_and_inputs_around_zero():
    for number, name in enumerate(NAMES, start=1):
        known = softmax_truth(name)
        turn = known.params.gate_slopes[0, 0] - known.params.gate_slopes[1, 0]
        assert 3 < abs(turn) < 8
        assert abs(known.params.gate_intercepts[0] / turn) <= 0.3
        assert np.array_equal(known.params.slopes, random_softmax(number).slopes)
    assert np.abs(softmax_sample(NAMES[0], 1_000, 3).x).max() <= 1

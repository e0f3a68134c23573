import numpy as np
import pytest
from cases import FAMILIES, member
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from moe_prompts import Evaluation, GaussianGatedMoE, InputError, truth, voronoi_errors, voronoi_loss
from moe_prompts.losses.gaussian_voronoi import cells, rbar


def published_perturbation(params, labels):
    """The check construction: atom i (t = i + 1) of label s_i, with known displacements."""
    labels = np.array(labels)
    i = np.arange(len(labels))
    t = i + 1.0
    split = np.bincount(labels)[labels]
    return GaussianGatedMoE.unchecked(
        params.weights[labels] * (1 + 0.1 * (-1.0) ** i) / split,
        params.gate_means[labels] + 0.01 * t[:, None],
        params.gate_covs[labels] * (1 + 0.1 * t[:, None, None]),
        params.slopes[labels] + 0.02 * t[:, None, None],
        params.intercepts[labels] - 0.03 * t[:, None],
        params.noise_covs[labels] * (1 + 0.05 * t[:, None, None]),
    )


PUBLISHED = {
    (0, 0, 1, 2): (0.220376260052, 0.220376123577, 0.251898819229, 0.251898682754),
    (0, 0, 0, 1, 2): (0.273500968731, 0.272947368399, 0.314210382781, 0.313128366634),
}


@pytest.mark.parametrize("model", [1, 2, 3, 4])
@pytest.mark.parametrize("labels", PUBLISHED)
def test_published_loss_values(model, labels):
    params = truth(f"gmoe-{model}").params
    variant = "type2" if model in (2, 4) else "type1"  # c*_1 = 0 in models 2 and 4
    loss = voronoi_loss(published_perturbation(params, labels), params, variant)
    assert abs(loss - PUBLISHED[labels][model - 1]) < 1e-12


def test_loss_by_hand():
    """Two atoms in the first cell (r = 4), one in the second, none in the third."""
    params = GaussianGatedMoE.univariate([0.3, 0.3, 0.4], [0, 5, 50], [1, 1, 1], [0, 1, 0], [0, 0, 0], [1, 1, 1])
    fitted = GaussianGatedMoE.univariate(
        [0.2, 0.3, 0.5], [0.5, -0.5, 5.1], [1, 1.2, 1], [0.1, 0, 1], [0, 0, 0.2], [1, 1, 1]
    )
    mass = 0.2 + 0.2 + 0.4
    first = 0.2 * (0.5**4 + 0.1**2) + 0.3 * (0.5**4 + 0.2**2)
    assert_allclose(voronoi_loss(fitted, params, "intrinsic"), mass + first + 0.5 * (0.1 + 0.2))
    errors = voronoi_errors(fitted, params)
    assert errors.cell_sizes.tolist() == [2, 1, 0]
    assert_allclose(errors.singleton_error, 0.3)
    assert_allclose(list(errors.singleton_lengths().values()), [0.1, 0, 0, 0.2, 0], atol=1e-12)
    assert_allclose(errors.split_rms, np.sqrt((0.2 * 0.6**2 + 0.3 * 0.7**2) / 0.5))
    assert_allclose(errors.split_lengths()["c"], (0.5 * 0.5**4) ** 0.25)
    assert_allclose(errors.split_lengths()["A"], (0.2 * 0.1**2) ** 0.5)


def test_frozen_atoms_are_not_errors():
    known = truth("prompts-adaptive").params
    both_in_one = known.atoms([0, 0, 2, 3])
    assert np.isnan(voronoi_errors(both_in_one, known, n_frozen=2).singleton_error)
    assert voronoi_errors(both_in_one, known).singleton_error == 0


def test_variants_differ_only_in_the_slope_of_large_cells():
    params = truth("gmoe-2").params  # c*_1 = 0
    fitted = published_perturbation(params, (0, 0, 0, 1, 2))
    assert voronoi_loss(fitted, params, "type2") == voronoi_loss(fitted, params, "intrinsic")
    assert voronoi_loss(fitted, params, "type1") > voronoi_loss(fitted, params, "type2")
    other = truth("gmoe-1").params  # no c* = 0: type II has no cell of its own
    fitted = published_perturbation(other, (0, 0, 0, 1, 2))
    assert voronoi_loss(fitted, other, "type2") == voronoi_loss(fitted, other, "type1")


def test_ties_go_to_the_first_cell():
    params = GaussianGatedMoE.univariate([0.5, 0.5], [-1, 1], [1, 1], [0, 0], [0, 0], [1, 1])
    middle = GaussianGatedMoE.univariate([1.0], [0], [1], [0], [0], [1])
    assert cells(middle, params).tolist() == [0]


@pytest.mark.parametrize("name", FAMILIES)
def test_loss_is_zero_at_the_permuted_truth(name):
    params = member(FAMILIES[name], 0)
    order = np.random.default_rng(0).permutation(params.k)
    assert voronoi_loss(params.atoms(order), params) < 1e-14


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), k=st.integers(1, 7))
def test_loss_is_non_negative_and_blind_to_labels(seed, k):
    rng = np.random.default_rng(seed)
    params = truth("gmoe-1").params
    fitted = published_perturbation(params, rng.integers(3, size=k))
    for variant in ("type1", "type2", "intrinsic"):
        loss = voronoi_errors(fitted, params).loss(variant)
        order = rng.permutation(k)
        moved = GaussianGatedMoE.unchecked(*(getattr(fitted, f)[order] for f in fitted.__dataclass_fields__))
        assert loss >= 0
        assert_allclose(voronoi_errors(moved, params).loss(variant), loss, rtol=1e-12)


def test_rbar():
    assert [rbar(m) for m in (1, 2, 3, 4)] == [1, 4, 6, 8]


def test_bad_input():
    with pytest.raises(InputError, match="variant = 'type3'"):
        voronoi_loss(truth("gmoe-1").params, truth("gmoe-1").params, "type3")
    with pytest.raises(InputError, match="fitted atoms have d = 2"):
        voronoi_loss(truth("gmoe-3").params, truth("gmoe-1").params)


class TestPrediction:
    @pytest.mark.parametrize("name", ["prompts-adaptive", "gmoe-3"])
    def test_risk_and_signal_agree_with_monte_carlo(self, name):
        known = truth(name)
        other = known.params.rescaled(0.05 * np.ones(known.params.d), 1.1 * np.ones(known.params.d), [0.1], [0.9])
        quadrature = Evaluation(known.params)
        x = known.params.sample(200_000, np.random.default_rng(0)).x
        m, fitted = known.params.regression(x), other.regression(x)
        for value, terms in ((quadrature.excess_risk(other), (fitted - m) ** 2), (quadrature.signal, m**2)):
            # four standard errors of the Monte-Carlo mean, and the quadrature's own 1 % for d = 2
            assert abs(value - terms.mean()) < 4 * terms.std() / np.sqrt(len(terms)) + (
                0.01 * value if other.d > 1 else 0
            )

    def test_hellinger_agrees_with_the_closed_form_of_two_gaussians(self):
        a = GaussianGatedMoE.univariate([1.0], [0.0], [1.0], [0.5], [0.0], [0.3])
        for shift in (0.3, 0.01):
            b = GaussianGatedMoE.univariate([1.0], [0.0], [1.0], [0.5], [shift], [0.3])
            affinity_complement = -np.expm1(-(shift**2) / (8 * 0.3))
            assert_allclose(Evaluation(a).hellinger(b), np.sqrt(affinity_complement), rtol=0.01)  # Sobol, about 1 %

    def test_hellinger_of_large_distances(self):
        """Mass of the fit far from the truth counts; a spike of small mass on a node does not blow up."""
        a = GaussianGatedMoE.univariate([1.0], [0.0], [1.0], [0.5], [0.0], [0.3])
        quadrature = Evaluation(a)
        far = GaussianGatedMoE.univariate([1.0], [1e3], [1.0], [0.5], [0.0], [0.3])
        assert_allclose(quadrature.hellinger(far), 1)
        shift = 2.0
        beside = GaussianGatedMoE.univariate([1.0], [0.0], [1.0], [0.5], [shift], [0.3])
        assert_allclose(quadrature.hellinger(beside), np.sqrt(-np.expm1(-(shift**2) / (8 * 0.3))), rtol=0.01)
        x, y = quadrature.x[0, 0], quadrature.y[0, 0]
        spike = GaussianGatedMoE.univariate([0.999, 0.001], [0, x], [1, 1e-8], [0.5, 0], [0, y], [0.3, 1e-8])
        # at most sqrt(1e-3) = .032; the quadrature adds the weight of the node, 1 / 4096
        assert quadrature.hellinger(spike) < 0.06

    def test_another_shape_is_refused(self):
        with pytest.raises(InputError, match="the fit has d = 2, l = 1; the truth has d = 1, l = 1"):
            Evaluation(truth("gmoe-1").params).excess_risk(truth("gmoe-3").params)

    def test_errors_vanish_at_the_truth(self):
        known = truth("prompts-adaptive").params
        assert Evaluation(known).excess_risk(known) == 0
        assert Evaluation(known).hellinger(known) == 0

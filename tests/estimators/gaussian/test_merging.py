"""The tree of merges against a search by hand over all pairs, what a merge keeps, and the choice of k."""

import itertools

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from moe_prompts import GaussianGatedMoE, InputError, choose_k, merge_path, truth, voronoi_loss
from moe_prompts import sample as draw
from moe_prompts.models.data import Sample
from moe_prompts.study.merging import right_from


def random_model(seed, k=5, d=1, l=1):
    """Atoms of (x, y) with covariances of any shape."""
    rng = np.random.default_rng(seed)
    roots = 0.4 * rng.standard_normal((k, d + l, d + l)) + 0.3 * np.eye(d + l)
    weights = rng.dirichlet(np.full(k, 3.0))
    return GaussianGatedMoE.from_joint(weights, rng.standard_normal((k, d + l)), roots @ roots.swapaxes(1, 2), d)


def by_hand(model):
    """The same tree from the definition alone: atoms as dicts, norms as traces in the metric of the law's precision."""
    w, m, S = model.to_joint()
    mean = sum(p * c for p, c in zip(w, m, strict=True))
    law = sum(p * (V + np.outer(c - mean, c - mean)) for p, c, V in zip(w, m, S, strict=True))
    P = np.linalg.inv(law)
    atoms = [(p, c, V) for p, c, V in zip(w, m, S, strict=True)]
    heights, levels = [], [atoms]
    while len(atoms) > 1:

        def height(pair):
            (p, c, V), (q, e, W) = pair
            shift, change = c - e, V - W
            return p * q / (p + q) * (shift @ P @ shift + np.sqrt(np.trace(P @ change @ P @ change)))

        one, other = min(itertools.combinations(atoms, 2), key=height)
        heights.append(height((one, other)))
        total = one[0] + other[0]
        centre = (one[0] * one[1] + other[0] * other[1]) / total
        spread = sum(p / total * (V + np.outer(c - centre, c - centre)) for p, c, V in (one, other))
        atoms = [atom for atom in atoms if atom is not one and atom is not other] + [(total, centre, spread)]
        levels.append(atoms)
    return heights, levels


@pytest.mark.parametrize(("d", "l"), [(1, 1), (2, 1), (1, 2)])
@pytest.mark.parametrize("seed", range(3))
def test_the_tree_is_that_of_the_definition(seed, d, l):
    model = random_model(seed, d=d, l=l)
    path = merge_path(model)
    heights, levels = by_hand(model)
    np.testing.assert_allclose(path.heights, heights, rtol=1e-9)
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((20, d + l))
    for merged, atoms in zip(path.models, levels, strict=True):
        density = sum(p * multivariate_normal(c, V).pdf(z) for p, c, V in atoms)
        np.testing.assert_allclose(np.exp(merged.log_density(z[:, :d], z[:, d:])), density, rtol=1e-9)


def test_a_merge_keeps_mass_mean_and_covariance():
    model = random_model(7, d=2)
    moments = []
    for merged in merge_path(model).models:
        w, m, S = merged.to_joint()
        mean = w @ m
        moments.append((w.sum(), mean, np.einsum("k,kij->ij", w, S + (m - mean)[:, :, None] * (m - mean)[:, None])))
    for one in moments[1:]:
        for ours, theirs in zip(one, moments[0], strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-12)


@pytest.mark.parametrize("units", [(1e-3, 40.0), (1e6, 1e-5)])
def test_heights_and_choice_do_not_depend_on_units_or_origin(units):
    data, model = draw("gmoe-1", 500, 21), random_model(3)
    shift = (np.array([5.0]), np.array([units[0]]), np.array([-2.0]), np.array([units[1]]))
    moved = model.rescaled(*shift)
    np.testing.assert_allclose(merge_path(moved).heights, merge_path(model).heights, rtol=1e-9)
    other = Sample((data.x - shift[0]) / shift[1], (data.y - shift[2]) / shift[3])
    ours, theirs = choose_k(model, data), choose_k(moved, other)
    np.testing.assert_allclose(ours.criterion, theirs.criterion, rtol=1e-7, atol=1e-7)
    assert ours.k == theirs.k


def test_heights_do_not_depend_on_a_linear_function_added_to_y():
    model = random_model(4)
    w, m, S = model.to_joint()
    shear = np.array([[1.0, 0.0], [3.0, 1.0]])
    sheared = GaussianGatedMoE.from_joint(w, m @ shear.T, shear @ S @ shear.T, 1)
    np.testing.assert_allclose(merge_path(sheared).heights, merge_path(model).heights, rtol=1e-9)


def test_halves_of_atoms_merge_first_and_give_the_truth_back():
    """Halves of true atoms as the search splits them have the true moments: merged, they are the truth."""
    from moe_prompts.estimators.gaussian.global_search import splits

    known = truth("gmoe-2")
    for start in splits(known.family_with(4, "affine"), known.params):
        path = merge_path(start)
        assert path.height(4) < 0.1 * path.height(3)
        assert voronoi_loss(path.model(3), known.params) < 1e-10
        assert path.pairs[0][1] == 3


def test_frozen_atoms_stay():
    known = truth("prompts-adaptive")
    path = merge_path(known.params, n_frozen=2)
    assert [model.k for model in path.models] == [4, 3]
    last = path.models[-1]
    np.testing.assert_allclose(last.weights[1:], known.params.weights[2:])
    np.testing.assert_allclose(last.gate_means[1:], known.params.gate_means[2:])
    np.testing.assert_allclose(last.weights[0], known.params.weights[:2].sum())


def test_the_criterion_is_that_of_the_definition():
    data, model = draw("gmoe-1", 400, 22), random_model(5)
    found = choose_k(model, data, omega=2.5)
    values = []
    for height, merged in zip(found.path.heights, found.path.models, strict=False):
        gain = np.mean(merged.log_density(data.x, data.y) - model.log_density(data.x, data.y))
        values.append(-(height + 2.5 * gain))
    np.testing.assert_allclose(found.criterion, values, rtol=1e-9, atol=1e-12)
    assert found.k == 5 - int(np.argmin(values))
    assert found.model.k == found.k
    np.testing.assert_allclose(found.log_likelihood[0], model.log_density(data.x, data.y).sum())
    assert choose_k(model, data).criterion[0] == found.criterion[0]  # the fit itself: its height alone


@pytest.mark.parametrize("name", ["gmoe-1", "prompts-random-2"])
def test_without_noise_the_true_number_wins_from_where_it_says(name):
    """The law itself, and half its atoms split: at the n that ``right_from`` names, and not at a tenth of its log."""
    known = truth(name).params
    begin = right_from(name)
    assert begin > 1
    law = known.sample(200_000, np.random.default_rng([0, known.k]))
    assert choose_k(known, law, omega=np.log(begin) * 1.05).k == known.k
    assert choose_k(known, law, omega=np.log(begin) * 0.95).k < known.k


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, s: merge_path(m.atoms([0])), "expected at least two free ones"),
        (lambda m, s: merge_path(m, n_frozen=4), "4 of them frozen"),
        (lambda m, s: merge_path(3), "merge_path: fit"),
        (lambda m, s: choose_k(m, s, omega=0.0), "omega = 0.0"),
        (lambda m, s: choose_k(m, Sample(np.ones((4, 2)), np.ones(4))), "d = 2"),
        (lambda m, s: merge_path(m).model(6), "k = 6; expected 1 to 5"),
        (lambda m, s: merge_path(m).height(1), "k = 1"),
    ],
)
def test_what_cannot_be_merged_is_one_clear_line(call, message):
    with pytest.raises(InputError, match=message):
        call(random_model(0), draw("gmoe-1", 50, 1))

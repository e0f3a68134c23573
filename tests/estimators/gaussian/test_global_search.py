"""The search for a global maximum against brute force on small samples, and what it says of itself."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import linprog

from moe_prompts import GaussianGatedFamily, GlobalOptions, InputError, global_maximum, sample, starts, truth
from moe_prompts.estimators.gaussian import global_search
from moe_prompts.estimators.gaussian.global_search import inserted, sliced, splits
from moe_prompts.estimators.gaussian.newton import climb, newton
from moe_prompts.estimators.gaussian.starts import from_clusters, variances
from moe_prompts.estimators.gaussian.streaming import passes_of
from moe_prompts.estimators.stages import SAME_SUMMIT
from moe_prompts.models.data import Sample

N = 60


def rng_of(seed):
    return lambda number: np.random.default_rng([seed, number])


def by_brute_force(family, data, step, columns=2):
    """The highest certified summit from every partition into contiguous blocks of x, and of y if there are two columns.

    Cuts are at multiples of ``step``: with step 1 there are C(n - 1, k - 1) blocks of each, 59 for k = 2 and 1711 for
    k = 3 of 60 points.
    """
    options = GlobalOptions().newton
    passes = passes_of(family, data, min_eigenvalue=options.min_eigenvalue)
    spread, best = variances(data, data), -np.inf
    for column in (data.x[:, 0], data.y[:, 0])[:columns]:
        ranks = column.argsort().argsort()
        for cuts in itertools.combinations(range(step, data.n, step), family.k - 1):
            labels = np.searchsorted(cuts, ranks, side="right")
            fit = climb(passes, from_clusters(family, data, labels, spread), options)
            best = max(best, fit.log_likelihood if fit.certified else -np.inf)
    return best


def halves(data):
    """Labels of every partition of the points of the plane by a line: about n^2 / 2 of the 2^(n - 1) in all.

    The order of points along a direction changes at the normals of the lines through two of them; between two
    such angles all halves are a prefix of one order.
    """
    z = np.concatenate([data.x, data.y], axis=1)
    z = (z - z.mean(axis=0)) / z.std(axis=0)
    one, other = np.triu_indices(len(z), 1)
    apart = z[one] - z[other]
    angles = np.sort((np.arctan2(apart[:, 1], apart[:, 0]) + np.pi / 2) % np.pi)
    seen = set()
    for angle in (angles + np.append(angles[1:], angles[0] + np.pi)) / 2:
        order = (z @ np.array([np.cos(angle), np.sin(angle)])).argsort()
        labels = np.zeros(len(z), dtype=bool)
        for point in order[:-1]:
            labels[point] = True
            seen.add((labels if labels[0] else ~labels).tobytes())
    return [np.frombuffer(mask, dtype=bool).astype(int) for mask in sorted(seen)]


def by_all_halves(family, data):
    """The highest certified summit from every partition in two by a line: a start for each."""
    options = GlobalOptions().newton
    passes = passes_of(family, data, min_eigenvalue=options.min_eigenvalue)
    spread = variances(data, data)
    fits = [climb(passes, from_clusters(family, data, labels, spread), options) for labels in halves(data)]
    return max(fit.log_likelihood for fit in fits if fit.certified)


def found_as_high(k, seed, oracle, starts=8):
    family, data = GaussianGatedFamily(1, 1, k), sample("gmoe-1", N, 11, seed)
    result = global_maximum(family, data, rng_of(seed), GlobalOptions(data_starts=starts, held_back=0))
    return result.best.log_likelihood >= oracle(family, data) - SAME_SUMMIT


def test_lines_cut_points_in_the_plane_in_as_many_ways_as_geometry_says():
    """n points in general position have n (n - 1) / 2 + 1 partitions by a line, one of them with an empty half."""
    data = Sample(*np.random.default_rng(0).standard_normal((2, 9)))
    cuts = halves(data)
    assert len(cuts) == 9 * 8 // 2
    by_hand = set()
    for mask in itertools.product((0, 1), repeat=8):
        labels = np.array((1, *mask))
        z = np.concatenate([data.x, data.y], axis=1)
        side = np.where(labels == 1, 1.0, -1.0)
        separable = linprog(
            np.zeros(3), A_ub=-side[:, None] * np.c_[z, np.ones(9)], b_ub=-np.ones(9), bounds=[(None, None)] * 3
        ).success
        if separable and 0 in labels:
            by_hand.add(labels.tobytes())
    assert by_hand == {labels.tobytes() for labels in cuts}


def test_brute_force_finds_nothing_higher_on_small_samples():
    assert all(found_as_high(2, seed, lambda family, data: by_brute_force(family, data, 6)) for seed in range(2))


@pytest.mark.slow
def test_a_start_from_every_half_finds_something_higher_in_one_sample_of_twenty_at_most():
    """k = 2 on 60 points: all 1770 partitions by a line in the plane of (x, y), of the 2^59 in all. Found: 20 of 20.

    Among them are all 59 in contiguous blocks of x, those of y, and all sides of residuals: above and below any
    regression line.
    """
    assert np.mean([found_as_high(2, seed, by_all_halves) for seed in range(20)]) >= 0.95


@pytest.mark.slow
def test_a_start_from_every_slice_finds_something_higher_in_one_sample_of_twenty_at_most():
    """k = 3 on 60 points: slices along x and along y whose cuts are six points apart; 64 starts of each sort."""
    oracle = lambda family, data: by_brute_force(family, data, 6)
    assert np.mean([found_as_high(3, seed, oracle, starts=64) for seed in range(40)]) >= 0.95


@pytest.mark.slow
def test_a_start_from_every_block_of_x_finds_something_higher_in_one_sample_of_twenty_at_most():
    """k = 3 on 60 points: all 1711 partitions into three contiguous blocks of x, and blocks of y six points apart.

    Of the 3^60 / 6 partitions in three these are the ones that follow one column. Those by residuals inside a block of
    x, some 59 times 1770 for two of the three, are not tried. 64 starts of each sort are as high on 19 or more of 20,
    the default on 17.
    """

    def oracle(family, data):
        return max(by_brute_force(family, data, 1, columns=1), by_brute_force(family, data, 6))

    assert np.mean([found_as_high(3, seed, oracle, starts=64) for seed in range(20)]) >= 0.95


def with_a_needle(n, points):
    """A sample of gmoe-1 with a few more points close to each other, far from no expert."""
    data, rng = sample("gmoe-1", n, 16), np.random.default_rng(1)
    needle = np.array([0.25, -0.2]) + 0.03 * rng.standard_normal((points, 2))
    z = np.concatenate([np.concatenate([data.x, data.y], axis=1), needle])
    z = z[rng.permutation(len(z))]
    return Sample(z[:, 0], z[:, 1])


def test_a_small_atom_finds_what_the_other_starts_miss(monkeypatch):
    """The best summit of this sample is one that clusters, slices and splits do not reach."""
    data, family = sample("gmoe-1", 1_000, 101), GaussianGatedFamily(1, 1, 4)
    options = GlobalOptions(data_starts=6, held_back=0)
    rng = lambda number: np.random.default_rng([3, 1, number])
    found = global_maximum(family, data, rng, options)
    assert found.ways == ("insert",)
    monkeypatch.setattr(global_search, "inserted", lambda *how, **more: [])
    without = global_maximum(family, data, rng, options)
    assert without.best.log_likelihood < found.best.log_likelihood - 0.5


def test_a_small_atom_is_put_where_it_gains_most():
    """The start is the smaller fit and one atom, and no other of the tried ones gains as much as the first."""
    data, known = with_a_needle(2_000, 40), truth("gmoe-1")
    family = GaussianGatedFamily(1, 1, 4)
    made = inserted(family, known.params, data, np.random.default_rng(2), most=5)
    gains = [(start.log_density(data.x, data.y) - known.params.log_density(data.x, data.y)).sum() for start in made]
    assert gains[0] == max(gains) > 0
    first = made[0]
    assert first.k == 4
    weight = first.weights[3]
    alone = first.atoms([3])
    density = (1 - weight) * np.exp(known.params.log_density(data.x, data.y)) + weight * np.exp(
        replace(alone, weights=np.ones(1)).log_density(data.x, data.y)
    )
    np.testing.assert_allclose(np.exp(first.log_density(data.x, data.y)), density, rtol=1e-9)
    _, means, _ = first.to_joint()
    assert np.linalg.norm(means[3] - np.array([0.25, -0.2])) < 0.05


def test_frozen_atoms_stay_beside_a_small_one():
    known = truth("prompts-adaptive")
    family = known.family_with(3, "affine")
    for start in inserted(family, known.params, sample("prompts-adaptive", 300, 17), np.random.default_rng(3), most=3):
        assert start.k == 5
        np.testing.assert_allclose(start.gate_means[3:], known.params.gate_means[2:])
        np.testing.assert_allclose(start.weights.sum(), 1)


def test_compressed_data_lead_to_the_same_maximum():
    """The climb goes over a short quadrature of 60 000 points; the best fit is certified on the points themselves."""
    data, family = sample("gmoe-1", 60_000, 18), GaussianGatedFamily(1, 1, 3)
    few = GlobalOptions(data_starts=1, growth=1, held_back=0)
    short = global_maximum(family, data, rng_of(0), few)
    long = global_maximum(family, data, rng_of(0), replace(few, newton=replace(few.newton, compress=False)))
    assert short.best.certified
    assert short.best.log_likelihood == pytest.approx(long.best.log_likelihood, abs=1e-6)


def test_no_start_beside_the_truth_ends_higher():
    """In most of these over-fitted samples one start beside the truth ends below the best of several."""
    known, family, below = truth("gmoe-1"), GaussianGatedFamily(1, 1, 4), 0
    for seed in range(3):
        data = sample("gmoe-1", 1_000, 12, seed)
        found = global_maximum(family, data, rng_of(seed), GlobalOptions(held_back=0))
        near = [
            newton(family, data, starts.near_truth(known.params).draw(family, data, rng_of(seed)(100 + i)))
            for i in range(3)
        ]
        heights = [fit.log_likelihood for fit in near if fit.certified]
        assert found.best.certified
        assert max(heights) <= found.best.log_likelihood + SAME_SUMMIT
        below += min(heights) < found.best.log_likelihood - SAME_SUMMIT
    assert below


def test_what_it_says_of_itself():
    data = sample("gmoe-1", 500, 13)
    found = global_maximum(GaussianGatedFamily(1, 1, 3), data, rng_of(0), GlobalOptions(data_starts=4, held_back=3))
    assert 12 < found.starts <= 16  # clusters, slices, two atoms along two axes, and small atoms apart from each other
    assert 1 <= found.reached <= found.starts
    assert set(found.ways) <= {"data", "slice", "split", "insert"}
    assert found.next_nats > SAME_SUMMIT or np.isnan(found.next_nats)
    assert found.held_back == 3
    assert (found.missed > 0) == (found.missed_nats > 0)


def test_it_depends_on_the_generators_alone():
    data, family = sample("gmoe-1", 300, 14), GaussianGatedFamily(1, 1, 2)
    one, other = (global_maximum(family, data, rng_of(3)) for _ in range(2))
    assert one.best.log_likelihood == other.best.log_likelihood
    assert (one.reached, one.ways, one.missed) == (other.reached, other.ways, other.missed)


@pytest.mark.parametrize("name", ["gmoe-1", "gmoe-3", "prompts-adaptive"])
def test_splits_keep_mass_mean_and_covariance(name):
    """Every atom is split along every axis: the halves have together what the atom had. Frozen atoms stay."""
    known = truth(name)
    own = known.family_with(known.k_true + 1, "affine")
    weights, means, covs = known.params.to_joint()
    made = list(splits(own, known.params))
    assert len(made) == known.k_true * means.shape[1]
    second = lambda w, m, S: np.einsum("k,kij->ij", w, S + m[:, :, None] * m[:, None])
    for start in made:
        w, m, S = start.to_joint()
        np.testing.assert_allclose(w.sum(), 1)
        np.testing.assert_allclose(w @ m, weights @ means, atol=1e-12)
        np.testing.assert_allclose(second(w, m, S), second(weights, means, covs), atol=1e-12)


def test_slices_are_starts_in_the_family():
    data, family = sample("gmoe-3", 200, 15), truth("gmoe-3").family_with(5, "affine")
    start = sliced(family, data, np.random.default_rng(0))
    assert start.k == 5
    assert np.isfinite(start.log_density(data.x, data.y)).all()


def test_a_search_without_a_summit_is_one_clear_line():
    x = np.linspace(0, 1, 6)
    with pytest.raises(InputError, match=r"none of .* starts with k = .* ends on a certified summit"):
        global_maximum(GaussianGatedFamily(1, 1, 3), Sample(x, x**2), rng_of(0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data_starts": 0}, "data_starts = 0"),
        ({"growth": 0}, "growth = 0"),
        ({"held_back": -1}, "held_back = -1"),
    ],
)
def test_wrong_numbers_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        GlobalOptions(**options)

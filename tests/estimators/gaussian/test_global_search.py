"""The search for a global maximum against brute force on small samples, and what it says of itself."""

import itertools

import numpy as np
import pytest

from moe_prompts import GaussianGatedFamily, GlobalOptions, InputError, global_maximum, sample, starts, truth
from moe_prompts.estimators.gaussian.global_search import sliced, splits
from moe_prompts.estimators.gaussian.newton import climb, newton
from moe_prompts.estimators.gaussian.starts import from_clusters, variances
from moe_prompts.estimators.gaussian.streaming import passes_of
from moe_prompts.estimators.stages import SAME_SUMMIT
from moe_prompts.models.data import Sample

N = 60


def rng_of(seed):
    return lambda number: np.random.default_rng([seed, number])


def by_brute_force(family, data, step):
    """The highest certified summit from every partition into slices along x and along y, cuts ``step`` points apart."""
    options = GlobalOptions().newton
    passes = passes_of(family, data, min_eigenvalue=options.min_eigenvalue)
    spread, best = variances(data, data), -np.inf
    for column in (data.x[:, 0], data.y[:, 0]):
        ranks = column.argsort().argsort()
        for cuts in itertools.combinations(range(step, data.n, step), family.k - 1):
            labels = np.searchsorted(cuts, ranks, side="right")
            fit = climb(passes, from_clusters(family, data, labels, spread), options)
            best = max(best, fit.log_likelihood if fit.certified else -np.inf)
    return best


def share_found(k, samples, step):
    family, found = GaussianGatedFamily(1, 1, k), []
    for seed in range(samples):
        data = sample("gmoe-1", N, 11, seed)
        result = global_maximum(family, data, rng_of(seed), GlobalOptions(held_back=0))
        found.append(result.best.log_likelihood >= by_brute_force(family, data, step) - SAME_SUMMIT)
    return np.mean(found)


def test_brute_force_finds_nothing_higher_on_small_samples():
    assert share_found(2, samples=2, step=6) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("k", "step"), [(2, 2), (3, 6)])
def test_brute_force_finds_something_higher_in_one_sample_of_twenty_at_most(k, step):
    assert share_found(k, samples=20, step=step) >= 0.95


def test_no_start_beside_the_truth_ends_higher():
    """Of over-fitted samples, where one start beside the truth is below the best of several in most."""
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
    assert found.starts == 4 + 4 + 2 * 2  # clusters, slices, and two atoms along two axes
    assert 1 <= found.reached <= found.starts
    assert set(found.ways) <= {"data", "slice", "split"}
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
    """Of every atom along every axis: the halves have together what the atom had. Frozen atoms stay."""
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
    ("options", "message"), [({"data_starts": 0}, "data_starts = 0"), ({"held_back": -1}, "held_back = -1")]
)
def test_wrong_numbers_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        GlobalOptions(**options)

"""The search for a global maximum of softmax gates against brute force on small samples, and what it says of itself."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from moe_prompts import FitStatus, InputError, Sample
from moe_prompts.estimators.softmax import global_search
from moe_prompts.estimators.softmax.global_search import (
    SoftmaxGlobalOptions,
    inserted,
    of_labels,
    sliced,
    softmax_global_maximum,
    splits,
    steepness,
)
from moe_prompts.estimators.softmax.likelihood import SoftmaxLikelihood, softmax_climb
from moe_prompts.estimators.stages import SAME_SUMMIT
from moe_prompts.models.softmax_gated import SoftmaxGatedFamily
from moe_prompts.models.softmax_truths import softmax_sample, softmax_truth

N, NAME = 60, "softmax-random-8"
OPTIONS = SoftmaxGlobalOptions(held_back=0)
#: As wide as it takes with k = 3 on 60 points: the defaults find 12 of 20 samples, and 64 starts of each sort 15.
WIDE = SoftmaxGlobalOptions(data_starts=256, inserts=32, growth=8, held_back=0)


def rng_of(seed):
    return lambda number: np.random.default_rng([seed, number])


def by_blocks(family, data, columns):
    """The highest certified summit in the compact set from every partition into contiguous blocks along some columns.

    For each column there are C(n - 1, k - 1) of them: 59 for k = 2 and 1711 for k = 3 of 60 points.
    """
    newton = OPTIONS.newton
    layout, best = SoftmaxLikelihood(family, data, newton.min_points, newton.min_noise_sd), -np.inf
    for column in columns:
        ranks = column.argsort().argsort()
        for cuts in itertools.combinations(range(1, data.n), family.k - 1):
            fit = softmax_climb(layout, of_labels(family, data, np.searchsorted(cuts, ranks, side="right")), newton)
            if fit.certified and steepness(fit.value, data) <= OPTIONS.max_slope:
                best = max(best, fit.log_likelihood)
    return best


def found_as_high(k, seed, columns, options=OPTIONS):
    family, data = SoftmaxGatedFamily(1, k), softmax_sample(NAME, N, 17, seed)
    found, _ = softmax_global_maximum(family, data, rng_of(seed), options)
    return found.best.log_likelihood >= by_blocks(family, data, columns(data)) - SAME_SUMMIT


def of_both(data):
    return data.x[:, 0], data.y[:, 0]


def test_brute_force_finds_nothing_higher_on_small_samples():
    """Every block of x and of y, k = 2: 118 starts for each of three samples."""
    assert all(found_as_high(2, seed, of_both) for seed in range(3))


@pytest.mark.slow
@pytest.mark.parametrize("k", [2, 3])
def test_a_start_from_every_block_finds_something_higher_in_one_sample_of_twenty_at_most(k):
    """All partitions into contiguous blocks: for k = 2 of x and of y, 118 starts; for k = 3 of x, 1711 starts.

    Other partitions are not tried: there are 2^59 of 60 points in two. Found: 20 of 20, for k = 3 by 256 starts.
    """
    columns, options = (of_both, OPTIONS) if k == 2 else (lambda data: data.x.T, WIDE)
    assert np.mean([found_as_high(k, seed, columns, options) for seed in range(20)]) >= 0.95


def test_halves_have_together_what_the_atom_had():
    """Along x halves share the parent's mass where their gates are equal; along e they lie on both sides of it."""
    known, data = softmax_truth(NAME).params, softmax_sample(NAME, 2_000, 18)
    made = list(splits(known, data))
    assert len(made) == known.k * 8  # along x, e, e x and e^2, sharply and gently
    at_heights = made[2]  # the first atom, along its residual
    first, second = at_heights.intercepts[0], at_heights.intercepts[2]
    assert first > known.intercepts[0] > second
    assert at_heights.noise_vars[[0, 2]].max() < known.noise_vars[0]
    along_x = made[0]
    assert along_x.gate_slopes[0, 0] > along_x.gate_slopes[2, 0]
    logits, parent = along_x.gate_logits(data.x), known.gate_logits(data.x)[:, 0]
    crossing = np.abs(logits[:, 0] - logits[:, 2]).argmin()
    assert_allclose(np.logaddexp(logits[crossing, 0], logits[crossing, 2]), parent[crossing], atol=0.02)
    # What is not split stays as it was.
    for start in made[:8]:
        assert_allclose(start.slopes[1], known.slopes[1])


def with_a_needle(points):
    data, rng = softmax_sample(NAME, 1_000, 19), np.random.default_rng(1)
    x = np.append(data.x[:, 0], 0.5 + 0.1 * rng.standard_normal(points))
    y = np.append(data.y[:, 0], -0.5 + 0.05 * rng.standard_normal(points))
    return Sample(x, y)


def test_a_small_atom_is_put_where_it_gains_most():
    """Some more points on a level piece: the first start has an atom there, and gains more than one elsewhere."""
    data, known = with_a_needle(60), softmax_truth(NAME).params
    made = inserted(known, data, np.random.default_rng(2), most=8, tried=1_000)
    gains = [(start.log_density(data) - known.log_density(data)).sum() for start in made]
    elsewhere = [gain for gain, start in zip(gains, made, strict=True) if abs(start.intercepts[2] + 0.5) > 0.2]
    assert gains[0] > max(elsewhere, default=0.0)
    assert_allclose(made[0].intercepts[2], -0.5, atol=0.1)
    assert made[0].slopes[2, 0] == 0
    assert_allclose(made[0].slopes[:2], known.slopes)


def test_small_atoms_find_what_the_other_starts_miss(monkeypatch):
    data, family = with_a_needle(60), SoftmaxGatedFamily(1, 3)
    few = replace(OPTIONS, data_starts=2)
    found, _ = softmax_global_maximum(family, data, rng_of(0), few)
    assert "insert" in found.ways
    monkeypatch.setattr(global_search, "inserted", lambda *how, **more: [])
    without, _ = softmax_global_maximum(family, data, rng_of(0), few)
    assert without.best.log_likelihood <= found.best.log_likelihood + SAME_SUMMIT


def test_thinned_data_lead_to_summits_of_all_the_data():
    data, family = softmax_sample(NAME, 12_000, 20), SoftmaxGatedFamily(1, 2)
    few = replace(OPTIONS, data_starts=2)
    staged, _ = softmax_global_maximum(family, data, rng_of(0), few)
    whole, _ = softmax_global_maximum(family, data, rng_of(0), replace(few, first_stage=12_000))
    assert staged.best.log_likelihood == pytest.approx(whole.best.log_likelihood, abs=2e-6)
    assert_allclose(staged.best.log_likelihood, staged.best.value.log_density(data).sum(), rtol=1e-10)


def test_what_lies_outside_the_compact_set_does_not_count():
    """With a bound just below the steepness of the best fit another one is best; the first is above it."""
    data, family = softmax_sample(NAME, 1_000, 21, 3), SoftmaxGatedFamily(1, 2)
    free, above = softmax_global_maximum(family, data, rng_of(0), OPTIONS)
    assert above == 0
    steep = steepness(free.best.value, data)
    assert steep == pytest.approx(np.ptp(free.best.value.gate_slopes) * data.x.std())
    three = SoftmaxGatedFamily(1, 3)
    wide, _ = softmax_global_maximum(three, data, rng_of(1), OPTIONS)
    bound = 0.99 * steepness(wide.best.value, data)
    narrow, above = softmax_global_maximum(three, data, rng_of(1), replace(OPTIONS, max_slope=bound))
    assert steepness(narrow.best.value, data) <= bound
    assert above > 0
    # Paths without a certificate count among what is above, so that they can be higher still.
    assert narrow.best.log_likelihood + above >= wide.best.log_likelihood - 1e-5


def test_what_it_says_of_itself():
    data = softmax_sample(NAME, 500, 22)
    found, above = softmax_global_maximum(
        SoftmaxGatedFamily(1, 3), data, rng_of(0), SoftmaxGlobalOptions(data_starts=3, held_back=5)
    )
    assert 22 < found.starts <= 3 + 3 + 16 + 8  # small atoms stand apart
    assert found.best.status is FitStatus.CERTIFIED
    assert 1 <= found.reached <= found.starts
    assert set(found.ways) <= {"data", "slice", "split", "insert"}
    assert found.held_back == 5
    assert (found.missed > 0) == (found.missed_nats > 0)
    assert above >= 0


def test_it_depends_on_the_generators_alone():
    data, family = softmax_sample(NAME, 300, 23), SoftmaxGatedFamily(1, 2)
    one, other = (softmax_global_maximum(family, data, rng_of(3))[0] for _ in range(2))
    assert one.best.log_likelihood == other.best.log_likelihood
    assert (one.reached, one.ways, one.missed) == (other.reached, other.ways, other.missed)


def test_two_inputs_are_searched_too():
    rng = np.random.default_rng(5)
    x = rng.uniform(-1, 1, (400, 2))
    y = np.where(rng.uniform(size=400) < 1 / (1 + np.exp(-4 * x[:, 1])), 2 * x[:, 0], -1 - x[:, 1])
    data = Sample(x, y + 0.3 * rng.standard_normal(400))
    found, _ = softmax_global_maximum(SoftmaxGatedFamily(2, 2), data, rng_of(0), replace(OPTIONS, data_starts=2))
    assert found.best.certified
    assert sliced(SoftmaxGatedFamily(2, 3), data, rng).k == 3


def test_a_search_without_a_summit_is_one_clear_line():
    x = np.linspace(0, 1, 8)
    with pytest.raises(
        InputError, match=r"none of .* starts with k = .* ends on a certified summit in the compact set"
    ):
        softmax_global_maximum(SoftmaxGatedFamily(1, 3), Sample(x, x**2), rng_of(0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data_starts": 0}, "data_starts = 0"),
        ({"held_back": -1}, "held_back = -1"),
        ({"max_slope": 0.0}, "max_slope = 0"),
    ],
)
def test_wrong_numbers_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        SoftmaxGlobalOptions(**options)

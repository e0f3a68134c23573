"""Searches from data: stages that keep the design, starts that split, and summits shared with Gaussian gates."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from moe_prompts import FitStatus, InputError, Sample
from moe_prompts.estimators.softmax import search as softmax_search
from moe_prompts.estimators.softmax.likelihood import SoftmaxOptions, softmax_newton
from moe_prompts.estimators.softmax.search import SoftmaxSearchOptions, softmax_best_of, softmax_from_data
from moe_prompts.estimators.softmax.starts import data_start, published_start, split_start
from moe_prompts.models.softmax_gated import SoftmaxGatedFamily
from moe_prompts.models.softmax_truths import softmax_sample, softmax_truth

TRUTH = softmax_truth("sgame").params
SAME = 2e-6  # nats: two certified fits of one maximum, each within 1e-6


def generator(number):
    return np.random.default_rng([4, number])


def test_thinning_keeps_a_sorted_design():
    data = Sample(np.linspace(0, 1, 1001), np.zeros(1001))
    few = data.thinned(100)
    assert few.n <= 100
    assert_allclose(np.diff(few.x.ravel()), 0.011)  # every 11th point
    assert few.x[0, 0] == 0
    assert few.x[-1, 0] > 0.98
    assert_array_equal(data.thinned(1001).x, data.x)
    assert_array_equal(data.thinned(5000).x, data.x)


def test_clusters_see_the_whole_of_a_sorted_design():
    """The first 2000 of 20 000 sorted points hold one expert only; starts must find both."""
    drawn = data_start(softmax_sample("sgame", 20_000, 0), 2, generator(0))
    slopes = np.sort(drawn.slopes.ravel())
    assert slopes[0] < -10
    assert slopes[1] > 10


@pytest.mark.parametrize("n", [1_000, 12_000])
def test_clusters_reach_the_maximum_beside_the_truth(n):
    """Oracle: the climb from the published start."""
    data = softmax_sample("sgame", n, 2)
    found = softmax_from_data(data, 2, 4, generator)
    near = softmax_newton(SoftmaxGatedFamily(1, 2), data, published_start(TRUTH, 2, n, generator(0)))
    assert found.best.certified
    assert found.share == 1
    assert abs(found.best.log_likelihood - near.log_likelihood) < SAME
    assert_allclose(found.best.log_likelihood, found.best.value.log_density(data).sum(), rtol=1e-10)


def test_one_atom_more_never_fits_worse():
    """A split atom contains the fit it was split from."""
    data = softmax_sample("sgame", 1_000, 5)
    two = softmax_from_data(data, 2, 4, generator).best
    three = softmax_from_data(data, 3, 4, generator, smaller=two.value).best
    assert three.certified
    assert three.log_likelihood > two.log_likelihood


def test_split_atoms_are_halves_at_their_pivot():
    """With nothing moved the density is that of the fit; moved, masses are half at the point where gates are equal."""
    data = softmax_sample("sgame", 500, 0)

    class Still:
        """Draws of zero: the last atom, its first point."""

        def integers(self, high):
            return high - 1 if high == 2 else 0

        def standard_normal(self, size=None):
            return 0.0 if size is None else np.zeros(size)

    still = split_start(TRUTH, data, Still())
    assert_allclose(still.log_density(data), TRUTH.log_density(data), atol=1e-12)
    moved = split_start(TRUTH, data, generator(1))
    atom = [i for i in range(2) if not np.array_equal(moved.slopes[i], TRUTH.slopes[i])]
    assert len(atom) == 1
    pair = [atom[0], 2]
    # the two move by opposite amounts, and their logits cross at a point of the data, each log 2 below the old one
    assert_allclose(moved.slopes[pair].mean(axis=0), TRUTH.slopes[atom[0]], atol=1e-12)
    assert_allclose(moved.intercepts[pair].mean(), TRUTH.intercepts[atom[0]], atol=1e-12)
    logits = moved.gate_logits(data.x)[:, pair]
    crossing = np.abs(logits[:, 0] - logits[:, 1]).argmin()
    assert_allclose(logits[crossing], TRUTH.gate_logits(data.x)[crossing, atom[0]] - np.log(2), atol=1e-10)


def test_stages_grow_fourfold_and_end_on_all_the_data():
    options = SoftmaxSearchOptions()
    assert options.stages(9_999) == [9_999]
    assert options.stages(10_000) == [5_000, 10_000]
    assert options.stages(100_000) == [5_000, 20_000, 100_000]


@pytest.mark.parametrize(("failures", "tried"), [(0, 2), (2, 3), (9, 6)])
def test_further_starts_are_tried_until_one_is_certified(monkeypatch, failures, tried):
    """The first climbs are made to collapse: two starts, then up to four rescues, one at a time."""
    climb, calls = softmax_search.softmax_climb, []

    def sometimes(layout, start, options):
        calls.append(start)
        fit = climb(layout, start, options)
        return replace(fit, status=FitStatus.COLLAPSED) if len(calls) <= failures else fit

    monkeypatch.setattr(softmax_search, "softmax_climb", sometimes)
    found = softmax_from_data(softmax_sample("sgame", 500, 0), 2, 2, generator)
    assert found.starts == len(calls) == tried
    assert found.best.certified == (failures < 6)


def test_guards_are_those_of_the_options():
    """An atom must explain as many points as asked, and be as wide."""
    data, start = softmax_sample("sgame", 300, 0), published_start(TRUTH, 2, 300, generator(0))
    family = SoftmaxGatedFamily(1, 2)
    assert softmax_newton(family, data, start).certified
    greedy = softmax_newton(family, data, start, SoftmaxOptions(min_points=150))
    assert greedy.status is FitStatus.COLLAPSED
    assert "points" in greedy.detail
    wide = softmax_newton(family, data, start, SoftmaxOptions(min_noise_sd=0.5))
    assert wide.status is FitStatus.COLLAPSED
    assert "guard of 0.5 sd" in wide.detail


def test_bad_input_is_one_clear_error():
    data = softmax_sample("sgame", 300, 0)
    with pytest.raises(InputError, match="count = 0"):
        softmax_best_of(SoftmaxGatedFamily(1, 2), data, lambda rng: TRUTH, 0, generator)
    with pytest.raises(InputError, match="smaller has 2 atoms"):
        softmax_from_data(data, 4, 2, generator, smaller=TRUTH)
    with pytest.raises(InputError, match="SoftmaxSearchOptions: first_stage = 0"):
        SoftmaxSearchOptions(first_stage=0)
    with pytest.raises(InputError, match="min_points = 0"):
        SoftmaxOptions(min_points=0, min_noise_sd=0.01)
    with pytest.raises(InputError, match=r"min_noise_sd = 1; expected a number in \(0, 1\)"):
        SoftmaxOptions(min_noise_sd=1)

from dataclasses import replace

import numpy as np
import pytest
from cases import FAMILIES, member
from numpy.testing import assert_allclose, assert_array_equal

from moe_prompts import (
    FitStatus,
    GaussianGatedFamily,
    InputError,
    Sample,
    SearchOptions,
    best_of,
    sample,
    starts,
    truth,
)
from moe_prompts.estimators.gaussian import search
from moe_prompts.estimators.gaussian.compression import compress, padua


def generator(number):
    return np.random.default_rng([0, number])


def generators(count):
    return [generator(number) for number in range(count)]


class TestStarts:
    @pytest.mark.parametrize("name", FAMILIES)
    @pytest.mark.parametrize("make", [starts.data, starts.random])
    def test_starts_lie_in_the_family_and_repeat(self, name, make):
        family = FAMILIES[name]
        data = member(family, 0).sample(300, np.random.default_rng(0))
        first, again = (make(1).draw(family, data, np.random.default_rng(5)) for _ in range(2))
        assert_array_equal(first.gate_means, again.gate_means)
        inside = family.project(first)
        assert_allclose(inside.noise_covs, first.noise_covs, rtol=1e-10)
        assert first.k == family.k + family.n_frozen

    def test_near_truth_is_the_published_start(self):
        known = truth("gmoe-1")
        n, k = 10_000, 5
        data = sample("gmoe-1", n, 0)
        draws = [
            starts.near_truth(known.params).draw(GaussianGatedFamily(1, 1, k), data, rng) for rng in generators(300)
        ]
        nearest = [np.abs(draw.gate_means - known.params.gate_means.T).argmin(axis=1) for draw in draws]
        assert all(set(labels) == {0, 1, 2} for labels in nearest)
        for draw, labels in zip(draws, nearest, strict=True):
            split = np.bincount(labels, minlength=3)
            assert_allclose(draw.weights, known.params.weights[labels] / split[labels])
            assert (draw.gate_covs.ravel() >= known.params.gate_covs.ravel()[labels]).all()
        noise = np.concatenate(
            [(d.slopes.ravel() - known.params.slopes.ravel()[l]) for d, l in zip(draws, nearest, strict=True)]
        )
        expected = 0.005 * n**-0.083
        # the standard deviation of N normal numbers is known to 1 / sqrt(2 N); four of those
        assert abs(noise.std() / expected - 1) < 4 / np.sqrt(2 * len(noise))

    def test_near_truth_in_a_smaller_family_is_projected(self):
        known = truth("prompts-adaptive")
        family = known.family_with(3, "constant")
        data = sample("prompts-adaptive", 500, 0)
        drawn = starts.near_truth(known.params, known.k_true).draw(family, data, np.random.default_rng(0))
        assert not drawn.slopes[:3].any()
        assert_allclose(drawn.weights[3:].sum(), 0.4)

    def test_near_truth_needs_enough_atoms(self):
        known = truth("gmoe-1")
        with pytest.raises(InputError, match="k = 2 atoms cannot sit at all 3 true ones"):
            starts.near_truth(known.params).draw(
                GaussianGatedFamily(1, 1, 2), sample("gmoe-1", 50, 0), generators(1)[0]
            )

    def test_count_is_checked(self):
        with pytest.raises(InputError, match="count = 0"):
            starts.data(0)


class TestSearch:
    def test_finds_the_best_summit_and_says_how_many_starts_agree(self):
        known = truth("prompts-adaptive")
        data = sample("prompts-adaptive", 4000, 0)
        found = best_of(known.family, data, starts.data(4), generator)
        assert found.best.certified
        assert found.starts == 4
        assert 0 < found.share <= 1
        assert found.best.log_likelihood > known.params.log_density(*data).sum()

    def test_staged_search_ends_certified_on_all_the_data(self):
        data = sample("prompts-fixed", 20_000, 0)
        known = truth("prompts-fixed")
        found = best_of(known.family, data, starts.data(3), generator, SearchOptions(first_stage=2000))
        assert found.best.certified
        assert_allclose(found.best.log_likelihood, found.best.value.log_density(*data).sum(), rtol=1e-10)

    @pytest.mark.parametrize(("failures", "tried"), [(0, 2), (2, 3), (4, 5), (9, 6)])
    def test_further_starts_are_tried_until_one_is_certified(self, monkeypatch, failures, tried):
        """The first climbs are made to collapse: two starts, then up to four rescues, one at a time."""
        calls = []

        def climb(passes, start, options):
            calls.append(start)
            fit = search_climb(passes, start, options)
            return replace(fit, status=FitStatus.COLLAPSED) if len(calls) <= failures else fit

        search_climb = search.climb
        monkeypatch.setattr(search, "climb", climb)
        known = truth("prompts-fixed")
        found = best_of(known.family, sample("prompts-fixed", 1000, 0), starts.data(2), generator)
        assert found.starts == len(calls) == tried
        assert found.best.certified == (failures < 6)

    def test_options_are_checked(self):
        with pytest.raises(InputError, match="first_stage = 0"):
            SearchOptions(first_stage=0)


class TestCompression:
    def test_polynomials_are_summed_exactly(self):
        data = sample("prompts-adaptive", 60_000, 0)
        nodes, weights = compress(data)
        assert nodes.n < data.n / 2
        for i in range(8):
            for j in range(8):
                exact = (data.x**i * data.y**j).sum()
                size = np.abs(data.x**i * data.y**j).sum()
                # up to degree 9 rounding of the weights, in cells of width .2 sd; beyond it the cells are so small
                # that interpolation errs by less still: relative 1e-10 of the summed magnitudes
                assert abs(weights @ (nodes.x**i * nodes.y**j).ravel() - exact) < 1e-10 * size

    @pytest.mark.parametrize("degree", [1, 5, 9])
    def test_polynomials_are_their_values_at_the_padua_points(self, degree):
        at = padua(degree)
        assert len(at) == (degree + 1) * (degree + 2) // 2
        assert np.abs(at).max() <= 1
        powers = [at[:, 0] ** i * at[:, 1] ** j for i in range(degree + 1) for j in range(degree + 1 - i)]
        assert np.linalg.matrix_rank(np.array(powers)) == len(at)

    def test_log_likelihood_is_reproduced_far_below_one_nat(self):
        known = truth("prompts-adaptive")
        data = sample("prompts-adaptive", 200_000, 0)
        nodes, weights = compress(data)
        exact = known.params.log_density(*data).sum()
        assert abs(weights @ known.params.log_density(*nodes) - exact) < 0.1  # of about 4e5 nats

    def test_scattered_points_keep_themselves(self):
        data = sample("gmoe-1", 500, 0)
        nodes, weights = compress(data)
        assert sorted(nodes.x.ravel()) == sorted(data.x.ravel())
        assert (weights == 1).all()

    def test_only_in_the_plane(self):
        with pytest.raises(InputError, match="expected d = l = 1"):
            compress(Sample(np.zeros((5, 2)), np.zeros((5, 1))))

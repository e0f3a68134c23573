"""Samples in chunks: the very pairs of the sample in memory, however they are cut, and one clear error for misuse."""

import math
from itertools import chain

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from moe_prompts import InputError, Sample, StreamedSample, sample, softmax_newton, softmax_truth, streamed, truth
from moe_prompts.estimators.softmax.search import softmax_best_of
from moe_prompts.models.data import CHUNK


def joined(source):
    pairs = list(source.chunks())
    return np.concatenate([p.x for p in pairs]), np.concatenate([p.y for p in pairs])


@pytest.mark.parametrize("name", ["prompts-adaptive", "gmoe-2"])
@pytest.mark.parametrize("chunk", [7, 100, 999, 1000, 5000])
def test_chunks_are_the_sample_bit_for_bit(name, chunk):
    """Sizes that divide n = 1000, leave a short last chunk, or hold all of it."""
    x, y = sample(name, 1000, seed=3, replicate=2)
    source = streamed(name, 1000, seed=3, replicate=2, chunk=chunk)
    sizes = [pairs.n for pairs in source.chunks()]
    assert sizes == [chunk] * (1000 // chunk) + [1000 % chunk] * (1000 % chunk > 0)
    for got, expected in zip(joined(source), (x, y), strict=True):
        assert_array_equal(got, expected)


def test_a_sample_of_more_than_one_chunk_of_the_default_length():
    """Where the normals of y begin is found over several chunks too."""
    n = 2 * CHUNK + 11
    for got, expected in zip(joined(streamed("gmoe-1", n, seed=0)), sample("gmoe-1", n, seed=0), strict=True):
        assert_array_equal(got, expected)


def test_more_columns_are_the_same_to_rounding():
    """Products of 2 x 2 matrices may be summed otherwise in a chunk: a few ulp."""
    for got, expected in zip(joined(streamed("gmoe-3", 1000, 0, chunk=33)), sample("gmoe-3", 1000, 0), strict=True):
        assert_allclose(got, expected, rtol=1e-14, atol=1e-14)


def test_every_pass_draws_the_same_and_passes_may_overlap():
    source = streamed("gmoe-1", 500, 0, chunk=60)
    one, two = source.chunks(), source.chunks()
    first = next(one)
    assert_array_equal(np.concatenate([p.x for p in two]), np.concatenate([p.x for p in chain([first], one)]))


def test_the_generator_stays_where_it_is():
    rng = np.random.default_rng(8)
    source = truth("gmoe-1").params.streamed(300, rng, chunk=100)
    source.held()
    assert_array_equal(truth("gmoe-1").params.sample(300, rng).x, source.held().x)
    rng.random(1)  # nor does the source follow it
    assert_array_equal(truth("gmoe-1").params.sample(300, np.random.default_rng(8)).x, source.held().x)


def test_head_and_held():
    source, data = streamed("gmoe-1", 1000, 0, chunk=64), sample("gmoe-1", 1000, 0)
    assert_array_equal(source.head(70).y, data.y[:70])
    assert source.head(2000).n == 1000
    assert_array_equal(source.held().x, data.x)
    (only,) = data.chunks()
    assert only is data
    assert (source.n, source.d, source.l) == (data.n, data.d, data.l)


def test_spread_keeps_digits_far_from_zero():
    """Mean 1e6, sd 1: squares about zero would lose twelve digits. Oracle: exact sums, in two passes."""
    rng = np.random.default_rng(0)
    data = Sample(1e6 + rng.standard_normal((1003, 2)), rng.standard_normal((1003, 1)))
    spread = cut(data, 100).spread
    for column, values in enumerate(np.concatenate([data.x.T, data.y.T])):
        mean = math.fsum(values) / 1003
        assert_allclose(spread.mean[column], mean, rtol=1e-14, atol=1e-14)
        # each value stands 1e6 from zero: its distance to the mean is known to eps * 1e6
        sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / 1003)
        assert_allclose(spread.sd[column], sd, rtol=1e-9 if column < 2 else 1e-14)
        assert (spread.low[column], spread.high[column]) == (values.min(), values.max())


def cut(data, length, **changes):
    """A source of one's own: any function that yields the pairs again."""
    draw = lambda size: (Sample(data.x[a : a + size], data.y[a : a + size]) for a in range(0, data.n, size))
    return StreamedSample(**{"draw": draw, "n": data.n, "d": data.d, "l": data.l, "chunk": length, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chunk": 0}, "chunk = 0; expected a whole number of at least 1"),
        ({"chunk": 2.5}, r"chunk = 2\.5"),
        ({"chunk": True}, "chunk = True"),
        ({"n": 0}, "n = 0; expected a"),
    ],
)
def test_sizes_are_checked(changes, message):
    with pytest.raises(InputError, match=message):
        cut(sample("gmoe-1", 20, 0), 5, **changes)
    with pytest.raises(InputError, match=message):
        streamed("gmoe-1", **{"n": 20, "seed": 0, "chunk": 5, **changes})


@pytest.mark.parametrize("n", [19, 21])
def test_a_source_that_draws_another_number_of_pairs_is_refused(n):
    with pytest.raises(InputError, match=f"drew 20 pairs; expected n = {n}"):
        list(cut(sample("gmoe-1", 20, 0), 6, n=n).chunks())


def test_a_source_of_other_columns_is_refused():
    with pytest.raises(InputError, match="drew d = 1 inputs and l = 1 outputs; expected 2 and 1"):
        list(cut(sample("gmoe-1", 20, 0), 6, d=2).chunks())


def test_what_needs_all_pairs_says_so():
    known = softmax_truth("sgame-uniform")
    with pytest.raises(InputError, match=r"x of n = 500 pairs is never held whole.*lower n, or use held\(\)"):
        softmax_newton(known.family(2), streamed("gmoe-1", 500, 0), known.params)
    with pytest.raises(InputError, match="x of n = 500 pairs"):
        known.params.log_density(streamed("gmoe-1", 500, 0))
    with pytest.raises(InputError, match="x of n = 500 pairs"):
        softmax_best_of(known.family(2), streamed("gmoe-1", 500, 0), lambda rng: known.params, 2, np.random.default_rng)
    with pytest.raises(InputError, match="y of n = 500 pairs"):
        _ = streamed("gmoe-1", 500, 0).y

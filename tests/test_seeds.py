"""Addressed randomness: the stream of an address is that of the formula, and every part of the address counts."""

import numpy as np
import pytest

from moe_prompts.errors import InputError
from moe_prompts.seeds import address, rng_at


def test_the_stream_of_an_address():
    by_hand = np.random.default_rng(np.random.SeedSequence(7, spawn_key=(address("images"), 3, address("test"))))
    np.testing.assert_array_equal(rng_at(7, "images", 3, "test").random(5), by_hand.random(5))


def test_every_part_counts():
    addresses = ((7, "images", 3), (8, "images", 3), (7, "labels", 3), (7, "images", 4), (7, 3, "images"))
    first = {rng_at(*one).integers(2**63) for one in addresses}
    assert len(first) == len(addresses)


def test_a_negative_entropy_is_refused():
    with pytest.raises(InputError, match="seed"):
        rng_at(-1, "images")

"""Address randomness: a generator is a function of what it is for, never of who runs it or when.

    rng = default_rng(SeedSequence(entropy, spawn_key=(sha256 of each name, n, replicate, ..)))

Data come from ``(truth, n, replicate)`` alone, so all kinds and k see the same data and comparisons are
paired. Starts come from ``(truth, n, replicate, kind, k, start)``. Refining a grid or adding replicates
changes no existing row.
"""

from __future__ import annotations

from hashlib import sha256

import numpy as np

from moe_prompts.checks import whole

DATA, START, BOOTSTRAP = range(3)


def address(name: str) -> int:
    """Return the first 4 bytes of sha256 of the name as an integer."""
    return int.from_bytes(sha256(name.encode()).digest()[:4], "big")


def _rng(entropy: int, *key: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(whole(entropy, 0, "seed", np.inf), spawn_key=key))


def rng_at(entropy: int, *parts: str | int) -> np.random.Generator:
    """Return the generator at an address: names by their ``address``, numbers as they are.

    Raises ``InputError`` for an entropy that is no whole number of at least 0.
    """
    return _rng(entropy, *(address(part) if isinstance(part, str) else part for part in parts))


def data_rng(entropy: int, truth: str, n: int, replicate: int) -> np.random.Generator:
    """Return the generator that draws the data of one replicate."""
    return _rng(entropy, address(truth), n, replicate, DATA)


def start_rng(entropy: int, truth: str, n: int, replicate: int, kind: str, k: int, start: int) -> np.random.Generator:
    """Return the generator that draws one start of one fit."""
    return _rng(entropy, address(truth), n, replicate, address(kind), k, start, START)


def bootstrap_rng(entropy: int, *names: str | int) -> np.random.Generator:
    """Return a generator for intervals; ``names`` say which line of which table."""
    return _rng(entropy, *(address(str(name)) for name in names), BOOTSTRAP)

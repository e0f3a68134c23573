"""Index the monomials of z = (y, x) up to degree 4."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import combinations_with_replacement

import numpy as np


@dataclass(frozen=True)
class Monomials:
    """Index the products of the entries of h = (1, z_1 .. z_D), for the passes and the chart.

    D        number of coordinates of z, d + l
    pairs    the P pairs (i, j), i <= j, of degree <= 2: phi = h_i h_j; the first D + 1 are h itself
    pair_of  (D + 1, D + 1) -> position in ``pairs``
    quads    for each monomial of degree <= 4, positions (p, q) with m = phi_p phi_q; q = 0 in the first P
             (phi_0 = 1)
    quad_of  (P, P) -> position in ``quads``
    """

    D: int
    pairs: np.ndarray
    pair_of: np.ndarray
    quads: np.ndarray
    quad_of: np.ndarray

    @staticmethod
    @cache
    def of(D: int) -> Monomials:
        """Return the tables for D coordinates, made once."""
        pairs = list(combinations_with_replacement(range(D + 1), 2))
        pair_of = np.zeros((D + 1, D + 1), dtype=int)
        for p, (i, j) in enumerate(pairs):
            pair_of[i, j] = pair_of[j, i] = p
        key = lambda p, q: tuple(sorted((*pairs[p], *pairs[q])))
        position: dict[tuple[int, ...], int] = {}
        quads: list[tuple[int, int]] = []
        quad_of = np.zeros((len(pairs), len(pairs)), dtype=int)
        for q in range(len(pairs)):  # q = 0 first, so that the first P monomials are phi itself
            for p in range(len(pairs)):
                if key(p, q) not in position:
                    position[key(p, q)] = len(quads)
                    quads.append((p, q))
                quad_of[p, q] = position[key(p, q)]
        return Monomials(D, np.array(pairs), pair_of, np.array(quads), quad_of)

    @property
    def P(self) -> int:
        """Return the number of monomials of degree <= 2."""
        return len(self.pairs)

    def values(self, z: np.ndarray) -> np.ndarray:
        """Return phi (P, n) at points z (D, n)."""
        h = np.concatenate([np.ones((1, z.shape[1])), z])
        return h[self.pairs[:, 0]] * h[self.pairs[:, 1]]

    def second_moments(self, statistics: np.ndarray) -> np.ndarray:
        """Return the sums of r (1, z)(1, z)' as matrices: (..., P) -> (..., D + 1, D + 1)."""
        return statistics[..., self.pair_of]

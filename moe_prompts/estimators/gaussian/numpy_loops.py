"""Pass over the data in NumPy: compiled loops are compared with this, and it runs where numba does not.

Blocks are laid out as (monomials, points), small enough to stay in cache. Frozen atoms enter each point
through one number, their summed log density, computed once.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from moe_prompts.estimators.gaussian.monomials import Monomials

BLOCK_BYTES = 3 << 18  # of scratch per pass: stays in a common L2 cache
#: Sums of exponentials in this range keep full precision without a shift by the largest exponent.
SAFE_TOTALS = (1e-100, 1e260)
#: exp of less than this counts as exp of this (1e-130 beside a total above 1e-100): products of two such
#: numbers stay clear of denormals, which would slow a pass down by half.
LOWEST_LOG = -300.0


class Loops(Protocol):
    """Sum over points at atoms ``W`` (k, P) and the log mass of the frozen atoms."""

    def e1(self, W: np.ndarray, log_frozen_mass: float) -> tuple[float, np.ndarray]:
        """Return the log-likelihood (in standardised units) and S (k, P) at atoms ``W`` (k, P)."""

    def e2(self, W: np.ndarray, log_frozen_mass: float) -> tuple[float, np.ndarray, np.ndarray]:
        """Return what ``e1`` does and Q (k, k, P, P), the sums of (delta_kj r_k - r_k r_j) phi phi'."""


def log_sum(logs: np.ndarray) -> np.ndarray:
    """Return log sum_k exp(logs) of each column."""
    top = logs.max(axis=0)
    return top + np.log(np.exp(logs - top).sum(axis=0))


class NumpyLoops:
    """Hold blocks of monomials of points z (D, n), with weights (n,) and coefficients of frozen atoms."""

    def __init__(
        self, z: np.ndarray, weights: np.ndarray | None, W_frozen: np.ndarray | None, monomials: Monomials, k: int
    ) -> None:
        self.monomials, self.k, self.weights = monomials, k, weights
        self.blocks: list[np.ndarray] = []
        self.block_weights: list[np.ndarray] = []
        self.frozen_logs: list[np.ndarray] = []
        size = self._block_size()
        for first in range(0, z.shape[1], size):
            self.blocks.append(monomials.values(z[:, first : first + size]))
            if weights is not None:
                self.block_weights.append(weights[first : first + size])
            if W_frozen is not None:
                self.frozen_logs.append(log_sum(W_frozen @ self.blocks[-1]))

    def _block_size(self) -> int:
        k = self.k
        rows = k + self.monomials.P + len(self.monomials.quads) + k * (k + 1) // 2
        size = int(np.clip(BLOCK_BYTES // (8 * rows), 256, 4096))
        return size - 8 if size % 512 == 0 else size  # rows a whole page apart would share cache lines

    def _responsibilities(
        self, index: int, W: np.ndarray, log_frozen_mass: float, r: np.ndarray, total: np.ndarray
    ) -> float:
        """Return one block's share of the log-likelihood, and fill r (k, B) with its responsibilities.

        ``total`` (B,) is scratch.
        """
        phi = self.blocks[index]
        frozen = self.frozen_logs[index] + log_frozen_mass if self.frozen_logs else None
        np.exp(np.maximum(np.matmul(W, phi, out=r), LOWEST_LOG, out=r), out=r)
        np.sum(r, axis=0, out=total)
        if frozen is not None:
            total += np.exp(frozen)
        top = None
        # Exponentials are summed without a shift first, which saves the search for the largest. Only where
        # that leaves the safe range, for points far from all atoms, the block is done again with the shift.
        if total.min() < SAFE_TOTALS[0] or not total.sum() < SAFE_TOTALS[1]:
            np.matmul(W, phi, out=r)
            top = r.max(axis=0) if frozen is None else np.maximum(r.max(axis=0), frozen)
            np.exp(np.maximum(np.subtract(r, top, out=r), LOWEST_LOG, out=r), out=r)
            np.sum(r, axis=0, out=total)
            if frozen is not None:
                total += np.exp(frozen - top)
        log_total = np.log(total)
        if top is not None:
            log_total += top
        r *= np.reciprocal(total, out=total)
        return float(log_total.sum() if self.weights is None else log_total @ self.block_weights[index])

    def _scratch(self, rows: int) -> np.ndarray:
        return np.empty((rows, self.blocks[0].shape[1]))

    def e1(self, W: np.ndarray, log_frozen_mass: float) -> tuple[float, np.ndarray]:
        """Return the log-likelihood (in standardised units) and S (k, P) at atoms ``W`` (k, P)."""
        log_likelihood, S, scratch = 0.0, np.zeros(W.shape), self._scratch(len(W) + 1)
        with np.errstate(over="ignore"):  # an overflow is seen in the total and shifted away
            for index, phi in enumerate(self.blocks):
                r, total = scratch[:-1, : phi.shape[1]], scratch[-1, : phi.shape[1]]
                log_likelihood += self._responsibilities(index, W, log_frozen_mass, r, total)
                if self.weights is not None:
                    r *= self.block_weights[index]
                S += r @ phi.T
        return log_likelihood, S

    def e2(self, W: np.ndarray, log_frozen_mass: float) -> tuple[float, np.ndarray, np.ndarray]:
        """Return what ``e1`` does and Q (k, k, P, P), the sums of (delta_kj r_k - r_k r_j) phi phi'."""
        k, P = W.shape
        first, second = np.triu_indices(k)
        quads = [(int(p), int(q)) for p, q in self.monomials.quads]
        log_likelihood, S, packed = 0.0, np.zeros(W.shape), np.zeros((len(first), len(quads)))
        scratch, products_, powers_ = (
            self._scratch(k + 1),
            self._scratch(len(first)),
            self._scratch(len(quads)),
        )
        with np.errstate(over="ignore"):
            for index, phi in enumerate(self.blocks):
                b = phi.shape[1]
                r, total, products, powers = (
                    scratch[:-1, :b],
                    scratch[-1, :b],
                    products_[:, :b],
                    powers_[:, :b],
                )
                log_likelihood += self._responsibilities(index, W, log_frozen_mass, r, total)
                weighted = r if self.weights is None else r * self.block_weights[index]
                S += weighted @ phi.T
                # Q is symmetric in (k, j), so only pairs j >= k are summed. Below, r_k r_j is made for all of
                # them and r_k is added to the diagonal by taking the product away from it; the sign of the
                # others is turned at the end.
                row = 0
                for atom in range(k):
                    np.multiply(weighted[atom], r[atom:], out=products[row : row + k - atom])
                    np.subtract(weighted[atom], products[row], out=products[row])
                    row += k - atom
                powers[:P] = phi
                for m, (p, q) in enumerate(quads[P:], start=P):
                    np.multiply(phi[p], phi[q], out=powers[m])
                packed += products @ powers.T
        packed[first != second] *= -1
        Q = np.empty((k, k, P, P))
        Q[first, second] = Q[second, first] = packed[:, self.monomials.quad_of]
        return log_likelihood, S, Q

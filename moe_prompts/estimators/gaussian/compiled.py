"""Pass over the data through compiled loops: lay out what they need, and their sums as the fits want them.

The loops give sums of r_k r_j m for pairs of different atoms only, the frozen ones counting as one; what is
missing follows from r_k - r_k^2 = sum over the others of r_k r_j.
"""

from __future__ import annotations

from functools import cached_property
from importlib import import_module
from types import ModuleType

import numpy as np

from moe_prompts.estimators.gaussian.monomials import Monomials
from moe_prompts.estimators.gaussian.numpy_loops import NumpyLoops

STEPS = "moe_prompts.estimators.gaussian.step_kernels"
KERNELS = "moe_prompts.estimators.kernels"
#: Beyond this coefficients or points may add up to NaN, which the loops do not look for; NumPy does.
LARGEST = 1e100
NONE = np.empty(0)


class CompiledLoops:
    """Hold points z (D, n), their weights (n,), and the density of frozen atoms at each of them.

    Results do not depend on what ``NumpyLoops`` does, which steps in only where coefficients are no usable
    numbers.
    """

    def __init__(
        self,
        loops: ModuleType,
        z: np.ndarray,
        weights: np.ndarray | None,
        W_frozen: np.ndarray | None,
        monomials: Monomials,
        k: int,
    ) -> None:
        self.spread = import_module(STEPS).spread
        self.pass_, self.monomials, self.k, self.z = loops.gaussian_pass, monomials, k, z
        self.given = weights, W_frozen  # for the passes in NumPy, should coefficients be no usable numbers
        self.weights = NONE if weights is None else np.ascontiguousarray(weights)
        self.quads = np.ascontiguousarray(monomials.quads, dtype=np.int64)
        self.quad_of = np.ascontiguousarray(monomials.quad_of, dtype=np.int64)
        self.frozen_logs = self.frozen = NONE
        if W_frozen is not None:
            self.frozen_logs, self.frozen = np.empty((2, z.shape[1]))
            loops.summed_densities(z, _padded(W_frozen), self.frozen_logs, self.frozen)
        self.largest_point = float(max(z.max(), -z.min()))

    def e1(self, W: np.ndarray, log_frozen_mass: float) -> tuple[float, np.ndarray]:
        """Return the log-likelihood (in standardised units) and S (k, P) at atoms ``W`` (k, P)."""
        if not self._usable(W):
            return self._plain.e1(W, log_frozen_mass)
        value, S, _ = self._sums(W, log_frozen_mass, 0)
        return value, S

    def e2(self, W: np.ndarray, log_frozen_mass: float) -> tuple[float, np.ndarray, np.ndarray]:
        """Return what ``e1`` does and Q (k, k, P, P), the sums of (delta_kj r_k - r_k r_j) phi phi'."""
        if not self._usable(W):
            return self._plain.e2(W, log_frozen_mass)
        k = len(W)
        rows = k + (len(self.frozen) > 0)
        value, S, packed = self._sums(W, log_frozen_mass, rows * (rows - 1) // 2)
        P = S.shape[1]
        Q = np.zeros((k, k, P, P))
        self.spread(packed, k, self.quad_of, Q)
        return value, S, Q

    def _usable(self, W: np.ndarray) -> bool:
        return bool(np.abs(W).max() < LARGEST) and self.largest_point < LARGEST

    @cached_property
    def _plain(self) -> NumpyLoops:
        return NumpyLoops(self.z, *self.given, self.monomials, self.k)

    def _sums(self, W: np.ndarray, log_frozen_mass: float, pairs: int) -> tuple[float, np.ndarray, np.ndarray]:
        """Return L, S and the sums of ``pairs`` products with every monomial."""
        P, M, padded = W.shape[1], len(self.quads), _padded(W)
        S, packed = np.zeros(padded.shape), np.zeros((pairs + pairs % 2, _in_fives(M)))
        value = self.pass_(
            self.z, self.frozen_logs, self.frozen, self.weights, padded, log_frozen_mass, self.quads, S, packed
        )
        return value, S[:, :P].copy(), np.ascontiguousarray(packed[:pairs, :M])


def _padded(W: np.ndarray) -> np.ndarray:
    """Return W (k, P) with columns of zeros after its own, whose number is 1 + a multiple of 5."""
    k, P = W.shape
    padded = np.zeros((k, 1 + _in_fives(P - 1)))
    padded[:, :P] = W
    return padded


def _in_fives(count: int) -> int:
    """Return the least multiple of 5 that is at least ``count``."""
    return -(-count // 5) * 5

"""Pass over data that are never held whole: sums over pairs are sums over chunks of the same sums.

    L = sum_c L_c,   S = sum_c S_c,   Q = sum_c Q_c,   each chunk drawn, laid out, summed and forgotten.

A certificate asks for 1e-6 nats of a log-likelihood near n. Chunks are therefore added with the rounding
error of each addition kept beside the sum (Neumaier), so that the error of a total is that of one chunk,
whatever their number.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from moe_prompts.errors import InputError
from moe_prompts.estimators.gaussian.moments import MIN_EIGENVALUE, DataPasses, PassCounts, Scale
from moe_prompts.estimators.gaussian.monomials import Monomials
from moe_prompts.models.data import Data, StreamedSample
from moe_prompts.models.gaussian_gated import GaussianGatedFamily


def compensated_sum(terms: Iterable[np.ndarray]) -> np.ndarray:
    """Return the sum of arrays of one shape, entry by entry, with its rounding errors added back.

    The error is at most eps |sum| + (number of terms)^2 eps^2 sum |terms|.

    Raises ``InputError`` where there are none.

    Source: Neumaier, ZAMM 54 (1974); Ogita, Rump and Oishi, SIAM J. Sci. Comput. 26 (2005), Cor. 4.7.
    """
    total = lost = None
    for term in terms:
        if total is None:
            total, lost = np.array(term, dtype=float), np.zeros(np.shape(term))
            continue
        joined = total + term
        small = np.where(np.abs(total) >= np.abs(term), term, total)
        large = np.where(np.abs(total) >= np.abs(term), total, term)
        lost += (large - joined) + small
        total = joined
    if total is None:
        raise InputError("compensated_sum: no terms; expected at least one array")
    return total + lost


@dataclass
class StreamedPasses:
    """Pass over a sample in chunks, as ``DataPasses`` does over one in memory, without weights.

    A pass draws all chunks once.

    family          what the model may be
    sample          the chunks
    min_eigenvalue  guard on the smallest eigenvalue of an atom's joint covariance, in standardised units
    counts          passes so far
    """

    family: GaussianGatedFamily
    sample: StreamedSample
    min_eigenvalue: float = MIN_EIGENVALUE
    counts: PassCounts = field(default_factory=PassCounts)

    def __post_init__(self) -> None:
        self.family.check_sample(self.sample)
        self.total = float(self.sample.n)
        self.scale = Scale.of(self.sample, None)
        self.monomials = Monomials.of(self.family.d + self.family.l)
        self.frozen = None if self.family.frozen is None else self.scale.inward(self.family.frozen)

    def e1(self, W: np.ndarray, log_frozen_mass: float = -np.inf) -> tuple[float, np.ndarray]:
        """Return the log-likelihood (in standardised units) and S (k, P) at atoms ``W`` (k, P)."""
        self.counts.e1 += 1
        sums = compensated_sum(_flat(passes.e1(W, log_frozen_mass)) for passes in self._chunks())
        return float(sums[0]), sums[1:].reshape(W.shape)

    def e2(self, W: np.ndarray, log_frozen_mass: float = -np.inf) -> tuple[float, np.ndarray, np.ndarray]:
        """Return what ``e1`` does and Q (k, k, P, P), the sums of (delta_kj r_k - r_k r_j) phi phi'."""
        self.counts.e2 += 1
        k, P = W.shape
        sums = compensated_sum(_flat(passes.e2(W, log_frozen_mass)) for passes in self._chunks())
        return float(sums[0]), sums[1 : 1 + k * P].reshape(k, P), sums[1 + k * P :].reshape(k, k, P, P)

    def _chunks(self) -> Iterable[DataPasses]:
        return (DataPasses(self.family, pairs, scale_of_all=self.scale) for pairs in self.sample.chunks())


#: Either gives ``e1`` and ``e2``, and the units in which they are.
Passes = DataPasses | StreamedPasses


def passes_of(
    family: GaussianGatedFamily,
    sample: Data,
    weights: np.ndarray | None = None,
    min_eigenvalue: float = MIN_EIGENVALUE,
) -> Passes:
    """Return the passes over data held in memory or in chunks.

    Raises ``InputError`` where chunks are given ``weights``.
    """
    if not isinstance(sample, StreamedSample):
        return DataPasses(family, sample, weights, min_eigenvalue)
    if weights is not None:
        raise InputError(
            f"weights for a StreamedSample of n = {sample.n}: its pairs count once each; leave weights out, or use "
            "held() where memory allows"
        )
    return StreamedPasses(family, sample, min_eigenvalue)


def _flat(sums: tuple[float | np.ndarray, ...]) -> np.ndarray:
    return np.concatenate([np.ravel(part) for part in sums])

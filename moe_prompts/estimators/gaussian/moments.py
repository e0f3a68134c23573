"""Pass over the data: likelihood, statistics and curvature are sums of monomials of z = (y, x).

The log density of an atom is a quadratic in z, so with phi(z) the monomials of degree <= 2 every pass is a
product of small matrices with blocks of phi:

    log pi_k N(z; mu_k, Sigma_k) = w_k . phi(z),     r_k = softmax_k(w_k . phi),
    E1: L = sum log sum_k exp(w_k . phi),  S_k = sum r_k phi            one EM step
    E2: E1 and  Q_kj = sum (delta_kj r_k - r_k r_j) m(z),  m the monomials of degree <= 4.

Blocks are laid out as (monomials, points), small enough to stay in cache. Frozen atoms enter each point
through one number, their summed log density, computed once.
"""

from __future__ import annotations

from dataclasses import InitVar, dataclass, field
from functools import cache
from itertools import combinations_with_replacement

import numpy as np

from moe_prompts.checks import numbers, resolved
from moe_prompts.errors import InputError
from moe_prompts.models.data import Data, Sample, StreamedSample
from moe_prompts.models.gaussian_gated import LOG_2PI, GaussianGatedFamily, GaussianGatedMoE

#: Guards in standardised units: an atom must explain at least this many points, and its joint covariance must
#: have at least this smallest eigenvalue. Beyond them the likelihood is unbounded and a "maximum" means
#: nothing.
MIN_POINTS, MIN_EIGENVALUE = 5.0, 1e-7
BLOCK_BYTES = 3 << 18  # of scratch per pass: stays in a common L2 cache


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

    def second_moments(self, statistics: np.ndarray) -> np.ndarray:
        """Return the sums of r (1, z)(1, z)' as matrices: (..., P) -> (..., D + 1, D + 1)."""
        return statistics[..., self.pair_of]


@dataclass
class PassCounts:
    """Count passes over the whole data: ``e1`` gives one EM step, ``e2`` also the curvature."""

    e1: int = 0
    e2: int = 0


def _mean_sd_size(sample: Data, name: str, weights: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean and standard deviation of the columns of "x" or "y"."""
    if isinstance(sample, StreamedSample):
        columns = slice(sample.d) if name == "x" else slice(sample.d, None)
        spread = sample.spread
        size = np.maximum(np.abs(spread.low), np.abs(spread.high))
        return spread.mean[columns], spread.sd[columns], size[columns]
    value = getattr(sample, name)
    mean = np.average(value, axis=0, weights=weights)
    sd = np.sqrt(np.average((value - mean) ** 2, axis=0, weights=weights))
    return mean, sd, np.maximum(np.abs(value.min(axis=0)), np.abs(value.max(axis=0)))


@dataclass(frozen=True)
class Scale:
    """Bring each coordinate to mean 0 and standard deviation 1.

    Parameters follow with ``inward`` and ``outward``.

    shift_x, scale_x  (d,)  means and standard deviations of the inputs
    shift_y, scale_y  (l,)  those of the outputs
    """

    shift_x: np.ndarray
    scale_x: np.ndarray
    shift_y: np.ndarray
    scale_y: np.ndarray

    @classmethod
    def of(cls, sample: Data, weights: np.ndarray | None) -> Scale:
        """Return the scale of a sample, whose points count ``weights`` (n,) times.

        Raises ``InputError`` where a column is constant: a joint density needs every column to vary.
        """
        moments = []
        for name in ("x", "y"):
            mean, sd, size = _mean_sd_size(sample, name, weights)
            resolved(mean, sd, size, [f"column {column} of {name}" for column in range(len(sd))])
            moments += [mean, sd]
        return cls(*moments)

    def inward(self, params: GaussianGatedMoE) -> GaussianGatedMoE:
        """Return parameters given in the units of the data in standardised units."""
        return params.rescaled(self.shift_x, self.scale_x, self.shift_y, self.scale_y)

    def outward(self, params: GaussianGatedMoE) -> GaussianGatedMoE:
        """Return parameters given in standardised units in the units of the data."""
        return params.rescaled(
            -self.shift_x / self.scale_x, 1 / self.scale_x, -self.shift_y / self.scale_y, 1 / self.scale_y
        )

    @property
    def log_volume(self) -> float:
        """Return the log density in standardised units less that in original units."""
        return float(np.log(self.scale_x).sum() + np.log(self.scale_y).sum())


#: Sums of exponentials in this range keep full precision without a shift by the largest exponent.
SAFE_TOTALS = (1e-100, 1e260)
#: exp of less than this counts as exp of this (1e-130 beside a total above 1e-100): products of two such
#: numbers stay clear of denormals, which would slow a pass down by half.
LOWEST_LOG = -300.0


def check_multiplicities(weights: np.ndarray | None) -> None:
    """Refuse negative weights from users; those of an interpolation rule may be negative."""
    if weights is not None and (smallest := numbers(weights, "weights").min(initial=0.0)) < 0:
        raise InputError(f"weights: smallest {smallest:.3g}; expected numbers of times that each point counts")


def quadratic_coefficients(params: GaussianGatedMoE, monomials: Monomials) -> np.ndarray:
    """Return W (k, P) with w_k . phi(z) = log pi_k N(z; mu_k, Sigma_k) at z = (y, x)."""
    weights, means, covs = params.to_joint()
    order = np.roll(np.arange(monomials.D), params.l)  # (x, y) -> (y, x)
    means, precision = means[:, order], np.linalg.inv(covs[:, order][:, :, order])
    linear = np.einsum("kij,kj->ki", precision, means)
    W = np.empty((params.k, monomials.P))
    W[:, 0] = np.log(weights) - 0.5 * (
        (linear * means).sum(axis=1) - np.linalg.slogdet(precision)[1] + monomials.D * LOG_2PI
    )
    W[:, monomials.pair_of[0, 1:]] = linear
    for i in range(monomials.D):
        for j in range(i, monomials.D):
            W[:, monomials.pair_of[i + 1, j + 1]] = -precision[:, i, j] * (0.5 if i == j else 1.0)
    return W


def _log_sum(logs: np.ndarray) -> np.ndarray:
    top = logs.max(axis=0)
    return top + np.log(np.exp(logs - top).sum(axis=0))


@dataclass
class DataPasses:
    """Standardise the data of one fit and lay them out in blocks; every method is one pass.

    family          what the model may be
    sample          pairs x (n, d), y (n, l)
    weights         (n,), how many times each point counts; a quadrature of the truth in place of a sample
                    gives the population fit
    min_eigenvalue  guard on the smallest eigenvalue of an atom's joint covariance, in standardised units
    counts          passes so far
    scale           units in which the passes are
    whole           scale of all the data where ``sample`` is a chunk of them; those have been checked

    Raises ``InputError`` where sample or weights do not fit, or where a column is constant.
    """

    family: GaussianGatedFamily
    sample: Sample
    weights: np.ndarray | None = None
    min_eigenvalue: float = MIN_EIGENVALUE
    counts: PassCounts = field(default_factory=PassCounts)
    scale: Scale = field(init=False)
    whole: InitVar[Scale | None] = None

    def __post_init__(self, whole: Scale | None) -> None:
        if whole is None:
            self.family.check_sample(self.sample)
        if self.weights is not None:
            self.weights = numbers(self.weights, "weights")
        if self.weights is not None and (
            self.weights.shape != (self.sample.n,) or not np.isfinite(self.weights).all() or self.weights.sum() <= 0
        ):
            raise InputError(f"weights {self.weights.shape}: expected ({self.sample.n},) finite numbers, sum above 0")
        self.total = float(self.sample.n if self.weights is None else self.weights.sum())
        self.scale = Scale.of(self.sample, self.weights) if whole is None else whole
        self.monomials = Monomials.of(self.family.d + self.family.l)
        size = self._block_size()
        x = (self.sample.x - self.scale.shift_x) / self.scale.scale_x
        y = (self.sample.y - self.scale.shift_y) / self.scale.scale_y
        frozen = None if self.family.frozen is None else self.scale.inward(self.family.frozen)
        self.frozen = frozen
        W_frozen = None if frozen is None else quadratic_coefficients(frozen, self.monomials)
        self.blocks: list[np.ndarray] = []
        self.block_weights: list[np.ndarray] = []
        self.frozen_logs: list[np.ndarray] = []
        for first in range(0, self.sample.n, size):
            rows_ = slice(first, first + size)
            h = np.concatenate([np.ones((1, len(x[rows_]))), y[rows_].T, x[rows_].T])
            self.blocks.append(h[self.monomials.pairs[:, 0]] * h[self.monomials.pairs[:, 1]])
            if self.weights is not None:
                self.block_weights.append(self.weights[rows_])
            if frozen is not None:
                self.frozen_logs.append(_log_sum(W_frozen @ self.blocks[-1]))

    def _block_size(self) -> int:
        k = self.family.k
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
        frozen = self.frozen_logs[index] + log_frozen_mass if self.frozen is not None else None
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

    def e1(self, W: np.ndarray, log_frozen_mass: float = -np.inf) -> tuple[float, np.ndarray]:
        """Return the log-likelihood (in standardised units) and S (k, P) at atoms ``W`` (k, P)."""
        self.counts.e1 += 1
        log_likelihood, S, scratch = 0.0, np.zeros(W.shape), self._scratch(len(W) + 1)
        with np.errstate(over="ignore"):  # an overflow is seen in the total and shifted away
            for index, phi in enumerate(self.blocks):
                r, total = scratch[:-1, : phi.shape[1]], scratch[-1, : phi.shape[1]]
                log_likelihood += self._responsibilities(index, W, log_frozen_mass, r, total)
                if self.weights is not None:
                    r *= self.block_weights[index]
                S += r @ phi.T
        return log_likelihood, S

    def e2(self, W: np.ndarray, log_frozen_mass: float = -np.inf) -> tuple[float, np.ndarray, np.ndarray]:
        """Return what ``e1`` does and Q (k, k, P, P), the sums of (delta_kj r_k - r_k r_j) phi phi'."""
        self.counts.e2 += 1
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

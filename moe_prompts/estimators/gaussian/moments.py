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
from weakref import WeakKeyDictionary

import numpy as np

from moe_prompts.checks import numbers, resolved
from moe_prompts.compilation import kernels
from moe_prompts.errors import InputError
from moe_prompts.estimators.gaussian.compiled import KERNELS, CompiledLoops
from moe_prompts.estimators.gaussian.monomials import Monomials
from moe_prompts.estimators.gaussian.numpy_loops import Loops, NumpyLoops
from moe_prompts.models.data import Data, Sample, StreamedSample
from moe_prompts.models.gaussian_gated import LOG_2PI, GaussianGatedFamily, GaussianGatedMoE

#: Guards in standardised units: an atom must explain at least this many points, and its joint covariance must
#: have at least this smallest eigenvalue. Beyond them the likelihood is unbounded and a "maximum" means
#: nothing.
MIN_POINTS, MIN_EIGENVALUE = 5.0, 1e-7


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

        Without weights it is kept while the sample lives, since several families are fitted to it.

        Raises ``InputError`` where a column is constant: a joint density needs every column to vary.
        """
        if weights is None and sample in _SCALES:
            return _SCALES[sample]
        moments = []
        for name in ("x", "y"):
            mean, sd, size = _mean_sd_size(sample, name, weights)
            resolved(mean, sd, size, [f"column {column} of {name}" for column in range(len(sd))])
            moments += [mean, sd]
        scale = cls(*moments)
        if weights is None:
            _SCALES[sample] = scale
        return scale

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


_SCALES: WeakKeyDictionary[Data, Scale] = WeakKeyDictionary()


def check_multiplicities(weights: np.ndarray | None) -> None:
    """Raise ``InputError`` for negative weights from users; an interpolation rule may have them."""
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


@dataclass
class DataPasses:
    """Standardise the data of one fit and lay them out for loops over blocks; every method is one pass.

    family          what the model may be
    sample          pairs x (n, d), y (n, l)
    weights         (n,), how many times each point counts; a quadrature of the truth in place of a sample
                    gives the population fit
    min_eigenvalue  guard on the smallest eigenvalue of an atom's joint covariance, in standardised units
    counts          passes so far
    scale           units in which the passes are
    scale_of_all    scale of all the data where ``sample`` is a chunk of them; those have been checked

    Raises ``InputError`` where sample or weights do not fit, or where a column is constant.
    """

    family: GaussianGatedFamily
    sample: Sample
    weights: np.ndarray | None = None
    min_eigenvalue: float = MIN_EIGENVALUE
    counts: PassCounts = field(default_factory=PassCounts)
    scale: Scale = field(init=False)
    scale_of_all: InitVar[Scale | None] = None

    def __post_init__(self, scale_of_all: Scale | None) -> None:
        if scale_of_all is None:
            self.family.check_sample(self.sample)
        if self.weights is not None:
            self.weights = numbers(self.weights, "weights")
        if self.weights is not None and (
            self.weights.shape != (self.sample.n,) or not np.isfinite(self.weights).all() or self.weights.sum() <= 0
        ):
            raise InputError(f"weights {self.weights.shape}: expected ({self.sample.n},) finite numbers, sum above 0")
        self.total = float(self.sample.n if self.weights is None else self.weights.sum())
        self.scale = Scale.of(self.sample, self.weights) if scale_of_all is None else scale_of_all
        self.monomials = Monomials.of(self.family.d + self.family.l)
        z = np.empty((self.monomials.D, self.sample.n))
        z[: self.family.l] = ((self.sample.y - self.scale.shift_y) / self.scale.scale_y).T
        z[self.family.l :] = ((self.sample.x - self.scale.shift_x) / self.scale.scale_x).T
        self.frozen = None if self.family.frozen is None else self.scale.inward(self.family.frozen)
        W_frozen = None if self.frozen is None else quadratic_coefficients(self.frozen, self.monomials)
        compiled = kernels(KERNELS)
        self.loops: Loops
        if compiled is None:
            self.loops = NumpyLoops(z, self.weights, W_frozen, self.monomials, self.family.k)
        else:
            self.loops = CompiledLoops(compiled, z, self.weights, W_frozen, self.monomials, self.family.k)

    def e1(self, W: np.ndarray, log_frozen_mass: float = -np.inf) -> tuple[float, np.ndarray]:
        """Return the log-likelihood (in standardised units) and S (k, P) at atoms ``W`` (k, P)."""
        self.counts.e1 += 1
        return self.loops.e1(W, log_frozen_mass)

    def e2(self, W: np.ndarray, log_frozen_mass: float = -np.inf) -> tuple[float, np.ndarray, np.ndarray]:
        """Return what ``e1`` does and Q (k, k, P, P), the sums of (delta_kj r_k - r_k r_j) phi phi'."""
        self.counts.e2 += 1
        return self.loops.e2(W, log_frozen_mass)

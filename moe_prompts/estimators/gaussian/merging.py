"""Merge the atoms of an over-fitted Gaussian-gated model, and read off how many experts there are.

One fit with too many atoms is enough. The two nearest atoms become one, again and again, until one is left:
a tree of models with k, k - 1, .., 1 atoms. Atoms are near where they share a true atom, so that the first
merges are low and the others stay at a height. In (x, y) an atom is a Gaussian N(m, S) of weight pi, and

    height of (i, j) = pi_i pi_j / (pi_i + pi_j) (|m_i - m_j|^2 + |S_i - S_j|).

A merge keeps weight, mean and covariance of the pair. That is what makes it fast: in a cell of a true atom
N(m*, S*) the density moves to lowest order by

    sum_i pi_i (m_i - m*) d_m + sum_i pi_i [(S_i - S*) + (m_i - m*)(m_i - m*)'] d_S,

since second derivatives in m are first derivatives in S. Both sums are errors of the *merged* atom, so they
fall as n^-1/2 with the density, while the atoms themselves are as slow as n^(-1/(4m)) in a cell of m. A
merge above the truth has height n^(-1/rbar(m)) or less: n^-1/4 for a cell of two.

The criterion at k atoms weighs the height of the next merge against the log-likelihood of the merged model,

    c(k) = -(height(k -> k - 1) + omega_n / n (log-likelihood(k) - log-likelihood(fit))),   omega_n = log n,

and the smallest c(k) among k >= 2 decides. Norms are those of the whitened (x, y), in which the fitted law
has covariance I: heights and choice do not depend on units, nor on adding a linear function of x to y.

Source: arXiv 2403.01684 (location-scale Gaussian mixtures, Theorem 4 and the selection criterion as its
authors' package has them, with norms of raw parameters), arXiv 2505.13052 (Gaussian-gated experts).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from moe_prompts.checks import expect, parameters, real, whole
from moe_prompts.errors import InputError
from moe_prompts.models.data import Data, Sample, StreamedSample
from moe_prompts.models.gaussian_gated import GaussianGatedMoE
from moe_prompts.models.softmax_gated import SoftmaxGatedMoE
from moe_prompts.shown import Shown

Model = TypeVar("Model", GaussianGatedMoE, SoftmaxGatedMoE)


@dataclass(frozen=True, repr=False)
class MergePath(Shown, Generic[Model]):
    """Hold the tree of merges of a gated model.

    models   with k, k - 1, .., 1 free atoms, the fit itself first; free atoms before frozen ones
    heights  (k - 1,)    of the merges, in their order: the first leads from k to k - 1 free atoms
    pairs    (k - 1, 2)  which two free atoms of the model before it a merge takes; the merged one is last
    """

    models: tuple[Model, ...]
    heights: np.ndarray
    pairs: np.ndarray

    @property
    def k(self) -> int:
        """Return the number of free atoms of the fit."""
        return len(self.models)

    def model(self, k: int) -> Model:
        """Return the model merged to ``k`` free atoms.

        Raises ``InputError`` for k outside 1 .. k of the fit.
        """
        if not 1 <= whole(k, 1, "MergePath.model: k") <= self.k:
            raise InputError(f"MergePath.model: k = {k}; expected 1 to {self.k}")
        return self.models[self.k - k]

    def height(self, k: int) -> float:
        """Return the height of the merge from ``k`` to k - 1 free atoms.

        Raises ``InputError`` for k outside 2 .. k of the fit.
        """
        if not 2 <= whole(k, 2, "MergePath.height: k") <= self.k:
            raise InputError(f"MergePath.height: k = {k}; expected 2 to {self.k}")
        return float(self.heights[self.k - k])


@dataclass(frozen=True, repr=False)
class Choice(Shown, Generic[Model]):
    """Hold how many experts a merged fit speaks for, and why.

    k               the number of free atoms of smallest criterion
    path            the tree of merges
    log_likelihood  (k_fit,)      of the models of the path on the data, in nats
    criterion       (k_fit - 1,)  c at k_fit, k_fit - 1, .., 2 free atoms
    """

    k: int
    path: MergePath[Model]
    log_likelihood: np.ndarray
    criterion: np.ndarray

    @property
    def model(self) -> Model:
        """Return the model merged to the chosen number of atoms."""
        return self.path.model(self.k)


def merge_path(fit: GaussianGatedMoE | Any, n_frozen: int = 0) -> MergePath[GaussianGatedMoE]:
    """Return the tree of merges of a Gaussian-gated fit.

    fit       a fit, or its parameters, with at least two free atoms
    n_frozen  how many of its last atoms are frozen: they stay as they are, and so does their weight

    Raises ``InputError`` for anything else than a Gaussian-gated model with two free atoms.

    Source: see the module.

    >>> import moe_prompts as mp
    >>> path = mp.merge_path(mp.truth("gmoe-1").params)
    >>> [model.k for model in path.models], bool((path.heights > 0).all())
    ([3, 2, 1], True)
    """
    params = expect(parameters(fit), GaussianGatedMoE, "merge_path: fit")
    frozen = whole(n_frozen, 0, "merge_path: n_frozen")
    free = params.k - frozen
    if free < 2:
        raise InputError(f"merge_path: {params.k} atoms, {frozen} of them frozen; expected at least two free ones")
    weights, means, covs = params.to_joint()
    # A square root of the precision: any rotation of it gives the same norms.
    root = np.linalg.inv(np.linalg.cholesky(_covariance(weights, means, covs)))
    w, m, S = weights[:free], means[:free], covs[:free]
    rest = params.atoms(np.arange(free, params.k)) if frozen else None
    models, heights, pairs = [params], [], []
    while len(w) > 1:
        apart = _heights(w, m @ root.T, root @ S @ root.T)
        i, j = np.unravel_index(np.argmin(apart), apart.shape)
        both = [i, j]
        total, mean, cov = w[both].sum(), *_moments(w[both], m[both], S[both])
        others = np.setdiff1d(np.arange(len(w)), both)
        w, m = np.append(w[others], total), np.concatenate([m[others], mean[None]])
        S = np.concatenate([S[others], cov[None]])
        merged = GaussianGatedMoE.from_joint(w / w.sum(), m, S, params.d)
        models.append(merged if rest is None else merged.joined(rest, float(weights[free:].sum())))
        heights.append(apart[i, j])
        pairs.append((i, j))
    return MergePath(tuple(models), np.array(heights), np.array(pairs))


def choose_k(
    fit: GaussianGatedMoE | Any, sample: Data, omega: float | None = None, n_frozen: int = 0
) -> Choice[GaussianGatedMoE]:
    """Return how many experts an over-fitted Gaussian-gated model speaks for, without another fit.

    fit       a certified fit with more atoms than there are experts, or its parameters
    sample    the data of the fit, pairs x (n, d), y (n, l)
    omega     weight of the mean log-likelihood against heights; log n by default; above 0
    n_frozen  how many of its last atoms are frozen

    The answer is between 2 and the number of free atoms of the fit: it says nothing of one expert against
    two, and a fit that is not over-fitted can only be told that it has too many.

    Raises ``InputError`` where fit and sample differ in d or l, or for a number outside its range.

    Source: see the module.

    >>> import moe_prompts as mp
    >>> data = mp.sample("gmoe-1", n=2_000, seed=0)
    >>> mp.choose_k(mp.fit(data, k=5, seed=0, starts=4), data).k
    3
    """
    params = expect(parameters(fit), GaussianGatedMoE, "choose_k: fit")
    expect(sample, (Sample, StreamedSample), "choose_k: sample")
    if (params.d, params.l) != (sample.d, sample.l):
        raise InputError(
            f"choose_k: fit with d = {params.d}, l = {params.l} and sample with d = {sample.d}, l = {sample.l}; "
            "expected the data of the fit"
        )
    if sample.n < 2:
        raise InputError(f"choose_k: sample with n = {sample.n}; expected the data of the fit, two pairs or more")
    weight = real(np.log(sample.n) if omega is None else omega, "(0, inf)", "choose_k: omega")
    path = merge_path(params, n_frozen)
    sums = np.zeros(path.k)
    for pairs in sample.chunks():
        sums += [model.log_density(pairs.x, pairs.y).sum() for model in path.models]
    return weighed(path, sums, weight / sample.n)


def weighed(path: MergePath[Model], log_likelihood: np.ndarray, weight: float) -> Choice[Model]:
    """Return the choice on a tree of merges: heights against the log-likelihoods of its models, in nats.

    log_likelihood  (k_fit,) of the models of the path on the data
    weight          omega_n / n
    """
    criterion = -(path.heights + weight * (log_likelihood[:-1] - log_likelihood[0]))
    return Choice(path.k - int(np.argmin(criterion)), path, log_likelihood, criterion)


def _covariance(weights: np.ndarray, means: np.ndarray, covs: np.ndarray) -> np.ndarray:
    return _moments(weights, means, covs)[1]


def _moments(weights: np.ndarray, means: np.ndarray, covs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and covariance of a mixture of Gaussians whose weights need not have sum 1."""
    share = weights / weights.sum()
    mean = share @ means
    away = means - mean
    return mean, np.einsum("k,kij->ij", share, covs + away[:, :, None] * away[:, None])


def _heights(weights: np.ndarray, means: np.ndarray, covs: np.ndarray) -> np.ndarray:
    """Return the heights (k, k) of all merges of two atoms; infinite where no pair i < j stands."""
    half = weights[:, None] * weights / (weights[:, None] + weights)
    far = ((means[:, None] - means) ** 2).sum(axis=2) + np.sqrt(((covs[:, None] - covs) ** 2).sum(axis=(2, 3)))
    return np.where(np.triu(np.ones_like(far, dtype=bool), 1), half * far, np.inf)

"""Say where a softmax-gated fit begins: beside the truth, from clusters of the data, or from a smaller fit.

A start beside the truth measures the rate of the nearest local maximum only, and its distance shrinks with n,
as in the published runs: gate and expert move by O(n^-.083), variances by O(n^-.25).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from moe_prompts.checks import generator
from moe_prompts.errors import InputError
from moe_prompts.estimators.gaussian import starts
from moe_prompts.models.data import Sample
from moe_prompts.models.gaussian_gated import GaussianGatedFamily, GaussianGatedMoE
from moe_prompts.models.softmax_gated import SoftmaxGatedMoE

#: The experts of a split atom are moved apart by about this share of its noise.
SPLIT = 0.1
#: Inputs whose mean is more standard deviations from 0 than this are moved to 0 before gates are made of
#: clusters.
FAR = 100.0


def published_start(
    truth: SoftmaxGatedMoE, k: int, n: int, rng: np.random.Generator, as_published: bool = True
) -> SoftmaxGatedMoE:
    """Return true atoms repeated at random, plus noise that shrinks with n.

    truth         parameters to stay close to, with k_true atoms
    k             number of atoms of the start; at least k_true
    n             sample size that sets the size of the noise
    rng           source of the draws
    as_published  whether variances start at the true *standard deviations*, as in the published runs, or at
                  the variances

    The last atom repeats the last true one. The others repeat any, drawn again until all true ones appear.
    Gates then move by N(0, (.005 n^-.083)^2) and experts by N(0, (.05 n^-.083)^2), one number for each of the
    two, and each variance grows by |N(0, (.005 n^-.25)^2)|.

    Raises ``InputError`` where k < k_true.

    Source: the simulations of arXiv 2305.03288.
    """
    if k < truth.k:
        raise InputError(f"published_start: k = {k} atoms cannot sit at all {truth.k} true ones; raise k")
    while True:
        labels = np.append(rng.integers(truth.k, size=k - 1), truth.k - 1)
        if len(np.unique(labels)) == truth.k:
            break
    atoms = truth.atoms(labels)
    gate, expert = (size * n**-0.083 * rng.standard_normal() for size in (0.005, 0.05))
    spread = np.sqrt(atoms.noise_vars) if as_published else atoms.noise_vars
    return SoftmaxGatedMoE(
        gate_intercepts=atoms.gate_intercepts + gate,
        gate_slopes=atoms.gate_slopes + gate,
        slopes=atoms.slopes + expert,
        intercepts=atoms.intercepts + expert,
        noise_vars=spread + np.abs(0.005 * n**-0.25 * rng.standard_normal(k)),
    )


def data_start(sample: Sample, k: int, rng: np.random.Generator) -> SoftmaxGatedMoE:
    """Return clusters of (x, y) with their own regressions as a start with ``k`` atoms.

    Gaussian gates of one common covariance Gamma, with centres c_k and masses pi_k, are a softmax of beta0_k
    + beta_k' x:

        beta_k = Gamma^-1 c_k,    beta0_k = log pi_k - c_k' Gamma^-1 c_k / 2.

    Clusters are those of a thinned sample: the first pairs of a sorted design would show one end of it.
    """
    generator(rng, "data_start")
    family = GaussianGatedFamily(sample.x.shape[1], 1, k, tied_gate=True)
    thin = sample.thinned(starts.START_POINTS)
    # beta0 is a difference of squares c' Gamma^-1 c, which far from the origin leaves no digits.
    mean, spread = thin.x.mean(axis=0), thin.x.std(axis=0)
    origin = np.where(np.abs(mean) > FAR * spread, mean, 0.0)
    start = from_gaussian(starts.data(1).draw(family, Sample(thin.x - origin, thin.y), rng))
    return start.rescaled(-origin, np.ones(family.d), 0.0, 1.0) if origin.any() else start


def from_gaussian(drawn: GaussianGatedMoE) -> SoftmaxGatedMoE:
    """Return softmax gates equal to Gaussian ones that share one covariance, with the same experts.

    drawn  Gaussian-gated experts with one output, whose gates all have the first gate's covariance
    """
    slopes = np.linalg.solve(drawn.gate_covs[0], drawn.gate_means.T).T
    return SoftmaxGatedMoE(
        gate_intercepts=np.log(drawn.weights) - 0.5 * (slopes * drawn.gate_means).sum(axis=1),
        gate_slopes=slopes,
        slopes=drawn.slopes[:, 0],
        intercepts=drawn.intercepts[:, 0],
        noise_vars=drawn.noise_covs[:, 0, 0],
    )


def split_start(fitted: SoftmaxGatedMoE, sample: Sample, rng: np.random.Generator) -> SoftmaxGatedMoE:
    """Return a start in which a random atom of ``fitted`` becomes two of half its mass, moved apart.

    In units of the spread of x, the expert's height at the mean of x and its slope move by N(0, (``SPLIT``
    sd)^2), where sd is the atom's noise. The slope of the gate moves by N(0, 1), and the two gates are equal
    at a random point of the data.
    """
    atom = int(rng.integers(fitted.k))
    both = fitted.atoms(np.append(np.arange(fitted.k), atom))
    side = np.zeros(fitted.k + 1)
    side[[atom, -1]] = 1, -1
    centre, spread = sample.x.mean(axis=0), sample.x.std(axis=0)
    size = SPLIT * np.sqrt(fitted.noise_vars[atom])
    tilt, height = size * rng.standard_normal(fitted.d) / spread, size * rng.standard_normal()
    turn, pivot = rng.standard_normal(fitted.d) / spread, sample.x[rng.integers(sample.n)]
    return replace(
        both,
        gate_intercepts=both.gate_intercepts - np.log(2) * np.abs(side) - side * (turn @ pivot),
        gate_slopes=both.gate_slopes + np.outer(side, turn),
        slopes=both.slopes + np.outer(side, tilt),
        intercepts=both.intercepts + side * (height - tilt @ centre),
    )

"""Where a softmax-gated fit begins, as a value: ``published_start`` beside the truth, or ``data_start``.

A start beside the truth measures the rate of the nearest local maximum only.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from moe_prompts.errors import InputError
from moe_prompts.estimators import starts
from moe_prompts.models.data import Sample
from moe_prompts.models.gaussian_gated import GaussianGatedFamily
from moe_prompts.models.softmax_gated import SoftmaxGatedMoE

#: Atoms are split by about this share of their noise.
SPLIT = 0.5


def published_start(
    truth: SoftmaxGatedMoE, k: int, n: int, rng: np.random.Generator, as_published: bool = True
) -> SoftmaxGatedMoE:
    """True atoms repeated at random, plus noise that shrinks with n.

    The last atom repeats the last true one, the others any, until all true ones appear; gate + N(0, (.005 n^-.083)^2)
    and expert + N(0, (.05 n^-.083)^2), one number for each of the two; variance + |N(0, (.005 n^-.25)^2)|.
    as_published: variances start at the true *standard deviations*, as in the published runs; else at the variances.
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
        atoms.gate_intercepts + gate, atoms.gate_slopes + gate, atoms.slopes + expert, atoms.intercepts + expert,
        spread + np.abs(0.005 * n**-0.25 * rng.standard_normal(k)),
    )  # fmt: skip


def data_start(sample: Sample, k: int, rng: np.random.Generator) -> SoftmaxGatedMoE:
    """Clusters of (x, y) with their own regressions; Gaussian gates of one common covariance are a softmax of

    beta_k = Gamma^-1 c_k,    beta0_k = log pi_k - c_k' Gamma^-1 c_k / 2.

    Clusters are those of a thinned sample: the first pairs of a sorted design would show one end of it.
    """
    family = GaussianGatedFamily(sample.x.shape[1], 1, k, tied_gate=True)
    drawn = starts.data(1).draw(family, sample.thinned(starts.START_POINTS), rng)
    slopes = np.linalg.solve(drawn.gate_covs[0], drawn.gate_means.T).T
    return SoftmaxGatedMoE(
        np.log(drawn.weights) - 0.5 * (slopes * drawn.gate_means).sum(axis=1), slopes, drawn.slopes[:, 0],
        drawn.intercepts[:, 0], drawn.noise_covs[:, 0, 0],
    )  # fmt: skip


def split_start(fitted: SoftmaxGatedMoE, sample: Sample, rng: np.random.Generator) -> SoftmaxGatedMoE:
    """One atom more than ``fitted``: a random one becomes two of half its mass, their experts moved apart at random.

    (b, a) +- (u, v) with u ~ N(0, s) and v ~ N(0, s / var x) at the mean of x: half a noise or so, as far as atoms that
    share a regression can be told apart.
    """
    atom = int(rng.integers(fitted.k))
    index = np.append(np.arange(fitted.k), atom)
    sd = np.sqrt(fitted.noise_vars[atom])
    tilt = SPLIT * sd * rng.standard_normal(fitted.d) / sample.x.std(axis=0)
    height = SPLIT * sd * rng.standard_normal() - tilt @ sample.x.mean(axis=0)
    side = np.zeros(fitted.k + 1)
    side[[atom, -1]] = 1, -1
    halved = np.log(2) * (side != 0)
    both = fitted.atoms(index)
    return replace(
        both, gate_intercepts=both.gate_intercepts - halved, slopes=both.slopes + np.outer(side, tilt),
        intercepts=both.intercepts + side * height,
    )  # fmt: skip

"""Where a softmax-gated fit begins, as a value: ``published_start`` beside the truth, or ``data_start``.

A start beside the truth measures the rate of the nearest local maximum only.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from moe_prompts.errors import InputError
from moe_prompts.estimators.gaussian import starts
from moe_prompts.models.data import Sample
from moe_prompts.models.gaussian_gated import GaussianGatedFamily
from moe_prompts.models.softmax_gated import SoftmaxGatedMoE

#: The experts of a split atom are moved apart by about this share of its noise.
SPLIT = 0.1


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
    """One atom more than ``fitted``: a random one becomes two of half its mass, moved apart at random.

    In units of the spread of x: the expert's height at the mean of x and its slope by N(0, (``SPLIT`` sd)^2), sd the
    atom's noise, and the slope of the gate by N(0, 1), the two gates equal at a random point.
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

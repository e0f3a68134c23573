"""Merge the atoms of an over-fitted softmax-gated model, and read off how many experts there are.

The tree is that of Gaussian gates (``estimators.gaussian.merging``): the two nearest atoms become one, again
and again. What a merge keeps is another. In coordinates z of x about the mean input c of the pair, with
weights w_i = e^{beta0_i} there,

    W = sum w_i,   beta = sum w_i beta_i / W,   b = sum w_i b_i / W,
    a = sum w_i (a_i + (beta_i - beta) b_i) / W,   s = sum w_i (s_i + (b_i - b)^2 + |a_i - a|^2_z) / W:

the height and the slope at c of what the pair adds to the gate, and mean, slope of the mean and variance of y
at c under the pair. |v|^2_z is v' Cov(z) v over the inputs of the pair. Why it is fast: in a cell of a true
atom the fitted density moves by the sums

    sum w_i,  sum w_i dbeta_i,  sum w_i db_i,  sum w_i (da_i + db_i dbeta_i),  sum w_i (ds_i + db_i^2)

times x^j d^r N / dy^r with (j, r) = (0, 0), (1, 0), (0, 1), (1, 1), (0, 2), which are independent functions,
and nothing of higher order adds to these. So each sum is as small as the error of the density, n^-1/2, and so
is that of the *merged* atom, while b_i alone has n^(-1/(4m)) in a cell of m. The last part of s is of second
order in a, sum w_i da_i^2, and n^-1/2 as well: it is the coefficient of x^2 d^2 N / dy^2. Both need a cell
of one atom: where all are over-fitted, gates are not identified.

    height of (i, j) = pi_i pi_j / (pi_i + pi_j) D / (1 + D),   D = |dbeta|^2 + |da|^2 + |db|^2 + |ds|,

pi_i the mean gate of atom i on the data, b at c, in units in which x is white and y has variance 1 about its
linear regression on x. Heights and choice do not depend on units of x and y, on the gates' translation, nor
on adding a linear function of x to y. D is bounded since slopes of gates are not: a height is weighed
against log n times a divergence, and with D itself two of five drawn truths of three experts would have the
smallest criterion at three from n = 1e17 only. Where D is small, as in a cell, nothing changes.

Source: arXiv 2510.12744 (softmax gates), after arXiv 2403.01684; dissimilarity, units and
what a merge keeps are derived here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from moe_prompts.checks import expect, parameters, real
from moe_prompts.errors import InputError
from moe_prompts.estimators.gaussian.merging import Choice, MergePath, weighed
from moe_prompts.models.data import Sample
from moe_prompts.models.softmax_gated import SoftmaxGatedMoE

#: The smallest mean gate of an atom: one that is nowhere seen has a place and weighs nothing.
LEAST = 1e-300
#: What is left of a column that is a linear function of the others, as a share of its standard deviation,
#: and of one that is constant, as a share of its size.
FLAT, ROUNDING = 1e-6, 1e-12


def softmax_merge_path(fit: SoftmaxGatedMoE | Any, sample: Sample) -> MergePath[SoftmaxGatedMoE]:
    """Return the tree of merges of a softmax-gated fit.

    fit     a fit, or its parameters, with at least two atoms
    sample  the data of the fit, pairs x (n, d), y (n, 1): inputs say where atoms are, and in which units

    Raises ``InputError`` for anything else, for a fit with other inputs than the sample, and where a column
    of the data is a linear function of the others.

    >>> import moe_prompts as mp
    >>> from moe_prompts.estimators.softmax.merging import softmax_merge_path
    >>> known = mp.softmax_truth("softmax-three-1").params
    >>> path = softmax_merge_path(known, mp.softmax_sample("softmax-three-1", 1_000, seed=0))
    >>> [model.k for model in path.models], bool((path.heights > 0).all())
    ([3, 2, 1], True)
    """
    params = expect(parameters(fit), SoftmaxGatedMoE, "softmax_merge_path: fit")
    data = expect(sample, Sample, "softmax_merge_path: sample")
    if params.k < 2 or params.d != data.d or data.l != 1:
        raise InputError(
            f"softmax_merge_path: {params.k} atoms with d = {params.d}, and a sample with d = {data.d}, l = {data.l}; "
            "expected at least two atoms and the data of the fit"
        )
    units = _Units.of(data)
    z, now = (data.x - units.mean) @ np.linalg.inv(units.root).T, units.inward(params)
    models, heights, pairs = [params], [], []
    while now.k > 1:
        places = _Places.of(now.gates(z), z)
        apart = _heights(now, places)
        i, j = np.unravel_index(np.argmin(apart), apart.shape)
        heights.append(apart[i, j])
        pairs.append((i, j))
        now = _merged(now, places, int(i), int(j))
        models.append(units.outward(now))
    return MergePath(tuple(models), np.array(heights), np.array(pairs))


def softmax_choose_k(fit: SoftmaxGatedMoE | Any, sample: Sample, omega: float | None = None) -> Choice[SoftmaxGatedMoE]:
    """Return how many experts an over-fitted softmax-gated model speaks for, without another fit.

    fit     a certified fit with more atoms than there are experts, or its parameters
    sample  the data of the fit, pairs x (n, d), y (n, 1)
    omega   weight of the mean log-likelihood against heights; log n by default; above 0

    The criterion and the bounds of the answer are those of ``choose_k``. Raises ``InputError`` as
    ``softmax_merge_path`` does, and for ``omega`` outside its range.

    >>> import moe_prompts as mp
    >>> from moe_prompts.estimators.softmax.merging import softmax_choose_k
    >>> known = mp.softmax_truth("softmax-three-1").params
    >>> softmax_choose_k(known, mp.softmax_sample("softmax-three-1", 10_000, seed=0)).k
    3
    """
    path = softmax_merge_path(fit, sample)
    weight = real(np.log(sample.n) if omega is None else omega, "(0, inf)", "softmax_choose_k: omega")
    return weighed(path, np.array([model.log_density(sample).sum() for model in path.models]), weight / sample.n)


def _least(columns: np.ndarray) -> np.ndarray:
    """Return the smallest standard deviation that is none of rounding, column by column."""
    return np.maximum(FLAT * columns.std(axis=0), ROUNDING * np.sqrt((columns**2).mean(axis=0)))


@dataclass(frozen=True)
class _Units:
    """Hold the units of heights: x = mean + root z, and y = level + turn'z + scale times the new y."""

    mean: np.ndarray
    root: np.ndarray
    level: float
    turn: np.ndarray
    scale: float

    @classmethod
    def of(cls, data: Sample) -> _Units:
        """Return the units of a sample."""
        mean, y = data.x.mean(axis=0), data.y[:, 0]
        try:
            root = np.linalg.cholesky(np.cov(data.x, rowvar=False, bias=True).reshape(data.d, data.d))
        except np.linalg.LinAlgError:
            root = np.zeros((data.d, data.d))
        if not (np.diag(root) > _least(data.x)).all():
            raise InputError("softmax_merge_path: a column of x is constant or a linear function of the others")
        z = np.concatenate([np.ones((data.n, 1)), (data.x - mean) @ np.linalg.inv(root).T], axis=1)
        found = np.linalg.lstsq(z, y, rcond=None)[0]
        scale = float(np.sqrt(np.mean((y - z @ found) ** 2)))
        if not scale > _least(data.y)[0]:
            raise InputError("softmax_merge_path: y is a linear function of x")
        return cls(mean, root, float(found[0]), found[1:], scale)

    def inward(self, params: SoftmaxGatedMoE) -> SoftmaxGatedMoE:
        """Return the parameters in these units."""
        return SoftmaxGatedMoE(
            gate_intercepts=params.gate_intercepts + params.gate_slopes @ self.mean,
            gate_slopes=params.gate_slopes @ self.root,
            slopes=(params.slopes @ self.root - self.turn) / self.scale,
            intercepts=(params.intercepts + params.slopes @ self.mean - self.level) / self.scale,
            noise_vars=params.noise_vars / self.scale**2,
        )

    def outward(self, params: SoftmaxGatedMoE) -> SoftmaxGatedMoE:
        """Return parameters in these units as they are in those of the data."""
        back = np.linalg.inv(self.root)
        gate_slopes, slopes = params.gate_slopes @ back, (params.slopes * self.scale + self.turn) @ back
        return SoftmaxGatedMoE(
            gate_intercepts=params.gate_intercepts - gate_slopes @ self.mean,
            gate_slopes=gate_slopes,
            slopes=slopes,
            intercepts=params.intercepts * self.scale + self.level - slopes @ self.mean,
            noise_vars=params.noise_vars * self.scale**2,
        )


@dataclass(frozen=True)
class _Places:
    """Hold where atoms are: mean gate pi (k,), and mean c and second moment of the inputs of all pairs.

    The inputs of a pair are those of the data, each with the gates of both; means (k, k, d) and seconds
    (k, k, d, d).
    """

    pi: np.ndarray
    means: np.ndarray
    seconds: np.ndarray

    @classmethod
    def of(cls, gates: np.ndarray, z: np.ndarray) -> _Places:
        """Return the places of atoms with these gates (n, k) at the points z (n, d)."""
        pi = gates.mean(axis=0)
        first, second = gates.T @ z / len(z), np.einsum("nk,nd,ne->kde", gates, z, z) / len(z)
        both = np.maximum(pi[:, None] + pi, LEAST)
        return cls(
            pi,
            (first[:, None] + first) / both[..., None],
            (second[:, None] + second) / both[..., None, None],
        )


def _heights(params: SoftmaxGatedMoE, places: _Places) -> np.ndarray:
    """Return the heights (k, k) of all merges of two atoms; infinite where no pair i < j stands."""
    pi = places.pi
    half = pi[:, None] * pi / np.maximum(pi[:, None] + pi, LEAST)
    between = lambda values: values[:, None] - values[None]
    beta, a, s = between(params.gate_slopes), between(params.slopes), between(params.noise_vars)
    b = between(params.intercepts) + (a * places.means).sum(axis=2)
    far = (beta**2).sum(axis=2) + (a**2).sum(axis=2) + b**2 + np.abs(s)
    return np.where(np.triu(np.ones_like(far, dtype=bool), 1), half * far / (1 + far), np.inf)


def _merged(params: SoftmaxGatedMoE, places: _Places, i: int, j: int) -> SoftmaxGatedMoE:
    """Return the parameters with atoms i and j merged; the merged one is last."""
    centre = places.means[i, j]
    spread = places.seconds[i, j] - np.outer(centre, centre)
    pair = params.atoms([i, j])
    logits = pair.gate_intercepts + pair.gate_slopes @ centre
    height = np.logaddexp(*logits)
    share = np.exp(logits - height)
    beta, levels = share @ pair.gate_slopes, pair.intercepts + pair.slopes @ centre
    level = share @ levels
    slope = share @ pair.slopes + (share * levels) @ (pair.gate_slopes - beta)
    away = pair.slopes - slope
    noise = share @ (pair.noise_vars + (levels - level) ** 2 + np.einsum("id,de,ie->i", away, spread, away))
    rest = params.atoms([at for at in range(params.k) if at not in (i, j)]) if params.k > 2 else None
    merged: dict[str, Any] = {
        "gate_intercepts": [height - beta @ centre],
        "gate_slopes": [beta],
        "slopes": [slope],
        "intercepts": [level - slope @ centre],
        "noise_vars": [noise],
    }
    if rest is None:
        return SoftmaxGatedMoE(**merged)
    return SoftmaxGatedMoE(**{name: np.concatenate([getattr(rest, name), value]) for name, value in merged.items()})

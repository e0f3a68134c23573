"""Measure prediction risk and density error of a fit, on a fixed quadrature of the truth.

    excess risk  E |m_hat(x) - m*(x)|^2, x from the truth
    Hellinger    H^2 = 1 - E* sqrt(p_hat / p*) = E* (sqrt(p_hat / p*) - 1)^2 / 2,  (x, y) from the truth

The last form keeps its relative accuracy as p_hat approaches p* and is used there. It misses mass of p_hat
where p* has none, so large distances take the first.
"""

from __future__ import annotations

import numpy as np
from scipy.special import ndtri

from moe_prompts.checks import expect
from moe_prompts.errors import InputError
from moe_prompts.models.gaussian_gated import GaussianGatedMoE

GRID_POINTS = 4001  # for d = 1; a spacing of about 1/400 of the input's spread
SOBOL_POINTS = 2**12  # per true atom, in (x, y); relative error of H about 1 %
NEAR = 0.05  # squared Hellinger distance below which its relative form is used
GRID_REACH = 8.0  # standard deviations of the widest reach; the mass beyond is below 1e-14


class Evaluation:
    """Hold nodes and weights of one truth; build it once and use it for every fit.

    truth  parameters that fits are compared with

    >>> import moe_prompts as mp
    >>> truth = mp.truth("gmoe-1").params
    >>> mp.Evaluation(truth).excess_risk(truth)
    0.0
    """

    def __init__(self, truth: GaussianGatedMoE) -> None:
        from scipy.stats import qmc  # half a second, wanted by fits that are evaluated and by nothing before them

        self.truth = expect(truth, GaussianGatedMoE, "Evaluation")
        points, weights = [], []
        _, means, covs = truth.to_joint()
        for atom in range(truth.k):
            # A fixed scramble: nodes are part of the definition of the error, not of its randomness.
            uniform = qmc.Sobol(truth.d + truth.l, scramble=True, rng=np.random.default_rng(atom)).random(SOBOL_POINTS)
            points.append(means[atom] + ndtri(uniform) @ np.linalg.cholesky(covs[atom]).T)
            weights.append(np.full(SOBOL_POINTS, truth.weights[atom] / SOBOL_POINTS))
        z, self.weights = np.concatenate(points), np.concatenate(weights)
        self.x, self.y = z[:, : truth.d], z[:, truth.d :]
        self.log_truth = truth.log_density(self.x, self.y)
        if truth.d == 1:
            sd = np.sqrt(truth.gate_covs[:, 0, 0])
            low, high = truth.gate_means[:, 0] - GRID_REACH * sd, truth.gate_means[:, 0] + GRID_REACH * sd
            self.inputs = np.linspace(low.min(), high.max(), GRID_POINTS)[:, None]
            density = np.exp(truth.log_gate_terms(self.inputs)).sum(axis=1)
            self.input_weights = density / density.sum()  # the trapezoid rule; the density vanishes at both ends
        else:
            self.inputs, self.input_weights = self.x, self.weights
        self.prediction = truth.regression(self.inputs)

    @property
    def signal(self) -> float:
        """Return E |m*(x)|^2, the unit in which risks are reported."""
        return float(self.input_weights @ (self.prediction**2).sum(axis=1))

    def excess_risk(self, fitted: GaussianGatedMoE) -> float:
        """Return E |m_hat(x) - m*(x)|^2.

        fitted  parameters of the fit

        Raises ``InputError`` where the fit has other inputs or outputs than the truth.
        """
        self._check(fitted)
        return float(self.input_weights @ ((fitted.regression(self.inputs) - self.prediction) ** 2).sum(axis=1))

    def hellinger(self, fitted: GaussianGatedMoE) -> float:
        """Return the Hellinger distance of the joint densities, in [0, 1].

        fitted  parameters of the fit

        Raises ``InputError`` where the fit has other inputs or outputs than the truth.
        """
        self._check(fitted)
        half_log_ratio = 0.5 * (fitted.log_density(self.x, self.y) - self.log_truth)
        # expm1 keeps the digits of sqrt(p_hat / p*) - 1 that the difference from 1 would lose.
        near = 0.5 * float(self.weights @ np.expm1(half_log_ratio) ** 2)
        far = -float(self.weights @ np.expm1(half_log_ratio))
        return float(np.sqrt(near if max(near, far) < NEAR else np.clip(far, 0, 1)))

    def _check(self, fitted: GaussianGatedMoE) -> None:
        expect(fitted, GaussianGatedMoE, "Evaluation: the fit")
        if (fitted.d, fitted.l) != (self.truth.d, self.truth.l):
            raise InputError(
                f"Evaluation: the fit has d = {fitted.d}, l = {fitted.l}; "
                f"the truth has d = {self.truth.d}, l = {self.truth.l}"
            )

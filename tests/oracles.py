"""Answers by another road: one atom at a time, SciPy's densities, finite differences. Slow and plain."""

from __future__ import annotations

import numpy as np
from scipy.stats import multivariate_normal

from moe_prompts.models.gaussian_gated import GaussianGatedMoE


def component_densities(params: GaussianGatedMoE, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """pi_k N(x; c_k, Gamma_k) N(y; A_k x + b_k, nu_k) by SciPy, atom by atom: (n, k)."""
    table = np.empty((len(x), params.k))
    for k in range(params.k):
        gate = multivariate_normal(params.gate_means[k], params.gate_covs[k]).pdf(x)
        residuals = [y[i] - (params.slopes[k] @ x[i] + params.intercepts[k]) for i in range(len(x))]
        noise = multivariate_normal(np.zeros(params.l), params.noise_covs[k]).pdf(residuals)
        table[:, k] = params.weights[k] * gate * noise
    return table


def numeric_gradient(function, at: np.ndarray, step: float) -> np.ndarray:
    """Central differences; ``function`` may return a number or a vector."""
    return np.array([(function(at + step * e) - function(at - step * e)) / (2 * step) for e in np.eye(len(at))])

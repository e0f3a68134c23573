"""Answers by another road: one point at a time, SciPy's densities, finite differences. Slow and plain."""

from __future__ import annotations

import numpy as np
from scipy.stats import multivariate_normal

from moe_prompts.models.gaussian_gated import GaussianGatedMoE


def component_densities(params: GaussianGatedMoE, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """pi_k N(x; c_k, Gamma_k) N(y; A_k x + b_k, nu_k), point by point: (n, k)."""
    table = np.empty((len(x), params.k))
    for i in range(len(x)):
        for k in range(params.k):
            gate = multivariate_normal(params.gate_means[k], params.gate_covs[k]).pdf(x[i])
            mean = params.slopes[k] @ x[i] + params.intercepts[k]
            table[i, k] = params.weights[k] * gate * multivariate_normal(mean, params.noise_covs[k]).pdf(y[i])
    return table


def numeric_gradient(function, at: np.ndarray, step: float) -> np.ndarray:
    """Central differences; ``function`` may return a number or a vector."""
    return np.array([(function(at + step * e) - function(at - step * e)) / (2 * step) for e in np.eye(len(at))])

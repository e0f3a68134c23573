"""Ask without noise how well a softmax-gated truth shows that an atom was split.

The likelihood of n pairs falls below its maximum by about n KL(theta) at parameters theta. At k_true + 1
atoms,

    profile(L) = min KL(theta)   over theta with loss L from two atoms that share a cell,

says from which n on a split of loss L can be seen at all: n profile(L) must be a few nats. KL is summed
over a quadrature, midpoints in x, which is uniform, and Gauss-Hermite points in y. The gate of the atom
that is alone in its cell stays at the true one, which takes the translations away.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp

from moe_prompts.models.data import Sample
from moe_prompts.models.softmax_gated import LOG_2PI, SoftmaxGatedMoE
from moe_prompts.models.softmax_truths import SoftmaxTruth

#: Points of the quadrature in x, and for each expert in y.
POINTS, HEIGHTS = 40, 24
#: Starts of a minimisation, and the unit in which it sees divergences, as its tolerance is absolute.
STARTS, SCALED = 3, 1e5
#: Columns of an atom's parameters.
NAMES = ("beta0", "beta", "a", "b", "s")
#: How far log masses go from those of equal halves, and log variances from the true ones: a light atom far
#: away has any loss and is seen by nobody, and a narrow one is not seen by the quadrature.
LIGHT = 1.0


def quadrature(params: SoftmaxGatedMoE, low: float, high: float) -> tuple[Sample, np.ndarray]:
    """Return pairs and weights (m,) that sum functions over the law of a truth, x uniform between bounds."""
    x = low + (high - low) * (np.arange(POINTS)[:, None] + 0.5) / POINTS
    nodes, of_nodes = np.polynomial.hermite_e.hermegauss(HEIGHTS)
    gates, means, sds = params.gates(x), params.expert_means(x), np.sqrt(params.noise_vars)
    y = means[:, :, None] + sds[:, None] * nodes
    weights = gates[:, :, None] * of_nodes / of_nodes.sum() / POINTS
    return Sample(np.repeat(x, params.k * HEIGHTS, axis=0), y.reshape(-1)), weights.reshape(-1)


def profile(known: SoftmaxTruth, loss: float, low: float = -1.0, high: float = 1.0, seed: int = 0) -> float:
    """Return the smallest KL divergence of a fit with one atom too many whose split has this loss.

    known  a truth of two atoms with d = 1, x uniform from low to high
    loss   sum over the two atoms of a cell of mass (dbeta^2 + da^2 + db^4 + ds^2); above 0
    seed   of the starts
    """
    true = known.params
    pairs, weights = quadrature(true, low, high)
    x, y, at_truth = pairs.x[:, 0], pairs.y[:, 0], true.log_density(pairs)
    found = []
    for split in range(2):
        # One row for each atom: beta0, beta, a, b, log s. The last atom is alone in its cell.
        rows = np.stack([*_columns(true.atoms([split, split, 1 - split]))], axis=1)
        rows[:2, 0] -= np.log(2)
        free = np.ones((3, 5), dtype=bool)
        free[2, :2] = False
        size, rng = free.sum(), np.random.default_rng([seed, split])

        def atoms(v: np.ndarray, rows: np.ndarray = rows, free: np.ndarray = free) -> np.ndarray:
            moved = rows.copy()
            moved[free] += v
            return moved

        def divergence(v: np.ndarray, atoms=atoms, free: np.ndarray = free) -> tuple[float, np.ndarray]:
            """Return KL and its slope."""
            beta0, beta, a, b, log_s = atoms(v).T[:, :, None]
            logits = beta0 + beta * x
            off, precision = y - a * x - b, np.exp(-log_s)
            joint = logits - 0.5 * (LOG_2PI + log_s + off**2 * precision)
            of_pairs, of_inputs = logsumexp(joint, axis=0), logsumexp(logits, axis=0)
            share, gate = weights * np.exp(joint - of_pairs), weights * np.exp(logits - of_inputs)
            moved, pull = gate - share, share * off * precision
            widths = 0.5 * (share - pull * off).sum(axis=1)
            slope = np.stack([moved.sum(axis=1), moved @ x, -pull @ x, -pull.sum(axis=1), widths], axis=1)
            return float(weights @ (at_truth - of_pairs + of_inputs)), slope[free]

        def split_loss(
            v: np.ndarray, atoms=atoms, rows: np.ndarray = rows, free: np.ndarray = free
        ) -> tuple[float, np.ndarray]:
            """Return the loss and its slope."""
            here, there = atoms(v)[:2], rows[:2]
            mass, s, d = np.exp(here[:, 0]), np.exp(here[:, 4]), here - there
            d[:, 4] = s - np.exp(there[:, 4])
            each = mass * (d[:, 1] ** 2 + d[:, 2] ** 2 + d[:, 3] ** 4 + d[:, 4] ** 2)
            slope = np.zeros((3, 5))
            slope[:2, 0] = each
            slope[:2, 1:] = mass[:, None] * np.stack(
                [2 * d[:, 1], 2 * d[:, 2], 4 * d[:, 3] ** 3, 2 * d[:, 4] * s], axis=1
            )
            return float(each.sum()), slope[free]

        def scaled(v: np.ndarray, divergence=divergence) -> tuple[float, np.ndarray]:
            value, slope = divergence(v)
            return SCALED * value, SCALED * slope

        held = {
            "type": "eq",
            "fun": lambda v, split_loss=split_loss: split_loss(v)[0] / loss - 1,
            "jac": lambda v, split_loss=split_loss: split_loss(v)[1] / loss,
        }

        bounds = [
            (-LIGHT, LIGHT) if name in ("beta0", "s") else (-20.0, 20.0) for name in np.tile(NAMES, 3)[free.ravel()]
        ]
        for _ in range(STARTS):
            start, step = np.zeros(size), rng.standard_normal(3)
            start[1:4], start[6:9] = step, -step
            start *= np.sqrt(loss / split_loss(start)[0])
            ends = minimize(
                scaled,
                start,
                jac=True,
                method="SLSQP",
                constraints=held,
                bounds=bounds,
                options={"maxiter": 150, "ftol": 1e-8},
            )
            if abs(held["fun"](ends.x)) < 1e-3:
                found.append(max(divergence(ends.x)[0], 0.0))
    return min(found)


def _columns(params: SoftmaxGatedMoE) -> list[np.ndarray]:
    return [
        params.gate_intercepts,
        params.gate_slopes[:, 0],
        params.slopes[:, 0],
        params.intercepts,
        np.log(params.noise_vars),
    ]

"""Measure fits of gated experts by a Voronoi loss.

Softmax gates, with the terms of ``softmax_voronoi``, smallest over the translations t of the gates that put
the slope of some fitted gate on that of a true one (and the best t0 for each):

    D = min_t sum_cells |sum_i e^{b_i + t0} - e^{b*}| + sum_i e^{b_i + t0} (|dbeta|^p + |da|^p + |dc|^p),

p = 1 for an expert alone in its cell and 2 for one of several. With two cells of one expert each that is the
smallest over all t: on the segment between two points the weighted sum of distances is least at the heavier.
Sigmoid gates have no translation. An expert
alone has |db| + |dbeta| + |da| + |dc|; in a cell of several heights add up,

    D = .. + |sum_i sigmoid(b_i) - sigmoid(b*)| + sum_i sigmoid(b_i) (|dbeta|^2 + |da|^2 + |dc|^2),

which is meant for cells whose true gate has no slope.

Sources: after arXiv 2402.02952 and arXiv 2405.13997, whose losses were not looked up word by word.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit

from moe_prompts.checks import expect, parameters
from moe_prompts.errors import InputError
from moe_prompts.losses.cells import farthest, root_mean_square
from moe_prompts.losses.softmax_voronoi import best_on_some_gate
from moe_prompts.models.expert_regression import ExpertRegression
from moe_prompts.models.softmax_gated import SoftmaxGatedMoE


@dataclass(frozen=True)
class ExpertErrors:
    """Hold what a fit of experts misses.

    labels           (k,)  cell of each fitted expert
    loss                   D
    mass_error             sum over cells of the difference of masses, or of heights of sigmoid gates
    singleton_error        largest distance of an expert alone in its cell; NaN where there is none
    split_rms              mass-weighted root mean square distance of those that share a cell, or NaN
    """

    labels: np.ndarray
    loss: float
    mass_error: float
    singleton_error: float
    split_rms: float


def expert_errors(fitted: ExpertRegression | Any, truth: ExpertRegression | Any) -> ExpertErrors:
    """Return the errors of a fit of gated experts.

    fitted  the fit, or its parameters
    truth   the true parameters

    Raises ``InputError`` where the two have other gates, activations or inputs.

    >>> from moe_prompts.models.expert_truths import expert_truth
    >>> truth = expert_truth("experts-softmax-tanh").params
    >>> expert_errors(truth.chosen([1, 0, 0]), truth).labels
    array([1, 0, 0])
    """
    fitted, truth = parameters(fitted), parameters(truth)
    expect(fitted, ExpertRegression, "expert loss: fitted")
    expect(truth, ExpertRegression, "expert loss: truth")
    if (fitted.kind, fitted.d) != (truth.kind, truth.d):
        raise InputError(
            f"expert loss: fitted {fitted.kind} with d = {fitted.d}, true {truth.kind} with d = {truth.d}; expected "
            "the same gates, activation and inputs"
        )
    if fitted.gate == "softmax":
        found = best_on_some_gate(_as_softmax(fitted), _as_softmax(truth), "regression")
        mass = float(np.abs(found.mass).sum())
        return ExpertErrors(found.labels, found.loss("regression"), mass, found.singleton_error, found.split_rms)
    return _sigmoid_errors(fitted, truth)


def _as_softmax(params: ExpertRegression) -> SoftmaxGatedMoE:
    """Return gates and experts as those of a softmax-gated density, whose loss looks at parameters alone."""
    return SoftmaxGatedMoE(params.b, params.beta, params.eta[:, :-1], params.eta[:, -1], np.ones(params.k))


def _sigmoid_errors(fitted: ExpertRegression, truth: ExpertRegression) -> ExpertErrors:
    d = truth.d
    offsets = fitted.atoms[:, None] - truth.atoms
    parts = np.stack([np.linalg.norm(part, axis=2) for part in np.split(offsets, [d, 2 * d], axis=2)])
    labels = parts.sum(axis=0).argmin(axis=1)
    own = parts[:, np.arange(fitted.k), labels]  # (3, k): beta, a, c
    sharing = np.bincount(labels, minlength=truth.k)[labels] > 1
    heights = expit(fitted.b)
    missed = np.abs(np.bincount(labels, weights=heights, minlength=truth.k) - expit(truth.b))
    alone = own.sum(axis=0) + np.abs(fitted.b - truth.b[labels])
    # The height of a cell of one expert is in |db|.
    mass = float(missed[np.bincount(labels, minlength=truth.k) != 1].sum())
    shared = heights[sharing]
    split = root_mean_square(own.sum(axis=0), heights, sharing)
    loss = mass + float(alone[~sharing].sum() + (shared * (own[:, sharing] ** 2).sum(axis=0)).sum())
    single = farthest(alone, ~sharing)
    return ExpertErrors(labels, loss, float(missed.sum()), single, split)

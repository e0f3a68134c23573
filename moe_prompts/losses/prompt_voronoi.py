"""Measure prompt fits by a Voronoi loss, after the symmetries of adaptive prompts have been taken out.

Each fitted prompt belongs to the cell of its nearest true one. With masses e^b,

    D = sum_cells |sum e^{b_i} - e^{b*_l}| + sum_{alone} e^{b_i} |dtheta_i|
        + sum_{sharing} e^{b_i} |dtheta_i|^2 + |dW2| + |dalpha|,

the last on a zero-initialised head, whose masses sum to a constant.

Adaptive prompts are known up to a permutation of the hidden units, common to all prompts, and a sign of each
unit where sigma is odd (relu's scales and the identity's GL(r) have a normal form already). D is the smallest
over those.

Source: arXiv 2501.18936 (Voronoi losses for prompts).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations, product
from typing import Any

import numpy as np

from moe_prompts.checks import expect, parameters
from moe_prompts.errors import InputError
from moe_prompts.models.prompt_attention import PromptAttention
from moe_prompts.shown import Shown

#: Above this, permutations and signs of hidden units are too many to try.
MAX_HIDDEN = 5


@dataclass(frozen=True, repr=False)
class PromptErrors(Shown):
    """Hold the pieces of D.

    labels    (k,)       cell of each fitted prompt
    masses    (k,)       e^b of the fitted prompts
    offsets   (k, q)     theta_i - theta*_{cell}
    mass      (k_true,)  fitted minus true mass of each cell
    w2_error             |W2 - W2*|, Frobenius; 0 where there is none
    factor_error         |alpha - alpha*| of a zero-initialised head; 0 on others
    """

    labels: np.ndarray
    masses: np.ndarray
    offsets: np.ndarray
    mass: np.ndarray
    w2_error: float
    factor_error: float = 0.0

    @property
    def sharing(self) -> np.ndarray:
        """Return which fitted prompts share their cell (k,)."""
        return np.bincount(self.labels, minlength=len(self.mass))[self.labels] > 1

    @property
    def loss(self) -> float:
        """Return D."""
        lengths = np.linalg.norm(self.offsets, axis=1)
        powers = np.where(self.sharing, lengths**2, lengths)
        return float(np.abs(self.mass).sum() + (self.masses * powers).sum() + self.w2_error + self.factor_error)

    @property
    def mass_error(self) -> float:
        """Return the sum over cells of |fitted mass - true mass|."""
        return float(np.abs(self.mass).sum())

    @property
    def singleton_error(self) -> float:
        """Return the largest |dtheta| of a prompt that is alone in its cell; NaN where there is none."""
        alone = np.linalg.norm(self.offsets[~self.sharing], axis=1)
        return float(alone.max()) if len(alone) else np.nan

    @property
    def split_rms(self) -> float:
        """Return the mass-weighted root mean square of |dtheta| over prompts that share a cell.

        It is NaN where none do.
        """
        masses, offsets = self.masses[self.sharing], self.offsets[self.sharing]
        return float(np.sqrt((masses * (offsets**2).sum(axis=1)).sum() / masses.sum())) if len(masses) else np.nan

    @property
    def barycentre_error(self) -> float:
        """Return the largest |mass-weighted mean of dtheta| of a shared cell; NaN where there is none."""
        found = []
        for cell in np.unique(self.labels[self.sharing]):
            here = self.labels == cell
            found.append(np.linalg.norm(self.masses[here] @ self.offsets[here] / self.masses[here].sum()))
        return float(max(found)) if found else np.nan


def prompt_errors(fitted: PromptAttention | Any, truth: PromptAttention | Any) -> PromptErrors:
    """Return the pieces of D at the representative of ``fitted`` that makes D smallest.

    fitted  the fit, or its parameters
    truth   the true parameters

    Raises ``InputError`` where the two are prompts of another kind or size, or have too many hidden units for
    all their permutations to be tried.

    >>> import moe_prompts as mp
    >>> truth = mp.prompt_truth("attention-tanh").params
    >>> mp.prompt_errors(truth.chosen([0, 0, 1]), truth).labels
    array([0, 0, 1])
    """
    fitted, truth = parameters(fitted), parameters(truth)
    expect(fitted, PromptAttention, "prompt loss: fitted")
    expect(truth, PromptAttention, "prompt loss: truth")
    sizes = lambda one: (one.kind, one.atoms.shape[1], one.W2.shape, len(one.factor))
    if sizes(fitted) != sizes(truth):
        raise InputError(
            f"prompt loss: fitted {fitted.kind} prompts with {fitted.atoms.shape[1]} parameters each and W2 "
            f"{fitted.W2.shape}, true {truth.kind} ones with {truth.atoms.shape[1]} and {truth.W2.shape}; parameters "
            "of different kinds or sizes cannot be compared, their predictions can"
        )
    found = [_errors(fitted, truth, atoms, w2) for atoms, w2 in _representatives(fitted)]
    return min(found, key=lambda errors: errors.loss)


def prompt_loss(fitted: PromptAttention | Any, truth: PromptAttention | Any) -> float:
    """Return the Voronoi loss D of a prompt fit.

    D is 0 exactly where the fitted prompts are the true ones up to order and symmetries. The arguments and
    errors are those of ``prompt_errors``.

    >>> import moe_prompts as mp
    >>> truth = mp.prompt_truth("attention-tanh").params
    >>> mp.prompt_loss(truth.chosen([1, 0]), truth)
    0.0
    """
    return prompt_errors(fitted, truth).loss


def _representatives(params: PromptAttention) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return atoms and W2 under every permutation, and sign where sigma is odd, of the hidden units."""
    if not params.kind.shares_w2:
        return [(params.atoms, np.zeros((0, 0)))]
    r = params.W2.shape[1]
    if r > MAX_HIDDEN:
        raise InputError(
            f"prompt loss: {r} hidden units; expected at most {MAX_HIDDEN}, their permutations are tried one by one"
        )
    W1 = params.atoms.reshape(params.k, r, -1)
    signs = list(product((1.0, -1.0), repeat=r)) if params.kind.activation.odd else [(1.0,) * r]
    return [
        (
            (W1[:, list(order)] * np.array(sign)[:, None]).reshape(params.k, -1),
            params.W2[:, list(order)] * np.array(sign),
        )
        for order in permutations(range(r))
        for sign in signs
    ]


def _errors(fitted: PromptAttention, truth: PromptAttention, atoms: np.ndarray, w2: np.ndarray) -> PromptErrors:
    distance = np.linalg.norm(atoms[:, None] - truth.atoms, axis=2)
    labels = distance.argmin(axis=1)
    masses = np.exp(fitted.b)
    return PromptErrors(
        labels=labels,
        masses=masses,
        offsets=atoms - truth.atoms[labels],
        mass=np.bincount(labels, weights=masses, minlength=truth.k) - np.exp(truth.b),
        w2_error=float(np.linalg.norm(w2 - truth.W2)) if w2.size else 0.0,
        factor_error=float(np.abs(fitted.factor - truth.factor).sum()),
    )

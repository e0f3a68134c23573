"""Measure atoms by cell: the farthest of those alone in one, and the spread of those that share one."""

from __future__ import annotations

import numpy as np


def farthest(distances: np.ndarray, alone: np.ndarray) -> float:
    """Return the largest of the distances (k,) of atoms that are ``alone`` (k,); NaN where there is none."""
    return float(distances[alone].max()) if alone.any() else np.nan


def root_mean_square(distances: np.ndarray, weights: np.ndarray, shared: np.ndarray) -> float:
    """Return the weighted root mean square of the distances of atoms that share a cell; NaN where none do.

    distances  (k,)  of each atom from the true one of its cell
    weights    (k,)  of the atoms, positive
    shared     (k,)  which of them share a cell
    """
    if not shared.any():
        return np.nan
    own = weights[shared]
    return float(np.sqrt((own * distances[shared] ** 2).sum() / own.sum()))

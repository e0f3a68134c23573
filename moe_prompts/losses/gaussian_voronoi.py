"""Measure Gaussian-gated fits by Voronoi losses: how far atoms are from the true ones, cell by cell.

Each fitted atom belongs to the cell of its nearest true atom. A cell that holds one atom is measured
linearly. One that holds m atoms is measured with powers of rbar(m) = 2 m, since m atoms can hide m - 1 splits
behind one true atom:

    D = sum_cells |mass difference| + sum_{one atom} pi (|dc| + |dGamma| + |dA| + |db| + |dnu|)
        + sum_{m > 1 atoms} pi (|dc|^r + |dGamma|^{r/2} + |dA|^{a} + |db|^r + |dnu|^{r/2}),   r = rbar(m).

Published type I (all c* != 0) has a = 2; type II has a = r/2 in cells with c* = 0; the intrinsic loss has a =
r/2 in every cell (derived in this project: the split into types is not intrinsic).

Source: arXiv 2305.07572 (losses of type I and II); rbar(2) and rbar(3) from Ho and Nguyen, Annals of
Statistics 2016.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from moe_prompts.checks import expect, parameters, whole
from moe_prompts.errors import InputError
from moe_prompts.losses.cells import farthest, root_mean_square
from moe_prompts.models.gaussian_gated import GaussianGatedMoE
from moe_prompts.shown import Shown

GROUPS = {"c": "gate_means", "Gamma": "gate_covs", "A": "slopes", "b": "intercepts", "nu": "noise_covs"}
Variant = Literal["type1", "type2", "intrinsic"]


def rbar(m: int) -> int:
    """Return the smallest order at which m atoms stop cancelling.

    It is 2 m for m >= 2 (published for m = 2, 3) and 1 for one atom.
    """
    return 1 if m == 1 else 2 * m


def group_distances(fitted: GaussianGatedMoE, truth: GaussianGatedMoE) -> np.ndarray:
    """Return the Frobenius norms of all differences, by group of parameters (5, k, k_true).

    Groups are in the order of ``GROUPS``.

    Raises ``InputError`` where fit and truth have other inputs or outputs.
    """
    expect(fitted, GaussianGatedMoE, "Voronoi loss: fitted")
    expect(truth, GaussianGatedMoE, "Voronoi loss: truth")
    if (fitted.d, fitted.l) != (truth.d, truth.l):
        raise InputError(
            f"Voronoi loss: fitted atoms have d = {fitted.d}, l = {fitted.l}; "
            f"the truth has d = {truth.d}, l = {truth.l}"
        )
    distances = []
    for name in GROUPS.values():
        a, b = getattr(fitted, name), getattr(truth, name)
        difference = (a[:, None] - b[None]).reshape(fitted.k, truth.k, -1)
        distances.append(np.sqrt((difference**2).sum(axis=2)))
    return np.array(distances)


def cells(fitted: GaussianGatedMoE, truth: GaussianGatedMoE) -> np.ndarray:
    """Return the nearest true atom of each fitted one (k,).

    Nearest is meant in |dc| + |dGamma| + |dA| + |db| + |dnu|; ties go to the first.
    """
    return group_distances(fitted, truth).sum(axis=0).argmin(axis=1)


def voronoi_loss(
    fitted: GaussianGatedMoE | Any, truth: GaussianGatedMoE | Any, variant: Variant = "intrinsic"
) -> float:
    """Return the Voronoi loss D of a Gaussian-gated fit.

    fitted   the fit, or its parameters
    truth    the true parameters
    variant  powers: "type1" and "type2" as published, or "intrinsic"

    D is 0 exactly where the fitted parameters are the truth, whatever the order of the atoms.

    Raises ``InputError`` where fit and truth have other inputs or outputs, or for another variant.

    >>> import moe_prompts as mp
    >>> truth = mp.truth("gmoe-1").params
    >>> mp.voronoi_loss(truth.atoms([2, 0, 1]), truth)
    0.0
    """
    return voronoi_errors(fitted, truth).loss(variant)


@dataclass(frozen=True, repr=False)
class VoronoiErrors(Shown):
    """Hold the pieces of the losses.

    labels      (k,)       cell of each fitted atom
    cell_sizes  (k_true,)  fitted atoms in each cell; empty cells have 0
    mass        (k_true,)  fitted mass - true mass in each cell
    distances   (5, k)     per group (``GROUPS``), from each fitted atom to its true one
    weights     (k,)       pi of the fitted atoms
    centred     (k_true,)  whether c* = 0 in that cell
    free        (k,)       False for frozen atoms: known, so no error of theirs is reported
    """

    labels: np.ndarray
    cell_sizes: np.ndarray
    mass: np.ndarray
    distances: np.ndarray
    weights: np.ndarray
    centred: np.ndarray
    free: np.ndarray

    def loss(self, variant: Variant) -> float:
        """Return D with the powers of the variant.

        Raises ``InputError`` for an unknown variant.
        """
        powers = np.array([self._powers(int(m), variant, bool(c)) for m, c in zip(self._m, self._c, strict=True)])
        return float(np.abs(self.mass).sum() + (self.weights * (self.distances.T**powers).sum(axis=1)).sum())

    @property
    def _m(self) -> np.ndarray:
        return self.cell_sizes[self.labels]

    @property
    def _c(self) -> np.ndarray:
        return self.centred[self.labels]

    @staticmethod
    def _powers(m: int, variant: Variant, centred: bool) -> tuple[float, ...]:
        """Return the powers of (c, Gamma, A, b, nu) in a cell of m atoms."""
        if variant not in ("type1", "type2", "intrinsic"):
            raise InputError(f"Voronoi loss: variant = {variant!r}; expected 'type1', 'type2' or 'intrinsic'")
        if m == 1:
            return (1.0,) * 5
        r = rbar(m)
        slope = r / 2 if variant == "intrinsic" or (variant == "type2" and centred) else 2.0
        return (float(r), r / 2, slope, float(r), r / 2)

    @property
    def mass_error(self) -> float:
        """Return the sum over cells of |fitted mass - true mass|."""
        return float(np.abs(self.mass).sum())

    @property
    def singleton_error(self) -> float:
        """Return the largest distance (all groups) of a free atom that is alone in its cell.

        It is NaN where there is none.
        """
        return farthest(self.distances.sum(axis=0), self.free & (self._m == 1))

    @property
    def split_rms(self) -> float:
        """Return the pi-weighted root mean square distance of the atoms that share a cell.

        It is NaN where none do.
        """
        return root_mean_square(self.distances.sum(axis=0), self.weights, self._m > 1)

    def singleton_lengths(self) -> dict[str, float]:
        """Return per group the largest distance of a free atom that is alone in its cell.

        It is NaN where there is none.
        """
        alone = self.distances[:, self.free & (self._m == 1)]
        return {name: float(row.max()) if len(row) else np.nan for name, row in zip(GROUPS, alone, strict=True)}

    def split_lengths(self) -> dict[str, float]:
        """Return per group (sum pi |.|^p)^(1/p) over atoms that share a cell, p the group's intrinsic power.

        Cells of m atoms have their own p; the lengths of different m are added. Only such weighted lengths
        can be compared with theory: it bounds pi |.|^p, not |.|. They are NaN where no atoms share a cell.
        """
        lengths = {}
        for group, name in enumerate(GROUPS):
            total = 0.0
            for m in np.unique(self._m[self._m > 1]):
                power = self._powers(int(m), "intrinsic", False)[group]
                here = self._m == m
                total += float((self.weights[here] * self.distances[group, here] ** power).sum() ** (1 / power))
            lengths[name] = total if (self._m > 1).any() else np.nan
        return lengths


def voronoi_errors(fitted: GaussianGatedMoE | Any, truth: GaussianGatedMoE | Any, n_frozen: int = 0) -> VoronoiErrors:
    """Return the pieces of the losses of a Gaussian-gated fit.

    fitted    the fit
    truth     the true parameters
    n_frozen  how many of the last fitted atoms are frozen ones

    Raises ``InputError`` where fit and truth have other inputs or outputs.

    >>> import moe_prompts as mp
    >>> truth = mp.truth("gmoe-1").params
    >>> mp.voronoi_errors(truth.atoms([0, 0, 1, 2]), truth).cell_sizes
    array([2, 1, 1])
    """
    fitted, truth = parameters(fitted), parameters(truth)
    distances = group_distances(fitted, truth)
    n_frozen = whole(n_frozen, 0, "voronoi_errors: n_frozen")
    labels = distances.sum(axis=0).argmin(axis=1)
    return VoronoiErrors(
        labels=labels,
        cell_sizes=np.bincount(labels, minlength=truth.k),
        mass=np.bincount(labels, weights=fitted.weights, minlength=truth.k) - truth.weights,
        distances=distances[:, np.arange(fitted.k), labels],
        weights=np.asarray(fitted.weights),
        centred=(truth.gate_means == 0).all(axis=1),
        free=np.arange(fitted.k) < fitted.k - n_frozen,
    )

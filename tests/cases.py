"""One table of families: every general test asks the same questions of each row. A new family is one more row."""

from __future__ import annotations

import numpy as np

from moe_prompts.models.gaussian_gated import GaussianGatedFamily, GaussianGatedMoE


def random_params(rng: np.random.Generator, k: int, d: int, l: int) -> GaussianGatedMoE:
    """Well-conditioned parameters of k atoms."""

    def covariances(size: int) -> np.ndarray:
        root = rng.standard_normal((k, size, size))
        return root @ root.swapaxes(1, 2) / size + 0.3 * np.eye(size)

    weights = rng.uniform(0.5, 1.5, k)
    return GaussianGatedMoE(
        weights / weights.sum(),
        1.5 * rng.standard_normal((k, d)),
        covariances(d),
        rng.standard_normal((k, l, d)),
        rng.standard_normal((k, l)),
        0.3 * covariances(l),
    )


_FROZEN = {(d, l): random_params(np.random.default_rng([d, l]), 2, d, l) for d, l in ((1, 1), (2, 1), (1, 2))}

FAMILIES = {
    "affine": GaussianGatedFamily(1, 1, 3),
    "one atom": GaussianGatedFamily(1, 1, 1),
    "affine, d = 2": GaussianGatedFamily(2, 1, 2),
    "affine, l = 2": GaussianGatedFamily(1, 2, 2),
    "affine, d = l = 2, tied": GaussianGatedFamily(2, 2, 2, tied_gate=True),
    "constant": GaussianGatedFamily(1, 1, 3, "constant"),
    "constant, tied": GaussianGatedFamily(2, 1, 3, "constant", tied_gate=True),
    "affine beside frozen": GaussianGatedFamily(1, 1, 2, frozen=_FROZEN[1, 1]),
    "constant beside frozen": GaussianGatedFamily(1, 2, 3, "constant", frozen=_FROZEN[1, 2]),
    "tied beside frozen, d = 2": GaussianGatedFamily(2, 1, 2, tied_gate=True, frozen=_FROZEN[2, 1]),
}


def member(family: GaussianGatedFamily, seed: int) -> GaussianGatedMoE:
    """Random parameters inside the family."""
    return family.project(random_params(np.random.default_rng([seed, 1]), family.k, family.d, family.l))

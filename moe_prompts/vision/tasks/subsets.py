"""Choose stratified subsets that contain each other: all are beginnings of one random order of the pool.

Image number r of a class of m, in random order within the class, has the place (r + 1/2) / m, and images are
sorted by place; only the first image of every class comes before all others. Any beginning then holds at
least one image per class, and each class in its share of the pool, up to one image beyond those first ones.
"""

from __future__ import annotations

import numpy as np

from moe_prompts.errors import InputError


def stratified_subset(labels: np.ndarray, size: float | int, rng: np.random.Generator) -> np.ndarray:
    """Return the ascending indices of a stratified subset of images with these ``labels`` (n,).

    size  a fraction of the pool in (0, 1] (float), or a number of images (int); a fraction is rounded, and
          raised to one image per class
    rng   in the same state for every size: then a smaller subset is contained in a larger one

    Raises ``InputError`` for a size out of range.
    """
    classes = len(np.unique(labels))
    if isinstance(size, (int, np.integer)):
        if not classes <= size <= len(labels):
            raise InputError(
                f"a subset of {size} images; expected at least one for each of the {classes} classes and at most the "
                f"{len(labels)} of the pool"
            )
        number = int(size)
    else:
        if not 0 < size <= 1:
            raise InputError(f"a fraction of {size}; expected more than 0 and at most 1, as 0.1")
        number = max(classes, round(size * len(labels)))
    return np.sort(stratified_order(labels, rng)[:number])


def stratified_order(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return all indices (n,) in a random order of which every beginning is stratified."""
    shuffled = rng.permutation(len(labels))
    _, inverse, counts = np.unique(labels[shuffled], return_inverse=True, return_counts=True)
    by_class = np.argsort(inverse, kind="stable")
    rank = np.empty(len(labels), dtype=int)
    rank[by_class] = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    place = np.where(rank == 0, 0.0, (rank + 0.5) / counts[inverse])
    # Stable, so that ties keep the random order.
    return shuffled[np.argsort(place, kind="stable")]

"""Describe a task: named splits of labelled images, the same for every method.

    train800 + val200 tune,   train800val200 trains the final models,   test is read once, by them

Pixels are bytes; normalisation belongs to the training protocol, which works on copies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from moe_prompts.errors import InputError

#: What the names of some tasks begin with: of those drawn here, of FGVC's, and of plain folders.
STAND_IN, FGVC, FOLDER = "stand-in:", "fgvc:", "folder:"
SPLITS = ("train800", "val200", "train800val200", "test")


class ImageSet(Protocol):
    """Describe the images of one split with their labels."""

    @property
    def labels(self) -> np.ndarray:
        """Return the labels (n,), whole numbers from 0."""
        ...

    def batch(self, indices: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """Return the images with these indices as a new array of bytes (B, H, W, 3).

        rng  draws the augmentation of training, where the task has one; None: none
        """
        ...


class Task(Protocol):
    """Describe a task: what it is called, what its images are, and its splits."""

    @property
    def name(self) -> str:
        """Return the name of the task."""
        ...

    @property
    def group(self) -> str:
        """Return the group of tasks that it belongs to, as "natural"."""
        ...

    @property
    def classes(self) -> int:
        """Return the number of classes."""
        ...

    @property
    def size(self) -> int:
        """Return the side of its images in pixels."""
        ...

    @property
    def facts(self) -> dict[str, Any]:
        """Return what results must say about the data."""
        ...

    def split(self, name: str) -> ImageSet:
        """Return the images of one of ``SPLITS``."""
        ...


@dataclass(frozen=True)
class Pixels:
    """Hold images in memory that cannot be changed.

    pixels  (n, H, W, 3) bytes
    labels  (n,) whole numbers from 0

    Raises ``InputError`` for arrays of other shapes or types.
    """

    pixels: np.ndarray
    labels: np.ndarray

    def __post_init__(self) -> None:
        if self.pixels.dtype != np.uint8 or self.pixels.ndim != 4 or self.pixels.shape[3] != 3:
            raise InputError(
                f"Pixels: pixels of shape {self.pixels.shape} and type {self.pixels.dtype}; expected bytes (n, H, W, 3)"
            )
        if self.labels.shape != (len(self.pixels),) or not np.issubdtype(self.labels.dtype, np.integer):
            raise InputError(
                f"Pixels: labels of shape {self.labels.shape} and type {self.labels.dtype}; expected whole numbers "
                f"({len(self.pixels)},)"
            )
        for values in (self.pixels, self.labels):
            values.setflags(write=False)

    def batch(self, indices: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """Return the images with these indices as a new array of bytes (B, H, W, 3); ``rng`` is not used."""
        return self.pixels[indices]


@dataclass(frozen=True)
class Subset:
    """Hold some images of a set, in the order of ``indices``."""

    images: ImageSet
    indices: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        """Return the labels of the chosen images."""
        return self.images.labels[self.indices]

    def batch(self, indices: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """Return the images with these numbers within the subset, as a new array of bytes (B, H, W, 3)."""
        return self.images.batch(self.indices[indices], rng)

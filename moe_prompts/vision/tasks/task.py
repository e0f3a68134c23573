"""A task: named splits of labelled images, the same for every method.

    train800 + val200 tune,   train800val200 trains the final models,   test is read once, by them

Pixels are bytes; normalisation belongs to the training protocol, which works on copies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from moe_prompts.errors import InputError

SPLITS = ("train800", "val200", "train800val200", "test")


class ImageSet(Protocol):
    """Images of one split with their labels (n,), whole numbers from 0."""

    @property
    def labels(self) -> np.ndarray: ...

    def batch(self, indices: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """A new array (B, H, W, 3) of bytes; ``rng`` draws the augmentation of training where the task has one."""
        ...


class Task(Protocol):
    """``size`` is the side of its images in pixels; ``facts`` is what results must say about the data."""

    @property
    def name(self) -> str: ...

    @property
    def group(self) -> str: ...

    @property
    def classes(self) -> int: ...

    @property
    def size(self) -> int: ...

    @property
    def facts(self) -> dict[str, Any]: ...

    def split(self, name: str) -> ImageSet:
        """One of ``SPLITS``."""
        ...


@dataclass(frozen=True)
class Pixels:
    """Images in memory that cannot be changed: pixels (n, H, W, 3), bytes; labels (n,)."""

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
        return self.pixels[indices]


@dataclass(frozen=True)
class Subset:
    """Some images of a set, in the order of ``indices``."""

    images: ImageSet
    indices: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        return self.images.labels[self.indices]

    def batch(self, indices: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        return self.images.batch(self.indices[indices], rng)

"""Render scenes of simple shapes on a ground, many at once, from their formulas.

    a pixel = the share of its 4 x 4 sample points p with f(R(angle)^T (p - centre) / radius) true

f says whether a point lies inside the shape (``SHAPES``). Coordinates are shares of the image's side, x to
the right and y down, so one scene can be drawn at any size. Nothing here is random: ``procedural`` draws the
scenes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from moe_prompts.errors import InputError

#: Sample points along each side of a pixel.
SAMPLES = 4
#: The heart (u^2 + v^2 - 1)^3 <= u^2 v^3 has its centroid at v = HEART_CENTRE and lies within HEART_RADIUS of
#: it.
HEART_CENTRE, HEART_RADIUS = 0.2935, 1.2935

Inside = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _square(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(u), np.abs(v)) <= math.sqrt(0.5)


def _ellipse(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return u * u + 4 * v * v <= 1


def _heart(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    u, v = HEART_RADIUS * u, HEART_CENTRE - HEART_RADIUS * v
    uu, vv = u * u, v * v
    curve = uu + vv - 1
    return curve * curve * curve <= uu * vv * v


def _disc(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return u * u + v * v <= 1


def _triangle(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(v, math.sqrt(0.75) * np.abs(u) - 0.5 * v) <= 0.5


#: Each lies inside the unit circle and has its centroid at 0.
SHAPES: dict[str, Inside] = {
    "square": _square,
    "ellipse": _ellipse,
    "heart": _heart,
    "disc": _disc,
    "triangle": _triangle,
}


def shape_ids(names: tuple[str, ...]) -> np.ndarray:
    """Return the numbers of these shapes in ``SHAPES``, shape (len(names),)."""
    return np.array([list(SHAPES).index(name) for name in names])


@dataclass(frozen=True)
class Scenes:
    """Hold n scenes of up to k objects that do not overlap and lie inside the image.

    labels  (n,)        the class of each scene
    shape   (n, k)      index into SHAPES
    centre  (n, k, 2)   x and y, as shares of the side
    radius  (n, k)      of the circle around the object, as a share of the side; 0: no such object
    angle   (n, k)      radians, clockwise
    colour  (n, k, 3)   red, green, blue in [0, 1]
    ground  (n, 3)      colour of the background
    waves   (n, w, 4)   plane waves on it: cycles along x, cycles along y, phase in radians, contrast

    Raises ``InputError`` if the shapes of the arrays do not fit together.
    """

    labels: np.ndarray
    shape: np.ndarray
    centre: np.ndarray
    radius: np.ndarray
    angle: np.ndarray
    colour: np.ndarray
    ground: np.ndarray
    waves: np.ndarray

    def __post_init__(self) -> None:
        n, k = self.radius.shape
        w = self.waves.shape[1]
        expected = {
            "labels": (n,),
            "shape": (n, k),
            "centre": (n, k, 2),
            "angle": (n, k),
            "colour": (n, k, 3),
            "ground": (n, 3),
            "waves": (n, w, 4),
        }
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise InputError(f"Scenes: {name} of shape {getattr(self, name).shape}; expected {shape}")


def render(scenes: Scenes, size: int) -> np.ndarray:
    """Return the scenes as images: bytes (n, size, size, 3).

    size  side of the images in pixels
    """
    images = grounds(scenes.ground, scenes.waves, size)
    which, slot = np.nonzero(scenes.radius > 0)
    if len(which):
        patches, corner = _patches(scenes, which, slot, size)
        colour = scenes.colour.astype(np.float32)
        for k in range(scenes.radius.shape[1]):
            at = slot == k
            paste(images, which[at], patches[at], corner[at], colour[which[at], k])
    return (images * 255 + 0.5).astype(np.uint8)


def grounds(ground: np.ndarray, waves: np.ndarray, size: int) -> np.ndarray:
    """Return the backgrounds of n images as floats (n, size, size, 3), before any object is drawn.

        ground + sum_w contrast_w sin(2 pi (cycles_w . p) + phase_w),   the same in all three colours

    ground  (n, 3) colours in [0, 1]
    waves   (n, w, 4) as in ``Scenes``
    """
    images = np.empty((len(ground), size, size, 3), np.float32)
    images[:] = ground[:, None, None, :]
    if waves.any():
        axis = (np.arange(size) + 0.5) / size
        across, down, phase, contrast = waves.transpose(2, 0, 1)[..., None]
        x, y = 2 * np.pi * across * axis + phase, 2 * np.pi * down * axis
        # sin(x + y), with n w size sines in place of n w size^2.
        basis_x = np.concatenate([np.sin(x), np.cos(x)], axis=1)
        basis_y = np.concatenate([contrast * np.cos(y), contrast * np.sin(y)], axis=1)
        images += np.matmul(basis_y.transpose(0, 2, 1), basis_x).astype(np.float32)[..., None]
    return images


def _patches(scenes: Scenes, which: np.ndarray, slot: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return what share of each pixel each object covers, and where its window lies.

    The shares are (objects, side, side) on square windows around the objects; the windows' first pixels are
    (objects, 2), x and y.
    """
    centre = scenes.centre[which, slot] * size
    radius = scenes.radius[which, slot] * size
    angle, shape = scenes.angle[which, slot], scenes.shape[which, slot]
    x, y, corner = windows(centre, radius, size, SAMPLES)
    side = x.shape[1] // SAMPLES
    patches = np.empty((len(which), side, side), np.float32)
    for index, inside in enumerate(SHAPES.values()):
        at = np.flatnonzero(shape == index)
        if len(at):
            patches[at] = _shares(inside(*turned(x[at], y[at], angle[at])))
    return patches, corner


def windows(
    centre: np.ndarray, radius: np.ndarray, size: int, samples: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return square windows around circles, as sample points and first pixels.

    centre   (n, 2) in pixels
    radius   (n,) in pixels; the largest one fixes the side of all windows
    size     side of the image in pixels; windows lie inside it
    samples  sample points along each side of a pixel

    The result is the sample points' coordinates along x and along y, each (n, side * samples), measured from
    the centre in radii; and the windows' first pixels (n, 2), x and y.
    """
    side = min(math.ceil(2 * radius.max()) + 1, size)
    corner = np.clip(np.floor(centre - radius[:, None]).astype(int), 0, size - side)
    steps = (np.arange(side * samples) + 0.5) / samples
    x, y = (((corner - centre)[:, axis, None] + steps) / radius[:, None] for axis in (0, 1))
    return x.astype(np.float32), y.astype(np.float32), corner


def turned(x: np.ndarray, y: np.ndarray, angle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the coordinates of a window's points in the frame of an object that is turned clockwise.

    x, y   (n, side * samples), as ``windows`` gives them
    angle  (n,) in radians

    Both results are (n, len(y), len(x)): the grid of all pairs.
    """
    cos, sin = np.cos(angle, dtype=np.float32)[:, None], np.sin(angle, dtype=np.float32)[:, None]
    u = (cos * x)[:, None, :] + (sin * y)[:, :, None]
    v = (cos * y)[:, :, None] - (sin * x)[:, None, :]
    return u, v


def _shares(inside: np.ndarray) -> np.ndarray:
    """Return the mean over each pixel, (n, side, side), of booleans (n, side * SAMPLES, side * SAMPLES)."""
    counts = inside.view(np.uint8)
    for _ in ("rows", "columns"):
        # Strided sums of bytes: reductions over axes of length 4 are several times slower.
        counts = np.add.reduce([counts[:, first::SAMPLES] for first in range(SAMPLES)], dtype=np.uint8)
        counts = counts.transpose(0, 2, 1)
    return counts.astype(np.float32) / SAMPLES**2


def paste(images: np.ndarray, which: np.ndarray, patches: np.ndarray, corner: np.ndarray, colour: np.ndarray) -> None:
    """Blend one object into each of the images ``which``, in place.

    images   (n, size, size, 3) floats, changed here
    which    (m,) numbers of images
    patches  (m, side, side) share of each pixel that the object covers
    corner   (m, 2) the patch's first pixel, x and y
    colour   (m, 3) in [0, 1]
    """
    side = patches.shape[1]
    # Windows as one view: indexing single pixels is several times slower.
    views = np.lib.stride_tricks.sliding_window_view(images, (side, side), axis=(1, 2), writeable=True)
    at = (which, corner[:, 1], corner[:, 0])
    under = views[at]
    views[at] = under + patches[:, None] * (colour[:, :, None, None] - under)

"""Draw images for pretraining by formula, together with the numbers in the formula, which are learned.

    an object:  rho <= (1 + sum_{h=2}^{5} a_h cos(h theta + p_h)) / max,   or only the band near that contour

Scenes hold one contour, several, or a pair of one colour. No shape of the stand-in tasks is drawn; the
questions (where, how turned, how many, how far apart) are of the same kind, and that is the point of this
pretraining.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from moe_prompts.seeds import rng_at
from moe_prompts.vision.tasks.drawing import grounds, paste, turned, windows
from moe_prompts.vision.tasks.procedural import place

CONTOURS = 16
HARMONICS = (0, 2, 3, 4, 5)
#: Questions and their numbers of answers; where a scene has no answer the target is NONE.
HEADS = {
    "x": 64,
    "y": 64,
    "radius": 6,
    "contour": CONTOURS,
    "turn": 16,
    "axis": 8,
    "hollow": 2,
    "number": 8,
    "apart": 8,
    "along": 8,
    "waves": 8,
}
NONE = -1
BLOCK = 64
SLOTS = 8


@cache
def contours() -> np.ndarray:
    """Return the cosine and sine coefficients (2, CONTOURS, 5) of the classes' radii r(theta).

    The last axis is that of HARMONICS; the largest r of each class is 1.
    """
    rng = rng_at(0, "pretraining contours")
    amplitudes = rng.dirichlet(np.ones(4), CONTOURS) * rng.uniform(0.4, 0.7, (CONTOURS, 1))
    amplitudes[::2, 0] += 0.3  # every other one is long
    phases = 2 * np.pi * rng.random((CONTOURS, 4))
    values = np.ones((2, CONTOURS, 5))
    values[0, :, 1:], values[1, :, 1:] = amplitudes * np.cos(phases), -amplitudes * np.sin(phases)
    values[1, :, 0] = 0
    theta = 2 * np.pi * np.arange(720) / 720
    waves = [
        values[0, :, i, None] * np.cos(h * theta) + values[1, :, i, None] * np.sin(h * theta)
        for i, h in enumerate(HARMONICS)
    ]
    values /= np.sum(waves, axis=0).max(axis=1)[:, None]
    values.setflags(write=False)
    return values


@cache
def long_axes() -> np.ndarray:
    """Return the angles (CONTOURS,) in [0, pi) of the contours' long axes.

    They are NaN for contours that are less than half as long again as they are wide.
    """
    axis = (np.arange(200) + 0.5) / 100 - 1
    u, v = (values[None].astype(np.float32) for values in np.meshgrid(axis, axis))
    rho = np.hypot(u, v)
    found = np.full(CONTOURS, np.nan)
    for contour in range(CONTOURS):
        inside = reach(np.array([contour]), u / rho, v / rho) >= rho
        spread = np.cov(np.stack([u[inside], v[inside]]))
        small, large = np.sqrt(np.linalg.eigvalsh(spread))
        if large > 1.5 * small:
            found[contour] = 0.5 * np.arctan2(2 * spread[0, 1], spread[0, 0] - spread[1, 1]) % np.pi
    found.setflags(write=False)
    return found


def reach(contour: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> np.ndarray:
    """Return the radii r(theta), (n, h, w), of contours in given directions; at most 1.

    contour   (n,) classes
    cos, sin  (n, h, w), of theta
    """
    along, across = contours()[:, contour, :, None, None].astype(np.float32)
    total, c, s = np.broadcast_to(along[:, 0], cos.shape).copy(), cos, sin
    for i in range(1, len(HARMONICS)):
        # cos((h + 1) theta) and sin((h + 1) theta) by rotation.
        c, s = c * cos - s * sin, s * cos + c * sin
        total += along[:, i] * c
        total += across[:, i] * s
    return total


def pretraining_block(block: int, size: int, entropy: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return 64 images and their answers.

    The images are (BLOCK, size, size, 3) bytes; for each of ``HEADS`` the answers are (BLOCK,), ``NONE``
    where a scene has none.

    block  number of the block; with ``entropy`` it is the seed
    size   side in pixels
    """
    rng = rng_at(entropy, "pretraining", block)
    kind = rng.choice(4, size=BLOCK, p=[0.35, 0.2, 0.25, 0.2])
    one, pair, field = kind == 0, kind == 2, kind == 3
    company = np.maximum(rng.integers(-1, 3, size=BLOCK), 0)
    number = np.select([one, pair, field], [1, 2 + company, 0], 1 + rng.integers(SLOTS, size=BLOCK))
    alone = 0.1 + 0.3 * rng.random(BLOCK)
    several = 0.045 + 0.05 * rng.random((BLOCK, 1)) + 0.015 * rng.random((BLOCK, SLOTS))
    radius = np.where(one[:, None], alone[:, None], several) * (np.arange(SLOTS) < number[:, None])
    # An object without room is left out, and counted so.
    centre, radius = place(rng, -np.sort(-radius), np.zeros((BLOCK, SLOTS, 2)), 0, 0.0)
    contour, angle = rng.integers(CONTOURS, size=radius.shape), 2 * np.pi * rng.random(radius.shape)
    hollow = rng.integers(2, size=(BLOCK, 1)) * one[:, None]
    ground, waves, cycles = _ground(rng, one)
    colour = _colour(rng, one, pair)
    images = grounds(ground, waves, size)
    for slot in range(SLOTS):
        at = np.flatnonzero(radius[:, slot] > 0)
        if len(at):
            _draw(
                images,
                at,
                centre[at, slot],
                radius[at, slot],
                contour[at, slot],
                angle[at, slot],
                hollow[at, 0],
                colour[at, slot],
            )
    images[field] = _fields(rng, int(field.sum()), size)
    apart = centre[:, 0] - centre[:, 1]
    long = long_axes()[contour[:, 0]]
    both = pair & (radius[:, 1] > 0)
    answers = {
        "x": _bins(centre[:, 0, 0], 0, 1, 64, one),
        "y": _bins(centre[:, 0, 1], 0, 1, 64, one),
        "radius": _bins(radius[:, 0], 0.1, 0.4, 6, one),
        "contour": np.where(one, contour[:, 0], NONE),
        "turn": _bins(angle[:, 0], 0, 2 * np.pi, 16, one),
        "axis": _bins(np.nan_to_num(long + angle[:, 0]) % np.pi, 0, np.pi, 8, one & ~np.isnan(long)),
        "hollow": np.where(one, hollow[:, 0], NONE),
        "number": np.where(one | pair | field, NONE, (radius > 0).sum(axis=1) - 1),
        "apart": _bins(np.hypot(*apart.T), 0.15, 0.9, 8, both),
        "along": _bins(np.arctan2(apart[:, 1], apart[:, 0]) % np.pi, 0, np.pi, 8, both),
        "waves": np.where(field, NONE, cycles),
    }
    return (np.clip(images, 0, 1) * 255 + 0.5).astype(np.uint8), answers


def _bins(values: np.ndarray, low: float, high: float, number: int, known: np.ndarray) -> np.ndarray:
    return np.where(known, np.clip(((values - low) / (high - low) * number).astype(int), 0, number - 1), NONE)


def _ground(rng: np.random.Generator, one: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return colours (n, 3), a wave (n, 1, 4), and the wave's direction as answer.

    Single contours stand on black in six of ten images.
    """
    n = len(one)
    black = one & (rng.random(n) < 0.6)
    waved = ~black & (rng.random(n) < 0.5)
    towards, cycles = np.pi * rng.random(n), 1.5 + 4.5 * rng.random(n)
    contrast = (0.02 + 0.08 * rng.random(n)) * waved
    phase = 2 * np.pi * rng.random(n)
    waves = np.stack([cycles * np.cos(towards), cycles * np.sin(towards), phase, contrast], axis=1)[:, None]
    ground = np.where(black[:, None], 0, rng.uniform(0.4, 0.6, (n, 3)))
    return ground, waves, _bins(towards, 0, np.pi, 8, waved)


def _fields(rng: np.random.Generator, number: int, size: int) -> np.ndarray:
    """Return soft-edged patches of light in grey: 1 / (1 + exp(-4 (sum of four slow waves)))."""
    waves = np.empty((number, 4, 4))
    waves[..., :2] = rng.uniform(-2.5, 2.5, (number, 4, 2))
    waves[..., 2] = 2 * np.pi * rng.random((number, 4))
    waves[..., 3] = rng.uniform(0.3, 1, (number, 4))
    return 1 / (1 + np.exp(-4 * grounds(rng.uniform(-1, 0.5, (number, 1)) * np.ones(3), waves, size)))


def _colour(rng: np.random.Generator, one: np.ndarray, pair: np.ndarray) -> np.ndarray:
    """Return colours (n, SLOTS, 3): corners of the colour cube, blurred.

    Single objects are often white; those of the pair are red, and its company is not.
    """
    n = len(one)
    colour = 0.85 * rng.integers(2, size=(n, SLOTS, 3)) + 0.15 * rng.random((n, SLOTS, 3))
    white = one & (rng.random(n) < 0.6)
    colour[white, 0] = 1 - 0.3 * rng.random((int(white.sum()), 1))
    colour[pair, :2] = np.array([0.85, 0, 0]) + 0.15 * rng.random((int(pair.sum()), 2, 3))
    colour[pair, 2:, 0] = 0.15 * rng.random((int(pair.sum()), SLOTS - 2))
    dark = one & (colour[:, 0].max(axis=1) < 0.5)
    colour[dark, 0] = 1 - colour[dark, 0]
    return colour


def _draw(images, at, centre, radius, contour, angle, hollow, colour) -> None:
    """Blend one contour into each of the images ``at``; edges run over one pixel."""
    size = images.shape[1]
    x, y, corner = windows(centre * size, radius * size, size, 1)
    u, v = turned(x, y, angle)
    rho = np.sqrt(u * u + v * v) + np.float32(1e-6)
    inward = (reach(contour, u / rho, v / rho) - rho) * (radius * size).astype(np.float32)[:, None, None]
    share = np.clip(0.5 + inward, 0, 1)
    # A band of 0.35 radii, never thinner than a pixel.
    band = np.maximum(0.35 * radius * size, 1).astype(np.float32)[:, None, None]
    share = np.where(hollow[:, None, None] == 1, np.minimum(share, np.clip(0.5 + band - inward, 0, 1)), share)
    paste(images, at, share, corner, colour.astype(np.float32))

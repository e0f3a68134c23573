"""Draw stand-in tasks that need no download: five kinds of scenes by formula, and digits of 8 x 8 pixels.

    image i of a task = a function of (entropy, task, role, i) and the size; roles: train, test, fresh

The scenes are sprites with dSprites' factors, objects to count, a distance to judge, letters to read
(``letters``) and solid bodies under a light (``solids``). Labels are drawn uniformly, and with them a scene.
The tasks stand in for tasks of VTAB-1K and are not those data: numbers on them compare methods with each
other, never with published tables.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from moe_prompts.errors import InputError
from moe_prompts.seeds import rng_at
from moe_prompts.vision.tasks.drawing import Scenes, render, shape_ids
from moe_prompts.vision.tasks.letters import LETTERS, lines, render_lines
from moe_prompts.vision.tasks.solids import AZIMUTHS, ELEVATIONS, bodies, render_bodies
from moe_prompts.vision.tasks.task import SPLITS, ImageSet, Pixels, Subset

#: Sides of an image in pixels, lowest and highest.
SIZES = (8, 1024)
#: Scenes drawn from one generator: the address of a block is (entropy; name, role, block).
BLOCK = 64
TEST = 2000
#: Proposals for the place of one object before it is given up.
TRIES = 16
#: Free space between objects, as a share of the side.
GAP = 0.05


class Labelled(Protocol):
    """Describe scenes: factors of n images, from which their pixels follow."""

    @property
    def labels(self) -> np.ndarray:
        """Return the class of each scene (n,)."""
        ...


@dataclass(frozen=True)
class Formula:
    """Hold how one task is drawn.

    classes  number of classes
    scenes   ``scenes(rng, number)`` draws so many scenes
    rule     the rule in words, for results
    render   ``render(scenes, size)`` returns their images as bytes (n, size, size, 3)
    """

    classes: int
    scenes: Callable[[np.random.Generator, int], Labelled]
    rule: str
    render: Callable[[Any, int], np.ndarray] = render


def dsprites(rng: np.random.Generator, number: int, label: str) -> Scenes:
    """Draw scenes of one white sprite on black with dSprites' five factors.

    label  "place": the class is the sprite's place along x; "turn": its orientation. 16 classes either way
    """
    labels = rng.integers(16, size=number)
    place, turn = rng.integers(32, size=(number, 2)), rng.integers(40, size=number)
    if label == "place":
        place[:, 0] = 2 * labels + rng.integers(2, size=number)
    else:
        # Class c holds the orientations with floor(k 16 / 40) = c: three, then two of the forty.
        first, after = -(-5 * labels // 2), -(-5 * (labels + 1) // 2)
        turn = rng.integers(first, after)
    return Scenes(
        labels=labels,
        shape=rng.choice(shape_ids(("square", "ellipse", "heart")), size=(number, 1)),
        centre=(0.25 + 0.5 * place / 31)[:, None],
        radius=0.25 * np.linspace(0.5, 1, 6)[rng.integers(6, size=(number, 1))],
        angle=2 * np.pi * turn[:, None] / 39,
        colour=np.ones((number, 1, 3)),
        ground=np.zeros((number, 3)),
        waves=np.zeros((number, 1, 4)),
    )


def count(rng: np.random.Generator, number: int) -> Scenes:
    """Draw scenes of 1 to 8 objects; the class is their number less 1.

    Sizes vary by image and by object, so the covered area says little about the number.
    """
    labels = rng.integers(8, size=number)
    drawn = 0.045 + 0.05 * rng.random((number, 1)) + 0.015 * rng.random((number, 8))
    # Largest first: a large object is hard to place late.
    radius = -np.sort(-np.where(np.arange(8) <= labels[:, None], drawn, 0.0))
    centre = np.zeros((number, 8, 2))
    rest = np.arange(number)
    while len(rest):
        centre[rest], found = place(rng, radius[rest], centre[rest], 0, GAP / 2)
        rest = rest[(found != radius[rest]).any(axis=1)]
    ground, waves = _texture(rng, number)
    return Scenes(
        labels,
        _shapes(rng, (number, 8)),
        centre,
        radius,
        _turns(rng, (number, 8)),
        _far_from_grey(rng, (number, 8)),
        ground,
        waves,
    )


#: Distances of the marked objects' centres: class c is [NEAREST + c STEP, NEAREST + (c + 1) STEP).
NEAREST, STEP = 0.22, 0.09


def distance(rng: np.random.Generator, number: int) -> Scenes:
    """Draw scenes of two red objects and up to two others; the class is the bin of the red ones' distance."""
    labels = rng.integers(6, size=number)
    apart = NEAREST + STEP * (labels + rng.random(number))
    towards = 2 * np.pi * rng.random(number)
    half = 0.5 * apart[:, None] * np.stack([np.cos(towards), np.sin(towards)], axis=1)
    radius = rng.uniform(0.055, 0.085, (number, 4))
    low = 0.09 + np.abs(half)
    middle = low + (1 - 2 * low) * rng.random((number, 2))
    centre = np.stack([middle - half, middle + half, middle, middle], axis=1)
    radius[:, 2:] *= np.arange(2) < rng.integers(3, size=(number, 1))
    centre, radius = place(rng, radius, centre, 2, GAP / 2)
    colour = _far_from_grey(rng, (number, 4))
    colour[:, :2] = np.array([0.85, 0, 0]) + 0.15 * rng.random((number, 2, 3))
    colour[:, 2:, 0] = 0.15 * rng.random((number, 2))
    ground, waves = _texture(rng, number)
    return Scenes(
        labels,
        _shapes(rng, (number, 4)),
        centre,
        radius,
        _turns(rng, (number, 4)),
        colour,
        ground,
        waves,
    )


def place(
    rng: np.random.Generator, radius: np.ndarray, centre: np.ndarray, first: int, border: float
) -> tuple[np.ndarray, np.ndarray]:
    """Draw places for objects, and return all centres (n, k, 2) and radii (n, k).

    radius  (n, k) as shares of the side
    centre  (n, k, 2), of which those before slot ``first`` stay
    first   the first slot that is drawn; an object there keeps off all earlier circles
    border  free space to the image's border, as a share of the side

    The radius is 0 where no room was found for an object in ``TRIES`` proposals.
    """
    centre, radius = centre.copy(), radius.copy()
    images = np.arange(len(radius))
    for slot in range(first, radius.shape[1]):
        low = radius[:, slot, None, None] + border
        tries = low + (1 - 2 * low) * rng.random((len(radius), TRIES, 2))
        offset = tries[:, :, None] - centre[:, None, :slot]
        needed = radius[:, slot, None] + radius[:, :slot] + GAP
        clash = (offset**2).sum(axis=3) < (needed**2)[:, None]
        free = ~(clash & (radius[:, None, :slot] > 0)).any(axis=2)
        centre[:, slot] = tries[images, free.argmax(axis=1)]
        radius[:, slot] *= free.any(axis=1)
    return centre, radius


def _shapes(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.choice(shape_ids(("disc", "square", "triangle")), size=shape)


def _turns(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return 2 * np.pi * rng.random(shape)


def _far_from_grey(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draw colours whose red, green and blue are each near 0 or near 1.

    On grey, brighter and darker objects are then equally likely.
    """
    return 0.85 * rng.integers(2, size=(*shape, 3)) + 0.15 * rng.random((*shape, 3))


def _texture(rng: np.random.Generator, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw grounds near grey: half of the images plain, half with two waves of contrast up to 0.06."""
    waves = np.empty((number, 2, 4))
    waves[..., :2] = rng.uniform(-6, 6, (number, 2, 2))
    waves[..., 2] = _turns(rng, (number, 2))
    waves[..., 3] = 0.06 * rng.random((number, 2)) * rng.integers(2, size=(number, 1))
    return rng.uniform(0.4, 0.6, (number, 3)), waves


_SPRITES = (
    "one white sprite on black: square, ellipse or heart, 6 scales 0.5 to 1, 40 orientations from 0 to 2 pi (both "
    "ends), 32 x 32 places; "
)
_BODIES = (
    "an animal, a person, an aeroplane, a truck or a car of up to 8 ellipsoids and boxes with proportions of its own, "
    "18 azimuths, 9 elevations from 30 to 70 degrees, light from one of 6 sides of the camera, shadow on the ground; "
)
FORMULAS = {
    "dsprites_loc": Formula(
        16,
        lambda rng, number: dsprites(rng, number, "place"),
        _SPRITES + "class = x-place // 2. Differs from dSprites: edges are smooth, sprites lie in circles of radius "
        "scale / 4 of the side around their centroids, whose places span the middle half",
    ),
    "dsprites_ori": Formula(
        16,
        lambda rng, number: dsprites(rng, number, "turn"),
        _SPRITES
        + "class = floor(orientation 16 / 40), classes equally likely (in dSprites those of three orientations "
        "are likelier than those of two). A square's quarter turns and an ellipse's half turns look almost the same, "
        "as there: no method reaches accuracy 1. Edges and sizes as in dsprites_loc",
    ),
    "count": Formula(
        8,
        count,
        "class = number of objects - 1: discs, squares, triangles that do not touch, radius 0.045 to 0.11 of the side "
        "most of it shared by the image, each brighter or darker than the grey, plain or wavy ground in each colour",
    ),
    "distance": Formula(
        6,
        distance,
        "class = bin of the distance of the two red objects' centres, uniform on [0.22, 0.76) of the side in 6 equal "
        "bins; up to two other objects that are not red; ground and shapes as in count",
    ),
    "letters": Formula(
        len(LETTERS),
        lines,
        "class = the capital letter in the middle; 20 fonts of matplotlib, a neighbour at either side, cut off by the "
        "border, turned by up to 11 degrees, brighter or darker than a wavy ground",
        render_lines,
    ),
    "azimuth": Formula(
        AZIMUTHS,
        lambda rng, number: bodies(rng, number, "azimuth"),
        _BODIES + "class = azimuth in steps of 20 degrees",
        render_bodies,
    ),
    "elevation": Formula(
        ELEVATIONS,
        lambda rng, number: bodies(rng, number, "elevation"),
        _BODIES + "class = elevation in steps of 5 degrees",
        render_bodies,
    ),
}
DIGITS_RULE = "scikit-learn's 1797 handwritten digits of 8 x 8 pixels, enlarged bilinearly; class = the digit"
DIGITS, DIGITS_TEST = 1797, 797
NAMES = (*FORMULAS, "digits")


@dataclass(frozen=True)
class Procedural:
    """Draw a stand-in task on first use; ``procedural_task`` makes one.

    The first 80 % of the training images are ``train800``, the rest ``val200``. A larger ``n_train`` has the
    images of a smaller one first, in the same order.

    name     one of ``NAMES``
    size     side of the images in pixels
    n_train  training and validation images together
    n_test   test images
    entropy  seed of all drawing

    Raises ``InputError`` for an unknown name or a number out of range.
    """

    name: str
    size: int
    n_train: int
    n_test: int
    entropy: int

    group = "stand-in"

    def __post_init__(self) -> None:
        _check(self.name, self.size, self.entropy)
        for key, least in (("n_train", 5), ("n_test", 1)):
            if getattr(self, key) < least:
                raise InputError(f"{self.name}: {key} {getattr(self, key)}; expected at least {least}")
        if self.name == "digits" and (self.n_train > DIGITS - DIGITS_TEST or self.n_test > DIGITS_TEST):
            raise InputError(
                f"digits: {self.n_train} training and {self.n_test} test images; it has {DIGITS - DIGITS_TEST} and "
                f"{DIGITS_TEST}: ask for no more, or take one of {', '.join(FORMULAS)}"
            )

    @property
    def classes(self) -> int:
        """Return the number of classes."""
        return 10 if self.name == "digits" else FORMULAS[self.name].classes

    @property
    def facts(self) -> dict[str, Any]:
        """Return what results must say about the data: that they stand in, their rule, and the arguments."""
        digits = self.name == "digits"
        return {
            "data": "stand-in, " + ("a small real set" if digits else "drawn by formula") + "; not VTAB-1K",
            "rule": DIGITS_RULE if digits else FORMULAS[self.name].rule,
            "format": "bytes in memory, no file",
            **{field.name: getattr(self, field.name) for field in fields(self)},
        }

    def split(self, name: str) -> ImageSet:
        """Return the images of one of ``SPLITS``; raise ``InputError`` for another name."""
        if name not in SPLITS:
            raise InputError(f"{self.name}: no split {name!r}; expected one of {', '.join(SPLITS)}")
        if name == "test":
            return self._test
        fit = round(0.8 * self.n_train)
        start, stop = {"train800": (0, fit), "val200": (fit, self.n_train)}.get(name, (0, self.n_train))
        return Subset(self._train, np.arange(start, stop))

    @cached_property
    def _train(self) -> Pixels:
        return self._images("train", self.n_train)

    @cached_property
    def _test(self) -> Pixels:
        return self._images("test", self.n_test)

    def _images(self, role: str, number: int) -> Pixels:
        if self.name == "digits":
            return _digits(self.size, 0 if role == "train" else DIGITS - DIGITS_TEST, number, self.entropy)
        return _drawn(self.name, role, self.size, 0, number, self.entropy)


def procedural_task(
    name: str, size: int = 32, n_train: int = 1000, n_test: int | None = None, entropy: int = 0
) -> Procedural:
    """Return the stand-in task ``name``, one of ``NAMES``.

    size     side of the images in pixels
    n_train  training and validation images together
    n_test   test images; None: 2000, or for digits the 797 that there are
    entropy  seed of all drawing

    Raises ``InputError`` for an unknown name or a number out of range.
    """
    if n_test is None:
        n_test = DIGITS_TEST if name == "digits" else TEST
    return Procedural(name, size, n_train, n_test, entropy)


def fresh(task_name: str, size: int, start: int, count: int, entropy: int) -> Pixels:
    """Return images start .. start + count - 1 of an endless row that shares no seed with any split.

    Images are seeded in blocks of 64, so whole blocks are the cheapest to ask for. Raises ``InputError`` for
    digits, which are finitely many, and for numbers out of range.
    """
    if task_name == "digits":
        raise InputError(f"fresh: digits are {DIGITS} images and no more; expected one of {', '.join(FORMULAS)}")
    _check(task_name, size, entropy)
    if start < 0 or count < 1:
        raise InputError(f"fresh: start {start}, count {count}; expected a start of at least 0, a count of at least 1")
    return _drawn(task_name, "fresh", size, start, count, entropy)


def block_scenes(name: str, role: str, block: int, entropy: int) -> Any:
    """Return one block of scenes of a drawn task, those from BLOCK * block to BLOCK * (block + 1) - 1.

    role  "train", "test" or "fresh"

    The result is ``drawing.Scenes``, ``letters.Lines`` or ``solids.Bodies``, as the task is drawn.
    """
    return FORMULAS[name].scenes(rng_at(entropy, "stand-in", name, role, block), BLOCK)


def _drawn(name: str, role: str, size: int, start: int, number: int, entropy: int) -> Pixels:
    chosen = []
    for block in range(start // BLOCK, -(-(start + number) // BLOCK)):
        scenes, first = block_scenes(name, role, block, entropy), BLOCK * block
        here = slice(max(start - first, 0), start + number - first)
        # A block is seeded as a whole; of its images those that are asked for are rendered.
        chosen.append(replace(scenes, **{one.name: getattr(scenes, one.name)[here] for one in fields(scenes)}))
    pixels = np.concatenate([FORMULAS[name].render(scenes, size) for scenes in chosen])
    return Pixels(pixels, np.concatenate([scenes.labels for scenes in chosen]))


def _digits(size: int, start: int, number: int, entropy: int) -> Pixels:
    """Return ``number`` digits from place ``start`` on, in an order that is drawn from the entropy."""
    from PIL import Image
    from sklearn.datasets import load_digits

    data = load_digits()
    order = rng_at(entropy, "stand-in", "digits").permutation(DIGITS)
    chosen = order[start : start + number]
    small = np.round(data.images[chosen] * (255 / 16)).astype(np.uint8)
    large = [np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR)) for image in small]
    return Pixels(np.repeat(np.stack(large)[..., None], 3, axis=3), data.target[chosen])


def _check(name: str, size: int, entropy: int) -> None:
    if name not in NAMES:
        raise InputError(f"no stand-in task {name!r}; expected one of {', '.join(NAMES)}")
    if not isinstance(size, int) or not SIZES[0] <= size <= SIZES[1]:
        raise InputError(f"{name}: size {size}; expected a whole number of pixels from {SIZES[0]} to {SIZES[1]}")
    if entropy < 0:
        raise InputError(f"{name}: entropy {entropy}; expected a whole number of at least 0")

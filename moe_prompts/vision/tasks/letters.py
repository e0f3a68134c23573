"""Draw capital letters in many fonts over textures, with a neighbour at either side, as in street numbers.

    a pixel = ground + (ink - ground) (mean over 3 x 3 points p of the glyph at R(angle)^T (p - centre) / em)

The fonts are those that matplotlib ships, so nothing is downloaded. The class is the letter in the middle;
its neighbours have the same font, height, turn and ink, and are cut off by the border of the image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from moe_prompts.errors import InputError
from moe_prompts.vision.tasks.drawing import grounds, paste, turned, windows

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
FONTS = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-BoldOblique",
    "DejaVuSans-Oblique",
    "DejaVuSansMono",
    "DejaVuSansMono-Bold",
    "DejaVuSansMono-BoldOblique",
    "DejaVuSansMono-Oblique",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "DejaVuSerif-BoldItalic",
    "DejaVuSerif-Italic",
    "STIXGeneral",
    "STIXGeneralBol",
    "STIXGeneralBolIta",
    "STIXGeneralItalic",
    "cmb10",
    "cmr10",
    "cmss10",
    "cmtt10",
)
#: Side of a glyph's canvas in pixels, and what share of it a font's em is: the widest capital fits.
CANVAS, EM = 256, 0.72
#: Sample points along each side of a pixel, and how many are looked up together.
SAMPLES, TOGETHER = 3, 4_000_000


@dataclass(frozen=True)
class Lines:
    """Hold n images of three letters in a line, as factors; lengths are shares of the side.

    letter  (n, 3)     numbers of the letters, left, middle and right
    font    (n,)       numbers in ``FONTS``
    em      (n,)       the font's em: capitals are about 0.7 of it
    gap     (n,)       free space between letters, beyond what the font leaves
    angle   (n,)       radians, clockwise
    centre  (n, 2)     of the middle letter, x and y
    ink     (n, 3)     colour of the letters in [0, 1]
    ground  (n, 3)     colour of the background
    waves   (n, w, 4)  plane waves on it, as in ``drawing.Scenes``
    """

    letter: np.ndarray
    font: np.ndarray
    em: np.ndarray
    gap: np.ndarray
    angle: np.ndarray
    centre: np.ndarray
    ink: np.ndarray
    ground: np.ndarray
    waves: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        """Return the classes (n,): the letter in the middle."""
        return self.letter[:, 1]


def lines(rng: np.random.Generator, number: int) -> Lines:
    """Draw the factors of so many images; ink and ground differ by 0.2 of mean grey at least."""
    grey = rng.uniform(0.1, 0.9, number)
    apart = rng.uniform(0.35, 0.6, number)
    fits = np.stack([grey - apart >= 0.02, grey + apart <= 0.98], axis=1)
    up = np.where(fits.all(axis=1), rng.integers(2, size=number), grey < 0.5).astype(bool)
    tints = rng.uniform(-0.07, 0.07, (2, number, 3))
    waves = np.empty((number, 3, 4))
    waves[..., :2] = rng.uniform(-8, 8, (number, 3, 2))
    waves[..., 2] = rng.uniform(0, 2 * np.pi, (number, 3))
    waves[..., 3] = rng.uniform(0, 0.08, (number, 3))
    return Lines(
        letter=rng.integers(len(LETTERS), size=(number, 3)),
        font=rng.integers(len(FONTS), size=number),
        em=rng.uniform(0.5, 0.8, number),
        gap=rng.uniform(0.0, 0.08, number),
        angle=rng.uniform(-0.2, 0.2, number),
        centre=rng.uniform(0.44, 0.56, (number, 2)),
        ink=np.clip((grey + np.where(up, apart, -apart))[:, None] + tints[0], 0, 1),
        ground=np.clip(grey[:, None] + tints[1], 0, 1),
        waves=waves,
    )


def render_lines(scenes: Lines, size: int) -> np.ndarray:
    """Return the images as bytes (n, size, size, 3)."""
    images = grounds(scenes.ground, scenes.waves, size)
    ink = scenes.ink.astype(np.float32)
    # All three are placed by the middle one: neighbours first, so that it lies on top.
    for slot in (0, 2, 1):
        centre = places(scenes, slot) * size
        # A canvas is em / EM wide; its corners lie on the circle that a window is laid around.
        radius = scenes.em / EM * math.sqrt(0.5) * size
        step = max(1, TOGETHER // (SAMPLES * size) ** 2)
        for start in range(0, len(images), step):
            at = np.arange(start, min(start + step, len(images)))
            glyphs = _atlas()[scenes.font[at], scenes.letter[at, slot]]
            patches, corner = _patches(glyphs, centre[at], radius[at], scenes.angle[at], size)
            paste(images, at, patches, corner, ink[at])
    return (np.clip(images, 0, 1) * 255 + 0.5).astype(np.uint8)


def places(scenes: Lines, slot: int) -> np.ndarray:
    """Return where the letters of a slot have their centres, (n, 2), as shares of the side."""
    widths = advances()[scenes.font[:, None], scenes.letter] * scenes.em[:, None]
    along = (slot - 1) * ((widths[:, slot] + widths[:, 1]) / 2 + scenes.gap)
    return scenes.centre + along[:, None] * np.stack([np.cos(scenes.angle), np.sin(scenes.angle)], axis=1)


def _patches(
    glyphs: np.ndarray, centre: np.ndarray, radius: np.ndarray, angle: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return what share of each pixel each glyph (m, CANVAS, CANVAS) covers, and the windows' first pixels."""
    x, y, corner = windows(centre, radius, size, SAMPLES)
    u, v = turned(x, y, angle)
    column, row = (np.floor((axis * math.sqrt(2) + 1) * (CANVAS / 2)).astype(np.int32) for axis in (u, v))
    inside = (column >= 0) & (column < CANVAS) & (row >= 0) & (row < CANVAS)
    place = np.where(inside, row * CANVAS + column, 0)
    found = np.take_along_axis(glyphs.reshape(len(glyphs), -1), place.reshape(len(glyphs), -1), axis=1)
    values = np.where(inside, found.reshape(place.shape), 0)
    side = values.shape[1] // SAMPLES
    shares = values.reshape(len(glyphs), side, SAMPLES, side, SAMPLES).sum(axis=(2, 4), dtype=np.uint32)
    return (shares / (255 * SAMPLES**2)).astype(np.float32), corner


def font_file(name: str) -> Path:
    """Return the file of a font of ``FONTS``; raise ``InputError`` if this matplotlib does not ship it."""
    import matplotlib

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"
    if not path.is_file():
        raise InputError(f"{path}: no such font; expected matplotlib's own: install matplotlib 3.9 or later whole")
    return path


def _font(name: str):
    from PIL import ImageFont

    return ImageFont.truetype(str(font_file(name)), round(EM * CANVAS), layout_engine=ImageFont.Layout.BASIC)


@cache
def _atlas() -> np.ndarray:
    """Return all glyphs as bytes (fonts, letters, CANVAS, CANVAS), capitals in the middle of their canvas."""
    from PIL import Image, ImageDraw

    glyphs = np.empty((len(FONTS), len(LETTERS), CANVAS, CANVAS), np.uint8)
    for own, name in zip(glyphs, FONTS, strict=True):
        font = _font(name)
        top, bottom = font.getbbox("H", anchor="ls")[1::2]
        baseline = CANVAS // 2 - (top + bottom) // 2
        for canvas, letter in zip(own, LETTERS, strict=True):
            image = Image.new("L", (CANVAS, CANVAS))
            ImageDraw.Draw(image).text((CANVAS // 2, baseline), letter, fill=255, font=font, anchor="ms")
            canvas[:] = np.asarray(image)
    glyphs.setflags(write=False)
    return glyphs


@cache
def advances() -> np.ndarray:
    """Return how far each letter moves the pen, (fonts, letters), in ems."""
    return np.array([[_font(name).getlength(letter) for letter in LETTERS] for name in FONTS]) / (EM * CANVAS)

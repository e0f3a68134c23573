"""Draw solid bodies under a light, seen from many sides: azimuth and elevation as smallNORB has them.

    a ray o + t d meets a part at the least t > 0 with  A^-1 (o + t d - c)  in the unit ball or the unit cube
    grey = tone (AMBIENT + (1 - AMBIENT) max(0, normal . light)),  the ground's tone AMBIENT in a shadow

A body is a union of up to eight ellipsoids and boxes: an animal, a person, an aeroplane, a truck or a car,
as in smallNORB, with proportions drawn anew for every image. The camera is orthographic. The light comes from
one of six sides *of the camera*, so neither shade nor shadow tells the azimuth by itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

AZIMUTHS, ELEVATIONS, LIGHTS = 18, 9, 6
#: Degrees: step of the azimuth; lowest elevation and step; height of the light.
TURN, LOWEST, RISE, LIGHT = 20.0, 30.0, 5.0, 50.0
AMBIENT = 0.35
PARTS = 8
NONE, BALL, BOX = range(3)
#: Sample points along each side of a pixel.
SAMPLES = 2
#: Width of the window in units of the body, whose parts lie within about 1 of its middle.
VIEW = 2.9
#: Components of directions are at least this far from 0, so that slabs are never parallel to a ray.
LEAST = 1e-9


@dataclass(frozen=True)
class Bodies:
    """Hold n images of one body each, as factors; the front is along x, the left along y, up along z.

    labels     (n,)          the class of each image
    kind       (n, PARTS)    NONE, BALL or BOX
    middle     (n, PARTS, 3) of the parts
    half       (n, PARTS, 3) half axes or half sides
    pitch      (n, PARTS)    radians about the y axis; positive lowers the front
    tone       (n, PARTS)    grey in [0, 1]
    azimuth    (n,)          radians: 0 looks at the front, a quarter turn at the left side
    elevation  (n,)          radians above the ground
    light      (n, 3)        unit vectors towards the light
    ground     (n,)          grey in [0, 1]
    zoom       (n,)          scale of the body in the image
    shift      (n, 2)        of the body in the image, right and down, as shares of the side
    """

    labels: np.ndarray
    kind: np.ndarray
    middle: np.ndarray
    half: np.ndarray
    pitch: np.ndarray
    tone: np.ndarray
    azimuth: np.ndarray
    elevation: np.ndarray
    light: np.ndarray
    ground: np.ndarray
    zoom: np.ndarray
    shift: np.ndarray


#: Parts of the five bodies: kind, middle, half axes, pitch in degrees.
Part = tuple[int, tuple[float, float, float], tuple[float, float, float], float]
BODIES: dict[str, tuple[Part, ...]] = {
    "animal": (
        (BALL, (0.0, 0.0, 0.55), (0.55, 0.24, 0.25), 0),
        (BALL, (0.68, 0.0, 0.85), (0.24, 0.16, 0.16), 15),
        (BOX, (0.48, 0.0, 0.70), (0.10, 0.08, 0.22), 30),
        (BOX, (0.36, 0.14, 0.18), (0.07, 0.07, 0.22), 0),
        (BOX, (0.36, -0.14, 0.18), (0.07, 0.07, 0.22), 0),
        (BOX, (-0.36, 0.14, 0.18), (0.07, 0.07, 0.22), 0),
        (BOX, (-0.36, -0.14, 0.18), (0.07, 0.07, 0.22), 0),
        (BOX, (-0.66, 0.0, 0.62), (0.18, 0.04, 0.05), 25),
    ),
    "person": (
        (BOX, (0.0, 0.0, 0.85), (0.14, 0.26, 0.30), 0),
        (BALL, (0.04, 0.0, 1.33), (0.17, 0.15, 0.18), 0),
        (BOX, (0.0, 0.13, 0.28), (0.10, 0.09, 0.28), 0),
        (BOX, (0.0, -0.13, 0.28), (0.10, 0.09, 0.28), 0),
        (BOX, (0.30, 0.32, 1.00), (0.30, 0.06, 0.06), 5),
        (BOX, (0.0, -0.32, 0.80), (0.06, 0.06, 0.28), 0),
        (BOX, (0.12, 0.13, 0.05), (0.20, 0.09, 0.05), 0),
        (BOX, (0.12, -0.13, 0.05), (0.20, 0.09, 0.05), 0),
    ),
    "aeroplane": (
        (BALL, (0.0, 0.0, 0.45), (0.90, 0.15, 0.16), 0),
        (BOX, (0.12, 0.0, 0.42), (0.18, 0.90, 0.03), 0),
        (BOX, (-0.72, 0.0, 0.50), (0.10, 0.32, 0.03), 0),
        (BOX, (-0.74, 0.0, 0.66), (0.12, 0.03, 0.20), 0),
        (BALL, (0.22, 0.40, 0.32), (0.20, 0.08, 0.08), 0),
        (BALL, (0.22, -0.40, 0.32), (0.20, 0.08, 0.08), 0),
        (BOX, (0.50, 0.0, 0.16), (0.04, 0.04, 0.16), 0),
        (BOX, (-0.20, 0.0, 0.16), (0.04, 0.20, 0.16), 0),
    ),
    "truck": (
        (BOX, (0.62, 0.0, 0.42), (0.22, 0.30, 0.30), 0),
        (BOX, (-0.22, 0.0, 0.56), (0.58, 0.32, 0.42), 0),
        (BOX, (0.0, 0.0, 0.16), (0.82, 0.26, 0.06), 0),
        (BALL, (0.56, 0.30, 0.14), (0.14, 0.07, 0.14), 0),
        (BALL, (0.56, -0.30, 0.14), (0.14, 0.07, 0.14), 0),
        (BALL, (-0.52, 0.30, 0.14), (0.14, 0.07, 0.14), 0),
        (BALL, (-0.52, -0.30, 0.14), (0.14, 0.07, 0.14), 0),
    ),
    "car": (
        (BOX, (0.0, 0.0, 0.30), (0.85, 0.36, 0.15), 0),
        (BOX, (-0.18, 0.0, 0.54), (0.40, 0.30, 0.14), 0),
        (BALL, (0.50, 0.38, 0.15), (0.16, 0.07, 0.16), 0),
        (BALL, (0.50, -0.38, 0.15), (0.16, 0.07, 0.16), 0),
        (BALL, (-0.50, 0.38, 0.15), (0.16, 0.07, 0.16), 0),
        (BALL, (-0.50, -0.38, 0.15), (0.16, 0.07, 0.16), 0),
        (BOX, (0.30, 0.0, 0.50), (0.14, 0.28, 0.03), 35),
    ),
}


def bodies(rng: np.random.Generator, number: int, label: str) -> Bodies:
    """Draw the factors of so many images.

    label  "azimuth": 18 classes in steps of 20 degrees; "elevation": 9 classes from 30 to 70 degrees
    """
    turn, rise = rng.integers(AZIMUTHS, size=number), rng.integers(ELEVATIONS, size=number)
    shapes = [_table(name) for name in BODIES]
    kind, middle, half, pitch = (
        np.stack([shape[part] for shape in shapes])[which]
        for which in [rng.integers(len(BODIES), size=number)]
        for part in range(4)
    )
    # Proportions: the body's three axes, then every part by itself.
    axes = rng.uniform(0.85, 1.15, (number, 1, 3))
    middle, half = middle * axes, half * axes * rng.uniform(0.8, 1.2, (number, PARTS, 3))
    azimuth, elevation = np.radians(TURN * turn), np.radians(LOWEST + RISE * rise)
    beside = azimuth + 2 * np.pi / LIGHTS * (rng.integers(LIGHTS, size=number) + 0.5)
    up = np.radians(LIGHT)
    light = np.stack([np.cos(up) * np.cos(beside), np.cos(up) * np.sin(beside), np.full(number, np.sin(up))], axis=1)
    return Bodies(
        labels=turn if label == "azimuth" else rise,
        kind=kind,
        middle=middle,
        half=half,
        pitch=pitch,
        tone=rng.uniform(0.3, 1.0, (number, PARTS)),
        azimuth=azimuth,
        elevation=elevation,
        light=light,
        ground=rng.uniform(0.4, 0.8, number),
        zoom=rng.uniform(0.9, 1.1, number),
        shift=rng.uniform(-0.04, 0.04, (number, 2)),
    )


def _table(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    parts: list[Part] = [*BODIES[name]]
    parts += [(NONE, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 0.0)] * (PARTS - len(parts))
    kind, middle, half, pitch = zip(*parts, strict=True)
    return np.array(kind), np.array(middle), np.array(half), np.radians(pitch)


def render_bodies(scenes: Bodies, size: int) -> np.ndarray:
    """Return the images as bytes (n, size, size, 3), the same in all three colours."""
    images = np.empty((len(scenes.labels), size, size), np.uint8)
    for number, image in enumerate(images):
        start, direction = rays(scenes, number, size)
        grey = shaded(scenes, number, start, direction)
        image[:] = grey.reshape(size, SAMPLES, size, SAMPLES).mean(axis=(1, 3)) * 255 + 0.5
    return np.repeat(images[..., None], 3, axis=3)


def rays(scenes: Bodies, number: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return where the rays of an image start, (rays, 3), and their common direction (3,).

    There are SAMPLES^2 for each pixel, in rows from the top; they start well outside the body.
    """
    right, up, away = camera(float(scenes.azimuth[number]), float(scenes.elevation[number]))
    at = ((np.arange(size * SAMPLES) + 0.5) / (size * SAMPLES) - 0.5) * VIEW / scenes.zoom[number]
    across, down = scenes.shift[number] * VIEW / scenes.zoom[number]
    middle = np.array([0.0, 0.0, 0.45])
    start = (at - across)[None, :, None] * right - (at - down)[:, None, None] * up + (middle + 10 * away)
    return start.reshape(-1, 3), -away


def camera(azimuth: float, elevation: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the unit vectors to the right of the image, to its top and towards the camera."""
    ca, sa, ce, se = np.cos(azimuth), np.sin(azimuth), np.cos(elevation), np.sin(elevation)
    return np.array([-sa, ca, 0.0]), np.array([-se * ca, -se * sa, ce]), np.array([ce * ca, ce * sa, se])


def shaded(scenes: Bodies, number: int, start: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Return the grey (rays,) that rays from ``start`` (rays, 3) along ``direction`` (3,) see."""
    light = scenes.light[number]
    reach, normal, tone = met(scenes, number, start, direction)
    # The ground is the plane z = 0 and lies behind every part that a ray meets above it.
    to_ground = -start[:, 2] / direction[2]
    on_ground = reach >= to_ground
    foot = start[on_ground] + to_ground[on_ground, None] * direction
    dark = np.isfinite(met(scenes, number, foot, light)[0])
    grey = tone * (AMBIENT + (1 - AMBIENT) * np.maximum(0, normal @ light))
    lit = AMBIENT + (1 - AMBIENT) * np.where(dark, 0.0, light[2])
    grey[on_ground] = scenes.ground[number] * lit
    return grey


def met(
    scenes: Bodies, number: int, start: np.ndarray, direction: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return how far rays go to the body (rays,), the normal there (rays, 3) and the tone.

    The distance of a ray that misses the body is infinite.
    """
    reach = np.full(len(start), np.inf)
    normal, tone = np.zeros_like(start), np.zeros(len(start))
    # Seen along the rays a part lies in a disc; other rays need not be asked.
    plane = _across(direction)
    at = start @ plane.T
    for part in np.flatnonzero(scenes.kind[number] != NONE):
        middle, half = scenes.middle[number, part], scenes.half[number, part]
        ball = scenes.kind[number, part] == BALL
        near = np.flatnonzero(((at - plane @ middle) ** 2).sum(axis=1) <= (half.max() ** 2 if ball else half @ half))
        cos, sin = np.cos(scenes.pitch[number, part]), np.sin(scenes.pitch[number, part])
        # Rows are the part's own axes; a positive pitch turns its front down.
        turn = np.array([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]])
        t, own = (_ball if ball else _box)((start[near] - middle) @ turn.T / half, turn @ direction / half)
        nearer = t < reach[near]
        first = near[nearer]
        reach[first] = t[nearer]
        outward = own[nearer] / half @ turn
        normal[first] = outward / np.linalg.norm(outward, axis=1, keepdims=True)
        tone[first] = scenes.tone[number, part]
    return reach, normal, tone


def _across(direction: np.ndarray) -> np.ndarray:
    """Return two unit vectors, (2, 3), that are orthogonal to a unit direction (3,) and to each other."""
    first = np.cross(direction, np.eye(3)[np.abs(direction).argmin()])
    first /= np.linalg.norm(first)
    return np.stack([first, np.cross(direction, first)])


def _ball(o: np.ndarray, d: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where rays o + t d enter the unit ball, infinite where they miss it, and the normals there."""
    q, b = d @ d, o @ d
    root = b * b - q * ((o * o).sum(axis=1) - 1)
    t = (-b - np.sqrt(np.maximum(root, 0))) / q
    t = np.where((root > 0) & (t > 0), t, np.inf)
    return t, o + np.where(np.isfinite(t), t, 0)[:, None] * d


def _box(o: np.ndarray, d: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where rays o + t d enter the cube [-1, 1]^3, infinite where they miss it, and the normals there."""
    d = np.where(np.abs(d) < LEAST, LEAST, d)
    near = (-np.sign(d) - o) / d
    enter, leave = near.max(axis=1), ((np.sign(d) - o) / d).min(axis=1)
    t = np.where((enter < leave) & (enter > 0), enter, np.inf)
    return t, np.where(np.arange(3) == near.argmax(axis=1)[:, None], -np.sign(d), 0.0)

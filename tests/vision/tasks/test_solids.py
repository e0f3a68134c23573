"""Solid bodies: the ray caster against marching along rays, and angles read back from pixels."""

from dataclasses import replace

import numpy as np
import pytest

from moe_prompts.vision.tasks.solids import (
    AMBIENT,
    BALL,
    BODIES,
    BOX,
    NONE,
    PARTS,
    VIEW,
    bodies,
    met,
    rays,
    render_bodies,
    shaded,
)


def inside(scenes, number, points):
    """(points,): the first part that holds a point of (points, 3), or -1; from the definition, part by part."""
    found = np.full(len(points), -1)
    for part in range(PARTS):
        kind, pitch = scenes.kind[number, part], scenes.pitch[number, part]
        if kind == NONE:
            continue
        x, y, z = (points - scenes.middle[number, part]).T
        a, b, c = scenes.half[number, part]
        u, w = np.cos(pitch) * x - np.sin(pitch) * z, np.sin(pitch) * x + np.cos(pitch) * z
        if kind == BALL:
            held = (u / a) ** 2 + (y / b) ** 2 + (w / c) ** 2 <= 1
        else:
            held = (np.abs(u) <= a) & (np.abs(y) <= b) & (np.abs(w) <= c)
        found[held & (found < 0)] = part
    return found


def test_rays_meet_bodies_where_marching_does():
    """Steps of 0.002 along 24 x 24 rays of five bodies: a ray that meets one is at most a step from where marching
    first stands inside, and only rays that graze a part for less than a step may differ in meeting it at all."""
    scenes, step = bodies(np.random.default_rng(0), 5, "azimuth"), 0.002
    for number in range(5):
        start, direction = rays(scenes, number, 12)
        t = np.arange(8.4, 11.6, step)
        points = start[:, None] + t[:, None] * direction
        held = inside(scenes, number, points.reshape(-1, 3)).reshape(len(start), -1) >= 0
        marched = np.where(held.any(axis=1), t[held.argmax(axis=1)], np.inf)
        reach, normal, tone = met(scenes, number, start, direction)
        both = np.isfinite(reach) & np.isfinite(marched)
        assert both.sum() > 10
        assert (np.isfinite(reach) != np.isfinite(marched)).mean() < 0.01
        assert np.abs(reach[both] - marched[both]).max() <= step + 1e-9
        np.testing.assert_allclose(np.linalg.norm(normal[both], axis=1), 1, atol=1e-12)
        assert (normal[both] @ direction <= 1e-12).all()  # surfaces that are seen face the camera
        part = inside(scenes, number, start[both] + (reach[both, None] + 1e-6) * direction)
        there = part >= 0
        assert there.mean() > 0.95
        # A point in two parts belongs to the one that was entered there: both tones are possible.
        same = tone[both][there] == scenes.tone[number, part[there]]
        assert same.mean() > 0.9


def test_shades_are_the_formula():
    """A ball under a light: at the foot of the normal n the grey is tone (a + (1 - a) max(0, n . l)), by finite
    differences of the implicit function; ground points behind the ball seen from the light are dark."""
    scenes = markers(azimuth=0.7, elevation=0.8)
    start, direction = rays(scenes, 0, 24)
    grey = shaded(scenes, 0, start, direction)
    reach, _, _ = met(scenes, 0, start, direction)
    hit = np.flatnonzero(np.isfinite(reach))
    point = start[hit] + reach[hit, None] * direction
    which = np.linalg.norm((point[:, None] - scenes.middle[0, :2]) / scenes.half[0, :2], axis=2).argmin(axis=1)

    def level(p):
        return (((p - scenes.middle[0, which]) / scenes.half[0, which]) ** 2).sum(axis=1)

    slope = np.stack([level(point + 1e-5 * e) - level(point - 1e-5 * e) for e in np.eye(3)], axis=1)
    normal = slope / np.linalg.norm(slope, axis=1, keepdims=True)
    expected = scenes.tone[0, which] * (AMBIENT + (1 - AMBIENT) * np.maximum(0, normal @ scenes.light[0]))
    np.testing.assert_allclose(grey[hit], expected, atol=1e-6)
    ground = np.flatnonzero(~np.isfinite(reach))
    foot = start[ground] - start[ground, 2:] / direction[2] * direction
    # Distance of a ball's centre from the line towards the light: below the radius it throws its shadow here.
    apart = np.stack(
        [np.linalg.norm(np.cross(scenes.middle[0, ball] - foot, scenes.light[0]), axis=1) for ball in (0, 1)], axis=1
    )
    dark = (apart < scenes.half[0, :2, 0]).any(axis=1)
    assert 0 < dark.sum() < len(dark)
    lit = scenes.ground[0] * (AMBIENT + (1 - AMBIENT) * np.where(dark, 0, scenes.light[0, 2]))
    np.testing.assert_allclose(grey[ground], lit, atol=1e-12)


def markers(azimuth, elevation):
    """Two balls of radius 0.12, a white one in front at (0.8, 0, 0.45) and a grey one above at (0, 0, 1)."""
    one = bodies(np.random.default_rng(0), 1, "azimuth")
    kind, middle, half = np.full((1, PARTS), NONE), np.zeros((1, PARTS, 3)), np.full((1, PARTS, 3), 0.12)
    kind[0, :2] = BALL
    middle[0, :2] = [[0.8, 0.0, 0.45], [0.0, 0.0, 1.0]]
    tone = np.full((1, PARTS), 1.0)
    changes = {"azimuth": np.array([azimuth]), "elevation": np.array([elevation]), "shift": np.zeros((1, 2))}
    return replace(one, kind=kind, middle=middle, half=half, tone=tone, zoom=np.ones(1), **changes)


@pytest.mark.parametrize("label", ["azimuth", "elevation"])
def test_pixels_give_the_angles_back(label):
    """From where the two balls are seen: the upper one stands 0.55 cos(elevation) above the middle, the front one
    0.8 (sin a, -cos a sin e) beside and below it, a for azimuth. Every class of a drawn block is read back."""
    drawn = bodies(np.random.default_rng(4), 40, label)
    size = 96
    for number in range(40):
        scenes = markers(drawn.azimuth[number], drawn.elevation[number])
        seen = []
        for ball in (0, 1):
            kind = np.full((1, PARTS), NONE)
            kind[0, ball] = BALL
            image = render_bodies(replace(scenes, kind=kind, ground=np.zeros(1)), size)[0, ..., 0] > 0
            rows, columns = np.nonzero(image)
            x, y = (columns.max() + columns.min()) / 2, (rows.max() + rows.min()) / 2
            seen.append(((np.array([x, y]) + 0.5) / size - 0.5) * VIEW)
        # The middle of the view is (0, 0, 0.45), the front ball lies at its height.
        elevation = np.arccos(np.clip(-seen[1][1] / 0.55, -1, 1))
        # To the right is (-sin a, cos a, 0): the front ball is seen at -0.8 sin a, and below by 0.8 cos a sin e.
        azimuth = np.arctan2(-seen[0][0], seen[0][1] / np.sin(drawn.elevation[number]))
        if label == "azimuth":
            assert round(np.degrees(azimuth) / 20) % 18 == drawn.labels[number]
        else:
            assert abs(np.degrees(elevation) - (30 + 5 * drawn.labels[number])) < 2.5


def test_all_factors_appear_and_proportions_differ():
    scenes = bodies(np.random.default_rng(1), 3000, "elevation")
    assert len(np.unique(np.round(np.degrees(scenes.azimuth)))) == 18
    assert len(np.unique(np.round(np.degrees(scenes.elevation)))) == 9
    kinds = {tuple(row) for row in scenes.kind}
    assert len(kinds) == len(BODIES)
    assert {BALL, BOX} <= set(scenes.kind.ravel())
    assert len(np.unique(scenes.half[:, 0, 0])) == 3000
    beside = np.degrees(np.arctan2(scenes.light[:, 1], scenes.light[:, 0]) - scenes.azimuth) % 360
    assert len(np.unique(np.round(beside))) == 6  # six sides of the camera, whatever the azimuth


def test_a_body_is_seen_whole_and_its_front_differs_from_its_back():
    """No body leaves the picture, and half a turn changes it: rays past the border meet nothing."""
    scenes = bodies(np.random.default_rng(2), 60, "azimuth")
    for number in range(60):
        start, direction = rays(scenes, number, 16)
        hit = np.isfinite(met(scenes, number, start, direction)[0]).reshape(32, 32)
        assert hit.any()
        assert hit[1:-1, 1:-1].sum() == hit.sum()
    turned = replace(scenes, azimuth=scenes.azimuth + np.pi)
    a, b = (render_bodies(one, 32).astype(int) for one in (scenes, turned))
    assert (np.abs(a - b).mean(axis=(1, 2, 3)) > 1).all()


@pytest.mark.parametrize("size", [98, 224])
def test_one_scene_at_any_size(size):
    """Averaged to 14 x 14, a large image is the small one up to sample points at edges."""
    scenes = bodies(np.random.default_rng(3), 2, "azimuth")
    coarse = [
        image.reshape(2, 14, image.shape[1] // 14, 14, -1).mean(axis=(2, 4))
        for image in (render_bodies(scenes, size)[..., 0].astype(float), render_bodies(scenes, 56)[..., 0])
    ]
    assert np.abs(coarse[0] - coarse[1]).max() < 20
    assert np.abs(coarse[0] - coarse[1]).mean() < 1

"""Pretraining images: the drawn pixels against the formula computed point by point, and the answers against pixels."""

import numpy as np
import pytest

from moe_prompts.vision.backbones.formulas import (
    BLOCK,
    CONTOURS,
    HARMONICS,
    HEADS,
    NONE,
    _draw,
    contours,
    long_axes,
    pretraining_block,
)


def one_contour(contour, angle, hollow=0, size=64, centre=(0.45, 0.55), radius=0.35):
    images = np.zeros((1, size, size, 3), np.float32)
    _draw(
        images,
        np.array([0]),
        np.array([centre]),
        np.array([radius]),
        np.array([contour]),
        np.array([angle]),
        np.array([hollow]),
        np.ones((1, 3)),
    )
    return images[0, :, :, 0]


def exact_radius(contour, theta):
    along, across = contours()
    return sum(
        along[contour, i] * np.cos(h * theta) + across[contour, i] * np.sin(h * theta) for i, h in enumerate(HARMONICS)
    )


@pytest.mark.parametrize("contour", range(CONTOURS))
def test_a_contour_is_its_formula(contour):
    """Pixels more than half a pixel inside or outside along their ray are full or empty (0.01 for float32)."""
    angle, radius = 0.4 + contour, 0.35 * 64
    image = one_contour(contour, angle)
    y, x = np.mgrid[:64, :64] + 0.5
    dx, dy = x - 0.45 * 64, y - 0.55 * 64
    depth = radius * exact_radius(contour, np.arctan2(dy, dx) - angle) - np.hypot(dx, dy)
    assert np.abs(image[depth > 0.51] - 1).max() < 1e-4
    assert image[depth < -0.51].max() < 1e-4
    assert 0.02 < image.mean() < np.pi * 0.35**2


def test_contours_are_no_discs_and_touch_their_circle():
    theta = 2 * np.pi * np.arange(5000) / 5000
    radii = np.array([exact_radius(contour, theta) for contour in range(CONTOURS)])
    assert radii.max(axis=1) == pytest.approx(np.ones(CONTOURS), abs=1e-4)
    assert radii.min(axis=1).max() < 0.55
    assert radii.min() > 0


def test_the_long_axis_is_that_of_the_pixels():
    known = np.flatnonzero(~np.isnan(long_axes()))
    assert len(known) >= 5
    for contour in known:
        image = one_contour(contour, 0.7)
        y, x = np.nonzero(image > 0.5)
        spread = np.cov(np.stack([x, y]))
        axis = 0.5 * np.arctan2(2 * spread[0, 1], spread[0, 0] - spread[1, 1])
        off = (axis - long_axes()[contour] - 0.7 + np.pi / 2) % np.pi - np.pi / 2
        assert abs(off) < 0.03


def test_a_hollow_contour_is_a_part_of_the_full_one():
    full, hollow = (one_contour(3, 0.0, hollow=value) for value in (0, 1))
    assert (hollow <= full + 1e-6).all()
    assert 0.1 * full.sum() < hollow.sum() < 0.95 * full.sum()


def test_answers_fit_the_questions_and_all_occur():
    answers = [pretraining_block(block, 32, 0)[1] for block in range(60)]
    for name, number in HEADS.items():
        values = np.concatenate([found[name] for found in answers])
        assert values.shape == (60 * BLOCK,)
        expected = set(range(NONE, number))
        missing = expected - set(values.tolist())
        # Objects lie inside the image, so no centre is at its border; nor are pairs ever nearer than their sizes.
        assert len(missing) <= {"x": 14, "y": 14, "apart": 1}.get(name, 0), name
        assert set(values.tolist()) <= expected


def test_single_contours_on_black_are_where_the_answer_says():
    """The bounding circle's centre against the centroid: less than 0.3 radii apart, so by at most 0.12 of the side."""
    for block in range(3):
        images, answers = pretraining_block(block, 64, 0)
        shown = images.astype(float).sum(axis=3)
        on_black = (answers["x"] != NONE) & (shown[:, 0, 0] == 0)
        assert on_black.sum() > 5
        for image, x, y in zip(shown[on_black], answers["x"][on_black], answers["y"][on_black], strict=True):
            rows, columns = np.nonzero(image)
            assert abs(columns.mean() / 64 - (x + 0.5) / 64) < 0.12
            assert abs(rows.mean() / 64 - (y + 0.5) / 64) < 0.12


def test_a_block_depends_on_its_address_alone():
    first, again, other, seed = (pretraining_block(*key) for key in [(3, 32, 0), (3, 32, 0), (4, 32, 0), (3, 32, 1)])
    np.testing.assert_array_equal(first[0], again[0])
    for name in HEADS:
        np.testing.assert_array_equal(first[1][name], again[1][name])
    assert (first[0] != other[0]).any()
    assert (first[0] != seed[0]).any()

"""Stand-in tasks: the drawn pixels give the labels back without the code that drew them."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage, stats

from moe_prompts.errors import InputError
from moe_prompts.vision.tasks.drawing import HEART_CENTRE, HEART_RADIUS, SHAPES, Scenes, render
from moe_prompts.vision.tasks.named import short
from moe_prompts.vision.tasks.procedural import (
    BLOCK,
    FORMULAS,
    NAMES,
    block_scenes,
    distance,
    dsprites,
    fresh,
    procedural_task,
)
from moe_prompts.vision.tasks.task import SPLITS

DRAWN = tuple(FORMULAS)
#: Pixels on a side where seeds are compared, 16 where a task has no size of its own: more only take time.
SIDE = {"digits": 32}


def silhouettes(scenes, size, **changes):
    """Objects white on black (n, size, size) in [0, 1], without texture."""
    plain = replace(
        scenes,
        colour=np.ones_like(scenes.colour),
        ground=np.zeros_like(scenes.ground),
        waves=np.zeros_like(scenes.waves),
        **changes,
    )
    return render(plain, size)[..., 0] / 255


def centroid(images):
    """(n, 2): x and y as shares of the side."""
    size = images.shape[1]
    axis = (np.arange(size) + 0.5) / size
    mass = images.sum(axis=(1, 2))
    return np.stack([images.sum(axis=1) @ axis, images.sum(axis=2) @ axis], axis=1) / mass[:, None]


@pytest.mark.parametrize("name", DRAWN)
@pytest.mark.parametrize("size", [32, 64])
def test_a_row_has_the_interface(name, size):
    task = procedural_task(name, size, n_train=10, n_test=6)
    assert task.group == "stand-in"
    assert "stand-in" in task.facts["data"]
    assert [len(task.split(split).labels) for split in SPLITS] == [8, 2, 10, 6]
    test = task.split("test")
    assert test.batch(np.array([3, 0])).shape == (2, size, size, 3)
    assert test.labels.min() >= 0
    assert test.labels.max() < task.classes


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_lie_in_the_unit_circle_around_their_centroid(name):
    """By a grid of 1500^2 points: the centroid is 0 up to the constants' rounding; the heart's tip is thin, so that
    points miss its last 0.5 %."""
    axis = np.linspace(-1.3, 1.3, 1500)
    u, v = np.meshgrid(axis, axis)
    inside = SHAPES[name](u, v)
    assert abs(u[inside].mean()) < 1e-3
    assert abs(v[inside].mean()) < 1e-3
    assert 0.993 < np.hypot(u[inside], v[inside]).max() <= 1 + 1e-9


def test_the_area_of_each_shape():
    """Against closed forms; the heart's is 3.66199, by quadrature, before it is scaled. Sampling error below 1 %."""
    areas = {
        "square": 2,
        "ellipse": np.pi / 2,
        "heart": 3.66199 / HEART_RADIUS**2,
        "disc": np.pi,
        "triangle": 27**0.5 / 4,
    }
    assert 0 < HEART_CENTRE < 1
    radius = 0.3
    for index, name in enumerate(SHAPES):
        one = one_object(index, (0.5, 0.5), radius, 0.3)
        assert render(one, 64)[..., 0].mean() / 255 == pytest.approx(areas[name] * radius**2, rel=0.01)


def one_object(shape, centre, radius, angle):
    return Scenes(
        np.zeros(1, int),
        np.array([[shape]]),
        np.array([[centre]]),
        np.array([[radius]]),
        np.array([[angle]]),
        np.ones((1, 1, 3)),
        np.zeros((1, 3)),
        np.zeros((1, 1, 4)),
    )


def test_waves_are_the_formula():
    scenes = block_scenes("count", "train", 0, 0)
    ground = render(replace(scenes, radius=np.zeros_like(scenes.radius)), 32)
    y, x = np.meshgrid(*[(np.arange(32) + 0.5) / 32] * 2, indexing="ij")
    for image in range(BLOCK):
        expected = scenes.ground[image] + sum(
            contrast * np.sin(2 * np.pi * (across * x + down * y) + phase)[..., None]
            for across, down, phase, contrast in scenes.waves[image]
        )
        assert np.abs(ground[image] - 255 * expected).max() <= 0.501  # rounding to bytes


@pytest.mark.parametrize("size", [32, 64])
def test_the_centroid_gives_the_place(size):
    """Steps of places are 0.5 / 31 of the side; the centroid is right to a fifth of one."""
    task = procedural_task("dsprites_loc", size, n_test=400)
    test = task.split("test")
    x = centroid(test.batch(np.arange(400))[..., 0] / 255)[:, 0]
    place = (x - 0.25) * 62
    assert np.abs(place - np.round(place)).max() < 0.2
    np.testing.assert_array_equal(np.round(place).astype(int) // 2, test.labels)


def test_moments_give_the_orientation():
    """The long axis of ellipses modulo pi, to a fifth of a step of orientation; and classes are floor(k 16 / 40)."""
    scenes = dsprites(np.random.default_rng(5), 600, "turn")
    images = silhouettes(scenes, 64)
    turn = np.round(scenes.angle[:, 0] * 39 / (2 * np.pi)).astype(int)
    np.testing.assert_array_equal(scenes.labels, turn * 16 // 40)
    at = (scenes.shape[:, 0] == list(SHAPES).index("ellipse")) & (scenes.radius[:, 0] > 0.15)
    assert at.sum() > 50
    middle = centroid(images) * 64 - 0.5
    y, x = np.mgrid[:64, :64]
    for image, (cx, cy), angle in zip(images[at], middle[at], scenes.angle[at, 0], strict=True):
        xx, yy, xy = ((image * a * b).sum() for a, b in ((x - cx, x - cx), (y - cy, y - cy), (x - cx, y - cy)))
        axis = 0.5 * np.arctan2(2 * xy, xx - yy)
        off = (axis - angle + np.pi / 2) % np.pi - np.pi / 2
        assert abs(off) < 0.2 * 2 * np.pi / 39


def test_all_factors_of_dsprites_appear():
    scenes = dsprites(np.random.default_rng(0), 4000, "place")
    assert len(np.unique(scenes.shape)) == 3
    assert len(np.unique(scenes.radius)) == 6
    assert len(np.unique(scenes.angle)) == 40
    assert [len(np.unique(scenes.centre[:, 0, axis])) for axis in (0, 1)] == [32, 32]
    assert scenes.radius.max() == pytest.approx(2 * scenes.radius.min())


@pytest.mark.parametrize("size", [32, 64])
def test_components_give_the_count(size):
    for block in range(4):
        scenes = block_scenes("count", "test", block, 3)
        found = [ndimage.label(image > 0.3, np.ones((3, 3)))[1] for image in silhouettes(scenes, size)]
        np.testing.assert_array_equal(found, scenes.labels + 1)


def test_every_object_stands_out():
    """In each colour by at least 0.1: objects lie in [0, 0.15] or [0.85, 1], the ground in [0.4, 0.6] +- 0.12."""
    scenes = block_scenes("count", "test", 0, 0)
    assert (scenes.waves[..., 3].sum(axis=1) <= 0.12).all()
    assert (np.abs(scenes.colour - scenes.ground[:, None]).min() - 0.12) > 0.1


def test_area_and_brightness_do_not_give_the_count_away():
    """A table of the most frequent count in each of 20 bins: of brightness no better than chance (5 standard errors),
    of the exact covered area, which no pixel tells directly, well below one half."""
    blocks = [block_scenes("count", "train", block, 1) for block in range(40)]
    labels = np.concatenate([scenes.labels for scenes in blocks])
    bright = np.concatenate([render(scenes, 32).mean(axis=(1, 2, 3)) for scenes in blocks])
    area = np.concatenate([silhouettes(scenes, 32).mean(axis=(1, 2)) for scenes in blocks])
    chance, error = 1 / 8, np.sqrt(7 / 64 / (len(labels) / 2))
    assert binned_accuracy(bright, labels) < chance + 5 * error
    assert binned_accuracy(area, labels) < 0.4


def binned_accuracy(values, labels):
    bins = stats.rankdata(values, method="ordinal").astype(int) * 20 // (len(values) + 1)
    learn = np.arange(len(values)) % 2 == 0
    table = np.array([np.bincount(labels[learn & (bins == b)], minlength=8).argmax() for b in range(20)])
    return (table[bins] == labels)[~learn].mean()


def test_red_centroids_give_the_distance():
    """Recovered from the pixels of each red object alone, to 0.01 of the side at 64 pixels."""
    for block in range(3):
        scenes = block_scenes("distance", "test", block, 0)
        pixels = render(scenes, 64).astype(float)
        red = (pixels[..., 0] - pixels[..., 1:].max(axis=-1)) > 100
        apart = []
        for image in red:
            found, number = ndimage.label(image, np.ones((3, 3)))
            assert number == 2
            a, b = np.array(ndimage.center_of_mass(image, found, [1, 2])) / 64
            apart.append(np.hypot(*(a - b)))
        exact = np.hypot(*(scenes.centre[:, 0] - scenes.centre[:, 1]).T)
        assert np.abs(np.array(apart) - exact).max() < 0.01
        np.testing.assert_array_equal(np.floor((exact - 0.22) / 0.09).astype(int), scenes.labels)


def test_no_object_touches_another_or_the_border():
    for scenes in (distance(np.random.default_rng(0), 500), block_scenes("count", "train", 0, 0)):
        there = scenes.radius > 0
        edge = np.minimum(scenes.centre, 1 - scenes.centre).min(axis=2)
        assert (edge >= scenes.radius)[there].all()
        apart = np.linalg.norm(scenes.centre[:, :, None] - scenes.centre[:, None], axis=3)
        needed = scenes.radius[:, :, None] + scenes.radius[:, None] + 0.049
        pair = there[:, :, None] & there[:, None] & ~np.eye(there.shape[1], dtype=bool)
        assert (apart >= needed)[pair].all()


@pytest.mark.parametrize("name", DRAWN)
def test_classes_are_equally_likely(name):
    """Chi-square at level 1e-4 on 4096 labels of a fixed seed."""
    labels = np.concatenate([block_scenes(name, "fresh", block, 0).labels for block in range(64)])
    assert stats.chisquare(np.bincount(labels, minlength=FORMULAS[name].classes)).pvalue > 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_the_same_pixels(name):
    a, b, other = (procedural_task(name, SIDE.get(name, 16), 70, 10, e) for e in (1, 1, 2))
    for split in SPLITS:
        everything = np.arange(len(a.split(split).labels))
        np.testing.assert_array_equal(a.split(split).batch(everything), b.split(split).batch(everything))
        assert (a.split(split).batch(everything) != other.split(split).batch(everything)).any()


@pytest.mark.parametrize("name", NAMES)
def test_a_larger_training_set_begins_with_the_smaller(name):
    small, large = (procedural_task(name, SIDE.get(name, 16), n, 5).split("train800val200") for n in (70, 130))
    np.testing.assert_array_equal(small.batch(np.arange(70)), large.batch(np.arange(70)))
    np.testing.assert_array_equal(small.labels, large.labels[:70])


def test_no_image_is_in_two_roles():
    """Count's scenes are continuous, so equal pixels would mean a shared seed."""
    task = procedural_task("count", n_train=200, n_test=200)
    roles = [task.split("train800val200").batch(np.arange(200)), task.split("test").batch(np.arange(200))]
    roles.append(fresh("count", 32, 0, 200, 0).pixels)
    everything = np.concatenate(roles).reshape(600, -1)
    assert len(np.unique(everything, axis=0)) == 600
    other = fresh("distance", 32, 0, 64, 0)
    assert (other.labels != fresh("count", 32, 0, 64, 0).labels).any()


def test_fresh_images_do_not_depend_on_how_they_are_asked_for():
    whole = fresh("distance", 32, 0, 200, 4)
    part = fresh("distance", 32, 50, 100, 4)
    np.testing.assert_array_equal(part.pixels, whole.pixels[50:150])
    np.testing.assert_array_equal(part.labels, whole.labels[50:150])


def test_digits_are_split_without_overlap():
    task = procedural_task("digits")
    train, test = task.split("train800val200"), task.split("test")
    assert (len(train.labels), len(test.labels)) == (1000, 797)
    assert task.facts["n_test"] == 797
    counts = np.bincount(np.concatenate([train.labels, test.labels]))
    from sklearn.datasets import load_digits

    np.testing.assert_array_equal(counts, np.bincount(load_digits().target))
    small = test.batch(np.arange(20))[..., 0].reshape(20, 8, 4, 8, 4).mean(axis=(2, 4))
    order_free = load_digits().images.reshape(-1, 64) * (255 / 16)
    nearest = np.abs(small.reshape(20, 1, 64) - order_free).mean(axis=2).argmin(axis=1)
    np.testing.assert_array_equal(load_digits().target[nearest], test.labels[:20])


def test_pixels_cannot_be_changed():
    task = procedural_task("dsprites_ori", n_train=10, n_test=10)
    with pytest.raises(ValueError, match="read-only"):
        task.split("test").pixels[0] = 0
    with pytest.raises(ValueError, match="read-only"):
        task.split("test").labels[0] = 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: procedural_task("sprites"), "no stand-in task 'sprites'; expected one of dsprites_loc"),
        (lambda: procedural_task("count", 7), "count: size 7; expected a whole number of pixels from 8 to 1024"),
        (lambda: procedural_task("count", n_train=4), "n_train 4; expected at least 5"),
        (lambda: procedural_task("count", n_test=0), "n_test 0; expected at least 1"),
        (lambda: procedural_task("count", entropy=-1), "entropy -1"),
        (lambda: procedural_task("digits", n_train=1001), "digits: 1001 training and 797 test images; it has 1000"),
        (lambda: procedural_task("count").split("val"), "no split 'val'; expected one of train800"),
        (lambda: fresh("digits", 32, 0, 1, 0), "digits are 1797 images and no more"),
        (lambda: fresh("count", 32, -1, 1, 0), "start -1, count 1"),
        (lambda: fresh("count", 32, 0, 0, 0), "start 0, count 0"),
        (lambda: replace(block_scenes("count", "train", 0, 0), angle=np.zeros((2, 2))), "Scenes: angle of shape"),
    ],
)
def test_wrong_input_is_one_clear_error(call, message):
    with pytest.raises(InputError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_a_stand_in_is_shown_without_its_prefix_and_other_tasks_by_their_name():
    assert [short(name) for name in ("stand-in:count", "fgvc:dogs", "folder:emoji", "dtd")] == [
        "count",
        "fgvc:dogs",
        "folder:emoji",
        "dtd",
    ]

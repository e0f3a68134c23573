"""FGVC from folders, and stratified subsets: nested choices, crops against all possible crops, faults in one line."""

import json
import re
import shutil
from itertools import pairwise

import numpy as np
import pytest
from commands import call
from data_roots import make_fgvc_root
from PIL import Image

from moe_prompts.errors import InputError
from moe_prompts.vision.tasks.check import NOTE, PROBLEM, WARNING, check_fgvc
from moe_prompts.vision.tasks.fgvc import TASKS, Crops, centre_crop, fgvc_task
from moe_prompts.vision.tasks.subsets import stratified_subset

# ---- subsets ---------------------------------------------------------------------------------------------------------


def subset(labels, size, seed=0):
    return stratified_subset(labels, size, np.random.default_rng(seed))


UNEVEN = np.random.default_rng(3).permutation(np.repeat(np.arange(7), [1, 2, 5, 40, 60, 92, 300]))


def test_subsets_contain_each_other():
    """Every size in every larger one, fractions and numbers alike; the whole pool at last."""
    sizes = [7, 8, 20, 0.05, 50, 200, 0.5, 400, 1.0]
    chosen = [subset(UNEVEN, size) for size in sizes]
    for small, large in pairwise(chosen):
        assert len(small) < len(large)
        assert set(small) <= set(large)
    assert np.array_equal(chosen[-1], np.arange(500))
    assert [len(one) for one in chosen] == [7, 8, 20, 25, 50, 200, 250, 400, 500]


@pytest.mark.parametrize("size", [7, 20, 50, 200, 350, 499])
def test_subsets_are_stratified(size):
    """At least one of each class; all but these first ones in proportion, rounded: within one image of n m / N."""
    counts, pool = np.bincount(UNEVEN[subset(UNEVEN, size)]), np.bincount(UNEVEN)
    assert counts.sum() == size
    assert counts.min() >= 1
    # The first images of small classes take room from the others, which share what remains.
    share = next(t for t in np.linspace(0, 1, 10001) if np.maximum(1, np.floor(pool * t + 0.5)).sum() >= size)
    assert np.abs(counts - np.maximum(1, pool * share)).max() <= 1


def test_balanced_pools_give_balanced_subsets():
    """Whole rounds through the classes: exactly as many of each."""
    labels = np.tile(np.arange(20), 50)
    for size in (20, 200, 500):
        assert set(np.bincount(labels[subset(labels, size)])) == {size // 20}


def test_subsets_are_random_and_repeatable():
    """Another seed chooses other images, every image of a class as often: chi-square of 4000 choices, 99.9 % bound."""
    assert np.array_equal(subset(UNEVEN, 50), subset(UNEVEN, 50))
    assert not np.array_equal(subset(UNEVEN, 50), subset(UNEVEN, 50, seed=1))
    labels = np.repeat([0, 1], 10)
    times = np.zeros(20)
    for seed in range(1000):
        times[subset(labels, 4, seed)] += 1
    assert times.sum() == 4000
    # 2 of 10 without replacement: variance 10 (0.2) (0.8) (10/9) of a class, 9 degrees of freedom each.
    statistic = ((times - 200) ** 2).sum() / (1000 * 0.2 * 0.8 * 10 / 9)
    assert statistic < 42.3


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (6, "a subset of 6 images; expected at least one for each of the 7 classes and at most the 500 of the pool"),
        (501, "a subset of 501 images; expected"),
        (0.0, "a fraction of 0.0; expected more than 0 and at most 1"),
        (1.5, "a fraction of 1.5; expected more than 0 and at most 1"),
        (float("nan"), "a fraction of nan; expected"),
    ],
)
def test_impossible_subsets(size, message):
    with pytest.raises(InputError, match=message):
        subset(UNEVEN, size)


# ---- the tasks -------------------------------------------------------------------------------------------------------


def test_the_table_of_tasks():
    """Typed by hand after the appendix of arXiv 2203.12119."""
    assert {name: (data.classes, data.test_images) for name, data in TASKS.items()} == {
        "cub": (200, 5794),
        "nabirds": (555, 24633),
        "flowers": (102, 6149),
        "dogs": (120, 8580),
        "cars": (196, 8041),
    }


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """A root with flowers; never written to."""
    root = tmp_path_factory.mktemp("clean")
    make_fgvc_root(root, "flowers")
    return root


@pytest.fixture
def root(clean, tmp_path):
    return shutil.copytree(clean, tmp_path / "root")


@pytest.mark.parametrize("cache", [True, False])
def test_splits_are_the_files(clean, tmp_path, cache):
    """Classes numbered in sorted order though the files list them backwards; centre crops against Pillow alone."""
    folder = clean / "OxfordFlowers"
    task = fgvc_task(clean, "fgvc:flowers", size=7, cache=tmp_path if cache else None)
    assert (task.name, task.group, task.classes, task.size) == ("fgvc:flowers", "fgvc", 102, 7)
    for split, file in {"train800": "train", "val200": "val", "test": "test"}.items():
        content = json.loads((folder / f"{file}.json").read_text())
        images = task.split(split)
        assert images.labels.tolist() == [int(name.removeprefix("class")) - 1 for name in content.values()]
        chosen = np.array([5, 0, len(content) - 1])
        for got, index in zip(images.batch(chosen), chosen, strict=True):
            with Image.open(folder / "images" / list(content)[index]) as image:
                # 9 x 13 (height x width): the shorter side to 8, so the longer one to round(13 * 8 / 9) = 12.
                resized = np.asarray(image.resize((12, 8), Image.Resampling.BILINEAR))
            assert np.array_equal(got, resized[0:7, 2:9])
    both, train, val = (task.split(name) for name in ("train800val200", "train800", "val200"))
    assert np.array_equal(both.labels, np.concatenate([train.labels, val.labels]))
    mixed = np.array([509, 3, 408, 407])
    assert np.array_equal(both.batch(mixed)[[1, 3]], train.batch(np.array([3, 407])))
    assert np.array_equal(both.batch(mixed)[[0, 2]], val.batch(np.array([101, 0])))
    assert task.facts == {
        "data": "folder",
        "resample": "bilinear",
        "train_images": 510,
        "image_format": "PNG",
        "image_pixels": "9 x 13",
        "fraction": 1.0,
        "subset_seed": 0,
    }


def test_the_papers_sizes(clean):
    """224 from a shorter side of 256, by default."""
    task = fgvc_task(clean, "flowers")
    assert (task.size, task.resize.size) == (224, 256)
    assert task.split("val200").batch(np.array([0])).shape == (1, 224, 224, 3)


def test_images_of_several_sizes_share_a_cache(clean, root, tmp_path):
    """Ragged, equal to decoding anew, not to be changed, written once, and decoded anew when damaged or stale."""
    folder, cache = root / "OxfordFlowers", tmp_path / "cache"
    rng = np.random.default_rng(0)
    for name, shape in (("val 001 0.png", (20, 9)), ("val 002 0.png", (9, 30))):
        Image.fromarray(rng.integers(0, 256, (*shape, 3), dtype=np.uint8)).save(folder / "images" / name)
    every = np.arange(102)
    plain = fgvc_task(root, "flowers", size=7).split("val200").batch(every)
    task = fgvc_task(root, "flowers", size=7, cache=cache)
    images = task.split("val200")
    assert np.array_equal(images.batch(every), plain)
    with pytest.raises(ValueError, match="read-only"):
        images.images[0][...] = 0
    images.batch(every)[...] = 0
    assert np.array_equal(images.batch(every), plain)
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    for damage in (b"", whole[:-5], whole[:200]):
        file.unlink()
        file.write_bytes(damage)
        assert np.array_equal(task.split("val200").batch(every), plain)
    np.save(file, np.zeros(5000, dtype=np.uint8))
    assert np.array_equal(task.split("val200").batch(every), plain)
    Image.fromarray(np.zeros((12, 12, 3), np.uint8)).save(folder / "images" / "val 003 0.png")
    changed = task.split("val200").batch(every)
    assert np.array_equal(changed, fgvc_task(root, "flowers", size=7).split("val200").batch(every))
    assert not np.array_equal(changed, plain)


def test_random_crops_against_all_crops():
    """Every batch image is one of the possible crops, mirrored or not, and all are drawn alike (chi-square, 99.9 %)."""
    height, width, size, draws = 8, 9, 6, 4000
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    possible = {}
    for top in range(height - size + 1):
        for left in range(width - size + 1):
            cut = image[top : top + size, left : left + size]
            possible[cut.tobytes()] = possible[np.fliplr(cut).tobytes()] = 0
    assert len(possible) == 3 * 4 * 2
    images = Crops([image], np.array([0]), size)
    batch = images.batch(np.zeros(draws, dtype=int), np.random.default_rng(1))
    for cut in batch:
        possible[cut.tobytes()] += 1
    assert len(possible) == 24
    expected = draws / 24
    assert sum((count - expected) ** 2 / expected for count in possible.values()) < 49.7
    again = images.batch(np.zeros(draws, dtype=int), np.random.default_rng(1))
    assert np.array_equal(batch, again)
    assert np.array_equal(images.batch(np.array([0]))[0], image[1:7, 1:7])
    assert np.array_equal(centre_crop(image[:6, :6], 6), image[:6, :6])


def test_fractions(clean, tmp_path):
    """Nested by name of the image, one of each class at least, the same cache for all, the test set always whole."""
    chosen = {}
    for fraction in (0.01, 0.3, 0.5, 1):
        task = fgvc_task(clean, "flowers", size=7, cache=tmp_path, fraction=fraction)
        images = task.split("train800")
        chosen[fraction] = {image.tobytes() for image in images.batch(np.arange(len(images.labels)))}
        assert len(chosen[fraction]) == len(images.labels) == max(102, round(fraction * 408))
        assert set(images.labels) == set(range(102))
        assert len(task.split("val200").labels) == 102
        assert len(task.split("train800val200").labels) == len(images.labels) + 102
        assert len(task.split("test").labels) == 102
        assert task.facts["train_images"] == len(images.labels) + 102
        assert task.facts["fraction"] == fraction
    assert chosen[0.01] < chosen[0.3] < chosen[0.5] < chosen[1]
    assert len(list(tmp_path.iterdir())) == 3
    other = fgvc_task(clean, "flowers", size=7, cache=tmp_path, fraction=0.3, seed=1).split("train800")
    assert {image.tobytes() for image in other.batch(np.arange(len(other.labels)))} != chosen[0.3]


def test_the_test_set_is_read_only_when_asked_for(root):
    (root / "OxfordFlowers" / "test.json").unlink()
    task = fgvc_task(root, "flowers", size=7)
    task.split("train800val200").batch(np.array([0]))
    assert task.facts["train_images"] == 510
    with pytest.raises(InputError, match=r"test\.json: no such file"):
        task.split("test")


@pytest.mark.parametrize("place", ["", "images", "Images", "jpg", "car_ims"])
def test_where_images_are_looked_for(tmp_path, place):
    folder = make_fgvc_root(tmp_path, "flowers", per_class=(1, 1, 1), images=place or ".")
    fgvc_task(tmp_path, "flowers", size=7).split("test").batch(np.array([0]))
    fgvc_task(folder, "flowers", size=7).split("test").batch(np.array([0]))


def test_whole_numbers_as_ids(root):
    """Sorted as numbers: 2 before 10."""
    for file in ("train", "val", "test"):
        path = root / "OxfordFlowers" / f"{file}.json"
        content = {name: 3 * int(value.removeprefix("class")) for name, value in json.loads(path.read_text()).items()}
        path.write_text(json.dumps(content))
    labels = fgvc_task(root, "flowers", size=7).split("val200").labels
    assert labels.tolist() == list(range(101, -1, -1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda root: fgvc_task(root, "fgvc:aircraft"),
            "unknown FGVC task 'fgvc:aircraft'; expected one of (fgvc:[a-z]+(, )?){5}$",
        ),
        (
            lambda root: fgvc_task(root, "dogs"),
            "no dogs; expected train.json in it, or one folder named StanfordDogs or",
        ),
        (lambda root: fgvc_task(root, "flowers", fraction=0), "fraction 0; expected more than 0 and at most 1, as 0.1"),
        (lambda root: fgvc_task(root, "flowers", seed=-1), "seed -1; expected a whole number of at least 0"),
        (lambda root: fgvc_task(root, "flowers").split("train"), "unknown split 'train'; expected one of train800,"),
    ],
)
def test_wrong_arguments(clean, call, message):
    with pytest.raises(InputError, match=message):
        call(clean)


def test_two_folders_of_one_data_set(root):
    (root / "oxford-flowers").mkdir()
    with pytest.raises(InputError, match=r"several folders of flowers \(OxfordFlowers, oxford-flowers\)"):
        fgvc_task(root, "flowers")


# ---- check -----------------------------------------------------------------------------------------------------------


def texts(findings, kind):
    return [finding.text for finding in findings if finding.kind == kind]


def test_a_clean_root(clean):
    findings = check_fgvc(clean, ["fgvc:flowers"], thorough=True)
    assert texts(findings, PROBLEM) == []
    assert texts(findings, WARNING) == [
        "102 test images; the published test set has 6149, so accuracies will not compare"
    ]
    assert texts(findings, NOTE) == ["612 images listed, PNG; all decoded"]
    done = call("vtab.py", "check", "--data", clean, "--task", "fgvc:flowers")
    assert done.returncode == 0, done.stderr


def edit(file, change):
    def spoil(folder):
        path = folder / f"{file}.json"
        path.write_text(json.dumps(change(json.loads(path.read_text()))))

    return spoil


FAULTS = {
    "no folder": (shutil.rmtree, "no flowers; expected train.json in it, or one folder named OxfordFlowers"),
    "no file": (lambda folder: (folder / "val.json").unlink(), r"val\.json: no such file; expected a map"),
    "no training file": (lambda folder: (folder / "train.json").unlink(), r"train\.json: no such file"),
    "no JSON": (lambda folder: (folder / "test.json").write_text("{"), r"test\.json: unreadable .*expected JSON"),
    "a list": (edit("val", list), r"val\.json: expected a map from image name to class id"),
    "mixed ids": (edit("val", lambda content: content | {"x.png": 3}), r"val\.json: expected a map .*all ids whole"),
    "a class short": (
        edit("train", lambda content: {name: id for name, id in content.items() if id != "class0007"}),
        r"train\.json: 101 classes; expected 102, every one with a training image",
    ),
    "a class too many": (edit("train", lambda content: content | {"x.png": "new"}), r"train\.json: 103 classes"),
    "unknown class": (
        edit("test", lambda content: content | {"test 003 0.png": "new"}),
        r"test\.json: images of classes that train\.json lacks, 1, as 'test 003 0\.png' of class 'new'",
    ),
    "test in train": (
        edit("test", lambda content: content | {"train 003 0.png": "class0004"}),
        r"test images that are also in train, 1 of 103, as train 003 0\.png; expected none",
    ),
    "val in train": (
        edit("val", lambda content: content | {"train 003 0.png": "class0004"}),
        r"images of val\.json that are also in train\.json, 1, as train 003 0\.png",
    ),
    "no images": (
        lambda folder: (folder / "images").rename(folder / "photos"),
        r"no listed image found, as train 101 0\.png; looked in .*OxfordFlowers, .*images, .*Images, .*jpg, .*car_ims",
    ),
    "no image": (
        lambda folder: (folder / "images" / "train 101 0.png").unlink(),
        r"missing images, 1 of 612 listed, as .*train 101 0\.png",
    ),
    "unreadable": (
        lambda folder: (folder / "images" / "train 101 0.png").write_bytes(b"no image"),
        r"unreadable images, 1 of 50 decoded, as .*train 101 0\.png: unreadable image",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_one_line(root, fault):
    spoil, message = FAULTS[fault]
    spoil(root / "OxfordFlowers")
    findings = check_fgvc(root, ["flowers"])
    (problem,) = texts(findings, PROBLEM)
    assert "\n" not in problem
    assert re.search(message, problem), problem
    assert {finding.task for finding in findings} == {"fgvc:flowers"}

"""VTAB-1K from folders: the table of tasks, lists, images, caches, and what `check` says of every fault."""

import csv
import io
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from commands import EXPERIMENTS, call
from data_roots import make_vtab_root
from PIL import Image

from moe_prompts.errors import InputError
from moe_prompts.vision.tasks.check import NOTE, PROBLEM, WARNING, check_vtab
from moe_prompts.vision.tasks.images import Files, Resize, cached, read_rgb
from moe_prompts.vision.tasks.task import SPLITS
from moe_prompts.vision.tasks.vtab import TASKS, read_list, vtab_task

#: Group, classes and test images, typed by hand after arXiv 1910.04867, apart from the table in the package.
PUBLISHED = {
    "caltech101": ("natural", 102, 6084),
    "cifar": ("natural", 100, 10000),
    "dtd": ("natural", 47, 1880),
    "oxford_flowers102": ("natural", 102, 6149),
    "oxford_iiit_pet": ("natural", 37, 3669),
    "sun397": ("natural", 397, 21750),
    "svhn": ("natural", 10, 26032),
    "diabetic_retinopathy": ("specialized", 5, 42670),
    "eurosat": ("specialized", 10, 5400),
    "patch_camelyon": ("specialized", 2, 32768),
    "resisc45": ("specialized", 45, 6300),
    "clevr_count": ("structured", 8, 15000),
    "clevr_dist": ("structured", 6, 15000),
    "dmlab": ("structured", 6, 22735),
    "dsprites_loc": ("structured", 16, 73728),
    "dsprites_ori": ("structured", 16, 73728),
    "kitti": ("structured", 4, 711),
    "smallnorb_azi": ("structured", 18, 12150),
    "smallnorb_ele": ("structured", 9, 12150),
}


def test_the_table_of_tasks():
    assert {name: (data.group, data.classes, data.test_images) for name, data in TASKS.items()} == PUBLISHED
    assert {name for name, data in TASKS.items() if data.small} == {
        *("cifar", "svhn", "eurosat", "dsprites_loc", "dsprites_ori")
    }


def test_the_table_agrees_with_the_published_results(reference):
    with open(reference / "vtab1k_reference.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["task"]: (row["group"], int(row["classes"])) for row in rows} == {
        name: (data.group, data.classes) for name, data in TASKS.items()
    }


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """A root with kitti; never written to."""
    root = tmp_path_factory.mktemp("clean")
    make_vtab_root(root, "kitti", test=50)
    return root


@pytest.fixture
def root(clean, tmp_path):
    """A copy of the clean root that a test may spoil: lists are copied, images linked, so ``replace`` them."""

    def copy(source, target):
        (shutil.copy2 if source.endswith(".txt") else os.link)(source, target)

    return shutil.copytree(clean, tmp_path / "root", copy_function=copy)


def replace(path, content):
    path.unlink()
    path.write_bytes(content)


def texts(findings, kind):
    return [finding.text for finding in findings if finding.kind == kind]


# ---- loading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_splits_hold_the_listed_images_in_order(tmp_path, cache, suffix):
    """Against Pillow alone, through the names that this test writes."""
    folder = make_vtab_root(tmp_path, "svhn", pixels=6, test=5, suffix=suffix, counts=(12, 7))
    task = vtab_task(tmp_path, "svhn", size=16, cache=tmp_path / "cache" if cache else None)
    assert (task.name, task.group, task.classes, task.size) == ("svhn", "natural", 10, 16)
    for split, names in {
        "train800": [f"images/train800/image {i:05d}.{suffix}" for i in range(12)],
        "val200": [f"images/val200/image {i:05d}.{suffix}" for i in range(7)],
        "test": [f"images/test/image {i:05d}.{suffix}" for i in range(5)],
    }.items():
        images = task.split(split)
        assert images.labels.tolist() == [i % 10 for i in range(len(names))]
        order = np.random.default_rng(0).permutation(len(names))
        batch = images.batch(order)
        assert batch.dtype == np.uint8
        for got, index in zip(batch, order, strict=True):
            with Image.open(folder / names[index]) as image:
                wanted = np.asarray(image.convert("RGB").resize((16, 16), Image.Resampling.BILINEAR))
            assert np.array_equal(got, wanted)
    digest = task.facts["lists"]
    with (folder / "val200.txt").open("a") as file:
        file.write("\n")
    assert vtab_task(tmp_path, "svhn", size=16).facts["lists"] != digest
    both = task.split("train800val200")
    parts = [task.split(name) for name in ("train800", "val200")]
    assert np.array_equal(both.labels, np.concatenate([part.labels for part in parts]))
    assert np.array_equal(
        both.batch(np.arange(19)), np.concatenate([part.batch(np.arange(len(part.labels))) for part in parts])
    )
    assert {key: value for key, value in task.facts.items() if key != "lists"} == {
        "data": "folder",
        "resample": "bilinear",
        "train_images": 19,
        "image_format": {"png": "PNG", "jpg": "JPEG"}[suffix],
        "image_pixels": "6 x 6",
    }


def test_the_test_set_is_read_only_when_asked_for(root, tmp_path):
    (root / "kitti" / "test.txt").unlink()
    shutil.rmtree(root / "kitti" / "images" / "test")
    task = vtab_task(root, "kitti", size=8, cache=tmp_path)
    for split in SPLITS[:3]:
        task.split(split).batch(np.array([0]))
    assert task.facts["train_images"] == 1000
    with pytest.raises(InputError, match=r"test\.txt: no such list"):
        task.split("test")


@pytest.mark.parametrize(
    ("content", "names", "labels"),
    [
        ("a.png 1\nb.jpg 0\n", ("a.png", "b.jpg"), [1, 0]),
        ("a.png 1\r\nb.jpg 0", ("a.png", "b.jpg"), [1, 0]),
        ("a b  c.png\t3\n\n", ("a b  c.png",), [3]),
        ("folder 7/8 2.png 02\n", ("folder 7/8 2.png",), [2]),
        ("a\x0bb\u2028c.png 1\n", ("a\x0bb\u2028c.png",), [1]),
    ],
)
def test_lines_of_lists(tmp_path, content, names, labels):
    """The label is the last field, whatever the path holds."""
    (tmp_path / "list.txt").write_bytes(content.encode())
    found = read_list(tmp_path / "list.txt", 4)
    assert found[0] == names
    assert found[1].tolist() == labels


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda root: vtab_task(root, "cifar10"), "unknown VTAB-1K task 'cifar10'; expected one of caltech101, cifar,"),
        (lambda root: check_vtab(root, ["cifar10"]), "unknown VTAB-1K task 'cifar10'"),
        (lambda root: vtab_task(root, "cifar"), "no folder .*cifar; expected <root>/cifar with the lists"),
        (
            lambda root: vtab_task(root, "kitti").split("train"),
            "unknown split 'train'; expected one of train800, val200",
        ),
        (lambda root: vtab_task(root, "kitti", size=0), "size = 0; expected a whole number of at least 1"),
        (
            lambda root: vtab_task(root, "kitti", resample="cubic"),
            "resample 'cubic'; expected one of bilinear, bilinear-",
        ),
        (lambda root: vtab_task(root, "kitti", cache=root / "kitti/test.txt").split("val200"), "cannot write decoded"),
    ],
)
def test_wrong_arguments(clean, call, message):
    with pytest.raises(InputError, match=message):
        call(clean)


# ---- caches ----------------------------------------------------------------------------------------------------------


def test_the_cache_cannot_be_changed(root, tmp_path):
    """Neither the set's own bytes nor, through a batch, the file's; a second task reads the same file."""
    cache = tmp_path / "cache"
    images = vtab_task(root, "kitti", size=8, cache=cache).split("val200")
    with pytest.raises(ValueError, match="read-only"):
        images.pixels[0] = 0
    with pytest.raises(ValueError, match="WRITEABLE"):
        images.pixels.setflags(write=True)
    with pytest.raises(ValueError, match="read-only"):
        images.labels[0] = 1
    before = images.batch(np.arange(5))
    batch = images.batch(np.arange(5))
    batch[...] = 0
    assert np.array_equal(images.batch(np.arange(5)), before)
    (file,) = cache.iterdir()
    written = file.stat().st_mtime_ns
    again = vtab_task(root, "kitti", size=8, cache=cache).split("val200")
    assert np.array_equal(again.batch(np.arange(5)), before)
    assert file.stat().st_mtime_ns == written
    assert list(cache.iterdir()) == [file]


@pytest.mark.parametrize("change", ["image", "list", "size", "resample"])
def test_the_cache_notices_changes(root, tmp_path, change):
    """Bytes are those of decoding anew, whatever has changed since the cache was written."""
    folder, cache, options = root / "kitti", tmp_path / "cache", {"size": 5}
    old = vtab_task(root, "kitti", **options, cache=cache).split("val200").batch(np.arange(200))
    if change == "image":
        black = io.BytesIO()
        Image.fromarray(np.zeros((8, 8, 3), dtype=np.uint8)).save(black, "png")
        replace(folder / "images/val200/image 00003.png", black.getvalue())
    elif change == "list":
        lines = (folder / "val200.txt").read_text().splitlines(keepends=True)
        (folder / "val200.txt").write_text("".join(lines[::-1]))
    else:
        options |= {"size": {"size": 6}, "resample": {"resample": "bilinear-no-antialias"}}[change]
    new = vtab_task(root, "kitti", **options, cache=cache).split("val200").batch(np.arange(200))
    assert np.array_equal(new, vtab_task(root, "kitti", **options).split("val200").batch(np.arange(200)))
    assert new.shape != old.shape or not np.array_equal(new, old)


@pytest.mark.parametrize("damage", [b"", b"no array", b"PK\x03\x04", "half", "foreign shape", "foreign type"])
def test_a_damaged_cache_is_decoded_anew(clean, tmp_path, damage):
    task = vtab_task(clean, "kitti", size=8, cache=tmp_path)
    wanted = task.split("val200").batch(np.arange(200))
    (file,) = tmp_path.iterdir()
    if isinstance(damage, bytes):
        file.write_bytes(damage)
    elif damage == "half":
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    else:
        np.save(file, np.zeros((3, 3), np.uint8) if damage == "foreign shape" else np.zeros((200, 8, 8, 3)))
    assert np.array_equal(task.split("val200").batch(np.arange(200)), wanted)


def test_the_cache_notices_a_file_of_the_same_size(tmp_path):
    """By its time of change, to the nanosecond."""
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "image.bmp")
    files = Files(tmp_path, ("image.bmp",), Resize(4), "any")
    before, status = files.fingerprint(), os.stat(tmp_path / "image.bmp")
    assert files.fingerprint() == before
    os.utime(tmp_path / "image.bmp", ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert files.fingerprint() != before


def test_the_cache_tells_files_apart_by_name(tmp_path):
    """Two files have the same size and time of change, in another order."""
    for name, value in (("a.bmp", 0), ("b.bmp", 255)):
        Image.fromarray(np.full((4, 4, 3), value, np.uint8)).save(tmp_path / name)
        os.utime(tmp_path / name, (0, 0))
    there, back = (
        cached(Files(tmp_path, names, Resize(4), "any"), tmp_path) for names in (("a.bmp", "b.bmp"), ("b.bmp", "a.bmp"))
    )
    assert there[:, 0, 0, 0].tolist() == [0, 255]
    assert back[:, 0, 0, 0].tolist() == [255, 0]


@pytest.mark.parametrize("cache", [True, False])
def test_a_missing_image_is_named(root, tmp_path, cache):
    (root / "kitti" / "images/val200/image 00150.png").unlink()
    task = vtab_task(root, "kitti", size=8, cache=tmp_path if cache else None)
    for use in (lambda: task.split("val200").batch(np.arange(200)), lambda: task.facts):
        with pytest.raises(InputError, match=r"image 00150\.png: no such image; expected every listed image beside"):
            use()


def test_no_half_cache_stays_after_an_unreadable_image(root, tmp_path):
    replace(root / "kitti" / "images/val200/image 00150.png", b"no image")
    cache = tmp_path / "cache"
    with pytest.raises(InputError, match=r"image 00150\.png: unreadable image"):
        vtab_task(root, "kitti", size=8, cache=cache).split("val200")
    assert list(cache.iterdir()) == []


def test_a_full_disk_is_said_before_decoding(root, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(InputError, match=r"the decoded images need 0\.0 GB, 0\.0 GB are free; choose another cache"):
        vtab_task(root, "kitti", size=8, cache=tmp_path / "cache").split("val200")


# ---- decoding and resampling -----------------------------------------------------------------------------------------


def triangle(old, new, antialias):
    """(new, old): weights of a triangle of half-width max(1, old / new), or 1 without antialiasing."""
    scale = old / new
    width = max(1.0, scale) if antialias else 1.0
    centres = (np.arange(new) + 0.5) * scale - 0.5
    weights = np.clip(1 - np.abs(np.arange(old) - centres[:, None]) / width, 0, None)
    if antialias:
        return weights / weights.sum(axis=1, keepdims=True)
    # Beyond the border the first or last pixel goes on.
    weights[:, 0] += np.clip(-centres, 0, 1)
    weights[:, -1] += np.clip(centres - (old - 1), 0, 1)
    return weights


@pytest.mark.parametrize("resample", ["bilinear", "bilinear-no-antialias"])
@pytest.mark.parametrize(("shape", "size"), [((8, 12), 20), ((31, 24), 7), ((9, 40), 16), ((5, 5), 5)])
def test_resampling_against_its_definition(shape, size, resample):
    """Pillow rounds after each of two passes, so its bytes may be off by one; torch rounds once."""
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    antialias = resample == "bilinear"
    rows, columns = triangle(shape[0], size, antialias), triangle(shape[1], size, antialias)
    wanted = np.einsum("yi,xj,ijc->yxc", rows, columns, pixels)
    got = Resize(size, resample=resample)(Image.fromarray(pixels))
    assert got.shape == (size, size, 3)
    assert np.abs(got - wanted).max() <= (1.01 if antialias else 0.501)


def test_two_by_two_by_hand():
    """2 -> 4 takes steps of 1/4, 3/4; 4 -> 1 without antialiasing is the mean of the four middle pixels only."""
    small = np.array([[0, 100], [200, 40]], dtype=np.uint8)
    image = Image.fromarray(np.repeat(small[..., None], 3, axis=2))
    for resample in ("bilinear", "bilinear-no-antialias"):
        got = Resize(4, resample=resample)(image)[..., 0]
        assert got[0].tolist() == [0, 25, 75, 100]
        assert got[3].tolist() == [200, 160, 80, 40]
        assert got[:, 0].tolist() == [0, 50, 150, 200]
    edge = np.zeros((4, 4, 3), dtype=np.uint8)
    edge[0] = 240
    assert Resize(1, resample="bilinear-no-antialias")(Image.fromarray(edge)).max() == 0
    assert Resize(1)(Image.fromarray(edge)).min() > 0


def test_every_mode_becomes_rgb(tmp_path):
    """Grey, palette with transparency, alpha: the colours stay, nothing warns; 16 bits are refused, not clipped."""
    grey = np.arange(0, 240, 15, dtype=np.uint8).reshape(4, 4)
    rgb = np.repeat(grey[..., None], 3, axis=2)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(np.concatenate([rgb, 255 - grey[..., None]], axis=2)).save(tmp_path / "alpha.png")
    palette = Image.fromarray(rgb).quantize(16)
    palette.save(tmp_path / "palette.png", transparency=bytes(range(16)))
    for name in ("grey", "alpha", "palette"):
        assert np.array_equal(np.asarray(read_rgb(tmp_path / f"{name}.png")), rgb), name
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    with pytest.raises(InputError, match=r"deep\.png: pixels of more than 8 bits .*expected 8 bits per channel"):
        read_rgb(tmp_path / "deep.png")


def test_ignores_what_a_file_is_called(tmp_path):
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "image.png")
    (tmp_path / "image.png").rename(tmp_path / "image.txt")
    files = Files(tmp_path, ("image.txt",), Resize(4), "any")
    assert cached(files, tmp_path).shape == (1, 4, 4, 3)


# ---- check -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("thorough", [False, True])
def test_a_clean_root(clean, thorough):
    findings = check_vtab(clean, ["kitti"], thorough)
    assert texts(findings, PROBLEM) == []
    assert texts(findings, WARNING) == [
        "50 test images; the published test set has 711, so accuracies will not compare"
    ]
    seen = "all decoded" if thorough else "50 decoded, spread evenly over the lists (all: --thorough)"
    assert texts(findings, NOTE) == [f"1050 images listed, PNG; {seen}"]


def edit(name, change):
    """A fault: the lines of a list, changed."""

    def spoil(folder):
        path = folder / f"{name}.txt"
        path.write_text("".join(change(path.read_text().splitlines(keepends=True))))

    return spoil


def relabel(name, line, label):
    return edit(name, lambda lines: [*lines[:line], lines[line].rsplit(" ", 1)[0] + label, *lines[line + 1 :]])


def truncate(folder):
    path = folder / "images/train800/image 00000.png"
    replace(path, path.read_bytes()[:-30])


def leak(folder):
    """The same file under two spellings."""
    for split in ("val200", "train800val200"):
        edit(split, lambda lines: [line.replace("images/val", "./images/val") for line in lines])(folder)
    edit("test", lambda lines: ["images//val200/image 00001.png 1\n", *lines])(folder)


def other_image(folder):
    shutil.copy(folder / "images/train800/image 00000.png", folder / "new.png")
    edit("train800val200", lambda lines: ["new.png 0\n", *lines[1:]])(folder)


FAULTS = {
    "no folder": (shutil.rmtree, "no folder .*kitti; expected it with the lists train800, val200"),
    "no list": (lambda folder: (folder / "val200.txt").unlink(), r"val200\.txt: no such list"),
    "empty list": (edit("train800", lambda lines: []), r"train800\.txt: empty"),
    "no text": (lambda folder: (folder / "test.txt").write_bytes(b"\xff\xfe"), r"test\.txt: unreadable"),
    "799 images": (edit("train800", lambda lines: lines[1:]), r"train800\.txt lists 799 images; expected 800"),
    "201 images": (edit("val200", lambda lines: [*lines, lines[0]]), r"val200\.txt lists 201 images; expected 200"),
    "1001 in all": (edit("train800val200", lambda lines: [*lines, lines[0]]), "lists 1001 images; expected"),
    "another image": (other_image, r"is not train800\.txt and val200\.txt together, as at 'new\.png 0'"),
    "another label": (
        relabel("train800val200", 5, " 0\n"),
        r"not train800\.txt and val200\.txt together, as at 'images/train800/image 00005\.png 0'",
    ),
    "listed twice": (
        lambda folder: [edit(s, lambda x: [*x[:-1], x[-2]])(folder) for s in ("val200", "train800val200")],
        r"images that train800val200\.txt lists twice, 1 in all, as images/val200/image 00198\.png",
    ),
    "no label": (
        edit("val200", lambda lines: ["image.png\n", *lines[1:]]),
        "1 line without a label, the first is line 1",
    ),
    "no number": (
        relabel("train800", 3, " car\n"),
        "1 line whose label is no whole number, the first is line 4, 'images",
    ),
    "a fraction": (relabel("val200", 0, " 1.0\n"), r"val200\.txt: 1 line whose label is no whole number"),
    "negative": (relabel("test", 0, " -1\n"), r"test\.txt: 1 line whose label is no whole number"),
    "out of range": (
        relabel("test", 2, " 4\n"),
        r"test\.txt: 1 line whose label is out of range, the first is line 3, .*; expected a whole number from 0 to 3",
    ),
    "a class short": (
        lambda folder: [
            edit(split, lambda lines: [line.replace(" 3\n", " 2\n") for line in lines])(folder) for split in SPLITS
        ],
        "3 classes in all lists together; expected 4",
    ),
    "no image": (
        lambda folder: (folder / "images/test/image 00007.png").unlink(),
        r"missing images, 1 of 1050 listed, as .*images/test/image 00007\.png",
    ),
    "unreadable": (truncate, r"unreadable images, 1 of 50 decoded, as .*image 00000\.png: unreadable image"),
    "test in train": (
        leak,
        r"test images that are also in train800val200, 1 of 51, as \./images/val200/image 00001\.png",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_one_line(root, fault):
    spoil, message = FAULTS[fault]
    spoil(root / "kitti")
    (problem,) = texts(check_vtab(root, ["kitti"]), PROBLEM)
    assert "\n" not in problem
    assert re.search(message, problem), problem


def test_thorough_reads_every_image(root):
    """One bad image outside the sample is found only then, and the sample says that it is one."""
    replace(root / "kitti" / "images/val200/image 00150.png", b"no image")
    assert texts(check_vtab(root, ["kitti"]), PROBLEM) == []
    (problem,) = texts(check_vtab(root, ["kitti"], thorough=True), PROBLEM)
    assert "unreadable images, 1 of 1050 decoded, as" in problem


def test_warnings_on_small_images(tmp_path):
    """JPEG where the task's images are small, and images that are not of the data set's own size."""
    make_vtab_root(tmp_path, "cifar", pixels=8, test=1, suffix="jpg")
    findings = check_vtab(tmp_path, ["cifar"])
    assert texts(findings, PROBLEM) == []
    first, second, third = texts(findings, WARNING)
    assert first.startswith("1 test image; the published test set has 10000")
    assert second.startswith(
        "images of 32 pixels as JPEG; a lossy export costs up to 15 points (CIFAR-100): export PNG"
    )
    assert third == "images of 8 x 8 pixels; the data set's own have 32 x 32"


def test_a_faithful_small_task_has_no_warning_but_its_test_set(tmp_path):
    make_vtab_root(tmp_path, "svhn", pixels=32, test=10)
    (warning,) = texts(check_vtab(tmp_path, ["svhn"]), WARNING)
    assert warning.startswith("10 test images; the published test set has 26032")


def command(*arguments):
    return call("vtab.py", *arguments)


def test_the_command_on_a_clean_root(clean):
    """As a process of its own."""
    given = [sys.executable, EXPERIMENTS / "vtab.py", "check", "--data", clean, "--task", "kitti"]
    done = subprocess.run(given, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].startswith("kitti: warning: 50 test images;")
    assert done.stdout.splitlines()[-1] == "1 task checked, 0 problems"


def test_the_command_on_a_root_with_faults(clean):
    done = command("check", "--data", clean, "--task", "kitti,specialized,fgvc:dogs")
    assert done.returncode == 1
    problems = [line for line in done.stdout.splitlines() if ": problem: " in line]
    specialized = ["diabetic_retinopathy", "eurosat", "patch_camelyon", "resisc45"]
    assert [line.split(": problem: ")[0] for line in problems] == [*specialized, "fgvc:dogs"]
    assert done.stdout.splitlines()[-1] == "6 tasks checked, 5 problems"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "vtab.py: the following arguments are required: COMMAND (see --help)"),
        (["check"], "vtab.py check: the following arguments are required: --data (see --help)"),
        (["check", "--data", "nowhere"], "vtab.py: --data nowhere: no such folder; expected the root of the data"),
        (["check", "--data", ".", "--task", "cifar10"], "vtab.py: --task cifar10; expected some of natural, "),
    ],
)
def test_wrong_commands_are_one_line(arguments, message):
    done = command(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1


def test_fetch_help_names_every_task():
    done = command("fetch-help")
    assert done.returncode == 0
    assert all(re.search(rf"^ +{name} ", done.stdout, re.M) for name in TASKS)
    assert "TensorFlow Datasets" in done.stdout
    assert "PNG" in done.stdout

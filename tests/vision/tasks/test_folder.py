"""Plain folders and emoji: labels are the order of the classes' names, nothing is lost, wrong folders are one line."""

import hashlib
import io
import json
import os
import subprocess
import tarfile

import numpy as np
import pytest
from commands import call
from PIL import Image

from moe_prompts.errors import InputError
from moe_prompts.vision.tasks import emoji
from moe_prompts.vision.tasks.folder import folder_task
from moe_prompts.vision.tasks.named import TaskSpec, task_names

COLOURS = {"blue": (0, 0, 250), "green": (0, 250, 0), "red": (250, 0, 0)}


def plain_folder(root, name="paint", train=(10, 20, 15), test=4):
    """Images of one colour, a class each; a grey level tells them apart."""
    for part, numbers in (("train", train), ("test", (test,) * 3)):
        for (colour, rgb), number in zip(COLOURS.items(), numbers, strict=True):
            folder = root / name / part / colour
            folder.mkdir(parents=True)
            for index in range(number):
                Image.new("RGB", (9, 7), tuple(max(value, 5 * index) for value in rgb)).save(folder / f"{index}.png")
            (folder / ".hidden").write_text("not an image")
    return root


def test_labels_are_the_order_of_the_names(tmp_path):
    task = folder_task(plain_folder(tmp_path), "folder:paint", size=8)
    assert (task.name, task.classes, task.size, task.group) == ("folder:paint", 3, 8, "folder")
    for split, number in (("train800", 36), ("val200", 9), ("train800val200", 45), ("test", 12)):
        images = task.split(split)
        assert len(images.labels) == number
        brightest = images.batch(np.arange(number)).mean(axis=(1, 2)).argmax(axis=1)
        np.testing.assert_array_equal(2 - brightest, images.labels)  # blue, green, red
    assert task.facts["train_images"] == 45
    assert task.facts["image_format"] == "PNG"


def test_the_two_cuts_of_the_training_images_are_all_of_them(tmp_path):
    """Every grey level and colour occurs once in fit and validation together; each class in its share, within one."""
    task = folder_task(plain_folder(tmp_path), "paint", size=8, entropy=3)
    parts = [task.split(name) for name in ("train800", "val200", "train800val200")]
    fit, judge, both = ([tuple(i[0, 0]) for i in part.batch(np.arange(len(part.labels)))] for part in parts)
    assert sorted(fit + judge) == sorted(both)
    np.testing.assert_allclose(np.bincount(parts[0].labels), 0.8 * np.array([10, 20, 15]), atol=1)
    other = folder_task(tmp_path, "paint", size=8, entropy=4).split("train800")
    assert (other.indices != parts[0].indices).any()


def test_a_folder_task_by_name(tmp_path):
    plain_folder(tmp_path)
    assert task_names("folder:paint,dtd,folder:paint") == ["folder:paint", "dtd"]
    spec = TaskSpec("folder:paint", size=8, root=str(tmp_path), cache=str(tmp_path / "cache"))
    assert spec.label == "folder-paint"
    images = spec.open().split("train800")
    assert images.batch(np.array([0])).shape == (1, 8, 8, 3)
    with pytest.raises(InputError, match="expected some of natural"):
        task_names("folder:")
    with pytest.raises(InputError, match="needs images: give their folder with --data"):
        TaskSpec("folder:paint")


def test_drawn_tasks_have_short_names_where_no_real_task_has_them():
    assert task_names("folder:paint,letters,dsprites_loc", stand_ins=True) == [
        "folder:paint",
        "stand-in:letters",
        "dsprites_loc",
    ]
    with pytest.raises(InputError, match="--task letters; expected some of natural"):
        task_names("letters")


def read_all(root):
    task = folder_task(root, "paint", size=8)
    for split in ("train800val200", "test"):
        images = task.split(split)
        images.batch(np.arange(len(images.labels)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "test").rename(f / "tested"), "no folder .*test; expected it with one folder of images per cl"),
        (lambda f: (f / "train" / "red" / "deeper").mkdir(), "red: a folder deeper in it; expected images"),
        (lambda f: (f / "train" / "yellow").mkdir(), "yellow: nothing in it; expected images"),
        (lambda f: (f / "test" / "yellow").mkdir(), "yellow: no folder of a class; expected only folders named as"),
        (lambda f: (f / "test" / "a.png").touch(), "a.png: no folder of a class"),
        (lambda f: [os.replace(f / "train" / c, f / f".{c}") for c in ("red", "blue")], "1 folders; expected at least"),
        (lambda f: (f / "test" / "red" / "0.png").write_text("%!PS"), "unreadable image"),
    ],
)
def test_a_wrong_folder_is_one_clear_error(tmp_path, change, message):
    change(plain_folder(tmp_path) / "paint")
    with pytest.raises(InputError, match=message) as error:
        read_all(tmp_path)
    assert "\n" not in str(error.value)


def test_an_unknown_split(tmp_path):
    with pytest.raises(InputError, match="unknown split 'val'"):
        folder_task(plain_folder(tmp_path), "paint").split("val")


CATEGORIES = ("Food & Drink", "Flags")


def archive(path, folder, grey, extra=()):
    """A package as npm leaves it: twelve emoji in two categories, half transparent squares of one grey."""
    listed = [{"image": f"{0x1F600 + i:x}.png", "category": CATEGORIES[i % 2]} for i in range(12)]
    listed.append({"image": "1f3fb.png", "category": "Component"})
    members = {"package/emoji.json": json.dumps(listed).encode(), "package/package.json": b"{}"}
    for index in range(12):
        with io.BytesIO() as file:
            image = Image.new("RGBA", (4, 4), (grey, grey, index, 255))
            image.putpixel((0, 0), (0, 0, 0, 0))
            image.save(file, format="PNG")
            members[f"package/img/{folder}/64/{0x1F600 + index:x}.png"] = file.getvalue()
    with tarfile.open(path, "w:gz") as tar:
        for name, content in [*members.items(), *extra]:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def vendors(monkeypatch, archives):
    """The two vendors, with the sha256 of these archives."""
    known = {
        part: emoji.Vendor(vendor.package, vendor.folder, hashlib.sha256(archives[part].read_bytes()).hexdigest())
        for part, vendor in emoji.VENDORS.items()
    }
    monkeypatch.setattr(emoji, "VENDORS", known)


@pytest.fixture
def archives(tmp_path):
    outside = [("package/img/twitter/64/../../../../evil.png", b"no"), ("../1f600.png", b"no")]
    return {
        "train": archive(tmp_path / "google.tgz", "google", 40),
        "test": archive(tmp_path / "twitter.tgz", "twitter", 200, outside),
    }


def test_emoji_are_a_plain_folder_with_no_emoji_on_both_sides(tmp_path, archives, monkeypatch):
    vendors(monkeypatch, archives)
    folder = emoji.fetch_emoji(tmp_path / "data", archives)
    task = folder_task(tmp_path / "data", "emoji", size=4)
    assert task.names == ("flags", "food-drink")
    train, test = task.split("train800val200"), task.split("test")
    assert np.bincount(train.labels).tolist() == np.bincount(test.labels).tolist() == [3, 3]
    pixels = [images.batch(np.arange(6)) for images in (train, test)]
    assert [set(part[:, 2, 2, 0]) for part in pixels] == [{40}, {200}]  # each side from its vendor
    assert all((part[:, 0, 0] == 255).all() for part in pixels)  # what is transparent is white
    numbers = [part[:, 2, 2, 2] for part in pixels]
    assert sorted(np.concatenate(numbers)) == list(range(12))
    for part, images in zip(numbers, (train, test), strict=True):
        np.testing.assert_array_equal(images.labels, 1 - part % 2)  # even ones are food
    assert not list(tmp_path.rglob("evil.png"))
    assert not (tmp_path / "1f600.png").exists()
    assert "CC-BY 4.0" in (folder / "NOTICE").read_text()
    with pytest.raises(InputError, match="emoji is there already"):
        emoji.fetch_emoji(tmp_path / "data", archives)


def test_the_command_takes_two_archives_and_refuses_others(tmp_path, archives):
    """The archives of the test have another sha256 than the published ones."""
    given = ["--train-archive", str(archives["train"]), "--test-archive", str(archives["test"])]
    done = call("tasks.py", "emoji", "--data", str(tmp_path / "data"), *given)
    assert done.returncode == 2
    assert "sha256" in done.stderr
    assert done.stderr.count("\n") == 1
    half = call("tasks.py", "emoji", *given[:2])
    assert (half.returncode, half.stderr.count("\n")) == (2, 1)
    assert not (tmp_path / "data" / "emoji").exists()


@pytest.mark.parametrize("case", ["no npm", "npm fails", "cut off", "no such file"])
def test_what_goes_wrong_is_one_line(tmp_path, archives, monkeypatch, case):
    vendors(monkeypatch, archives)
    messages = {
        "no npm": "npm: not found; expected it on the path",
        "npm fails": "npm pack emoji-datasource-google@16.0.0: npm error code E404; expected a registry",
        "cut off": "google.tgz: unreadable",
        "no such file": "gone.tgz: No such file or directory; expected the archive of emoji-datasource-google",
    }
    given = None
    if case == "no npm":
        monkeypatch.setenv("PATH", str(tmp_path))
    elif case == "npm fails":
        failed = subprocess.CompletedProcess([], 1, "", "npm error code E404\nnpm error 404 Not Found")
        monkeypatch.setattr(emoji.subprocess, "run", lambda *args, **options: failed)
    elif case == "cut off":
        archives["train"].write_bytes(archives["train"].read_bytes()[:200])
        vendors(monkeypatch, archives)
        given = archives
    else:
        given = archives | {"train": tmp_path / "gone.tgz"}
    with pytest.raises(InputError, match=messages[case]) as error:
        emoji.fetch_emoji(tmp_path / "data", given)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "data" / "emoji").exists()


def test_the_sheet_and_the_probe_run(tmp_path):
    """The probe of the small drawn backbone on two classes of colour is right, where one pixel tells the class."""
    plain_folder(tmp_path)
    common = ("--task", "digits,folder:paint", "--data", str(tmp_path), "--size", "32")
    done = call("tasks.py", "sheet", *common, "--images", "3", "--out", str(tmp_path / "sheet.png"))
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.width > 200
    options = ("--backbone", "small", "--train", "60", "--test", "40", "--out", str(tmp_path / "out"))
    done = call("tasks.py", "probe", *common, *options)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "out" / "probe.json").read_text())["rows"]
    assert [row["task"] for row in rows] == ["digits", "folder:paint"]
    assert rows[1]["pixels"] == 1
    assert "folder:paint 3 0.333 1.000 " in " ".join(done.stdout.split())
    lacking = call("tasks.py", "sheet", "--task", "folder:paint")
    assert (lacking.returncode, lacking.stderr.count("\n")) == (2, 1)

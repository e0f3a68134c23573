"""Lists and files that mean the same, written by other programs: byte order marks, accents, slashes, repeated keys."""

import json
import unicodedata

import numpy as np
import pytest
from data_roots import make_fgvc_root, make_vtab_root, tiny_image
from PIL import Image, ImageFile

from moe_prompts.errors import InputError
from moe_prompts.vision.tasks.check import PROBLEM, check_fgvc, check_vtab
from moe_prompts.vision.tasks.fgvc import fgvc_task, read_json, read_labels
from moe_prompts.vision.tasks.images import read_rgb
from moe_prompts.vision.tasks.vtab import read_list, vtab_task

NFC, NFD = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))


def picture(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(path)


def problems(findings):
    return [finding.text for finding in findings if finding.kind == PROBLEM]


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path):
    (tmp_path / "list.txt").write_text("images/0.png 1\nimages/1.png 0\n", encoding="utf-8-sig")
    assert read_list(tmp_path / "list.txt", 2)[0] == ("images/0.png", "images/1.png")
    (tmp_path / "train.json").write_text(json.dumps({"0.png": 1}), encoding="utf-8-sig")
    assert read_json(tmp_path / "train.json") == {"0.png": 1}


@pytest.mark.parametrize(
    ("listed", "there"),
    [
        (f"caf{NFC}/x{NFC}.png", f"caf{NFD}/x{NFD}.png"),
        (f"caf{NFD}/x{NFD}.png", f"caf{NFC}/x{NFC}.png"),
        (f"caf{NFC}/x{NFC}.png", f"caf{NFD}/x{NFC}.png"),
        (f"caf{NFC}/x.png", f"caf{NFD}/x.png"),
        ("images\\x.png", "images/x.png"),
        (f"caf{NFC}\\x.png", f"caf{NFD}/x.png"),
        ("images\\x.png", "images\\x.png"),
    ],
)
def test_names_that_look_the_same_find_their_files(listed, there, tmp_path):
    """An accent is one character or two, and Windows writes its folders with backslashes."""
    picture(tmp_path / there)
    (tmp_path / "list.txt").write_text(f"{listed} 0\nmissing{NFC}.png 1\n", encoding="utf-8")
    names, _ = read_list(tmp_path / "list.txt", 2)
    assert names == (there, f"missing{NFC}.png")
    (tmp_path / "train.json").write_text(json.dumps({listed: 0}), encoding="utf-8")
    assert read_labels(tmp_path / "train.json", {0: 0})[0] == (there,)


def test_a_test_image_is_a_leak_under_every_spelling(tmp_path):
    folder = make_vtab_root(tmp_path, "kitti", test=711)
    (folder / "images/train800/image 00000.png").rename(folder / f"images/train800/{NFD}.png")
    for split, form in (("train800", NFC), ("train800val200", NFC), ("test", NFD)):
        path = folder / f"{split}.txt"
        lines = path.read_text(encoding="utf-8").splitlines()
        path.write_text("\n".join([f"images/train800/{form}.png 0", *lines[1:]]), encoding="utf-8")
    (problem,) = problems(check_vtab(tmp_path, ["kitti"]))
    assert problem.startswith("test images that are also in train800val200, 1 of 711")


@pytest.mark.parametrize(("before", "fault"), [("", "none"), ("./", "none"), (".//", "a label"), ("", "an order")])
def test_a_folder_of_images_for_each_list(before, fault, tmp_path):
    """The usual export: train800val200 has copies of its own, in the order of train800, then val200."""
    rng = np.random.default_rng(0)
    items = [(tiny_image(i % 4, 4, (8, 8), rng), i % 4) for i in range(1000 + 711)]
    lists = {"train800": items[:800], "val200": items[800:1000], "train800val200": items[:1000], "test": items[1000:]}
    for split, listed in lists.items():
        lines = []
        for i, (pixels, label) in enumerate(listed):
            path = tmp_path / f"kitti/images/{split}/{i:06d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
            lines.append(f"{before}images/{split}/{i:06d}.jpg {label}\n")
        if split == "train800val200":
            lines[0] = lines[0].replace(" 0\n", " 1\n") if fault == "a label" else lines[0]
            lines = lines[1:] + lines[:1] if fault == "an order" else lines
        (tmp_path / f"kitti/{split}.txt").write_text("".join(lines))
    found = problems(check_vtab(tmp_path, ["kitti"]))
    assert len(found) == (fault != "none")
    assert all("is not train800.txt and val200.txt together" in text for text in found)


def test_an_image_twice_in_a_json_file_is_refused_with_its_name(tmp_path):
    """Python keeps the last of two equal keys, so that the first label would be lost."""
    folder = make_fgvc_root(tmp_path, "flowers", per_class=(1, 1, 1))
    path = folder / "train.json"
    path.write_text(path.read_text().replace("{", '{"train 003 0.png": "class0001", ', 1))
    with pytest.raises(InputError, match=r"train\.json: the image 'train 003 0\.png' stands there twice") as error:
        fgvc_task(tmp_path, "flowers", size=7).split("train800")
    assert "\n" not in str(error.value)
    (problem,) = problems(check_fgvc(tmp_path, ["flowers"]))
    assert "stands there twice" in problem


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_cut_images_are_refused_though_another_package_lets_pillow_fill_them(suffix, tmp_path, monkeypatch):
    path = tmp_path / f"x.{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert read_rgb(path).size == (64, 64)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with Image.open(path) as image:
        image.load()  # so other packages read it: half of it is grey
    with pytest.raises(InputError, match=r"unreadable image .*expected a whole image"):
        read_rgb(path)
    assert ImageFile.LOAD_TRUNCATED_IMAGES  # as the other package left it


def test_labels_of_any_length_are_one_line(tmp_path):
    (tmp_path / "list.txt").write_text(f"a.png 0\nb.png {'9' * 5000}\n")
    with pytest.raises(InputError, match=r"1 line whose label is out of range, the first is line 2"):
        read_list(tmp_path / "list.txt", 4)
    (tmp_path / "list.txt").write_text(f"a.png {'0' * 5000}2\n")
    assert read_list(tmp_path / "list.txt", 4)[1].tolist() == [2]


def test_an_accented_task_is_read_from_end_to_end(tmp_path):
    folder = make_vtab_root(tmp_path, "svhn", pixels=6, test=5, counts=(12, 7))
    (folder / "images").rename(folder / f"images {NFD}")
    for path in folder.glob("*.txt"):
        path.write_text(path.read_text().replace("images/", f"images {NFC}/"), encoding="utf-8")
    task = vtab_task(tmp_path, "svhn", size=6)
    assert task.split("train800").batch(np.arange(12)).shape == (12, 6, 6, 3)
    assert task.facts["train_images"] == 19

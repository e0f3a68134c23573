"""Images and lists come from anywhere: only regular image files below the folder are opened, and by Pillow alone."""

import json
import os
import shutil
import struct
import zlib

import numpy as np
import pytest
from data_roots import make_fgvc_root, make_vtab_root
from PIL import Image

from moe_prompts import InputError
from moe_prompts.vision.tasks import fgvc, vtab
from moe_prompts.vision.tasks.check import PROBLEM, check_fgvc, check_vtab
from moe_prompts.vision.tasks.images import FORMATS, Files, Resize, read_header, read_rgb

POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\nshowpage\n%%EOF\n"


def bomb(path, side):
    """A small PNG of side x side zeros of one bit."""
    chunk = lambda kind, body: struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    packer = zlib.compressobj(9)
    body = b"".join(packer.compress(bytes(side // 8 + 1)) for _ in range(side)) + packer.flush()
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b""))


@pytest.mark.parametrize("read", [read_rgb, read_header])
def test_no_program_is_started_for_an_image(read, tmp_path, monkeypatch):
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/RAN\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (tmp_path / "x.png").write_bytes(POSTSCRIPT)
    with pytest.raises(InputError, match=r"x\.png: unreadable image .none of JPEG, PNG"):
        read(tmp_path / "x.png")
    assert not (tmp_path / "RAN").exists()


@pytest.mark.parametrize("read", [read_rgb, read_header])
def test_an_image_that_would_fill_the_memory_is_refused(read, tmp_path):
    bomb(tmp_path / "x.png", 13_000)
    with pytest.raises(InputError, match=r"x\.png: too many pixels .*export a smaller one"):
        read(tmp_path / "x.png")


@pytest.mark.parametrize("read", [read_rgb, read_header])
@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_what_is_no_file_is_refused_at_once(read, kind, tmp_path):
    path = tmp_path / "x.png"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path = "/dev/zero"
    with pytest.raises(InputError, match=r"is no regular file|Is a directory"):
        read(path)


@pytest.mark.parametrize("name", ["/etc/passwd", "../x.png", "a/../../x.png", "a\0b", "/x" * 300])
def test_names_that_lead_out_of_the_folder_are_refused(name, tmp_path):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "x.png")
    files = Files(tmp_path / "images", (name,), Resize(4), "any")
    for ask in (lambda: files[0], files.shapes, files.fingerprint):
        with pytest.raises(InputError, match=r"any: the list names .* which is not below .*anywhere=True"):
            ask()


def test_an_option_allows_others(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "x.png")
    files = Files(tmp_path / "images", (str(tmp_path / "x.png"),), Resize(4), "any", anywhere=True)
    assert files[0].shape == (4, 4, 3)


# ---- lists of tasks --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """Return a root with the tasks kitti and flowers."""
    root = tmp_path_factory.mktemp("clean")
    make_vtab_root(root, "kitti", test=5, counts=(8, 2))
    make_fgvc_root(root, "flowers", per_class=(1, 1, 1))
    return root


@pytest.fixture(params=["vtab", "fgvc"])
def leading_out(request, clean, tmp_path):
    """Return one image outside a task's folder that its lists name, and what opens and checks this task."""
    root = tmp_path / "root"
    shutil.copytree(clean, root, copy_function=os.link)
    if request.param == "vtab":
        folder, first = root / "kitti", "images/train800/image 00000.png"
        name = str((tmp_path / "secret.png").absolute())
        for split in ("train800", "train800val200"):
            text = (folder / f"{split}.txt").read_text()
            (folder / f"{split}.txt").unlink()
            (folder / f"{split}.txt").write_text(text.replace(first, name))
        open_task = lambda **options: vtab.vtab_task(root, "kitti", 8, **options)
        check = lambda **options: check_vtab(root, ["kitti"], **options)
    else:
        folder, name = root / fgvc.TASKS["flowers"].folders[0], "../../../secret.png"
        content = json.loads((folder / "train.json").read_text())
        first = "train 000 0.png"
        (folder / "train.json").unlink()
        (folder / "train.json").write_text(json.dumps(content | {name: content[first]}))
        open_task = lambda **options: fgvc.fgvc_task(root, "flowers", 8, **options)
        check = lambda **options: check_fgvc(root, ["flowers"], **options)
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    return tmp_path / "secret.png", open_task, check


def test_facts_of_a_task_open_no_file_outside_its_folder(leading_out):
    secret, open_task, _ = leading_out
    secret.write_bytes(b"no image")  # would be said, were it read
    with pytest.raises(InputError, match=r"the list names '.*', which is not below .*--anywhere"):
        _ = open_task().facts
    with pytest.raises(InputError, match="unreadable image"):
        _ = open_task(anywhere=True).facts


def test_images_of_a_task_outside_its_folder_are_allowed_by_an_option(leading_out):
    _, open_task, _ = leading_out
    everywhere = open_task(anywhere=True)
    images = everywhere.split("train800")
    place = images.files.names if hasattr(images, "files") else images.images.names
    index = next(number for number, name in enumerate(place) if name.endswith("secret.png"))
    assert not images.batch(np.array([index])).any()  # black, as the image outside
    assert everywhere.facts["image_format"] == "PNG"
    with pytest.raises(InputError, match="which is not below"):
        open_task().split("train800").batch(np.array([index]))


def test_a_check_says_which_names_lead_out_and_opens_none(leading_out):
    secret, _, check = leading_out
    secret.write_bytes(b"no image")
    texts = [finding.text for finding in check(thorough=True) if finding.kind == PROBLEM]
    assert not [text for text in texts if text.startswith("unreadable images")]
    (problem,) = [text for text in texts if text.startswith("names that are not below")]
    assert ", 1 of " in problem
    assert problem.endswith("or allow others with --anywhere (anywhere=True)")
    texts = [finding.text for finding in check(thorough=True, anywhere=True) if finding.kind == PROBLEM]
    (problem,) = [text for text in texts if text.startswith("unreadable images")]
    assert problem.startswith("unreadable images, 1 of ")
    assert "secret.png: unreadable image" in problem


@pytest.mark.parametrize("name", ["é" * 3000, "a/" * 3000 + "é", "x" * 3000])
def test_names_that_no_file_system_takes_are_missing_images(name, clean, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(clean / "kitti", root / "kitti", copy_function=os.link)
    text = (root / "kitti" / "test.txt").read_text()
    (root / "kitti" / "test.txt").unlink()
    (root / "kitti" / "test.txt").write_text(text + f"{name} 0\n")
    texts = [finding.text for finding in check_vtab(root, ["kitti"]) if finding.kind == PROBLEM]
    assert [text for text in texts if text.startswith("missing images, 1 of 16 listed")]


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow warns of damaged tags beside sound pixels
@pytest.mark.parametrize("form", FORMATS)
def test_damaged_images_are_one_line_or_an_image(form, tmp_path):
    rng = np.random.default_rng(FORMATS.index(form))
    path = tmp_path / "x.img"
    Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(path, form)
    whole = path.read_bytes()
    assert read_rgb(path).size == (16, 16)
    for _ in range(int(os.environ.get("MOE_PROMPTS_EXAMPLES", "40"))):
        damaged = bytearray(whole)
        for place in rng.choice(len(whole), rng.integers(1, 5)):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged[: rng.integers(1, len(whole) + 1)] if rng.random() < 0.3 else damaged)
        said = ""
        try:
            read_rgb(path)
        except InputError as error:
            said = str(error)
        assert "\n" not in said

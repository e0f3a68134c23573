"""Images and lists come from anywhere: only regular image files below the folder are opened, and by Pillow alone."""

import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from moe_prompts import InputError
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

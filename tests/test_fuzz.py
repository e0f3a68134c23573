"""Files from anywhere are read, or refused in one line: within 5 seconds of a processor and 1 GB of memory each.

Every reader gets files that are sound but for a few changes: bytes, numbers, pieces of a description. A few of them by
default, many in a slow test. Peaks of memory are those that the kernel keeps for this process.
"""

import copy
import io
import json
import re
import signal
import struct
import zipfile
import zlib
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from algebra import table
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from moe_prompts import InputError
from moe_prompts.engine.store import RunFolder
from moe_prompts.study.replication import MODELS
from moe_prompts.study.replication_report import read_published
from moe_prompts.theory.certificates.verify import Verification, verify, verify_table

SECONDS, MEMORY = 5.0, 1e9
FEW, MANY = 10, 500


class TooLong(BaseException):
    """No reader takes it for an error of its own."""


@contextmanager
def bounded(memory=MEMORY):
    """Hold the time and the peak of the memory of what runs within."""

    def stop(*_):
        raise TooLong

    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = peak()
    handler = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, handler)
    assert peak() - before < memory


def peak():
    return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])


# What is changed -----------------------------------------------------------------------------------------------------

NUMBERS = [0, 1, -1, 255, 2**15, 2**31 - 1, 2**32, 2**62, 10**30, 1e308, float("inf"), float("nan"), "9" * 5000]
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(NUMBERS),
    st.text(max_size=6),
    st.sampled_from(["../x", "/etc/passwd", "a\0b", "\ud800", [], {}, [[]], [0] * 1000, {"a": 1}, "x" * 10_000]),
)


def bytes_like(whole):
    """``whole`` after up to five changes."""
    place = st.floats(0, 1)
    change = st.one_of(
        st.tuples(st.just("set"), place, st.binary(min_size=1, max_size=8)),
        st.tuples(st.just("set"), place, st.sampled_from([b"\0" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff", b"\xff" * 8])),
        st.tuples(st.just("insert"), place, st.binary(min_size=1, max_size=40)),
        st.tuples(st.just("remove"), place, st.integers(1, 200)),
        st.tuples(st.just("repeat"), place, st.integers(1, 2000)),
        st.tuples(st.just("cut"), place, st.none()),
    )
    return st.lists(change, max_size=5).map(lambda changes: edited(whole, changes))


def edited(whole, changes):
    content = bytearray(whole)
    for kind, place, what in changes:
        at = int(place * len(content))
        if kind == "set":
            content[at : at + len(what)] = what
        elif kind == "insert":
            content[at:at] = what
        elif kind == "remove":
            del content[at : at + what]
        elif kind == "repeat":
            content[at:at] = content[at : at + what]
        else:
            del content[at:]
    return bytes(content)


def value_like(value, odd=ODD):
    """``value`` with one or two of its entries replaced, removed or nested deeply."""
    paths = [path for path, _ in places(value)]
    change = st.tuples(st.sampled_from(paths), st.sampled_from(["replace", "replace", "remove", "nest"]), odd)
    return st.lists(change, min_size=1, max_size=2).map(lambda changes: changed(value, changes))


def places(value, path=()):
    yield path, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def changed(value, changes):
    value = copy.deepcopy(value)
    for path, how, new in changes:
        if not path:
            return new
        at = value
        try:
            for key in path[:-1]:
                at = at[key]
            if how == "remove":
                del at[path[-1]]
            else:
                at[path[-1]] = nested(new) if how == "nest" else new
        except (KeyError, IndexError, TypeError):  # gone by an earlier change
            continue
    return value


def nested(value, depth=200):
    for _ in range(depth):
        value = [value]
    return value


def as_json(value):
    return json.dumps(value).encode()


# Readers: what is sound, how it is changed, who reads it -------------------------------------------------------------


def text_lists():
    sound = "".join(f"train/class {i}/image{i}.png {i % 5}\n" for i in range(12))
    other = st.sampled_from(
        ["a " + "9" * 5000, "x\0y 1", "../../x 1", "/etc/passwd 0", "a ١", "é 1", " 3", "a\r", "a -1"]
    )
    lines = st.lists(other, max_size=2).map(lambda more: (sound + "\n".join(more)).encode())
    return st.one_of(bytes_like(sound.encode()), lines)


def read_text_list(path):
    from moe_prompts.vision.tasks.vtab import read_list

    read_list(path, 5)


def json_lists():
    sound = {f"images/{i}.jpg": i % 4 for i in range(12)}
    deep = st.integers(1, 200_000).map(lambda depth: b"[" * depth)
    return st.one_of(bytes_like(as_json(sound)), value_like(sound).map(as_json), deep)


def read_json_list(path):
    from moe_prompts.vision.tasks.fgvc import class_numbers, read_labels

    read_labels(path, class_numbers(path, 4))


@cache
def pictures(form):
    from PIL import Image

    rng, stream = np.random.default_rng(0), io.BytesIO()
    Image.fromarray(rng.integers(0, 255, (24, 24, 3), dtype=np.uint8)).save(stream, form)
    return stream.getvalue()


def images():
    """Also a PNG whose header says another size, with the checksum that goes with it."""
    png = pictures("PNG")

    def resized(sides):
        head = struct.pack(">II", *sides) + png[24:29]
        return png[:16] + head + struct.pack(">I", zlib.crc32(b"IHDR" + head)) + png[33:]

    side = st.sampled_from([0, 1, 100, 9_000, 13_000, 2**16, 2**31 - 1])
    return st.one_of(*(bytes_like(pictures(form)) for form in ("PNG", "JPEG")), st.tuples(side, side).map(resized))


def read_image(path):
    from moe_prompts.vision.tasks.images import Resize, read_header, read_rgb

    try:
        read_header(path)
    finally:
        Resize(16)(read_rgb(path))


def plain():
    import torch
    from timm.models.vision_transformer import VisionTransformer

    torch.manual_seed(0)
    return VisionTransformer(img_size=16, patch_size=8, embed_dim=16, depth=2, num_heads=2, num_classes=0)


@cache
def saved_prompts():
    import tempfile

    from moe_prompts.vision import VAPT, prompt, save_prompts

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "prompts.safetensors")
        save_prompts(prompt(plain(), VAPT(2, hidden=2), 3), path)
        return path.read_bytes()


def prompt_files():
    """Also a sound header that describes something else, with and without the checksum of the payload."""
    whole = saved_prompts()
    end = 8 + int.from_bytes(whole[:8], "little")
    header, payload = json.loads(whole[8:end]), whole[end:]
    about = header["__metadata__"]
    older = {
        "format": "moe-prompts 1",
        **{key: value for key, value in about.items() if key not in ("payload", "format")},
    }

    def joined(header):
        text = as_json(header)
        return len(text).to_bytes(8, "little") + text + payload

    def described(config):
        return joined(header | {"__metadata__": older | {"config": json.dumps(config)}})

    return st.one_of(
        bytes_like(whole),
        value_like(header).map(joined),
        value_like(header | {"__metadata__": older}).map(joined),
        value_like(json.loads(about["config"])).map(described),
    )


def read_prompts(path):
    from moe_prompts.vision import load_prompts

    load_prompts(plain(), path)


def archive(members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return stream.getvalue()


def array(shape, kind="<f8", content=b"", order="False"):
    """A file of one array, whose header need not be that of its content."""
    text = f"{{'descr': {kind!r}, 'fortran_order': {order}, 'shape': {shape}, }}"
    text += " " * (-(len(text) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + content


@cache
def published():
    names = ["n"] + [f"{what}_model{m}_k{k}" for m in MODELS for k in (4, 5) for what in ("loss", "iterations")]
    shapes = {name: (100,) if name == "n" else (100, 20) for name in names}
    rng = np.random.default_rng(0)
    return {f"{name}.npy": array(shape, content=rng.uniform(1, 9, shape).tobytes()) for name, shape in shapes.items()}


def npz_files():
    """Also members whose header promises more than there is, or that unpack to much more than they take."""
    sound = published()
    shape = st.sampled_from(
        ["(10**12,)", "(1000000000000,)", "(3000000000,)", "(-1,)", "(100, 20, 2)", "()", "(True,)"]
    )
    kind = st.sampled_from(["<f8", "|O", "<c16", "|S1000000", "<M8[ns]", "nonsense", "|V1000000000"])
    content = st.sampled_from([b"", bytes(160), bytes(16_000)])
    member = st.one_of(st.builds(array, shape, kind, content), bytes_like(sound["n.npy"]))
    name = st.sampled_from([*sound, "more.npy", "more", "../x.npy"])
    return st.one_of(
        bytes_like(archive(sound)), st.builds(lambda name, member: archive(sound | {name: member}), name, member)
    )


def read_npz(path):
    read_published("gmoe", path)


def read_backbone_npz(path):
    from moe_prompts.vision.backbones.create import _fill

    _fill(plain(), path)


@cache
def certificates():
    from moe_prompts.theory.atoms import atom
    from moe_prompts.theory.dependences import dependences
    from moe_prompts.theory.solvability import gauss_hermite_witness

    report = dependences(atom("softmax-linear"), 2)
    rates = json.loads(table("location-scale", (1, 2)).to_json())
    made = [
        report.identity_certificate(report.identities[0]),
        gauss_hermite_witness(3),
        *rates["certificates"].values(),
    ]
    return [*made, rates]


def certificate_files():
    powers = ["a**16**16", "((a**16)**16)**16", "9**9**9", "1e1000000000", "1/0", "x" * 5000, 10**5000]
    odd = st.one_of(ODD, st.sampled_from(powers))
    return st.one_of(*(value_like(value, odd) for value in certificates()))


def check_certificate(value):
    answer = verify_table(value) if isinstance(value, dict) and "configuration" in value else verify(value)
    assert isinstance(answer, Verification)
    assert len(answer.reason.splitlines()) == 1


def meta_files():
    sound = {"identity": {"study": "toys"}, "layout": "sealed shards and segments of a known study"}
    sound |= {"replicates": 3, "cells": ["a"], "commands": [{"seal": "0" * 16, "code": "1"}], "sha256": {"a": "b"}}
    return st.one_of(bytes_like(as_json(sound)), value_like(sound).map(as_json))


def read_meta(path):
    path.rename(path.with_name("meta.json"))
    assert RunFolder(path.parent).shards.finished() == set()


@cache
def torch_files_of(legacy):
    """Weights alone, and as MoCo-v3 wraps them; in the form of today and in that before it."""
    import torch

    state, made = plain().state_dict(), []
    for content in (state, {"arch": "vit_small", "state_dict": {f"module.{k}": v for k, v in state.items()}}):
        stream = io.BytesIO()
        torch.save(content, stream, _use_new_zipfile_serialization=not legacy)
        made.append(stream.getvalue())
    return made


def torch_files():
    """Also other contents than weights, and tensors that are larger than the file or of odd kinds."""
    import torch

    def written(content):
        stream = io.BytesIO()
        torch.save(content, stream)
        return stream.getvalue()

    state = plain().state_dict()
    odd = [
        torch.zeros(1).expand(2**20, 2**14),  # 64 GB of one number
        torch.zeros(0),
        torch.tensor(1),
        torch.full((16,), float("nan")),
        torch.zeros(3, dtype=torch.complex64),
        torch.eye(3).to_sparse(),
        torch.zeros(2, 2, device="meta"),
        {"a": [torch.zeros(2)]},
        "x" * 1000,
        5,
    ]
    name = st.sampled_from([*state, "arch", "state_dict", "model", "blocks.9.x"])
    placed = st.builds(lambda name, value: written(dict(state) | {name: value}), name, st.sampled_from(odd))
    changed_bytes = [bytes_like(whole) for legacy in (True, False) for whole in torch_files_of(legacy)]
    return st.one_of(*changed_bytes, placed, st.sampled_from(odd).map(written))


def read_torch(path):
    from moe_prompts.vision.backbones.create import _fill
    from moe_prompts.vision.prompting.convert import load_moco_v3

    try:
        _fill(plain(), path)
    finally:
        load_moco_v3(plain(), path)


READERS = {
    "torch files": (torch_files, read_torch),
    "lists": (text_lists, read_text_list),
    "JSON lists": (json_lists, read_json_list),
    "images": (images, read_image),
    "prompts": (prompt_files, read_prompts),
    "npz of losses": (npz_files, read_npz),
    "npz of weights": (npz_files, read_backbone_npz),
    "certificates": (certificate_files, check_certificate),
    "meta.json": (meta_files, read_meta),
}
ENDINGS = {"npz of losses": ".npz", "npz of weights": ".npz", "torch files": ".pth"}
NEED_VISION = {"torch files", "lists", "JSON lists", "images", "prompts", "npz of weights"}


@pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisWarning")  # of examples too long to be shown
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # of damaged tags beside sound pixels
@pytest.mark.parametrize("examples", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", READERS)
def test_a_file_from_anywhere_is_read_or_refused_in_one_line(name, examples, tmp_path):
    if name in NEED_VISION:
        pytest.importorskip("torch", reason="needs the extra vision")
    made, read = READERS[name]

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(content=made())
    def holds(content):
        given_file = content
        if isinstance(content, bytes):
            given_file = tmp_path / f"x{ENDINGS.get(name, '')}"
            given_file.write_bytes(content)
        said = "one line"
        with bounded():
            try:
                read(given_file)
            except InputError as error:
                said = str(error)
        assert len(said.splitlines()) == 1
        assert len(said) < 2000

    holds()


@pytest.mark.parametrize("name", ["npz of losses", "npz of weights"])
def test_archives_that_unpack_to_more_than_anybody_expects_are_not_unpacked(name, tmp_path):
    """150 kB that would be 150 MB."""
    if name in NEED_VISION:
        pytest.importorskip("torch", reason="needs the extra vision")
    (tmp_path / "x.npz").write_bytes(archive(published() | {"n.npy": array("(20000000,)", content=bytes(160_000_000))}))
    with bounded(memory=5e7), pytest.raises(InputError, match=r"n has shape \(20000000,\)|unpacks to \d+ MB"):
        READERS[name][1](tmp_path / "x.npz")


def test_a_torch_file_that_is_compressed_is_not_unpacked(tmp_path):
    """torch itself reads it: 200 kB that would be 40 MB."""
    torch = pytest.importorskip("torch", reason="needs the extra vision")
    from moe_prompts.vision.prompting.checkpoint import read_torch_file

    torch.save({"a": torch.zeros(10**7)}, tmp_path / "whole.pth")
    with zipfile.ZipFile(tmp_path / "whole.pth") as whole:
        (tmp_path / "x.pth").write_bytes(archive({name: whole.read(name) for name in whole.namelist()}))
    with bounded(memory=3e7), pytest.raises(InputError, match="unpacks to more than it takes"):
        read_torch_file(tmp_path / "x.pth", "weights")

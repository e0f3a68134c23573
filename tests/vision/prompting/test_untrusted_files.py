"""Files of prompts come from anywhere: nothing is made of a description that the file does not hold, nor of damage."""

import json
import tracemalloc

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from timm.models.vision_transformer import VisionTransformer

from moe_prompts import InputError
from moe_prompts.vision import VAPT, VPT, load_prompts, prompt, save_prompts


def plain():
    torch.manual_seed(0)
    return VisionTransformer(img_size=16, patch_size=8, embed_dim=16, depth=2, num_heads=2, num_classes=0)


@pytest.fixture
def saved(tmp_path):
    save_prompts(prompt(plain(), VAPT(2, hidden=2), 3), tmp_path / "prompts.safetensors")
    return tmp_path / "prompts.safetensors"


def metadata_of(path):
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return file.metadata()


def test_a_flipped_bit_is_noticed_wherever_it_is(saved):
    whole = saved.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    rng = np.random.default_rng(0)
    for place in [*rng.integers(header, len(whole), 50), *rng.integers(0, header, 50)]:
        flipped = bytearray(whole)
        flipped[place] ^= 1 << rng.integers(8)
        saved.write_bytes(flipped)
        with pytest.raises(InputError):
            load_prompts(plain(), saved)
    saved.write_bytes(whole)
    load_prompts(plain(), saved)


@pytest.mark.parametrize(
    "change",
    [
        {"config": json.dumps({"num_tokens": 10**9})},
        {"num_classes": str(10**9)},
        {"config": json.dumps({"num_tokens": 2, "hidden": 10**9})},
    ],
)
def test_nothing_is_allocated_for_a_description_that_the_file_does_not_hold(change, saved):
    """As an older file has it, without a checksum."""
    described = {name: value for name, value in metadata_of(saved).items() if name != "payload"}
    save_file(load_file(saved), saved, described | {"format": "moe-prompts 1"} | change)
    model = plain()
    tracemalloc.start()
    with pytest.raises(InputError, match=r"its description says .* numbers at the least, but it holds"):
        load_prompts(model, saved)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1e7
    assert type(model) is VisionTransformer


def test_older_files_without_a_checksum_are_read(tmp_path):
    save_prompts(prompt(plain(), VPT(2), 3), tmp_path / "prompts.safetensors")
    described = {
        name: value for name, value in metadata_of(tmp_path / "prompts.safetensors").items() if name != "payload"
    }
    save_file(load_file(tmp_path / "prompts.safetensors"), tmp_path / "older", described | {"format": "moe-prompts 1"})
    first, second = (load_prompts(plain(), tmp_path / name) for name in ("prompts.safetensors", "older"))
    images = torch.rand(2, 3, 16, 16)
    assert torch.equal(first.eval()(images), second.eval()(images))


def test_numbers_that_are_not_finite_are_neither_written_nor_read(tmp_path, saved):
    diverged = prompt(plain(), VPT(2), 3)
    with torch.no_grad():
        diverged.head.bias[1] = torch.nan
    with pytest.raises(InputError, match=r"save_prompts: head.bias: not all numbers are finite"):
        save_prompts(diverged, tmp_path / "diverged.safetensors")
    assert not (tmp_path / "diverged.safetensors").exists()
    described = {name: value for name, value in metadata_of(saved).items() if name != "payload"}
    tensors = load_file(saved)
    tensors[min(tensors)].view(-1)[0] = torch.inf
    save_file(tensors, saved, described | {"format": "moe-prompts 1"})
    with pytest.raises(InputError, match=r"holds numbers that are not finite"):
        load_prompts(plain(), saved)

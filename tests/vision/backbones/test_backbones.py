"""Backbones by name: the same name the same weights, files read strictly, and one line where there is no way."""

import logging
import re

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from moe_prompts.errors import InputError
from moe_prompts.vision import VPT, prompt
from moe_prompts.vision.backbones import create
from moe_prompts.vision.backbones.create import check_heads, create_backbone
from moe_prompts.vision.prompting.checkpoint import backbone_hash

NAME = "test_vit"


@pytest.fixture(scope="module")
def published():
    """A small model of timm with a head, in place of a published one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return timm.create_model(NAME, num_classes=9).eval()


def test_small_ones_are_headless_frozen_names():
    small = create_backbone("small")
    assert not small.training
    assert sum(p.numel() for p in small.parameters()) == 213_568
    assert small(torch.zeros(1, 3, 32, 32)).shape == (1, 64)
    assert prompt(small, VPT(3), 7)(torch.zeros(2, 3, 32, 32)).shape == (2, 7)


def test_random_weights_come_from_the_address():
    state = torch.random.get_rng_state()
    hashes = {
        (name, entropy): backbone_hash(create_backbone(name, pretrained=False, entropy=entropy))
        for name in ("small-random", NAME)
        for entropy in (0, 1)
    }
    assert len(set(hashes.values())) == 4
    torch.manual_seed(99)
    for (name, entropy), value in hashes.items():
        assert backbone_hash(create_backbone(name, pretrained=False, entropy=entropy)) == value
    torch.random.set_rng_state(state)
    create_backbone("small-random")
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("kind", ["safetensors", "pth", "wrapped.pth"])
def test_a_local_file_gives_its_weights_without_the_head(kind, published, tmp_path):
    file = tmp_path / f"weights.{kind}"
    state = published.state_dict()
    if kind == "safetensors":
        save_file(state, file)
    else:
        torch.save({"state_dict": state} if kind.startswith("wrapped") else state, file)
    model = create_backbone(NAME, file=file)
    assert backbone_hash(model) == backbone_hash(published)
    assert model.num_classes == 0


def before(prefix, state):
    return {prefix + name: value for name, value in state.items()}


#: What training scripts make of a state_dict; ``other`` are weights that are not the ones to evaluate.
WRAPPED = {
    "data parallel": lambda state, other: before("module.", state),
    "compiled": lambda state, other: before("_orig_mod.", state),
    "compiled, then parallel": lambda state, other: before("module._orig_mod.", state),
    "parallel, then compiled": lambda state, other: {"state_dict": before("_orig_mod.module.", state)},
    "in a module": lambda state, other: {"state_dict": before("model.", state), "epoch": 3},
    "averages": lambda state, other: {"state_dict": other, "state_dict_ema": state, "epoch": 3},
    "no averages yet": lambda state, other: {"state_dict": state, "state_dict_ema": None},
    "averages, called otherwise": lambda state, other: {"model": other, "model_ema": before("module.", state)},
    "averages in a module": lambda state, other: {"model_ema": {"module": state}, "model": other},
    "an averaged model": lambda state, other: before("module.", state) | {"n_averaged": torch.tensor(3)},
    "a teacher": lambda state, other: {"student": before("module.", other), "teacher": before("backbone.", state)},
}


@pytest.mark.parametrize("wrapping", WRAPPED)
def test_wrappers_of_training_scripts_are_taken_off(wrapping, published, tmp_path):
    state = published.state_dict()
    other = {name: value + 1 for name, value in state.items()}
    torch.save(WRAPPED[wrapping](state, other), tmp_path / "w.pth")
    assert backbone_hash(create_backbone(NAME, file=tmp_path / "w.pth")) == backbone_hash(published)


NOT_WEIGHTS = {
    "names of another wrapper": (lambda state: before("net.", state), r"names such as net\.cls_token, .*rename them"),
    "a list": (lambda state: [1], "no names and tensors"),
    "numbers for names": (lambda state: {1: torch.ones(1)}, "no names and tensors"),
    "whole numbers": (
        lambda state: {name: value.to(torch.int8) for name, value in state.items()},
        "is of type torch.int8; expected the weights of this model as floating-point numbers",
    ),
    "complex numbers": (
        lambda state: {name: value.to(torch.complex64) for name, value in state.items()},
        "is of type torch.complex64",
    ),
    "what a diverged training left": (
        lambda state: {name: value * float("nan") for name, value in state.items()},
        "NaN or infinite weights, as in cls_token",
    ),
}


@pytest.mark.parametrize("case", NOT_WEIGHTS)
def test_a_file_of_something_else_is_one_line(case, published, tmp_path):
    make, message = NOT_WEIGHTS[case]
    torch.save(make(published.state_dict()), tmp_path / "w.pth")
    with pytest.raises(InputError, match=message) as error:
        create_backbone(NAME, file=tmp_path / "w.pth")
    assert "\n" not in str(error.value)


def test_heads_of_a_file_that_says_another_number_are_not_ignored(tmp_path):
    """A linear probe of MoCo-v3's ViT-S has the shapes of timm's, and 12 heads for its 6."""
    name = "vit_small_patch16_224"
    state = before("module.", timm.create_model(name, num_classes=9).state_dict())
    torch.save({"arch": "vit_small", "epoch": 90, "state_dict": state}, tmp_path / "w.pth.tar")
    with pytest.raises(InputError, match=r"arch 'vit_small', .* has 12 attention heads, this model 6; .*load_moco_v3"):
        create_backbone(name, file=tmp_path / "w.pth.tar")
    for heads, arch in ((6, name), (6, None), (12, "vit_small")):
        check_heads(timm.create_model(name, depth=1, num_heads=heads), arch, tmp_path / "w.pth.tar")


def as_flax(model) -> dict[str, np.ndarray]:
    """The arrays of a model under the names and in the shapes of the published .npz files: kernels (in, out)."""
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    heads, size = model.blocks[0].attn.num_heads, model.blocks[0].attn.head_dim
    found = {
        "embedding/kernel": state["patch_embed.proj.weight"].transpose(2, 3, 1, 0),
        "embedding/bias": state["patch_embed.proj.bias"],
        "cls": state["cls_token"],
        "Transformer/posembed_input/pos_embedding": state["pos_embed"],
        "Transformer/encoder_norm/scale": state["norm.weight"],
        "Transformer/encoder_norm/bias": state["norm.bias"],
    }
    for index in range(len(model.blocks)):
        ours, theirs = f"blocks.{index}.", f"Transformer/encoderblock_{index}/"
        attention = theirs + "MultiHeadDotProductAttention_1/"
        for name, weight, bias in zip(
            ("query", "key", "value"),
            np.split(state[ours + "attn.qkv.weight"], 3),
            np.split(state[ours + "attn.qkv.bias"], 3),
            strict=True,
        ):
            found[f"{attention}{name}/kernel"] = weight.T.reshape(-1, heads, size)
            found[f"{attention}{name}/bias"] = bias.reshape(heads, size)
        found[f"{attention}out/kernel"] = state[ours + "attn.proj.weight"].T.reshape(heads, size, -1)
        found[f"{attention}out/bias"] = state[ours + "attn.proj.bias"]
        for number, layer in enumerate(("fc1", "fc2")):
            found[f"{theirs}MlpBlock_3/Dense_{number}/kernel"] = state[f"{ours}mlp.{layer}.weight"].T
            found[f"{theirs}MlpBlock_3/Dense_{number}/bias"] = state[f"{ours}mlp.{layer}.bias"]
        for number, norm in ((0, "norm1"), (2, "norm2")):
            found[f"{theirs}LayerNorm_{number}/scale"] = state[f"{ours}{norm}.weight"]
            found[f"{theirs}LayerNorm_{number}/bias"] = state[f"{ours}{norm}.bias"]
    return found


def test_files_of_the_form_of_the_papers_weights_are_read(published, tmp_path):
    arrays = as_flax(published)
    np.savez(tmp_path / "w.npz", **arrays)
    assert backbone_hash(create_backbone(NAME, file=tmp_path / "w.npz")) == backbone_hash(published)
    del arrays["cls"]
    np.savez(tmp_path / "less.npz", **arrays)
    (tmp_path / "text.npz").write_text("no archive")
    for name in ("less", "text"):
        with pytest.raises(InputError, match="expected the weights of this model") as error:
            create_backbone(NAME, file=tmp_path / f"{name}.npz")
        assert "\n" not in str(error.value)


def test_positions_are_resized_on_request(published, tmp_path):
    save_file(published.state_dict(), tmp_path / "w.safetensors")
    model = create_backbone(NAME, file=tmp_path / "w.safetensors", size=64)
    assert model.patch_embed.grid_size == (4, 4)
    assert torch.equal(model.blocks[0].attn.qkv.weight, published.blocks[0].attn.qkv.weight)


class Code:
    """What a pickle would run."""

    def __reduce__(self):
        return (print, ("run",))


def test_code_in_a_file_is_not_run(tmp_path, capsys):
    torch.save({"model": Code()}, tmp_path / "w.pth")
    with pytest.raises(InputError, match="expected the weights of this model"):
        create_backbone(NAME, file=tmp_path / "w.pth")
    assert capsys.readouterr().out == ""


def test_a_missing_weight_is_an_error_not_a_random_one(published, tmp_path):
    state = {name: value for name, value in published.state_dict().items() if name != "blocks.0.attn.qkv.weight"}
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=re.escape("blocks.0.attn.qkv.weight")) as error:
        create_backbone(NAME, file=tmp_path / "w.safetensors")
    assert "\n" not in str(error.value)


def test_no_way_to_the_hub_is_one_line(monkeypatch, tmp_path):
    huggingface_hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"cannot be created .* give a local file") as error:
        create_backbone("vit_tiny_patch16_224.augreg_in21k")
    assert "\n" not in str(error.value)


def test_what_the_hub_s_client_says_of_each_try_is_not_shown(monkeypatch, caplog):
    def unreachable(*arguments, **options):
        logging.getLogger("huggingface_hub.utils._http").warning("Retrying in 8s")
        raise OSError("no way")

    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(InputError, match=r"cannot be created \(OSError: no way\)"):
        create_backbone("vit_tiny_patch16_224.augreg_in21k")
    assert not caplog.records
    logging.getLogger("huggingface_hub.utils._http").warning("heard again")
    assert len(caplog.records) == 1


def test_a_model_keeps_its_own_size_where_patches_do_not_fill_it():
    """SigLIP's 384 pixels are no multiple of 14: what is published so is taken so."""
    name = "vit_so400m_patch14_siglip_gap_384"
    with torch.device("meta"), pytest.raises(InputError, match="size 400; expected a multiple of 14"):
        create._of_timm(name, False, 400)
    with torch.device("meta"):
        assert create._of_timm(name, False, 384).patch_embed.grid_size == (27, 27)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: create_backbone("tiny"),
            "no backbone 'tiny'; expected dinov2-small-focus, small, small-random, small-gain or a name",
        ),
        (
            lambda: create_backbone("resnet18", pretrained=False),
            "resnet18 is made by timm.models.resnet",
        ),
        (lambda: create_backbone("small", size=64), "small: file None, size 64, blocks None; it has its own weights"),
        (lambda: create_backbone(NAME, size=50, pretrained=False), "size 50; expected a multiple of 16, the side of a"),
        (
            lambda: create_backbone(NAME, file="nowhere.pth", pretrained=False),
            "file nowhere.pth with pretrained=False; expected one of them",
        ),
        (lambda: create_backbone(NAME, file="nowhere.pth"), "nowhere.pth: .* expected the weights of this model"),
    ],
)
def test_wrong_names_are_one_clear_error(call, message):
    with pytest.raises(InputError, match=message) as error:
        call()
    assert "\n" not in str(error.value)

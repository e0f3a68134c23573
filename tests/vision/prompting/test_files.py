"""Prompts on disk, official and MoCo-v3 checkpoints, and the table of models."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from timm.models.vision_transformer import ParallelScalingBlock
from torch import nn
from vision_models import (
    CLASSES,
    CONFIGS,
    DEPTH,
    HEADS,
    KINDS,
    WIDTH,
    images,
    plain,
    prompted,
    randomise,
    rng,
    train_step,
)

from moe_prompts.errors import InputError
from moe_prompts.tables import body_of
from moe_prompts.vision import (
    VAPT,
    VPT,
    backbone_hash,
    from_official,
    load_moco_v3,
    load_prompts,
    prompt,
    save_prompts,
    supported_models,
    unprompt,
)
from moe_prompts.vision.prompting.checkpoint import backbone_traits, payload_hash
from moe_prompts.vision.prompting.prompted import prompt_parameters
from moe_prompts.vision.prompting.supported import kept, page, vision_transformers


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("kind", ["cls", "registers"])
def test_prompts_come_back(config, kind, tmp_path):
    """Bit for bit, on a backbone whose own head is another; the file holds prompts and head and nothing else."""
    model = prompted(config, **KINDS[kind])
    path = tmp_path / "prompts.safetensors"
    save_prompts(model, path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["prompts.safetensors"]
    with safe_open(path, framework="pt") as file:
        assert set(file.keys()) == set(prompt_parameters(model))
    other = plain(**KINDS[kind])
    other.reset_classifier(11)
    other.double()
    back = load_prompts(other, path)
    assert back is other
    assert back.config == config
    assert torch.equal(back.eval()(images()), model(images()))


ODD = {
    "no head": (0, {}),
    "kept": (None, {}),
    "kept, none": (None, {"num_classes": 0}),
    "average": (CLASSES, {"global_pool": "avgmax"}),
    "no pooling": (CLASSES, {"global_pool": ""}),
    "layer scale": (CLASSES, {"init_values": 0.3}),
    "parallel": (CLASSES, {"block_fn": ParallelScalingBlock}),
    "map": (CLASSES, {"global_pool": "map", "class_token": False}),
}


@pytest.mark.parametrize(("num_classes", "options"), ODD.values(), ids=ODD)
@pytest.mark.parametrize(
    "config", [VPT(3, deep=False), VAPT(np.int64(3), hidden=4, pooled=True, source="another")], ids=["VPT", "VAPT"]
)
def test_odd_models_come_back(config, num_classes, options, tmp_path):
    model = prompt(plain(**options), config, num_classes, rng=rng(), head="published").eval()
    randomise(prompt_parameters(model).values(), 2, 0.5)
    save_prompts(model, tmp_path / "prompts.safetensors")
    back = load_prompts(plain(**options), tmp_path / "prompts.safetensors").eval()
    assert torch.equal(back(images()), model(images()))
    assert back.num_classes == model.num_classes


HEADS_OF_OTHERS = {
    "no bias": lambda: nn.Linear(WIDTH, 5, bias=False),
    "layers": lambda: nn.Sequential(nn.Linear(WIDTH, 9), nn.ReLU(), nn.Linear(9, 5)),
}


@pytest.mark.parametrize("head", HEADS_OF_OTHERS.values(), ids=HEADS_OF_OTHERS)
def test_kept_heads_of_another_form(head, tmp_path):
    """Come back on a model whose head has that form, and are refused on others; new ones are not written."""
    path = tmp_path / "prompts.safetensors"
    made = plain()
    made.head = head().double()
    model = prompt(made, VPT(3)).eval()
    randomise(prompt_parameters(model).values(), 2, 0.5)
    save_prompts(model, path)
    other = plain()
    other.head = head().double()
    assert torch.equal(load_prompts(other, path).eval()(images()), model(images()))
    with pytest.raises(InputError, match=r"made on a backbone with head '.*this one 'Linear"):
        load_prompts(plain(), path)
    new = prompted(VPT(3))
    new.head = head().double()
    with pytest.raises(InputError, match=r"a head of class .* not of the plain model's form"):
        save_prompts(new, path)
    made = plain()
    made.head = nn.Sequential(nn.BatchNorm1d(WIDTH), nn.Linear(WIDTH, 5)).double()
    with pytest.raises(InputError, match="or has buffers"):
        save_prompts(prompt(made, VPT(3)), path)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"fc_norm": False, "global_pool": "avg"}, "pooling 'avg', this one 'token'"),
        ({"num_heads": 4}, r"attention heads \[4, 4, 4\], this one \[2, 2, 2\]"),
        ({"act_layer": "quick_gelu"}, "layers .*QuickGELU.* this one .*GELU"),
        ({"act_layer": partial(nn.GELU, approximate="tanh")}, "layers .*'tanh'"),
        ({"norm_layer": partial(nn.LayerNorm, eps=1e-5)}, r"norm eps \[1e-05\], this one \[1e-06\]"),
        ({"img_size": (8, 32)}, r"grid \[2, 8\], this one \[4, 4\]"),
    ],
)
def test_equal_weights_that_compute_something_else(options, named, tmp_path):
    path = tmp_path / "prompts.safetensors"
    save_prompts(prompted(VPT(3), **options), path)
    model = plain()
    assert backbone_hash(model) == backbone_hash(plain(**options))
    with pytest.raises(InputError, match=named):
        load_prompts(model, path)
    assert type(model) is type(plain())


def rewritten(path, change) -> None:
    """The file with other metadata."""
    with safe_open(path, framework="pt") as file:
        metadata = change(dict(file.metadata()))
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    if metadata.get("payload"):  # sealed anew: what is looked at is the description, not its checksum
        metadata["payload"] = payload_hash(metadata, tensors)
    save_file(tensors, path, metadata)


def test_files_without_traits_are_read(tmp_path):
    """As the first version wrote them."""
    path = tmp_path / "prompts.safetensors"
    model = prompted(VAPT(3))
    save_prompts(model, path)
    fields = ("num_tokens", "hidden", "kernel", "activation")
    config = json.dumps({name: getattr(model.config, name) for name in fields})
    rewritten(path, lambda old: {name: old[name] for name in old if name != "traits"} | {"config": config})
    assert torch.equal(load_prompts(plain(), path).eval()(images()), model(images()))


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "VPT2"},
        {"kind": None},
        {"backbone": None},
        {"config": "{"},
        {"config": "[3]"},
        {"config": '{"num_tokens": 3, "colour": "red"}'},
        {"config": '{"num_tokens": 0}'},
        {"num_classes": "many"},
        {"num_classes": None},
        {"traits": "[1]"},
    ],
    ids=str,
)
def test_damaged_descriptions(change, tmp_path):
    path = tmp_path / "prompts.safetensors"
    save_prompts(prompted(VPT(3)), path)
    rewritten(path, lambda old: {name: value for name, value in (old | change).items() if value is not None})
    model = plain()
    with pytest.raises(InputError, match=r"its description is damaged .*expected a file as save_prompts wrote it"):
        load_prompts(model, path)
    assert type(model) is type(plain())


@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel])
def test_wrapped_models_are_named(wrap, tmp_path):
    path = tmp_path / "prompts.safetensors"
    save_prompts(prompted(VPT(3)), path)
    with pytest.raises(InputError, match=r"load_prompts: .*give the model"):
        load_prompts(wrap(plain()), path)


def test_nothing_stays_behind_where_a_folder_stands(tmp_path):
    (tmp_path / "there.safetensors").mkdir()
    with pytest.raises(InputError, match=r"cannot write .*choose a file in an existing folder"):
        save_prompts(prompted(VPT(3)), tmp_path / "there.safetensors")
    assert [entry.name for entry in tmp_path.iterdir()] == ["there.safetensors"]


@pytest.mark.parametrize("name", ["prompts.pt", "prompts", "prompts.safetensors.bak"])
def test_another_ending_is_refused_before_anything_is_written(name, tmp_path):
    with pytest.raises(InputError, match=r"save_prompts: path .*; expected a name that ends in \.safetensors$"):
        save_prompts(prompted(VPT(3)), tmp_path / name)
    assert not any(tmp_path.iterdir())


def test_another_backbone_is_refused(tmp_path):
    """Named by hash; the model given is left as it was."""
    path = tmp_path / "prompts.safetensors"
    save_prompts(prompted(VPT(3)), path)
    other = plain(seed=1)
    with pytest.raises(InputError, match=r"was made on the backbone .*expected the same weights"):
        load_prompts(other, path)
    assert type(other) is type(plain())
    with pytest.raises(InputError, match="was made on the backbone"):
        load_prompts(plain().float(), path)


def test_the_hash_knows_the_backbone_and_nothing_else():
    model = plain()
    plain_hash = backbone_hash(model)
    model.reset_classifier(3)
    assert backbone_hash(model) == plain_hash
    changed = prompted(VAPT(3))
    assert backbone_hash(changed) == plain_hash
    train_step(changed, images())
    assert backbone_hash(changed) == plain_hash
    with torch.no_grad():
        model.blocks[1].attn.qkv.weight[0, 0] += 1e-12
    assert backbone_hash(model) != plain_hash
    assert len(backbone_hash(plain().bfloat16())) == 64


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (lambda path: path.unlink(), "No such file"),
        (lambda path: path.write_bytes(b"nonsense"), "expected a file that save_prompts wrote"),
        (lambda path: save_file({"x": torch.ones(1)}, path), "format None; expected 'moe-prompts 2'"),
    ],
)
def test_other_files_are_refused(spoil, match, tmp_path):
    path = tmp_path / "prompts.safetensors"
    save_prompts(prompted(VPT(3)), path)
    spoil(path)
    with pytest.raises(InputError, match=match):
        load_prompts(plain(), path)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"cannot write .*choose a file in an existing folder"):
        save_prompts(prompted(VPT(3)), tmp_path / "nowhere" / "prompts.safetensors")


def test_a_file_with_other_tensors_leaves_the_model_plain(tmp_path):
    path = tmp_path / "prompts.safetensors"
    save_prompts(prompted(VPT(3)), path)
    rewritten(path, lambda old: old | {"config": json.dumps({"num_tokens": 4})})
    model = plain()
    with pytest.raises(InputError, match=r"0\.tokens.* of another shape"):
        load_prompts(model, path)
    assert type(model) is type(plain())
    with pytest.raises(InputError, match="has prompts already"):
        load_prompts(prompted(VPT(3)), path)


def official(model) -> dict[str, np.ndarray]:
    """A prompted model's weights under the names of the published code."""
    config = model.config
    first = config.static_depth if isinstance(config, VAPT) else DEPTH
    ours = {name: value.detach().numpy() for name, value in prompt_parameters(model).items()}
    state = {name.replace(".block.", "."): value.numpy() for name, value in model.state_dict().items()}
    names = {
        "transformer.embeddings.position_embeddings": state["pos_embed"],
        "transformer.embeddings.cls_token": state["cls_token"],
        "transformer.embeddings.patch_embeddings.weight": state["patch_embed.proj.weight"],
        "transformer.embeddings.patch_embeddings.bias": state["patch_embed.proj.bias"],
        "transformer.encoder.encoder_norm.weight": state["norm.weight"],
        "transformer.encoder.encoder_norm.bias": state["norm.bias"],
        "head.weight": ours["head.weight"],
        "head.bias": ours["head.bias"],
        "transformer.prompt_embeddings": ours["0.tokens"][None],
    }
    deep = [ours[f"{index}.tokens"] for index in range(1, DEPTH) if f"{index}.tokens" in ours]
    if deep:
        names["transformer.deep_prompt_embeddings"] = np.array(deep)
    for index in range(DEPTH):
        theirs, mine = f"transformer.encoder.layer.{index}", f"blocks.{index}"
        pairs = {"attention_norm": "norm1", "ffn_norm": "norm2", "ffn.fc1": "mlp.fc1", "ffn.fc2": "mlp.fc2"}
        for part in ("weight", "bias"):
            for their, my in (pairs | {"attn.out": "attn.proj"}).items():
                names[f"{theirs}.{their}.{part}"] = state[f"{mine}.{my}.{part}"]
            rows = np.split(state[f"{mine}.attn.qkv.{part}"], 3)
            for which, row in zip(("query", "key", "value"), rows, strict=True):
                names[f"{theirs}.attn.{which}.{part}"] = row
    prefix = "transformer.deep_prompt_"
    for name, value in ours.items():
        number, _, part = name.partition(".")
        place = number if number == "head" else int(number) - first
        if part.startswith("norm."):
            names[f"{prefix}norm.{place}.{part.removeprefix('norm.')}"] = value
        elif part == "kernel":
            names[f"{prefix}downsample.{place}.conv.kernel"] = value.reshape(-1, 1, *value.shape[-2:])
        elif part in ("weight", "bias") and number != "head":
            names[f"{prefix}downsample.{place}.linear.{part}"] = value.reshape(3, -1) if part == "weight" else value
        elif part.startswith("projector."):
            own = "" if config.shared_projector else f"{place}."
            known = {"down": "block.0.weight", "up": "block.2.weight", "scale": "scale"}
            names[f"{prefix}embeddings_mlp.{own}{known[part.removeprefix('projector.')]}"] = np.atleast_1d(value)
    return names


SETTINGS = {
    "VPT-shallow": (VPT(3, deep=False), {"DEEP": False}),
    "VPT-deep": (VPT(3), {"DEEP": True}),
    "VAPT": (VAPT(3, hidden=4), {"KERNEL": 2}),
    "static": (VAPT(3, hidden=4, static_depth=2), {"VPT_DEPTH": 2}),
    "no convolution": (VAPT(3, hidden=4, kernel=None), {"CONV": False}),
    "per channel": (VAPT(3, hidden=4, per_channel=True), {}),
    "padding": (VAPT(3, hidden=4, kernel=3, padding=1), {"KERNEL": 3, "PADDING": 1}),
    "projectors": (VAPT(3, hidden=4, shared_projector=False), {"SHARE_PROJECTOR": False}),
    "scale": (VAPT(3, hidden=4, learnable_scale=True), {"LEARNABLE_SCALE": True}),
    "gelu": (VAPT(3, hidden=4, activation="gelu"), {"ACTIVATION": "gelu"}),
}


@pytest.mark.parametrize(("config", "settings"), SETTINGS.values(), ids=SETTINGS)
def test_official_names_and_settings(config, settings):
    model = prompted(config, (4, 6))
    options = {"NUM_TOKENS": 3, "DROPOUT": 0.0, "PROJECT": -1} | settings
    if isinstance(config, VAPT):
        options |= {"DEEP": True, "ADAPTIVE": True, "HIDDEN_DIM": 4}
    found = from_official(official(model), {"heads": HEADS, "grid": [4, 6], "prompt": options})
    assert found.config == config
    assert torch.equal(found(images((4, 6))), model(images((4, 6))))


@pytest.mark.parametrize(
    ("change", "options", "match"),
    [
        ({}, {"PROJECT": 5}, "PROJECT = 5"),
        ({}, {"ADAPTIVE": True, "FEAT_PROJECTOR": False, "DEEP": True}, "without FEAT_PROJECTOR"),
        ({"transformer.prompt_proj.weight": np.ones(1)}, {}, r"transformer\.prompt_proj\.weight.*left over"),
        ({"transformer.encoder.layer.0.attn.query.weight": None}, {}, r"missing \['blocks.0.attn.qkv.weight'\]"),
        ({"transformer.cls": np.ones(1)}, {}, r"left over \['transformer.cls'\]"),
        ({"head.weight": None}, {}, "no 'head.weight'"),
    ],
)
def test_other_official_files_are_refused(change, options, match):
    params = official(prompted(VPT(3))) | change
    params = {name: value for name, value in params.items() if value is not None}
    with pytest.raises(InputError, match=match):
        from_official(params, {"heads": HEADS, "prompt": {"NUM_TOKENS": 3, "DEEP": True} | options})


@pytest.mark.parametrize(
    ("change", "options", "match"),
    [
        ({}, {"prompt": {}}, "no 'NUM_TOKENS'"),
        ({}, {"prompt": 3}, r"options\['prompt'\] = 3"),
        ({}, {"heads": 3}, "3 heads share a width of 16"),
        ({}, {"heads": "x"}, r"options\['heads'\] = 'x'"),
        ({}, {"grid": [16]}, r"grid \(16,\); give"),
        ({}, {"grid": (4.0, 4.0)}, r"grid \(4.0, 4.0\); give"),
        ({}, {"grid": (-4, -4)}, r"grid \(-4, -4\); give"),
        ({"transformer.encoder.layer.x.attn.out.weight": np.ones(2)}, {}, r"left over \['transformer.*layer\.x"),
        ({"transformer.encoder.layer.7.attn.out.weight": np.ones(2)}, {}, r"left over \['blocks\.7"),
        ({"transformer.encoder.layer.1.attention_norm.weight": np.ones(2)}, {}, r"another shape \['blocks\.1\.norm1"),
        ({"transformer.encoder.layer.1.attn.key.weight": np.ones((2, 2))}, {}, r"missing \['blocks\.1\.attn\.qkv"),
        ({"transformer.embeddings.patch_embeddings.weight": np.ones(2)}, {}, r"weight' of shape \(2,\)"),
        ({"head.bias": None}, {}, r"missing \['head\.bias"),
        ({"head.bias": "x"}, {}, "text; expected real numbers"),
        ({"head.bias": np.ones(CLASSES, dtype=int)}, {}, "type torch.int64; expected floating"),
        ({"transformer.prompt_embeddings": np.float64(1)}, {}, r"0\.tokens.* missing, left over"),
        ({"prompt": np.ones(1)}, {}, "prompt missing, left over"),
        ({3: np.ones(1)}, {}, r"left over \['3'\]"),
    ],
    ids=str,
)
def test_each_fault_of_an_official_file_is_named(change, options, match):
    params = {name: value for name, value in (official(prompted(VPT(3))) | change).items() if value is not None}
    with pytest.raises(InputError, match=match):
        from_official(params, {"heads": HEADS, "prompt": {"NUM_TOKENS": 3, "DEEP": True}} | options)


def test_official_prompts_are_not_dropped():
    """Unless the plain model is asked for."""
    params = official(prompted(VPT(3)))
    with pytest.raises(InputError, match=r"the file has prompts .*options have no 'prompt'"):
        from_official(params, {"heads": HEADS})
    assert type(from_official(params, {"heads": HEADS, "prompt": None})) is type(plain())
    settings = {"NUM_TOKENS": 3, "DEEP": True, "ADAPTIVE": True, "HIDDEN_DIM": 4}
    params = official(prompted(VAPT(3, hidden=4)))
    for options, match in (
        ({name: value for name, value in settings.items() if name != "HIDDEN_DIM"}, "no 'HIDDEN_DIM'"),
        (settings | {"ACTIVATION": None}, "activation = 'none'; expected one of relu"),
    ):
        with pytest.raises(InputError, match=match):
            from_official(params, {"heads": HEADS, "prompt": options})


@pytest.mark.parametrize(("width", "hidden"), [(56, 61), (16, 33), (48, 96)])
def test_hidden_width_of_official_files(width, hidden):
    """Exactly, where hidden / width is no short fraction."""
    model = prompted(VPT(3), embed_dim=width, mlp_ratio=(hidden + 0.5) / width)
    found = from_official(official(model), {"heads": HEADS, "prompt": {"NUM_TOKENS": 3, "DEEP": True}})
    assert found.blocks[0].block.mlp.fc1.out_features == hidden
    assert torch.equal(found(images()), model(images()))


@pytest.mark.parametrize(
    ("write", "match"),
    [
        (lambda path: path.write_text("resnet weights are at example.org\n"), "cannot be read as tensors"),
        (lambda path: path.write_bytes(b"\x80"), "cannot be read as tensors"),
        (lambda path: path.write_bytes(b"."), "cannot be read as tensors"),
        (lambda path: torch.save([1], path), "no state_dict of names and tensors"),
        (lambda path: torch.save({"state_dict": [torch.ones(1)]}, path), "no state_dict of names and tensors"),
        (lambda path: torch.save({"state_dict": {1: torch.ones(1)}}, path), "no state_dict of names and tensors"),
        (lambda path: torch.save({"state_dict": {"module.x": 1}}, path), "no state_dict of names and tensors"),
    ],
)
def test_other_files_than_moco_v3s(write, match, tmp_path):
    path = tmp_path / "moco.pth.tar"
    write(path)
    with pytest.raises(InputError, match=match):
        load_moco_v3(plain(), path)


def test_moco_v3(tmp_path):
    """A linear probe's and a pre-training file under their names; the head is left out."""
    source, path = plain(seed=4), tmp_path / "moco.pth.tar"
    weights = {f"module.{name}": value for name, value in source.state_dict().items()}
    model = plain()
    own_head = model.head.weight.detach().clone()
    for prefix in ("module.", "module.base_encoder."):
        renamed = {name.replace("module.", prefix, 1): value for name, value in weights.items()}
        if "base" in prefix:
            renamed |= {"module.predictor.0.weight": torch.ones(1), "module.momentum_encoder.x": torch.ones(1)}
        torch.save({"epoch": 90, "arch": "vit_base", "state_dict": renamed}, path)
        assert load_moco_v3(model, path) is model
        assert backbone_hash(model) == backbone_hash(source)
        assert torch.equal(model.head.weight, own_head)
        model = plain()
    with pytest.raises(InputError, match=r"missing, left over or of another shape; expected .* \(3 blocks of width 32"):
        load_moco_v3(plain(embed_dim=32), path)
    torch.save({"model": {}}, path)
    with pytest.raises(InputError, match="no state_dict"):
        load_moco_v3(plain(), path)
    with pytest.raises(InputError, match="plain timm VisionTransformer"):
        load_moco_v3(prompted(VPT(3)), path)
    with pytest.raises(InputError, match=r"nowhere\.pth: cannot be read as tensors .*expected a MoCo-v3 checkpoint"):
        load_moco_v3(plain(), tmp_path / "nowhere.pth")
    # An object that is no tensor would be code to run: it is refused, not loaded.
    torch.save({"state_dict": {}, "args": Path("x")}, path)
    with pytest.raises(InputError, match="cannot be read as tensors"):
        load_moco_v3(plain(), path)
    path.write_bytes(b"")
    with pytest.raises(InputError, match="cannot be read as tensors"):
        load_moco_v3(plain(), path)


@pytest.mark.parametrize(("arch", "trained"), [("vit_small", 12), (None, 12), (None, 6), ("vit_small_patch16_224", 6)])
def test_moco_v3_takes_the_heads_that_its_weights_were_trained_with(arch, trained, tmp_path):
    """Equal shapes for 6 and 12 heads: the file's ``arch`` says which, and where it does not nothing is guessed."""

    def small(heads):
        model = plain(embed_dim=384, depth=1, num_heads=heads, num_classes=0)
        with torch.no_grad():  # timm's initial weights give attention that is all but uniform, whatever the heads
            for parameter in model.parameters():
                if parameter.ndim == 2:
                    parameter.normal_(std=3 * parameter.shape[1] ** -0.5)
        return model.eval()

    made, path = small(trained), tmp_path / "moco.pth.tar"
    state = {f"module.base_encoder.{name}": value for name, value in made.state_dict().items()}
    torch.save({"state_dict": state} | ({} if arch is None else {"arch": arch}), path)
    mine = plain(embed_dim=384, depth=1, num_heads=6, num_classes=0).eval()
    if arch != "vit_small":
        with pytest.raises(InputError, match=r"does not say its architecture .* has 6 heads, MoCo-v3's ViT-S 12"):
            load_moco_v3(mine, path)
        return
    load_moco_v3(mine, path)
    assert torch.equal(mine(images()), made(images()))
    assert backbone_traits(mine) == backbone_traits(made)
    six = small(6)
    six.load_state_dict(made.state_dict())
    assert (six(images()) - made(images())).norm() > 0.01 * made(images()).norm()  # what was computed without a word


def test_local_file_of_weights(tmp_path):
    """timm reads a local file with the head it has, and unprompt gives that head back."""
    source = timm.create_model("test_vit")
    save_file(source.state_dict(), tmp_path / "weights.safetensors")
    overlay = {"file": str(tmp_path / "weights.safetensors"), "custom_load": False}
    model = timm.create_model("test_vit", pretrained=True, pretrained_cfg_overlay=overlay)
    assert backbone_hash(model) == backbone_hash(source)
    assert torch.equal(unprompt(prompt(model, VPT(2), CLASSES)).head.weight, source.head.weight)


MODELS = Path(__file__).parents[3] / "docs" / "vision_models.md"
FEW = ("test_vit4", "vit_tiny_patch16_224", "vit_base_patch32_clip_224", "deit_tiny_distilled_patch16_224")


def test_rows_that_are_kept_are_not_made_again(tmp_path):
    """A run that stops between two rows goes on, to the same table; rows of other versions are refused."""
    path, made = tmp_path / "rows.jsonl", []

    def make(name):
        made.append(name)
        return pd.DataFrame([{"model": name, "blocks": 12, "why not": ""}])

    first = [kept(path, {"timm": "1"}, lambda name=name: make(name), name) for name in ("a", "b")]
    again = [kept(path, {"timm": "1"}, lambda name=name: make(name), name) for name in ("a", "b", "c")]
    assert made == ["a", "b", "c"]
    assert [table.equals(other) for table, other in zip(first, again, strict=False)] == [True, True]
    with pytest.raises(InputError, match=r"has rows of .*expected .*'2'"):
        kept(path, {"timm": "2"}, lambda: make("a"), "a")
    path.write_text("[]\n")
    with pytest.raises(InputError, match="no file of rows"):
        kept(path, {"timm": "1"}, lambda: make("a"), "a")


@pytest.mark.parametrize(("name", "reason"), [("resnet18", "its class is ResNet; expected timm's VisionTransformer")])
def test_models_of_another_class_have_a_row_of_no(name, reason):
    [row] = supported_models([name]).to_dict("records")
    assert [row[kind] for kind in ("VPT-shallow", "VPT-deep", "VAPT")] == ["no"] * 3
    assert row["why not"].startswith(reason)


def test_supported_models_of_each_kind():
    table = supported_models(FEW).set_index("model")
    assert (table.loc[list(FEW[:3]), ["VPT-shallow", "VPT-deep", "VAPT"]] == "yes").all(axis=None)
    assert table.loc[FEW[3], "VAPT"] == "no"
    assert "two heads" in table.loc[FEW[3], "why not"]
    none = pd.DataFrame({"class": [], "why not": []})
    written = body_of(page(table.reset_index(), none), list(table.reset_index().columns))
    assert written[1][:7] == ["vit_tiny_patch16_224", "14 x 14", "12", "192", "1", "token", "yes"]
    listed = body_of(MODELS.read_text(encoding="utf-8"), list(table.reset_index().columns))
    assert [row for row in listed if row[0] in FEW] == sorted(written)


@pytest.mark.slow
def test_every_vision_transformer_of_timm():
    """All are supported but the distilled ones."""
    table = supported_models()
    assert list(table["model"]) == vision_transformers()
    refused = table[(table[["VPT-shallow", "VPT-deep", "VAPT"]] != "yes").any(axis=1)]
    assert refused["model"].str.contains("distilled").all()
    assert len(refused) < 10

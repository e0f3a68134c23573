"""Models of Hugging Face's transformers: the same prompts, the same numbers, the same files as timm's.

Weights are random and sizes tiny; nothing is fetched. The two libraries' forward passes are each other's oracles.
"""

import subprocess
import sys
from copy import deepcopy
from functools import cache

import pytest
import timm
import torch
from vision_models import randomise, rng

from moe_prompts.errors import InputError
from moe_prompts.vision import (
    VAPT,
    VPT,
    PackedTrials,
    add_adapters,
    add_lora,
    as_timm,
    backbone_hash,
    gradient_ratio,
    load_prompts,
    prompt,
    prompt_table,
    read_head,
    save_prompts,
    set_mean_states,
    start_from,
    train_prompts,
    trainable_summary,
    unprompt,
)
from moe_prompts.vision.prompting.checkpoint import FORMAT, read_tensors
from moe_prompts.vision.prompting.mass import draw_mass, gate_mass
from moe_prompts.vision.prompting.prompted import mean_states, prompt_parameters

transformers = pytest.importorskip("transformers", reason="needs the extra hf: pip install -e '.[hf]'")
#: Two libraries order their sums differently: float32, logits of size about 3.
ROUNDING = 1e-5
WIDTH, DEPTH, SIDE = 32, 3, 32
SMALL = {
    "hidden_size": WIDTH,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": 8,
}
VIT, DINO = SMALL | {"intermediate_size": 48}, SMALL | {"mlp_ratio": 2}
REGISTERS = DINO | {"num_register_tokens": 3}
CASES = {
    "ViTModel": ("ViTConfig", VIT),
    "ViTForImageClassification": ("ViTConfig", VIT | {"num_labels": 5}),
    "DeiTModel": ("DeiTConfig", VIT),
    "DeiTForImageClassification": ("DeiTConfig", VIT | {"num_labels": 5}),
    "ViTMAEModel": ("ViTMAEConfig", VIT | {"mask_ratio": 0.0}),
    "Dinov2Model": ("Dinov2Config", DINO | {"use_swiglu_ffn": True}),
    "Dinov2ForImageClassification": ("Dinov2Config", DINO | {"num_labels": 5}),
    "Dinov2WithRegistersModel": ("Dinov2WithRegistersConfig", REGISTERS),
    "Dinov2WithRegistersForImageClassification": ("Dinov2WithRegistersConfig", REGISTERS | {"num_labels": 5}),
    "SiglipVisionModel": ("SiglipVisionConfig", VIT),
    "SiglipForImageClassification": (
        "SiglipConfig",
        {"vision_config": VIT, "text_config": {"bos_token_id": 0, "eos_token_id": 1}, "num_labels": 5},
    ),
}
JOINED = ("Dinov2ForImageClassification", "Dinov2WithRegistersForImageClassification")
CONFIGS = {
    "shallow": VPT(2, deep=False),
    "deep": VPT(2),
    "vapt": VAPT(2, hidden=4),
    "last": VAPT(2, hidden=4, blocks=2, activation="gelu"),
}


@cache
def _made(name):
    config, settings = CASES[name]
    model = getattr(transformers, name)(getattr(transformers, config)(**settings)).eval()
    randomise(model.parameters(), 0, 0.2)
    return model


def plain(name="ViTModel"):
    return deepcopy(_made(name))


def pixels(number=2, side=SIDE):
    return torch.randn(number, 3, side, side, generator=rng(3))


def prompted(model, config, classes=7):
    """In evaluation mode, with random prompts and head."""
    model = prompt(model, config, classes, rng=rng(1))
    randomise(prompt_parameters(model).values(), 2, 0.5)
    return model.eval()


def states(model, images):
    """Return the states of a bare plain model, after its final norm."""
    found = model(
        images, **({"noise": torch.arange(16.0).expand(len(images), 16)} if "MAE" in str(type(model)) else {})
    )
    return found.last_hidden_state


@pytest.mark.parametrize("name", [name for name in CASES if name not in JOINED])
def test_equal_weights_give_equal_features_and_logits(name):
    model, twin = plain(name), as_timm(plain(name))
    with torch.no_grad():
        if name.endswith("Classification"):
            assert (model(pixels()).logits - twin(pixels())).abs().max() < ROUNDING
        else:
            assert (states(model, pixels()) - twin.forward_features(pixels())).abs().max() < ROUNDING


@pytest.mark.parametrize("name", JOINED)
def test_the_joined_head_is_refused_by_as_timm_and_kept_by_prompt(name):
    with pytest.raises(InputError, match=r"joined with the mean of patches.*\.dinov2"):
        as_timm(plain(name))
    model = plain(name)
    logits = model(pixels()).logits
    same = prompt(model, VPT(1, deep=False), rng=rng())
    assert same.classifier.in_features == 2 * WIDTH
    assert trainable_summary(same).head == 2 * WIDTH * 5 + 5
    assert torch.equal(unprompt(same)(pixels()).logits, logits)


@pytest.mark.parametrize("name", ["ViTModel", "ViTForImageClassification", "Dinov2ForImageClassification"])
def test_start_from_computes_exactly_the_logits_of_the_fixed_prompts_here_too(name):
    model = prompted(plain(name), VPT(2))
    before = model(pixels()).logits
    head = model.classifier
    config = VAPT(2, hidden=4, start="vpt", offset=True)
    model = start_from(model, config, rng=rng(4))
    assert torch.equal(model(pixels()).logits, before)
    assert (model.prompt_config, model.classifier, model.training) == (config, head, False)
    model(pixels()).logits.square().sum().backward()
    slopes = {key: value.grad for key, value in prompt_parameters(model).items()}
    assert all(float(slopes[f"{block}.weight"].abs().max()) > 0 for block in (1, 2))
    assert type(unprompt(model)) is type(plain(name))


@pytest.mark.parametrize("config", [VPT(2), VAPT(2, hidden=4), VAPT(2, hidden=4, start="gain")])
def test_gradient_ratio_is_that_of_the_same_model_of_timm(config):
    """In float32, whose rounding the norms at prompts of zero multiply by up to 1 / sqrt(eps) = 1000."""
    ours = gradient_ratio(prompt(plain(), config, 7, rng=rng(1)), pixels(), rng(0))
    twin = gradient_ratio(prompt(as_timm(plain()), config, 7, rng=rng(1)), pixels(), rng(0))
    assert ours == pytest.approx(twin, rel=1e-3)


@pytest.mark.parametrize("name", JOINED)
def test_gradient_ratio_of_a_joined_head_leaves_the_model_alone(name):
    model = prompt(plain(name), VAPT(2, hidden=4), 7, rng=rng(1)).train()
    found = gradient_ratio(model, pixels(), rng(0))
    assert found == gradient_ratio(model, pixels(), rng(0))
    assert max(found.values()) > 10
    assert model.training
    assert all(value.grad is None for value in prompt_parameters(model).values())


def test_weights_of_timm_under_the_names_of_transformers_by_hand():
    """An independent map of names, in the other direction: timm's model as it is made, its weights moved one by one."""
    twin = timm.create_model(
        "vit_tiny_patch16_224", img_size=SIDE, patch_size=8, embed_dim=WIDTH, depth=DEPTH, num_heads=2, num_classes=5
    ).eval()
    randomise(twin.parameters(), 5, 0.2)
    config = transformers.ViTConfig(**VIT | {"intermediate_size": 4 * WIDTH, "num_labels": 5, "layer_norm_eps": 1e-6})
    model = transformers.ViTForImageClassification(config).eval()
    own, state = twin.state_dict(), {}
    for kind in ("weight", "bias"):
        state[f"vit.embeddings.patch_embeddings.projection.{kind}"] = own[f"patch_embed.proj.{kind}"]
        state[f"vit.layernorm.{kind}"] = own[f"norm.{kind}"]
        state[f"classifier.{kind}"] = own[f"head.{kind}"]
        for i in range(DEPTH):
            q, k, v = own[f"blocks.{i}.attn.qkv.{kind}"].chunk(3)
            start = f"vit.layers.{i}."
            state |= {
                f"{start}attention.{name}_proj.{kind}": value for name, value in zip("qkv", (q, k, v), strict=True)
            }
            state[f"{start}attention.o_proj.{kind}"] = own[f"blocks.{i}.attn.proj.{kind}"]
            state[f"{start}layernorm_before.{kind}"] = own[f"blocks.{i}.norm1.{kind}"]
            state[f"{start}layernorm_after.{kind}"] = own[f"blocks.{i}.norm2.{kind}"]
            state |= {f"{start}mlp.fc{n}.{kind}": own[f"blocks.{i}.mlp.fc{n}.{kind}"] for n in (1, 2)}
    state["vit.embeddings.cls_token"] = own["cls_token"]
    state["vit.embeddings.position_embeddings"] = own["pos_embed"]
    model.load_state_dict(state)
    with torch.no_grad():
        assert (model(pixels()).logits - twin(pixels())).abs().max() < ROUNDING
        for config in CONFIGS.values():
            pair = prompted(deepcopy(model), config), prompted(deepcopy(twin), config)
            assert (pair[0](pixels()).logits - pair[1](pixels())).abs().max() < ROUNDING
    assert backbone_hash(model) == backbone_hash(twin)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("name", [name for name in CASES if name not in JOINED])
def test_prompted_models_and_their_files_are_the_same_in_both_libraries(name, config, tmp_path):
    """Logits, and a file that passes from one library to the other and back."""
    twin = as_timm(plain(name))
    model = prompted(plain(name), config)
    save_prompts(model, tmp_path / "prompts.safetensors")
    other = load_prompts(deepcopy(twin), tmp_path / "prompts.safetensors").eval()
    save_prompts(other, tmp_path / "again.safetensors")
    described = [read_tensors(tmp_path / f"{one}.safetensors", FORMAT, "prompts")[0] for one in ("prompts", "again")]
    assert described[0] == described[1], "the same backbone, the same traits, the same numbers: by their checksums"
    back = load_prompts(plain(name), tmp_path / "again.safetensors").eval()
    with torch.no_grad():
        logits = model(pixels()).logits
        assert (logits - other(pixels())).abs().max() < ROUNDING
        assert torch.equal(back(pixels()).logits, logits)
        assert logits.std() > 0.1, "the numbers that are compared are not all alike"
    assert trainable_summary(model).prompts == config.n_parameters(WIDTH, DEPTH, (4, 4))


def test_a_file_of_another_pooling_is_refused(tmp_path):
    save_prompts(prompted(plain("Dinov2ForImageClassification"), VPT(1)), tmp_path / "prompts.safetensors")
    inner = plain("Dinov2ForImageClassification").dinov2
    with pytest.raises(InputError, match=r"pooling 'token\+avg', this one 'token'"):
        load_prompts(inner, tmp_path / "prompts.safetensors")


@pytest.mark.parametrize("name", ["ViTModel", "Dinov2WithRegistersModel", "SiglipVisionModel"])
def test_heads_are_read_as_the_same_mixtures(name):
    model, twin = prompted(plain(name), VAPT(2, hidden=4)), prompted(as_timm(plain(name)), VAPT(2, hidden=4))
    here, there = (read_head(one, pixels(), 1, 1) for one in (model, twin))
    for part in ("gates", "experts", "mass_map", "variation"):
        assert (getattr(here, part) - getattr(there, part)).abs().max() < ROUNDING
    assert (here.num_prefix, here.num_prompts, here.grid) == (there.num_prefix, 2, (4, 4))
    assert len(prompt_table(model, pixels())) == DEPTH * 2 * 2


def test_gates_are_the_attention_weights_that_the_library_tells():
    model = plain()
    model.set_attn_implementation("eager")
    model = prompted(model, VPT(2))
    with torch.no_grad():
        told = model(pixels(), output_attentions=True).attentions
    assert len(told) == DEPTH
    assert (read_head(model, pixels(), 2, 1).gates - told[2][:, 1]).abs().max() < 1e-6
    drawn = draw_mass(model, pixels(1)[0], block=2)
    assert drawn.get_title() == "block 2, mean of 2 heads"
    assert gate_mass(model, pixels(1), 2).shape == (4, 4)
    drawn.figure.clear()
    with pytest.raises(InputError, match=r"keeps no weights.*eager"):
        prompted(plain(), VPT(2))(pixels(), output_attentions=True)


@pytest.mark.parametrize("config", [VPT(2, deep=False), VAPT(2, hidden=4)], ids=["shallow", "vapt"])
@pytest.mark.parametrize("name", ["ViTModel", "Dinov2ForImageClassification"])
def test_hidden_states_are_the_plain_models_tokens(name, config):
    model = prompted(plain(name), config)
    with torch.no_grad():
        found = model(pixels(), output_hidden_states=True, return_dict=True).hidden_states
        first = plain(name)(pixels(), output_hidden_states=True).hidden_states
    assert len(found) == len(first) == DEPTH + 1
    assert {one.shape for one in found} == {(2, 17, WIDTH)}
    assert torch.equal(found[0], first[0])


def test_training_moves_prompts_and_head_alone_and_unprompt_restores_the_rest():
    model = plain("ViTForImageClassification").train()
    frozen, flags = (
        {n: v.clone() for n, v in model.state_dict().items()},
        {n: m.training for n, m in model.named_modules()},
    )
    model = prompt(model, VAPT(2, hidden=4), 7, rng=rng())
    assert model.training
    assert not model.vit.layers[0].block.training
    assert model.classifier.training
    torch.manual_seed(0)
    loss = model(pixels(), labels=torch.tensor([0, 3])).loss
    loss.backward()
    trained = {id(value) for value in prompt_parameters(model).values()}
    assert all((value.grad is not None) == (id(value) in trained) for value in model.parameters())
    with torch.no_grad():
        for value in prompt_parameters(model).values():
            value -= 0.1 * value.grad
    back = unprompt(model)
    assert type(back) is transformers.ViTForImageClassification
    assert {n: m.training for n, m in back.named_modules()} == flags
    assert all(value.requires_grad for value in back.parameters())
    assert back.state_dict().keys() == frozen.keys()
    assert all(torch.equal(value, frozen[name]) for name, value in back.state_dict().items())


def test_recomputed_states_give_the_same_gradients():
    """Gradient checkpointing of transformers looks at the mode of a block, which is frozen here."""
    gradients = []
    for checkpointed in (False, True):
        model = prompt(plain(), VPT(2), 7, rng=rng(), head="published")  # zeros would hide the prompts' gradients
        if checkpointed:
            model.activation_checkpointing_enable()
        model.train()
        runs = []
        inner = model.layers[1].block
        inner.attention.register_forward_hook(lambda *_, runs=runs: runs.append(1))
        model(pixels(), labels=torch.tensor([0, 3])).loss.backward()
        assert len(runs) == 1 + checkpointed
        gradients.append([value.grad for value in prompt_parameters(model).values()])
    assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(*gradients, strict=True))


def test_fixed_prompts_train_first_here_too():
    """The model's own ``config`` is that of transformers, which says nothing of the prompts' start."""
    config = VAPT(2, hidden=4, offset=True, start="vpt", channel_dropout=0, hidden_dropout=0)
    model = prompt(plain(), config, 7, rng=rng(), head="published")
    before = {name: value.detach().clone() for name, value in prompt_parameters(model).items()}
    train_prompts(model, [(pixels(), torch.tensor([0, 3]))], steps=1, fixed_first=0.9)
    moved = {name for name, value in prompt_parameters(model).items() if not torch.equal(value, before[name])}
    assert {name.rpartition(".")[2] for name in moved if not name.startswith("head.")} <= {"tokens", "offset"}
    assert any(name.endswith("offset") for name in moved)


def test_mean_states_and_copies():
    model = prompt(plain(), VAPT(2, hidden=4, source="mean"), 7, rng=rng())
    set_mean_states(model, [pixels(4)])
    found, twin = mean_states(plain(), [pixels(4)]), mean_states(as_timm(plain()), [pixels(4)])
    assert all((a - b).abs().max() < ROUNDING for a, b in zip(found, twin, strict=True))
    copy = deepcopy(model)
    randomise(prompt_parameters(copy).values(), 9, 1.0)
    assert not torch.equal(copy.eval()(pixels()).logits, model.eval()(pixels()).logits)


def test_another_image_size():
    model = prompted(plain(), VAPT(2, hidden=4, resize="bilinear"))
    with pytest.raises(InputError, match=r"48 x 48 pixels; this model takes 32 x 32.*interpolate_pos_encoding=True"):
        model(pixels(side=48))
    assert model(pixels(side=48), interpolate_pos_encoding=True).logits.shape == (2, 7)
    assert read_head(model, pixels(side=48), 1, 0).grid == (6, 6)
    with pytest.raises(InputError, match="images of 6 x 6 patches"):
        prompted(plain("Dinov2Model"), VAPT(2, hidden=4))(pixels(side=48))


def test_wrong_combinations_say_so_in_one_line():
    swin = transformers.SwinModel(
        transformers.SwinConfig(image_size=32, patch_size=4, embed_dim=8, depths=[1], num_heads=[1], window_size=4)
    )
    masked, flash = plain("ViTMAEModel"), plain()
    masked.config.mask_ratio = 0.75
    flash.config._attn_implementation = "flash_attention_2"
    cases = [
        (lambda: prompt(swin, VPT(1)), "SwinModel of transformers.*windows"),
        (lambda: prompt(masked, VPT(1)), "mask_ratio = 0.75 drops patches at random.*mask_ratio = 0"),
        (lambda: prompt(flash, VPT(1)), "flash_attention_2.*eager, sdpa"),
        (lambda: prompt(prompt(plain(), VPT(1), 2), VPT(1)), "it has prompts already"),
        (lambda: as_timm(as_timm(plain())), "timm's model already"),
        (lambda: add_lora(plain(), 2, rng()), "add_lora: a ViTModel has no layer qkv.*as_timm"),
        (lambda: add_adapters(plain(), 2, rng()), "add_adapters: a ViTModel has no layer qkv.*as_timm"),
        (lambda: PackedTrials(plain().requires_grad_(False), VPT(1), 2, [rng()]), "ViTModel of transformers.*as_timm"),
        (lambda: prompt(plain(), VPT(1), 2).save_pretrained("here"), "save_prompts"),
        (lambda: prompt(plain(), VPT(1), 2)(pixels(), attention_mask=torch.ones(2, 17)), "every patch"),
        (lambda: prompt(plain(), VPT(1), 2)(), "images of type NoneType"),
        (lambda: prompt(plain(), VPT(1), 2)(pixels().to(torch.uint8)), "images of torch.uint8; expected floating"),
        (lambda: prompt(plain(), VPT(1), 2)(pixels()[:, :1]), r"\(2, 1, 32, 32\)"),
    ]
    for wrong, words in cases:
        with pytest.raises(InputError, match=words) as caught:
            wrong()
        assert "\n" not in str(caught.value)


def test_a_timm_model_in_a_wrapper_of_transformers_is_told_from_timms():
    wrapper = type("TimmWrapperModel", (torch.nn.Module,), {"__module__": "transformers.models.timm_wrapper"})
    with pytest.raises(InputError, match=r"give its \.timm_model"):
        prompt(wrapper(), VPT(1))


def test_vision_is_imported_without_peft_and_transformers():
    code = "import sys, moe_prompts.vision; print([n for n in ('peft', 'transformers', 'torch') if n in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.slow
def test_prompts_and_adapters_work_where_peft_and_transformers_are_missing():
    code = """
import sys
sys.modules["peft"] = sys.modules["transformers"] = None
import timm, torch
from moe_prompts.errors import InputError
from moe_prompts.vision import VAPT, add_adapters, add_lora, prompt

rng = torch.Generator().manual_seed(0)
images = torch.zeros(1, 3, 160, 160)
print(*prompt(timm.create_model("test_vit"), VAPT(2), 3)(images).shape)
plain = timm.create_model("test_vit", num_classes=3)
add_adapters(plain, 2, rng)
print(*plain(images).shape)
try:
    add_lora(timm.create_model("test_vit"), 2, rng)
except InputError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    shapes, last = done.stdout.splitlines()[:2], done.stdout.splitlines()[-1]
    assert shapes == ["1 3", "1 3"]
    assert last == 'LoRA needs the library peft; try: pip install -e ".[peft]" -c requirements.lock'


def test_the_table_of_supported_classes_is_made_without_memory():
    from moe_prompts.vision.prompting.supported import supported_transformers

    table = supported_transformers(["Dinov2ForImageClassification", "SwinModel"]).set_index("class")
    assert list(table.loc["Dinov2ForImageClassification", ["VPT-shallow", "VPT-deep", "VAPT"]]) == ["yes"] * 3
    assert table.loc["Dinov2ForImageClassification", "pooling"] == "token+avg"
    assert table.loc["SwinModel", "VAPT"] == "no"
    assert "windows" in table.loc["SwinModel", "why not"]

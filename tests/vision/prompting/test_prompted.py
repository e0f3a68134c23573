"""Prompted models: every method on every kind of model and grid, what trains and what does not, and the way back."""

import copy
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import create_feature_extractor
from timm.models.vision_transformer import ParallelScalingBlock, ParallelThingsBlock, VisionTransformer
from timm.utils import ModelEmaV3
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from vision_models import (
    CLASSES,
    CONFIGS,
    DEPTH,
    KINDS,
    WIDTH,
    by_hand,
    images,
    oracle_of,
    plain,
    prompted,
    rng,
    train_step,
)

from moe_prompts.errors import InputError
from moe_prompts.vision import (
    VAPT,
    VPT,
    AdaptivePrompts,
    draw_mass,
    gradient_ratio,
    parameter_groups,
    prompt,
    prompt_table,
    read_head,
    train_prompts,
    trainable_summary,
    unprompt,
)
from moe_prompts.vision.prompting.prompted import mean_states, prompt_parameters
from moe_prompts.vision.prompting.prompted_model import prompt_modules
from moe_prompts.vision.prompting.prompts import StaticPrompts, position_map, resized_map
from moe_prompts.vision.prompting.weight_decay import decay_groups

GRIDS = [(4, 4), (7, 7), (16, 16), (4, 6)]

methods = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
kinds = pytest.mark.parametrize("kind", KINDS)


@methods
@kinds
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_logits_counts_and_maps(config, kind, grid):
    """The oracle's logits to rounding; the formula's count; intermediate maps of the patches, in their places."""
    model = prompted(config, grid, **KINDS[kind])
    batch, oracle = images(grid), oracle_of(model, grid)
    with torch.no_grad():
        logits = model(batch)
        features, maps = model.forward_intermediates(batch)
    expected = np.array([oracle.logits(image, model.global_pool) for image in batch.numpy()])
    np.testing.assert_allclose(logits, expected, rtol=0, atol=2e-12)
    assert trainable_summary(model).prompts == config.n_parameters(WIDTH, DEPTH, grid)
    assert features.shape == (2, model.num_prefix_tokens + grid[0] * grid[1], WIDTH)
    states = np.array([oracle.states(image) for image in batch.numpy()])[:, :, model.num_prefix_tokens :]
    assert len(maps) == DEPTH
    for index, found in enumerate(maps):
        assert found.shape == (2, WIDTH, *grid)
        np.testing.assert_allclose(found, states[:, index].transpose(0, 2, 1).reshape(found.shape), rtol=0, atol=2e-12)


@methods
@pytest.mark.parametrize("kind", ["cls", "registers", "average"])
def test_forward_intermediates_as_timm(config, kind):
    """Each option of timm's gives the shapes that the plain model gives, and the numbers of the plain call."""
    grid = (4, 6)
    model, bare = prompted(config, grid, **KINDS[kind]), plain(grid, **KINDS[kind])
    batch = images(grid)
    _, everything = model.forward_intermediates(batch, output_fmt="NLC")
    for options in (
        {"indices": [0, 1]},
        {"indices": 2, "output_fmt": "NLC"},
        {"indices": [0], "stop_early": True},
        {"indices": [1], "stop_early": True, "output_fmt": "NLC", "return_prefix_tokens": True},
        {"indices": [0], "norm": True, "intermediates_only": True},
        {"indices": [0, 2], "return_prefix_tokens": True, "output_dict": True},
        {"indices": [0], "stop_early": True, "output_dict": True, "intermediates_only": True},
    ):
        ours, timms = model.forward_intermediates(batch, **options), bare.forward_intermediates(batch, **options)
        assert shapes(ours) == shapes(timms), options
    _, [found] = model.forward_intermediates(batch, indices=[1], stop_early=True, output_fmt="NLC")
    assert torch.equal(found, everything[1])
    [layer] = model.get_intermediate_layers(batch, n=[1])
    assert torch.equal(layer, everything[1])


def shapes(found):
    if isinstance(found, torch.Tensor):
        return tuple(found.shape)
    if isinstance(found, dict):
        return {name: shapes(value) for name, value in found.items()}
    return [shapes(one) for one in found]


@methods
def test_only_prompts_and_head_train(config):
    """Gradients for them alone; everything else is bit for bit as before a step; frozen modules stay in evaluation."""
    model = prompt(
        plain(global_pool="avg", drop_path_rate=0.5, drop_rate=0.5, proj_drop_rate=0.5),
        config,
        CLASSES,
        head="published",
    )
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert model.train() is model
    model(images()).square().sum().backward()
    trained = {id(parameter) for parameter in prompt_parameters(model).values()}
    for parameter in model.parameters():
        assert parameter.requires_grad == (id(parameter) in trained)
        assert (parameter.grad is not None) == parameter.requires_grad
    assert model.training
    assert model.head.training
    assert model.head_drop.training
    frozen = [module for module in model.modules() if isinstance(module, nn.Dropout)]
    in_prompts = {id(part) for module in prompt_modules(model) for part in module.modules()} | {id(model.head_drop)}
    assert all(module.training == (id(module) in in_prompts) for module in frozen)
    train_step(model, images())
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    names = {name for name, parameter in model.named_parameters(remove_duplicate=False) if parameter.requires_grad}
    assert changed <= names
    assert "head.weight" in changed
    assert any("prompts" in name for name in changed)


@methods
def test_evaluation_is_deterministic_and_training_is_not_where_it_drops(config):
    model = prompted(config, drop_path_rate=0.5, pos_drop_rate=0.5)
    assert torch.equal(model(images()), model(images()))
    model.train()
    assert torch.equal(model(images()), model(images())) == isinstance(config, VPT)


@methods
def test_a_copy_trains_its_own_prompts(config):
    model = prompted(config)
    twin = copy.deepcopy(model)
    before = model(images())
    train_step(twin, images())
    assert torch.equal(model(images()), before)
    assert not torch.equal(twin(images()), before)
    assert torch.equal(unprompt(twin)(images()), unprompt(model)(images()))


@methods
def test_unprompt_restores_everything(config):
    """Weights, head, flags, class and output, after training in between."""
    model = plain(drop_rate=0.1).train()
    model.norm.eval()
    model.cls_token.requires_grad_(False)
    head, state = model.head, copy.deepcopy(model.state_dict())
    grads = {name: one.requires_grad for name, one in model.named_parameters()}
    training = {name: one.training for name, one in model.named_modules()}
    changed = prompt(model, config, CLASSES)
    assert changed is model
    train_step(changed, images())
    back = unprompt(changed)
    assert back is model
    assert type(back) is VisionTransformer
    assert back.head is head
    assert back.num_classes == 5
    assert list(back.state_dict()) == list(state)
    assert all(torch.equal(value, state[name]) for name, value in back.state_dict().items())
    assert {name: one.requires_grad for name, one in back.named_parameters()} == grads
    assert {name: one.training for name, one in back.named_modules()} == training
    assert vars(back).keys() == vars(plain()).keys()


def test_a_shared_projector_is_one_entry(tmp_path):
    """The state has it once, so a moving average updates it once and a file can hold it; copies share their own."""
    model = prompted(VAPT(3))
    names = [name for name in model.state_dict() if "projector" in name]
    assert names == [f"blocks.1.prompts.projector.{part}" for part in ("down", "up")]
    assert [name for name in prompt_parameters(model) if "projector" in name] == ["1.projector.down", "1.projector.up"]
    save_file(model.state_dict(), tmp_path / "state.safetensors")
    average = ModelEmaV3(model, decay=0.75)
    before = {name: one.detach().clone() for name, one in prompt_parameters(average.module).items()}
    train_step(model, images())
    average.update(model)
    for name, one in prompt_parameters(average.module).items():
        torch.testing.assert_close(one, 0.75 * before[name] + 0.25 * prompt_parameters(model)[name])
    for twin in (copy.deepcopy(model), copy.deepcopy(model).float()):
        own = {id(one.projector) for one in prompt_modules(twin) if isinstance(one, AdaptivePrompts)}
        assert len(own) == 1
        assert own.isdisjoint(id(one) for one in model.modules())
        last = twin.blocks[DEPTH - 1].prompts
        assert last.projector.down.dtype == last.weight.dtype


@methods
@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.reset_classifier(0, ""),
        lambda model: model.reset_classifier(3, "avg"),
        lambda model: model.set_input_size(img_size=(32, 32)),
        lambda model: model.prune_intermediate_layers(1),
    ],
)
def test_a_prompted_backbone_stays_as_it_is(config, change):
    model = prompted(config)
    expected = model(images())
    with pytest.raises(InputError, match=r"this model is prompted, and .*; unprompt it"):
        change(model)
    assert torch.equal(model(images()), expected)


@methods
@pytest.mark.parametrize("options", [{}, {"global_pool": "map", "class_token": False}], ids=str)
def test_another_head_goes_with_the_prompts(config, options):
    bare = plain(**options)
    expected, attributes = bare(images()), dict(vars(bare))
    model = prompt(bare, config, CLASSES)
    model.reset_classifier(11)
    assert model.double()(images()).shape == (2, 11)
    assert model.head.weight.requires_grad
    back = unprompt(model)
    assert torch.equal(back(images()), expected)
    assert {name for name, value in vars(back).items() if attributes[name] is not value} == set()


@methods
def test_added_parts_stop_unprompt_before_it_changes_anything(config):
    model = prompted(config)
    expected = model(images())
    model.extra = nn.Linear(2, 2)
    with pytest.raises(InputError, match=r"unprompt: extra, extra.bias, extra.weight came or went since"):
        unprompt(model)
    assert torch.equal(model(images()), expected)
    del model.extra
    assert type(unprompt(model)) is VisionTransformer


def test_the_head():
    """Kept and trained as a copy, made new from zeros or by the published rule, or none."""
    model = plain()
    old = model.head.weight.detach().clone()
    kept = prompt(model, VPT(2))
    assert torch.equal(kept.head.weight, old)
    train_step(kept, images())
    assert not torch.equal(kept.head.weight, old)
    assert torch.equal(unprompt(kept).head.weight, old)
    assert not any(value.any() for value in prompt(plain(), VPT(2), 1000).head.parameters())
    fresh = prompt(plain(), VPT(2), 1000, rng=rng(), head="published")
    assert (fresh.head.bias == torch.tensor(-np.log(99)).float()).all()
    # fan_out: variance 2 / 1000; five standard deviations of the variance of 16000 draws.
    assert abs(fresh.head.weight.var().item() * 500 - 1) < 5 * np.sqrt(2 / 16000)
    assert fresh.num_classes == 1000
    assert prompt(plain(), VPT(2), 0)(images()).shape == (2, WIDTH)


def test_classes_as_numpy_counts_them():
    model = prompt(plain(), VPT(np.int64(2)), np.int64(CLASSES))
    assert model(images()).shape == (2, CLASSES)
    assert type(model.num_classes) is int


def test_initial_prompts_are_a_function_of_the_generator():
    first, second, other = (
        prompt_parameters(prompt(plain(), CONFIGS["VAPT"], CLASSES, rng=rng(seed), head="published"))
        for seed in (1, 1, 2)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["0.tokens"], other["0.tokens"])


@methods
def test_gradient_checkpointing(config):
    """The same gradients, with the same dropout."""
    found = []
    for enable in (False, True):
        model = prompted(config).train()
        model.set_grad_checkpointing(enable)
        torch.manual_seed(0)
        model(images()).square().sum().backward()
        found.append({name: one.grad for name, one in prompt_parameters(model).items()})
    for name, grad in found[0].items():
        torch.testing.assert_close(found[1][name], grad, rtol=1e-12, atol=1e-12)


@methods
def test_autocast_bfloat16(config):
    """Within the precision of bfloat16 (8 bits) of float32, and it trains."""
    model = prompted(config).float()
    batch = images().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(batch)
    logits.float().sum().backward()
    assert (logits - model(batch)).norm() < 2**-4 * model(batch).norm()
    assert all(one.grad.isfinite().all() for one in prompt_parameters(model).values())
    assert model.bfloat16()(batch.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize(
    "config",
    [config if name == "VAPT" else pytest.param(config, marks=pytest.mark.slow) for name, config in CONFIGS.items()],
    ids=CONFIGS,
)
def test_compiles_as_one_graph(config):
    compiled_is_eager(config, "aot_eager")


@pytest.mark.slow
@methods
def test_compiles_with_inductor(config):
    compiled_is_eager(config, "inductor")


def compiled_is_eager(config, backend):
    model = prompted(config, depth=2)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    expected, found = model(images()), compiled(images())
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    expected.square().sum().backward()
    grads = {name: one.grad.clone() for name, one in prompt_parameters(model).items()}
    model.zero_grad()
    compiled(images()).square().sum().backward()
    for name, one in prompt_parameters(model).items():
        torch.testing.assert_close(one.grad, grads[name], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("config", [VPT(3, deep=False), VPT(3), VAPT(3, resize="bilinear")], ids=str)
def test_another_image_size(config):
    """Fixed prompts follow every size that the model takes; adaptive ones if told to resample: as put in by hand."""
    model = prompted(config, (4, 4), dynamic_img_size=True)
    expected = by_hand(model, images((6, 5)), lambda *at: resampled_prompts(model, (6, 5), *at))
    torch.testing.assert_close(model(images((6, 5))), expected, rtol=0, atol=1e-12)
    _, [found] = model.forward_intermediates(images((6, 5)), indices=[0])
    assert found.shape == (2, WIDTH, 6, 5)
    assert model(images()).shape == (2, CLASSES)


def resampled_prompts(model, grid, index, patches):
    """Prompts of a block step by step, with its position map resampled to the grid of the images."""
    own = {name: one.detach() for name, one in prompt_parameters(model).items()}
    if f"{index}.tokens" in own:
        return own[f"{index}.tokens"].expand(len(patches), -1, -1)
    if f"{index}.norm.weight" not in own:
        return None
    U = nn.functional.layer_norm(patches, (WIDTH,), own[f"{index}.norm.weight"], own[f"{index}.norm.bias"], 1e-5)
    E = position_map(own[f"{index}.weight"], own[f"{index}.kernel"])
    Z = torch.einsum("np,bpd->bnd", resized_map(E, grid).flatten(1), U) + own[f"{index}.bias"][:, None]
    return Z + (Z @ own["1.projector.down"].T).relu() @ own["1.projector.up"].T


@methods
@pytest.mark.parametrize(
    "options",
    [
        {"global_pool": "avgmax"},
        {"global_pool": "max"},
        {"global_pool": ""},
        {"init_values": 0.3},
        {"block_fn": ParallelScalingBlock},
        {"block_fn": ParallelThingsBlock},
        {"qkv_bias": False, "qk_norm": True},
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_other_poolings_and_blocks(config, options):
    model = prompted(config, (4, 6), **options)
    expected = by_hand(model, images((4, 6)), lambda *at: resampled_prompts(model, (4, 6), *at))
    torch.testing.assert_close(model(images((4, 6))), expected, rtol=0, atol=1e-11)
    assert trainable_summary(model).prompts == config.n_parameters(WIDTH, DEPTH, (4, 6))


def test_another_image_size_is_refused_in_one_line():
    model = prompted(VAPT(3), dynamic_img_size=True)
    with pytest.raises(InputError, match="6 x 5 patches; these adaptive prompts were made for 4 x 4"):
        model(images((6, 5)))
    assert model(images()).shape == (2, CLASSES)
    for config in CONFIGS.values():
        with pytest.raises(InputError, match=r"24 x 20 pixels; this model takes 16 x 16: .*dynamic_img_size=True"):
            prompted(config)(images((6, 5)))


def test_map_pooling():
    """Prompts are gone before attention pooling, whose weights stay frozen."""
    model = prompted(VAPT(3), global_pool="map", class_token=False)
    assert model(images()).shape == (2, CLASSES)
    assert not any(one.requires_grad for one in model.attn_pool.parameters())


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("swin_tiny_patch4_window7_224", "SwinTransformer.*windows"),
        ("eva02_tiny_patch14_224", "Eva.*rotary"),
        ("naflexvit_base_patch16_gap", "NaFlexVit.*padding"),
        ("deit_tiny_distilled_patch16_224", "VisionTransformerDistilled.*two heads"),
        ("resnet10t", "ResNet; expected timm's VisionTransformer, such as"),
    ],
)
def test_other_models_are_refused(model, reason):
    with torch.device("meta"):
        other = timm.create_model(model)
    with pytest.raises(InputError, match=reason):
        prompt(other, VPT(3))


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (lambda: (plain(patch_drop_rate=0.5), VPT(3)), "patch_drop_rate=0"),
        (lambda: (prompted(VPT(3)), VPT(3)), "has prompts already; unprompt it first"),
        (lambda: (plain(), VAPT(3, kernel=5)), "kernel = 5 .* grid of 4 x 4"),
        (lambda: (plain(), VAPT(3, static_depth=3)), "no adaptive prompts in a model of 3 blocks"),
        (lambda: (plain(), "VPT"), r"config 'VPT'; expected VPT\(...\) or VAPT"),
        (lambda: (plain(), VPT(3), -1), "num_classes = -1"),
        (lambda: (plain(), VPT(3), True), "num_classes = True"),
        (lambda: (torch.compile(plain()), VPT(3)), "OptimizedModule.*_orig_mod"),
        (lambda: (nn.DataParallel(plain()), VPT(3)), "DataParallel.*the model inside"),
    ],
)
def test_wrong_input_is_refused_before_anything_changes(arguments, match):
    model, *rest = arguments()
    before = type(model), [name for name, _ in model.named_modules()]
    with pytest.raises(InputError, match=match):
        prompt(model, *rest)
    assert (type(model), [name for name, _ in model.named_modules()]) == before


@pytest.mark.parametrize("given", ["test_vit", None, 3])
def test_what_is_no_model_is_refused_in_one_line(given):
    with pytest.raises(InputError) as error:
        prompt(given, VPT(3), 7)
    assert str(error.value).startswith(
        f"prompt: this model cannot take prompts: it is {given!r}; expected a model, such"
    )
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("call", [trainable_summary, lambda model: parameter_groups(model, 0.1)])
def test_errors_name_the_function_that_was_called(call):
    with pytest.raises(
        InputError, match=r"^(trainable_summary|parameter_groups): a VisionTransformer; expected a model"
    ):
        call(plain())


SIZED = VAPT(3, kernel=None, resize="bilinear")


@pytest.mark.parametrize("config", [VPT(3), VPT(3, deep=False), SIZED], ids=["deep", "shallow", "VAPT"])
def test_images_that_are_no_whole_number_of_patches_are_one_line(config):
    """timm says so in an AssertionError; with padding it takes them."""
    model = prompted(config, dynamic_img_size=True)
    pixels = torch.rand(2, 3, 18, 16).double()
    calls = {
        "": lambda: model(pixels),
        "train_prompts: ": lambda: train_prompts(model, [(pixels, torch.tensor([0, 1]))], 1),
        "gradient_ratio: ": lambda: gradient_ratio(model, pixels, rng()),
        "prompt_table: ": lambda: prompt_table(model, pixels),
    }
    for where, call in calls.items():
        with pytest.raises(InputError) as error:
            call()
        expected = f"{where}images of 18 x 16 pixels; expected multiples of the patches' 4 x 4: resize or crop them"
        assert str(error.value) == expected
    assert prompted(config, dynamic_img_size=True, dynamic_img_pad=True)(pixels).shape == (2, CLASSES)


def test_images_that_are_not_finite_give_no_reading():
    model = prompted(VPT(3))
    for value in (torch.nan, torch.inf):
        pixels = images().clone()
        pixels[0, 0, 0, :2] = value
        calls = {
            "prompt_table": lambda pixels=pixels: prompt_table(model, pixels),
            "gradient_ratio": lambda pixels=pixels: gradient_ratio(model, pixels, rng()),
            "read_head": lambda pixels=pixels: read_head(model, pixels, 0, 0),
            "draw_mass": lambda pixels=pixels: draw_mass(model, pixels[0]),
            "mean_states": lambda pixels=pixels: mean_states(model, [pixels]),
        }
        for name, call in calls.items():
            with pytest.raises(InputError, match=f"^{name}: images with 2 numbers that are NaN or infinite") as error:
                call()
            assert "\n" not in str(error.value)
        assert not model(pixels)[0].isfinite().all()  # a forward pass does not look at every number


def test_other_wrong_input():
    with pytest.raises(InputError, match="unprompt: a VisionTransformer; expected a model that prompt"):
        unprompt(plain())
    for mask in ({"attn_mask": torch.zeros(1)}, {"attn_mask": np.zeros(1)}, {"is_causal": True}):
        with pytest.raises(InputError, match="no attention mask"):
            prompted(VPT(3))(images(), **mask)
    for shape in ((3, 16, 16), (2, 4, 16, 16)):
        with pytest.raises(InputError, match=rf"shape \({', '.join(map(str, shape))}\); expected \(B, 3, height"):
            prompted(VPT(3))(torch.zeros(shape, dtype=torch.float64))
    for source in (0, np.random.default_rng(0)):
        with pytest.raises(InputError, match=r"rng = .*; expected a torch.Generator"):
            prompt(plain(), VPT(3), rng=source)
    with pytest.raises(InputError, match=r"torch\.fx cannot trace .*use forward_intermediates"):
        create_feature_extractor(prompted(VPT(3)), ["blocks.1"])
    for decay in (-1.0, float("nan"), "0.1"):
        with pytest.raises(InputError, match="weight_decay = "):
            parameter_groups(prompted(VPT(3)), decay)
    with pytest.raises(InputError, match="output_fmt 'NHWC'"):
        prompted(VPT(3, deep=False)).forward_intermediates(images(), output_fmt="NHWC")
    with pytest.raises(InputError, match="rule 'none'"):
        parameter_groups(prompted(VPT(3)), 0.1, "none")


def test_parameter_groups():
    """All that trains, once; decay by rule."""
    model = prompted(VAPT(3, learnable_scale=True))
    named = prompt_parameters(model)
    for rule, free in (
        ("official", {"head.bias"}),
        ("no_decay", {name for name in named if name.split(".")[-1] in ("bias", "scale") or ".norm." in name}),
    ):
        decay, rest = parameter_groups(model, 0.1, rule)
        assert (decay["weight_decay"], rest["weight_decay"]) == (0.1, 0.0)
        assert {id(one) for one in rest["params"]} == {id(named[name]) for name in free}
        assert len(decay["params"]) + len(rest["params"]) == len(named)
        torch.optim.SGD([decay, rest], lr=0.1)


def test_of_a_backbone_only_matrices_decay():
    """In pretraining neither norms and biases nor the class token and the positions do."""
    backbone = plain()
    free = {name for name, value in backbone.named_parameters() if value.ndim == 1} | {"cls_token", "pos_embed"}
    decay, rest = decay_groups(backbone.named_parameters(), 0.1, "matrices")
    assert {id(one) for one in rest["params"]} == {id(dict(backbone.named_parameters())[name]) for name in free}
    assert len(decay["params"]) + len(free) == len(list(backbone.parameters()))


def test_the_summary_counts_everything_once():
    model = plain()
    size = sum(one.numel() for one in model.parameters()) - sum(one.numel() for one in model.head.parameters())
    summary = trainable_summary(prompt(model, VAPT(3), CLASSES))
    assert summary.frozen == size
    assert summary.head == CLASSES * (WIDTH + 1)
    assert f"{summary.prompts} in prompts" in str(summary)


def test_only_adaptive_prompts_are_told_the_grid():
    """By the images, not by the number of tokens: 4 x 6 and 6 x 4 patches are told apart."""
    model = prompted(VAPT(3, resize="bilinear"), (4, 6), dynamic_img_size=True)
    model(images((6, 4)))
    assert {one.grid for one in prompt_modules(model) if isinstance(one, AdaptivePrompts)} == {(6, 4)}
    assert not any(hasattr(one, "grid") for one in prompt_modules(model) if isinstance(one, StaticPrompts))
    turned = by_hand(model, images((6, 4)), lambda *at: resampled_prompts(model, (6, 4), *at))
    taken_as_own = by_hand(model, images((6, 4)), lambda *at: resampled_prompts(model, (4, 6), *at))
    torch.testing.assert_close(model(images((6, 4))), turned, rtol=0, atol=1e-12)
    assert (turned - taken_as_own).abs().max() > 1e-3


def shared_gradients(rank: int, store: str) -> None:
    """One of two processes: gradients of its half of a batch, averaged by DDP, are those of the whole batch."""
    wait = timedelta(minutes=3)
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2, timeout=wait)
    try:
        for config in CONFIGS.values():
            model = prompted(config)
            batch = images(number=4)
            model(batch).square().mean().backward()
            whole = {name: one.grad.clone() for name, one in prompt_parameters(model).items()}
            model.zero_grad()
            shared = DistributedDataParallel(model)
            shared(batch[2 * rank : 2 * rank + 2]).square().mean().backward()
            for name, one in prompt_parameters(model).items():
                torch.testing.assert_close(one.grad, whole[name], rtol=1e-9, atol=1e-9)
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_share_gradients(tmp_path):
    """With gloo; the other process is started first, since importing torch takes it seconds."""
    store = str(tmp_path / "store")
    here = Path(__file__).parent
    code = (
        f"import sys; sys.path += {[str(here), str(here.parent)]}; import torch; torch.set_num_threads(1); "
        f"import test_prompted; test_prompted.shared_gradients(1, {store!r})"
    )
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) as other:
        shared_gradients(0, store)
        _, errors = other.communicate(timeout=120)
    assert other.returncode == 0, errors

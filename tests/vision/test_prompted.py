"""Prompted models: every method on every kind of model and grid, what trains and what does not, and the way back."""

import copy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from vision_models import (
    CLASSES,
    CONFIGS,
    DEPTH,
    KINDS,
    PATCH,
    WIDTH,
    images,
    oracle_of,
    plain,
    prompted,
    rng,
    train_step,
)

from moe_prompts.errors import InputError
from moe_prompts.vision import VAPT, VPT, AdaptivePrompts, parameter_groups, prompt, trainable_summary, unprompt
from moe_prompts.vision.prompted import prompt_modules, prompt_parameters

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
    model = prompt(plain(global_pool="avg", drop_path_rate=0.5, drop_rate=0.5, proj_drop_rate=0.5), config, CLASSES)
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


def test_the_head():
    """Kept and trained as a copy, made new by the published rule, or none."""
    model = plain()
    old = model.head.weight.detach().clone()
    kept = prompt(model, VPT(2))
    assert torch.equal(kept.head.weight, old)
    train_step(kept, images())
    assert not torch.equal(kept.head.weight, old)
    assert torch.equal(unprompt(kept).head.weight, old)
    fresh = prompt(plain(), VPT(2), 1000, rng=rng())
    assert (fresh.head.bias == torch.tensor(-np.log(99)).float()).all()
    # fan_out: variance 2 / 1000; five standard deviations of the variance of 16000 draws.
    assert abs(fresh.head.weight.var().item() * 500 - 1) < 5 * np.sqrt(2 / 16000)
    assert fresh.num_classes == 1000
    assert prompt(plain(), VPT(2), 0)(images()).shape == (2, WIDTH)


def test_initial_prompts_are_a_function_of_the_generator():
    first, second, other = (
        prompt_parameters(prompt(plain(), CONFIGS["VAPT"], CLASSES, rng=rng(seed))) for seed in (1, 1, 2)
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


@methods
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
    """Fixed prompts follow every size that the model takes; adaptive ones if told to resample."""
    model = prompted(config, (4, 4), dynamic_img_size=True)
    assert torch.equal(model(images((6, 5))), model(images((6, 5))))
    _, [found] = model.forward_intermediates(images((6, 5)), indices=[0])
    assert found.shape == (2, WIDTH, 6, 5)
    assert model(images()).shape == (2, CLASSES)


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
        ("resnet10t", "ResNet.*only this class"),
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
    ],
)
def test_wrong_input_is_refused_before_anything_changes(arguments, match):
    model, *rest = arguments()
    before = type(model), [name for name, _ in model.named_modules()]
    with pytest.raises(InputError, match=match):
        prompt(model, *rest)
    assert (type(model), [name for name, _ in model.named_modules()]) == before


def test_other_wrong_input():
    with pytest.raises(InputError, match="unprompt: a VisionTransformer; expected a model that prompt"):
        unprompt(plain())
    with pytest.raises(InputError, match="no attention mask"):
        prompted(VPT(3))(images(), attn_mask=torch.zeros(1))
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
    assert images((6, 4)).shape[-2:] == (6 * PATCH, 4 * PATCH)


def shared_gradients(rank: int, store: str) -> None:
    """One of two processes: gradients of its half of a batch, averaged by DDP, are those of the whole batch."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
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


def test_two_processes_share_gradients(tmp_path):
    """With gloo; the other process is started first, since importing torch takes it seconds."""
    store = str(tmp_path / "store")
    code = f"import torch; torch.set_num_threads(1); import test_prompted; test_prompted.shared_gradients(1, {store!r})"
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=Path(__file__).parent, stderr=subprocess.PIPE, text=True
    ) as other:
        shared_gradients(0, store)
        _, errors = other.communicate(timeout=120)
    assert other.returncode == 0, errors

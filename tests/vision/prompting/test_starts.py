"""Starts of prompts: the published one to the bit, gradients of every one, and VPT's logits from where VPT ended."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from vision_models import CLASSES, KINDS, images, plain, rng

from moe_prompts.errors import InputError
from moe_prompts.vision import VAPT, VPT, gradient_ratio, load_prompts, prompt, save_prompts, start_from
from moe_prompts.vision.prompting.config import FIXED_STARTS, STARTS
from moe_prompts.vision.prompting.prompted import prompt_parameters
from moe_prompts.vision.prompting.prompts import AdaptivePrompts
from moe_prompts.vision.prompting.starts import waits

#: One config of each start, and of each option that a start must go along with.
OPTIONS = {
    "usual": {},
    "sigmoid": {"activation": "sigmoid"},
    "softmax": {"activation": "softmax"},
    "no kernel": {"kernel": None},
    "kernels": {"per_channel": True},
    "projectors": {"shared_projector": False},
    "pooled": {"pooled": True},
    "padding": {"padding": 1},
    "blocks": {"blocks": 2},
}


def adaptive(start: str, **options) -> VAPT:
    return VAPT(3, hidden=4, start=start, **({"offset": True} if start == "vpt" else {}) | options)


def gradients(model, x, labels):
    torch.nn.functional.cross_entropy(model(x), labels).backward()
    return {name: value.grad for name, value in prompt_parameters(model).items()}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("start", STARTS)
def test_every_start_has_a_finite_gradient_for_every_parameter_and_trains_what_it_says(start, options):
    model = prompt(plain(), adaptive(start, **options), CLASSES, rng=rng(1), head="published")
    found = gradients(model, images(), torch.tensor([0, 1]))
    assert all(value is not None and value.isfinite().all() for value in found.values())
    moving = {name for name, value in found.items() if value.abs().max() > 0}
    must = {name for name in found if name.rpartition(".")[2] in ("tokens", "offset") or name.startswith("head.")}
    # Position weights move from zero, too; from "tokens" on every part of the generator does.
    must |= {name for name in found if name.rpartition(".")[2] == "weight" and "norm" not in name}
    assert must <= moving
    if start in ("tokens", "orthogonal"):
        # A shift or a bias moves nothing only where the block's norm takes a constant away.
        assert {name for name in found if not name.endswith(".bias")} <= moving


def test_the_official_start_is_the_published_one_and_draws_what_it_always_drew():
    """Values of the draws written out as the published init makes them, in the order of the blocks."""
    model = prompt(plain(), VAPT(3, hidden=4), CLASSES, rng=rng(7), head="published")
    draws, width = rng(7), 16
    bound = (6 / (3 * 16 + width)) ** 0.5
    tokens = torch.empty(3, width).uniform_(-bound, bound, generator=draws)
    down = torch.empty(4, width).uniform_(-(width**-0.5), width**-0.5, generator=draws)
    up = torch.empty(width, 4).uniform_(-(4**-0.5), 4**-0.5, generator=draws)
    kernels = [torch.empty(2, 2).normal_(generator=draws) for _ in range(2)]
    found = prompt_parameters(model)
    for name, value in {
        "0.tokens": tokens,
        "1.projector.down": down,
        "1.projector.up": up,
        "1.kernel": kernels[0],
        "2.kernel": kernels[1],
    }.items():
        assert torch.equal(found[name], value.double()), name
    assert not found["1.weight"].any()
    assert not found["2.bias"].any()


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("kind", ["cls", "registers", "average"])
def test_start_from_computes_exactly_the_logits_of_the_fixed_prompts(kind, options):
    model = prompt(plain(**KINDS[kind]), VPT(3, blocks=options.get("blocks")), CLASSES, rng=rng(1), head="published")
    with torch.no_grad():
        for value in prompt_parameters(model).values():
            value.add_(torch.randn(value.shape, generator=rng(5), dtype=value.dtype))
    before = model.eval()(images())
    config = adaptive("vpt", **options)
    assert torch.equal(start_from(model, config, rng=rng(2))(images()), before)
    assert model.config == config
    assert not model.training
    found = gradients(model.train(), images(), torch.tensor([0, 1]))
    assert all(
        found[name].abs().max() > 0 for name in found if name.rpartition(".")[2] == "weight" and "norm" not in name
    )
    # In its training mode, with dropout, the first logits are those too.
    assert torch.equal(model(images()), before)


def test_a_model_started_from_fixed_prompts_is_saved_and_loaded(tmp_path):
    model = start_from(
        prompt(plain(), VPT(3), CLASSES, rng=rng(1), head="published"), adaptive("vpt"), rng=rng(2)
    ).eval()
    save_prompts(model, tmp_path / "prompts.safetensors")
    again = load_prompts(plain(), tmp_path / "prompts.safetensors").eval()
    assert again.config == model.config
    assert torch.equal(again(images()), model(images()))


@pytest.mark.parametrize("start", STARTS)
def test_every_start_is_saved_and_loaded(start, tmp_path):
    model = prompt(plain(), adaptive(start), CLASSES, rng=rng(1), head="published").eval()
    with torch.no_grad():
        for value in prompt_parameters(model).values():
            value.add_(0.1)
    save_prompts(model, tmp_path / "prompts.safetensors")
    again = load_prompts(plain(), tmp_path / "prompts.safetensors").eval()
    assert again.config.start == start
    assert f"start='{start}'" in repr(again.config)
    assert torch.equal(again(images()), model(images()))


def test_prompts_of_the_tokens_start_have_the_size_of_tokens_and_are_no_two_alike():
    """rms 1 comes from S terms of variance 1 / S; of S = 49 by 2 x 64 numbers that is right within a quarter."""
    vit = plain((8, 8), embed_dim=64)
    prompts = prompt(vit, VAPT(2, start="tokens", static_depth=1), 0, rng=rng(3)).blocks[1].prompts
    assert isinstance(prompts, AdaptivePrompts)
    U = torch.randn(8, 64, 64, generator=rng(4), dtype=torch.float64)
    made = prompts.eval()(U)
    assert 0.7 < made.square().mean().sqrt() < 1.5
    apart = (made[:, 0] - made[:, 1]).square().mean().sqrt()
    assert 0.7 < apart < 2.5


def test_gain_makes_the_norm_of_the_block_act_as_if_its_eps_were_one():
    model = prompt(plain(), adaptive("gain"), CLASSES, rng=rng(1))
    block = model.blocks[1]
    norm = block.block.norm1
    p = torch.randn(5, 16, generator=rng(2), dtype=torch.float64)
    centred = p - p.mean(dim=1, keepdim=True)
    expected = centred / (p.var(dim=1, unbiased=False, keepdim=True) + 1).sqrt() * norm.weight + norm.bias
    assert torch.allclose(norm(block.prompts.gain * p), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_first_gradients_of_the_official_start_are_inflated_and_those_of_the_others_are_not(seed):
    """float32, width 64: at most 1 / sqrt(eps) = 1000 for the official start, at most 10 where it is undone."""

    def largest(config) -> float:
        model = prompt(plain((4, 4), seed=seed, embed_dim=64, num_heads=4), config, 0, rng=rng(seed))
        return max(found for block, found in gradient_ratio(model, images(number=4), rng(0)).items() if block)

    assert 100 < largest(VAPT(3)) < 3000
    for start in ("tokens", "orthogonal", "gain"):
        assert largest(VAPT(3, start=start)) < 10
    assert largest(VPT(3, start="tokens")) < 10


def test_gradient_ratio_is_one_at_prompts_of_rms_one_and_leaves_the_model_alone():
    model = prompt(plain(), VPT(3, start="tokens"), CLASSES, rng=rng(1)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first, second = (gradient_ratio(model, images(), rng(0)) for _ in range(2))
    assert first == second
    assert set(first) == {0, 1, 2}
    assert all(1 / 5 < value < 5 for value in first.values())
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(value.grad is None for value in prompt_parameters(model).values())


def test_what_waits_while_fixed_prompts_train_alone():
    config = adaptive("vpt")
    names = prompt_parameters(prompt(plain(), config, CLASSES, rng=rng(1)))
    free = {name for name in names if not waits(name, config)}
    assert free == {"0.tokens", "1.offset", "2.offset", "head.weight", "head.bias"}
    assert not any(waits(name, replace(config, start="official")) for name in names)


WRONG = [
    (lambda: VAPT(3, start="zero"), "VAPT: start = 'zero'; expected one of 'official', 'tokens', "),
    (lambda: VPT(3, start="gain"), "VPT: start = 'gain'; expected one of 'official', 'tokens'"),
    (lambda: VAPT(3, start="vpt"), "expected VAPT(start='vpt', offset=True)"),
    (lambda: start_from(plain(), adaptive("vpt")), "start_from: a VisionTransformer; expected a model that prompt"),
    (lambda: start_from(fixed(VPT(3, deep=False)), adaptive("vpt")), "expected one with VPT-deep"),
    (lambda: start_from(fixed(VPT(3)), adaptive("tokens")), "expected VAPT(start='vpt', offset=True)"),
    (lambda: start_from(fixed(VPT(4)), adaptive("vpt")), "expected num_tokens=4, blocks=None"),
    (lambda: start_from(fixed(VPT(3, blocks=2)), adaptive("vpt")), "expected num_tokens=3, blocks=2"),
    (lambda: gradient_ratio(plain(), images(), rng()), "gradient_ratio: a VisionTransformer; expected a model"),
]


def fixed(config):
    return prompt(plain(), config, CLASSES, rng=rng(1))


@pytest.mark.parametrize("wrong", WRONG, ids=lambda pair: pair[1][:40])
def test_wrong_starts_get_one_line(wrong):
    call, expected = wrong
    with pytest.raises(InputError) as error:
        call()
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_starts_are_what_the_config_says():
    assert set(FIXED_STARTS) < set(STARTS)
    assert STARTS[0] == "official" == VAPT().start == VPT().start
    assert np.unique(STARTS).size == len(STARTS)

"""Packed trials against prompted models one by one: logits, gradients and dropout masks.

Tolerances are rounding: float64, sums in another order.
"""

import pytest
import torch
from packed_backbones import backbone
from timm.models.vision_transformer import ParallelScalingBlock
from torch.nn import functional as F

from moe_prompts.errors import InputError
from moe_prompts.vision import VAPT, VPT, PackedTrials, prompt
from moe_prompts.vision.prompting.prompted import mean_states, prompt_parameters, set_mean_states

TRIALS, CLASSES = 3, 5
CONFIGS = {
    "linear": None,
    "shallow": VPT(3, deep=False, prompt_dropout=0.2),
    "deep": VPT(3, prompt_dropout=0.2),
    "vapt": VAPT(3, hidden=4),
    "vapt-options": VAPT(3, hidden=4, static_depth=2, shared_projector=False, learnable_scale=True, activation="gelu"),
    "no convolution": VAPT(3, hidden=4, kernel=None),
    "another": VAPT(3, hidden=4, source="another"),
    "mean": VAPT(3, hidden=4, source="mean"),
    "pooled": VAPT(3, hidden=4, pooled=True),
    "offset": VAPT(3, hidden=4, offset=True),
}
MODELS = {
    "class token": {},
    "registers": {"reg_tokens": 2},
    "average": {"global_pool": "avg", "class_token": False},
    "norms and scales": {"qk_norm": True, "init_values": 0.3, "qkv_bias": False},
    "another block": {"block_fn": ParallelScalingBlock},
    "map pooling": {"global_pool": "map", "class_token": False},
}


def generators() -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(TRIALS)]


def both(model, config, images):
    """The packed trials and the prompted models of the same generators, all moved away from the init alike."""
    means = mean_states(model, [images[0]]) if isinstance(config, VAPT) and config.source == "mean" else None
    packed = PackedTrials(model, config, CLASSES, generators(), means)
    with torch.no_grad():
        for value in packed.parts.values():
            value.add_(0.3 * torch.randn_like(value))
    alone = []
    for index, rng in enumerate(generators()):
        # Without prompts the head alone is learned; a prompted model with its prompts cut out stands for that.
        one = prompt(backbone_copy(model), config or VPT(1), CLASSES, rng=rng, head="published")
        if config is None:
            one.blocks = torch.nn.Sequential(*(block.block for block in one.blocks))
        elif means is not None:
            set_mean_states(one, [images[0]])
        with torch.no_grad():
            own = packed.trial(index)
            for name, parameter in prompt_parameters(one).items():
                parameter.copy_(own[name])
        alone.append(one)
    return packed, alone


def backbone_copy(model):
    from copy import deepcopy

    return deepcopy(model)


@pytest.mark.parametrize("name", ["shallow", "deep", "vapt"])
def test_long_rows_are_the_same_numbers(name, monkeypatch):
    torch.manual_seed(2)
    images = torch.randn(1, 4, 3, 32, 24, dtype=torch.float64)
    packed, _ = both(backbone(), CONFIGS[name], images)
    written_out = packed(images[0])
    monkeypatch.setattr("moe_prompts.vision.training.packed.SHORT", 0)
    torch.testing.assert_close(packed(images[0]), written_out, rtol=0, atol=1e-12)


#: The kinds of prompts that meet every model; their options meet the first one, and the others in slow tests.
KINDS = ("linear", "shallow", "deep", "vapt")


def pair(name, model):
    """Both names as the arguments of a test."""
    slow = name not in KINDS and model != "class token"
    return pytest.param(name, model, marks=[pytest.mark.slow] if slow else [], id=f"{name}-{model}")


@pytest.mark.parametrize(("name", "model"), [pair(name, model) for name in CONFIGS for model in MODELS])
def test_logits_and_gradients_are_those_of_separate_trials(name, model):
    config, options = CONFIGS[name], MODELS[model]
    torch.manual_seed(2)
    images = torch.randn(2, 4, 3, 32, 24, dtype=torch.float64)
    batch_of, seeds = torch.tensor([1, 0, 1]), [11, 12, 11]
    labels = torch.tensor([0, 1, 2, 3])
    packed, alone = both(backbone(**options), config, images)

    logits = packed(images, batch_of, packed.noise(seeds, batch=4))
    F.cross_entropy(logits.flatten(0, 1), labels.repeat(TRIALS), reduction="sum").backward()
    gradients = {key.replace("/", "."): value.grad for key, value in packed.parts.items()}
    for index, one in enumerate(alone):
        torch.manual_seed(seeds[index])
        expected = one.train()(images[batch_of[index]])
        F.cross_entropy(expected, labels, reduction="sum").backward()
        torch.testing.assert_close(logits[index], expected, rtol=0, atol=1e-12)
        for name, parameter in prompt_parameters(one).items():
            scale = max(1.0, float(parameter.grad.abs().max()))
            torch.testing.assert_close(gradients[name][index], parameter.grad, rtol=0, atol=1e-11 * scale)

    with torch.no_grad():
        at_rest = packed(images[0])
        for index, one in enumerate(alone):
            torch.testing.assert_close(at_rest[index], one.eval()(images[0]), rtol=0, atol=1e-12)


def test_values_are_filled_by_name_and_shape_whatever_their_order():
    packed = PackedTrials(backbone(), VPT(2), 3, [torch.Generator().manual_seed(seed) for seed in (0, 1)])
    other = PackedTrials(backbone(), VPT(2), 3, [torch.Generator().manual_seed(seed) for seed in (2, 3)])
    values = {name: value.detach().float() for name, value in other.named_parts()}
    packed.fill(dict(reversed(values.items())))
    for name, value in packed.named_parts():
        assert torch.equal(value, values[name].double())
        assert value.dtype == torch.float64
    with pytest.raises(InputError, match=r"fill: more is missing or too many; expected 0\.tokens"):
        packed.fill(values | {"more": torch.zeros(2)})
    with pytest.raises(InputError, match=r"fill: head\.bias of shape \(1, 3\); expected \(2, 3\)"):
        packed.fill(
            {name: torch.zeros_like(value) for name, value in values.items()} | {"head.bias": torch.zeros(1, 3)}
        )
    assert torch.equal(packed.trial(0)["0.tokens"], values["0.tokens"][0].double())  # a refusal leaves all as it was

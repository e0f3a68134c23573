"""Measure how much larger the first gradients on prompts are than those on prompts of rms 1.

    ratio = rms of dL/dp at the prompts p of the model / rms of dL/dp at normal prompts of rms 1

A fixed gain on prompts (``start="gain"``) counts as part of the block: p is what is trained, before it.

L is a random linear function of the pooled features, so neither head nor labels enter, and heads that begin
at zero do not hide what comes. A ratio of 1000 says that a learning rate that suits prompts of the tokens'
size is a thousand times too large at first.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from moe_prompts.checks import expect
from moe_prompts.errors import InputError
from moe_prompts.vision.prompting.layouts import check_images, layout_of
from moe_prompts.vision.prompting.prompted import PromptedVisionTransformer, check_prompted
from moe_prompts.vision.prompting.prompted_model import Prompted, PromptedBlock


def gradient_ratio(model: Prompted, images: Tensor, rng: torch.Generator) -> dict[int, float]:
    """Return the gradient ratio of the prompts of each block, by the index of the block.

    model   made by ``prompt``, of timm or of ``transformers``; it is left as it is
    images  (B, 3, H, W), normalised as the model wants them
    rng     draws the function of the features and the prompts of rms 1; its device is the CPU

    About 1 says that nothing is inflated, which alone makes no training good. The published start of
    adaptive prompts, all zero, has 1 / sqrt(eps) at most: hundreds where eps is 1e-6 (docs/training.md).

    Raises ``InputError`` for a model without prompts, and where the model's features are no vectors.

    >>> import timm, torch
    >>> from moe_prompts.vision import VAPT, gradient_ratio, prompt
    >>> vit = timm.create_model("vit_tiny_patch16_224", img_size=64)
    >>> model = prompt(vit, VAPT(num_tokens=2), num_classes=3)
    >>> found = gradient_ratio(model, torch.rand(2, 3, 64, 64), torch.Generator().manual_seed(0))
    >>> found[11] > 100
    True
    """
    check_prompted(model, "gradient_ratio")
    expect(rng, torch.Generator, "gradient_ratio: rng")
    check_images(model, images, "gradient_ratio", finite=True)
    training, blocks = model.training, layout_of(model).blocks
    like = next(blocks.parameters())
    direction = torch.randn(_width(model), generator=rng).to(like)
    try:
        model.eval()
        own = _gradients(model, images, direction, None)
        usual = _gradients(model, images, direction, rng)
    finally:
        model.train(training)
    gains = {index: float(getattr(blocks[index].prompts, "gain", 1.0)) for index in own}
    return {index: gains[index] * float(_rms(own[index]) / _rms(usual[index])) for index in own}


def _width(model: Prompted) -> int:
    """Return the number of features."""
    if isinstance(model, PromptedVisionTransformer):
        return model.num_features
    return layout_of(model).pooled_width


def _features(model: Prompted, images: Tensor) -> Tensor:
    """Return what the head sees of images."""
    if isinstance(model, PromptedVisionTransformer):
        return model.forward_head(model.forward_features(images), pre_logits=True)
    seen: list[Tensor] = []
    layout = layout_of(model)
    hook = layout.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        layout.forward_features(images)
    finally:
        hook.remove()
    return seen[0]


def _gradients(model: Prompted, images: Tensor, direction: Tensor, rng: torch.Generator | None) -> dict[int, Tensor]:
    """Return the gradient of the function of the features on each block's prompts, (B, N, d).

    rng  None: at the model's own prompts; else at normal ones
    """
    there: dict[int, Tensor] = {}
    hooks = []
    for index, block in enumerate(layout_of(model).blocks):
        if isinstance(block, PromptedBlock) and block.prompts is not None:

            def take(_: Any, __: Any, prompts: Tensor, index: int = index) -> Tensor:
                prompts = prompts.detach()
                if rng is not None:
                    prompts = torch.randn(prompts.shape, generator=rng).to(prompts)
                there[index] = prompts.requires_grad_(True)
                return there[index]

            hooks.append(block.prompts.register_forward_hook(take))
    try:
        with torch.enable_grad():
            features = _features(model, images)
            if features.ndim != 2:
                raise InputError(
                    f"gradient_ratio: features of shape {tuple(features.shape)}; expected one vector for each image"
                )
            found = torch.autograd.grad((features @ direction).mean(), list(there.values()))
    finally:
        for hook in hooks:
            hook.remove()
    return dict(zip(there, found, strict=True))


def _rms(values: Tensor) -> Tensor:
    return values.double().square().mean().sqrt()

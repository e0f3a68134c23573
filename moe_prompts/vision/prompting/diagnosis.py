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
from moe_prompts.vision.prompting.prompted import PromptedVisionTransformer, check_prompted
from moe_prompts.vision.prompting.prompted_model import PromptedBlock


def gradient_ratio(model: PromptedVisionTransformer, images: Tensor, rng: torch.Generator) -> dict[int, float]:
    """Return the gradient ratio of the prompts of each block, by the index of the block.

    model   made by ``prompt``; it is left as it is
    images  (B, 3, H, W), normalised as the model wants them
    rng     draws the function of the features and the prompts of rms 1; its device is the CPU

    About 1 is harmless. The published start of adaptive prompts, all zero, has 1 / sqrt(eps) or a little
    less.

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
    if not isinstance(model, PromptedVisionTransformer):
        raise InputError(f"gradient_ratio: a {type(model).__name__}; expected a prompted VisionTransformer of timm")
    expect(rng, torch.Generator, "gradient_ratio: rng")
    training = model.training
    like = next(model.blocks.parameters())
    direction = torch.randn(model.num_features, generator=rng).to(like)
    try:
        model.eval()
        own = _gradients(model, images, direction, None)
        usual = _gradients(model, images, direction, rng)
    finally:
        model.train(training)
    gains = {index: float(getattr(model.blocks[index].prompts, "gain", 1.0)) for index in own}
    return {index: gains[index] * float(_rms(own[index]) / _rms(usual[index])) for index in own}


def _gradients(
    model: PromptedVisionTransformer, images: Tensor, direction: Tensor, rng: torch.Generator | None
) -> dict[int, Tensor]:
    """Return the gradient of the function of the features on each block's prompts, (B, N, d).

    rng  None: at the model's own prompts; else at normal ones
    """
    there: dict[int, Tensor] = {}
    hooks = []
    for index, block in enumerate(model.blocks):
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
            features = model.forward_head(model.forward_features(images), pre_logits=True)
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

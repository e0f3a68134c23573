"""Go on from trained fixed prompts to adaptive ones, with the same logits at first."""

from __future__ import annotations

from typing import Any

import torch

from moe_prompts.errors import InputError
from moe_prompts.vision.prompting.config import VAPT, VPT, first_block
from moe_prompts.vision.prompting.layouts import layout_of
from moe_prompts.vision.prompting.prompted import PromptedVisionTransformer, check_prompted, prompt, unprompt
from moe_prompts.vision.prompting.prompted_model import Prompted, PromptedBlock, prompt_modules
from moe_prompts.vision.prompting.prompts import StaticPrompts


def start_from(model: Prompted, config: VAPT, *, rng: torch.Generator | None = None) -> Any:
    """Replace a VPT-deep model's prompts by adaptive ones that begin as what they were.

    The model changes and is returned, with its head. In each block with adaptive prompts the trained free
    vectors become the offset; the adaptive part adds exactly zero and has a non-zero gradient. Blocks whose
    prompts stay fixed keep them. So the first logits are the VPT model's, to the bit, and what comes after is
    not held back by where adaptive prompts usually begin.

    model   made by ``prompt(model, VPT(...))``, of timm or of ``transformers``, trained as one likes
    config  ``VAPT(start="vpt", offset=True)`` with as many tokens, in the same blocks
    rng     draws the adaptive part's first kernels and projector; None: torch's global generator

    Raises ``InputError``, before anything is changed, for other prompts or another config.

    >>> import timm, torch
    >>> from moe_prompts.vision import VAPT, VPT, prompt, start_from
    >>> vit = timm.create_model("vit_tiny_patch16_224", img_size=64)
    >>> model = prompt(vit, VPT(num_tokens=2), num_classes=3, head="published").eval()
    >>> images = torch.rand(2, 3, 64, 64)
    >>> before = model(images)
    >>> model = start_from(model, VAPT(num_tokens=2, start="vpt", offset=True))
    >>> torch.equal(model(images), before)
    True
    """
    check_prompted(model, "start_from")
    old, layout = model.prompt_config, layout_of(model)
    if not isinstance(old, VPT) or not old.deep:
        raise InputError(f"start_from: a model with {old}; expected one with VPT-deep: prompt(model, VPT(...))")
    if not isinstance(config, VAPT) or config.start != "vpt":
        raise InputError(f"start_from: {config!r}; expected VAPT(start='vpt', offset=True)")
    depth = len(layout.blocks)
    there, wanted = (first_block(one, depth) for one in (old, config))
    if (config.num_tokens, wanted) != (old.num_tokens, there):
        raise InputError(
            f"start_from: VAPT with {config.num_tokens} tokens from block {wanted} on; the fixed prompts are "
            f"{old.num_tokens} tokens from block {there} on: expected num_tokens={old.num_tokens}, blocks={old.blocks}"
        )
    config.check(depth, layout.grid_size)
    kept = {
        index: block.prompts.tokens.detach().clone()
        for index, block in enumerate(layout.blocks)
        if isinstance(block, PromptedBlock) and isinstance(block.prompts, StaticPrompts)
    }
    classes: Any = getattr(model, "num_classes", None)
    head, training = layout.head, model.training
    new = prompt(unprompt(model), config, 0, rng=rng)
    setattr(new, layout.head_name, head)
    if isinstance(new, PromptedVisionTransformer):
        new.num_classes = classes
    with torch.no_grad():
        for block, prompts in zip(kept, prompt_modules(new), strict=True):
            own = prompts.tokens if isinstance(prompts, StaticPrompts) else prompts.offset
            assert own is not None
            own.copy_(kept[block])
    return new.train(training)

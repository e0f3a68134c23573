"""Run blocks with prompts in their sequence, and be a model that has such blocks.

``PromptedBlock`` and ``Prompted`` are the same for both libraries; a class of each adds what differs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moe_prompts.errors import InputError
from moe_prompts.vision.prompting.config import VAPT, VPT
from moe_prompts.vision.prompting.layouts import FAMILIES, TransformersLayout, check_images, layout_of
from moe_prompts.vision.prompting.prompts import AdaptivePrompts, StaticPrompts

#: Name of the plain model's head while the model is prompted.
PLAIN_HEAD = "plain_head"


class PromptedBlock(nn.Module):
    """Run a block with prompts in its sequence.

    block       the plain model's block
    prompts     put in before the block; None: no new ones
    num_prefix  number of tokens before the prompts (class token and registers)
    num_tokens  number of prompts
    strips      True: prompts are taken out after the block
    """

    def __init__(
        self, block: nn.Module, prompts: nn.Module | None, num_prefix: int, num_tokens: int, strips: bool
    ) -> None:
        super().__init__()
        self.block, self.prompts = block, prompts
        self.num_prefix, self.num_tokens, self.strips = num_prefix, num_tokens, strips

    def forward(self, x: Tensor, *others: Any, **options: Any) -> Tensor:
        """Return the states (B, T, d) after the block, which is given all other arguments but a mask.

        Masks of users are refused before. While exported, transformers makes one that hides nothing, for
        as many tokens as the plain model has; no mask says the same, and covers the prompts.
        """
        others = tuple(None if isinstance(one, Tensor) else one for one in others)
        options = {name: None if isinstance(one, Tensor) else one for name, one in options.items()}
        x = self.block(self.insert(x), *others, **options)
        return self.strip(x) if self.strips else x

    def insert(self, x: Tensor) -> Tensor:
        """Return the sequence that enters the block, with prompts after the prefix."""
        if self.prompts is None:
            return x
        prefix, patches = x[:, : self.num_prefix], x[:, self.num_prefix :]
        return torch.cat([prefix, self.prompts(patches).to(x.dtype), patches], dim=1)

    def strip(self, x: Tensor) -> Tensor:
        """Return the sequence without its prompts."""
        return torch.cat([x[:, : self.num_prefix], x[:, self.num_prefix + self.num_tokens :]], dim=1)


@dataclass(frozen=True)
class PlainState:
    """Hold what ``unprompt`` needs to restore the plain model, beside its head.

    requires_grad  of every parameter, by name
    training       of every module, by name
    num_classes    of the plain head; None: the model's library keeps it elsewhere
    fingerprints   type, shape and checksum of every weight and buffer but the head's, by name; they tell
                   whether the backbone has changed since
    """

    requires_grad: dict[str, bool]
    training: dict[str, bool]
    num_classes: int | None
    fingerprints: dict[str, tuple[str, tuple[int, ...], int]]


class Prompted(nn.Module):
    """Stand for a prompted model of either library.

    Its modules stay in evaluation mode, but for the prompts, the head and the head's dropout.

    prompt_config  VPT or VAPT
    plain_state    what the plain model was
    """

    prompt_config: VPT | VAPT
    plain_state: PlainState

    def train(self, mode: bool = True) -> Any:
        """Set prompts, head and the head's dropout to this mode; all else stays in evaluation mode."""
        super().train(False)
        self.training = mode
        layout = layout_of(self)
        for module in (*prompt_modules(self), *layout.follows_mode):
            module.train(mode)
        for block in layout.checkpointed:
            block.training = mode
        return self

    def __prepare_scriptable__(self) -> None:
        """Raise ``InputError`` when torch.jit.script asks, and say what works instead."""
        raise InputError(
            "torch.jit.script cannot read a prompted model; use torch.export.export or torch.jit.trace, which record "
            "it on example images"
        )

    def hand_grid(self, images: Tensor) -> None:
        """Hand the grid of these images to the prompts that need it."""
        grid = layout_of(self).grid_of(images)
        for module in prompt_modules(self):
            if isinstance(module, AdaptivePrompts) and module.grid != grid:
                module.grid = grid


def prompt_modules(model: Prompted) -> Iterator[StaticPrompts | AdaptivePrompts]:
    """Yield the prompts in the order of their blocks."""
    for block in layout_of(model).blocks:
        if isinstance(block, PromptedBlock) and isinstance(block.prompts, (StaticPrompts, AdaptivePrompts)):
            yield block.prompts


class PromptedTransformers(Prompted):
    """Compute as a vision model of ``transformers`` does, with prompts.

    ``prompt`` makes it out of a plain model; it is never built. ``model.config`` stays that of
    ``transformers``.
    """

    plain_class: type

    def forward(
        self,
        pixel_values: Tensor | None = None,
        labels: Tensor | None = None,
        interpolate_pos_encoding: bool = False,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        return_dict: bool | None = None,
        **options: Any,
    ) -> Any:
        """Return ``transformers.modeling_outputs.ImageClassifierOutput``.

        Its ``logits`` (B, C) are the head's; where the head is empty they are the pooled features. With
        ``labels`` (B,) of classes its ``loss`` is the mean cross-entropy. ``hidden_states`` are the plain
        model's tokens, before the first block and after each; ``attentions`` (eager attention only) have
        rows and columns for prompts.

        pixel_values              images (B, C, H, W)
        interpolate_pos_encoding  whether images may have another size than the model's own
        return_dict               False: a tuple
        options                   passed on to the plain model

        Raises ``InputError`` for other shapes or sizes, and for an attention mask.
        """
        from transformers.modeling_outputs import ImageClassifierOutput

        layout: Any = layout_of(self)
        check_images(self, pixel_values)
        assert pixel_values is not None
        for name in ("attention_mask", "bool_masked_pos", "noise"):
            if options.get(name) is not None:
                raise InputError(f"{name}: a prompted model takes every patch of its images, and no mask")
        options = {name: value for name, value in options.items() if value is not None} | layout.options(pixel_values)
        size, own = tuple(pixel_values.shape[-2:]), layout.image_size
        if not layout.family.resizes:
            if size != own and not interpolate_pos_encoding:
                raise InputError(
                    f"images of {size[0]} x {size[1]} pixels; this model takes {own[0]} x {own[1]}: resize them, or "
                    "give interpolate_pos_encoding=True"
                )
            options["interpolate_pos_encoding"] = interpolate_pos_encoding
        self.hand_grid(pixel_values)
        plain: Any = super().forward if layout.base is self else layout.base
        with self._watched(layout, output_hidden_states, output_attentions) as seen:
            output = plain(pixel_values, return_dict=True, **options)
        logits = layout.head(layout.pooled(output))
        found = ImageClassifierOutput(
            loss=None if labels is None else F.cross_entropy(logits, labels),
            logits=logits,
            hidden_states=tuple(self._own_tokens(one, layout, size) for one in seen["states"]) or None,
            attentions=tuple(seen["attentions"]) or None,
        )
        return found.to_tuple() if return_dict is False else found

    @contextmanager
    def _watched(self, layout: TransformersLayout, states: bool, attentions: bool) -> Iterator[dict[str, list[Tensor]]]:
        """Collect the states that enter and leave the blocks, and the attention weights, in a forward pass.

        The library's own collection knows plain classes alone, and would see prompts in the states.
        """
        seen: dict[str, list[Tensor]] = {"states": [], "attentions": []}
        hooks = []

        def weights(_: Any, __: Any, output: tuple[Any, ...]) -> None:
            if output[1] is None:
                raise InputError("output_attentions: this attention keeps no weights; set_attn_implementation('eager')")
            seen["attentions"].append(output[1])

        if states:
            first = layout.blocks[0]
            hooks.append(first.register_forward_pre_hook(lambda _, inputs: seen["states"].append(inputs[0])))
        for index, block in enumerate(layout.blocks):
            if states:
                hooks.append(block.register_forward_hook(lambda _, __, output: seen["states"].append(output)))
            if attentions:
                inner = block.block if isinstance(block, PromptedBlock) else block
                hooks.append(layout.attention(inner, f"block {index}").module.register_forward_hook(weights))
        try:
            yield seen
        finally:
            for hook in hooks:
                hook.remove()

    def _own_tokens(self, states: Tensor, layout: TransformersLayout, size: tuple[int, ...]) -> Tensor:
        """Return states without prompts, which stand after the prefix where there are any (VPT-shallow)."""
        start = layout.num_prefix_tokens
        patches = (size[0] // layout.patch_size[0]) * (size[1] // layout.patch_size[1])
        return torch.cat([states[:, :start], states[:, states.shape[1] - patches :]], dim=1)

    def save_pretrained(self, *_: Any, **__: Any) -> None:
        """Raise ``InputError``: ``from_pretrained`` would leave out the prompts without a word."""
        raise InputError(
            "save_pretrained: from_pretrained would leave prompts out; use save_prompts(model, path), or unprompt it"
        )


@cache
def prompted_class(plain: type) -> type:
    """Return the prompted class of a class of ``transformers``."""
    name = f"Prompted{plain.__name__}"
    body = {"plain_class": plain, "__module__": __name__, "__doc__": PromptedTransformers.__doc__}
    return type(name, (PromptedTransformers, plain), body)


def __getattr__(name: str) -> Any:
    """Return a prompted class by its name, for pickle, which looks classes up in their module."""
    plain = name.removeprefix("Prompted")
    if plain == name or plain not in FAMILIES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import transformers

    return prompted_class(getattr(transformers, plain))

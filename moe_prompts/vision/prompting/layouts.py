"""Find in a model what prompts need, in the same words for timm and for Hugging Face's ``transformers``.

A layout reads a model, plain or prompted, and owns nothing: where its blocks and its head are, how many
tokens stand before the patches, how an image becomes tokens, and which matrices make queries, keys and
values. So the code of prompts is one for both libraries. ``transformers`` is never imported here: its models
are known by the names of their classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from timm.layers import PatchEmbed
from timm.models.vision_transformer import Attention, VisionTransformer
from torch import Tensor, nn

from moe_prompts.errors import InputError

Grid = tuple[int, int]
#: Ways of computing attention in ``transformers`` that were checked with prompts.
ATTENTION = ("eager", "sdpa")
#: Activations of ``transformers`` -> timm's name of the same function.
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}


def embedded(model: VisionTransformer, images: Tensor) -> Tensor:
    """Return the states (B, T, d) that enter the first block of timm's model, without prompts."""
    return model.norm_pre(model._pos_embed(model.patch_embed(images)))


@dataclass(frozen=True)
class AttentionParts:
    """Hold the parts of a block's attention: softmax of one q'k in each head.

    module     whose first input is the tokens after the block's norm, (B, T, d)
    num_heads  H
    head_dim   d_h
    scale      factor of q'k, 1 / sqrt(d_h)
    weights    W_Q, W_K, W_V, together (3, H, d_h, d)
    offsets    their biases (3, H, d_h); None: none
    project    tokens (B, T, d) -> queries, keys and values of all heads, (B, T, 3, H, d_h)
    q_norm, k_norm  applied to queries and keys of a head, (B, T, d_h)
    """

    module: nn.Module
    num_heads: int
    head_dim: int
    scale: float
    weights: Tensor
    offsets: Tensor | None
    project: Callable[[Tensor], Tensor]
    q_norm: nn.Module
    k_norm: nn.Module

    @property
    def normed(self) -> bool:
        """Return whether queries or keys are normed, so that logits are not bilinear in the tokens."""
        return not (isinstance(self.q_norm, nn.Identity) and isinstance(self.k_norm, nn.Identity))


class TimmLayout:
    """Read a ``VisionTransformer`` of timm."""

    #: Whether the library hands its blocks a mask for as many tokens as the plain model has.
    makes_masks = False
    #: Dotted name of the list of blocks, and name of the head.
    blocks_name, head_name = "blocks", "head"
    #: Whether the plain model has a head of its own.
    has_head = True

    def __init__(self, model: Any) -> None:
        self.model = model

    @property
    def blocks(self) -> Any:
        """Return the list of blocks."""
        return self.model.blocks

    @property
    def head(self) -> nn.Module:
        """Return the layer that makes logits of pooled features."""
        return self.model.head

    @property
    def num_prefix_tokens(self) -> int:
        """Return the number of tokens before the patches: class token and registers."""
        return self.model.num_prefix_tokens

    @property
    def width(self) -> int:
        """Return d."""
        return self.model.embed_dim

    @property
    def pooled_width(self) -> int:
        """Return the number of pooled features."""
        return self.width

    @property
    def grid_size(self) -> Grid:
        """Return height and width in patches of the images that the model is made for."""
        height, width = self.model.patch_embed.grid_size
        return height, width

    @property
    def image_size(self) -> Grid:
        """Return height and width in pixels of the images that the model is made for."""
        height, width = self.model.patch_embed.img_size
        return height, width

    @property
    def pooling(self) -> str:
        """Return how states become features, in timm's words; empty: they do not."""
        return self.model.global_pool

    @property
    def patch_pixels(self) -> int:
        """Return the number of pixels in a patch."""
        return prod(self.model.patch_embed.patch_size)

    @property
    def channels(self) -> int:
        """Return the number of channels of an image: those that the first convolution reads."""
        return next(weight.shape[1] for weight in self.model.patch_embed.parameters() if weight.ndim == 4)

    @property
    def follows_mode(self) -> tuple[nn.Module, ...]:
        """Return what is in training mode while a prompted model trains, beside its prompts."""
        return (self.head, self.model.head_drop)

    @property
    def checkpointed(self) -> Iterator[nn.Module]:
        """Yield blocks that recompute their states only if they themselves are in training mode: none."""
        yield from ()

    def grid_of(self, images: Tensor) -> Grid:
        """Return height and width of images (B, C, H, W) in patches."""
        height, width = self.model.patch_embed.dynamic_feat_size((images.shape[-2], images.shape[-1]))
        return height, width

    def size_fault(self, images: Tensor) -> str | None:
        """Return why the model does not take images of this size, and what to try; None if it does."""
        (height, width), embed = images.shape[-2:], self.model.patch_embed
        if getattr(embed, "strict_img_size", False) and embed.img_size is not None:
            own = tuple(embed.img_size)
            if (height, width) != own:
                return f"this model takes {own[0]} x {own[1]}: resize them, or create it with dynamic_img_size=True"
        elif isinstance(embed, PatchEmbed) and not embed.dynamic_img_pad:
            tall, wide = embed.patch_size
            if height % tall or width % wide:
                return f"expected multiples of the patches' {tall} x {wide}: resize or crop them"
        return None

    def embed(self, images: Tensor) -> Tensor:
        """Return the states (B, T, d) that enter the first block, without prompts."""
        return embedded(self.model, images)

    def run(self, block: nn.Module, states: Tensor) -> Tensor:
        """Return the states after a plain block."""
        return block(states)

    def forward_features(self, images: Tensor) -> Tensor:
        """Return the states (B, T, d) after the last block and the final norm, without prompts."""
        return self.model.forward_features(images)

    def attention(self, block: nn.Module, where: str) -> AttentionParts:
        """Return the parts of a plain block's attention.

        Raises ``InputError``, which begins with ``where``, if its output is no sum over heads of gates times
        experts.
        """
        attn: Any = getattr(block, "attn", None)
        if type(attn) is not Attention:
            raise InputError(f"{where} has {type(attn).__name__}; expected timm's Attention, softmax of one q'k")
        if not isinstance(attn.norm, nn.Identity) or getattr(attn, "gate", None) is not None:
            raise InputError(f"{where} norms or gates the joined heads: its output is no sum over heads")
        shape = (3, attn.num_heads, attn.head_dim)

        def project(tokens: Tensor) -> Tensor:
            return attn.qkv(tokens).reshape(*tokens.shape[:2], *shape)

        bias = None if attn.qkv.bias is None else attn.qkv.bias.reshape(shape)
        weights = attn.qkv.weight.reshape(*shape, -1)
        return AttentionParts(attn, *shape[1:], attn.scale, weights, bias, project, attn.q_norm, attn.k_norm)


@dataclass(frozen=True)
class Family:
    """Say how a class of ``transformers`` is built.

    base       name of the model inside that has no classifier; empty: it is that model itself
    blocks     dotted name of the list of blocks in the base
    pooling    "token": the class token; "avg": the mean over patches; "token+avg": both, one after the
               other; "map": the model's own attention pooling
    prefix     number of tokens before the patches, without registers
    attention  name of the attention in a block, and of its last layer
    resizes    whether another image size needs no option
    """

    base: str
    blocks: str = "layers"
    pooling: str = "token"
    prefix: int = 1
    attention: tuple[str, str] = ("attention", "o_proj")
    resizes: bool = False


_SIGLIP = ("self_attn", "out_proj")
#: The classes of ``transformers`` that take prompts.
FAMILIES = {
    "ViTModel": Family(""),
    "ViTForImageClassification": Family("vit"),
    "DeiTModel": Family("", prefix=2),
    "DeiTForImageClassification": Family("deit", prefix=2),
    "ViTMAEModel": Family(""),
    "Dinov2Model": Family("", "encoder.layer", resizes=True),
    "Dinov2ForImageClassification": Family("dinov2", "encoder.layer", "token+avg", resizes=True),
    "Dinov2WithRegistersModel": Family("", "encoder.layer", resizes=True),
    "Dinov2WithRegistersForImageClassification": Family(
        "dinov2_with_registers", "encoder.layer", "token+avg", resizes=True
    ),
    "SiglipVisionModel": Family("", "encoder.layers", "map", 0, _SIGLIP),
    "SiglipForImageClassification": Family("vision_model", "encoder.layers", "avg", 0, _SIGLIP),
}
_WINDOWS = "its windows have no room for tokens that belong to no place"
_TWO_HEADS = "it has two heads; load its weights as DeiTForImageClassification"
#: Other classes of ``transformers``, and what to give instead, or why there is nothing.
REFUSED = {
    "SwinModel": _WINDOWS,
    "SwinForImageClassification": _WINDOWS,
    "Swinv2Model": _WINDOWS,
    "Swinv2ForImageClassification": _WINDOWS,
    "DeiTForImageClassificationWithTeacher": _TWO_HEADS,
    "ViTMAEForPreTraining": "it reconstructs pixels; give its .vit",
    "ViTForMaskedImageModeling": "it reconstructs pixels; give its .vit",
    "DeiTForMaskedImageModeling": "it reconstructs pixels; give its .deit",
    "SiglipModel": "it has a text tower; give its .vision_model",
    "Dinov2Backbone": "it returns feature maps; load its weights as Dinov2Model",
    "Dinov2WithRegistersBackbone": "it returns feature maps; load its weights as Dinov2WithRegistersModel",
    "TimmWrapperModel": "it is a timm model in a wrapper of transformers; give its .timm_model",
    "TimmWrapperForImageClassification": "it is a timm model in a wrapper of transformers; give its .timm_model",
}


def is_transformers(model: nn.Module) -> bool:
    """Return whether a model's class belongs to the library ``transformers``, plain or prompted."""
    return plain_class(model).__module__.startswith("transformers.")


def plain_class(model: nn.Module) -> type:
    """Return the class of a model before it was prompted."""
    return getattr(type(model), "plain_class", type(model))


class TransformersLayout:
    """Read a model of ``transformers`` whose class is one of ``FAMILIES``; the words are ``TimmLayout``'s."""

    makes_masks = True
    head_name = "classifier"

    def __init__(self, model: Any) -> None:
        self.model, self.family = model, FAMILIES[plain_class(model).__name__]
        self.base: Any = getattr(model, self.family.base) if self.family.base else model
        self.settings = self.base.config

    @property
    def blocks_name(self) -> str:
        """Return the dotted name of the list of blocks."""
        return f"{self.family.base}.{self.family.blocks}" if self.family.base else self.family.blocks

    @property
    def has_head(self) -> bool:
        """Return whether the plain model has a head of its own."""
        return bool(self.family.base)

    @property
    def blocks(self) -> Any:
        """Return the list of blocks."""
        return self.base.get_submodule(self.family.blocks)

    @property
    def head(self) -> nn.Module:
        """Return the layer that makes logits of pooled features; in a plain base model there is none."""
        found = getattr(self.model, self.head_name, None)
        return nn.Identity() if found is None else found

    @property
    def num_prefix_tokens(self) -> int:
        """Return the number of tokens before the patches: class token, distillation token, registers."""
        return self.family.prefix + getattr(self.settings, "num_register_tokens", 0)

    @property
    def width(self) -> int:
        """Return d."""
        return self.settings.hidden_size

    @property
    def pooling(self) -> str:
        """Return how states become features; see ``Family``."""
        if self.family.pooling == "map" and not self.base.use_head:
            return "avg"
        return self.family.pooling

    @property
    def pooled_width(self) -> int:
        """Return the number of pooled features."""
        return self.width * (2 if self.pooling == "token+avg" else 1)

    @property
    def image_size(self) -> Grid:
        """Return height and width in pixels of the images that the model is made for."""
        return _pair(self.settings.image_size)

    @property
    def patch_size(self) -> Grid:
        """Return height and width of a patch in pixels."""
        return _pair(self.settings.patch_size)

    @property
    def grid_size(self) -> Grid:
        """Return height and width in patches of the images that the model is made for."""
        (height, width), (tall, wide) = self.image_size, self.patch_size
        return height // tall, width // wide

    @property
    def patch_pixels(self) -> int:
        """Return the number of pixels in a patch."""
        return prod(self.patch_size)

    @property
    def channels(self) -> int:
        """Return the number of channels of an image."""
        return self.settings.num_channels

    @property
    def follows_mode(self) -> tuple[nn.Module, ...]:
        """Return what is in training mode while a prompted model trains, beside its prompts."""
        return (self.head,)

    @property
    def checkpointed(self) -> Iterator[nn.Module]:
        """Yield blocks that recompute their states only if they themselves are in training mode.

        The mode of the block alone matters, not that of its parts: its dropouts stay silent.
        """
        for block in self.blocks:
            plain = getattr(block, "block", block)
            if getattr(plain, "gradient_checkpointing", False):
                yield plain

    def grid_of(self, images: Tensor) -> Grid:
        """Return height and width of images (B, C, H, W) in patches."""
        tall, wide = self.patch_size
        return images.shape[-2] // tall, images.shape[-1] // wide

    def size_fault(self, images: Tensor) -> str | None:
        """Return None: which sizes a model takes depends on an option of its call, and is checked there."""
        return None

    def options(self, images: Tensor) -> dict[str, Any]:
        """Return what the base model must be given with these images.

        MAE puts its patches in the order of some noise, random without it; rising noise keeps them in place.
        """
        if not plain_class(self.model).__name__.startswith("ViTMAE"):
            return {}
        rising = torch.arange(prod(self.grid_of(images)), device=images.device, dtype=torch.float32)
        return {"noise": rising.expand(images.shape[0], -1)}

    def embed(self, images: Tensor) -> Tensor:
        """Return the states (B, T, d) that enter the first block, without prompts."""
        found = self.base.embeddings(images, **self.options(images))
        return found[0] if isinstance(found, tuple) else found

    def run(self, block: nn.Module, states: Tensor) -> Tensor:
        """Return the states after a plain block."""
        return block(states, None)

    def forward_features(self, images: Tensor) -> Any:
        """Run a prompted model on images, of any size that its prompts follow."""
        return self.model(images, **({} if self.family.resizes else {"interpolate_pos_encoding": True}))

    def pooled(self, output: Any) -> Tensor:
        """Return the features (B, F) of the base model's output."""
        states, pooling = output.last_hidden_state, self.pooling
        if pooling == "map":
            return output.pooler_output
        mean = states[:, self.num_prefix_tokens :].mean(dim=1)
        if pooling == "avg":
            return mean
        return states[:, 0] if pooling == "token" else torch.cat([states[:, 0], mean], dim=1)

    def attention(self, block: nn.Module, where: str) -> AttentionParts:
        """Return the parts of a plain block's attention."""
        attn: Any = getattr(block, self.family.attention[0])
        layers = (attn.q_proj, attn.k_proj, attn.v_proj)
        heads = self.settings.num_attention_heads
        shape = (heads, attn.head_dim)

        def project(tokens: Tensor) -> Tensor:
            return torch.stack([layer(tokens).reshape(*tokens.shape[:2], *shape) for layer in layers], dim=2)

        weights = torch.stack([layer.weight.reshape(*shape, -1) for layer in layers])
        bias = None if layers[0].bias is None else torch.stack([layer.bias.reshape(shape) for layer in layers])
        none = nn.Identity()
        return AttentionParts(attn, *shape, attn.head_dim**-0.5, weights, bias, project, none, none)

    def refusal(self) -> str | None:
        """Return in a few words why this model cannot take prompts as it is; None if it can."""
        attention = getattr(self.settings, "_attn_implementation", None)
        if attention not in (*ATTENTION, None):
            return (
                f"its attention is computed by {attention!r}, which was not checked with prompts; expected one of "
                f"{', '.join(ATTENTION)}: model.set_attn_implementation('sdpa')"
            )
        if getattr(self.settings, "mask_ratio", 0):
            return (
                f"mask_ratio = {self.settings.mask_ratio} drops patches at random; set model.config.mask_ratio = 0, "
                "or load it with mask_ratio=0"
            )
        if self.settings.hidden_act not in ACTIVATIONS:
            return f"its activation {self.settings.hidden_act!r} is none of {', '.join(ACTIVATIONS)}"
        return None


Layout = TimmLayout | TransformersLayout


def layout_of(model: nn.Module) -> Layout:
    """Return the layout of a model that takes prompts, plain or prompted.

    Raises ``InputError`` for other classes.
    """
    if isinstance(model, VisionTransformer):
        return TimmLayout(model)
    if is_transformers(model) and plain_class(model).__name__ in FAMILIES:
        return TransformersLayout(model)
    raise InputError(f"a {type(model).__name__}; expected timm's VisionTransformer, or one of {', '.join(FAMILIES)}")


def check_images(model: nn.Module, images: Any, where: str = "", *, finite: bool = False) -> None:
    """Raise ``InputError`` for what is no batch of real images (B, C, H, W) for a model, plain or prompted.

    where   names the caller, for whom an empty batch and another number type than the model's are mistakes,
            too; empty: the model itself
    finite  whether NaN and infinities are refused, which means a look at every number
    """
    layout = layout_of(model)
    said, channels = f"{where}: " if where else "", layout.channels
    if not isinstance(images, Tensor):
        raise InputError(f"{said}images of type {type(images).__name__}; expected a tensor (B, {channels}, H, W)")
    if images.is_complex():
        raise InputError(f"{said}images of complex numbers, whose imaginary parts would be lost; expected real ones")
    if not images.is_floating_point():
        raise InputError(
            f"{said}images of {images.dtype}; expected floating point numbers, normalised as the model wants them "
            "(timm.data.create_transform gives them)"
        )
    if images.ndim != 4 or images.shape[1] != channels or (where and not len(images)):
        some = ", B at least 1" if where else ""
        raise InputError(f"{said}images of shape {tuple(images.shape)}; expected (B, {channels}, height, width){some}")
    fault = layout.size_fault(images)
    if fault:
        raise InputError(f"{said}images of {images.shape[-2]} x {images.shape[-1]} pixels; {fault}")
    own = next(layout.blocks.parameters()).dtype
    if where and own.is_floating_point and images.dtype != own and not torch.is_autocast_enabled(images.device.type):
        raise InputError(f"{said}images of {images.dtype}; this model has weights of {own}: try images.to({own})")
    if finite and not torch.isfinite(images).all():
        raise InputError(
            f"{said}images with {int((~torch.isfinite(images)).sum())} numbers that are NaN or infinite; expected "
            "finite ones: look for a division by 0 in how they were normalised"
        )


def _pair(value: Any) -> Grid:
    height, width = (value, value) if isinstance(value, int) else value
    return height, width

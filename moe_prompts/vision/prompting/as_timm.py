"""Make timm's model of a vision model of ``transformers``: the same weights, the same function.

Names differ, and four things more: timm keeps queries, keys and values in one matrix, in that order; DeiT's
distillation token is a register; with DINOv2's registers the class token already holds its position; and a
gated layer (SwiGLU) is one matrix of gates, then values.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from timm.layers import SwiGLUPacked, get_act_layer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from moe_prompts.errors import InputError
from moe_prompts.vision.prompting.layouts import ACTIVATIONS, TransformersLayout, is_transformers
from moe_prompts.vision.prompting.prompted import check_plain, plain_name

#: Parts of a block, by name in ``transformers`` -> timm's.
_INSIDE = {
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "layer_norm1": "norm1",
    "layer_norm2": "norm2",
    "norm1": "norm1",
    "norm2": "norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
    "mlp.weights_in": "mlp.fc1",
    "mlp.weights_out": "mlp.fc2",
    "mlp.down_proj": "mlp.fc2",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
}


def as_timm(model: Any) -> VisionTransformer:
    """Return timm's ``VisionTransformer`` with the weights of a plain model of ``transformers``.

    It is a copy in evaluation mode, and serves where only timm's models do: packed trials,
    ``forward_intermediates``, LoRA and adapters. A classifier becomes its head; a bare model gives one
    without (``num_classes = 0``).

    Raises ``InputError`` for classes that ``prompt`` does not take, and for DINOv2 with its classifier: timm
    has no head on the class token joined with the mean of patches.

    >>> import transformers
    >>> from moe_prompts.vision import as_timm
    >>> config = transformers.ViTConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2)
    >>> as_timm(transformers.ViTModel(config)).embed_dim
    32
    """
    check_plain(model, "as_timm")
    if not is_transformers(model):
        raise InputError("as_timm: this is timm's model already; expected one of transformers")
    layout = TransformersLayout(model)
    if layout.pooling == "token+avg":
        raise InputError(
            f"as_timm: {type(model).__name__} classifies the class token joined with the mean of patches, which timm "
            f"does not; expected the model inside it, .{layout.family.base}"
        )
    return timm_twin(model, with_head=True)


def timm_twin(model: Any, with_head: bool = False) -> VisionTransformer:
    """Return timm's model for a model of ``transformers``, plain or prompted, without its prompts.

    with_head  whether a classifier comes along; the backbone alone pools the class token where timm has no
               such pooling
    """
    layout = TransformersLayout(model)
    state = _state(layout)
    head = layout.head if with_head else None
    if isinstance(head, nn.Linear):
        state |= {f"head.{name}": value for name, value in head.state_dict().items()}
    with torch.device("meta"):
        twin = VisionTransformer(
            **_arguments(layout, state), num_classes=getattr(head, "out_features", 0), weight_init="skip"
        )
    twin.load_state_dict({name: value.detach().clone() for name, value in state.items()}, assign=True)
    return twin.eval()


def _arguments(layout: TransformersLayout, state: dict[str, Tensor]) -> dict[str, Any]:
    """Return the arguments of timm's model."""
    settings, pooling = layout.settings, layout.pooling
    gated = "blocks.0.mlp.fc1.weight" in state and (
        state["blocks.0.mlp.fc1.weight"].shape[0] != state["blocks.0.mlp.fc2.weight"].shape[1]
    )
    registers = state["reg_token"].shape[1] if "reg_token" in state else 0
    activation = ACTIVATIONS[settings.hidden_act]
    return {
        "img_size": layout.image_size,
        "patch_size": layout.patch_size,
        "in_chans": layout.channels,
        "embed_dim": layout.width,
        "depth": len(layout.blocks),
        "num_heads": settings.num_attention_heads,
        # of which timm takes the whole part
        "mlp_ratio": (state["blocks.0.mlp.fc1.weight"].shape[0] + 0.5) / layout.width,
        "qkv_bias": "blocks.0.attn.qkv.bias" in state,
        "init_values": 1.0 if "blocks.0.ls1.gamma" in state else None,
        "class_token": "cls_token" in state,
        "reg_tokens": registers,
        "no_embed_class": registers > 0 and state["pos_embed"].shape[1] == layout.grid_size[0] * layout.grid_size[1],
        "global_pool": "token" if pooling == "token+avg" else pooling,
        "fc_norm": False,
        "norm_layer": partial(nn.LayerNorm, eps=settings.layer_norm_eps),
        # A gated layer takes its activation from here, too, and DINOv2's is SiLU whatever hidden_act says.
        "act_layer": nn.SiLU if gated else nn.GELU if activation == "gelu" else get_act_layer(activation),
        **({"mlp_layer": SwiGLUPacked} if gated else {}),
    }


def _state(layout: TransformersLayout) -> dict[str, Tensor]:
    """Return the weights of the plain model's backbone under timm's names."""
    model, family = layout.model, layout.family
    base = f"{family.base}." if family.base else ""
    own = {plain_name(model, name): value for name, value in model.state_dict().items()}
    found = {
        name.removeprefix(base): value for name, value in own.items() if name is not None and name.startswith(base)
    }
    state: dict[str, Tensor] = {}
    for index in range(len(layout.blocks)):
        start = f"{family.blocks}.{index}."
        inside = {name.removeprefix(start): value for name, value in found.items() if name.startswith(start)}
        state |= {f"blocks.{index}.{name}": value for name, value in _block(inside, family.attention).items()}
    norm = "layernorm" if "layernorm.weight" in found else "post_layernorm"
    patches = "patch_embeddings.projection" if family.prefix else "patch_embedding"
    for kind in ("weight", "bias"):
        state[f"norm.{kind}"] = found[f"{norm}.{kind}"]
        state[f"patch_embed.proj.{kind}"] = found[f"embeddings.{patches}.{kind}"]
    state |= _tokens(found, family.prefix)
    return state | (_pool(found) if layout.pooling == "map" else {})


def _block(inside: dict[str, Tensor], attention: tuple[str, str]) -> dict[str, Tensor]:
    name, out = attention
    state = {}
    for kind in ("weight", "bias"):
        if f"{name}.q_proj.{kind}" in inside:
            state[f"attn.qkv.{kind}"] = torch.cat([inside[f"{name}.{one}_proj.{kind}"] for one in "qkv"])
        if f"mlp.gate_proj.{kind}" in inside:
            state[f"mlp.fc1.{kind}"] = torch.cat([inside[f"mlp.{one}_proj.{kind}"] for one in ("gate", "up")])
        state[f"attn.proj.{kind}"] = inside[f"{name}.{out}.{kind}"]
    for part, timms in _INSIDE.items():
        if part in inside:
            state[timms] = inside[part]
        for kind in ("weight", "bias"):
            if f"{part}.{kind}" in inside:
                state[f"{timms}.{kind}"] = inside[f"{part}.{kind}"]
    return state


def _tokens(found: dict[str, Tensor], prefix: int) -> dict[str, Tensor]:
    if not prefix:
        return {"pos_embed": found["embeddings.position_embedding.weight"][None]}
    places, token = found["embeddings.position_embeddings"], found["embeddings.cls_token"]
    if "embeddings.register_tokens" in found:
        registers = found["embeddings.register_tokens"]
        return {"cls_token": token + places[:, :1], "reg_token": registers, "pos_embed": places[:, 1:]}
    distilled = {"reg_token": found["embeddings.distillation_token"]} if prefix == 2 else {}
    return {"cls_token": token, "pos_embed": places} | distilled


def _pool(found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return SigLIP's attention pooling, whose probe is timm's latent query."""
    state = {"attn_pool.latent": found["head.probe"]}
    for kind in ("weight", "bias"):
        joined = found[f"head.attention.in_proj_{kind}"]
        width = joined.shape[0] // 3
        state[f"attn_pool.q.{kind}"] = joined[:width]
        state[f"attn_pool.kv.{kind}"] = joined[width:]
        state[f"attn_pool.proj.{kind}"] = found[f"head.attention.out_proj.{kind}"]
        state[f"attn_pool.norm.{kind}"] = found[f"head.layernorm.{kind}"]
        for layer in ("fc1", "fc2"):
            state[f"attn_pool.mlp.{layer}.{kind}"] = found[f"head.mlp.{layer}.{kind}"]
    return state

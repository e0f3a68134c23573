"""Compute a prompted model as the papers write it, without a short cut: what ours is timed beside.

    [CLS; P_i; X] -> block i -> [CLS; -; X] -> [CLS; P_{i+1}; X] -> ...

The prompts stay in the sequence, and their rows are exchanged before each block. Queries, keys and values
are three products, and the attention matrix is written out. Adaptive prompts go channel by channel: a
convolution over the grid, the dropout of channels, a linear layer over positions, a projector with a
residual. It is a re-implementation from the papers, checked against the golden numbers of their code; it is
not their code.

Sources: arXiv 2203.12119 (VPT), arXiv 2501.18936 (VAPT).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from moe_prompts.errors import InputError
from moe_prompts.vision.prompting.config import VPT
from moe_prompts.vision.prompting.prompted import PromptedVisionTransformer, check_prompted
from moe_prompts.vision.prompting.prompted_model import PromptedBlock
from moe_prompts.vision.prompting.prompts import AdaptivePrompts, activated


def reference_logits(model: PromptedVisionTransformer, images: Tensor) -> Tensor:
    """Return the logits (B, C) of a prompted timm model, computed the papers' way with its own weights.

    Dropout of prompts acts where the model trains, as in the model itself. Gradients reach the same
    parameters.

    model   timm's, with a class token, prompts in all blocks and prompts of the image itself
    images  (B, 3, H, W), normalised

    Raises ``InputError`` for other models.
    """
    check_prompted(model, "reference_logits")
    config = model.prompt_config
    if not isinstance(model, PromptedVisionTransformer) or model.global_pool != "token":
        raise InputError("reference_logits: expected a timm model that pools its class token, as the papers' ViT does")
    if config.blocks is not None or getattr(config, "source", "image") != "image":
        raise InputError("reference_logits: expected prompts in all blocks, computed from the image itself")
    shallow = isinstance(config, VPT) and not config.deep
    prefix, N = model.num_prefix_tokens, config.num_tokens
    x = model.norm_pre(model._pos_embed(model.patch_embed(images)))
    grid = model.grid_of(images)
    for index, found in enumerate(model.blocks):
        block: Any = found.block if isinstance(found, PromptedBlock) else found
        if isinstance(found, PromptedBlock) and found.prompts is not None:
            patches = x[:, prefix:] if index == 0 else x[:, prefix + N :]
            x = torch.cat([x[:, :prefix], _prompts(found.prompts, patches, grid), patches], dim=1)
        elif not shallow:
            raise InputError(f"reference_logits: block {index} has no prompts; expected prompts in all blocks")
        x = x + block.ls1(_attention(block.attn, block.norm1(x)))
        x = x + block.ls2(block.mlp(block.norm2(x)))
    features = model.fc_norm(model.norm(x)[:, 0])
    return model.head(model.head_drop(features))


def _attention(attn: Any, x: Tensor) -> Tensor:
    """Return softmax(Q K' / sqrt(d_h)) V of all heads, joined and projected, with Q, K, V from three products."""
    B, T, d = x.shape
    weights = attn.qkv.weight.chunk(3)
    biases = (None,) * 3 if attn.qkv.bias is None else attn.qkv.bias.chunk(3)
    q, k, v = (
        F.linear(x, weight, bias).view(B, T, attn.num_heads, attn.head_dim).transpose(1, 2)
        for weight, bias in zip(weights, biases, strict=True)
    )
    gates = (attn.q_norm(q) @ attn.k_norm(k).transpose(2, 3) * attn.scale).softmax(dim=-1)
    return attn.proj((gates @ v).transpose(1, 2).reshape(B, T, d))


def _prompts(prompts: Any, patches: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return the prompts (B, N, d) of a block: free vectors, or computed from its patch states (B, P0, d)."""
    if not isinstance(prompts, AdaptivePrompts):
        return prompts(patches)
    config, (B, _, d) = prompts.config, patches.shape
    maps = prompts.norm(patches).transpose(1, 2).reshape(B, d, *grid)
    if prompts.kernel is not None:
        k = prompts.kernel.shape[-1]
        maps = F.conv2d(maps, prompts.kernel.expand(d, k, k)[:, None], padding=config.padding, groups=d)
        maps = F.dropout2d(maps, config.channel_dropout, prompts.training)
    weight = prompts.weight.expand(-1, *config.positions(prompts.own_grid))
    Z = F.linear(maps.flatten(2), weight.flatten(1), prompts.bias).transpose(1, 2)
    projector = prompts.projector
    hidden = activated(F.linear(Z, projector.down), projector.activation)
    added = F.linear(F.dropout(hidden, config.hidden_dropout, prompts.training), projector.up)
    found = Z + (added if projector.scale is None else projector.scale * added)
    return found if prompts.offset is None else found + prompts.offset

"""Train R trials of LoRA, of adapters or of biases on one frozen backbone as one model.

With a layer's weights W, b, which all trials share, and the states X of trial r,

    lora      W X + b + B_r (A_r X)                                two thin products for each trial
    adapter   X + s_r * (U_r gelu(D_r X + b_r) + c_r)  behind a block
    bias      W X + b_r,  and norms with shifts b_r

What is saved: the states of blocks before the first changed one belong to an image, and may be kept; the
products with the weights of that block are made once for trials that see the same images (not for biases,
which change its norm); of the last block only the class token's row is computed, where the head reads
no other. ``PackedTrials`` does the same for prompts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import Mlp
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from moe_prompts.checks import listed, one_of, whole
from moe_prompts.errors import InputError
from moe_prompts.vision.prompting.prompted import HEADS
from moe_prompts.vision.training.methods import BIASES, PEERS, Sizes, trainable_copy
from moe_prompts.vision.training.packed import (
    SILENT,
    Noise,
    PackedTrials,
    attend,
    check_frozen,
    check_generators,
    is_known,
    key_of,
    mixed,
    of_each,
    plain,
)
from moe_prompts.vision.training.peers import changed_blocks, check_timm

#: Methods that pack here.
PACKED = (*PEERS, *BIASES)
#: Biases that a packed trial can have of its own.
OWN_BIAS = re.compile(
    r"(patch_embed\.proj|norm|fc_norm|head|blocks\.\d+\.(norm[12]|attn\.(qkv|proj|q_norm|k_norm)|mlp\.fc[12]))\.bias"
)


def why_alone(method: str, model: VisionTransformer) -> str | None:
    """Return why trials of this method cannot share the model, in words; None where they can.

    method  one of ``methods.TRAINS_BACKBONE``
    model   plain
    """
    if method not in PACKED:
        return f"{method} trains every weight, so that trials share nothing"
    for name, module in model.named_modules():
        if max(getattr(module, "p", 0) or 0, getattr(module, "drop_prob", 0) or 0) > 0:
            return f"{name} drops at random while it trains"
    if method == "adapter":
        return None
    if not all(is_known(block) for block in model.blocks):
        return "its blocks are not timm's own"
    if method not in BIASES:
        return None
    strange = [name for name, _ in model.named_parameters() if name.endswith("bias") and not OWN_BIAS.fullmatch(name)]
    if strange:
        return f"{strange[0]} belongs to a layer that is not packed"
    norms = [model.norm, model.fc_norm, *(norm for block in model.blocks for norm in (block.norm1, block.norm2))]
    if any(getattr(norm, "bias", None) is not None and not isinstance(norm, nn.LayerNorm) for norm in norms):
        return "its norms are no LayerNorm"
    if any(type(block.mlp) is not Mlp or not isinstance(block.mlp.norm, nn.Identity) for block in model.blocks):
        return "its MLPs are not timm's own"
    later = (model.patch_embed.norm, model.norm_pre)
    if not all(isinstance(layer, nn.Identity) for layer in later) or model.attn_pool is not None:
        return "a norm follows its patch embedding, or an attention pools its tokens"
    return None


class PackedPeers(PackedTrials):
    """Hold R trials of LoRA, adapters or biases on a plain frozen model, which is left as it is.

    Parameters have the names that they have in the model of ``trainable_copy``, and begin at the same values.

    model      frozen and in evaluation mode: ``model.requires_grad_(False).eval()``
    method     one of ``PACKED``
    classes    number of classes; each trial learns a head of its own
    rngs       one generator for each trial
    sizes      rank and blocks; None: the default ones
    head_init  first values of new heads: "published" or "zero"

    Raises ``InputError`` for a model that is not frozen, and for a method that cannot be packed on it.

    >>> import torch
    >>> from moe_prompts.vision import create_backbone
    >>> model = create_backbone("small-random").requires_grad_(False).eval()
    >>> rngs = [torch.Generator().manual_seed(seed) for seed in range(2)]
    >>> PackedPeers(model, "adapter", 3, rngs)(torch.zeros(4, 3, 32, 32)).shape
    torch.Size([2, 4, 3])
    """

    def __init__(
        self,
        model: VisionTransformer,
        method: str,
        classes: int,
        rngs: Sequence[torch.Generator],
        sizes: Sizes | None = None,
        head_init: str = "published",
    ) -> None:
        nn.Module.__init__(self)
        check_timm(model, "PackedPeers")
        check_frozen(model, "PackedPeers")
        one_of(method, PACKED, "PackedPeers: method")
        one_of(head_init, HEADS, "PackedPeers: head_init")
        classes, rngs = whole(classes, 1, "PackedPeers: classes"), listed(rngs, "PackedPeers: rngs")
        check_generators(rngs, "PackedPeers")
        reason = why_alone(method, model)
        if reason is not None:
            raise InputError(f"PackedPeers: {method} on this model: {reason}; expected trials one by one")
        self.method, self.config, self.n_trials, self.mean_states = method, None, len(rngs), None
        self._frozen, self._known_head = [model], []
        first_values: dict[str, list[Tensor]] = {}
        for rng in rngs:
            one = trainable_copy(method, model, classes, rng, sizes, head_init)
            for name, value in one.named_parameters():
                if value.requires_grad:
                    first_values.setdefault(name, []).append(value.detach())
        self.parts = nn.ParameterDict({key_of(name): torch.stack(values) for name, values in first_values.items()})
        #: The first changed block: what enters it belongs to an image, but for "bias", which changes the
        #: embedding.
        self.first = 0 if method == "bias" else changed_blocks(model, None if sizes is None else sizes.blocks)[0]
        self._first_rows_only = model.global_pool == "token" and model.attn_pool is None
        #: Parameters of each block, and of what is outside blocks, by their names there.
        self._places: dict[str, dict[str, str]] = {}
        for name in first_values:
            place, inner = ("", name) if not name.startswith("blocks.") else name.removeprefix("blocks.").split(".", 1)
            self._places.setdefault(place, {})[inner] = key_of(name)

    def _of(self, place: str) -> dict[str, Tensor]:
        """Return the trials' own parameters of a block, or of what is outside blocks (""), (R, ...) each."""
        return {name: self.parts[key] for name, key in self._places.get(place, {}).items()}

    def _features(self, x: Tensor, batch_of: Tensor | None, noise: Noise = SILENT) -> Tensor:
        """Return what heads see, (R, B, d), from states (S, B, T, d) that enter block ``first``."""
        model, outside = self.model, self._of("")
        shared: Tensor | None = (
            torch.zeros(self.n_trials, dtype=torch.long, device=x.device) if batch_of is None else batch_of
        )
        embedding = outside.get("patch_embed.proj.bias")
        if self.method in BIASES:
            x, shared = x[shared], None
        if embedding is not None:
            prefix = model.num_prefix_tokens
            moved = (embedding - model.patch_embed.proj.bias)[:, None, None]
            x = torch.cat([x[:, :, :prefix], x[:, :, prefix:] + moved], dim=2)
        for index, block in list(enumerate(model.blocks))[self.first :]:
            last = index == len(model.blocks) - 1 and self._first_rows_only
            own = self._of(str(index))
            x = (
                _behind(block, x, own, shared, last)
                if self.method == "adapter"
                else _inside(block, x, own, shared, last)
            )
            shared = None
        x = _norm(model.norm, x, outside.get("norm.bias"))
        pooled = model.pool(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        return _norm(model.fc_norm, pooled, outside.get("fc_norm.bias"))


def _along(bias: Tensor, like: Tensor) -> Tensor:
    """Return biases (R, d) with axes between, so that they add to (R, ..., d)."""
    return bias.view(len(bias), *[1] * (like.ndim - 2), -1)


def _norm(layer: Any, x: Tensor, bias: Tensor | None) -> Tensor:
    """Return a norm of states (R, ..., d), with the trials' own shifts (R, d) where there are any."""
    if bias is None:
        return layer(x)
    return F.layer_norm(x, layer.normalized_shape, layer.weight, None, layer.eps) + _along(bias, x)


def _linear(x: Tensor, weight: Tensor, frozen: Tensor | None, bias: Tensor | None) -> Tensor:
    """Return W x + b for states (R, ..., d), with the trials' own biases (R, out) where there are any."""
    return F.linear(x, weight, frozen) if bias is None else F.linear(x, weight) + _along(bias, x)


def _behind(block: nn.Module, x: Tensor, own: Mapping[str, Tensor], shared: Tensor | None, first_row: bool) -> Tensor:
    """Return the states (R, B, T, d) after a block and the trials' adapters; arguments as in ``_inside``."""
    x = attend(block, x, None, None, first_row) if is_known(block) else plain(block, x)
    x = x if shared is None else x[shared]
    hidden = F.gelu(of_each(x, own["down.weight"]) + _along(own["down.bias"], x))
    return x + _along(own["scale"], x) * (of_each(hidden, own["up.weight"]) + _along(own["up.bias"], x))


def _inside(block: Any, x: Tensor, own: Mapping[str, Tensor], shared: Tensor | None, first_row: bool) -> Tensor:
    """Return the states (R, B, T, d) after a block in which trials have a LoRA or biases of their own.

    x          (R, B, T, d), or (S, B, T, d) where ``shared`` is given
    own        by names within the block, (R, ...) each
    shared     (R,), which of the S states a trial has
    first_row  True: only the first token's row is computed
    """
    attention, bias = block.attn, own.get("attn.qkv.bias")
    width = attention.num_heads * attention.head_dim
    down, up = (own.get(f"attn.qkv.lora_{one}.default.weight") for one in "AB")
    X = _norm(block.norm1, x, own.get("norm1.bias"))

    def of_trials(values: Tensor) -> Tensor:
        return values if shared is None else values[shared]

    lowered = None if down is None else of_each(of_trials(X), down)

    def heads(part: int, rows: slice, name: str) -> Tensor:
        """Return queries, keys or values of these tokens, (R, B, H, T, d_h)."""
        at = slice(part * width, (part + 1) * width)
        frozen = None if attention.qkv.bias is None else attention.qkv.bias[at]
        made = of_trials(
            _linear(X[:, :, rows], attention.qkv.weight[at], frozen, None if bias is None else bias[:, at])
        )
        if lowered is not None and up is not None:
            made = made + of_each(lowered[:, :, rows], up[:, at])
        made = made.unflatten(-1, (attention.num_heads, attention.head_dim)).transpose(-2, -3)
        return made if not name else _norm(getattr(attention, name), made, own.get(f"attn.{name}.bias"))

    rows, every = slice(0, 1) if first_row else slice(None), slice(None)
    q = heads(0, rows, "q_norm") * attention.scale
    found = mixed(q, heads(1, every, "k_norm"), heads(2, every, ""), first_row)
    proj = attention.proj
    x = of_trials(x[:, :, rows]) + block.ls1(_linear(found, proj.weight, proj.bias, own.get("attn.proj.bias")))
    Y, mlp = _norm(block.norm2, x, own.get("norm2.bias")), block.mlp
    if "mlp.fc1.bias" not in own and "mlp.fc2.bias" not in own:
        return x + block.ls2(mlp(Y))
    hidden = mlp.act(_linear(Y, mlp.fc1.weight, mlp.fc1.bias, own.get("mlp.fc1.bias")))
    return x + block.ls2(_linear(hidden, mlp.fc2.weight, mlp.fc2.bias, own.get("mlp.fc2.bias")))

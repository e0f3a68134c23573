"""Convert checkpoints of the published code to timm's names.

There are two kinds: VPT and VAPT with their backbone, and backbones of MoCo-v3.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from moe_prompts.checks import expect, file_path, plain, whole
from moe_prompts.errors import InputError
from moe_prompts.vision.prompting.checkpoint import fill, read_torch_file
from moe_prompts.vision.prompting.config import VAPT, VPT
from moe_prompts.vision.prompting.prompted import PromptedVisionTransformer, prompt, prompt_parameters

_PATCHES = "transformer.embeddings.patch_embeddings.weight"
_LAYER = "transformer.encoder.layer."
#: Official name -> timm's, outside the blocks; then inside a block, beside query, key and value.
_OUTSIDE = {
    "transformer.embeddings.position_embeddings": "pos_embed",
    "transformer.embeddings.cls_token": "cls_token",
    _PATCHES: "patch_embed.proj.weight",
    "transformer.embeddings.patch_embeddings.bias": "patch_embed.proj.bias",
    "transformer.encoder.encoder_norm.weight": "norm.weight",
    "transformer.encoder.encoder_norm.bias": "norm.bias",
    "head.weight": "head.weight",
    "head.bias": "head.bias",
}
_INSIDE = {
    "attention_norm": "norm1",
    "ffn_norm": "norm2",
    "ffn.fc1": "mlp.fc1",
    "ffn.fc2": "mlp.fc2",
    "attn.out": "attn.proj",
}
_BLOCK_NUMBER = re.compile(re.escape(_LAYER) + r"(\d+)\.")
_INSIDE_NAME = re.compile(re.escape(_LAYER) + r"(\d+)\.(.+)\.(\w+)")
#: Official prompt parameters of one adaptive block, and those of a projector.
_ADAPTIVE = re.compile(r"transformer\.deep_prompt_(norm|downsample)\.(\d+)\.(.+)")
_PROJECTOR = re.compile(r"transformer\.deep_prompt_embeddings_mlp\.(?:(\d+)\.)?(.+)")
_PARTS = {
    ("norm", "weight"): "norm.weight",
    ("norm", "bias"): "norm.bias",
    ("downsample", "conv.kernel"): "kernel",
    ("downsample", "conv.weight"): "kernel",
    ("downsample", "linear.weight"): "weight",
    ("downsample", "linear.bias"): "bias",
    ("downsample", "weight"): "weight",
    ("downsample", "bias"): "bias",
}
_PROJECTOR_LAYER = re.compile(r"block\.(\d+)\.weight")


def from_official(params: Mapping[str, Any], options: Mapping[str, Any]) -> VisionTransformer:
    """Return the timm model with the weights of an official VPT or VAPT state_dict.

    It is in their number type and in evaluation mode.

    params   official name -> tensor or array; the prefix ``enc.`` and the head ``head.last_layer`` are
             accepted
    options  ``heads``: attention heads, which no weight tells; ``prompt``: the official MODEL.PROMPT settings
             (NUM_TOKENS, DEEP, and for VAPT ADAPTIVE, HIDDEN_DIM, KERNEL, ..) or None for a plain model,
             which leaves prompts of the file out; ``grid``: (height, width) if the patches do not make a
             square

    Raises ``InputError`` for settings that are not supported and for names that are missing or left over.

    >>> from moe_prompts.vision import from_official
    >>> import torch
    >>> shapes = {"embeddings.position_embeddings": (1, 5, 4), "embeddings.cls_token": (1, 1, 4)}
    >>> patches = "embeddings.patch_embeddings"
    >>> shapes |= {f"{patches}.weight": (4, 3, 8, 8), f"{patches}.bias": (4,)}
    >>> shapes |= {"encoder.encoder_norm.weight": (4,), "encoder.encoder_norm.bias": (4,)}
    >>> block = {"attention_norm": (4,), "ffn_norm": (4,), "ffn.fc1": (8, 4), "ffn.fc2": (4, 8)}
    >>> block |= {f"attn.{part}": (4, 4) for part in ("query", "key", "value", "out")}
    >>> for part, shape in block.items():
    ...     shapes[f"encoder.layer.0.{part}.weight"] = shape
    ...     shapes[f"encoder.layer.0.{part}.bias"] = shape[:1]
    >>> params = {f"transformer.{name}": torch.zeros(shape) for name, shape in shapes.items()}
    >>> params |= {"head.weight": torch.zeros(2, 4), "head.bias": torch.zeros(2)}
    >>> model = from_official(params, {"heads": 2})
    >>> len(model.blocks), model.num_classes
    (1, 2)
    """
    expect(params, Mapping, "from_official: params")
    expect(options, Mapping, "from_official: options")
    weights = {_without_prefix(str(name)): _tensor(value) for name, value in params.items()}
    own = {name: value for name, value in weights.items() if "prompt" not in name}
    prompts = sorted(weights.keys() - own.keys())
    if prompts and "prompt" not in options:
        raise InputError(
            f"from_official: the file has prompts ({prompts[0]}, ..), options have no 'prompt'; expected the official "
            "MODEL.PROMPT settings there, or None for the plain model without them"
        )
    model = VisionTransformer(**_sizes(own, options)).to(own[_PATCHES].dtype)
    _load(model, _backbone(own))
    settings = options.get("prompt")
    if settings is None:
        return model.eval()
    if not isinstance(settings, Mapping):
        raise InputError(
            f"from_official: options['prompt'] = {settings!r}; expected the MODEL.PROMPT settings, or None"
        )
    config = _config(settings, weights)
    prompted = prompt(model, config)
    parameters = prompt_parameters(prompted)
    values = {
        name: _reshaped(name, value, parameters) for name, value in _prompts(weights, config, len(model.blocks)).items()
    }
    fill(parameters, values, "from_official")
    return prompted.eval()


def load_moco_v3(model: VisionTransformer, path: str | Path) -> VisionTransformer:
    """Load a MoCo-v3 checkpoint (``.pth.tar`` of a linear probe or of pre-training) into a plain ``model``.

    path  the checkpoint file

    Only tensors are read (``weights_only=True``). The file's head is left out, so the model's own stays as it
    is. The model takes the number of attention heads of the file's ``arch``: MoCo-v3's ViT-S has 12, timm's
    6.

    Raises ``InputError`` for another file, or weights that do not fit the model.

    >>> import timm, torch
    >>> from moe_prompts.vision import load_moco_v3
    >>> vit = timm.create_model("vit_tiny_patch16_224", img_size=64)
    >>> weights = {f"module.{name}": value for name, value in vit.state_dict().items()}
    >>> torch.save({"arch": "vit_tiny", "state_dict": weights}, "moco.pth.tar")
    >>> load_moco_v3(vit, "moco.pth.tar") is vit
    True
    """
    if type(model) is not VisionTransformer or isinstance(model, PromptedVisionTransformer):
        raise InputError(f"load_moco_v3: a {type(model).__name__}; expected a plain timm VisionTransformer")
    path = file_path(path, "load_moco_v3: path")
    content = read_torch_file(path, "a MoCo-v3 checkpoint")
    state = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(state, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise InputError(f"load_moco_v3: {path} has no state_dict of names and tensors; expected a MoCo-v3 checkpoint")
    weights = moco_v3_names(state)
    own = model.state_dict()
    expected = {name for name in own if not name.startswith("head.")}
    wrong = sorted(expected ^ set(weights)) or [name for name in weights if weights[name].shape != own[name].shape]
    if wrong:
        raise InputError(
            f"load_moco_v3: {', '.join(wrong[:5])} missing, left over or of another shape; expected the weights of a "
            f"model like this one ({len(model.blocks)} blocks of width {model.embed_dim})"
        )
    _take_heads(model, content.get("arch"), path)
    model.load_state_dict(weights, strict=False)
    return model


#: Attention heads of MoCo-v3's architectures, which no weight tells: its ViT-S has 12, timm's has 6.
MOCO_HEADS = {"vit_small": 12, "vit_base": 12, "vit_conv_small": 12, "vit_conv_base": 12}
MOCO_S_WIDTH, MOCO_WIDTHS = 384, (384, 768)


def _take_heads(model: VisionTransformer, arch: Any, path: str | Path) -> None:
    """Give the model as many heads as the file's architecture has; with other ones, equal weights differ."""
    wanted = MOCO_HEADS.get(str(arch)) if model.embed_dim in MOCO_WIDTHS else None
    blocks: Any = model.blocks
    found = {block.attn.num_heads for block in blocks}
    if wanted is None:
        if model.embed_dim == MOCO_S_WIDTH and found != {MOCO_HEADS["vit_small"]}:
            raise InputError(
                f"load_moco_v3: {path} does not say its architecture (arch {arch!r}), and this model has "
                f"{max(found)} heads, MoCo-v3's ViT-S {MOCO_HEADS['vit_small']}: create it with the number of heads "
                "that the weights were trained with"
            )
        return
    for block in model.blocks:
        attention: Any = block.attn
        attention.num_heads, attention.head_dim = wanted, model.embed_dim // wanted
        attention.scale = attention.head_dim**-0.5


def moco_v3_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a MoCo-v3 state_dict under timm's names, without heads and without the momentum encoder."""
    found = {}
    for name, value in state.items():
        inner = name.removeprefix("module.")
        if inner.startswith(("momentum_encoder.", "predictor.")):
            continue
        inner = inner.removeprefix("base_encoder.")
        if not inner.startswith("head."):
            found[inner] = value
    return found


def _without_prefix(name: str) -> str:
    return name.removeprefix("enc.").replace("head.last_layer.", "head.")


def _tensor(value: Any) -> Tensor:
    try:
        found = value.detach() if isinstance(value, Tensor) else torch.from_numpy(plain(value, "from_official").copy())
    except TypeError as error:
        raise InputError(f"from_official: a weight {value!r}; expected tensors or arrays of numbers") from error
    if not found.is_floating_point():
        raise InputError(f"from_official: a weight of type {found.dtype}; expected floating-point numbers")
    return found


def _sizes(weights: dict[str, Tensor], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of timm's model."""
    width, channels, *patch = _shape(weights, _PATCHES, 4)
    positions = _shape(weights, "transformer.embeddings.position_embeddings", 3)[1] - 1
    hidden, _ = _shape(weights, f"{_LAYER}0.ffn.fc1.weight", 2)
    classes, _ = _shape(weights, "head.weight", 2)
    heads = whole(_setting(options, "heads"), 1, "from_official: options['heads']")
    if width % heads:
        raise InputError(f"from_official: {heads} heads share a width of {width}; expected a divisor of it")
    side = math.isqrt(positions)
    grid = tuple(np.atleast_1d(options.get("grid", (side, side))).tolist())
    if len(grid) != 2 or not all(isinstance(one, int) and one > 0 for one in grid) or math.prod(grid) != positions:
        raise InputError(f"from_official: {positions} positions, grid {grid}; give options['grid'] as (height, width)")
    # As many as there are numbers: one that is out of order is then left over.
    depth = len({match[1] for match in map(_BLOCK_NUMBER.match, weights) if match})
    return {
        "img_size": (grid[0] * patch[0], grid[1] * patch[1]),
        "patch_size": tuple(patch),
        "in_chans": channels,
        "num_classes": classes,
        "embed_dim": width,
        "depth": depth,
        "num_heads": heads,
        "mlp_ratio": (hidden + 0.5) / width,  # of which timm takes the whole part
    }


def _shape(weights: dict[str, Tensor], name: str, axes: int) -> tuple[int, ...]:
    if name not in weights or weights[name].ndim != axes:
        found = f"{name!r} of shape {tuple(weights[name].shape)}" if name in weights else f"no {name!r}"
        raise InputError(
            f"from_official: {found}; expected the state_dict of an official model, where it has {axes} axes"
        )
    return tuple(weights[name].shape)


def _setting(settings: Mapping[str, Any], name: str) -> Any:
    if name not in settings:
        raise InputError(f"from_official: no {name!r} among the options; expected it beside {sorted(settings)}")
    return settings[name]


def _load(model: VisionTransformer, state: dict[str, Tensor]) -> None:
    own = model.state_dict()
    missing, left = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    other = [name for name in own if name in state and own[name].shape != state[name].shape]
    if missing or left or other:
        raise InputError(
            f"from_official: missing {missing[:5]}, left over {left[:5]}, of another shape {other[:5]}; expected a "
            "whole state_dict of an official model"
        )
    model.load_state_dict(state)


def _backbone(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return timm's state_dict; unknown names stay as they are and are reported when it is loaded."""
    state, rows = {}, {}
    for name, value in weights.items():
        match = _INSIDE_NAME.fullmatch(name)
        if not match:
            state[_OUTSIDE.get(name, name)] = value
            continue
        index, part, kind = match.groups()
        if part in ("attn.query", "attn.key", "attn.value"):
            rows[index, part.removeprefix("attn."), kind] = value
        else:
            state[f"blocks.{index}.{_INSIDE.get(part, part)}.{kind}"] = value
    for index, part, kind in rows:
        if part == "query":
            parts = [rows[index, one, kind] for one in ("query", "key", "value") if (index, one, kind) in rows]
            if len({one.shape for one in parts}) == 1 and parts[0].ndim:  # else reported as missing
                state[f"blocks.{index}.attn.qkv.{kind}"] = torch.cat(parts)
    return state


def _config(settings: Mapping[str, Any], weights: dict[str, Tensor]) -> VPT | VAPT:
    """Return our config for the official settings; where one is not documented, shapes of weights decide."""
    if settings.get("PROJECT", -1) != -1:
        raise InputError(f"from_official: PROJECT = {settings['PROJECT']}; expected -1, prompts without projection")
    tokens, dropout = _setting(settings, "NUM_TOKENS"), settings.get("DROPOUT", 0.0)
    if not settings.get("ADAPTIVE", False):
        return VPT(tokens, deep=bool(settings.get("DEEP", False)), prompt_dropout=dropout)
    if not settings.get("FEAT_PROJECTOR", True) or not settings.get("DEEP", True):
        raise InputError("from_official: adaptive prompts without DEEP or without FEAT_PROJECTOR are not supported")
    kernels = [value for name, value in weights.items() if re.search(r"downsample\.\d+\.conv\.(kernel|weight)$", name)]
    return VAPT(
        tokens,
        hidden=_setting(settings, "HIDDEN_DIM"),
        kernel=settings.get("KERNEL", 2) if settings.get("CONV", True) else None,
        padding=settings.get("PADDING", 0) if settings.get("CONV", True) else 0,
        static_depth=settings.get("VPT_DEPTH", 1),
        activation=str(settings.get("ACTIVATION", "relu")).lower(),
        per_channel=any(kernel.shape[:1] != (1,) for kernel in kernels),
        shared_projector=settings.get("SHARE_PROJECTOR", True),
        learnable_scale=settings.get("LEARNABLE_SCALE", False),
        prompt_dropout=dropout,
        hidden_dropout=settings.get("DROPOUT_MLP", 0.1),
    )


def _prompts(weights: dict[str, Tensor], config: VPT | VAPT, blocks: int) -> dict[str, Tensor]:
    """Return the weights under the names of ``prompt_parameters``; unknown names stay as they are."""
    found = {name: value for name, value in weights.items() if name in ("head.weight", "head.bias")}
    first = config.static_depth if isinstance(config, VAPT) else blocks
    for name, value in weights.items():
        if "prompt" not in name:
            continue
        if name == "transformer.prompt_embeddings" and value.ndim == 3 and len(value) == 1:
            found["0.tokens"] = value[0]
        elif name == "transformer.deep_prompt_embeddings" and value.ndim == 3:
            found |= {f"{index}.tokens": tokens for index, tokens in enumerate(value, start=1)}
        elif match := _ADAPTIVE.fullmatch(name):
            kind, index, part = match.groups()
            known = _PARTS.get((kind, part), part)
            found[f"{first + int(index)}.{known}"] = value
        elif match := _PROJECTOR.fullmatch(name):
            index, part = match.groups()
            found[f"{first + int(index or 0)}.projector.{_projector_part(part, value)}"] = value
        else:
            found[name] = value
    return found


def _projector_part(part: str, value: Tensor) -> str:
    """Return which part of the projector a weight is.

    The first layer goes down, a later one up (their numbers also count what is between); a single number is
    the scale.
    """
    layer = _PROJECTOR_LAYER.fullmatch(part)
    if layer:
        return "up" if int(layer[1]) else "down"
    return "scale" if value.numel() == 1 else part


def _reshaped(name: str, value: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
    """Return a weight in our shape if it holds as many numbers, else as it is.

    Kernels come as (1 or d, 1, k, k), position weights as (N, Q).
    """
    like, part = parameters.get(name), name.partition(".")[2]
    if like is None or part not in ("kernel", "weight", "projector.scale") or value.numel() != like.numel():
        return value
    return value.reshape(like.shape)

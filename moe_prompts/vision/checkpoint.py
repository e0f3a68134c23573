"""A tuned model on disk: its prompts and head, how they were configured, and which frozen backbone they belong to.

The backbone is known by a hash of its weights without the head, so prompts cannot be put on another one unnoticed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from hashlib import sha256
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from moe_prompts.errors import InputError
from moe_prompts.study.store import write_atomically
from moe_prompts.vision.config import VAPT, VPT
from moe_prompts.vision.prompted import (
    PLAIN_HEAD,
    PromptedVisionTransformer,
    adaptive_prompts,
    check_prompted,
    prompt,
    prompt_parameters,
    unprompt,
)

#: Kind and version of the file.
FORMAT = "moe-prompts 1"
CONFIGS: dict[str, type[VPT] | type[VAPT]] = {"VPT": VPT, "VAPT": VAPT}


def backbone_hash(model: VisionTransformer) -> str:
    """sha256 over names, shapes, types and bytes of all weights but heads and prompts; the same plain or prompted."""
    digest = sha256()
    for name, value in sorted(_backbone_state(model).items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        # Bytes, since NumPy has no bfloat16; flat first, since a number cannot be viewed as several.
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_prompts(model: PromptedVisionTransformer, path: str | Path) -> None:
    """Write prompts and head, their config and the backbone's hash: one safetensors file, whole or not at all."""
    check_prompted(model, "save_prompts")
    metadata = {
        "format": FORMAT,
        "kind": type(model.config).__name__,
        "config": json.dumps(asdict(model.config)),
        "num_classes": str(model.head.out_features if isinstance(model.head, nn.Linear) else 0),
        "backbone": backbone_hash(model),
    }
    tensors = {name: value.detach().cpu().contiguous() for name, value in _stored(model).items()}
    try:
        write_atomically(Path(path), save(tensors, metadata))
    except OSError as error:
        raise InputError(f"save_prompts: cannot write {path} ({error.strerror}); choose an existing folder") from error


def load_prompts(model: VisionTransformer, path: str | Path) -> PromptedVisionTransformer:
    """Prompt the plain ``model`` with what ``save_prompts`` wrote; it changes and is returned.

    Raises ``InputError`` if the file holds something else or was made on another backbone.
    """
    if isinstance(model, PromptedVisionTransformer):
        raise InputError("load_prompts: the model has prompts already; unprompt it first")
    metadata, tensors = _read(Path(path))
    found = backbone_hash(model)
    if found != metadata["backbone"]:
        raise InputError(
            f"load_prompts: {path} was made on the backbone {metadata['backbone'][:12]}, this one is {found[:12]}; "
            "expected the same weights in the same number type: create the model as it was when the prompts were made"
        )
    config = CONFIGS[metadata["kind"]](**json.loads(metadata["config"]))
    prompted = prompt(model, config, int(metadata["num_classes"]))
    try:
        _make_room(prompted)
        fill(_stored(prompted), tensors, str(path))
    except InputError:
        unprompt(prompted)
        raise
    return prompted


def fill(parameters: Mapping[str, torch.Tensor], values: dict[str, torch.Tensor], source: str) -> None:
    """Copy ``values`` into ``parameters`` of the same names and shapes; raises before anything is copied."""
    wrong = sorted(set(parameters) ^ set(values)) or [
        name for name, value in values.items() if value.shape != parameters[name].shape
    ]
    if wrong:
        raise InputError(f"{source}: {', '.join(wrong[:5])} missing, left over or of another shape than the model's")
    with torch.no_grad():
        for name, value in values.items():
            parameters[name].copy_(value)


def _stored(model: PromptedVisionTransformer) -> dict[str, torch.Tensor]:
    """Parameters of prompts and head, and mean states where prompts are computed from them."""
    stored: dict[str, torch.Tensor] = dict(prompt_parameters(model))
    for index, prompts in adaptive_prompts(model).items():
        if prompts.mean_states is not None:
            stored[f"{index}.mean_states"] = prompts.mean_states
    return stored


def _make_room(model: PromptedVisionTransformer) -> None:
    """Mean states of the right shape, to be filled."""
    for prompts in adaptive_prompts(model).values():
        if prompts.config.source == "mean":
            prompts.mean_states = prompts.norm.weight.new_empty(prod(prompts.own_grid), len(prompts.norm.weight))


def _backbone_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """Weights and buffers under the plain model's names."""
    state = {}
    for name, value in model.state_dict().items():
        parts = name.split(".")
        if parts[0] in ("head", PLAIN_HEAD) or parts[2:3] == ["prompts"]:
            continue
        inside = parts[0] == "blocks" and parts[2:3] == ["block"]
        state[".".join(parts[:2] + parts[3:]) if inside else name] = value
    return state


def _read(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: {error}; expected a file that save_prompts wrote") from error
    if metadata.get("format") != FORMAT:
        raise InputError(f"{path}: format {metadata.get('format')!r}; expected {FORMAT!r}, written by save_prompts")
    return metadata, tensors

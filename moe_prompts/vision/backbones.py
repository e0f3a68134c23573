"""Backbones by name: the small one pretrained on formulas that comes with the package, random ones, those of timm.

    small           213 k parameters, 32 pixels, patch 8: data/small.safetensors, made as data/small.json says
    small-random    the same architecture with initial weights drawn from an address: what pretraining is compared with
    any timm name   with published weights from the hub or from a local file (.safetensors, .pth, .pt, .bin)
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from moe_prompts.errors import InputError
from moe_prompts.seeds import address

#: Sizes of the architectures that ``experiments/pretrain.py`` trains.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "small": {"patch_size": 8, "embed_dim": 64, "depth": 4, "num_heads": 4},
    "vit_tiny": {"patch_size": 8, "embed_dim": 192, "depth": 12, "num_heads": 3},
}
SMALL_SIZE = 32


def half(pixels: np.ndarray) -> Tensor:
    """Bytes (n, H, W, 3) -> (n, 3, H, W) in [-1, 1]: the normalisation of our own pretraining."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))).float() / 127.5 - 1


def architecture(name: str, size: int, entropy: int) -> VisionTransformer:
    """A headless model whose initial weights come from the address (entropy, name): normal 0.02, as timm's, biases 0."""
    with torch.random.fork_rng(devices=[]):
        model = VisionTransformer(img_size=size, num_classes=0, **ARCHITECTURES[name])
    rng = torch.Generator().manual_seed(address(f"backbone {name}") + entropy)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.fill_(1.0 if "norm" in key and key.endswith("weight") else 0.0)
            elif key.startswith("patch_embed"):
                parameter.normal_(0, (parameter[0].numel()) ** -0.5, generator=rng)
            else:
                parameter.normal_(0, 0.02, generator=rng)
    return model

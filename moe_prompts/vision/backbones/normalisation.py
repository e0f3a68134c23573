"""Turn bytes into the inputs of a backbone: shift and scale them, by the name of a mean and a deviation.

input = (byte / 255 - mean) / std        in each of red, green and blue
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from moe_prompts.errors import InputError
from moe_prompts.vision.backbones.create import OWN

#: Mean and standard deviation of red, green and blue, as shares of 255.
NORMALISATIONS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5,) * 3, (0.5,) * 3),
    "none": ((0.0,) * 3, (1.0,) * 3),
}
_FLOAT32 = torch.zeros(())


def normalisation_of(backbone: str) -> str:
    """Return the name of the normalisation that a backbone is given where nothing else is asked for.

    The backbones that come with the package were pretrained with ``half``; on names of timm the published
    protocol uses ``imagenet``.
    """
    return "half" if backbone in OWN else "imagenet"


def normalised(pixels: np.ndarray, name: str, like: Tensor = _FLOAT32) -> Tensor:
    """Return images as inputs of a backbone, (..., 3, H, W).

    pixels  (..., H, W, 3), bytes
    name    one of ``NORMALISATIONS``
    like    a tensor of the wanted type and device (default: float32 on the CPU)

    Raises ``InputError`` for another name.
    """
    if name not in NORMALISATIONS:
        raise InputError(f"normalisation {name!r}; expected one of {', '.join(NORMALISATIONS)}")
    mean, std = (torch.tensor(values).to(like) for values in NORMALISATIONS[name])
    return ((torch.tensor(pixels).to(like) / 255 - mean) / std).movedim(-1, -3)

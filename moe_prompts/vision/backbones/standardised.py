"""Scale the features of a backbone, so that one grid of rates suits heads on any backbone and task."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from moe_prompts.errors import InputError

#: Least standard deviation of a channel, as a share of the root mean square of all: a dead channel stays
#: small.
LEAST = 1e-3


@torch.no_grad()
def standardised(model: VisionTransformer, batches: Iterable[Tensor]) -> VisionTransformer:
    """Return a copy whose features have mean 0 and variance 1 in every channel over the given images.

        y = g z + b   becomes   y = (g / s) z + (b - m) / s

    g and b are gain and shift of the final norm, m and s mean and standard deviation of the class token's
    features. No label is used, and a head on the new features is a head on the old ones. So all methods that
    train a head see the same change. The features of a few backbones are so large that SGD with rates of the
    published grid diverges.

    batches  normalised images (B, 3, H, W), at least two in all

    Raises ``InputError`` unless the head reads the class token behind an affine final norm.
    """
    gain, shift = (getattr(model.norm, name, None) for name in ("weight", "bias"))
    if model.global_pool != "token" or not isinstance(model.fc_norm, nn.Identity) or gain is None or shift is None:
        raise InputError("standardised: expected a ViT whose head reads the class token behind an affine final norm")
    rows = [model.forward_head(model.forward_features(images), pre_logits=True).double() for images in batches]
    features = torch.cat(rows) if rows else torch.zeros(0, model.embed_dim)
    if len(features) < 2:
        raise InputError(f"standardised: {len(features)} images; expected at least 2")
    scale = features.std(dim=0, correction=0)
    scale = scale.clamp(min=LEAST * float(scale.square().mean().sqrt()))
    if not bool((scale > 0).all()):
        raise InputError("standardised: the features are the same for all images; expected images that differ")
    copy: Any = deepcopy(model)
    copy.norm.weight.copy_(gain.double() / scale)
    copy.norm.bias.copy_((shift.double() - features.mean(dim=0)) / scale)
    return copy

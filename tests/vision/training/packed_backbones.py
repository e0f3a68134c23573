"""A tiny backbone in float64 that tests of packed trials share."""

import torch
from timm.models.vision_transformer import VisionTransformer


def backbone(**options) -> VisionTransformer:
    torch.manual_seed(1)
    sizes = {"img_size": (32, 24), "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 3, "num_classes": 0}
    model = VisionTransformer(**(sizes | options)).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.requires_grad_(False)

"""Vision tests need torch and timm, and one thread: two in one process are slower on shared cores."""

import importlib.util
from pathlib import Path

import pytest

PACKAGES = ("torch", "timm", "safetensors")
if all(importlib.util.find_spec(name) for name in PACKAGES):
    import torch

    torch.set_num_threads(1)
    collect_ignore: list[str] = []
else:
    # test_installed.py stays and skips with the reason.
    here = Path(__file__).parent
    collect_ignore = [path.name for path in here.glob("test_*.py") if path.name != "test_installed.py"]


@pytest.fixture
def rng():
    """Seeded draws of prompts and heads."""
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="module")
def uneven_vit():
    """A frozen ViT with random weights, whose width is no multiple of a vector register's."""
    from timm.models.vision_transformer import VisionTransformer

    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = VisionTransformer(img_size=32, patch_size=8, embed_dim=36, depth=4, num_heads=3, num_classes=0)
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return made.requires_grad_(False).eval()

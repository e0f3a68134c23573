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

"""Vision tests need torch and timm, and one thread: two in one process are slower on shared cores."""

import importlib.util

import pytest

if all(importlib.util.find_spec(name) for name in ("torch", "timm", "safetensors")):
    import torch

    torch.set_num_threads(1)
    collect_ignore_glob: list[str] = []
else:
    collect_ignore_glob = ["test_*.py"]

    def pytest_report_header() -> str:
        return "vision: skipped, torch, timm or safetensors is not installed (pip install -e '.[vision]')"


@pytest.fixture
def rng():
    """Seeded draws of prompts and heads."""
    return torch.Generator().manual_seed(0)

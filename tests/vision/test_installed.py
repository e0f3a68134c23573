"""Says aloud where vision is not tested."""

import importlib
import importlib.util

import pytest


@pytest.mark.parametrize("name", ["torch", "timm", "safetensors"])
def test_the_packages_of_the_vision_extra_are_here(name):
    """Skips where one is missing; fails where one is there and broken."""
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"vision tests need {name}: pip install -e '.[vision]'")
    importlib.import_module(name)

"""Says aloud where vision is not tested."""

import importlib.util

import pytest

PACKAGES = ("torch", "timm", "safetensors")


def test_the_packages_of_the_vision_extra_are_here():
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"vision tests need {', '.join(missing)}: pip install -e '.[vision]'")

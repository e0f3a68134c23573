"""Every public name has an example that runs: in its own docstring, or in a block of README or docs."""

from __future__ import annotations

import inspect
import re

import pytest
from test_docs import BLOCKS

import moe_prompts as mp

#: Blocks of pages and docstrings that tests run (``test_docs``, ``test_docstrings``, ``vision/test_examples``).
SHOWN = "\n".join(block.text for block in BLOCKS if block.language == "python" and not block.reason)


def lacking(package) -> set[str]:
    found = set()
    for name in package._PUBLIC:
        own = inspect.getdoc(getattr(package, name)) or ""
        if ">>>" not in own and not re.search(rf"\b{name}\b", SHOWN):
            found.add(name)
    return found


def test_every_public_name_has_an_example_that_runs():
    assert not lacking(mp)


def test_every_public_name_of_vision_has_an_example_that_runs():
    pytest.importorskip("timm", reason="needs the extra vision")
    from moe_prompts import vision

    assert not lacking(vision)

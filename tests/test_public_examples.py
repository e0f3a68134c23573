"""Every public class and function has an example that runs in its own docstring, every constant one on a page."""

from __future__ import annotations

import inspect
import re

import pytest
from test_docs import BLOCKS

import moe_prompts as mp

#: Blocks of pages, which tests run (``test_docs``, ``vision/test_examples``); ``test_docstrings`` runs docstrings.
SHOWN = "\n".join(block.text for block in BLOCKS if block.language == "python" and not block.reason)


def lacking(package) -> set[str]:
    found = set()
    for name in package._PUBLIC:
        value = getattr(package, name)
        if callable(value):
            shown = ">>>" in (inspect.getdoc(value) or "")
        else:
            shown = re.search(rf"\b{name}\b", SHOWN) is not None
        if not shown:
            found.add(name)
    return found


def test_every_public_name_has_an_example_that_runs():
    assert not lacking(mp)


def test_every_public_name_of_vision_has_an_example_that_runs():
    pytest.importorskip("timm", reason="needs the extra vision")
    from moe_prompts import vision

    assert not lacking(vision)

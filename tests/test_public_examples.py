"""Every public name has an example that runs: in its own docstring, or in a block of README or docs."""

from __future__ import annotations

import inspect
import re

import pytest
from test_docs import BLOCKS

import moe_prompts as mp

#: Blocks of pages and docstrings that tests run (``test_docs``, ``test_docstrings``, ``vision/test_examples``).
SHOWN = "\n".join(block.text for block in BLOCKS if block.language == "python" and not block.reason)
#: Public names without an example. It may only become shorter.
WITHOUT: dict[str, set[str]] = {
    "moe_prompts": {
        *("Certificate", "EMOptions", "FitStatus", "GlobalOptions", "Head", "LeastSquaresOptions", "MultiHead"),
        *(
            "NewtonOptions",
            "RegressionData",
            "SearchOptions",
            "SoftmaxOptions",
            "SoftmaxTruth",
            "StudyResult",
            "TRUTHS",
        ),
        *("add_prompt_truth", "likelihood_gaps", "softmax_em"),
    },
    "moe_prompts.vision": {
        *("AdaptivePrompts", "StaticPrompts", "add_adapters", "backbone_hash", "from_official", "gate_rank"),
        *("load_moco_v3", "projections", "prompt_table", "provenance", "set_mean_states"),
        *("export_onnx", "supported_models", "unprompt"),
    },
}


def lacking(package) -> set[str]:
    found = set()
    for name in package._PUBLIC:
        own = inspect.getdoc(getattr(package, name)) or ""
        if ">>>" not in own and not re.search(rf"\b{name}\b", SHOWN):
            found.add(name)
    return found


def test_every_public_name_has_an_example_that_runs():
    assert not lacking(mp) - WITHOUT["moe_prompts"]


def test_every_public_name_of_vision_has_an_example_that_runs():
    pytest.importorskip("timm", reason="needs the extra vision")
    from moe_prompts import vision

    assert not lacking(vision) - WITHOUT["moe_prompts.vision"]

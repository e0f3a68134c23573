"""What users add: activations and truths of prompts. Each test takes back what it added."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import expit

from moe_prompts import Activation, add_activation, add_prompt_truth, prompt_data, prompt_truth
from moe_prompts.errors import InputError
from moe_prompts.models import activations, prompt_truths
from moe_prompts.models.prompt_attention import PromptAttention, PromptKind
from moe_prompts.study.attention import attention_study


def silu(**changes):
    s = expit
    fields = {
        "name": "silu",
        "value": lambda t: t * s(t),
        "first": lambda t: s(t) * (1 + t * s(-t)),
        "second": lambda t: s(t) * s(-t) * (2 + t * (1 - 2 * s(t))),
    }
    return Activation(**{**fields, **changes})


@pytest.fixture(autouse=True)
def taken_back(monkeypatch):
    monkeypatch.setattr(activations, "ACTIVATIONS", known := dict(activations.ACTIVATIONS))
    monkeypatch.setattr("moe_prompts.models.prompt_attention.ACTIVATIONS", known)
    monkeypatch.setattr(prompt_truths, "_ADDED", {})
    yield
    prompt_truth.cache_clear()


def test_an_added_activation_makes_prompts():
    """f of a head with prompts of the new kind, by hand at one point."""
    with pytest.raises(InputError, match="unknown prompt kind"):
        PromptKind.parse("adaptive:silu")
    add_activation(silu())
    known = prompt_truth("attention-gelu")
    parts = prompt_truths.REFERENCE
    made = PromptAttention.adaptive(known.params.head, parts.b, parts.W1, parts.W2, "silu")
    x = np.array([0.3, -0.7])
    keys = [parts.W2 @ (h / (1 + np.exp(-h))) for h in parts.W1 @ x]
    head = made.head
    logits = [x @ A @ x + a for A, a in zip(head.A, head.a, strict=True)]
    logits += [head.B @ key @ x + b for key, b in zip(keys, parts.b, strict=True)]
    experts = [eta @ [*x, 1] for eta in head.eta] + [head.C @ key for key in keys]
    mass = np.exp(logits)
    assert_allclose(made.regression(x[None])[0], mass @ experts / mass.sum(), rtol=1e-13)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "gelu"}, "'gelu' is taken"),
        ({"name": "bias"}, "'bias' is taken"),
        ({"name": "Si:LU"}, "not of a-z"),
        ({"analytic": False}, "kinks are rounded for relu only"),
        ({"first": np.tanh}, "first.* differences of what"),
        ({"second": np.tanh}, "second.* differences of what"),
        ({"first": lambda t: np.full_like(t, np.nan)}, "first.*nan"),
        ({"odd": True}, "odd=True; its values say False"),
        ({"homogeneous": True}, "homogeneous=True; its values say False"),
        ({"value": np.cos, "first": lambda t: -np.sin(t), "second": lambda t: -np.cos(t)}, "is even"),
        ({"value": np.sin, "first": np.cos, "second": lambda t: -np.sin(t)}, "odd=False; its values say True"),
    ],
)
def test_activations_that_are_not_what_they_say_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        add_activation(silu(**changes))


def test_the_package_s_own_activations_would_pass():
    for one in list(activations.ACTIVATIONS.values()):
        if one.analytic:
            add_activation(replace(one, name=f"{one.name}_again"))


def test_an_added_truth_has_data_and_studies():
    add_activation(silu())
    known = prompt_truth("attention-gelu")
    params = replace(known.params, kind=PromptKind.parse("adaptive:silu"))
    mine = add_prompt_truth(replace(known, name="mine", params=params))
    assert prompt_truth("mine") is mine
    assert prompt_data("mine", 1000, seed=0).n == 1000
    study = attention_study(sizes=[1000], replicates=1, entropy=0, truths=["mine"], lines={})
    assert {cell.kind for cell in study.cells if hasattr(cell, "kind")} == {"adaptive:silu"}


@pytest.mark.parametrize("name", ["attention-gelu", "attention-random-7-fixed-rank1", "with space", "mine"])
def test_names_of_truths_are_new_and_fit_for_files(name):
    add_prompt_truth(replace(prompt_truth("attention-gelu"), name="mine"))
    with pytest.raises(InputError, match=f"{name!r} is taken or not of letters"):
        add_prompt_truth(replace(prompt_truth("attention-gelu"), name=name))


MODULE = """
from dataclasses import replace
import moe_prompts as mp
from moe_prompts.study.attention import run_cell

gelu = mp.prompt_truth("attention-gelu")
mp.add_activation(mp.Activation("cubic", lambda t: t + t**3, lambda t: 1 + 3 * t**2, lambda t: 6 * t, odd=True))
mp.add_prompt_truth(replace(gelu, name="mine", params=replace(gelu.params, kind=mp.PromptKind.parse("adaptive:cubic"))))

def run(cell, replicates, entropy):
    return run_cell(cell, replicates, entropy)
"""
SCRIPT = """
from dataclasses import replace
from pathlib import Path
import mine
import moe_prompts as mp
from moe_prompts.study.attention import AttentionCell, attention_study
from moe_prompts.engine.executors import Joblib

study = attention_study(sizes=[1_000, 2_000], replicates=1, entropy=0, truths=["mine"], lines={}, ks=[2])
fits = [cell for cell in study.cells if isinstance(cell, AttentionCell)]
study = replace(study, run=mine.run, cells=fits)
print(*mp.run_study(study, Path("run"), executor=Joblib(2), progress=False)["status"])
"""


@pytest.mark.slow
def test_workers_know_what_the_module_of_run_adds(tmp_path):
    (tmp_path / "mine.py").write_text(MODULE)
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["CERTIFIED", "CERTIFIED"]

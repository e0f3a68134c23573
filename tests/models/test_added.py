"""What users add: activations and truths of prompts. Each test takes back what it added."""

import copy
import subprocess
import sys
from dataclasses import replace

import commands
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import expit

from moe_prompts import (
    Activation,
    SoftmaxTruth,
    add_activation,
    add_prompt_truth,
    add_truth,
    prompt_data,
    prompt_truth,
    run_study,
    sample,
    softmax_truth,
    study,
    truth,
)
from moe_prompts.engine.executors import Joblib
from moe_prompts.errors import InputError
from moe_prompts.models import activations, added, prompt_truths
from moe_prompts.models.expert_truths import expert_data, expert_truth
from moe_prompts.models.prompt_attention import PromptAttention, PromptKind
from moe_prompts.study.attention import AttentionCell, attention_study, run_cell
from moe_prompts.study.experts import experts_study
from moe_prompts.study.gaussian import gaussian_study
from moe_prompts.study.softmax import softmax_study


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
def taken_back():
    # Contents are put back: a module that is first imported within a test would keep another dictionary for good.
    with commands.taken_back():
        added.ADDED.clear()
        yield


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
    planned = attention_study(sizes=[1000], replicates=1, entropy=0, truths=["mine"], lines={})
    assert {cell.kind for cell in planned.cells if hasattr(cell, "kind")} == {"adaptive:silu"}


TAKEN = [
    *("attention-gelu", "attention-random-7-fixed-rank1", "Attention-Gelu-heads2", "mine", "MINE", "gmoe-1", "sgame"),
    *("experts-softmax-tanh", "Experts-Sigmoid-Gelu-flat"),
]
KINDS_OF_TRUTHS = {
    "gaussian": lambda: truth("gmoe-1"),
    "prompts": lambda: prompt_truth("attention-gelu"),
    "softmax": lambda: softmax_truth("sgame"),
    "experts": lambda: expert_truth("experts-softmax-tanh"),
}


@pytest.mark.parametrize("kind", KINDS_OF_TRUTHS)
@pytest.mark.parametrize("name", TAKEN)
def test_a_name_belongs_to_one_truth_of_all_models(name, kind):
    add_prompt_truth(replace(prompt_truth("attention-gelu"), name="mine"))
    with pytest.raises(InputError, match=f"{name!r} is taken; expected a new one"):
        add_truth(replace(KINDS_OF_TRUTHS[kind](), name=name))


@pytest.mark.parametrize(
    "name", ["with space", "a/b", "../up", ".hidden", "-k", "", "under_score", "x" * 65, "é", "a\n"]
)
def test_names_of_truths_are_fit_for_files(name):
    with pytest.raises(InputError, match=r"expected letters, digits, '.' and '-' .* at most 64 characters"):
        add_truth(replace(truth("gmoe-1"), name=name))
    add_truth(replace(truth("gmoe-1"), name="x" * 64))
    with pytest.raises(InputError, match=r"Truth: name: a name of type int \(7\); expected text"):
        replace(truth("gmoe-1"), name=7)


def test_what_is_no_truth_is_refused():
    with pytest.raises(
        InputError, match="got function; expected a Truth, a PromptTruth, a SoftmaxTruth or an ExpertTruth"
    ):
        add_truth(lambda: truth("gmoe-1"))


def test_a_truth_of_another_model_is_no_truth_of_prompts():
    with pytest.raises(InputError, match="add_prompt_truth: a Truth; expected a PromptTruth"):
        add_prompt_truth(replace(truth("gmoe-1"), name="mine"))
    assert "mine" not in added.ADDED


def test_an_added_truth_is_found_by_its_own_model_alone():
    mine = add_truth(replace(truth("gmoe-1"), name="mine"))
    assert truth("mine") is mine
    assert sample("mine", 100, seed=0).n == 100
    for other in (prompt_truth, softmax_truth, expert_truth):
        with pytest.raises(InputError, match=r"unknown .*'mine'"):
            other("mine")


def test_an_added_truth_of_gated_experts_has_data_and_a_study():
    mine = add_truth(replace(expert_truth("experts-softmax-tanh"), name="mine", noise=0.5))
    assert expert_truth("mine") is mine
    assert expert_data("mine", 100, seed=0).n == 100
    planned = experts_study(sizes=[1000], replicates=1, entropy=0, ks={"mine": [2]})
    assert planned.identity["expert_truths_used"]["mine"]["noise"] == 0.5
    with pytest.raises(
        InputError, match="'mine' is a truth of class ExpertTruth; expected a Truth, a PromptTruth or a SoftmaxTruth"
    ):
        study("mine", seed=0)


def test_one_signal_for_every_relative_risk():
    """E |f*|^2 over the design, by the sum of squares point by point."""
    known = prompt_truth("attention-gelu")
    squares = [
        float(known.params.regression(point[None])[0] @ known.params.regression(point[None])[0]) for point in known.x
    ]
    assert known.signal == pytest.approx(np.mean(squares), rel=1e-12)


def inputs(n, rng):
    return rng.uniform(0.1, 0.9, size=(n, 1))


def studies_of_added_truths():
    """One study of each model, on truths, a sigma and inputs that no other process has heard of."""
    add_activation(silu())
    gelu, known = prompt_truth("attention-gelu"), softmax_truth("sgame")
    add_truth(replace(gelu, name="mine-silu", params=replace(gelu.params, kind=PromptKind.parse("adaptive:silu"))))
    add_truth(replace(truth("gmoe-1"), name="mine-gated"))
    add_truth(SoftmaxTruth("mine-softmax", known.params, lambda n, rng: inputs(n, rng), "a test"))
    given = {"sizes": [1_000], "replicates": 1, "entropy": 0}
    attention = attention_study(**given, truths=["mine-silu"], lines={}, ks=[2])
    fits = [cell for cell in attention.cells if isinstance(cell, AttentionCell)]
    return [
        replace(attention, cells=fits),
        gaussian_study(**given, truths=["mine-gated"], kinds=["adaptive"], ks=[3], start="near_truth"),
        softmax_study(**given, truths=["mine-softmax"], ks=[2]),
    ]


def test_workers_are_told_what_was_added(tmp_path):
    """Workers import the package afresh; without what travels with the study they know none of these names."""
    for one in studies_of_added_truths():
        rows = run_study(one, tmp_path / one.name, executor=Joblib(2, insist=True), progress=False)
        assert set(rows["status"]) == {"CERTIFIED"}
        again = run_study(one, tmp_path / f"{one.name}-here", progress=False)
        assert rows.equals(again)


def forgotten():
    """As in a new process, which knows nothing that was added."""
    added.ADDED.clear()
    for name in set(activations.ACTIVATIONS) - activations.BUILT_IN:
        del activations.ACTIVATIONS[name]
    prompt_truths._found.cache_clear()


def a_study(formula: str, kind: str = "adaptive:own"):
    add_activation("own", formula)
    return attention_study(sizes=[100], replicates=1, entropy=0, truths=["attention-fixed"], lines={}, kinds=[kind])


def test_a_run_is_not_resumed_with_another_activation_of_the_same_name(tmp_path):
    """The rows of both would stand in one table."""
    look = {"run": lambda cell, replicates, entropy: [{"replicate": replicate} for replicate in replicates]}
    run_study(replace(a_study("x/sqrt(1+x**2)"), **look), tmp_path / "run", progress=False)
    forgotten()
    run_study(replace(a_study("x/sqrt(1+x**2)"), **look), tmp_path / "run", resume=True, progress=False)
    forgotten()
    with pytest.raises(InputError, match=r"prompt_activations_used.own: .*x/sqrt.* there, .*tanh\(2\*x\).* here"):
        run_study(replace(a_study("tanh(2*x)"), **look), tmp_path / "run", resume=True, progress=False)


def test_an_activation_that_is_not_used_is_not_asked_for_again():
    assert "prompt_activations_used" not in a_study("tanh(2*x)", "fixed").identity


def test_a_worker_that_knows_another_one_by_that_name_says_so():
    """A worker outlives the command that it served: it would go on with what it learned first."""
    planned = a_study("x/sqrt(1+x**2)")
    forgotten()
    add_activation("own", "tanh(2*x)")
    with pytest.raises(InputError, match=r"knows another activation named 'own'.*; expected a new name"):
        planned.run(planned.cells[-1], (0,), 0)


def test_a_worker_that_knows_another_truth_by_that_name_says_so():
    given = {"sizes": [300], "replicates": 1, "entropy": 0, "truths": ["mine"], "kinds": ["adaptive"], "ks": [3]}
    known = truth("gmoe-1")
    add_truth(replace(known, name="mine"))
    planned = gaussian_study(**given)
    forgotten()
    add_truth(replace(known, name="mine", params=known.params.atoms([1, 0])))
    with pytest.raises(InputError, match="knows another truth named 'mine'"):
        planned.run(planned.cells[0], (0,), 0)


def test_a_copy_of_what_was_added_is_the_same():
    silu_of = add_activation(silu())
    for one in (truth("gmoe-1"), prompt_truth("attention-gelu-heads2"), softmax_truth("sgame"), silu_of):
        assert added.same_contents(one, copy.copy(one))
        assert added.same_contents(one, copy.deepcopy(one))
        assert not added.same_contents(one, replace(one, name="other")) or isinstance(one, Activation)
    assert not added.same_contents(silu_of, replace(silu_of, first=silu_of.second))


def test_studies_of_the_packages_own_truths_run_as_they_are():
    planned = attention_study(sizes=[1000], replicates=1, entropy=0, truths=["attention-fixed"], lines={})
    assert planned.run is run_cell


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

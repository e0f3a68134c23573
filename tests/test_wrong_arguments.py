"""Every public function gets each of its arguments wrong, one at a time: it takes it, or says so in one line.

``CALLS`` has a call that works for every public name; a new name is one more row, which a test asks for. Each of its
arguments is then replaced by each of ``wrong.WRONG``. Any exception other than ``InputError`` is a fault.
"""

import inspect
import json
import tempfile
from dataclasses import dataclass, fields, replace
from enum import EnumType
from itertools import count
from pathlib import Path

import commands
import numpy as np
import pytest
from wrong import faults

import moe_prompts as mp
from moe_prompts.models import activations, added
from moe_prompts.theory.atoms import atom

#: What only the package makes: results, and enums.
MADE_BY_THE_PACKAGE = {"FitResult", "StudyResult", "Certificate", "FitStatus", "Verdict", "InputError"}


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def own(params) -> dict:
    """The fields of a dataclass, as arguments."""
    return {one.name: getattr(params, one.name) for one in fields(params)}


@dataclass(frozen=True)
class OneCell:
    label: str = "one"
    cost: float = 1.0
    data_size: int = 3


NEW_FOLDER = object()
NUMBERS = count()


def run_study(out, **arguments):
    """A new folder for each call, or a second one would be refused whatever it is given."""
    with tempfile.TemporaryDirectory() as folder:
        return mp.run_study(out=Path(folder) / "run" if out is NEW_FOLDER else out, **arguments)


def added_truth(add, new):
    """A new name for each call."""
    return add(replace(new, name=f"truth-{next(NUMBERS)}") if hasattr(new, "citation") else new)


GATED = mp.truth("gmoe-1")
PAIRS = GATED.params.sample(60, rng())
STREAM = GATED.params.streamed(100, rng())
SOFT = mp.softmax_truth("sgame")
SOFT_PAIRS = SOFT.sample(60, rng())
PROMPT = mp.prompt_truth("attention-fixed")
HEAD, PROMPTS = PROMPT.params.head, PROMPT.params
FAMILY, DATA = PROMPTS.family, PROMPT.data(200, rng())
POINTS = DATA.x[:3]
KEYS, VALUES = PROMPTS.prompts(POINTS)
VECTOR = mp.vector_near_truth(PROMPTS, FAMILY.k, 1, rng())
ONE = mp.GaussianGatedFamily(1, 1, 1)
START = mp.GaussianGatedMoE.univariate([1.0], [0.0], [1.0], [0.0], [0.0], [1.0])
NORMAL = mp.Sample(rng().standard_normal((40, 1)), np.random.default_rng(1).standard_normal((40, 1)))
SQUARE = rng().standard_normal((4, 4, 4))
ERRORS = {100 * 4**i: np.abs(rng().standard_normal(20)) / 2**i for i in range(4)}
RATES = json.loads(mp.rate_table("softmax-gaussian", cells=[1, 1]).to_json())
X, Y = PAIRS
FEW = {"max_iterations": 2}
NEW = np.random.default_rng


def call(function, **arguments):
    return function, arguments


def studies() -> dict:
    """Calls that run a study or a search: each is a row of its own, since they take longest."""
    one = mp.Study("one", [OneCell()], 1, 0, run=lambda cell, replicates, entropy: [{"replicate": 0}])
    small = {"seed": 0, "kinds": None, "ks": [3], "n": [100], "points": 5, "reps": 1, "start": None, "workers": 1}
    search = {"rng_of": lambda i: NEW(i), "sample": NORMAL, "family": ONE}
    return {
        "run_study": call(
            run_study, study=one, out=NEW_FOLDER, executor=None, resume=False, allow=(), progress=False, look=None
        ),
        "study": call(mp.study, truth="gmoe-1", **small, out=None, progress=False),
        "best_of": call(mp.best_of, start=mp.starts.near_truth(START), options=mp.SearchOptions(2, 1, 0), **search),
        "global_maximum": call(
            mp.global_maximum,
            **search | {"sample": PAIRS, "family": mp.GaussianGatedFamily(1, 1, 2)},
            options=mp.GlobalOptions(2, 1),
        ),
        "fit": call(mp.fit, data=NORMAL, k=1, seed=0, family="gaussian", truth=None, noise=None, starts=1),
        "fit.prompts": call(mp.fit, data=DATA, k=2, seed=0, family="fixed", truth=PROMPT, noise=0.1, starts=1),
        "least_squares": call(
            mp.least_squares,
            family=FAMILY,
            data=[DATA],
            starts=[VECTOR[None]],
            noise=PROMPT.noise,
            options=mp.LeastSquaresOptions(**FEW),
            keys=False,
        ),
        "kappas": call(mp.kappas, truth=PROMPT, rng=rng()),
        "profile": call(mp.profile, truth=PROMPT, rng=rng(), surplus=1, eps=(0.1, 0.2), box=None, directions=4),
        "likelihood_gaps": call(
            mp.likelihood_gaps,
            truth=PROMPT,
            data=[DATA],
            spread=0.1,
            rng=rng(),
            options=mp.LeastSquaresOptions(**FEW),
        ),
    }


def gated() -> dict:
    params, family = GATED.params, GATED.family
    weights, means, covs = params.to_joint()
    normals = {"x": rng().standard_normal((5, 1)), "y": rng().standard_normal((5, 1))}
    ones = {"weights": [1.0], "gate_means": [0], "gate_covs": [1], "slopes": [1], "intercepts": [0], "noise_covs": [1]}
    by_x = {f"GaussianGatedMoE.{name}": call(getattr(params, name), x=X) for name in ("gates", "regression")}
    by_pair = {
        f"GaussianGatedMoE.{name}": call(getattr(params, name), x=X, y=Y)
        for name in ("log_density", "responsibilities", "log_expert_terms")
    }
    return {
        **by_x,
        **by_pair,
        "GaussianGatedMoE": call(mp.GaussianGatedMoE, **own(params)),
        "GaussianGatedMoE.univariate": call(mp.GaussianGatedMoE.univariate, **ones),
        "GaussianGatedMoE.atoms": call(params.atoms, index=[0]),
        "GaussianGatedMoE.joined": call(params.joined, other=params, mass_of_other=0.5),
        "GaussianGatedMoE.rescaled": call(params.rescaled, shift_x=[0], scale_x=[1], shift_y=[0], scale_y=[1]),
        "GaussianGatedMoE.from_joint": call(
            mp.GaussianGatedMoE.from_joint, weights=weights, means=means, covs=covs, d=1
        ),
        "GaussianGatedMoE.log_gate_terms": call(params.log_gate_terms, x=X),
        "GaussianGatedMoE.sample": call(params.sample, n=5, rng=rng()),
        "GaussianGatedMoE.streamed": call(params.streamed, n=5, rng=rng(), chunk=10),
        "GaussianGatedMoE.from_standard": call(params.from_standard, uniforms=rng().random(5), **normals),
        "GaussianGatedFamily": call(mp.GaussianGatedFamily, **own(family)),
        "GaussianGatedFamily.check_sample": call(family.check_sample, sample=PAIRS),
        "GaussianGatedFamily.project": call(family.project, params=params),
        "Sample": call(mp.Sample, x=X, y=Y),
        "Sample.head": call(PAIRS.head, n=3),
        "Sample.thinned": call(PAIRS.thinned, n=3),
        "StreamedSample": call(mp.StreamedSample, **own(STREAM)),
        "StreamedSample.head": call(STREAM.head, n=3),
        "Truth": call(mp.Truth, **own(GATED)),
        "Truth.family_with": call(GATED.family_with, k=2, experts="affine", tied_gate=False),
        "truth": call(mp.truth, name="gmoe-1"),
        "sample": call(mp.sample, name="gmoe-1", n=5, seed=0, replicate=0),
        "streamed": call(mp.streamed, name="gmoe-1", n=5, seed=0, replicate=0, chunk=10),
        "em": call(mp.em, family=ONE, sample=NORMAL, start=START, options=mp.EMOptions(), weights=np.ones(40)),
        "newton": call(mp.newton, family=ONE, sample=NORMAL, start=START, options=None, weights=np.ones(40)),
        "voronoi_loss": call(mp.voronoi_loss, fitted=params, truth=params, variant="intrinsic"),
        "voronoi_errors": call(mp.voronoi_errors, fitted=params, truth=params, n_frozen=0),
        "Evaluation": call(mp.Evaluation, truth=params),
        "Evaluation.excess_risk": call(mp.Evaluation(params).excess_risk, fitted=params),
        "Evaluation.hellinger": call(mp.Evaluation(params).hellinger, fitted=params),
        "merge_path": call(mp.merge_path, fit=params, n_frozen=0),
        "MergePath.model": call(mp.merge_path(params).model, k=2),
        "MergePath.height": call(mp.merge_path(params).height, k=2),
        "choose_k": call(mp.choose_k, fit=params, sample=PAIRS, omega=None, n_frozen=0),
        "starts.near_truth": call(mp.starts.near_truth, truth=params, k_true=None),
        "starts.data": call(mp.starts.data, count=2),
    }


def soft() -> dict:
    params, family = SOFT.params, mp.SoftmaxGatedFamily(1, 2)
    x = SOFT_PAIRS.x
    fits = {"family": family, "sample": SOFT_PAIRS, "start": params}
    by_x = {
        f"SoftmaxGatedMoE.{name}": call(getattr(params, name), x=x)
        for name in ("gate_logits", "gates", "expert_means", "regression")
    }
    return {
        **by_x,
        "SoftmaxGatedMoE": call(mp.SoftmaxGatedMoE, **own(params)),
        "SoftmaxGatedMoE.atoms": call(params.atoms, index=[0]),
        "SoftmaxGatedMoE.translated": call(params.translated, intercept=1.0, slope=[1.0]),
        "SoftmaxGatedMoE.log_density": call(params.log_density, sample=SOFT_PAIRS),
        "SoftmaxGatedMoE.respond": call(params.respond, x=x, rng=rng()),
        "SoftmaxGatedMoE.rescaled": call(params.rescaled, shift_x=[0], scale_x=[1], shift_y=0.0, scale_y=1.0),
        "SoftmaxGatedFamily": call(mp.SoftmaxGatedFamily, d=1, k=2),
        "SoftmaxGatedFamily.check": call(family.check, params=params),
        "SoftmaxGatedFamily.check_sample": call(family.check_sample, sample=SOFT_PAIRS),
        "SoftmaxTruth": call(mp.SoftmaxTruth, **own(SOFT)),
        "SoftmaxTruth.family": call(SOFT.family, k=2),
        "SoftmaxTruth.sample": call(SOFT.sample, n=4, rng=rng()),
        "softmax_truth": call(mp.softmax_truth, name="sgame"),
        "softmax_sample": call(mp.softmax_sample, name="sgame", n=5, seed=0, replicate=0),
        "softmax_newton": call(mp.softmax_newton, **fits, options=mp.SoftmaxOptions(**FEW)),
        "softmax_em": call(mp.softmax_em, **fits, options=mp.EMOptions(**FEW)),
        "softmax_loss": call(mp.softmax_loss, fitted=params, truth=params, variant="intrinsic", translate=True),
        "softmax_errors": call(mp.softmax_errors, fitted=params, truth=params, translate=True, variant="intrinsic"),
    }


def prompts() -> dict:
    several = mp.MultiHead((HEAD,))
    at_heads = {}
    for name, head in (("Head", HEAD), ("MultiHead", several)):
        at_heads |= {
            f"{name}.read": call(head.read, x=POINTS),
            f"{name}.gates": call(head.gates, x=POINTS, keys=KEYS, b=PROMPTS.b),
            f"{name}.output": call(head.output, x=POINTS, keys=KEYS, values=VALUES, b=PROMPTS.b),
        }
    drawn = rng().standard_normal((2, 2))
    adaptive = mp.PromptAttention.adaptive
    return {
        **at_heads,
        "Head": call(mp.Head, **own(HEAD)),
        "Head.gates_and_experts": call(HEAD.gates_and_experts, x=POINTS),
        "Head.queries": call(HEAD.queries, x=POINTS),
        "MultiHead": call(mp.MultiHead, **own(several)),
        "from_head": call(mp.from_head, W_Q=SQUARE[0], W_K=SQUARE[1], W_V=SQUARE[2], tokens=3, bias=None, query=0),
        "from_block": call(
            mp.from_block,
            **dict(zip(("W_Q", "W_K", "W_V", "W_O"), SQUARE, strict=True)),
            heads=2,
            tokens=3,
            bias=None,
            query=0,
        ),
        "token_wise": call(mp.token_wise, W1=np.ones((2, 3)), projectors=np.ones((5, 4))),
        "PromptKind": call(mp.PromptKind, base="fixed", sigma="", bias=False, value=""),
        "PromptKind.parse": call(mp.PromptKind.parse, text="fixed"),
        "PromptFamily": call(mp.PromptFamily, head=HEAD, kind=PROMPTS.kind, k=2, hidden=2),
        "PromptFamily.slot": call(FAMILY.slot, prompt=0),
        "PromptFamily.with_k": call(FAMILY.with_k, k=2),
        "PromptFamily.unpack": call(FAMILY.unpack, vector=VECTOR),
        "PromptFamily.split": call(FAMILY.split, vectors=VECTOR[None]),
        "PromptAttention": call(mp.PromptAttention, **own(PROMPTS)),
        "PromptAttention.fixed": call(mp.PromptAttention.fixed, head=HEAD, b=np.zeros(2), prompts=drawn),
        "PromptAttention.decoupled": call(
            mp.PromptAttention.decoupled, head=HEAD, b=np.zeros(2), keys=drawn, values=drawn
        ),
        "PromptAttention.adaptive": call(
            adaptive, head=HEAD, b=np.zeros(2), W1=np.ones((2, 2, 2)), W2=drawn, sigma="gelu", bias=False
        ),
        "PromptAttention.chosen": call(PROMPTS.chosen, atoms=[0]),
        "PromptAttention.prompts": call(PROMPTS.prompts, x=POINTS),
        "PromptAttention.gates": call(PROMPTS.gates, x=POINTS),
        "PromptAttention.regression": call(PROMPTS.regression, x=POINTS),
        "PromptAttention.sample": call(PROMPTS.sample, n=4, rng=rng(), noise=0.1),
        "PromptTruth": call(mp.PromptTruth, **own(PROMPT)),
        "PromptTruth.family": call(PROMPT.family, kind=PROMPTS.kind, k=2),
        "PromptTruth.data": call(PROMPT.data, n=5, rng=rng()),
        "PromptTruth.population": call(PROMPT.population, n=1),
        "prompt_truth": call(mp.prompt_truth, name="attention-fixed"),
        "add_truth": call(lambda new: added_truth(mp.add_truth, new), new=GATED),
        "add_prompt_truth": call(lambda new: added_truth(mp.add_prompt_truth, new), new=PROMPT),
        "Activation": call(
            mp.Activation,
            **own(activations.ACTIVATIONS["tanh"]),
        ),
        "Activation.of_formula": call(mp.Activation.of_formula, name="own", text="tanh(x)"),
        "add_activation": call(
            lambda new, formula: mp.add_activation(f"own{next(NUMBERS)}" if new == "own" else new, formula),
            new="own",
            formula="x/sqrt(1+x**2)",
        ),
        "prompt_data": call(mp.prompt_data, name="attention-fixed", n=5, seed=0, replicate=0),
        "RegressionData": call(mp.RegressionData, **own(DATA)),
        "RegressionData.of": call(mp.RegressionData.of, sample=PAIRS),
        "near_truth": call(mp.near_truth, truth=PROMPTS, k=3, number=1, rng=rng()),
        "vector_near_truth": call(mp.vector_near_truth, truth=PROMPTS, k=3, number=1, rng=rng()),
        "random_start": call(mp.random_start, family=FAMILY, rng=rng(), box=mp.Box()),
        "Box.bounds": call(mp.Box().bounds, family=FAMILY),
        "quadrature": call(
            mp.quadrature, sample=mp.Sample(rng().uniform(-1, 1, (5, 1)), np.ones(5)), kind=PROMPTS.kind, nodes=8
        ),
        "prompt_loss": call(mp.prompt_loss, fitted=PROMPTS, truth=PROMPTS),
        "prompt_errors": call(mp.prompt_errors, fitted=PROMPTS, truth=PROMPTS),
    }


def the_rest() -> dict:
    options = (mp.EMOptions, mp.NewtonOptions, mp.GlobalOptions, mp.SearchOptions, mp.LeastSquaresOptions)
    asked = {"model": "gaussian-gated", "truth_kind": "adaptive", "kind": "affine", "fit_class": "exact", "group": "D"}
    return {
        **{one.__name__: call(one, **own(one())) for one in (*options, mp.SoftmaxOptions, mp.Box)},
        "slope": call(mp.slope, samples=ERRORS, rng=rng(), statistic="median", resamples=100),
        "power": call(
            mp.power,
            n=[100, 400, 1600],
            replicates=10,
            scatter=0.5,
            rng=rng(),
            predicted=-0.5,
            true=None,
            statistic="median",
            band=0.08,
            bound=False,
            simulations=10,
        ),
        "replicates_needed": call(
            mp.replicates_needed,
            n=[100, 400, 1600],
            scatter=0.5,
            rng=rng(),
            predicted=-0.5,
            wanted=0.8,
            statistic="median",
            bound=False,
        ),
        "predict": call(mp.predict, **asked),
        "rate_table": call(
            mp.rate_table, model="fixed", cells=[1], frozen=None, d=None, hidden=None, rank=None, stratum=None
        ),
        "dependences": call(mp.dependences, of=atom("location-scale"), order=2, stratum=None),
        "verify": call(mp.verify, certificate=next(iter(RATES["certificates"].values()))),
        "verify_table": call(mp.verify_table, table=RATES),
        "Study": call(
            mp.Study,
            name="one",
            cells=[OneCell()],
            replicates=1,
            entropy=0,
            run=print,
            identity={},
            describe={},
            weights={},
        ),
    }


CALLS = gated() | soft() | prompts() | the_rest() | studies()


@pytest.fixture(autouse=True)
def taken_back(monkeypatch, tmp_path):
    """Truths and activations that are added, and folders that are made by a name, are gone afterwards."""
    monkeypatch.chdir(tmp_path)
    # Contents are put back: a module that is first imported within a test would keep another dictionary for good.
    with commands.taken_back():
        added.ADDED.clear()
        yield


# NumPy warns of many wrong values on the way; what counts here is how a call ends.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CALLS)
def test_a_wrong_argument_is_taken_or_refused_in_one_line(name):
    found = faults(name, CALLS[name])
    assert not found, "\n".join(found)


def test_every_public_function_is_called():
    public = {name for name in mp.__all__ if callable(getattr(mp, name))}
    assert public - set(CALLS) <= MADE_BY_THE_PACKAGE


def test_every_argument_is_given():
    """By keyword, so that a new parameter of a public function is noticed here."""
    for name, (function, arguments) in CALLS.items():
        if not isinstance(function, EnumType):
            expected = {
                one.name
                for one in inspect.signature(function).parameters.values()
                if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)
            }
            assert expected <= set(arguments), name

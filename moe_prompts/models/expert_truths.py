"""Name the truths of regression by gated experts.

They are ``experts-GATE-SIGMA``, with ``-flat`` after it where the first sigmoid gate has no slope.

All have d = 2 inputs on the midpoints of a grid over [-1, 1]^2, two experts, one output and noise .01. As in
``prompt_truths``, counts and means of the cells are exactly sufficient. Those that claims look at were chosen
for large kappas among 300 random draws, before any data.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import numpy as np

from moe_prompts.checks import count, named
from moe_prompts.errors import InputError
from moe_prompts.models.activations import ACTIVATIONS
from moe_prompts.models.added import added
from moe_prompts.models.data import RegressionData
from moe_prompts.models.expert_regression import GATES, ExpertFamily, ExpertRegression, Gate
from moe_prompts.models.prompt_truths import midpoint_grid
from moe_prompts.models.regression_truths import RegressionTruth
from moe_prompts.seeds import address, data_rng

#: Experts of every truth, and inputs.
TRUE_EXPERTS, INPUTS = 2, 2
#: Standard deviation of the output: experts are of order 1, and splits of them are seen from n = 1e4 on.
NOISE = 0.01


@dataclass(frozen=True, eq=False)
class ExpertTruth(RegressionTruth):
    """Hold the parameters that generate data of a regression by gated experts, with design and source.

    name      what ``expert_truth``, ``expert_data`` and studies call it
    params    gates and experts
    noise     standard deviation of the output
    x         (m, d), the points of the design
    citation  source of the parameters

    Raises ``InputError`` where one of them is of another kind or shape.

    >>> truth = expert_truth("experts-softmax-tanh")
    >>> truth.k_true, truth.noise, truth.x.shape
    (2, 0.01, (256, 2))
    """

    params: ExpertRegression

    PARAMS_TYPE: ClassVar[type] = ExpertRegression
    NOISE_INTERVAL: ClassVar[str] = "(0, inf)"

    @property
    def kind(self) -> str:
        """Return gate and activation in one word."""
        return self.params.kind

    @property
    def can_split(self) -> bool:
        """Return whether one expert more has the same f: softmax gates, or a sigmoid gate without slope."""
        return self.params.gate == "softmax" or bool((self.params.beta == 0).all(axis=1).any())

    def family(self, k: int) -> ExpertFamily:
        """Return the family of ``k`` such experts."""
        return self.params.family.with_k(k)


def random_regression(gate: Gate, sigma: str, flat: bool, number: int) -> ExpertRegression:
    """Return two experts drawn from seed ``number``.

    Gate slopes are N(0, 2^2), intercepts of gates N(0, .5^2); a ~ N(0, 2^2) and c ~ N(0, 1). With ``flat``
    the first gate has slope 0 and a height of 1 / 2 at most, below which its split in two is regular.
    """
    rng = np.random.default_rng([address("experts"), address(f"{gate} {sigma} {flat}"), number])
    b = 0.5 * rng.standard_normal(TRUE_EXPERTS)
    beta = 2 * rng.standard_normal((TRUE_EXPERTS, INPUTS))
    a, c = 2 * rng.standard_normal((TRUE_EXPERTS, INPUTS)), rng.standard_normal((TRUE_EXPERTS, 1))
    if flat:
        b[0], beta[0] = -abs(b[0]), 0
    if gate == "softmax":  # the translation at which gates have mean 0
        b, beta = b - b.mean(), beta - beta.mean(axis=0)
    return ExpertRegression(gate, sigma, b, np.concatenate([beta, a, c], axis=1))


_NAME = re.compile(r"experts-(?P<gate>[a-z]+)-(?P<sigma>[a-z][a-z0-9_]*)(?P<flat>-flat)?")

#: Truth -> the seed of its numbers: of 0 .. 299 the one with the largest kappa2 (for the identity kappa1)
#: without noise, see ``identifiability.kappas``. Others have seed 0 and were not selected. Sigmoid gates over
#: tanh: the largest kappa1 of those whose intercepts c are above .5, as fits keep theirs above .25
#: (``SIGMOID_BOX``).
NUMBERS: dict[str, int] = {
    "experts-softmax-tanh": 220,
    "experts-softmax-gelu": 82,
    "experts-softmax-identity": 261,
    "experts-sigmoid-tanh": 78,
    "experts-sigmoid-tanh-flat": 29,
    "experts-sigmoid-gelu-flat": 91,
}


def _read(name: str) -> re.Match[str] | None:
    """Return the parts of a name of the package's own truths; None where it is none of them."""
    found = _NAME.fullmatch(name)
    known = found and found["gate"] in GATES and found["sigma"] in ACTIVATIONS
    return found if found and known and (not found["flat"] or found["gate"] == "sigmoid") else None


def names_one(name: str) -> bool:
    """Return whether ``name`` is one of the package's own truths of gated experts."""
    return _read(name) is not None


def expert_truth(name: str) -> ExpertTruth:
    """Return a named truth of regression by gated experts.

    Names are ``experts-GATE-SIGMA`` with GATE softmax or sigmoid and SIGMA an activation, and with ``-flat``
    after it where the first sigmoid gate has no slope; or what ``add_truth`` made known.

    Raises ``InputError`` for an unknown name.
    """
    return _found(named(name, "expert_truth"))


@cache
def _found(name: str) -> ExpertTruth:
    if mine := added(name, ExpertTruth):
        return mine
    found = _read(name)
    if not found:
        raise InputError(
            f"unknown truth {name!r}; expected experts-GATE-SIGMA, GATE one of {', '.join(GATES)}, SIGMA one of "
            f"{', '.join(ACTIVATIONS)}, with -flat after it for a sigmoid gate without slope; or one that add_truth "
            "made known"
        )
    number = NUMBERS.get(name, 0)
    params = random_regression(found["gate"], found["sigma"], bool(found["flat"]), number)  # type: ignore[arg-type]
    chosen = ", with the largest kappas of 300" if name in NUMBERS else ""
    source = f"this project, drawn at random from seed {number}{chosen}"
    return ExpertTruth(name, params, NOISE, midpoint_grid(), source)


def expert_data(name: str, n: int, seed: int, replicate: int = 0) -> RegressionData:
    """Draw n pairs from the named truth, as a study of entropy ``seed`` does for ``replicate``."""
    n, replicate = count(n, 1, "expert_data: n"), count(replicate, 0, "expert_data: replicate")
    return expert_truth(name).data(n, data_rng(seed, name, n, replicate))

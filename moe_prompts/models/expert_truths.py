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

import numpy as np

from moe_prompts.checks import count, expect, finite, generator, named, real, table
from moe_prompts.errors import InputError
from moe_prompts.models.activations import ACTIVATIONS
from moe_prompts.models.data import RegressionData
from moe_prompts.models.expert_regression import GATES, ExpertFamily, ExpertRegression, Gate
from moe_prompts.models.prompt_truths import midpoint_grid
from moe_prompts.seeds import address, data_rng

#: Experts of every truth, and inputs.
TRUE_EXPERTS, INPUTS = 2, 2
#: Standard deviation of the output: experts are of order 1, and splits of them are seen from n = 1e4 on.
NOISE = 0.01


@dataclass(frozen=True, eq=False)
class ExpertTruth:
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

    name: str
    params: ExpertRegression
    noise: float
    x: np.ndarray
    citation: str

    def __post_init__(self) -> None:
        named(self.name, "ExpertTruth: name")
        named(self.citation, "ExpertTruth: citation")
        expect(self.params, ExpertRegression, "ExpertTruth: params")
        object.__setattr__(self, "noise", real(self.noise, "(0, inf)", "ExpertTruth: noise"))
        x = finite(table(self.x, self.params.d, "ExpertTruth: x"), "ExpertTruth: x")
        if not len(x):
            raise InputError("ExpertTruth: x has no points; expected at least one")
        object.__setattr__(self, "x", x)

    @property
    def kind(self) -> str:
        """Return gate and activation in one word."""
        return self.params.kind

    @property
    def k_true(self) -> int:
        """Return the number of experts."""
        return self.params.k

    @property
    def signal(self) -> float:
        """Return E f*^2 over the points of the design."""
        return float((self.params.regression(self.x) ** 2).mean())

    def family(self, k: int) -> ExpertFamily:
        """Return the family of ``k`` such experts."""
        return self.params.family.with_k(k)

    def data(self, n: int, rng: np.random.Generator) -> RegressionData:
        """Draw n pairs, exactly: multinomial counts of the cells and Gaussian sums of their outputs.

        Raises ``InputError`` where n is no positive whole number.
        """
        n = count(n, 1, "data: n")
        generator(rng, "data")
        m = len(self.x)
        counts = rng.multinomial(n, np.full(m, 1 / m))
        noise = self.noise * np.sqrt(counts)[:, None] * rng.standard_normal((m, 1))
        return RegressionData(self.x, counts, counts[:, None] * self.params.regression(self.x) + noise, n)

    def population(self, n: int = 1) -> RegressionData:
        """Return the expectation of ``data(n)``: no noise, every cell as often as any other."""
        share = real(n, "(0, inf)", "population: n") / len(self.x)
        return RegressionData(self.x, np.full(len(self.x), share), share * self.params.regression(self.x), n)


def drawn(gate: Gate, sigma: str, flat: bool, number: int) -> ExpertRegression:
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

#: Truth -> the seed of its numbers: of 0 .. 299 the one with the largest kappa2 (for the identity kappa1) without
#: noise, see ``identifiability.kappas``. Others have seed 0 and were not selected.
NUMBERS: dict[str, int] = {
    "experts-softmax-tanh": 220,
    "experts-softmax-gelu": 82,
    "experts-softmax-identity": 261,
    "experts-sigmoid-tanh-flat": 54,
    "experts-sigmoid-gelu-flat": 91,
}


def expert_truth(name: str) -> ExpertTruth:
    """Return a named truth of regression by gated experts.

    Names are ``experts-GATE-SIGMA`` with GATE softmax or sigmoid and SIGMA an activation, and with ``-flat``
    after it where the first sigmoid gate has no slope.

    Raises ``InputError`` for an unknown name.
    """
    return _found(named(name, "expert_truth"))


@cache
def _found(name: str) -> ExpertTruth:
    found = _NAME.fullmatch(name)
    flat = bool(found and found["flat"])
    if (
        not found
        or found["gate"] not in GATES
        or found["sigma"] not in ACTIVATIONS
        or (flat and found["gate"] != "sigmoid")
    ):
        raise InputError(
            f"unknown truth {name!r}; expected experts-GATE-SIGMA, GATE one of {', '.join(GATES)}, SIGMA one of "
            f"{', '.join(ACTIVATIONS)}, with -flat after it for a sigmoid gate without slope"
        )
    number = NUMBERS.get(name, 0)
    params = drawn(found["gate"], found["sigma"], flat, number)  # type: ignore[arg-type]  # checked above
    chosen = ", with the largest kappas of 300" if name in NUMBERS else ""
    source = f"this project, drawn at random from seed {number}{chosen}"
    return ExpertTruth(name, params, NOISE, midpoint_grid(), source)


def expert_data(name: str, n: int, seed: int, replicate: int = 0) -> RegressionData:
    """Draw n pairs from the named truth, as a study of entropy ``seed`` does for ``replicate``."""
    n, replicate = count(n, 1, "expert_data: n"), count(replicate, 0, "expert_data: replicate")
    return expert_truth(name).data(n, data_rng(seed, name, n, replicate))

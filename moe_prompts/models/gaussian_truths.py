"""Named truths: the parameters that generate data in a study, with the family they belong to and their source.

``sample(name, n, seed)`` draws from any of them, and draws exactly what a study with that seed fits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import numpy as np

from moe_prompts.errors import InputError
from moe_prompts.models.data import CHUNK, RegressionData, Sample, StreamedSample
from moe_prompts.models.gaussian_gated import GaussianGatedFamily, GaussianGatedMoE
from moe_prompts.models.prompt_truths import prompt_truth
from moe_prompts.seeds import address, data_rng


@dataclass(frozen=True)
class Truth:
    """``params`` (free atoms first, then frozen ones), the exact ``family`` and where they come from.

    ``kind`` is the prompt kind that the truth is made of: "adaptive" (affine experts) or "fixed" (constant ones).
    """

    name: str
    params: GaussianGatedMoE
    family: GaussianGatedFamily
    kind: str
    citation: str

    @property
    def k_true(self) -> int:
        return self.family.k

    def family_with(self, k: int, experts: str, tied_gate: bool = False) -> GaussianGatedFamily:
        """The same inputs, outputs and frozen atoms with ``k`` free atoms of another kind."""
        return GaussianGatedFamily(self.family.d, self.family.l, k, experts, tied_gate, self.family.frozen)


def published(model: int) -> Truth:
    """Models 1 to 4 of the published Gaussian-gated simulations (arXiv 2305.07572): three affine atoms.

    Models 1, 2 have d = 1 and models 3, 4 d = 2 with equal coordinates. Models 1, 3 have every c_k != 0 (type I),
    models 2, 4 have c_1 = 0 (type II).
    """
    if model not in (1, 2, 3, 4):
        raise InputError(f"published: model {model}; expected 1, 2, 3 or 4")
    d = 1 if model in (1, 2) else 2
    first_mean, mean_in_noise = (-0.1, -0.1) if model in (1, 3) else (0.0, 1.0)
    gate_means = np.repeat([[first_mean], [0.1], [0.5]], d, axis=1)
    variances = np.array([0.042824, 0.0175, 0.01])
    slope = np.array([0.017324 / 0.042824, -0.0125 / 0.0175, 0.0])
    intercepts = [0.3 - slope[0] * first_mean, -0.4 - slope[1] * 0.1, 0.2]
    noise = [0.0081759 - slope[0] * mean_in_noise * 0.017324, 0.0175 + 0.0125**2 / 0.0175, 0.0175]
    params = GaussianGatedMoE(
        weights=np.array([0.3, 0.4, 0.3]),
        gate_means=gate_means,
        gate_covs=variances[:, None, None] * np.eye(d),
        slopes=np.repeat(slope[:, None, None], d, axis=2),
        intercepts=np.reshape(intercepts, (3, 1)),
        noise_covs=np.reshape(noise, (3, 1, 1)),
    )
    return Truth(f"gmoe-{model}", params, GaussianGatedFamily(d, 1, 3), "adaptive", "arXiv 2305.07572, simulations")


def _with_prompts(name: str, kind: str, prompts: GaussianGatedMoE, citation: str) -> Truth:
    """Two frozen experts (weights .2, .2) beside two prompt experts (.3, .3), d = l = 1."""
    frozen = GaussianGatedMoE.univariate([0.5, 0.5], [-2, 2], [0.5, 0.5], [0.3, -0.4], [-1, 1], [0.05, 0.05])
    experts = "affine" if kind == "adaptive" else "constant"
    family = GaussianGatedFamily(1, 1, prompts.k, experts, frozen=frozen)
    return Truth(name, prompts.joined(frozen, 0.4), family, kind, citation)


def prompts_adaptive() -> Truth:
    """The reference: two frozen experts and two adaptive prompts, whose experts are functions of x."""
    prompts = GaussianGatedMoE.univariate([0.5, 0.5], [-0.5, 0.9], [0.35, 0.35], [1.6, -1.8], [0.5, 0.2], [0.05, 0.05])
    return _with_prompts(
        "prompts-adaptive", "adaptive", prompts, "this project: the reference truth of docs/notation.md"
    )


def prompts_fixed() -> Truth:
    """The reverse: the same with constant prompt experts (b_k is the reference expert's value at c_k)."""
    reference = prompts_adaptive().params.atoms([0, 1])
    level = reference.intercepts + np.einsum("kld,kd->kl", reference.slopes, reference.gate_means)
    prompts = GaussianGatedMoE.univariate([0.5, 0.5], [-0.5, 0.9], [0.35, 0.35], [0, 0], level.ravel(), [0.05, 0.05])
    return _with_prompts("prompts-fixed", "fixed", prompts, "this project: the reverse truth of docs/notation.md")


def prompts_random(number: int) -> Truth:
    """Random adaptive prompts beside the frozen pair of the reference; drawn once from seed ``number``, not selected.

    c ~ U[-1.5, 1.5], Gamma ~ U[.15, .6], A ~ N(0, 1.5^2), b ~ N(0, .7^2), nu = .05.
    """
    rng = np.random.default_rng([address("prompts-random"), number])
    prompts = GaussianGatedMoE.univariate(
        [0.5, 0.5], rng.uniform(-1.5, 1.5, 2), rng.uniform(0.15, 0.6, 2), 1.5 * rng.standard_normal(2),
        0.7 * rng.standard_normal(2), [0.05, 0.05],
    )  # fmt: skip
    return _with_prompts(f"prompts-random-{number}", "adaptive", prompts, "this project, drawn at random")


TRUTHS: dict[str, Callable[[], Truth]] = {
    **{f"gmoe-{model}": partial(published, model) for model in (1, 2, 3, 4)},
    "prompts-adaptive": prompts_adaptive,
    "prompts-fixed": prompts_fixed,
    **{f"prompts-random-{number}": partial(prompts_random, number) for number in range(1, 6)},
}


@cache
def truth(name: str) -> Truth:
    """The named truth; ``TRUTHS`` lists the names."""
    if name not in TRUTHS:
        raise InputError(f"unknown truth {name!r}; expected one of {', '.join(TRUTHS)}")
    return TRUTHS[name]()


def sample(name: str, n: int, seed: int, replicate: int = 0) -> Sample:
    """n pairs (x, y) from the named truth: the data that a study of entropy ``seed`` fits as ``replicate``."""
    return truth(name).params.sample(_whole(n), data_rng(seed, name, int(n), replicate))


def streamed(name: str, n: int, seed: int, replicate: int = 0, chunk: int = CHUNK) -> StreamedSample:
    """The same pairs as ``sample``, drawn again in each pass, ``chunk`` at a time: n = 1e8 in 1 GB."""
    return truth(name).params.streamed(_whole(n), data_rng(seed, name, int(n), replicate), chunk)


def prompt_data(name: str, n: int, seed: int, replicate: int = 0) -> RegressionData:
    """The same for a truth of prompt regression: n pairs as the sufficient statistics of its discrete design."""
    return prompt_truth(name).data(_whole(n), data_rng(seed, name, int(n), replicate))


def _whole(n: int) -> int:
    if int(n) != n or n < 1:
        raise InputError(f"sample: n = {n}; expected a positive whole number")
    return int(n)

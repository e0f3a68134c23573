"""Name the Gaussian-gated truths: the parameters that generate data, their family and their source.

``sample(name, n, seed)`` draws from any of them, and draws exactly what a study with that seed fits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import numpy as np

from moe_prompts.checks import count, expect, named, one_of
from moe_prompts.errors import InputError
from moe_prompts.models.added import added
from moe_prompts.models.data import CHUNK, RegressionData, Sample, StreamedSample
from moe_prompts.models.gaussian_gated import GaussianGatedFamily, GaussianGatedMoE
from moe_prompts.models.prompt_truths import prompt_truth
from moe_prompts.seeds import address, data_rng


@dataclass(frozen=True)
class Truth:
    """Hold the parameters that generate data, the family that they belong to, and where they come from.

    name      what ``truth``, ``sample`` and studies call it
    params    free atoms first, then frozen ones
    family    the exact family
    kind      the prompt kind that the truth is made of: "adaptive" (affine experts) or "fixed" (constant
              ones)
    citation  source of the parameters

    Raises ``InputError`` where one of them is of another kind.

    >>> import moe_prompts as mp
    >>> params = mp.GaussianGatedMoE.univariate([0.5, 0.5], [-3, 3], [1, 1], [1, -1], [0, 2], [0.1, 0.1])
    >>> mine = mp.Truth("mine", params, mp.GaussianGatedFamily(d=1, l=1, k=2), "adaptive", "my own")
    >>> mine.k_true
    2
    """

    name: str
    params: GaussianGatedMoE
    family: GaussianGatedFamily
    kind: str
    citation: str

    def __post_init__(self) -> None:
        named(self.name, "Truth: name")
        named(self.citation, "Truth: citation")
        expect(self.params, GaussianGatedMoE, "Truth: params")
        expect(self.family, GaussianGatedFamily, "Truth: family")
        one_of(self.kind, ("adaptive", "fixed"), "Truth: kind")

    @property
    def k_true(self) -> int:
        """Return the number of free atoms."""
        return self.family.k

    def family_with(self, k: int, experts: str, tied_gate: bool = False) -> GaussianGatedFamily:
        """Return a family with the same frozen atoms, beside ``k`` free atoms of another kind.

        k          number of free atoms
        experts    "affine" or "constant", as in ``GaussianGatedFamily``
        tied_gate  whether free atoms share one gate covariance
        """
        return GaussianGatedFamily(self.family.d, self.family.l, k, experts, tied_gate, self.family.frozen)


def published(model: int) -> Truth:
    """Return a truth of the published Gaussian-gated simulations: three affine atoms.

    ``model`` is 1 to 4. Models 1, 2 have d = 1, and models 3, 4 have d = 2 with equal coordinates. Models 1,
    3 have every c_k != 0 (type I), and models 2, 4 have c_1 = 0 (type II).

    Raises ``InputError`` for any other model.

    Source: arXiv 2305.07572, simulations.
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
    """Return a truth with two frozen experts (weights .2, .2) beside two prompts (.3, .3), d = l = 1."""
    frozen = GaussianGatedMoE.univariate([0.5, 0.5], [-2, 2], [0.5, 0.5], [0.3, -0.4], [-1, 1], [0.05, 0.05])
    experts = "affine" if kind == "adaptive" else "constant"
    family = GaussianGatedFamily(1, 1, prompts.k, experts, frozen=frozen)
    return Truth(name, prompts.joined(frozen, 0.4), family, kind, citation)


def prompts_adaptive() -> Truth:
    """Return the reference: two frozen experts and two adaptive prompts, whose experts are functions of x."""
    prompts = GaussianGatedMoE.univariate([0.5, 0.5], [-0.5, 0.9], [0.35, 0.35], [1.6, -1.8], [0.5, 0.2], [0.05, 0.05])
    return _with_prompts(
        "prompts-adaptive", "adaptive", prompts, "this project: the reference truth of docs/notation.md"
    )


def prompts_fixed() -> Truth:
    """Return the reverse of the reference, with constant prompt experts.

    b_k is the value of the reference expert at c_k.
    """
    reference = prompts_adaptive().params.atoms([0, 1])
    level = reference.intercepts + np.einsum("kld,kd->kl", reference.slopes, reference.gate_means)
    prompts = GaussianGatedMoE.univariate([0.5, 0.5], [-0.5, 0.9], [0.35, 0.35], [0, 0], level.ravel(), [0.05, 0.05])
    return _with_prompts("prompts-fixed", "fixed", prompts, "this project: the reverse truth of docs/notation.md")


def prompts_random(number: int) -> Truth:
    """Return adaptive prompts drawn once from seed ``number``, beside the frozen pair of the reference.

    They are not selected: c ~ U[-1.5, 1.5], Gamma ~ U[.15, .6], A ~ N(0, 1.5^2), b ~ N(0, .7^2), nu = .05.
    """
    rng = np.random.default_rng([address("prompts-random"), number])
    prompts = GaussianGatedMoE.univariate(
        weights=[0.5, 0.5],
        gate_means=rng.uniform(-1.5, 1.5, 2),
        gate_covs=rng.uniform(0.15, 0.6, 2),
        slopes=1.5 * rng.standard_normal(2),
        intercepts=0.7 * rng.standard_normal(2),
        noise_covs=[0.05, 0.05],
    )
    return _with_prompts(f"prompts-random-{number}", "adaptive", prompts, "this project, drawn at random")


TRUTHS: dict[str, Callable[[], Truth]] = {
    **{f"gmoe-{model}": partial(published, model) for model in (1, 2, 3, 4)},
    "prompts-adaptive": prompts_adaptive,
    "prompts-fixed": prompts_fixed,
    **{f"prompts-random-{number}": partial(prompts_random, number) for number in range(1, 6)},
}


def truth(name: str) -> Truth:
    """Return the named truth: one that ``TRUTHS`` lists, or that ``add_truth`` made known.

    Raises ``InputError`` for an unknown name.

    >>> import moe_prompts as mp
    >>> list(mp.TRUTHS)[:2]
    ['gmoe-1', 'gmoe-2']
    >>> mp.truth("prompts-adaptive").family.n_frozen
    2
    """
    return _found(named(name, "truth"))


@cache
def _found(name: str) -> Truth:
    if mine := added(name, Truth):
        return mine
    if name not in TRUTHS:
        raise InputError(
            f"unknown truth {name!r}; expected one of {', '.join(TRUTHS)}, or one that add_truth made known"
        )
    return TRUTHS[name]()


def sample(name: str, n: int, seed: int, replicate: int = 0) -> Sample:
    """Draw n pairs (x, y) from the named truth, as a study of entropy ``seed`` does for ``replicate``.

    Raises ``InputError`` for an unknown name, or where n is no positive whole number.

    >>> import moe_prompts as mp
    >>> mp.sample("gmoe-1", n=100, seed=0).x.shape
    (100, 1)
    """
    n, replicate = _sizes(n, replicate)
    return truth(name).params.sample(n, data_rng(seed, name, n, replicate))


def streamed(name: str, n: int, seed: int, replicate: int = 0, chunk: int = CHUNK) -> StreamedSample:
    """Return the pairs of ``sample`` as a stream, drawn again in each pass, ``chunk`` at a time.

    n = 1e8 then takes 1 GB. Errors are those of ``sample``.

    name       name of the truth
    n          number of pairs
    seed       seed of all data sets
    replicate  number of the data set
    chunk      pairs in memory at a time

    >>> import moe_prompts as mp
    >>> mp.streamed("gmoe-1", n=1_000, seed=0).n
    1000
    """
    n, replicate = _sizes(n, replicate)
    return truth(name).params.streamed(n, data_rng(seed, name, n, replicate), chunk)


def prompt_data(name: str, n: int, seed: int, replicate: int = 0) -> RegressionData:
    """Draw n pairs from a truth of prompt regression, as the sufficient statistics of its discrete design.

    They are the data that a study of entropy ``seed`` fits as ``replicate``.

    Raises ``InputError`` for an unknown name, or where n is no positive whole number.

    >>> import moe_prompts as mp
    >>> data = mp.prompt_data("attention-fixed", n=1_000_000, seed=0)
    >>> data.n, data.x.shape
    (1000000, (256, 2))
    """
    n, replicate = _sizes(n, replicate)
    return prompt_truth(name).data(n, data_rng(seed, name, n, replicate))


def _sizes(n: int, replicate: int) -> tuple[int, int]:
    return count(n, 1, "sample: n"), count(replicate, 0, "sample: replicate")

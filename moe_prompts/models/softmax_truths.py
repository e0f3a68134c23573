"""Name the softmax-gated truths: their parameters, how inputs are drawn, and where they come from.

``softmax_sample(name, n, seed)`` draws what a study with that seed fits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from moe_prompts.checks import count, expect, generator, named
from moe_prompts.errors import InputError
from moe_prompts.models.added import added
from moe_prompts.models.data import Sample
from moe_prompts.models.softmax_gated import SoftmaxGatedFamily, SoftmaxGatedMoE
from moe_prompts.seeds import data_rng

Inputs = Callable[[int, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class SoftmaxTruth:
    """Hold the parameters that generate data, how their inputs are drawn, and where they come from.

    name            what ``softmax_truth``, ``softmax_sample`` and studies call it
    params          the parameters
    inputs(n, rng)  makes x (n, d)
    citation        source of the parameters

    Raises ``InputError`` where one of them is of another kind.

    >>> import numpy as np
    >>> import moe_prompts as mp
    >>> params = mp.softmax_truth("sgame").params
    >>> mine = mp.SoftmaxTruth("mine", params, lambda n, rng: rng.uniform(-1, 1, (n, 1)), "my own")
    >>> mine.inputs(3, np.random.default_rng(0)).shape
    (3, 1)
    """

    name: str
    params: SoftmaxGatedMoE
    inputs: Inputs
    citation: str

    def __post_init__(self) -> None:
        named(self.name, "SoftmaxTruth: name")
        named(self.citation, "SoftmaxTruth: citation")
        expect(self.params, SoftmaxGatedMoE, "SoftmaxTruth: params")
        if not callable(self.inputs):
            raise InputError("SoftmaxTruth: inputs cannot be called; expected a function (n, rng) -> x (n, d)")

    @property
    def k_true(self) -> int:
        """Return the number of atoms."""
        return self.params.k

    def family(self, k: int) -> SoftmaxGatedFamily:
        """Return the family with the same inputs and ``k`` atoms."""
        return SoftmaxGatedFamily(self.params.d, k)

    def sample(self, n: int, rng: np.random.Generator) -> Sample:
        """Draw n pairs.

        rng  generator that the pairs are drawn with

        Raises ``InputError`` where n is no positive whole number.
        """
        n = count(n, 1, "sample: n")
        generator(rng, "sample")
        return self.params.respond(self.inputs(n, rng), rng)


def grid(n: int, rng: np.random.Generator) -> np.ndarray:
    """Return n equally spaced points of [0, 1] (n, 1), ends included, as published."""
    return np.linspace(0, 1, n)[:, None]


def uniform(n: int, rng: np.random.Generator) -> np.ndarray:
    """Return n uniform points of [0, 1] (n, 1)."""
    return rng.uniform(size=(n, 1))


def centred(n: int, rng: np.random.Generator) -> np.ndarray:
    """Return n uniform points of [-1, 1] (n, 1)."""
    return rng.uniform(-1, 1, size=(n, 1))


def _published() -> SoftmaxGatedMoE:
    return SoftmaxGatedMoE(
        gate_intercepts=np.array([-8.0, 0.0]),
        gate_slopes=np.array([[25.0], [0.0]]),
        slopes=np.array([[-20.0], [20.0]]),
        intercepts=np.array([15.0, -5.0]),
        noise_vars=np.array([0.3, 0.4]) ** 2,
    )


#: Seed and number of the truths that are drawn.
DRAWN_SEED, DRAWN = 4_123_106, 8


def random_softmax(number: int) -> SoftmaxGatedMoE:
    """Return the parameters of the drawn truth of a number: two experts with gates that change smoothly.

    Inputs lie in [-1, 1]. The gates' slopes differ by 3 to 8 and cross at -.3 to .3, so that both have
    masses near 1; experts have slopes N(0, 1.5^2) and intercepts N(0, 1), and noise of .2 to .6.
    """
    rng = np.random.default_rng([DRAWN_SEED, number])
    turn, crossing = rng.choice([-1.0, 1.0]) * rng.uniform(3, 8), rng.uniform(-0.3, 0.3)
    return SoftmaxGatedMoE(
        gate_intercepts=np.array([-turn * crossing, 0.0]),
        gate_slopes=np.array([[turn], [0.0]]),
        slopes=1.5 * rng.standard_normal((2, 1)),
        intercepts=rng.standard_normal(2),
        noise_vars=rng.uniform(0.2, 0.6, size=2) ** 2,
    )


#: Seed and number of the drawn truths of three experts.
THREE_SEED, THREE = 5_567_764, 5


def random_three(number: int) -> SoftmaxGatedMoE:
    """Return the parameters of the drawn truth of three experts of a number, side by side on [-1, 1].

    The gates of neighbours have slopes that differ by 3 to 8, and cross at -.5 to -.2 and at .2 to .5;
    experts are those of ``random_softmax``.
    """
    rng = np.random.default_rng([THREE_SEED, number])
    turns, crossings = rng.uniform(3, 8, size=2), rng.uniform(0.2, 0.5, size=2)
    return SoftmaxGatedMoE(
        gate_intercepts=np.array([-turns[0] * crossings[0], 0.0, -turns[1] * crossings[1]]),
        gate_slopes=np.array([[-turns[0]], [0.0], [turns[1]]]),
        slopes=1.5 * rng.standard_normal((3, 1)),
        intercepts=rng.standard_normal(3),
        noise_vars=rng.uniform(0.2, 0.6, size=3) ** 2,
    )


def _three_of_number(number: int) -> Callable[[], SoftmaxTruth]:
    return lambda: SoftmaxTruth(f"softmax-three-{number}", random_three(number), centred, "drawn here, by seed")


def _of_number(number: int) -> Callable[[], SoftmaxTruth]:
    return lambda: SoftmaxTruth(f"softmax-random-{number}", random_softmax(number), centred, "drawn here, by seed")


SOFTMAX_TRUTHS: dict[str, Callable[[], SoftmaxTruth]] = {
    "sgame": lambda: SoftmaxTruth("sgame", _published(), grid, "arXiv 2305.03288, simulations"),
    "sgame-uniform": lambda: SoftmaxTruth(
        "sgame-uniform", _published(), uniform, "arXiv 2305.03288, simulations, with x uniform on [0, 1]"
    ),
    **{f"softmax-random-{number}": _of_number(number) for number in range(1, DRAWN + 1)},
    **{f"softmax-three-{number}": _three_of_number(number) for number in range(1, THREE + 1)},
}


def softmax_truth(name: str) -> SoftmaxTruth:
    """Return the named softmax-gated truth: of ``SOFTMAX_TRUTHS``, or what ``add_truth`` made known.

    Raises ``InputError`` for an unknown name.

    >>> import moe_prompts as mp
    >>> mp.softmax_truth("sgame").k_true
    2
    """
    return _found(named(name, "softmax_truth"))


@cache
def _found(name: str) -> SoftmaxTruth:
    if mine := added(name, SoftmaxTruth):
        return mine
    if name not in SOFTMAX_TRUTHS:
        raise InputError(
            f"unknown softmax-gated truth {name!r}; expected one of {', '.join(SOFTMAX_TRUTHS)}, or one that "
            "add_truth made known"
        )
    return SOFTMAX_TRUTHS[name]()


def softmax_sample(name: str, n: int, seed: int, replicate: int = 0) -> Sample:
    """Draw n pairs (x, y) from the named truth, as a study of entropy ``seed`` does for ``replicate``.

    Raises ``InputError`` for an unknown name, or where n is no positive whole number.

    >>> import moe_prompts as mp
    >>> data = mp.softmax_sample("sgame", 1_000, seed=0)
    >>> data.x.shape, data.y.shape
    ((1000, 1), (1000, 1))
    """
    n, replicate = count(n, 1, "softmax_sample: n"), count(replicate, 0, "softmax_sample: replicate")
    return softmax_truth(name).sample(n, data_rng(seed, name, n, replicate))

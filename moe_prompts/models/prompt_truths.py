"""Name the truths of prompt regression: the reference with each kind of prompt, and random ones beside it.

All have d = p = l = 2, N = 2 frozen experts, L = 2 prompts, noise .1, and x uniform on the midpoints of a
grid over [-1, 1]^2. On such a design the counts and the means of the cells are exactly sufficient, so that
data of any n cost the same to draw and to fit.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cache
from typing import ClassVar

import numpy as np

from moe_prompts.checks import named
from moe_prompts.errors import InputError
from moe_prompts.models.activations import ACTIVATIONS
from moe_prompts.models.added import added
from moe_prompts.models.multi_head import MultiHead, divided
from moe_prompts.models.prompt_attention import Head, PromptAttention, PromptFamily, PromptKind, ZeroInitialised, single
from moe_prompts.models.regression_truths import RegressionTruth
from moe_prompts.models.zero_initialised import zero_initialised
from moe_prompts.seeds import address

NOISE = 0.1
CELLS_PER_AXIS = 16
#: alpha of zero-initialised truths: a gating factor of two thirds.
ALPHA = 0.8
#: b and prompt of a third prompt beside two; its place was chosen for large kappas among 81.
THIRD = 0.85, (1.5, 0.5)
#: Functions of a prefix; names of truths have them in one word, such as prefix_tanh_gelu.
PREFIXES = tuple(
    f"prefix:{key}:{value}" for key in ACTIVATIONS for value in ACTIVATIONS if key != "identity" or value != key
)
KINDS = ("fixed", "decoupled", *(f"adaptive:{sigma}" for sigma in ACTIVATIONS))


def midpoint_grid(per_axis: int = CELLS_PER_AXIS, d: int = 2) -> np.ndarray:
    """Return the midpoints of ``per_axis``^d equal cells of [-1, 1]^d (m, d).

    Raises ``InputError`` where ``per_axis`` < 1.
    """
    if per_axis < 1:
        raise InputError(f"midpoint_grid: {per_axis} cells per axis; expected at least 1")
    return tensor_grid((np.arange(per_axis) + 0.5) * 2 / per_axis - 1, d)


def tensor_grid(axis: np.ndarray, d: int) -> np.ndarray:
    """Return all points (len(axis)^d, d) whose coordinates are in ``axis``, the last one running fastest."""
    return np.stack(np.meshgrid(*[axis] * d, indexing="ij"), axis=-1).reshape(-1, d)


@dataclass(frozen=True, eq=False)
class PromptTruth(RegressionTruth):
    """Hold the parameters that generate data of a prompt regression, with the design and the source.

    name      what ``prompt_truth``, ``prompt_data`` and studies call it
    params    head and prompts
    noise     standard deviation of each output
    x         (m, d), the points of the design
    citation  source of the parameters

    Raises ``InputError`` where one of them is of another kind or shape.

    >>> import moe_prompts as mp
    >>> truth = mp.prompt_truth("attention-fixed")
    >>> truth.k_true, truth.noise, truth.x.shape
    (2, 0.1, (256, 2))
    """

    params: PromptAttention

    PARAMS_TYPE: ClassVar[type] = PromptAttention
    NOISE_INTERVAL: ClassVar[str] = "[0, inf)"

    @property
    def inputs(self) -> int:
        """Return d, the number of inputs of the head."""
        return self.params.head.d

    @property
    def kind(self) -> str:
        """Return what its prompts are, with ``singular B`` where no head sees some direction of a key."""
        head = self.params.head
        keys = head.B if isinstance(head, MultiHead | ZeroInitialised) else single(head).B
        singular = ", singular B" if np.linalg.matrix_rank(keys) < head.p else ""
        several = f", {len(head.heads)} heads" if isinstance(head, MultiHead) else ""
        own = ", zero-initialised" if isinstance(head, ZeroInitialised) else ""
        return f"{self.params.kind}{singular}{several}{own}"

    def family(self, kind: PromptKind, k: int) -> PromptFamily:
        """Return the family of k prompts of any kind beside the same head.

        It has as many hidden units as the truth has, 2 if it has none.
        """
        return PromptFamily(self.params.head, kind, k, self.params.W2.shape[1] or 2)


def reference_head() -> Head:
    """Return the head of the reference configuration.

    It was chosen for large kappas among 223 random draws, so it is not a typical one: see
    ``random_configuration``.
    """
    return Head(
        A=np.array([[[-0.28, -0.72], [-0.72, -0.93]], [[0.50, -0.35], [-0.35, -0.02]]]),
        a=np.array([-0.37, -0.42]),
        eta=np.array([[[2.00, -0.49, -0.40], [-1.79, 0.72, 0.70]], [[0.71, -0.37, -0.57], [-0.05, -0.33, 0.35]]]),
        B=np.array([[-2.45, -1.73], [-1.73, 2.45]]),
        C=np.array([[-1.97, 0.35], [0.35, 1.97]]),
    )  # fmt: skip


@dataclass(frozen=True)
class Parts:
    """Hold the learned numbers of a configuration, from which prompts of every kind are made.

    b             (k,)       logit biases
    prompts       (k, p)     fixed prompts and prefixes
    keys, values  (k, p)     decoupled prompts
    W1            (k, r, d)  adaptive prompts
    W2            (p, r)     shared by adaptive prompts
    """

    b: np.ndarray
    prompts: np.ndarray
    keys: np.ndarray
    values: np.ndarray
    W1: np.ndarray
    W2: np.ndarray

    def params(self, head: Head, kind: str) -> PromptAttention:
        """Return the prompts of one kind beside ``head``."""
        if kind == "fixed":
            return PromptAttention.fixed(head, self.b, self.prompts)
        if kind.startswith("prefix:"):
            return PromptAttention.prefix(head, self.b, self.prompts, *kind.split(":")[1:])
        if kind == "decoupled":
            return PromptAttention.decoupled(head, self.b, self.keys, self.values)
        return PromptAttention.adaptive(head, self.b, self.W1, self.W2, PromptKind.parse(kind).sigma)


REFERENCE = Parts(
    b=np.array([0.81, 0.88]),
    prompts=np.array([[-0.40, 0.80], [-0.68, -1.84]]),
    keys=np.array([[1.29, -0.02], [1.70, 1.55]]),
    values=np.array([[2.04, 0.87], [0.45, -1.36]]),
    W1=np.array([[[-0.40, -0.23], [0.61, 0.71]], [[-0.57, -1.17], [0.54, -1.46]]]),
    W2=np.array([[0.62, -0.89], [-0.53, -0.79]]),
)


def reference(kind: str) -> PromptTruth:
    """Return the reference configuration with prompts of ``kind``."""
    return PromptTruth(
        f"attention-{_short(kind)}",
        REFERENCE.params(reference_head(), kind),
        NOISE,
        midpoint_grid(),
        "this project: the reference configuration of docs/notation.md, chosen for large kappas among 223 random draws",
    )


def rank_one(of: PromptTruth) -> PromptTruth:
    """Return the same truth with the first singular value of B alone, as in a head with d_h = 1 < d."""
    head = single(of.params.head)
    left, values, right = np.linalg.svd(head.B)
    singular = replace(head, B=values[0] * np.outer(left[:, 0], right[0]))
    return replace(
        of,
        name=f"{of.name}-rank1",
        params=replace(of.params, head=singular),
        citation=f"{of.citation}, with B of rank 1",
    )


def two_heads(of: PromptTruth) -> PromptTruth:
    """Return the same truth with its head divided in two of d_h = 1.

    Each head sees one singular direction of B and gives one output.

    As in a network with H d_h = d, every head loses directions of a prompt and all heads together lose none.
    """
    return replace(
        of,
        name=f"{of.name}-heads2",
        params=replace(of.params, head=divided(single(of.params.head), [[0], [1]])),
        citation=f"{of.citation}, with the head divided in two",
    )


def separate(of: PromptTruth) -> PromptTruth:
    """Return the same f with key and value of its prompts as parameters of their own."""
    return replace(
        of,
        name=f"{of.name}-separate",
        params=of.params.separate,
        citation=f"{of.citation}, with separate keys and values",
    )


def with_factor(of: PromptTruth) -> PromptTruth:
    """Return the same prompts and head in zero-initialised attention, with alpha = ``ALPHA``."""
    return replace(
        of,
        name=f"{of.name}-zeroinit",
        params=zero_initialised(of.params, ALPHA),
        citation=f"{of.citation}, in zero-initialised attention",
    )


def with_third(of: PromptTruth) -> PromptTruth:
    """Return fixed prompts or prefixes in zero-initialised attention, with a third prompt beside them."""
    b, prompt = THIRD
    params = of.params
    three = replace(params, b=np.append(params.b, b), atoms=np.vstack([params.atoms, prompt]))
    made = with_factor(replace(of, params=three))
    return replace(made, name=f"{made.name}3", citation=f"{made.citation}, with a third prompt")


def random_configuration(number: int, kind: str) -> PromptTruth:
    """Return a truth drawn from seed ``number``, not selected.

    A is the symmetric part of N(0, .5^2) entries and a ~ N(0, .5^2). eta, prompts, W1, W2 ~ N(0, 1); b ~ U[0,
    1]. B and C are 3 and 2 times a random orthogonal matrix (as in the reference).
    """
    rng = np.random.default_rng([address("attention-random"), number])
    symmetric = 0.5 * rng.standard_normal((2, 2, 2))
    orthogonal = lambda: np.linalg.qr(rng.standard_normal((2, 2)))[0]
    head = Head(
        A=(symmetric + symmetric.swapaxes(1, 2)) / 2,
        a=0.5 * rng.standard_normal(2),
        eta=rng.standard_normal((2, 2, 3)),
        B=3 * orthogonal(),
        C=2 * orthogonal(),
    )
    b, (prompts, keys, values) = rng.uniform(0, 1, 2), rng.standard_normal((3, 2, 2))
    parts = Parts(b, prompts, keys, values, rng.standard_normal((2, 2, 2)), rng.standard_normal((2, 2)))
    return PromptTruth(
        f"attention-random-{number}-{_short(kind)}",
        parts.params(head, kind),
        NOISE,
        midpoint_grid(),
        "this project, drawn at random",
    )


def _short(kind: str) -> str:
    return kind.removeprefix("adaptive:").replace(":", "_")


_NAME = re.compile(
    r"attention-(?:random-(?P<number>0|[1-9]\d*)-)?(?P<kind>[a-z][a-z0-9_]*)(?P<change>-rank1|-heads2|-zeroinit3?|-separate)?"
)


def _kinds() -> dict[str, str]:
    """Return the kinds by how they are named in truths, with those of activations that were added."""
    adaptive = (f"adaptive:{sigma}" for sigma in ACTIVATIONS)
    return {_short(kind): kind for kind in ("fixed", "decoupled", *adaptive, *PREFIXES)}


def _read(name: str) -> re.Match[str] | None:
    """Return the parts of the name of one of the package's own truths; None for other names."""
    found = _NAME.fullmatch(name)
    constant = found and found["kind"].startswith(("fixed", "prefix"))
    return (
        found
        if found and found["kind"] in _kinds() and (constant or found["change"] not in ("-separate", "-zeroinit3"))
        else None
    )


def names_one(name: str) -> bool:
    """Return whether ``name`` is one of the package's own truths of prompts."""
    return _read(name) is not None


def prompt_truth(name: str) -> PromptTruth:
    """Return a named truth of prompt regression.

    Names are ``attention-KIND`` (the reference) and ``attention-random-NUMBER-KIND``, or what ``add_truth``
    made known. KIND is fixed, decoupled, the activation of adaptive prompts, or prefix_KEY_VALUE. Each may
    have after it

        -rank1     a singular B
        -heads2    two heads of d_h = 1
        -zeroinit  zero-initialised attention
        -zeroinit3 of fixed prompts and prefixes: zero-initialised attention with a third prompt
        -separate  of fixed prompts and prefixes: the same f with separate keys and values

    Raises ``InputError`` for an unknown name.

    >>> import moe_prompts as mp
    >>> found = mp.prompt_truth("attention-gelu")
    >>> found.params.k, found.noise, found.x.shape
    (2, 0.1, (256, 2))
    """
    return _found(named(name, "prompt_truth"))


@cache
def _found(name: str) -> PromptTruth:
    if mine := added(name, PromptTruth):
        return mine
    found = _read(name)
    if not found:
        raise InputError(
            f"unknown truth {name!r}; expected attention-KIND or attention-random-NUMBER-KIND, with -rank1 after "
            f"it for a singular B or -heads2 for two heads, and KIND one of "
            f"{', '.join(kind for kind in _kinds() if not kind.startswith('prefix'))}, or prefix_KEY_VALUE with two "
            "activations (with -separate: its keys and values apart); or one that add_truth made known"
        )
    kind = _kinds()[found["kind"]]
    made = reference(kind) if found["number"] is None else random_configuration(int(found["number"]), kind)
    changes = {
        None: lambda one: one,
        "-rank1": rank_one,
        "-heads2": two_heads,
        "-zeroinit": with_factor,
        "-zeroinit3": with_third,
        "-separate": separate,
    }
    return changes[found["change"]](made)

"""Describe prompt regression: an attention head as a mixture of frozen experts and prompts.

Each prompt is a new expert:

    Y = f(x) + noise,
    f(x) = [ sum_j e^{x'A_j x + a_j} h_j(x) + sum_l e^{(B key_l(x))'x + b_l} C val_l(x) ]
           / [ sum of the same e ]

Everything of the head (A, a, h, B, C) is pre-trained and known; the prompts and their logit biases b are
learned. A prompt is ``decoupled`` (key and value are two free constants: prefix tuning without
reparameterisation), ``prefix`` (key = s1(p), value = s2(p) with known functions of one constant p, entry by
entry: a reparameterised prefix), ``fixed`` (one constant p for both: VPT) or ``adaptive`` (key_l = val_l = W2
sigma(W1_l x), W2 shared: VAPT). With ``bias``, W1_l acts on (x, 1).

Source: arXiv 2501.18936 (VAPT), arXiv 2410.02200 (prefixes), arXiv 2203.12119 (VPT).
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np
from scipy.special import logsumexp, softmax

from moe_prompts.checks import (
    chosen_of,
    count,
    expect,
    flag,
    generator,
    integer,
    listed,
    named,
    numbers,
    real,
    rounding,
    shaped,
    shown,
    table,
    whole,
)
from moe_prompts.errors import InputError
from moe_prompts.models.activations import ACTIVATIONS, Activation, activation
from moe_prompts.models.data import Sample

#: Columns of W2 of this much more or less than unit length are off by more than rounding.
UNIT = 1e-9
#: Sum of the masses e^b of prompts that have a softmax of their own: in the box b >= -1 one may have a tenth
#: of it.
MASS = 4.0
#: More tokens than matrices (tokens D, tokens D) of any memory have.
MOST_TOKENS = 10**6


def _left_out() -> np.ndarray:
    return np.zeros(0)


@dataclass(frozen=True, eq=False)
class Head:
    """Hold the frozen part: N experts and the projections that make experts of prompts.

    A    (N, d, d)      gate of frozen expert j: logit x'A_j x + a_j
    a    (N,)           its constant
    eta  (N, l, d + 1)  frozen expert: h_j(x) = eta_j (x, 1)
    B    (d, p)         projection of a prompt's key: logit (B key)'x + b
    C    (l, p)         projection of a prompt's value: expert C val

    Real heads with biases of queries and values also have (zero by default)

    alpha  (N, d)  adds alpha_j'x to the logit of frozen expert j
    beta   (p,)    adds beta'key to the logit of a prompt
    c      (l,)    adds to every prompt's expert

    There are d inputs and l outputs, and p is the dimension of a prompt.

    Raises ``InputError`` for shapes that do not fit and for values that are not finite.

    >>> import moe_prompts as mp
    >>> head = mp.prompt_truth("attention-fixed").params.head
    >>> isinstance(head, mp.Head), head.B.shape
    (True, (2, 2))
    """

    A: np.ndarray
    a: np.ndarray
    eta: np.ndarray
    B: np.ndarray
    C: np.ndarray
    alpha: np.ndarray = field(default_factory=_left_out)
    beta: np.ndarray = field(default_factory=_left_out)
    c: np.ndarray = field(default_factory=_left_out)

    def __post_init__(self) -> None:
        _freeze(self)
        if self.A.ndim != 3 or self.B.ndim != 2 or self.C.ndim != 2:
            raise InputError(
                f"Head: A {self.A.shape}, B {self.B.shape}, C {self.C.shape}; expected (N, d, d), (d, p), (l, p)"
            )
        n_frozen, d, l, p = len(self.A), self.A.shape[2], len(self.C), self.B.shape[1]
        if n_frozen < 1:
            raise InputError("Head: no frozen experts; expected N >= 1, which pin the gate")
        for name, shape in (("alpha", (n_frozen, d)), ("beta", (p,)), ("c", (l,))):
            if not getattr(self, name).size:
                object.__setattr__(self, name, np.zeros(shape))
        expected = {
            "A": (n_frozen, d, d),
            "a": (n_frozen,),
            "eta": (n_frozen, l, d + 1),
            "B": (d, p),
            "C": (l, p),
            "alpha": (n_frozen, d),
            "beta": (p,),
            "c": (l,),
        }
        _check_shapes(self, expected, f"N = {n_frozen}, d = {d}, l = {l}, p = {p}")

    @property
    def n_frozen(self) -> int:
        """Return the number N of frozen experts."""
        return len(self.A)

    @property
    def d(self) -> int:
        """Return the number of inputs."""
        return self.A.shape[2]

    @property
    def l(self) -> int:
        """Return the number of outputs."""
        return len(self.C)

    @property
    def p(self) -> int:
        """Return the dimension of a prompt."""
        return self.B.shape[1]

    def gates_and_experts(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the logits (m, N) and values (m, N, l) of the frozen experts at x (m, d)."""
        x = table(x, self.d, "x")
        logits = np.einsum("mi,nij,mj->mn", x, self.A, x, optimize=True) + x @ self.alpha.T + self.a
        return logits, np.einsum("nlj,mj->mnl", self.eta, with_one(x))

    def queries(self, x: np.ndarray) -> np.ndarray:
        """Return what keys are multiplied with at x (m, d), B'x + beta (m, p)."""
        return table(x, self.d, "x") @ self.B + self.beta

    def gates(self, x: np.ndarray, keys: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return the softmax weights (m, N + k) at x (m, d) for keys (m, k, p), frozen experts first.

        b  (k,), logit biases of the prompts
        """
        frozen, _ = self.gates_and_experts(x)
        keys, b = prompts_of(keys, b, len(frozen), self.p)
        return softmax(np.concatenate([frozen, np.einsum("mp,mkp->mk", self.queries(x), keys) + b], axis=1), axis=1)

    def output(self, x: np.ndarray, keys: np.ndarray, values: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return f(x) (m, l) at x (m, d) with prompts of keys and values (m, k, p).

        b  (k,), logit biases of the prompts
        """
        _, experts = self.gates_and_experts(x)
        values, b = prompts_of(values, b, len(experts), self.p)
        every = np.concatenate([experts, values @ self.C.T + self.c], axis=1)
        return np.einsum("mn,mnl->ml", self.gates(x, keys, b), every)

    @property
    def reads(self) -> int:
        """Return how many numbers adaptive prompts are functions of: all of x."""
        return self.d

    def read(self, x: np.ndarray) -> np.ndarray:
        """Return these numbers (m, reads) at x (m, d)."""
        return table(x, self.d, "x")


@dataclass(frozen=True, eq=False)
class ZeroInitialised:
    """Hold the frozen part of zero-initialised attention; it stands where a ``Head`` stands.

    Tokens and prompts have a softmax each, and the output of the prompts is multiplied by tanh(alpha), with
    alpha learned (``PromptAttention.factor``); ``models.zero_initialised`` says what follows.

    head  frozen experts and projections

    Raises ``InputError`` where that is no ``Head``.
    """

    head: Head

    def __post_init__(self) -> None:
        expect(self.head, Head, "ZeroInitialised: head")

    @property
    def n_frozen(self) -> int:
        """Return the number of frozen experts."""
        return self.head.n_frozen

    @property
    def d(self) -> int:
        """Return the number of inputs."""
        return self.head.d

    @property
    def l(self) -> int:
        """Return the number of outputs."""
        return self.head.l

    @property
    def p(self) -> int:
        """Return the dimension of a prompt."""
        return self.head.p

    @property
    def reads(self) -> int:
        """Return how many numbers adaptive prompts are functions of."""
        return self.head.reads

    @property
    def B(self) -> np.ndarray:
        """Return the projection of keys (d, p)."""
        return self.head.B

    def read(self, x: np.ndarray) -> np.ndarray:
        """Return these numbers at x (m, d): (m, reads)."""
        return self.head.read(x)

    def tokens(self, x: np.ndarray) -> np.ndarray:
        """Return the output (m, l) of the frozen experts alone at x (m, d)."""
        logits, experts = self.head.gates_and_experts(x)
        return np.einsum("mn,mnl->ml", softmax(logits, axis=1), experts)

    def gates(self, x: np.ndarray, keys: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return the softmax weights (m, N + k) at x (m, d) for keys (m, k, p).

        Those of the frozen experts come first and sum to 1, as those of the prompts do.
        """
        frozen, _ = self.head.gates_and_experts(x)
        keys, b = prompts_of(keys, b, len(frozen), self.p)
        own = np.einsum("mp,mkp->mk", self.head.queries(x), keys) + b
        return np.concatenate([softmax(frozen, axis=1), softmax(own, axis=1)], axis=1)

    def output(self, x: np.ndarray, keys: np.ndarray, values: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return f(x) (m, l) at x (m, d) with prompts of keys and values (m, k, p) and the factor 1."""
        gates = self.gates(x, keys, b)[:, self.n_frozen :]
        values, _ = prompts_of(values, b, len(gates), self.p)
        return self.tokens(x) + np.einsum("mk,mkl->ml", gates, values @ self.head.C.T + self.head.c)


@runtime_checkable
class AnyHead(Protocol):
    """Say what families ask of the frozen part.

    It is a ``Head``, several heads that share their prompts, or a head that is zero-initialised.
    """

    @property
    def n_frozen(self) -> int:
        """Return the number of frozen experts."""

    @property
    def d(self) -> int:
        """Return the number of inputs."""

    @property
    def l(self) -> int:
        """Return the number of outputs."""

    @property
    def p(self) -> int:
        """Return the dimension of a prompt."""

    @property
    def reads(self) -> int:
        """Return how many numbers adaptive prompts are functions of."""

    def read(self, x: np.ndarray) -> np.ndarray:
        """Return these numbers at x (m, d): (m, reads)."""

    def gates(self, x: np.ndarray, keys: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return the softmax weights at x (m, d) for keys (m, k, p), frozen experts first."""

    def output(self, x: np.ndarray, keys: np.ndarray, values: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return f(x) (m, l) at x (m, d) with prompts of keys and values (m, k, p)."""


@dataclass(frozen=True)
class PromptKind:
    """Name a prompt kind: ``fixed``, ``decoupled``, ``prefix`` or ``adaptive`` with its functions and option.

    base   "fixed", "decoupled", "prefix" or "adaptive"
    sigma  name of the activation of adaptive prompts, or of the function that makes the key of a prefix
    bias   whether W1 of adaptive prompts acts on (x, 1)
    value  name of the function that makes the value of a prefix

    Raises ``InputError`` for an unknown kind or activation, and for options that a kind does not have.

    >>> import moe_prompts as mp
    >>> str(mp.PromptKind("adaptive", "tanh", bias=True))
    'adaptive:tanh:bias'
    """

    base: str
    sigma: str = ""
    bias: bool = False
    value: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.base, str) or self.base not in ("fixed", "decoupled", "prefix", "adaptive"):
            raise InputError(f"unknown prompt kind {shown(self.base)}; expected fixed, decoupled, prefix or adaptive")
        named(self.sigma, "PromptKind: sigma")
        named(self.value, "PromptKind: value")
        object.__setattr__(self, "bias", flag(self.bias, "PromptKind: bias"))
        if self.base == "prefix":
            activation(self.sigma)
            activation(self.value)
            if self.bias:
                raise InputError("prefixes have no bias; expected prefix:KEY:VALUE")
            if self.sigma == self.value == "identity":
                raise InputError("prefix:identity:identity is the kind fixed; expected that, or another function")
            return
        if self.value:
            raise InputError(f"{self.base} prompts have no function of values; expected value=''")
        if self.base == "adaptive":
            activation(self.sigma)
        elif self.sigma or self.bias:
            raise InputError(f"{self.base} prompts have no activation and no bias; expected plain {self.base!r}")

    @classmethod
    def parse(cls, text: str) -> PromptKind:
        """Return the kind that a text names.

        Texts are ``fixed``, ``decoupled``, ``prefix:KEY:VALUE``, ``adaptive`` (gelu), ``adaptive:SIGMA`` and
        ``adaptive:SIGMA:bias``.

        Raises ``InputError`` for any other.
        """
        base, *options = named(text, "prompt kind").split(":")
        if base == "prefix" and len(options) == 2 and all(name in ACTIVATIONS for name in options):
            return cls(base, options[0], value=options[1])
        bias = options[-1:] == ["bias"]
        options = options[:-1] if bias else options
        sigma = options[0] if options else "gelu" if base == "adaptive" else ""
        valid = base == "adaptive" and sigma in ACTIVATIONS and len(options) < 2
        if not (valid or text in ("fixed", "decoupled")):
            raise InputError(
                f"unknown prompt kind {text!r}; expected fixed, decoupled, adaptive, adaptive:SIGMA, "
                f"adaptive:SIGMA:bias or prefix:SIGMA:SIGMA with SIGMA one of {', '.join(ACTIVATIONS)}"
            )
        return cls(base, sigma, bias)

    def __str__(self) -> str:
        return ":".join([self.base, *(name for name in (self.sigma, self.value) if name), *["bias"] * self.bias])

    @property
    def activation(self) -> Activation:
        """Return the activation of adaptive prompts."""
        return activation(self.sigma)

    @property
    def functions(self) -> tuple[Activation, Activation]:
        """Return the functions that make key and value of a prefix from its p, entry by entry."""
        return activation(self.sigma), activation(self.value)

    @property
    def analytic(self) -> bool:
        """Say whether the kind has no kinks, so that f is a power series in x and in its parameters."""
        return all(activation(name).analytic for name in (self.sigma, self.value) if name)

    @property
    def shares_w2(self) -> bool:
        """Say whether W2 is a free parameter.

        With the identity it is not: only the products M_l = W2 W1_l matter, and W2 = I.
        """
        return self.base == "adaptive" and self.sigma != "identity"


@dataclass(frozen=True)
class PromptFamily:
    """Say what a fit may be: ``k`` prompts of one kind beside a head.

    head    the frozen part
    kind    prompt kind
    k       number of prompts
    hidden  number r of hidden units of adaptive prompts (the identity has r = p)

    A point of the family is a vector: b (k), then the prompts (k, atom_size), then W2 (p, r) row by row, then
    alpha on a zero-initialised head.

    Raises ``InputError`` where a number is below 1.

    >>> import moe_prompts as mp
    >>> mp.prompt_truth("attention-fixed").family(mp.PromptKind("decoupled"), k=3).size
    15
    """

    head: AnyHead
    kind: PromptKind
    k: int
    hidden: int = 2

    def __post_init__(self) -> None:
        expect_head(self.head, "PromptFamily: head")
        expect(self.kind, PromptKind, "PromptFamily: kind")
        for name in ("k", "hidden"):
            object.__setattr__(self, name, count(getattr(self, name), 1, f"PromptFamily: {name}"))
        if self.kind.base == "adaptive" and self.kind.sigma == "identity":
            object.__setattr__(self, "hidden", self.head.p)

    @property
    def one_head(self) -> Head:
        """Return the head where there is one; raises ``InputError`` for several (see ``multi_head``)."""
        return single(self.head)

    @property
    def gated(self) -> bool:
        """Say whether a gating factor is learned, too: on a zero-initialised head."""
        return isinstance(self.head, ZeroInitialised)

    @cached_property
    def w1_columns(self) -> int:
        """Return the number of columns of W1."""
        return self.head.reads + self.kind.bias

    @cached_property
    def atom_size(self) -> int:
        """Return the number of parameters of one prompt besides b."""
        p = self.head.p
        sizes = {"fixed": p, "prefix": p, "decoupled": 2 * p, "adaptive": self.hidden * self.w1_columns}
        return sizes[self.kind.base]

    @cached_property
    def shared_size(self) -> int:
        """Return the number of parameters that all prompts share."""
        return self.head.p * self.hidden if self.kind.shares_w2 else 0

    @cached_property
    def size(self) -> int:
        """Return the length of the parameter vector."""
        return self.k * (1 + self.atom_size) + self.shared_size + self.gated

    @property
    def scales(self) -> int:
        """Return how many hidden units have a scale that is no parameter: all where sigma is homogeneous."""
        return self.hidden if self.kind.shares_w2 and self.kind.activation.homogeneous else 0

    @property
    def w2_slot(self) -> slice:
        """Return where W2 stands in the vector, row by row."""
        begin = self.k * (1 + self.atom_size)
        return slice(begin, begin + self.shared_size)

    @cached_property
    def n_parameters(self) -> int:
        """Return the number of free parameters.

        Where sigma is homogeneous the scale of each hidden unit is not one, and on a zero-initialised head a
        common part of all b is not.
        """
        return self.size - self.scales - self.gated

    def slot(self, prompt: int) -> np.ndarray:
        """Return where the own parameters of a prompt stand in the vector (atom_size,).

        Raises ``InputError`` where there is no prompt of this number, counted from 0.
        """
        if whole(prompt, 0, "slot: prompt") >= self.k:
            raise InputError(f"slot: prompt = {prompt}; expected a number below k = {self.k}")
        return np.arange(self.k + prompt * self.atom_size, self.k + (prompt + 1) * self.atom_size)

    def with_k(self, k: int) -> PromptFamily:
        """Return the family with ``k`` prompts."""
        return PromptFamily(self.head, self.kind, k, self.hidden)

    def split(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return b (..., k), prompts (..., k, atom_size) and W2 (..., p, r) of vectors (..., size).

        W2 has unit columns where sigma is homogeneous (the scale of a unit is W1's), and is I for the
        identity.

        Raises ``InputError`` for vectors of another size.
        """
        k, q, p, r = self.k, self.atom_size, self.head.p, self.hidden
        vectors = numbers(vectors, "split: vectors")
        if vectors.shape[-1:] != (self.size,):
            raise InputError(f"split: vectors of shape {vectors.shape}; expected (..., {self.size})")
        lead = vectors.shape[:-1]
        b, atoms = vectors[..., :k], vectors[..., k : k + k * q].reshape(*lead, k, q)
        if self.kind.base == "adaptive" and not self.kind.shares_w2:
            return b, atoms, np.broadcast_to(np.eye(p), (*lead, p, p))
        w2 = vectors[..., self.w2_slot].reshape(*lead, p, r) if self.shared_size else np.zeros((*lead, p, 0))
        if self.shared_size and self.kind.activation.homogeneous:
            w2 = w2 / np.linalg.norm(w2, axis=-2, keepdims=True)
        return b, atoms, w2

    def unpack(self, vector: np.ndarray) -> PromptAttention:
        """Return the parameters of one vector (size,).

        Raises ``InputError`` where the vector has another shape.
        """
        vector = numbers(vector, "PromptFamily: a vector")
        if vector.shape != (self.size,):
            raise InputError(
                f"PromptFamily: a vector of shape {vector.shape}; expected ({self.size},) for {self.k} "
                f"{self.kind} prompts"
            )
        b, atoms, w2 = self.split(vector)
        return PromptAttention(self.head, self.kind, b, atoms, w2, vector[self.size - self.gated :])


@dataclass(frozen=True, eq=False)
class PromptAttention:
    """Hold the parameters of a head with k prompts; they check themselves.

    Build them with ``fixed``, ``decoupled``, ``prefix`` or ``adaptive``.

    head                   the frozen part
    kind                   prompt kind
    b      (k,)            logit biases; e^b is the mass of a prompt
    atoms  (k, atom_size)  p_l (fixed, prefix), (key_l, val_l) (decoupled) or W1_l row by row (adaptive)
    W2     (p, r)          shared by adaptive prompts, else (p, 0)
    factor (1,)            alpha of a zero-initialised head, whose b have sum e^b = ``MASS``; else (0,)

    Raises ``InputError`` for shapes that do not fit, values that are not finite, and a W2 that the kind does
    not have.

    >>> import numpy as np
    >>> import moe_prompts as mp
    >>> head = mp.prompt_truth("attention-fixed").params.head
    >>> params = mp.PromptAttention.fixed(head, b=np.zeros(1), prompts=np.ones((1, 2)))
    >>> params.regression(np.zeros((4, 2))).shape
    (4, 2)
    """

    head: AnyHead
    kind: PromptKind
    b: np.ndarray
    atoms: np.ndarray
    W2: np.ndarray
    factor: np.ndarray = field(default_factory=_left_out)

    def __post_init__(self) -> None:
        expect_head(self.head, "PromptAttention: head")
        expect(self.kind, PromptKind, "PromptAttention: kind")
        rounded = rounding(self.W2)
        _freeze(self)
        if self.b.ndim != 1 or len(self.b) < 1 or self.W2.ndim != 2:
            raise InputError(
                f"PromptAttention: b {self.b.shape}, W2 {self.W2.shape}; expected (k,) with k >= 1 and (p, r)"
            )
        r = self.W2.shape[1]
        family = PromptFamily(self.head, self.kind, self.k, max(r, 1))
        expected = {
            "b": (self.k,),
            "atoms": (self.k, family.atom_size),
            "W2": (self.head.p, family.hidden if self.kind.base == "adaptive" else 0),
            "factor": (int(family.gated),),
        }
        _check_shapes(self, expected, f"k = {self.k} {self.kind} prompts, d = {self.head.d}, p = {self.head.p}")
        if family.gated:
            object.__setattr__(self, "b", self.b - logsumexp(self.b) + np.log(MASS))
            self.b.setflags(write=False)
        if self.kind.base == "adaptive" and not self.kind.shares_w2 and (np.eye(self.head.p) != self.W2).any():
            raise InputError("PromptAttention: with the identity W2 is I and W1_l stands for the product W2 W1_l")
        if self.kind.shares_w2 and self.kind.activation.homogeneous:
            norms = np.linalg.norm(self.W2, axis=0)
            off = np.abs(norms - 1).max()
            if UNIT < off <= rounded:  # unit length in float32
                object.__setattr__(self, "W2", self.W2 / norms)
                self.W2.setflags(write=False)
            elif off > UNIT:
                raise InputError(
                    f"PromptAttention: columns of W2 of length {norms.tolist()}; expected 1 for {self.kind}, whose "
                    "scale is W1's: build it with PromptAttention.adaptive"
                )

    @classmethod
    def fixed(cls, head: AnyHead, b: np.ndarray, prompts: np.ndarray) -> PromptAttention:
        """Return fixed prompts p_l (k, p), keys and values at once.

        head  the frozen ``Head`` or ``MultiHead``
        b     (k,), logit biases
        """
        expect_head(head, "PromptAttention.fixed: head")
        return cls(head, PromptKind("fixed"), b, prompts, np.zeros((head.p, 0)))

    @classmethod
    def decoupled(cls, head: AnyHead, b: np.ndarray, keys: np.ndarray, values: np.ndarray) -> PromptAttention:
        """Return decoupled prompts, with keys (k, p) and values (k, p).

        head  the frozen ``Head`` or ``MultiHead``
        b     (k,), logit biases

        Raises ``InputError`` where their shapes differ from that.
        """
        expect_head(head, "PromptAttention.decoupled: head")
        b = numbers(b, "PromptAttention.decoupled: b")
        keys = shaped(keys, (b.size, head.p), "PromptAttention.decoupled: keys")
        values = shaped(values, (b.size, head.p), "PromptAttention.decoupled: values")
        return cls(head, PromptKind("decoupled"), b, np.concatenate([keys, values], axis=1), np.zeros((head.p, 0)))

    @classmethod
    def prefix(
        cls, head: AnyHead, b: np.ndarray, prompts: np.ndarray, key: str = "tanh", value: str = "identity"
    ) -> PromptAttention:
        """Return reparameterised prefixes: keys key(p_l) and values value(p_l) of prompts p_l (k, p).

        ``key`` and ``value`` name activations, which act on p entry by entry. Linear maps after them belong
        to B and C of the head. Key = value = "identity" would be the kind fixed, and is refused.

        head  the frozen ``Head`` or ``MultiHead``
        b     (k,), logit biases

        Source: arXiv 2410.02200.

        >>> import numpy as np
        >>> import moe_prompts as mp
        >>> head = mp.prompt_truth("attention-fixed").params.head
        >>> made = mp.PromptAttention.prefix(head, np.zeros(1), np.ones((1, 2)), key="tanh", value="gelu")
        >>> str(made.kind), made.separate.kind.base
        ('prefix:tanh:gelu', 'decoupled')
        """
        expect_head(head, "PromptAttention.prefix: head")
        return cls(head, PromptKind("prefix", key, value=value), b, prompts, np.zeros((head.p, 0)))

    @property
    def separate(self) -> PromptAttention:
        """Return the same f by decoupled prompts; raises ``InputError`` for adaptive ones, functions of x."""
        if self.kind.base == "adaptive":
            raise InputError(f"separate: {self.kind} prompts are functions of x; expected fixed, prefix or decoupled")
        if self.kind.base == "decoupled":
            return self
        atoms = np.concatenate(self._constants(), axis=1)
        return PromptAttention(self.head, PromptKind("decoupled"), self.b, atoms, self.W2, self.factor)

    def _constants(self) -> tuple[np.ndarray, np.ndarray]:
        """Return keys and values (k, p) of prompts that do not depend on x."""
        if self.kind.base == "prefix":
            key, value = self.kind.functions
            return key.value(self.atoms), value.value(self.atoms)
        return self.atoms[:, : self.head.p], self.atoms[:, -self.head.p :]

    @classmethod
    def adaptive(
        cls, head: AnyHead, b: np.ndarray, W1: np.ndarray, W2: np.ndarray, sigma: str = "gelu", bias: bool = False
    ) -> PromptAttention:
        """Return adaptive prompts, with W1 (k, r, d), or (k, r, d + 1) with ``bias``, and W2 (p, r).

        head   the frozen ``Head`` or ``MultiHead``
        b      (k,), logit biases
        sigma  name of the activation

        For a head that reads less, d stands for ``reads``. Where sigma is homogeneous (relu) the scale of
        each column of W2 moves to W1, with the identity all of W2 does.

        Raises ``InputError`` where shapes do not fit, W2 is not finite, or a homogeneous sigma meets a zero
        column of W2.
        """
        expect_head(head, "PromptAttention.adaptive: head")
        W1, W2 = numbers(W1, "PromptAttention.adaptive: W1"), numbers(W2, "PromptAttention.adaptive: W2")
        if W1.ndim != 3 or W2.ndim != 2 or W1.shape[1] != W2.shape[1] or not W1.size:
            raise InputError(
                f"PromptAttention.adaptive: W1 {W1.shape}, W2 {W2.shape}; expected (k, r, d), or (k, r, d + 1) "
                "with bias, and (p, r), with k and r at least 1"
            )
        if not np.isfinite(W2).all():
            raise InputError("PromptAttention.adaptive: W2 has NaN or infinite entries; expected finite numbers")
        if named(sigma, "PromptAttention.adaptive: sigma") == "identity":
            W1, W2 = W2 @ W1, np.eye(len(W2))
        elif activation(sigma).homogeneous:
            norms = np.linalg.norm(W2, axis=0)
            if not (norms > 0).all():
                raise InputError("PromptAttention.adaptive: W2 has a zero column; expected none, leave the unit out")
            W1, W2 = W1 * norms[:, None], W2 / norms
        return cls(head, PromptKind("adaptive", sigma, bias), b, W1.reshape(len(W1), -1), W2)

    @property
    def k(self) -> int:
        """Return the number of prompts."""
        return len(self.b)

    @property
    def family(self) -> PromptFamily:
        """Return the family that these parameters belong to."""
        return PromptFamily(self.head, self.kind, self.k, max(self.W2.shape[1], 1))

    @property
    def vector(self) -> np.ndarray:
        """Return the point of ``family`` (size,)."""
        shared = self.W2.ravel() if self.kind.shares_w2 else np.zeros(0)
        return np.concatenate([self.b, self.atoms.ravel(), shared, self.factor])

    def chosen(self, atoms: list[int]) -> PromptAttention:
        """Return the same head with these prompts.

        atoms  numbers of the prompts, from 0, in the order wanted

        A repeated prompt splits into equal parts that leave f as it is.

        Raises ``InputError`` where there is no prompt of such a number, and for none.
        """
        which = chosen_of(atoms, self.k, "chosen")
        times = np.bincount(which, minlength=self.k)
        b = self.b[which] - np.log(times[which])
        return PromptAttention(self.head, self.kind, b, self.atoms[which], self.W2, self.factor)

    def prompts(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return keys and values at x (m, d): two arrays (m, k, p)."""
        x = table(x, self.head.d, "x")
        p, m = self.head.p, len(x)
        if self.kind.base == "adaptive":
            read = self.head.read(x)
            inputs = with_one(read) if self.kind.bias else read
            W1 = self.atoms.reshape(self.k, self.W2.shape[1], -1)
            made = self.kind.activation.value(np.einsum("kri,mi->mkr", W1, inputs)) @ self.W2.T
            return made, made
        keys, values = self._constants()
        return np.broadcast_to(keys, (m, self.k, p)), np.broadcast_to(values, (m, self.k, p))

    def gates(self, x: np.ndarray) -> np.ndarray:
        """Return the softmax weights (m, N + k) at x (m, d): frozen experts first, then prompts.

        Of several heads they are (m, H, N + k). Of a zero-initialised one both parts sum to 1.

        Raises ``InputError`` where x has another shape or is not finite.
        """
        x = self._inputs(x)
        return self.head.gates(x, self.prompts(x)[0], self.b)

    def regression(self, x: np.ndarray) -> np.ndarray:
        """Return f(x) (m, l), the attention output, at x (m, d).

        Raises ``InputError`` where x has another shape or is not finite.
        """
        x = self._inputs(x)
        whole = self.head.output(x, *self.prompts(x), self.b)
        if not isinstance(self.head, ZeroInitialised):
            return whole
        tokens = self.head.tokens(x)
        return tokens + np.tanh(self.factor[0]) * (whole - tokens)

    def sample(self, n: int, rng: np.random.Generator, noise: float) -> Sample:
        """Draw n pairs with x uniform on [-1, 1]^d and y = f(x) + N(0, noise^2).

        rng  generator that the pairs are drawn with

        Raises ``InputError`` where n is no positive whole number or ``noise`` is negative.
        """
        n = count(n, 1, "sample: n")
        generator(rng, "sample")
        noise = real(noise, "[0, inf)", "sample: noise")
        x = rng.uniform(-1, 1, (n, self.head.d))
        return Sample(x, self.regression(x) + noise * rng.standard_normal((n, self.head.l)))

    def _inputs(self, x: np.ndarray) -> np.ndarray:
        x = numbers(x, "PromptAttention: x")
        if x.ndim != 2 or x.shape[1] != self.head.d or not np.isfinite(x).all():
            raise InputError(f"PromptAttention: x of shape {x.shape}; expected (points, {self.head.d}), all finite")
        return x


def single(head: AnyHead) -> Head:
    """Return a head as the single ``Head`` that it is; raises ``InputError`` for several heads."""
    if not isinstance(head, Head):
        raise InputError(f"expected a single Head, given {type(head).__name__}; ask each of its heads")
    return head


def expect_head(head: Any, what: str) -> None:
    """Raise ``InputError`` unless ``head`` is the frozen part of a family; ``what`` names it."""
    if isinstance(head, type) or not isinstance(head, AnyHead):
        raise InputError(f"{what}: a {type(head).__name__}; expected a Head, a MultiHead or a ZeroInitialised")


def prompts_of(made: np.ndarray, b: np.ndarray, points: int, p: int) -> tuple[np.ndarray, np.ndarray]:
    """Return keys or values (points, k, p) and logit biases b (k,) of prompts, or raise ``InputError``."""
    made, b = numbers(made, "keys or values of prompts"), numbers(b, "b")
    if b.ndim != 1 or made.shape != (points, len(b), p):
        raise InputError(f"prompts of shape {made.shape} with b {b.shape}; expected ({points}, k, {p}) and (k,)")
    return made, b


def with_one(x: np.ndarray) -> np.ndarray:
    """Return (x, 1), for x (m, d): (m, d + 1)."""
    return np.concatenate([x, np.ones((len(x), 1))], axis=1)


def from_head(
    W_Q: np.ndarray,
    W_K: np.ndarray,
    W_V: np.ndarray,
    tokens: int,
    bias: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None,
    query: int = 0,
) -> Head:
    """Return a real attention head as a ``Head``: row ``query`` of its output as a function of all tokens.

    W_Q, W_K, W_V  (D, d_h), (D, d_h) and (D, d_v), the projections
    tokens         number N of tokens, each of D features; x = (x_1, .., x_N) has d = N D
    bias           (c_q, c_k, c_v) if the head has biases
    query          number of the token whose row is meant

    With E_j x = x_j and q the token ``query``, softmax(Q K' / sqrt(d_h)) V with prompts appended is

        A_j = E_q'W_Q W_K'E_j / sqrt(d_h),   h_j = W_V'E_j x + c_v,
        B = E_q'W_Q W_K' / sqrt(d_h),   C = W_V',
        alpha_j = E_j'W_K c_q / sqrt(d_h),   beta = W_K c_q / sqrt(d_h),   c = c_v,   a = 0,
        and b = 0 for each prompt;

    c_k adds the same to all logits and drops out. Prompts live in token space, p = D; ``token_wise`` makes
    the W1_l of adaptive ones. Where d_h < D, B has rank d_h < p.

    Raises ``InputError`` for shapes that do not fit, and for a query that is none of the tokens.

    >>> import numpy as np
    >>> import moe_prompts as mp
    >>> head = mp.from_head(np.eye(4, 2), np.eye(4, 2), np.eye(4, 2), tokens=3)
    >>> head.n_frozen, head.d, head.l, head.p
    (3, 12, 2, 4)
    """
    W_Q, W_K, W_V = (numbers(W, "from_head: a projection") for W in (W_Q, W_K, W_V))
    if W_Q.ndim != 2 or W_K.shape != W_Q.shape or W_V.ndim != 2 or len(W_V) != len(W_Q) or not W_Q.size:
        raise InputError(
            f"from_head: W_Q {W_Q.shape}, W_K {W_K.shape}, W_V {W_V.shape}; expected (D, d_h), (D, d_h), (D, d_v)"
        )
    whole_tokens, whole_query = integer(tokens), integer(query)
    if whole_tokens is None or whole_query is None or not 0 <= whole_query < whole_tokens <= MOST_TOKENS:
        raise InputError(
            f"from_head: tokens = {shown(tokens)}, query = {shown(query)}; expected whole numbers, tokens >= 1 and "
            f"0 <= query < tokens <= {MOST_TOKENS}"
        )
    tokens, query = whole_tokens, whole_query
    D, d_h = W_Q.shape
    zeros = [np.zeros(d_h), np.zeros(d_h), np.zeros(W_V.shape[1])]
    biases = zeros if bias is None else listed(bias, "from_head: bias")
    if len(biases) != 3:
        raise InputError(f"from_head: {len(biases)} biases; expected three, of queries, keys and values")
    c_q, c_k, c_v = (numbers(c, "from_head: a bias") for c in biases)
    if c_q.shape != (d_h,) or c_k.shape != (d_h,) or c_v.shape != (W_V.shape[1],):
        raise InputError(
            f"from_head: bias of shapes {c_q.shape}, {c_k.shape}, {c_v.shape}; expected ({d_h},), ({d_h},), "
            f"({W_V.shape[1]},) for queries, keys and values"
        )
    E = np.eye(tokens * D).reshape(tokens, D, tokens * D)
    scale = 1 / np.sqrt(d_h)
    B = E[query].T @ W_Q @ W_K.T * scale
    experts = np.concatenate([W_V.T @ E, np.broadcast_to(c_v[:, None], (tokens, len(c_v), 1))], axis=2)
    beta = W_K @ c_q * scale
    return Head(A=B @ E, a=np.zeros(tokens), eta=experts, B=B, C=W_V.T, alpha=beta @ E, beta=beta, c=c_v)


def token_wise(W1: np.ndarray, projectors: np.ndarray) -> np.ndarray:
    """Return W1_l = W1 (g_l' (x) I_D) (k, r, N D): prompt l sees sum_j g_lj x_j.

    W1          (r, D), the shared feature projector
    projectors  (k, N), the token-wise projectors g

    Raises ``InputError`` for other shapes.

    Source: arXiv 2501.18936, token-wise projectors with a shared feature projector.

    >>> import numpy as np
    >>> import moe_prompts as mp
    >>> mp.token_wise(np.ones((2, 4)), np.ones((5, 3))).shape
    (5, 2, 12)
    """
    W1, projectors = numbers(W1, "token_wise: W1"), numbers(projectors, "token_wise: projectors")
    if W1.ndim != 2 or projectors.ndim != 2:
        raise InputError(f"token_wise: W1 {W1.shape}, projectors {projectors.shape}; expected (r, D) and (k, N)")
    return np.einsum("ri,kn->krni", W1, projectors).reshape(len(projectors), len(W1), -1)


def _freeze(params: Head | PromptAttention) -> None:
    for one in fields(params):
        if one.name not in ("head", "kind"):
            value = np.array(numbers(getattr(params, one.name), f"{type(params).__name__}: {one.name}"))
            value.setflags(write=False)
            object.__setattr__(params, one.name, value)


def _check_shapes(params: Head | PromptAttention, expected: dict[str, tuple[int, ...]], where: str) -> None:
    name = type(params).__name__
    for one, shape in expected.items():
        value = getattr(params, one)
        if value.shape != shape:
            raise InputError(f"{name}: {one} has shape {value.shape}; expected {shape} for {where}")
        if not np.isfinite(value).all():
            raise InputError(f"{name}: {one} has NaN or infinite entries; expected finite numbers")

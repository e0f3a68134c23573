"""Describe several attention heads that share their prompts: the multi-head attention of a real network.

    f(x) = sum_h O_h f_h(x) + o,    f_h the prompt regression of head h,

every head with its own frozen experts, gate and projections B_h, C_h, and all heads with the same k prompts.
A prompt is a token of the network, so that what one head cannot see of it another head may: the keys of a
fixed prompt p act through (B_1 p, .., B_H p) together.

When is a split of a fixed prompt p into p + u and p - u, half the mass each, invisible? In head h it moves
the logits by x'B_h u and the values by C_h u. Where B_h u = 0 the two logits stay equal and the two values
average to the old one, so that f_h stays what it was. Where B_h u != 0 the second-order part of f_h is

    (g_h / 2) [ (x'B_h u)^2 (v_h - f_h) + 2 (x'B_h u) C_h u ],

g_h the gate of the prompt and v_h its value. So a direction is hidden to all orders where B_h u = 0 in every
head: in the kernel of the stacked matrix (B_1; ..; B_H). One head with d_h < p always has such directions; H
heads with H d_h >= p and projections in general position have none, and two heads with equal key projections
have those of one. Where B_h u != 0 for some head, the split is seen to second order unless the span of the
first derivatives holds this part; ``identifiability.kappas`` measures whether it does.

Sources: multi-head attention: arXiv 1706.03762; prompts as tokens of all heads: arXiv 2203.12119.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from moe_prompts.checks import listed, numbers, whole
from moe_prompts.errors import InputError
from moe_prompts.models.activations import Activation
from moe_prompts.models.prompt_attention import Head, PromptFamily, ZeroInitialised, from_head
from moe_prompts.models.prompt_derivatives import PromptMap, PromptValues
from moe_prompts.models.zero_initialised import ZeroInitialisedMap


def _left_out() -> np.ndarray:
    return np.zeros(0)


@dataclass(frozen=True, eq=False)
class MultiHead:
    """Hold the frozen part of H heads that share their prompts; it stands where a ``Head`` stands.

    heads  H heads with the same d and p; their numbers of outputs l_h may differ
    out    (l, l_1 + .. + l_H)  the output projection of the concatenated heads; the identity by default, so
           that the outputs of all heads stand side by side
    shift  (l,)  the bias of the output projection, zero by default

    Raises ``InputError`` for no heads, heads of different inputs or prompts, and shapes that do not fit.

    >>> import moe_prompts as mp
    >>> head = mp.prompt_truth("attention-fixed").params.head
    >>> two = mp.MultiHead((head, head))
    >>> len(two.heads), two.out.shape
    (2, (4, 4))
    """

    heads: tuple[Head, ...]
    out: np.ndarray = field(default_factory=_left_out)
    shift: np.ndarray = field(default_factory=_left_out)

    def __post_init__(self) -> None:
        heads = tuple(listed(self.heads, "MultiHead: heads"))
        object.__setattr__(self, "heads", heads)
        if not heads or not all(isinstance(head, Head) for head in heads):
            raise InputError("MultiHead: expected at least one Head")
        for name in ("d", "p", "reads"):
            found = [getattr(head, name) for head in heads]
            if len(set(found)) > 1:
                raise InputError(
                    f"MultiHead: heads with {name} = {found}; expected the same for all: they share x and prompts"
                )
        width = sum(head.l for head in heads)
        out = numbers(self.out, "MultiHead: out")
        out = out.copy() if out.size else np.eye(width)
        if out.ndim != 2 or out.shape[1] != width:
            raise InputError(
                f"MultiHead: out has shape {out.shape}; expected (outputs, {width}) for heads of {width} outputs in all"
            )
        shift = numbers(self.shift, "MultiHead: shift")
        shift = shift.copy() if shift.size else np.zeros(len(out))
        if shift.shape != (len(out),):
            raise InputError(f"MultiHead: shift has shape {shift.shape}; expected ({len(out)},)")
        for name, value in (("out", out), ("shift", shift)):
            if not np.isfinite(value).all():
                raise InputError(f"MultiHead: {name} has NaN or infinite entries; expected finite numbers")
            value.setflags(write=False)
            object.__setattr__(self, name, value)

    @property
    def n_frozen(self) -> int:
        """Return the number of frozen experts of the first head; in a network all heads have as many."""
        return self.heads[0].n_frozen

    @property
    def d(self) -> int:
        """Return the number of inputs."""
        return self.heads[0].d

    @property
    def l(self) -> int:
        """Return the number of outputs after the projection."""
        return len(self.out)

    @property
    def p(self) -> int:
        """Return the dimension of a prompt."""
        return self.heads[0].p

    @property
    def reads(self) -> int:
        """Return how many numbers adaptive prompts are functions of."""
        return self.heads[0].reads

    def read(self, x: np.ndarray) -> np.ndarray:
        """Return these numbers at x (m, d): (m, reads)."""
        return self.heads[0].read(x)

    @property
    def B(self) -> np.ndarray:
        """Return the key projections of all heads below each other (H d, p).

        Its kernel is what no head sees of a key.
        """
        return np.concatenate([head.B for head in self.heads])

    @property
    def outputs(self) -> tuple[np.ndarray, ...]:
        """Return O_h (l, l_h), the columns of ``out`` that belong to each head."""
        return tuple(np.split(self.out, np.cumsum([head.l for head in self.heads])[:-1], axis=1))

    def gates(self, x: np.ndarray, keys: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return the softmax weights (m, H, N + k) of every head at x (m, d) for keys (m, k, p).

        Frozen experts come first. Raises ``InputError`` where heads differ in their number of them.

        b  (k,), logit biases of the prompts
        """
        sizes = {head.n_frozen for head in self.heads}
        if len(sizes) > 1:
            raise InputError(f"gates: heads with {sorted(sizes)} frozen experts; ask each of ``heads`` for its own")
        return np.stack([head.gates(x, keys, b) for head in self.heads], axis=1)

    def output(self, x: np.ndarray, keys: np.ndarray, values: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return f(x) (m, l) at x (m, d) with prompts of keys and values (m, k, p).

        b  (k,), logit biases of the prompts
        """
        parts = [head.output(x, keys, values, b) for head in self.heads]
        return np.concatenate(parts, axis=1) @ self.out.T + self.shift


def from_block(
    W_Q: np.ndarray,
    W_K: np.ndarray,
    W_V: np.ndarray,
    W_O: np.ndarray,
    heads: int,
    tokens: int,
    bias: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None = None,
    query: int = 0,
) -> MultiHead:
    """Return a real attention block as a ``MultiHead``: one row of its output as a function of its tokens.

    W_Q, W_K (D, H d_h), W_V (D, H d_v)   columns h d_h .. (h + 1) d_h belong to head h, as in timm and torch
    W_O (H d_v, D')                       the output projection, concat(heads) W_O
    heads, tokens                         H, and N tokens of D features: x = (x_1, .., x_N), d = N D
    bias                                  (c_q, c_k, c_v, c_o) if the block has biases
    query                                 the token whose output is read, 0 <= query < tokens

    Raises ``InputError`` for shapes that do not fit and widths that H does not divide. See ``from_head`` for
    one head.

    >>> import numpy as np
    >>> import moe_prompts as mp
    >>> W_Q, W_K, W_V, W_O = np.random.default_rng(0).standard_normal((4, 6, 6))
    >>> block = mp.from_block(W_Q, W_K, W_V, W_O, heads=3, tokens=5)
    >>> (block.d, block.p, block.l, np.linalg.matrix_rank(block.heads[0].B), np.linalg.matrix_rank(block.B))
    (30, 6, 6, np.int64(2), np.int64(6))
    """
    W_Q, W_K, W_V, W_O = (numbers(W, "from_block: a projection") for W in (W_Q, W_K, W_V, W_O))
    heads = whole(heads, 1, "from_block: heads")
    if any(W.ndim != 2 for W in (W_Q, W_K, W_V, W_O)) or W_K.shape != W_Q.shape or len(W_V) != len(W_Q):
        raise InputError(
            f"from_block: W_Q {W_Q.shape}, W_K {W_K.shape}, W_V {W_V.shape}, W_O {W_O.shape}; expected (D, H d_h), "
            "(D, H d_h), (D, H d_v), (H d_v, D')"
        )
    if W_Q.shape[1] % heads or W_V.shape[1] % heads or len(W_O) != W_V.shape[1]:
        raise InputError(
            f"from_block: {heads} heads of queries {W_Q.shape[1]} and values {W_V.shape[1]} columns wide, W_O with "
            f"{len(W_O)} rows; expected widths that {heads} divides, and a row of W_O for each column of W_V"
        )
    given = [] if bias is None else listed(bias, "from_block: bias")
    if bias is not None and len(given) != 4:
        raise InputError(f"from_block: {len(given)} biases; expected four, of queries, keys, values and the output")
    columns = lambda W: np.split(W, heads, axis=-1)
    own = list(zip(columns(W_Q), columns(W_K), columns(W_V), strict=True))
    if bias is None:
        made = [from_head(*three, tokens, query=query) for three in own]
        shift = np.zeros(W_O.shape[1])
    else:
        c_q, c_k, c_v, c_o = (numbers(c, "from_block: a bias") for c in given)
        for name, c, width in (("c_q", c_q, W_Q.shape[1]), ("c_k", c_k, W_Q.shape[1]), ("c_v", c_v, W_V.shape[1])):
            if np.shape(c) != (width,):
                raise InputError(f"from_block: {name} has shape {np.shape(c)}; expected ({width},)")
        biases = zip(columns(c_q), columns(c_k), columns(c_v), strict=True)
        made = [from_head(*three, tokens, bias=cs, query=query) for three, cs in zip(own, biases, strict=True)]
        shift = c_o
    return MultiHead(tuple(made), W_O.T, shift)


def divided(head: Head, parts: Sequence[Sequence[int]]) -> MultiHead:
    """Return heads that share the work of one: head h keeps the singular directions and outputs ``parts[h]``.

    With B = U S V', head h has B_h = U_h S_h V_h', frozen experts whose gates pass its own queries,
    U_h U_h' A_j, and the outputs of that number; all outputs stand side by side. So d_h = d_v = len(parts[h])
    as in a network with H d_h = d, and one part with all directions is the head itself with its outputs.

    Raises ``InputError`` for directions or outputs that the head does not have, and where an output is in no
    part or in two.
    """
    left, sizes, right = np.linalg.svd(head.B)
    order = [one for part in parts for one in part]
    if len(sizes) != head.l or sorted(order) != list(range(head.l)) or not all(len(part) for part in parts):
        raise InputError(
            f"divided: parts {[list(part) for part in parts]} of a head with {len(sizes)} directions and {head.l} "
            "outputs; expected as many outputs as directions, each in exactly one part"
        )
    heads = []
    for part in parts:
        chosen = list(part)
        u = left[:, chosen]
        own = {"A": u @ u.T @ head.A, "alpha": head.alpha @ u @ u.T, "B": (u * sizes[chosen]) @ right[chosen]}
        heads.append(replace(head, eta=head.eta[:, chosen], C=head.C[chosen], c=head.c[chosen], **own))
    return MultiHead(tuple(heads), np.eye(head.l)[:, order])


def prompt_map(
    family: PromptFamily, x: np.ndarray, activation: Activation | None = None
) -> PromptMap | MultiHeadMap | ZeroInitialisedMap:
    """Return theta -> f(x; theta) of a family at fixed points x (m, d), for every kind of head."""
    if isinstance(family.head, ZeroInitialised):
        return ZeroInitialisedMap(family, x, activation)
    if isinstance(family.head, MultiHead):
        return MultiHeadMap(family, x, activation)
    return PromptMap(family, x, activation)


class MultiHeadMap:
    """Map theta to f(x; theta) of a family on several heads at fixed points x (m, d)."""

    def __init__(self, family: PromptFamily, x: np.ndarray, activation: Activation | None = None) -> None:
        assert isinstance(family.head, MultiHead)
        self.family = family
        self.outputs = family.head.outputs
        self.shift = family.head.shift
        self.maps = [PromptMap(replace(family, head=head), x, activation) for head in family.head.heads]

    def at(self, vectors: np.ndarray) -> MultiHeadValues:
        """Return f at S vectors (S, size)."""
        return MultiHeadValues(self, tuple(map.at(vectors) for map in self.maps))


@dataclass(frozen=True)
class MultiHeadValues:
    """Hold f (S, l, m) at S vectors, from the values of every head at the same vectors.

    f is linear in the outputs of the heads and every head has the same parameters, so that Jacobians add up
    after the projection and the curvature of a residual r is that of O_h'r in each head.
    """

    map: MultiHeadMap
    parts: tuple[PromptValues, ...]

    @property
    def f(self) -> np.ndarray:
        """Return f (S, l, m)."""
        parts = [O @ part.f for O, part in zip(self.map.outputs, self.parts, strict=True)]
        return np.sum(parts, axis=0) + self.map.shift[:, None]

    def chosen(self, which: np.ndarray) -> MultiHeadValues:
        """Return those of some of the vectors."""
        return replace(self, parts=tuple(part.chosen(which) for part in self.parts))

    def jacobian(self) -> np.ndarray:
        """Return df / dtheta: (S, size, l, m)."""
        parts = [O @ part.jacobian() for O, part in zip(self.map.outputs, self.parts, strict=True)]
        return np.sum(parts, axis=0)

    def curvature(self, residual: np.ndarray) -> np.ndarray:
        """Return the sum of residual (S, l, m) times d2f / dtheta2, (S, size, size)."""
        parts = [part.curvature(O.T @ residual) for O, part in zip(self.map.outputs, self.parts, strict=True)]
        return np.sum(parts, axis=0)

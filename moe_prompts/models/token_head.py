"""Make a real attention head a function of few coordinates of its tokens, and say what it sees of a prompt.

Tokens that are affine in z, x_j = E_j z + e_j, make the head a ``Head`` in z: with query token q,

    A_j = E_q'G E_j,   alpha_j = E_q'G e_j + E_j'beta,   a_j = beta'e_j,   G = W_Q W_K' / sqrt(d_h),
    B = E_q'G,   beta = G'e_q + W_K c_q / sqrt(d_h),   C = W_V',   c = c_v,   h_j = W_V'(E_j z + e_j) + c_v.

B and C have rank d_h at most, so that of a prompt p in R^D only its part in the span of the rows of B, C and
beta acts at all: the rest has no rate, and ``visible`` takes it out. Several heads that share their prompts
see what any one of them sees.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from moe_prompts.errors import InputError
from moe_prompts.models.multi_head import MultiHead
from moe_prompts.models.prompt_attention import AnyHead, Head, PromptAttention, single, with_one

#: Singular values below this share of the largest are zero.
RANK = 1e-9
#: W_Q, W_K, W_V (D, d_h) of one head, and their biases (d_h,).
Projections = tuple[np.ndarray, np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray]]


@dataclass(frozen=True, eq=False)
class TokenHead(Head):
    """Hold a head whose adaptive prompts are functions of the first coordinates of z alone.

    first  how many coordinates they read; 0: all

    The other fields are those of ``Head``.

    Raises ``InputError`` where there are fewer coordinates, or where ``Head`` does.
    """

    first: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        first = int(self.first)
        if not 0 <= first <= self.d:
            raise InputError(f"TokenHead: prompts read {first} coordinates; expected 0 (all) to {self.d}")
        object.__setattr__(self, "first", first or self.d)

    @property
    def reads(self) -> int:
        """Return how many numbers adaptive prompts are functions of."""
        return self.first

    def read(self, x: np.ndarray) -> np.ndarray:
        """Return these numbers (m, reads) at x (m, d)."""
        return x[:, : self.first]

    def gates_and_experts(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return what ``Head`` does, by matrix products: z has many coordinates."""
        logits = ((x @ self.A) * x).sum(axis=2).T + x @ self.alpha.T + self.a
        return logits, (with_one(x) @ self.eta.swapaxes(1, 2)).swapaxes(0, 1)


@dataclass(frozen=True, eq=False)
class TokenMap:
    """Map coordinates z to tokens x_j = basis_j z + offset_j.

    basis   (N, D, d)
    offset  (N, D)
    """

    basis: np.ndarray
    offset: np.ndarray

    def tokens(self, z: np.ndarray) -> np.ndarray:
        """Return the tokens (m, N, D) at z (m, d)."""
        return np.einsum("njd,md->mnj", self.basis, z, optimize=True) + self.offset

    @classmethod
    def principal(cls, tokens: np.ndarray, keep: int) -> tuple[TokenMap, np.ndarray, float]:
        """Return the map of the leading principal coordinates of tokens (m, N, D).

        It comes with those ``keep`` coordinates (m, keep), each of variance 1, and the share of the variance
        of all tokens that they keep.

        Raises ``InputError`` where the tokens vary in fewer coordinates.
        """
        m, N, D = tokens.shape
        flat = tokens.reshape(m, -1)
        centre = flat.mean(axis=0)
        left, sizes, right = np.linalg.svd(flat - centre, full_matrices=False)
        most = int((sizes > RANK * sizes[0]).sum())
        if not 1 <= keep <= most:
            raise InputError(f"coordinates = {keep}; the tokens of {m} images vary in {most}: expected 1 to {most}")
        scale = sizes[:keep] / np.sqrt(m)
        basis = (scale[:, None] * right[:keep]).T.reshape(N, D, keep)
        kept = float((sizes[:keep] ** 2).sum() / (sizes**2).sum())
        return cls(basis, centre.reshape(N, D)), left[:, :keep] * np.sqrt(m), kept


def head_of_tokens(
    projections: Projections,
    of: TokenMap,
    query: int,
    first: int = 0,
    outputs: np.ndarray | None = None,
) -> TokenHead:
    """Return row ``query`` of a real head's output as a function of z.

    projections  W_Q, W_K, W_V (D, d_h) and their biases (c_q, c_k, c_v)
    of           the map from z to tokens
    query        number of the token whose row is meant
    first        how many coordinates of z adaptive prompts read; 0: all
    outputs      (d_h, l): the model is of these combinations of the head's outputs; all by default

    c_k adds the same to all logits and drops out. The result equals ``from_head`` where z are all tokens.
    """
    W_Q, W_K, W_V, (c_q, _, c_v) = projections
    if outputs is not None:
        W_V, c_v = W_V @ outputs, c_v @ outputs
    scale = 1 / np.sqrt(W_Q.shape[1])
    G = W_Q @ W_K.T * scale
    B = of.basis[query].T @ G
    beta = G.T @ of.offset[query] + W_K @ c_q * scale
    experts = np.concatenate([W_V.T @ of.basis, (of.offset @ W_V + c_v)[:, :, None]], axis=2)
    alpha = of.offset @ B.T + np.einsum("njd,j->nd", of.basis, beta)
    return TokenHead(B @ of.basis, of.offset @ beta, experts, B, W_V.T, alpha, beta, c_v, first)


@dataclass(frozen=True)
class Visibility:
    """Count the directions of a prompt that a head, or several together, see.

    width     directions in all
    by_logit  how many the logits see (rank of B)
    by_value  how many the values see (rank of C)
    together  how many f sees at all
    """

    width: int
    by_logit: int
    by_value: int
    together: int

    @property
    def blind(self) -> int:
        """Return the number of directions that f does not see."""
        return self.width - self.together


def visibility(head: AnyHead) -> Visibility:
    """Return how many directions of a prompt the head, or its heads together, see."""
    every = _rows(head)
    size = float(np.linalg.norm(every, 2))
    rank = lambda rows: int((np.linalg.svd(rows, compute_uv=False) > RANK * size).sum())
    return Visibility(head.p, rank(np.concatenate([one.B for one in heads_of(head)])), rank(_values(head)), rank(every))


def visible_basis(head: AnyHead) -> np.ndarray:
    """Return orthonormal directions (p, v) of all that f can see of a prompt."""
    return spanned(_rows(head))


def blind_basis(head: AnyHead) -> np.ndarray:
    """Return the other directions (p, p - v): moving a prompt there changes nothing."""
    return unseen(_rows(head))


def visible(head: AnyHead, basis: np.ndarray, unit: float = 1.0) -> Head | MultiHead:
    """Return the head, or the heads, of prompts p = unit * basis q: they live in q."""
    if isinstance(head, MultiHead):
        return replace(head, heads=tuple(_visible(one, basis, unit) for one in head.heads))
    return _visible(single(head), basis, unit)


def _visible(head: Head, basis: np.ndarray, unit: float) -> Head:
    V = unit * basis
    return replace(head, B=head.B @ V, C=head.C @ V, beta=head.beta @ V)


def heads_of(head: AnyHead) -> tuple[Head, ...]:
    """Return the heads of a frozen part: one, or several that share their prompts."""
    return head.heads if isinstance(head, MultiHead) else (single(head),)


def seen(params: PromptAttention, basis: np.ndarray, unit: float = 1.0) -> PromptAttention:
    """Return the same function in the coordinates q of its fixed or adaptive prompts.

    ``basis`` spans all that is visible, and p = unit * basis q.

    Raises ``InputError`` for other prompts: they must be fixed, or adaptive with a free W2.
    """
    head = visible(params.head, basis, unit)
    if params.kind.base == "fixed":
        return PromptAttention.fixed(head, params.b, params.atoms @ basis / unit)
    if (
        params.kind.base in ("decoupled", "prefix")
        or params.kind.sigma == "identity"
        or params.kind.activation.homogeneous
    ):
        raise InputError(f"seen: {params.kind} prompts; expected fixed ones, or adaptive ones with a free W2")
    return replace(params, head=head, W2=basis.T @ params.W2 / unit)


def spanned(rows: np.ndarray) -> np.ndarray:
    """Return an orthonormal basis (p, rank) of the span of rows (count, p)."""
    return _split(rows)[0]


def unseen(rows: np.ndarray) -> np.ndarray:
    """Return an orthonormal basis (p, p - rank) of what is orthogonal to all rows (count, p)."""
    return _split(rows)[1]


def _split(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    _, sizes, right = np.linalg.svd(rows)
    rank = int((sizes > RANK * sizes[0]).sum())
    return right[:rank].T, right[rank:].T


def key_rows(head: AnyHead) -> np.ndarray:
    """Return the rows (count, p) that span what the logits of all heads see of a prompt."""
    return np.concatenate([rows for one in heads_of(head) for rows in (one.B, one.beta[None])])


def _values(head: AnyHead) -> np.ndarray:
    """Return the rows (count, p) that span what the values of all heads show of a prompt in the outputs."""
    if isinstance(head, MultiHead):
        return np.concatenate([O @ one.C for O, one in zip(head.outputs, head.heads, strict=True)])
    return single(head).C


def _rows(head: AnyHead) -> np.ndarray:
    return np.concatenate([key_rows(head), _values(head)])

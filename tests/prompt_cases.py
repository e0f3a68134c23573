"""One table of prompt kinds and of shapes of heads: every general test asks the same questions of each row."""

from __future__ import annotations

import numpy as np

from moe_prompts.models.activations import ACTIVATIONS
from moe_prompts.models.prompt_attention import Head, PromptFamily, PromptKind

KINDS = ["fixed", "decoupled", *(f"adaptive:{sigma}" for sigma in ACTIVATIONS), "adaptive:gelu:bias"]
KINDS += ["prefix:tanh:gelu", "prefix:identity:sigmoid"]
SHAPES = [
    {},
    {"k": 1, "hidden": 1, "n_frozen": 1, "d": 1, "l": 1, "p": 1},
    {"k": 2, "hidden": 4, "n_frozen": 3, "d": 4, "l": 1, "p": 2},
]


def random_head(rng, n_frozen=2, d=3, l=4, p=5):
    """Every size is another number, so that no two axes can be confused."""
    return Head(
        A=0.5 * rng.standard_normal((n_frozen, d, d)),
        a=rng.standard_normal(n_frozen),
        eta=rng.standard_normal((n_frozen, l, d + 1)),
        B=rng.standard_normal((d, p)),
        C=rng.standard_normal((l, p)),
        alpha=0.5 * rng.standard_normal((n_frozen, d)),
        beta=0.5 * rng.standard_normal(p),
        c=rng.standard_normal(l),
    )


def random_prompts(kind, k=3, hidden=2, seed=0, **sizes):
    """Prompts of a kind beside a random head."""
    rng = np.random.default_rng(seed)
    family = PromptFamily(random_head(rng, **sizes), PromptKind.parse(kind), k, hidden)
    return family.unpack(0.7 * rng.standard_normal(family.size))


def points(params, m=9):
    """Points where no hidden unit is within .02 of the kink of relu."""
    x = np.random.default_rng(11).uniform(-1, 1, (20 * m, params.head.d))
    if params.kind.sigma == "relu":
        W1 = params.atoms.reshape(params.k, params.W2.shape[1], -1)
        x = x[(np.abs(np.einsum("kri,mi->mkr", W1, x)) > 0.02).all(axis=(1, 2))]
    assert len(x) >= m
    return x[:m]

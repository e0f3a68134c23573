"""Say without data what the first h of the heads of a real block see of a split prompt.

A fixed prompt p splits into p + u and p - u. Where B_h u = 0 in every head, nothing changes: no rate.
Elsewhere the change has the size |P D2[u, u]| eps^2 for small splits of eps units, with P the projection off
what the truth's own parameters can do (``identifiability``). All H heads with H d_h = d and keys in general
position see every direction, so that the exponent of the profile is 2 and the rate n^-1/4; how large the
factor is decides from which n on.

Splits are measured in units of a token's feature, and prompts have all d coordinates of a token.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from moe_prompts.identifiability import ZERO_TANGENT, SplitQuartic, kappas, order_of_outputs
from moe_prompts.models.multi_head import MultiHead, prompt_map
from moe_prompts.models.prompt_attention import PromptAttention
from moe_prompts.models.prompt_truths import PromptTruth
from moe_prompts.models.token_head import heads_of, visibility
from moe_prompts.vision.planted_head.head import (
    PlantedHead,
    first_heads,
    silent_directions,
    split_along,
    split_change,
)

#: Spreads at which a split is held, in units of a token's feature.
EPS = (0.5, 1.0, 2.0, 4.0)
#: Steps that refit one prompt beside a held split; the share of the change below which a step gains nothing.
STEPS, GAINS_NOTHING = 30, 1e-3


@dataclass(frozen=True)
class HeadsSeen:
    """Hold what the first heads of a block see of a fixed prompt and of its split, without data.

    heads          how many of them
    of             H, how many the block has
    width          d, coordinates of a prompt
    keys           d_h, directions of a prompt that the keys of one head see; ``heads`` of them: as many times
                   that at most
    by_logit       directions that the logits of these heads see
    by_value       directions that their values see, in the outputs of the model
    together       directions that f sees at all
    silent         directions in which a split changes nothing
    silent_seen    how many of them f does see when one prompt moves there
    split_change   largest |change of f| by a split of one unit in a silent direction; NaN where none is
    unit           order of magnitude of the outputs
    noise          of the truth in the whole block
    visible        |P D2[u, u]| along the d directions u in which logits vary most, .., least: what a split
                   of one unit changes to second order
    """

    heads: int
    of: int
    width: int
    keys: int
    by_logit: int
    by_value: int
    together: int
    silent: int
    silent_seen: int
    split_change: float
    unit: float
    noise: float
    visible: list[float]


def heads_seen(design: PlantedHead, count: int) -> HeadsSeen:
    """Return what the first ``count`` heads see of the fixed truth and its splits."""
    truth = first_heads(design, "fixed", count)
    head = truth.params.head
    assert isinstance(head, MultiHead)
    assert isinstance(design.head, MultiHead)
    silent = silent_directions(truth).shape[1]
    sees = visibility(head)
    return HeadsSeen(
        count,
        len(design.head.heads),
        head.p,
        visibility(heads_of(head)[0]).by_logit,
        sees.by_logit,
        sees.by_value,
        sees.together,
        silent,
        sees.together - (head.p - silent),
        split_change(truth, 1.0) if silent else float("nan"),
        order_of_outputs(truth.signal),
        truth.noise,
        second_order(truth).tolist(),
    )


def second_order(truth: PromptTruth) -> np.ndarray:
    """Return |P D2[u, u]| of the first prompt along the directions u in which the logits vary (p,).

    The most variable direction comes first. Where the logits do not vary it is zero, and said so exactly.
    """
    values = prompt_map(truth.params.family, truth.x).at(truth.params.vector[None])
    root = 1 / np.sqrt(len(truth.x))
    jacobian = values.jacobian()[0].reshape(truth.params.family.size, -1) * root
    left, sizes, _ = np.linalg.svd(jacobian.T, full_matrices=False)
    quartic = SplitQuartic.of(values, 0, left[:, sizes > ZERO_TANGENT * sizes[0]])  # type: ignore[arg-type]
    queries = np.concatenate([one.queries(truth.x) for one in heads_of(truth.params.head)])
    around = queries.reshape(-1, *truth.x.shape[:1], queries.shape[1])
    around = (around - around.mean(axis=1, keepdims=True)).reshape(queries.shape)
    _, _, axes = np.linalg.svd(around, full_matrices=True)
    loud = np.abs(queries @ axes.T).max(axis=0) > 1e-12 * np.abs(queries).max()
    return np.where(loud, np.sqrt(quartic.at(axes)), 0.0)


@dataclass(frozen=True)
class HeldSplit:
    """Hold what a split of a prompt along its least visible direction changes, everything else refitted.

    kappa2     |P D2[u, u]| along that direction u, the smallest found
    eps   (E,)  spreads
    value (E,)  least |f - f*| found with the two halves at p + eps u and p - eps u, of equal mass, p and
                their mass free: an upper bound of the profile, and equal to it as eps -> 0
    ended (E,)  whether no step of Gauss-Newton gained anything any more
    """

    kappa2: float
    eps: np.ndarray
    value: np.ndarray
    ended: np.ndarray


def held_split(truth: PromptTruth, rng: np.random.Generator, eps: tuple[float, ...] = EPS) -> HeldSplit:
    """Return the held split of a fixed truth; ``rng`` is the source of starts for the direction."""
    found = kappas(truth, rng)
    prompt = int(found.per_prompt.argmin())
    ends = [_refitted(truth, prompt, one * found.directions[prompt]) for one in eps]
    value, ended = zip(*ends, strict=True)
    return HeldSplit(found.kappa2, np.array(eps), np.array(value), np.array(ended))


def _refitted(truth: PromptTruth, prompt: int, by: np.ndarray) -> tuple[float, bool]:
    """Return the least |f - f*| with one prompt split by +-``by`` and all prompts and masses free, and if it ended.

    Gauss-Newton with halved steps. The pair moves as one: the derivative in what it shares is the sum of those of
    its two halves.
    """
    family = truth.params.family
    wanted = truth.params.regression(truth.x).T
    root = 1 / np.sqrt(len(truth.x))

    def of(vector: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the vector of k + 1 prompts, and f less the truth's (l m,)."""
        params = family.unpack(vector)
        moved = split_along(_with(truth, params), prompt, by)
        off = prompt_map(moved.family, truth.x).at(moved.vector[None]).f[0] - wanted
        return moved.vector, off.ravel() * root

    at = truth.params.vector
    pair, off = of(at)
    both = prompt_map(family.with_k(family.k + 1), truth.x)
    larger = both.family
    for _ in range(STEPS):
        jacobian = both.at(pair[None]).jacobian()[0].reshape(larger.size, -1) * root
        rows = np.concatenate([jacobian[: family.k], *(jacobian[larger.slot(l)] for l in range(family.k))])
        own = family.slot(prompt)
        # Half the mass each: b of both halves moves with the log of their common mass.
        rows[prompt] += jacobian[family.k]
        rows[own] += jacobian[larger.slot(family.k)]
        step = -np.linalg.lstsq(rows.T, off, rcond=1e-13)[0]
        size, share = float(off @ off), 1.0
        while share > 1e-3:
            there, new = of(at + share * step)
            if float(new @ new) < size:
                break
            share /= 2
        else:
            return float(np.sqrt(size)), True
        at, pair, off = at + share * step, there, new
        if size - float(off @ off) < GAINS_NOTHING * size:
            return float(np.linalg.norm(off)), True
    return float(np.linalg.norm(off)), False


def _with(truth: PromptTruth, params: PromptAttention) -> PromptTruth:
    return replace(truth, params=params)

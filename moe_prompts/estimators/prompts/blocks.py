"""Carry an objective of prompt regression over to its compiled route: points in blocks, kinds as numbers.

Points come in blocks, each contiguous. The last block is filled up with points of weight 0, which change no
sum. ``kernels`` has the loops, and the numbers that stand for kinds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from scipy.special import logsumexp

from moe_prompts.compilation import kernels
from moe_prompts.models.activations import COMPILED
from moe_prompts.models.multi_head import MultiHeadMap
from moe_prompts.models.prompt_attention import Head, PromptFamily, PromptKind
from moe_prompts.models.prompt_derivatives import PromptMap, positions
from moe_prompts.models.zero_initialised import ZeroInitialisedMap


def blocks(rows: np.ndarray, length: int) -> np.ndarray:
    """Return (.., m) as (blocks, .., length), filled up with zeros."""
    count = -(-rows.shape[-1] // length)
    full = np.zeros((*rows.shape[:-1], count * length))
    full[..., : rows.shape[-1]] = rows
    return np.ascontiguousarray(np.moveaxis(full.reshape(*rows.shape[:-1], count, length), -2, 0))


@dataclass(frozen=True)
class CompiledObjective:
    """Hold an objective in the form that the compiled loops take.

    loops   the module of compiled functions
    family  of prompts
    noise   standard deviation s of each output
    own     (k, own), where in the vector the numbers stand that each prompt depends on
    codes   numbers that stand for kind, activation, width of a kink, and whether columns of W2 are units
    points  C and c of the head, then inputs, queries, log-mass and mean of the frozen experts in blocks
    data    weights, centres and remainders of all data sets in blocks
    """

    loops: Any
    family: PromptFamily
    noise: float
    own: np.ndarray
    codes: tuple[int, int, float, bool]
    points: tuple[np.ndarray, ...]
    data: tuple[np.ndarray, ...]

    @classmethod
    def of(
        cls,
        map: PromptMap | MultiHeadMap | ZeroInitialisedMap,
        noise: float,
        weights: np.ndarray,
        centre: np.ndarray,
        remainder: np.ndarray,
    ) -> CompiledObjective | CompiledPrefixes | None:
        """Return the objective on its compiled route; None where the route is NumPy.

        Prompts that several heads share, zero-initialised heads and activations that a user added always take
        the NumPy route. Prefixes take the route of decoupled prompts, and the chain rule.
        """
        if not isinstance(map, PromptMap):
            return None
        family, adaptive = map.family, map.family.kind.base == "adaptive"
        prefix = family.kind.base == "prefix"
        if prefix:
            family = replace(family, kind=PromptKind("decoupled"))
        if adaptive and not (any(map.activation is known for known in COMPILED) or map.activation.width):
            return None
        loops = kernels("moe_prompts.estimators.prompts.kernels")
        if loops is None:
            return None
        sigma = loops.ACTIVATIONS[map.activation.name] if adaptive else loops.IDENTITY
        width = map.activation.width if adaptive else 0.0
        unit_columns = bool(adaptive and family.kind.activation.homogeneous)
        frozen = logsumexp(map.frozen_logits, axis=0)
        blend = np.einsum("nm,nlm->lm", np.exp(map.frozen_logits - frozen), map.frozen_experts)
        head, cut = family.head, partial(blocks, length=loops.BLOCK)
        assert isinstance(head, Head)
        points = (cut(rows) for rows in (map.inputs, map.queries, frozen, blend))
        made = cls(
            loops,
            family,
            noise,
            positions(family),
            (loops.KINDS[family.kind.base], sigma, width, unit_columns),
            (np.array(head.C, order="C"), np.array(head.c), *points),
            tuple(np.stack([cut(one) for one in rows]) for rows in (weights[:, 0], centre, remainder)),
        )
        return CompiledPrefixes(map, made) if prefix else made

    def split(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return what ``PromptFamily.split`` does, of vectors that need no check, in arrays of their own."""
        family, (S, k, p) = self.family, (len(vectors), self.family.k, self.family.head.p)
        ends = k * (1 + family.atom_size)
        b, atoms, shared = vectors[:, :k], vectors[:, k:ends], vectors[:, ends:]
        if family.shared_size:
            w2 = shared.reshape(S, p, family.hidden)
            if self.codes[3]:
                w2 = w2 / np.linalg.norm(w2, axis=1, keepdims=True)
        else:
            w2 = np.tile(np.eye(p), (S, 1, 1)) if family.kind.base == "adaptive" else np.zeros((S, p, 0))
        return (
            np.array(b, order="C"),
            np.array(atoms, order="C").reshape(S, k, family.atom_size),
            np.array(w2, order="C"),
        )

    def at(self, vectors: np.ndarray, sets: np.ndarray) -> CompiledPoint:
        """Return the objective at vectors (S, size), each on the data set that ``sets`` (S,) names."""
        return CompiledPoint(self, vectors, np.asarray(sets, dtype=np.int64))


class CompiledPoint:
    """Hold Q (S,) at S vectors; derivatives are computed when they are asked for."""

    def __init__(self, objective: CompiledObjective, vectors: np.ndarray, sets: np.ndarray) -> None:
        self.objective, self.sets = objective, sets
        self.parts = objective.split(vectors)
        twice = np.empty(len(vectors))
        objective.loops.values(*objective.codes, *self.parts, *objective.points, sets, *objective.data, twice)
        self.value = twice / (2 * objective.noise**2)

    def derivatives(self, which: np.ndarray, exact: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return gradients (T, size), Gauss-Newton matrices and the rest of the Hessians (T, size, size)."""
        objective, size = self.objective, self.objective.family.size
        parts = tuple(part[which] for part in self.parts)
        gradient, metric, rest = np.zeros((len(which), size)), *np.zeros((2, len(which), size, size))
        objective.loops.derivatives(
            *objective.codes,
            *parts,
            *objective.points,
            self.sets[which],
            *objective.data,
            objective.own,
            np.ascontiguousarray(exact, dtype=bool),
            gradient,
            metric,
            rest,
        )
        scale = 1 / objective.noise**2
        return gradient * scale, metric * scale, rest * scale


class CompiledPrefixes:
    """Give the objective of prefixes by that of the decoupled prompts (s1(p), s2(p)).

    With D = d(key, value) / dp, which is diagonal, gradient, Gauss-Newton matrix and rest are D'g, D'MD and
    D'RD + diag(g_key s1'' + g_value s2'').
    """

    def __init__(self, map: PromptMap, decoupled: CompiledObjective) -> None:
        self.map, self.decoupled = map, decoupled
        of = decoupled.family
        #: Where key and value of the prompts stand in the vector of decoupled ones, and p in that of
        #: prefixes.
        slots = np.array([of.slot(l) for l in range(of.k)])
        self.keys, self.values = slots[:, : of.head.p].ravel(), slots[:, of.head.p :].ravel()
        self.prompts = np.arange(of.k, map.family.size)

    def at(self, vectors: np.ndarray, sets: np.ndarray) -> CompiledPrefixPoint:
        """Return the objective at vectors (S, size), each on the data set that ``sets`` (S,) names."""
        key, value = self.map.functions
        prompts = vectors[:, self.prompts]
        apart = np.empty((len(vectors), self.decoupled.family.size))
        apart[:, : self.map.family.k] = vectors[:, : self.map.family.k]
        apart[:, self.keys], apart[:, self.values] = key.value(prompts), value.value(prompts)
        return CompiledPrefixPoint(self, prompts, self.decoupled.at(apart, sets))


class CompiledPrefixPoint:
    """Hold Q (S,) of prefixes at S vectors; derivatives are computed when they are asked for."""

    def __init__(self, objective: CompiledPrefixes, prompts: np.ndarray, decoupled: CompiledPoint) -> None:
        self.objective, self.prompts, self.decoupled, self.value = objective, prompts, decoupled, decoupled.value

    def derivatives(self, which: np.ndarray, exact: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return gradients (T, size), Gauss-Newton matrices and the rest of the Hessians (T, size, size)."""
        of, prompts = self.objective, self.prompts[which]
        k, at = of.map.family.k, of.prompts
        gradient, metric, rest = self.decoupled.derivatives(which, exact)
        chain = np.zeros((len(which), of.decoupled.family.size, of.map.family.size))
        chain[:, np.arange(k), np.arange(k)] = 1
        bend = np.zeros(prompts.shape)
        for function, rows in zip(of.map.functions, (of.keys, of.values), strict=True):
            chain[:, rows, at] = function.first(prompts)
            bend += gradient[:, rows] * function.second(prompts)
        back = chain.swapaxes(1, 2)
        rest = back @ rest @ chain
        rest[:, at, at] += np.where(exact[:, None], bend, 0.0)
        return (back @ gradient[:, :, None])[:, :, 0], back @ metric @ chain, rest

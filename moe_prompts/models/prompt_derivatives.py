"""Compute f, its Jacobian and its exact curvature for many parameter vectors of a prompt family at once.

A prompt acts on f through its logit s_l and its value v_l alone: with gates g,

    df  = g_l (v_l - f) ds_l + g_l dv_l,
    d2f = g_l (v_l - f) ds_l^2 + 2 g_l ds_l dv_l
          - (g_l ds_l) (g_m (v_m - f) ds_m + g_m dv_m), both orders, all l and m,

plus what adaptive prompts and prefixes, being curved themselves, add. Vectors come first and points
last: (S, .., m).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moe_prompts.models.activations import Activation
from moe_prompts.models.prompt_attention import PromptFamily, with_one


class PromptMap:
    """Map theta to f(x; theta) for a family at fixed points x (m, d).

    family      prompt kind, head and number of prompts
    x           (m, d), the points
    activation  stands in for the family's own where that has a kink, if given
    """

    def __init__(self, family: PromptFamily, x: np.ndarray, activation: Activation | None = None) -> None:
        self.family = family
        if family.kind.base == "adaptive":
            self.activation = activation or family.kind.activation
        if family.kind.base == "prefix":
            self.functions = tuple(one if one.analytic else activation or one for one in family.kind.functions)
        logits, experts = family.one_head.gates_and_experts(x)
        self.frozen_logits, self.frozen_experts = (
            logits.T.copy(),
            experts.transpose(1, 2, 0).copy(),
        )  # (N, m), (N, l, m)
        self.queries = family.one_head.queries(x).T.copy()  # (p, m)
        read = family.head.read(x)
        self.inputs = (with_one(read) if family.kind.bias else read).T.copy()  # (D, m)
        self.own = positions(family)

    def at(self, vectors: np.ndarray) -> PromptValues:
        """Return f, with what its derivatives need, at S vectors (S, size)."""
        family, head = self.family, self.family.one_head
        b, atoms, w2 = family.split(vectors)
        hidden, activated = None, None
        if family.kind.base == "adaptive":
            W1 = atoms.reshape(*atoms.shape[:-1], family.hidden, family.w1_columns)
            hidden = W1 @ self.inputs  # (S, k, r, m)
            activated = self.activation.value(hidden)
            keys = values = w2[:, None] @ activated  # (S, k, p, m)
        elif family.kind.base == "prefix":
            hidden = atoms[..., None]
            keys, values = (function.value(hidden) for function in self.functions)
        else:
            keys, values = atoms[..., : head.p, None], atoms[..., -head.p :, None]
        logits = (keys * self.queries).sum(axis=2) + b[..., None]
        experts = head.C @ values + head.c[:, None]  # (S, k, l, m), or (S, k, l, 1) of constants
        # Both sums of exponentials are taken relative to the largest logit at a point, so that none
        # overflows.
        top = np.maximum(logits.max(axis=1), self.frozen_logits.max(axis=0))
        frozen = np.exp(self.frozen_logits - top[:, None])
        mass = np.exp(logits - top[:, None])
        total = frozen.sum(axis=1) + mass.sum(axis=1)
        numerator = np.einsum("snm,nlm->slm", frozen, self.frozen_experts) + (mass[:, :, None] * experts).sum(axis=1)
        return PromptValues(self, numerator / total[:, None], mass / total[:, None], experts, w2, hidden, activated)


def positions(family: PromptFamily) -> np.ndarray:
    """Return where in the vector b_l, the own parameters of prompt l and W2 stand (k, own)."""
    k, q = family.k, family.atom_size
    shared = np.arange(k * (1 + q), family.size)
    return np.array([[l, *range(k + l * q, k + (l + 1) * q), *shared] for l in range(k)])


@dataclass(frozen=True)
class PromptValues:
    """Hold f at S vectors, with what its derivatives need.

    map                                   family and points
    f                  (S, l, m)          values
    gates              (S, k, m)          weights of the prompts
    experts            (S, k, l, m or 1)  values of the prompts; 1 where they are constants
    w2                 (S, p, r)          W2
    hidden, activated  (S, k, r, m)       hidden units of adaptive prompts before and after their activation;
                                          of prefixes ``hidden`` (S, k, p, 1) holds p
    """

    map: PromptMap
    f: np.ndarray
    gates: np.ndarray
    experts: np.ndarray
    w2: np.ndarray
    hidden: np.ndarray | None
    activated: np.ndarray | None

    def chosen(self, which: np.ndarray) -> PromptValues:
        """Return the values at some of the vectors."""
        pick = lambda array: None if array is None else array[which]
        return PromptValues(
            self.map,
            self.f[which],
            self.gates[which],
            self.experts[which],
            self.w2[which],
            pick(self.hidden),
            pick(self.activated),
        )

    def jacobian(self) -> np.ndarray:
        """Return df / dtheta (S, size, l, m)."""
        map, gates = self.map, self.gates[:, :, None]
        by_logit = gates * (self.experts - self.f[:, None])  # (S, k, l, m)
        by_value = gates[:, :, None] * map.family.one_head.C.T[:, :, None]  # (S, k, p, l, m)
        local = self.chain(by_logit[:, :, None] * map.queries[:, None], by_value)
        out = np.zeros((len(self.f), map.family.size, *self.f.shape[1:]))
        for l, own in enumerate(map.own):
            out[:, own[0]] += by_logit[:, l]
            out[:, own[1:]] += local[:, l]
        return out

    def curvature(self, residual: np.ndarray) -> np.ndarray:
        """Return residual (S, l, m) times d2f / dtheta2, summed over points and outputs (S, size, size)."""
        map, gates = self.map, self.gates[:, :, None]
        family = map.family
        lean = (residual[:, None] * (self.experts - self.f[:, None])).sum(axis=2)[:, :, None]  # (S, k, 1, m)
        pull = np.broadcast_to(
            (family.one_head.C.T @ residual)[:, None], (*self.gates.shape[:2], family.head.p, residual.shape[2])
        )
        queries = np.broadcast_to(map.queries, pull.shape)
        with_b = lambda b, rest: np.concatenate([np.full_like(rest[:, :, :1], b), rest], axis=2)
        ds = with_b(1.0, self.chain(queries, np.zeros_like(pull)))
        dv = with_b(0.0, self.chain(np.zeros_like(pull), pull))
        first, second = gates * ds, gates * (lean * ds + dv)
        block = second @ ds.swapaxes(2, 3) + first @ dv.swapaxes(2, 3)
        if family.kind.base == "adaptive":
            block += self._bends(gates * (lean * queries + pull))
        if family.kind.base == "prefix":
            own = np.arange(1, 1 + family.atom_size)
            block[:, :, own, own] += self.bends(gates * lean * queries, gates * pull).sum(axis=3)
        firsts, seconds = (np.zeros((len(self.f), family.size, residual.shape[2])) for _ in range(2))
        out = np.zeros((len(self.f), family.size, family.size))
        for l, own in enumerate(map.own):
            out[:, own[:, None], own] += block[:, l]
            firsts[:, own] += first[:, l]
            seconds[:, own] += second[:, l]
        # The last term of d2f couples all pairs of prompts: one product of their sums, in both orders.
        cross = firsts @ seconds.swapaxes(1, 2)
        return out - cross - cross.swapaxes(1, 2)

    def chain(self, by_key: np.ndarray, by_value: np.ndarray) -> np.ndarray:
        """Return derivatives in all that prompt l depends on but b, from those in its key and value.

        by_key, by_value  (S, k, p, .., m) -> (S, k, own - 1, .., m)
        """
        kind = self.map.family.kind
        if kind.base == "decoupled":
            return np.concatenate([by_key, by_value], axis=2)
        if kind.base == "prefix":
            assert self.hidden is not None
            slopes = (function.first(self.hidden) for function in self.map.functions)
            of_key, of_value = (one.reshape(*one.shape[:3], *(1 for _ in by_key.shape[3:])) for one in slopes)
            return by_key * of_key + by_value * of_value
        by_prompt = by_key + by_value
        if kind.base == "fixed":
            return by_prompt
        assert self.hidden is not None
        assert self.activated is not None
        S, k, p, *more, m = by_prompt.shape
        r, D = self.hidden.shape[2], len(self.map.inputs)
        through = self.map.activation.first(self.hidden).reshape(S, k, r, *(1 for _ in more), m)
        by_unit = through * (self.w2.swapaxes(1, 2)[:, None] @ by_prompt.reshape(S, k, p, -1)).reshape(
            S, k, r, *more, m
        )
        by_w1 = by_unit[:, :, :, None] * self.map.inputs.reshape(D, *(1 for _ in more), m)
        parts = [by_w1.reshape(S, k, r * D, *more, m)]
        if self.map.family.shared_size:
            active = self.activated.reshape(S, k, 1, r, *(1 for _ in more), m)
            by_w2 = by_prompt[:, :, :, None] * active
            if self._unit_columns:  # the part along a column changes nothing
                w = self.w2.reshape(S, 1, p, r, *(1 for _ in more), 1)
                by_w2 = by_w2 - w * (w * by_w2).sum(axis=2, keepdims=True)
            parts.append(by_w2.reshape(S, k, p * r, *more, m))
        return np.concatenate(parts, axis=2)

    def bends(self, by_key: np.ndarray, by_value: np.ndarray) -> np.ndarray:
        """Return second derivatives in p of prefixes (S, k, p, .., m), from derivatives in key and value.

        Functions act entry by entry, so that these are the diagonal and all else is zero.
        """
        assert self.hidden is not None
        seconds = (function.second(self.hidden) for function in self.map.functions)
        of_key, of_value = (one.reshape(*one.shape[:3], *(1 for _ in by_key.shape[3:])) for one in seconds)
        return by_key * of_key + by_value * of_value

    @property
    def _unit_columns(self) -> bool:
        return self.map.family.kind.activation.homogeneous

    def _bends(self, force: np.ndarray) -> np.ndarray:
        """Return the sum over points of force_l (S, k, p, m) times the second derivatives of prompt l."""
        family, inputs = self.map.family, self.map.inputs
        assert self.hidden is not None
        assert self.activated is not None
        S, k, r, _ = self.hidden.shape
        D, p, own = len(inputs), family.head.p, self.map.own.shape[1]
        slope, second = self.map.activation.first(self.hidden), self.map.activation.second(self.hidden)
        out = np.zeros((S, k, own, own))
        for u in range(r):
            w1 = slice(1 + u * D, 1 + (u + 1) * D)
            along = (self.w2[:, None, :, u, None] * force).sum(axis=2) * second[:, :, u]
            out[:, :, w1, w1] = (along[:, :, None] * inputs) @ inputs.T
            if not family.shared_size:
                continue
            w2 = 1 + r * D + u + r * np.arange(p)
            mixed = (force * slope[:, :, u, None]) @ inputs.T  # (S, k, p, D)
            if self._unit_columns:  # w = v / |v| at |v| = 1: dw = (I - w w') dv, and w itself bends
                w = self.w2[:, None, :, u]
                mixed = mixed - w[..., None] * (w[..., None, :] @ mixed)
                turn = (force * self.activated[:, :, u, None]).sum(axis=3)  # (S, k, p)
                outer = turn[..., None] * w[..., None, :]
                inner = (turn * w).sum(axis=2)[..., None, None]
                bend = 3 * inner * w[..., None] * w[..., None, :] - inner * np.eye(p) - outer - outer.swapaxes(2, 3)
                out[:, :, w2[:, None], w2] = bend
            out[:, :, w2, w1] = mixed
            out[:, :, w1, w2] = mixed.swapaxes(2, 3)
        return out

"""Model regression by gated experts: a sum of small networks, each with a softmax or a sigmoid gate.

    f(x) = sum_l g_l(x) h(x; a_l, c_l),     h(x; a, c) = sigma(a'x + c),     u_l = beta_l'x + b_l,
    softmax gates:  g_l = e^{u_l} / sum_m e^{u_m},     sigmoid gates:  g_l = 1 / (1 + e^{-u_l}),

and y = f(x) + N(0, s^2). With sigma the identity experts are linear. Softmax gates are known up to a common
translation of all (b_l, beta_l); sigmoid gates have no such freedom.

Sources: arXiv 2402.02952 (softmax gates), arXiv 2405.13997 (sigmoid gates).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np
from scipy.special import expit, softmax

from moe_prompts.checks import count, finite, listed, named, numbers, one_of, table, whole
from moe_prompts.errors import InputError
from moe_prompts.models.activations import Activation, activation

Gate = Literal["softmax", "sigmoid"]
GATES: tuple[Gate, ...] = get_args(Gate)


@dataclass(frozen=True)
class ExpertFamily:
    """Say what a fit may be: ``k`` gated experts with one activation on ``d`` inputs.

    gate   "softmax" or "sigmoid"
    sigma  name of the activation of the experts; "identity" for linear ones
    d      number of inputs
    k      number of experts

    A point of the family is a vector: b (k), then for each expert (beta, a, c), 2 d + 1 numbers.

    Raises ``InputError`` for an unknown gate or activation, and where a number is below 1.

    >>> ExpertFamily("softmax", "tanh", d=2, k=3).size
    18
    """

    gate: Gate
    sigma: str
    d: int
    k: int

    def __post_init__(self) -> None:
        one_of(self.gate, GATES, "ExpertFamily: gate")
        activation(named(self.sigma, "ExpertFamily: sigma"))
        for name in ("d", "k"):
            object.__setattr__(self, name, count(getattr(self, name), 1, f"ExpertFamily: {name}"))

    @property
    def activation(self) -> Activation:
        """Return the activation of the experts."""
        return activation(self.sigma)

    @property
    def kind(self) -> str:
        """Return gate and activation in one word, as tables print them."""
        return f"{self.gate}:{self.sigma}"

    @property
    def atom_size(self) -> int:
        """Return the number of parameters of one expert besides b."""
        return 2 * self.d + 1

    @property
    def size(self) -> int:
        """Return the length of the parameter vector."""
        return self.k * (1 + self.atom_size)

    @property
    def n_parameters(self) -> int:
        """Return the number of free parameters: the translation of softmax gates is none."""
        return self.size - (self.d + 1 if self.gate == "softmax" else 0)

    def slot(self, expert: int) -> np.ndarray:
        """Return where (beta, a, c) of an expert stand in the vector (atom_size,).

        Raises ``InputError`` where there is no expert of this number, counted from 0.
        """
        if whole(expert, 0, "slot: expert") >= self.k:
            raise InputError(f"slot: expert = {expert}; expected a number below k = {self.k}")
        return np.arange(self.k + expert * self.atom_size, self.k + (expert + 1) * self.atom_size)

    def with_k(self, k: int) -> ExpertFamily:
        """Return the family with ``k`` experts."""
        return ExpertFamily(self.gate, self.sigma, self.d, k)

    def split(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return b (..., k), experts (..., k, atom_size), and what they share: nothing (..., 0).

        Raises ``InputError`` where vectors have another length.
        """
        vectors = numbers(vectors, "split: vectors")
        if vectors.shape[-1:] != (self.size,):
            raise InputError(f"split: vectors of shape {vectors.shape}; expected (..., {self.size})")
        lead = vectors.shape[:-1]
        atoms = vectors[..., self.k :].reshape(*lead, self.k, self.atom_size)
        return vectors[..., : self.k], atoms, np.zeros((*lead, 0))

    def unpack(self, vector: np.ndarray) -> ExpertRegression:
        """Return the parameters of one vector (size,)."""
        b, atoms, _ = self.split(vector)
        return ExpertRegression(self.gate, self.sigma, b, atoms)


@dataclass(frozen=True, eq=False)
class ExpertRegression:
    """Hold the parameters of k gated experts; they check themselves.

    gate                  "softmax" or "sigmoid"
    sigma                 name of the activation of the experts
    b      (k,)           gate intercepts
    atoms  (k, 2 d + 1)   beta_l, a_l and c_l of each expert

    Raises ``InputError`` for shapes that do not fit and values that are not finite.

    >>> import numpy as np
    >>> atoms = np.array([[0.0, 1.0, 0.0], [0.0, 3.0, 2.0]])
    >>> two = ExpertRegression("sigmoid", "identity", np.zeros(2), atoms)
    >>> two.regression(np.array([[1.0]]))
    array([[3.]])
    """

    gate: Gate
    sigma: str
    b: np.ndarray
    atoms: np.ndarray

    def __post_init__(self) -> None:
        b, atoms = numbers(self.b, "ExpertRegression: b"), numbers(self.atoms, "ExpertRegression: atoms")
        if b.ndim != 1 or not len(b) or atoms.ndim != 2 or len(atoms) != len(b) or atoms.shape[1] % 2 == 0:
            raise InputError(
                f"ExpertRegression: b {b.shape}, atoms {atoms.shape}; expected (k,) with k >= 1 and (k, 2 d + 1)"
            )
        if atoms.shape[1] < 3:
            raise InputError(f"ExpertRegression: atoms {atoms.shape}; expected at least one input, (k, 3)")
        for name, value in (("b", b), ("atoms", atoms)):
            value = finite(value, f"ExpertRegression: {name}").copy()
            value.setflags(write=False)
            object.__setattr__(self, name, value)
        ExpertFamily(self.gate, self.sigma, self.d, self.k)  # checks gate and activation

    @property
    def k(self) -> int:
        """Return the number of experts."""
        return len(self.b)

    @property
    def d(self) -> int:
        """Return the number of inputs."""
        return (self.atoms.shape[1] - 1) // 2

    @property
    def family(self) -> ExpertFamily:
        """Return the family that these parameters are a point of."""
        return ExpertFamily(self.gate, self.sigma, self.d, self.k)

    @property
    def kind(self) -> str:
        """Return gate and activation in one word."""
        return self.family.kind

    @property
    def beta(self) -> np.ndarray:
        """Return the gate slopes (k, d)."""
        return self.atoms[:, : self.d]

    @property
    def eta(self) -> np.ndarray:
        """Return the parameters (a, c) of the experts (k, d + 1)."""
        return self.atoms[:, self.d :]

    @property
    def vector(self) -> np.ndarray:
        """Return the parameters as a vector of the family (size,)."""
        return np.concatenate([self.b, self.atoms.ravel()])

    def chosen(self, experts: list[int] | np.ndarray) -> ExpertRegression:
        """Return the experts of these numbers with the same regression function where one repeats.

        An expert that is named r times is split in r equal parts: masses e^b of softmax gates and heights of
        sigmoid gates at x = 0 are divided by r. The latter is the same function only where beta = 0.

        Raises ``InputError`` for no experts, and for a number that is none of them.
        """
        if not len(listed(experts, "chosen: experts")):
            raise InputError("chosen: no experts; expected at least one")
        experts = np.array([whole(one, 0, "chosen: expert", self.k - 1) for one in experts])
        times = np.bincount(experts, minlength=self.k)[experts]
        if self.gate == "softmax":
            b = self.b[experts] - np.log(times)
        else:
            height = expit(self.b[experts]) / times
            b = np.where(times > 1, np.log(height) - np.log1p(-height), self.b[experts])
        return ExpertRegression(self.gate, self.sigma, b, self.atoms[experts])

    def regression(self, x: np.ndarray) -> np.ndarray:
        """Return f at points x (m, d), as (m, 1)."""
        x = finite(table(x, self.d, "regression: x"), "regression: x")
        return ExpertMap(self.family, x).at(self.vector[None]).f[0].T


class ExpertMap:
    """Map a vector of a family to f at fixed points x (m, d), for many vectors at once.

    family  gate, activation and number of experts
    x       (m, d), the points
    """

    def __init__(self, family: ExpertFamily, x: np.ndarray) -> None:
        self.family, d, m = family, family.d, len(x)
        #: Derivatives of a logit u_l, and of the argument of an expert, by (b_l, beta_l, a_l, c_l): (1 + q,
        #: m).
        self.of_logit, self.of_argument = np.zeros((2, 2 + 2 * d, m))
        self.of_logit[0] = 1
        self.of_logit[1 : 1 + d] = x.T
        self.of_argument[1 + d : -1] = x.T
        self.of_argument[-1] = 1
        k, q = family.k, family.atom_size
        #: Positions in the vector of what expert l depends on (k, 1 + q).
        self.own = np.array([[l, *range(k + l * q, k + (l + 1) * q)] for l in range(k)])

    @cached_property
    def pairs(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return products of two derivatives (1 + q, 1 + q, m): of logits, of both sorts, of arguments."""
        u, z = self.of_logit, self.of_argument
        both = u[:, None] * z
        return u[:, None] * u, both + both.swapaxes(0, 1), z[:, None] * z

    def at(self, vectors: np.ndarray) -> ExpertValues:
        """Return f, with what its derivatives need, at S vectors (S, size)."""
        own = vectors[:, self.own]  # (S, k, 1 + q)
        logits, arguments = own @ self.of_logit, own @ self.of_argument
        gates = softmax(logits, axis=1) if self.family.gate == "softmax" else expit(logits)
        experts = self.family.activation.value(arguments)
        return ExpertValues(self, (gates * experts).sum(axis=1)[:, None], gates, experts, arguments)


@dataclass(frozen=True)
class ExpertValues:
    """Hold f at S vectors, with what its derivatives need.

    map                   family and points
    f          (S, 1, m)  values
    gates      (S, k, m)
    experts    (S, k, m)
    arguments  (S, k, m)  a'x + c
    """

    map: ExpertMap
    f: np.ndarray
    gates: np.ndarray
    experts: np.ndarray
    arguments: np.ndarray

    def chosen(self, which: np.ndarray) -> ExpertValues:
        """Return the values at some of the vectors."""
        return ExpertValues(self.map, self.f[which], self.gates[which], self.experts[which], self.arguments[which])

    def jacobian(self) -> np.ndarray:
        """Return df / dtheta (S, size, 1, m)."""
        map, (by_logit, by_argument) = self.map, self._firsts()
        out = np.empty((len(self.f), map.family.size, self.f.shape[2]))
        for l, own in enumerate(map.own):
            out[:, own] = by_logit[:, l, None] * map.of_logit + by_argument[:, l, None] * map.of_argument
        return out[:, :, None]

    def curvature(self, residual: np.ndarray) -> np.ndarray:
        """Return residual (S, 1, m) times d2f / dtheta2, summed over points (S, size, size)."""
        map, size, r = self.map, self.map.family.size, residual[:, 0]
        out = np.zeros((len(self.f), size, size))
        for l, own in enumerate(map.own):
            out[:, own[:, None], own] = np.einsum("sm,sopm->sop", r, self.second(l), optimize=True)
        if map.family.gate == "softmax":
            # The denominator couples all pairs of experts: minus (g_l du_l) (df_m), in both orders.
            whole, logits = self.jacobian()[:, :, 0], np.zeros((len(self.f), size, r.shape[1]))
            for l, own in enumerate(map.own):
                logits[:, own] = (r * self.gates[:, l])[:, None] * map.of_logit
            cross = logits @ whole.swapaxes(1, 2)
            out -= cross + cross.swapaxes(1, 2)
        return out

    def second(self, l: int) -> np.ndarray:
        """Return second derivatives of expert l's part of f, with f and denominator held (S, own, own, m)."""
        map, sigma = self.map, self.map.family.activation
        gates, experts, arguments = self.gates[:, l], self.experts[:, l], self.arguments[:, l]
        slope, bend = sigma.first(arguments), sigma.second(arguments)
        if map.family.gate == "softmax":
            twice, mixed = gates * (experts - self.f[:, 0]), gates * slope
        else:
            rise = gates * (1 - gates)
            twice, mixed = rise * (1 - 2 * gates) * experts, rise * slope
        of_logits, of_both, of_arguments = map.pairs
        out = twice[:, None, None] * of_logits
        term = np.empty_like(out)
        for weight, pair in ((mixed, of_both), (gates * bend, of_arguments)):
            out += np.multiply(weight[:, None, None], pair, out=term)
        return out

    def _firsts(self) -> tuple[np.ndarray, np.ndarray]:
        """Return df / du_l and df / d(argument of expert l), both (S, k, m)."""
        slope = self.map.family.activation.first(self.arguments)
        if self.map.family.gate == "softmax":
            return self.gates * (self.experts - self.f), self.gates * slope
        return self.gates * (1 - self.gates) * self.experts, self.gates * slope

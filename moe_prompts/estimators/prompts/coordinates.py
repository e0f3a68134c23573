"""Give the least-squares objective other coordinates, by the chain rule.

``PairCoordinates`` straighten the valley in which over-specified fits live. Where two prompts share a cell, f
feels their total mass and barycentre strongly and everything else weakly. Q is then a narrow valley, curved
in (b, theta), and a small predicted decrease only says that the next step is short. In the coordinates

    m_i,  m_j,
    c = (m_i theta_i + m_j theta_j) / (m_i + m_j),
    h = (theta_i - theta_j) (m_i m_j)^{1/2} / (m_i + m_j)

the valley is straight up to third order (|h| is the mass-weighted spread of the pair), and Newton's method
follows it. ``OnSphere`` holds one block of coordinates at a distance from a centre; with both, a split of
given size is held.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from moe_prompts.compilation import kernels
from moe_prompts.estimators.prompts.levenberg_marquardt import Objective, Point
from moe_prompts.estimators.prompts.objective import Box
from moe_prompts.estimators.prompts.steps import KERNELS

#: Gradients (T, P), Gauss-Newton matrices (T, P, P), and what Hessians have beyond them (T, P, P).
Derivatives = tuple[np.ndarray, np.ndarray, np.ndarray]


class PromptCoordinates(Objective, Protocol):
    """Describe an objective whose coordinates (S, P) stand for vectors of a prompt family."""

    @property
    def family(self) -> Any:
        """Return the family of the vectors, of prompts or of experts."""
        ...

    def bounds(self, box: Box) -> tuple[np.ndarray, np.ndarray]:
        """Return lower and upper bounds (P,) of the coordinates in the box."""
        ...

    def vectors(self, phi: np.ndarray, sets: np.ndarray) -> np.ndarray:
        """Return the family's vectors (S, size) at coordinates phi (S, P), on the data sets ``sets`` (S,)."""
        ...


class Reparametrised(ABC):
    """Put ``base`` in coordinates phi; subclasses give its coordinates at phi with their derivatives."""

    def __init__(self, base: PromptCoordinates) -> None:
        self.base, self.loops = base, kernels(KERNELS)

    @property
    def family(self) -> Any:
        """Return the family of the vectors, of prompts or of experts."""
        return self.base.family

    @abstractmethod
    def inner(self, phi: np.ndarray, sets: np.ndarray) -> np.ndarray:
        """Return the coordinates (S, P) of ``base`` at phi."""

    @abstractmethod
    def chain(self, phi: np.ndarray, sets: np.ndarray) -> np.ndarray:
        """Return d inner / d phi (S, P, P)."""

    @abstractmethod
    def bend(self, phi: np.ndarray, sets: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        """Return the sum of gradient (S, P) times the second derivatives of ``inner`` (S, P, P)."""

    @abstractmethod
    def bring(
        self, loops: ModuleType, phi: np.ndarray, sets: np.ndarray, exact: np.ndarray, derivatives: Derivatives
    ) -> None:
        """Bring derivatives of ``base`` to these coordinates, in place and compiled.

        loops        compiled functions
        phi          (T, P), contiguous
        sets, exact  (T,), data set of each point, and whether the rest of its Hessian was computed
        derivatives  those of ``Point.derivatives``, contiguous
        """

    def vectors(self, phi: np.ndarray, sets: np.ndarray) -> np.ndarray:
        """Return the family's vectors (S, size) at phi."""
        return self.base.vectors(self.inner(phi, sets), sets)

    def at(self, phi: np.ndarray, sets: np.ndarray) -> ReparametrisedPoint:
        """Return the objective at phi (S, P)."""
        return ReparametrisedPoint(self, phi, sets, self.base.at(self.inner(phi, sets), sets))

    def retract(self, phi: np.ndarray) -> np.ndarray:
        """Return phi with the exact symmetries of ``base`` in their normal form."""
        return self.base.retract(phi)

    def gauges(self, phi: np.ndarray) -> np.ndarray:
        """Return the directions (S, P, G) of the exact symmetries of ``base``."""
        return self.base.gauges(phi)


class ReparametrisedPoint:
    """Give values and derivatives of a ``Reparametrised`` objective at S points."""

    def __init__(self, objective: Reparametrised, phi: np.ndarray, sets: np.ndarray, base: Point) -> None:
        self.objective, self.phi, self.sets, self.base, self.value = objective, phi, sets, base, base.value

    def derivatives(self, which: np.ndarray, exact: np.ndarray) -> Derivatives:
        """Return gradients (T, P), Gauss-Newton matrices (T, P, P) and the rest of the Hessians, in phi.

        Arguments are those of ``Point.derivatives``.
        """
        gradient, gauss_newton, rest = self.base.derivatives(which, exact)
        phi, sets = self.phi[which], self.sets[which]
        if self.objective.loops is not None:
            parts = (np.ascontiguousarray(gradient), np.ascontiguousarray(gauss_newton), np.ascontiguousarray(rest))
            self.objective.bring(self.objective.loops, phi, sets, np.ascontiguousarray(exact), parts)
            return parts
        chain = self.objective.chain(phi, sets)
        back = chain.swapaxes(1, 2)
        rest = back @ rest @ chain
        if exact.any():
            # The second derivative of a composition has a term of its own, the gradient times the curvature
            # of the coordinates. It belongs to the exact Hessian only: Gauss-Newton leaves it out like any
            # such term.
            rest[exact] += self.objective.bend(phi[exact], sets[exact], gradient[exact])
        return (back @ gradient[:, :, None])[:, :, 0], back @ gauss_newton @ chain, rest


class PairCoordinates(Reparametrised):
    """Replace two prompts by their masses, their barycentre c and their split h.

    Masses of prompts i and j are in the places of b_i and b_j, c in the slot of i, h in that of j:

        theta_i = c + (m_j / m_i)^{1/2} h,    theta_j = c - (m_i / m_j)^{1/2} h.
    """

    def __init__(self, base: PromptCoordinates, pair: tuple[int, int]) -> None:
        super().__init__(base)
        self.pair, (self.centre, self.split) = list(pair), (base.family.slot(prompt) for prompt in pair)

    def phi(self, vectors: np.ndarray) -> np.ndarray:
        """Return the coordinates (S, P) of the family's vectors (S, size)."""
        out, mass = vectors.copy(), np.exp(vectors[:, self.pair])
        one, two = self._arms(mass[:, :1], mass[:, 1:])
        theta_i, theta_j = vectors[:, self.centre], vectors[:, self.split]
        out[:, self.pair] = mass
        out[:, self.centre] = (mass[:, :1] * theta_i + mass[:, 1:] * theta_j) / mass.sum(axis=1, keepdims=True)
        out[:, self.split] = (theta_i - theta_j) / (one + two)
        return out

    def bounds(self, box: Box) -> tuple[np.ndarray, np.ndarray]:
        """Return bounds of the masses, and of what is not the pair's.

        The split has none: the pair itself may leave the box, which its vectors show.
        """
        lower, upper = self.base.bounds(box)
        lower[self.pair], upper[self.pair] = np.exp(box.b)
        lower[self.split], upper[self.split] = -np.inf, np.inf
        return lower, upper

    @staticmethod
    def _arms(m_i: np.ndarray, m_j: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return how far the two prompts stand from c, in units of h."""
        ratio = np.sqrt(m_j / m_i)
        return ratio, 1 / ratio

    def inner(self, phi: np.ndarray, sets: np.ndarray) -> np.ndarray:
        """Return the coordinates (S, P) of ``base`` at phi."""
        if self.loops is not None:
            out = np.empty(phi.shape)
            self.loops.out_of_pair(np.ascontiguousarray(phi), *self.pair, self.centre, self.split, out)
            return out
        out = phi.copy()
        one, two = self._arms(phi[:, [self.pair[0]]], phi[:, [self.pair[1]]])
        c, h = phi[:, self.centre], phi[:, self.split]
        out[:, self.pair] = np.log(phi[:, self.pair])
        out[:, self.centre], out[:, self.split] = c + one * h, c - two * h
        return out

    def chain(self, phi: np.ndarray, sets: np.ndarray) -> np.ndarray:
        """Return d inner / d phi (S, P, P)."""
        out = np.tile(np.eye(phi.shape[1]), (len(phi), 1, 1))
        one, two = self._arms(phi[:, [self.pair[0]]], phi[:, [self.pair[1]]])
        h = phi[:, self.split]
        out[:, self.centre, self.split], out[:, self.split, self.split] = one, -two
        out[:, self.split, self.centre] = 1
        for b, sign in zip(self.pair, (-0.5, 0.5), strict=True):
            mass = phi[:, [b]]
            out[:, b, b] = 1 / mass[:, 0]
            out[:, self.centre, b], out[:, self.split, b] = sign * one * h / mass, sign * two * h / mass
        return out

    def bend(self, phi: np.ndarray, sets: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        """Return the sum of gradient (S, P) times the second derivatives of ``inner`` (S, P, P)."""
        out = np.zeros((*phi.shape, phi.shape[1]))
        one, two = self._arms(phi[:, [self.pair[0]]], phi[:, [self.pair[1]]])
        h, pull_one, pull_two = phi[:, self.split], one * gradient[:, self.centre], two * gradient[:, self.split]
        # First and second derivative in t = log(m_j / m_i) / 2, then t and b in the masses.
        in_t, in_tt = ((pull_one + pull_two) * h).sum(axis=1), ((pull_one - pull_two) * h).sum(axis=1)
        half = dict(zip(self.pair, (-0.5, 0.5), strict=True))
        for a in self.pair:
            for b in self.pair:
                out[:, a, b] += half[a] * half[b] * in_tt / (phi[:, a] * phi[:, b])
            out[:, a, a] -= (gradient[:, a] + half[a] * in_t) / phi[:, a] ** 2
            with_h = half[a] * (pull_one + pull_two) / phi[:, [a]]
            out[:, a, self.split] += with_h
            out[:, self.split, a] += with_h
        return out

    def bring(
        self, loops: ModuleType, phi: np.ndarray, sets: np.ndarray, exact: np.ndarray, derivatives: Derivatives
    ) -> None:
        """Bring derivatives of ``base`` to these coordinates, in place and compiled."""
        loops.into_pair(phi, *self.pair, self.centre, self.split, exact, *derivatives)


def coordinates_of_pair(objective: Any, pair: tuple[int, int]) -> PairCoordinates:
    """Return an objective in the coordinates of a pair: its own kind of them where it has one."""
    return getattr(objective, "coordinates", PairCoordinates)(objective, pair)


class OnSphere(Reparametrised):
    """Hold the block ``slot`` of the coordinates of ``base`` at ``centre`` + eps v, with |v| = 1.

    ``eps`` (R,) is the distance for each data set.
    """

    def __init__(self, base: PromptCoordinates, slot: np.ndarray, centre: np.ndarray, eps: np.ndarray) -> None:
        super().__init__(base)
        self.held, self.centre, self.eps = slot, centre, np.asarray(eps, dtype=float)

    def bounds(self, box: Box) -> tuple[np.ndarray, np.ndarray]:
        """Return the bounds of ``base``, without any on the block that is held."""
        lower, upper = self.base.bounds(box)
        lower[self.held], upper[self.held] = -np.inf, np.inf
        return lower, upper

    def inner(self, phi: np.ndarray, sets: np.ndarray) -> np.ndarray:
        """Return the coordinates (S, P) of ``base`` at phi."""
        out = phi.copy()
        out[:, self.held] = self.centre + self.eps[sets, None] * phi[:, self.held]
        return out

    def chain(self, phi: np.ndarray, sets: np.ndarray) -> np.ndarray:
        """Return d inner / d phi (S, P, P), the derivative of v / |v| on the block."""
        v = phi[:, self.held]
        off_v = np.eye(v.shape[1]) - v[:, :, None] * v[:, None]
        out = np.tile(np.eye(phi.shape[1]), (len(phi), 1, 1))
        out[:, self.held[:, None], self.held] = self.eps[sets, None, None] * off_v
        return out

    def bend(self, phi: np.ndarray, sets: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        """Return gradient (S, P) times the second derivatives of v / |v| at |v| = 1 (S, P, P)."""
        v, pull = phi[:, self.held], self.eps[sets, None] * gradient[:, self.held]
        outer, inner = pull[:, :, None] * v[:, None], (pull * v).sum(axis=1)[:, None, None]
        out = np.zeros((*phi.shape, phi.shape[1]))
        out[:, self.held[:, None], self.held] = (
            3 * inner * v[:, :, None] * v[:, None] - inner * np.eye(v.shape[1]) - outer - outer.swapaxes(1, 2)
        )
        return out

    def bring(
        self, loops: ModuleType, phi: np.ndarray, sets: np.ndarray, exact: np.ndarray, derivatives: Derivatives
    ) -> None:
        """Bring derivatives of ``base`` to these coordinates, in place and compiled."""
        loops.onto_sphere(phi, self.held, self.eps[sets], exact, *derivatives)

    def retract(self, phi: np.ndarray) -> np.ndarray:
        """Return phi with v brought back to length 1."""
        out = self.base.retract(phi).copy()
        out[:, self.held] /= np.linalg.norm(out[:, self.held], axis=1, keepdims=True)
        return out

    def gauges(self, phi: np.ndarray) -> np.ndarray:
        """Return the directions (S, P, G + 1) of the symmetries of ``base``, and of the length of v."""
        length = np.zeros((*phi.shape, 1))
        length[:, self.held, 0] = phi[:, self.held]
        return np.concatenate([self.base.gauges(phi), length], axis=2)

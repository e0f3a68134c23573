"""Give adaptive prompts with a bias coordinates in which the valley of a fixed truth is straight.

A fixed prompt c_l is W2 sigma(beta_l) for many W2 and many beta_l, the bias column of W1_l. On a fixed truth
Q has a valley of such representations. It is curved in (W1, W2), its walls are steep, and its floor may fall
by a few hundredths of a nat, or by nats where sigma'(beta) = 0: there a unit bends at second order. What the
data show are the key of a prompt at x = 0 and the slope of its key there,

    c_l = W2 sigma(beta_l)  (p)    and    V_l = W2 diag(sigma'(beta_l)) U_l  (p, d),

with U_l the other columns of W1_l. ``KeyCoordinates`` have keys in the places of as many numbers of W2 and
beta, and slopes in the places of U where a unit is nearly linear. All else stays as it is: the valley lies
along these numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from moe_prompts.estimators.prompts.levenberg_marquardt import Point
from moe_prompts.estimators.prompts.objective import Box

#: Newton steps that solve for the numbers in whose places keys stand, and what may be left of a solution.
SOLVE, SOLVED = 12, 1e-12
#: Room to the nearest bound that a number needs to leave its place to a key, as a share of its range; more
#: room than ``WIDE`` makes no difference.
ROOM, WIDE = 1e-3, 0.1
#: A unit is nearly linear where |sigma''| |U| is below this share of |sigma'|.
LINEAR = 0.1
#: Pivots below this share of the largest entry are none.
NO_PIVOT = 1e-3
#: Step of the difference that stands for the third derivative of sigma.
THIRD = 1e-4


class KeyCoordinates:
    """Put an objective of adaptive prompts with a bias in coordinates of keys and slopes.

    base     objective; ``applies`` says of which families
    box      bounds of the family's own numbers
    vectors  (S, size)  where the starts stand: each has coordinates of its own, good near there
    sets     (S,)  data set of each start

    Points are named by the number of their start, where other objectives take that of a data set. Q is
    infinite where the vector leaves the box.
    """

    def __init__(self, base: Any, box: Box, vectors: np.ndarray, sets: np.ndarray) -> None:
        family = self.family = base.family
        self.base, self.box, self.own, self.reference = base, box, sets, vectors
        self.lower, self.upper = base.bounds(box)
        self.k, self.p, self.r = family.k, family.head.p, family.hidden
        self.sigma, self.size = family.kind.activation, family.size
        self.w2 = np.arange(family.w2_slot.start, family.w2_slot.stop).reshape(self.p, self.r)
        columns = np.arange(family.k, family.k * (1 + family.atom_size)).reshape(self.k, self.r, -1)
        self.beta, self.u = columns[:, :, -1], columns[:, :, :-1]  # (k, r), (k, r, d)
        self.held = np.concatenate([self.w2.ravel(), self.beta.ravel()])
        self._choose()

    @staticmethod
    def applies(family: Any) -> bool:
        """Say whether a family has such coordinates: a bias, and enough numbers to give for keys."""
        kind = family.kind
        if kind.base != "adaptive" or not kind.bias or not kind.analytic or not kind.shares_w2 or family.scales:
            return False
        return not family.gated and family.k * family.head.p <= family.hidden * (family.k + family.head.p)

    def _choose(self) -> None:
        """Choose what gives its place: numbers that determine keys well and have room, and linear units."""
        vectors, S = self.reference, len(self.reference)
        room = np.minimum(vectors - self.lower, self.upper - vectors) / (self.upper - self.lower)
        weight = np.where(room > ROOM, np.sqrt(np.clip(room, 0.0, WIDE)), 0.0)
        given = pivots((self._slopes_of_keys(vectors) * weight[:, None])[:, :, self.held])  # (S, k p)
        self.usable = (given >= 0).all(axis=1)
        count = given.shape[1]
        free = np.ones((S, len(self.held)), dtype=bool)
        np.put_along_axis(free, np.maximum(given, 0), False, axis=1)
        self.count = count
        self.given = self.held[np.maximum(given, 0)]
        rest = len(self.held) - count
        kept = np.zeros((S, rest), dtype=int)
        kept[self.usable] = self.held[np.nonzero(free[self.usable])[1].reshape(-1, rest)]
        self.kept = kept
        beta = vectors[:, self.beta]
        first, second = self.sigma.first(beta), self.sigma.second(beta)  # (S, k, r)
        bend = np.abs(second) * np.abs(vectors[:, self.u]).max(axis=3, initial=0.0)
        linear = bend < LINEAR * np.abs(first)
        slopes = vectors[:, self.w2][:, None] * (first * linear)[:, :, None]  # (S, k, p, r)
        unit = pivots(slopes.reshape(S * self.k, self.p, self.r)).reshape(S, self.k, self.p)
        #: (S, k, r), the entry of the slope that stands in the place of a unit's U; -1: U itself
        self.row = np.full((S, self.k, self.r), -1)
        for entry in range(self.p):
            at = unit[:, :, entry]
            s, l = np.nonzero(at >= 0)
            self.row[s, l, at[s, l]] = entry

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Return bounds (size,) of the coordinates; keys have none."""
        lower, upper = self.lower.copy(), self.upper.copy()
        lower[self.held[: self.count]], upper[self.held[: self.count]] = -np.inf, np.inf
        return lower, upper

    def phi(self, vectors: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """Return the coordinates (S, size) of vectors (S, size) of ``starts`` (S,)."""
        out = vectors.copy()
        out[:, self.held[: self.count]] = self._keys(vectors)
        out[:, self.held[self.count :]] = np.take_along_axis(vectors, self.kept[starts], axis=1)
        row = self.row[starts]
        slopes = self._slopes(vectors, row)  # (S, k, r, r)
        out[:, self.u] = slopes @ vectors[:, self.u]
        return out

    def vectors(self, phi: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """Return the family's vectors (S, size) at phi; NaN where Newton's method finds none."""
        out, given = phi.copy(), self.given[starts]
        np.put_along_axis(out, given, np.take_along_axis(self.reference[starts], given, axis=1), axis=1)
        np.put_along_axis(out, self.kept[starts], phi[:, self.held[self.count :]], axis=1)
        wanted = phi[:, self.held[: self.count]]
        with np.errstate(all="ignore"):
            for _ in range(SOLVE):
                off = self._keys(out) - wanted
                if np.nanmax(np.abs(off), initial=0.0) < SOLVED / 100:
                    break
                slopes = np.take_along_axis(self._slopes_of_keys(out), given[:, None], axis=2)
                step = np.take_along_axis(out, given, axis=1) - (inverse(slopes) @ off[:, :, None])[:, :, 0]
                np.put_along_axis(out, given, step, axis=1)
            off = np.abs(self._keys(out) - wanted).max(axis=1, initial=0.0)
            out[:, self.u] = inverse(self._slopes(out, self.row[starts])) @ phi[:, self.u]
            out[~(off < SOLVED * (1 + np.abs(wanted).max(axis=1, initial=0.0)))] = np.nan
        return out

    def at(self, phi: np.ndarray, sets: np.ndarray) -> Point:
        """Return the objective at phi (S, size), each of the start that ``sets`` (S,) names."""
        vectors = self.vectors(phi, sets)
        outside = ~np.all((vectors >= self.lower) & (vectors <= self.upper), axis=1)
        vectors[outside] = self.reference[sets[outside]]
        return KeyPoint(self, vectors, sets, outside)

    def retract(self, vectors: np.ndarray) -> np.ndarray:
        """Return the points themselves: there are no symmetries."""
        return vectors

    def gauges(self, vectors: np.ndarray) -> np.ndarray:
        """Return no directions (S, size, 0)."""
        return np.zeros((*vectors.shape, 0))

    def _keys(self, vectors: np.ndarray) -> np.ndarray:
        """Return the keys at x = 0 (S, k p)."""
        activity = self.sigma.value(vectors[:, self.beta])
        return (activity @ vectors[:, self.w2].swapaxes(1, 2)).reshape(len(vectors), -1)

    def _slopes_of_keys(self, vectors: np.ndarray) -> np.ndarray:
        """Return their derivatives (S, k p, size)."""
        w2, beta = vectors[:, self.w2], vectors[:, self.beta]
        value, first = self.sigma.value(beta), self.sigma.first(beta)
        out = np.zeros((len(vectors), self.k, self.p, self.size))
        for l in range(self.k):
            for entry in range(self.p):
                out[:, l, entry, self.w2[entry]] = value[:, l]
                out[:, l, entry, self.beta[l]] = w2[:, entry] * first[:, l]
        return out.reshape(len(vectors), -1, self.size)

    def _slopes(self, vectors: np.ndarray, row: np.ndarray) -> np.ndarray:
        """Return what times U gives the coordinates in its place (S, k, r, r)."""
        first = self.sigma.first(vectors[:, self.beta])
        chosen = vectors[:, self.w2][np.arange(len(vectors))[:, None, None], np.maximum(row, 0)]  # (S, k, r, r)
        return np.where(row[:, :, :, None] >= 0, chosen * first[:, :, None], np.eye(self.r))

    def derivative(self, vectors: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """Return d phi / d vectors (S, size, size)."""
        S, row = len(vectors), self.row[starts]
        out = np.zeros((S, self.size, self.size))
        out[:, np.arange(self.k), np.arange(self.k)] = 1
        out[:, self.held[: self.count]] = self._slopes_of_keys(vectors)
        every = np.arange(S)
        for place, from_ in zip(self.held[self.count :], self.kept[starts].T, strict=True):
            out[every, place, from_] = 1
        w2, beta, u = vectors[:, self.w2], vectors[:, self.beta], vectors[:, self.u]
        first, second, slopes = self.sigma.first(beta), self.sigma.second(beta), self._slopes(vectors, row)
        for l, unit in np.ndindex(self.k, self.r):
            has, entry = row[:, l, unit] >= 0, np.maximum(row[:, l, unit], 0)
            for other in range(self.r):
                weight = np.where(has, w2[every, entry, other], 0.0)
                for place, from_, of in zip(self.u[l, unit], self.u[l, other], u[:, l, other].T, strict=True):
                    out[every, place, from_] = slopes[:, l, unit, other]
                    out[every, place, self.beta[l, other]] = weight * second[:, l, other] * of
                    out[every, place, self.w2[entry, other]] = np.where(has, first[:, l, other] * of, 0.0)
        return out

    def bent(self, vectors: np.ndarray, starts: np.ndarray, pull: np.ndarray) -> np.ndarray:
        """Return the sum of pull (S, size) times second derivatives of phi (S, size, size)."""
        S, row = len(vectors), self.row[starts]
        out, every = np.zeros((S, self.size, self.size)), np.arange(S)
        w2, beta, u = vectors[:, self.w2], vectors[:, self.beta], vectors[:, self.u]
        first, second = self.sigma.first(beta), self.sigma.second(beta)
        third = (self.sigma.second(beta + THIRD) - self.sigma.second(beta - THIRD)) / (2 * THIRD)
        of_keys = pull[:, self.held[: self.count]].reshape(S, self.k, self.p)
        bends = np.einsum("skp,spr->skr", of_keys, w2) * second
        for l, unit in np.ndindex(self.k, self.r):
            out[:, self.beta[l, unit], self.beta[l, unit]] += bends[:, l, unit]
            for entry in range(self.p):
                out[:, self.w2[entry, unit], self.beta[l, unit]] += of_keys[:, l, entry] * first[:, l, unit]
            has, entry = row[:, l, unit] >= 0, np.maximum(row[:, l, unit], 0)
            of_slopes = np.where(has[:, None], pull[:, self.u[l, unit]], 0.0)  # (S, d)
            for other in range(self.r):
                at, weight = self.beta[l, other], w2[every, entry, other]
                along = (of_slopes * u[:, l, other]).sum(axis=1)
                out[:, at, at] += along * weight * third[:, l, other]
                out[every, self.w2[entry, other], at] += along * second[:, l, other]
                for from_, size in zip(self.u[l, other], of_slopes.T, strict=True):
                    out[every, self.w2[entry, other], from_] += size * first[:, l, other]
                    out[:, at, from_] += size * weight * second[:, l, other]
        diagonal = out[:, np.arange(self.size), np.arange(self.size)].copy()
        out += out.swapaxes(1, 2)
        out[:, np.arange(self.size), np.arange(self.size)] = diagonal
        return out


class KeyPoint:
    """Give values and derivatives of ``KeyCoordinates`` at S vectors."""

    def __init__(self, objective: KeyCoordinates, vectors: np.ndarray, starts: np.ndarray, outside: np.ndarray) -> None:
        self.objective, self.vectors, self.starts = objective, vectors, starts
        self.base = objective.base.at(vectors, objective.own[starts])
        self.value = np.where(outside, np.inf, self.base.value)

    def derivatives(self, which: np.ndarray, exact: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return gradients (T, P), Gauss-Newton matrices (T, P, P) and the rest of the Hessians, in phi.

        Arguments are those of ``Point.derivatives``.
        """
        gradient, gauss_newton, rest = self.base.derivatives(which, exact)
        vectors, starts = self.vectors[which], self.starts[which]
        chain = inverse(self.objective.derivative(vectors, starts))
        back = chain.swapaxes(1, 2)
        gradient = (back @ gradient[:, :, None])[:, :, 0]
        rest = rest.copy()
        rest[exact] -= self.objective.bent(vectors[exact], starts[exact], gradient[exact])
        return gradient, back @ gauss_newton @ chain, back @ rest @ chain


def inverse(matrices: np.ndarray) -> np.ndarray:
    """Return the inverses (.., m, m); NaN where there is none."""
    try:
        return np.linalg.inv(matrices)
    except np.linalg.LinAlgError:
        good = np.isfinite(matrices).all(axis=(-2, -1)) & (np.abs(np.linalg.det(matrices)) > 0)
        out = np.full_like(matrices, np.nan)
        out[good] = np.linalg.inv(matrices[good])
        return out


def pivots(matrices: np.ndarray) -> np.ndarray:
    """Return the column of each row's pivot (S, rows) in matrices (S, rows, columns); -1 where it has none.

    Gaussian elimination with complete pivoting.
    """
    left = matrices.copy()
    S, rows, columns = left.shape
    out, every = np.full((S, rows), -1), np.arange(S)
    largest = np.abs(left).reshape(S, -1).max(axis=1, initial=0.0)
    for _ in range(min(rows, columns)):
        row, column = np.divmod(np.abs(left).reshape(S, -1).argmax(axis=1), columns)
        pivot = left[every, row, column]
        found = np.abs(pivot) > NO_PIVOT * largest
        out[every[found], row[found]] = column[found]
        share = left[every, :, column] / np.where(found, pivot, 1.0)[:, None]
        left = left - np.where(found[:, None, None], share[:, :, None] * left[every, row][:, None], left)
        left[every, row], left[every, :, column] = 0.0, 0.0
    return out

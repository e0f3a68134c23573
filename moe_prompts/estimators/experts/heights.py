"""Straighten the valley of two experts with sigmoid gates that share a cell.

A gate beta'x + b has the height m = sigmoid(b) at x = 0 and the slope m (1 - m) beta there. What f feels
strongly of two experts near one with a flat gate is the sum of their heights, the sum of their slopes, and
the barycentre of their (a, c) by height. In the coordinates

    m_i,  m_j,
    c = (w_i theta_i + w_j theta_j) / (w_i + w_j),
    h = (theta_i - theta_j) (w_i w_j)^{1/2} / (w_i + w_j),

with w = m (1 - m) for entries of beta and w = m for those of (a, c), the valley is straight to second order.
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit, logit

from moe_prompts.estimators.prompts.coordinates import PairCoordinates, PromptCoordinates
from moe_prompts.estimators.prompts.objective import Box


class HeightCoordinates(PairCoordinates):
    """Replace two experts with sigmoid gates by their heights, their barycentre c and their split h.

    Heights are in the places of b_i and b_j, c in the slot of i, h in that of j:

        theta_i = c + (w_j / w_i)^{1/2} h,    theta_j = c - (w_i / w_j)^{1/2} h,

    entry by entry, with the weights w of the module.
    """

    def __init__(self, base: PromptCoordinates, pair: tuple[int, int]) -> None:
        super().__init__(base, pair)
        self.loops = None  # the compiled loops are those of masses e^b
        #: Which entries of an expert are of its gate.
        self.of_gate = np.arange(base.family.atom_size) < base.family.d

    def phi(self, vectors: np.ndarray) -> np.ndarray:
        """Return the coordinates (S, P) of the family's vectors (S, size)."""
        out, height = vectors.copy(), expit(vectors[:, self.pair])
        w_i, w_j = self._weights(height[:, :1]), self._weights(height[:, 1:])
        theta_i, theta_j = vectors[:, self.centre], vectors[:, self.split]
        out[:, self.pair] = height
        out[:, self.centre] = (w_i * theta_i + w_j * theta_j) / (w_i + w_j)
        out[:, self.split] = (theta_i - theta_j) * np.sqrt(w_i * w_j) / (w_i + w_j)
        return out

    def bounds(self, box: Box) -> tuple[np.ndarray, np.ndarray]:
        """Return bounds of the heights, and of what is not the pair's."""
        lower, upper = super().bounds(box)
        lower[self.pair], upper[self.pair] = expit(box.b)
        return lower, upper

    def _weights(self, height: np.ndarray) -> np.ndarray:
        """Return w (S, q) of heights (S, 1)."""
        return np.where(self.of_gate, height * (1 - height), height)

    def _heights(self, phi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return phi[:, self.pair[:1]], phi[:, self.pair[1:]]

    def _ratio(self, phi: np.ndarray) -> np.ndarray:
        """Return (w_j / w_i)^{1/2} (S, q)."""
        m_i, m_j = self._heights(phi)
        return np.sqrt(self._weights(m_j) / self._weights(m_i))

    def _rise(self, height: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the first two derivatives (S, q) of log w / 2 by the height (S, 1)."""
        above = np.where(self.of_gate, 1 / (1 - height), 0.0)
        return 0.5 * (1 / height - above), -0.5 * (1 / height**2 + above**2)

    def inner(self, phi: np.ndarray, sets: np.ndarray) -> np.ndarray:
        """Return the coordinates (S, P) of ``base`` at phi."""
        out, ratio = phi.copy(), self._ratio(phi)
        c, h = phi[:, self.centre], phi[:, self.split]
        out[:, self.pair] = logit(phi[:, self.pair])
        out[:, self.centre], out[:, self.split] = c + ratio * h, c - h / ratio
        return out

    def chain(self, phi: np.ndarray, sets: np.ndarray) -> np.ndarray:
        """Return d inner / d phi (S, P, P)."""
        out = np.tile(np.eye(phi.shape[1]), (len(phi), 1, 1))
        ratio, h = self._ratio(phi), phi[:, self.split]
        out[:, self.centre, self.split], out[:, self.split, self.split] = ratio, -1 / ratio
        out[:, self.split, self.centre] = 1
        for b, height, sign in zip(self.pair, self._heights(phi), (-1, 1), strict=True):
            rise = sign * self._rise(height)[0]
            out[:, b, b] = 1 / (height * (1 - height))[:, 0]
            out[:, self.centre, b], out[:, self.split, b] = rise * ratio * h, rise * h / ratio
        return out

    def bend(self, phi: np.ndarray, sets: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        """Return the sum of gradient (S, P) times the second derivatives of ``inner`` (S, P, P)."""
        out = np.zeros((*phi.shape, phi.shape[1]))
        ratio, h = self._ratio(phi), phi[:, self.split]
        pull_i, pull_j = ratio * gradient[:, self.centre], gradient[:, self.split] / ratio
        # With t = log(w_j / w_i) / 2 in each entry: first and second derivatives in t, then t and b in the
        # heights.
        in_t, in_tt = (pull_i + pull_j) * h, (pull_i - pull_j) * h
        rises = {b: self._rise(m) for b, m in zip(self.pair, self._heights(phi), strict=True)}
        signs = dict(zip(self.pair, (-1, 1), strict=True))
        for a in self.pair:
            height, rise = phi[:, a], signs[a] * rises[a][0]
            for b in self.pair:
                out[:, a, b] += (in_tt * rise * signs[b] * rises[b][0]).sum(axis=1)
            out[:, a, a] += (in_t * signs[a] * rises[a][1]).sum(axis=1)
            out[:, a, a] -= gradient[:, a] * (1 - 2 * height) / (height * (1 - height)) ** 2
            with_h = rise * (pull_i + pull_j)
            out[:, a, self.split] += with_h
            out[:, self.split, a] += with_h
        return out

"""Give the least squares of prompt regression as an objective in nats.

It is minus the log-likelihood of y = f(x; theta) + N(0, s^2 I) with s known,

    Q(theta) = sum_c [ w_c |f(x_c)|^2 - 2 f(x_c)'s_c ] / (2 s^2)    up to a constant of the data.

It costs the same for every n where the points x_c do not grow with n (a discrete design, or ``quadrature``).
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import logsumexp, softmax

from moe_prompts.checks import LARGEST, SMALLEST, expect, listed, numbers, real
from moe_prompts.errors import InputError
from moe_prompts.estimators.prompts.blocks import CompiledObjective
from moe_prompts.estimators.prompts.levenberg_marquardt import Point
from moe_prompts.models.activations import rounded_relu
from moe_prompts.models.data import RegressionData, Sample
from moe_prompts.models.multi_head import prompt_map
from moe_prompts.models.prompt_attention import MASS, PromptFamily

#: Weights below this share of the mean are too small to divide by.
SMALL_WEIGHT = 1e-6
#: Widths over which relu's kinks are rounded, in turn.
WIDTHS = (1e-2, 1e-5, 1e-8)


@dataclass(frozen=True)
class Box:
    """Bound the logit biases b and all other parameters.

    b      lowest and highest logit bias
    theta  lowest and highest value of every other parameter

    Without bounds on b there is no n^-1/4 for every atom: one whose mass vanishes may be anywhere.

    Raises ``InputError`` where an interval is empty or not finite.

    >>> import moe_prompts as mp
    >>> mp.Box(b=(-1.0, 1.0)).theta
    (-5.0, 5.0)
    """

    b: tuple[float, float] = (-1.0, 3.0)
    theta: tuple[float, float] = (-5.0, 5.0)

    def __post_init__(self) -> None:
        for name in ("b", "theta"):
            ends = numbers(getattr(self, name), f"Box: {name}")
            if ends.shape != (2,):
                raise InputError(f"Box: {name} has shape {ends.shape}; expected two real numbers, low < high")
            low, high = map(float, ends)
            object.__setattr__(self, name, (low, high))
            if not (np.isfinite([low, high]).all() and low < high):
                raise InputError(f"Box: {name} in [{low}, {high}] is empty or not finite; expected low < high")

    def bounds(self, family: PromptFamily) -> tuple[np.ndarray, np.ndarray]:
        """Return the lower and upper ends (size,) for a vector of the family."""
        expect(family, PromptFamily, "bounds: family")
        of_b = np.arange(family.size) < family.k
        return np.where(of_b, self.b[0], self.theta[0]), np.where(of_b, self.b[1], self.theta[1])


def data_sets(data: Sequence[RegressionData], what: str) -> list[RegressionData]:
    """Return the data sets as a list; ``InputError`` for one that is not in a list, and for none."""
    if isinstance(data, RegressionData | Sample):
        raise InputError(f"{what}: one data set; expected a list of them: [data], and its starts in a list, too")
    found = [expect(one, RegressionData, f"{what}: a data set") for one in listed(data, what)]
    if not found:
        raise InputError(f"{what}: no data sets; expected at least one")
    return found


def at_same_points(data: Sequence[RegressionData], shape: tuple[int, int], who: str, wanted: str) -> None:
    """Raise ``InputError`` where data sets do not fit a model, or differ in their points.

    shape   (d, l), numbers of inputs and of outputs of the model
    who     name of the objective, for the message
    wanted  says in the message what the model expects
    """
    for one in data:
        found = one.x.shape[1], one.sums.shape[1]
        if found != shape:
            raise InputError(f"{who}: data with d = {found[0]}, l = {found[1]}; {wanted}")
        if one.x is not data[0].x and not np.array_equal(one.x, data[0].x):
            raise InputError(f"{who}: data sets at different points; fit them one by one")


def around_means(data: Sequence[RegressionData]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return weights (R, 1, m), cell means and the rest of sums (R, l, m), of data sets at the same points.

    Around the cell means Q is a sum of small squares: Q itself would lose digits at large n. Cells of weights
    too small to divide by have the mean 0.
    """
    weights = np.array([one.weights for one in data])[:, None]
    sums = np.array([one.sums.T for one in data])
    # Small is relative to the data set's own weights: data sets of one call may differ in n by any factor.
    enough = weights > SMALL_WEIGHT * np.abs(weights).mean(axis=2, keepdims=True)
    centre = np.where(enough, sums / np.where(enough, weights, 1.0), 0.0)
    return weights, centre, sums - weights * centre


def noise_of(noise: float, what: str) -> float:
    """Return s; ``InputError`` where it is not positive or its square is no number; ``what`` asks."""
    noise = real(noise, "(0, inf)", f"{what}: noise")
    if not SMALLEST <= noise <= LARGEST:
        raise InputError(
            f"{what}: noise = {noise:.3g}, whose square is no number; expected a unit of y in which it is "
            f"between {SMALLEST:.0e} and {LARGEST:.0e}"
        )
    return noise


class PromptObjective:
    """Evaluate Q of a family on data sets that share their points x.

    family  prompt kind, head and number of prompts
    data    data sets at the same points
    noise   standard deviation s of the outputs

    Raises ``InputError`` where there are no data, where they do not fit the head or differ in their points,
    or where ``noise`` is not positive.
    """

    def __init__(self, family: PromptFamily, data: Sequence[RegressionData], noise: float) -> None:
        expect(family, PromptFamily, "least squares: family")
        head = family.head
        data = data_sets(data, "least squares")
        at_same_points(data, (head.d, head.l), "PromptObjective", f"the head has d = {head.d}, l = {head.l}")
        noise = noise_of(noise, "PromptObjective")
        self.family, self.noise = family, noise
        self.x = data[0].x
        self.map = prompt_map(family, self.x)
        self.weights, self.centre, self.remainder = around_means(data)
        # The energy of the data in nats: what holds the common part of b has the size of a curvature of Q.
        self.stiffness = (np.abs(self.weights) * self.centre**2).sum(axis=(1, 2)) / noise**2
        self._compile()

    def _compile(self) -> None:
        self.compiled = CompiledObjective.of(self.map, self.noise, self.weights, self.centre, self.remainder)

    def stages(self) -> list[PromptObjective]:
        """Return what is minimised in turn: Q itself, or for relu Q with kinks rounded ever less.

        Minima of relu prompts tend to lie on kinks, where a hidden unit switches at a point of the data and Q
        has no derivative. The last stage stands for Q: its f differs by at most a quarter of the last width
        times |W2|.
        """
        if self.family.kind.analytic:
            return [self]
        return [self._rounded(width) for width in WIDTHS]

    def _rounded(self, width: float) -> PromptObjective:
        other = copy(self)
        other.map = prompt_map(self.family, self.x, rounded_relu(width))
        other._compile()
        return other

    def bounds(self, box: Box) -> tuple[np.ndarray, np.ndarray]:
        """Return the lower and upper ends (size,) of the coordinates in the box."""
        return box.bounds(self.family)

    def vectors(self, phi: np.ndarray, sets: np.ndarray) -> np.ndarray:
        """Return phi itself: the coordinates are the family's own."""
        return phi

    @property
    def pairable(self) -> int:
        """Return how many prompts, from the first on, may have coordinates of pairs: all."""
        return self.family.k

    def beside(self, prompts: Sequence[int]) -> PromptObjective:
        """Return the objective in which coordinates of these prompts may be free: itself."""
        return self

    def normal(self, vectors: np.ndarray) -> np.ndarray:
        """Return the vectors themselves: f has no symmetry of translations."""
        return vectors

    def at(self, vectors: np.ndarray, sets: np.ndarray) -> Point:
        """Return the objective at vectors (S, size), each on the data set that ``sets`` (S,) names."""
        if self.compiled is not None:
            return self.compiled.at(vectors, sets)
        return PromptPoint(self, self.map.at(vectors), sets, vectors[:, : self.family.k] if self.family.gated else None)

    def retract(self, vectors: np.ndarray) -> np.ndarray:
        """Return the vectors in the normal form of the family's symmetries."""
        family = self.family
        if not family.scales:
            return vectors
        _, _, w2 = family.split(vectors)
        out = vectors.copy()
        out[:, family.w2_slot] = w2.reshape(len(vectors), -1)
        return out

    def gauges(self, vectors: np.ndarray) -> np.ndarray:
        """Return the directions (S, size, G) along which f does not change."""
        family = self.family
        units = family.scales
        out = np.zeros((len(vectors), family.size, units))
        if units:
            _, _, w2 = family.split(vectors)
            for u in range(units):
                out[:, family.w2_slot.start + u : family.w2_slot.stop : family.hidden, u] = w2[:, :, u]
        return out


class PromptPoint:
    """Give values and derivatives of a ``PromptObjective``, or one of experts, at S vectors.

    On a zero-initialised head Q does not depend on a common part of all b. Half the square of log sum e^b -
    log ``MASS``, times a stiffness, is added: it is 0 in the normal form, so that minima and their values
    stay.
    """

    def __init__(
        self,
        objective: Any,
        values: Any,
        sets: np.ndarray,
        b: np.ndarray | None = None,
    ) -> None:
        self.objective, self.values, self.sets = objective, values, sets
        off = values.f - objective.centre[sets]
        weighted = objective.weights[sets] * off
        self.value = ((weighted - 2 * objective.remainder[sets]) * off).sum(axis=(1, 2)) / (2 * objective.noise**2)
        self.residual = (weighted - objective.remainder[sets]) / objective.noise**2
        self.held = None if b is None else (logsumexp(b, axis=1) - np.log(MASS), softmax(b, axis=1))
        if self.held is not None:
            self.value = self.value + objective.stiffness[sets] * self.held[0] ** 2 / 2

    def derivatives(self, which: np.ndarray, exact: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return gradients (T, P), Gauss-Newton matrices (T, P, P), and what the Hessian has beyond them.

        Arguments are those of ``Point.derivatives``.
        """
        values, residual = self.values.chosen(which), self.residual[which]
        jacobian = values.jacobian()
        flat = jacobian.reshape(*jacobian.shape[:2], -1)
        gradient = (flat @ residual.reshape(len(which), -1, 1))[:, :, 0]
        jacobian = jacobian * (self.objective.weights[self.sets[which]][:, None] / self.objective.noise**2)
        gauss_newton = jacobian.reshape(flat.shape) @ flat.swapaxes(1, 2)
        rest = np.zeros_like(gauss_newton)
        if exact.any():
            rest[exact] = values.chosen(exact).curvature(residual[exact])
        if self.held is not None:
            stiff, off, share = self.objective.stiffness[self.sets[which]], self.held[0][which], self.held[1][which]
            k, outer = share.shape[1], share[:, :, None] * share[:, None]
            gradient[:, :k] += (stiff * off)[:, None] * share
            gauss_newton[:, :k, :k] += stiff[:, None, None] * outer
            bend = (stiff * off)[:, None, None] * (share[:, :, None] * np.eye(k) - outer)
            rest[:, :k, :k] += np.where(exact[:, None, None], bend, 0.0)
        return gradient, gauss_newton, rest

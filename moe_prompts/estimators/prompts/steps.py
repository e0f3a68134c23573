"""Take the steps of Levenberg-Marquardt between two passes over the points, in NumPy or compiled.

What is computed is written in ``PlainSteps``. ``CompiledSteps`` does the same start by start, in
``step_kernels``. A Hessian that is clearly positive definite has a Cholesky factor, which gives the predicted
decrease and the step at a tenth of the cost of eigenvalues; others are left to NumPy.
"""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Protocol

import numpy as np

from moe_prompts.compilation import kernels

if TYPE_CHECKING:
    from moe_prompts.estimators.prompts.levenberg_marquardt import Objective

KERNELS = "moe_prompts.estimators.prompts.step_kernels"
#: The smallest curvature that counts as one, relative to J'WJ / s^2.
FLAT = 1e-11
#: A negative eigenvalue of this size is rounding: of H at n = 1e7, and of directions that are flat.
ROUNDING = 1e-9
#: Damping of the first step, and by how much it grows after the first step that fails.
FIRST_DAMPING, FIRST_FACTOR = 1e-2, 2.0


class Steps(Protocol):
    """Hold where S paths stand, and take their steps."""

    x: np.ndarray
    value: np.ndarray
    gradient: np.ndarray
    gauss_newton: np.ndarray
    rest: np.ndarray
    gap: np.ndarray
    damping: np.ndarray

    def certify(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the predicted decreases of ``rows`` in nats, and where H is not negative anywhere (T,).

        The decrease is infinite where H has a negative eigenvalue beyond rounding.
        """
        ...

    def propose(self, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return trials (U, P) and the decrease predicted for each (U,), of entries of the last ``rows``."""
        ...

    def judge(self, rows: np.ndarray, trial: np.ndarray, predicted: np.ndarray, value: np.ndarray) -> np.ndarray:
        """Move ``rows`` (U,) to the trials that decrease Q enough, and say which those are (U,)."""
        ...

    def lowest(self) -> np.ndarray:
        """Return the smallest eigenvalue of the scaled Hessian at each path's last certificate (S,)."""
        ...


def steps_of(objective: Objective, x: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> Steps:
    """Return steps from the points x (S, P), on the route that loops take now."""
    loops = kernels(KERNELS)
    return PlainSteps(objective, x, lower, upper) if loops is None else CompiledSteps(loops, objective, x, lower, upper)


class PlainSteps:
    """Take steps in NumPy."""

    def __init__(self, objective: Objective, x: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> None:
        S, P = x.shape
        self.objective, self.lower, self.upper = objective, lower, upper
        self.x, self.value = np.ascontiguousarray(x), np.full(S, np.inf)
        self.gradient, self.gauss_newton, self.rest = np.zeros((S, P)), np.zeros((S, P, P)), np.zeros((S, P, P))
        self.gap, self.lmin = np.full(S, np.inf), np.full(S, np.nan)
        self.damping, self.factor = np.full(S, FIRST_DAMPING), np.full(S, FIRST_FACTOR)

    def certify(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the predicted decreases of ``rows`` in nats, and where H is not negative anywhere (T,)."""
        self.rows = rows
        scaled, self.scale, slope = self._scaled(rows)
        self.spectrum = _spectrum(scaled, slope)
        self.gap[rows], self.lmin[rows] = _certificate(*self.spectrum)
        return self.gap[rows], self.lmin[rows] > -ROUNDING

    def propose(self, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return trials (U, P) and the decrease predicted for each (U,), of entries of the last ``rows``."""
        rows = self.rows[which]
        step = _bent_step(*self.spectrum, self.scale, self.damping[rows], which)
        trial = np.clip(self.x[rows] + step, self.lower, self.upper)
        # The box may have cut the step short. The decrease is predicted for the step that is taken.
        step = trial - self.x[rows]
        model = (self.gauss_newton[rows] + self.rest[rows]) @ step[:, :, None]
        return trial, -(self.gradient[rows] * step).sum(axis=1) - 0.5 * (step * model[:, :, 0]).sum(axis=1)

    def judge(self, rows: np.ndarray, trial: np.ndarray, predicted: np.ndarray, value: np.ndarray) -> np.ndarray:
        """Move ``rows`` (U,) to the trials that decrease Q enough, and say which those are (U,)."""
        gain = self.value[rows] - value
        # A step must decrease Q, and by a share of what was predicted: one that gains next to nothing would
        # count as progress and lower the damping.
        better = (gain > 0) & (gain > 1e-4 * predicted)
        self.x[rows[better]] = trial[better]
        ratio = np.clip(gain / np.where(predicted > 0, predicted, np.inf), 0, 1)
        # Damping falls smoothly with the quality of the model, and grows by 2, 4, 8, .. while steps fail, so
        # that a start that has lost its way finds a short step in few trials.
        damping, factor = self.damping[rows], self.factor[rows]
        shrink = np.maximum(1 / 5, 1 - (2 * ratio - 1) ** 3)
        self.damping[rows] = np.where(better, np.maximum(damping * shrink, 1e-12), damping * factor)
        self.factor[rows] = np.where(better, FIRST_FACTOR, 2 * factor)
        return better

    def lowest(self) -> np.ndarray:
        """Return the smallest eigenvalue of the scaled Hessian at each path's last certificate (S,)."""
        return self.lmin

    def _scaled(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the scaled Hessians (T, P, P) on the free parameters, scales and scaled gradients (T, P).

        Held parameters and exact symmetries have eigenvalue 1 and gradient 0.
        """
        x, gradient, gauss_newton = self.x[rows], self.gradient[rows], self.gauss_newton[rows]
        # Parameters on the box that are pushed outwards are held there.
        free = ~(((x <= self.lower) & (gradient > 0)) | ((x >= self.upper) & (gradient < 0)))
        diagonal = np.abs(np.einsum("spp->sp", gauss_newton))
        # In units of the Gauss-Newton diagonal curvatures of logits and of weights compare, and damping means
        # the same for each of them.
        scale = free / np.sqrt(np.maximum(diagonal, 1e-12 * diagonal.max(axis=1, keepdims=True)))
        scaled = (gauss_newton + self.rest[rows]) * scale[:, :, None] * scale[:, None, :]
        scaled[:, np.arange(x.shape[1]), np.arange(x.shape[1])] += ~free
        gauges = self.objective.gauges(x)
        if gauges.shape[2]:
            turned = gauges * free[:, :, None] / np.where(scale > 0, scale, 1.0)[:, :, None]
            turned /= np.maximum(np.linalg.norm(turned, axis=1, keepdims=True), 1e-300)
            # Q is constant along a symmetry. Eigenvalue 1 there keeps it out of the certificate and steps
            # away from it.
            scaled += turned @ turned.swapaxes(1, 2)
        return scaled, scale, gradient * scale


class CompiledSteps(PlainSteps):
    """Take steps in compiled loops, and in NumPy where a Hessian has an eigenvalue near 0 or below."""

    def __init__(
        self, loops: ModuleType, objective: Objective, x: np.ndarray, lower: np.ndarray, upper: np.ndarray
    ) -> None:
        super().__init__(objective, x, lower, upper)
        self.loops = loops
        self.counted = np.zeros(len(x), dtype=bool)

    def certify(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the predicted decreases of ``rows`` in nats, and where H is not negative anywhere (T,)."""
        self.rows = rows
        self.scaled, self.scale, self.slope, decrease, self.definite = self._hessians(rows)
        self.others = np.flatnonzero(~self.definite)
        convex = self.definite.copy()
        # An eigenvalue above ``ROUNDING`` is above ``FLAT``, so that the decrease is what eigenvalues would
        # say.
        if len(self.others):
            self.spectrum = _spectrum(self.scaled[self.others], self.slope[self.others])
            decrease[self.others], lmin = _certificate(*self.spectrum)
            self.lmin[rows[self.others]], convex[self.others] = lmin, lmin > -ROUNDING
        self.gap[rows], self.counted[rows] = decrease, ~self.definite
        return decrease, convex

    def propose(self, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return trials (U, P) and the decrease predicted for each (U,), of entries of the last ``rows``."""
        rows, P = self.rows[which], self.x.shape[1]
        step, damping = np.zeros((len(which), P)), self.damping[rows]
        self.loops.damped_steps(which, self.scaled, self.scale, self.slope, self.definite, damping, step)
        if len(self.others):
            bent = np.flatnonzero(~self.definite[which])
            at = np.searchsorted(self.others, which[bent])
            step[bent] = _bent_step(*self.spectrum, self.scale[self.others], damping[bent], at)
        trial, predicted = np.empty((len(which), P)), np.empty(len(which))
        self.loops.trials(
            *(rows, step, self.x, self.lower, self.upper),
            *(self.gradient, self.gauss_newton, self.rest, trial, predicted),
        )
        return trial, predicted

    def judge(self, rows: np.ndarray, trial: np.ndarray, predicted: np.ndarray, value: np.ndarray) -> np.ndarray:
        """Move ``rows`` (U,) to the trials that decrease Q enough, and say which those are (U,)."""
        better = np.empty(len(rows), dtype=bool)
        self.loops.judge(
            *(rows, np.ascontiguousarray(trial), predicted, np.ascontiguousarray(value)),
            *(self.x, self.value, self.damping, self.factor, better),
        )
        return better

    def lowest(self) -> np.ndarray:
        """Return the smallest eigenvalue of the scaled Hessian at each path's last certificate (S,)."""
        rows = np.flatnonzero(~self.counted)
        if len(rows):
            self.lmin[rows] = np.linalg.eigvalsh(self._hessians(rows)[0])[:, 0]
        return self.lmin

    def _hessians(self, rows: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return what ``_scaled`` does, predicted decreases (T,), and which Hessians are definite (T,)."""
        T, P = len(rows), self.x.shape[1]
        scaled, scale, slope = np.empty((T, P, P)), np.empty((T, P)), np.empty((T, P))
        decrease, definite = np.empty(T), np.empty(T, dtype=bool)
        self.loops.scaled_hessians(
            *(rows, self.x, self.gradient, self.gauss_newton, self.rest, self.lower, self.upper),
            *(np.ascontiguousarray(self.objective.gauges(self.x[rows])), ROUNDING),
            *(scaled, scale, slope, decrease, definite),
        )
        return scaled, scale, slope, decrease, definite


def _spectrum(scaled: np.ndarray, slope: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return eigenvalues (T, P), vectors (T, P, P), and the gradient in their basis (T, P)."""
    lam, basis = np.linalg.eigh(scaled)
    return lam, basis, (basis.swapaxes(1, 2) @ slope[:, :, None])[:, :, 0]


def _certificate(lam: np.ndarray, basis: np.ndarray, pushed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the predicted decrease in nats and the smallest eigenvalue, both (T,).

    The decrease is infinite where H has a negative eigenvalue.
    """
    lmin = lam.min(axis=1)
    # Flat directions count with the curvature FLAT, so that a gradient along one forbids the certificate.
    decrease = 0.5 * (pushed**2 / np.maximum(lam, FLAT)).sum(axis=1)
    return np.where(lmin > -ROUNDING, decrease, np.inf), lmin


def _bent_step(
    lam: np.ndarray, basis: np.ndarray, pushed: np.ndarray, scale: np.ndarray, damping: np.ndarray, which: np.ndarray
) -> np.ndarray:
    """Return the steps -(|H| + damping I)^-1 g (U, P) of the entries ``which`` (U,).

    Eigenvalues enter by their size, so that a step goes down along negative curvature too, away from a
    saddle; damping bounds its length.
    """
    bent = np.abs(lam[which]) + damping[:, None]
    return -scale[which] * (basis[which] @ (pushed[which] / bent)[:, :, None])[:, :, 0]

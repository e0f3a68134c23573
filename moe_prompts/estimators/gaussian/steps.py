"""Take the steps between two passes of a climb: coefficients before, EM's next point or curvature after.

``PlainSteps`` are those of ``chart`` and ``em`` in NumPy. ``CompiledSteps`` give the same numbers up to
rounding, without NumPy's cost of a call for each of many small arrays.
"""

from __future__ import annotations

from types import ModuleType
from typing import Protocol

import numpy as np

from moe_prompts.compilation import kernels
from moe_prompts.estimators.gaussian.chart import Chart
from moe_prompts.estimators.gaussian.em import evaluate, m_step, no_points, too_narrow
from moe_prompts.estimators.gaussian.moments import MIN_POINTS
from moe_prompts.estimators.gaussian.streaming import Passes
from moe_prompts.estimators.trust_region import CollapseError, Spectrum

KERNELS = "moe_prompts.estimators.gaussian.step_kernels"


class Steps(Protocol):
    """Say what a climb asks for; both methods may raise ``CollapseError``."""

    def em(self, theta: np.ndarray, steps: int) -> np.ndarray:
        """Return theta (p,) after that many EM steps."""
        ...

    def evaluate(self, theta: np.ndarray) -> tuple[float, Spectrum]:
        """Return the log-likelihood at theta, in standardised units, and the spectrum there."""
        ...


def steps_of(passes: Passes, chart: Chart) -> Steps:
    """Return the steps on the route that loops take now."""
    loops = kernels(KERNELS)
    return PlainSteps(passes, chart) if loops is None else CompiledSteps(loops, passes, chart)


class PlainSteps:
    """Take steps in NumPy."""

    def __init__(self, passes: Passes, chart: Chart) -> None:
        self.passes, self.chart = passes, chart

    def em(self, theta: np.ndarray, steps: int) -> np.ndarray:
        """Return theta (p,) after that many EM steps."""
        for _ in range(steps):
            W, log_frozen_mass = self.chart.coefficients(self.chart.atoms(theta))
            _, S = self.passes.e1(W, log_frozen_mass)
            theta = self.chart.theta_of(m_step(self.passes, S))
        return theta

    def evaluate(self, theta: np.ndarray) -> tuple[float, Spectrum]:
        """Return the log-likelihood at theta, in standardised units, and the spectrum there."""
        return evaluate(self.passes, self.chart, theta)


class CompiledSteps:
    """Take steps in compiled loops, on passes of either route."""

    def __init__(self, loops: ModuleType, passes: Passes, chart: Chart) -> None:
        family = chart.family
        self.loops, self.passes, self.chart = loops, passes, chart
        self.slot = np.ascontiguousarray(chart.slot.reshape(family.k, chart.q), dtype=np.int64)
        self.pair_of = np.ascontiguousarray(chart.monomials.pair_of, dtype=np.int64)
        self.frozen = family.frozen is not None
        self.forms = family.l, family.experts == "constant", family.tied_gate, self.frozen

    def em(self, theta: np.ndarray, steps: int) -> np.ndarray:
        """Return theta (p,) after that many EM steps."""
        for _ in range(steps):
            _, S = self.passes.e1(*self._coefficients(theta))
            theta = np.empty(self.chart.p)
            ended = self.loops.maximise(
                S,
                self.passes.total,
                MIN_POINTS,
                self.passes.min_eigenvalue,
                self.slot,
                self.pair_of,
                *self.forms,
                theta,
            )
            if ended == self.loops.FEW_POINTS:
                raise no_points(S)
            if ended == self.loops.NARROW:
                raise too_narrow(self.passes)
            if ended == self.loops.FEW_FROZEN:
                raise CollapseError(f"the frozen atoms explain {self.passes.total - S[:, 0].sum():.3g} points")
        return theta

    def evaluate(self, theta: np.ndarray) -> tuple[float, Spectrum]:
        """Return the log-likelihood at theta, in standardised units, and the spectrum there."""
        if not self.loops.wide(theta, self.slot, len(self.pair_of) - 1, self.passes.min_eigenvalue):
            raise too_narrow(self.passes)
        value, S, Q = self.passes.e2(*self._coefficients(theta))
        if not np.isfinite(value) or S[:, 0].min() < MIN_POINTS:
            raise no_points(S)
        return value, Spectrum.of(*self.curvature(theta, S, Q))

    def curvature(self, theta: np.ndarray, S: np.ndarray, Q: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return gradient (p,), Hessian (p, p) and information (p, p), as ``Chart.curvature`` does."""
        p = self.chart.p
        gradient, hessian, information = np.zeros(p), np.zeros((p, p)), np.zeros((p, p))
        self.loops.curvature(
            theta, S, Q, self.passes.total, self.slot, self.pair_of, self.frozen, gradient, hessian, information
        )
        return gradient, hessian, information

    def _coefficients(self, theta: np.ndarray) -> tuple[np.ndarray, float]:
        W = np.empty((len(self.slot), self.chart.monomials.P))
        return W, self.loops.coefficients(theta, self.slot, self.pair_of, self.frozen, W)

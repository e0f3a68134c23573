"""Minimise on a box by Levenberg-Marquardt, many starts and data sets at once, each with a certificate.

The objective is a negative log-likelihood in nats. A step from x in scaled coordinates is

    -(|H| + damping I)^-1 g,

with H first the Gauss-Newton matrix and in the end the exact Hessian. This matters: where a fit has more
prompts than the truth, the Jacobian is singular at the truth and Gauss-Newton crawls, and only the exact
Hessian can tell a minimum from the saddle at which two prompts coincide. Parameters that lie on the box and
are pushed outwards are held there.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np

from moe_prompts.estimators.prompts.steps import steps_of
from moe_prompts.estimators.result import Certificate, FitStatus

KIND = "least squares"
#: Predicted decrease, in nats and as a share of Q, below which steps use the exact Hessian.
CLOSE, CLOSE_SHARE = 10.0, 0.1
#: Damping beyond which no step is left to try.
MAX_DAMPING = 1e10
#: Polishing has to bring the predicted decrease of a minimum down to this share of the tolerance, or to this
#: share of Q, which is the rounding of Q and more. Newton does so in few steps at a minimum. In a curved
#: valley that runs downhill the prediction of every point is small, and wrong: it is that of a parabola, and
#: stays where it is.
POLISHED, ROUNDED = 1e-4, 1e-12


class Point(Protocol):
    """Describe an objective at S vectors: values (S,), and its derivatives at some of them."""

    value: np.ndarray

    def derivatives(self, which: np.ndarray, exact: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return gradients (T, P), Gauss-Newton matrices (T, P, P), and what the Hessian has beyond them.

        which  (T,)  the vectors that are asked for
        exact  (T,)  where the last is computed; it is 0 elsewhere
        """
        ...


class Objective(Protocol):
    """Describe what ``minimise`` needs."""

    def at(self, vectors: np.ndarray, sets: np.ndarray) -> Point:
        """Return the objective at vectors (S, P), each on the data set that ``sets`` (S,) names."""
        ...

    def retract(self, vectors: np.ndarray) -> np.ndarray:
        """Return the vectors with exact symmetries brought back to their normal form."""
        ...

    def gauges(self, vectors: np.ndarray) -> np.ndarray:
        """Return the directions (S, P, G) of the exact symmetries."""
        ...


@dataclass(frozen=True, eq=False)
class Minima:
    """Hold what became of S starts.

    vectors        (S, P)  where they ended
    values         (S,)    Q there, in nats
    gap            (S,)    predicted decrease left, in nats, of the certificate
    relative_lmin  (S,)    smallest eigenvalue of the scaled Hessian, of the certificate
    iterations     (S,)    how many were used
    status         (S,)    how each ended, members of ``FitStatus``
    """

    vectors: np.ndarray
    values: np.ndarray
    gap: np.ndarray
    relative_lmin: np.ndarray
    iterations: np.ndarray
    status: np.ndarray

    @property
    def certified(self) -> np.ndarray:
        """Return which of the starts ended in a certified minimum (S,)."""
        return np.array([status is FitStatus.CERTIFIED for status in self.status])

    def chosen(self, which: np.ndarray) -> Minima:
        """Return what became of some of the starts."""
        return Minima(*(getattr(self, field.name)[which] for field in fields(self)))

    def sorted(self) -> Minima:
        """Return the same with the lowest first."""
        return self.chosen(np.argsort(self.values, kind="stable"))

    def replace(self, rows: np.ndarray, later: Minima, vectors: np.ndarray) -> None:
        """Put in place what became of ``rows``, at ``vectors`` of these coordinates; iterations add up."""
        self.iterations[rows] += later.iterations
        self.vectors[rows] = vectors
        for name in ("values", "gap", "relative_lmin", "status"):
            getattr(self, name)[rows] = getattr(later, name)

    def certificate(self, start: int) -> Certificate:
        """Return the certificate of one start."""
        return Certificate(KIND, float(self.gap[start]), float(self.relative_lmin[start]))


def minimise(
    objective: Objective,
    starts: np.ndarray,
    sets: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    max_iterations: int,
    tolerance: float,
    polish: int = 0,
) -> Minima:
    """Minimise by projected Levenberg-Marquardt from each start (S, P) on its data set (S,).

    objective       what is minimised
    starts          (S, P), clipped to the box
    sets            (S,), number of the data set that each start belongs to
    lower, upper    (P,), ends of the box
    max_iterations  iterations after which a start gives up
    tolerance       predicted decrease left, in nats, below which a minimum is certified
    polish          how many iterations beyond ``max_iterations`` a start has that met the tolerance; with 0
                    minima are not polished

    A minimum is CERTIFIED if, on the parameters that are not held at the box, the exact Hessian H has no
    negative eigenvalue beyond rounding and the predicted decrease g'H^-1 g / 2 is at most ``tolerance``
    (directions without curvature must have no gradient either). With ``polish`` further steps must confirm
    it: they bring the prediction down to ``POLISHED`` of the tolerance (or ``ROUNDED`` of Q, where that is
    more), or no step decreases Q any more. ``relative_lmin`` is the smallest eigenvalue of D^-1/2 H D^-1/2,
    with D the diagonal of the Gauss-Newton matrix; it is 0 up to rounding where surplus prompts coincide and
    share their mass in any way. The status is STALLED where no step decreases Q any more, and NOT_CERTIFIED
    where the iterations ran out.
    """
    S = len(starts)
    x = objective.retract(np.clip(starts, lower, upper))
    path = steps_of(objective, x, lower, upper)
    exact, iterations, status = np.zeros(S, dtype=bool), np.zeros(S, dtype=int), np.full(S, FitStatus.NOT_CERTIFIED)

    def refresh(rows: np.ndarray, point: Point, at: np.ndarray) -> None:
        """Renew the derivatives of ``rows``, which stand at entries ``at`` of ``point``."""
        path.value[rows] = point.value[at]
        path.gradient[rows], path.gauss_newton[rows], path.rest[rows] = point.derivatives(at, exact[rows])

    def settled(rows: np.ndarray, gap: np.ndarray) -> np.ndarray:
        """Say which of ``rows`` have predicted decreases so small that nothing is left to polish."""
        least = np.maximum(POLISHED * tolerance, ROUNDED * np.abs(path.value[rows])) if polish else tolerance
        return gap <= np.minimum(tolerance, least)

    within = np.zeros(S, dtype=bool)  # met the tolerance at some point
    live = np.arange(S)
    refresh(live, objective.at(path.x, sets), live)
    for iteration in range(max_iterations + polish):
        if iteration == max_iterations:
            live = live[within[live]]
        if not len(live):
            break
        iterations[live] += 1
        gap, convex = path.certify(live)
        # Far away the exact Hessian is expensive and often indefinite, and Gauss-Newton steps descend well.
        # Close to a minimum the exact one is needed, for the last steps and for the certificate. Nobody
        # switches back.
        switched = ~exact[live] & (gap < np.maximum(CLOSE, CLOSE_SHARE * np.abs(path.value[live])))
        if switched.any():
            switch = live[switched]
            exact[switch] = True
            refresh(switch, objective.at(path.x[switch], sets[switch]), np.arange(len(switch)))
        # The certificate of those that just switched is still that of Gauss-Newton: it is judged in the next
        # round.
        fine = exact[live] & (gap <= tolerance) & convex & ~switched
        within[live[fine]] = True
        stuck = path.damping[live] > MAX_DAMPING
        done = fine & (settled(live, gap) | stuck)
        status[live[done]], status[live[stuck & ~done]] = FitStatus.CERTIFIED, FitStatus.STALLED
        ended = done | stuck
        go = np.flatnonzero(~(ended | switched))
        if len(go):
            rows = live[go]
            trial, predicted = path.propose(go)
            trial = objective.retract(trial)
            point = objective.at(trial, sets[rows])
            won = np.flatnonzero(path.judge(rows, trial, predicted, point.value))
            if len(won):
                refresh(rows[won], point, won)
        live = live[~ended]
    left = np.flatnonzero(status == FitStatus.NOT_CERTIFIED)
    if len(left):
        # The last step moved them after their certificates had been computed.
        gap, convex = path.certify(left)
        status[left[exact[left] & settled(left, gap) & convex]] = FitStatus.CERTIFIED
    return Minima(path.x, path.value, path.gap, path.lowest(), iterations, status)

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

from moe_prompts.estimators.result import Certificate, FitStatus

KIND = "least squares"
#: Predicted decrease, in nats and as a share of Q, below which steps use the exact Hessian.
CLOSE, CLOSE_SHARE = 10.0, 0.1
#: Damping beyond which no step is left to try, and the smallest curvature that counts as one (relative to
#: J'WJ / s^2).
MAX_DAMPING, FLAT = 1e10, 1e-11
#: A negative eigenvalue of this size is rounding: of H at n = 1e7, and of directions that are flat.
ROUNDING = 1e-9


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
) -> Minima:
    """Minimise by projected Levenberg-Marquardt from each start (S, P) on its data set (S,).

    objective       what is minimised
    starts          (S, P), clipped to the box
    sets            (S,), number of the data set that each start belongs to
    lower, upper    (P,), ends of the box
    max_iterations  iterations after which a start gives up
    tolerance       predicted decrease left, in nats, below which a minimum is certified

    A minimum is CERTIFIED if, on the parameters that are not held at the box, the exact Hessian H has no
    negative eigenvalue beyond rounding and the predicted decrease g'H^-1 g / 2 is at most ``tolerance``
    (directions without curvature must have no gradient either). ``relative_lmin`` is the smallest eigenvalue
    of D^-1/2 H D^-1/2, with D the diagonal of the Gauss-Newton matrix; it is 0 up to rounding where surplus
    prompts coincide and share their mass in any way. The status is STALLED where no step decreases Q any
    more, and NOT_CERTIFIED where the iterations ran out.
    """
    S, P = starts.shape
    x = objective.retract(np.clip(starts, lower, upper))
    value, gap, lmin = np.full(S, np.inf), np.full(S, np.inf), np.full(S, np.nan)
    gradient, gauss_newton, rest = np.zeros((S, P)), np.zeros((S, P, P)), np.zeros((S, P, P))
    exact, damping, factor = np.zeros(S, dtype=bool), np.full(S, 1e-2), np.full(S, 2.0)
    iterations, status = np.zeros(S, dtype=int), np.full(S, FitStatus.NOT_CERTIFIED, dtype=object)

    def refresh(rows: np.ndarray, point: Point, at: np.ndarray) -> None:
        """Renew the derivatives of ``rows``, which stand at entries ``at`` of ``point``."""
        value[rows] = point.value[at]
        gradient[rows], gauss_newton[rows], rest[rows] = point.derivatives(at, exact[rows])

    live = np.arange(S)
    refresh(live, objective.at(x, sets), live)
    for _ in range(max_iterations):
        iterations[live] += 1
        free = _free(x[live], gradient[live], lower, upper)
        lam, basis, scale, pushed = _spectrum(objective, x[live], gradient[live], gauss_newton[live], rest[live], free)
        gap[live], lmin[live] = _certificate(lam, pushed)
        # Far away the exact Hessian is expensive and often indefinite, and Gauss-Newton steps descend well.
        # Close to a minimum the exact one is needed, for the last steps and for the certificate. Nobody
        # switches back.
        switch = live[~exact[live] & (gap[live] < np.maximum(CLOSE, CLOSE_SHARE * np.abs(value[live])))]
        if len(switch):
            exact[switch] = True
            refresh(switch, objective.at(x[switch], sets[switch]), np.arange(len(switch)))
        # The certificate of those that just switched is still that of Gauss-Newton: it is judged in the next
        # round.
        done = exact[live] & (gap[live] <= tolerance) & (lmin[live] > -ROUNDING) & ~np.isin(live, switch)
        status[live[done]] = FitStatus.CERTIFIED
        stuck = ~done & (damping[live] > MAX_DAMPING)
        status[live[stuck]] = FitStatus.STALLED
        go = ~(done | stuck) & ~np.isin(live, switch)
        rows = live[go]
        if len(rows):
            lam, basis, scale, pushed = (part[go] for part in (lam, basis, scale, pushed))
            # Eigenvalues enter by their size, so that a step goes down along negative curvature too, away
            # from a saddle; damping bounds its length.
            bent = np.abs(lam) + damping[rows][:, None]
            step = -scale * (basis @ (pushed / bent)[:, :, None])[:, :, 0]
            trial = np.clip(x[rows] + step, lower, upper)
            # The box may have cut the step short. The decrease is predicted for the step that is taken.
            step = trial - x[rows]
            model = (gauss_newton[rows] + rest[rows]) @ step[:, :, None]
            predicted = -(gradient[rows] * step).sum(axis=1) - 0.5 * (step * model[:, :, 0]).sum(axis=1)
            trial = objective.retract(trial)
            point = objective.at(trial, sets[rows])
            gain = value[rows] - point.value
            # A step must decrease Q, and by a share of what was predicted: one that gains next to nothing
            # would count as progress and lower the damping.
            better = (gain > 0) & (gain > 1e-4 * predicted)
            won = np.flatnonzero(better)
            x[rows[won]] = trial[won]
            if len(won):
                refresh(rows[won], point, won)
            ratio = np.clip(gain / np.where(predicted > 0, predicted, np.inf), 0, 1)
            # Damping falls smoothly with the quality of the model, and grows by 2, 4, 8, .. while steps fail,
            # so that a start that has lost its way finds a short step in few trials.
            shrink = np.maximum(1 / 5, 1 - (2 * ratio - 1) ** 3)
            damping[rows] = np.where(better, np.maximum(damping[rows] * shrink, 1e-12), damping[rows] * factor[rows])
            factor[rows] = np.where(better, 2.0, 2 * factor[rows])
        live = live[~(done | stuck)]
        if not len(live):
            break
    if len(live):  # the last step moved them after their certificates had been computed
        free = _free(x[live], gradient[live], lower, upper)
        lam, _, _, pushed = _spectrum(objective, x[live], gradient[live], gauss_newton[live], rest[live], free)
        gap[live], lmin[live] = _certificate(lam, pushed)
    return Minima(x, value, gap, lmin, iterations, status)


def _free(x: np.ndarray, gradient: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Return which parameters (S, P) are not on the box and pushed outwards."""
    return ~(((x <= lower) & (gradient > 0)) | ((x >= upper) & (gradient < 0)))


def _certificate(lam: np.ndarray, pushed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the predicted decrease in nats and the smallest eigenvalue, both (S,).

    The decrease is infinite where H has a negative eigenvalue.
    """
    lmin = lam.min(axis=1)
    # Flat directions count with the curvature FLAT, so that a gradient along one forbids the certificate.
    decrease = 0.5 * (pushed**2 / np.maximum(lam, FLAT)).sum(axis=1)
    return np.where(lmin > -ROUNDING, decrease, np.inf), lmin


def _spectrum(
    objective: Objective,
    x: np.ndarray,
    gradient: np.ndarray,
    gauss_newton: np.ndarray,
    rest: np.ndarray,
    free: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the spectrum of the scaled Hessian on the free parameters.

    It consists of eigenvalues (S, P) and vectors (S, P, P), the scale (S, P), and the scaled gradient in that
    basis (S, P). Held parameters and exact symmetries have eigenvalue 1 and gradient 0.
    """
    diagonal = np.abs(np.einsum("spp->sp", gauss_newton))
    # In units of the Gauss-Newton diagonal curvatures of logits and of weights compare, and damping means the
    # same for each of them.
    scale = free / np.sqrt(np.maximum(diagonal, 1e-12 * diagonal.max(axis=1, keepdims=True)))
    scaled = (gauss_newton + rest) * scale[:, :, None] * scale[:, None, :]
    scaled[:, np.arange(x.shape[1]), np.arange(x.shape[1])] += ~free
    gauges = objective.gauges(x)
    if gauges.shape[2]:
        turned = gauges * free[:, :, None] / np.where(scale > 0, scale, 1.0)[:, :, None]
        turned /= np.maximum(np.linalg.norm(turned, axis=1, keepdims=True), 1e-300)
        # Q is constant along a symmetry. Eigenvalue 1 there keeps it out of the certificate and steps away
        # from it.
        scaled += turned @ turned.swapaxes(1, 2)
    lam, basis = np.linalg.eigh(scaled)
    return lam, basis, scale, (basis.swapaxes(1, 2) @ (gradient * scale)[:, :, None])[:, :, 0]

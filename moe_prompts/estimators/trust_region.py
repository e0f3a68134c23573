"""Climb a likelihood to a certified maximum: a trust region on exact curvature, corrected by EM steps.

Each iteration maximises the quadratic model of the log-likelihood inside a ball,

    g's + s'Hs / 2   over   |s|_{I_c} <= delta sqrt(n),

with gradient g, Hessian H and complete-data information I_c, the metric in which EM takes unit steps. EM
steps then correct the trial point before it is judged. Over-specified models meet saddles on every path, so
negative curvature is followed and not patched. A climb ends where -H is positive definite and the Newton
decrement is at most 1e-6 nats, or it says why it does not.

Source: the trust region of Moré and Sorensen (1983), on the exact Hessian.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from moe_prompts.checks import settings
from moe_prompts.errors import InputError
from moe_prompts.estimators.result import GAP_TOLERANCE, NO_CERTIFICATE, Certificate, FitStatus

#: A maximum is polished until its gap is this many nats for each observation. In small samples more is left
#: at the tolerance where the likelihood is flat, and where a path stops would be a matter of rounding.
POLISHED = 1e-11
#: Iterations that may polish a certified maximum.
POLISH = 2


class CollapseError(ArithmeticError):
    """Say that an atom is beyond the guards or has no information of its own.

    The climb catches it and carries its text to the status of the fit.
    """


@dataclass(frozen=True)
class TrustRegionOptions:
    """Set how the trust region climbs; the defaults are those of the algorithm as it was measured.

    Change ``max_iterations`` and ``gap_tolerance`` if anything.

    max_iterations   iterations after which the climb gives up; at least 1
    gap_tolerance    estimated gain left, in nats, at which the certificate holds; in (0, 1)
    em_warmup        EM steps before the first Newton step
    corrector_steps  EM steps on each trial point while the decrement is above ``corrector_until``
    corrector_until  Newton decrement, in nats, below which trial points are no longer corrected
    radius           first radius of the trust region, in units of sqrt(n) in the metric of the complete-data
                     information
    max_radius       largest radius, in the same units

    Raises ``InputError`` where a number is outside its range.
    """

    max_iterations: int = 500
    gap_tolerance: float = GAP_TOLERANCE
    em_warmup: int = 10
    corrector_steps: int = 2
    corrector_until: float = 1e-3
    radius: float = 0.3
    max_radius: float = 1.0

    def __post_init__(self) -> None:
        settings(self, max_iterations=1, gap_tolerance="(0, 1)", em_warmup=0, corrector_steps=0)
        settings(self, corrector_until="[0, inf)", radius="(0, inf)", max_radius="(0, inf)")
        if self.radius > self.max_radius:
            raise InputError(
                f"{type(self).__name__}: radius = {self.radius}, max_radius = {self.max_radius}; expected "
                "radius <= max_radius"
            )


@dataclass(frozen=True)
class EMOptions:
    """Set when EM stops.

    max_iterations   iterations after which EM gives up; at least 0
    certify          whether the certificate is tested, at iterations growing by 15 %, and EM stops when it
                     holds
    gap_tolerance    estimated gain left, in nats, at which the certificate holds
    relative_change  EM stops where a step gains less than this share of the log-likelihood in the units of
                     the data; this is the habit of published runs and no sign of a maximum; 0: never

    Raises ``InputError`` where a number is outside its range.

    >>> import moe_prompts as mp
    >>> truth = mp.truth("gmoe-1")
    >>> data = mp.sample("gmoe-1", 300, seed=0)
    >>> fit = mp.em(truth.family, data, truth.params, mp.EMOptions(max_iterations=3))
    >>> fit.iterations
    3
    """

    max_iterations: int = 10_000
    certify: bool = True
    gap_tolerance: float = GAP_TOLERANCE
    relative_change: float = 0.0

    def __post_init__(self) -> None:
        settings(self, max_iterations=0, certify=bool, gap_tolerance="(0, inf)", relative_change="[0, 1)")

    def small_gain(self, history: list[float], volume: float) -> bool:
        """Say whether the last step gained less than ``relative_change`` asks for.

        history  log-likelihoods so far, in standardised units
        volume   how much they exceed the log-likelihoods in the units of the data

        The share is taken in the units of the data, as published runs do.
        """
        return (
            self.relative_change > 0
            and len(history) > 1
            and abs(history[-1] - history[-2]) < self.relative_change * abs(history[-2] - volume)
        )


@dataclass(frozen=True)
class Spectrum:
    """Gather gradient and Hessian in the metric of the complete-data information I_c = C C'.

    values    (p,)    eigenvalues of C^-1 H C^-T, ascending
    vectors   (p, p)  its eigenvectors, as columns
    gradient  (p,)    gradient in the basis of the eigenvectors
    root      (p, p)  C, lower triangular
    """

    values: np.ndarray
    vectors: np.ndarray
    gradient: np.ndarray
    root: np.ndarray

    @classmethod
    def of(cls, gradient: np.ndarray, hessian: np.ndarray, information: np.ndarray) -> Spectrum:
        """Return the spectrum of a gradient (p,) and a Hessian (p, p) in the metric of an information (p, p).

        Raises ``CollapseError`` where the information is singular: an atom has none of its own.
        """
        from scipy.linalg import lapack  # loaded where it is used: a refused option need not wait for it

        # LAPACK itself: of matrices this small, the checks of a wrapper cost as much as the arithmetic.
        root, failed = lapack.dpotrf(information, lower=1, clean=1)
        if failed or not np.isfinite(root).all():
            raise CollapseError("the complete-data information is singular")
        inner, _ = lapack.dsygst(hessian, root, lower=1)
        values, vectors, failed = lapack.dsyevd(inner, lower=1)
        if failed:
            raise np.linalg.LinAlgError("the eigenvalues of the Hessian were not found")
        return cls(values, vectors, vectors.T @ lapack.dtrtrs(root, gradient, lower=1)[0], root)

    @property
    def certificate(self) -> Certificate:
        """Return the certificate of this point.

        The gap is the Newton decrement g'(-H)^-1 g / 2 in nats, infinite where -H is not positive definite.
        """
        lmin = -float(self.values[-1])
        gap = 0.5 * float((self.gradient**2 / -self.values).sum()) if lmin > 0 else np.inf
        return Certificate("maximum likelihood", gap, lmin)

    def step(self, coefficients: np.ndarray) -> np.ndarray:
        """Return a step (p,) in the chart's coordinates from its coefficients of the eigenvectors (p,)."""
        from scipy.linalg import lapack

        return lapack.dtrtrs(self.root, self.vectors @ coefficients, lower=1, trans=1)[0]


class Likelihood(Protocol):
    """Describe what is climbed: a log-likelihood of a vector theta (p,), with EM steps for it.

    Both methods may raise ``CollapseError``.
    """

    @property
    def total(self) -> float:
        """Return the number of observations n."""
        ...

    def em(self, theta: np.ndarray, steps: int) -> np.ndarray:
        """Return theta (p,) after that many EM steps."""
        ...

    def evaluate(self, theta: np.ndarray) -> tuple[float, Spectrum]:
        """Return the log-likelihood at theta, in nats, and the spectrum of its curvature there."""
        ...


@dataclass(frozen=True)
class Ascent:
    """Say where a climb ended.

    theta        (p,)  the point reached
    value              log-likelihood there, in nats
    status             how the climb ended
    certificate        evidence that the point is a local maximum
    iterations         how many were used
    history            ``log_likelihood``, ``gap_nats`` and ``relative_lmin`` at each accepted point
    detail             the guard that ended the climb, if one did
    """

    theta: np.ndarray
    value: float
    status: FitStatus
    certificate: Certificate
    iterations: int
    history: dict[str, list[float]]
    detail: str = ""


def no_history() -> dict[str, list[float]]:
    """Return a history with its names and no entries."""
    return {"log_likelihood": [], "gap_nats": [], "relative_lmin": []}


def ascend(likelihood: Likelihood, theta: np.ndarray, options: TrustRegionOptions) -> Ascent:
    """Climb from ``theta`` (p,) to a certified local maximum, or to where no step helps.

    Returns where the climb ended; it never raises ``CollapseError``. The status is CERTIFIED where the
    certificate holds, COLLAPSED where guards reject every short step, STALLED where the likelihood does, and
    NOT_CERTIFIED where the iterations ran out. A certified maximum is polished, by up to ``POLISH`` more
    iterations while its gap is above ``POLISHED``.
    """
    history = no_history()
    try:
        theta = likelihood.em(theta, options.em_warmup)
        value, spectrum = likelihood.evaluate(theta)
    except CollapseError as error:
        return Ascent(theta, np.nan, FitStatus.COLLAPSED, NO_CERTIFICATE, 0, history, str(error))

    def record() -> None:
        if not history["log_likelihood"] or history["log_likelihood"][-1] != value:
            history["log_likelihood"].append(value)
            history["gap_nats"].append(spectrum.certificate.gap_nats)
            history["relative_lmin"].append(spectrum.certificate.relative_lmin)

    radius = options.radius
    reached: Ascent | None = None  # the last point that was certified
    polishing = 0
    guard = ""  # which one rejected the last trial, if it was not the likelihood
    for iteration in range(options.max_iterations):
        certificate = spectrum.certificate
        record()
        if certificate.holds(options.gap_tolerance):
            reached = Ascent(theta, value, FitStatus.CERTIFIED, certificate, iteration, history)
        if reached is not None and (certificate.gap_nats <= POLISHED * likelihood.total or polishing == POLISH):
            return reached
        polishing += reached is not None
        coefficients, predicted, at_boundary = trust_region_step(
            spectrum.values, spectrum.gradient, radius * np.sqrt(likelihood.total)
        )
        # EM steps never descend, and they move the responsibilities to where the trial put the atoms, which
        # the quadratic model cannot foresee. Close to the maximum they would only spend passes: Newton
        # converges by itself.
        correct = options.corrector_steps if certificate.gap_nats > options.corrector_until else 0
        try:
            trial = likelihood.em(theta + spectrum.step(coefficients), correct)
            trial_value, trial_spectrum = likelihood.evaluate(trial)
        except (CollapseError, np.linalg.LinAlgError) as error:
            # The trial is beyond a guard. It counts as the worst of steps, so that the radius shrinks and the
            # climb goes on from the last good point.
            guard, ratio = str(error), -np.inf
        else:
            # A sum of n terms of size 1 is known to about eps * |L|; gains below that are taken as agreement.
            noise = 8 * np.finfo(float).eps * abs(value)
            guard, ratio = "", (trial_value - value + noise) / (predicted + noise)
        # The radius follows from the step taken, not from the radius allowed: an interior step that failed
        # was shorter than the radius, and a quarter of the radius might repeat it.
        size = np.linalg.norm(coefficients) / np.sqrt(likelihood.total)
        if ratio > 1e-3:
            theta, value, spectrum = trial, trial_value, trial_spectrum
        if ratio < 0.25:
            radius = size / 4
        elif at_boundary and ratio > 0.5:
            radius = min(options.max_radius, radius * (3 if ratio > 0.9 else 1.5))
        # A guard that still rejects steps of 1e-5 will not be passed. Without a guard smaller steps are
        # tried, since the model becomes exact as they shrink.
        if radius < (1e-5 if guard else 1e-9):
            if reached is not None:
                return reached
            status = FitStatus.COLLAPSED if guard else FitStatus.STALLED
            return Ascent(theta, value, status, spectrum.certificate, iteration + 1, history, guard)
    record()
    certificate = spectrum.certificate
    if reached is not None and not certificate.holds(options.gap_tolerance):
        return reached
    status = FitStatus.CERTIFIED if certificate.holds(options.gap_tolerance) else FitStatus.NOT_CERTIFIED
    return Ascent(theta, value, status, certificate, options.max_iterations, history)


def trust_region_step(values: np.ndarray, gradient: np.ndarray, radius: float) -> tuple[np.ndarray, float, bool]:
    """Maximise g's + s'Lambda s / 2 over |s| <= radius, for Lambda = diag(values).

    values    (p,)  eigenvalues, ascending
    gradient  (p,)  g, in the basis of the eigenvectors
    radius          largest length of s

    Returns s (p,), the gain that the model predicts, and whether s lies on the boundary.

        s = (mu - Lambda)^-1 g   with   mu >= max(0, values[-1]).

    In the hard case even mu -> values[-1] leaves s inside the ball. The top eigenvector then fills up the
    radius, in the direction of its gradient component.

    Source: Moré and Sorensen (1983).
    """
    from scipy.optimize import brentq  # loaded where it is used: a refused option need not wait for it

    gain = lambda s: float(gradient @ s + 0.5 * (values * s) @ s)
    top = values[-1]
    if top < 0:
        s = gradient / -values
        if np.linalg.norm(s) <= radius:
            return s, gain(s), False
    lowest = max(0.0, top)
    at = lambda mu: gradient / (mu - values)
    floor = lowest + 1e-12 * max(1.0, abs(lowest))
    # The hard case: g has no component along the top eigenvector, as at a saddle that a symmetry made. Either
    # direction along it gains the same.
    if np.linalg.norm(at(floor)) <= radius:
        s = at(floor)
        rest = np.sqrt(max(radius**2 - (s[:-1] ** 2).sum(), 0.0))
        s[-1] = rest if gradient[-1] >= 0 else -rest
        return s, gain(s), True
    # 1 / |s(mu)| is nearly linear in mu, so its root is found where that of |s(mu)| - radius would be missed.
    ceiling = lowest + np.linalg.norm(gradient) / radius
    mu = brentq(lambda mu: 1 / np.linalg.norm(at(mu)) - 1 / radius, floor, ceiling * (1 + 1e-12) + 1e-300, xtol=1e-14)
    s = at(mu)
    return s, gain(s), True

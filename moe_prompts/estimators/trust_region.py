"""Climbing a likelihood to a certified maximum: a trust region on exact curvature, with an EM corrector.

Each iteration maximises the quadratic model g's + s'Hs/2 inside |s|_{I_c} <= delta sqrt(n), I_c the complete-data
information (the metric in which EM takes unit steps), then lets EM steps correct the trial before it is judged.
Over-specified models meet saddles on every path, so negative curvature is followed, not patched. It ends where -H is
positive definite and the Newton decrement is at most 1e-6 nats, or says why not.

Source: trust region of Moré and Sorensen (1983) on the exact Hessian.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from moe_prompts.errors import InputError
from moe_prompts.estimators.result import GAP_TOLERANCE, NO_CERTIFICATE, Certificate, FitStatus


class CollapseError(ArithmeticError):
    """An atom beyond the guards, or without information of its own; carried to the status of the fit."""


@dataclass(frozen=True)
class TrustRegionOptions:
    """Defaults are those of the measured algorithm; change ``max_iterations`` and ``gap_tolerance`` if anything.

    em_warmup         EM steps before the first Newton step
    corrector_steps   EM steps on each trial while the decrement is above ``corrector_until`` nats
    radius, max_radius  of the trust region, in units of sqrt(n) in the metric of the complete-data information
    """

    max_iterations: int = 500
    gap_tolerance: float = GAP_TOLERANCE
    em_warmup: int = 10
    corrector_steps: int = 2
    corrector_until: float = 1e-3
    radius: float = 0.3
    max_radius: float = 1.0

    def __post_init__(self) -> None:
        name = type(self).__name__
        if self.max_iterations < 1 or not 0 < self.gap_tolerance < 1:
            raise InputError(
                f"{name}: max_iterations = {self.max_iterations}, gap_tolerance = {self.gap_tolerance}; "
                f"expected >= 1 and in (0, 1)"
            )
        if min(self.em_warmup, self.corrector_steps) < 0 or not 0 < self.radius <= self.max_radius:
            raise InputError(
                f"{name}: em_warmup = {self.em_warmup}, corrector_steps = {self.corrector_steps}, radius = "
                f"{self.radius}, max_radius = {self.max_radius}; expected >= 0, >= 0 and 0 < radius <= max_radius"
            )


@dataclass(frozen=True)
class EMOptions:
    """certify          test the certificate at iterations growing by 15 % and stop when it holds
    relative_change  stop where a step gains less than this share of the log-likelihood in the units of the data, the
                     habit of published runs and no sign of a maximum; 0: never
    """

    max_iterations: int = 10_000
    certify: bool = True
    gap_tolerance: float = GAP_TOLERANCE
    relative_change: float = 0.0

    def __post_init__(self) -> None:
        if self.max_iterations < 0 or not self.gap_tolerance > 0:
            raise InputError(
                f"EMOptions: max_iterations = {self.max_iterations}, gap_tolerance = {self.gap_tolerance}; expected "
                f">= 0 and > 0"
            )
        if not 0 <= self.relative_change < 1:
            raise InputError(f"EMOptions: relative_change = {self.relative_change}; expected in [0, 1)")

    def small_gain(self, history: list[float], volume: float) -> bool:
        """Of the last step; log-likelihoods in ``history`` are ``volume`` larger than in the units of the data."""
        return (
            self.relative_change > 0
            and len(history) > 1
            and abs(history[-1] - history[-2]) < self.relative_change * abs(history[-2] - volume)
        )


@dataclass(frozen=True)
class Spectrum:
    """Gradient and Hessian in the metric of the complete-data information I_c = C C'.

    values (p,), vectors (p, p): eigen-decomposition of C^-1 H C^-T; gradient (p,): in that basis.
    """

    values: np.ndarray
    vectors: np.ndarray
    gradient: np.ndarray
    root: np.ndarray

    @classmethod
    def of(cls, gradient: np.ndarray, hessian: np.ndarray, information: np.ndarray) -> Spectrum:
        try:
            root = np.linalg.cholesky(information)
        except np.linalg.LinAlgError as error:
            raise CollapseError("the complete-data information is singular") from error
        half = np.linalg.solve(root, hessian)
        inner = np.linalg.solve(root, half.T)
        values, vectors = np.linalg.eigh((inner + inner.T) / 2)
        return cls(values, vectors, vectors.T @ np.linalg.solve(root, gradient), root)

    @property
    def certificate(self) -> Certificate:
        lmin = -float(self.values[-1])
        gap = 0.5 * float((self.gradient**2 / -self.values).sum()) if lmin > 0 else np.inf
        return Certificate("maximum likelihood", gap, lmin)

    def step(self, coefficients: np.ndarray) -> np.ndarray:
        """Back to the chart's coordinates."""
        return np.linalg.solve(self.root.T, self.vectors @ coefficients)


class Likelihood(Protocol):
    """What is climbed: a log-likelihood of a vector, with EM steps for it. Both may raise ``CollapseError``."""

    @property
    def total(self) -> float:
        """Number of observations."""
        ...

    def em(self, theta: np.ndarray, steps: int) -> np.ndarray: ...

    def evaluate(self, theta: np.ndarray) -> tuple[float, Spectrum]: ...


@dataclass(frozen=True)
class Ascent:
    """Where a climb ended; history: ``log_likelihood``, ``gap_nats``, ``relative_lmin`` at each accepted point."""

    theta: np.ndarray
    value: float
    status: FitStatus
    certificate: Certificate
    iterations: int
    history: dict[str, list[float]]
    detail: str = ""


def no_history() -> dict[str, list[float]]:
    return {"log_likelihood": [], "gap_nats": [], "relative_lmin": []}


def ascend(likelihood: Likelihood, theta: np.ndarray, options: TrustRegionOptions) -> Ascent:
    """Climb from ``theta`` to a certified local maximum, or to where no step helps."""
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
    guard = ""  # which one rejected the last trial, if it was not the likelihood
    for iteration in range(options.max_iterations):
        certificate = spectrum.certificate
        record()
        if certificate.holds(options.gap_tolerance):
            return Ascent(theta, value, FitStatus.CERTIFIED, certificate, iteration, history)
        coefficients, predicted, at_boundary = trust_region_step(
            spectrum.values, spectrum.gradient, radius * np.sqrt(likelihood.total)
        )
        correct = options.corrector_steps if certificate.gap_nats > options.corrector_until else 0
        try:
            trial = likelihood.em(theta + spectrum.step(coefficients), correct)
            trial_value, trial_spectrum = likelihood.evaluate(trial)
        except (CollapseError, np.linalg.LinAlgError) as error:
            guard, ratio = str(error), -np.inf
        else:
            # A sum of n terms of size 1 is known to about eps * |L|; gains below that are taken as agreement.
            noise = 8 * np.finfo(float).eps * abs(value)
            guard, ratio = "", (trial_value - value + noise) / (predicted + noise)
        size = np.linalg.norm(coefficients) / np.sqrt(likelihood.total)
        if ratio > 1e-3:
            theta, value, spectrum = trial, trial_value, trial_spectrum
        if ratio < 0.25:
            radius = size / 4
        elif at_boundary and ratio > 0.5:
            radius = min(options.max_radius, radius * (3 if ratio > 0.9 else 1.5))
        if radius < (1e-5 if guard else 1e-9):
            status = FitStatus.COLLAPSED if guard else FitStatus.STALLED
            return Ascent(theta, value, status, spectrum.certificate, iteration + 1, history, guard)
    record()
    certificate = spectrum.certificate
    status = FitStatus.CERTIFIED if certificate.holds(options.gap_tolerance) else FitStatus.NOT_CERTIFIED
    return Ascent(theta, value, status, certificate, options.max_iterations, history)


def trust_region_step(values: np.ndarray, gradient: np.ndarray, radius: float) -> tuple[np.ndarray, float, bool]:
    """Maximise g's + s'Lambda s / 2 over |s| <= radius, Lambda = diag(values) ascending: (s, gain, at the boundary).

    s = (mu - Lambda)^-1 g with mu >= max(0, values[-1]); where even mu -> values[-1] leaves s inside (the hard case)
    the top eigenvector fills up the radius, in the direction of its gradient component.
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
    if np.linalg.norm(at(floor)) <= radius:
        s = at(floor)
        rest = np.sqrt(max(radius**2 - (s[:-1] ** 2).sum(), 0.0))
        s[-1] = rest if gradient[-1] >= 0 else -rest
        return s, gain(s), True
    ceiling = lowest + np.linalg.norm(gradient) / radius
    mu = brentq(lambda mu: 1 / np.linalg.norm(at(mu)) - 1 / radius, floor, ceiling * (1 + 1e-12) + 1e-300, xtol=1e-14)
    s = at(mu)
    return s, gain(s), True

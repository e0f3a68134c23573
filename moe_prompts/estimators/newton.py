"""Certified maximum likelihood: trust-region Newton on exact curvature, with an EM corrector.

Each iteration maximises the quadratic model g's + s'Hs/2 inside |s|_{I_c} <= delta sqrt(n), I_c the complete-data
information (the metric in which EM takes unit steps), then lets two EM steps correct the trial before it is judged.
Over-specified models meet saddles on every path, so negative curvature is followed, not patched. It ends where -H is
positive definite and the Newton decrement is at most 1e-6 nats, or says why not.

The certificate is of a *local* maximum; use several starts (``best_of``) where the global one is meant.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import brentq

from moe_prompts.errors import InputError
from moe_prompts.estimators.chart import Chart
from moe_prompts.estimators.compression import RESOLUTION, WORTHWHILE, compressed_once
from moe_prompts.estimators.em import CollapseError, Spectrum, evaluate, m_step
from moe_prompts.estimators.moments import MIN_EIGENVALUE, DataPasses, check_multiplicities
from moe_prompts.estimators.result import GAP_TOLERANCE, NO_CERTIFICATE, Certificate, FitResult, FitStatus
from moe_prompts.models.data import Sample
from moe_prompts.models.gaussian_gated import GaussianGatedFamily, GaussianGatedMoE


@dataclass(frozen=True)
class NewtonOptions:
    """Defaults are those of the measured algorithm; change ``max_iterations`` and ``gap_tolerance`` if anything.

    em_warmup         EM steps before the first Newton step
    corrector_steps   EM steps on each trial while the decrement is above ``corrector_until`` nats
    radius, max_radius  of the trust region, in units of sqrt(n) in the metric of the complete-data information
    min_eigenvalue    guard: smallest eigenvalue of an atom's joint covariance, in standardised units; the compact
                      parameter space that the theory assumes
    compress          for d = l = 1 and large n, climb a short quadrature of the data first; the fit still ends, and is
                      certified, on the data
    """

    max_iterations: int = 500
    gap_tolerance: float = GAP_TOLERANCE
    em_warmup: int = 10
    corrector_steps: int = 2
    corrector_until: float = 1e-3
    radius: float = 0.3
    max_radius: float = 1.0
    min_eigenvalue: float = MIN_EIGENVALUE
    compress: bool = True

    def __post_init__(self) -> None:
        if self.max_iterations < 1 or not 0 < self.gap_tolerance < 1:
            raise InputError(
                f"NewtonOptions: max_iterations = {self.max_iterations}, gap_tolerance = {self.gap_tolerance}; "
                f"expected >= 1 and in (0, 1)"
            )
        if min(self.em_warmup, self.corrector_steps) < 0 or not 0 < self.radius <= self.max_radius:
            raise InputError(
                f"NewtonOptions: em_warmup = {self.em_warmup}, corrector_steps = {self.corrector_steps}, radius = "
                f"{self.radius}, max_radius = {self.max_radius}; expected >= 0, >= 0 and 0 < radius <= max_radius"
            )
        if not 0 < self.min_eigenvalue < 1:
            raise InputError(f"NewtonOptions: min_eigenvalue = {self.min_eigenvalue}; expected in (0, 1)")


class _Climb:
    """One path on one data set: the passes, the chart, and the point reached."""

    def __init__(self, passes: DataPasses) -> None:
        self.passes = passes
        self.chart = Chart(passes.family)

    def em(self, theta: np.ndarray, steps: int) -> np.ndarray:
        for _ in range(steps):
            W, log_frozen_mass = self.chart.coefficients(self.chart.atoms(theta))
            _, S = self.passes.e1(W, log_frozen_mass)
            theta = self.chart.theta_of(m_step(self.passes, S))
        return theta

    def evaluate(self, theta: np.ndarray) -> tuple[float, Spectrum]:
        return evaluate(self.passes, self.chart, theta)


def newton(
    family: GaussianGatedFamily,
    sample: Sample,
    start: GaussianGatedMoE,
    options: NewtonOptions | None = None,
    *,
    weights: np.ndarray | None = None,
) -> FitResult:
    """Maximum likelihood from ``start`` (projected on the family), with the certificate of the point reached.

    ``weights`` (n,) count each point that many times; a quadrature of the truth gives the population fit.
    history: ``log_likelihood``, ``gap_nats`` and ``relative_lmin`` at each accepted point.
    Source: trust region of Moré and Sorensen (1983) on the exact Hessian by the missing-information identity of Louis
    (1982); ``experiments/benchmark.py`` measures cost and reliability.
    """
    options = options or NewtonOptions()
    check_multiplicities(weights)
    full = DataPasses(family, sample, weights, options.min_eigenvalue)
    short = compressed(family, sample, options) if weights is None else None
    return climb(full, start, options) if short is None else finish(full, climb(short, start, options), start, options)


#: A climb on compressed data is followed where its log-likelihood agrees with the data's to this many nats.
COMPRESSION_TRUST = 1.0


def compressed(family: GaussianGatedFamily, sample: Sample, options: NewtonOptions) -> DataPasses | None:
    """The sample as a short quadrature, where that is possible and pays."""
    if not options.compress or (family.d, family.l) != (1, 1) or sample.n < WORTHWHILE:
        return None
    family.check_sample(sample)
    nodes, weights = compressed_once(sample)
    if nodes.n > sample.n / 2:
        return None
    return DataPasses(family, nodes, weights, max(options.min_eigenvalue, RESOLUTION**2))


def finish(full: DataPasses, rough: FitResult, start: GaussianGatedMoE, options: NewtonOptions) -> FitResult:
    """From where the climb of the compressed data ended, on the data; from ``start`` where the two disagree there."""
    spent = {f"compressed_{name}": count for name, count in rough.passes.items()}
    if rough.status is FitStatus.COLLAPSED and options.min_eigenvalue >= RESOLUTION**2:
        # the same guards hold on the data: one trial there instead of the same rejections again
        fit = climb(full, rough.value, replace(options, em_warmup=0, max_iterations=1))
        if not fit.certified:
            fit = replace(fit, status=FitStatus.COLLAPSED, detail=rough.detail)
        return replace(fit, passes=fit.passes | spent)
    fit = climb(full, rough.value, replace(options, em_warmup=0))
    first = fit.history["log_likelihood"][:1]
    if not first or not abs(first[0] - rough.log_likelihood) <= COMPRESSION_TRUST:
        fit = climb(full, start, options)
    return replace(fit, passes=fit.passes | spent)


def climb(passes: DataPasses, start: GaussianGatedMoE, options: NewtonOptions) -> FitResult:
    """As ``newton``, on data already laid out, so that several starts share the layout."""
    path = _Climb(passes)
    before = vars(passes.counts).copy()
    params = passes.scale.inward(passes.family.project(start))
    volume = passes.total * passes.scale.log_volume
    history: dict[str, list[float]] = {"log_likelihood": [], "gap_nats": [], "relative_lmin": []}

    def ended(
        status: FitStatus,
        theta: np.ndarray,
        value: float,
        certificate: Certificate,
        iterations: int,
        detail: str = "",
    ) -> FitResult:
        return FitResult(
            value=passes.scale.outward(path.chart.params_of(theta, passes.frozen)),
            status=status,
            certificate=certificate,
            log_likelihood=value - volume,
            iterations=iterations,
            passes={name: count - before[name] for name, count in vars(passes.counts).items()},
            history=history,
            detail=detail,
        )

    def record() -> None:
        if not history["log_likelihood"] or history["log_likelihood"][-1] != value - volume:
            history["log_likelihood"].append(value - volume)
            history["gap_nats"].append(spectrum.certificate.gap_nats)
            history["relative_lmin"].append(spectrum.certificate.relative_lmin)

    theta = path.chart.theta_of(params)
    if passes.sample.n < path.chart.p:
        return ended(FitStatus.TOO_FEW_POINTS, theta, np.nan, NO_CERTIFICATE, 0)
    try:
        theta = path.em(theta, options.em_warmup)
        value, spectrum = path.evaluate(theta)
    except CollapseError as error:
        return ended(FitStatus.COLLAPSED, theta, np.nan, NO_CERTIFICATE, 0, str(error))

    radius = options.radius
    guard = ""  # which one rejected the last trial, if it was not the likelihood
    for iteration in range(options.max_iterations):
        certificate = spectrum.certificate
        record()
        if certificate.holds(options.gap_tolerance):
            return ended(FitStatus.CERTIFIED, theta, value, certificate, iteration)
        coefficients, predicted, at_boundary = trust_region_step(
            spectrum.values, spectrum.gradient, radius * np.sqrt(passes.total)
        )
        correct = options.corrector_steps if certificate.gap_nats > options.corrector_until else 0
        try:
            trial = path.em(theta + spectrum.step(coefficients), correct)
            trial_value, trial_spectrum = path.evaluate(trial)
        except (CollapseError, np.linalg.LinAlgError) as error:
            guard, ratio = str(error), -np.inf
        else:
            # A sum of n terms of size 1 is known to about eps * |L|; gains below that are taken as agreement.
            noise = 8 * np.finfo(float).eps * abs(value)
            guard, ratio = "", (trial_value - value + noise) / (predicted + noise)
        size = np.linalg.norm(coefficients) / np.sqrt(passes.total)
        if ratio > 1e-3:
            theta, value, spectrum = trial, trial_value, trial_spectrum
        if ratio < 0.25:
            radius = size / 4
        elif at_boundary and ratio > 0.5:
            radius = min(options.max_radius, radius * (3 if ratio > 0.9 else 1.5))
        if radius < (1e-5 if guard else 1e-9):
            status = FitStatus.COLLAPSED if guard else FitStatus.STALLED
            return ended(status, theta, value, spectrum.certificate, iteration + 1, guard)
    record()
    certificate = spectrum.certificate
    status = FitStatus.CERTIFIED if certificate.holds(options.gap_tolerance) else FitStatus.NOT_CERTIFIED
    return ended(status, theta, value, certificate, options.max_iterations)


def trust_region_step(values: np.ndarray, gradient: np.ndarray, radius: float) -> tuple[np.ndarray, float, bool]:
    """Maximise g's + s'Lambda s / 2 over |s| <= radius, Lambda = diag(values) ascending: (s, gain, at the boundary).

    s = (mu - Lambda)^-1 g with mu >= max(0, values[-1]); where even mu -> values[-1] leaves s inside (the hard case)
    the top eigenvector fills up the radius, in the direction of its gradient component.
    """
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

"""Fit Gaussian-gated experts by certified maximum likelihood: the trust region on exact curvature.

The climb is that of ``trust_region``, in the coordinates of ``chart``: each step maximises g's + s'Hs / 2 in
a ball. The certificate is about a *local* maximum; use several starts (``best_of``) where the global one is
meant.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from moe_prompts.checks import expect, given, settings
from moe_prompts.estimators.gaussian.chart import Chart
from moe_prompts.estimators.gaussian.compression import RESOLUTION, WORTHWHILE, compressed_once
from moe_prompts.estimators.gaussian.moments import MIN_EIGENVALUE, DataPasses, check_multiplicities
from moe_prompts.estimators.gaussian.steps import steps_of
from moe_prompts.estimators.gaussian.streaming import Passes, passes_of
from moe_prompts.estimators.result import NO_CERTIFICATE, FitResult, FitStatus
from moe_prompts.estimators.trust_region import Ascent, Spectrum, TrustRegionOptions, ascend, no_history
from moe_prompts.models.data import Data
from moe_prompts.models.gaussian_gated import GaussianGatedFamily, GaussianGatedMoE


@dataclass(frozen=True)
class NewtonOptions(TrustRegionOptions):
    """Set how ``newton`` climbs: ``TrustRegionOptions``, a guard, and a shortcut for large samples.

    max_iterations, gap_tolerance, em_warmup, corrector_steps, corrector_until, radius, max_radius
                    how the trust region climbs, as ``TrustRegionOptions`` says
    min_eigenvalue  guard: smallest eigenvalue of an atom's joint covariance, in standardised units; it stands
                    for the compact parameter space that the theory assumes; in (0, 1)
    compress        whether a climb with d = l = 1 and large n goes over a short quadrature of the data first;
                    the fit still ends, and is certified, on the data

    Raises ``InputError`` where a number is outside its range.

    >>> import moe_prompts as mp
    >>> truth = mp.truth("gmoe-1")
    >>> options = mp.NewtonOptions(max_iterations=50, min_eigenvalue=1e-4)
    >>> mp.newton(truth.family, mp.sample("gmoe-1", 500, seed=0), truth.params, options).certified
    True
    """

    min_eigenvalue: float = MIN_EIGENVALUE
    compress: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        settings(self, min_eigenvalue="(0, 1)", compress=bool)


class _Climb:
    """Hold one path on one data set: the passes and the chart, as a ``Likelihood``."""

    def __init__(self, passes: Passes) -> None:
        self.passes = passes
        self.chart = Chart(passes.family)
        self.steps = steps_of(passes, self.chart)

    @property
    def total(self) -> float:
        return self.passes.total

    def em(self, theta: np.ndarray, steps: int) -> np.ndarray:
        return self.steps.em(theta, steps)

    def evaluate(self, theta: np.ndarray) -> tuple[float, Spectrum]:
        return self.steps.evaluate(theta)


def newton(
    family: GaussianGatedFamily,
    sample: Data,
    start: GaussianGatedMoE,
    options: NewtonOptions | None = None,
    *,
    weights: np.ndarray | None = None,
) -> FitResult:
    """Fit Gaussian-gated experts by maximum likelihood from ``start``, and certify the point reached.

    family   what the model may be: dimensions, number of atoms, ties, frozen atoms
    sample   pairs x (n, d), y (n, l), held in memory or streamed
    start    where the climb begins, in the units of the data; projected on the family where it lies outside
    options  how it climbs; ``NewtonOptions()`` by default
    weights  (n,), how many times each point counts; a quadrature of the truth gives the population fit

    Returns the fit; its history holds ``log_likelihood``, ``gap_nats`` and ``relative_lmin`` at each accepted
    point.

    Raises ``InputError`` where sample, start or weights do not fit the family, or where a column of the data
    is constant.

    Source: the exact Hessian is that of the missing-information identity of Louis (1982).
    ``experiments/benchmark.py`` measures cost and reliability.

    >>> import moe_prompts as mp
    >>> truth = mp.truth("gmoe-1")
    >>> fit = mp.newton(truth.family, mp.sample("gmoe-1", n=500, seed=0), start=truth.params)
    >>> fit.certified, fit.certificate.gap_nats < 1e-6
    (True, True)
    """
    options = given(options, NewtonOptions, "newton: options")
    expect(family, GaussianGatedFamily, "newton: family")
    check_multiplicities(weights)
    full = passes_of(family, sample, weights, options.min_eigenvalue)
    short = compressed(family, sample, options) if weights is None else None
    return climb(full, start, options) if short is None else finish(full, climb(short, start, options), start, options)


#: A climb on compressed data is followed where its log-likelihood agrees with the data's to this many nats,
#: or to this many nats per pair: errors of a quadrature grow with n.
COMPRESSION_TRUST, COMPRESSION_TRUST_PER_PAIR = 1.0, 1e-6


def compressed(family: GaussianGatedFamily, sample: Data, options: NewtonOptions) -> DataPasses | None:
    """Return the passes over the sample as a short quadrature, or None where that does not pay."""
    if not options.compress or (family.d, family.l) != (1, 1) or sample.n < WORTHWHILE:
        return None
    family.check_sample(sample)
    nodes, weights = compressed_once(sample)
    if nodes.n > sample.n / 2:
        return None
    return DataPasses(family, nodes, weights, max(options.min_eigenvalue, RESOLUTION**2))


def finish(full: Passes, rough: FitResult, start: GaussianGatedMoE, options: NewtonOptions) -> FitResult:
    """Return the fit on the data that goes on from where the climb of the compressed data ended.

    Where the two disagree at that point, the fit on the data begins at ``start`` again.
    """
    spent = {f"compressed_{name}": count for name, count in rough.passes.items()}
    if rough.status is FitStatus.COLLAPSED and options.min_eigenvalue >= RESOLUTION**2:
        # the same guards hold on the data: one trial there instead of the same rejections again
        fit = climb(full, rough.value, replace(options, em_warmup=0, max_iterations=1))
        if not fit.certified:
            fit = replace(fit, status=FitStatus.COLLAPSED, detail=rough.detail)
        return replace(fit, passes=fit.passes | spent)
    fit = climb(full, rough.value, replace(options, em_warmup=0))
    first = fit.history["log_likelihood"][:1]
    trust = max(COMPRESSION_TRUST, COMPRESSION_TRUST_PER_PAIR * full.total)
    if not first or not abs(first[0] - rough.log_likelihood) <= trust:
        fit = climb(full, start, options)
    return replace(fit, passes=fit.passes | spent)


def climb(passes: Passes, start: GaussianGatedMoE, options: NewtonOptions) -> FitResult:
    """Climb as ``newton`` does, on data already laid out, so that several starts share the layout."""
    path = _Climb(passes)
    before = vars(passes.counts).copy()
    theta = path.chart.theta_of(passes.scale.inward(passes.family.project(start)))
    volume = passes.total * passes.scale.log_volume
    if passes.sample.n < path.chart.p:
        found = Ascent(theta, np.nan, FitStatus.TOO_FEW_POINTS, NO_CERTIFICATE, 0, no_history())
    else:
        found = ascend(path, theta, options)
    history = found.history | {"log_likelihood": [value - volume for value in found.history["log_likelihood"]]}
    return FitResult(
        value=passes.scale.outward(path.chart.params_of(found.theta, passes.frozen)),
        status=found.status,
        certificate=found.certificate,
        log_likelihood=found.value - volume,
        iterations=found.iterations,
        passes={name: count - before[name] for name, count in vars(passes.counts).items()},
        history=history,
        detail=found.detail,
    )

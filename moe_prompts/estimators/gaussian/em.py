"""Fit Gaussian-gated experts by the textbook EM algorithm: constant, affine, tied and frozen atoms.

    E: r_ik = pi_k N(z_i; k) / sum_j pi_j N(z_i; j)
    M: pi_k = n_k / n,  c_k, Gamma_k = weighted mean and covariance of x,
       (A_k, b_k) = weighted least squares of y on x,  nu_k = weighted residual covariance

The likelihood never decreases. Convergence is linear: EM needs about 4 / relative_lmin iterations, which
over-specified models make thousands. ``newton`` reaches the same maxima in tens.
"""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from moe_prompts.checks import expect, given
from moe_prompts.estimators.gaussian.chart import Chart
from moe_prompts.estimators.gaussian.moments import MIN_POINTS, check_multiplicities
from moe_prompts.estimators.gaussian.streaming import Passes, passes_of
from moe_prompts.estimators.result import NO_CERTIFICATE, FitResult, FitStatus
from moe_prompts.estimators.trust_region import CollapseError, EMOptions, Spectrum
from moe_prompts.models.data import Data
from moe_prompts.models.gaussian_gated import GaussianGatedFamily, GaussianGatedMoE


def no_points(S: np.ndarray) -> CollapseError:
    """Return what is raised where an atom of the sums S (k, P) explains too few points."""
    return CollapseError(f"an atom explains {S[:, 0].min():.3g} points")


def too_narrow(passes: Passes) -> CollapseError:
    """Return what is raised where an atom is beyond the guard on its width."""
    return CollapseError(f"an atom is narrower than the guard of {passes.min_eigenvalue**0.5:.1g} sd")


def m_step(passes: Passes, S: np.ndarray) -> GaussianGatedMoE:
    """Return the parameters that maximise the expected complete-data log-likelihood.

    S (k, P) are the sums of responsibilities times monomials; the parameters are in standardised units.

    Raises ``CollapseError`` where an atom explains fewer than ``MIN_POINTS`` points or its covariance
    degenerates.
    """
    family, l = passes.family, passes.family.l
    counts = S[:, 0]
    if counts.min() < MIN_POINTS:
        raise no_points(S)
    moments = passes.monomials.second_moments(S) / counts[:, None, None]
    mean = moments[:, 0, 1:]
    cov = moments[:, 1:, 1:] - mean[:, :, None] * mean[:, None, :]
    # The atom's own covariance, before a constant expert or a tied gate spreads it: it shows a collapse
    # first.
    if np.linalg.eigvalsh(cov)[:, 0].min() < passes.min_eigenvalue:
        raise too_narrow(passes)
    yy, yx, xx = cov[:, :l, :l], cov[:, :l, l:], cov[:, l:, l:]
    if family.experts == "constant":
        slopes = np.zeros_like(yx)
        noise = yy
    else:
        slopes = np.linalg.solve(xx, yx.swapaxes(1, 2)).swapaxes(1, 2)
        noise = yy - slopes @ yx.swapaxes(1, 2)
        noise = (noise + noise.swapaxes(1, 2)) / 2
    if family.tied_gate:
        xx = np.repeat(np.average(xx, axis=0, weights=counts)[None], family.k, axis=0)
    intercepts = mean[:, :l] - np.einsum("kld,kd->kl", slopes, mean[:, l:])
    free = GaussianGatedMoE.unchecked(counts / passes.total, mean[:, l:], xx, slopes, intercepts, noise)
    if passes.frozen is None:
        return free
    of_frozen = passes.total - counts.sum()
    if of_frozen < MIN_POINTS:
        raise CollapseError(f"the frozen atoms explain {of_frozen:.3g} points")
    both = [np.concatenate([getattr(free, f.name), getattr(passes.frozen, f.name)]) for f in fields(free)]
    both[0][family.k :] *= of_frozen / passes.total
    return GaussianGatedMoE.unchecked(*both)


def em(
    family: GaussianGatedFamily,
    sample: Data,
    start: GaussianGatedMoE,
    options: EMOptions | None = None,
    *,
    weights: np.ndarray | None = None,
) -> FitResult:
    """Fit Gaussian-gated experts by EM from ``start``.

    family         what the model may be: dimensions, number of atoms, ties, frozen atoms
    sample         pairs x (n, d), y (n, l), held in memory or streamed
    start          where the loop begins, in the units of the data; projected on the family where it lies
                   outside
    options        when it stops; ``EMOptions()`` by default
    weights  (n,)  how many times each point counts; not for streamed samples

    Returns the fit; its history holds ``log_likelihood`` before each M-step and at the end, never decreasing
    beyond rounding.

    Raises ``InputError`` where sample, start or weights do not fit the family, or where a column of the data
    is constant.

    >>> import moe_prompts as mp
    >>> truth = mp.truth("gmoe-1")
    >>> fit = mp.em(truth.family, mp.sample("gmoe-1", n=500, seed=0), start=truth.params)
    >>> fit.status.name
    'CERTIFIED'
    """
    options = given(options, EMOptions, "em: options")
    expect(family, GaussianGatedFamily, "em: family")
    check_multiplicities(weights)
    passes = passes_of(family, sample, weights)
    chart = Chart(family)
    params = passes.scale.inward(family.project(start))
    volume = passes.total * passes.scale.log_volume
    history: list[float] = []
    iteration, next_check, limit, detail = 0, 10, options.max_iterations, ""
    certificate, status, log_likelihood = NO_CERTIFICATE, FitStatus.TOO_FEW_POINTS, np.nan
    # Fewer points than parameters: no step is made, and the status stays TOO_FEW_POINTS.
    while sample.n >= chart.p:
        theta = chart.theta_of(params)
        W, log_frozen_mass = chart.coefficients(chart.atoms(theta))
        try:
            if iteration == limit or (options.certify and iteration == next_check):
                log_likelihood, spectrum = evaluate(passes, chart, theta)
                certificate = spectrum.certificate
                # A certificate costs several steps: checks grow apart, so that their share of the time falls.
                next_check = max(next_check + 1, int(1.15 * next_check))
                done = certificate.holds(options.gap_tolerance)
                if done or iteration == limit:
                    status = FitStatus.CERTIFIED if done else FitStatus.NOT_CERTIFIED
                    detail = "" if done else "EM is linear: newton(...) gets there in tens of steps"
                    history.append(log_likelihood)
                    break
            log_likelihood, S = passes.e1(W, log_frozen_mass)
            history.append(log_likelihood)
            params = m_step(passes, S)
            # The rule of published runs says stop, not that a maximum is reached: one more iteration
            # evaluates the certificate at the point where it stopped.
            if options.small_gain(history, volume):
                limit = iteration + 1
        except CollapseError as error:
            detail = str(error)
            certificate, status = NO_CERTIFICATE, FitStatus.COLLAPSED
            break
        iteration += 1
    return FitResult(
        value=passes.scale.outward(params),
        status=status,
        certificate=certificate,
        log_likelihood=log_likelihood - volume,
        iterations=iteration,
        passes=vars(passes.counts).copy(),
        history={"log_likelihood": [value - volume for value in history]},
        detail=detail,
    )


def evaluate(passes: Passes, chart: Chart, theta: np.ndarray) -> tuple[float, Spectrum]:
    """Return the log-likelihood, in standardised units, and the spectrum at ``theta`` by one pass.

    Raises ``CollapseError`` beyond the guards: near an atom that explains nothing a certificate would mean
    nothing.
    """
    atoms = chart.atoms(theta)
    R, _ = chart.factors(atoms)
    # the smallest eigenvalue of Sigma is one over the squared largest singular value of R
    if not np.isfinite(R).all() or np.linalg.norm(R, 2, axis=(1, 2)).max() ** 2 > 1 / passes.min_eigenvalue:
        raise too_narrow(passes)
    log_likelihood, S, Q = passes.e2(*chart.coefficients(atoms))
    if not np.isfinite(log_likelihood) or S[:, 0].min() < MIN_POINTS:
        raise no_points(S)
    return log_likelihood, Spectrum.of(*chart.curvature(atoms, S, Q, passes.total))

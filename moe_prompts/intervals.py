"""Intervals of 90 % over independent replicates, one method for each kind of quantity, and what they decide.

    a mean of ratios, logs or differences    Student's interval: mean +- t sd / sqrt(m), m - 1 degrees of freedom
    everything else: a slope, a level of a   percentile bootstrap: the 5 % and 95 % quantiles of 4000 resamples of the
    curve, a median, a crossing              replicates, within each n, or of whole replicates where n share them

Errors have heavy tails and are read on a log scale, so Student's interval of their mean would reach below zero; a mean
of ratios or logs of a few replicates is where Student's law is made for.

One rule decides: a prediction *holds* if the whole interval lies in the band around it, *fails* if the interval is
disjoint from the band, and is otherwise *not decidable here*. So is everything from fewer than 8 replicates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import numpy as np
from scipy.special import stdtrit

#: Share of intervals that hold what they estimate.
LEVEL = 0.90
TAILS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
#: Draws of a bootstrap: the error of its quantiles is about 2 % of the width of the interval.
RESAMPLES = 4000
#: From fewer replicates nothing is decided: intervals of so few mean little.
MIN_REPLICATES = 8


class Verdict(Enum):
    """What an interval says of a prediction."""

    HOLDS = "holds"
    FAILS = "fails"
    UNDECIDED = "not decidable here"


@dataclass(frozen=True)
class Interval:
    """An estimate ``value`` with its 90 % interval [low, high] from ``count`` independent replicates.

    The ends are NaN where there is no interval.
    """

    value: float
    low: float
    high: float
    count: int

    def on(self, scale: Callable[[float], float]) -> Interval:
        """Return the interval on another ``scale``, an increasing function: ``np.exp`` of a mean of logs."""
        value, low, high = (float(scale(end)) for end in (self.value, self.low, self.high))
        return Interval(value, low, high, self.count)

    def verdict(self, band: tuple[float, float]) -> Verdict:
        """Return whether a prediction with this ``band`` = (low, high) holds; undecided below 8 replicates."""
        return within(self.low, self.high, band) if self.count >= MIN_REPLICATES else Verdict.UNDECIDED


def within(low: float, high: float, band: tuple[float, float]) -> Verdict:
    """Return what an interval [low, high] says of a prediction that holds in ``band``.

    NaN and infinity decide nothing.
    """
    if not np.isfinite([low, high]).all():
        return Verdict.UNDECIDED
    if band[0] <= low and high <= band[1]:
        return Verdict.HOLDS
    return Verdict.FAILS if high < band[0] or low > band[1] else Verdict.UNDECIDED


def mean_interval(values: np.ndarray) -> Interval:
    """Return the mean of independent ``values`` (m,) with Student's 90 % interval.

    mean +- t sd / sqrt(m): sd has the divisor m - 1, t is the 95 % quantile of Student's law with m - 1 degrees of
    freedom. There is no interval (NaN) for fewer than two values, nor where one is not finite; the mean of no values is
    NaN.
    """
    values = np.asarray(values, dtype=float)
    count = len(values)
    mean = float(values.mean()) if count else float("nan")
    if count < 2 or not np.isfinite(values).all():
        return Interval(mean, float("nan"), float("nan"), count)
    half = float(stdtrit(count - 1, TAILS[1]) * values.std(ddof=1) / np.sqrt(count))
    return Interval(mean, mean - half, mean + half, count)


def percentiles(draws: np.ndarray) -> np.ndarray:
    """Return the ends (2, ...) of the 90 % percentile interval of a bootstrap; ``draws`` (resamples, ...).

    Infinite draws (a crossing that is not reached) count. The ends are then draws themselves, not points between two of
    them: nothing lies half-way to infinity.
    """
    draws = np.asarray(draws, dtype=float)
    return np.quantile(draws, TAILS, axis=0, method="linear" if np.isfinite(draws).all() else "inverted_cdf")

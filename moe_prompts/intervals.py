"""Compute intervals of 90 % over independent replicates, and say what they decide of a prediction.

There is one method for each kind of quantity.

    a mean of ratios, logs or differences    Student's: mean +- t sd / sqrt(m), m - 1 degrees of freedom
    a share of replicates                    Clopper and Pearson's, from the binomial law itself
    a slope of log error on log n            slope +- q se, which combines the variances of the logs of the
                                             statistic at each n (``slopes``); ``designs.power`` measures
                                             how often it covers
    a level of a curve, a crossing           percentile bootstrap: 5 % and 95 % quantiles of 4000 resamples
                                             of the replicates, within each n, or of whole replicates where
                                             sizes share them

Errors have heavy tails and are read on a log scale, so Student's interval of their mean would reach below
zero. A mean of ratios or logs of a few replicates is where Student's law is made for.

A number after +- in a table is a standard error (or a standard deviation, where the legend says so). It shows
how far replicates scatter, and it decides nothing.

One rule decides: a prediction *holds* if the whole interval lies in the band around it, *fails* if the
interval is disjoint from the band, and is otherwise *not decidable here*. So is everything from fewer than 8
replicates. Where theory gives an upper bound, an interval below the band does not contradict it: it is
*faster than claimed*.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

import numpy as np
from scipy.special import bdtrc, betaincinv, gammaln, stdtrit

#: Share of intervals that hold what they estimate.
LEVEL = 0.90
TAILS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
#: Draws of a bootstrap: the error of its quantiles is about 2 % of the width of the interval.
RESAMPLES = 4000
#: From fewer replicates nothing is decided: intervals of so few mean little.
MIN_REPLICATES = 8


class Verdict(Enum):
    """Say what an interval decides of a prediction; the values are the words that tables show.

    >>> import numpy as np
    >>> import moe_prompts as mp
    >>> rng = np.random.default_rng(0)
    >>> errors = {n: n**-0.5 * np.exp(0.1 * rng.standard_normal(16)) for n in (100, 1_000, 10_000)}
    >>> mp.slope(errors, rng).verdict(predicted=-0.5) is mp.Verdict.HOLDS
    True
    """

    HOLDS = "holds"
    FAILS = "fails"
    FASTER = "faster than claimed"
    UNDECIDED = "not decidable here"


@dataclass(frozen=True)
class Interval:
    """Hold an estimate with its 90 % interval.

    value  the estimate
    low    lower end of the interval; NaN where there is none
    high   upper end of the interval; NaN where there is none
    count  number of independent replicates it is computed from
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
        """Return whether a prediction with this ``band`` = (low, high) holds.

        Fewer than 8 replicates decide nothing.
        """
        return within(self.low, self.high, band) if self.count >= MIN_REPLICATES else Verdict.UNDECIDED


def share_interval(hits: int, count: int, tails: tuple[float, float] = TAILS) -> Interval:
    """Return the share of ``hits`` among ``count`` with Clopper and Pearson's interval; [0, 1] of nothing.

    tails  levels of the two ends; (.1, .9) gives two one-sided ends of 90 %

    >>> found = share_interval(15, 16)
    >>> round(found.low, 3), round(found.high, 3)
    (0.736, 0.997)
    """
    low = float(betaincinv(hits, count - hits + 1, tails[0])) if hits else 0.0
    high = float(betaincinv(hits + 1, count - hits, tails[1])) if hits < count else 1.0
    return Interval(hits / count if count else float("nan"), low, high, count)


def within(low: float, high: float, band: tuple[float, float]) -> Verdict:
    """Return what an interval [low, high] says of a prediction that holds in ``band``.

    NaN and infinity decide nothing.
    """
    if not np.isfinite([low, high]).all():
        return Verdict.UNDECIDED
    if band[0] <= low and high <= band[1]:
        return Verdict.HOLDS
    return Verdict.FAILS if high < band[0] or low > band[1] else Verdict.UNDECIDED


def bounded_by(low: float, high: float, band: tuple[float, float]) -> Verdict:
    """Return what an interval [low, high] of an exponent says of an upper bound.

    band  (low, high) around the exponent of the bound

    The bound *holds* if the interval ends in or below the band, and *fails* if the interval lies above it. An
    interval that lies below the band is *faster than claimed*. NaN and infinity decide nothing.
    """
    if not np.isfinite([low, high]).all():
        return Verdict.UNDECIDED
    if high < band[0]:
        return Verdict.FASTER
    if high <= band[1]:
        return Verdict.HOLDS
    return Verdict.FAILS if low > band[1] else Verdict.UNDECIDED


def mean_interval(values: np.ndarray) -> Interval:
    """Return the mean of independent ``values`` (m,) with Student's 90 % interval.

        mean +- t sd / sqrt(m)

    Here sd has the divisor m - 1, and t is the 95 % quantile of Student's law with m - 1 degrees of freedom.
    There is no interval (NaN) for fewer than two values, nor where one is not finite. The mean of no values
    is NaN.
    """
    values = np.asarray(values, dtype=float)
    count = len(values)
    mean = float(values.mean()) if count else float("nan")
    if count < 2 or not np.isfinite(values).all():
        return Interval(mean, float("nan"), float("nan"), count)
    half = float(half_width(standard_error(values), count))
    return Interval(mean, mean - half, mean + half, count)


def standard_error(values: np.ndarray) -> float:
    """Return the standard error sd / sqrt(m) of the mean of independent ``values`` (m,).

    sd has the divisor m - 1; of fewer than two values it is NaN.
    """
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")


def half_width(error: np.ndarray | float, count: np.ndarray | int) -> np.ndarray:
    """Return half the width of Student's 90 % interval of means: t times their standard errors.

    error  sd / sqrt(m) with the divisor m - 1 in sd, of any shape; NaN stays NaN
    count  m, the number of values of each mean, at least 2 where ``error`` is a number
    """
    freedom = np.maximum(np.asarray(count) - 1, 1)
    return stdtrit(freedom, TAILS[1]) * np.asarray(error, dtype=float)


def percentiles(draws: np.ndarray) -> np.ndarray:
    """Return the ends (2, ...) of the 90 % percentile interval of a bootstrap; ``draws`` (resamples, ...).

    Infinite draws (a crossing that is not reached) count. The ends are then draws themselves, not points
    between two draws: nothing lies half-way to infinity.
    """
    draws = np.asarray(draws, dtype=float)
    return np.quantile(draws, TAILS, axis=0, method="linear" if np.isfinite(draws).all() else "inverted_cdf")


def variance_of_log_mean(values: np.ndarray) -> np.ndarray:
    """Return the jackknife's variance of log mean(values), over the last axis of ``values`` (.., m), m > 1.

        (m - 1) / m  sum_i (l_i - mean l)^2,    l_i the log of the mean without value i.

    Values are positive.
    """
    m = values.shape[-1]
    # Sums of the others from both sides: the total less a value would lose the others beside one huge value.
    ordered = np.sort(values, axis=-1)
    nothing = np.zeros_like(ordered[..., :1])
    below = np.concatenate([nothing, np.cumsum(ordered, axis=-1)[..., :-1]], axis=-1)
    above = np.concatenate([np.cumsum(ordered[..., :0:-1], axis=-1)[..., ::-1], nothing], axis=-1)
    return (m - 1) * np.var(np.log(below + above), axis=-1)


def variance_of_log_quantile(values: np.ndarray, share: float) -> np.ndarray:
    """Return the bootstrap's variance of the log of a quantile, over the last axis of ``values`` (.., m).

    share  which quantile, between 0 and 1
    m      number of values, more than 1; they are positive

    The quantile is NumPy's: at 1 + share (m - 1) among the ordered values, linear between two of them. Which
    two of the values a resample has there follows from binomial laws, so that the variance is exact: that of
    infinitely many resamples. (The jackknife is not consistent for quantiles.)

    Source: Hutson and Ernst, The exact bootstrap mean and variance of an L-estimator, JRSS B 62 (2000).
    """
    pairs = _resampled_pair(values.shape[-1], share)
    ordered = np.sort(values, axis=-1)
    every = ordered.reshape(-1, ordered.shape[-1])
    # Whole multiples of ROWS, of which BLAS makes the sums in the same order as of all rows at once.
    step = ROWS * max(1, PAIRS_AT_ONCE // (ROWS * len(pairs[0])))
    if len(every) <= step:
        return _variance(ordered, *pairs)
    parts = [_variance(every[at : at + step], *pairs) for at in range(0, len(every), step)]
    return np.concatenate(parts).reshape(ordered.shape[:-1])


def _variance(
    ordered: np.ndarray, first: np.ndarray, second: np.ndarray, weights: np.ndarray, part: float
) -> np.ndarray:
    """Return the variance of the log of a quantile that lies between two of the ``ordered`` values (.., m)."""
    logs = np.log((1 - part) * ordered[..., first] + part * ordered[..., second])
    centred = logs - (logs @ weights)[..., None]
    return centred**2 @ weights


#: Pairs of ordered values that a resample has this seldom are left out, and so are values further than so
#: many standard deviations of their rank.
RARE, WINDOW = 1e-15, 9.0
#: Pairs of values whose logs are taken at once: they stay in the cache of a core, which is three times as
#: fast.
PAIRS_AT_ONCE, ROWS = 2**14, 32


@lru_cache(maxsize=64)
def _resampled_pair(m: int, share: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Return which ordered values stand around a quantile of a resample of m, how often, and how they weigh.

    The two arrays of values are those below and above the quantile, the third has the probabilities of the
    pairs, and the number is the weight of the value above. With h draws at most at value i and the others at
    least at value j > i, order statistics h and h + 1 of the resample are i and j with probability

        C(m, h) [(i/m)^h - ((i-1)/m)^h] [((m-j+1)/m)^(m-h) - ((m-j)/m)^(m-h)];

    both are i in what is left of P(order statistic h is i).
    """
    place = share * (m - 1)
    h, part = int(np.floor(place)) + 1, place - np.floor(place)
    reach = WINDOW * np.sqrt(m * share * (1 - share)) + WINDOW
    i = np.arange(max(1, np.floor(h - reach)), min(m, np.ceil(h + reach)) + 1)
    at_most = lambda value: bdtrc(h - 1, m, value / m)  # P(order statistic h is at most this value)
    single = at_most(i) - at_most(i - 1)
    places = i.astype(int) - 1
    if part == 0:
        return places, places, single / single.sum(), 0.0
    # In logs: binomial coefficients of many replicates are beyond the largest number.
    log_choose = gammaln(m + 1) - gammaln(h + 1) - gammaln(m - h + 1)
    rest, back = m - h, m - i + 1
    low = h * np.log(i / m) + np.log1p(-(((i - 1) / i) ** h))
    high = rest * np.log(back / m) + np.log1p(-(((back - 1) / back) ** rest))
    pairs = np.exp(np.where(i[:, None] < i, log_choose + low[:, None] + high, -np.inf))
    np.fill_diagonal(pairs, np.maximum(single - pairs.sum(axis=1), 0.0))
    one, other = np.nonzero(pairs > RARE)
    weights = pairs[one, other]
    return places[one], places[other], weights / weights.sum(), float(part)

"""Estimate an exponent from errors at several n, with an interval, and judge a predicted one.

The exponent is the least-squares slope of

    log(statistic of the replicates)   on   log n.

The slope is a sum of w_n log statistic(n), so its 90 % interval is

    slope +- q se,    se^2 = sum_n w_n^2 v_n,

v_n the variance of the log of the statistic at n (``intervals``). For the mean v_n is the jackknife's, and
q is Student's with Satterthwaite's degrees of freedom, (sum w^2 v)^2 / sum (w^2 v)^2 / (m - 1). For median
and 90 % quantile v_n is the bootstrap's and q is the normal law's: of few replicates the bootstrap's variance
of a quantile is too large, by about as much as Student's q would add. How often these intervals cover is
measured (``designs.power``): .88 to .92 for median and mean of 16 replicates whose logs are normal, where
percentiles of a bootstrap cover .92 to .94 for medians and .85 to .88 for means.

The verdict rule is fixed before data are seen. A prediction p *holds* if the interval lies in
[p - .08, p + .08], *fails* if it is disjoint from it, and is otherwise *not decidable here*. So are slopes
from fewer than 8 replicates at a size, or from sizes less than a factor 5 apart, whose intervals mean little.
Where theory gives an upper bound n^p, an interval below the band is *faster than claimed* and contradicts
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, stdtrit

from moe_prompts.checks import generator, numbers, one_of, real, whole
from moe_prompts.errors import InputError
from moe_prompts.intervals import (
    MIN_REPLICATES,
    RESAMPLES,
    TAILS,
    Verdict,
    bounded_by,
    percentiles,
    variance_of_log_mean,
    variance_of_log_quantile,
    within,
)
from moe_prompts.shown import aligned, html_table

BAND = 0.08
RUNAWAY_FACTOR = 3.0
MIN_RANGE = 5.0  # largest over smallest size; below it there is no verdict

#: Each reduces the last axis.
STATISTICS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "median": lambda values: np.median(values, axis=-1),
    "mean": lambda values: np.mean(values, axis=-1),
    "q90": lambda values: np.quantile(values, 0.9, axis=-1),
}
#: Variance of the log of each, of values (.., m).
VARIANCES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "median": lambda values: variance_of_log_quantile(values, 0.5),
    "mean": variance_of_log_mean,
    "q90": lambda values: variance_of_log_quantile(values, 0.9),
}


@dataclass(frozen=True, repr=False)
class Slope:
    """Hold a slope with its 90 % interval, and what it was read from; it prints as a small table.

    value                     the slope of log error on log n
    low, high                 its 90 % interval; NaN where there is none
    n           (sizes,)      the sizes used
    level       (sizes,)      the statistic at each of them
    band        (sizes, 2)    its 90 % interval at each of them
    local       (sizes - 1,)  slopes between neighbouring sizes
    replicates                the fewest at a size that counts for the slope
    """

    value: float
    low: float
    high: float
    n: np.ndarray
    level: np.ndarray
    band: np.ndarray
    local: np.ndarray
    replicates: int

    def __str__(self) -> str:
        header, body = self._cells
        return f"{self._title}\n\n{aligned(header, body)}" if body else self._title

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """Return the table for a notebook."""
        return html_table(*self._cells, caption=self._title)

    @property
    def _title(self) -> str:
        if np.isnan(self.value):
            return "slope: none, from fewer than two sizes"
        interval = ", no interval" if np.isnan(self.low) else f", 90 % interval [{self.low:.3f}, {self.high:.3f}]"
        return f"slope {self.value:.3f} of log error on log n{interval}, {self.replicates} replicates"

    @property
    def _cells(self) -> tuple[list[str], list[list[str]]]:
        """Return one row for each size: level, its interval, and the slope from the size before."""
        slopes = ["", *(f"{value:.2f}" for value in self.local)]
        body = [
            [f"{n:g}", f"{level:.3g}", "" if np.isnan(ends).any() else f"[{ends[0]:.3g}, {ends[1]:.3g}]", slope]
            for n, level, ends, slope in zip(self.n, self.level, self.band, slopes, strict=True)
        ]
        return ["n", "error", "90 % interval", "slope to here"], body

    def verdict(self, predicted: float, band: float = BAND, bound: bool = False) -> Verdict:
        """Judge a predicted exponent by the rule of this module, with ``band`` on either side of it.

        ``bound`` says that theory bounds the error from above: then a faster slope contradicts nothing.
        """
        near = len(self.n) == 0 or self.n.max() < MIN_RANGE * self.n.min()
        if self.replicates < MIN_REPLICATES or near:
            return Verdict.UNDECIDED
        rule = bounded_by if bound else within
        return rule(self.low, self.high, (predicted - band, predicted + band))


def slope(
    samples: dict[int, np.ndarray],
    rng: np.random.Generator,
    statistic: str = "median",
    resamples: int = RESAMPLES,
) -> Slope:
    """Estimate the log-log slope of a statistic of the replicates, with its 90 % interval.

    samples    n -> positive errors, one per replicate
    rng        source of the resampling for ``band``; slope and interval are functions of the errors alone
    statistic  "median", "mean" or "q90"
    resamples  how many bootstrap samples are drawn for ``band``

    Sizes without replicates are left out. A size with one replicate has a level but no interval, and counts
    for the slope only where fewer than two sizes have more; that slope has no interval. With one size the
    slope is NaN.

    Raises ``InputError`` for another statistic, or where an error is not positive and finite.

    >>> import numpy as np
    >>> import moe_prompts as mp
    >>> samples = {n: 2.0 / np.sqrt(n) * np.ones(10) for n in (100, 1000, 10_000)}
    >>> found = mp.slope(samples, np.random.default_rng(0))
    >>> round(found.value, 6), found.verdict(-0.5).value
    (-0.5, 'holds')
    """
    one_of(statistic, STATISTICS, "slope: statistic")
    if not isinstance(samples, Mapping):
        raise InputError(
            f"slope: samples of type {type(samples).__name__}; expected a map from n to its errors, as "
            "{1000: [..], 10000: [..]}"
        )
    generator(rng, "slope")
    resamples = whole(resamples, 1, "slope: resamples", most=10**7)
    for n in samples:
        real(n, "(0, inf)", "slope: a key n of samples")
    arrays = {n: numbers(values, f"slope: errors at n = {n}").ravel() for n, values in sorted(samples.items())}
    kept = {n: values for n, values in arrays.items() if len(values)}
    for n, values in kept.items():
        if not (np.isfinite(values).all() and (values > 0).all()):
            raise InputError(f"slope: errors at n = {n} are not all positive and finite; leave failed fits out")
    sizes = np.array(list(kept), dtype=float)
    of = STATISTICS[statistic]
    level = np.array([of(values) for values in kept.values()])
    draws = np.array([of(rng.choice(values, size=(resamples, len(values)))) for values in kept.values()])
    draws = draws.reshape(len(sizes), resamples).T
    several = np.array([len(values) > 1 for values in kept.values()], dtype=bool)
    band = np.full((len(sizes), 2), np.nan)
    if several.any():
        band[several] = percentiles(draws[:, several]).T
    if len(sizes) < 2:
        nan = float("nan")
        return Slope(nan, nan, nan, sizes, level, band, np.array([]), 0)
    # The level of a single replicate has no error that could be estimated: it would enter as if it were
    # exact.
    used = several if several.sum() > 1 else np.ones(len(sizes), dtype=bool)
    log_n, log_level = np.log(sizes), np.log(level)
    weights = slope_weights(log_n[used])
    value = float(log_level[used] @ weights)
    half = np.nan
    if several.sum() > 1:
        errors = [values for values, counts in zip(kept.values(), used, strict=True) if counts]
        variances = np.array([VARIANCES[statistic](values) for values in errors])
        half = float(slope_half_width(weights, variances, np.array([len(values) for values in errors]), statistic))
    local = np.diff(log_level) / np.diff(log_n)
    fewest = min(len(values) for values, counts in zip(kept.values(), used, strict=True) if counts)
    return Slope(value, value - half, value + half, sizes, level, band, local, fewest)


def slope_weights(log_n: np.ndarray) -> np.ndarray:
    """Return w (sizes,) of the least-squares slope sum_n w_n y_n of y on ``log_n``."""
    centred = log_n - log_n.mean()
    return centred / (centred**2).sum()


def slope_half_width(weights: np.ndarray, variances: np.ndarray, replicates: np.ndarray, statistic: str) -> np.ndarray:
    """Return half the width of the 90 % interval of a slope.

    weights     (sizes,)      of the logs of the statistic in the slope
    variances   (.., sizes)   of these logs
    replicates  (sizes,)      from which they are estimated
    statistic                 "median", "mean" or "q90"
    """
    parts = weights**2 * variances
    total = parts.sum(axis=-1)
    if statistic != "mean":
        return ndtri(TAILS[1]) * np.sqrt(total)
    # Scaled by the largest part, so that tiny variances have degrees of freedom, too; without variance any
    # will do.
    largest = np.maximum(parts.max(axis=-1, keepdims=True), np.finfo(float).tiny)
    shares = parts / largest
    freedom = shares.sum(axis=-1) ** 2 / np.maximum((shares**2 / (replicates - 1)).sum(axis=-1), np.finfo(float).tiny)
    return stdtrit(np.maximum(freedom, 1.0), TAILS[1]) * np.sqrt(total)


def runaway_share(values: np.ndarray, factor: float = RUNAWAY_FACTOR) -> float:
    """Return the share of replicates above ``factor`` times their median: what a mean hides."""
    values = numbers(values, "runaway_share: values")
    return float((values > factor * np.median(values)).mean()) if len(values) else float("nan")


def n_to_reach(n: np.ndarray, risk: np.ndarray, target: float) -> float:
    """Return the smallest n from which on the (median) risk is at most ``target``, by log-log interpolation.

    n, risk  (sizes,), ascending sizes and the risk at each of them
    target   level to reach, in the units of the risk

    It is infinite if the risk is above ``target`` at the largest n, and the smallest n if it never is above.
    """
    n, risk = numbers(n, "n_to_reach: n"), numbers(risk, "n_to_reach: risk")
    if len(n) == 0 or risk[-1] > target:
        return float("inf")
    above = np.flatnonzero(risk > target)
    if len(above) == 0:
        return float(n[0])
    last = above[-1]
    share = np.log(risk[last] / target) / np.log(risk[last] / risk[last + 1])
    return float(np.exp(np.log(n[last]) + share * np.log(n[last + 1] / n[last])))

"""Estimate an exponent from errors at several n, with an interval, and judge a predicted one.

The exponent is the least-squares slope of

    log(statistic of the replicates)   on   log n.

Intervals come from resampling replicates within each n (``intervals``). The verdict rule is fixed before data
are seen: a prediction p *holds* if the 90 % interval lies in [p - .08, p + .08], *fails* if it is disjoint
from it, and is otherwise *not decidable here*. So are slopes from fewer than 8 replicates at a size, or from
sizes less than a factor 5 apart, whose intervals mean little.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from moe_prompts.checks import generator, numbers, whole
from moe_prompts.errors import InputError
from moe_prompts.intervals import MIN_REPLICATES, RESAMPLES, Verdict, percentiles, within

BAND = 0.08
RUNAWAY_FACTOR = 3.0
MIN_RANGE = 5.0  # largest over smallest size; below it there is no verdict

#: Each reduces the last axis.
STATISTICS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "median": lambda values: np.median(values, axis=-1),
    "mean": lambda values: np.mean(values, axis=-1),
    "q90": lambda values: np.quantile(values, 0.9, axis=-1),
}


@dataclass(frozen=True)
class Slope:
    """Hold a slope with its 90 % interval, and what it was read from.

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

    def verdict(self, predicted: float, band: float = BAND) -> Verdict:
        """Judge a predicted exponent by the rule of this module, with ``band`` on either side of it."""
        near = len(self.n) == 0 or self.n.max() < MIN_RANGE * self.n.min()
        if self.replicates < MIN_REPLICATES or near:
            return Verdict.UNDECIDED
        return within(self.low, self.high, (predicted - band, predicted + band))


def slope(
    samples: dict[int, np.ndarray],
    rng: np.random.Generator,
    statistic: str = "median",
    resamples: int = RESAMPLES,
) -> Slope:
    """Estimate the log-log slope of a statistic of the replicates, with a bootstrap interval.

    samples    n -> positive errors, one per replicate
    rng        source of the resampling
    statistic  "median", "mean" or "q90"
    resamples  how many bootstrap samples are drawn

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
    if statistic not in STATISTICS:
        raise InputError(f"slope: statistic = {statistic!r}; expected one of {', '.join(STATISTICS)}")
    if not isinstance(samples, Mapping):
        raise InputError(
            f"slope: samples of type {type(samples).__name__}; expected a map from n to its errors, as "
            "{1000: [..], 10000: [..]}"
        )
    generator(rng, "slope")
    resamples = whole(resamples, 1, "slope: resamples")
    arrays = {n: numbers(values, f"slope: errors at n = {n}").ravel() for n, values in sorted(samples.items())}
    kept = {n: values for n, values in arrays.items() if len(values)}
    for n, values in kept.items():
        if not np.isreal(n) or not 0 < n < np.inf:
            raise InputError(f"slope: n = {n!r}; expected positive sizes as keys")
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
    # A size with one replicate cannot be resampled: its level would enter every bootstrap slope without
    # error.
    used = several if several.sum() > 1 else np.ones(len(sizes), dtype=bool)
    log_n, log_level = np.log(sizes), np.log(level)
    centred = log_n[used] - log_n[used].mean()
    centred /= (centred**2).sum()
    low, high = percentiles(np.log(draws[:, used]) @ centred) if several.sum() > 1 else (np.nan, np.nan)
    local = np.diff(log_level) / np.diff(log_n)
    fewest = min(len(values) for values, counts in zip(kept.values(), used, strict=True) if counts)
    return Slope(float(log_level[used] @ centred), float(low), float(high), sizes, level, band, local, fewest)


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

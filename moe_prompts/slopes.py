"""4 SLOPE: from errors at several n to an exponent with an interval, and to a verdict on a predicted one.

The exponent is the least-squares slope of log(statistic of the replicates) on log n. Intervals come from resampling
replicates within each n (``intervals``). The verdict rule is fixed before data are seen: a prediction p *holds* if the
90 % interval lies in [p - .08, p + .08], *fails* if it is disjoint from it, and is otherwise *not decidable here*; so
are slopes from fewer than 8 replicates at a size or from sizes less than a factor 5 apart, whose intervals mean little.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

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
    """``value`` with its 90 % interval [low, high]; ``n`` the sizes used, ``level`` the statistic at each of them with
    its own interval ``band`` (sizes, 2), ``local`` the slopes between neighbouring sizes, ``replicates`` the fewest at
    a size that counts for the slope."""

    value: float
    low: float
    high: float
    n: np.ndarray
    level: np.ndarray
    band: np.ndarray
    local: np.ndarray
    replicates: int

    def verdict(self, predicted: float, band: float = BAND) -> Verdict:
        """Return whether the exponent ``predicted`` holds: undecided from too few replicates, or sizes too near."""
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
    """Log-log slope of ``statistic`` of the replicates in ``samples`` (n -> positive errors, one per replicate).

    Sizes without replicates are left out. A size with one replicate has a level but no interval, and counts for the
    slope only where fewer than two sizes have more; that slope has no interval. With one size the slope is NaN.
    """
    if statistic not in STATISTICS:
        raise InputError(f"slope: statistic = {statistic!r}; expected one of {', '.join(STATISTICS)}")
    kept = {n: np.asarray(values, dtype=float) for n, values in sorted(samples.items()) if len(values)}
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
    used = several if several.sum() > 1 else np.ones(len(sizes), dtype=bool)
    log_n, log_level = np.log(sizes), np.log(level)
    centred = log_n[used] - log_n[used].mean()
    centred /= (centred**2).sum()
    low, high = percentiles(np.log(draws[:, used]) @ centred) if several.sum() > 1 else (np.nan, np.nan)
    local = np.diff(log_level) / np.diff(log_n)
    fewest = min(len(values) for values, counts in zip(kept.values(), used, strict=True) if counts)
    return Slope(float(log_level[used] @ centred), float(low), float(high), sizes, level, band, local, fewest)


def runaway_share(values: np.ndarray, factor: float = RUNAWAY_FACTOR) -> float:
    """Share of replicates above ``factor`` times their median: what a mean hides."""
    values = np.asarray(values, dtype=float)
    return float((values > factor * np.median(values)).mean()) if len(values) else float("nan")


def n_to_reach(n: np.ndarray, risk: np.ndarray, target: float) -> float:
    """Smallest n at which the (median) risk is at most ``target`` from there on, by log-log interpolation.

    Infinite if it is above ``target`` at the largest n; the smallest n if it never is above.
    """
    n, risk = np.asarray(n, dtype=float), np.asarray(risk, dtype=float)
    if len(n) == 0 or risk[-1] > target:
        return float("inf")
    above = np.flatnonzero(risk > target)
    if len(above) == 0:
        return float(n[0])
    last = above[-1]
    share = np.log(risk[last] / target) / np.log(risk[last] / risk[last + 1])
    return float(np.exp(np.log(n[last]) + share * np.log(n[last + 1] / n[last])))

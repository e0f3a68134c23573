"""Simulate how likely a design is to decide: the probability of each verdict on a slope.

A design is sizes n_1 .. n_s and R replicates at each. Its errors are simulated as

    log error(n, r) = exponent * log n + scatter(n, r),

scatter normal with a given standard deviation, or drawn from the residuals of a run: the logs of its errors
less the log of their statistic at each n. Every simulated run goes through the rule of ``slopes``: the slope
of the statistic on log n, its 90 % interval, and the band around the prediction. The shares of the verdicts
are what ``power`` returns. A design that says *holds* seldom where the prediction is true decides nothing;
one that says it often where the prediction is wrong decides too much. The share of intervals that contain the
exponent of the simulated data, their coverage, stands beside the verdicts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from moe_prompts.checks import count, flag, generator, listed, numbers, one_of, real, whole
from moe_prompts.errors import InputError
from moe_prompts.intervals import MIN_REPLICATES, Verdict, bounded_by, within
from moe_prompts.shown import Shown
from moe_prompts.slopes import BAND, MIN_RANGE, STATISTICS, VARIANCES, slope_half_width, slope_weights

#: Simulated runs: shares are known to .016 (one standard error at .5).
SIMULATIONS = 1000
#: Exponents that theory knows: the nearest to a prediction on either side is what it is told from.
EXPONENTS = (-1.0, -0.5, -0.25, -0.125, 0.0)
#: Largest number of replicates that is tried, and simulated runs for each: shares are known to .03.
MOST, SEARCHED = 1024, 250
#: Errors at one size that are simulated at once; the variance of a median looks at some pairs for each of
#: them.
HELD = 30_000


@dataclass(frozen=True, repr=False)
class Power(Shown):
    """Hold shares of the verdicts on an exponent, each within about .016 (one standard error at .5).

    holds      share of simulated runs whose verdict is *holds*
    fails      share whose verdict is *fails*
    undecided  share whose verdict is *not decidable here*
    faster     share whose verdict is *faster than claimed*; 0 unless the prediction is an upper bound
    covers     share of the intervals that contain the exponent of the simulated data; NaN where the rule
               makes none
    """

    holds: float
    fails: float
    undecided: float
    faster: float = 0.0
    covers: float = float("nan")


def power(
    n: Sequence[int],
    replicates: int,
    scatter: float | Mapping[int, np.ndarray],
    rng: np.random.Generator,
    predicted: float = -0.5,
    true: float | None = None,
    statistic: str = "median",
    band: float = BAND,
    bound: bool = False,
    simulations: int = SIMULATIONS,
) -> Power:
    """Return how often a design calls the exponent ``predicted`` right where the exponent is ``true``.

    n            sizes, at least two different ones
    replicates   data sets at each size
    scatter      standard deviation of the log error at a size, or the errors of a run (n -> positive errors),
                 whose residuals are drawn; sizes that the run lacks borrow those of the nearest size
    rng          source of the simulation
    predicted    the exponent that the rule judges
    true         the exponent of the simulated data; None: ``predicted``
    statistic    "median", "mean" or "q90"
    band         half width of the band in which a prediction holds
    bound        whether the prediction is an upper bound, which a faster slope does not contradict
    simulations  how many runs are simulated

    Raises ``InputError`` for sizes, replicates or scatter that make no design.

    >>> import numpy as np
    >>> import moe_prompts as mp
    >>> found = mp.power([1_000, 10_000, 100_000], 32, 0.3, np.random.default_rng(0))
    >>> found.holds > 0.9
    True
    """
    sizes = sorted({count(size, 1, "power: n") for size in listed(n, "power: n")})
    if len(sizes) < 2:
        raise InputError(f"power: n = {sizes}; expected at least two different sizes of at least 1")
    replicates = count(replicates, 2, "power: replicates")
    simulations = whole(simulations, 1, "power: simulations", most=10**9)
    one_of(statistic, STATISTICS, "power: statistic")
    generator(rng, "power")
    predicted, band = real(predicted, "(-inf, inf)", "power: predicted"), real(band, "[0, inf)", "power: band")
    true = None if true is None else real(true, "(-inf, inf)", "power: true")
    bound = flag(bound, "power: bound")
    residuals = _residuals(scatter, sizes, statistic)
    if replicates < MIN_REPLICATES or sizes[-1] < MIN_RANGE * sizes[0]:
        return Power(0.0, 0.0, 1.0)  # the rule of slopes decides nothing from such a design
    true = predicted if true is None else true
    log_n, R = np.log(np.array(sizes, dtype=float)), replicates
    weights = slope_weights(log_n)
    judge, ends_of_band = bounded_by if bound else within, (predicted - band, predicted + band)
    counts, covered, done = dict.fromkeys(Verdict, 0), 0, 0
    while done < simulations:
        some = min(simulations - done, max(1, HELD // R))
        levels, variances = np.empty((some, len(sizes))), np.empty((some, len(sizes)))
        for at, size in enumerate(log_n):
            errors = np.exp(true * size + _draw(residuals[at], (some, R), rng))
            levels[:, at] = np.log(STATISTICS[statistic](errors))
            variances[:, at] = VARIANCES[statistic](errors)
        slopes = levels @ weights
        half = slope_half_width(weights, variances, np.full(len(sizes), R), statistic)
        covered += int((np.abs(slopes - true) <= half).sum())
        for ends in zip(slopes - half, slopes + half, strict=True):
            counts[judge(*ends, ends_of_band)] += 1
        done += some
    holds, fails, undecided, faster = (
        counts[verdict] / simulations for verdict in (Verdict.HOLDS, Verdict.FAILS, Verdict.UNDECIDED, Verdict.FASTER)
    )
    return Power(holds, fails, undecided, faster, covers=covered / simulations)


def nearest_wrong(predicted: float) -> tuple[float, ...]:
    """Return the exponents of theory next to ``predicted``, on either side: what a verdict must tell it from.

    >>> nearest_wrong(-0.5)
    (-1.0, -0.25)
    """
    below = [one for one in EXPONENTS if one < predicted]
    above = [one for one in EXPONENTS if one > predicted]
    return tuple([max(below)] if below else []) + tuple([min(above)] if above else [])


def replicates_needed(
    n: Sequence[int],
    scatter: float | Mapping[int, np.ndarray],
    rng: np.random.Generator,
    predicted: float = -0.5,
    wanted: float = 0.8,
    statistic: str = "median",
    bound: bool = False,
) -> int | None:
    """Return the smallest number of replicates with which a true prediction holds in a share ``wanted``.

    n          sizes, at least two different ones
    scatter    standard deviation of the log error at a size, or the errors of a run, as in ``power``
    rng        source of the simulation
    predicted  the exponent that the rule judges, and that is true in the simulation
    wanted     share of simulated runs in which the prediction is to hold, in (0, 1)
    statistic  "median", "mean" or "q90"
    bound      whether the prediction is an upper bound, which a faster slope does not contradict

    Tried are 8, 16, 32, .. 1024; the result is None where 1024 are too few. Raises ``InputError`` as
    ``power`` does, and where ``wanted`` is no share between 0 and 1.

    >>> import numpy as np
    >>> import moe_prompts as mp
    >>> mp.replicates_needed([1_000, 10_000, 100_000], scatter=0.2, rng=np.random.default_rng(0))
    8
    """
    wanted = real(wanted, "(0, 1)", "replicates_needed: wanted")
    replicates = MIN_REPLICATES
    while replicates <= MOST:
        found = power(n, replicates, scatter, rng, predicted, statistic=statistic, bound=bound, simulations=SEARCHED)
        if found.holds >= wanted:
            return replicates
        replicates *= 2
    return None


def _residuals(
    scatter: float | Mapping[int, np.ndarray], sizes: Sequence[int], statistic: str
) -> list[float] | list[np.ndarray]:
    """Return for each size a standard deviation, or the logs of a run's errors at its nearest size, centred.

    Centred logs have their statistic at 0.
    """
    if not isinstance(scatter, Mapping):
        return [real(scatter, "(0, inf)", "power: scatter")] * len(sizes)
    run = {n: numbers(errors, f"power: scatter[{n!r}]") for n, errors in scatter.items()}
    usable = {count(n, 1, "power: scatter"): errors for n, errors in run.items() if errors.size > 1}
    if not usable:
        raise InputError("power: a run without two errors at any size has no scatter; give a standard deviation")
    centred = []
    for size in sizes:
        nearest = size if size in usable else min(usable, key=lambda n: abs(np.log(n / size)))
        errors = usable[nearest]
        if not (np.isfinite(errors).all() and (errors > 0).all()):
            raise InputError("power: errors of the run are not all positive and finite; leave failed fits out")
        centred.append(np.log(errors) - np.log(STATISTICS[statistic](errors)))
    return centred


def _draw(drawn: float | np.ndarray, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    return rng.choice(drawn, size=shape) if isinstance(drawn, np.ndarray) else drawn * rng.standard_normal(shape)

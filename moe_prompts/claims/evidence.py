"""Make lines of evidence from slopes on log n and from means in a band, each with interval and odds.

Every verdict is computed on unrounded numbers, and every line says what its design could decide: how often it
would hold where the prediction is true, and where the nearest wrong one is. Both are shares of simulated runs
with the sizes, the replicates and the scatter of the run itself, from a fixed seed. Where certificates are
asked for, a simulated run has them as often as the run itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy.stats import binom

from moe_prompts.claims.claim import Line, Odds
from moe_prompts.designs import nearest_wrong, power, replicates_needed
from moe_prompts.estimators.result import FitStatus
from moe_prompts.intervals import Interval, Verdict, half_width, share_interval
from moe_prompts.seeds import bootstrap_rng
from moe_prompts.study.summary import KEY, Measure, errors_by_size, measured_slope

#: A slope of certified fits decides where at least this share of fits is certified at every n: below, they
#: are a selection.
MIN_CERTIFIED = 0.9
#: How often a true prediction should hold, where a line asks how many replicates would decide.
WANTED = 0.8
#: Simulated runs behind the odds of a mean.
SIMULATIONS = 2_000


def slope_lines(
    summary: pd.DataFrame, rows: pd.DataFrame, measures: Sequence[Measure], seed: int, bound: bool = True
) -> list[Line]:
    """Return the lines of ``study.summary.summarise(rows, ..)`` on ``measures`` where theory predicts a rate.

    seed   of the simulations behind the odds
    bound  whether theory bounds the errors from above, so that only a slower slope contradicts it
    """
    of = {measure.shown: measure for measure in measures}
    chosen = summary[summary["measure"].isin(list(of)) & summary["predicted"].notna()]
    fits = dict(iter(rows.groupby(KEY, sort=False)))
    lines = []
    for line in chosen.itertuples():
        own = fits[tuple(getattr(line, name) for name in KEY)]
        lines.append(slope_line(own, of[line.measure], line.predicted, seed, line.over, line.all_fits, bound))
    return lines


def slope_line(
    rows: pd.DataFrame,
    measure: Measure,
    predicted: float,
    seed: int,
    over: str = "grid",
    all_fits: bool = False,
    bound: bool = True,
) -> Line:
    """Return the line of evidence of the slope of the median of one measure.

    It is undecided where too few of the fits ``rows`` are certified, unless all fits are used. Then more
    replicates would not decide it, and none are asked for.
    """
    found = measured_slope(rows, measure, over, seed, all_fits=all_fits)
    verdict = found.verdict(predicted, bound=bound)
    least = least_certified(rows)
    selected = least < MIN_CERTIFIED and not all_fits
    if selected:
        verdict = Verdict.UNDECIDED
    share = (rows["status"] == FitStatus.CERTIFIED.name).mean()
    used = "all fits" if all_fits else f"{share:.0%} certified (least at one n: {least:.0%})"
    first = rows.iloc[0]
    name = f"{first['truth']}, {first['kind']}, k = {first['k']}: {measure.shown}"
    samples = errors_by_size(rows, measure.column, all_fits)
    used_for_it = {n: samples[n] for n in found.n if n in samples}
    ask = verdict is Verdict.UNDECIDED and not selected
    odds = slope_odds(used_for_it, predicted, seed, name, bound=bound, ask=ask)
    if odds and not all_fits:
        share = chance_of_certificates(rows)
        odds = replace(odds, right=odds.right * share, wrong=odds.wrong * share)
    return slope_evidence(
        name, predicted, Interval(found.value, found.low, found.high, found.replicates), verdict, used, odds
    )


def earlier(line: Line) -> Line:
    """Return a line of an earlier draw as history, judged no more: what its rows say, and their verdict."""
    verdict = f"; on these rows {line.verdict.value}" if line.verdict else ""
    return Line(f"{line.name}, earlier draw", f"then {line.claimed}", f"{line.found}{verdict}", None, line.estimate)


def least_certified(rows: pd.DataFrame) -> float:
    """Return the smallest share of certified fits at any n."""
    return float((rows["status"] == FitStatus.CERTIFIED.name).groupby(rows["n"]).mean().min())


def chance_of_certificates(rows: pd.DataFrame) -> float:
    """Return how often enough fits are certified at every n, if each is as often as it was in this run.

    With share p_n of m_n fits it is the product over n of P(X >= .9 m_n), X binomial with m_n and p_n.
    """
    certified = (rows["status"] == FitStatus.CERTIFIED.name).groupby(rows["n"])
    count, share = certified.size().to_numpy(), certified.mean().to_numpy()
    enough = np.ceil(MIN_CERTIFIED * count - 1e-9)
    return float(binom.sf(enough - 1, count, share).prod())


def slope_evidence(
    name: str, predicted: float, found: Interval, verdict: Verdict, said: str = "", odds: Odds | None = None
) -> Line:
    """Return the line of a slope with its interval; ``said`` is what else the reader should know of it."""
    shown = f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]" + (f", {said}" if said else "")
    return Line(name, f"n^{predicted:g}", shown, verdict, found, odds)


def slope_odds(
    samples: Mapping[int, np.ndarray],
    predicted: float,
    seed: int,
    name: str,
    statistic: str = "median",
    bound: bool = True,
    ask: bool = False,
) -> Odds | None:
    """Return the odds of a slope with the sizes, replicates and residuals of a run.

    samples    n -> positive errors; sizes with one error have no scatter and are left out
    predicted  the exponent that is judged; ``bound`` if theory bounds the error from above
    seed       of the simulation, with the ``name`` of the line
    ask        whether to ask how many replicates would decide

    None where fewer than two sizes are left.
    """
    usable = {n: np.asarray(errors) for n, errors in samples.items() if len(errors) > 1}
    if len(usable) < 2:
        return None
    replicates = min(len(errors) for errors in usable.values())
    instead = nearest(predicted)
    shares = [
        power(
            sorted(usable),
            replicates,
            usable,
            bootstrap_rng(seed, "odds", name, statistic, which),
            predicted,
            true,
            statistic,
            bound=bound,
        ).holds
        for which, true in (("right", predicted), ("wrong", instead))
    ]
    needed = None
    if ask:
        rng = bootstrap_rng(seed, "odds", name, statistic, "needed")
        needed = replicates_needed(sorted(usable), usable, rng, predicted, WANTED, statistic, bound) or 0
    return Odds(shares[0], shares[1], f"n^{instead:g}", needed)


def nearest(predicted: float) -> float:
    """Return the exponent of theory that is nearest to ``predicted``, the slower one of two.

    >>> nearest(-0.5), nearest(-0.25), nearest(0.0)
    (-0.25, -0.125, -0.125)
    """
    return min(sorted(nearest_wrong(predicted), reverse=True), key=lambda other: abs(other - predicted))


def gap_odds(gaps: Mapping[int, np.ndarray], bound: float, seed: int, name: str) -> Odds | None:
    """Return the odds of "no rate" by likelihood gaps alone: their mean stays below a bound at every n.

    gaps   n -> nats that a split loses, one for each data set
    bound  nats
    seed   of the simulation, with the ``name`` of the line

    Gaps are resamples of the run's own. With any polynomial rate a split of fixed size loses n times as
    much with every pair, so that the nearest wrong gaps are those of the smallest n times n over it. The
    noise-free profile, which must vanish as well, is not random. None where fewer than two sizes have two
    gaps.
    """
    usable = {n: np.asarray(own) for n, own in sorted(gaps.items()) if len(own) > 1}
    if len(usable) < 2:
        return None
    first = min(usable)
    shares = []
    for which in ("right", "wrong"):
        rng, held = bootstrap_rng(seed, "odds", name, which), np.ones(SIMULATIONS, dtype=bool)
        for n, own in usable.items():
            drawn = own if which == "right" else usable[first] * (n / first)
            held &= rng.choice(drawn, size=(SIMULATIONS, len(own))).mean(axis=1) < bound
        shares.append(float(held.mean()))
    return Odds(shares[0], shares[1], "a rate: gaps grow as n")


def share_odds(count: int, band: tuple[float, float], right: float, wrong: float) -> Odds:
    """Return the odds of a share that is judged by its interval of Clopper and Pearson.

    count         m, of how many
    band          in which the share holds
    right, wrong  shares that are true, and that are the nearest wrong ones
    """
    hits = np.arange(count + 1)
    held = [share_interval(int(one), count).verdict(band) is Verdict.HOLDS for one in hits]
    chances = [float(binom.pmf(hits, count, share)[held].sum()) for share in (right, wrong)]
    return Odds(chances[0], chances[1], f"a share of {wrong:g}")


def mean_odds(
    right: np.ndarray, wrong: np.ndarray, instead: str, band: tuple[float, float], seed: int, name: str
) -> Odds | None:
    """Return the odds of a mean that is judged by its Student interval, from resamples of a run's own values.

    right    (m,)  one value per data set, moved to the mean that is predicted
    wrong    (m,)  the same, moved to the nearest wrong mean, ``instead`` in words
    band           in which the mean holds
    seed           of the simulation, with the ``name`` of the line

    None where there are fewer than two values.
    """
    m = len(right)
    if m < 2:
        return None
    shares = []
    for values, which in ((right, "right"), (wrong, "wrong")):
        rng = bootstrap_rng(seed, "odds", name, which)
        samples = rng.choice(values, size=(SIMULATIONS, m))
        half = half_width(samples.std(axis=1, ddof=1) / np.sqrt(m), m)
        inside = (samples.mean(axis=1) - half >= band[0]) & (samples.mean(axis=1) + half <= band[1])
        shares.append(float(inside.mean()))
    return Odds(shares[0], shares[1], instead)

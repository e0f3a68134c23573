"""Turn the rows of a study into its verdict table: one line per truth, kind, k and measure.

Slopes use certified fits and say how many there are. The verdict is that of the slope of the median. Means
and 90 % quantiles move with single runaways; their slopes stand beside it in the summary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from moe_prompts.estimators.result import FitStatus
from moe_prompts.intervals import mean_interval
from moe_prompts.seeds import bootstrap_rng
from moe_prompts.slopes import RESAMPLES, STATISTICS, Slope, n_to_reach, runaway_share, slope
from moe_prompts.tables import markdown, short
from moe_prompts.theory import predict

#: Relative risks to reach, by the name of their column.
TARGETS = {"n_to_1e_2": 1e-2, "n_to_1e_3": 1e-3}


@dataclass(frozen=True)
class Measure:
    """Name a column of errors whose slope is measured.

    group        what theory calls it, such as "D", "risk" or "split"
    column       of the results
    shown        its name in tables
    unpredicted  whether it is summed up where theory predicts nothing
    """

    group: str
    column: str
    shown: str
    unpredicted: bool = False


RISK = Measure("risk", "relative_risk", "risk", unpredicted=True)
LOSS = Measure("D", "loss_intrinsic", "loss D")
KEY = ["truth", "truth_kind", "kind", "k", "fit_class", "start"]


def errors_by_size(rows: pd.DataFrame, column: str, all_fits: bool = False) -> dict[int, np.ndarray]:
    """Return n -> the errors of certified fits where they are defined; of all fits with ``all_fits``."""
    used = rows[((rows["status"] == FitStatus.CERTIFIED.name) | all_fits) & rows[column].notna()]
    return {int(n): np.array(group[column]) for n, group in used.groupby("n")}


def measured_slope(
    rows: pd.DataFrame, measure: Measure, over: str, entropy: int, statistic: str = "median", all_fits: bool = False
) -> Slope:
    """Return the slope of a statistic of the errors on log n, for the rows of one truth, kind and k.

    rows       fits of one line of the summary
    measure    which error
    over       "grid" for all sizes, "last decade" for those from a tenth of the largest n on
    entropy    seed of the run, from which resamples are drawn
    statistic  "median", "mean" or "q90"
    all_fits   use fits without a certificate as well
    """
    samples = errors_by_size(rows, measure.column, all_fits)
    return _slope_of(samples, rows, measure, over, entropy, statistic, RESAMPLES)


def _slope_of(
    samples: dict[int, np.ndarray],
    rows: pd.DataFrame,
    measure: Measure,
    over: str,
    entropy: int,
    statistic: str,
    resamples: int,
) -> Slope:
    """Return the slope of the errors of ``rows`` by size, with a band from so many bootstrap samples."""
    if over == "last decade" and samples:
        lowest = max(samples) / 10 * (1 - 1e-9)
        samples = {n: values for n, values in samples.items() if n >= lowest}
    first = rows.iloc[0]
    rng = bootstrap_rng(entropy, *(first[name] for name in KEY), measure.group, statistic)
    return slope(samples, rng, statistic, resamples)


def summarise(
    results: pd.DataFrame,
    model: str,
    entropy: int,
    measures: Sequence[Measure] = (RISK, LOSS),
    predicted_kind: Callable[[str], str] = lambda kind: kind.partition(":")[0],
) -> pd.DataFrame:
    """Return the verdict table as numbers, one line per measure, truth, kind and k.

    ``as_markdown`` prints it.

    results         rows of the study
    model           as predictions name it
    entropy         seed of the run, from which resamples are drawn
    measures        which errors
    predicted_kind  maps a kind of the results to that of the predictions
    """
    lines = []
    for measure in measures:
        for key, rows in results.groupby(KEY, sort=False):
            line = dict(zip(KEY, key, strict=True))
            kind = predicted_kind(line["kind"])
            prediction = predict(model, line["truth_kind"], kind, line["fit_class"], measure.group)
            if (prediction is None and not measure.unpredicted) or rows[measure.column].isna().all():
                continue
            over = prediction.over if prediction else "grid"
            # Where theory denies a rate, a fit without a certificate is one that still travels along a flat
            # valley: leaving it out would hide what is claimed.
            all_fits = prediction is None and line["fit_class"] == "over"
            samples = errors_by_size(rows, measure.column, all_fits)
            # Slopes and intervals do not depend on the band, which the table does not show: one resample will
            # do.
            found = {name: _slope_of(samples, rows, measure, over, entropy, name, 1) for name in STATISTICS}
            medians = {n: float(np.median(values)) for n, values in samples.items()}
            curve = np.array(list(medians)), np.array(list(medians.values()))
            plateau = bool(medians) and prediction is not None and prediction.exponent == 0
            line |= {
                "measure": measure.shown,
                "predicted": float(prediction.exponent) if prediction else np.nan,
                "source": prediction.source if prediction else "",
                "over": over,
                "slope": found["median"].value,
                "low": found["median"].low,
                "high": found["median"].high,
                "local_slopes": found["median"].local.tolist(),
                **{
                    f"{name}_{field}": getattr(found[name], field)
                    for name in ("mean", "q90")
                    for field in ("value", "low", "high")
                },
                "runaway_share": float(np.mean([runaway_share(v) for v in samples.values()])) if samples else np.nan,
                "floor": medians[max(medians)] if plateau else np.nan,
                **{
                    name: n_to_reach(*curve, target) if medians and measure is RISK else np.nan
                    for name, target in TARGETS.items()
                },
                "n_min": min(medians, default=0),
                "n_max": max(medians, default=0),
                "fits": len(rows),
                "all_fits": all_fits,
                "certified": float((rows["status"] == FitStatus.CERTIFIED.name).mean()),
                "verdict": found["median"].verdict(float(prediction.exponent)).value if prediction else "no prediction",
            }
            lines.append(line)
    return pd.DataFrame(lines)


def as_markdown(summary: pd.DataFrame) -> str:
    """Return the table of ``summarise`` as Markdown, as a study prints it."""
    header = [
        "truth",
        "prompts",
        "k",
        "measure",
        "predicted",
        "slope [90 %]",
        "floor, or n to 1e-2, 1e-3",
        "certified",
        "verdict",
    ]
    body = [
        [
            line.truth,
            line.kind,
            str(line.k),
            line.measure,
            _predicted(line),
            _interval(line),
            _reach(line),
            f"{line.certified:.0%}",
            line.verdict,
        ]
        for line in summary.itertuples()
    ]
    return markdown(header, body)


def _predicted(line) -> str:
    if np.isnan(line.predicted):
        return "-"
    return "floor" if line.predicted == 0 else f"n^{line.predicted:g}"


def _interval(line) -> str:
    if np.isnan(line.slope):
        return "too few sizes"
    interval = "[too few fits]" if np.isnan(line.low) else f"[{line.low:.2f}, {line.high:.2f}]"
    return f"{line.slope:.2f} {interval}" + (" last decade" if line.over == "last decade" else "")


def _reach(line) -> str:
    if line.measure != RISK.shown:
        return ""
    if not np.isnan(line.floor):
        return f"floor {line.floor:.2%}"
    return ", ".join(_size(getattr(line, name), line) for name in TARGETS)


def _size(n: float, line) -> str:
    if np.isnan(n):
        return "-"
    if np.isinf(n):
        return f"> {short(line.n_max)}"
    return f"<= {short(line.n_min)}" if n <= line.n_min else short(n)


def status_lines(results: pd.DataFrame) -> list[str]:
    """Return how the fits ended: one line per status, with its advice for fits that are not certified."""
    counts = results["status"].value_counts()
    return [
        f"{counts[status.name]} of {len(results)} fits {status.name}: {status.advice}"
        for status in FitStatus
        if status.name in counts.index
    ]


def comparison_lines(results: pd.DataFrame) -> list[str]:
    """Return one sentence per prompt truth that compares fixed with adaptive prompts on the same data.

    A kind that can be exact is represented by its exact family. Fixed prompts on an adaptive truth are
    represented by the k of smallest median risk at the largest n, a choice in their favour. The ratio of
    risks is a geometric mean over replicates where both fits are certified, with its 90 % interval. It is
    taken at the largest n where fixed prompts have a floor (there it grows with n), and over all n where both
    families contain the truth (there it tends to a constant).
    """
    lines = []
    certified = results[(results["status"] == FitStatus.CERTIFIED.name) & (results["n_frozen"] > 0)]
    for name, rows in certified.groupby("truth", sort=False):
        n = rows["n"].max()
        chosen = {base: _representative(rows[rows["kind"] == base], n) for base in ("fixed", "adaptive")}
        if chosen["fixed"] is None or chosen["adaptive"] is None:
            continue
        risks = {
            base: rows[(rows["kind"] == base) & (rows["k"] == k)].set_index(["n", "replicate"])["relative_risk"]
            for base, k in chosen.items()
        }
        ratios = np.log(risks["fixed"] / risks["adaptive"]).dropna()
        floor = rows["truth_kind"].iloc[0] == "adaptive"
        pairs = (ratios[ratios.index.get_level_values("n") == n] if floor else ratios).to_numpy()
        if len(pairs) < 2:
            continue
        ratio = mean_interval(pairs).on(np.exp)
        winner = (
            "adaptive prompts win" if ratio.low > 1 else "fixed prompts win" if ratio.high < 1 else "no difference seen"
        )
        where = f"n = {short(n)}" if floor else "all n"
        lines.append(
            f"{name}, {where}: risk of {'best ' if floor else ''}fixed (k = {chosen['fixed']}) / adaptive "
            f"(k = {chosen['adaptive']}) = {ratio.value:.3g} [{ratio.low:.3g}, {ratio.high:.3g}] over {len(pairs)} "
            f"paired fits: {winner}"
        )
    return lines


def _representative(rows: pd.DataFrame, n: int) -> int | None:
    """Return the k that stands for a kind: the exact one, or that of smallest median risk at ``n``."""
    exact = rows[rows["fit_class"] == "exact"]
    if len(exact):
        return int(exact["k"].iloc[0])
    medians = rows[rows["n"] == n].groupby("k")["relative_risk"].median()
    return int(medians.idxmin()) if len(medians) else None

"""Turn the rows of the attention study into three tables: rates, who contains whom, and identifiability.

A claim that a rate does not exist cannot be read off a slope: medians hide runaways, and along a flat valley
the fit stands where its start led it. Such claims are judged by two numbers instead, with thresholds fixed in
advance:

    the noise-free profile at a spread of .0125                 below 1e-12, splits are invisible
    the mean of the nats lost by holding a split of .4          below 5 at every n, the data do not see it

The mean is over data sets, at every n of the run from 1e4 to 1e6, which must be a decade at least.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from pandas.api.typing import SeriesGroupBy

from moe_prompts.errors import InputError
from moe_prompts.estimators.result import FitStatus
from moe_prompts.identifiability import ZERO_KAPPA2, Profile, order_of_outputs
from moe_prompts.intervals import MIN_REPLICATES, Verdict, standard_error
from moe_prompts.models.prompt_truths import prompt_truth
from moe_prompts.study.attention import MODEL, SPREAD, STUDY_FITS, STUDY_GAPS, STUDY_PROFILES
from moe_prompts.study.summary import Measure, summarise
from moe_prompts.tables import markdown, short

L2 = Measure("L2", "l2", "L2", unpredicted=True)
D = Measure("D", "loss", "D", unpredicted=True)
SINGLETON = Measure("singleton", "singleton_error", "singleton", unpredicted=True)
SPLIT = Measure("split", "split_rms", "split", unpredicted=True)
MEASURES = (L2, D, SINGLETON, SPLIT)
#: Mean gap in nats below which data do not see a split; local exponents this near to 2 are 2.
BOUNDED_GAP, EXPONENT_BAND = 5.0, 0.12
#: Gaps decide from sizes this far apart; with fewer than ``MIN_REPLICATES`` data sets at a size they do not.
MIN_GAP_RANGE = 10.0


def summarise_attention(results: pd.DataFrame, entropy: int) -> pd.DataFrame:
    """Return one line per truth, kind, k and measure, as ``summary.summarise`` does."""
    fits = results[results["study"] == STUDY_FITS]
    return summarise(fits, MODEL, entropy, MEASURES, lambda kind: kind)


def rates_table(results: pd.DataFrame, summary: pd.DataFrame) -> str:
    """Return the table of slopes of the truth's own kind, exact and with prompts too many, as Markdown.

    Slopes have 90 % intervals and are of certified fits. Where theory denies a rate they are of all fits,
    marked with a star.
    """
    fits = results[(results["study"] == STUDY_FITS) & results["fit_class"].isin(["exact", "over"])]
    header = [
        "truth",
        "prompts",
        "k",
        "L2",
        "D (median)",
        "D (mean)",
        "D (90 % quantile)",
        "singleton",
        "split",
        "2 x gain (parameters)",
        "certified",
        "predicted slopes",
    ]
    body = []
    for (truth, kind, k), rows in fits.groupby(["truth", "kind", "k"], sort=False):
        lines = summary[(summary["truth"] == truth) & (summary["kind"] == kind) & (summary["k"] == k)]
        by_measure = {line.measure: line for line in lines.itertuples()}

        def cell(measure: Measure, statistic: str = "", of: dict = by_measure) -> str:
            return _interval(of[measure.shown], statistic) if measure.shown in of else ""

        certified = rows["status"] == FitStatus.CERTIFIED.name
        body.append(
            [
                str(truth),
                str(kind),
                str(k),
                cell(L2),
                cell(D),
                cell(D, "mean_"),
                cell(D, "q90_"),
                cell(SINGLETON),
                cell(SPLIT),
                f"{2 * rows.loc[certified, 'gain'].mean():.1f} ({rows['n_parameters'].iloc[0]:.0f})",
                f"{certified.mean():.0%}",
                _verdicts(list(by_measure.values())),
            ]
        )
    return markdown(header, body)


def _interval(line, statistic: str = "") -> str:
    value = getattr(line, f"{statistic}value") if statistic else line.slope
    low, high = getattr(line, f"{statistic}low"), getattr(line, f"{statistic}high")
    if np.isnan(value):
        return "too few fits"
    return f"{value:.2f}" + ("" if np.isnan(low) else f" [{low:.2f}, {high:.2f}]") + ("*" if line.all_fits else "")


def _verdicts(lines: list) -> str:
    """Say which predicted slopes hold, which fail and which are open.

    What theory gives no rate is judged elsewhere.
    """
    said = []
    for verdict in Verdict:
        groups = [line.measure for line in lines if line.verdict == verdict.value]
        if groups:
            said.append(f"{verdict.value}: {', '.join(groups)}")
    return "; ".join(said)


def cross_table(results: pd.DataFrame) -> str:
    """Return the table of every kind of prompt on every kind of truth, over all fits of the largest n.

    It shows a floor where the class does not contain the truth. Where it does, it shows the mean of n risk /
    s^2 with its standard error, which tends to the number of parameters in regular cases (exact fits, and
    fixed prompts among decoupled ones).
    """
    fits = results[results["study"] == STUDY_FITS]
    noise = _noise(results)
    header = [
        "truth",
        "prompts",
        "k",
        "contains the truth",
        "risk at the largest n",
        "without noise",
        "n risk / s^2 (parameters)",
        "certified",
    ]
    body = []
    for (truth, kind, k), rows in fits.groupby(["truth", "kind", "k"], sort=False):
        last = rows[rows["n"] == rows["n"].max()]
        misses = rows["fit_class"].iloc[0] == "misspecified"
        scaled = (last["risk"] * last["n"]).to_numpy() / noise[truth] ** 2
        error = f" +- {standard_error(scaled):.1f}" if len(scaled) > 1 else ""
        floor = last["population_relative_risk"].median()
        body.append(
            [
                str(truth),
                str(kind),
                str(k),
                "no" if misses else "yes",
                f"{last['relative_risk'].median():.2%}" if misses else f"{last['relative_risk'].median():.1e}",
                f"floor {floor:.2%}" if misses else f"{floor:.0e}" if floor > 0 else "0",
                "" if misses else f"{scaled.mean():.1f}{error} ({rows['n_parameters'].iloc[0]:.0f})",
                f"{(rows['status'] == FitStatus.CERTIFIED.name).mean():.0%}",
            ]
        )
    return markdown(header, body)


def _noise(results: pd.DataFrame) -> dict[str, float]:
    profiles = results[results["study"] == STUDY_PROFILES]
    return {str(truth): float(rows["noise"].iloc[0]) for truth, rows in profiles.groupby("truth")}


def profile_of(results: pd.DataFrame, truth: str, surplus: int) -> Profile:
    """Return the profile rows of a truth, with ``surplus`` prompts too many, as a ``Profile``."""
    rows = results[(results["study"] == STUDY_PROFILES) & (results["truth"] == truth)]
    rows = rows[rows["k"] == rows["k_true"] + surplus].sort_values("eps")
    return Profile(
        rows["eps"].to_numpy(),
        rows["profile"].to_numpy(),
        np.zeros(len(rows), dtype=int),
        rows["profile_certified"].to_numpy(dtype=bool),
        unit_of(truth),
    )


def unit_of(truth: str) -> float:
    """Return the order of magnitude of a named truth's outputs, which rows do not hold.

    It is 1 for every truth that comes with the package. A table of a truth that another installation added
    is read in that unit, too, since nothing here knows another one.
    """
    try:
        return order_of_outputs(prompt_truth(truth).signal)
    except InputError:
        return 1.0


def identifiability(results: pd.DataFrame) -> pd.DataFrame:
    """Return one line per truth: kappas, exponents, gaps and split errors.

    Exponents are those at the smallest spreads, gaps are means over data sets in nats, and split errors are
    observed ones over predicted ones.
    """
    lines = []
    profiles, gap_rows = results[results["study"] == STUDY_PROFILES], results[results["study"] == STUDY_GAPS]
    for truth, rows in profiles.groupby("truth", sort=False):
        exact, over = profile_of(results, str(truth), 0), profile_of(results, str(truth), 1)
        gaps = gap_rows[gap_rows["truth"] == truth].groupby("n")["gap"]
        sizes, noise = [int(n) for n in gaps.groups], float(rows["noise"].iloc[0])
        observed = _median_splits(results, str(truth))
        ratio = observed / over.predicted_split(observed.index.to_numpy(dtype=float), noise)
        lines.append(
            {
                "truth": truth,
                "truth_kind": rows["truth_kind"].iloc[0],
                "kind": rows["kind"].iloc[0],
                "kappa1": rows["kappa1"].iloc[0],
                "kappa2": rows["kappa2"].iloc[0],
                "exact_exponent": exact.exponents[0],
                "over_exponent": over.exponents[0],
                "profile": over.value[0],
                "gap_n": sizes,
                "mean_gap": gaps.mean().tolist(),
                "largest_gap": gaps.max().tolist(),
                "predicted_split": over.predicted_split(np.array(sizes), noise).tolist(),
                "split_observed_over_predicted": ratio[ratio > 0].tolist(),
                "split_sizes": len(ratio),
                "verdict": _split_rate(over, gaps),
            }
        )
    return pd.DataFrame(lines)


def _median_splits(results: pd.DataFrame, truth: str) -> pd.Series:
    """Return n -> median split error of certified fits with one prompt too many; empty without fits."""
    fits = results[
        (results["study"] == STUDY_FITS) & (results["truth"] == truth) & (results["k"] == results["k_true"] + 1)
    ]
    if fits.empty:
        return pd.Series(dtype=float)
    own = fits[(fits["fit_class"] == "over") & (fits["status"] == FitStatus.CERTIFIED.name)]
    return own.groupby("n")["split_rms"].median().dropna()


def _split_rate(over: Profile, gaps: SeriesGroupBy) -> str:
    """Return the rate of split prompts that profile and gaps agree on.

    Gaps decide from sizes a decade apart and more.
    """
    mean, fewest = gaps.mean(), gaps.count().min()
    sizes = mean.index.to_numpy(dtype=float)
    if len(sizes) < 2 or sizes.max() < MIN_GAP_RANGE * sizes.min() or fewest < MIN_REPLICATES:
        return Verdict.UNDECIDED.value
    bounded = bool((mean < BOUNDED_GAP).all())
    if over.vanishes and bounded:
        return "no rate"
    if not over.vanishes and not bounded and abs(over.exponents[0] - 2) <= EXPONENT_BAND:
        return "n^-1/4"
    return Verdict.UNDECIDED.value


def identifiability_table(lines: pd.DataFrame) -> str:
    """Return the lines of ``identifiability`` as Markdown."""
    header = [
        "truth",
        "prompts",
        "kappa1",
        "kappa2",
        "exponent, exact",
        "exponent, one too many",
        f"mean nats to see a split of {SPREAD}",
        "split observed / predicted",
        "split prompts",
    ]
    body = []
    for line in lines.itertuples():
        gaps = ", ".join(
            f"{gap:.3g} (n = {short(n)})" if np.isfinite(gap) else f"none stays in its cell (n = {short(n)})"
            for n, gap in zip(line.gap_n, line.mean_gap, strict=True)
        )
        ratios = line.split_observed_over_predicted
        body.append(
            [
                line.truth,
                line.kind,
                f"{line.kappa1:.4f}",
                f"{line.kappa2:.4f}" if line.kappa2 > ZERO_KAPPA2 * unit_of(line.truth) else "0",
                f"{line.exact_exponent:.2f}",
                f"{line.over_exponent:.2f}" if np.isfinite(line.over_exponent) else f"none: profile {line.profile:.0e}",
                gaps,
                f"{min(ratios):.2f} to {max(ratios):.2f} ({len(ratios)} of {line.split_sizes} n)" if ratios else "",
                line.verdict,
            ]
        )
    return markdown(header, body)


def profile_table(results: pd.DataFrame) -> str:
    """Return a Markdown table of profiles, their local exponents, and the split errors that they predict.

    Split errors are predicted at the sizes of the gaps.
    """
    header = ["truth", "fit", "least error at each spread held (local exponent)", "predicted split error"]
    body = []
    for line in identifiability(results).itertuples():
        for surplus, fit in ((0, "exact"), (1, "one too many")):
            found = profile_of(results, line.truth, surplus)
            values = [f"{eps:g}: {value:.1e}" for eps, value in zip(found.eps, found.value, strict=True)]
            exponents = ["", *(f" ({e:.2f})" if np.isfinite(e) else "" for e in found.exponents)]
            predicted = ", ".join(
                f"{split:.3f} (n = {short(n)})" if np.isfinite(split) else f"not bounded (n = {short(n)})"
                for n, split in zip(line.gap_n, line.predicted_split, strict=True)
            )
            shown = "; ".join(v + e for v, e in zip(values, exponents, strict=True))
            body.append([line.truth, fit, shown, predicted if surplus else ""])
    return markdown(header, body)

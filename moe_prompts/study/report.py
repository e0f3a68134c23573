"""Say what a run found: the tables of its studies as one text, and their lines as one table of numbers."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from moe_prompts.estimators.result import FitStatus
from moe_prompts.intervals import Verdict
from moe_prompts.shown import Ending
from moe_prompts.study import gaussian, softmax
from moe_prompts.study.attention import STUDY_FITS
from moe_prompts.study.attention_report import (
    cross_table,
    identifiability,
    identifiability_table,
    rates_table,
    summarise_attention,
)
from moe_prompts.study.summary import as_markdown, comparison_lines, status_lines, summarise
from moe_prompts.tables import markdown, short

GAUSSIAN = "gaussian"


def of_study(results: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return the rows whose column ``study`` begins with ``name``."""
    return results[results["study"].str.startswith(name)]


def report_of(results: pd.DataFrame, entropy: int) -> tuple[str, pd.DataFrame]:
    """Return the text of summary.md and the lines of summary.json.

    results  rows of a run, of one or several studies
    entropy  seed of the run, from which the resamples of intervals are drawn
    """
    texts, summaries = [], []
    gated, attention = of_study(results, GAUSSIAN), of_study(results, STUDY_FITS)
    if len(attention):
        summary = summarise_attention(attention, entropy)
        fits = attention[attention["study"] == STUDY_FITS]
        texts += [
            "## Attention: are split prompts identified?",
            identifiability_table(identifiability(attention)),
            "## Attention: rates of the truth's own kind",
            rates_table(attention, summary),
            "## Attention: every kind of prompt on every kind of truth",
            cross_table(attention),
            "\n".join(status_lines(fits)),
        ]
        summaries.append(summary.assign(study=STUDY_FITS))
    if len(gated):
        summary = summarise(gated, gaussian.MODEL, entropy)
        texts += [
            "## Gaussian gates: fixed against adaptive prompts",
            as_markdown(summary),
            "\n".join(comparison_lines(gated)),
            "\n".join(status_lines(gated)),
        ]
        summaries.append(summary.assign(study=GAUSSIAN))
    gates = of_study(results, softmax.MODEL)
    if len(gates):
        summary = softmax.summarise_softmax(gates, entropy)
        texts += [
            "## Softmax gates: rates of parameters",
            as_markdown(summary),
            "\n".join([*status_lines(gates), *softmax.notice_lines(gates)]),
        ]
        summaries.append(summary.assign(study=softmax.MODEL))
    return "\n\n".join(text for text in texts if text), pd.concat(summaries, ignore_index=True)


#: How a verdict is marked in a table of the terminal.
MARKS = {
    Verdict.HOLDS.value: "ok",
    Verdict.FASTER.value: "faster",
    Verdict.FAILS.value: "fails",
    Verdict.UNDECIDED.value: "?",
}
LEGEND = (
    "error of f: slope on log n of the median risk (softmax gates: not measured; attention: L2, the root of the "
    "risk), with half of its 90 % interval; or the floor on which the risk stops, where the class does not hold the "
    "truth. loss D: the same of the Voronoi loss of parameters. ok: the slope is as predicted; fails: it is not; "
    "faster: it falls faster; ?: these data do not decide; no mark: nothing is predicted. fits: share that stands at a "
    "certified optimum; only those count, but where theory denies a rate."
)


def ending_of(results: pd.DataFrame, summary: pd.DataFrame) -> Ending:
    """Return what the command prints of a run: findings, and one line for each truth, kind and k.

    results  rows of the run
    summary  its lines, as ``report_of`` returns them
    """
    body = []
    for (study, truth, kind, k), lines in summary.groupby(["study", "truth", "kind", "k"], sort=False):
        by = {line.measure: line for line in lines.itertuples()}
        of_f = by.get("risk") or by.get("L2")
        of_d = by.get("loss D") or by.get("D")
        rows = of_study(results, str(study))
        own = rows[(rows["truth"] == truth) & (rows["kind"] == kind) & (rows["k"] == k) & rows["status"].notna()]
        if own["fit_class"].iloc[0] == "misspecified":
            shown_f = f"floor {own.loc[own['n'] == own['n'].max(), 'relative_risk'].median():.2%}" + _mark(of_f)
        else:
            shown_f = _slope(of_f)
        certified = f"{(own['status'] == FitStatus.CERTIFIED.name).mean():.0%}"
        names = [str(truth).removeprefix("attention-"), str(kind).removeprefix("adaptive:").removeprefix("softmax-")]
        body.append([*names, str(k), shown_f, _slope(of_d), certified])
    return Ending(_findings(results, summary), ["truth", "prompts", "k", "error of f", "loss D", "fits"], body, LEGEND)


def _mark(line) -> str:
    return f" {MARKS[line.verdict]}" if line is not None and line.verdict in MARKS else ""


def _slope(line) -> str:
    if line is None:
        return ""
    if np.isnan(line.slope):
        return "too few fits"
    half = "" if np.isnan(line.low) else f" +- {(line.high - line.low) / 2:.2f}"
    return f"{line.slope:.2f}{half}{_mark(line)}"


def _findings(results: pd.DataFrame, summary: pd.DataFrame) -> list[str]:
    """Return what a run found in sentences."""
    predicted = summary.loc[summary["verdict"].isin(list(MARKS)), "verdict"]
    counts = predicted.value_counts()
    said = {
        Verdict.HOLDS: "as predicted",
        Verdict.FASTER: "faster than predicted",
        Verdict.FAILS: "not as predicted",
        Verdict.UNDECIDED: "not decided by these sizes and replicates",
    }
    parts = [
        f"{counts[verdict.value]} {'is' if counts[verdict.value] == 1 else 'are'} {words}"
        for verdict, words in said.items()
        if verdict.value in counts.index
    ]
    sentences = []
    if len(predicted):
        sentences.append(f"Theory predicts {len(predicted)} slopes of this run. Of them {_listed(parts)}.")
    attention, gated = of_study(results, STUDY_FITS), of_study(results, GAUSSIAN)
    if len(attention):
        sentences += _attention_findings(attention)
    if len(gated):
        sentences += [f"{line}." for line in comparison_lines(gated)]
    fits = results[results["status"].notna()]
    certified = int((fits["status"] == FitStatus.CERTIFIED.name).sum())
    sentences.append(f"{certified} of {len(fits)} fits stand at a certified local maximum.")
    return sentences


def _attention_findings(attention: pd.DataFrame) -> list[str]:
    lines = identifiability(attention)
    found = []
    for verdict, words in (
        ("n^-1/4", "With one prompt too many, the two that share a true one come together like n^-1/4"),
        ("no rate", "Two that share a true prompt have no rate, since data do not see how it is split,"),
    ):
        names = [str(name).removeprefix("attention-") for name in lines.loc[lines["verdict"] == verdict, "truth"]]
        if names:
            found.append(f"{words} for {_listed(names)}.")
    fits = attention[attention["study"] == STUDY_FITS]
    misses = fits[fits["fit_class"] == "misspecified"].groupby(["truth", "kind", "k"]).ngroups
    if misses:
        said = "1 line fits" if misses == 1 else f"{misses} lines fit"
        found.append(f"{said} a kind that cannot express the truth: the risk stops at a floor, whatever n is.")
    return found


def _listed(parts: Iterable[str]) -> str:
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last


def first_table(rows: pd.DataFrame) -> str:
    """Return what a run says of its smallest data, while the rest is still being fitted.

    It has one line for each truth, kind and k. Rows of one size show no rate. ``risk`` is the median of
    E |f_hat - f*|^2 over that of f* itself.
    """
    fits = rows[rows["status"].notna()] if "status" in rows else rows.iloc[:0]
    body = []
    for (study, truth, kind, k), group in fits.fillna({"kind": ""}).groupby(
        ["study", "truth", "kind", "k"], sort=False
    ):
        risk = group["relative_risk"].median() if "relative_risk" in group else float("nan")
        certified = int((group["status"] == "CERTIFIED").sum())
        shown = "-" if pd.isna(risk) else f"{risk:.2g}"
        body.append([str(study), str(truth), str(kind), str(k), f"{certified} of {len(group)}", shown])
    sizes = ", ".join(short(n) for n in sorted(fits["n"].unique())) if len(fits) else "none"
    head = f"# First rows: n = {sizes}\n\nThe run goes on; summary.md will have all sizes, rates and verdicts.\n\n"
    return head + markdown(["study", "truth", "kind", "k", "certified", "median relative risk"], body)

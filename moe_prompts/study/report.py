"""Say what a run found: the tables of its studies as one text, and their lines as one table of numbers."""

from __future__ import annotations

import pandas as pd

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

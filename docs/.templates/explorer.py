"""Make explore.html, one page without a network: a reader picks a truth, a kind, k and a loss of committed runs.

It holds the errors of every fit, their medians with 90 % intervals, the slope with its interval and the verdict, as
the studies compute them, and the libraries that draw them.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd

from moe_prompts.engine.store import read_table
from moe_prompts.estimators.result import FitStatus
from moe_prompts.slopes import BAND, slope
from moe_prompts.study import attention, attention_report, gaussian, softmax, summary
from moe_prompts.study.report import GAUSSIAN, of_study
from moe_prompts.study.summary import KEY, Measure, errors_by_size
from moe_prompts.tables import short
from moe_prompts.theory import predict

ROOT = Path(__file__).parents[2]
RUNS = {
    "main study": "paper_figures/data/sample_efficiency",
    "unselected truths": "paper_figures/data/random_truths",
    "softmax gates, as many atoms as there are": "docs/claims/softmax-exact",
    "softmax gates, one atom too many": "docs/claims/softmax-over",
}
#: Resamples of the intervals of medians; slopes and their intervals need none.
RESAMPLES = 400
STUDIES: list[tuple[str, str, tuple[Measure, ...]]] = [
    (attention.STUDY_FITS, attention.MODEL, attention_report.MEASURES),
    (GAUSSIAN, gaussian.MODEL, (summary.RISK, summary.LOSS)),
    (softmax.MODEL, softmax.MODEL, softmax.MEASURES),
]
#: What a measure is called on the page.
SAID = {
    "L2": "error of f (L2)",
    "D": "Voronoi loss D",
    "loss D": "Voronoi loss D",
    "risk": "risk, relative",
    "singleton": "parameters alone in their cell",
    "split": "distance of split atoms",
}


def lines_of(run: str, folder: str) -> list[dict]:
    """Return one record for each truth, kind, k and measure of a run."""
    rows = read_table(ROOT / folder)
    found = []
    for name, model, measures in STUDIES:
        own = of_study(rows, name)
        own = own[(own["study"] == name) & own["status"].notna()] if name == attention.STUDY_FITS else own
        if name == softmax.MODEL and len(own):
            own = own[own["notice"] == ""]
        for key, group in own.groupby(KEY, sort=False) if len(own) else []:
            line = dict(zip(KEY, key, strict=True))
            for measure in measures:
                if measure.column in group and group[measure.column].notna().any():
                    found.append(record(run, model, line, group, measure))
    return [one for one in found if one is not None]


def record(run: str, model: str, line: dict, rows: pd.DataFrame, measure: Measure) -> dict | None:
    """Return points, medians, slope and verdict of one line, or None where no error is positive."""
    kind = line["kind"] if model == attention.MODEL else line["kind"].partition(":")[0]
    predicted = predict(model, line["truth_kind"], kind, line["fit_class"], measure.group)
    all_fits = predicted is None and line["fit_class"] == "over"
    samples = errors_by_size(rows, measure.column, all_fits)
    over = predicted.over if predicted else "grid"
    used = {n: values for n, values in samples.items() if over != "last decade" or n >= max(samples) / 10 * (1 - 1e-9)}
    if not used or not all((values > 0).all() for values in samples.values()):
        return None
    fit = slope(used, np.random.default_rng(0), resamples=RESAMPLES)
    levels = slope(samples, np.random.default_rng(0), resamples=RESAMPLES)
    verdict = fit.verdict(float(predicted.exponent)).value if predicted else "nothing is predicted"
    number = lambda value: None if math.isnan(value) else float(f"{value:.8g}")
    return {
        "run": run,
        "truth": str(line["truth"]),
        "kind": str(line["kind"]),
        "k": int(line["k"]),
        "loss": SAID[measure.shown],
        "predicted": None if predicted is None else float(predicted.exponent),
        "source": predicted.source if predicted else "",
        "slope": number(fit.value),
        "low": number(fit.low),
        "high": number(fit.high),
        "from": int(min(used)),
        "over": f"n = {short(min(used))} to {short(max(used))}",
        "verdict": verdict,
        "certified": float((rows["status"] == FitStatus.CERTIFIED.name).mean()),
        "all_fits": all_fits,
        "points": [[int(n), number(value)] for n, values in samples.items() for value in values],
        "medians": [
            [int(n), number(level), *map(number, ends)]
            for n, level, ends in zip(levels.n, levels.level, levels.band, strict=True)
        ],
    }


def page() -> str:
    """Return the whole page as HTML."""
    data = [line for run, folder in RUNS.items() for line in lines_of(run, folder)]
    scripts = [
        (ROOT / "docs" / "assets" / "vega" / f"{name}.min.js").read_text(encoding="utf-8")
        for name in ("vega", "vega-lite")
    ]
    template = Path(__file__).with_name("explore.html").read_text(encoding="utf-8")
    # A closing tag within a script would end it.
    inside = "\n".join("<script>" + text.replace("</script", "<\\/script") + "</script>" for text in scripts)
    return (
        template.replace("<!-- libraries -->", inside)
        .replace("/* data */[]", json.dumps(data, separators=(",", ":"), allow_nan=False).replace("</", "<\\/"))
        .replace("/* band */0", f"{BAND:g}")
    )

"""Judge the papers' own simulations: their losses, and their procedure run again beside certified fits."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from functools import cache, partial
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from moe_prompts.claims.claim import Claim, Line, Odds, Tables
from moe_prompts.claims.evidence import mean_odds, nearest, slope_evidence, slope_odds
from moe_prompts.claims.gated import GMOE, SGAME
from moe_prompts.estimators.result import FitStatus
from moe_prompts.intervals import MIN_REPLICATES, Interval, Verdict, bounded_by, mean_interval
from moe_prompts.slopes import BAND
from moe_prompts.study.replication_report import (
    FROM_N,
    counted,
    losses_by_size,
    published_lines,
    published_losses,
    read_published,
    summarise_replication,
)

GMOE_RUN, SGAME_RUN = "replicate-gmoe", "replicate-sgame"
MODELS = ("gmoe-1", "gmoe-2", "gmoe-3", "gmoe-4")
HALF = (-0.5 - BAND, -0.5 + BAND)
#: Ratio of losses that counts as the same, and one that does not.
SAME_LOSS, OTHER_LOSS = (1 / 1.1, 1.1), 1.25
#: Slopes of the losses that the papers published, from their files of every size and replicate, with their
#: odds.
FILE = "published_slopes.json"
STATISTICS = {"median": "", "mean": "mean_"}
COLUMNS = ("paper", "truth", "k", "slope", "low", "high", "mean_slope", "mean_low", "mean_high", "runaway")
#: Seed of the simulations behind the odds of the files' slopes.
FILE_SEED = 0


def slopes_of_files(folder: Path) -> list[dict[str, Any]]:
    """Return the slopes of the losses that the papers published, one record per paper, truth and k.

    folder  holds gmoe_published_losses.npz and sgame_published_losses.npz

    In a record, ``right`` and ``wrong`` are the odds of the slope of the median, ``mean_right`` and
    ``mean_wrong`` those of the mean.

    Raises ``InputError`` where a file is missing or holds something else.
    """
    records = []
    for paper in ("gmoe", "sgame"):
        path = folder / f"{paper}_published_losses.npz"
        lines, losses = published_lines(paper, path), published_losses(paper, read_published(paper, path))
        for record in json.loads(lines[list(COLUMNS)].round(6).to_json(orient="records")):
            own = counted(losses[record["truth"], record["k"]])
            for statistic, prefix in STATISTICS.items():
                name = f"{record['truth']}, k = {record['k']}"
                odds = slope_odds(own, -0.5, FILE_SEED, name, statistic)
                if odds is not None:
                    record |= {f"{prefix}right": odds.right, f"{prefix}wrong": odds.wrong}
            records.append(record)
    return records


def file_of_slopes(folder: Path) -> str:
    """Return the text of ``FILE``, with one record on each line.

    The command ``python experiments/claims.py --published-slopes`` writes it.
    """
    return "[\n" + ",\n".join(f" {json.dumps(record)}" for record in slopes_of_files(folder)) + "\n]\n"


@cache
def published_slopes() -> pd.DataFrame:
    """Return the published slopes as they are committed, one row per paper, truth and k."""
    text = resources.files(__package__).joinpath(FILE).read_text(encoding="utf-8")
    return pd.DataFrame(json.loads(text))


def loss_line(name: str, statistic: str, line, odds: Odds | None, replicates: int = MIN_REPLICATES) -> Line:
    """Return the line of the slope of a median or mean loss.

    A mean that single losses move has no interval that means anything, and decides nothing.
    """
    value, low, high = (getattr(line, f"{STATISTICS[statistic]}{part}") for part in ("slope", "low", "high"))
    moved = statistic == "mean" and line.runaway > 0
    said = f"{line.runaway:.1%} of the losses run away" if moved else ""
    verdict = Verdict.UNDECIDED if moved else bounded_by(low, high, HALF)
    return slope_evidence(
        f"{name}, {line.truth}, k = {line.k}: {statistic} loss",
        -0.5,
        Interval(value, low, high, replicates),
        verdict,
        said,
        None if moved else odds,
    )


def their_slopes(paper: str, tables: Tables, seed: int) -> list[Line]:
    """Return the lines of the losses that were published."""
    theirs = published_slopes()
    instead = f"n^{nearest(-0.5):g}"
    return [
        loss_line(
            "published losses",
            statistic,
            line,
            Odds(getattr(line, f"{prefix}right"), getattr(line, f"{prefix}wrong"), instead),
        )
        for line in theirs[theirs["paper"] == paper].itertuples()
        for statistic, prefix in STATISTICS.items()
    ]


def our_slopes(run: str, tables: Tables, seed: int) -> list[Line]:
    """Return the lines of the published procedure, run again on new data."""
    return _slopes(tables[run], seed, "published", "published", "run again", STATISTICS)


def _slopes(
    rows: pd.DataFrame, seed: int, loss: str, procedure: str, name: str, statistics: Iterable[str]
) -> list[Line]:
    summary = summarise_replication(rows, seed)
    fits = dict(iter(rows[rows["procedure"] == procedure].groupby(["truth", "k"], sort=False)))
    lines = []
    for line in summary[(summary["loss"] == loss) & (summary["source"] == procedure)].itertuples():
        own = counted(losses_by_size(fits[line.truth, line.k], loss, procedure))
        for statistic in statistics:
            fewest = min(map(len, own.values()), default=0)
            open_yet = loss_line(name, statistic, line, None, fewest).verdict is Verdict.UNDECIDED
            odds = slope_odds(own, -0.5, seed, f"{name}, {line.truth}, k = {line.k}", statistic, ask=open_yet)
            lines.append(loss_line(name, statistic, line, odds, fewest))
    return lines


def _paired(rows: pd.DataFrame, one: str, other: str) -> Iterator[tuple[str, np.ndarray]]:
    """Yield for each truth and k the log ratios of published losses of two procedures on the same data."""
    used = rows[(rows["n"] >= FROM_N) & ~((rows["procedure"] == other) & (rows["status"] != FitStatus.CERTIFIED.name))]
    for (truth, k), fits in used.groupby(["truth", "k"], sort=False):
        losses = fits.pivot(index=["n", "replicate"], columns="procedure", values="loss_published")
        losses = losses.reindex(columns=[one, other])
        yield f"{truth}, k = {k}", np.log(losses[other] / losses[one]).dropna().to_numpy()


def levels(tables: Tables, seed: int) -> list[Line]:
    """Return the lines of the ratio: loss of the certified fit over that of the published procedure.

    It is the geometric mean over data sets, with its interval.
    """
    lines = []
    for name, logs in _paired(tables[GMOE_RUN], "published", "certified"):
        ratio = mean_interval(logs).on(np.exp)
        found = f"{ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}] over {ratio.count} data sets"
        shown = f"{name}: loss at the maximum / published"
        at_one = logs - logs.mean() if len(logs) else logs
        band = (np.log(SAME_LOSS[0]), np.log(SAME_LOSS[1]))
        odds = mean_odds(at_one, at_one + np.log(OTHER_LOSS), f"{OTHER_LOSS:g}", band, seed, shown)
        lines.append(Line(shown, "1", found, ratio.verdict(SAME_LOSS), ratio, odds))
    return lines


def sgame_certified(tables: Tables, seed: int) -> list[Line]:
    """Return the lines of the median of the loss, smallest over translations, at certified maxima."""
    return _slopes(tables[SGAME_RUN], seed, "translated", "certified", "certified maximum", ["median"])


RULE = (
    "90 % interval of the slopes of median and mean by the one-sided rule of slopes at -1/2, n >= 1e3; a mean with a "
    "loss above 10 times the median of its size decides nothing"
)
BOUND = (
    "an error of the theorem, which is an upper bound on the maximum likelihood estimator: a procedure that stops "
    "elsewhere is not what it speaks of."
)
CLAIMS = [
    Claim(
        id="G-published",
        statement="Published Gaussian-gated simulations, the losses in the paper's files: they fall as n^-1/2.",
        source=GMOE,
        prediction=lambda: "none from theory/: n^-1/2 after one EM step beside the truth as well as at the maximum",
        needs={},
        rule=RULE,
        judge=partial(their_slopes, "gmoe"),
        basis="slopes of the published files (moe_prompts/claims/published_slopes.json)",
        limits="that the losses are those of maxima (G-published-local).",
    ),
    Claim(
        id="G-rerun",
        statement="The published Gaussian-gated procedure, run again on new data: its loss falls as n^-1/2.",
        source=GMOE,
        prediction=lambda: "as G-published",
        needs={GMOE_RUN: MODELS},
        rule=RULE,
        judge=partial(our_slopes, GMOE_RUN),
        limits="that the losses are those of maxima (G-published-local).",
    ),
    Claim(
        id="G-published-local",
        statement="The loss after the published Gaussian-gated procedure, one EM step, is that of the local maximum "
        "to which the same start leads.",
        source=f"{GMOE} calls it the loss of the maximum likelihood estimator",
        prediction=lambda: "none from theory/: every published iteration count is 0, the loop ended after one EM step",
        needs={GMOE_RUN: MODELS},
        rule="90 % interval of the geometric mean of loss at the certified local maximum / after the published "
        "procedure, on the same data from the same starts, within [1 / 1.1, 1.1]",
        judge=levels,
        limits="how far the published losses are from those of the global maximum.",
    ),
    Claim(
        id="S-published",
        statement="Published softmax-gated simulations, the losses in the paper's files: they fall as n^-1/2.",
        source=SGAME,
        prediction=lambda: "none from theory/ for where the procedure stops",
        needs={},
        rule=RULE,
        judge=partial(their_slopes, "sgame"),
        basis="slopes of the published files (moe_prompts/claims/published_slopes.json)",
        limits=BOUND,
    ),
    Claim(
        id="S-rerun",
        statement="The published softmax-gated procedure, run again on new data: its loss falls as n^-1/2.",
        source=SGAME,
        prediction=lambda: "as S-published",
        needs={SGAME_RUN: ("sgame",)},
        rule=RULE,
        judge=partial(our_slopes, SGAME_RUN),
        limits=BOUND,
    ),
    Claim(
        id="S-published-local",
        statement="At the certified local maxima to which the published softmax-gated starts lead, the published loss, "
        "smallest over translations, falls as n^-1/2.",
        source="asked here",
        prediction=lambda: "n^-1/2 wherever some cell holds one atom, as for S-exact and S-over",
        needs={SGAME_RUN: ("sgame",)},
        rule="90 % interval of the slope of the median by the one-sided rule of slopes at -1/2",
        judge=sgame_certified,
        limits="anything about the slope: with the replicates of this design a true -1/2 would seldom be called so. "
        "Nor anything of the global maximum.",
    ),
]

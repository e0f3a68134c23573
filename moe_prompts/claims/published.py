"""Claims that the papers' own simulations make, on those simulations run again (``experiments/replicate.py``)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from moe_prompts.claims.claim import Claim, Line, Tables, mean_interval, within
from moe_prompts.claims.gated import GMOE, SGAME
from moe_prompts.estimators.result import FitStatus
from moe_prompts.slopes import BAND
from moe_prompts.study.replication_summary import FROM_N, summarise_replication

GMOE_RUN, SGAME_RUN = "replicate-gmoe", "replicate-sgame"
MODELS = ("gmoe-1", "gmoe-2")
HALF = (-0.5 - BAND, -0.5 + BAND)
#: Ratio of losses that counts as the same.
SAME_LOSS = (1 / 1.1, 1.1)


def slopes(run: str, tables: Tables, seed: int) -> list[Line]:
    """Of median and mean of the published loss after the published procedure."""
    summary = summarise_replication(tables[run], seed)
    lines = []
    for line in summary[(summary["loss"] == "published") & (summary["source"] == "published")].itertuples():
        for statistic, prefix in (("median", ""), ("mean", "mean_")):
            value, low, high = (getattr(line, f"{prefix}{name}") for name in ("slope", "low", "high"))
            name = f"{line.truth}, k = {line.k}: {statistic} loss"
            lines.append(Line(name, "n^-0.5", f"{value:.2f} [{low:.2f}, {high:.2f}]", within(low, high, HALF)))
    return lines


def _paired(rows: pd.DataFrame, one: str, other: str) -> Iterator[tuple[str, np.ndarray]]:
    """Per truth and k: log of the ratio of published losses of two procedures on the same data, where both have one."""
    used = rows[(rows["n"] >= FROM_N) & ~((rows["procedure"] == other) & (rows["status"] != FitStatus.CERTIFIED.name))]
    for (truth, k), fits in used.groupby(["truth", "k"], sort=False):
        losses = fits.pivot(index=["n", "replicate"], columns="procedure", values="loss_published")
        losses = losses.reindex(columns=[one, other])
        yield f"{truth}, k = {k}", np.log(losses[other] / losses[one]).dropna().to_numpy()


def levels(tables: Tables, seed: int) -> list[Line]:
    """Loss of the certified fit over that of the published procedure, geometric mean over data sets."""
    lines = []
    for name, logs in _paired(tables[GMOE_RUN], "published", "certified"):
        ratio, low, high = np.exp(mean_interval(logs))
        found = f"{ratio:.2f} [{low:.2f}, {high:.2f}] over {len(logs)} data sets"
        lines.append(Line(f"{name}: loss at the maximum / published", "1", found, within(low, high, SAME_LOSS)))
    return lines


def gmoe_slopes(tables: Tables, seed: int) -> list[Line]:
    return slopes(GMOE_RUN, tables, seed)


def sgame_slopes(tables: Tables, seed: int) -> list[Line]:
    return slopes(SGAME_RUN, tables, seed)


RULE = "90 % interval of the slopes of median and mean within .08 of -1/2, n >= 1e3, after the published procedure"
CLAIMS = [
    Claim(
        id="G-published",
        statement="Published Gaussian-gated simulations: the loss falls as n^-1/2.",
        source=GMOE,
        prediction=lambda: "n^-1/2 after one EM step from starts beside the truth as well as at the maximum",
        needs={GMOE_RUN: MODELS},
        rule=RULE,
        judge=gmoe_slopes,
    ),
    Claim(
        id="G-published-mle",
        statement="Published Gaussian-gated simulations: their loss is that of the maximum likelihood estimator.",
        source=GMOE,
        prediction=lambda: "another level: every published iteration count is 0, the loop ended after one EM step",
        needs={GMOE_RUN: MODELS},
        rule="90 % interval of the geometric mean of loss at the certified maximum / after the published procedure, on "
        "the same data from the same starts, within [1 / 1.1, 1.1]",
        judge=levels,
    ),
    Claim(
        id="S-published",
        statement="Published softmax-gated simulations: the loss falls as n^-1/2.",
        source=SGAME,
        prediction=lambda: (
            "n^-1/2 at the maximum; the procedure stops where the likelihood changes by less than 1e-6 of itself"
        ),
        needs={SGAME_RUN: ("sgame",)},
        rule=RULE,
        judge=sgame_slopes,
    ),
]

"""Committed runs and their reports, each made once per process: a report takes seconds, and several tests read one."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pandas as pd

from moe_prompts.study.replication_report import FILE, replication_report
from moe_prompts.study.report import report_of

DATA = Path(__file__).parents[1] / "paper_figures" / "data"


def committed(run: str) -> tuple[pd.DataFrame, int]:
    """Rows and entropy of a committed run."""
    meta = json.loads((DATA / run / "meta.json").read_text(encoding="utf-8"))
    return pd.read_parquet(DATA / run / "results.parquet"), meta["identity"]["entropy"]


@cache
def report(run: str) -> tuple[str, pd.DataFrame]:
    """Text and summary that the rows of a study give now; a reader changes neither."""
    return report_of(*committed(run))


@cache
def report_of_replication(run: str) -> tuple[str, pd.DataFrame]:
    """The same of a replication, beside the lines of the published losses as they stand in summary.json."""
    rows, entropy = committed(run)
    lines = pd.read_json(DATA / run / "summary.json", orient="records", precise_float=True)
    return replication_report(rows, lines[lines["source"] == FILE], entropy)

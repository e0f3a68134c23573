"""Prompts planted in one head of a frozen block: python paper_figures/planted_head.py [--run FOLDER]"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import runs

from moe_prompts import cli, plots
from moe_prompts.errors import InputError
from moe_prompts.vision.planted_head_report import planted_head_figure

RUN = runs.DATA / "planted_head"


def draw(run: Path = RUN, to: Path = runs.HERE) -> list[Path]:
    """Risk on both truths and splits with one prompt too many, as PDF and PNG in ``to``."""
    if not (run / "results.parquet").exists():
        raise InputError(f"{run} has no results.parquet; expected the folder of a finished experiments/planted_head.py")
    return plots.save(planted_head_figure(pd.read_parquet(run / "results.parquet")), to, "planted_head")


if __name__ == "__main__":
    cli.run(lambda: runs.main("planted_head.py", __doc__ or "", draw, RUN), "planted_head.py")

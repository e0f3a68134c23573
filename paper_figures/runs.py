"""What the figures share: reading a finished run, and the command line of a script that draws one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from moe_prompts import cli, plots
from moe_prompts.errors import InputError
from moe_prompts.study.report import of_study

HERE = Path(__file__).parent
DATA = HERE / "data"
#: What a figure of a replication reads.
REPLICATION_COLUMNS = ("truth", "k", "loss", "source", "sizes", "medians", "means")


def read(run: Path, study: str) -> tuple[pd.DataFrame, int]:
    """The rows of ``study`` in the run's folder, and the run's entropy."""
    if not (run / "results.parquet").exists():
        raise InputError(
            f"{run} has no results.parquet; expected the folder of a finished experiments/sample_efficiency.py run"
        )
    rows = of_study(pd.read_parquet(run / "results.parquet"), study)
    if rows.empty:
        raise InputError(
            f"{run} has no rows of the study {study}; choose a run that has, or make one with --study {study}"
        )
    return rows, json.loads((run / "meta.json").read_text(encoding="utf-8"))["identity"]["entropy"]


def read_summary(run: Path) -> pd.DataFrame:
    """The lines of summary.json of a finished ``experiments/replicate.py`` run."""
    try:
        return pd.read_json(run / "summary.json", orient="records", precise_float=True)[[*REPLICATION_COLUMNS]]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{run} has no summary.json of a replication; expected the folder of a finished experiments/replicate.py"
            " run"
        ) from error


def draw_curves(run: Path, to: Path, which: str, name: str) -> list[Path]:
    """The figure ``which`` of a finished ``experiments/data_efficiency.py`` run, as files ``name`` in ``to``."""
    from moe_prompts.vision import curves_report

    try:
        figure = curves_report.drawn(pd.read_parquet(run / "results.parquet"))[which]
    except (OSError, KeyError) as error:
        raise InputError(
            f"{run} has no results.parquet with {which}; expected the folder of a finished "
            "experiments/data_efficiency.py run"
        ) from error
    return plots.save(figure, to, name)


def main(program: str, description: str, draw: Callable[[Path], list[Path]], committed: Path) -> None:
    """Draw the committed run, or that of ``--run``."""
    parser = cli.OneLineParser(prog=program, description=description.splitlines()[0])
    parser.add_argument("--run", type=Path, default=committed, help="folder of a run (default: the committed one)")
    print(*draw(parser.parse_args().run), sep="\n")

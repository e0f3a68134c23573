"""Do compiled and NumPy passes end on the same fits? Both routes make the default study; their fits are compared.

python experiments/benchmark_agreement.py                          nine replicates of every cell, 2025 fits
python experiments/benchmark_agreement.py --n 1e3,1e4 --reps 2     fewer
python experiments/benchmark_agreement.py --runs COMPILED NUMPY    two finished runs of one command

Must hold: the same status in at least 99.5 % of the fits, and log-likelihoods of the fits that both certify
equal to 1e-9 of their size (of 1 nat where they are smaller). Exit code 1 where it does not. Runs that were
stopped go on where they stopped.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from moe_prompts import cli
from moe_prompts.compilation import ROUTES, VARIABLE
from moe_prompts.errors import InputError
from moe_prompts.tables import markdown

if TYPE_CHECKING:
    import pandas as pd

#: What must hold of statuses and of log-likelihoods.
SAME_STATUS, SAME_VALUE = 0.995, 1e-9
#: Studies whose rows are fits, and what names a fit.
FITS = ("gaussian", "attention", "softmax-gated")
#: Options of the runs, with their defaults.
OPTIONS = {"n": "1e3..1e6", "reps": "9", "study": None, "workers": None}
KEY = ["study", "truth", "kind", "k", "n", "start", "replicate"]
HEADER = (
    *("study", "fits", "same status", "certified by compiled passes", "by NumPy", "by both"),
    "largest relative difference of log-likelihoods",
)


def compared(compiled: pd.DataFrame, plain: pd.DataFrame) -> tuple[list[list[str]], bool]:
    """Rows of the table, one a study and one for all, and whether what must hold does.

    Raises ``InputError`` where the two tables do not hold the same fits.
    """
    import numpy as np

    one, other = (table[table["study"].isin(FITS)].set_index(KEY).sort_index() for table in (compiled, plain))
    if not len(one) or not one.index.equals(other.index):
        raise InputError(
            f"two runs of {len(one)} and {len(other)} fits that are not the same ones; expected runs of one command"
        )
    ends = one["status"].to_numpy(), other["status"].to_numpy()
    by_both = (ends[0] == "CERTIFIED") & (ends[1] == "CERTIFIED")
    values = one["log_likelihood"].to_numpy(), other["log_likelihood"].to_numpy()
    off = np.where(by_both, np.abs(values[0] - values[1]) / np.maximum(np.abs(values[1]), 1.0), 0.0)
    same, studies, rows = ends[0] == ends[1], one.index.get_level_values("study"), []
    for name in [*dict.fromkeys(studies), "all"]:
        own = np.ones(len(one), dtype=bool) if name == "all" else studies == name
        rows.append(
            [
                name,
                f"{own.sum()}",
                f"{same[own].sum()} ({same[own].mean():.2%})",
                *(f"{(end[own] == 'CERTIFIED').sum()}" for end in ends),
                f"{by_both[own].sum()}",
                f"{off[own].max():.1e}",
            ]
        )
    return rows, bool(same.mean() >= SAME_STATUS and off.max() <= SAME_VALUE)


def run(route: str, folder: Path, options: list[str]) -> None:
    """Make the run of one route, or go on with it."""
    command = [sys.executable, str(Path(__file__).with_name("sample_efficiency.py")), *options, "--out", str(folder)]
    if (folder / "meta.json").exists():
        command.append("--resume")
    done = subprocess.run(command, env={**os.environ, VARIABLE: route}, stdout=subprocess.DEVNULL)
    if done.returncode:
        raise InputError(f"{' '.join(command)} ended with {done.returncode}; what it said stands above")


def main() -> None:
    parser = cli.OneLineParser(
        "benchmark_agreement.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--runs", type=Path, nargs=2, metavar=("COMPILED", "NUMPY"), help="folders of two finished runs")
    add("--out", type=Path, default=Path("results/agreement"), help="where both runs go (default results/agreement)")
    for name, default in OPTIONS.items():
        add(f"--{name}", default=default, help=f"as sample_efficiency.py takes it (default {default or 'its own'})")
    arguments = parser.parse_args()
    folders = arguments.runs or [arguments.out / route for route in ROUTES]
    if not arguments.runs:
        given = {name: getattr(arguments, name) for name in OPTIONS}
        options = [word for name, value in given.items() if value is not None for word in (f"--{name}", value)]
        for route, folder in zip(ROUTES, folders, strict=True):
            run(route, folder, options)
    tables = [folder / "results.parquet" for folder in folders]
    for table in tables:
        if not table.exists():
            raise InputError(f"{table} is not there; expected the folder of a finished run")

    import pandas as pd

    rows, holds = compared(*(pd.read_parquet(table) for table in tables))
    print(markdown(HEADER, rows))
    print(f"must hold: the same status in {SAME_STATUS:.1%}, values to {SAME_VALUE:g}: {'holds' if holds else 'FAILS'}")
    if not holds:
        sys.exit(1)


if __name__ == "__main__":
    cli.run(main, "benchmark_agreement.py")

"""Do compiled and NumPy passes end on the same fits? Both routes make the default study; their fits are compared.

python experiments/benchmark_agreement.py                          nine replicates of every cell, 2025 fits
python experiments/benchmark_agreement.py --n 1e3,1e4 --reps 2     fewer
python experiments/benchmark_agreement.py --shard 1/8               one part of eight; the others add to it
python experiments/benchmark_agreement.py --minutes 10              stop then; the same command goes on
python experiments/benchmark_agreement.py --runs COMPILED NUMPY    two runs of one command

Must hold: the same status in at least 99.5 % of the fits, and log-likelihoods of the fits that both certify
equal to 1e-9 of their size (of 1 nat where they are smaller). Exit code 1 where it does not. Runs that were
stopped go on where they stopped. Fits that one run has and the other does not have yet are left out, and
counted.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
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
#: Studies whose rows are fits (words of the column `study`), and below what names a fit.
FITTED = ("gaussian", "attention", "softmax-gated")
#: Options of the runs, with their defaults.
OPTIONS = {"n": "1e3..1e6", "reps": "9", "study": None, "workers": None, "shard": None}
#: Seconds that a run which is interrupted has to keep what it has.
ENDING = 60.0
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

    one, other = (table[table["study"].isin(FITTED)].set_index(KEY).sort_index() for table in (compiled, plain))
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


def common(compiled: pd.DataFrame, plain: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, int]:
    """Return the rows of fits that both tables hold, and how many fits only one of them has."""
    one, other = (table[table["study"].isin(FITTED)] for table in (compiled, plain))
    both = one[KEY].merge(other[KEY])
    return one.merge(both), other.merge(both), len(one) + len(other) - 2 * len(both)


def rows_of(folder: Path) -> pd.DataFrame:
    """Return the rows of a run: its table, or the blocks that have ended where it is not finished.

    Raises ``InputError`` where the folder holds no run.
    """
    import pandas as pd

    from moe_prompts.engine.store import RunFolder

    if (folder / "results.parquet").exists():
        return pd.read_parquet(folder / "results.parquet")
    shards = RunFolder(folder).shards
    names = sorted(shards.finished())
    if not names:
        raise InputError(f"{folder}: no block has ended yet; expected the folder of a run")
    return RunFolder.read(shards, names)


def run(route: str, folder: Path, options: list[str], seconds: float | None = None) -> bool:
    """Make the run of one route, or go on with it; return whether it came to its end within ``seconds``."""
    command = [sys.executable, str(Path(__file__).with_name("sample_efficiency.py")), *options, "--out", str(folder)]
    if (folder / "meta.json").exists():
        command.append("--resume")
    with subprocess.Popen(command, env={**os.environ, VARIABLE: route}, stdout=subprocess.DEVNULL) as made:
        try:
            code = made.wait(seconds)
        except subprocess.TimeoutExpired:
            made.send_signal(signal.SIGINT)  # it keeps the blocks that have ended
            made.wait(ENDING)
            return False
    if code:
        raise InputError(f"{' '.join(command)} ended with {code}; what it said stands above")
    return True


def main() -> None:
    parser = cli.OneLineParser(
        "benchmark_agreement.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--runs", type=Path, nargs=2, metavar=("COMPILED", "NUMPY"), help="folders of two runs of one command")
    add("--minutes", type=float, default=None, help="stop both runs when so many have passed (default: at their end)")
    add("--out", type=Path, default=Path("results/agreement"), help="where both runs go (default results/agreement)")
    for name, default in OPTIONS.items():
        add(f"--{name}", default=default, help=f"as sample_efficiency.py takes it (default {default or 'its own'})")
    arguments = parser.parse_args()
    folders = arguments.runs or [arguments.out / route for route in ROUTES]
    if arguments.minutes is not None and not arguments.minutes > 0:
        raise InputError(f"--minutes {arguments.minutes}; expected a time above 0")
    if not arguments.runs:
        given = {name: getattr(arguments, name) for name in OPTIONS}
        options = [word for name, value in given.items() if value is not None for word in (f"--{name}", value)]
        end = None if arguments.minutes is None else time.monotonic() + 60 * arguments.minutes
        for left, route, folder in zip((2, 1), ROUTES, folders, strict=True):
            # The first route has a quarter of the time: compiled fits are the faster ones.
            share = None if end is None else (end - time.monotonic()) / (4 if left == 2 else 1)
            run(route, folder, options, share)
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{folder} is not there; expected the folder of a run")

    one, other, alone = common(*map(rows_of, folders))
    rows, holds = compared(one, other)
    print(markdown(HEADER, rows))
    print(f"must hold: the same status in {SAME_STATUS:.1%}, values to {SAME_VALUE:g}: {'holds' if holds else 'FAILS'}")
    if alone:
        print(f"{alone} fits of one run have none of the other yet; the same command goes on")
    if not holds:
        sys.exit(1)


if __name__ == "__main__":
    cli.run(main, "benchmark_agreement.py")

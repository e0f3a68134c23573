"""Share what all figures need: reading a finished run, and the one command line of their scripts.

A script draws the committed table, with ``--run`` that of a run of your own; ``--regenerate`` makes a new run first, in
a new folder, with the command that made the committed one. Committed tables and pictures stay as they are.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from moe_prompts import cli
from moe_prompts.engine import store
from moe_prompts.errors import InputError
from moe_prompts.figures.style import save
from moe_prompts.study.report import of_study

HERE = Path(__file__).resolve().parent
DATA = HERE / "data"
#: The committed run of the README's first command, which several figures draw.
FIRST_COMMAND: dict[str, Any] = {
    "data": DATA / "sample_efficiency",
    "command": "python experiments/sample_efficiency.py --n 1e3..1e6",
    "time": "2 minutes on 2 cores",
}
#: What a figure of a replication reads.
REPLICATION_COLUMNS = ("truth", "k", "loss", "source", "slope", "sizes", "medians")


@dataclass(frozen=True)
class Drawing:
    """Hold a figure and where it comes from.

    name     of its script, and of the files that are written
    figure   draws the run in a folder
    data     folder of the committed run
    command  makes such a run
    time     what the command took when it was measured
    """

    name: str
    figure: Callable[[Path], Figure]
    data: Path
    command: str
    time: str

    def draw(self, run: Path | None = None, to: Path = HERE) -> list[Path]:
        """Draw the figure of the run in ``run`` (default: the committed one) as PDF and PNG in ``to``."""
        # Figures compare the folder with that of the committed run, however it is written.
        return save(self.figure((run or self.data).resolve()), to, self.name)

    def regenerated(self, out: Path, quick: bool) -> Path:
        """Make a new run in ``out`` by the command, whose paths start at the root of the repository."""
        script, *options = shlex.split(self.command)[1:]
        print(f"{self.command}\n  took {self.time}; writes to {out}", flush=True)
        options += ["--out", str(out.resolve()), *(["--quick"] if quick else [])]
        done = subprocess.run([sys.executable, str(HERE.parent / script), *options], cwd=HERE.parent)
        if done.returncode:
            raise InputError(f"{script} ended with code {done.returncode}; see what it said above")
        return out

    def main(self, description: str | None) -> None:
        """Run the script's command line."""
        cli.run(lambda: self._main(str(description).splitlines()[0]), f"{self.name}.py")

    def _main(self, description: str) -> None:
        parser = cli.OneLineParser(prog=f"{self.name}.py", description=description)
        add = parser.add_argument
        add("--run", type=Path, default=None, help="folder of a run (default: the committed one)")
        add("--regenerate", action="store_true", help=f"make a new run first: {self.command}, {self.time}")
        add("--quick", action="store_true", help="with --regenerate: a smoke run")
        add(
            "--to",
            type=Path,
            default=None,
            help="folder of the figure (default: that of the run; of the committed run: paper_figures)",
        )
        chosen = parser.parse_args()
        if chosen.quick and not chosen.regenerate:
            raise InputError("--quick is for a new run; add --regenerate")
        if chosen.regenerate and chosen.run:
            raise InputError("--run draws a finished run and --regenerate makes one; choose one of them")
        run = chosen.run
        if run is not None and not run.is_dir():
            raise InputError(f"--run {run}; expected the folder of a finished run")
        if chosen.regenerate:
            run = self.regenerated(cli.default_folder(self.name), chosen.quick)
        to = chosen.to or run or HERE
        to.mkdir(parents=True, exist_ok=True)
        print(*self.draw(run, to), sep="\n")


def read(run: Path, study: str) -> tuple[pd.DataFrame, int]:
    """Return the rows of ``study`` in the run's folder, and the run's entropy."""
    rows = of_study(read_table(run, "experiments/sample_efficiency.py", "study"), study)
    if rows.empty:
        raise InputError(
            f"{run} has no rows of the study {study}; choose a run that has, or make one with --study {study}"
        )
    return rows, store.identity_of(run, entropy=int)["entropy"]


def read_table(run: Path, experiment: str, *columns: str) -> pd.DataFrame:
    """Return the rows of a finished run of ``experiment``, which is known by some ``columns`` of its own."""
    expected = f"expected the folder of a finished {experiment} run"
    if not (run / "results.parquet").exists():
        raise InputError(f"{run} has no results.parquet; {expected}")
    table = store.read_table(run)
    if missing := [name for name in columns if name not in table]:
        raise InputError(f"{run} is a run of something else, without a column {missing[0]}; {expected}")
    return table


def read_summary(run: Path) -> pd.DataFrame:
    """Return the lines of summary.json of a finished ``experiments/replicate.py`` run."""
    try:
        return pd.read_json(run / "summary.json", orient="records", precise_float=True)[[*REPLICATION_COLUMNS]]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{run} has no summary.json of a replication; expected the folder of a finished experiments/replicate.py"
            " run"
        ) from error


def efficiency_figure(run: Path, which: str, *beside: Path) -> Figure:
    """Return the figure ``which`` of a finished ``experiments/data_efficiency.py`` run, and of others beside it."""
    from moe_prompts.vision.data_efficiency import report as curves_report

    tables = [read_table(one, "experiments/data_efficiency.py", "task", "method", "n") for one in (run, *beside)]
    entropy = store.identity_of(run, entropy=int)["entropy"]
    drawn = curves_report.figures_of(pd.concat(tables, ignore_index=True), entropy, [which])
    if which not in drawn:
        raise InputError(f"{run} has no rows of {which}; expected a run of experiments/data_efficiency.py with them")
    return drawn[which]

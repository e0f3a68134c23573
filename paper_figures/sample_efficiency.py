"""Fixed against adaptive prompts: prediction risk and parameter loss against n, from a finished run.

python paper_figures/sample_efficiency.py [--run FOLDER]
"""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from moe_prompts import cli, plots
from moe_prompts.errors import InputError

HERE = Path(__file__).parent
COMMITTED = HERE / "data" / "sample_efficiency"


def draw(run: Path = COMMITTED, to: Path = HERE, name: str = "sample_efficiency") -> list[Path]:
    """The figure of the run in ``run`` as PDF and PNG called ``name`` in ``to``."""
    if not (run / "results.parquet").exists():
        raise InputError(
            f"{run} has no results.parquet; expected the folder of a finished experiments/sample_efficiency.py run"
        )
    entropy = json.loads((run / "meta.json").read_text(encoding="utf-8"))["identity"]["entropy"]
    figure = plots.sample_efficiency_figure(pd.read_parquet(run / "results.parquet"), entropy)
    return plots.save(figure, to, name)


def main() -> None:
    parser = cli.OneLineParser(prog="sample_efficiency.py", description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, default=COMMITTED, help="folder of a run (default: the committed one)")
    print(*draw(parser.parse_args().run), sep="\n")


if __name__ == "__main__":
    cli.run(main, "sample_efficiency.py")

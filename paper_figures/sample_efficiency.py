"""Gaussian gates: prediction risk and parameter loss of fixed and adaptive prompts against n, from a finished run.

python paper_figures/sample_efficiency.py [--run FOLDER]
"""

from __future__ import annotations

from pathlib import Path

import runs

from moe_prompts import cli, plots
from moe_prompts.study.report import GAUSSIAN

COMMITTED = runs.DATA / "sample_efficiency"


def draw(run: Path = COMMITTED, to: Path = runs.HERE, name: str = "sample_efficiency") -> list[Path]:
    """The figure of the run in ``run`` as PDF and PNG called ``name`` in ``to``."""
    return plots.save(plots.sample_efficiency_figure(*runs.read(run, GAUSSIAN)), to, name)


if __name__ == "__main__":
    cli.run(lambda: runs.main("sample_efficiency.py", __doc__, draw, COMMITTED), "sample_efficiency.py")

"""Prompts in attention: prediction risk, parameter errors and noise-free profiles, from a finished run.

python paper_figures/attention.py [--run FOLDER]
"""

from __future__ import annotations

from pathlib import Path

import runs

from moe_prompts import cli, plots
from moe_prompts.study.attention import FITS

COMMITTED = runs.DATA / "sample_efficiency"


def draw(run: Path = COMMITTED, to: Path = runs.HERE, name: str = "attention") -> list[Path]:
    """The figure of the run in ``run`` as PDF and PNG called ``name`` in ``to``."""
    return plots.save(plots.attention_figure(*runs.read(run, FITS)), to, name)


if __name__ == "__main__":
    cli.run(lambda: runs.main("attention.py", __doc__, draw, COMMITTED), "attention.py")

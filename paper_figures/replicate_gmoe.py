"""The published Gaussian-gated simulation run again, from a finished run.

python paper_figures/replicate_gmoe.py [--run FOLDER]
"""

from __future__ import annotations

from pathlib import Path

import runs

from moe_prompts import cli, plots, plots_replication

COMMITTED = runs.DATA / "replicate_gmoe"


def draw(run: Path = COMMITTED, to: Path = runs.HERE, name: str = "replicate_gmoe") -> list[Path]:
    """The figure of the run in ``run`` as PDF and PNG called ``name`` in ``to``."""
    return plots.save(plots_replication.replication_figure(runs.read_summary(run)), to, name)


if __name__ == "__main__":
    cli.run(lambda: runs.main("replicate_gmoe.py", __doc__, draw, COMMITTED), "replicate_gmoe.py")

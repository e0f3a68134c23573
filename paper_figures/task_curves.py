"""Accuracy of prompts against the number of training images: python paper_figures/task_curves.py"""

from __future__ import annotations

from pathlib import Path

import runs

from moe_prompts import cli

COMMITTED = runs.DATA / "task_curves"


def draw(run: Path = COMMITTED, to: Path = runs.HERE) -> list[Path]:
    """Accuracy and cross-entropy against n, beside what theory says of as many parameters, as PDF and PNG in ``to``."""
    return runs.draw_curves(run, to, "tasks", "task_curves")


if __name__ == "__main__":
    cli.run(lambda: runs.main("task_curves.py", __doc__, draw, COMMITTED), "task_curves.py")

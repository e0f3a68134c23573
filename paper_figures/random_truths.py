"""Gaussian gates on five random truths that nobody selected: python paper_figures/random_truths.py"""

from __future__ import annotations

from pathlib import Path

import runs
import sample_efficiency

from moe_prompts import cli


def draw(to: Path = runs.HERE) -> list[Path]:
    """The figure of the committed run as PDF and PNG in ``to``."""
    return sample_efficiency.draw(runs.DATA / "random_truths", to, "random_truths")


if __name__ == "__main__":
    cli.run(lambda: print(*draw(), sep="\n"), "random_truths.py")

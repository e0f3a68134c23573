"""Draw every figure from its committed table: python paper_figures/make_all.py"""

from __future__ import annotations

from pathlib import Path

import random_truths
import sample_efficiency

from moe_prompts import cli

FIGURES = (sample_efficiency.draw, random_truths.draw)


def main(to: Path = Path(__file__).parent) -> None:
    """All figures as PDF and PNG in ``to``."""
    for draw in FIGURES:
        print(*draw(to=to), sep="\n")


if __name__ == "__main__":
    cli.run(main, "make_all.py")

"""The same comparison on five random truths that nobody selected: python paper_figures/random_truths.py"""

from __future__ import annotations

from pathlib import Path

import sample_efficiency

from moe_prompts import cli

COMMITTED = sample_efficiency.HERE / "data" / "random_truths"


def draw(to: Path = sample_efficiency.HERE) -> list[Path]:
    """The figure of the committed run as PDF and PNG in ``to``."""
    return sample_efficiency.draw(COMMITTED, to, "random_truths")


if __name__ == "__main__":
    cli.run(lambda: print(*draw(), sep="\n"), "random_truths.py")

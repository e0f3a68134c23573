"""The published softmax-gated simulation run again: python paper_figures/replicate_sgame.py"""

from __future__ import annotations

from pathlib import Path

import replicate_gmoe
import runs

from moe_prompts import cli


def draw(to: Path = runs.HERE) -> list[Path]:
    """The figure of the committed run as PDF and PNG in ``to``."""
    return replicate_gmoe.draw(runs.DATA / "replicate_sgame", to, "replicate_sgame")


if __name__ == "__main__":
    cli.run(lambda: print(*draw(), sep="\n"), "replicate_sgame.py")

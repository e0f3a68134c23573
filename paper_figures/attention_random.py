"""Prompts in attention in three random configurations: python paper_figures/attention_random.py"""

from __future__ import annotations

from pathlib import Path

import runs

from moe_prompts import cli, plots
from moe_prompts.study.attention import FITS


def draw(to: Path = runs.HERE) -> list[Path]:
    """Noise-free profiles and likelihood gaps of the committed run as PDF and PNG in ``to``."""
    rows, _ = runs.read(runs.DATA / "attention_random", FITS)
    return plots.save(plots.identifiability_figure(rows), to, "attention_random")


if __name__ == "__main__":
    cli.run(lambda: print(*draw(), sep="\n"), "attention_random.py")

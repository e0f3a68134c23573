"""Prompts in attention up to n = 1e7: python paper_figures/attention_1e7.py"""

from __future__ import annotations

from pathlib import Path

import attention
import runs

from moe_prompts import cli


def draw(to: Path = runs.HERE) -> list[Path]:
    """The figure of the committed run as PDF and PNG in ``to``."""
    return attention.draw(runs.DATA / "attention_1e7", to, "attention_1e7")


if __name__ == "__main__":
    cli.run(lambda: print(*draw(), sep="\n"), "attention_1e7.py")

"""Prompts planted in a Vision Transformer: python paper_figures/planted_vit.py"""

from __future__ import annotations

from pathlib import Path

import runs

from moe_prompts import cli

COMMITTED = runs.DATA / "planted_vit"


def draw(run: Path = COMMITTED, to: Path = runs.HERE) -> list[Path]:
    """Excess risk of students against n as PDF and PNG in ``to``."""
    return runs.draw_curves(run, to, "planted", "planted_vit")


if __name__ == "__main__":
    cli.run(lambda: runs.main("planted_vit.py", __doc__, draw, COMMITTED), "planted_vit.py")

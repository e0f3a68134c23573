"""Draw every figure from its committed table: python paper_figures/make_all.py"""

from __future__ import annotations

import sample_efficiency

from moe_prompts import cli

FIGURES = (sample_efficiency.draw,)


def main() -> None:
    for draw in FIGURES:
        print(*draw(), sep="\n")


if __name__ == "__main__":
    cli.run(main, "make_all.py")

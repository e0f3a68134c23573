"""Draw every figure from its committed table: python paper_figures/make_all.py"""

from __future__ import annotations

from pathlib import Path

import attention
import attention_1e7
import attention_random
import planted_head
import planted_vit
import random_truths
import replicate_gmoe
import replicate_sgame
import runs
import sample_efficiency
import task_curves

from moe_prompts import cli

FIGURES = {
    "attention": attention.draw,
    "attention_1e7": attention_1e7.draw,
    "attention_random": attention_random.draw,
    "sample_efficiency": sample_efficiency.draw,
    "planted_head": planted_head.draw,
    "random_truths": random_truths.draw,
    "replicate_gmoe": replicate_gmoe.draw,
    "replicate_sgame": replicate_sgame.draw,
    "planted_vit": planted_vit.draw,
    "task_curves": task_curves.draw,
}


def main(to: Path = runs.HERE) -> None:
    """All figures as PDF and PNG in ``to``."""
    for draw in FIGURES.values():
        print(*draw(to=to), sep="\n")


if __name__ == "__main__":
    cli.run(main, "make_all.py")

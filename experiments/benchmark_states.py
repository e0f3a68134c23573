"""Measure what a training step costs with prompts in the last blocks alone, and with the states before them kept.

Four ways, with packed trials and in one thread: prompts in all blocks; prompts in the last blocks, where every step
computes the blocks before them; the same with the states that enter the first of these blocks read from a file; and
that in bfloat16, where the processor multiplies it itself. The second and the third end with the same parameters, bit
for bit, and the command fails where they do not. Each round makes all of them, so that a busy machine disturbs all
alike; a ratio is the median of ratios within a round.

python experiments/benchmark_states.py
python experiments/benchmark_states.py --backbone small-random --size 32 --last-blocks 2 --trials 2 --steps 1 --rounds 1
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"  # before torch loads: every figure is of one thread

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from moe_prompts import cli
from moe_prompts.errors import InputError
from moe_prompts.tables import markdown

BATCH, TRAINING = 32, 200
METHODS = ("vpt_deep", "vapt")
#: The rates of the trials lie between these.
RATES = (0.01, 0.25)
#: How many times cheaper a step is to be.
TARGET = 3.0
HEADER = (
    "method",
    "all blocks, ms",
    "last blocks, ms",
    "with states, ms",
    "bfloat16, ms",
    "last blocks: times cheaper",
    "with states: times cheaper",
    "bfloat16: times cheaper",
)


def measure(method: str, arguments: argparse.Namespace) -> tuple[list[str], bool]:
    """Return the row of a method (milliseconds of a step of one trial) and whether kept states change no bit."""
    import torch

    from moe_prompts.vision import PackedTrials, create_backbone
    from moe_prompts.vision.backbones.normalisation import normalisation_of
    from moe_prompts.vision.tasks import procedural_task
    from moe_prompts.vision.training.methods import Sizes, config
    from moe_prompts.vision.training.runs import first_read
    from moe_prompts.vision.training.sgd import (
        Recipe,
        Setting,
        Trial,
        init_generator,
        multiplies_bfloat16,
        train_packed,
    )
    from moe_prompts.vision.training.states import kept_states

    recipe = Recipe(steps=arguments.steps, batch=BATCH, normalisation=normalisation_of(arguments.backbone))
    task = procedural_task("count", size=arguments.size, n_train=TRAINING)
    images = task.split("train800")
    backbone = create_backbone(arguments.backbone, size=arguments.size).requires_grad_(False).eval()
    pack = [Trial(Setting(float(lr), 1e-4), 0) for lr in np.geomspace(*RATES, arguments.trials)]
    last = Sizes(blocks=arguments.last_blocks)
    first = first_read(method, last, backbone)
    if not first:
        raise InputError(
            f"--last-blocks {arguments.last_blocks}: all of {arguments.backbone}; expected fewer, at most "
            f"{len(backbone.blocks) - 1}"
        )

    def trained(sizes: Sizes, read, recipe: Recipe = recipe) -> tuple[float, list[dict[str, torch.Tensor]]]:
        packed = PackedTrials(
            backbone, config(method, sizes, backbone), task.classes, [init_generator(one.seed) for one in pack]
        )
        began = time.process_time()
        train_packed(packed, read, pack, recipe)
        return time.process_time() - began, [packed.trial(index) for index in range(arguments.trials)]

    with TemporaryDirectory() as folder:
        recipes = [recipe, *([replace(recipe, precision="bfloat16")] if multiplies_bfloat16() else [])]
        states = [
            kept_states(backbone, first, images, one.normalisation, one.precision, Path(folder)) for one in recipes
        ]
        times, same = [], True
        for _ in range(arguments.rounds + 1):  # the first warms up
            (whole, _), (part, computed), (kept, read), *short = (
                trained(Sizes(), images),
                trained(last, images),
                *(trained(last, own, one) for own, one in zip(states, recipes, strict=True)),
            )
            times.append((whole, part, kept, *(seconds for seconds, _ in short)))
            pairs = zip(computed, read, strict=True)
            same = same and all(torch.equal(one[name], other[name]) for one, other in pairs for name in one)
    found = np.array(times[1:])
    each = 1e3 * np.median(found, axis=0) / (arguments.steps * arguments.trials)
    ratios = np.median(found[:, :1] / found[:, 1:], axis=0)
    missing = ["-"] * (4 - len(each))
    shown = [*(f"{value:.1f}" for value in each), *missing], [*(f"{ratio:.2f}" for ratio in ratios), *missing]
    return [method, *shown[0], *shown[1]], same


def parser() -> argparse.ArgumentParser:
    parser = cli.OneLineParser(
        "benchmark_states.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--backbone", default="dinov2-small-focus", help="(default dinov2-small-focus)")
    add("--size", type=cli.positive("pixels"), default=56, help="of the images (default 56)")
    add("--last-blocks", type=cli.positive("blocks"), default=6, help="prompts in the last so many (default 6)")
    add("--trials", type=cli.positive("trials"), default=8, help="settings in a pack (default 8)")
    add("--steps", type=cli.positive("steps"), default=2, help="of each training (default 2)")
    add("--rounds", type=cli.positive("rounds"), default=3, help="trainings of each way (default 3)")
    return parser


def main() -> None:
    arguments = parser().parse_args()
    import torch

    torch.set_num_threads(1)
    measured = [measure(method, arguments) for method in METHODS]
    rows = [row for row, _ in measured]
    print(markdown(HEADER, rows))
    print(f"\ntarget: {TARGET:g} times cheaper than prompts in all blocks in float32")
    for name, column in (("float32", -2), ("bfloat16", -1)):
        found = [float(row[column]) for row in rows if row[column] != "-"]
        met = f"met in {sum(ratio >= TARGET for ratio in found)} of {len(found)}" if found else "not measured"
        print(f"in {name}: {met}")
    if not all(same for _, same in measured):
        sys.exit("benchmark_states.py: kept states ended with other parameters than computed ones")


if __name__ == "__main__":
    cli.run(main, "benchmark_states.py")

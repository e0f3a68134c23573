"""Measure what packing saves: 8 settings trained as one model against the same 8 trained one by one.

Each round trains both ways, so that a busy machine disturbs both; the ratio is the median of ratios within a round.

python experiments/benchmark_packed.py --methods vpt_deep,vapt --rounds 9
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"  # before torch loads: every figure is of one thread

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from moe_prompts import cli
from moe_prompts.errors import InputError
from moe_prompts.tables import markdown

PAGE = Path(__file__).parents[1] / "docs" / "packed_benchmark.md"
PACKED = ("linear", "vpt_shallow", "vpt_deep", "vpt_matched", "vapt")
ALONE = ("bias", "full")
COLUMNS = ("method", "one by one, ms", "packed, ms", "times faster", "largest difference")


def measure(method: str, trials: int, steps: int, rounds: int, device: str) -> list[str]:
    """Return a row of the table: milliseconds of a step of one trial, both ways."""
    from copy import deepcopy

    import torch

    from moe_prompts.vision import PackedTrials, create_backbone, prompt
    from moe_prompts.vision.prompting.prompted import new_head, prompt_parameters
    from moe_prompts.vision.tasks import procedural_task
    from moe_prompts.vision.training.methods import Sizes, config, trainable_copy
    from moe_prompts.vision.training.sgd import Recipe, Setting, Trial, init_generator, train_alone, train_packed

    task, recipe = procedural_task("count"), Recipe(steps=steps)
    images = task.split("train800")
    backbone = create_backbone("small-random").requires_grad_(False).eval().to(device)
    prompts = config(method, Sizes(), backbone)
    pack = [Trial(Setting(lr, 1e-4), 0) for lr in np.geomspace(0.1, 2.5, trials)]

    def together() -> list[dict[str, torch.Tensor]]:
        packed = PackedTrials(backbone, prompts, task.classes, [init_generator(one.seed) for one in pack])
        train_packed(packed, images, pack, recipe)
        return [packed.trial(index) for index in range(trials)]

    def alone(trial: Trial) -> dict[str, torch.Tensor]:
        model = deepcopy(backbone)
        if method in ALONE:
            own = trainable_copy(method, backbone, task.classes, init_generator(trial.seed))
            train_alone(own, images, trial, recipe)
            return {}
        if prompts is None:
            model.head = new_head(model, task.classes, init_generator(trial.seed)).requires_grad_(True)
            train_alone(model, images, trial, recipe)
            return {f"head.{name}": value for name, value in model.head.named_parameters()}
        prompted = prompt(model, prompts, task.classes, rng=init_generator(trial.seed), head="published")
        train_alone(prompted, images, trial, recipe)
        return dict(prompt_parameters(prompted))

    clock = time.perf_counter if device == "cuda" else time.process_time
    times: list[tuple[float, float]] = []
    for _ in range(rounds + 1):  # the first warms up
        began = clock()
        ends = [alone(trial) for trial in pack]
        between = clock()
        packed = [] if method in ALONE else together()
        times.append((between - began, clock() - between))
    found = np.array(times[1:])
    each = 1e3 * np.median(found, axis=0) / (steps * trials)
    if method in ALONE:
        return [method, f"{each[0]:.1f}", "", "", ""]
    apart = max(
        float((one[name].detach() - other[name].detach()).abs().max() / other[name].detach().abs().max().clamp(min=1))
        for one, other in zip(packed, ends, strict=True)
        for name in one
    )
    ratio = np.median(found[:, 0] / found[:, 1])
    return [method, f"{each[0]:.1f}", f"{each[1]:.1f}", f"{ratio:.2f}", f"{apart:.0e}"]


def page(rows: list[list[str]], command: str, where: str, trials: int, steps: int, rounds: int) -> str:
    """Return the page: the table of these rows, and how the command measured them.

    where  the device, in words
    """
    return "\n".join(
        [
            "# What packing trials saves",
            "",
            f"Written by `python experiments/{command}` on {where}.",
            f"Milliseconds of a training step of one trial, {trials} settings packed and one by one: d 64, 4",
            f"blocks, 32 pixels in patches of 8, batch 64, float32. {steps} steps, medians of {rounds} rounds.",
            "*times faster* is the median of ratios within a round, *largest difference* that of any parameter at the",
            "end, relative to the largest entry of its group (or 1). bias and full change the backbone: not packed.",
            "",
            markdown(COLUMNS, rows),
        ]
    )


def parser() -> argparse.ArgumentParser:
    parser = cli.OneLineParser(
        "benchmark_packed.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--methods", type=cli.names, default=[*PACKED, *ALONE], help="(default all but the controls)")
    add("--trials", type=cli.positive("trials"), default=8, help="settings in a pack (default 8)")
    add("--steps", type=cli.positive("steps"), default=5, help="of each training (default 5)")
    add("--rounds", type=cli.positive("rounds"), default=7, help="trainings both ways (default 7)")
    add("--device", default="cpu", choices=("cpu", "cuda"), help="(default cpu)")
    return parser


def main() -> None:
    arguments = parser().parse_args()
    unknown = [one for one in arguments.methods if one not in (*PACKED, *ALONE)]
    if unknown:
        raise InputError(f"--methods {unknown[0]}; expected some of {', '.join((*PACKED, *ALONE))}")
    import torch

    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda; torch sees no GPU here: use --device cpu")
    torch.set_num_threads(1)
    rows = []
    for method in arguments.methods:
        rows.append(measure(method, arguments.trials, arguments.steps, arguments.rounds, arguments.device))
        print("  ".join(rows[-1]), flush=True)
    from benchmark_vision import where

    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
    own = page(rows, command, where(arguments.device), arguments.trials, arguments.steps, arguments.rounds)
    PAGE.write_text(own + "\n", encoding="utf-8")
    print(f"table     {PAGE}")


if __name__ == "__main__":
    cli.run(main, "benchmark_packed.py")

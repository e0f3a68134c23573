"""Measure what packing saves: 8 settings trained as one model against the same 8 trained one by one.

Each round trains both ways, so that a busy machine disturbs both; the ratio is the median of ratios within a round.

python experiments/benchmark_packed.py --methods vpt_deep,vapt,lora --rounds 9
python experiments/benchmark_packed.py --backbone dinov2-small-focus --methods vapt,lora,adapter,bias --rounds 3
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"  # before torch loads: every figure is of one thread

import argparse
import time
from pathlib import Path

import numpy as np

from moe_prompts import cli
from moe_prompts.errors import InputError
from moe_prompts.tables import body_of, markdown

PAGE = Path(__file__).parents[1] / "docs" / "packed_benchmark.md"
PROMPTS = ("linear", "vpt_shallow", "vpt_deep", "vpt_matched", "vapt")
PEERS = ("lora", "lora_matched", "adapter", "bias")
#: Not packed: its trials share nothing.
ALONE = ("full",)
#: Backbone -> size of images, images in a step, blocks that are changed, from the last one, and rates.
BACKBONES = {"small-random": (32, 64, 4, (0.1, 2.5)), "dinov2-small-focus": (56, 32, 6, (0.01, 0.25))}
COLUMNS = (
    "backbone",
    "trials",
    "steps",
    "rounds",
    "method",
    "one by one, ms",
    "packed, ms",
    "times faster",
    "largest difference",
)
METHOD = COLUMNS.index("method")
MEASURED = "Measured on "


def measure(name: str, method: str, trials: int, steps: int, rounds: int, device: str) -> list[str]:
    """Return a row of the table: milliseconds of a step of one trial, both ways."""
    from copy import deepcopy
    from tempfile import TemporaryDirectory

    import torch

    from moe_prompts.vision import PackedTrials, create_backbone, prompt
    from moe_prompts.vision.backbones.normalisation import normalisation_of
    from moe_prompts.vision.prompting.prompted import new_head, prompt_parameters
    from moe_prompts.vision.tasks import procedural_task
    from moe_prompts.vision.training.methods import TRAINS_BACKBONE, Sizes, config, trainable_copy
    from moe_prompts.vision.training.packed_peers import PackedPeers
    from moe_prompts.vision.training.runs import first_read
    from moe_prompts.vision.training.sgd import Recipe, Setting, Trial, init_generator, train_alone, train_packed
    from moe_prompts.vision.training.states import kept_states

    size, batch, blocks, rates = BACKBONES[name]
    recipe = Recipe(steps=steps, batch=batch, normalisation=normalisation_of(name))
    task = procedural_task("count", size=size, n_train=200)
    images = task.split("train800")
    backbone = create_backbone(name, size=size).requires_grad_(False).eval().to(device)
    sizes = Sizes(blocks=blocks)
    prompts, first = config(method, sizes, backbone), first_read(method, sizes, backbone)
    pack = [Trial(Setting(lr, 1e-4), 0) for lr in np.geomspace(*rates, trials)]
    with TemporaryDirectory() as folder:
        read = images
        if first:
            read = kept_states(backbone, first, images, recipe.normalisation, recipe.precision, Path(folder))

        def together() -> list[dict[str, torch.Tensor]]:
            rngs = [init_generator(one.seed) for one in pack]
            if method in PEERS:
                packed = PackedPeers(backbone, method, task.classes, rngs, sizes)
            else:
                packed = PackedTrials(backbone, prompts, task.classes, rngs)
            train_packed(packed, read, pack, recipe)
            return [packed.trial(index) for index in range(trials)]

        def alone(trial: Trial) -> dict[str, torch.Tensor]:
            if method in TRAINS_BACKBONE:
                own = trainable_copy(method, backbone, task.classes, init_generator(trial.seed), sizes)
                trained = {name: value for name, value in own.named_parameters() if value.requires_grad}
                train_alone(own, images, trial, recipe)
                return trained
            model = deepcopy(backbone)
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
    row = [name, str(trials), str(steps), str(rounds), method, f"{each[0]:.1f}"]
    if method in ALONE:
        return [*row, "", "", ""]
    apart = max(
        float((one[name].detach() - other[name].detach()).abs().max() / other[name].detach().abs().max().clamp(min=1))
        for one, other in zip(packed, ends, strict=True)
        for name in one
    )
    ratio = np.median(found[:, 0] / found[:, 1])
    return [*row, f"{each[1]:.1f}", f"{ratio:.2f}", f"{apart:.0e}"]


def page(rows: list[list[str]], kept: list[list[str]], where: str) -> str:
    """Return the page: rows of this run with ``kept`` ones of other backbones and methods.

    where  the device, in words
    """
    new = {(row[0], row[METHOD]) for row in rows}
    rows = [row for row in kept if (row[0], row[METHOD]) not in new] + rows
    order = (*PROMPTS, *PEERS, *ALONE)
    rows = sorted(rows, key=lambda row: (list(BACKBONES).index(row[0]), order.index(row[METHOD])))
    commands = []
    for setting in dict.fromkeys(tuple(row[:METHOD]) for row in rows):
        name, trials, steps, rounds = setting
        methods = ",".join(row[METHOD] for row in rows if tuple(row[:METHOD]) == setting)
        told = f"--backbone {name} --methods {methods} --trials {trials} --steps {steps} --rounds {rounds}"
        commands.append(f"    python experiments/benchmark_packed.py {told}")
    return "\n".join(
        [
            "# What packing trials saves",
            "",
            f"{MEASURED}{where}.",
            "Milliseconds of a training step of one trial, settings packed and one by one, float32, medians of rounds.",
            "*times faster* is the median of ratios within a round, *largest difference* that of any parameter at the",
            "end, relative to the largest entry of its group (or 1).",
            "",
            "- `small-random`: d 64, 4 blocks, all of them changed, 32 pixels in patches of 8, batch 64.",
            "- `dinov2-small-focus`: the real backbone as `data_efficiency.py --preset real` has it: the last 6 blocks",
            "  changed, 56 pixels, batch 32. Packed trials read kept states of the blocks before; one by one, every",
            "  step computes them.",
            "",
            "LoRA has rank 8 in queries, keys and values. Its trials share the products with the weights of the first",
            "changed block; from the second on each trial has states of its own, and only the last block, of which one",
            "row is computed, is cheaper. Biases change the embedding: nothing can be kept and no product is shared.",
            "full trains every weight: its trials share nothing and are not packed.",
            "",
            "The difference of vapt on the real backbone is not rounding: with prompts in the last blocks only, packed",
            "trials also draw dropout masks for the blocks before, so both ways see other masks of the same law.",
            "",
            "Written by",
            "",
            *commands,
            "",
            markdown(COLUMNS, rows),
        ]
    )


def parser() -> argparse.ArgumentParser:
    parser = cli.OneLineParser(
        "benchmark_packed.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--backbone", default="small-random", choices=tuple(BACKBONES), help="(default small-random)")
    add("--methods", type=cli.names, default=[*PROMPTS, *PEERS, *ALONE], help="(default all but the controls)")
    add("--trials", type=cli.positive("trials"), default=8, help="settings in a pack (default 8)")
    add("--steps", type=cli.positive("steps"), default=5, help="of each training (default 5)")
    add("--rounds", type=cli.positive("rounds"), default=7, help="trainings both ways (default 7)")
    add("--device", default="cpu", choices=("cpu", "cuda"), help="(default cpu)")
    return parser


def main() -> None:
    arguments = parser().parse_args()
    unknown = [one for one in arguments.methods if one not in (*PROMPTS, *PEERS, *ALONE)]
    if unknown:
        raise InputError(f"--methods {unknown[0]}; expected some of {', '.join((*PROMPTS, *PEERS, *ALONE))}")
    import torch

    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda; torch sees no GPU here: use --device cpu")
    torch.set_num_threads(1)
    rows, (trials, steps, rounds) = [], (arguments.trials, arguments.steps, arguments.rounds)
    for method in arguments.methods:
        rows.append(measure(arguments.backbone, method, trials, steps, rounds, arguments.device))
        print("  ".join(rows[-1]), flush=True)
    from benchmark_vision import where

    device = where(arguments.device)
    earlier = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    # Rows of another device do not compare.
    kept = body_of(earlier, COLUMNS) if f"{MEASURED}{device}." in earlier else []
    PAGE.write_text(page(rows, kept, device) + "\n", encoding="utf-8")
    print(f"table     {PAGE}")


if __name__ == "__main__":
    cli.run(main, "benchmark_packed.py")

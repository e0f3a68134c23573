"""Pretrain a small Vision Transformer on images drawn by formula, and say whether it learned anything of use.

    train   images are drawn, each seen once; a run that was killed is completed by the same command
    check   linear probes of class tokens on the stand-in tasks: this backbone, the untrained one, and raw pixels

The checkpoint counts as pretrained only if its probe beats both others on every task; check writes that into its JSON.

python experiments/pretrain.py train --out results/small
python experiments/pretrain.py check results/small/backbone.safetensors
python experiments/pretrain.py train --model vit_tiny --size 64 --device cuda --steps 100000 --out results/tiny
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from moe_prompts import cli
from moe_prompts.errors import InputError
from moe_prompts.shown import COLUMNS, Ending

LEGEND = "trained, random, pixels: test accuracy of a linear probe on this backbone, on drawn weights and on pixels."
#: Tasks of the rule for "counts as pretrained", as it was when the shipped backbone was judged.
JUDGED_BY = ("dsprites_loc", "dsprites_ori", "count", "distance", "digits")


def parser() -> argparse.ArgumentParser:
    parser = cli.OneLineParser("pretrain.py", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, parser_class=cli.OneLineParser)
    add = (
        cli.add_part(
            commands,
            "train",
            "pretrain, or go on with a pretraining",
            str(__doc__),
            "Pretrain on drawn images, each seen once; a run that was killed is completed by the same command.",
        )
        .add_argument_group("options")
        .add_argument
    )
    add("--model", default="small", help="small or vit_tiny (default small)")
    add("--size", type=int, default=32, help="side of the images, 32 or 64 pixels (default 32)")
    add("--steps", type=cli.positive("steps"), default=5000, help="optimiser steps (default 5000)")
    add("--batch", type=cli.positive("images"), default=128, help="images a step, a multiple of 64 (default 128)")
    add("--learning-rate", type=float, default=3e-3, help="the highest one (default 3e-3)")
    add("--weight-decay", type=float, default=0.02, help="of AdamW, on weights alone (default 0.02)")
    add("--entropy", type=int, default=0, help="of images and initial weights (default 0)")
    add("--device", default="cpu", help="where it is computed: cpu, or cuda where there is one (default cpu)")
    add("--out", type=cli.folder, default=None, help="folder (default: a new one under results/)")
    add = (
        cli.add_part(
            commands,
            "check",
            "what its class token says about the stand-in tasks",
            str(__doc__),
            "Compare linear probes on the stand-in tasks: of this backbone, of the untrained one, and of raw pixels.",
        )
        .add_argument_group("options")
        .add_argument
    )
    add("checkpoint", type=Path, help="a backbone.safetensors that train wrote, with its JSON beside it")
    add("--train", type=cli.positive("images"), default=1000, help="training images of each task (default 1000)")
    add("--test", type=cli.positive("images"), default=None, help="test images (default 2000, of digits 797)")
    add("--entropy", type=int, default=0, help="of the tasks' images; the JSON keeps the verdict of 0 (default 0)")
    return parser


def train(arguments: argparse.Namespace) -> None:
    import torch
    from tqdm import tqdm

    from moe_prompts.vision.backbones.pretraining import Pretraining, export, pretrain

    if arguments.device != "cpu" and not torch.cuda.is_available():
        raise InputError(f"--device {arguments.device}; this machine has no such device: expected cpu")
    torch.set_num_threads(1)
    config = Pretraining(
        model=arguments.model,
        size=arguments.size,
        steps=arguments.steps,
        batch=arguments.batch,
        learning_rate=arguments.learning_rate,
        weight_decay=arguments.weight_decay,
        entropy=arguments.entropy,
    )
    out = arguments.out or cli.default_folder("pretrain")
    out.mkdir(parents=True, exist_ok=True)
    state = out / "state.safetensors"
    with tqdm(total=config.steps, unit="step", ncols=COLUMNS) as bar:
        for run in pretrain(config, state, device=arguments.device):
            bar.update(run.done - bar.n)
            bar.set_postfix_str(" ".join(f"{name} {value:.2f}" for name, value in run.recent.items()), refresh=False)

    export(run, out)
    cli.print_files(out, {"backbone.safetensors": "weights", "backbone.json": "how they were made"})


def check(arguments: argparse.Namespace) -> None:
    import torch

    from moe_prompts.engine.files import write_atomically
    from moe_prompts.vision.backbones.pretraining import load_export
    from moe_prompts.vision.backbones.probe import counts_as_pretrained, judge
    from moe_prompts.vision.tasks.procedural import procedural_task

    torch.set_num_threads(1)
    trained, untrained, facts = load_export(arguments.checkpoint)
    size = facts["config"]["size"]
    tasks: list[Any] = [
        procedural_task(name, size, arguments.train, arguments.test, arguments.entropy) for name in JUDGED_BY
    ]
    table = judge(trained, untrained, tasks)
    counts = counts_as_pretrained(table)
    header = ["task", "chance", "trained", "random", "pixels"]
    body = [[task, *(f"{share:.4f}" for share in shares)] for task, *shares in table[header].itertuples(index=False)]
    found = "counts as pretrained" if counts else "does NOT count as pretrained: it is beaten somewhere"
    print(Ending([f"{arguments.checkpoint.name} {found}."], header, body, LEGEND))
    if arguments.entropy != 0:
        return
    facts |= {
        "probes": {"training images": arguments.train, "rows": table.round(4).to_dict("records")},
        "counts as pretrained": counts,
    }
    write_atomically(arguments.checkpoint.with_suffix(".json"), (json.dumps(facts, indent=2) + "\n").encode())


def main() -> None:
    arguments = parser().parse_args()
    {"train": train, "check": check}[arguments.command](arguments)

"""Compare where prompts begin, and which optimiser finds them, on planted truths in a Vision Transformer.

Three teachers of each kind, fixed and adaptive, make the labels, so a student's excess risk is exact given images.
Students are VPT and VAPT from each start, trained on images that no step sees twice, once with each rate; validation
labels choose the rate. Prints excess risk, chosen rates, first gradient ratios, and what each start gains over the
official one. A run that was stopped goes on with --resume, and --shard splits it over hosts.

python experiments/starts.py                     # --preset part: about 10 minutes of one core
python experiments/starts.py --preset night      # all starts and optimisers
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moe_prompts import cli

if TYPE_CHECKING:
    import pandas as pd

#: What a preset says where nothing else is given. Steps and batch are of images that no step sees twice.
PRESETS: dict[str, dict[str, Any]] = {
    "part": {
        "students": ["fixed", "official", "tokens", "gain", "vpt"],
        "optimisers": ["sgd", "adamw"],
        "teachers": 3,
        "reps": 1,
        "steps": 120,
        "batch": 32,
        "grid": "narrow",
    },
    "night": {
        "students": ["fixed", "fixed-tokens", "official", "tokens", "orthogonal", "gain", "vpt", "official+offset"],
        "optimisers": ["sgd", "sgd-mu", "adamw", "adamw-mu", "lamb"],
        "teachers": 3,
        "reps": 2,
        "steps": 600,
        "batch": 64,
        "grid": "wide",
    },
}
QUICK = {"students": ["official", "tokens"], "optimisers": ["sgd"], "teachers": 1, "reps": 1, "steps": 3, "batch": 8}


def parser() -> argparse.ArgumentParser:
    parser = cli.OneLineParser("starts.py", description=__doc__)
    add = parser.add_argument_group("what is trained").add_argument
    add("--preset", choices=PRESETS, default="part", help="what is not given (default part)")
    add("--quick", action="store_true", help="few steps: a smoke run")
    add("--students", type=cli.names, help="fixed, fixed-tokens, official, tokens, orthogonal, gain, vpt, ...")
    add("--optimisers", type=cli.names, help="sgd, adamw, lamb; with -mu rates by sizes: sgd-mu, adamw-mu")
    add("--teachers", type=cli.positive("teachers"), help="of each kind")
    add("--reps", type=cli.positive("replicates"), help="starts of each student")
    add("--steps", type=cli.positive("steps"), help="of each training")
    add("--batch", type=cli.positive("images"), help="in a step")
    add("--grid", choices=["narrow", "wide"], help="of rates; wide: two more for AdamW (default that of the preset)")
    add("--tokens", type=cli.positive("tokens"), default=4, help="of teachers and students (default 4)")
    add("--backbone", default="small-gain", help="small-gain, small, or another one (default small-gain)")
    cli.add_execution(parser)
    cli.add_shard(parser)
    cli.add_run(parser, "entropy of everything")
    return parser


def main() -> None:
    cli.one_thread()
    arguments = parser().parse_args()
    cli.check_run(arguments)
    cli.fill_in(arguments, PRESETS[arguments.preset] | (QUICK if arguments.quick else {}))

    from moe_prompts.vision.backbones.create import check_name
    from moe_prompts.vision.backbones.normalisation import normalisation_of
    from moe_prompts.vision.data_efficiency.screening import OPTIMISERS, WIDER, screening
    from moe_prompts.vision.training.devices import processes
    from moe_prompts.vision.training.methods import Sizes
    from moe_prompts.vision.training.runs import Setup
    from moe_prompts.vision.training.sgd import Recipe

    check_name(arguments.backbone)
    recipe = Recipe(steps=arguments.steps, batch=arguments.batch, normalisation=normalisation_of(arguments.backbone))
    setup = Setup(arguments.backbone, sizes=Sizes(arguments.tokens), recipe=recipe)
    study = screening(
        arguments.students,
        arguments.optimisers,
        arguments.teachers,
        arguments.reps,
        setup,
        arguments.seed,
        WIDER if arguments.grid == "wide" else OPTIMISERS,
    )
    arguments.workers = processes(setup.device, arguments.workers, arguments.executor, arguments.scheduler)
    out = arguments.out or cli.default_folder("starts")
    tell(cli.results(study, out, arguments, "starts.py"), out)


def tell(results: pd.DataFrame, out: Path) -> None:
    """Write the report with the figure, then print it."""
    from moe_prompts.figures.style import save
    from moe_prompts.vision.data_efficiency.figures import starts_figure
    from moe_prompts.vision.data_efficiency.screening import ending_of, screening_table, text

    summary = screening_table(results)
    tables = {"summary.json": summary.to_json(orient="records", indent=2)}
    draw = partial(save, starts_figure(summary), out, "starts")
    cli.finish(out, text(results), ending_of(results), tables, draw, len(results))

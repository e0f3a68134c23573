"""Put what theory predicts of a run of data_efficiency.py on tasks beside what the run observed.

Fits are trained again as the run trained them. The Fisher information of prompts and head at each fit, through the
products of gradients of single images, says how many parameters the fit really uses; P_eff / (2 n) is the excess
risk that it should pay. docs/pretrained_study.md says the rules V-excess, V-floor, V-cross and V-winner.

python experiments/predicted_excess.py --run results/real-first --states results/states --out results/real-first-link
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moe_prompts import cli
from moe_prompts.errors import InputError

if TYPE_CHECKING:
    import pandas as pd


#: Images whose gradients are taken, and those of a smoke run.
IMAGES, QUICK = 1000, 20
#: Columns of a run's table that say which fits to train again.
COLUMNS = {"task", "method", "n", "replicate", "lr", "weight_decay"}
#: Fewest steps of the trainings that the rules were registered for.
STEPS = 100


def parser() -> argparse.ArgumentParser:
    parser = cli.OneLineParser("predicted_excess.py", description=__doc__)
    add = parser.add_argument_group("the run, and what of it").add_argument
    add("--run", type=Path, required=True, metavar="FOLDER", help="a finished run of data_efficiency.py on drawn tasks")
    add("--task", type=cli.names, help="of the run's tasks, by their names in its table (default: all)")
    add(
        "--methods", type=cli.names, help="of the run's methods (default: all whose images have gradients of their own)"
    )
    add("--n", metavar="LIST", help="of the run's sizes (default: all)")
    add(
        "--images",
        type=cli.positive("images"),
        help="whose gradients are taken; P_eff has to be smaller (default 1000, at most 10000)",
    )
    add("--quick", action="store_true", help=f"smallest n, {QUICK} images, if not given: a smoke run of minutes")
    add("--reps", type=cli.positive("replicates"), default=1, help="of each fit, at most those of the run (default 1)")
    add(
        "--states",
        type=Path,
        metavar="FOLDER",
        help="of states before the prompts (default: none; up to 256 MB in memory)",
    )
    add("--weights", type=Path, metavar="FILE", help="of the backbone, where the run had a file")
    cli.add_execution(parser)
    cli.add_shard(parser)
    cli.add_run(parser, "that of the run, and no other", None)
    return parser


def main() -> None:
    cli.one_thread()
    arguments = parser().parse_args()
    arguments.images = arguments.images or (QUICK if arguments.quick else IMAGES)

    from moe_prompts.engine.store import WEIGHTS, described_in, identity_of, other_weights, read_table
    from moe_prompts.vision.data_efficiency.curves import FRESH
    from moe_prompts.vision.data_efficiency.effective import effective_study
    from moe_prompts.vision.data_efficiency.sources import TaskImages
    from moe_prompts.vision.tasks.named import STAND_IN, TaskSpec
    from moe_prompts.vision.training.devices import processes

    curves = read_table(arguments.run)
    identity = identity_of(arguments.run, entropy=int)
    if "place" not in identity or COLUMNS - set(curves):
        raise InputError(
            f"{arguments.run}: a run without methods on tasks; expected one of data_efficiency.py on tasks"
        )
    if arguments.quick and arguments.n is None:
        arguments.n = str(min((n for n in curves["n"] if n != FRESH), default=0))
    with described_in(arguments.run / "meta.json"):
        setup, entropy = setup_of(identity["place"], arguments), identity["entropy"]
    if arguments.seed not in (None, entropy):
        raise InputError(f"--seed {arguments.seed}; expected {entropy}, that of {arguments.run}, or none")
    arguments.seed = entropy
    cli.check_run(arguments)
    cli.check_writable(arguments.states, "--states")
    drawn = [str(name) for name in curves["task"].unique() if str(name).startswith(STAND_IN)]
    of_run = {name: TaskImages(TaskSpec(name, size=setup.size or 32, entropy=entropy)) for name in drawn}
    there = [name for name, source in of_run.items() if source.endless]  # others have no images but the run's own
    full = [name if name in there else STAND_IN + name for name in arguments.task or there]
    unknown = [name for name in full if name not in there]
    if unknown or not full:
        raise InputError(f"--task {', '.join(unknown)}; expected drawn tasks of the run: {', '.join(there) or 'none'}")
    loaded = setup.loaded()  # a backbone that is not there is said before every fit says it
    with described_in(arguments.run / "meta.json"):
        others = other_weights(identity, {WEIGHTS: loaded})
    if others:
        raise InputError(
            f"--run {arguments.run}: its backbone {others[0]} has other weights than are loaded here (their hash in "
            "meta.json differs); expected the same: put them back where its name is loaded from, or run "
            "data_efficiency.py anew"
        )
    sources = [of_run[name] for name in full]
    study = effective_study(asked(curves, arguments), sources, setup, arguments.images, arguments.reps, entropy)
    arguments.workers = processes(setup.device, arguments.workers, arguments.executor, arguments.scheduler)
    out = arguments.out or cli.default_folder("predicted-excess")
    results = cli.results(study, out, arguments, "predicted_excess.py")
    tell(results, curves, entropy, out, smoke_of(arguments.images, setup.recipe.steps))


def smoke_of(images: int, steps: int | None) -> str:
    """Return what makes a run smaller than those that the rules are for, in words; "" if nothing does.

    images  whose gradients are taken
    steps   of each training of the run; None where epochs were given
    """
    small = [] if images >= IMAGES else [f"gradients of {images} images, where the registered rule wants {IMAGES}"]
    if steps is not None and steps < STEPS:
        small.append(f"trainings of {steps} steps, where it wants at least {STEPS}")
    return "; ".join(small)


def setup_of(place: dict[str, Any], arguments: argparse.Namespace):
    """Return the setup of the run, from what its meta.json says."""
    from moe_prompts.vision.training.methods import Sizes
    from moe_prompts.vision.training.runs import Setup, weights_hash
    from moe_prompts.vision.training.sgd import Recipe, checked_device, multiplies_bfloat16
    from moe_prompts.vision.training.states import MEMORY

    weights = None if arguments.weights is None else str(arguments.weights)
    if weights is not None and place["weights"] is None:
        raise InputError(
            f"--weights {weights}; the run in {arguments.run} had no file of weights, its backbone was loaded by the "
            f"name {place['backbone']}: leave out --weights"
        )
    if weights is None and place["weights"] is not None:
        raise InputError(
            f"--run {arguments.run} had a file of weights, sha256 {place['weights']}; expected that file: give it with "
            "--weights"
        )
    found = None if weights is None else weights_hash(weights)
    if found != place["weights"]:
        raise InputError(f"--weights {weights}, sha256 {found}; expected the run's file, sha256 {place['weights']}")
    if (optimiser := place["recipe"].get("optimiser", "sgd")) != "sgd":
        raise InputError(
            f"--run {arguments.run}: trained with {optimiser}; expected a run with SGD, whose rates say how large the "
            "ridge of P_eff is"
        )
    if place["recipe"].get("precision") == "bfloat16" and place["device"] == "cpu" and not multiplies_bfloat16():
        raise InputError(
            f"--run {arguments.run}: trained in bfloat16, for which this processor has no instructions (AVX512-BF16 or "
            "AMX); expected a run in float32, or a processor that has them"
        )
    if not isinstance(place["backbone"], str) or type(place["pack"]) is not int:
        raise TypeError("an entry of another kind")
    plain = {name: place[name] for name in ("backbone", "pack", "size", "standardised", "head") if name in place}
    setup = Setup(**plain, weights=weights, sizes=Sizes(**place["sizes"]), recipe=Recipe(**place["recipe"]))
    states = None if arguments.states is None else str(arguments.states)
    return replace(setup, device=checked_device(place["device"]), states=states, memory=MEMORY)


def asked(curves: pd.DataFrame, arguments: argparse.Namespace) -> pd.DataFrame:
    """Return the rows of the methods and sizes that are asked for."""
    from moe_prompts.vision.data_efficiency.curves import FRESH
    from moe_prompts.vision.data_efficiency.effective import countable

    methods = [method for method in curves["method"].unique() if countable(method)]
    for option, column, wanted, there, why in (
        ("--methods", "method", arguments.methods, methods, ", whose images have gradients of their own"),
        ("--n", "n", cli.numbers(arguments.n, "--n"), [n for n in curves["n"].unique() if n != FRESH], ""),
    ):
        if wanted is not None:
            lacking = [value for value in wanted if value not in there]
            if lacking:
                raise InputError(
                    f"{option} {_as_typed(lacking[0])}; expected some of {', '.join(map(str, there)) or 'none'}{why}"
                )
            curves = curves[curves[column].isin(wanted)]
    return curves


def _as_typed(value: str | float) -> str:
    """Return a name or a number as it is written: whole numbers without a decimal point."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def tell(results: pd.DataFrame, curves: pd.DataFrame, entropy: int, out: Path, smoke: str = "") -> None:
    """Write the table, what the rules find, and the figure, then print them.

    smoke  why the rules judge nothing here, as ``smoke_of`` says it
    """
    import matplotlib.pyplot as plt
    from matplotlib.figure import Figure

    from moe_prompts.figures.style import SINGLE, STYLE, save
    from moe_prompts.vision.data_efficiency import link
    from moe_prompts.vision.data_efficiency.figures import draw_predicted

    table = link.excess_table(results, curves)
    findings = [replace(finding, smoke=smoke) for finding in link.findings_of(curves, table, entropy)]

    def draw() -> list[Path]:
        with plt.rc_context(STYLE):
            figure = Figure(figsize=(SINGLE, 3.2), layout="constrained")
            draw_predicted(figure.subplots(), table)
        return save(figure, out, "predicted_excess")

    summary = {"summary.json": table.to_json(orient="records", indent=2)}
    words = link.text(table, findings, link.winner_table(curves, table))
    cli.finish(out, words, link.ending_of(table, findings), summary, draw, len(results))

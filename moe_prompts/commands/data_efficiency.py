"""Measure fixed and adaptive prompts against sample size in a Vision Transformer: planted truths, then tasks.

Planted: a teacher's prompts in a frozen network make the labels, so a student's excess risk is exact given images.
Predicted: fixed students meet a floor on an adaptive truth; on a fixed truth adaptive ones pay for their parameters;
the crossing follows from floor and counts. Tasks: accuracy and cross-entropy against n for every method and control,
floors from fresh images, and what a regular method would pay beside them; no exponents are promised there.

python experiments/data_efficiency.py                    # --preset small: minutes
python experiments/data_efficiency.py --preset real-quick  # a real pretrained backbone (experiments/backbone.py fetch)
python experiments/data_efficiency.py --task planted-fixed,planted-adaptive --preset night
python experiments/data_efficiency.py --preset planted-pretrained  # on the same backbone
python experiments/data_efficiency.py --task stand-in:dsprites_loc,count --n 50..1000
python experiments/data_efficiency.py --task fgvc:dogs --data fgvc --fraction 0.01..1 --tune --device cuda
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moe_prompts import cli
from moe_prompts.errors import InputError
from moe_prompts.vision.data_efficiency.presets import PLANTED, PRESETS, QUICK, QUICK_PLANTED, QUICK_PRETRAINED

if TYPE_CHECKING:
    import pandas as pd

    from moe_prompts.engine.grid import Block, Study

#: Parts of a setup of methods on tasks that must be the same where rates are used and where they were tuned.
CASE = ("backbone", "weights", "sizes", "size", "standardised", "head")
#: The backbone of real tasks where nothing else is said, which is the papers'.
REAL = "vit_base_patch16_224.orig_in21k"
#: Base rates that --tune tries: for prompts on planted truths, whose head is known, and for methods on tasks.
PLANTED_LRS, TASK_LRS, TASK_DECAY = (0.05, 0.2, 0.8, 3.2), (0.05, 0.25, 1.0, 2.5, 10.0), 1e-4
#: Prompts of methods on tasks where nothing else is said.
TASK_TOKENS = 10
#: Prompts of the teachers of planted truths where nothing else is said.
TEACHER_TOKENS = 4
#: Sizes in a range where nothing else is said.
POINTS = 5
#: The method whose weights all train, which has rates and n of its own in the presets that say so.
FULL = "full"
#: Folder of decoded images of real tasks where nothing else is said.
CACHE = "results/images"
#: Options of planted truths alone.
OF_PLANTED = ("students", "teacher_tokens", "teacher_hidden", "teacher_sharpness")
#: Options of methods on tasks alone.
OF_TASKS = ("standardise", "head", "weight_decay", "tokens", "precision")


def parser() -> argparse.ArgumentParser:
    parser = cli.OneLineParser("data_efficiency.py", description=__doc__)
    add = parser.add_argument_group("what is trained").add_argument
    parser.set_defaults(drawn_n=None, full_n=None)
    add(
        "--preset",
        choices=PRESETS,
        default="small",
        metavar="NAME",
        help=f"what is not given: {', '.join(PRESETS)} (default small: minutes on two cores)",
    )
    add("--quick", action="store_true", help="a smoke run: few steps, minutes with a real backbone")
    add("--estimate", action="store_true", help="say how long it would take, and stop")
    add(
        "--task",
        type=cli.names,
        help="planted-fixed, planted-adaptive; stand-ins stand-in:dsprites_loc, count, ...; with --data also real "
        "tasks, folder:NAME among them",
    )
    add("--students", type=cli.names, help="of planted truths (default by preset)")
    add(
        "--methods",
        type=cli.names,
        help="on tasks (default by preset, else all methods and controls that differ here); preset real without it "
        "has full tuning, too, by AdamW with the papers' rates, at n = 200 and 800 or at --n",
    )
    add = parser.add_argument_group("sizes, steps and replicates").add_argument
    add("--n", help="a list 200,1000 or a range 50..1000")
    add("--fraction", help="of an FGVC task's training images instead of --n: a list 0.01,0.1 or a range 0.01..1")
    add("--points", type=cli.positive("sizes"), help=f"sizes in a range (default {POINTS})")
    add("--reps", type=cli.positive("replicates"), help="data sets and starts")
    add("--steps", type=cli.positive("steps"), help="on n images, whatever n is")
    add("--fresh-steps", type=cli.positive("steps"), help="on fresh images, for floors")
    add("--fresh-reps", type=int, help="starts on fresh images; 0: no floors")
    add = parser.add_argument_group("prompts and heads").add_argument
    add("--teacher-tokens", type=cli.positive("tokens"), help=f"of planted prompts (default {TEACHER_TOKENS})")
    add("--teacher-hidden", type=cli.positive("units"), help="hidden units of planted adaptive prompts (default 8)")
    add(
        "--teacher-sharpness",
        type=float,
        help="deviation of the plain model's logits over classes, planted (default 6)",
    )
    add("--tokens", type=cli.positive("tokens"), help=f"of methods on tasks (default {TASK_TOKENS})")
    add("--last-blocks", type=cli.positive("blocks"), help="prompts in the last so many blocks (default: in all)")
    add("--head", choices=("published", "zero"), help="first values of heads on tasks (default published)")
    add(
        "--standardise",
        action="store_true",
        default=None,
        help="features on tasks have variance 1 on unlabelled images (default: as they are)",
    )
    add("--batch", type=cli.positive("images"), help="in a step (default 64)")
    add = parser.add_argument_group("backbone and data").add_argument
    add(
        "--states",
        type=Path,
        metavar="FOLDER",
        help="of states before those blocks (default: none; up to 256 MB in memory)",
    )
    add(
        "--backbone",
        help="dinov2-small-focus, small, small-random, small-gain, a name of timm (default small; real tasks that of "
        f"the papers, {REAL}; planted small-gain)",
    )
    add("--weights", type=Path, metavar="FILE", help="of the backbone (default: from the cache, or from the hub)")
    add("--data", type=Path, metavar="ROOT", help="the folder of the folders of real tasks")
    add("--anywhere", action="store_true", help="lists may name images outside the folders in --data")
    add("--cache", metavar="FOLDER", help=f"of decoded images (default {CACHE}; none: decode every time)")
    add("--size", type=cli.positive("pixels"), help="of images (default 32, real tasks 224, planted the backbone's)")
    add = parser.add_argument_group("learning rates, and how trials are run").add_argument
    add("--tune", action="store_true", default=None, help="choose rates at every n instead of taking them from a table")
    add("--optimiser", choices=("sgd", "adamw", "lamb"), help="(default sgd; others need --tune)")
    add("--lr", metavar="LIST", help="base rates that --tune tries")
    add(
        "--tune-by",
        choices=("cross-entropy", "accuracy"),
        help="what --tune compares on validation images (default cross-entropy)",
    )
    add("--weight-decay", metavar="LIST", help=f"that --tune tries with each rate on tasks (default {TASK_DECAY:g})")
    add("--rates", metavar="FILE", help="rates.json of another run (default: the table of the package)")
    add("--pack", type=cli.positive("trials"), default=8, help="trials that train at once (default 8)")
    add("--device", help="cpu or cuda (default cpu)")
    add(
        "--precision",
        choices=("float32", "bfloat16"),
        help="of forward passes on tasks (default float32; bfloat16 needs a GPU, or a processor that multiplies it)",
    )
    cli.add_execution(parser)
    cli.add_shard(parser)
    cli.add_run(parser, "entropy of everything")
    return parser


def main() -> None:
    cli.one_thread()
    arguments = parser().parse_args()
    refuse(arguments)
    fill_in(arguments)

    from moe_prompts.engine.executors import available_cores
    from moe_prompts.engine.grid import joined
    from moe_prompts.vision.data_efficiency.rates import as_json
    from moe_prompts.vision.training.devices import processes

    setup = setup_of(arguments)
    studies = studies_of(arguments, setup)
    cli.check_writable(arguments.states, "--states")
    study = studies[0] if len(studies) == 1 else joined("data-efficiency", studies)
    arguments.workers = processes(setup.device, arguments.workers, arguments.executor, arguments.scheduler)
    cli.executor(arguments)  # refuses what a run would refuse
    blocks = study.blocks if arguments.shard is None else arguments.shard.chosen(study.blocks)
    # More parts than blocks leave some parts without any.
    workers = max(1, min(arguments.workers or available_cores(), len(blocks)))
    minutes = expected_minutes(blocks, study.replicates, workers)
    shown = cli.hours_or_minutes(minutes)
    print(f"about {shown} of training with {workers} processes, and start and images", flush=True)
    if arguments.estimate:
        return
    out = arguments.out or cli.default_folder("data-efficiency")
    results = cli.results(study, out, arguments, "data_efficiency.py")
    command = [Path(sys.argv[0]).name, *sys.argv[1:]]
    by = judge_of(arguments) if arguments.tune else None
    # A table of rates is of one optimiser.
    shared = results if arguments.full_n is None else results[results["method"] != FULL]
    tell(results, arguments.seed, out, {"rates.json": as_json(shared, case(arguments, setup), command, by)})


def refuse(arguments: argparse.Namespace) -> None:
    """Raise ``InputError`` for options that contradict each other or would change nothing."""
    cli.check_run(arguments)
    if (arguments.fresh_reps or 0) < 0:
        raise InputError(f"--fresh-reps {arguments.fresh_reps}; expected a whole number of at least 0")
    if not re.fullmatch("cpu|cuda(:[0-9]+)?", arguments.device or "cpu"):
        raise InputError(f"--device {arguments.device}; expected cpu, cuda or cuda:N, such as cuda:0")
    sharpness = arguments.teacher_sharpness
    if sharpness is not None and not (0 < sharpness < math.inf):
        raise InputError(f"--teacher-sharpness {sharpness:g}; expected a positive number, such as 6")
    if arguments.tune and arguments.rates is not None:
        raise InputError("--tune with --rates; expected one of them")
    if arguments.n is not None and arguments.fraction is not None:
        raise InputError(f"--n {arguments.n} with --fraction {arguments.fraction}; expected one of them")
    if arguments.data is not None and not arguments.data.is_dir():
        raise InputError(f"--data {arguments.data}: no such folder; expected the root of the data")
    asked = arguments.task or preset_of(arguments)["task"]
    if not set(asked) & set(PLANTED):
        refuse_given(arguments, OF_PLANTED, f"of planted truths; expected {' or '.join(PLANTED)} in --task")
    if set(asked) <= set(PLANTED):
        names = ("methods", "data", *OF_TASKS)
        refuse_given(arguments, names, f"of methods on tasks; expected a task beside {', '.join(asked)}")
    if arguments.data is None:
        if arguments.anywhere:
            raise InputError("--anywhere without --data, whose lists it is about; expected both or neither")
        if arguments.cache not in (None, "none"):
            raise InputError(f"--cache {arguments.cache} without --data, whose images it keeps; expected both or none")
    starts = preset_of(arguments)["fresh_reps"] if arguments.fresh_reps is None else arguments.fresh_reps
    if arguments.fresh_steps is not None and not starts:
        raise InputError(
            f"--fresh-steps {arguments.fresh_steps} with no start on fresh images; expected --fresh-reps of at least "
            "1, or no --fresh-steps"
        )
    if arguments.points is not None and ".." not in (arguments.n or arguments.fraction or preset_of(arguments)["n"]):
        raise InputError(f"--points {arguments.points} without a range; expected --n with one, such as 50..1000")


def refuse_given(arguments: argparse.Namespace, names: Sequence[str], of: str) -> None:
    """Raise ``InputError`` if one of these options was given; ``of`` says what it is an option of."""
    for name in names:
        if getattr(arguments, name) is not None:
            option = f"--{name.replace('_', '-')}"
            raise InputError(f"{option} is {of}, or no {option}")


def preset_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what --quick and the preset say."""
    preset = PRESETS[arguments.preset]
    if not arguments.quick:
        return preset
    if set(preset["task"]) <= set(PLANTED):
        return preset | QUICK | QUICK_PLANTED
    return preset | QUICK | (QUICK_PRETRAINED if "backbone" in preset else {})


def fill_in(arguments: argparse.Namespace) -> None:
    """Fill in what --quick and the preset say, where nothing else is given."""
    wanted = {"teacher_tokens": TEACHER_TOKENS, "optimiser": "sgd", "points": POINTS} | preset_of(arguments)
    if arguments.quick or arguments.n is not None or arguments.fraction is not None:
        wanted.pop("drawn_n", None)
    full_n = wanted.pop("full_n", None)
    # Full tuning has rates of its own, which no table holds, and no share of a pool that a preset could know.
    if not arguments.quick and all(given is None for given in (arguments.methods, arguments.rates, arguments.fraction)):
        arguments.full_n = full_n and (arguments.n or full_n)
    for name, value in wanted.items():
        other = arguments.rates if name in ("tune", "lr", "tune_by") else arguments.fraction if name == "n" else None
        if getattr(arguments, name) is None and other is None:
            setattr(arguments, name, value)
    if arguments.lr is not None and not arguments.tune:
        raise InputError(f"--lr {arguments.lr} without --tune; expected both, or rates from a table")
    if arguments.tune_by is not None and not arguments.tune:
        raise InputError(f"--tune-by {arguments.tune_by} without --tune; expected both, or rates from a table")
    if arguments.weight_decay is not None and not arguments.tune:
        raise InputError(f"--weight-decay {arguments.weight_decay} without --tune; expected both, or those of a table")


def setup_of(arguments: argparse.Namespace):
    """Return the setup of methods on tasks: backbone, prompts and steps."""
    from moe_prompts.vision.backbones.create import OWN, SMALL_SIZE
    from moe_prompts.vision.backbones.normalisation import normalisation_of
    from moe_prompts.vision.tasks.named import STAND_IN
    from moe_prompts.vision.training.methods import Sizes
    from moe_prompts.vision.training.runs import Setup
    from moe_prompts.vision.training.sgd import Recipe, checked_device, checked_precision
    from moe_prompts.vision.training.states import MEMORY

    real = [name for name in task_names(arguments) if not name.startswith(STAND_IN)]
    # Images of 32 pixels are those of the backbone that comes along, also where tasks are real.
    backbone = arguments.backbone or (REAL if real and arguments.size != SMALL_SIZE else "small")
    recipe = Recipe(
        steps=arguments.steps,
        batch=arguments.batch or 64,
        normalisation=normalisation_of(backbone),
        optimiser=arguments.optimiser,
        precision=checked_precision(arguments.precision or Recipe.precision, arguments.device or "cpu"),
    )
    weights = None if arguments.weights is None else str(arguments.weights)
    device = checked_device(arguments.device or "cpu")
    sizes = Sizes(arguments.tokens or TASK_TOKENS, blocks=arguments.last_blocks)
    # Backbones of the package have one size; the others are made for the images they are given.
    size = None if backbone in OWN else (arguments.size or 224)
    states = None if arguments.states is None else str(arguments.states)
    return Setup(
        backbone,
        weights,
        arguments.pack,
        sizes,
        recipe,
        device,
        size,
        states,
        standardised=bool(arguments.standardise),
        head=arguments.head or "published",
        memory=MEMORY,
    )


def planted_setup(arguments: argparse.Namespace):
    """Return the setup of students of planted prompts: backbone, the teacher's prompts and steps."""
    from moe_prompts.vision.backbones.create import OWN
    from moe_prompts.vision.backbones.normalisation import normalisation_of
    from moe_prompts.vision.training.methods import Sizes
    from moe_prompts.vision.training.runs import Setup
    from moe_prompts.vision.training.sgd import Recipe
    from moe_prompts.vision.training.states import MEMORY

    backbone = arguments.backbone or "small-gain"
    weights = None if arguments.weights is None or arguments.backbone is None else str(arguments.weights)
    recipe = Recipe(
        steps=arguments.steps,
        batch=arguments.batch or Recipe.batch,
        normalisation=normalisation_of(backbone),
        optimiser=arguments.optimiser,
    )
    # Beside tasks, a size is that of their images: backbones of the package have one, which it may not be.
    beside_tasks = not set(arguments.task) <= set(PLANTED)
    return Setup(
        backbone,
        weights,
        arguments.pack,
        Sizes(arguments.teacher_tokens, arguments.teacher_hidden or Sizes.hidden, blocks=arguments.last_blocks),
        recipe=recipe,
        device=arguments.device or "cpu",
        size=None if backbone in OWN and beside_tasks else arguments.size,
        states=None if arguments.states is None else str(arguments.states),
        memory=MEMORY,
    )


def sharpness_of(arguments: argparse.Namespace) -> float:
    """Return the sharpness of labels on planted truths."""
    from moe_prompts.vision.data_efficiency.teacher import Planted

    return Planted.sharpness if arguments.teacher_sharpness is None else arguments.teacher_sharpness


def judge_of(arguments: argparse.Namespace) -> str:
    """Return what --tune compares, one of ``rates.JUDGES``."""
    return (arguments.tune_by or "cross-entropy").replace("-", "_")


def case(arguments: argparse.Namespace, setup) -> dict[str, Any]:
    """Return what tuned rates belong to: they hold for this setup, optimiser, precision and teacher only."""
    from moe_prompts.vision.data_efficiency.sources import unusual
    from moe_prompts.vision.training.sgd import Recipe

    used = {name: getattr(setup.recipe, name) for name in ("optimiser", "precision")}
    other = {name: value for name, value in used.items() if value != getattr(Recipe, name)}
    planted = {"backbone": arguments.backbone or "small-gain", "tokens": arguments.teacher_tokens}
    return {
        "tasks": {name: setup.identity()[name] for name in CASE if name in setup.identity()} | other,
        "planted": planted | unusual(planted_setup(arguments), sharpness_of(arguments)),
    }


def studies_of(arguments: argparse.Namespace, setup) -> list[Study]:
    """Return the studies that are asked for: one of planted truths, one of tasks."""
    from moe_prompts.vision.backbones.create import check_name
    from moe_prompts.vision.data_efficiency.rates import Rates, Tune, read_rates
    from moe_prompts.vision.data_efficiency.sources import AT_TEACHER, STUDENTS, PlantedImages, TaskImages
    from moe_prompts.vision.data_efficiency.study import efficiency_study
    from moe_prompts.vision.training.methods import check_peers, distinct_methods
    from moe_prompts.vision.training.runs import backbone
    from moe_prompts.vision.training.sgd import Setting
    from moe_prompts.vision.training.tuned import SHIPPED

    if arguments.backbone is not None:
        check_name(arguments.backbone)  # before rates are looked for that were tuned for it
    truths = [name for name in arguments.task if name in PLANTED]
    tasks = specs(arguments)
    # Options that were given have been refused by now: these are the preset's.
    if not tasks and any(getattr(arguments, name) is not None for name in OF_TASKS):
        raise InputError(
            f"--preset {arguments.preset} is of methods on tasks; expected a task beside {', '.join(truths)}, or "
            "another preset"
        )
    # What no table of rates could mend is said before rates are looked for.
    for where in [planted_setup(arguments)] * bool(truths) + [setup] * bool(tasks):
        check_place(arguments, where)
    students = arguments.students or [*STUDENTS, AT_TEACHER]
    planted = [PlantedImages(truth, sharpness_of(arguments)) for truth in truths]
    for source in planted:
        with named_blocks(arguments, f"{source.name} and adaptive students"):
            source.check(students, (), planted_setup(arguments), arguments.seed)
    check_fresh(arguments, bool(truths) or any(TaskImages(task).endless for task in tasks), setup.recipe.batch)
    lrs = cli.numbers(arguments.lr, "--lr", "(0, inf)")
    decays = cli.numbers(arguments.weight_decay, "--weight-decay", "[0, inf)") or (TASK_DECAY,)
    for_planted: Rates
    for_tasks: Rates
    if arguments.tune:
        by = judge_of(arguments)
        for_planted = Tune(tuple(Setting(lr, 0.0) for lr in lrs or PLANTED_LRS), by)
        for_tasks = Tune(tuple(Setting(lr, decay) for lr in lrs or TASK_LRS for decay in decays), by)
    else:
        wanted = case(arguments, setup)
        wanted = {key: wanted[key] for key, there in (("planted", truths), ("tasks", tasks)) if there}
        for_planted = for_tasks = read_rates(arguments.rates or SHIPPED, wanted)
    studies = []
    common = {
        "replicates": arguments.reps,
        "entropy": arguments.seed,
        "fresh_steps": arguments.fresh_steps,
        "fresh_replicates": arguments.fresh_reps,
    }
    if truths:
        if arguments.n is None:
            raise InputError(f"--fraction {arguments.fraction} with {truths[0]}; expected FGVC tasks alone, else --n")
        sizes, where = image_counts(arguments.n, arguments), planted_setup(arguments)
        studies.append(efficiency_study(planted, students, sizes, setup=where, rates=for_planted, **common))
    if tasks:
        methods = arguments.methods or distinct_methods(setup.sizes, backbone(setup))
        check_peers(methods)
        check_prompts(methods, arguments, setup)
        images = [TaskImages(task) for task in tasks]
        by_task = sizes_of(arguments, tasks)
        studies.append(efficiency_study(images, methods, by_task, setup=setup, rates=for_tasks, **common))
        if arguments.full_n is not None:
            studies.append(full_study(images, arguments, setup, common))
    return studies


def check_place(arguments: argparse.Namespace, setup) -> None:
    """Raise ``InputError`` for a ``--size`` or ``--last-blocks`` that the backbone of ``setup`` does not take."""
    from moe_prompts.vision.backbones.create import OWN, SMALL_SIZE
    from moe_prompts.vision.training.runs import backbone

    size, last = setup.size, arguments.last_blocks
    if setup.backbone in OWN and size not in (None, SMALL_SIZE):
        raise InputError(f"--size {size}; {setup.backbone} takes {SMALL_SIZE} pixels: leave it out")
    if arguments.size is None and last is None:
        return
    try:
        depth = len(backbone(setup).blocks)
    except InputError as error:
        raise InputError(f"--{error}" if str(error).startswith(f"size {size};") else str(error)) from error
    if last is not None and last > depth:
        raise InputError(f"--last-blocks {last}; expected at most {depth}, the blocks of {setup.backbone}")


def check_fresh(arguments: argparse.Namespace, endless: bool, batch: int) -> None:
    """Raise ``InputError`` for more replicates, or more steps on fresh images, than there are images for."""
    from moe_prompts.vision.tasks.replicates import APART, REPLICATES

    if arguments.reps > REPLICATES:
        raise InputError(f"--reps {arguments.reps}; expected at most {REPLICATES}, which have images of their own")
    if endless and arguments.fresh_reps and arguments.fresh_steps * batch > APART:
        raise InputError(
            f"--fresh-steps {arguments.fresh_steps}; expected at most {APART // batch}, as {batch} images are read in "
            f"a step and {APART} are drawn at most"
        )


def check_prompts(methods: Sequence[str], arguments: argparse.Namespace, setup) -> None:
    """Raise ``InputError`` for a method whose prompts do not fit the blocks that are to have them."""
    from moe_prompts.vision.training.methods import config
    from moe_prompts.vision.training.runs import backbone

    model = backbone(setup)
    for method in methods:
        prompts = config(method, setup.sizes, model)
        if prompts is not None:
            with named_blocks(arguments, f"the method {method}"):
                prompts.check(len(model.blocks), model.patch_embed.grid_size)


@contextmanager
def named_blocks(arguments: argparse.Namespace, user: str) -> Iterator[None]:
    """Name ``--last-blocks`` in errors on prompts of ``user`` that do not fit their blocks."""
    try:
        yield
    except InputError as error:
        if arguments.last_blocks is None or "static_depth" not in str(error):
            raise
        raise InputError(
            f"--last-blocks {arguments.last_blocks} with {user}, whose first block has fixed prompts; expected at "
            "least 2, or methods with fixed prompts alone"
        ) from error


def full_study(images: Sequence[Any], arguments: argparse.Namespace, setup, common: dict[str, Any]) -> Study:
    """Return the study of full tuning at its own n: as the papers' code has it, with AdamW and rates of its own."""
    from moe_prompts.vision.data_efficiency.rates import Tune
    from moe_prompts.vision.data_efficiency.study import efficiency_study
    from moe_prompts.vision.training.methods import FULL_LRS
    from moe_prompts.vision.training.sgd import Setting

    by_adamw = replace(setup, recipe=replace(setup.recipe, optimiser="adamw"))
    rates = Tune(tuple(Setting(lr, TASK_DECAY) for lr in sorted(FULL_LRS)), judge_of(arguments))
    sizes = image_counts(arguments.full_n, arguments)
    no_floors = common | {"fresh_replicates": 0}
    study = efficiency_study(images, [FULL], sizes, setup=by_adamw, rates=rates, **no_floors)
    return replace(study, identity={FULL: study.identity})


def task_names(arguments: argparse.Namespace) -> list[str]:
    """Return the full names of the tasks in --task; stand-ins may be given by short names that no real task has."""
    from moe_prompts.vision.tasks import named, procedural, vtab

    names = [name for name in arguments.task if name not in PLANTED]
    if not names:
        return []
    short = named.short_names()
    twin = [name for name in names if arguments.data is None and name in vtab.TASKS and name in procedural.NAMES]
    if twin:
        raise InputError(
            f"--task {twin[0]} is the task of VTAB-1K, which needs --data; expected its folder, or the stand-in "
            f"{named.STAND_IN}{twin[0]}"
        )
    full = [named.STAND_IN + name if name in short else name for name in names]
    cli.once(full, f"--task {','.join(arguments.task)}")
    try:
        return named.task_names(",".join(full), stand_ins=True)
    except InputError as error:
        raise InputError(
            f"--task {','.join(arguments.task)}; expected some of "
            f"{', '.join([*PLANTED, *short, *(named.STAND_IN + name for name in procedural.NAMES)])}, or with "
            f"--data names of VTAB-1K or FGVC tasks, or folder:NAME"
        ) from error


def specs(arguments: argparse.Namespace) -> list:
    """Return where the images of each task in --task come from; all have one size, that of the backbone's images."""
    from moe_prompts.vision.tasks.named import STAND_IN, TaskSpec

    names = task_names(arguments)
    drawn_alone = all(name.startswith(STAND_IN) for name in names)
    return [
        TaskSpec(
            name,
            size=arguments.size or (32 if drawn_alone else 224),
            root=None if arguments.data is None else str(arguments.data),
            cache=None if arguments.cache == "none" else arguments.cache or CACHE,
            entropy=arguments.seed,
            anywhere=arguments.anywhere,
        )
        for name in names
    ]


def sizes_of(arguments: argparse.Namespace, tasks: list) -> dict[str, list[int]]:
    """Return the numbers of training images of each task; a preset may have more where images never end."""
    if arguments.fraction is None:
        from moe_prompts.vision.data_efficiency.sources import TaskImages

        sizes = image_counts(arguments.n, arguments)
        more = [] if arguments.drawn_n is None else image_counts(arguments.drawn_n, arguments)
        return {task.name: [*sizes, *(more if TaskImages(task).endless else [])] for task in tasks}

    from moe_prompts.vision.tasks.named import FGVC
    from moe_prompts.vision.training.runs import opened

    shares, found = fractions(arguments.fraction, arguments.points), {}
    for task in tasks:
        if not task.name.startswith(FGVC):
            raise InputError(f"--fraction {arguments.fraction} with {task.name}; expected FGVC tasks alone, else --n")
        pool = len(opened(task).split("train800val200").labels)
        found[task.name] = sorted({round(share * pool) for share in shares})
    return found


def image_counts(text: str, arguments: argparse.Namespace) -> list[int]:
    """Return numbers of training images, of which a replicate has at most ``replicates.APART``."""
    from moe_prompts.vision.tasks.replicates import APART

    return cli.sizes(text, arguments.points, unit="images", most=APART)


def fractions(text: str, points: int) -> list[float]:
    """Return the shares of a list 0.01,0.1,1 or of a range 0.01..1, evenly spaced on a log scale."""
    ends = text.split("..")
    parts = [part for end in ends for part in cli.numbers(end, "--fraction") or ()]
    if not all(0 < part <= 1 for part in parts) or (".." in text and (len(parts) != 2 or parts[0] >= parts[1])):
        raise InputError(f"--fraction {text}; expected shares in (0, 1], a list 0.01,0.1 or a range 0.01..1")
    if ".." not in text:
        return parts
    step = (parts[1] / parts[0]) ** (1 / max(1, points - 1))
    return [parts[0] * step**number for number in range(max(2, points))]


def expected_minutes(blocks: Sequence[Block], replicates: int, workers: int) -> float:
    """Return how long blocks of a study take, from a few steps of one pack of VAPT trials on this machine.

    blocks      all of the study, or those of a part
    replicates  of each cell of the study
    workers     processes that share the blocks

    Work of a resumed run counts again. Blocks of each setup, and of each those that read kept states and those
    that do not, are timed by steps of their kind; tuning counts with the replicates that it is for.
    """
    from moe_prompts.vision.training.runs import seconds_per_step

    costs: dict[Any, float] = {}
    for block in blocks:
        setup = block.cell.setup
        # Fresh images have more steps, each of which takes as long.
        recipe = replace(setup.recipe, steps=1)
        kind = replace(setup, pack=min(setup.pack, replicates), recipe=recipe)
        if not block.cell.reads_states(len(block.replicates)):
            kind = replace(kind, states=None, memory=0)
        costs[kind] = costs.get(kind, 0.0) + block.cost
    return sum(seconds_per_step(kind) * cost for kind, cost in costs.items()) / workers / 60


def tell(results: pd.DataFrame, entropy: int, out: Path, files: dict[str, str]) -> None:
    """Write the report with the figures and more files (name -> text), then print it."""
    from moe_prompts.figures.style import save
    from moe_prompts.vision.data_efficiency import report as curves_report

    def draw() -> list[Path]:
        figures = curves_report.figures_of(results, entropy)
        return [path for name, figure in figures.items() for path in save(figure, out, name)]

    ending = curves_report.ending_of(results, entropy)
    cli.finish(out, curves_report.text(results, entropy), ending, files, draw, len(results))

"""Train prompts on images: VTAB-1K and fine-grained tasks (FGVC) from folders of your own, or drawn stand-ins.

python experiments/vtab.py run --preset small
python experiments/vtab.py run --preset vtab-1k --data vtab-1k --device cuda
python experiments/vtab.py run --preset fgvc --data fgvc --device cuda
python experiments/vtab.py run --task dtd --method linear,vpt_deep,vapt --data vtab-1k --device cuda
python experiments/vtab.py report results/vtab-DATE
python experiments/vtab.py check --data vtab-1k --task cifar
python experiments/vtab.py fetch-help
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from moe_prompts import cli
from moe_prompts.errors import InputError
from moe_prompts.shown import paragraph

TASK_HELP = (
    "comma-separated: names such as cifar or fgvc:dogs; natural, specialized, structured; all (the 19 of VTAB-1K); "
    "fgvc (all five)"
)
#: Backbone and pixels where nothing else is given: of real tasks the papers', of stand-ins the one that comes
#: along.
REAL, STAND_INS = ("vit_base_patch16_224.orig_in21k", 224), ("small", 32)
#: What is compared where nothing else is asked for.
USUAL = "linear,vpt_shallow,vpt_deep,vapt"
#: What --preset small runs: minutes on two cores, and learning rates around those that won on such tasks.
SMALL = {
    "task": "stand-in:dsprites_loc,stand-in:count",
    "method": "linear,full,vpt_deep,vapt,vapt_shuffled",
    "steps": 300,
    "lr": "0.05,0.25,1,2.5",
    "tokens": 4,
    "weight_decay": "0.0001",
    "seeds": [42, 44],
}
QUICK = SMALL | {"task": "stand-in:count", "method": "linear,vapt", "steps": 10, "lr": "0.25,1"}

#: The published protocol on the published tasks: images resized and rates scheduled as in the papers' code,
#: full fine-tuning by AdamW, both grids, five seeds, and the number of tokens that VPT's authors chose for
#: each task.
PUBLISHED = {
    "method": "linear,full,vpt_shallow,vpt_deep,vapt",
    "schedule": "official",
    "resample": "bilinear-no-antialias",
    "epochs": 100,
    "tokens": "published",
    "full_optimiser": "adamw",
}
PRESETS = {
    "small": SMALL,
    "vtab-1k": PUBLISHED | {"task": "all"},
    "fgvc": PUBLISHED | {"task": "fgvc", "resample": "bilinear", "fraction": [0.1, 0.3, 1.0]},
}

FETCH_HELP = """\
Nothing is downloaded here: get the data yourself, put it into these folders, then run `check`.

VTAB-1K

  <root>/<task>/train800.txt, val200.txt, train800val200.txt, test.txt      lines "relative/path label", labels from 0
  <root>/<task>/...                                                         the images, at the paths of the lists

  This layout is what repositories of several methods of efficient tuning read (NOAH, SSF, RepAdapter and their kin);
  some link to a finished archive or to a script that writes it. The origin is TensorFlow Datasets, read as in
  google-research/task_adaptation:
{origins}
  TensorFlow Datasets wants some of them (diabetic_retinopathy_detection) downloaded by hand first.

  Archives differ in how their images were written. PNG keeps every pixel. JPEG does not, and on small images (cifar,
  svhn, eurosat, dsprites) that costs accuracy, up to 15 points on CIFAR-100: `check` warns of it, and results say the
  format. Numbers from archives of different formats do not compare.

FGVC

  <root>/<folder>/train.json, val.json, test.json     {{image name: class id}}: the split files that the repository of
                                                      VPT (github.com/KMnP/vpt) links to
  <root>/<folder>/...                                 the images, from each data set's own site; names are relative to
                                                      the folder or to images/, Images/, jpg/ or car_ims/ in it
{folders}
"""

#: Where TensorFlow Datasets keeps what a task is made from.
ORIGINS = {
    "cifar": "cifar100",
    "svhn": "svhn_cropped",
    "diabetic_retinopathy": "diabetic_retinopathy_detection/btgraham-300",
    "eurosat": "eurosat/rgb",
    "clevr_count": "clevr (number of objects)",
    "clevr_dist": "clevr (distance of the closest object)",
    "dsprites_loc": "dsprites (x-position in 16 bins)",
    "dsprites_ori": "dsprites (orientation in 16 bins)",
    "kitti": "kitti (distance of the closest vehicle)",
    "smallnorb_azi": "smallnorb (azimuth)",
    "smallnorb_ele": "smallnorb (elevation)",
}


def check(arguments: argparse.Namespace) -> None:
    """Print one line for each fault; the exit code is 1 if there is a problem, warnings are none."""
    from moe_prompts.vision.tasks.check import PROBLEM, check_fgvc, check_vtab
    from moe_prompts.vision.tasks.named import FGVC, task_names

    tasks = task_names(arguments.task)
    if not arguments.data.is_dir():
        raise InputError(f"--data {arguments.data}: no such folder; expected the root of the data (see fetch-help)")
    problems = 0
    for task in tasks:
        look = check_fgvc if task.startswith(FGVC) else check_vtab
        for finding in look(arguments.data, [task], arguments.thorough, arguments.anywhere):
            print(paragraph(str(finding), indent="  "), flush=True)
            problems += finding.kind == PROBLEM
    print(f"{len(tasks)} task{'s' * (len(tasks) > 1)} checked, {problems} problem{'s' * (problems != 1)}")
    if problems:
        sys.exit(1)


def fetch_help(arguments: argparse.Namespace) -> None:
    """Say where the data come from and how they must lie."""
    from moe_prompts.vision.tasks import fgvc, vtab
    from moe_prompts.vision.tasks.named import FGVC

    origins = "\n".join(f"    {name:<22}{ORIGINS.get(name, name)}" for name in vtab.TASKS)
    folders = "\n".join(f"    {FGVC + name:<22}<root>/{data.folders[0]}" for name, data in fgvc.TASKS.items())
    told = FETCH_HELP.format(origins=origins, folders=folders)
    print("\n".join(cli.wrapped(told)))


def run(arguments: argparse.Namespace) -> None:
    """Tune, train with every seed, test; print the report and keep it with the tables, the settings and a figure."""
    out = arguments.out or cli.default_folder("vtab")
    cli.check_run(arguments)
    fill_in(arguments)
    shares = sorted(arguments.fraction or [1.0])
    plans = {share: plan_of(arguments, share) for share in shares}

    from moe_prompts.engine.executors import available_cores
    from moe_prompts.vision.comparison.tracking import check_tracker
    from moe_prompts.vision.training.devices import processes

    check_tracker(arguments.track)
    arguments.workers = processes(arguments.device, arguments.workers, arguments.executor, arguments.scheduler)
    workers = arguments.workers or available_cores()
    cli.executor(arguments)  # refuses what a run would refuse
    for plan in plans.values():
        plan.check()
    minutes = sum(expected_minutes(plan, workers) for plan in plans.values())
    print(
        f"about {cli.hours_or_minutes(minutes)} of training with {workers} processes, beside start and images",
        flush=True,
    )
    if arguments.estimate:
        return
    if len(plans) == 1:
        one_run(arguments, plans[shares[0]], out, arguments.resume)
        return

    from moe_prompts.engine.files import write_atomically
    from moe_prompts.vision.comparison.paper_table import fractions_table

    finals = {}
    for share, plan in plans.items():
        own = out / f"fraction-{share:g}"
        begun = any((own / stage / "meta.json").exists() for stage in ("tune", "final"))
        finals[share] = one_run(arguments, plan, own, arguments.resume and begun)
    text = fractions_table(finals)
    write_atomically(out / "fractions.md", text.encode())
    print()
    cli.print_files(out, {"fractions.md": "means at each share", "fraction-*": "a folder for each share"})


def one_run(arguments: argparse.Namespace, plan, out: Path, resume: bool):
    """Run one plan, tell what it found, and return its final table."""
    from moe_prompts.vision.comparison.plan import run_plan
    from moe_prompts.vision.comparison.settings import as_json
    from moe_prompts.vision.comparison.tracking import track

    with cli.resumable("vtab.py run", arguments.out or out):
        tuned, final = run_plan(
            plan, out, executor=cli.executor(arguments), resume=resume, allow=cli.allowed(arguments)
        )
    settings = plan.chosen(final)
    command = [Path(sys.argv[0]).name, *sys.argv[1:]]
    tell([out], out, {"settings.json": as_json(settings, plan, command)})
    if arguments.track:
        track(arguments.track, out, tuned, final, plan.place)
    return final


def fill_in(arguments: argparse.Namespace) -> None:
    """Fill in what the preset says, where nothing else is given."""
    preset = QUICK if arguments.quick else PRESETS[arguments.preset] if arguments.preset else {}
    methods = str(preset.get("method", USUAL) if arguments.method is None else arguments.method)
    if arguments.full_optimiser and "full" not in cli.names_of(methods, "--method"):
        raise InputError(
            f"--full-optimiser {arguments.full_optimiser} without the method full; expected it in --method {methods}"
        )
    for name, value in preset.items():
        given = arguments.epochs if name == "steps" else arguments.steps if name == "epochs" else None
        if getattr(arguments, name) is None and not given:
            setattr(arguments, name, value)


def plan_of(arguments: argparse.Namespace, share: float = 1.0):
    """Return the plan that the options describe, on a share of the training images."""
    from moe_prompts.vision.backbones.create import OWN
    from moe_prompts.vision.backbones.normalisation import normalisation_of
    from moe_prompts.vision.comparison.plan import SEEDS, Plan
    from moe_prompts.vision.comparison.settings import read_settings
    from moe_prompts.vision.comparison.tokens import read_tokens
    from moe_prompts.vision.tasks.named import STAND_IN, TaskSpec, task_names
    from moe_prompts.vision.training.methods import METHODS, Sizes, check_method, check_peers
    from moe_prompts.vision.training.runs import Setup
    from moe_prompts.vision.training.sgd import Recipe, checked_device, checked_precision

    if arguments.task is None:
        raise InputError("run: no --task; expected names such as dtd or stand-in:count, or --preset small")
    cli.names_of(arguments.task, "--task")  # groups may share a task, but no name stands there twice
    names = task_names(arguments.task, stand_ins=True)
    methods = cli.names_of(USUAL if arguments.method is None else arguments.method, "--method")
    for method in methods:
        check_method(method)
    check_peers(methods)
    real = [name for name in names if not name.startswith(STAND_IN)]
    default = REAL if real else STAND_INS
    backbone = arguments.backbone or default[0]
    # Those of the package have one size; the others are made for the images they are given.
    pixels = arguments.size or (default[1] if backbone in OWN else REAL[1])
    if real and arguments.data is not None and not arguments.data.is_dir():
        raise InputError(f"--data {arguments.data}: no such folder; expected the root of the data (see fetch-help)")
    root = None if arguments.data is None else str(arguments.data)
    refuse_unused(arguments, names, real)
    options = {} if arguments.fraction is None else {"fraction": share}
    tasks = tuple(
        TaskSpec(
            name,
            size=pixels,
            root=root,
            cache=None if arguments.cache == "none" else str(arguments.cache),
            resample=arguments.resample or "bilinear",
            n_train=arguments.n or 1000,
            entropy=arguments.seed,
            anywhere=arguments.anywhere,
            **options,
        )
        for name in names
    )
    recipe = Recipe(
        steps=arguments.steps,
        epochs=arguments.epochs or 100,
        batch=arguments.batch,
        schedule=arguments.schedule or "smooth",
        normalisation=arguments.normalisation or normalisation_of(backbone),
        precision=checked_precision(arguments.precision, arguments.device),
    )
    prompts = {"rank": arguments.rank, "blocks": arguments.last_blocks}
    tokens = read_tokens(str(Sizes.tokens if arguments.tokens is None else arguments.tokens), names)
    by_task = tokens if isinstance(tokens, dict) else None
    sizes = Sizes(Sizes.tokens if isinstance(tokens, dict) else tokens, arguments.hidden, arguments.kernel, **prompts)
    weights = None if arguments.weights is None else str(arguments.weights)
    own_size = arguments.size if backbone not in OWN else None
    setup = Setup(backbone, weights, arguments.pack, sizes, recipe, checked_device(arguments.device), own_size)
    plan = Plan(
        tasks,
        tuple(name for name in METHODS if name in methods),
        setup,
        lrs=cli.numbers(arguments.lr, "--lr", "(0, inf)"),
        weight_decays=cli.numbers(arguments.weight_decay, "--weight-decay", "[0, inf)"),
        seeds=tuple(arguments.seeds or SEEDS),
        entropy=arguments.seed,
        tokens=by_task,
        full_optimiser=arguments.full_optimiser,
    )
    return replace(plan, given=read_settings(arguments.settings, plan)) if arguments.settings else plan


def refuse_unused(arguments: argparse.Namespace, names: list[str], real: list[str]) -> None:
    """Raise ``InputError`` for options that would change nothing, or another thing than they seem to."""
    if arguments.steps is not None and arguments.epochs is not None:
        raise InputError(f"--steps {arguments.steps} with --epochs {arguments.epochs}; expected one of them")
    if arguments.n is not None and real:
        raise InputError(f"--n {arguments.n} with {real[0]}; only stand-ins have as many images as asked for")
    cut = [share for share in arguments.fraction or () if share != 1]
    if cut and arguments.steps is None and arguments.preset != "fgvc":
        raise InputError(f"--fraction {cut[0]:g} without --steps; fewer images would be fewer steps: give their number")


def shares_of(text: str) -> list[float]:
    """Return shares of the training images, all different, each in (0, 1]."""
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or len(set(found)) != len(found) or not all(0 < share <= 1 for share in found):
        raise argparse.ArgumentTypeError(f"{text!r}; expected different shares in (0, 1], as 0.1,0.3,1")
    return found


def expected_minutes(plan, workers: int) -> float:
    """Return how long the plan takes, from a few steps of one pack of VAPT trials on this machine.

    They are made with the fewest and with the most tokens of the plan.
    """
    import numpy as np

    from moe_prompts.vision.training.runs import seconds_per_step

    steps = plan.vapt_steps
    ends = sorted({min(steps), max(steps)})
    sizes = [replace(plan.setup.sizes, tokens=tokens) for tokens in ends]
    seconds = [seconds_per_step(replace(plan.setup, sizes=own)) for own in sizes]
    return float(np.interp(list(steps), ends, seconds) @ np.array(list(steps.values()))) / workers / 60


def tell(runs: list[Path], out: Path, files: Mapping[str, str] = MappingProxyType({})) -> None:
    """Write the report of runs, with its figure and more files (name -> text), to ``out``, then print it."""
    import matplotlib.pyplot as plt
    import pandas as pd

    from moe_prompts.figures.style import save
    from moe_prompts.vision import figures
    from moe_prompts.vision.comparison import paper_table, report

    final = pd.concat([results(folder) for folder in runs], ignore_index=True)
    setup, notes = setup_line(runs), edges(runs)
    text = "\n".join([report.text(final, setup), *notes])
    table = paper_table.paper_table(final, cut=any_cut(runs))
    tables = {"table.md": paper_table.as_markdown(table), "table.tex": paper_table.as_latex(table)}

    def draw() -> list[Path]:
        rows = final["task"].nunique() * final["method"].nunique()
        figure, ax = plt.subplots(figsize=(7, max(2.2, 0.9 + 0.14 * rows)), layout="constrained")
        figures.draw_accuracies(ax, report.scores(final))
        return save(figure, out, "accuracies")

    cli.finish(out, text, report.ending_of(final, setup, notes), {**tables, **files}, draw, None, "report.md")


def any_cut(runs: list[Path]) -> bool:
    """Return whether a task of a run has a share of its training images only."""
    from moe_prompts.engine.store import identity_of

    tasks = [identity_of(folder / "final", "entropy", place=dict, tasks=dict)["tasks"] for folder in runs]
    return any(facts.get("fraction", 1) != 1 for own in tasks for facts in own.values())


def setup_line(runs: list[Path]) -> str:
    """Return a line on how all runs were made: backbone, prompts, steps.

    Raises ``InputError`` if they differ.
    """
    from moe_prompts.engine.store import described_in, identity_of, other_weights

    found, lines, identities = {}, {}, {}
    numbers: dict[Path, Any] = {}
    for folder in runs:
        identity = identities[folder] = identity_of(folder / "final", "entropy", place=dict, tasks=dict)
        found[folder] = {key: identity[key] for key in ("place", "entropy")}
        with described_in(folder / "final" / "meta.json"):
            lines[folder] = place_line(identity["place"])
            tokens = identity["place"]["sizes"]["tokens"]
            if isinstance(tokens, dict):
                numbers |= {name: tokens[name] for name in identity["tasks"]}
            formats = {
                name: facts.get("image_format", facts.get("format")) for name, facts in identity["tasks"].items()
            }
        for name, facts in identity["tasks"].items():
            found.setdefault(name, facts)
            if found[name] != facts:
                raise InputError(f"{folder}: {name} on other data than in the runs before it; report them one by one")
            lines.setdefault(name, str(formats[name]))
    first = runs[0]
    for folder in runs[1:]:
        with described_in(folder / "final" / "meta.json"):
            weights = [name for one in runs for name in other_weights(identities[folder], identities[one])]
        if found[folder] != found[first] or weights:
            raise InputError(f"{folder}: made in another way than {first} (see meta.json); report them one by one")
    shown = sorted({lines[name] for name in lines if name not in runs})
    by_task = f" N by task: {', '.join(f'{name} {number}' for name, number in numbers.items())}." if numbers else ""
    return f"{lines[first]}; image format: {', '.join(shown)}.{by_task}"


def place_line(place: dict[str, Any]) -> str:
    """Return what a run's description says of its backbone, prompts and recipe."""
    from moe_prompts.vision.training.sgd import Recipe

    recipe, sizes = place["recipe"], place["sizes"]
    steps, epochs, batch = recipe["steps"], recipe["epochs"], recipe["batch"]
    texts = [place["backbone"], recipe["schedule"], recipe["normalisation"], recipe["precision"]]
    tokens = sizes["tokens"]
    numbers = [*(tokens.values() if isinstance(tokens, dict) else [tokens]), epochs, batch]
    numbers += [] if steps is None else [steps]
    full = place.get("full optimiser", Recipe.optimiser)
    texts.append(full)
    if not all(isinstance(text, str) for text in texts) or not all(type(number) is int for number in numbers):
        raise TypeError("an entry of another kind")
    return (
        f"Backbone {place['backbone']}, N {'by task' if isinstance(tokens, dict) else f'= {tokens}'}, "
        f"{f'{steps} steps' if steps else f'{epochs} epochs'} of {batch} images, schedule {recipe['schedule']}, "
        f"normalisation {recipe['normalisation']}, {recipe['precision']}"
        f"{'' if full == Recipe.optimiser else f', full by {full}'}"
    )


def edges(runs: list[Path]) -> list[str]:
    """Return lines on rates that were chosen at an end of their grid, for the runs that tuned."""
    from moe_prompts.engine.store import RESULTS, read_table
    from moe_prompts.vision.comparison import report

    tuned = [folder / "tune" for folder in runs if (folder / "tune" / RESULTS).exists()]
    return [line for folder in tuned for line in report.at_the_edge(read_table(folder))]


def results(folder: Path):
    """Return the table of final runs of a folder."""
    from moe_prompts.engine.store import RESULTS, read_table

    if not (folder / "final" / RESULTS).exists():
        raise InputError(f"{folder} holds no finished run; expected a folder that `vtab.py run` wrote (or --resume it)")
    return read_table(folder / "final")


def report_of(arguments: argparse.Namespace) -> None:
    """Report one run, or several on other tasks or methods as one table."""
    if len(arguments.run) > 1 and arguments.out is None:
        raise InputError("report of several runs: no --out; expected a folder for their common report")
    out = arguments.out or arguments.run[0]
    out.mkdir(parents=True, exist_ok=True)
    tell(arguments.run, out)


def parser() -> argparse.ArgumentParser:
    parser = cli.OneLineParser("vtab.py", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    one = cli.add_part(commands, "run", "tune, train with every seed, test", str(__doc__), run.__doc__)
    add = one.add_argument_group("what is run").add_argument
    add(
        "--preset",
        choices=tuple(PRESETS),
        help="small: two stand-ins, five methods, two seeds, minutes, no data needed; vtab-1k, fgvc: the published "
        "protocol on the folders in --data, fgvc with 10, 30 and 100 %% of the training images",
    )
    add("--estimate", action="store_true", help="say how long it would take, and stop")
    add("--track", metavar="TRACKER", help="hand the finished tables to wandb or tensorboard (default: to none)")
    add("--quick", action="store_true", help="a smoke run: one stand-in, few steps, in seconds")
    add("--task", metavar="TASKS", help=TASK_HELP + "; stand-in:NAME (drawn here)")
    add("--method", metavar="METHODS", help=f"comma-separated (default {USUAL})")
    add("--data", type=Path, metavar="ROOT", help="the folder of the tasks' folders")
    add = one.add_argument_group("backbone and prompts").add_argument
    add(
        "--backbone",
        help="small, dinov2-small-focus or a name of timm (default: the papers'; small with stand-ins alone)",
    )
    add("--weights", type=Path, metavar="FILE", help="of the backbone (default: from the cache, or from the hub)")
    add("--settings", metavar="FILE", help="settings.json of another run, or shipped: do not tune these pairs again")
    add(
        "--tokens",
        metavar="N",
        help="prompts: a number (default 10), published (VPT's, task by task), or a JSON file {task: number}",
    )
    add("--last-blocks", type=cli.positive("blocks"), help="prompts in the last so many blocks (default: in all)")
    add("--hidden", type=cli.positive("units"), default=8, help="of VAPT's projector (default 8)")
    add("--kernel", type=cli.positive("pixels"), default=2, help="of VAPT's convolution (default 2)")
    add("--rank", type=cli.positive("rank"), default=8, help="of the methods lora and adapter (default 8)")
    add = one.add_argument_group("training").add_argument
    add("--lr", metavar="LIST", help="base learning rates, for 256 images a step (default: the published ones)")
    add("--weight-decay", metavar="LIST", help="(default: the published ones)")
    add("--epochs", type=cli.positive("epochs"), help="(default 100)")
    add("--steps", type=cli.positive("steps"), help="a fixed number of steps instead of epochs")
    add("--batch", type=cli.positive("images"), default=64, help="images in a step (default 64)")
    add("--schedule", help="smooth (default) or official")
    add(
        "--full-optimiser",
        choices=("sgd", "adamw"),
        help="of the method full (default sgd; adamw with --preset vtab-1k or fgvc, as in the papers' code)",
    )
    add("--normalisation", help="imagenet, half or none (default: half on the small backbone, else imagenet)")
    add("--precision", default="float32", help="float32 (default) or bfloat16")
    add("--resample", help="bilinear (default) or bilinear-no-antialias, as the papers'")
    add = one.add_argument_group("images and data").add_argument
    add("--size", type=cli.positive("pixels"), help="of the images (default 224; 32 on the small backbone)")
    add("--n", type=cli.positive("images"), help="training and validation images of stand-ins (default 1000)")
    add(
        "--fraction",
        type=shares_of,
        metavar="LIST",
        help="of the training images of FGVC tasks, as 0.1 or 0.1,0.3,1: a run for each (default 1)",
    )
    add("--anywhere", action="store_true", help="lists may name images outside the folders in --data")
    add(
        "--cache",
        default="results/images",
        metavar="FOLDER",
        help="of decoded images, shared by runs (default results/images); none: decode every time",
    )
    add(
        "--pack", type=cli.positive("trials"), default=8, help="trials that train at once (default 8; memory, see docs)"
    )
    add("--seeds", type=cli.positives("seeds"), metavar="LIST", help="of the final runs (default 42,44,82,100,800)")
    add("--device", default="cpu", choices=("cpu", "cuda"), help="(default cpu)")
    cli.add_execution(one, "all cores; on GPUs one for each")
    cli.add_run(one, "of tuning, drawn images and fractions")
    one.set_defaults(call=run)

    one = cli.add_part(commands, "report", "table and figure of finished runs", str(__doc__), report_of.__doc__)
    one.add_argument("run", type=Path, nargs="+", help="folders that `run` wrote")
    one.add_argument("--out", type=cli.folder, help="where the report goes (default: the run itself)")
    one.set_defaults(call=report_of)

    one = cli.add_part(commands, "check", "what is missing or wrong in the data folders", str(__doc__), check.__doc__)
    one.add_argument("--data", type=Path, required=True, metavar="ROOT", help="the folder of the tasks' folders")
    one.add_argument("--task", default="all", metavar="TASKS", help=TASK_HELP + " (default all)")
    one.add_argument("--thorough", action="store_true", help="decode every image instead of 50 per task")
    one.add_argument(
        "--anywhere", action="store_true", help="lists, written by you, may name images outside its folders"
    )
    one.set_defaults(call=check)

    one = cli.add_part(commands, "fetch-help", "where the data come from", str(__doc__), fetch_help.__doc__)
    one.set_defaults(call=fetch_help)
    return parser


def main() -> None:
    cli.one_thread()
    arguments = parser().parse_args()
    arguments.call(arguments)

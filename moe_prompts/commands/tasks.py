"""Look at the tasks that need no download, ask what a linear probe finds in them, and fetch emoji.

    sheet  a contact sheet of drawn tasks and of plain folders, a row of images for each
    probe  test accuracy of a ridge classifier on the class token of a frozen backbone, and on pixels; the training
           images choose its penalty, by leaving one out
    emoji  emoji as two vendors draw them, through npm, as the plain folder ROOT/emoji (train on one, test on the other)

python experiments/tasks.py sheet --out docs/tasks.png
python experiments/tasks.py probe --size 56 --backbone dinov2-small-focus
python experiments/tasks.py emoji --data data
python experiments/tasks.py probe --task folder:emoji --data data --backbone dinov2-small-focus
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from moe_prompts import cli
from moe_prompts.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from moe_prompts.shown import Ending
    from moe_prompts.vision.tasks.task import Task

TASKS = ("dsprites_loc", "dsprites_ori", "count", "distance", "letters", "azimuth", "elevation", "digits")

#: Images of a smoke run of the probe, of each part of each task.
QUICK = 64

LEGEND = "chance, pixels, linear probe: test accuracy; of a ridge classifier on pixels and on the class token."


def parser() -> argparse.ArgumentParser:
    parser = cli.OneLineParser("tasks.py", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, parser_class=cli.OneLineParser)
    one = cli.add_part(
        commands,
        "sheet",
        "images of tasks on one page",
        str(__doc__),
        "Draw a contact sheet: a row of images for each drawn task, and for each plain folder.",
    )
    add = one.add_argument_group("options").add_argument
    _add_tasks(add, 98)
    add("--images", type=cli.positive("images"), default=12, help="of each task (default 12)")
    add("--out", type=Path, default=Path("results/tasks.png"), help="the file (default results/tasks.png)")
    one = cli.add_part(
        commands,
        "probe",
        "what a linear probe finds",
        str(__doc__),
        "Measure what a linear probe finds: the test accuracy of a ridge classifier on the class token of a frozen "
        "backbone, and on pixels.",
    )
    add = one.add_argument_group("options").add_argument
    _add_tasks(add, 56)
    add("--backbone", default="dinov2-small-focus", help="dinov2-small-focus or a name of timm")
    add("--weights", type=Path, metavar="FILE", help="of the backbone (default: the user's cache, or the hub)")
    add("--train", type=cli.positive("images"), default=1000, help="training images (default 1000)")
    add("--test", type=cli.positive("images"), default=1000, help="test images (default 1000; digits have 797)")
    add("--quick", action="store_true", help=f"at most {QUICK} images of either: a smoke run")
    add("--out", type=cli.folder, default=None, help="folder (default: a new one under results/)")
    one = cli.add_part(
        commands,
        "emoji",
        "fetch emoji of two vendors",
        str(__doc__),
        "Fetch emoji as two vendors draw them, through npm, as the plain folder ROOT/emoji.",
    )
    add = one.add_argument_group("options").add_argument
    add("--data", type=Path, default=Path("data"), metavar="ROOT", help="where the folder emoji appears (default data)")
    add("--train-archive", type=Path, metavar="FILE", help="emoji-datasource-google-16.0.0.tgz, instead of npm")
    add("--test-archive", type=Path, metavar="FILE", help="emoji-datasource-twitter-16.0.0.tgz, instead of npm")
    return parser


def _add_tasks(add, size: int) -> None:
    add("--task", type=cli.names, default=list(TASKS), help="names, with folder:NAME for plain folders (default: all)")
    add("--data", type=Path, metavar="ROOT", help="the folder of plain folders")
    add("--size", type=cli.positive("pixels"), default=size, help=f"side of the images (default {size})")
    add("--entropy", type=int, default=0, help="of what is drawn (default 0)")


def tasks_of(arguments: argparse.Namespace, train: int, test: int) -> list[Task]:
    """Return the tasks that are asked for, opened."""
    from moe_prompts.vision.tasks.folder import folder_task
    from moe_prompts.vision.tasks.named import FOLDER
    from moe_prompts.vision.tasks.procedural import DIGITS, DIGITS_TEST, procedural_task

    found: list[Task] = []
    for name in arguments.task:
        if name.startswith(FOLDER):
            if arguments.data is None:
                raise InputError(
                    f"--task {name} without --data; expected the folder in which {name.removeprefix(FOLDER)} lies"
                )
            found.append(folder_task(arguments.data, name, arguments.size, entropy=arguments.entropy))
        else:
            most = (DIGITS - DIGITS_TEST, DIGITS_TEST) if name == "digits" else (train, test)
            n = min(train, most[0]), min(test, most[1])
            found.append(procedural_task(name, arguments.size, *n, arguments.entropy))
    return found


def sheet(arguments: argparse.Namespace) -> None:
    """Write one page with a row of test images for each task."""
    import io

    import numpy as np
    from matplotlib.figure import Figure

    from moe_prompts.engine.files import write_atomically

    tasks = tasks_of(arguments, 5, arguments.images)
    figure = Figure(figsize=(0.8 * arguments.images, 1.05 * len(tasks)), layout="constrained")
    for ax, task in zip(figure.subplots(len(tasks), 1, squeeze=False)[:, 0], tasks, strict=True):
        images = task.split("test")
        # Of a plain folder, whose images lie class after class, some of every part.
        chosen = np.unique(np.linspace(0, len(images.labels) - 1, arguments.images).astype(int))
        framed = np.pad(images.batch(chosen), ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=255)
        ax.imshow(np.concatenate(list(framed), axis=1), interpolation="none")
        labels = " ".join(str(label) for label in images.labels[chosen])
        ax.set_title(f"{task.name}, {task.classes} classes; labels {labels}", fontsize=8, loc="left")
        ax.set_axis_off()
    with io.BytesIO() as file:
        figure.savefig(file, format="png", dpi=110, metadata={"Software": None})
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(arguments.out, file.getvalue())
    print(f"written   {arguments.out}")


def probe(arguments: argparse.Namespace) -> None:
    """Print a row for each task, and keep the table."""
    import pandas as pd
    import torch

    from moe_prompts.engine.files import write_atomically
    from moe_prompts.vision.backbones.create import create_backbone
    from moe_prompts.vision.backbones.normalisation import normalisation_of
    from moe_prompts.vision.backbones.probe import pixels, ridge, tokens_by_block
    from moe_prompts.vision.prompting.checkpoint import backbone_hash

    torch.set_num_threads(1)
    cli.check_writable(arguments.out, "--out")
    if arguments.quick:
        arguments.train, arguments.test = min(arguments.train, QUICK), min(arguments.test, QUICK)
    model = create_backbone(arguments.backbone, file=arguments.weights, size=arguments.size)
    normalisation = normalisation_of(arguments.backbone)
    rows = []
    for task in tasks_of(arguments, arguments.train, arguments.test):
        images = pixels(task)
        (train, labels), (test, truth) = images["train800val200"], images["test"]
        row = {"task": task.name, "classes": task.classes, "chance": 1 / task.classes}
        row["pixels"] = ridge(flat(train), labels, flat(test), truth)
        of_train, of_test = (tokens_by_block(model, part, normalisation)[-1] for part in (train, test))
        row["linear probe"] = ridge(of_train, labels, of_test, truth)
        row |= {"training images": len(labels), "test images": len(truth)}
        rows.append(row)
    print(ending_of(pd.DataFrame(rows), arguments.backbone))
    out = arguments.out or cli.default_folder("tasks")
    out.mkdir(parents=True, exist_ok=True)
    facts = {"backbone": arguments.backbone, "size": arguments.size, "entropy": arguments.entropy, "rows": rows}
    facts["backbone hash"] = backbone_hash(model)
    write_atomically(out / "probe.json", (json.dumps(facts, indent=1) + "\n").encode())
    print()
    cli.print_files(out, {"probe.json": "backbone, options and rows"})


def ending_of(table: pd.DataFrame, backbone: str) -> Ending:
    """Return what the probe prints: on how many tasks the class token says more than pixels, and a row for each."""
    from moe_prompts.shown import Ending

    shares = ["chance", "pixels", "linear probe"]
    body = table.assign(**{name: table[name].map("{:.3f}".format) for name in shares}).astype(str)
    beaten = [str(name) for name in table.loc[table["linear probe"] <= table["pixels"], "task"]]
    found = f"The class token of {backbone} beats pixels on {len(table) - len(beaten)} of {len(table)} tasks"
    findings = [f"{found}, and not on {', '.join(beaten)}." if beaten else f"{found}."]
    return Ending(findings, list(body.columns), body.to_numpy().tolist(), LEGEND)


def flat(images):
    """Return images of bytes as rows of shares."""
    return images.reshape(len(images), -1) / 255.0


def emoji(arguments: argparse.Namespace) -> None:
    """Fetch both vendors' drawings and write the plain folder."""
    from moe_prompts.vision.tasks.emoji import NOTICE, fetch_emoji

    given = (arguments.train_archive, arguments.test_archive)
    if (given[0] is None) != (given[1] is None):
        raise InputError("--train-archive without --test-archive, or the other way round; expected both or neither")
    archives = None if given[0] is None else dict(zip(("train", "test"), given, strict=True))
    print(f"written   {fetch_emoji(arguments.data, archives)}")
    print("\n".join(cli.wrapped(NOTICE)))


def main() -> None:
    arguments = parser().parse_args()
    {"sheet": sheet, "probe": probe, "emoji": emoji}[arguments.command](arguments)

"""Hand the rows of a finished run to a tracker that the user has installed: Weights & Biases or TensorBoard.

The tables on disk stay what counts; a tracker is given a copy, after a run is whole, so that it can neither
slow a worker nor change a number.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd

from moe_prompts.errors import InputError
from moe_prompts.vision.comparison.report import means, scores

#: Tracker -> the package that it needs.
TRACKERS = {"wandb": "wandb", "tensorboard": "tensorboard"}
NUMBERS = ("accuracy", "cross_entropy", "train_loss")


def check_tracker(name: str | None) -> None:
    """Raise ``InputError`` unless ``name`` is None or a tracker whose package is installed."""
    if name is None:
        return
    if name not in TRACKERS:
        raise InputError(f"--track {name}; expected one of {', '.join(TRACKERS)}")
    if find_spec(TRACKERS[name]) is None:
        raise InputError(f"--track {name} needs the package {TRACKERS[name]}: pip install {TRACKERS[name]}")


def track(name: str, out: Path, tuned: pd.DataFrame, final: pd.DataFrame, settings: dict[str, Any]) -> None:
    """Hand over every trial and the means of methods.

    out       folder of the run; TensorBoard's files go to ``out/tensorboard``
    settings  what the run was made with
    """
    check_tracker(name)
    (_to_wandb if name == "wandb" else _to_tensorboard)(out, tuned, final, settings)


def summary(final: pd.DataFrame) -> dict[str, float]:
    """Return the numbers that a tracker shows first: the accuracy of each task and method, and both means."""
    table = scores(final)
    found = {f"{row.method}/{row.task}": float(row.accuracy) for row in table.itertuples()}
    for row in means(table).to_dict("records"):
        found |= {f"{row['method']}/mean {kind}": float(row[kind]) for kind in ("over tasks", "over groups")}
    return found


def _to_wandb(out: Path, tuned: pd.DataFrame, final: pd.DataFrame, settings: dict[str, Any]) -> None:
    import wandb

    run = wandb.init(project="moe-prompts", name=out.name, dir=str(out), config=settings)
    for stage, rows in (("tune", tuned), ("final", final)):
        if len(rows):
            run.log({stage: wandb.Table(dataframe=rows)})
    run.summary.update(summary(final))
    run.finish()


def _to_tensorboard(out: Path, tuned: pd.DataFrame, final: pd.DataFrame, settings: dict[str, Any]) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(out / "tensorboard")) as writer:
        writer.add_text("settings", f"```\n{settings}\n```")
        for stage, rows in (("tune", tuned), ("final", final)):
            for place, row in enumerate(rows.to_dict("records")):
                for number in NUMBERS:
                    writer.add_scalar(f"{stage}/{row['task']}/{row['method']}/{number}", row[number], place)
        for name, value in summary(final).items():
            writer.add_scalar(f"summary/{name}", value, 0)

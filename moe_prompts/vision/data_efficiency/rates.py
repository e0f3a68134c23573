"""Choose the learning rate that a curve over n is trained with: from a table tuned before, or in every cell.

Tuning judges settings by cross-entropy or by accuracy on validation images. A table holds what
was chosen for (task, method, n); where it lacks an n, the setting of the nearest one on the log scale is
taken.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import log
from typing import Any, Protocol

import pandas as pd

from moe_prompts.checks import one_of
from moe_prompts.errors import InputError
from moe_prompts.vision.data_efficiency.curves import FRESH
from moe_prompts.vision.training.sgd import Score, Setting
from moe_prompts.vision.training.statuses import TRAINED
from moe_prompts.vision.training.tuned import TunedFile, differing

#: By what tuning judges settings.
JUDGES = ("cross_entropy", "accuracy")


class Rates(Protocol):
    """Describe where settings come from."""

    @property
    def by(self) -> str:
        """Return what several settings are judged by, one of ``JUDGES``."""
        ...

    def of(self, task: str, method: str, n: int) -> tuple[Setting, ...]:
        """Return one setting, or several to choose from."""
        ...

    @property
    def facts(self) -> list[Any]:
        """Return what rows of one folder must share, whatever their n."""
        ...


@dataclass(frozen=True)
class Tune:
    """Choose among these settings in every cell, by one of ``JUDGES``; ``InputError`` for another word."""

    settings: tuple[Setting, ...]
    by: str = "cross_entropy"

    def __post_init__(self) -> None:
        one_of(self.by, JUDGES, "Tune: by")

    def of(self, task: str, method: str, n: int) -> tuple[Setting, ...]:
        """Return all settings, whatever the cell."""
        return self.settings

    @property
    def facts(self) -> list[Any]:
        """Return the settings, as results keep them, and by what they are judged unless by cross-entropy."""
        judged = [] if self.by == "cross_entropy" else [{"judged_by": self.by}]
        return [*judged, *(asdict(setting) for setting in self.settings)]


@dataclass(frozen=True)
class Table:
    """Hold settings that were tuned before.

    settings  by (task, method), for each n
    source    where they come from, for errors
    by        of no effect: every cell has one setting
    """

    settings: Mapping[tuple[str, str], Mapping[int, Setting]]
    source: str
    by: str = "cross_entropy"

    def of(self, task: str, method: str, n: int) -> tuple[Setting, ...]:
        """Return the setting of the nearest n.

        Raises ``InputError`` if the table has none for this task and method.
        """
        by_n = self.settings.get((task, method))
        if by_n is None:
            there = sorted({name for name, _ in self.settings})
            raise InputError(
                f"no tuned rate for {method} on {task} in {self.source} (it has {', '.join(there)}); choose rates "
                f"with --tune, or give another table with --rates"
            )
        return (by_n[nearest(n, list(by_n))],)

    @property
    def facts(self) -> list[Any]:
        """Return a row for each task, method and n, as results keep them."""
        return [[*pair, n, asdict(setting)] for pair, by_n in self.settings.items() for n, setting in by_n.items()]


def nearest(n: int, sizes: Sequence[int]) -> int:
    """Return the size whose setting serves for n.

    It is n itself, else the nearest size on the log scale; fresh images count as the largest n.
    """
    finite = [size for size in sizes if size != FRESH]
    if n in sizes or not finite:
        return n if n in sizes else FRESH
    return max(finite) if n == FRESH else min(finite, key=lambda size: (abs(log(size / n)), size))


def best(
    settings: Sequence[Setting], statuses: Sequence[str], scores: Sequence[Score], by: str = "cross_entropy"
) -> Setting | None:
    """Return the setting with the least cross-entropy, or with the highest accuracy; None if all diverged.

    Of equal accuracies the one with the smaller cross-entropy counts, then the smaller learning rate.
    Raises ``InputError`` for a ``by`` that is none of ``JUDGES``.
    """
    one_of(by, JUDGES, "best: by")
    accuracy = [score.accuracy if by == "accuracy" else 0.0 for score in scores]
    sound = [
        (-accuracy[number], score.cross_entropy, setting.lr, number)
        for number, (setting, status, score) in enumerate(zip(settings, statuses, scores, strict=True))
        if status == TRAINED
    ]
    return settings[min(sound)[-1]] if sound else None


def as_json(rows: pd.DataFrame, case: dict[str, Any], command: list[str], by: str | None = None) -> str:
    """Return the content of ``rates.json`` of a run.

    It holds the settings of the rows, the case they belong to, and the command that makes them again.

    by  what judged the settings, one of ``JUDGES``; None: they come from a table
    """
    judged = {} if by is None else {"judged_by": one_of(by, JUDGES, "as_json: by")}
    kept = rows[rows["lr"].notna()].drop_duplicates(["task", "method", "n"])
    lines = ",\n".join(
        "    " + json.dumps({name: getattr(row, name) for name in ("task", "method", "n", "lr", "weight_decay")})
        for row in kept.itertuples()
    )
    head = json.dumps({"command": command, "case": case} | judged, indent=2)
    return head[:-2] + f',\n  "rates": [\n{lines}\n  ]\n}}\n'


def read_rates(source: str, case: Mapping[str, Any]) -> Table:
    """Return the table of settings in a file, or the one that comes with the package ("shipped").

    case  backbone and prompts of this run; raises ``InputError`` if those of the table are others
    """
    file = TunedFile("--rates", source, "rates.json", shipped="rates.json")

    def take(content: dict[str, Any]) -> tuple[dict[tuple[str, str], dict[int, Setting]], list[str]]:
        found: dict[tuple[str, str], dict[int, Setting]] = {}
        for row in content["rates"]:
            found.setdefault((row["task"], row["method"]), {})[row["n"]] = Setting(row["lr"], row["weight_decay"])
        return found, differing({key: content["case"][key] for key in case}, case)

    found, others = file.read(take)
    if others:
        raise InputError(f"{file}: tuned for another case ({'; '.join(others)}); choose rates with --tune")
    return Table(found, str(file))

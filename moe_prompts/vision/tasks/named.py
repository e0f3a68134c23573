"""Tasks by name, as command lines and workers know them: a small value that is opened where it is used.

dtd             a VTAB-1K task under a root folder
fgvc:dogs       one of the five FGVC tasks under a root folder
stand-in:count  drawn here, no data needed
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from moe_prompts.errors import InputError
from moe_prompts.vision.tasks.task import Task

STAND_IN, FGVC = "stand-in:", "fgvc:"


class Spec(Hashable, Protocol):
    """What a protocol asks of the name of a task. ``label`` is for file names, ``n_train`` are its images for
    training and validation, where ``facts`` of the task do not say."""

    @property
    def name(self) -> str: ...

    @property
    def size(self) -> int: ...

    @property
    def n_train(self) -> int: ...

    @property
    def label(self) -> str: ...

    def open(self) -> Task: ...


@dataclass(frozen=True)
class TaskSpec:
    """Name and where its images come from.

    size      pixels of a side
    root      folder of VTAB-1K or FGVC; stand-ins have none
    cache     folder of decoded images; None decodes for every batch
    resample  see ``tasks.images``
    fraction  of the training images (FGVC)
    n_train   training and validation images together (stand-ins)
    entropy   of drawn images and fractions
    """

    name: str
    size: int = 224
    root: str | None = None
    cache: str | None = None
    resample: str = "bilinear"
    fraction: float = 1.0
    n_train: int = 1000
    entropy: int = 0

    def __post_init__(self) -> None:
        if not self.is_stand_in and self.root is None:
            raise InputError(
                f"task {self.name} needs images: give their folder with --data, or use a stand-in such as "
                f"{STAND_IN}dsprites_loc"
            )
        if self.fraction != 1 and not self.name.startswith(FGVC):
            raise InputError(f"task {self.name}: a fraction of {self.fraction}; only FGVC tasks are cut by fractions")

    @property
    def is_stand_in(self) -> bool:
        return self.name.startswith(STAND_IN)

    @property
    def label(self) -> str:
        """For file names."""
        return self.name.replace(":", "-")

    def open(self) -> Task:
        if self.is_stand_in:
            from moe_prompts.vision.tasks.procedural import procedural_task

            short = self.name.removeprefix(STAND_IN)
            return procedural_task(short, size=self.size, n_train=self.n_train, entropy=self.entropy)
        assert self.root is not None
        cache = None if self.cache is None else Path(self.cache)
        if self.name.startswith(FGVC):
            from moe_prompts.vision.tasks.fgvc import fgvc_task

            return fgvc_task(
                self.root, self.name, self.size, cache, self.resample, fraction=self.fraction, seed=self.entropy
            )
        from moe_prompts.vision.tasks.vtab import vtab_task

        return vtab_task(self.root, self.name, self.size, cache, self.resample)


def task_names(text: str, stand_ins: bool = False) -> list[str]:
    """The tasks that a comma-separated text names, each once, in order; with ``stand_ins`` also those that are drawn.

    ``all``, ``fgvc`` and the groups of VTAB-1K stand for their tasks.
    """
    from moe_prompts.vision.tasks import fgvc, procedural, vtab

    drawn = [STAND_IN + name for name in procedural.NAMES] if stand_ins else []
    groups = {group: [name for name, data in vtab.TASKS.items() if data.group == group] for group in vtab.GROUPS}
    groups |= {"all": list(vtab.TASKS), "fgvc": [fgvc.PREFIX + name for name in fgvc.TASKS]}
    known = groups | {name: [name] for name in [*groups["all"], *groups["fgvc"], *drawn]}
    asked = [part.strip() for part in text.split(",") if part.strip()]
    unknown = [name for name in asked if name not in known]
    if unknown or not asked:
        raise InputError(f"--task {text}; expected some of {', '.join(known)}")
    return list(dict.fromkeys(task for name in asked for task in known[name]))

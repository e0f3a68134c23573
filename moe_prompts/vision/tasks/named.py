"""Open tasks by name, as command lines and workers know them: a small value that is opened where it is used.

dtd             a VTAB-1K task under a root folder
fgvc:dogs       one of the five FGVC tasks under a root folder
folder:emoji    a plain folder under a root folder, with a folder of images for each class
stand-in:count  drawn here, no data needed
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from moe_prompts.errors import InputError
from moe_prompts.vision.tasks.task import FGVC, FOLDER, STAND_IN, Task


def short(task: str) -> str:
    """Return the name of a task as figures and tables print it: a stand-in loses its prefix."""
    return task.removeprefix(STAND_IN)


class Spec(Hashable, Protocol):
    """Describe what a protocol asks of the name of a task."""

    @property
    def name(self) -> str:
        """Return the name of the task, as tables have it."""
        ...

    @property
    def size(self) -> int:
        """Return the side of its images in pixels."""
        ...

    @property
    def n_train(self) -> int:
        """Return the number of training and validation images, where the task's ``facts`` do not say it."""
        ...

    @property
    def label(self) -> str:
        """Return the name of the task, as file names have it."""
        ...

    def open(self) -> Task:
        """Return the task itself."""
        ...


@dataclass(frozen=True)
class TaskSpec:
    """Name a task and say where its images come from.

    name      as command lines have it: "dtd", "fgvc:dogs", "folder:emoji", "stand-in:count"
    size      side of the images in pixels
    root      folder of VTAB-1K, of FGVC or of plain folders; stand-ins have none
    cache     folder of decoded images; None decodes for every batch
    resample  how images are resized: one of ``images.RESAMPLE``
    fraction  share of the training images to keep, in (0, 1] (FGVC only)
    n_train   training and validation images together (stand-ins only)
    entropy   of drawn images and of fractions
    anywhere  True: the lists, which the user wrote, may name images outside the task's folder

    Raises ``InputError`` for a task from folders without ``root``, or a fraction of another task than FGVC's.
    """

    name: str
    size: int = 224
    root: str | None = None
    cache: str | None = None
    resample: str = "bilinear"
    fraction: float = 1.0
    n_train: int = 1000
    entropy: int = 0
    anywhere: bool = False

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
        """Return whether the images are drawn here."""
        return self.name.startswith(STAND_IN)

    @property
    def label(self) -> str:
        """Return the name for file names, without a colon."""
        return self.name.replace(":", "-")

    def open(self) -> Task:
        """Return the task; raise ``InputError`` if there is none of this name or its folder is missing."""
        if self.is_stand_in:
            from moe_prompts.vision.tasks.procedural import procedural_task

            return procedural_task(short(self.name), size=self.size, n_train=self.n_train, entropy=self.entropy)
        assert self.root is not None
        cache = None if self.cache is None else Path(self.cache)
        if self.name.startswith(FGVC):
            from moe_prompts.vision.tasks.fgvc import fgvc_task

            return fgvc_task(
                self.root,
                self.name,
                self.size,
                cache,
                self.resample,
                fraction=self.fraction,
                seed=self.entropy,
                anywhere=self.anywhere,
            )
        if self.name.startswith(FOLDER):
            from moe_prompts.vision.tasks.folder import folder_task

            return folder_task(self.root, self.name, self.size, cache, self.resample, self.entropy)
        from moe_prompts.vision.tasks.vtab import vtab_task

        return vtab_task(self.root, self.name, self.size, cache, self.resample, self.anywhere)


def short_names() -> list[str]:
    """Return the stand-ins that may be named without their prefix.

    A name that VTAB-1K has, too, means that task in every command, with and without a folder.
    """
    from moe_prompts.vision.tasks import procedural, vtab

    return [name for name in procedural.NAMES if name not in vtab.TASKS]


def task_names(text: str, stand_ins: bool = False) -> list[str]:
    """Return the tasks that a comma-separated text names, each once, in order.

    text       names of tasks, with ``folder:NAME`` for plain folders; ``all`` (VTAB-1K), ``fgvc`` and the
               groups of VTAB-1K stand for their tasks
    stand_ins  True also allows tasks that are drawn, by their full names and ``short_names``

    Raises ``InputError`` for an unknown name, and for none.
    """
    from moe_prompts.vision.tasks import fgvc, procedural, vtab

    drawn = [STAND_IN + name for name in procedural.NAMES] if stand_ins else []
    groups = {group: [name for name, data in vtab.TASKS.items() if data.group == group] for group in vtab.GROUPS}
    groups |= {"all": list(vtab.TASKS), "fgvc": [FGVC + name for name in fgvc.TASKS]}
    known = groups | {name: [name] for name in [*groups["all"], *groups["fgvc"], *drawn]}
    if stand_ins:
        known |= {name: [STAND_IN + name] for name in short_names()}
    asked = [part.strip() for part in text.split(",") if part.strip()]
    known |= {name: [name] for name in asked if name.startswith(FOLDER) and len(name) > len(FOLDER)}
    unknown = [name for name in asked if name not in known]
    if unknown or not asked:
        raise InputError(f"--task {text}; expected some of {', '.join(known)}, {FOLDER}NAME")
    return list(dict.fromkeys(task for name in asked for task in known[name]))

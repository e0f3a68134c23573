"""Read a task from a plain folder: one folder of images for each class.

    <root>/<name>/train/CLASS/IMAGE    <root>/<name>/test/CLASS/IMAGE

Classes are the folders under ``train``, in the order of their names. Images are opened by content, whatever
they are called, through the same door as all others (``images``). What begins with a dot is passed over.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from moe_prompts.errors import InputError
from moe_prompts.seeds import rng_at
from moe_prompts.vision.tasks.images import ANTIALIASED, Files, Resize, image_set
from moe_prompts.vision.tasks.subsets import stratified_order
from moe_prompts.vision.tasks.task import FOLDER, ImageSet, Subset
from moe_prompts.vision.tasks.vtab import check_split, image_facts

#: Share of the training images that settings are fitted on; the others judge them.
FIT = 0.8


def folder_task(
    root: str | Path,
    name: str,
    size: int = 224,
    cache: str | Path | None = None,
    resample: str = ANTIALIASED,
    entropy: int = 0,
) -> FolderTask:
    """Return the task in the folder ``name`` under ``root``.

    name      of the folder, with or without ``folder:`` before it
    size      side in pixels to which images are resized, whatever their shape
    cache     folder of decoded images; None decodes for every batch
    resample  one of ``images.RESAMPLE``
    entropy   of the cut of the training images into four fifths to fit on and one fifth to judge by

    Raises ``InputError`` for a folder of another form.
    """
    where = Path(root) / name.removeprefix(FOLDER)
    return FolderTask(where, Resize(size, resample=resample), None if cache is None else Path(cache), entropy)


@dataclass(frozen=True)
class FolderTask:
    """Hold a ``Task`` of a plain folder; ``folder_task`` makes one."""

    folder: Path
    resize: Resize
    cache: Path | None
    entropy: int

    group = "folder"

    def __post_init__(self) -> None:
        for part in ("train", "test"):
            if not (self.folder / part).is_dir():
                raise InputError(f"no folder {self.folder / part}; expected it with one folder of images per class")
        if len(self.names) < 2:
            raise InputError(
                f"{self.folder / 'train'}: {len(self.names)} folders; expected at least 2, one for each class"
            )

    @property
    def name(self) -> str:
        """Return the task's name, as command lines have it."""
        return FOLDER + self.folder.name

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Return the names of the classes; the number of one is its label."""
        return tuple(path.name for path in _visible(self.folder / "train") if path.is_dir())

    @property
    def classes(self) -> int:
        """Return the number of classes."""
        return len(self.names)

    @property
    def size(self) -> int:
        """Return the side of the images in pixels."""
        return self.resize.size

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Return what results must say about the data; the test images are not looked at."""
        names, labels = self._listed("train")
        return {
            "data": "plain folder",
            "resample": self.resize.resample,
            "train_images": len(labels),
            "entropy": self.entropy,
            "lists": sha256("\n".join(names).encode()).hexdigest()[:16],
            **image_facts(self._files("train", names)),
        }

    def split(self, name: str) -> ImageSet:
        """Return the images of one of ``SPLITS``; raise ``InputError`` for another name or a wrong folder."""
        check_split(name)
        part = "test" if name == "test" else "train"
        names, labels = self._listed(part)
        images = image_set(self._files(part, names), labels, self.cache)
        if name in ("test", "train800val200"):
            return images
        order = stratified_order(labels, rng_at(self.entropy, "folder", "split"))
        fit = max(1, round(FIT * len(order)))
        return Subset(images, np.sort(order[:fit] if name == "train800" else order[fit:]))

    def _files(self, part: str, names: tuple[str, ...]) -> Files:
        return Files(self.folder / part, names, self.resize, f"{self.folder.name}-{part}")

    def _listed(self, part: str) -> tuple[tuple[str, ...], np.ndarray]:
        """Return paths below ``part`` and their labels, class after class."""
        names: list[str] = []
        labels: list[int] = []
        for folder in _visible(self.folder / part):
            if not folder.is_dir() or folder.name not in self.names:
                raise InputError(
                    f"{folder}: no folder of a class; expected only folders named as under {self.folder / 'train'}"
                )
            images = _visible(folder)
            deeper = [path for path in images if path.is_dir()]
            if deeper or not images:
                what = f"a folder {deeper[0].name}" if deeper else "nothing"
                raise InputError(f"{folder}: {what} in it; expected images and nothing else")
            names += [f"{folder.name}/{path.name}" for path in images]
            labels += [self.names.index(folder.name)] * len(images)
        if not names:
            raise InputError(f"{self.folder / part}: no images; expected one folder of images per class")
        return tuple(names), np.array(labels, dtype=np.int64)


def _visible(folder: Path) -> list[Path]:
    return sorted((path for path in folder.iterdir() if not path.name.startswith(".")), key=lambda path: path.name)

"""Read VTAB-1K from folders: 19 tasks of 1000 training images each, in three groups.

    <root>/<task>/{train800,val200,train800val200,test}.txt     lines "relative/path label", labels from 0

Paths are those of the lists, relative to the task's folder, whatever their extension; they may contain
spaces. The list test.txt is read by ``split("test")`` alone.

Source: arXiv 1910.04867 (tasks, labels, test sets); the lists are a later custom of papers on prompts and
adapters.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from moe_prompts.errors import InputError
from moe_prompts.vision.tasks.images import ANTIALIASED, Files, Resize, image_set, read_header
from moe_prompts.vision.tasks.task import SPLITS, ImageSet

GROUPS = ("natural", "specialized", "structured")
#: Images of at most so many pixels a side suffer most from lossy exports.
SMALL = 64


@dataclass(frozen=True)
class VtabData:
    """Hold what is known of a task before its files are read.

    group        one of ``GROUPS``
    classes      number of classes
    test_images  number of images in the published test set
    side         of its images in pixels, where all have the same; None: sizes vary
    """

    group: str
    classes: int
    test_images: int
    side: int | None = None

    @property
    def small(self) -> bool:
        """Return whether the images have at most ``SMALL`` pixels a side."""
        return self.side is not None and self.side <= SMALL


TASKS: dict[str, VtabData] = {
    "caltech101": VtabData("natural", 102, 6084),
    "cifar": VtabData("natural", 100, 10000, 32),
    "dtd": VtabData("natural", 47, 1880),
    "oxford_flowers102": VtabData("natural", 102, 6149),
    "oxford_iiit_pet": VtabData("natural", 37, 3669),
    "sun397": VtabData("natural", 397, 21750),
    "svhn": VtabData("natural", 10, 26032, 32),
    "diabetic_retinopathy": VtabData("specialized", 5, 42670),
    "eurosat": VtabData("specialized", 10, 5400, 64),
    "patch_camelyon": VtabData("specialized", 2, 32768, 96),
    "resisc45": VtabData("specialized", 45, 6300, 256),
    "clevr_count": VtabData("structured", 8, 15000),
    "clevr_dist": VtabData("structured", 6, 15000),
    "dmlab": VtabData("structured", 6, 22735),
    "dsprites_loc": VtabData("structured", 16, 73728, 64),
    "dsprites_ori": VtabData("structured", 16, 73728, 64),
    "kitti": VtabData("structured", 4, 711),
    "smallnorb_azi": VtabData("structured", 18, 12150, 96),
    "smallnorb_ele": VtabData("structured", 9, 12150, 96),
}


def vtab_task(
    root: str | Path,
    name: str,
    size: int = 224,
    cache: str | Path | None = None,
    resample: str = ANTIALIASED,
    anywhere: bool = False,
) -> VtabTask:
    """Return the task ``name``, one of ``TASKS``, whose lists and images lie under ``root``.

    size      side in pixels that images are resized to
    cache     folder of decoded images; None decodes for every batch
    resample  how images are resized: one of ``images.RESAMPLE``
    anywhere  True: the lists, which the user wrote, may name images outside the task's folder

    Raises ``InputError`` for an unknown name or a missing folder.
    """
    data_of(name)
    resize = Resize(size, resample=resample)
    return VtabTask(Path(root), name, resize, None if cache is None else Path(cache), anywhere)


def data_of(name: str) -> VtabData:
    """Return what is known of the task ``name``; raise ``InputError`` if there is no such task."""
    if name not in TASKS:
        raise InputError(f"unknown VTAB-1K task {name!r}; expected one of {', '.join(TASKS)}")
    return TASKS[name]


@dataclass(frozen=True)
class VtabTask:
    """Read one VTAB-1K task from its folder.

    It is a ``Task``; ``vtab_task`` makes it and explains the arguments.
    """

    root: Path
    name: str
    resize: Resize
    cache: Path | None
    anywhere: bool = False

    def __post_init__(self) -> None:
        if not self.folder.is_dir():
            raise InputError(f"no folder {self.folder}; expected <root>/{self.name} with the lists of VTAB-1K")

    @property
    def folder(self) -> Path:
        """Return the task's folder, <root>/<name>."""
        return self.root / self.name

    @property
    def group(self) -> str:
        """Return the group of the task, one of ``GROUPS``."""
        return TASKS[self.name].group

    @property
    def classes(self) -> int:
        """Return the number of classes."""
        return TASKS[self.name].classes

    @property
    def size(self) -> int:
        """Return the side of the resized images in pixels."""
        return self.resize.size

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Return what results must say about the 1000 training images; the test set is not looked at."""
        names, _ = read_list(self.folder / "train800val200.txt", self.classes)
        return {
            "data": "folder",
            "resample": self.resize.resample,
            "train_images": len(names),
            "lists": self._digest(),
            **image_facts(self._files("train800val200", names)),
        }

    def _digest(self) -> str:
        """Return a hash of the lists of training images."""
        lists = (self.folder / f"{name}.txt" for name in SPLITS if name != "test")
        return sha256(b"".join(path.read_bytes() for path in lists if path.exists())).hexdigest()[:16]

    def split(self, name: str) -> ImageSet:
        """Return the images of one of ``SPLITS``.

        Raises ``InputError`` for another name, and for a list that cannot be read.
        """
        check_split(name)
        names, labels = read_list(self.folder / f"{name}.txt", self.classes)
        return image_set(self._files(name, names), labels, self.cache)

    def _files(self, split: str, names: tuple[str, ...]) -> Files:
        return Files(self.folder, names, self.resize, f"{self.name}-{split}", self.anywhere)


def check_split(name: str) -> None:
    """Raise ``InputError`` unless ``name`` is one of ``SPLITS``."""
    if name not in SPLITS:
        raise InputError(f"unknown split {name!r}; expected one of {', '.join(SPLITS)}")


def image_facts(files: Files) -> dict[str, str]:
    """Return file formats and pixels of the images as they lie on disk, from their headers.

    Raises ``InputError`` for a name that leads out of the folder, and for what is no image.
    """
    formats, sizes = zip(*(read_header(files.path(name)) for name in files.names), strict=True)
    height, width = sizes[0]
    return {
        "image_format": ", ".join(sorted(set(formats))),
        "image_pixels": f"{height} x {width}" if len(set(sizes)) == 1 else "varied",
    }


def as_on_disk(folder: Path, names: Sequence[str]) -> tuple[str, ...]:
    """Return the names spelled as their files under ``folder`` are.

    A letter with an accent is one character or two (Unicode's normal forms), which look alike, and Windows
    writes backslashes between folders; a list made on one system and files unpacked on another then differ.
    Names that no spelling finds stay as they are.
    """
    return tuple(name if plain_name(name) else _spelled(folder, name) for name in names)


def plain_name(name: str) -> bool:
    """Say whether a name has one spelling only."""
    return name.isascii() and "\\" not in name


def _spelled(folder: Path, name: str) -> str:
    if os.path.exists(folder / name):  # False also for a name that no file system takes
        return name
    found: list[str] = []
    for part in name.replace("\\", "/").split("/"):  # folders may be spelled otherwise than files in them
        forms = [part, *(unicodedata.normalize(form, part) for form in ("NFC", "NFD"))]
        there = [form for form in forms if os.path.exists(folder.joinpath(*found, form))]
        if not there:
            return name
        found.append(there[0])
    return "/".join(found)


def read_list(path: Path, classes: int) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the paths of a list and their labels (n,).

    Raises ``InputError`` for a list that is missing or unreadable, and for lines without a label or with one
    that is no whole number below ``classes``; the text names the first such line.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such list; expected lines 'relative/path label'") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: unreadable ({error}); expected UTF-8 lines 'relative/path label'") from error
    # Paths may contain spaces: the label is the last field.
    fields = {number: line.rsplit(None, 1) for number, line in enumerate(lines, 1) if line.strip()}
    if not fields:
        raise InputError(f"{path}: empty; expected lines 'relative/path label'")
    wrong = [n for n, field in fields.items() if len(field) < 2]
    _refuse(path, lines, wrong, "without a label", "a path and a label")
    expected = f"a whole number from 0 to {classes - 1}"
    wrong = [n for n, field in fields.items() if not re.fullmatch(r"[0-9]+", field[1])]
    _refuse(path, lines, wrong, "whose label is no whole number", expected)
    wrong = [n for n, field in fields.items() if int(field[1].lstrip("0")[:9] or 0) >= classes]
    _refuse(path, lines, wrong, "whose label is out of range", expected)
    names, labels = zip(*((name, label.lstrip("0") or "0") for name, label in fields.values()), strict=True)
    names = as_on_disk(path.parent, names)
    return names, np.array(labels, dtype=np.int64)


def _refuse(path: Path, lines: list[str], wrong: list[int], what: str, expected: str) -> None:
    if wrong:
        shown = lines[wrong[0] - 1].strip()
        shown = shown if len(shown) <= 80 else shown[:77] + "..."
        raise InputError(
            f"{path}: {len(wrong)} line{'s' * (len(wrong) > 1)} {what}, the first is line {wrong[0]}, {shown!r}; "
            f"expected {expected}"
        )

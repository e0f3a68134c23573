"""Read five fine-grained tasks (FGVC) from folders: many classes that differ in details, few images of each.

    <root>/<folder>/{train,val,test}.json     {image name: class id}; the splits published with VPT

The folder has the name of its data set, in any case and punctuation: CUB_200_2011, nabirds, OxfordFlowers,
StanfordDogs, StanfordCars, or a shorter form that ``TASKS`` lists. Or ``root`` itself holds the three files.
Image names are relative to that folder or to its images/, Images/, jpg/ or car_ims/. Class ids, whole numbers
or text, are numbered in sorted order over train.json. With the splits of ``Task``,

    train800 = train,   val200 = val,   train800val200 = train, then val,   test = test

An image's shorter side becomes 8/7 of ``size`` (256 for 224). Training then cuts squares at random places and
flips them at random; everywhere else the square comes from the centre. ``fraction`` keeps a stratified share
of train and of val; with one seed, a smaller share is contained in a larger one.

Source: arXiv 2203.12119 (tasks and splits).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from moe_prompts.errors import InputError
from moe_prompts.seeds import rng_at
from moe_prompts.vision.tasks.images import ANTIALIASED, Decoded, Files, Resize, cached_ragged
from moe_prompts.vision.tasks.subsets import stratified_subset
from moe_prompts.vision.tasks.task import FGVC, ImageSet, Subset
from moe_prompts.vision.tasks.vtab import as_on_disk, check_split, image_facts, plain_name

JSON_FILES = ("train", "val", "test")
#: Where images are looked for, under the data set's folder.
IMAGE_FOLDERS = ("", "images", "Images", "jpg", "car_ims")


@dataclass(frozen=True)
class FgvcData:
    """Hold what is known of a task before its files are read.

    classes      number of classes
    test_images  number of images in the published test set
    folders      names that the data set's folder may have, compared without case and punctuation; the first
                 is the one that its site gives it
    """

    classes: int
    test_images: int
    folders: tuple[str, ...]


TASKS: dict[str, FgvcData] = {
    "cub": FgvcData(200, 5794, ("CUB_200_2011", "CUB_200", "CUB_2011", "CUB")),
    "nabirds": FgvcData(555, 24633, ("nabirds",)),
    "flowers": FgvcData(102, 6149, ("OxfordFlowers", "OxfordFlower", "OxfordFlowers102", "Flowers102", "flowers")),
    "dogs": FgvcData(120, 8580, ("StanfordDogs", "dogs")),
    "cars": FgvcData(196, 8041, ("StanfordCars", "cars")),
}


def fgvc_task(
    root: str | Path,
    name: str,
    size: int = 224,
    cache: str | Path | None = None,
    resample: str = ANTIALIASED,
    fraction: float = 1.0,
    seed: int = 0,
    anywhere: bool = False,
) -> FgvcTask:
    """Return the task ``name`` ("dogs" or "fgvc:dogs") whose data set lies under ``root``.

    size      side of the squares in pixels
    cache     folder of decoded images; None decodes for every batch
    resample  how images are resized: one of ``images.RESAMPLE``
    fraction  share of the training images and of the validation images to keep, in (0, 1]; all test images
              stay
    seed      entropy of the choice; a smaller fraction of the same seed is contained in a larger one
    anywhere  True: the JSON files, which the user wrote, may name images outside the data set's folder

    Raises ``InputError`` for an unknown name, a missing folder, or a fraction or seed out of range.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise InputError(f"seed {seed!r}; expected a whole number of at least 0")
    if not 0 < fraction <= 1:
        raise InputError(f"fraction {fraction!r}; expected more than 0 and at most 1, as 0.1")
    short = short_name(name)
    resize = Resize(round(size * 8 / 7), keep_aspect=True, resample=resample)
    folder = dataset_folder(Path(root), short)
    kept = None if cache is None else Path(cache)
    return FgvcTask(folder, FGVC + short, size, resize, kept, float(fraction), seed, anywhere)


def short_name(name: str) -> str:
    """Return the name of a task without its prefix "fgvc:"; raise ``InputError`` if there is no such task."""
    short = name.removeprefix(FGVC)
    if short not in TASKS:
        raise InputError(f"unknown FGVC task {name!r}; expected one of {', '.join(FGVC + known for known in TASKS)}")
    return short


@dataclass(frozen=True)
class FgvcTask:
    """Read one FGVC task from its folder.

    It is a ``Task``; ``fgvc_task`` makes it and explains the arguments.
    """

    folder: Path
    name: str
    size: int
    resize: Resize
    cache: Path | None
    fraction: float
    seed: int
    anywhere: bool = False

    @property
    def group(self) -> str:
        """Return "fgvc", the group of all these tasks."""
        return "fgvc"

    @property
    def classes(self) -> int:
        """Return the number of classes."""
        return TASKS[short_name(self.name)].classes

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Return what results must say about the training and validation images in use.

        They are read from those images' files; the test set is not looked at.
        """
        chosen = {}
        for file in ("train", "val"):
            names, labels = self._list(file)
            chosen[file] = tuple(names[index] for index in self._share(file, labels))
        return {
            "data": "folder",
            "resample": self.resize.resample,
            "train_images": len(chosen["train"]) + len(chosen["val"]),
            **image_facts(self._files("train", chosen["train"] + chosen["val"])),
            "fraction": self.fraction,
            "subset_seed": self.seed,
        }

    def split(self, name: str) -> ImageSet:
        """Return the images of one of ``SPLITS``.

        Raises ``InputError`` for another name, and for a list that cannot be read.
        """
        check_split(name)
        if name == "train800val200":
            return Joined(self.split("train800"), self.split("val200"))
        file = {"train800": "train", "val200": "val", "test": "test"}[name]
        names, labels = self._list(file)
        files = self._files(file, names)
        images = Crops(files if self.cache is None else cached_ragged(files, self.cache), labels, self.size)
        # All fractions share one cache.
        return images if file == "test" or self.fraction == 1 else Subset(images, self._share(file, labels))

    def _files(self, file: str, names: tuple[str, ...]) -> Files:
        folder = image_folder(self.folder, names)
        return Files(folder, names, self.resize, f"{self.name.replace(':', '-')}-{file}", self.anywhere)

    def _share(self, file: str, labels: np.ndarray) -> np.ndarray:
        return stratified_subset(labels, self.fraction, rng_at(self.seed, self.name, file))

    def _list(self, file: str) -> tuple[tuple[str, ...], np.ndarray]:
        numbers = class_numbers(self.folder / "train.json", self.classes)
        return read_labels(self.folder / f"{file}.json", numbers)


@dataclass(frozen=True)
class Crops:
    """Give squares of ``size`` pixels that are cut from larger images.

    A batch with an ``rng`` is augmented for training: each square lies at a random place and is mirrored with
    chance 1/2. A batch without one is cut from the centres.

    labels  (n,) whole numbers from 0
    """

    images: Decoded
    labels: np.ndarray
    size: int

    def __post_init__(self) -> None:
        self.labels.setflags(write=False)

    def batch(self, indices: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """Return bytes (len(indices), size, size, 3): random crops with an ``rng``, central ones without."""
        cut = np.empty((len(indices), self.size, self.size, 3), dtype=np.uint8)
        for target, index in zip(cut, indices, strict=True):
            image = self.images[index]
            target[...] = centre_crop(image, self.size) if rng is None else random_crop(image, self.size, rng)
        return cut


def centre_crop(image: np.ndarray, size: int) -> np.ndarray:
    """Return the square of ``size`` pixels in the middle of an image (H, W, 3)."""
    top, left = (image.shape[0] - size) // 2, (image.shape[1] - size) // 2
    return image[top : top + size, left : left + size]


def random_crop(image: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Return a random square of ``size`` pixels of an image (H, W, 3).

    Every place is equally likely; with chance 1/2 the square is mirrored left to right.
    """
    top, left = rng.integers(0, [image.shape[0] - size, image.shape[1] - size], endpoint=True)
    cut = image[top : top + size, left : left + size]
    return cut[:, ::-1] if rng.random() < 0.5 else cut


@dataclass(frozen=True)
class Joined:
    """Join two sets of images, one after the other."""

    first: ImageSet
    second: ImageSet

    @property
    def labels(self) -> np.ndarray:
        """Return the labels of the first set followed by those of the second."""
        return np.concatenate([self.first.labels, self.second.labels])

    def batch(self, indices: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """Return the images with these numbers, where those of the second set follow those of the first."""
        indices = np.asarray(indices)
        split = len(self.first.labels)
        in_first = indices < split
        one = self.first.batch(indices[in_first], rng)
        two = self.second.batch(indices[~in_first] - split, rng)
        images = np.empty((len(indices), *one.shape[1:]), dtype=one.dtype)
        images[in_first], images[~in_first] = one, two
        return images


def dataset_folder(root: Path, name: str) -> Path:
    """Return ``root`` itself if it holds train.json, else its one folder that is named as the data set.

    Raises ``InputError`` if there is no such folder, or more than one.
    """
    if (root / "train.json").is_file():
        return root
    known = {_plain(folder) for folder in TASKS[name].folders}
    inside = sorted(root.iterdir()) if root.is_dir() else []
    found = [path for path in inside if path.is_dir() and _plain(path.name) in known]
    if len(found) != 1:
        what = f"several folders of {name} ({', '.join(path.name for path in found)})" if found else f"no {name}"
        raise InputError(
            f"{root}: {what}; expected train.json in it, or one folder named {' or '.join(TASKS[name].folders)}"
        )
    return found[0]


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def read_json(path: Path) -> dict[str, int | str]:
    """Return the class id of each image name, in the order of the file.

    The ids are all whole numbers or all text. Raises ``InputError`` for a file that is missing, unreadable,
    of another form, or names an image twice.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_once)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; expected a map from image name to class id") from error
    except KeyError as error:
        raise InputError(
            f"{path}: the image {error.args[0]!r} stands there twice, with class ids of which the first would be lost; "
            "expected each image once"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: unreadable ({error}); expected JSON, a map from image name to class id") from error
    if not isinstance(content, dict) or not content or {type(v) for v in content.values()} not in ({int}, {str}):
        raise InputError(f"{path}: expected a map from image name to class id, all ids whole numbers or all text")
    return content


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return a JSON object as a dict; raise ``KeyError`` with the first name that stands there twice."""
    found: dict[str, object] = {}
    for name, value in pairs:
        if name in found:
            raise KeyError(name)
        found[name] = value
    return found


def class_numbers(path: Path, classes: int) -> dict[int | str, int]:
    """Return the number of each class id: 0, 1, ... in sorted order of the ids in the training file.

    Raises ``InputError`` unless there are exactly ``classes`` of them.
    """
    ids = sorted(set(read_json(path).values()))  # type: ignore[type-var]  # of one type
    if len(ids) != classes:
        raise InputError(f"{path}: {len(ids)} classes; expected {classes}, every one with a training image")
    return {value: number for number, value in enumerate(ids)}


def read_labels(path: Path, numbers: dict[int | str, int]) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the image names of a file and their labels (n,), numbered by ``class_numbers``.

    numbers  class id -> label

    Names are spelled as their files on disk, where these are found. Raises ``InputError`` if a class is not
    among ``numbers``.
    """
    content = read_json(path)
    unknown = [name for name, value in content.items() if value not in numbers]
    if unknown:
        raise InputError(
            f"{path}: images of classes that train.json lacks, {len(unknown)}, as {unknown[0]!r} of class "
            f"{content[unknown[0]]!r}; expected the splits of one data set"
        )
    names = tuple(content)
    if not all(map(plain_name, names)):
        with suppress(InputError):  # where no image is there under any spelling, whoever opens them says so
            names = as_on_disk(image_folder(path.parent, names), names)
    return names, np.array([numbers[value] for value in content.values()], dtype=np.int64)


def image_folder(folder: Path, names: Sequence[str]) -> Path:
    """Return the folder that holds these images: ``folder`` or one of ``IMAGE_FOLDERS`` inside it.

    The first name whose file is found decides. Raises ``InputError`` if no file is found for any name.
    """
    places = [folder / inside for inside in IMAGE_FOLDERS]
    for name in names:
        for place in places:
            if os.path.isfile(place / as_on_disk(place, [name])[0]):
                return place
    raise InputError(
        f"no listed image found, as {names[0]}; looked in {', '.join(str(place) for place in places)}; expected the "
        "images there, named as in the JSON files"
    )

"""Check whether a data folder is what its protocol says, and report a line per fault before training starts.

A problem makes results wrong or impossible. A warning means that results are worse, or hard to compare with
published ones. A note says what was seen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from posixpath import dirname, normpath

import numpy as np

from moe_prompts.errors import InputError
from moe_prompts.vision.tasks import fgvc, vtab
from moe_prompts.vision.tasks.images import Files, Resize, leads_below, read_header, read_rgb, shown
from moe_prompts.vision.tasks.task import FGVC, SPLITS

PROBLEM, WARNING, NOTE = "problem", "warning", "note"
COUNTS = {"train800": 800, "val200": 200, "train800val200": 1000}
#: Images decoded per task, spread evenly over its lists, unless all are.
SAMPLE = 50

Lists = dict[str, tuple[tuple[str, ...], np.ndarray]]


@dataclass(frozen=True)
class Finding:
    """Hold one line of the report on one task.

    task  name of the task
    kind  ``PROBLEM``, ``WARNING`` or ``NOTE``
    text  what was found, and what was expected
    """

    task: str
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.task}: {'' if self.kind == NOTE else self.kind + ': '}{self.text}"


def check_vtab(
    root: str | Path, names: Sequence[str] = tuple(vtab.TASKS), thorough: bool = False, anywhere: bool = False
) -> list[Finding]:
    """Return the findings on VTAB-1K tasks under the folder ``root``.

    root      folder that holds one folder for each task
    names     tasks to check; all 19 by default. Raises ``InputError`` for an unknown one
    thorough  True decodes every image; False decodes ``SAMPLE`` images of each task
    anywhere  True: lists may name images outside the task's folder; False makes that a problem
    """
    return [
        Finding(name, kind, text)
        for name in names
        for kind, text in _vtab(Path(root) / name, vtab.data_of(name), thorough, anywhere)
    ]


def check_fgvc(root: str | Path, names: Sequence[str], thorough: bool = False, anywhere: bool = False) -> list[Finding]:
    """Return the findings on FGVC tasks under the folder ``root``.

    names     tasks to check, as "dogs" or "fgvc:dogs". Raises ``InputError`` for an unknown one
    thorough  True decodes every image; False decodes ``SAMPLE`` images of each task
    anywhere  True: JSON files may name images outside the data set's folder; False makes that a problem
    """
    shorts = [fgvc.short_name(name) for name in names]
    return [
        Finding(FGVC + short, kind, text)
        for short in shorts
        for kind, text in _fgvc(Path(root), short, thorough, anywhere)
    ]


def _vtab(folder: Path, data: vtab.VtabData, thorough: bool, anywhere: bool) -> Iterator[tuple[str, str]]:
    if not folder.is_dir():
        yield PROBLEM, f"no folder {folder}; expected it with the lists {', '.join(SPLITS)} (.txt) and the images"
        return
    lists: Lists = {}
    for split in SPLITS:
        try:
            lists[split] = vtab.read_list(folder / f"{split}.txt", data.classes)
        except InputError as error:
            yield PROBLEM, str(error)
    yield from _vtab_counts(lists, data)
    if all(split in lists for split in SPLITS):
        seen = np.unique(np.concatenate([labels for _, labels in lists.values()]))
        if len(seen) < data.classes:
            yield PROBLEM, f"{len(seen)} classes in all lists together; expected {data.classes}"
    yield from _leaks(lists)
    yield from _images(_files(folder, lists, anywhere), thorough, data.side, data.small)


def _vtab_counts(lists: Lists, data: vtab.VtabData) -> Iterator[tuple[str, str]]:
    wrong = [split for split, count in COUNTS.items() if split in lists and len(lists[split][0]) != count]
    for split in wrong:
        yield PROBLEM, f"{split}.txt lists {len(lists[split][0])} images; expected {COUNTS[split]}"
    if not wrong and all(split in lists for split in COUNTS):
        parts = {
            split: [(normpath(name), int(label)) for name, label in zip(*lists[split], strict=True)] for split in COUNTS
        }
        train, val, both = (Counter(parts[split]) for split in COUNTS)
        twice = [name for name, count in Counter(map(normpath, lists["train800val200"][0])).items() if count > 1]
        if twice:
            first = f"{len(twice)} in all, as {twice[0]}"
            yield PROBLEM, f"images that train800val200.txt lists twice, {first}; expected 1000 different ones"
        elif both != train + val and not _a_folder_each(parts):
            name, label = next(iter((both - train - val) or (train + val - both)))
            yield PROBLEM, f"train800val200.txt is not train800.txt and val200.txt together, as at '{name} {label}'"
    if "test" in lists:
        yield from _test_count(len(lists["test"][0]), data.test_images)


def _a_folder_each(parts: dict[str, list[tuple[str, int]]]) -> bool:
    """Return whether every list has its own folder with copies of its images, as the usual export has.

    The list train800val200 then holds the images of train800 followed by those of val200, under names of its
    own: only the order of the labels can be compared.
    """
    names = {split: {name for name, _ in listed} for split, listed in parts.items()}
    labels = {split: [label for _, label in listed] for split, listed in parts.items()}
    apart = all(split in dirname(name).split("/") for split, listed in names.items() for name in listed)
    return apart and labels["train800val200"] == labels["train800"] + labels["val200"]


def _test_count(found: int, published: int) -> Iterator[tuple[str, str]]:
    if found != published:
        images = f"{found} test image{'s' * (found != 1)}"
        yield WARNING, f"{images}; the published test set has {published}, so accuracies will not compare"


def _leaks(lists: Lists) -> Iterator[tuple[str, str]]:
    """Yield a problem if test images are also in another list."""
    if "test" in lists:
        tested = set(map(normpath, lists["test"][0]))
        for split in ("train800val200", "train800", "val200", "train", "val"):
            both = [name for name in lists.get(split, ((), ()))[0] if normpath(name) in tested]
            if both:
                seen = f"{len(both)} of {len(tested)}, as {both[0]}"
                yield PROBLEM, f"test images that are also in {split}, {seen}; expected none"
                return


def _files(folder: Path, lists: Lists, anywhere: bool) -> Files:
    """Return the images of all lists, each once."""
    names = dict.fromkeys(name for listed, _ in lists.values() for name in listed)
    return Files(folder, tuple(names), Resize(), folder.name, anywhere)


def _images(files: Files, thorough: bool, side: int | None = None, small: bool = False) -> Iterator[tuple[str, str]]:
    names, folder = files.names, files.folder
    outside = set() if files.anywhere else {name for name in names if not leads_below(name)}
    if outside:
        first = next(name for name in names if name in outside)
        yield (
            PROBLEM,
            f"names that are not below {folder}, {len(outside)} of {len(names)} listed, as {shown(first)}; expected "
            "files below it: move the images there, or allow others with --anywhere (anywhere=True)",
        )
    inside = [name for name in names if name not in outside]
    missing = {name for name in inside if not files.has(name)}
    if missing:
        first = next(name for name in inside if name in missing)
        yield PROBLEM, f"missing images, {len(missing)} of {len(names)} listed, as {folder / first}"
    there = [name for name in inside if name not in missing]
    if not there:
        return
    looked = there if thorough else [there[i] for i in np.unique(np.linspace(0, len(there) - 1, SAMPLE).astype(int))]
    formats, sizes, unreadable = _decode(files, looked)
    if unreadable:
        yield PROBLEM, f"unreadable images, {len(unreadable)} of {len(looked)} decoded, as {unreadable[0]}"
    if small and formats["JPEG"]:
        yield (
            WARNING,
            f"images of {side} pixels as JPEG; a lossy export costs up to 15 points (CIFAR-100): export PNG, unless "
            "the data set itself comes as JPEG (EuroSAT)",
        )
    other = next((size for size in sizes if side is not None and size != (side, side)), None)
    if other:
        yield (
            WARNING,
            f"images of {other[0]} x {other[1]} pixels; the data set's own have {side} x {side}",
        )
    seen = "all decoded" if thorough else f"{len(looked)} decoded, spread evenly over the lists (all: --thorough)"
    yield NOTE, f"{len(names)} images listed, {', '.join(sorted(formats)) or 'none readable'}; {seen}"


def _decode(files: Files, names: list[str]) -> tuple[Counter[str], Counter[tuple[int, int]], list[str]]:
    """Return how often each format and size (height, width) occurs, and the errors of unreadable images."""
    from tqdm import tqdm

    formats: Counter[str] = Counter()
    sizes: Counter[tuple[int, int]] = Counter()
    unreadable = []
    for name in tqdm(names, desc=f"checking {files.label}", unit="image", delay=2, disable=None):
        try:
            read_rgb(files.path(name))
            form, size = read_header(files.path(name))
        except InputError as error:
            unreadable.append(str(error))
            continue
        formats[form] += 1
        sizes[size] += 1
    return formats, sizes, unreadable


def _fgvc(root: Path, name: str, thorough: bool, anywhere: bool) -> Iterator[tuple[str, str]]:
    data = fgvc.TASKS[name]
    try:
        folder = fgvc.dataset_folder(root, name)
        numbers = fgvc.class_numbers(folder / "train.json", data.classes)
    except InputError as error:
        yield PROBLEM, str(error)
        return
    lists: Lists = {}
    for file in fgvc.JSON_FILES:
        try:
            lists[file] = fgvc.read_labels(folder / f"{file}.json", numbers)
        except InputError as error:
            yield PROBLEM, str(error)
    if "test" in lists:
        yield from _test_count(len(lists["test"][0]), data.test_images)
    if "val" in lists:
        both = set(map(normpath, lists["train"][0])) & set(map(normpath, lists["val"][0]))
        if both:
            yield PROBLEM, f"images of val.json that are also in train.json, {len(both)}, as {min(both)}; expected none"
    yield from _leaks(lists)
    try:
        images = fgvc.image_folder(folder, lists["train"][0])
    except InputError as error:
        yield PROBLEM, str(error)
        return
    yield from _images(_files(images, lists, anywhere), thorough)

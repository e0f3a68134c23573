"""Data folders in the layouts of VTAB-1K and FGVC, of tiny images whose mean colour tells the class."""

import json

import numpy as np
from PIL import Image

from moe_prompts.vision.tasks import fgvc, vtab


def tiny_image(label, classes, shape, rng):
    """Bytes (H, W, 3): noise around a colour of the class."""
    colour = 255 * np.array([label / classes, (label * 7 % classes) / classes, 1 - label / classes])
    return np.clip(colour + 12 * rng.standard_normal((*shape, 3)), 0, 255).astype(np.uint8)


def make_vtab_root(path, task, pixels=8, test=40, suffix="png", counts=(800, 200), seed=0):
    """Write ``path``/``task`` with its four lists and images of ``pixels`` a side; return the task's folder.

    ``counts`` are the images of train800 and val200; labels go round the classes; names contain spaces.
    """
    rng, classes, folder = np.random.default_rng(seed), vtab.TASKS[task].classes, path / task
    lists = {}
    for split, number in zip(("train800", "val200", "test"), (*counts, test), strict=True):
        (folder / "images" / split).mkdir(parents=True)
        lines = []
        for index in range(number):
            name, label = f"images/{split}/image {index:05d}.{suffix}", index % classes
            Image.fromarray(tiny_image(label, classes, (pixels, pixels), rng)).save(folder / name, compress_level=1)
            lines.append(f"{name} {label}\n")
        lists[split] = lines
    lists["train800val200"] = lists["train800"] + lists["val200"]
    for split, lines in lists.items():
        (folder / f"{split}.txt").write_text("".join(lines))
    return folder


def make_plain_folder(path, name, per_class=(20, 4), pixels=8, seed=0):
    """Write ``path``/``name`` with images of three classes, ``per_class`` for training and for testing."""
    rng = np.random.default_rng(seed)
    for part, number in zip(("train", "test"), per_class, strict=True):
        for label in range(3):
            folder = path / name / part / f"class {label}"
            folder.mkdir(parents=True)
            for index in range(number):
                Image.fromarray(tiny_image(label, 3, (pixels, pixels), rng)).save(folder / f"{index}.png")


def make_fgvc_root(path, name, per_class=(4, 1, 1), shape=(9, 13), images="images", seed=0):
    """Write ``path``/<folder of the data set> with three splits of ``per_class`` images; return that folder.

    Class ids are text and do not begin at 0; images lie in the folder ``images``.
    """
    data, rng = fgvc.TASKS[name], np.random.default_rng(seed)
    folder = path / data.folders[0]
    (folder / images).mkdir(parents=True)
    for file, number in zip(fgvc.JSON_FILES, per_class, strict=True):
        content = {}
        for label in reversed(range(data.classes)):
            for index in range(number):
                image = f"{file} {label:03d} {index}.png"
                Image.fromarray(tiny_image(label, data.classes, shape, rng)).save(
                    folder / images / image, compress_level=1
                )
                content[image] = f"class{label + 1:04d}"
        (folder / f"{file}.json").write_text(json.dumps(content))
    return folder

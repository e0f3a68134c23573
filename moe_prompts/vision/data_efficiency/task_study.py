"""Methods on a task with n training images: accuracy and cross-entropy on the test images.

Stand-ins are drawn: every replicate has its own images, and with fresh ones, none seen twice, the floor of a method is
measured. Other tasks have a pool, of which every replicate takes its own stratified n, and no floor can be measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from importlib import metadata

import numpy as np

from moe_prompts.engine.grid import Row, Study
from moe_prompts.errors import InputError
from moe_prompts.seeds import address
from moe_prompts.vision.data_efficiency.curves import FRESH
from moe_prompts.vision.data_efficiency.rates import Rates, best
from moe_prompts.vision.tasks.named import STAND_IN, TaskSpec
from moe_prompts.vision.tasks.procedural import FORMULAS
from moe_prompts.vision.tasks.replicates import ENDLESS, TUNING, VALIDATION, replicate_images
from moe_prompts.vision.tasks.subsets import stratified_subset
from moe_prompts.vision.tasks.task import ImageSet, Pixels, Subset
from moe_prompts.vision.training.methods import RELATIVE_SECONDS, check_method
from moe_prompts.vision.training.runs import Place, backbone, opened, status_of, train_and_score, trained_parameters
from moe_prompts.vision.training.sgd import Setting, Trial, trial_seed
from moe_prompts.vision.training.statuses import UNTUNED

VALIDATION_IMAGES = 1000
#: The share of n images that judges settings where there are no other images.
HELD_OUT = 0.2


@dataclass(frozen=True)
class TaskCell:
    """One method on one task with n images, or ``FRESH``.

    place     its recipe has the steps of this cell
    settings  one, or several that are tuned here
    """

    task: TaskSpec
    method: str
    n: int
    place: Place
    settings: tuple[Setting, ...]
    replicates: int

    @property
    def label(self) -> str:
        return f"{self.task.label}_{self.method}_n{self.n or 'fresh'}"

    @property
    def data_size(self) -> int:
        return self.n or self.place.recipe.batch * self.place.recipe.total(0)

    @property
    def cost(self) -> float:
        """Steps of a replicate in units of VAPT's by time, and its share of tuning."""
        tuned = len(self.settings) if len(self.settings) > 1 else 0
        steps = self.place.recipe.total(self.n)
        return RELATIVE_SECONDS.get(self.method, 1.0) * steps * (1 + tuned / self.replicates)


def run_task(cell: TaskCell, replicates: tuple[int, ...], entropy: int) -> list[Row]:
    """A row for each replicate: its score on test."""
    task = opened(cell.task)
    setting = cell.settings[0] if len(cell.settings) == 1 else _tuned(cell, entropy)
    common = {
        "task": cell.task.name,
        "method": cell.method,
        "n": cell.n,
        "parameters": trained_parameters(cell.method, cell.place.sizes, backbone(cell.place)),
    }
    if setting is None:
        nothing = dict.fromkeys(("lr", "weight_decay", "cross_entropy", "accuracy", "train_loss"), np.nan)
        return [common | {"replicate": replicate} | nothing | {"status": UNTUNED} for replicate in replicates]
    trials = [Trial(setting, trial_seed(entropy, replicate)) for replicate in replicates]
    images = [images_of(cell.task, cell.n or cell.data_size, one if cell.n else ENDLESS, entropy) for one in replicates]
    results = train_and_score(
        cell.method, cell.place, task.classes, trials, images, task.split("test"), unlabelled(cell.task, entropy)
    )
    return [
        common
        | {"replicate": replicate, "lr": setting.lr, "weight_decay": setting.weight_decay}
        | {"cross_entropy": score.cross_entropy, "accuracy": score.accuracy}
        | {"train_loss": outcome.train_loss, "status": status_of(outcome, score)}
        for replicate, (outcome, score) in zip(replicates, results, strict=True)
    ]


def drawn(task: TaskSpec) -> bool:
    """Whether there are as many images as one likes."""
    return task.is_stand_in and task.name.removeprefix(STAND_IN) in FORMULAS


def images_of(task: TaskSpec, n: int, replicate: int, entropy: int) -> ImageSet:
    """The n training images of a replicate; the images of a smaller n are among them."""
    if drawn(task):
        return (_endless if replicate == ENDLESS else _replicate)(task.name, task.size, replicate, n, entropy)
    pool = opened(task).split("train800val200")
    key = (address(task.name), address("images of a replicate"), replicate)
    rng = np.random.default_rng(np.random.SeedSequence(entropy, spawn_key=key))
    try:
        return Subset(pool, stratified_subset(pool.labels, n, rng))
    except InputError as error:
        raise InputError(f"task {task.name}, n = {n}: {error}") from error


@lru_cache(maxsize=8)
def _replicate(name: str, *where: int) -> Pixels:
    return replicate_images(name.removeprefix(STAND_IN), *where)


@lru_cache(maxsize=1)
def _endless(name: str, *where: int) -> Pixels:
    """Some hundred megabytes: one at a time, which all methods on a task share."""
    return replicate_images(name.removeprefix(STAND_IN), *where)


def unlabelled(task: TaskSpec, entropy: int) -> ImageSet:
    """Images whose mean states a generator blind to the image is fed with."""
    return images_of(task, VALIDATION_IMAGES, VALIDATION, entropy) if drawn(task) else opened(task).split("train800")


def _tuned(cell: TaskCell, entropy: int) -> Setting | None:
    """The best on a data set of its own; where there is but a pool, on four fifths of the first replicate's images."""
    if drawn(cell.task):
        train = images_of(cell.task, cell.data_size, TUNING, entropy)
        judge = images_of(cell.task, VALIDATION_IMAGES, VALIDATION, entropy)
    else:
        images = images_of(cell.task, cell.n, 0, entropy)
        train, judge = halves(images, entropy)
    trials = [Trial(setting, 0) for setting in cell.settings]
    results = train_and_score(
        cell.method, cell.place, opened(cell.task).classes, trials, train, judge, unlabelled(cell.task, entropy)
    )
    return best(cell.settings, [status_of(*pair) for pair in results], [score for _, score in results])


def halves(images: ImageSet, entropy: int) -> tuple[ImageSet, ImageSet]:
    """Images to fit on, and the rest to judge by, in random order."""
    order = np.random.default_rng(np.random.SeedSequence(entropy, spawn_key=(address("held out"),))).permutation(
        len(images.labels)
    )
    held = max(1, round(HELD_OUT * len(order)))
    return Subset(images, order[held:]), Subset(images, order[:held])


def task_study(
    tasks: Sequence[TaskSpec],
    methods: Sequence[str],
    sizes: Mapping[str, Sequence[int]],
    replicates: int,
    place: Place,
    fresh_steps: int,
    entropy: int,
    rates: Rates,
    fresh_replicates: int = 1,
) -> Study:
    """Every method on every task with every n of ``sizes``, by the task's name, and with fresh images where they can be
    drawn, unless ``fresh_replicates`` is 0.

    Raises ``InputError`` for images that the backbone does not take and for an n that a task's pool does not have.
    """
    wanted = tuple(backbone(place).patch_embed.img_size)
    for method in methods:
        check_method(method)
    cells = []
    for task in tasks:
        if wanted != (task.size, task.size):
            raise InputError(
                f"{task.name}: images of {task.size} x {task.size} pixels; {place.backbone} takes "
                f"{wanted[0]} x {wanted[1]}: give its size"
            )
        if not drawn(task):
            for n in sizes[task.name]:
                images_of(task, n, 0, entropy)
        lengths = [(n, place.recipe, replicates) for n in sizes[task.name]]
        if drawn(task) and fresh_replicates:
            lengths.append((FRESH, replace(place.recipe, steps=fresh_steps), fresh_replicates))
        cells += [
            TaskCell(task, method, n, replace(place, recipe=recipe), rates.of(task.name, method, n), count)
            for method in methods
            for n, recipe, count in lengths
        ]
    identity = {
        "place": asdict(place) | {"fresh_steps": fresh_steps},
        "task rates": rates.facts,
        "tasks": {task.name: opened(task).facts for task in tasks},
        "vision": {name: metadata.version(name) for name in ("torch", "timm", "pillow")},
    }
    return Study("tasks", cells, replicates, entropy, run_task, identity)

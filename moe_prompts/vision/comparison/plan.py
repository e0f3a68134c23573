"""The tuning protocol: settings compete on 800/200 images, the best trains on the 1000 with five seeds, then the test.

    tune    every setting on train800, last epoch, judged on val200; ties: smaller lr, then larger weight decay
    final   the chosen setting on train800val200 with each seed, last epoch, judged once on test

The test split is opened by ``final`` and by nothing before it. Both stages are studies in the sense of
``moe_prompts.study``: a block is up to 8 settings (or the seeds) of one task and method, which train packed.

Sources: arXiv 2203.12119 and 2501.18936 (protocol).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache, lru_cache
from importlib import metadata
from math import ceil
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from timm.models.vision_transformer import VisionTransformer

from moe_prompts.engine.executors import Executor
from moe_prompts.engine.grid import BLOCK_SIZE, Row, Study
from moe_prompts.engine.runner import run_study
from moe_prompts.errors import InputError
from moe_prompts.vision.backbones.create import create_backbone
from moe_prompts.vision.prompting.config import VAPT
from moe_prompts.vision.prompting.prompted import mean_states
from moe_prompts.vision.tasks.named import Spec
from moe_prompts.vision.tasks.task import ImageSet, Pixels, Task
from moe_prompts.vision.training.devices import own_device
from moe_prompts.vision.training.methods import RELATIVE_SECONDS, TRAINS_BACKBONE, Sizes, config, settings, whole
from moe_prompts.vision.training.packed import PackedTrials
from moe_prompts.vision.training.sgd import (
    EVALUATION_BATCH,
    Outcome,
    Recipe,
    Score,
    Setting,
    Trial,
    evaluate,
    init_generator,
    normalised,
    train_alone,
    train_packed,
)
from moe_prompts.vision.training.statuses import DIVERGED, TRAINED, UNTUNED

SEEDS = (42, 44, 82, 100, 800)


@dataclass(frozen=True)
class Place:
    """What all runs of a comparison share: backbone by name, prompts' sizes, recipe and device.

    weights  file of the backbone's weights; None: those of its name
    pack     trials that train at once: memory grows with them, results differ by rounding
    device   cpu, or cuda: each process on a device of its own as far as there are as many (``devices``)
    """

    backbone: str = "small"
    weights: str | None = None
    pack: int = BLOCK_SIZE
    sizes: Sizes = field(default_factory=Sizes)
    recipe: Recipe = field(default_factory=Recipe)
    device: str = "cpu"


@dataclass(frozen=True)
class _Cell:
    """One method on one task."""

    task: Spec
    method: str
    place: Place

    share: ClassVar[float]

    @property
    def label(self) -> str:
        return f"{self.task.label}_{self.method}"

    @property
    def data_size(self) -> int:
        """Training images."""
        return round(self.share * opened(self.task).facts.get("train_images", self.task.n_train))

    @property
    def cost(self) -> float:
        return RELATIVE_SECONDS.get(self.method, 1.0) * self.place.recipe.total(self.data_size)


@dataclass(frozen=True)
class TuneCell(_Cell):
    """All settings on train800; a replicate is a setting."""

    settings: tuple[Setting, ...]

    share = 0.8

    @property
    def replicates(self) -> int:
        return len(self.settings)


@dataclass(frozen=True)
class FinalCell(_Cell):
    """The chosen setting on train800val200; a replicate is a seed."""

    setting: Setting | None
    seeds: tuple[int, ...]

    share = 1.0

    @property
    def replicates(self) -> int:
        return len(self.seeds)


def run_tune(cell: TuneCell, replicates: tuple[int, ...], entropy: int) -> list[Row]:
    """A row for each setting: its score on val200."""
    task = opened(cell.task)
    trials = [Trial(cell.settings[index], entropy) for index in replicates]
    train, val = task.split("train800"), task.split("val200")
    results = train_and_score(cell.method, cell.place, task.classes, trials, train, val)
    return _rows(cell, "tune", replicates, trials, results, train, len(val.labels))


def run_final(cell: FinalCell, replicates: tuple[int, ...], entropy: int) -> list[Row]:
    """A row for each seed: its score on test."""
    task = opened(cell.task)
    train = task.split("train800val200")
    if cell.setting is None:
        none = Setting(float("inf"), 0.0)
        trials = [Trial(none, cell.seeds[index]) for index in replicates]
        missing = (Outcome(float("nan"), UNTUNED), Score(float("nan"), float("nan")))
        return _rows(cell, "final", replicates, trials, [missing] * len(trials), train, 0)
    trials = [Trial(cell.setting, cell.seeds[index]) for index in replicates]
    test = task.split("test")
    results = train_and_score(cell.method, cell.place, task.classes, trials, train, test)
    return _rows(cell, "final", replicates, trials, results, train, len(test.labels))


def train_and_score(
    method: str,
    place: Place,
    classes: int,
    trials: Sequence[Trial],
    train: ImageSet | Sequence[ImageSet],
    judge: ImageSet,
    unlabelled: ImageSet | None = None,
) -> list[tuple[Outcome, Score]]:
    """Train the trials and score their last states on ``judge``.

    train       one set for all trials, or a set for each
    unlabelled  images whose mean states stand for every image in ``source="mean"``; None: ``train``, one set then
    """
    torch.set_num_threads(1)
    model = backbone(place)
    like = next(model.parameters())
    sets = list(train) if isinstance(train, Sequence) else [train] * len(trials)
    if method in TRAINS_BACKBONE:
        pairs = zip(trials, sets, strict=True)
        return [_one(model, method, classes, trial, place.recipe, own, judge) for trial, own in pairs]
    prompts = config(method, place.sizes, model)
    means = None
    if isinstance(prompts, VAPT) and prompts.source == "mean":
        means = mean_states(model, _inputs(unlabelled or sets[0], place.recipe, like))
    results: list[tuple[Outcome, Score]] = []
    for start in range(0, len(trials), place.pack):
        some, own = trials[start : start + place.pack], sets[start : start + place.pack]
        packed = PackedTrials(model, prompts, classes, [init_generator(trial.seed) for trial in some], means)
        outcomes = train_packed(packed, own, some, place.recipe)
        results += zip(outcomes, evaluate(packed, judge, place.recipe, like), strict=True)
    return results


def _one(
    model: VisionTransformer, method: str, classes: int, trial: Trial, recipe: Recipe, train: ImageSet, judge: ImageSet
) -> tuple[Outcome, Score]:
    """One trial of a method that changes the backbone."""
    own = whole(method, model, classes, init_generator(trial.seed))
    outcome = train_alone(own, train, trial, recipe)
    own.eval()
    return outcome, evaluate(lambda batch: own(batch)[None], judge, recipe, next(own.parameters()))[0]


def _inputs(images: ImageSet, recipe: Recipe, like: torch.Tensor) -> Iterator[torch.Tensor]:
    n = len(images.labels)
    for indices in np.array_split(np.arange(n), ceil(n / EVALUATION_BATCH)):
        yield normalised(images.batch(indices), recipe.normalisation, like)


def _rows(
    cell: TuneCell | FinalCell,
    stage: str,
    replicates: Sequence[int],
    trials: Sequence[Trial],
    results: Sequence[tuple[Outcome, Score]],
    train: ImageSet,
    judged: int,
) -> list[Row]:
    task = opened(cell.task)
    model = backbone(cell.place)
    rows = []
    for replicate, trial, (outcome, score) in zip(replicates, trials, results, strict=True):
        setting = trial.setting
        status = status_of(outcome, score)
        rows.append(
            {
                "stage": stage,
                "task": cell.task.name,
                "group": task.group,
                "method": cell.method,
                "n": len(train.labels),
                "judged": judged,
                "replicate": replicate,
                "seed": trial.seed,
                "lr": setting.lr,
                "weight_decay": setting.weight_decay,
                "parameters": trained_parameters(cell.method, cell.place.sizes, model),
                "accuracy": score.accuracy if status == TRAINED else float("nan"),
                "cross_entropy": score.cross_entropy,
                "train_loss": outcome.train_loss,
                "status": status,
            }
        )
    return rows


def status_of(outcome: Outcome, score: Score) -> str:
    """``TRAINED``, or ``DIVERGED`` also where only the score is not finite."""
    return DIVERGED if outcome.status == TRAINED and not np.isfinite(score.cross_entropy) else outcome.status


def trained_parameters(method: str, sizes: Sizes, model: VisionTransformer) -> int:
    """Trained numbers beside the head."""
    prompts = config(method, sizes, model)
    if prompts is not None:
        return prompts.n_parameters(model.embed_dim, len(model.blocks), model.patch_embed.grid_size)
    kept = {"full": "", "bias": "bias"}.get(method)
    own = [(name, value.numel()) for name, value in model.named_parameters() if not name.startswith("head.")]
    return 0 if kept is None else sum(number for name, number in own if name.endswith(kept))


def backbone(place: Place) -> VisionTransformer:
    """The frozen model of a process; nothing may change it."""
    return _backbone(place.backbone, place.weights, own_device(place.device))


@lru_cache(maxsize=1)
def _backbone(name: str, weights: str | None, device: str) -> VisionTransformer:
    return create_backbone(name, file=weights).requires_grad_(False).eval().to(device)


@cache
def opened(spec: Spec) -> Task:
    return spec.open()


def choose(rows: pd.DataFrame) -> dict[tuple[str, str], Setting | None]:
    """The best setting of each (task, method) of a tuning table; None where all diverged."""
    best: dict[tuple[str, str], Setting | None] = {}
    for key, group in rows.groupby(["task", "method"], sort=False):
        sound = group[group["status"] == TRAINED]
        ranked = sound.sort_values(["accuracy", "lr", "weight_decay"], ascending=[False, True, False])
        best[key] = (
            None if ranked.empty else Setting(float(ranked["lr"].iloc[0]), float(ranked["weight_decay"].iloc[0]))
        )
    return best


@dataclass(frozen=True)
class Plan:
    """What to compare: methods on tasks, each tuned over ``grid`` (published settings without it) or given settings.

    given  settings by (task name, method) that are used as they are; those pairs are not tuned
    """

    tasks: tuple[Spec, ...]
    methods: tuple[str, ...]
    place: Place
    lrs: tuple[float, ...] | None = None
    weight_decays: tuple[float, ...] | None = None
    seeds: tuple[int, ...] = SEEDS
    entropy: int = 0
    given: dict[tuple[str, str], Setting] | None = None

    def __post_init__(self) -> None:
        if len(set(self.seeds)) != len(self.seeds) or not self.seeds:
            raise InputError(f"seeds {', '.join(map(str, self.seeds))}; expected different ones")

    @property
    def pairs(self) -> list[tuple[Spec, str]]:
        return [(task, method) for task in self.tasks for method in self.methods]

    def check(self) -> None:
        """Open all tasks and the backbone; raise ``InputError`` where they do not fit."""
        wanted = tuple(backbone(self.place).patch_embed.img_size)
        for task in self.tasks:
            opened(task)
            if wanted != (task.size, task.size):
                raise InputError(
                    f"{task.name}: images of {task.size} x {task.size} pixels; {self.place.backbone} takes "
                    f"{wanted[0]} x {wanted[1]}: give --size {wanted[0]} or another --backbone"
                )

    def tune_cells(self) -> list[TuneCell]:
        given = self.given or {}
        return [
            TuneCell(task, method, self.place, settings(method, self.lrs, self.weight_decays))
            for task, method in self.pairs
            if (task.name, method) not in given
        ]

    def final_cells(self, chosen: dict[tuple[str, str], Setting | None]) -> list[FinalCell]:
        return [
            FinalCell(task, method, self.place, chosen[task.name, method], self.seeds) for task, method in self.pairs
        ]

    def study(self, stage: str, cells: Sequence[TuneCell] | Sequence[FinalCell]) -> Study:
        identity: dict[str, Any] = {
            "place": asdict(self.place),
            "tasks": self.facts,
            # A run does not grow: its final stage is one comparison.
            "pairs": [f"{task.name} {method}" for task, method in self.pairs],
            "vision": {name: metadata.version(name) for name in ("torch", "timm", "pillow")},
        }
        if stage == "final":
            identity["settings"] = {
                f"{cell.task.name} {cell.method}": None if cell.setting is None else asdict(cell.setting)
                for cell in cells
                if isinstance(cell, FinalCell)
            }
            identity["seeds"] = list(self.seeds)
        else:
            identity["grid"] = [self.lrs, self.weight_decays]
        run: Any = run_tune if stage == "tune" else run_final
        return Study(f"vtab-{stage}", cells, 1, self.entropy, run, identity)

    @property
    def facts(self) -> dict[str, dict[str, Any]]:
        """What the tasks say of their data."""
        return {task.name: json.loads(json.dumps(opened(task).facts)) for task in self.tasks}

    @property
    def vapt_steps(self) -> float:
        """Steps of all trials, each method's in units of VAPT's by time."""
        cells: list[Any] = self.tune_cells()
        cells += [FinalCell(task, method, self.place, None, self.seeds) for task, method in self.pairs]
        return sum(cell.cost * cell.replicates for cell in cells)

    def chosen(self, final: pd.DataFrame) -> dict[tuple[str, str], Setting | None]:
        """The settings of a table of final runs."""
        rows = final.drop_duplicates(["task", "method"])
        return {
            (row.task, row.method): None if row.status == UNTUNED else Setting(row.lr, row.weight_decay)
            for row in rows.itertuples()
        }


def seconds_per_step(place: Place, size: int) -> float:
    """Of one VAPT trial in a pack, on random images of this size; few where they are large."""
    torch.set_num_threads(1)
    model = backbone(place)
    batch = place.recipe.batch if size <= 64 or place.device != "cpu" else 2
    rng = np.random.default_rng(0)
    images = Pixels(rng.integers(0, 256, (batch, size, size, 3), dtype=np.uint8), rng.integers(0, 10, batch))
    trials = [Trial(Setting(0.1, 0.0), 0)] * place.pack
    packed = PackedTrials(model, VAPT(place.sizes.tokens, kernel=None), 10, [init_generator(0)] * len(trials))
    times = []
    for _ in range(2):  # the first warms up
        began = time.perf_counter()
        train_packed(packed, images, trials, replace(place.recipe, steps=2, batch=batch))
        times.append(time.perf_counter() - began)
    return times[-1] / 2 / len(trials) * place.recipe.batch / batch


def run_plan(
    plan: Plan, out: Path, *, executor: Executor | None = None, resume: bool = False, progress: bool = True
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tune, then train and test: tables of both stages, kept in ``out/tune`` and ``out/final``.

    Killed at any point, ``resume=True`` completes both to the same tables.
    """
    plan.check()
    chosen: dict[tuple[str, str], Setting | None] = dict(plan.given or {})
    cells = plan.tune_cells()
    began = (out / "final" / "meta.json").exists()
    if began and not resume:
        raise InputError(f"{out} already holds a run; add --resume to complete it or choose another --out")
    if resume and not began and not cells:
        raise InputError(f"{out} holds no run to resume; check --out or leave out --resume")
    tuned = pd.DataFrame()
    if cells:
        tuned = run_study(plan.study("tune", cells), out / "tune", executor=executor, resume=resume, progress=progress)
        chosen |= choose(tuned)
    finals = plan.study("final", plan.final_cells(chosen))
    final = run_study(finals, out / "final", executor=executor, resume=began, progress=progress)
    return tuned, final

"""Run the tuning protocol: settings compete on validation images, the best one is trained and tested.

    tune    every setting on train800, last epoch, judged on val200
    final   the chosen setting on train800val200 with each of five seeds, last epoch, judged once on test

Of equal settings the one with the smaller lr is chosen, then the one with the larger weight decay. The test
split is opened by ``final`` and by nothing before it. Both stages are studies in the sense of
``moe_prompts.engine``: a block is up to 8 settings (or the seeds) of one task and method, which train packed.

Sources: arXiv 2203.12119 and 2501.18936 (protocol).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

from moe_prompts.engine.executors import Executor
from moe_prompts.engine.grid import Row, Study
from moe_prompts.engine.runner import run_study
from moe_prompts.errors import InputError
from moe_prompts.vision.tasks.named import Spec
from moe_prompts.vision.tasks.task import ImageSet
from moe_prompts.vision.training.methods import RELATIVE_SECONDS, TRAINS_BACKBONE, Sizes, settings
from moe_prompts.vision.training.runs import (
    Setup,
    backbone,
    opened,
    status_of,
    train_and_score,
    trained_parameters,
)
from moe_prompts.vision.training.sgd import (
    Outcome,
    Score,
    Setting,
    Trial,
)
from moe_prompts.vision.training.statuses import TRAINED, UNTUNED

SEEDS = (42, 44, 82, 100, 800)


@dataclass(frozen=True)
class _Cell:
    """Hold one method on one task."""

    task: Spec
    method: str
    setup: Setup

    share: ClassVar[float]

    @property
    def label(self) -> str:
        """Return the cell's name in file names."""
        return f"{self.task.label}_{self.method}"

    @property
    def data_size(self) -> int:
        """Return the number of training images."""
        return round(self.share * opened(self.task).facts.get("train_images", self.task.n_train))

    @property
    def cost(self) -> float:
        """Return the steps of a replicate in units of VAPT's by time."""
        return RELATIVE_SECONDS.get(self.method, 1.0) * self.setup.recipe.total(self.data_size)


@dataclass(frozen=True)
class TuneCell(_Cell):
    """Hold all settings of one method on train800; a replicate is a setting."""

    settings: tuple[Setting, ...]

    share = 0.8

    @property
    def replicates(self) -> int:
        """Return the number of settings."""
        return len(self.settings)


@dataclass(frozen=True)
class FinalCell(_Cell):
    """Hold the chosen setting of one method on train800val200; a replicate is a seed."""

    setting: Setting | None
    seeds: tuple[int, ...]

    share = 1.0

    @property
    def replicates(self) -> int:
        """Return the number of seeds."""
        return len(self.seeds)


def run_tune(cell: TuneCell, replicates: tuple[int, ...], entropy: int) -> list[Row]:
    """Train the settings and return a row for each: its score on val200."""
    task = opened(cell.task)
    trials = [Trial(cell.settings[index], entropy) for index in replicates]
    train, val = task.split("train800"), task.split("val200")
    results = train_and_score(cell.method, cell.setup, task.classes, trials, train, val)
    return _rows(cell, "tune", replicates, _runs(trials), results, train, len(val.labels))


def run_final(cell: FinalCell, replicates: tuple[int, ...], entropy: int) -> list[Row]:
    """Train the chosen setting with each seed and return a row for each: its score on test."""
    task = opened(cell.task)
    train = task.split("train800val200")
    if cell.setting is None:
        untrained = (Outcome(float("nan"), UNTUNED), Score(float("nan"), float("nan")))
        runs = [(None, cell.seeds[index]) for index in replicates]
        return _rows(cell, "final", replicates, runs, [untrained] * len(runs), train, 0)
    trials = [Trial(cell.setting, cell.seeds[index]) for index in replicates]
    test = task.split("test")
    results = train_and_score(cell.method, cell.setup, task.classes, trials, train, test)
    return _rows(cell, "final", replicates, _runs(trials), results, train, len(test.labels))


def _runs(trials: Sequence[Trial]) -> list[tuple[Setting | None, int]]:
    """Return the setting and the seed of each trial."""
    return [(trial.setting, trial.seed) for trial in trials]


def _rows(
    cell: TuneCell | FinalCell,
    stage: str,
    replicates: Sequence[int],
    runs: Sequence[tuple[Setting | None, int]],
    results: Sequence[tuple[Outcome, Score]],
    train: ImageSet,
    judged: int,
) -> list[Row]:
    """Return the rows of runs, each with a setting and a seed; a run without a setting was not trained."""
    task = opened(cell.task)
    model = backbone(cell.setup)
    rows = []
    for replicate, (setting, seed), (outcome, score) in zip(replicates, runs, results, strict=True):
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
                "seed": seed,
                "lr": float("nan") if setting is None else setting.lr,
                "weight_decay": float("nan") if setting is None else setting.weight_decay,
                "parameters": trained_parameters(cell.method, cell.setup.sizes, model),
                "accuracy": score.accuracy if status == TRAINED else float("nan"),
                "cross_entropy": score.cross_entropy,
                "train_loss": outcome.train_loss,
                "status": status,
            }
        )
    return rows


def choose(rows: pd.DataFrame) -> dict[tuple[str, str], Setting | None]:
    """Return the best setting of each (task, method) of a tuning table; None where all diverged."""
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
    """Say what to compare: methods on tasks, each tuned over a grid or given its settings.

    lrs, weight_decays  the grid; None: the published one of the method
    seeds               of the final runs, all different
    entropy             seed of the tuning runs
    given               settings by (task name, method) that are used as they are; those pairs are not tuned
    tokens              number of tokens by task name, for every task at least; None: that of the setup
    full_optimiser      of the method ``full``, "adamw" in the papers' code; None: that of the setup

    Raises ``InputError`` for no seeds or equal ones.
    """

    tasks: tuple[Spec, ...]
    methods: tuple[str, ...]
    setup: Setup
    lrs: tuple[float, ...] | None = None
    weight_decays: tuple[float, ...] | None = None
    seeds: tuple[int, ...] = SEEDS
    entropy: int = 0
    given: dict[tuple[str, str], Setting] | None = None
    tokens: dict[str, int] | None = None
    full_optimiser: str | None = None

    def __post_init__(self) -> None:
        if len(set(self.seeds)) != len(self.seeds) or not self.seeds:
            raise InputError(f"seeds {', '.join(map(str, self.seeds))}; expected different ones")
        missing = [task.name for task in self.tasks if self.tokens is not None and task.name not in self.tokens]
        if missing:
            raise InputError(f"tokens of {missing[0]}: none; expected a number for each task")

    @property
    def pairs(self) -> list[tuple[Spec, str]]:
        """Return every task with every method."""
        return [(task, method) for task in self.tasks for method in self.methods]

    def setup_of(self, task: Spec, method: str) -> Setup:
        """Return the setup with the task's own number of tokens, and for ``full`` with its own optimiser."""
        setup = self.setup
        if self.tokens is not None:
            setup = replace(setup, sizes=replace(setup.sizes, tokens=self.tokens[task.name]))
        if method == "full" and self.full_optimiser is not None:
            setup = replace(setup, recipe=replace(setup.recipe, optimiser=self.full_optimiser))
        return setup

    @property
    def place(self) -> dict[str, Any]:
        """Return what results depend on beside tasks and settings: the setup, with tokens by task."""
        found = self.setup.identity()
        if self.tokens is not None:
            found["sizes"]["tokens"] = dict(sorted(self.tokens.items()))
        if "full" in self.methods and self.full_optimiser not in (None, self.setup.recipe.optimiser):
            found["full optimiser"] = self.full_optimiser
        return found

    def check(self) -> None:
        """Open all tasks and the backbone; raise ``InputError`` where they do not fit."""
        wanted = tuple(backbone(self.setup).patch_embed.img_size)
        for task in self.tasks:
            opened(task)
            if wanted != (task.size, task.size):
                raise InputError(
                    f"{task.name}: images of {task.size} x {task.size} pixels; {self.setup.backbone} takes "
                    f"{wanted[0]} x {wanted[1]}: give --size {wanted[0]} or another --backbone"
                )

    def tune_cells(self) -> list[TuneCell]:
        """Return the cells of the first stage: all pairs without given settings."""
        given = self.given or {}
        return [
            TuneCell(task, method, self.setup_of(task, method), settings(method, self.lrs, self.weight_decays))
            for task, method in self.pairs
            if (task.name, method) not in given
        ]

    def final_cells(self, chosen: dict[tuple[str, str], Setting | None]) -> list[FinalCell]:
        """Return the cells of the second stage, with the settings that were chosen by (task name, method)."""
        return [
            FinalCell(task, method, self.setup_of(task, method), chosen[task.name, method], self.seeds)
            for task, method in self.pairs
        ]

    def study(self, stage: str, cells: Sequence[TuneCell] | Sequence[FinalCell]) -> Study:
        """Return one stage, "tune" or "final", as a study of these cells."""
        identity: dict[str, Any] = {
            "place": self.place,  # the key of older runs
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
        return Study(f"vtab-{stage}", cells, 1, self.entropy, run, identity, weights=self.setup.loaded())

    @property
    def facts(self) -> dict[str, dict[str, Any]]:
        """Return what the tasks say of their data, by name."""
        return {task.name: json.loads(json.dumps(opened(task).facts)) for task in self.tasks}

    @property
    def vapt_steps(self) -> dict[int, float]:
        """Return the steps of all trials by number of tokens, each method's in units of VAPT's by time.

        Methods without prompts count as of the usual number of tokens, from which their units are.
        """
        cells: list[Any] = self.tune_cells()
        cells += [FinalCell(task, method, self.setup_of(task, method), None, self.seeds) for task, method in self.pairs]
        steps: dict[int, float] = {}
        for cell in cells:
            tokens = Sizes.tokens if cell.method in ("linear", *TRAINS_BACKBONE) else cell.setup.sizes.tokens
            steps[tokens] = steps.get(tokens, 0.0) + cell.cost * cell.replicates
        return steps

    def chosen(self, final: pd.DataFrame) -> dict[tuple[str, str], Setting | None]:
        """Return the settings of a table of final runs, by (task name, method)."""
        rows = final.drop_duplicates(["task", "method"])
        return {
            (row.task, row.method): None if row.status == UNTUNED else Setting(row.lr, row.weight_decay)
            for row in rows.itertuples()
        }


def run_plan(
    plan: Plan,
    out: Path,
    *,
    executor: Executor | None = None,
    resume: bool = False,
    allow: Collection[str] = (),
    progress: bool = True,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tune, then train and test; return the tables of both stages.

    They are kept in ``out/tune`` and ``out/final``. Killed at any point, ``resume=True`` completes both to
    the same tables; ``allow`` as in ``run_study``.

    Raises ``InputError`` if ``out`` holds a run and ``resume`` is False, or holds none to resume.
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
        tuned = run_study(
            plan.study("tune", cells), out / "tune", executor=executor, resume=resume, allow=allow, progress=progress
        )
        chosen |= choose(tuned)
    finals = plan.study("final", plan.final_cells(chosen))
    final = run_study(finals, out / "final", executor=executor, resume=began, allow=allow, progress=progress)
    return tuned, final

"""Screen starts and optimisers on planted truths, where the excess risk of a student is exact given images.

Every cell is one student with one optimiser on one teacher: three teachers of each kind, each with its own
head, prompts, images and labels. It trains on images that no step sees twice, once with each rate of a grid;
the rate with the least cross-entropy on validation labels is the one that counts, and test images choose
nothing. So what is left above the floor is a matter of the search, not of the number of images: on an
adaptive truth the adaptive students hold the truth and their floor is 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import torch

from moe_prompts.engine.grid import Row, Study
from moe_prompts.errors import InputError
from moe_prompts.intervals import mean_interval, standard_error
from moe_prompts.seeds import rng_at
from moe_prompts.shown import Ending
from moe_prompts.tables import markdown
from moe_prompts.vision.backbones.normalisation import normalised
from moe_prompts.vision.data_efficiency.curves import PLANTED
from moe_prompts.vision.data_efficiency.rates import best
from moe_prompts.vision.data_efficiency.sources import VALIDATION_IMAGES, teacher_of
from moe_prompts.vision.data_efficiency.teacher import Planted, without_dropout
from moe_prompts.vision.prompting.config import VAPT, VPT
from moe_prompts.vision.prompting.diagnosis import gradient_ratio
from moe_prompts.vision.prompting.prompted import prompt
from moe_prompts.vision.tasks.replicates import ENDLESS, TEST, VALIDATION
from moe_prompts.vision.tasks.task import Pixels
from moe_prompts.vision.training.packed import PackedTrials
from moe_prompts.vision.training.runs import Setup, status_of
from moe_prompts.vision.training.sgd import Setting, Trial, evaluate, init_generator, train_packed, trial_seed
from moe_prompts.vision.training.statuses import TRAINED

#: Students: VPT-deep and VAPT from each of their starts. "official+offset" has the parameters of "vpt".
STUDENTS = ("fixed", "fixed-tokens", "official", "tokens", "orthogonal", "gain", "vpt", "official+offset")
#: Optimisers, with "-mu" those whose rates follow sizes; and the rates that each tries.
OPTIMISERS: dict[str, tuple[float, ...]] = {
    "sgd": (0.05, 0.2, 0.8, 3.2),
    "sgd-mu": (0.2, 0.8, 3.2, 12.8),
    "adamw": (0.002, 0.008, 0.032, 0.128),
    "adamw-mu": (0.008, 0.032, 0.128, 0.512),
    "lamb": (0.008, 0.032, 0.128, 0.512),
}
#: The same with two more rates for those that took the largest of theirs in the committed run, whose command
#: has the grid above.
WIDER = OPTIMISERS | {
    "adamw": (0.002, 0.008, 0.032, 0.128, 0.512, 2.048),
    "adamw-mu": (0.008, 0.032, 0.128, 0.512, 2.048, 8.192),
}
#: Images on which excess risk is taken, and those of the first gradients.
TEST_IMAGES, GRADIENT_IMAGES = 1000, 32


def student_of(name: str, tokens: int) -> VPT | VAPT:
    """Return the prompts of a student, without dropout; raise ``InputError`` for an unknown name."""
    vapt = without_dropout(VAPT(tokens))
    students: dict[str, VPT | VAPT] = {
        "fixed": VPT(tokens),
        "fixed-tokens": VPT(tokens, start="tokens"),
        "official": vapt,
        "official+offset": replace(vapt, offset=True),
        "vpt": replace(vapt, offset=True, start="vpt"),
        **{start: replace(vapt, start=start) for start in ("tokens", "orthogonal", "gain")},
    }
    if name not in students:
        raise InputError(f"student {name!r}; expected one of {', '.join(STUDENTS)}")
    return students[name]


@dataclass(frozen=True)
class StartCell:
    """Hold one student and one optimiser on one teacher.

    truth       one of ``curves.PLANTED``
    teacher     its number, from 0
    student     one of ``STUDENTS``
    optimiser   one of ``OPTIMISERS``
    setup       its recipe has the steps; its optimiser is put in its place here
    settings    the rates that are tried
    replicates  starts of the student
    """

    truth: str
    teacher: int
    student: str
    optimiser: str
    setup: Setup
    settings: tuple[Setting, ...]
    replicates: int

    @property
    def label(self) -> str:
        """Return the cell's name in file names."""
        return f"{self.truth}-{self.teacher}_{self.student}_{self.optimiser}"

    @property
    def data_size(self) -> int:
        """Return the number of training images."""
        return self.setup.recipe.batch * self.setup.recipe.total(0)

    @property
    def cost(self) -> float:
        """Return the steps of a replicate."""
        return float(self.setup.recipe.total(0) * len(self.settings))

    @property
    def trained_in(self) -> Setup:
        """Return the setup with this cell's optimiser and rates."""
        name, _, rule = self.optimiser.partition("-")
        return replace(self.setup, recipe=replace(self.setup.recipe, optimiser=name, rates=rule or "uniform"))


def run_cell(cell: StartCell, replicates: tuple[int, ...], entropy: int) -> list[Row]:
    """Train the replicates with every rate and return a row for each; ``chosen`` marks one of a replicate."""
    torch.set_num_threads(1)
    setup = cell.trained_in
    own = int(rng_at(entropy, "teacher of a screening", cell.teacher).integers(2**32))
    truth = teacher_of(cell.truth, setup, own)
    config = student_of(cell.student, truth.tokens)
    recipe = replace(setup.recipe, normalisation=truth.normalisation)
    images, judge, pixels = drawn_images(truth, cell.data_size)
    rows: list[Row] = []
    for replicate in replicates:
        seed = trial_seed(own, replicate)
        trials = [Trial(setting, seed) for setting in cell.settings]
        packed = PackedTrials(truth.model, config, truth.head, [init_generator(seed) for _ in trials])
        outcomes = train_packed(packed, images, trials, recipe)
        scores = evaluate(packed, judge, recipe, truth.head.weight)
        risks = truth.risks(packed, pixels)
        statuses = [status_of(*pair) for pair in zip(outcomes, scores, strict=True)]
        ratio = first_ratio(truth.model, config, pixels, truth.normalisation, seed)
        chosen = best(cell.settings, statuses, scores)
        for place, (setting, outcome, score) in enumerate(zip(cell.settings, outcomes, scores, strict=True)):
            rows.append(
                {
                    "task": cell.truth,
                    "teacher": cell.teacher,
                    "student": cell.student,
                    "optimiser": cell.optimiser,
                    "parameters": config.n_parameters(
                        truth.model.embed_dim, len(truth.model.blocks), truth.model.patch_embed.grid_size
                    ),
                    "replicate": replicate,
                    "lr": setting.lr,
                    "chosen": setting is chosen,
                    "validation": score.cross_entropy,
                    "excess": float(risks["excess"][place]),
                    "accuracy": float(risks["accuracy"][place]),
                    "train_loss": outcome.train_loss,
                    "gradient_ratio": ratio,
                    "status": statuses[place],
                }
            )
    return rows


@lru_cache(maxsize=2)
def drawn_images(truth: Planted, count: int) -> tuple[Pixels, Pixels, np.ndarray]:
    """Return so many images to train on, images that judge rates, and pixels to test on, for all students."""
    test = truth.draw(TEST_IMAGES, TEST).pixels
    return truth.draw(count, ENDLESS), truth.draw(VALIDATION_IMAGES, VALIDATION), test


def first_ratio(model: Any, config: VPT | VAPT, pixels: np.ndarray, normalisation: str, seed: int) -> float:
    """Return the largest gradient ratio of any block at the student's start (``prompting.diagnosis``)."""
    one = prompt(deepcopy(model), config, 0, rng=init_generator(seed))
    some = normalised(pixels[:GRADIENT_IMAGES], normalisation, next(model.parameters()))
    return max(gradient_ratio(one, some, torch.Generator().manual_seed(0)).values())


def screening(
    students: Sequence[str],
    optimisers: Sequence[str],
    teachers: int,
    replicates: int,
    setup: Setup,
    entropy: int,
    grid: Mapping[str, tuple[float, ...]] = OPTIMISERS,
) -> Study:
    """Return the study of these students and optimisers on so many teachers of each kind.

    grid  the rates that each optimiser tries: ``OPTIMISERS`` or ``WIDER``

    Cells of one teacher stand together, so that a run that is stopped has whole teachers.

    Raises ``InputError`` for an unknown student or optimiser.
    """
    for name in students:
        student_of(name, setup.sizes.tokens)
    for name in optimisers:
        if name not in OPTIMISERS:
            raise InputError(f"optimiser {name!r}; expected one of {', '.join(OPTIMISERS)}")
    cells = [
        StartCell(
            truth,
            teacher,
            student,
            optimiser,
            setup,
            tuple(Setting(lr, 0.0) for lr in grid[optimiser]),
            replicates,
        )
        for teacher in range(teachers)
        for truth in reversed(PLANTED)
        for student in students
        for optimiser in optimisers
    ]
    rates = {name: list(grid[name]) for name in optimisers}
    identity = {"place": setup.identity(), "rates": rates}
    return Study("starts", cells, replicates, entropy, run_cell, identity, weights=setup.loaded())


def best_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows whose rate was chosen by validation."""
    return table[table["chosen"]]


def screening_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each truth, student and optimiser: means over teachers and starts.

    Columns: task, student, optimiser, parameters, excess (nats), error (standard error over teachers), lr
    (median of the chosen ones), gradient_ratio (median), teachers, best (how often this one has the least
    excess among all students and optimisers on a teacher).
    """
    chosen = best_rows(table)
    each = chosen.groupby(["task", "teacher", "student", "optimiser", "parameters"], sort=False)
    each = each[["excess", "lr", "gradient_ratio"]].median().reset_index()
    each["best"] = each["excess"] == each.groupby(["task", "teacher"])["excess"].transform("min")
    rows = []
    for key, group in each.groupby(["task", "student", "optimiser", "parameters"], sort=False):
        rows.append(
            dict(zip(("task", "student", "optimiser", "parameters"), key, strict=True))
            | {
                "excess": group["excess"].mean(),
                "error": standard_error(group["excess"].to_numpy()),
                "lr": group["lr"].median(),
                "gradient_ratio": group["gradient_ratio"].median(),
                "teachers": len(group),
                "best": int(group["best"].sum()),
            }
        )
    return pd.DataFrame(rows)


def against_official(table: pd.DataFrame) -> pd.DataFrame:
    """Return what every start gains over the official one with its best optimiser, teacher by teacher.

    On each teacher the optimiser counts that validation chooses. ``gain`` is the excess of the official start
    less that of the other, in nats, with Student's 90 % interval over teachers; a start *is better* where the
    interval is above 0.

    Columns: task, student, gain, low, high, teachers, wins (teachers on which the start has less excess).
    """
    chosen = best_rows(table)
    places = chosen.groupby(["task", "teacher", "replicate", "student"])["validation"].idxmin()
    kept = chosen.loc[places].groupby(["task", "teacher", "student"])["excess"].mean().unstack()
    rows = []
    for task, own in kept.groupby(level="task"):
        for student in own.columns:
            if student == "official" or "official" not in own:
                continue
            gains = (own["official"] - own[student]).dropna().to_numpy()
            found = mean_interval(gains)
            rows.append(
                {"task": task, "student": student, "gain": found.value, "low": found.low, "high": found.high}
                | {"teachers": len(gains), "wins": int((gains > 0).sum())}
            )
    return pd.DataFrame(rows)


def text(table: pd.DataFrame) -> str:
    """Return the tables of a screening, as Markdown."""
    summary = screening_table(table)
    parts = []
    for task, own in summary.groupby("task", sort=False):
        body = [
            [
                str(row.student),
                str(row.optimiser),
                f"{row.parameters}",
                f"{row.excess:.3f}" + ("" if np.isnan(row.error) else f" +- {row.error:.3f}"),
                f"{row.lr:g}",
                f"{row.gradient_ratio:.1f}",
                f"{row.best} of {row.teachers}",
            ]
            for row in own.sort_values("excess").itertuples()
        ]
        heads = ["student", "optimiser", "parameters", "excess, nats", "rate", "gradient ratio", "best"]
        parts += [f"{task}: excess risk on new images, mean over teachers +- standard error", markdown(heads, body)]
    gains = against_official(table)
    if len(gains):
        body = [
            [
                str(row.task),
                str(row.student),
                f"{row.gain:+.3f}",
                "-" if np.isnan(row.low) else f"[{row.low:+.3f}, {row.high:+.3f}]",
                f"{row.wins} of {row.teachers}",
            ]
            for row in gains.itertuples()
        ]
        heads = ["truth", "student", "less excess than official, nats", "90 % interval", "teachers"]
        parts += ["Against the official start, each with the optimiser that validation chose", markdown(heads, body)]
    failed = int((table["status"] != TRAINED).sum())
    if failed:
        parts.append(f"{failed} of {len(table)} trainings diverged; they cannot be chosen.")
    return "\n\n".join(parts)


def ending_of(table: pd.DataFrame) -> Ending:
    """Return what the command prints: what each start gains over the official one, and all excess risks."""
    findings = []
    for row in against_official(table).itertuples():
        span = "no interval" if np.isnan(row.low) else f"90 % interval [{row.low:+.3f}, {row.high:+.3f}]"
        findings.append(
            f"- {row.task}: {row.student} has {row.gain:+.3f} nats less excess than official ({span}); it is "
            f"better on {row.wins} of {row.teachers} teachers"
        )
    body = [
        [
            str(row.task),
            str(row.student),
            str(row.optimiser),
            f"{row.excess:.3f}" + ("" if np.isnan(row.error) else f" +- {row.error:.3f}"),
            f"{row.lr:g}",
            f"{row.gradient_ratio:.1f}",
        ]
        for row in screening_table(table).sort_values(["task", "excess"]).itertuples()
    ]
    legend = (
        "excess: nats above the teacher on new images, mean over teachers +- standard error. rate: median of those "
        "that validation chose. ratio: first gradient of a prompt beside that of a prompt of rms 1."
    )
    return Ending(findings, ["truth", "student", "optimiser", "excess", "rate", "ratio"], body, legend, keys=2)

"""Planted prompts learned by students of either kind from n labelled images.

A regular student whose class holds the teacher pays P / (2 n) nats for its P parameters; one whose class does not meets
a floor, which is measured with images that no step sees twice. See ``curves`` for what is made of the rows.

Fits have no certificate: they end after a fixed number of steps, so a curve is one of training, not of a maximum of the
likelihood, and a floor is an upper bound of the class's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache

import numpy as np
import torch

from moe_prompts.engine.grid import Row, Study
from moe_prompts.errors import InputError
from moe_prompts.vision.backbones.create import create_backbone
from moe_prompts.vision.backbones.normalisation import normalised
from moe_prompts.vision.data_efficiency.curves import FRESH, PLANTED
from moe_prompts.vision.data_efficiency.rates import Rates, best
from moe_prompts.vision.data_efficiency.teacher import Planted, without_dropout
from moe_prompts.vision.prompting.config import VAPT, VPT
from moe_prompts.vision.prompting.prompted import mean_states
from moe_prompts.vision.tasks.replicates import ENDLESS, TEST, TUNING, VALIDATION
from moe_prompts.vision.tasks.task import Pixels
from moe_prompts.vision.training.devices import own_device
from moe_prompts.vision.training.methods import matched_tokens
from moe_prompts.vision.training.packed import PackedTrials
from moe_prompts.vision.training.runs import status_of
from moe_prompts.vision.training.sgd import (
    Outcome,
    Setting,
    Trial,
    evaluate,
    init_generator,
    train_packed,
    trial_seed,
)
from moe_prompts.vision.training.statuses import UNTUNED

#: Students by their prompts: fixed ones of the teacher's number of tokens, of VAPT's number of parameters and of twice
#: that; adaptive ones, blind to the image, and with free vectors beside, which hold the fixed ones.
STUDENTS = ("vpt_deep", "vpt_matched", "vpt_large", "vapt", "vapt_constant", "vapt_offset")
#: A student of the teacher's own class that starts where the teacher stands: what statistics costs without the search.
AT_TEACHER = "at_teacher"
TEST_IMAGES, VALIDATION_IMAGES, BATCH = 2000, 1000, 64


@dataclass(frozen=True)
class Planting:
    """What the cells of a study share: backbone, the teacher's tokens, steps on n images and on fresh ones, device."""

    backbone: str = "small-gain"
    tokens: int = 4
    steps: int = 600
    fresh_steps: int = 3000
    device: str = "cpu"


@dataclass(frozen=True)
class StudentCell:
    """One student on one truth with n images, or ``FRESH``; every replicate has its own images, labels and start.

    settings  one, or several that are tuned here, on images of their own
    """

    task: str
    method: str
    n: int
    planting: Planting
    settings: tuple[Setting, ...]
    replicates: int

    @property
    def label(self) -> str:
        return f"{self.task}_{self.method}_n{self.n or 'fresh'}"

    @property
    def steps(self) -> int:
        return self.planting.steps if self.n else self.planting.fresh_steps

    @property
    def data_size(self) -> int:
        return self.n or BATCH * self.steps

    @property
    def cost(self) -> float:
        """Steps of a replicate, and its share of tuning."""
        tuned = len(self.settings) if len(self.settings) > 1 else 0
        return self.steps * (1 + tuned / self.replicates)


@lru_cache(maxsize=2)
def planted(truth: str, planting: Planting, entropy: int) -> Planted:
    model = create_backbone(planting.backbone).requires_grad_(False).to(own_device(planting.device))
    return Planted(truth, model, planting.tokens, entropy=entropy)


def student_config(student: str, truth: Planted) -> VPT | VAPT:
    """The prompts of a student."""
    if student == AT_TEACHER:
        return truth.config
    tokens, vapt = truth.tokens, without_dropout(VAPT(truth.tokens))
    matched = matched_tokens(vapt, truth.model)
    configs: dict[str, VPT | VAPT] = {
        "vpt_deep": VPT(tokens),
        "vpt_matched": VPT(matched),
        "vpt_large": VPT(2 * matched),
        "vapt": vapt,
        "vapt_constant": without_dropout(VAPT(tokens, source="mean")),
        "vapt_offset": without_dropout(VAPT(tokens, offset=True)),
    }
    if student not in configs:
        raise InputError(f"student {student!r}; expected one of {', '.join([*STUDENTS, AT_TEACHER])}")
    return configs[student]


def searching(student: str, truth: str) -> str:
    """The student whose rate this one has: ``at_teacher`` that of its class, or tuning would tell it to stay."""
    return student if student != AT_TEACHER else "vpt_deep" if truth == PLANTED[0] else "vapt"


def run_student(cell: StudentCell, replicates: tuple[int, ...], entropy: int) -> list[Row]:
    """Train all replicates at once, with the given setting or the one tuned here."""
    torch.set_num_threads(1)
    truth = planted(cell.task, cell.planting, entropy)
    config = student_config(cell.method, truth)
    setting = cell.settings[0] if len(cell.settings) == 1 else _tuned(cell, truth, config)
    model = truth.model
    common = {
        "task": cell.task,
        "method": cell.method,
        "n": cell.n,
        "parameters": config.n_parameters(model.embed_dim, len(model.blocks), model.patch_embed.grid_size),
    }
    if setting is None:
        nothing = dict.fromkeys(("lr", "weight_decay", "excess", "cross_entropy", "accuracy", "train_loss"), np.nan)
        return [common | {"replicate": replicate} | nothing | {"status": UNTUNED} for replicate in replicates]
    trials = [Trial(setting, trial_seed(entropy, replicate)) for replicate in replicates]
    packed, outcomes = _trained(cell, truth, config, [_images(cell, truth, one) for one in replicates], trials)
    risks = truth.risks(packed, truth.draw(TEST_IMAGES, TEST).pixels)
    return [
        common
        | {"replicate": replicate, "lr": setting.lr, "weight_decay": setting.weight_decay}
        | {name: float(values[number]) for name, values in risks.items()}
        | {"train_loss": outcome.train_loss, "status": outcome.status}
        for number, (replicate, outcome) in enumerate(zip(replicates, outcomes, strict=True))
    ]


def _tuned(cell: StudentCell, truth: Planted, config: VPT | VAPT) -> Setting | None:
    """The best on a data set of its own, judged by labels of a third one."""
    cell = replace(cell, method=searching(cell.method, cell.task))
    trials = [Trial(setting, 0) for setting in cell.settings]
    packed, outcomes = _trained(cell, truth, config, [_images(cell, truth, TUNING)] * len(trials), trials)
    scores = evaluate(packed, truth.draw(VALIDATION_IMAGES, VALIDATION), truth.recipe(1), truth.head.weight)
    return best(cell.settings, [status_of(*pair) for pair in zip(outcomes, scores, strict=True)], scores)


def _images(cell: StudentCell, truth: Planted, replicate: int) -> Pixels:
    """Of a replicate. Fresh ones are one long row for all replicates, whose seeds draw other orders and starts."""
    return truth.draw(cell.n, replicate) if cell.n else _fresh_row(cell.task, cell.planting, truth.entropy)


@lru_cache(maxsize=1)
def _fresh_row(truth: str, planting: Planting, entropy: int) -> Pixels:
    return planted(truth, planting, entropy).draw(BATCH * planting.fresh_steps, ENDLESS)


def _trained(
    cell: StudentCell, truth: Planted, config: VPT | VAPT, images: list[Pixels], trials: list[Trial]
) -> tuple[PackedTrials, list[Outcome]]:
    means = None
    if isinstance(config, VAPT) and config.source == "mean":
        pixels = truth.draw(VALIDATION_IMAGES, VALIDATION).pixels
        means = mean_states(truth.model, [normalised(pixels, truth.normalisation, truth.head.weight)])
    packed = PackedTrials(truth.model, config, truth.head, [init_generator(trial.seed) for trial in trials], means)
    if cell.method == AT_TEACHER:
        there = dict(truth.teacher.named_parts())
        with torch.no_grad():
            for name, value in packed.named_parts():
                value.copy_(there[name].expand_as(value))
    return packed, train_packed(packed, images, trials, truth.recipe(cell.steps))


def planted_study(
    truths: Sequence[str],
    students: Sequence[str],
    sizes: Sequence[int],
    replicates: int,
    planting: Planting,
    entropy: int,
    rates: Rates,
    fresh_replicates: int = 1,
) -> Study:
    """Every student on every truth with every n, and with fresh images unless ``fresh_replicates`` is 0."""
    every = [*sizes, *([FRESH] if fresh_replicates else [])]
    for truth in truths:
        for student in students:  # names are checked before anything runs
            student_config(student, planted(truth, planting, entropy))
    settings = lambda truth, student, n: rates.of(truth, searching(student, truth), n)
    cells = [
        StudentCell(
            truth, student, n, planting, settings(truth, student, n), replicates if n else fresh_replicates
        )
        for truth in truths
        for student in students
        for n in every
    ]  # fmt: skip
    return Study(
        "planted", cells, replicates, entropy, run_student, {"planting": asdict(planting), "planted rates": rates.facts}
    )

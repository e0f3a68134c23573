"""Planted prompts learned by students of either kind: excess risk against n, floors, and where two curves cross.

A regular student whose class holds the teacher pays P / (2 n) nats for its P parameters; one whose class does not meets
a floor F. So a fixed student (P_f) and an adaptive one (P_a) on an adaptive truth should cross near

    n* = (P_a - P_f) / (2 F).

Neither is promised here: fits have no certificate, and prompts of a network are no regular model at small n. Floors are
measured with images that no step sees twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
import torch

from moe_prompts.errors import InputError
from moe_prompts.seeds import bootstrap_rng
from moe_prompts.study.grid import Row, Study
from moe_prompts.vision.backbones import create_backbone
from moe_prompts.vision.config import VAPT, VPT
from moe_prompts.vision.methods import matched_tokens
from moe_prompts.vision.packed import PackedTrials
from moe_prompts.vision.prompted import mean_states
from moe_prompts.vision.tasks.planted import TEST, VALIDATION, Planted, without_dropout
from moe_prompts.vision.tasks.task import Pixels
from moe_prompts.vision.training import (
    TRAINED,
    Outcome,
    Setting,
    Trial,
    evaluate,
    init_generator,
    normalised,
    train_packed,
)

#: Students: fixed ones of the teacher's number of tokens, of VAPT's number of parameters and of twice that; adaptive
#: ones, blind to the image, and with free vectors beside, which hold the fixed ones.
STUDENTS = ("vpt", "vpt_matched", "vpt_large", "vapt", "vapt_constant", "vapt_offset")
#: In place of n: no step sees an image twice.
FRESH = 0
#: Replicates that rates are tuned on, and that fresh images are drawn as.
TUNING, FRESH_IMAGES = 9_000, 9_100
#: Base rates that are tried; weight decay is none.
LRS = (0.05, 0.2, 0.8, 3.2)
TEST_IMAGES, VALIDATION_IMAGES, BATCH = 2000, 1000, 64
LEVEL, RESAMPLES = 0.90, 2000


@dataclass(frozen=True)
class Planting:
    """What the cells of a study share: backbone, the teacher's tokens, steps on n images and on fresh ones."""

    backbone: str = "small"
    tokens: int = 4
    steps: int = 600
    fresh_steps: int = 3000


@dataclass(frozen=True)
class StudentCell:
    """One student on one truth with n images, or ``FRESH``; every replicate has its own images, labels and start."""

    truth: str
    student: str
    n: int
    planting: Planting

    @property
    def label(self) -> str:
        return f"{self.truth}_{self.student}_n{self.n or 'fresh'}"

    @property
    def steps(self) -> int:
        return self.planting.steps if self.n else self.planting.fresh_steps

    @property
    def data_size(self) -> int:
        return self.n or BATCH * self.steps

    @property
    def cost(self) -> float:
        return self.steps


@lru_cache(maxsize=2)
def planted(truth: str, planting: Planting, entropy: int) -> Planted:
    return Planted(truth, create_backbone(planting.backbone).requires_grad_(False), planting.tokens, entropy=entropy)


def student_config(student: str, truth: Planted) -> VPT | VAPT:
    """The prompts of a student."""
    tokens, vapt = truth.tokens, without_dropout(VAPT(truth.tokens))
    matched = matched_tokens(vapt, truth.model)
    configs: dict[str, VPT | VAPT] = {
        "vpt": VPT(tokens),
        "vpt_matched": VPT(matched),
        "vpt_large": VPT(2 * matched),
        "vapt": vapt,
        "vapt_constant": without_dropout(VAPT(tokens, source="mean")),
        "vapt_offset": without_dropout(VAPT(tokens, offset=True)),
    }
    if student not in configs:
        raise InputError(f"student {student!r}; expected one of {', '.join(STUDENTS)}")
    return configs[student]


def run_student(cell: StudentCell, replicates: tuple[int, ...], entropy: int) -> list[Row]:
    """Tune the rate on a data set of its own, judged by labels of a third one; then train all replicates at once."""
    torch.set_num_threads(1)
    truth = planted(cell.truth, cell.planting, entropy)
    config = student_config(cell.student, truth)
    tuning = [Trial(Setting(lr, 0.0), 0) for lr in LRS]
    packed, outcomes = _trained(cell, truth, config, [_images(cell, truth, TUNING)] * len(LRS), tuning)
    scores = evaluate(packed, truth.draw(VALIDATION_IMAGES, VALIDATION), truth.recipe(1), truth.head.weight)
    sound = [
        one.status == TRAINED and np.isfinite(score.cross_entropy) for one, score in zip(outcomes, scores, strict=True)
    ]
    losses = [score.cross_entropy if ok else np.inf for score, ok in zip(scores, sound, strict=True)]
    lr = LRS[int(np.argmin(losses))]

    trials = [Trial(Setting(lr, 0.0), replicate) for replicate in replicates]
    images = [_images(cell, truth, replicate) for replicate in replicates]
    packed, outcomes = _trained(cell, truth, config, images, trials)
    excess = truth.excess(packed, truth.draw(TEST_IMAGES, TEST).pixels)
    model = truth.model
    parameters = config.n_parameters(model.embed_dim, len(model.blocks), model.patch_embed.grid_size)
    return [
        {
            "truth": cell.truth,
            "student": cell.student,
            "n": cell.n,
            "replicate": replicate,
            "parameters": parameters,
            "lr": lr,
            "excess": float(risk),
            "train_loss": outcome.train_loss,
            "status": outcome.status,
        }
        for replicate, risk, outcome in zip(replicates, excess, outcomes, strict=True)
    ]


def _images(cell: StudentCell, truth: Planted, replicate: int) -> Pixels:
    """Of a replicate. Fresh ones are one long row for all replicates, whose seeds draw other orders and starts."""
    return truth.draw(cell.n, replicate) if cell.n else _fresh_row(cell.truth, cell.planting, truth.entropy)


@lru_cache(maxsize=1)
def _fresh_row(truth: str, planting: Planting, entropy: int) -> Pixels:
    return planted(truth, planting, entropy).draw(BATCH * planting.fresh_steps, FRESH_IMAGES)


def _trained(
    cell: StudentCell, truth: Planted, config: VPT | VAPT, images: list[Pixels], trials: list[Trial]
) -> tuple[PackedTrials, list[Outcome]]:
    means = None
    if isinstance(config, VAPT) and config.source == "mean":
        pixels = truth.draw(VALIDATION_IMAGES, VALIDATION).pixels
        means = mean_states(truth.model, [normalised(pixels, truth.normalisation, truth.head.weight)])
    packed = PackedTrials(truth.model, config, truth.head, [init_generator(trial.seed) for trial in trials], means)
    return packed, train_packed(packed, images, trials, truth.recipe(cell.steps))


def planted_study(
    truths: Sequence[str],
    students: Sequence[str],
    sizes: Sequence[int],
    replicates: int,
    planting: Planting,
    entropy: int,
    floors: bool = True,
) -> Study:
    """Every student on every truth with every n, and with fresh images where ``floors`` are asked for."""
    every = [*sizes, *([FRESH] if floors else [])]
    cells = [StudentCell(truth, student, n, planting) for truth in truths for student in students for n in every]
    for truth in truths:
        for student in students:  # names are checked before anything runs
            student_config(student, planted(truth, planting, entropy))
    return Study("planted", cells, replicates, entropy, run_student, {"planting": asdict(planting), "rates": list(LRS)})


def curves(table: pd.DataFrame) -> pd.DataFrame:
    """For each truth, student and n (0: fresh images): mean excess risk and its standard error over replicates."""
    sound = table[table["status"] == TRAINED]
    grouped = sound.groupby(["truth", "student", "parameters", "n"], sort=False)["excess"]
    found = grouped.agg(excess="mean", error=lambda values: values.std(ddof=1) / len(values) ** 0.5, fits="size")
    return found.reset_index()


def crossing(table: pd.DataFrame, truth: str, fixed: str, adaptive: str, entropy: int) -> dict[str, float]:
    """From which n on the adaptive student is the better one: observed with an interval, and predicted.

    observed   between two sizes, linear in log n; 0 if it is better at all of them, infinite if not at the largest
    low, high  90 % percentile interval over replicates, resampled for both students alike
    predicted  (P_a - P_f) / (2 (F_f - F_a)), F the risk on fresh images; NaN unless F_f > F_a and P_a > P_f
    """
    own = table[(table["truth"] == truth) & (table["status"] == TRAINED)]
    risks = own[own["n"] > 0].pivot(index="replicate", columns=["n", "student"], values="excess").dropna()
    sizes = np.array(sorted({n for n, _ in risks.columns}))
    if risks.empty:
        raise InputError(f"{truth}: no replicate has both {fixed} and {adaptive} at every n; expected at least one")
    apart = np.stack([(risks[n, fixed] - risks[n, adaptive]).to_numpy() for n in sizes], axis=1)
    draws = bootstrap_rng(entropy, "crossing", truth, fixed, adaptive).integers(
        len(apart), size=(RESAMPLES, len(apart))
    )
    resampled = [_root(sizes, apart[rows].mean(axis=0)) for rows in draws]
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="inverted_cdf")
    floor = own[own["n"] == FRESH].groupby("student")["excess"].mean()
    counts = own.groupby("student")["parameters"].first()
    gap = floor.get(fixed, float("nan")) - floor.get(adaptive, float("nan"))
    extra = counts[adaptive] - counts[fixed]
    return {
        "observed": _root(sizes, apart.mean(axis=0)),
        "low": float(low),
        "high": float(high),
        "predicted": float(extra / (2 * gap)) if gap > 0 and extra > 0 else float("nan"),
    }


def _root(sizes: np.ndarray, apart: np.ndarray) -> float:
    """The last change of sign from below to above, linear in log n."""
    if apart[-1] <= 0:
        return float("inf")
    below = np.flatnonzero(apart <= 0)
    if not len(below):
        return 0.0
    i = below[-1]
    share = -apart[i] / (apart[i + 1] - apart[i])
    return float(np.exp(np.log(sizes[i]) + share * np.log(sizes[i + 1] / sizes[i])))

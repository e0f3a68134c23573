"""Trials of one method on one task: trained, packed where that is possible, and scored."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from math import ceil

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer

from moe_prompts.engine.grid import BLOCK_SIZE
from moe_prompts.vision.backbones.create import create_backbone
from moe_prompts.vision.backbones.normalisation import normalised
from moe_prompts.vision.prompting.config import VAPT
from moe_prompts.vision.prompting.prompted import mean_states
from moe_prompts.vision.tasks.named import Spec
from moe_prompts.vision.tasks.task import ImageSet, Pixels, Task
from moe_prompts.vision.training.devices import own_device
from moe_prompts.vision.training.methods import TRAINS_BACKBONE, Sizes, config, trainable_copy
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
    train_alone,
    train_packed,
)
from moe_prompts.vision.training.statuses import DIVERGED, TRAINED


@dataclass(frozen=True)
class Setup:
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


def train_and_score(
    method: str,
    setup: Setup,
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
    model = backbone(setup)
    like = next(model.parameters())
    sets = list(train) if isinstance(train, Sequence) else [train] * len(trials)
    if method in TRAINS_BACKBONE:
        pairs = zip(trials, sets, strict=True)
        return [_one(model, method, classes, trial, setup.recipe, own, judge) for trial, own in pairs]
    prompts = config(method, setup.sizes, model)
    means = None
    if isinstance(prompts, VAPT) and prompts.source == "mean":
        means = mean_states(model, _inputs(unlabelled or sets[0], setup.recipe, like))
    results: list[tuple[Outcome, Score]] = []
    for start in range(0, len(trials), setup.pack):
        some, own = trials[start : start + setup.pack], sets[start : start + setup.pack]
        packed = PackedTrials(model, prompts, classes, [init_generator(trial.seed) for trial in some], means)
        outcomes = train_packed(packed, own, some, setup.recipe)
        results += zip(outcomes, evaluate(packed, judge, setup.recipe, like), strict=True)
    return results


def _one(
    model: VisionTransformer, method: str, classes: int, trial: Trial, recipe: Recipe, train: ImageSet, judge: ImageSet
) -> tuple[Outcome, Score]:
    """One trial of a method that changes the backbone."""
    own = trainable_copy(method, model, classes, init_generator(trial.seed))
    outcome = train_alone(own, train, trial, recipe)
    own.eval()
    return outcome, evaluate(lambda batch: own(batch)[None], judge, recipe, next(own.parameters()))[0]


def _inputs(images: ImageSet, recipe: Recipe, like: torch.Tensor) -> Iterator[torch.Tensor]:
    n = len(images.labels)
    for indices in np.array_split(np.arange(n), ceil(n / EVALUATION_BATCH)):
        yield normalised(images.batch(indices), recipe.normalisation, like)


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


def backbone(setup: Setup) -> VisionTransformer:
    """The frozen model of a process; nothing may change it."""
    return _backbone(setup.backbone, setup.weights, own_device(setup.device))


@lru_cache(maxsize=2)
def _backbone(name: str, weights: str | None, device: str) -> VisionTransformer:
    return create_backbone(name, file=weights).requires_grad_(False).eval().to(device)


@cache
def opened(spec: Spec) -> Task:
    return spec.open()


def seconds_per_step(setup: Setup, size: int) -> float:
    """Of one VAPT trial in a pack, on random images of this size; few where they are large."""
    torch.set_num_threads(1)
    model = backbone(setup)
    batch = setup.recipe.batch if size <= 64 or setup.device != "cpu" else 2
    rng = np.random.default_rng(0)
    images = Pixels(rng.integers(0, 256, (batch, size, size, 3), dtype=np.uint8), rng.integers(0, 10, batch))
    trials = [Trial(Setting(0.1, 0.0), 0)] * setup.pack
    packed = PackedTrials(model, VAPT(setup.sizes.tokens, kernel=None), 10, [init_generator(0)] * len(trials))
    times = []
    for _ in range(2):  # the first warms up
        began = time.perf_counter()
        train_packed(packed, images, trials, replace(setup.recipe, steps=2, batch=batch))
        times.append(time.perf_counter() - began)
    return times[-1] / 2 / len(trials) * setup.recipe.batch / batch

"""Train the trials of one method on one task, packed where that is possible, and score them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache, lru_cache
from hashlib import sha256
from math import ceil
from pathlib import Path
from re import fullmatch
from typing import Any

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer

from moe_prompts.checks import settings, shown
from moe_prompts.engine.grid import BLOCK_SIZE
from moe_prompts.errors import InputError
from moe_prompts.vision.backbones.create import create_backbone
from moe_prompts.vision.backbones.normalisation import normalised
from moe_prompts.vision.backbones.standardised import standardised
from moe_prompts.vision.prompting.checkpoint import backbone_hash
from moe_prompts.vision.prompting.config import VAPT, VPT, first_block
from moe_prompts.vision.prompting.prompted import HEADS, mean_states
from moe_prompts.vision.tasks.named import Spec
from moe_prompts.vision.tasks.task import ImageSet, Pixels, Task
from moe_prompts.vision.training.devices import own_device
from moe_prompts.vision.training.methods import (
    BIASES,
    PEERS,
    TRAINS_BACKBONE,
    Sizes,
    config,
    is_trained,
    lora_rank,
    trainable_copy,
)
from moe_prompts.vision.training.packed import PackedTrials
from moe_prompts.vision.training.packed_peers import PackedPeers, why_alone
from moe_prompts.vision.training.peers import adapter_parameters, changed_blocks, lora_parameters
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
from moe_prompts.vision.training.states import States, is_fixed, kept_states, remembered_states, states_bytes
from moe_prompts.vision.training.statuses import DIVERGED, TRAINED


@dataclass(frozen=True)
class Setup:
    """Hold what all runs of a comparison share: backbone, sizes of prompts, recipe and device.

    backbone  name of the backbone, as ``create_backbone`` knows it
    weights   file of the backbone's weights; None: those of its name
    pack      how many trials train at once: memory grows with them, results differ by rounding
    sizes     of the prompts
    recipe    how long and in which steps to train
    device    "cpu", or "cuda": each process on a device of its own as far as there are as many (``devices``);
              "cuda:0": all of them on this one
    size      side in pixels of the images that the backbone is made for; None: its own
    states    folder of states that enter the first block with prompts (``states``); None: see ``memory``
    memory    most bytes of such states that each process holds where ``states`` is None; where those of one
              call take more, they are computed in each step
    standardised  whether features are scaled on unlabelled images first (``backbones.standardised``)
    head      first values of new heads: "published" or "zero"

    Raises ``InputError`` for an unknown head or device, a pack or size below 1, and a negative memory.
    """

    backbone: str = "small"
    weights: str | None = None
    pack: int = BLOCK_SIZE
    sizes: Sizes = field(default_factory=Sizes)
    recipe: Recipe = field(default_factory=Recipe)
    device: str = "cpu"
    size: int | None = None
    states: str | None = None
    standardised: bool = False
    head: str = "published"
    memory: int = 0

    def __post_init__(self) -> None:
        if self.head not in HEADS:
            raise InputError(f"Setup: head {self.head!r}; expected one of {', '.join(HEADS)}")
        settings(self, pack=1, memory=0, **({} if self.size is None else {"size": 1}))
        if not isinstance(self.device, str) or not fullmatch("cpu|cuda(:[0-9]+)?", self.device):
            raise InputError(f"Setup: device = {shown(self.device)}; expected cpu, cuda, or one GPU as cuda:0")

    def identity(self) -> dict[str, Any]:
        """Return what results depend on, for files that say which run they belong to.

        A file of weights is known by its sha256, not by its path. Options that change nothing are left out.
        """
        found = asdict(self)
        del found["states"], found["memory"]
        if self.weights is not None:
            found["weights"] = weights_hash(self.weights)
        for part, name in ((found, "size"), (found["sizes"], "blocks")):
            if part[name] is None:
                del part[name]
        if found["sizes"]["rank"] == Sizes.rank:
            del found["sizes"]["rank"]
        for name, usual in (("standardised", False), ("head", "published")):
            if found[name] == usual:
                del found[name]
        for name in ("optimiser", "rates", "fixed_first"):
            if found["recipe"][name] == getattr(Recipe, name):
                del found["recipe"][name]
        return found

    def loaded(self) -> dict[str, str]:
        """Return the hash of the weights that the backbone really has, by its name, as ``Study.weights``.

        A name tells what was asked for: a hub, a cache or a file may give other weights on another day.
        Positions that were resampled and weights that were drawn differ by rounding between kinds of
        processors, and so does their hash. They are loaded by the CPU, whatever computes with them.
        """
        name = self.backbone if self.size is None else f"{self.backbone}, {self.size} pixels"
        return {name: _hash_of(backbone(replace(self, device="cpu")))}


@lru_cache(maxsize=2)
def _hash_of(model: VisionTransformer) -> str:
    return backbone_hash(model)


@cache
def weights_hash(path: str) -> str:
    """Return the sha256 of a file of weights; raise ``InputError`` if it cannot be read."""
    try:
        return sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; expected the weights of the backbone") from error


def train_and_score(
    method: str,
    setup: Setup,
    classes: int,
    trials: Sequence[Trial],
    train: ImageSet | Sequence[ImageSet],
    judge: ImageSet,
    unlabelled: ImageSet | None = None,
    look: Callable[[PackedTrials], None] | None = None,
) -> list[tuple[Outcome, Score]]:
    """Train the trials and return how each ended, with the score of its last state on ``judge``.

    method      one of ``METHODS``
    classes     number of classes
    train       one set for all trials, or a set for each
    judge       the images that are scored
    unlabelled  images whose mean states stand for every image in ``source="mean"``, and on which features are
                standardised; None: those of ``train``, which must then be one set
    look        is shown every pack of trained trials with prompts or heads alone, before it is scored
    """
    torch.set_num_threads(1)
    sets = list(train) if isinstance(train, Sequence) else [train] * len(trials)
    unlabelled = unlabelled or sets[0]
    model = backbone(setup)
    if setup.standardised:
        recipe = Recipe(normalisation=setup.recipe.normalisation)
        model = _standardised(model, _Known(unlabelled, _digest(unlabelled)), recipe)
    like = next(model.parameters())
    changes = method in TRAINS_BACKBONE
    if changes and why_alone(method, model) is not None:
        pairs = zip(trials, sets, strict=True)
        return [_one(model, method, classes, trial, setup, own, judge) for trial, own in pairs]
    prompts = config(method, setup.sizes, model)
    means = None
    if isinstance(prompts, VAPT) and prompts.source == "mean":
        means = mean_states(model, _inputs(unlabelled, setup.recipe, like))

    def pack(rngs: list[torch.Generator]) -> PackedTrials:
        if changes:
            return PackedPeers(model, method, classes, rngs, setup.sizes, setup.head)
        return PackedTrials(model, prompts, classes, rngs, means, setup.head)

    sets, judge = entering(first_read(method, setup.sizes, model), setup, model, sets, judge)
    results: list[tuple[Outcome, Score]] = []
    for start in range(0, len(trials), setup.pack):
        some, own = trials[start : start + setup.pack], sets[start : start + setup.pack]
        rngs = [init_generator(trial.seed) for trial in some]
        packed = pack(rngs)
        outcomes = train_packed(packed, own, some, setup.recipe)
        if look is not None and not changes:
            look(packed)
        forward = packed.of_states if isinstance(judge, States) else packed
        results += zip(outcomes, evaluate(forward, judge, setup.recipe, like), strict=True)
    return results


def first_read(method: str, sizes: Sizes, model: VisionTransformer) -> int:
    """Return the first block that packed trials of a method compute: what enters it belongs to an image.

    It is the number of blocks where heads alone are learned, and 0 for "bias" and "full", which change the
    embedding.
    """
    depth, prompts = len(model.blocks), config(method, sizes, model)
    if method in PEERS or method == "bias_blocks":
        return changed_blocks(model, sizes.blocks)[0]
    if prompts is not None:
        return first_block(prompts, depth)
    return depth if method == "linear" else 0


def entering(
    first: int, setup: Setup, model: VisionTransformer, train: list[ImageSet], judge: ImageSet
) -> tuple[list[ImageSet], ImageSet]:
    """Replace images by the states that enter block ``first``, where ``setup`` keeps any.

    Images that are augmented stay as they are: their states change in every step. So do all sets where those
    of this call, each counted once, together take more than ``setup.memory``.
    """
    fixed = {id(images): len(images.labels) for images in (*train, judge) if is_fixed(images)}
    if first == 0 or not keeps_states(setup, model, sum(fixed.values())):
        return train, judge
    kinds = setup.recipe.normalisation, setup.recipe.precision

    def kept(images: ImageSet) -> ImageSet:
        if not is_fixed(images):
            return images
        if setup.states is None:
            return remembered_states(model, first, images, *kinds, setup.memory)
        return kept_states(model, first, images, *kinds, Path(setup.states))

    known = {id(images): kept(images) for images in train}
    return [known[id(images)] for images in train], kept(judge)


def keeps_states(setup: Setup, model: VisionTransformer, number: int) -> bool:
    """Return whether a call with ``number`` different images reads kept states, from a folder or memory."""
    return setup.states is not None or states_bytes(model, number) <= setup.memory


def _one(
    model: VisionTransformer, method: str, classes: int, trial: Trial, setup: Setup, train: ImageSet, judge: ImageSet
) -> tuple[Outcome, Score]:
    """Train and score one trial of a method that changes the backbone and cannot be packed."""
    own = trainable_copy(method, model, classes, init_generator(trial.seed), setup.sizes, setup.head)
    outcome = train_alone(own, train, trial, setup.recipe)
    own.eval()
    return outcome, evaluate(lambda batch: own(batch)[None], judge, setup.recipe, next(own.parameters()))[0]


def _inputs(images: ImageSet, recipe: Recipe, like: torch.Tensor) -> Iterator[torch.Tensor]:
    n = len(images.labels)
    for indices in np.array_split(np.arange(n), ceil(n / EVALUATION_BATCH)):
        yield normalised(images.batch(indices), recipe.normalisation, like)


def status_of(outcome: Outcome, score: Score) -> str:
    """Return how a trial ended: ``DIVERGED`` also where only the score is not finite."""
    return DIVERGED if outcome.status == TRAINED and not np.isfinite(score.cross_entropy) else outcome.status


def trained_parameters(method: str, sizes: Sizes, model: VisionTransformer) -> int:
    """Return the number of trained parameters beside the head."""
    prompts = config(method, sizes, model)
    if prompts is not None:
        return prompts.n_parameters(model.embed_dim, len(model.blocks), model.patch_embed.grid_size)
    if method == "adapter":
        return adapter_parameters(model, sizes.rank, sizes.blocks)
    if method in PEERS:
        return lora_parameters(model, lora_rank(method, sizes, model), sizes.blocks)
    if method not in (*BIASES, "full"):
        return 0
    own = [(name, value.numel()) for name, value in model.named_parameters() if not name.startswith("head.")]
    return sum(number for name, number in own if is_trained(method, name, sizes, model))


def backbone(setup: Setup) -> VisionTransformer:
    """Return the frozen model that all runs of a process share; nothing may change it."""
    return _backbone(setup.backbone, setup.weights, setup.size, own_device(setup.device))


@lru_cache(maxsize=2)
def _backbone(name: str, weights: str | None, size: int | None, device: str) -> VisionTransformer:
    return create_backbone(name, file=weights, size=size).requires_grad_(False).eval().to(device)


@dataclass(frozen=True)
class _Known:
    """Hold images that are equal where their bytes are."""

    images: ImageSet = field(compare=False)
    digest: str


def _digest(images: ImageSet) -> str:
    return sha256(np.ascontiguousarray(images.batch(np.arange(len(images.labels)))).tobytes()).hexdigest()


@lru_cache(maxsize=4)
def _standardised(model: VisionTransformer, known: _Known, recipe: Recipe) -> VisionTransformer:
    """Return the backbone with standardised features; all blocks of a process on one task share it."""
    return standardised(model, _inputs(known.images, recipe, next(model.parameters())))


@cache
def opened(spec: Spec) -> Task:
    """Return the task of a name, which is opened once in each process."""
    return spec.open()


def seconds_per_step(setup: Setup) -> float:
    """Measure the seconds of one step of one VAPT trial in a pack, on random images of the backbone's size.

    On a CPU, two large images stand for a batch.

    Prompts are in the blocks that ``setup.sizes`` says. In one block alone no prompt can be adaptive: there
    the step is one of fixed prompts, which takes as long. Where states before them are kept, steps read
    states: give ``memory=0`` for a study whose sets are larger than its memory.
    """
    torch.set_num_threads(1)
    model = backbone(setup)
    height, width = model.patch_embed.img_size
    batch = setup.recipe.batch if max(height, width) <= 64 or setup.device != "cpu" else 2
    rng = np.random.default_rng(0)
    images = Pixels(rng.integers(0, 256, (batch, height, width, 3), dtype=np.uint8), rng.integers(0, 10, batch))
    trials = [Trial(Setting(0.1, 0.0), 0)] * setup.pack
    vapt = VAPT(setup.sizes.tokens, kernel=None, blocks=setup.sizes.blocks)
    adaptive = len(model.blocks) - first_block(vapt, len(model.blocks)) > vapt.static_depth
    prompts = vapt if adaptive else VPT(setup.sizes.tokens, blocks=setup.sizes.blocks)
    packed = PackedTrials(model, prompts, 10, [init_generator(0)] * len(trials))
    [read], _ = entering(packed.first, replace(setup, states=None), model, [images], images)
    times = []
    for _ in range(2):  # the first warms up
        began = time.perf_counter()
        train_packed(packed, read, trials, replace(setup.recipe, steps=1, batch=batch))
        times.append(time.perf_counter() - began)
    return times[-1] / len(trials) * setup.recipe.batch / batch

"""Train one run of the published protocol: SGD for a fixed number of steps, of which the last state counts.

    lr(t) = base lr * batch / 256 * factor(t),    factor: linear warm-up, then half a cosine

AdamW and LAMB may take the place of SGD (``optimisers``), with the same schedule.

Trials that share a frozen backbone train as one (``train_packed``). Others train one by one (``train_alone``)
on the same batches, with the same dropout masks and steps. Batches, masks and first values are functions of
the trial's seed.

Sources: arXiv 2203.12119 and 2501.18936 (protocol).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from moe_prompts.checks import one_of
from moe_prompts.checks import settings as checked
from moe_prompts.errors import InputError
from moe_prompts.seeds import address, rng_at
from moe_prompts.vision.backbones.normalisation import NORMALISATIONS
from moe_prompts.vision.prompting.config import VAPT
from moe_prompts.vision.prompting.prompted import prompt_parameters
from moe_prompts.vision.prompting.prompted_model import Prompted
from moe_prompts.vision.prompting.starts import waits
from moe_prompts.vision.tasks.task import ImageSet
from moe_prompts.vision.training.optimisers import OPTIMISERS, RATES, stacked, torch_optimiser
from moe_prompts.vision.training.packed import PackedTrials, seeded_noise
from moe_prompts.vision.training.states import States, as_input
from moe_prompts.vision.training.statuses import DIVERGED, TRAINED

#: Schedules of the learning rate, each with its rule of weight decay (``prompting.weight_decay``).
SCHEDULES = {"smooth": "no_decay", "official": "official"}
PRECISIONS = ("float32", "bfloat16")
#: Images per forward pass where nothing is learned.
EVALUATION_BATCH = 256


@dataclass(frozen=True)
class Recipe:
    """Say how long and in which steps to train.

    steps          steps of SGD; None: ``epochs`` times through the images
    epochs         used where ``steps`` is None
    batch          images in a step; all of them where there are fewer
    warmup         share of the steps in which the rate grows, in [0, 1)
    momentum       of SGD, in [0, 1); for AdamW and LAMB the first beta
    schedule       ``smooth``: the factor changes with every step and is never 0; norms and biases do not
                   decay. ``official``: the factor changes with every epoch and is 0 in the first; all but the
                   head's bias decays
    normalisation  "imagenet", "half" or "none"
    precision      "float32", or "bfloat16" (autocast)
    optimiser      "sgd", "adamw" or "lamb"
    rates          "uniform": one rate for all; "mu": that of a parameter is divided by the number of terms in
                   the sums it enters (``optimisers.rate_factor``)
    fixed_first    share of the steps in which ``start="vpt"`` trains its fixed prompts alone, in [0, 1)

    Raises ``InputError`` for values out of range.
    """

    steps: int | None = None
    epochs: int = 100
    batch: int = 64
    warmup: float = 0.1
    momentum: float = 0.9
    schedule: str = "smooth"
    normalisation: str = "imagenet"
    precision: str = "float32"
    optimiser: str = "sgd"
    rates: str = "uniform"
    fixed_first: float = 0.5

    def __post_init__(self) -> None:
        checked(self, epochs=1, batch=1, **({} if self.steps is None else {"steps": 1}))
        checked(self, warmup="[0, 1)", momentum="[0, 1)", fixed_first="[0, 1)")
        choices = (
            ("schedule", tuple(SCHEDULES)),
            ("normalisation", tuple(NORMALISATIONS)),
            ("precision", PRECISIONS),
            ("optimiser", OPTIMISERS),
            ("rates", RATES),
        )
        for name, allowed in choices:
            one_of(getattr(self, name), allowed, f"Recipe: {name}")

    @property
    def decay_rule(self) -> str:
        """Return the rule of weight decay that goes with the schedule."""
        return SCHEDULES[self.schedule]

    def autocast(self, device: torch.device) -> torch.autocast:
        """Return the context in which forward passes run: bfloat16 where ``precision`` says so."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bfloat16")

    def per_epoch(self, n: int) -> int:
        """Return the steps once through n images; an image that would be left alone joins the last batch."""
        return max(1, n // self.batch + (n % self.batch > 1))

    def total(self, n: int) -> int:
        """Return the steps of a run on n images."""
        return self.epochs * self.per_epoch(n) if self.steps is None else self.steps


@dataclass(frozen=True)
class Setting:
    """Hold what is tuned.

    lr            base learning rate, for 256 images a step; greater than 0 and finite
    weight_decay  at least 0 and finite

    Raises ``InputError`` for values out of range.
    """

    lr: float
    weight_decay: float

    def __post_init__(self) -> None:
        checked(self, lr="(0, inf)", weight_decay="[0, inf)")


@dataclass(frozen=True)
class Trial:
    """Hold one run: a setting, and the seed of its first values, batches and dropout."""

    setting: Setting
    seed: int


@dataclass(frozen=True)
class Outcome:
    """Hold how one trial ended.

    train_loss  mean loss in nats over the last tenth of the steps
    status      ``TRAINED``, or ``DIVERGED`` if a loss was not finite
    """

    train_loss: float
    status: str


@dataclass(frozen=True)
class Score:
    """Hold a score on one set of images.

    accuracy       share of right answers
    cross_entropy  mean cross-entropy in nats
    """

    accuracy: float
    cross_entropy: float


def factors(recipe: Recipe, n: int) -> np.ndarray:
    """Return the factor of the learning rate in each step of a run on n images, (steps,)."""
    total = recipe.total(n)
    if recipe.schedule == "smooth":
        warm = max(1, round(recipe.warmup * total))
        rising = np.arange(1, warm + 1) / warm
        return np.concatenate([rising, _cosine(np.arange(1, total - warm + 1) / max(1, total - warm + 1))])[:total]
    epochs = ceil(total / recipe.per_epoch(n))
    warm = round(recipe.warmup * epochs)
    each = np.concatenate([np.arange(warm) / max(1, warm), _cosine(np.arange(epochs - warm) / (epochs - warm))])
    return np.repeat(each, recipe.per_epoch(n))[:total]


def free_step(recipe: Recipe, n: int) -> int:
    """Return the step from which ``start="vpt"`` trains adaptive prompts too, in a run on n images."""
    return round(recipe.fixed_first * recipe.total(n))


def waiting_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Return what waits while ``start="vpt"`` trains fixed prompts alone; nothing for other models."""
    if not isinstance(model, Prompted) or not isinstance(model.prompt_config, VAPT):
        return []
    config = model.prompt_config
    return [parameter for name, parameter in prompt_parameters(model).items() if waits(name, config)]


class Steps:
    """Take the steps of a run of one model: rates by the schedule, and what waits stays as it is.

    model         whose parameters are trained; with ``VAPT(start="vpt")`` some of them wait
    parameters    those that are trained, with their names
    lr            of a step at factor 1
    weight_decay  of the parameters that the recipe lets decay
    n             images of the run
    """

    def __init__(
        self,
        model: nn.Module,
        parameters: Iterable[tuple[str, nn.Parameter]],
        lr: float,
        weight_decay: float,
        recipe: Recipe,
        n: int,
    ) -> None:
        self.optimiser = torch_optimiser(parameters, lr, weight_decay, recipe)
        self.usual = [group["lr"] for group in self.optimiser.param_groups]
        self.trained = [parameter for group in self.optimiser.param_groups for parameter in group["params"]]
        self.waiting, self.free_from, self.done = waiting_parameters(model), free_step(recipe, n), 0

    def take(self, loss: Tensor, factor: float, longest: float = float("inf")) -> None:
        """Take one step down the gradient of a loss.

        factor   multiplies every rate
        longest  norm to which the gradient of all trained parameters that do not wait is clipped
        """
        self.optimiser.zero_grad()
        loss.backward()
        if self.done < self.free_from:
            for parameter in self.waiting:
                parameter.grad = None
        if longest < float("inf"):
            nn.utils.clip_grad_norm_(self.trained, longest)
        for group, lr in zip(self.optimiser.param_groups, self.usual, strict=True):
            group["lr"] = lr * factor
        self.optimiser.step()
        self.done += 1


def _first(images: ImageSet | Sequence[ImageSet]) -> ImageSet:
    return images[0] if isinstance(images, Sequence) else images


def _cosine(progress: np.ndarray) -> np.ndarray:
    return (1 + np.cos(np.pi * progress)) / 2


def checked_device(name: str) -> str:
    """Return ``name``; raise ``InputError`` if it is a GPU and torch sees none."""
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"--device {name}; torch sees no GPU here: use --device cpu")
    return name


def checked_precision(name: str, device: str) -> str:
    """Return ``name``; raise ``InputError`` if it is bfloat16 on a processor that has no instructions for it.

    There each product is computed in float32 and rounded, which takes several times as long as float32.
    """
    if name == "bfloat16" and device == "cpu" and not multiplies_bfloat16():
        raise InputError(
            "--precision bfloat16 --device cpu; this processor has no instructions for it (AVX512-BF16 or AMX), so it "
            "would be slower than float32: use --precision float32, or a GPU"
        )
    return name


def multiplies_bfloat16() -> bool:
    """Return whether the processor multiplies bfloat16 itself.

    True where this version of torch cannot tell.
    """
    capabilities = getattr(torch.cpu, "get_capabilities", None)
    if capabilities is None:
        return True
    return any(here for name, here in capabilities().items() if name.endswith("bf16"))


def trial_seed(entropy: int, replicate: int) -> int:
    """Return the seed of the trial of a replicate, the same for all methods."""
    key = (address("trial"), replicate)
    return int(np.random.SeedSequence(entropy, spawn_key=key).generate_state(1, np.uint64)[0])


def init_generator(seed: int) -> torch.Generator:
    """Return the generator that draws the first prompts and head of a trial."""
    return torch.Generator().manual_seed(int(rng_at(seed, "init").integers(2**63)))


def batches(n: int, recipe: Recipe, seed: int) -> Iterator[np.ndarray]:
    """Yield the indices of each step: a new order in each pass, whose last batch may be short."""
    left, epoch = recipe.total(n), 0
    while left:
        order = rng_at(seed, "order", epoch).permutation(n)
        cuts = [recipe.batch * step for step in range(1, recipe.per_epoch(n))]
        yield from np.split(order, cuts)[:left]
        left -= min(left, recipe.per_epoch(n))
        epoch += 1


def train_packed(
    packed: PackedTrials,
    images: ImageSet | Sequence[ImageSet],
    trials: Sequence[Trial],
    recipe: Recipe,
    progress: bool = False,
) -> list[Outcome]:
    """Train all trials at once and return how each ended.

    packed  holds one trial for each of ``trials``, in the same order
    images  one set for all, or as many equally large sets as trials; ``States`` that enter block
            ``packed.first`` serve as well

    Raises ``InputError`` for sets of different sizes.
    """
    seeds = [trial.seed for trial in trials]
    lrs = torch.tensor([trial.setting.lr for trial in trials], dtype=torch.float64) * recipe.batch / 256
    weight_decays = torch.tensor([trial.setting.weight_decay for trial in trials], dtype=torch.float64)
    optimiser = stacked(packed, lrs, weight_decays, recipe)
    config, free_from = packed.config, free_step(recipe, len(_first(images).labels))
    waiting = {name for name, _ in packed.named_parts() if isinstance(config, VAPT) and waits(name, config)}

    def step(images: Tensor, labels: Tensor, batch_of: Tensor, noise_seeds: list[int], factor: float) -> Tensor:
        noise = packed.noise(noise_seeds, labels.shape[1])
        with recipe.autocast(images.device):
            logits = forward(images, batch_of, noise)
        targets = labels[batch_of]
        losses = F.cross_entropy(_wide(logits).flatten(0, 1), targets.flatten(), reduction="none")
        losses = losses.view(targets.shape).mean(dim=1)
        packed.zero_grad()
        losses.sum().backward()
        optimiser.step(factor, waiting if optimiser.done < free_from else set())
        return losses.detach()

    sets = list(images) if isinstance(images, Sequence) else [images] * len(trials)
    forward = packed.of_states if isinstance(sets[0], States) else packed
    return _run(step, sets, seeds, recipe, next(packed.parameters()), progress)


def train_alone(model: nn.Module, images: ImageSet, trial: Trial, recipe: Recipe, progress: bool = False) -> Outcome:
    """Train what has ``requires_grad`` in one model, in its training mode, and return how it ended."""
    trained = ((name, value) for name, value in model.named_parameters() if value.requires_grad)
    lr, weight_decay = trial.setting.lr * recipe.batch / 256, trial.setting.weight_decay
    steps = Steps(model, trained, lr, weight_decay, recipe, len(images.labels))
    model.train()

    def step(images: Tensor, labels: Tensor, batch_of: Tensor, noise_seeds: list[int], factor: float) -> Tensor:
        with seeded_noise(noise_seeds[0], images.device), recipe.autocast(images.device):
            logits = model(images[0])
        loss = F.cross_entropy(_wide(logits), labels[0])
        steps.take(loss, factor)
        return loss.detach()[None]

    return _run(step, [images], [trial.seed], recipe, next(model.parameters()), progress)[0]


def _run(
    step: Callable[[Tensor, Tensor, Tensor, list[int], float], Tensor],
    images: Sequence[ImageSet],
    seeds: Sequence[int],
    recipe: Recipe,
    like: Tensor,
    progress: bool,
) -> list[Outcome]:
    """Run all steps of trials with these images and seeds; trials that share both see the same batches."""
    sizes = {len(one.labels) for one in images}
    if len(sizes) != 1 or len(images) != len(seeds):
        raise InputError(
            f"{len(seeds)} trials on {len(images)} sets of {sorted(sizes)} images; expected sets of one size"
        )
    n = sizes.pop()
    keys = [(id(one), seed) for one, seed in zip(images, seeds, strict=True)]
    distinct = {key: one for key, one in zip(keys, images, strict=True)}
    batch_of = torch.tensor([list(distinct).index(key) for key in keys], device=like.device)
    streams = zip(*(batches(n, recipe, seed) for _, seed in distinct), strict=True)
    losses = []
    rates = factors(recipe, n)
    for number, chosen in enumerate(tqdm(streams, total=len(rates), desc="steps", leave=False, disable=not progress)):
        drawn = zip(distinct.items(), chosen, strict=True)
        pixels = [one.batch(own, rng_at(seed, "augmentation", number)) for ((_, seed), one), own in drawn]
        labels = np.stack([one.labels[own] for one, own in zip(distinct.values(), chosen, strict=True)])
        noise = {seed: int(rng_at(seed, "dropout", number).integers(2**63)) for seed in dict.fromkeys(seeds)}
        inputs = as_input(np.stack(pixels), recipe.normalisation, like)
        targets = torch.from_numpy(labels).to(like.device)
        losses.append(step(inputs, targets, batch_of, [noise[seed] for seed in seeds], rates[number]))
    found = torch.stack(losses).cpu()
    last = found[-max(1, len(found) // 10) :].mean(dim=0)
    finite = found.isfinite().all(dim=0)
    return [Outcome(float(loss), TRAINED if ok else DIVERGED) for loss, ok in zip(last, finite, strict=True)]


def _wide(logits: Tensor) -> Tensor:
    """Return logits in float32 at least, for losses."""
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits


@torch.no_grad()
def evaluate(forward: Callable[[Tensor], Tensor], images: ImageSet, recipe: Recipe, like: Tensor) -> list[Score]:
    """Return the scores of R trials on a set of images.

    forward  gives the logits (R, B, C) of a batch of inputs
    like     a parameter of the model: inputs get its device and type

    Images come in an order that is drawn once for their number. So the other image that ``source="another"``
    feeds has nothing to do with the order of a list. No batch is of one image, unless there is but one.
    """
    n = len(images.labels)
    order = rng_at(n, "evaluation").permutation(n)
    right, nats = [], []
    for indices in np.array_split(order, ceil(n / EVALUATION_BATCH)):
        labels = torch.from_numpy(images.labels[indices]).to(like.device)
        with recipe.autocast(like.device):
            logits = _wide(forward(as_input(images.batch(indices), recipe.normalisation, like)))
        right.append((logits.argmax(dim=-1) == labels).sum(dim=1))
        losses = F.cross_entropy(logits.flatten(0, 1), labels.repeat(len(logits)), reduction="none")
        nats.append(losses.view(len(logits), -1).double().sum(dim=1))
    hits, total = torch.stack(right).sum(dim=0).tolist(), torch.stack(nats).sum(dim=0).tolist()
    return [Score(own / n, loss / n) for own, loss in zip(hits, total, strict=True)]

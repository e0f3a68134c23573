"""Pretrain a small Vision Transformer on ``formulas``: many questions at once, asked of the class token.

    loss = mean over questions of (cross-entropy / log answers)
           + squared error of the 8 x 8 thumbnail / its variance

Either part is 1 for constant answers. A step is a function of the state and its number alone, so a run that
was killed goes on from its last state to the same weights.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from moe_prompts.engine.files import write_atomically
from moe_prompts.errors import InputError
from moe_prompts.seeds import address
from moe_prompts.vision.backbones.create import ARCHITECTURES, architecture
from moe_prompts.vision.backbones.formulas import BLOCK, HEADS, NONE, pretraining_block
from moe_prompts.vision.backbones.normalisation import normalised
from moe_prompts.vision.prompting.checkpoint import backbone_hash, read_tensors
from moe_prompts.vision.prompting.weight_decay import decay_groups

FORMAT = "moe-prompts pretraining 1"
THUMBNAIL = 8


@dataclass(frozen=True)
class Pretraining:
    """Say what is trained, on how much, and how.

    The optimiser is AdamW with a warm-up over the first 5 % of the steps, then half a cosine to 0.

    model          one of ``create.ARCHITECTURES``
    size           side of the images in pixels, 32 or 64
    steps          of the optimiser
    batch          images in a step, a multiple of 64
    learning_rate  the largest one
    weight_decay   of matrices (``weight_decay``)
    entropy        seed of images and first weights

    Raises ``InputError`` for values out of range.
    """

    model: str = "small"
    size: int = 32
    steps: int = 5000
    batch: int = 128
    learning_rate: float = 3e-3
    weight_decay: float = 0.02
    entropy: int = 0

    def __post_init__(self) -> None:
        if self.model not in ARCHITECTURES:
            raise InputError(f"Pretraining: model {self.model!r}; expected one of {', '.join(ARCHITECTURES)}")
        if self.size not in (32, 64):
            raise InputError(f"Pretraining: size {self.size}; expected 32 or 64 pixels")
        if self.steps < 1 or self.batch < BLOCK or self.batch % BLOCK:
            raise InputError(
                f"Pretraining: {self.steps} steps of {self.batch} images; expected at least 1 step of a multiple of "
                f"{BLOCK} images"
            )
        if not self.learning_rate > 0 or not self.weight_decay >= 0 or self.entropy < 0:
            raise InputError(
                f"Pretraining: learning rate {self.learning_rate}, weight decay {self.weight_decay}, entropy "
                f"{self.entropy}; expected a positive rate, decay and entropy of at least 0"
            )

    def rate(self, step: int) -> float:
        """Return the learning rate of a step; the first one is step 0."""
        warm = max(1, self.steps // 20)
        if step < warm:
            return self.learning_rate * (step + 1) / warm
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, self.steps - warm)))


class Pupil(nn.Module):
    """Join a backbone with two linear heads on its class token: for all questions, and for the thumbnail."""

    def __init__(self, config: Pretraining) -> None:
        super().__init__()
        self.backbone: VisionTransformer = architecture(config.model, config.size, config.entropy)
        rng = torch.Generator().manual_seed(address("pretraining heads") + config.entropy)
        self.questions = nn.Linear(self.backbone.embed_dim, sum(HEADS.values()))
        self.thumbnail = nn.Linear(self.backbone.embed_dim, 2 * THUMBNAIL**2)
        for head in (self.questions, self.thumbnail):
            with torch.no_grad():
                head.weight.normal_(0, 0.02, generator=rng)
                head.bias.zero_()

    def forward(self, images: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return scores of the answers to each question, (n, answers), and thumbnails (n, 128).

        images  (n, 3, H, W), normalised
        """
        token = self.backbone.forward_features(images)[:, 0]
        scores = self.questions(token).split(list(HEADS.values()), dim=1)
        return dict(zip(HEADS, scores, strict=True)), self.thumbnail(token)


def batch_of(config: Pretraining, step: int, device: str = "cpu") -> tuple[Tensor, dict[str, Tensor]]:
    """Return the normalised images and the answers of one step; each image is seen once."""
    each = config.batch // BLOCK
    drawn = [pretraining_block(block, config.size, config.entropy) for block in range(step * each, (step + 1) * each)]
    images = normalised(np.concatenate([pixels for pixels, _ in drawn]), "half").to(device)
    answers = {name: np.concatenate([found[name] for _, found in drawn]) for name in HEADS}
    return images, {name: torch.from_numpy(values).to(device) for name, values in answers.items()}


def losses(pupil: Pupil, images: Tensor, answers: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the loss of each question and of the thumbnail, for images (n, 3, H, W) and their answers (n,).

    A question's loss is the mean cross-entropy over the images that have an answer, in units of log(answers).
    That of the thumbnail is its squared error in units of its variance.
    """
    scores, thumbnail = pupil(images)
    found = {}
    for name, values in answers.items():
        if (values != NONE).any():
            loss = nn.functional.cross_entropy(scores[name], values, ignore_index=NONE)
            found[name] = loss / math.log(HEADS[name])
    wanted = thumbnails(images)
    return found | {"thumbnail": (thumbnail - wanted).square().mean() / wanted.square().mean()}


def thumbnails(images: Tensor) -> Tensor:
    """Return 8 x 8 pixels of brightness and of redness, (n, 128), of images (n, 3, H, W).

    Each of the two has mean 0 and about variance 1 in every image.
    """
    red, green, blue = images.unbind(dim=1)
    both = torch.stack([(red + green + blue) / 3, red - (green + blue) / 2], dim=1)
    small = nn.functional.adaptive_avg_pool2d(both, THUMBNAIL).flatten(2)
    small = small - small.mean(dim=2, keepdim=True)
    return (small / (small.std(dim=2, keepdim=True) + 0.05)).flatten(1)


def total(parts: dict[str, Tensor]) -> Tensor:
    """Return the loss that is minimised: the mean over questions, plus that of the thumbnail."""
    questions = [value for name, value in parts.items() if name != "thumbnail"]
    return torch.stack(questions).mean() + parts["thumbnail"]


class Run:
    """Hold a pretraining under way: pupil, optimiser, steps done and the recent loss of each part."""

    def __init__(self, config: Pretraining, device: str = "cpu") -> None:
        self.config, self.device = config, device
        self.pupil = Pupil(config).to(device).train()
        groups = decay_groups(self.pupil.named_parameters(), config.weight_decay, "matrices")
        self.optimiser = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98))
        self.done = 0
        self.recent: dict[str, float] = {}

    def step(self) -> None:
        """Train on the images of the next step."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.rate(self.done)
        parts = losses(self.pupil, *batch_of(self.config, self.done, self.device))
        self.optimiser.zero_grad()
        total(parts).backward()
        nn.utils.clip_grad_norm_(self.pupil.parameters(), 1.0)
        self.optimiser.step()
        self.done += 1
        for name, value in parts.items():
            # Mean of about the last 100 steps.
            self.recent[name] = self.recent.get(name, value.item()) * 0.99 + 0.01 * value.item()

    def save(self, path: Path) -> None:
        """Write the whole state to one safetensors file, whole or not at all."""
        tensors = {f"pupil.{name}": value for name, value in self.pupil.state_dict().items()}
        for number, values in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{number}.{name}": value for name, value in values.items()}
        about = {
            "format": FORMAT,
            "config": json.dumps(asdict(self.config)),
            "done": str(self.done),
            "recent": json.dumps(self.recent),
        }
        content = save({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, about)
        write_atomically(path, content)

    def load(self, path: Path) -> None:
        """Go on from what ``save`` wrote; raise ``InputError`` if that was for other settings."""
        about, tensors = read_tensors(path, FORMAT, "the state of a pretraining")
        if json.loads(about["config"]) != asdict(self.config):
            raise InputError(
                f"{path} is of other settings ({about['config']}); give the same options or choose another --out"
            )
        self.pupil.load_state_dict(_under("pupil", tensors))
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in _under("optimiser", tensors).items():
            number, key = name.split(".")
            state.setdefault(int(number), {})[key] = value
        self.optimiser.load_state_dict({"state": state, "param_groups": self.optimiser.state_dict()["param_groups"]})
        self.done, self.recent = int(about["done"]), json.loads(about["recent"])


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(f"{prefix}."): value for name, value in tensors.items() if name.startswith(f"{prefix}.")}


def pretrain(config: Pretraining, state: Path, every: int = 200, device: str = "cpu") -> Iterator[Run]:
    """Run a pretraining to its end, and yield it at the start and after each step.

    It begins from the file ``state`` if that is there, and saves to it every so many steps.
    """
    run = Run(config, device)
    if state.exists():
        run.load(state)
    yield run
    while run.done < config.steps:
        run.step()
        if run.done % every == 0 or run.done == config.steps:
            run.save(state)
        yield run


def export(run: Run, folder: Path) -> None:
    """Write backbone.safetensors, without the heads, and backbone.json, which says how it was made."""
    weights = {name: value.detach().cpu().contiguous() for name, value in run.pupil.backbone.state_dict().items()}
    content = save(weights)
    config = asdict(run.config)
    options = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in config.items())
    facts = {
        "made by": f"python experiments/pretrain.py train {options}",
        "config": config,
        "images": "drawn by formula, each seen once; no image and no shape of the stand-in tasks",
        "labels": "numbers of the formula (supervised): place, size, contour, turn, long axis, hollow or not, number, "
        "distance and direction of a red pair, direction of the ground's wave; and an 8 x 8 thumbnail",
        "questions": HEADS,
        "images seen": run.done * run.config.batch,
        "loss at the end, 1 = constant answers": {name: round(value, 4) for name, value in run.recent.items()},
        "normalisation": "half: bytes / 127.5 - 1",
        "parameters": sum(value.numel() for value in weights.values()),
        "sha256": sha256(content).hexdigest(),
        "backbone hash": backbone_hash(run.pupil.backbone),
        "versions": {name: metadata.version(name) for name in ("numpy", "torch", "timm")},
    }
    write_atomically(folder / "backbone.safetensors", content)
    write_atomically(folder / "backbone.json", (json.dumps(facts, indent=2) + "\n").encode())


def load_export(file: Path) -> tuple[VisionTransformer, VisionTransformer, dict[str, Any]]:
    """Return the trained backbone, the same one with its initial weights, and the content of its JSON.

    Raises ``InputError`` if a file is missing or the weights are not those that the JSON describes.
    """
    try:
        facts = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
        content = file.read_bytes()
    except (OSError, json.JSONDecodeError) as error:
        raise InputError(f"{file}: {error}; expected a checkpoint that train wrote, with its JSON beside it") from error
    if sha256(content).hexdigest() != facts.get("sha256"):
        raise InputError(f"{file} is not the file that {file.with_suffix('.json').name} describes; train it again")
    config = Pretraining(**facts["config"])
    trained, untrained = (architecture(config.model, config.size, config.entropy).eval() for _ in range(2))
    trained.load_state_dict(load(content))
    return trained, untrained, facts

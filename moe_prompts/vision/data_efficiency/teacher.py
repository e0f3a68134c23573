"""Plant a truth inside a Vision Transformer: frozen weights and head are known, a teacher's prompts are not.

    y | x ~ softmax(head(ViT(x; teacher prompts)))
    excess risk of a student = E_x KL(teacher(x) || student(x))

The teacher's prompts are fixed (``planted-fixed``, VPT-deep) or adaptive (``planted-adaptive``, VAPT). Given
images the risk is exact, since both distributions are known; it is 0 at the teacher and nowhere negative.
Images are those of the stand-in ``count``. Every replicate has its own, the first of which are those of a
smaller n. Prompts may be in the last blocks alone; what enters them belongs to an image, so that states that
were kept (``training.states``) serve in place of images, and give the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from moe_prompts.checks import real
from moe_prompts.errors import InputError
from moe_prompts.seeds import rng_at
from moe_prompts.vision.backbones.normalisation import normalised
from moe_prompts.vision.data_efficiency.curves import PLANTED
from moe_prompts.vision.prompting.config import VAPT, VPT, first_block
from moe_prompts.vision.tasks.replicates import TEST, replicate_images
from moe_prompts.vision.tasks.task import ImageSet, Pixels
from moe_prompts.vision.training.packed import PackedTrials
from moe_prompts.vision.training.sgd import EVALUATION_BATCH
from moe_prompts.vision.training.states import States, as_input

#: Images and classes.
IMAGES, CLASSES = "count", 10


@dataclass(frozen=True)
class Planted:
    """Hold a planted truth on a frozen ``model``.

    kind           one of ``curves.PLANTED``: fixed or adaptive prompts
    model          a frozen ViT
    tokens         number of the teacher's prompts
    sharpness      standard deviation over classes of the plain model's logits: the larger, the less noise in
                   labels
    entropy        seed of head, teacher, images and labels
    normalisation  of images, as ``Recipe`` names it
    blocks         L', only the last so many blocks have prompts; None: all
    hidden         r, hidden units of adaptive prompts

    Raises ``InputError`` for an unknown kind, a sharpness that is not positive and finite, and prompts that
    do not fit the model.
    """

    kind: str
    model: VisionTransformer
    tokens: int = 4
    sharpness: float = 6.0
    entropy: int = 0
    normalisation: str = "half"
    blocks: int | None = None
    hidden: int = VAPT.hidden

    def __post_init__(self) -> None:
        if self.kind not in PLANTED:
            raise InputError(f"planted truth {self.kind!r}; expected one of {', '.join(PLANTED)}")
        real(self.sharpness, "(0, inf)", "Planted: sharpness")
        self.config.check(len(self.model.blocks), self.model.patch_embed.grid_size)

    @cached_property
    def config(self) -> VPT | VAPT:
        """Return the prompts of the teacher, without dropout."""
        return self.fixed(self.tokens) if self.kind == PLANTED[0] else self.adaptive

    @property
    def adaptive(self) -> VAPT:
        """Return adaptive prompts of the teacher's sizes in its blocks, without dropout."""
        return without_dropout(VAPT(self.tokens, self.hidden, blocks=self.blocks))

    def fixed(self, tokens: int) -> VPT:
        """Return so many fixed prompts in each of the teacher's blocks."""
        return VPT(tokens, blocks=self.blocks)

    @property
    def first(self) -> int:
        """Return the index of the first block with prompts."""
        return first_block(self.config, len(self.model.blocks))

    @cached_property
    def head(self) -> nn.Linear:
        """Return the head, which students know: normal weights on centred features of the plain model."""
        features = self._features(self._pixels(TEST, 256))
        head = nn.Linear(self.model.embed_dim, CLASSES).to(features)
        rng = self._rng("head")
        with torch.no_grad():
            spread = (features - features.mean(dim=0)).square().sum(dim=1).mean().sqrt()
            head.weight.copy_(torch.from_numpy(rng.standard_normal(head.weight.shape)) * self.sharpness / spread)
            head.bias.copy_(-head.weight @ features.mean(dim=0))
        return head.requires_grad_(False)

    @cached_property
    def teacher(self) -> PackedTrials:
        """Return one trial that holds the truth.

        Everything in it is normal; weights are divided by the root of how many are summed.
        """
        teacher = PackedTrials(self.model, self.config, self.head, [torch.Generator().manual_seed(0)])
        rng = self._rng("teacher")
        with torch.no_grad():
            for name, value in teacher.named_parts():
                if name.endswith("tokens"):
                    value.copy_(torch.from_numpy(rng.standard_normal(value.shape)))
                elif name.endswith(("kernel", ".weight")) and "norm" not in name:
                    scale = 1.0 if name.endswith("kernel") else value[0, 0].numel() ** -0.5
                    value.copy_(torch.from_numpy(rng.standard_normal(value.shape)) * scale)
                elif "projector" in name:
                    value.copy_(torch.from_numpy(rng.standard_normal(value.shape)) * value.shape[-1] ** -0.5)
        return teacher.requires_grad_(False)

    def draw(self, n: int, replicate: int, kept: Callable[[Pixels], ImageSet] | None = None) -> Pixels:
        """Return n images of a replicate with labels drawn from the teacher.

        The first ones are those of a smaller n.

        kept  gives the states of images that enter block ``first``, or the images where none are kept; None:
              states are computed and not kept
        """
        pixels = self._pixels(replicate, n)
        read = pixels if kept is None else _values(kept(Pixels(pixels, np.zeros(n, dtype=np.int64))))
        shares = self.log_probabilities(read).exp().double().cumsum(dim=1).cpu().numpy()
        uniform = self._rng("labels", replicate).random((n, 1)) * shares[:, -1:]
        return Pixels(pixels, (uniform > shares[:, :-1]).sum(axis=1))

    def log_probabilities(self, inputs: np.ndarray | ImageSet, student: PackedTrials | None = None) -> Tensor:
        """Return log p(class | image): (n, C) of the teacher, or (R, n, C) of the trials of ``student``.

        inputs  images (n, H, W, 3), bytes; or states (n, T, d) that enter block ``first``; or a set of either
        """
        model = self.teacher if student is None else student
        values = inputs if isinstance(inputs, np.ndarray) else _values(inputs)
        forward = model if values.dtype == np.uint8 else model.of_states
        rows = []
        with torch.no_grad():
            for start in range(0, len(values), EVALUATION_BATCH):
                batch = as_input(values[start : start + EVALUATION_BATCH], self.normalisation, self.head.weight)
                rows.append(forward(batch).log_softmax(dim=-1))
        found = torch.cat(rows, dim=1)
        return found[0] if student is None else found

    def risks(self, student: PackedTrials, inputs: np.ndarray | ImageSet) -> dict[str, np.ndarray]:
        """Return expectations over the labels given these images, each (R,) for the R trials of ``student``.

        inputs         as those of ``log_probabilities``
        excess         excess risk in nats
        cross_entropy  in nats
        accuracy       the teacher's probability of the student's answer
        """
        truth, ours = self.log_probabilities(inputs), self.log_probabilities(inputs, student)
        chosen = truth.exp().expand_as(ours).gather(-1, ours.argmax(dim=-1, keepdim=True)).squeeze(-1)
        each = {
            "excess": (truth.exp() * (truth - ours)).sum(dim=-1),
            "cross_entropy": -(truth.exp() * ours).sum(dim=-1),
            "accuracy": chosen,
        }
        return {name: values.double().mean(dim=-1).cpu().numpy() for name, values in each.items()}

    def _pixels(self, replicate: int, n: int) -> np.ndarray:
        return replicate_images(IMAGES, self.model.patch_embed.img_size[0], replicate, n, self.entropy).pixels

    def _features(self, pixels: np.ndarray) -> Tensor:
        with torch.no_grad():
            inputs = normalised(pixels, self.normalisation, next(self.model.parameters()))
            return self.model.forward_head(self.model.forward_features(inputs), pre_logits=True)

    def _rng(self, purpose: str, *numbers: int) -> np.random.Generator:
        return rng_at(self.entropy, self.kind, purpose, *numbers)


def _values(images: ImageSet) -> np.ndarray:
    """Return the bytes of all images of a set, or all states."""
    return images.values if isinstance(images, States) else images.batch(np.arange(len(images.labels)))


def without_dropout(config: VAPT) -> VAPT:
    """Return the same prompts without dropout, for fits whose optimum is that of the likelihood."""
    return replace(config, channel_dropout=0.0, hidden_dropout=0.0)

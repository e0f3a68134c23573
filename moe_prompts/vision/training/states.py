"""Compute the states of images that enter the first block with prompts once, and keep them in a file.

What comes before that block is frozen and sees no prompts, so its output belongs to an image: every step of
every trial may read it instead of computing it. ``entering_states`` gives the same bits for an image whatever
is beside it, so training on kept states is training without them, bit for bit in float32 on one machine. A
file is named by the backbone's hash, the block, the normalisation, the precision and the bytes of the images;
it is mapped into memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from moe_prompts.engine.files import appearing
from moe_prompts.vision.backbones.normalisation import normalised
from moe_prompts.vision.prompting.checkpoint import backbone_hash
from moe_prompts.vision.tasks.task import ImageSet, Pixels, Subset
from moe_prompts.vision.training.packed import GROUP, entering_states

#: Images that are read at once; a multiple of the group, so that only the last group of a set is filled up.
READ = 8 * GROUP


@dataclass(frozen=True)
class States:
    """Hold, in place of a set of images, the states that enter one block of one backbone.

    values  (n, T, d)
    labels  (n,)
    """

    values: np.ndarray
    labels: np.ndarray

    def batch(self, indices: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """Return the states (B, T, d) with these indices; nothing is drawn, as they are never augmented."""
        return self.values[indices]


def is_fixed(images: ImageSet) -> bool:
    """Return whether a set gives the same bytes for an image in every step.

    Pixels in memory do; files that are cropped at random do not.
    """
    return isinstance(images, Pixels) or (isinstance(images, Subset) and is_fixed(images.images))


def kept_states(
    model: VisionTransformer, first: int, images: ImageSet, normalisation: str, precision: str, folder: Path
) -> States:
    """Return the states of these images from the folder; compute and write them first where they are missing.

    Several processes may ask at once: a file appears whole or not at all, and all of them write the same.
    """
    like = next(model.parameters())
    name = _name(model, first, images, f"{normalisation} {precision} {like.device.type} {torch.__version__}")
    path = folder / f"{name}.npy"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with torch.autocast(like.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            values = [
                entering_states(model, first, normalised(pixels, normalisation, like)).float().cpu().numpy()
                for pixels in _read(images)
            ]
        with appearing(path) as file:
            np.save(file, np.concatenate(values))
    return States(np.load(path, mmap_mode="r"), images.labels)


def as_input(values: np.ndarray, normalisation: str, like: Tensor) -> Tensor:
    """Return a batch as a model takes it: bytes become normalised images, states stay as they are."""
    return normalised(values, normalisation, like) if values.dtype == np.uint8 else torch.tensor(values).to(like)


def _read(images: ImageSet) -> Iterator[np.ndarray]:
    n = len(images.labels)
    return (images.batch(np.arange(start, min(start + READ, n))) for start in range(0, n, READ))


def _name(model: VisionTransformer, first: int, images: ImageSet, rest: str) -> str:
    digest = sha256(f"{backbone_hash(model)} {first} {rest} {len(images.labels)}".encode())
    for pixels in _read(images):
        digest.update(f"{pixels.shape}".encode())
        digest.update(np.ascontiguousarray(pixels).tobytes())
    return digest.hexdigest()

"""Compute the states of images that enter the first block with prompts once, and keep them.

What comes before that block is frozen and sees no prompts, so its output belongs to an image: every step of
every trial may read it instead of computing it. ``entering_states`` gives the same bits for an image whatever
is beside it, so training on kept states is training without them, bit for bit in float32 on one machine.
States are known by the backbone's hash, what else decides its function (heads, activations and the like),
the block, the normalisation, the precision and the bytes of the images. ``kept_states`` keeps them in files,
which are mapped into memory; ``remembered_states`` in the memory of this process, up to a number of bytes.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from moe_prompts.engine.files import appearing
from moe_prompts.vision.backbones.normalisation import normalised
from moe_prompts.vision.prompting.checkpoint import backbone_hash, backbone_traits
from moe_prompts.vision.tasks.task import ImageSet, Pixels, Subset
from moe_prompts.vision.training.packed import GROUP, entering_states

#: Images that are read at once; a multiple of the group, so that only the last group of a set is filled up.
READ = 8 * GROUP
#: Bytes of a number of a state.
BYTES = np.dtype(np.float32).itemsize
#: Bytes of states that commands keep in each process where no folder is given.
MEMORY = 2**28


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
    path = folder / f"{_name(model, first, images, normalisation, precision)}.npy"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        values = _computed(model, first, images, normalisation, precision)
        with appearing(path) as file:
            np.save(file, values)
    return States(np.load(path, mmap_mode="r"), images.labels)


def remembered_states(
    model: VisionTransformer, first: int, images: ImageSet, normalisation: str, precision: str, most: int
) -> ImageSet:
    """Return the states of these images from memory; compute them first where they are missing.

    most  bytes of all states that this process keeps; those that were read longest ago make room for others

    Images whose states alone take more than ``most`` are returned as they are.
    """
    needed = states_bytes(model, len(images.labels))
    if needed > most:
        return images
    name = _name(model, first, images, normalisation, precision)
    values = _MEMORY.get(name)
    if values is None:
        _MEMORY.shrink(most - needed)  # before they are computed: both at once would be more than ``most``
        values = _computed(model, first, images, normalisation, precision)
        _MEMORY.put(name, values)
    return States(values, images.labels)


def states_bytes(model: VisionTransformer, number: int) -> int:
    """Return how many bytes the states of ``number`` images take."""
    tokens = model.num_prefix_tokens + model.patch_embed.num_patches
    return number * tokens * model.embed_dim * BYTES


class _Memory:
    """Hold arrays by name, in the order in which they were read."""

    def __init__(self) -> None:
        self.arrays: OrderedDict[str, np.ndarray] = OrderedDict()
        self.lock = Lock()

    def get(self, name: str) -> np.ndarray | None:
        with self.lock:
            if name in self.arrays:
                self.arrays.move_to_end(name)
            return self.arrays.get(name)

    def put(self, name: str, values: np.ndarray) -> None:
        values.setflags(write=False)
        with self.lock:
            self.arrays[name] = values

    def shrink(self, most: int) -> None:
        """Drop what was read longest ago until all arrays take at most so many bytes."""
        with self.lock:
            while sum(one.nbytes for one in self.arrays.values()) > most:
                self.arrays.popitem(last=False)


_MEMORY = _Memory()


def as_input(values: np.ndarray, normalisation: str, like: Tensor) -> Tensor:
    """Return a batch as a model takes it: bytes become normalised images, states stay as they are."""
    return normalised(values, normalisation, like) if values.dtype == np.uint8 else torch.tensor(values).to(like)


def _read(images: ImageSet) -> Iterator[np.ndarray]:
    n = len(images.labels)
    return (images.batch(np.arange(start, min(start + READ, n))) for start in range(0, n, READ))


def _computed(model: VisionTransformer, first: int, images: ImageSet, normalisation: str, precision: str) -> np.ndarray:
    like = next(model.parameters())
    n, tokens = len(images.labels), model.num_prefix_tokens + model.patch_embed.num_patches
    found = np.empty((n, tokens, model.embed_dim), dtype=np.float32)
    with torch.autocast(like.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        for start, pixels in zip(range(0, n, READ), _read(images), strict=True):
            states = entering_states(model, first, normalised(pixels, normalisation, like))
            found[start : start + READ] = states.float().cpu().numpy()
    return found


def _name(model: VisionTransformer, first: int, images: ImageSet, normalisation: str, precision: str) -> str:
    rest = f"{normalisation} {precision} {next(model.parameters()).device.type} {torch.__version__}"
    # Weights do not tell heads, activations and the like, nor in which block a layer without weights stands.
    traits = json.dumps(backbone_traits(model), sort_keys=True)
    layers = f"{model.patch_embed} {model.norm_pre} {model.blocks[:first]}"
    digest = sha256(f"{backbone_hash(model)} {traits} {layers} {first} {rest} {len(images.labels)}".encode())
    for pixels in _read(images):
        digest.update(f"{pixels.shape}".encode())
        digest.update(np.ascontiguousarray(pixels).tobytes())
    return digest.hexdigest()

"""Compute the states of images that enter the first block with prompts once, and keep them.

What comes before that block is frozen and sees no prompts, so its output belongs to an image: every step of
every trial may read it instead of computing it. ``entering_states`` gives the same bits for an image whatever
is beside it, so training on kept states is training without them, bit for bit in float32 on one machine.
States are known by the backbone's hash, what else decides its function (heads, activations and the like),
the block, the normalisation, the precision and the bytes of the images. ``kept_states`` keeps them in files,
which are mapped into memory; ``remembered_states`` in the memory of this process, up to a number of bytes.

A file is not read as a whole when it is opened. Each process computes the states of one group of its images
again, spread evenly from the first to the last, and compares: one forward pass, whatever the size of the
file. That finds a file of other states, and one in which a part longer than the gap between these images is
altered. It does not find a few altered numbers elsewhere.
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
from moe_prompts.errors import InputError
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
#: How far the states of a token may be from those computed again, relative to these: machines that share a
#: folder round differently. On dinov2-small-focus the distance to float64 is at most 8e-6 in float32, 2e-3
#: where the factors of the first convolution are rounded to TF32, as GPUs may, and .033 in bfloat16. These
#: are eight times the last two.
TOLERANCE = {"float32": 2.0**-6, "bfloat16": 2.0**-2}


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

    Raises ``InputError`` for a file that cannot be read, or that holds other states: one group of images is
    computed again when a process reads a file for the first time.
    """
    path = folder / f"{_name(model, first, images, normalisation, precision)}.npy"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        values = _computed(model, first, images, normalisation, precision)
        with appearing(path) as file:
            np.save(file, values)
        _CHECKED[path] = _version(path)
    kept = _mapped(path, (len(images.labels), *_token_shape(model)))
    version = _version(path)
    if _CHECKED.get(path) != version:
        some = _spread(len(images.labels))
        found = _computed_of(model, first, images.batch(some), normalisation, precision)
        _check_alike(kept[some], found, TOLERANCE[precision], path)
        _CHECKED[path] = version
    return States(kept, images.labels)


#: Files that this process wrote or checked, and which version of them.
_CHECKED: dict[Path, tuple[int, int]] = {}


def _version(path: Path) -> tuple[int, int]:
    about = path.stat()
    return about.st_mtime_ns, about.st_size


def _mapped(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Return the states in a file, mapped into memory; raise ``InputError`` where it holds none of this shape."""
    try:
        kept = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # numpy raises whatever the bytes of a damaged header lead it to
        raise _unusable(path, " ".join(str(error).split())[:200]) from error
    if kept.shape != shape or kept.dtype != np.float32:
        raise _unusable(path, f"numbers of type {kept.dtype} and shape {kept.shape}, not float32 and {shape}")
    return kept


def _spread(number: int) -> np.ndarray:
    """Return the indices of at most one group of images out of so many, from the first to the last."""
    return np.unique(np.linspace(0, number - 1, GROUP).astype(int))


def _check_alike(kept: np.ndarray, found: np.ndarray, tolerance: float, path: Path) -> None:
    """Raise ``InputError`` where a token's kept states are further from those found again than rounding takes them.

    kept, found  (n, T, d)
    tolerance    of the distance, relative to the norm of those found
    """
    if np.array_equal(kept, found, equal_nan=True):
        return
    distance, scale = (np.linalg.norm(x, axis=-1) for x in (kept - found.astype(np.float64), found.astype(np.float64)))
    far = ~(distance <= tolerance * scale)  # so, since NaN is no distance
    if far.any():
        raise _unusable(path, f"{far.sum()} of {far.size} tokens that were computed again are others")


def _unusable(path: Path, why: str) -> InputError:
    return InputError(
        f"{path}: kept states cannot be used ({why}); expected those that an earlier run wrote: delete the file, and "
        "they are computed anew"
    )


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
    tokens, width = _token_shape(model)
    return number * tokens * width * BYTES


def _token_shape(model: VisionTransformer) -> tuple[int, int]:
    """Return the number of tokens of an image and their width."""
    return model.num_prefix_tokens + model.patch_embed.num_patches, model.embed_dim


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
    n = len(images.labels)
    found = np.empty((n, *_token_shape(model)), dtype=np.float32)
    for start, pixels in zip(range(0, n, READ), _read(images), strict=True):
        found[start : start + READ] = _computed_of(model, first, pixels, normalisation, precision)
    return found


def _computed_of(
    model: VisionTransformer, first: int, pixels: np.ndarray, normalisation: str, precision: str
) -> np.ndarray:
    like = next(model.parameters())
    with torch.autocast(like.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        states = entering_states(model, first, normalised(pixels, normalisation, like))
    return states.float().cpu().numpy()


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

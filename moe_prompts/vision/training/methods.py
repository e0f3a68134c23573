"""Name the methods that are compared, as tables and command lines do, and make their prompts.

prompts    vpt_shallow, vpt_deep and vapt; vpt_matched is VPT-deep with the fewest tokens that give it at
           least VAPT's number of parameters
controls   VAPT that lacks one thing: vapt_constant is blind to the image, vapt_shuffled is fed another image,
           vapt_pooled is blind to place
starts     VAPT that begins elsewhere (``prompting.starts``): vapt_tokens, vapt_orthogonal, vapt_gain, and
           vapt_offset and vapt_vpt, which have a free vector beside each prompt; vpt_tokens is VPT-deep that
           does
baselines  without prompts: linear trains the head alone, bias all biases and the head, bias_blocks the head
           and the biases inside the blocks that get prompts, full everything
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer

from moe_prompts.errors import InputError
from moe_prompts.vision.prompting.config import VAPT, VPT
from moe_prompts.vision.prompting.prompted import new_head
from moe_prompts.vision.training.peers import add_adapters, add_lora, changed_blocks, check_rank, lora_parameters
from moe_prompts.vision.training.sgd import Setting

PROMPTS = ("vpt_shallow", "vpt_deep", "vpt_matched", "vapt")
CONTROLS = ("vapt_constant", "vapt_shuffled", "vapt_pooled")
BASELINES = ("linear", "bias", "full")
#: Starts other than the published ones; ``vapt_offset`` has the published start and the parameters of
#: ``vapt_vpt``.
STARTED = ("vpt_tokens", "vapt_tokens", "vapt_orthogonal", "vapt_gain", "vapt_offset", "vapt_vpt")
PEERS = ("lora", "lora_matched", "adapter")
#: Methods that train biases: all of them, or those inside the last blocks.
BIASES = ("bias", "bias_blocks")
#: What is compared where nothing is asked for. Others are asked for by name: LoRA needs the extra ``peft``.
COMPARED = (*BASELINES, *PROMPTS, *CONTROLS)
METHODS = (*BASELINES, "bias_blocks", *PEERS, *PROMPTS, *CONTROLS, *STARTED)
#: Methods that change the backbone. Trials of all but "full" share it where they can (``packed_peers``).
TRAINS_BACKBONE = (*BIASES, "full", *PEERS)

#: Base learning rates and weight decays that the papers search; biases share the rates of prompts here.
PROMPT_LRS = (50.0, 25.0, 10.0, 5.0, 2.5, 1.0, 0.5, 0.25, 0.1, 0.05)
FULL_LRS = (0.005, 0.001, 0.0005, 0.0001)
WEIGHT_DECAYS = (0.01, 0.001, 0.0001, 0.0)

#: Seconds of a step of one trial relative to packed VAPT's, rounded from docs/packed_benchmark.md: for
#: estimates only.
RELATIVE_SECONDS = {
    "linear": 0.1,
    "bias": 1.2,
    "bias_blocks": 1.2,
    "full": 2.2,
    "lora": 1.6,
    "lora_matched": 1.6,
    "adapter": 1.0,
    "vpt_shallow": 1.6,
    "vpt_deep": 1.0,
    "vpt_matched": 1.0,
    "vpt_tokens": 1.0,
}


@dataclass(frozen=True)
class Sizes:
    """Hold the sizes of the prompts that are compared.

    tokens  number of tokens N
    hidden  hidden units r of VAPT
    kernel  side k of VAPT's kernel
    blocks  number of blocks, counted from the last, that get prompts or what peers add, or whose biases
            "bias_blocks" trains; None: all
    rank    r of "lora" and "adapter"

    Raises ``InputError`` for sizes that VAPT does not take, and for a rank below 1.
    """

    tokens: int = 10
    hidden: int = 8
    kernel: int = 2
    blocks: int | None = None
    rank: int = 8

    def __post_init__(self) -> None:
        check_rank(self.rank)
        VAPT(self.tokens, self.hidden, self.kernel, blocks=self.blocks)


def check_method(name: str) -> None:
    """Raise ``InputError`` unless ``name`` is one of ``METHODS``."""
    if name not in METHODS:
        raise InputError(f"method {name!r}; expected one of {', '.join(METHODS)}")


def check_peers(names: Iterable[str]) -> None:
    """Raise ``InputError`` if a method needs the library ``peft`` and it is not installed."""
    asked = [name for name in names if name.startswith("lora")]
    if asked and find_spec("peft") is None:
        raise InputError(
            f'method {asked[0]} needs the library peft: pip install -e ".[peft]" -c requirements.lock, or leave it out'
        )


def config(name: str, sizes: Sizes, model: VisionTransformer) -> VPT | VAPT | None:
    """Return the prompts of a method on this model; None for methods without prompts.

    Raises ``InputError`` for an unknown method.
    """
    check_method(name)
    vapt = VAPT(sizes.tokens, sizes.hidden, sizes.kernel, blocks=sizes.blocks)
    if name == "vpt_matched":
        return VPT(matched_tokens(vapt, model), blocks=sizes.blocks)
    configs: dict[str, VPT | VAPT] = {
        "vpt_shallow": VPT(sizes.tokens, deep=False, blocks=sizes.blocks),
        "vpt_deep": VPT(sizes.tokens, blocks=sizes.blocks),
        "vapt": vapt,
        "vapt_constant": replace(vapt, source="mean"),
        "vapt_shuffled": replace(vapt, source="another"),
        "vapt_pooled": replace(vapt, pooled=True),
        "vpt_tokens": VPT(sizes.tokens, blocks=sizes.blocks, start="tokens"),
        "vapt_tokens": replace(vapt, start="tokens"),
        "vapt_orthogonal": replace(vapt, start="orthogonal"),
        "vapt_gain": replace(vapt, start="gain"),
        "vapt_offset": replace(vapt, offset=True),
        "vapt_vpt": replace(vapt, offset=True, start="vpt"),
    }
    return configs.get(name)


def trainable_copy(
    name: str,
    model: VisionTransformer,
    num_classes: int,
    rng: torch.Generator,
    sizes: Sizes | None = None,
    head_init: str = "published",
) -> VisionTransformer:
    """Return a copy of the plain model with a new head, for a method that trains or changes the backbone.

    name   one of ``TRAINS_BACKBONE``
    rng    draws the new head, then what a peer adds
    sizes  rank and blocks; None: the default ones
    head_init  first values of the head: "published" or "zero"
    """
    own: Any = deepcopy(model)
    own.head = new_head(model, num_classes, rng, head_init)
    sizes = Sizes() if sizes is None else sizes
    if name == "adapter":
        add_adapters(own, sizes.rank, rng, sizes.blocks)
    elif name in PEERS:
        add_lora(own, lora_rank(name, sizes, model), rng, sizes.blocks)
    else:
        for part, value in own.named_parameters():
            value.requires_grad_(part.startswith("head.") or is_trained(name, part, sizes, model))
    return own


def is_trained(name: str, part: str, sizes: Sizes, model: VisionTransformer) -> bool:
    """Return whether "full", "bias" or "bias_blocks" trains a parameter ``part`` of the backbone."""
    if name != "bias_blocks":
        return name == "full" or part.endswith("bias")
    places = tuple(f"blocks.{index}." for index in changed_blocks(model, sizes.blocks))
    return part.startswith(places) and part.endswith("bias")


def lora_rank(name: str, sizes: Sizes, model: VisionTransformer) -> int:
    """Return the rank of a LoRA method.

    That of "lora_matched" is the smallest with at least as many parameters as VAPT.
    """
    if name == "lora":
        return sizes.rank
    vapt = VAPT(sizes.tokens, sizes.hidden, sizes.kernel, blocks=sizes.blocks)
    wanted = vapt.n_parameters(model.embed_dim, len(model.blocks), model.patch_embed.grid_size)
    return -(-wanted // lora_parameters(model, 1, sizes.blocks))


def matched_tokens(vapt: VAPT, model: VisionTransformer) -> int:
    """Return the smallest N with which VPT-deep has at least as many parameters as ``vapt``.

    VPT-deep has N L d parameters, in as many blocks L as ``vapt``, where d is the width of the model.
    """
    blocks, width = len(model.blocks), model.embed_dim
    one = VPT(1, blocks=vapt.blocks).n_parameters(width, blocks, model.patch_embed.grid_size)
    return -(-vapt.n_parameters(width, blocks, model.patch_embed.grid_size) // one)


def distinct_methods(sizes: Sizes, model: VisionTransformer) -> tuple[str, ...]:
    """Return the methods of ``COMPARED`` that differ on this model.

    ``vpt_matched`` is left out where it has as many tokens as ``vpt_deep``, and so is the same.
    """
    same = config("vpt_matched", sizes, model) == config("vpt_deep", sizes, model)
    return tuple(name for name in COMPARED if name != "vpt_matched" or not same)


def settings(
    name: str, lrs: tuple[float, ...] | None = None, weight_decays: tuple[float, ...] | None = None
) -> tuple[Setting, ...]:
    """Return the grid of settings that a method is tuned over: the published one where nothing else is given.

    lrs            base learning rates, for 256 images a step
    weight_decays  weight decays; the grid holds every pair
    """
    check_method(name)
    lrs = lrs or (FULL_LRS if name == "full" else PROMPT_LRS)
    return tuple(Setting(lr, decay) for lr in lrs for decay in (weight_decays or WEIGHT_DECAYS))

"""Add LoRA or bottleneck adapters, the peers of prompts, to plain timm ViTs; count, save and load them.

    lora     W x + B A x, where W makes queries, keys and values: A (r, d) is drawn, B (3 d, r) begins at 0
    adapter  x + s * (U gelu(D x + b) + c) behind a block: D (r, d) and U (d, r) are drawn, s begins at 1

LoRA is that of the ``peft`` library (extra ``peft``), and its files are those of ``peft``. The adapter has
the placement, the scale per channel and the first values of Adapter+; it is written here since ``peft`` has
none for timm.

Sources: arXiv 2106.09685 (LoRA), 2406.06820 (Adapter+).
"""

from __future__ import annotations

import math
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from moe_prompts.checks import expect, file_path, whole
from moe_prompts.engine.files import write_atomically
from moe_prompts.errors import InputError
from moe_prompts.vision.prompting.checkpoint import state_hash
from moe_prompts.vision.prompting.prompted import PromptedVisionTransformer
from moe_prompts.vision.prompting.prompts import check_generator

#: Standard deviation of an adapter's first weights, which are cut at two of it.
ADAPTER_STD = 0.01
#: How ``peft`` begins the names of parameters in its files.
PEFT_PREFIX = "base_model.model."
#: What ``peft`` calls its files; older versions wrote the second kind of weights.
CONFIG, WEIGHTS = "adapter_config.json", ("adapter_model.safetensors", "adapter_model.bin")
#: A rank beyond every width.
MOST_RANK = 10**6


class Adapter(nn.Module):
    """Add s * (U gelu(D x + b) + c) to states x (..., d).

    block  after which it stands; it is called first
    width  d
    rank   r, the number of hidden units
    rng    draws D and U from a normal law of standard deviation .01, cut at .02

    >>> import torch
    >>> adapter = Adapter(torch.nn.Identity(), 8, 2, torch.Generator().manual_seed(0))
    >>> adapter(torch.zeros(1, 3, 8)).abs().max().item()
    0.0
    """

    #: By this ``prompt`` knows adapters.
    is_adapter = True

    def __init__(self, block: nn.Module, width: int, rank: int, rng: torch.Generator) -> None:
        super().__init__()
        self.block = block
        self.down = nn.Linear(width, rank)
        self.up = nn.Linear(rank, width)
        self.scale = nn.Parameter(torch.ones(width))
        for layer in (self.down, self.up):
            nn.init.trunc_normal_(layer.weight, 0, ADAPTER_STD, -2 * ADAPTER_STD, 2 * ADAPTER_STD, generator=rng)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, **options: Any) -> Tensor:
        """Return the states (..., d) after the block and its adapter."""
        x = self.block(x, **options)
        return x + self.scale * self.up(F.gelu(self.down(x)))


def changed_blocks(model: VisionTransformer, blocks: int | None, where: str = "") -> range:
    """Return the indices of the last ``blocks`` blocks; None: of all.

    Raises ``InputError``, in the name of the caller ``where``, if the model has fewer.
    """
    said = f"{where}: " if where else ""
    depth = len(expect(model, VisionTransformer, "changed blocks: model").blocks)
    number = depth if blocks is None else whole(blocks, 1, f"{said}blocks")
    if not 1 <= number <= depth:
        raise InputError(f"{said}blocks = {blocks}; expected a whole number from 1 to {depth}, the blocks of the model")
    return range(depth - number, depth)


def check_timm(model: nn.Module, what: str) -> None:
    """Raise ``InputError`` unless ``model`` is timm's, and plain; ``what`` names what was to be added."""
    if not isinstance(model, VisionTransformer):
        raise InputError(
            f"{what}: a {type(model).__name__} has no layer qkv; expected timm's VisionTransformer, which "
            "as_timm(model) makes of a model of transformers"
        )
    kinds = {
        "prompts": isinstance(model, PromptedVisionTransformer),
        "LoRA": hasattr(model, "peft_config"),
        "adapters": any(isinstance(block, Adapter) for block in model.blocks),
    }
    for kind, there in kinds.items():
        if there:
            raise InputError(f"{what}: this model has {kind} already; expected a plain one, or a deepcopy made before")


def check_rank(rank: int, where: str = "") -> None:
    """Raise ``InputError``, in the name of the caller ``where``, unless ``rank`` is a whole number from 1."""
    whole(rank, 1, f"{where}: rank" if where else "rank", most=MOST_RANK)


def lora_parameters(model: VisionTransformer, rank: int, blocks: int | None = None) -> int:
    """Return the numbers that LoRA trains beside the head: 4 r d in each block, d the width."""
    return 4 * rank * model.embed_dim * len(changed_blocks(model, blocks))


def adapter_parameters(model: VisionTransformer, rank: int, blocks: int | None = None) -> int:
    """Return the numbers that adapters train beside the head: 2 r d + r + 2 d in each block, d the width."""
    return (2 * rank * model.embed_dim + rank + 2 * model.embed_dim) * len(changed_blocks(model, blocks))


def add_lora(model: VisionTransformer, rank: int, rng: torch.Generator, blocks: int | None = None) -> None:
    """Add LoRA to the queries, keys and values of a model in place.

    Nothing else of the model trains but its head.

    model   a plain timm ViT whose attention has one layer ``qkv``
    rank    r of B A; the factor of B A is 1
    rng     draws A uniformly in +-1/sqrt(d), as ``peft`` does
    blocks  the last so many blocks; None: all

    Raises ``InputError`` for a model without ``qkv``, for a rank below 1, and without the library ``peft``.

    >>> import timm, torch
    >>> from moe_prompts.vision import add_lora
    >>> model = timm.create_model("test_vit", num_classes=10)
    >>> add_lora(model, rank=2, rng=torch.Generator().manual_seed(0))
    >>> sum("lora" in name for name, parameter in model.named_parameters() if parameter.requires_grad)
    12
    """
    check_rank(rank, "add_lora")
    check_generator(rng, "add_lora")
    check_timm(model, "add_lora")
    names = [f"blocks.{index}.attn.qkv" for index in changed_blocks(model, blocks, "add_lora")]
    known = {name for name, part in model.named_modules() if isinstance(part, nn.Linear)}
    missing = [name for name in names if name not in known]
    if missing:
        raise InputError(f"add_lora: this model has no linear layer {missing[0]}; expected a timm VisionTransformer")
    peft = _peft()
    config = peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=names)
    peft.inject_adapter_in_model(config, model)
    for name, value in model.named_parameters():
        value.requires_grad_("lora_" in name or name.startswith("head."))
        if "lora_A" in name:
            # peft draws it from the global generator.
            nn.init.kaiming_uniform_(value, a=math.sqrt(5), generator=rng)


def add_adapters(model: VisionTransformer, rank: int, rng: torch.Generator, blocks: int | None = None) -> None:
    """Put an adapter behind blocks of a model in place; nothing else of it trains but its head.

    model   a plain timm ViT
    rank    hidden units of an adapter
    rng     draws the first weights
    blocks  the last so many blocks; None: all

    Raises ``InputError`` for a rank below 1 or more blocks than there are.

    >>> import timm, torch
    >>> from moe_prompts.vision import add_adapters
    >>> vit = timm.create_model("vit_tiny_patch16_224", img_size=64)
    >>> add_adapters(vit, 2, torch.Generator().manual_seed(0), blocks=1)
    >>> vit(torch.zeros(1, 3, 64, 64)).shape
    torch.Size([1, 1000])
    """
    check_rank(rank, "add_adapters")
    check_timm(model, "add_adapters")
    check_generator(rng, "add_adapters")
    chosen = changed_blocks(model, blocks, "add_adapters")
    for name, value in model.named_parameters():
        value.requires_grad_(name.startswith("head."))
    for index in chosen:
        like = next(model.blocks[index].parameters())
        model.blocks[index] = Adapter(model.blocks[index], model.embed_dim, rank, rng).to(like.device, like.dtype)


def save_lora(model: VisionTransformer, folder: str | Path) -> None:
    """Write LoRA and head of a model in the files of ``peft``.

    These are adapter_model.safetensors and adapter_config.json.

    ``peft.PeftModel.from_pretrained(backbone, folder)`` reads them, where ``backbone`` has as many classes.
    The description of the weights, which ``peft`` does not read, holds the hash of the backbone as
    ``backbone_hash``; ``load_lora`` compares it.

    Raises ``InputError`` for a model without LoRA.

    >>> import timm, torch
    >>> from pathlib import Path
    >>> from moe_prompts.vision import add_lora, save_lora
    >>> model = timm.create_model("test_vit", num_classes=10)
    >>> add_lora(model, rank=2, rng=torch.Generator().manual_seed(0))
    >>> save_lora(model, "my-lora")
    >>> sorted(path.name for path in Path("my-lora").iterdir())
    ['adapter_config.json', 'adapter_model.safetensors']
    """
    from safetensors.torch import save

    folder = file_path(folder, "save_lora: folder")
    peft, config = _peft(), getattr(model, "peft_config", {}).get("default")
    if config is None:
        raise InputError("save_lora: this model has no LoRA; expected one that add_lora made")
    state = {PEFT_PREFIX + name: value for name, value in peft.get_peft_model_state_dict(model).items()}
    state |= {f"{PEFT_PREFIX}head.{name}": value for name, value in model.head.state_dict().items()}
    own = deepcopy(config)
    own.modules_to_save = ["head"]
    with TemporaryDirectory() as place:
        own.save_pretrained(place)
        described = (Path(place) / CONFIG).read_bytes()
    mark = {"format": "pt", "backbone_hash": _bare_hash(model)}
    content = save({name: value.detach().cpu().contiguous() for name, value in state.items()}, mark)
    folder.mkdir(parents=True, exist_ok=True)
    # The config comes last, and no older one stays: a stop between leaves a folder that load_lora refuses.
    (folder / CONFIG).unlink(missing_ok=True)
    write_atomically(folder / WEIGHTS[0], content)
    write_atomically(folder / CONFIG, described)


def load_lora(model: VisionTransformer, folder: str | Path) -> VisionTransformer:
    """Return a plain model with LoRA and head as ``save_lora`` or ``peft`` wrote them, in evaluation mode.

    model   the backbone, with as many classes as the saved head; it is changed in place

    Files of ``save_lora`` hold the hash of their backbone, and another one is refused: other weights, or the
    same in another number type. Those of ``peft``, and older ones of ``save_lora``, have none and are taken.

    Raises ``InputError`` for a folder without these files, another backbone, and another head.

    >>> import copy, timm, torch
    >>> from moe_prompts.vision import add_lora, load_lora, save_lora
    >>> plain = timm.create_model("test_vit", num_classes=10)
    >>> model, images = copy.deepcopy(plain), torch.zeros(1, 3, 160, 160)
    >>> add_lora(model, rank=2, rng=torch.Generator().manual_seed(0))
    >>> save_lora(model, "my-lora")
    >>> torch.allclose(load_lora(plain, "my-lora")(images), model.eval()(images), atol=1e-6)
    True
    """
    folder, peft = file_path(folder, "load_lora: folder"), _peft()
    expect(model, VisionTransformer, "load_lora: model")
    if not (folder / CONFIG).is_file():
        raise InputError(f"{folder}: no {CONFIG}; expected a folder that save_lora or peft wrote")
    if not any((folder / name).is_file() for name in WEIGHTS):
        raise InputError(f"{folder}: no {WEIGHTS[0]}; expected a folder that save_lora or peft wrote")
    told, found = _told_hash(folder), _bare_hash(model)
    if told not in (None, found):
        raise InputError(
            f"load_lora: {folder} was made on the backbone {told[:12]}, this one is {found[:12]}; expected the same "
            "weights in the same number type: create the model as it was when LoRA was added"
        )
    try:
        loaded = peft.PeftModel.from_pretrained(model, str(folder))
    except (RuntimeError, ValueError) as error:
        raise InputError(f"{folder}: does not fit this model: {' '.join(str(error).split())[:200]}") from error
    return loaded.eval()


def _bare_hash(model: VisionTransformer) -> str:
    """Return the hash of the backbone without LoRA, the same before and after ``add_lora``."""
    state = {
        name.removeprefix(PEFT_PREFIX).replace(".base_layer.", "."): value
        for name, value in model.state_dict().items()
        if "lora_" not in name
    }
    return state_hash({name: value for name, value in state.items() if name.split(".")[0] != "head"})


def _told_hash(folder: Path) -> str | None:
    """Return the backbone's hash that the weights of a folder tell; None: they tell none."""
    if not (folder / WEIGHTS[0]).is_file():
        return None
    try:
        with safe_open(folder / WEIGHTS[0], framework="pt") as file:
            return (file.metadata() or {}).get("backbone_hash")
    except (OSError, SafetensorError) as error:
        why = " ".join(str(error).split())[:200]
        raise InputError(f"load_lora: {folder / WEIGHTS[0]}: {why}; expected a file of save_lora or peft") from error


def _peft() -> Any:
    """Return the library ``peft``, loaded where it is used."""
    try:
        import peft
    except ModuleNotFoundError as error:
        raise InputError('LoRA needs the library peft; try: pip install -e ".[peft]" -c requirements.lock') from error
    return peft

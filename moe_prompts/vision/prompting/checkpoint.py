"""Keep a tuned model on disk: its prompts and head, their config, and which frozen backbone they belong to.

The backbone is known by a hash of its weights without the head, and by what weights do not tell: its way of
pooling, its number of attention heads, its activations and the like. So prompts cannot be put on another
backbone unnoticed.
"""

from __future__ import annotations

import json
import stat
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from hashlib import sha256
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from timm.layers import DropPath
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from moe_prompts.checks import expect, file_path, shown
from moe_prompts.engine.files import write_atomically
from moe_prompts.errors import InputError
from moe_prompts.vision.prompting.as_timm import timm_twin
from moe_prompts.vision.prompting.config import VAPT, VPT
from moe_prompts.vision.prompting.layouts import TransformersLayout, is_transformers, layout_of
from moe_prompts.vision.prompting.prompted import (
    PLAIN_HEAD,
    Plain,
    Prompted,
    PromptedBlock,
    adaptive_prompts,
    came_or_went,
    check_plain,
    check_prompted,
    fingerprints,
    plain_name,
    prompt,
    prompt_parameters,
    unprompt,
)

#: Kind and version of the file.
FORMAT = "moe-prompts 2"
#: How names of files end.
ENDING = ".safetensors"
#: Without a checksum.
OLDER = "moe-prompts 1"
#: Modules that compute nothing of their own in evaluation mode.
PASSING = (VisionTransformer, PromptedBlock, nn.Sequential, nn.Identity, nn.Dropout, DropPath)
#: In the place of a number of classes: the head has the form of the plain model's own.
KEPT = "kept"
CONFIGS: dict[str, type[VPT] | type[VAPT]] = {"VPT": VPT, "VAPT": VAPT}


def backbone_hash(model: Plain) -> str:
    """Return the sha256 over names, shapes, types and bytes of all weights but heads and prompts.

    It is the same for the plain and the prompted model. A model of ``transformers`` has that of timm's model
    with its weights, so files pass from one library to the other.

    >>> import timm, torch
    >>> from moe_prompts.vision import VPT, backbone_hash, prompt
    >>> vit = timm.create_model("vit_tiny_patch16_224", img_size=64)
    >>> plain = backbone_hash(vit)
    >>> backbone_hash(prompt(vit, VPT(num_tokens=2), num_classes=3)) == plain
    True
    """
    if is_transformers(model):
        return backbone_hash(timm_twin(model))
    expect(model, VisionTransformer, "backbone_hash")
    return state_hash(_backbone_state(model))


def state_hash(state: Mapping[str, torch.Tensor]) -> str:
    """Return the sha256 over names, shapes, types and bytes of weights."""
    digest = sha256()
    for name, value in sorted(state.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        # Bytes, since NumPy has no bfloat16; flat first, since a number cannot be viewed as several.
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def backbone_traits(model: Any) -> dict[str, Any]:
    """Return what models of equal weights can differ in, as JSON has it; the same plain or prompted."""
    if is_transformers(model):
        return backbone_traits(timm_twin(model)) | {"pooling": TransformersLayout(model).pooling}
    parts = [part for name, part in model.named_modules() if _is_backbone(model, name)]
    layers = {_layer(part) for part in parts if not isinstance(part, PASSING)}
    return {
        "pooling": model.global_pool,
        "pooling of prefix tokens": model.pool_include_prefix,
        "grid": list(model.patch_embed.grid_size),
        "attention heads": [part.num_heads for part in parts if hasattr(part, "num_heads")],
        "norm eps": sorted({part.eps for part in parts if hasattr(part, "eps")}),
        "layers": sorted(layers),
    }


def save_prompts(model: Prompted, path: str | Path) -> None:
    """Write prompts and head, their config and the marks of the backbone to one safetensors file.

    The file appears whole or not at all.

    model  what ``prompt`` returned
    path   the file to write, whose name ends in .safetensors; its folder must exist

    Raises ``InputError`` for what ``load_prompts`` could not restore: a head that is neither of ``prompt``'s
    making nor the plain model's own, prompts without the mean states they are computed from, a backbone that
    is no longer the one that was prompted, and numbers that are not finite; and for another ending.

    >>> import timm
    >>> from moe_prompts.vision import VPT, load_prompts, prompt, save_prompts
    >>> model = prompt(timm.create_model("test_vit"), VPT(num_tokens=4), num_classes=10)
    >>> save_prompts(model, "prompts.safetensors")
    """
    check_prompted(model, "save_prompts")
    path = file_path(path, "save_prompts: path")
    if path.suffix != ENDING:
        raise InputError(f"save_prompts: path {shown(str(path))}; expected a name that ends in {ENDING}")
    check_frozen_part(model, "save_prompts")
    head = _head_kind(model)
    traits = backbone_traits(model) | ({"head": repr(layout_of(model).head)} if head == KEPT else {})
    metadata = {
        "format": FORMAT,
        "kind": type(model.prompt_config).__name__,
        "config": json.dumps(asdict(model.prompt_config)),
        "num_classes": head,
        "backbone": backbone_hash(model),
        "traits": json.dumps(traits),
    }
    tensors = {name: value.detach().cpu().contiguous() for name, value in _stored(model).items()}
    if wrong := not_finite(tensors):
        raise InputError(
            f"save_prompts: {', '.join(wrong[:5])}: not all numbers are finite; the training diverged: lower its rate "
            "and train again"
        )
    metadata["payload"] = payload_hash(metadata, tensors)
    write_atomically(path, save(tensors, metadata))


def check_frozen_part(model: Prompted, where: str) -> None:
    """Raise ``InputError`` if the backbone has changed since it was prompted.

    The prompts alone would then not give the model back. Changes are parts that train, that came or went, or
    whose numbers or number type are others. ``where`` names the caller.
    """
    plain = {
        plain_name(model, name) or name: value
        for name, value in model.named_parameters()
        if plain_name(model, name) is not None and not name.startswith(f"{PLAIN_HEAD}.")
    }
    thawed = [name for name, value in plain.items() if value.requires_grad]
    if thawed:
        raise InputError(
            f"{where}: {', '.join(thawed[:5])} train, too, and would be lost: the file holds prompts and head alone; "
            "keep the backbone frozen (requires_grad_(False)), or save the whole state_dict"
        )
    before, now = model.plain_state.fingerprints, fingerprints(model)
    other = {name for name in before.keys() | now.keys() if before.get(name) != now.get(name)}
    changed = sorted(other | set(came_or_went(model)))
    if changed:
        raise InputError(
            f"{where}: {', '.join(changed[:5])} changed since the model was prompted (another number type, other "
            "numbers, added or taken away), which the file would not hold; unprompt it, change it and prompt it again, "
            "or save the whole state_dict"
        )


def load_prompts(model: Plain, path: str | Path) -> Any:
    """Prompt the plain ``model`` with what ``save_prompts`` wrote; the model changes and is returned.

    path  a file of ``save_prompts``

    The file may have been written in the other library, where pooling and layers are the same.

    Raises ``InputError`` if the file holds something else, was made on another backbone, or holds numbers
    that are not finite.

    >>> import copy, timm, torch
    >>> from moe_prompts.vision import VPT, load_prompts, prompt, save_prompts
    >>> plain = timm.create_model("test_vit")
    >>> model = prompt(copy.deepcopy(plain), VPT(num_tokens=4), num_classes=10)
    >>> save_prompts(model, "prompts.safetensors")
    >>> again, images = load_prompts(plain, "prompts.safetensors"), torch.zeros(1, 3, 160, 160)
    >>> torch.equal(again.eval()(images), model.eval()(images))
    True
    """
    check_plain(model, "load_prompts")
    path = file_path(path, "load_prompts: path")
    metadata, tensors = read_tensors(path, (FORMAT, OLDER), "a file that save_prompts wrote")
    if metadata["format"] == FORMAT and metadata.get("payload") != payload_hash(metadata, tensors):
        raise InputError(
            f"load_prompts: {path} is damaged: its checksum is another one; expected a file as save_prompts wrote it: "
            "copy it again, or save the prompts anew"
        )
    if wrong := not_finite(tensors):
        raise InputError(
            f"load_prompts: {path} holds numbers that are not finite ({', '.join(wrong[:5])}); expected a training "
            "that did not diverge: train the prompts again"
        )
    config, num_classes, backbone, traits = _described(metadata, path)
    found = backbone_hash(model)
    if found != backbone:
        raise InputError(
            f"load_prompts: {path} was made on the backbone {backbone[:12]}, this one is {found[:12]}; "
            "expected the same weights in the same number type: create the model as it was when the prompts were made"
        )
    own = backbone_traits(model) | {"head": repr(layout_of(model).head)}
    other = [
        f"{name} {value!r}, this one {own.get(name)!r}" for name, value in traits.items() if own.get(name) != value
    ]
    if other:
        raise InputError(
            f"load_prompts: {path} was made on a backbone with {'; '.join(other)}: equal weights compute something "
            "else; create the model as it was when the prompts were made"
        )
    check_stated(config, num_classes, tensors, model, path)
    prompted = prompt(model, config, num_classes)
    try:
        _make_room(prompted)
        fill(_stored(prompted), tensors, str(path))
    except InputError:
        unprompt(prompted)
        raise
    return prompted


def not_finite(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    """Return the names of tensors with NaN or an infinity in them."""
    return [name for name, value in tensors.items() if not torch.isfinite(value).all()]


def payload_hash(metadata: Mapping[str, str], tensors: Mapping[str, torch.Tensor]) -> str:
    """Return the sha256 over a file's description and over names, types, shapes and bytes of its tensors."""
    described = {name: value for name, value in metadata.items() if name != "payload"}
    digest = sha256(json.dumps(described, sort_keys=True).encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def check_stated(
    config: VPT | VAPT,
    num_classes: int | None,
    tensors: Mapping[str, torch.Tensor],
    model: Plain,
    path: str | Path,
) -> None:
    """Raise ``InputError`` if a file's description needs more numbers than the file holds.

    The description is text: a model is made of it only after its sizes were compared with the tensors beside
    it.
    """
    layout = layout_of(model)
    held, grid, blocks = sum(value.numel() for value in tensors.values()), layout.grid_size, len(layout.blocks)
    config.check(blocks, grid)
    stated = config.n_parameters(layout.width, blocks, grid) + (num_classes or 0)
    if stated > held:
        raise InputError(
            f"{path}: its description says {stated} numbers at the least, but it holds {held}; expected a file as "
            "save_prompts wrote it"
        )


def fill(parameters: Mapping[str, torch.Tensor], values: dict[str, torch.Tensor], source: str) -> None:
    """Copy ``values`` into ``parameters`` of the same names and shapes.

    Raises ``InputError``, before anything is copied, if names or shapes differ; ``source`` names the file in
    it.
    """
    wrong = sorted(set(parameters) ^ set(values)) or [
        name for name, value in values.items() if value.shape != parameters[name].shape
    ]
    if wrong:
        raise InputError(f"{source}: {', '.join(wrong[:5])} missing, left over or of another shape than the model's")
    with torch.no_grad():
        for name, value in values.items():
            parameters[name].copy_(value)


def _stored(model: Prompted) -> dict[str, torch.Tensor]:
    """Return the parameters of prompts and head, and the mean states where prompts are computed from them."""
    stored: dict[str, torch.Tensor] = dict(prompt_parameters(model))
    for index, prompts in adaptive_prompts(model).items():
        if prompts.config.source == "mean":
            if prompts.mean_states is None or not prompts.has_mean_states():
                raise InputError("save_prompts: no mean states; call set_mean_states(model, images) first")
            stored[f"{index}.mean_states"] = prompts.mean_states
    return stored


def _make_room(model: Prompted) -> None:
    """Give mean states of the right shape and of known numbers, to be filled."""
    for prompts in adaptive_prompts(model).values():
        if prompts.config.source == "mean":
            prompts.mean_states = prompts.norm.weight.new_zeros(prod(prompts.own_grid), len(prompts.norm.weight))


def _head_kind(model: Prompted) -> str:
    """Return the number of classes of a head that ``prompt`` makes; ``KEPT`` for one in the plain form."""
    head = layout_of(model).head
    if isinstance(head, nn.Identity):
        return "0"
    if type(head) is nn.Linear and head.bias is not None:
        return str(head.out_features)
    if repr(head) != repr(getattr(model, PLAIN_HEAD, None)) or list(head.buffers()):
        raise InputError(
            f"save_prompts: a head of class {type(head).__name__} that is not of the plain model's form, or has "
            "buffers; expected a Linear with bias, or the head that prompt(model, config) kept"
        )
    return KEPT


def _described(metadata: Mapping[str, str], path: str | Path) -> tuple[VPT | VAPT, int | None, str, dict[str, Any]]:
    """Return config, number of classes (None: the head is kept), hash and traits (none in older files)."""
    try:
        config = CONFIGS[metadata["kind"]](**json.loads(metadata["config"]))
        classes = None if metadata["num_classes"] == KEPT else int(metadata["num_classes"])
        return config, classes, metadata["backbone"], dict(json.loads(metadata.get("traits", "{}")))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: its description is damaged ({type(error).__name__}: {error}); expected a file as save_prompts "
            "wrote it"
        ) from error


def _layer(part: nn.Module) -> str:
    """Return the class of a layer, and its settings where no weights tell them."""
    bare = next(part.parameters(), None) is None and next(part.children(), None) is None
    return repr(part) if bare else type(part).__name__


def _is_backbone(model: Plain, name: str) -> bool:
    return plain_name(model, name) is not None and name.split(".")[0] not in ("head", PLAIN_HEAD)


def _backbone_state(model: Plain) -> dict[str, torch.Tensor]:
    """Return weights and buffers under the plain model's names."""
    state = model.state_dict()
    return {plain_name(model, name) or name: value for name, value in state.items() if _is_backbone(model, name)}


def read_tensors(
    path: Path, form: str | tuple[str, ...], expected: str
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Return metadata and tensors of a safetensors file whose ``format`` is ``form``, or one of several.

    ``expected`` says what it should be. Raises ``InputError`` for other files.
    """
    forms = (form,) if isinstance(form, str) else form
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (OSError, SafetensorError) as error:
        why = " ".join(str(error).split())[:200]  # it may quote the file
        raise InputError(f"{path}: {why}; expected {expected}") from error
    if metadata.get("format") not in forms:
        raise InputError(f"{path}: format {metadata.get('format')!r}; expected {forms[0]!r}: {expected}")
    return metadata, tensors


def read_torch_file(path: str | Path, expected: str) -> Any:
    """Return what torch.save wrote, if it is tensors in containers.

    It is read with ``weights_only=True``, which runs no code of the file. Raises ``InputError`` for anything
    else, and for a file that would unpack to more than it takes; ``expected`` says in it what the file should
    be.
    """
    try:
        size = _size_unpacked(Path(path))
        found = torch.load(path, map_location="cpu", weights_only=True)
        if any(value.nelement() * value.element_size() > size for value in _tensors(found)):
            raise ValueError("a tensor larger than the file")
        return found
    except Exception as error:  # torch raises whatever the bytes of a file that is none of its own lead it to
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{path}: cannot be read as tensors ({why}); expected {expected}") from error


def _size_unpacked(path: Path) -> int:
    """Return the bytes of a file of torch; raise ``ValueError`` where it is none, or holds more than it takes.

    torch.save does not compress. A file that is compressed may fill the memory.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("no regular file")
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > status.st_size:
                raise ValueError("it unpacks to more than it takes")
    return status.st_size


def _tensors(found: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors in containers, however deep they lie; a container within itself is looked at once."""
    waiting, seen = [found], set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, Mapping | list | tuple | set) and id(value) not in seen:
            seen.add(id(value))
            waiting += value.values() if isinstance(value, Mapping) else value

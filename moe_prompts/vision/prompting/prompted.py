"""Put prompts into a Vision Transformer: after the prefix tokens before a block, taken out after it.

    [prefix; patches] -> [prefix; prompts; patches] -> block -> [prefix; patches]

Between blocks the sequence is the plain model's. So pooling, intermediate features, gradient checkpointing
and copies work as they do without prompts. Only the prompts of VPT-shallow live on from block to block, and
leave after the last one.

Models are timm's ``VisionTransformer`` or the vision models of ``transformers`` (``layouts``).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from html import escape
from typing import Any
from zlib import crc32

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from moe_prompts.checks import one_of, shown, whole
from moe_prompts.errors import InputError
from moe_prompts.vision.prompting.config import VAPT, VPT, first_block
from moe_prompts.vision.prompting.layouts import (
    FAMILIES,
    TransformersLayout,
    check_images,
    is_transformers,
    layout_of,
    plain_class,
)
from moe_prompts.vision.prompting.layouts import REFUSED as REFUSED_TRANSFORMERS
from moe_prompts.vision.prompting.prompted_model import (
    PLAIN_HEAD,
    PlainState,
    Prompted,
    PromptedBlock,
    prompted_class,
)
from moe_prompts.vision.prompting.prompts import (
    AdaptivePrompts,
    Grid,
    Projector,
    StaticPrompts,
    check_generator,
    prompt_bound,
)
from moe_prompts.vision.prompting.starts import TOKEN_SIZED, block_gain
from moe_prompts.vision.prompting.weight_decay import decay_groups

#: Bias of a new head in the published protocol.
HEAD_BIAS = -math.log(99)
#: How a new head may start.
HEADS = ("zero", "published")
#: Other families of timm, and why their sequences cannot take prompts this way.
REFUSED = {
    "Eva": "its rotary position embeddings are tied to the places of tokens",
    "SwinTransformer": "its windows have no room for tokens that belong to no place",
    "SwinTransformerV2": "its windows have no room for tokens that belong to no place",
    "NaFlexVit": "its sequences have padding and a grid for each image",
    "VisionTransformerDistilled": "it has two heads",
    "FeatureGetterNet": "it returns features; prompt the model it was made from",
    "OptimizedModule": "it is compiled; give the model that torch.compile was given (_orig_mod)",
    "DataParallel": "it is wrapped; give the model inside (module)",
    "DistributedDataParallel": "it is wrapped; give the model inside (module)",
}


#: A model that takes prompts: timm's, or one of ``transformers`` (``layouts.FAMILIES``), which is not
#: imported here.
Plain = VisionTransformer | nn.Module


def fingerprints(model: Plain) -> dict[str, tuple[str, tuple[int, ...], int]]:
    """Return type, shape and checksum of every weight and buffer but the head's, by plain names."""
    found, head = {}, layout_of(model).head_name
    for name, value in model.state_dict().items():
        own = plain_name(model, name)
        if own is not None and own.split(".")[0] != head:
            # Bytes, since NumPy has no bfloat16; flat first, since a number cannot be viewed as several.
            if value.is_meta:
                found[own] = (str(value.dtype), tuple(value.shape), 0)
                continue
            flat = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
            found[own] = (str(value.dtype), tuple(value.shape), crc32(flat))
    return found


class PromptedVisionTransformer(Prompted, VisionTransformer):
    """Compute as a timm ``VisionTransformer`` does, with prompts.

    ``prompt`` makes it out of a plain model; it is never built.

    Its modules stay in evaluation mode, but for the prompts, the head and the head's dropout.
    """

    plain_head: nn.Module

    @property
    def config(self) -> VPT | VAPT:
        """Return the configuration of the prompts."""
        return self.prompt_config

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the head by a new one, as timm makes it, which trains.

        ``unprompt`` brings the plain model's own back. Raises ``InputError`` for another pooling.
        """
        if global_pool not in (None, self.global_pool):
            raise self._frozen("reset_classifier with another global_pool")
        super().reset_classifier(num_classes)

    def set_input_size(self, *_: Any, **__: Any) -> None:
        """Raise ``InputError``: the prompts belong to the backbone as it is."""
        raise self._frozen("set_input_size")

    def prune_intermediate_layers(self, *_: Any, **__: Any) -> list[int]:
        """Raise ``InputError``: the prompts belong to the backbone as it is."""
        raise self._frozen("prune_intermediate_layers")

    def _frozen(self, what: str) -> InputError:
        return InputError(
            f"{what}: this model is prompted, and its prompts belong to the backbone as it is; unprompt it, change it, "
            "prompt it again"
        )

    def forward_features(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """Return the states (B, T, d) after the last block and the final norm, without prompts.

        x  images (B, 3, H, W). Raises ``InputError`` for other shapes or sizes, and for an attention mask
        """
        self._begin(x, attn_mask, is_causal)
        return super().forward_features(x)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
        output_dict: bool = False,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Any:
        """Return features of blocks as timm's method does, on the plain model's tokens.

        Arguments are those of timm. Prompts are in neither the maps, the prefix nor the features.

        Raises ``InputError`` where ``output_fmt`` is neither "NCHW" nor "NLC".
        """
        self._begin(x, attn_mask, is_causal)
        options: dict[str, Any] = {"indices": indices, "norm": norm, "stop_early": stop_early}
        if not self._prompts_live_on:
            return super().forward_intermediates(
                x,
                **options,
                return_prefix_tokens=return_prefix_tokens,
                output_fmt=output_fmt,
                intermediates_only=intermediates_only,
                output_dict=output_dict,
            )
        if output_fmt not in ("NCHW", "NLC"):
            raise InputError(f"forward_intermediates: output_fmt {output_fmt!r}; expected 'NCHW' or 'NLC'")
        found: Any = super().forward_intermediates(
            x, **options, return_prefix_tokens=True, output_fmt="NLC", output_dict=True
        )
        grid = self.grid_of(x)
        maps = [self._own_patches(tokens, grid) for tokens in found["image_intermediates"]]
        if output_fmt == "NCHW":
            maps = [tokens.transpose(1, 2).reshape(x.shape[0], -1, *grid).contiguous() for tokens in maps]
        prefix = found.get("image_intermediates_prefix")
        features = found["image_features"]
        start = self.num_prefix_tokens
        features = torch.cat([features[:, :start], self._own_patches(features[:, start:], grid)], dim=1)
        if output_dict:
            return (
                {"image_intermediates": maps}
                | ({"image_intermediates_prefix": prefix} if prefix is not None and return_prefix_tokens else {})
                | ({} if intermediates_only else {"image_features": features})
            )
        intermediates = list(zip(maps, prefix, strict=True)) if prefix is not None and return_prefix_tokens else maps
        return intermediates if intermediates_only else (features, intermediates)

    @property
    def _prompts_live_on(self) -> bool:
        return isinstance(self.config, VPT) and not self.config.deep

    def _own_patches(self, tokens: Tensor, grid: Grid) -> Tensor:
        """Return the patches of tokens (B, P0 or N + P0, d); prompts that are still there stand first."""
        return tokens[:, -grid[0] * grid[1] :]

    def grid_of(self, images: Tensor) -> Grid:
        """Return height and width of the images in patches."""
        return layout_of(self).grid_of(images)

    def _begin(self, images: Tensor, attn_mask: Tensor | None, is_causal: bool) -> None:
        """Check the images, and hand their grid to the prompts that need it."""
        if isinstance(images, torch.fx.Proxy):
            raise InputError(
                "torch.fx cannot trace a prompted model, which looks at its images' size; for features of blocks use "
                "forward_intermediates"
            )
        check_images(self, images)
        if attn_mask is not None or is_causal:
            raise InputError("a prompted model takes no attention mask: it would not cover the prompts")
        self.hand_grid(images)


def prompt(
    model: Plain,
    config: VPT | VAPT,
    num_classes: int | None = None,
    *,
    rng: torch.Generator | None = None,
    head: str = "zero",
) -> Any:
    """Put prompts into ``model``, freeze it and give it a new head.

    The model itself changes and is returned; ``copy.deepcopy`` it before to keep a plain one. What trains:
    the prompts and the head, nothing else (``norm``, ``fc_norm`` and ``attn_pool`` stay frozen). ``unprompt``
    undoes it.

    model        timm's ``VisionTransformer``; or of ``transformers``: ViT, DeiT, DINOv2 with and without
                 registers, MAE (without masking), SigLIP's vision model, each bare or with its classifier;
                 such a model then returns ``ImageClassifierOutput``
    config       ``VPT(...)`` or ``VAPT(...)``: which prompts, in which blocks
    num_classes  of the new head; 0: no head, the pooled features; None: a copy of the model's own head goes
                 on training
    rng          torch.Generator that draws the initial prompts and head; None: torch's global one
    head         how a new head starts. "zero": weights and biases 0, so that training starts at a loss of
                 log(classes) and at first moves the head alone. "published": weights Kaiming normal
                 (fan_out), biases -log 99, as in the code of VPT and VAPT; it starts at larger losses and
                 needs smaller steps at first. "zero" is the default since short trainings end higher with it
                 (docs/training.md)

    Raises ``InputError`` for other models, for one with LoRA or adapters, which would be frozen too, and for
    prompts that do not fit.

    >>> import timm, torch
    >>> from moe_prompts.vision import VAPT, prompt
    >>> model = prompt(timm.create_model("test_vit"), VAPT(num_tokens=4), num_classes=10)
    >>> model(torch.zeros(2, 3, 160, 160)).shape
    torch.Size([2, 10])
    """
    check_plain(model, "prompt")
    if not isinstance(config, (VPT, VAPT)):
        raise InputError(f"prompt: config {config!r}; expected VPT(...) or VAPT(...)")
    check_generator(rng, "prompt")
    if num_classes is not None:
        num_classes = whole(num_classes, 0, "prompt: num_classes")
    one_of(head, HEADS, "prompt: head")
    layout = layout_of(model)
    grid, blocks = layout.grid_size, layout.blocks
    config.check(len(blocks), grid)

    state = PlainState(
        {name: parameter.requires_grad for name, parameter in model.named_parameters()},
        {name: module.training for name, module in model.named_modules()},
        getattr(model, "num_classes", None),
        fingerprints(model),
    )
    made = new_prompts(model, config, grid, rng)
    made_head = new_head(model, num_classes, rng, head)
    model.requires_grad_(False)
    first = first_block(config, len(blocks))
    for index, prompts in enumerate(made):
        last = index == len(made) - 1
        shallow = isinstance(config, VPT) and not config.deep
        # Blocks on which shallow prompts live on must not see a mask for fewer tokens, either.
        passes = shallow and index > first and layout.makes_masks
        if prompts is not None or (shallow and last) or passes:
            block = PromptedBlock(
                blocks[index], prompts, layout.num_prefix_tokens, config.num_tokens, not shallow or last
            )
            blocks[index] = block
    changed: Any = model  # whose class is about to be another
    if layout.has_head:
        changed.add_module(PLAIN_HEAD, layout.head)
    setattr(changed, layout.head_name, made_head.requires_grad_(True))
    if isinstance(model, VisionTransformer):
        changed.num_classes = model.num_classes if num_classes is None else num_classes
        changed.__class__ = PromptedVisionTransformer
    else:
        changed.__class__ = prompted_class(plain_class(model))
    changed.prompt_config, changed.plain_state = config, state
    return changed.train(model.training)


def unprompt(model: Any) -> Any:
    """Return the plain model as it was: weights, head, ``requires_grad`` and training flags.

    It is the same object, changed back. Raises ``InputError``, before anything is changed, if the model has
    other parts than when it was prompted.

    >>> import timm, torch
    >>> from moe_prompts.vision import VPT, prompt, unprompt
    >>> vit = timm.create_model("vit_tiny_patch16_224", img_size=64)
    >>> unprompt(prompt(vit, VPT(num_tokens=2), num_classes=3)) is vit
    True
    >>> vit.head.out_features
    1000
    """
    check_prompted(model, "unprompt")
    state, layout = model.plain_state, layout_of(model)
    changed = came_or_went(model)
    if changed:
        raise InputError(
            f"unprompt: {', '.join(changed[:5])} came or went since the model was prompted; make it as it was first"
        )
    blocks = layout.blocks
    for index, block in enumerate(blocks):
        if isinstance(block, PromptedBlock):
            blocks[index] = block.block
    plain: Any = model  # whose class is about to be another
    if layout.has_head:
        setattr(plain, layout.head_name, getattr(plain, PLAIN_HEAD))
        delattr(plain, PLAIN_HEAD)
    else:
        delattr(plain, layout.head_name)
    del plain.prompt_config, plain.plain_state
    if isinstance(model, VisionTransformer):
        plain.__class__ = VisionTransformer
        plain.num_classes = state.num_classes
    else:
        plain.__class__ = plain_class(model)
    for name, parameter in plain.named_parameters():
        parameter.requires_grad_(state.requires_grad[name])
    for name, module in plain.named_modules():
        module.training = state.training[name]
    return plain


def came_or_went(model: Prompted) -> list[str]:
    """Return the modules and parameters of the plain model that came or went since it was prompted."""
    state = model.plain_state
    modules = {plain_name(model, name) for name, _ in model.named_modules()} - {None}
    parameters = {plain_name(model, name) for name, _ in model.named_parameters()} - {None}
    return sorted(map(str, (modules ^ set(state.training)) | (parameters ^ set(state.requires_grad))))


def plain_name(model: nn.Module, name: str) -> str | None:
    """Return the plain model's name of a part of a model, prompted or not.

    None stands for a part that belongs to the prompting.
    """
    if not isinstance(model, Prompted):
        return name
    layout = layout_of(model)
    first, *rest = name.split(".")
    if first in (PLAIN_HEAD, layout.head_name):
        return ".".join([layout.head_name, *rest]) if first == PLAIN_HEAD else None
    if name.startswith(f"{layout.blocks_name}."):
        index, *inside = name.removeprefix(f"{layout.blocks_name}.").split(".")
        if inside and isinstance(layout.blocks[int(index)], PromptedBlock):
            return None if inside[0] == "prompts" else ".".join([layout.blocks_name, index, *inside[1:]])
    return name


def adaptive_prompts(model: Prompted) -> dict[int, AdaptivePrompts]:
    """Return the adaptive prompts by the index of their block."""
    blocks = enumerate(layout_of(model).blocks)
    found = {index: block.prompts for index, block in blocks if isinstance(block, PromptedBlock)}
    return {index: prompts for index, prompts in found.items() if isinstance(prompts, AdaptivePrompts)}


def prompt_parameters(model: Prompted) -> dict[str, nn.Parameter]:
    """Return the trained parameters by short names that do not depend on where they hang in the model.

    Such names are ``3.norm.weight`` (in block 3) and ``head.weight``. A projector that blocks share is listed
    once, at its first block.
    """
    check_prompted(model, "prompt_parameters")
    layout = layout_of(model)
    return named_parts(
        [block.prompts if isinstance(block, PromptedBlock) else None for block in layout.blocks], layout.head
    )


def named_parts(prompts: Sequence[nn.Module | None], head: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters of each block's prompts and of the head, named as in ``prompt_parameters``."""
    found = {
        f"{index}.{name}": parameter
        for index, module in enumerate(prompts)
        if module is not None
        for name, parameter in module.named_parameters()
    }
    return found | {f"head.{name}": parameter for name, parameter in head.named_parameters()}


def set_mean_states(model: Prompted, images: Iterable[Tensor]) -> None:
    """Give ``VAPT(source="mean")`` the states that its prompts are computed from.

    They are the means, over these images, of the patch states that enter each block of the plain model.

    images  batches (B, 3, H, W), normalised as the training images are

    Raises ``InputError`` for a model with other prompts, and for no images.

    >>> import timm, torch
    >>> from moe_prompts.vision import VAPT, prompt, set_mean_states
    >>> vit = timm.create_model("vit_tiny_patch16_224", img_size=64)
    >>> model = prompt(vit, VAPT(num_tokens=2, source="mean"), num_classes=3)
    >>> set_mean_states(model, [torch.rand(2, 3, 64, 64)])
    >>> model(torch.rand(1, 3, 64, 64)).shape
    torch.Size([1, 3])
    """
    check_prompted(model, "set_mean_states")
    config = model.prompt_config
    if config.source != "mean" if isinstance(config, VAPT) else True:
        raise InputError(f"set_mean_states: a model with {config}; expected VAPT(source='mean')")
    means = mean_states(model, images)
    for index, prompts in adaptive_prompts(model).items():
        prompts.mean_states = means[index].to(prompts.norm.weight)


@torch.no_grad()
def mean_states(model: Plain, images: Iterable[Tensor]) -> list[Tensor]:
    """Return the mean over images of the patch states (P0, d) that enter each block of the plain model.

    images  batches (B, 3, H, W), normalised. Raises ``InputError`` for none
    """
    layout = layout_of(model)
    blocks = layout.blocks
    sums, count = [torch.zeros(())] * len(blocks), 0
    if isinstance(images, Tensor | str | bytes) or not isinstance(images, Iterable):
        raise InputError(
            f"mean_states: one {type(images).__name__}; expected batches of images, as [images] or a data loader"
        )
    for batch in images:
        check_images(model, batch, "mean_states", finite=True)
        x = layout.embed(batch)
        for index, block in enumerate(blocks):
            sums[index] = sums[index].to(x.device) + x[:, layout.num_prefix_tokens :].double().sum(dim=0)
            x = layout.run(block.block if isinstance(block, PromptedBlock) else block, x)
        count += len(batch)
    if not count:
        raise InputError("mean_states: no images; expected at least one batch (B, 3, H, W)")
    like = next(blocks.parameters())
    return [(total / count).to(like) for total in sums]


@dataclass(frozen=True, repr=False)
class TrainableSummary:
    """Hold numbers of parameters: those of ``prompts`` and ``head`` train, the ``frozen`` ones do not."""

    prompts: int
    head: int
    frozen: int

    def __str__(self) -> str:
        share = (self.prompts + self.head) / (self.prompts + self.head + self.frozen)
        return f"{self.prompts} in prompts + {self.head} in the head train ({share:.2%}), {self.frozen} are frozen"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """Return the text for a notebook."""
        return f"<pre>{escape(str(self))}</pre>"


def trainable_summary(model: Prompted) -> TrainableSummary:
    """Count the parameters that train and those that do not; the plain model's own head is in neither.

    >>> import timm
    >>> from moe_prompts.vision import VPT, prompt, trainable_summary
    >>> model = prompt(timm.create_model("test_vit"), VPT(num_tokens=4), num_classes=10)
    >>> trainable_summary(model)
    1536 in prompts + 650 in the head train (0.71%), 306240 are frozen
    """
    check_prompted(model, "trainable_summary")
    trained = prompt_parameters(model)
    head = sum(parameter.numel() for parameter in layout_of(model).head.parameters())
    frozen = sum(
        parameter.numel()
        for name, parameter in model.named_parameters()
        if not parameter.requires_grad and not name.startswith(PLAIN_HEAD)
    )
    return TrainableSummary(sum(parameter.numel() for parameter in trained.values()) - head, head, frozen)


def parameter_groups(model: Prompted, weight_decay: float, rule: str = "no_decay") -> list[dict[str, Any]]:
    """Return two groups for a torch optimiser: the prompts and head that decay, then those that do not.

    weight_decay  of the first group
    rule          ``no_decay``: norms, biases and scales do not decay; ``official``: only the head's bias does
                  not (see ``weight_decay``)

    Raises ``InputError`` for another rule or a weight decay that is no number of at least 0.

    >>> import timm, torch
    >>> from moe_prompts.vision import VPT, parameter_groups, prompt
    >>> vit = timm.create_model("vit_tiny_patch16_224", img_size=64)
    >>> model = prompt(vit, VPT(num_tokens=2), num_classes=3)
    >>> optimiser = torch.optim.SGD(parameter_groups(model, 1e-4), lr=0.01, momentum=0.9)
    >>> [group["weight_decay"] for group in optimiser.param_groups]
    [0.0001, 0.0]
    """
    check_prompted(model, "parameter_groups")
    return decay_groups(prompt_parameters(model).items(), weight_decay, rule)


def check_prompted(model: nn.Module, where: str) -> None:
    """Raise ``InputError`` unless ``model`` is one that ``prompt`` returned; ``where`` names the caller."""
    if not isinstance(model, Prompted):
        raise InputError(
            f"{where}: a {type(model).__name__}; expected a model that prompt(...) returned, as it is (not compiled "
            "or wrapped: pass its _orig_mod or module)"
        )


def refusal(model: nn.Module) -> str | None:
    """Return in a few words why ``prompt`` does not take this model; None if it does."""
    if not isinstance(model, nn.Module):
        return f"it is {shown(model)}; expected a model, such as timm.create_model('test_vit')"
    if isinstance(model, Prompted):
        return "it has prompts already; unprompt it first"
    if hasattr(model, "peft_config"):
        return (
            "it has LoRA or another part of peft, which would not train beside prompts; merge it first "
            "(PeftModel.merge_and_unload), or take a plain model"
        )
    if any(getattr(module, "is_adapter", False) for module in model.modules()):
        return "it has adapters, which would not train beside prompts; take a plain model"
    if is_transformers(model):
        name = type(model).__name__
        if name in FAMILIES:
            return TransformersLayout(model).refusal()
        reason = REFUSED_TRANSFORMERS.get(name, "no other class of that library is taken")
        return f"its class is {name} of transformers, not one of {', '.join(FAMILIES)}: {reason}"
    if type(model) is not VisionTransformer:
        name = type(model).__name__
        if name in REFUSED:
            return f"its class is {name}, not timm's VisionTransformer: {REFUSED[name]}"
        return (
            f"its class is {name}; expected timm's VisionTransformer, such as timm.create_model('test_vit'), or one of "
            f"transformers: {', '.join(FAMILIES)}"
        )
    if not isinstance(model.patch_drop, nn.Identity):
        return "patch_drop_rate > 0 drops patches at random; create it with patch_drop_rate=0"
    if not hasattr(model.patch_embed, "dynamic_feat_size"):
        return "its patch embedding does not tell the grid of an image"
    return None


def check_plain(model: nn.Module, where: str) -> None:
    """Raise ``InputError`` unless ``prompt`` takes this model; ``where`` names the caller."""
    reason = refusal(model)
    if reason:
        raise InputError(f"{where}: this model cannot take prompts: {reason}")


def new_prompts(
    model: Plain, config: VPT | VAPT, grid: Grid, rng: torch.Generator | None
) -> list[StaticPrompts | AdaptivePrompts | None]:
    """Return new prompts for each block, None for a block without, on the model's device and in its type."""
    layout = layout_of(model)
    width, blocks = layout.width, len(layout.blocks)
    first = first_block(config, blocks)
    bound = prompt_bound(width, layout.patch_pixels)

    fixed_start = config.start if isinstance(config, VPT) else "tokens" if config.start in TOKEN_SIZED else "official"

    def static() -> StaticPrompts:
        return StaticPrompts(config.num_tokens, width, bound, config.prompt_dropout, rng, fixed_start)

    made: list[StaticPrompts | AdaptivePrompts | None]
    if isinstance(config, VPT):
        made = [static() if index == first or (config.deep and index > first) else None for index in range(blocks)]
    else:
        fixed = range(first, first + config.static_depth)
        made = [static() if index in fixed else None for index in range(fixed.stop)]
        projector = Projector(config, width, rng)
        for index in range(fixed.stop, blocks):
            later = index > fixed.stop
            if later and not config.shared_projector:
                projector = Projector(config, width, rng)
            borrowed = later and config.shared_projector
            gain = block_gain(layout.blocks[index], config)
            made.append(AdaptivePrompts(config, width, grid, projector, rng, bound=bound, gain=gain, borrowed=borrowed))
    like = next(layout.blocks.parameters())
    return [prompts if prompts is None else prompts.to(like) for prompts in made]


def new_head(model: Plain, num_classes: int | None, rng: torch.Generator | None, init: str = "published") -> nn.Module:
    """Return a new head for the pooled features.

    num_classes  0: no head; None: a copy of the model's own
    init         how it starts, one of ``HEADS``
    """
    layout = layout_of(model)
    if num_classes is None:
        return deepcopy(layout.head)
    if num_classes == 0:
        return nn.Identity()
    head = nn.Linear(layout.pooled_width, num_classes)
    if init == "zero":
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        return head.to(next(layout.blocks.parameters()))
    nn.init.kaiming_normal_(head.weight, mode="fan_out", generator=rng)
    nn.init.constant_(head.bias, HEAD_BIAS)
    return head.to(next(layout.blocks.parameters()))

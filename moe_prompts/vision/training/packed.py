"""Train R trials on one frozen backbone as one model.

    prompts (R, ...),   states (R, B, T, d),   logits (R, B, C)

A deep prompt P is inserted before a block and removed after it, so the block needs only its keys and values.
With X the other tokens, the block computes

    X + softmax(q(X) [k(P); k(X)]^T / sqrt(d_h)) [v(P); v(X)],   then   X + MLP(LN X).

These are the numbers of the block with P inserted, for less work. More is saved where something is shared:
k(P) and v(P) of fixed prompts belong to a trial and not to an image; in the first block with prompts, q(X),
k(X) and v(X) belong to an image and not to a trial; and in the last block only the class token's row is
computed, where the head reads no other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import Attention
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from moe_prompts.checks import expect, listed, one_of, whole
from moe_prompts.errors import InputError
from moe_prompts.vision.prompting.config import VAPT, VPT, first_block
from moe_prompts.vision.prompting.layouts import embedded
from moe_prompts.vision.prompting.prompted import (
    HEADS,
    PromptedVisionTransformer,
    named_parts,
    new_head,
    new_prompts,
    refusal,
)
from moe_prompts.vision.prompting.prompts import NORM_EPS, activated, position_map, source_states
from moe_prompts.vision.prompting.starts import block_gain

#: With rows of at most so many tokens attention is written out, which is faster than torch's fused one for
#: small heads on a CPU; longer rows would need too much memory.
SHORT = 64
#: Images that pass through frozen blocks together.
GROUP = 32


@dataclass(frozen=True)
class Noise:
    """Hold the dropout masks of one step, by (block, place).

    "channels"  (R, B, 1, d) on VAPT's states
    "hidden"    (R, B, N, r) on the projector's hidden units
    "prompts"   (R, B, N, d) on fixed prompts

    Where nothing is dropped there is no mask.
    """

    masks: dict[tuple[int, str], Tensor]

    def on(self, value: Tensor, block: int, place: str) -> Tensor:
        """Return ``value`` times the mask of this block and place, or ``value`` where there is none."""
        mask = self.masks.get((block, place))
        return value if mask is None else value * mask


SILENT = Noise({})


@contextmanager
def seeded_noise(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the generators of the CPU and of ``device`` for draws within, and restore them afterwards."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        if device.type == "cpu":
            # torch.manual_seed also seeds every other kind of device, and notes the stack for each that is
            # absent: 5 ms a call, as long as a step of a small model.
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)
        yield


class PackedTrials(nn.Module):
    """Hold R trials of one kind of prompt on a plain frozen model, which is left as it is.

    model        frozen and in evaluation mode: ``model.requires_grad_(False).eval()``
    config       of the prompts; None: only the head is learned
    head         a number of classes: each trial learns a head of its own; or a layer: the head of all trials,
                 frozen
    rngs         one generator for each trial: its first prompts and head are those of ``prompt(model, config,
                 num_classes, rng=...)``
    mean_states  for ``source="mean"``: the states of each block, as ``prompted.mean_states`` gives them
    head_init    first values of new heads: "published" or "zero"

    Raises ``InputError`` for a model that is not frozen or has prompts, and for prompts that cannot be
    packed.

    >>> import timm, torch
    >>> from moe_prompts.vision import VPT, PackedTrials
    >>> plain = timm.create_model("test_vit").requires_grad_(False).eval()
    >>> rngs = [torch.Generator().manual_seed(seed) for seed in (0, 1, 2)]
    >>> packed = PackedTrials(plain, VPT(num_tokens=4), 10, rngs)
    >>> packed(torch.zeros(2, 3, 160, 160)).shape
    torch.Size([3, 2, 10])
    """

    def __init__(
        self,
        model: VisionTransformer,
        config: VPT | VAPT | None,
        head: int | nn.Linear,
        rngs: Sequence[torch.Generator],
        mean_states: Sequence[Tensor] | None = None,
        head_init: str = "published",
    ) -> None:
        super().__init__()
        rngs = listed(rngs, "PackedTrials: rngs")
        _check(model, config, head, mean_states)
        check_generators(rngs, "PackedTrials")
        if not isinstance(head, nn.Linear):
            head = whole(head, 1, "PackedTrials: head")
        one_of(head_init, HEADS, "PackedTrials: head_init")
        self.config, self.n_trials, self.mean_states = config, len(rngs), mean_states
        # In lists, so that they are no part of this module's state.
        self._frozen, self._known_head = [model], [head] if isinstance(head, nn.Linear) else []
        trials = [self._initial(model, config, head, rng, head_init) for rng in rngs]
        self.parts = nn.ParameterDict(
            {key_of(name): torch.stack([trial[name].detach() for trial in trials]) for name in trials[0]}
        )
        #: The first block that sees prompts, behind the last block where only heads are learned: what enters
        #: it belongs to an image, whatever is learned.
        self.first = len(model.blocks) if config is None else first_block(config, len(model.blocks))
        self._first_rows_only = model.global_pool == "token" and model.attn_pool is None

    @property
    def model(self) -> VisionTransformer:
        """Return the frozen model that the trials share."""
        return self._frozen[0]

    @property
    def known_head(self) -> nn.Linear | None:
        """Return the frozen head that all trials share, or None where each learns its own."""
        return self._known_head[0] if self._known_head else None

    @property
    def classes(self) -> int:
        """Return the number of classes."""
        known = self.known_head
        return known.out_features if known is not None else self._part("head.bias").shape[-1]

    @staticmethod
    def _initial(
        model: VisionTransformer,
        config: VPT | VAPT | None,
        head: int | nn.Linear,
        rng: torch.Generator,
        head_init: str,
    ) -> dict[str, nn.Parameter]:
        made = [] if config is None else new_prompts(model, config, model.patch_embed.grid_size, rng)
        return named_parts(made, new_head(model, head, rng, head_init) if isinstance(head, int) else nn.Identity())

    def trial(self, index: int) -> dict[str, Tensor]:
        """Return copies of prompts and head of one trial, named as in ``prompt_parameters``.

        index  number of the trial, from 0
        """
        return {_name(key): value[index].detach().clone() for key, value in self.parts.items()}

    def named_parts(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Return all parameters, stacked (R, ...), with their names as in ``prompt_parameters``."""
        return ((_name(key), value) for key, value in self.parts.items())

    @torch.no_grad()
    def fill(self, values: Mapping[str, Tensor]) -> None:
        """Copy these values into the parameters of all trials.

        values  by the names of ``named_parts``, each of the parameter's shape (R, ...), of any real type

        Raises ``InputError`` for other names or another shape; then nothing is copied.
        """
        own = dict(self.named_parts())
        if values.keys() != own.keys():
            other = sorted(values.keys() ^ own.keys())
            raise InputError(f"PackedTrials.fill: {other[0]} is missing or too many; expected {', '.join(own)}")
        for name, value in own.items():
            if values[name].shape != value.shape:
                raise InputError(
                    f"PackedTrials.fill: {name} of shape {tuple(values[name].shape)}; expected {tuple(value.shape)}"
                )
        for name, value in own.items():
            value.copy_(values[name])

    def forward(self, images: Tensor, batch_of: Tensor | None = None, noise: Noise = SILENT) -> Tensor:
        """Return the logits (R, B, C) of every trial.

        images    (S, B, 3, H, W), S batches; or (B, 3, H, W), one batch for all trials
        batch_of  (R,), which of the S batches a trial sees; None: all see the first
        noise     dropout masks; none by default
        """
        images = images[None] if images.ndim == 4 else images
        entering = entering_states(self.model, self.first, images.flatten(0, 1)).unflatten(0, images.shape[:2])
        return self.of_states(entering, batch_of, noise)

    def of_states(self, states: Tensor, batch_of: Tensor | None = None, noise: Noise = SILENT) -> Tensor:
        """Return the logits (R, B, C) from states that enter block ``first``.

        states  (S, B, T, d) or (B, T, d), as ``entering_states`` gives them; ``batch_of`` and ``noise`` as in
                ``forward``
        """
        features = self._features(states[None] if states.ndim == 3 else states, batch_of, noise)
        if self._known_head:
            known = self._known_head[0]
            return F.linear(features, known.weight.detach(), None if known.bias is None else known.bias.detach())
        head = self._part("head.weight")
        return torch.baddbmm(self._part("head.bias")[:, None], features, head.transpose(1, 2))

    def _features(self, x: Tensor, batch_of: Tensor | None, noise: Noise) -> Tensor:
        """Return what heads see, (R, B, d), from states (S, B, T, d) that enter block ``first``."""
        model = self.model
        which = torch.zeros(self.n_trials, dtype=torch.long, device=x.device) if batch_of is None else batch_of
        for index, block in list(enumerate(model.blocks))[self.first :]:
            last = index == len(model.blocks) - 1 and self._first_rows_only
            x = self._block(index, block, x, which if index == self.first else None, noise, last)
        features = model.forward_head(model.norm(x.flatten(0, 1)), pre_logits=True).unflatten(0, x.shape[:2])
        # Without prompts trials part here.
        return features[which] if self.config is None else features

    def _block(
        self, index: int, block: nn.Module, x: Tensor, shared: Tensor | None, noise: Noise, last: bool
    ) -> Tensor:
        """Return the states (R, B, T, d) after a block.

        x       before the block: (R, B, T, d), or (S, B, T, d) where ``shared`` is given
        shared  (R,), which of the S states a trial has
        """
        prefix, config = self.model.num_prefix_tokens, self.config
        assert config is not None
        shallow = isinstance(config, VPT) and not config.deep
        if index == self.first or not shallow:
            prompts = self._prompts(index, x[:, :, prefix:], noise)
            if not shallow and is_known(block):
                return attend(block, x, prompts, shared, last)
            x = x if shared is None else x[shared]
            prompts = prompts.expand(-1, x.shape[1], -1, -1)
            x = torch.cat([x[:, :, :prefix], prompts, x[:, :, prefix:]], dim=2)
        x = attend(block, x, None, None, last) if is_known(block) else plain(block, x)
        if shallow and index < len(self.model.blocks) - 1:
            return x
        return torch.cat([x[:, :, :prefix], x[:, :, prefix + config.num_tokens :]], dim=2)

    def _prompts(self, index: int, patches: Tensor, noise: Noise) -> Tensor:
        """Return the prompts of a block: (R, 1, N, d) if they are the same for all images, or (R, B, N, d)."""
        if key_of(f"{index}.tokens") in self.parts:
            tokens = self._part(f"{index}.tokens")[:, None]
            return noise.on(tokens, index, "prompts")
        config = self.config
        assert isinstance(config, VAPT)
        if self.mean_states is None:
            states = source_states(patches, config.source, None)
        else:
            states = self.mean_states[index][None, None]
        gain, shift = self._part(f"{index}.norm.weight"), self._part(f"{index}.norm.bias")
        weight = self._part(f"{index}.weight")
        weight = weight.expand(-1, -1, *config.positions(self.model.patch_embed.grid_size))
        kernel = None if config.kernel is None else self._part(f"{index}.kernel")
        E = position_map(weight, kernel, config.padding).flatten(2)
        # Gain and shift after the map over positions, which leaves fewer rows: E (gain U + shift).
        Z = E[:, None] @ F.layer_norm(states, states.shape[-1:], eps=NORM_EPS)
        Z = Z * gain[:, None, None] + E.sum(dim=-1)[:, None, :, None] * shift[:, None, None]
        Z = noise.on(Z, index, "channels") + self._part(f"{index}.bias")[:, None, :, None]
        owner = self.first + config.static_depth if config.shared_projector else index
        down, up = self._part(f"{owner}.projector.down"), self._part(f"{owner}.projector.up")
        hidden = activated(of_each(Z, down), config.activation)
        added = of_each(noise.on(hidden, index, "hidden"), up)
        if config.learnable_scale:
            added = added * self._part(f"{owner}.projector.scale")[:, None, None, None]
        offset = self._part(f"{index}.offset")[:, None] if config.offset else 0.0
        scale = block_gain(self.model.blocks[index], config)
        return Z + added + offset if scale == 1 else scale * (Z + added + offset)

    def _part(self, name: str) -> Tensor:
        return self.parts[key_of(name)]

    def noise(self, seeds: Sequence[int], batch: int) -> Noise:
        """Draw the dropout masks of one step for every trial.

        They are those that a prompted model draws after ``torch.manual_seed(seed)``.

        seeds  one for each trial; trials with equal seeds have equal masks
        batch  number of images in the step
        """
        config = self.config
        if config is None:
            return SILENT
        drawn = {seed: self._masks(config, seed, batch) for seed in dict.fromkeys(seeds)}
        return Noise({place: torch.stack([drawn[seed][place] for seed in seeds]) for place in drawn[seeds[0]]})

    def _masks(self, config: VPT | VAPT, seed: int, batch: int) -> dict[tuple[int, str], Tensor]:
        like = next(iter(self.parts.values()))
        d, N = self.model.embed_dim, config.num_tokens
        masks: dict[tuple[int, str], Tensor] = {}
        with seeded_noise(seed, like.device):
            for index in range(len(self.model.blocks)):
                if key_of(f"{index}.tokens") in self.parts:
                    if config.prompt_dropout:
                        masks[index, "prompts"] = F.dropout(like.new_ones(batch, N, d), config.prompt_dropout)
                elif isinstance(config, VAPT):
                    if config.kernel is not None and config.channel_dropout:
                        masks[index, "channels"] = F.dropout(like.new_ones(batch, d), config.channel_dropout)[:, None]
                    if config.hidden_dropout:
                        masks[index, "hidden"] = F.dropout(
                            like.new_ones(batch, N, config.hidden), config.hidden_dropout
                        )
        return masks


@torch.no_grad()
def entering_states(model: VisionTransformer, first: int, images: Tensor) -> Tensor:
    """Return what enters block ``first`` of a frozen model in evaluation mode.

    images  (n, 3, H, W); the result is (n, T, d)

    Frozen blocks are run on groups of exactly ``GROUP`` images, filled up with zeros. The reason: sums of
    floating-point numbers are taken in an order that depends on the shapes of the matrices. With one shape,
    the states of an image are the same bits whatever images are beside it. So states may be kept in a file,
    and training on kept states is the same as training without them.
    """
    if first == 0:
        return embedded(model, images)
    missing = -len(images) % GROUP
    filled = torch.cat([images, images.new_zeros(missing, *images.shape[1:])]) if missing else images
    found = []
    for group in filled.split(GROUP):
        x = embedded(model, group)
        for block in model.blocks[:first]:
            x = block(x)
        found.append(x)
    return torch.cat(found)[: len(images)]


def _check(
    model: VisionTransformer, config: VPT | VAPT | None, head: int | nn.Linear, mean_states: Sequence[Tensor] | None
) -> None:
    if not isinstance(model, VisionTransformer) and refusal(model) is None:
        raise InputError(
            f"PackedTrials: a {type(model).__name__} of transformers; expected timm's VisionTransformer: "
            "as_timm(model) makes it"
        )
    check_frozen(model, "PackedTrials")
    if config is None and isinstance(head, nn.Linear):
        raise InputError("PackedTrials: no prompts and a known head leave nothing to learn; give a config, or classes")
    if config is not None:
        expect(config, (VPT, VAPT), "PackedTrials: config")
        config.check(len(model.blocks), model.patch_embed.grid_size)
    if isinstance(config, VAPT) and config.per_channel:
        raise InputError(
            "PackedTrials: VAPT(per_channel=True); expected one kernel for all channels, or trials one by one"
        )
    wants_means = isinstance(config, VAPT) and config.source == "mean"
    if wants_means != (mean_states is not None):
        raise InputError("PackedTrials: mean_states belong to VAPT(source='mean'), and to nothing else")
    if mean_states is not None:
        for one in listed(mean_states, "PackedTrials: mean_states"):
            expect(one, Tensor, "PackedTrials: mean_states")


def check_generators(rngs: Sequence[torch.Generator], what: str) -> None:
    """Raise ``InputError`` unless there are generators, and nothing else; ``what`` takes them."""
    for rng in rngs:
        expect(rng, torch.Generator, f"{what}: rngs")
    if not rngs:
        raise InputError(f"{what}: no generators; expected one for each trial")


def check_frozen(model: VisionTransformer, what: str) -> None:
    """Raise ``InputError`` unless the model is plain, frozen and in evaluation mode."""
    if isinstance(model, PromptedVisionTransformer) or refusal(model):
        raise InputError(f"{what}: this model cannot be shared by trials: {refusal(model)}")
    if model.training or any(value.requires_grad for value in model.parameters()):
        raise InputError(f"{what}: the model trains itself; expected model.requires_grad_(False).eval()")


def key_of(name: str) -> str:
    """Return a name without dots, which torch does not allow in names of parameters."""
    return name.replace(".", "/")


def _name(key: str) -> str:
    return key.replace("/", ".")


def of_each(values: Tensor, matrix: Tensor) -> Tensor:
    """Multiply (R, B, N, in) by a matrix (R, out, in) of each trial; returns (R, B, N, out)."""
    return torch.bmm(values.flatten(1, 2), matrix.transpose(1, 2)).unflatten(1, values.shape[1:3])


def plain(block: nn.Module, x: Tensor) -> Tensor:
    """Return the states (R, B, T, d) after a block that is run as it is."""
    return block(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def is_known(block: nn.Module) -> bool:
    """Return whether ``attend`` can compute this block: timm's own, without later gates or norms.

    Its products are taken from the weights of ``qkv``, so this must be a plain layer.
    """
    attention = getattr(block, "attn", None)
    return (
        type(block) is Block
        and type(attention) is Attention
        and type(attention.qkv) is nn.Linear
        and getattr(attention, "gate", None) is None
        and isinstance(getattr(attention, "norm", None), (nn.Identity, type(None)))
    )


def attend(block: Any, x: Tensor, prompts: Tensor | None, shared: Tensor | None, first_row: bool) -> Tensor:
    """Return the states (R, B, T, d) after a block whose attention also sees prompts (R, 1 or B, N, d).

    shared     (R,): x is (S, B, T, d), and each trial has one of the S; what belongs to images is computed
               once
    first_row  True: only the first token's row is computed
    """
    attention = block.attn
    H, size = attention.num_heads, attention.head_dim
    weight, bias = attention.qkv.weight, attention.qkv.bias
    width = H * size

    def heads(values: Tensor, parts: slice, norm: nn.Module) -> Tensor:
        """Return the queries, keys or values of every head, (R, B, H, T, d_h)."""
        own = None if bias is None else bias[parts]
        return norm(F.linear(values, weight[parts], own).unflatten(-1, (H, size)).transpose(-2, -3))

    def of_trials(values: Tensor) -> Tensor:
        return values if shared is None else values[shared]

    query, key, value = slice(0, width), slice(width, 2 * width), slice(2 * width, 3 * width)
    X, none = block.norm1(x), nn.Identity()
    q = of_trials(heads(X[:, :, :1] if first_row else X, query, attention.q_norm) * attention.scale)
    k, v = of_trials(heads(X, key, attention.k_norm)), of_trials(heads(X, value, none))
    if prompts is not None:
        P, images = block.norm1(prompts), k.shape[1]
        k = torch.cat([heads(P, key, attention.k_norm).expand(-1, images, -1, -1, -1), k], dim=-2)
        v = torch.cat([heads(P, value, none).expand(-1, images, -1, -1, -1), v], dim=-2)
    x = of_trials(x[:, :, :1] if first_row else x)
    x = x + block.ls1(attention.proj(mixed(q, k, v, first_row)))
    return x + block.ls2(block.mlp(block.norm2(x)))


def mixed(q: Tensor, k: Tensor, v: Tensor, first_row: bool) -> Tensor:
    """Return the values (R, B, T', H d_h) that softmax(q k') mixes, heads side by side.

    q          queries (R, B, H, T', d_h), already divided by sqrt(d_h)
    k, v       keys and values (R, B, H, T, d_h)
    first_row  True: T' = 1
    """
    if first_row:
        # Products with a single row are slower than sums.
        gates = (k * q).sum(dim=-1).softmax(dim=-1)
        found = (gates[..., None] * v).sum(dim=-2, keepdim=True)
    elif k.shape[-2] <= SHORT:
        found = (q @ k.transpose(-1, -2)).softmax(dim=-1) @ v
    else:
        fused = F.scaled_dot_product_attention(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), scale=1.0)
        found = fused.unflatten(0, q.shape[:2])
    return found.transpose(-2, -3).flatten(-2)

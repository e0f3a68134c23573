"""Compute the prompts of one block: free vectors, or a function of the block's patch states X.

    U = LN(X),   Z[n] = sum_p E[n, p] U[p] + b[n],   prompt = Z + s W2 act(W1 Z)

X has P0 positions and d features. E is a convolution over the grid followed by position weights W. Both are
linear and shared by all channels, so they are one map

    E[n, y, x] = sum_{a, b} W[n, y - a, x - b] K[a, b].

``fused_tokens`` uses this map; ``literal_tokens`` goes step by step and is its oracle.

Sources: arXiv 2203.12119 (fixed), arXiv 2501.18936 (adaptive).
"""

from __future__ import annotations

from math import prod, sqrt
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moe_prompts.checks import expect, flag, real, shown, whole
from moe_prompts.errors import InputError
from moe_prompts.vision.prompting.config import VAPT, grid_of
from moe_prompts.vision.prompting.starts import begin_fixed, begin_maps, begin_projector

#: Of the LayerNorm in front of adaptive prompts; the backbone's is 1e-6.
NORM_EPS = 1e-5

Grid = tuple[int, int]


def position_map(weight: Tensor, kernel: Tensor | None, padding: int = 0) -> Tensor:
    """Return E (..., N, Gh, Gw) from position weights (..., N, Sh, Sw) and one kernel (..., k, k).

    It is a sum of k^2 shifted copies: for weights this small, that is several times faster than a transposed
    convolution. Zero padding of the patches cuts the borders of E. Leading axes go along; a kernel of None
    returns the weights.
    """
    if kernel is None:
        return weight
    k = kernel.shape[-1]
    shifted = [
        kernel[..., a, b, None, None, None]
        * F.pad(weight, (b - padding, k - 1 - b - padding, a - padding, k - 1 - a - padding))
        for a in range(k)
        for b in range(k)
    ]
    return torch.stack(shifted).sum(dim=0)


def resized_map(E: Tensor, grid: Grid) -> Tensor:
    """Return the map E (N, Gh, Gw) on another grid, bilinear with antialiasing.

    It is divided by the growth of the grid, since E is summed over positions.
    """
    growth = grid[0] * grid[1] / (E.shape[1] * E.shape[2])
    # torch resamples with antialiasing in no smaller type than float32 on a CPU.
    wide = E[None].to(torch.promote_types(E.dtype, torch.float32))
    return (F.interpolate(wide, size=grid, mode="bilinear", antialias=True)[0] / growth).to(E.dtype)


def fused_tokens(U: Tensor, E: Tensor, bias: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return Z (B, N, d), computed with the one map E.

    U     (B, P0, d)
    E     (N, Gh, Gw)
    bias  (N,)
    mask  (B, d), dropout of channels; None: none
    """
    # Not E @ U, which would copy U to fold the images into the columns of one matrix. U.shape[0], not len(U),
    # which is a constant to torch.export and torch.jit.trace: they would fix the batch.
    Z = torch.bmm(E.flatten(1).expand(U.shape[0], -1, -1), U)
    if mask is not None:
        Z = Z * mask[:, None]
    return Z + bias[:, None]


def literal_tokens(
    U: Tensor, weight: Tensor, kernel: Tensor | None, bias: Tensor, grid: Grid, padding: int, mask: Tensor | None = None
) -> Tensor:
    """Return the Z of ``fused_tokens``, computed step by step.

    The steps are the convolution, the dropout of channels, and the position weights.

    U       (B, P0, d)
    weight  (N, Sh, Sw)
    kernel  (k, k), or (d, k, k) with one per channel; None: no convolution
    bias    (N,)
    mask    (B, d), dropout of channels; None: none
    """
    B, _, d = U.shape
    maps = U.transpose(1, 2).reshape(B, d, *grid)
    if kernel is not None:
        each = kernel.expand(d, *kernel.shape[-2:])[:, None]
        maps = F.conv2d(maps, each, padding=padding, groups=d)
    if mask is not None:
        maps = maps * mask[:, :, None, None]
    return F.linear(maps.flatten(2), weight.flatten(1), bias).transpose(1, 2)


def prompt_bound(width: int, patch: int) -> float:
    """Return v of the published init, which is uniform on (-v, v): v = sqrt(6 / (3 patch + d)).

    width  d of the model
    patch  number of pixels in a patch
    """
    return sqrt(6 / (3 * patch + width))


def check_generator(rng: Any, where: str) -> None:
    """Raise ``InputError`` unless ``rng`` is a generator of torch, or None; ``where`` names the caller."""
    if rng is not None and not isinstance(rng, torch.Generator):
        raise InputError(
            f"{where}: rng = {shown(rng)}; expected a torch.Generator, as torch.Generator().manual_seed(0)"
        )


class StaticPrompts(nn.Module):
    """Hold N free vectors, the same for every image.

    num_tokens  number N of prompts
    width       width d of the model
    bound       entries start uniform on [-bound, bound]
    dropout     share of entries set to zero in training
    rng         generator of the initial values; None: torch's global one
    start       "official" or "tokens", as in ``VPT``

    >>> import torch
    >>> from moe_prompts.vision import StaticPrompts
    >>> prompts = StaticPrompts(2, 8, bound=0.1, dropout=0.0, rng=torch.Generator().manual_seed(0))
    >>> prompts(torch.zeros(5, 16, 8)).shape  # for five images of 16 patches
    torch.Size([5, 2, 8])
    """

    def __init__(
        self,
        num_tokens: int,
        width: int,
        bound: float,
        dropout: float,
        rng: torch.Generator | None,
        start: str = "official",
    ) -> None:
        super().__init__()
        check_generator(rng, "StaticPrompts")
        num_tokens, width = whole(num_tokens, 1, "StaticPrompts: num_tokens"), whole(width, 1, "StaticPrompts: width")
        bound = real(bound, "[0, inf)", "StaticPrompts: bound")
        dropout = real(dropout, "[0, 1)", "StaticPrompts: dropout")
        self.tokens = nn.Parameter(begin_fixed(torch.empty(num_tokens, width), start, bound, rng))
        self.dropout = nn.Dropout(dropout)

    def forward(self, patches: Tensor) -> Tensor:
        """Return the prompts (B, N, d) for patch states (B, P0, d), whose numbers do not matter.

        patches  the states, of which only the number of images and the width count
        """
        return self.dropout(self.tokens.expand(patches.shape[0], -1, -1))


class Projector(nn.Module):
    """Compute Z + s W2 act(W1 Z) with W1 (r, d) and W2 (d, r), without biases."""

    def __init__(self, config: VAPT, width: int, rng: torch.Generator | None) -> None:
        super().__init__()
        self.activation = config.activation
        self.down = nn.Parameter(_linear_init(torch.empty(config.hidden, width), rng))
        self.up = nn.Parameter(_linear_init(torch.empty(width, config.hidden), rng))
        self.scale = nn.Parameter(torch.ones(())) if config.learnable_scale else None
        self.dropout = nn.Dropout(config.hidden_dropout)
        begin_projector(self.down, self.up, config, rng)

    def forward(self, Z: Tensor) -> Tensor:
        """Return the projected prompts (..., d) of Z (..., d)."""
        hidden = self.dropout(activated(F.linear(Z, self.down), self.activation))
        added = F.linear(hidden, self.up)
        return Z + (added if self.scale is None else self.scale * added)


def activated(hidden: Tensor, activation: str) -> Tensor:
    """Return the projector's activation of its hidden units (..., r)."""
    if activation == "softmax":
        return hidden.softmax(dim=-1)
    return hidden if activation == "identity" else getattr(F, activation)(hidden)


class AdaptivePrompts(nn.Module):
    """Compute N prompts from the patch states; the model sets ``grid`` to that of the current images.

    In the published init the kernel is normal and position weights and biases are zero. With an activation
    that is zero at zero (relu, gelu, identity) every prompt then starts at exactly zero; with sigmoid or
    softmax at s W2 act(0). ``starts`` has the other ones.

    config    tokens, kernel, hidden width and activation
    width     width d of the model
    grid      rows and columns of the patches
    projector the map from the hidden width to d
    rng       generator of the initial values; None: torch's global one
    bound     of fixed prompts in the published init, for the offset of ``start="vpt"``
    gain      factor on the prompts, not trained; 1 but for ``start="gain"``
    borrowed  True: the projector belongs to another block's prompts; it is used here, but is no part of this
              module's state

    >>> import timm, torch
    >>> from moe_prompts.vision import VAPT, AdaptivePrompts, prompt
    >>> vit = timm.create_model("vit_tiny_patch16_224", img_size=64)
    >>> model = prompt(vit, VAPT(num_tokens=2), num_classes=3)
    >>> sum(isinstance(part, AdaptivePrompts) for part in model.modules())  # block 0 has fixed ones
    11
    """

    mean_states: Tensor | None
    projector: Projector

    def __init__(
        self,
        config: VAPT,
        width: int,
        grid: Grid,
        projector: Projector,
        rng: torch.Generator | None,
        *,
        bound: float = 0.0,
        gain: float = 1.0,
        borrowed: bool = False,
    ) -> None:
        super().__init__()
        expect(config, VAPT, "AdaptivePrompts: config")
        expect(projector, Projector, "AdaptivePrompts: projector")
        check_generator(rng, "AdaptivePrompts")
        width, grid = whole(width, 1, "AdaptivePrompts: width"), grid_of(grid)
        borrowed = flag(borrowed, "AdaptivePrompts: borrowed")
        self.config, self.own_grid, self.grid, self.gain = config, grid, grid, gain
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.kernel: nn.Parameter | None = None
        if config.kernel is not None:
            shape = (*([width] if config.per_channel else []), config.kernel, config.kernel)
            self.kernel = nn.Parameter(nn.init.normal_(torch.empty(shape), generator=rng))
        self.weight = nn.Parameter(
            torch.zeros(config.num_tokens, *((1, 1) if config.pooled else config.positions(grid)))
        )
        self.bias = nn.Parameter(torch.zeros(config.num_tokens))
        self.offset = nn.Parameter(torch.zeros(config.num_tokens, width)) if config.offset else None
        begin_maps(self.weight, self.kernel, self.offset, config, prod(config.positions(grid)), bound, rng)
        if borrowed:
            # Past torch's registration, so that state_dict, moving averages and files see a shared projector
            # once.
            self.__dict__["projector"] = projector
        else:
            self.projector = projector
        # Not a number, of the right size, until set_mean_states: a state_dict then loads into a new model.
        empty = torch.full((grid[0] * grid[1], width), torch.nan) if config.source == "mean" else None
        self.register_buffer("mean_states", empty)

    def has_mean_states(self) -> bool:
        """Return whether ``set_mean_states`` was called, here or on the model whose state_dict was loaded."""
        return self.mean_states is not None and not bool(self.mean_states.isnan().all())

    def forward(self, patches: Tensor) -> Tensor:
        """Return the prompts (B, N, d) for patch states (B, Gh Gw, d), row by row.

        patches  the states of the patches at the entry of the block
        """
        states = source_states(patches, self.config.source, self.mean_states)
        prompts = self.projector(self.tokens(self.norm(states.to(self.norm.weight.dtype))))
        prompts = prompts if self.offset is None else prompts + self.offset
        return prompts if self.gain == 1 else self.gain * prompts

    def tokens(self, U: Tensor) -> Tensor:
        """Return Z (B, N, d), the prompts before the projector, from normed states U (B, P0, d).

        Raises ``InputError`` for images of another size where ``resize`` does not allow it.
        """
        config, mask = self.config, self._mask(U)
        moved = self.grid != self.own_grid
        if moved and config.resize is None:
            raise InputError(
                f"images of {self.grid[0]} x {self.grid[1]} patches; these adaptive prompts were made for "
                f"{self.own_grid[0]} x {self.own_grid[1]}: resize the images, or use VAPT(resize='bilinear')"
            )
        weight = self.weight.expand(-1, *config.positions(self.own_grid))
        if config.per_channel or not (config.fused or moved):
            return literal_tokens(U, weight, self.kernel, self.bias, self.grid, config.padding, mask)
        E = position_map(weight, self.kernel, config.padding)
        return fused_tokens(U, resized_map(E, self.grid) if moved else E, self.bias, mask)

    def _mask(self, U: Tensor) -> Tensor | None:
        """Return the dropout of whole channels of an image, (B, d); None without a convolution."""
        if not self.training or self.kernel is None or not self.config.channel_dropout:
            return None
        return F.dropout(U.new_ones(U.shape[0], U.shape[2]), self.config.channel_dropout)


def source_states(patches: Tensor, source: str, mean_states: Tensor | None) -> Tensor:
    """Return the states that prompts are computed from, of the shape of ``patches`` (..., B, P0, d).

    source  see ``VAPT.source``

    Raises ``InputError`` for "mean" before ``set_mean_states`` was called.
    """
    if source == "mean":
        if mean_states is None or _never_set(mean_states):
            raise InputError(
                "prompts with source='mean' have no mean states; call set_mean_states(model, images) first, "
                "and make moving averages of the model after it"
            )
        return mean_states.to(patches.dtype).expand_as(patches)
    return patches.roll(1, dims=-3) if source == "another" else patches


def _never_set(states: Tensor) -> bool:
    """Return whether mean states were never set; False while a graph is recorded, which sees no numbers."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    return bool(states[..., :1, :1].isnan().all())


def _linear_init(weight: Tensor, rng: torch.Generator | None) -> Tensor:
    """Fill a weight as torch does for a linear layer: uniform within 1 / sqrt(columns)."""
    bound = 1 / sqrt(weight.shape[1])
    return nn.init.uniform_(weight, -bound, bound, generator=rng)

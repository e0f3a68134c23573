"""Say what to learn, and how much: prompts that are free vectors (VPT) or functions of the image (VAPT).

With width d, L blocks, N prompts, D static blocks, A = L - D adaptive ones and Q positions, the prompts have

    VPT-shallow   N d
    VPT-deep      L N d
    VAPT          D N d + A [2 d + kappa + N (Q + 1)] + m (2 d r + scale)

trained numbers. kappa is the size of the convolution's kernel: k^2, or d k^2 with one kernel per channel, or
0 without a convolution. m is the number of projectors: 1, or A with one per block; scale is 1 if they have a
learned scale. Q is 1 where the weights are pooled. An offset adds A N d. With prompts in the last L' blocks
only, L' stands for L.

Sources: arXiv 2203.12119 (VPT), arXiv 2501.18936 (VAPT).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

from moe_prompts.checks import flag, listed, one_of, real, shown, whole
from moe_prompts.errors import InputError

#: How adaptive and fixed prompts may begin: ``prompting.starts`` says what each means, and why.
STARTS = ("official", "tokens", "orthogonal", "gain", "vpt")
FIXED_STARTS = ("official", "tokens")
ACTIVATIONS = ("relu", "gelu", "sigmoid", "softmax", "identity")
#: What adaptive prompts are a function of; all but the first are controls.
SOURCES = ("image", "another", "mean")


@dataclass(frozen=True)
class VPT:
    """Configure fixed prompts: free vectors, the same for every image.

    num_tokens      N, the number of prompts in a block
    deep            True: every block has prompts of its own; False: only the first one, whose prompts live on
    prompt_dropout  share of the prompts' numbers that are dropped while they train, in [0, 1)
    blocks          L', only the last so many blocks have prompts; None: all L of the model
    start           "official": small uniform vectors, as published; "tokens": standard normal ones, of the
                    size of the tokens beside them (see ``prompting.starts``)

    Raises ``InputError`` for values out of range.

    >>> import timm
    >>> from moe_prompts.vision import VPT, prompt, trainable_summary
    >>> trainable_summary(prompt(timm.create_model("test_vit"), VPT(num_tokens=4, blocks=2), num_classes=10))
    512 in prompts + 650 in the head train (0.38%), 306240 are frozen
    """

    num_tokens: int = 10
    deep: bool = True
    prompt_dropout: float = 0.0
    blocks: int | None = None
    start: str = "official"

    def __post_init__(self) -> None:
        _check_whole(self, num_tokens=1)
        _check_switches(self, "deep")
        _check_shares(self, "prompt_dropout")
        _check_blocks(self)
        _check_start(self, FIXED_STARTS)

    def check(self, blocks: int, grid: tuple[int, int]) -> None:
        """Raise ``InputError`` if the model has fewer blocks than are to have prompts.

        blocks  number of blocks of the model
        grid    rows and columns of its patches, which fixed prompts do not depend on
        """
        grid_of(grid)
        first_block(self, blocks)

    def n_parameters(self, width: int, blocks: int, grid: tuple[int, int]) -> int:
        """Return the number of trained numbers beside the head.

        width   d of the model
        blocks  L of the model
        grid    not used; adaptive prompts need it
        """
        width = whole(width, 1, "VPT: width")
        return ((blocks - first_block(self, blocks)) if self.deep else 1) * self.num_tokens * width


@dataclass(frozen=True)
class VAPT:
    """Configure adaptive prompts: from block ``static_depth`` on, each prompt is computed from the image.

    They are functions of the patch states that enter the block; see ``prompts`` for the formula.

    num_tokens        N, the number of prompts in a block
    hidden            r, hidden units of the projector
    kernel            k of the convolution over positions; None: no convolution
    padding           zeros around the grid
    static_depth      D, first blocks with fixed prompts, counted from the first block that has prompts
    activation        of the projector: relu, gelu, sigmoid, softmax (over r) or identity
    per_channel       one kernel per channel instead of one for all
    shared_projector  one projector for all blocks instead of one per block
    learnable_scale   a factor s of the projector that is learned, from 1
    resize            "bilinear": the position map follows another image size; None: another size is refused
    source            whose states prompts are computed from: the "image" itself; "another" image of the
                      batch, the one before it; or the "mean" over images that ``set_mean_states`` is given.
                      The last two are controls: the same parameters, blind to the image
    offset            a free vector is added to each prompt, from 0: fixed prompts are then among these
                      prompts
    pooled            one weight for all positions: prompts depend on the image but not on where things are
    fused             convolution and position weights as one map; False: step by step (slower, the same
                      numbers)
    prompt_dropout    dropped share of the numbers of fixed prompts, in [0, 1)
    channel_dropout   dropped share of the channels after the convolution
    hidden_dropout    dropped share of the projector's hidden units; all three act only while the prompts
                      train
    blocks            L', only the last so many blocks have prompts; None: all L of the model
    start             how the prompts begin, one of ``STARTS``: "official" (all exactly zero, as published),
                      "tokens", "orthogonal", "gain", or "vpt", which needs ``offset=True``. What each means,
                      and its reason: ``prompting.starts``

    Raises ``InputError`` for values that are out of range or do not go together.

    >>> from moe_prompts.vision import VAPT
    >>> config = VAPT(num_tokens=10, hidden=8, kernel=2)
    >>> config.static_depth, config.activation
    (1, 'relu')
    """

    num_tokens: int = 10
    hidden: int = 8
    kernel: int | None = 2
    padding: int = 0
    static_depth: int = 1
    activation: str = "relu"
    per_channel: bool = False
    shared_projector: bool = True
    learnable_scale: bool = False
    resize: str | None = None
    source: str = "image"
    offset: bool = False
    pooled: bool = False
    fused: bool = True
    prompt_dropout: float = 0.0
    channel_dropout: float = 0.1
    hidden_dropout: float = 0.1
    blocks: int | None = None
    start: str = "official"

    def __post_init__(self) -> None:
        _check_whole(self, num_tokens=1, hidden=1, padding=0, static_depth=1)
        _check_switches(self, "per_channel", "shared_projector", "learnable_scale", "offset", "pooled", "fused")
        _check_shares(self, "prompt_dropout", "channel_dropout", "hidden_dropout")
        _check_blocks(self)
        if self.kernel is not None:
            _check_whole(self, kernel=1)
        elif self.padding or self.per_channel:
            raise InputError("VAPT: padding or per_channel without a convolution; expected a kernel, as kernel=2")
        if self.kernel is not None and self.padding >= self.kernel:
            raise InputError(
                f"VAPT: padding = {self.padding} with kernel = {self.kernel}; expected less padding than the kernel, "
                "else some positions see zeros only"
            )
        one_of(self.activation, ACTIVATIONS, "VAPT: activation")
        if self.resize is not None and (not isinstance(self.resize, str) or self.resize != "bilinear"):
            raise InputError(f"VAPT: resize {shown(self.resize)}; expected None or 'bilinear'")
        one_of(self.source, SOURCES, "VAPT: source")
        _check_start(self, STARTS)
        if self.start == "vpt" and not self.offset:
            raise InputError(
                "VAPT: start='vpt' without an offset, its fixed prompts; expected VAPT(start='vpt', offset=True)"
            )
        if self.resize and self.source == "mean":
            raise InputError("VAPT: resize with source='mean'; mean states belong to one grid of patches")
        if self.resize and self.per_channel:
            raise InputError(
                "VAPT: resize with per_channel; a map over positions exists only where all channels share a kernel"
            )

    def check(self, blocks: int, grid: tuple[int, int]) -> None:
        """Raise ``InputError`` if these prompts do not fit so many blocks and this grid of patches."""
        own = blocks - first_block(self, blocks)
        if self.static_depth >= own:
            fixed = f"VPT(num_tokens={self.num_tokens}, deep=True{'' if self.blocks is None else f', blocks={own}'})"
            least = self.static_depth + 1
            few = f"a model of at least {least} blocks" if self.blocks is None else f"blocks of at least {least}"
            more = few if own == 1 else f"less than {own}"
            raise InputError(
                f"VAPT: static_depth = {self.static_depth} leaves no adaptive prompts in a model of {own} "
                f"block{'s' if own > 1 else ''}{'' if self.blocks is None else ' with prompts'}; expected {more}, or "
                f"{fixed}"
            )
        if min(self.positions(grid)) < 1:
            raise InputError(
                f"VAPT: kernel = {self.kernel} with padding = {self.padding} on a grid of {grid[0]} x {grid[1]} "
                "patches; expected a kernel that fits: a smaller one, or kernel=None"
            )

    def positions(self, grid: tuple[int, int]) -> tuple[int, int]:
        """Return height and width of the convolution's output; without a convolution, the grid itself."""
        grid = grid_of(grid)
        if self.kernel is None:
            return grid
        lost = self.kernel - 1 - 2 * self.padding
        return grid[0] - lost, grid[1] - lost

    def n_parameters(self, width: int, blocks: int, grid: tuple[int, int]) -> int:
        """Return the number of trained numbers beside the head.

        width   d of the model
        blocks  L of the model
        grid    height and width of an image in patches
        """
        width = whole(width, 1, "VAPT: width")
        adaptive = blocks - first_block(self, blocks) - self.static_depth
        kernel = (self.kernel or 0) ** 2 * (width if self.per_channel else 1)
        projectors = 1 if self.shared_projector else adaptive
        return (
            self.static_depth * self.num_tokens * width
            + adaptive
            * (2 * width + kernel + self.num_tokens * ((1 if self.pooled else prod(self.positions(grid))) + 1))
            + (adaptive * self.num_tokens * width if self.offset else 0)
            + projectors * (2 * width * self.hidden + self.learnable_scale)
        )


def grid_of(grid: Any) -> tuple[int, int]:
    """Return height and width of a grid of patches; ``InputError`` for what is no two whole numbers."""
    sizes = listed(grid, "grid of patches")
    if len(sizes) != 2:
        raise InputError(f"grid of patches: {shown(grid)}; expected (height, width)")
    height, width = (whole(size, 1, "grid of patches") for size in sizes)
    return height, width


def first_block(config: VPT | VAPT, blocks: int) -> int:
    """Return the index of the first block that has prompts, L - L', in a model of ``blocks`` = L blocks.

    Raises ``InputError`` where the config asks for more blocks than there are.
    """
    blocks = whole(blocks, 1, f"{type(config).__name__}: blocks of the model")
    own = blocks if config.blocks is None else config.blocks
    if own > blocks:
        raise InputError(
            f"{type(config).__name__}: blocks = {own} in a model of {blocks} blocks; expected at most {blocks}, or "
            "None for all"
        )
    return blocks - own


def _check_whole(config: VPT | VAPT, **least: int) -> None:
    """Raise ``InputError`` for what is no whole number; store the rest as plain ints, which files hold."""
    for name, low in least.items():
        found = whole(getattr(config, name), low, f"{type(config).__name__}: {name}")
        object.__setattr__(config, name, found)


def _check_blocks(config: VPT | VAPT) -> None:
    if config.blocks is not None:
        _check_whole(config, blocks=1)


def _check_start(config: VPT | VAPT, allowed: tuple[str, ...]) -> None:
    if not isinstance(config.start, str) or config.start not in allowed:
        raise InputError(
            f"{type(config).__name__}: start = {config.start!r}; expected one of {', '.join(map(repr, allowed))}"
        )


def _check_switches(config: VPT | VAPT, *names: str) -> None:
    for name in names:
        object.__setattr__(config, name, flag(getattr(config, name), f"{type(config).__name__}: {name}"))


def _check_shares(config: VPT | VAPT, *names: str) -> None:
    for name in names:
        found = real(getattr(config, name), "[0, 1)", f"{type(config).__name__}: the share {name}")
        object.__setattr__(config, name, found)

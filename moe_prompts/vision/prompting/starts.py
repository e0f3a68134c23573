"""Say where prompts begin. Every start is a value of the config, ``VAPT(..., start="tokens")``.

A prompt p enters a block through its LayerNorm, p / sqrt(var p + eps). At p = 0 the norm multiplies gradients
by 1 / sqrt(eps), a thousand for eps = 1e-6, while at prompts of rms 1 it multiplies them by about 1. So where
prompts begin decides what one learning rate means for them and for the head beside them.

official    As published. Position weights and biases are zero, so every adaptive prompt is exactly zero, and
            the first gradients of the position weights are inflated; all other parts of adaptive prompts have
            none. Fixed prompts are uniform on (-v, v), of rms v / sqrt(3): .045 in a ViT-B/16.
tokens      Prompts are of the size of the tokens beside them. Every prompt is the mean patch plus a random
            mixture of patches of rms about 1: the kernel averages, position weights are 1 / S plus normal
            noise of standard deviation k / sqrt(S) for S positions and a k x k kernel. The projector's output
            is made ten times smaller, so that it begins as a correction. Reason: the norm sees nothing near
            zero, and every parameter of the prompts has a gradient at the first step. Fixed prompts are
            standard normal.
orthogonal  The maps of "tokens", with a projector whose rows of W1 and columns of W2 are orthonormal. Reason:
            no two hidden units begin alike, and hidden units have the size of what they read.
gain        The published values, with all adaptive prompts multiplied by g = sqrt(eps) of the block's norm.
            Reason: the norm then computes g p / sqrt(g^2 var p + eps) = p / sqrt(var p + 1), as if its eps
            were 1, which multiplies gradients at zero by 1. g is fixed and known from the backbone, so no
            file holds it.
vpt         Fixed prompts first. The free vectors ``offset`` begin as VPT's prompts do and the adaptive part
            has zero effect and non-zero gradient (position weights zero; with sigmoid or softmax W2 is zero,
            too). Training leaves the adaptive part alone for the first half of the steps
            (``Recipe.fixed_first``), or ``start_from`` takes over a VPT model that was trained before.
            Reason: adaptive prompts then begin where fixed ones ended, so that they start no worse.

The last four are ours. Sources: arXiv 2203.12119 and 2501.18936 (official), arXiv 2203.03466 (what a rate
means as widths change).
"""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor, nn

from moe_prompts.vision.prompting.config import VAPT

#: Starts whose prompts have the size of tokens.
TOKEN_SIZED = ("tokens", "orthogonal")
#: Activations that are not zero at zero.
LIFTED = ("sigmoid", "softmax")
#: Names of the norm in front of a block's attention, in timm and in ``transformers``.
FIRST_NORMS = ("norm1", "layernorm_before", "layer_norm1")
#: Factor on the projector's output where it begins as a correction.
SMALL = 0.1


def begin_fixed(tokens: Tensor, start: str, bound: float, rng: torch.Generator | None) -> Tensor:
    """Fill fixed prompts (N, d) with their first values and return them.

    bound  v of the published init
    """
    if start == "tokens":
        return nn.init.normal_(tokens, generator=rng)
    return nn.init.uniform_(tokens, -bound, bound, generator=rng)


@torch.no_grad()
def begin_maps(
    weight: Tensor,
    kernel: Tensor | None,
    offset: Tensor | None,
    config: VAPT,
    positions: int,
    bound: float,
    rng: torch.Generator | None,
) -> None:
    """Change position weights (N, Sh, Sw), kernel and offset from published values to those of the start.

    kernel     (k, k), or (d, k, k) with one per channel
    positions  S, over which the weights sum
    bound      v of the published init of fixed prompts

    Nothing is drawn where the start has the published values, so that they stay what they were.
    """
    if config.start in TOKEN_SIZED:
        if kernel is not None:
            kernel.fill_(1 / kernel.shape[-1] ** 2)
        # An average over a k x k window takes the noise down by k, which is put back here.
        spread = (1 if kernel is None else kernel.shape[-1]) / sqrt(positions)
        # One weight for all positions can only scale the mean patch.
        nn.init.normal_(weight, 1 / positions, 1 / positions if config.pooled else spread, generator=rng)
    elif config.start == "vpt" and offset is not None:
        nn.init.uniform_(offset, -bound, bound, generator=rng)


@torch.no_grad()
def begin_projector(down: Tensor, up: Tensor, config: VAPT, rng: torch.Generator | None) -> None:
    """Change W1 (r, d) and W2 (d, r) from their published values to those of the start."""
    if config.start == "tokens":
        up.mul_(SMALL)
    elif config.start == "orthogonal":
        nn.init.orthogonal_(down, generator=rng)
        nn.init.orthogonal_(up, generator=rng)
    elif config.start == "vpt" and config.activation in LIFTED:
        up.zero_()


def block_gain(block: nn.Module, config: VAPT) -> float:
    """Return the fixed factor on a block's adaptive prompts: sqrt(eps) of its norm for "gain", else 1.

    It is 1 too where the block has no norm with an eps in front of its attention: nothing is inflated there.
    """
    norm = next((getattr(block, name) for name in FIRST_NORMS if hasattr(block, name)), None)
    eps = getattr(norm, "eps", None)
    return sqrt(eps) if config.start == "gain" and eps else 1.0


def waits(name: str, config: VAPT) -> bool:
    """Return whether a parameter waits while ``start="vpt"`` trains fixed prompts alone.

    name  as ``prompt_parameters`` gives it, such as ``3.weight``, ``3.norm.bias`` or ``head.weight``
    """
    part = name.rpartition(".")[2]
    return config.start == "vpt" and not name.startswith("head.") and part not in ("tokens", "offset")

"""Draw how much of the attention of each patch of an image goes to prompts: one call on a prompted model."""

from __future__ import annotations

import torch
from matplotlib.axes import Axes
from torch import Tensor

from moe_prompts.checks import expect
from moe_prompts.errors import InputError
from moe_prompts.vision.figures import draw_mass as draw_map
from moe_prompts.vision.prompting.head_as_moe import attention_parts, head_of, read_head
from moe_prompts.vision.prompting.layouts import check_images, layout_of
from moe_prompts.vision.prompting.prompted import check_prompted
from moe_prompts.vision.prompting.prompted_model import Prompted


def gate_mass(model: Prompted, image: Tensor, block: int | None = None, head: int | None = None) -> Tensor:
    """Return the share of each patch's gate that goes to prompts, (Gh, Gw).

    model  made by ``prompt``
    image  (C, H, W) or (1, C, H, W), normalised as the model wants it
    block  index of the block, from 0 (default: the last one)
    head   index of the head, from 0 (default: the mean over all heads of the block)

    Raises ``InputError`` for a model without prompts, several images, or a block or head that is not there.
    """
    check_prompted(model, "draw_mass")
    if not isinstance(image, Tensor) or image.ndim not in (3, 4) or (image.ndim == 4 and len(image) != 1):
        shape = tuple(image.shape) if isinstance(image, Tensor) else type(image).__name__
        raise InputError(f"draw_mass: image {shape}; expected one tensor (C, H, W)")
    images = image if image.ndim == 4 else image[None]
    check_images(model, images, "draw_mass", finite=True)
    block = len(layout_of(model).blocks) - 1 if block is None else block
    attn = attention_parts(model, block, "draw_mass")
    heads = range(attn.num_heads) if head is None else [head_of(attn, head, "draw_mass")]
    return torch.stack([read_head(model, images, block, one).mass_map[0] for one in heads]).mean(dim=0)


def draw_mass(
    model: Prompted,
    image: Tensor,
    block: int | None = None,
    head: int | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the share of each patch's gate that goes to prompts, over the outline of the image.

    Returns the axes.

    model  made by ``prompt``
    image  (C, H, W) or (1, C, H, W), normalised as the model wants it
    block  index of the block, from 0 (default: the last one)
    head   index of the head, from 0 (default: the mean over all heads of the block)
    ax     where to draw (default: the axes of a new figure)

    Errors are those of ``gate_mass``.

    >>> import timm, torch
    >>> from moe_prompts.vision import VAPT, draw_mass, prompt
    >>> model = prompt(timm.create_model("vit_tiny_patch16_224"), VAPT(num_tokens=2), num_classes=3)
    >>> draw_mass(model, torch.rand(3, 224, 224)).get_title()
    'block 11, mean of 3 heads'
    """
    mass = gate_mass(model, image, block, head)
    if ax is not None:
        expect(ax, Axes, "draw_mass: ax")
    if ax is None:
        import matplotlib.pyplot as plt

        _, ax = plt.subplots(figsize=(3.4, 2.8), layout="constrained")
    picture = image.detach().reshape(-1, *image.shape[-2:]).mean(dim=0).cpu().numpy()
    drawn = draw_map(ax, mass.detach().cpu().numpy(), picture)
    ax.figure.colorbar(drawn, ax=ax, shrink=0.8, label="share of the gate on prompts")
    number = len(layout_of(model).blocks) - 1 if block is None else block
    which = f"mean of {attention_parts(model, number).num_heads} heads" if head is None else f"head {head}"
    ax.set_title(f"block {number}, {which}")
    return ax

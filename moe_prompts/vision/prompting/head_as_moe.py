"""Read one head of one block of a prompted model as a mixture: its output is gates times experts.

    output_i = sum_j gates_ij f_j,   gates_i = softmax_j(q_i' k_j / sqrt(d_h)),   f_j = W_V' x_j + c_v

The sums run over prefix tokens, prompts and patches j; x are the tokens as the attention sees them, after the
block's norm. Patches are the frozen experts, which are functions of the image. Prompts are the new ones:
constants for VPT, functions of the image for VAPT. The attention output is the sum over heads of output W_O,
plus its bias.

Sources: arXiv 2501.18936, 2410.02200.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from moe_prompts.checks import integer, shown
from moe_prompts.errors import InputError
from moe_prompts.models.token_head import Projections
from moe_prompts.shown import Shown
from moe_prompts.vision.prompting.layouts import AttentionParts, check_images, layout_of
from moe_prompts.vision.prompting.prompted import PromptedBlock, check_prompted
from moe_prompts.vision.prompting.prompted_model import Prompted


@dataclass(frozen=True, eq=False, repr=False)
class HeadReading(Shown):
    """Hold gates and experts of one head on B images.

    Of T tokens the prefix comes first, then the N prompts, then the patches.

    gates        (B, T, T), row i: weights of all experts for query i
    experts      (B, T, d_h)
    num_prefix   number of prefix tokens
    num_prompts  N
    grid         (Gh, Gw), height and width of an image in patches
    """

    gates: Tensor
    experts: Tensor
    num_prefix: int
    num_prompts: int
    grid: tuple[int, int]

    @property
    def output(self) -> Tensor:
        """Return the head's output before W_O, (B, T, d_h)."""
        return self.gates @ self.experts

    @property
    def prompt_experts(self) -> Tensor:
        """Return the experts of the prompts, (B, N, d_h)."""
        return self.experts[:, self._prompts]

    @property
    def prompt_gates(self) -> Tensor:
        """Return the gates of the prompts for every query, (B, T, N)."""
        return self.gates[:, :, self._prompts]

    @property
    def prompt_mass(self) -> Tensor:
        """Return the share of each query's gate that goes to prompts, (B, T)."""
        return self.prompt_gates.sum(dim=2)

    @property
    def mass_map(self) -> Tensor:
        """Return the share of each patch's gate that goes to prompts, in the patches' places: (B, Gh, Gw)."""
        return self.prompt_mass[:, self._prompts.stop :].reshape(-1, *self.grid)

    @property
    def variation(self) -> Tensor:
        """Return how much each prompt expert varies with the image, as a share of its size: (N,).

            sqrt(mean |f - mean f|^2 / mean |f|^2),   means over images

        It is exactly 0 for a fixed prompt, and at most 1.
        """
        experts = self.prompt_experts
        # Seen from the first image, so that equal experts differ by exactly 0 whatever the rounding of a
        # mean.
        apart = experts - experts[:1]
        around = (apart - apart.mean(dim=0)).square().sum(dim=2).mean(dim=0)
        size = experts.square().sum(dim=2).mean(dim=0)
        # An expert that is zero on every image does not vary; any other NaN is a number that went wrong, and
        # stays.
        return torch.where(size == 0, size, (around / size).sqrt())

    @property
    def _prompts(self) -> slice:
        return slice(self.num_prefix, self.num_prefix + self.num_prompts)


@dataclass(frozen=True, repr=False)
class GateRank(Shown):
    """Hold the ranks of B = W_Q W_K' / sqrt(d_h), the matrix that makes the logit of a prompt.

    head_width         d_h
    width              d, of the model
    rank               of the B of one head
    rank_of_all_heads  of the B of all heads of the block, stacked

    A head with d_h < d is blind to d - d_h directions of a prompt. With fixed prompts, and one too many of
    them, there is then no rate of estimation for that head alone; adaptive prompts (gelu) keep n^-1/4
    (derived in this project, for one head). All heads of a block share the prompts and together may see every
    direction.
    """

    head_width: int
    width: int
    rank: int
    rank_of_all_heads: int


def read_head(model: Prompted, images: Tensor, block: int, head: int) -> HeadReading:
    """Return gates and experts of one head on some images, in evaluation mode.

    model   what ``prompt`` returned
    images  (B, C, H, W), normalised
    block   index of the block
    head    index of the head in it

    Raises ``InputError`` if there is no such block or head, or its output is no sum of gates times experts.

    >>> import timm, torch
    >>> from moe_prompts.vision import VPT, prompt, read_head
    >>> model = prompt(timm.create_model("test_vit"), VPT(num_tokens=4), num_classes=10)
    >>> found = read_head(model, torch.rand(2, 3, 160, 160), block=1, head=0)
    >>> found.prompt_mass.shape[0], found.variation.tolist()
    (2, [0.0, 0.0, 0.0, 0.0])
    """
    attn = attention_parts(model, block, "read_head")
    head = head_of(attn, head, "read_head")
    check_images(model, images, "read_head", finite=True)
    [tokens] = _attention_inputs(model, images, [attn])
    return _reading(model, attn, tokens, head, images)


def prompt_table(model: Prompted, images: Tensor) -> pd.DataFrame:
    """Return one row for each block, head and prompt: how much gate it gets, and how much its expert varies.

    mass       its mean gate over patches and images
    variation  as in ``HeadReading``

    Raises ``InputError`` for fewer than two images (B, C, H, W).

    >>> import timm, torch
    >>> from moe_prompts.vision import VPT, prompt_table, prompt
    >>> vit = timm.create_model("vit_tiny_patch16_224", img_size=64)
    >>> model = prompt(vit, VPT(num_tokens=2), num_classes=3)
    >>> table = prompt_table(model, torch.rand(2, 3, 64, 64))  # 12 blocks, 3 heads, 2 prompts
    >>> len(table), bool(table["variation"].max() < 1e-5)
    (72, True)
    """
    check_prompted(model, "prompt_table")
    check_images(model, images, "prompt_table", finite=True)
    if len(images) < 2:
        raise InputError(f"prompt_table: {len(images)} image; expected at least 2, to see what varies between them")
    attentions = [attention_parts(model, block, "prompt_table") for block in range(len(layout_of(model).blocks))]
    rows = []
    for block, (attn, tokens) in enumerate(zip(attentions, _attention_inputs(model, images, attentions), strict=True)):
        for head in range(attn.num_heads):
            reading = _reading(model, attn, tokens, head, images)
            patches = slice(reading.num_prefix + reading.num_prompts, None)
            mass = reading.prompt_gates[:, patches].mean(dim=(0, 1)).tolist()
            for number, (share, variation) in enumerate(zip(mass, reading.variation.tolist(), strict=True)):
                rows.append((block, head, number, share, variation))
    return pd.DataFrame(rows, columns=["block", "head", "prompt", "mass", "variation"])


def projections(model: Prompted, block: int, head: int) -> Projections:
    """Return W_Q, W_K, W_V, each (d, d_h), and their three biases (d_h,), float64: what ``from_head`` takes.

    They act on tokens after the block's norm.

    model  what ``prompt`` returned
    block  index of the block
    head   index of the head in it

    Raises ``InputError`` if there is no such block or head, and where queries or keys are normed: logits are
    then not bilinear in the tokens.

    >>> import timm, torch
    >>> from moe_prompts.vision import VPT, projections, prompt
    >>> vit = timm.create_model("vit_tiny_patch16_224", img_size=64)
    >>> model = prompt(vit, VPT(num_tokens=2), num_classes=3)
    >>> queries, keys, values, biases = projections(model, block=0, head=0)
    >>> queries.shape
    (192, 64)
    """
    return _projections(model, block, head, "projections")


def _projections(model: Prompted, block: int, head: int, where: str) -> Projections:
    """Return what ``projections`` does; ``where`` names the caller."""
    attn = attention_parts(model, block, where)
    head = head_of(attn, head, where)
    if attn.normed:
        raise InputError(
            f"{where}: block {block} norms its queries and keys, so its logits are no x'Ax; read_head takes it"
        )
    weights = attn.weights.detach().double().cpu()[:, head]
    bias = attn.offsets
    offsets = torch.zeros(3, attn.head_dim).double() if bias is None else bias.detach().double().cpu()[:, head]
    W_Q, W_K, W_V = (weight.T.numpy() for weight in weights)
    c_q, c_k, c_v = (offset.numpy() for offset in offsets)
    return W_Q, W_K, W_V, (c_q, c_k, c_v)


def gate_rank(model: Prompted, block: int, head: int) -> GateRank:
    """Return what the logits of one head, and of all heads of its block, can see of a prompt.

    model  what ``prompt`` returned
    block  index of the block
    head   index of the head in it

    Errors are those of ``projections``.

    >>> import timm, torch
    >>> from moe_prompts.vision import VPT, gate_rank, prompt
    >>> vit = timm.create_model("vit_tiny_patch16_224", img_size=64)
    >>> model = prompt(vit, VPT(num_tokens=2), num_classes=3)
    >>> found = gate_rank(model, block=0, head=0)
    >>> found.head_width, found.width
    (64, 192)
    """
    attn = attention_parts(model, block, "gate_rank")
    head = head_of(attn, head, "gate_rank")
    made = []
    for number in range(attn.num_heads):
        W_Q, W_K, *_ = _projections(model, block, number, "gate_rank")
        made.append(W_Q @ W_K.T / np.sqrt(attn.head_dim))
    return GateRank(
        attn.head_dim,
        len(made[head]),
        int(np.linalg.matrix_rank(made[head])),
        int(np.linalg.matrix_rank(np.concatenate(made))),
    )


def attention_parts(model: Prompted, block: int, where: str = "attention_parts") -> AttentionParts:
    """Return the parts of a block's attention.

    model  what ``prompt`` returned
    block  index of the block
    where  name of the function that errors are said to come from

    Raises ``InputError`` for another model, where there is no such block, and where its output is not a sum
    over heads of gates times experts.
    """
    check_prompted(model, where)
    layout = layout_of(model)
    found = layout.blocks[_place(f"{where}: block", block, len(layout.blocks))]
    return layout.attention(found.block if isinstance(found, PromptedBlock) else found, f"{where}: block {block}")


def head_of(attn: AttentionParts, head: int, where: str) -> int:
    """Return the index of a head; raise ``InputError``, in the name ``where``, unless the block has it."""
    return _place(f"{where}: head", head, attn.num_heads)


def _place(what: str, value: int, number: int) -> int:
    """Return ``value`` as an int; raise ``InputError`` unless it is one from 0 to ``number`` - 1."""
    found = integer(value)
    if found is None or not 0 <= found < number:
        raise InputError(f"{what} {shown(value)}; expected 0 to {number - 1}")
    return found


def _attention_inputs(model: Prompted, images: Tensor, attentions: Sequence[AttentionParts]) -> list[Tensor]:
    """Return what each attention is given on ``images``: (B, T, d), in the order of the blocks."""
    seen: list[Tensor] = []

    def look(_: Any, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
        seen.append(inputs[0] if inputs else options["hidden_states"])

    hooks = [attn.module.register_forward_pre_hook(look, with_kwargs=True) for attn in attentions]
    training = model.training
    try:
        with torch.no_grad():
            layout_of(model.eval()).forward_features(images)
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return seen


@torch.no_grad()
def _reading(model: Prompted, attn: AttentionParts, tokens: Tensor, head: int, images: Tensor) -> HeadReading:
    layout = layout_of(model)
    grid = layout.grid_of(images)
    # What is neither prefix nor patch: with prompts in the last blocks only, none before those.
    start = layout.num_prefix_tokens
    number = tokens.shape[1] - start - grid[0] * grid[1]
    q, k, v = attn.project(tokens)[:, :, :, head].unbind(dim=2)
    prompts = tokens[:, start : start + number]
    if (prompts == prompts[:1]).all():
        # The same prompts for every image: the rounding of a matrix product depends on the place of a row, so
        # once.
        v = v.clone()
        v[:, start : start + number] = v[:1, start : start + number]
    gates = (attn.q_norm(q) @ attn.k_norm(k).transpose(1, 2) * attn.scale).softmax(dim=-1)
    return HeadReading(gates, v, start, number, grid)

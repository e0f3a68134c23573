"""Small models of each kind, and prompts of each kind, for all tests of this folder."""

from __future__ import annotations

from copy import deepcopy

import torch
from timm.models.vision_transformer import VisionTransformer
from vision_oracle import Oracle

from moe_prompts.vision import VAPT, VPT, prompt, unprompt
from moe_prompts.vision.prompting.prompted import prompt_parameters

CONFIGS = {"VPT-shallow": VPT(3, deep=False), "VPT-deep": VPT(3), "VAPT": VAPT(3, hidden=4)}
KINDS = {
    "cls": {},
    "registers": {"reg_tokens": 2, "no_embed_class": True},
    "average": {"class_token": False, "global_pool": "avg"},
    "average-cls": {"global_pool": "avg"},
    "clip": {"pre_norm": True},
}
CLASSES = 7
WIDTH, DEPTH, HEADS, PATCH = 16, 3, 2, 4


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def plain(grid=(4, 4), seed=0, **options) -> VisionTransformer:
    """float64, every weight random: nothing is hidden behind a zero."""
    sizes = {"patch_size": PATCH, "embed_dim": WIDTH, "depth": DEPTH, "num_heads": HEADS, "mlp_ratio": 2.0}
    arguments = sizes | {"img_size": (grid[0] * PATCH, grid[1] * PATCH), "num_classes": 5} | options
    model = VisionTransformer(**arguments).double()
    randomise(model.parameters(), seed, 0.3)
    return model


def prompted(config, grid=(4, 4), **options):
    """Prompted with random prompts, in evaluation mode."""
    model = prompt(plain(grid, **options), config, CLASSES, rng=rng(1))
    randomise(prompt_parameters(model).values(), 2, 0.5)
    return model.eval()


def images(grid=(4, 4), number=2, seed=3) -> torch.Tensor:
    return torch.randn(number, 3, grid[0] * PATCH, grid[1] * PATCH, generator=rng(seed), dtype=torch.float64)


def randomise(parameters, seed, size) -> None:
    draws = rng(seed)
    with torch.no_grad():
        for parameter in parameters:
            parameter.copy_(size * torch.randn(parameter.shape, generator=draws, dtype=torch.float64))


def oracle_of(model, grid) -> Oracle:
    """The NumPy computation with this model's weights."""
    weights = {name.replace(".block.", "."): value.numpy() for name, value in model.state_dict().items()}
    prompts = {name: value.detach().numpy() for name, value in prompt_parameters(model).items()}
    return Oracle(weights, prompts, model.config, HEADS, model.num_prefix_tokens, grid)


def by_hand(model, batch, prompts_of) -> torch.Tensor:
    """Logits of the plain model's own parts with prompts (B, N, d) = prompts_of(block, patches) put in and taken out.

    Where there are none (None), those of the block before go on.
    """
    parts = unprompt(deepcopy(model))
    start, n = parts.num_prefix_tokens, model.config.num_tokens
    with torch.no_grad():
        x = parts.norm_pre(parts._pos_embed(parts.patch_embed(batch)))
        sequence = x
        for index, block in enumerate(parts.blocks):
            prompts = prompts_of(index, x[:, start:])
            if prompts is not None:
                sequence = torch.cat([x[:, :start], prompts, x[:, start:]], dim=1)
            sequence = block(sequence)
            x = torch.cat([sequence[:, :start], sequence[:, start + n :]], dim=1)
        return model.head(parts.forward_head(parts.norm(x), pre_logits=True))


def train_step(model, batch, lr=0.1) -> None:
    """One step of plain gradient descent on arbitrary labels."""
    model.train()
    labels = torch.arange(len(batch)) % CLASSES
    torch.nn.functional.cross_entropy(model(batch), labels).backward()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter -= lr * parameter.grad
                parameter.grad = None
    model.eval()

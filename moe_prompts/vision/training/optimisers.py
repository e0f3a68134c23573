"""Take steps: SGD with momentum, AdamW and LAMB, for stacked trials (R, ...) and for one model.

With the gradient g of a parameter p, its rate lr and weight decay w,

    sgd    v <- m v + g + w p,                               p <- p - lr v
    adamw  p <- p - lr w p,  a = bias-corrected Adam step,   p <- p - lr a
    lamb   u = a + w p,                                      p <- p - lr (|p| / |u|) u   (1 where a norm is 0)

An inflated gradient moves SGD too far and leaves AdamW and LAMB as they are: they divide by its size. LAMB
also measures each step by the size of the parameter, so that one rate may serve prompts and heads of any
scale; no run of this project says whether it does.

Sources: arXiv 1711.05101 (AdamW), arXiv 1904.00962 (LAMB), arXiv 2203.03466 (rates by sizes).
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from timm.optim import Lamb
from torch import Tensor, nn

from moe_prompts.vision.prompting.weight_decay import decays
from moe_prompts.vision.training.packed import PackedTrials

if TYPE_CHECKING:
    from moe_prompts.vision.training.sgd import Recipe

OPTIMISERS = ("sgd", "adamw", "lamb")
RATES = ("uniform", "mu")
#: Of Adam's second moment, and what is added to its root.
BETA2, EPS = 0.999, 1e-8


def rate_factor(name: str, shape: tuple[int, ...], rule: str) -> float:
    """Return the factor on the learning rate of one parameter.

    With "mu" it is 1 / m for the m terms of the sum that the parameter enters: positions for position
    weights, k^2 for a kernel, d and r for a projector's W1 and W2, and d for the head. A step then changes
    every output by an amount that does not grow with these sizes. Free vectors, biases, gains and scales
    enter alone.

    name   as ``prompt_parameters`` gives it
    shape  of one trial's parameter
    rule   one of ``RATES``
    """
    alone = len(shape) < 2 or name.endswith(("tokens", "offset"))
    if rule == "uniform" or alone:
        return 1.0
    if name.endswith("kernel"):
        return 1 / (shape[-1] * shape[-2])
    return 1 / prod(shape[1:])


class StackedSGD:
    """Update parameters (R, ...) as torch's SGD with momentum does.

    lrs            (R,) learning rates at factor 1, one for each trial
    weight_decays  (R,), applied where the recipe's rule says that a parameter decays
    done           steps taken so far
    """

    def __init__(self, packed: PackedTrials, lrs: Tensor, weight_decays: Tensor, recipe: Recipe) -> None:
        self.momentum, self.done = recipe.momentum, 0
        self.parts = []
        for name, value in packed.named_parts():
            shape = (-1, *[1] * (value.ndim - 1))
            rates = lrs * rate_factor(name, tuple(value.shape[1:]), recipe.rates)
            decay = weight_decays * decays(name, value.ndim - 1, recipe.decay_rule)
            self.parts.append(
                (name, value, self._memory(value), rates.to(value).view(shape), decay.to(value).view(shape))
            )

    def _memory(self, value: Tensor) -> list[Tensor]:
        """Return what is remembered of a parameter from step to step, at first."""
        return [torch.zeros_like(value)]

    @torch.no_grad()
    def step(self, factor: float, waiting: set[str] | frozenset[str] = frozenset()) -> None:
        """Update all parameters once but those whose names are ``waiting``.

        factor  multiplies every learning rate
        """
        self.done += 1
        for name, value, memory, lr, decay in self.parts:
            if name not in waiting:
                assert value.grad is not None
                self._update(value, value.grad, memory, lr, decay, factor)

    def _update(
        self, value: Tensor, gradient: Tensor, memory: list[Tensor], lr: Tensor, decay: Tensor, factor: float
    ) -> None:
        memory[0].mul_(self.momentum).add_(gradient).addcmul_(decay, value)
        value.addcmul_(lr, memory[0], value=-factor)


class StackedAdamW(StackedSGD):
    """Update parameters (R, ...) as torch's AdamW does, with the recipe's momentum as its first beta."""

    def _memory(self, value: Tensor) -> list[Tensor]:
        # First and second moment, and how often this parameter was updated: some join later.
        return [torch.zeros_like(value), torch.zeros_like(value), torch.zeros((), dtype=torch.float64)]

    def _update(
        self, value: Tensor, gradient: Tensor, memory: list[Tensor], lr: Tensor, decay: Tensor, factor: float
    ) -> None:
        value.addcmul_(lr * decay, value, value=-factor)
        value.addcmul_(lr, self._adam(gradient, memory), value=-factor)

    def _adam(self, gradient: Tensor, memory: list[Tensor]) -> Tensor:
        """Return the bias-corrected step before any rate."""
        first, second, updates = memory
        updates += 1
        first.mul_(self.momentum).add_(gradient, alpha=1 - self.momentum)
        second.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
        count = float(updates)
        root = (second / (1 - BETA2**count)).sqrt_().add_(EPS)
        return first / (1 - self.momentum**count) / root


class StackedLAMB(StackedAdamW):
    """Update parameters (R, ...) by LAMB: each trial's array moves by a share of its own norm."""

    def _update(
        self, value: Tensor, gradient: Tensor, memory: list[Tensor], lr: Tensor, decay: Tensor, factor: float
    ) -> None:
        update = self._adam(gradient, memory) + decay * value
        axes = tuple(range(1, value.ndim))
        own, other = (_norm(one, axes) for one in (value, update))
        trust = torch.where((own > 0) & (other > 0), own / other.clamp_min(torch.finfo(other.dtype).tiny), 1.0)
        value.addcmul_(lr, trust * update, value=-factor)


def _norm(value: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Return the norms of the arrays of all trials; arrays of no axis are their own."""
    return value.abs() if not axes else value.square().sum(dim=axes, keepdim=True).sqrt()


def stacked(packed: PackedTrials, lrs: Tensor, weight_decays: Tensor, recipe: Recipe) -> StackedSGD:
    """Return the recipe's optimiser for packed trials."""
    kind = {"sgd": StackedSGD, "adamw": StackedAdamW, "lamb": StackedLAMB}[recipe.optimiser]
    return kind(packed, lrs, weight_decays, recipe)


def torch_optimiser(
    parameters: Iterable[tuple[str, nn.Parameter]], lr: float, weight_decay: float, recipe: Recipe
) -> torch.optim.Optimizer:
    """Return the recipe's optimiser for parameters of one model, given with their names."""
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for name, parameter in parameters:
        key = (
            decays(name, parameter.ndim, recipe.decay_rule),
            rate_factor(name, tuple(parameter.shape), recipe.rates),
        )
        groups.setdefault(key, []).append(parameter)
    options: list[dict[str, Any]] = [
        {"params": own, "lr": lr * factor, "weight_decay": weight_decay if decaying else 0.0}
        for (decaying, factor), own in groups.items()
    ]
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(options, lr=lr, momentum=recipe.momentum)
    betas = (recipe.momentum, BETA2)
    if recipe.optimiser == "adamw":
        return torch.optim.AdamW(options, lr=lr, betas=betas, eps=EPS)
    return Lamb(options, lr=lr, betas=betas, eps=EPS, max_grad_norm=None, always_adapt=True)

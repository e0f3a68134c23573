"""Compute the cross-entropy of prompts and a head on n images, a function of one vector, with derivatives.

    Q(theta) = - sum_i sum_c t_ic log p_c(x_i; theta) + sum_part ridge_part ||theta_part||^2 / 2      nats
    G(theta) = sum_i J_i' (diag p_i - p_i p_i') J_i + ridge,      J_i = d logits_i / d theta

t_ic is 1 at an image's label, or the probability of a class where the labels' law is known. G is the
generalised Gauss-Newton matrix with the softmax Fisher information. The Hessian is G and a part that is 0
where p_i = t_i. Images enter as states at the first block that sees prompts: what comes before does not
depend on theta.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from queue import SimpleQueue
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from moe_prompts.checks import whole
from moe_prompts.errors import InputError
from moe_prompts.vision.prompting.config import VAPT
from moe_prompts.vision.training.packed import PackedTrials, key_of

#: Images that are computed at once.
TOGETHER = 100
#: The share of the softmax Fisher information's trace that the dense Gauss-Newton matrix may leave out.
LEFT_OUT = 0.03


Made = TypeVar("Made")


class _OfStates(nn.Module):
    """Let ``functional_call`` reach ``PackedTrials.of_states``."""

    def __init__(self, trials: PackedTrials) -> None:
        super().__init__()
        self.trials = trials

    def forward(self, states: Tensor, batch_of: Tensor | None) -> Tensor:
        return self.trials.of_states(states, batch_of)


def in_precision(trials: PackedTrials, precision: torch.dtype, trial: int = 0) -> PackedTrials:
    """Return one of the trials on a copy of the frozen model, all of it in another precision.

    Raises ``InputError`` for trials of another kind than prompts or heads.
    """
    if type(trials) is not PackedTrials:
        raise InputError(
            f"in_precision: trials are {type(trials).__name__}; expected PackedTrials, of prompts or heads"
        )
    head = deepcopy(trials.known_head).to(precision) if trials.known_head is not None else trials.classes
    means = None if trials.mean_states is None else [state.to(precision) for state in trials.mean_states]
    model = deepcopy(trials.model).to(precision)
    alone = PackedTrials(model, trials.config, head, [torch.Generator().manual_seed(0)], means).to(precision)
    alone.fill({name: value[trial : trial + 1] for name, value in trials.named_parts()})
    return alone.requires_grad_(False)


def theta_of(trials: PackedTrials) -> Tensor:
    """Return theta (P,) of one trial: its parts in the order of ``named_parts``."""
    return torch.cat([value.detach().reshape(-1) for _, value in trials.named_parts()])


class CrossEntropy:
    """Hold Q for one trial: its value, gradient, Gauss-Newton matrix and products, as the module says.

    trials   one trial in float64, as ``in_precision`` makes it
    states   (n, T, d), what enters its first block with prompts, float64
    targets  (n, C), probabilities of the classes, whose rows sum to 1
    ridge    coefficients by name of a part, as {"head.weight": 1.0}; parts that are not named have none
    steering  precision of what steers steps and decides nothing: the dense Gauss-Newton matrix, the slopes
              of ``steered``, and products with the Hessian that are asked for roughly
    threads   blocks of images that are computed at once; the numbers are the same bits whatever it is

    A vector theta has the trial's parts in the order of ``named_parts``, (P,).

    Raises ``InputError`` for several trials, another precision, targets that are no probabilities, an unknown
    part, prompts that are made from another image, and a head that is learned without a ridge: data that it
    separates have no finite maximum.
    """

    def __init__(
        self,
        trials: PackedTrials,
        states: Tensor,
        targets: Tensor,
        ridge: Mapping[str, float] | None = None,
        steering: torch.dtype = torch.float32,
        threads: int = 1,
    ) -> None:
        self.trials, self.states, self.targets = trials, states, targets
        names = {name: value[0].numel() for name, value in trials.named_parts()}
        _check(trials, states, targets, names, ridge or {})
        self.shapes = {f"trials.parts.{key}": tuple(value.shape[1:]) for key, value in trials.parts.items()}
        self.ridge = torch.cat([states.new_full((size,), (ridge or {}).get(name, 0.0)) for name, size in names.items()])
        self.sizes = list(names.values())
        # More threads than blocks would find nothing to do.
        self.threads = min(whole(threads, 1, "CrossEntropy: threads"), max(1, -(-len(states) // TOGETHER)))
        self._modules = _for_threads(trials, self.threads)
        rough = trials if steering == torch.float64 else in_precision(trials, steering)
        self._steering = _for_threads(rough, self.threads)
        self._steering_states = states.to(steering)

    @property
    def n(self) -> int:
        """Return the number of images."""
        return len(self.states)

    def start(self) -> Tensor:
        """Return theta (P,) of the trial as it was given."""
        return theta_of(self.trials)

    def fitted(self, vector: Tensor) -> PackedTrials:
        """Return the trial with theta in place of its own."""
        made = deepcopy(self.trials)
        parts = self._parts(vector)
        made.fill({name: parts[f"trials.parts.{key_of(name)}"] for name, _ in made.named_parts()})
        return made

    def logits(self, vector: Tensor, states: Tensor) -> Tensor:
        """Return the logits (B, C) of states (B, T, d)."""
        with sdpa_kernel(SDPBackend.MATH):
            return self._logits(self._modules[0], vector, states)

    def value(self, vector: Tensor) -> float:
        """Return Q in nats."""

        def of_block(module: _OfStates, states: Tensor, targets: Tensor) -> float:
            with torch.no_grad():
                return float(self._loss(module, vector, states, targets))

        return sum(self._of_blocks(of_block)) + self._penalty(vector)

    def value_and_gradient(self, vector: Tensor) -> tuple[float, Tensor]:
        """Return Q in nats, and its gradient (P,)."""
        return self._value_and_gradient(vector, False)

    def steered(self, vector: Tensor) -> tuple[float, Tensor]:
        """Return Q and its gradient in float64, computed in the precision of steering.

        In single precision it takes about half of the time. Its rounding is of the order of 1e-6 nats for
        each image, so that it may propose a step, but not say that one is taken.
        """
        return self._value_and_gradient(vector, True)

    def _value_and_gradient(self, vector: Tensor, roughly: bool) -> tuple[float, Tensor]:
        def of_block(module: _OfStates, states: Tensor, targets: Tensor) -> tuple[float, Tensor]:
            theta = vector.detach().to(states.dtype).clone().requires_grad_(True)
            loss = self._loss(module, theta, states, targets)
            return loss.item(), torch.autograd.grad(loss, theta)[0]

        total, gradient = self._penalty(vector), self.ridge * vector
        for value, slope in self._of_blocks(of_block, roughly):
            total, gradient = total + value, gradient + slope
        return total, gradient

    def hessian_product(self, vector: Tensor, direction: Tensor, roughly: bool = False) -> Tensor:
        """Return H v (P,), the exact Hessian times a direction, in float64.

        roughly  computed in the precision of steering, for steps and not for certificates
        """

        def of_block(module: _OfStates, states: Tensor, targets: Tensor) -> Tensor:
            theta = vector.detach().to(states.dtype).clone().requires_grad_(True)
            # Backwards twice: forwards over backwards gives the same digits in one and a half times the time.
            slope = torch.autograd.grad(self._loss(module, theta, states, targets), theta, create_graph=True)[0]
            return torch.autograd.grad(slope @ direction.to(slope), theta)[0]

        product = self.ridge * direction
        for part in self._of_blocks(of_block, roughly):
            product = product + part
        return product

    def gauss_newton_product(self, vector: Tensor, direction: Tensor) -> Tensor:
        """Return G v (P,), without a matrix."""

        def of_block(module: _OfStates, states: Tensor, targets: Tensor) -> Tensor:
            theta = vector.detach().clone().requires_grad_(True)
            logits = self._logits(module, theta, states)
            p = logits.detach().softmax(dim=-1)
            # J'u is linear in u, so that its gradient along v is J v: no need of a pass forwards.
            u = torch.zeros_like(p).requires_grad_(True)
            turned = torch.autograd.grad(logits, theta, u, create_graph=True)[0]
            moved = torch.autograd.grad(turned @ direction, u, retain_graph=True)[0]
            weighted = p * (moved - (p * moved).sum(dim=-1, keepdim=True))
            return torch.autograd.grad(logits, theta, weighted)[0]

        product = self.ridge * direction
        for part in self._of_blocks(of_block):
            product = product + part
        return product

    def jacobian(self, vector: Tensor, cotangents: Callable[[Tensor], Tensor]) -> Iterator[Tensor]:
        """Yield the rows u'J_i of all images, blocks (B, K, P) in the precision of steering.

        cotangents  from logits (B, C) to K vectors u for each image, (B, K, C)
        """

        def of_block(module: _OfStates, states: Tensor, targets: Tensor) -> Tensor:
            # A copy of the parameters for each image: the gradient of a copy is that of its image alone.
            copies = vector.to(states.dtype).expand(len(states), -1).clone().requires_grad_(True)
            own = torch.arange(len(states), device=states.device)
            found = functional_call(module, self._parts(copies), (states[:, None], own))[:, 0]
            turned = cotangents(found.detach())
            count = turned.shape[1]
            rows = [
                torch.autograd.grad(found, copies, turned[:, k], retain_graph=k + 1 < count)[0] for k in range(count)
            ]
            return torch.stack(rows, dim=1)

        yield from self._of_blocks(of_block, True)

    def gauss_newton(self, vector: Tensor, left_out: float = LEFT_OUT) -> Tensor:
        """Return G (P, P) from the Jacobian of every image, in blocks.

        left_out  share of the trace of the softmax Fisher information that may be left out of a block: its
                  smallest eigenvalues go first, and the others are as they are
        """
        total = self._steering_states.new_zeros(len(self.ridge), len(self.ridge))
        for rows in self.jacobian(vector, lambda logits: fisher_factors(logits, left_out)):
            flat = rows.flatten(0, 1)
            total.addmm_(flat.T, flat)
        return total.double() + torch.diag(self.ridge)

    def gauss_newton_diagonal(self, vector: Tensor) -> Tensor:
        """Return the diagonal (P,) of G."""
        total = self.ridge.clone()
        for rows in self.jacobian(vector, fisher_factors):
            total += rows.double().square().sum(dim=(0, 1))
        return total

    def _logits(self, module: _OfStates, vector: Tensor, states: Tensor) -> Tensor:
        return functional_call(module, self._parts(vector), (states, None))[0]

    def _loss(self, module: _OfStates, vector: Tensor, states: Tensor, targets: Tensor) -> Tensor:
        return -(targets * self._logits(module, vector, states).double().log_softmax(dim=-1)).sum()

    def _penalty(self, vector: Tensor) -> float:
        return float((self.ridge * vector.detach() ** 2).sum()) / 2

    def _of_blocks(self, work: Callable[[_OfStates, Tensor, Tensor], Made], roughly: bool = False) -> Iterator[Made]:
        """Yield what ``work`` makes of every block of images, in the order of the blocks whatever the threads.

        work     of a module, states and targets
        roughly  states and module in the precision of steering
        """
        states, modules = (self._steering_states, self._steering) if roughly else (self.states, self._modules)
        blocks = zip(states.split(TOGETHER), self.targets.split(TOGETHER), strict=True)
        # Which kernels attention may take is a state of the process, so it is set once for all threads.
        with sdpa_kernel(SDPBackend.MATH):
            if self.threads == 1:
                yield from (work(modules[0], *block) for block in blocks)
                return
            # A module holds the parameters of a call while it runs, so that no two calls may share one.
            free: SimpleQueue[_OfStates] = SimpleQueue()
            for module in modules:
                free.put(module)

            def on_a_free_one(block: tuple[Tensor, Tensor]) -> Made:
                module = free.get()
                try:
                    return work(module, *block)
                finally:
                    free.put(module)

            with ThreadPoolExecutor(self.threads) as pool:
                yield from pool.map(on_a_free_one, blocks)

    def _parts(self, vectors: Tensor) -> dict[str, Tensor]:
        """Return the parts (R, ...) of R vectors (R, P), or of one (P,)."""
        rows = vectors if vectors.ndim == 2 else vectors[None]
        pieces = zip(self.shapes.items(), rows.split(self.sizes, dim=1), strict=True)
        return {name: piece.unflatten(1, shape) if shape else piece[:, 0] for (name, shape), piece in pieces}


def _for_threads(trials: PackedTrials, threads: int) -> list[_OfStates]:
    """Return a module for each thread; they share the frozen model, which no call changes."""
    shared = {id(trials.model): trials.model}
    return [_OfStates(trials), *(_OfStates(deepcopy(trials, dict(shared))) for _ in range(1, threads))]


def fisher_factors(logits: Tensor, left_out: float = 0.0) -> Tensor:
    """Return the largest factors u (B, K, C) of diag p - p p' = sum_k u_k u_k', p = softmax of logits (B, C).

    left_out  share of the trace, over all B, that may be left out; K is the smallest number that does it
    """
    p = logits.double().softmax(dim=-1)
    size, basis = torch.linalg.eigh(torch.diag_embed(p) - p[:, :, None] * p[:, None, :])
    size, basis = size.clamp(min=0).flip(-1), basis.flip(-1)
    kept = size.sum(dim=0).cumsum(dim=0) / size.sum().clamp(min=1e-300)
    # The last eigenvalue is 0: a shift of all logits changes nothing.
    count = min(int((kept < 1 - left_out).sum()) + 1, logits.shape[1] - 1)
    return (basis * size.sqrt()[:, None]).transpose(1, 2)[:, :count].to(logits.dtype)


def _check(
    trials: PackedTrials, states: Tensor, targets: Tensor, names: Mapping[str, int], ridge: Mapping[str, float]
) -> None:
    if trials.n_trials != 1 or states.dtype != torch.float64 or targets.dtype != torch.float64:
        raise InputError(
            f"CrossEntropy: {trials.n_trials} trials, states in {states.dtype}, targets in {targets.dtype}; expected "
            "one trial in float64: cross_entropy.in_precision(trials, torch.float64)"
        )
    if isinstance(trials.config, VAPT) and trials.config.source == "another":
        raise InputError("CrossEntropy: prompts from another image; expected images that stand alone")
    sums = targets.sum(dim=-1) if targets.ndim == 2 and len(targets) == len(states) else states.new_zeros(1)
    if not torch.allclose(sums, torch.ones_like(sums)) or bool((targets < 0).any()):
        raise InputError(
            f"CrossEntropy: targets of shape {tuple(targets.shape)} for {len(states)} images; expected probabilities "
            "(n, C) whose rows sum to 1"
        )
    for name, value in ridge.items():
        if name not in names or not value >= 0:
            raise InputError(f"CrossEntropy: ridge {name} = {value}; expected at least 0, of {', '.join(names)}")
    if "head.weight" in names and not ridge.get("head.weight", 0.0) > 0:
        raise InputError(
            "CrossEntropy: a head is learned without a ridge, and data that it separates have no finite maximum; "
            'expected one, as ridge={"head.weight": 1.0}, which is a part of the objective'
        )

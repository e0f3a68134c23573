"""Keep the truths that users add, by name: looked up by their model, carried to the workers of a study.

``moe_prompts.add_truth`` is the door; a study that uses added truths takes them along (``knowing``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from moe_prompts.checks import named
from moe_prompts.models import activations
from moe_prompts.models.activations import BUILT_IN, Activation

T = TypeVar("T")

#: Truths by name, of all models together: one name is one address of data.
ADDED: dict[str, Any] = {}


def added(name: str, kind: type[T]) -> T | None:
    """Return the truth that was added under ``name`` if it is of the class ``kind``, else None."""
    found = ADDED.get(named(name, "truth"))
    return found if isinstance(found, kind) else None


@dataclass(frozen=True)
class Knowing:
    """Run the cells of a study where its added truths may be unknown: in a process that another one started.

    func         what the study runs, called with (cell, replicates, entropy)
    truths       the added truths of the study
    activations  every added activation: kinds of prompts name them
    """

    func: Callable[..., Any]
    truths: tuple[Any, ...]
    activations: tuple[Activation, ...]

    def __call__(self, cell: Any, replicates: tuple[int, ...], entropy: int) -> Any:
        for activation in self.activations:
            activations.ACTIVATIONS.setdefault(activation.name, activation)
        for one in self.truths:
            ADDED.setdefault(one.name, one)
        return self.func(cell, replicates, entropy)


def knowing(func: Callable[..., Any], names: Iterable[str]) -> Callable[..., Any]:
    """Return ``func`` with what was added: the truths among ``names``, and all activations.

    Where nothing was added it is ``func`` itself.
    """
    truths = tuple(ADDED[name] for name in names if name in ADDED)
    sigmas = tuple(one for name, one in activations.ACTIVATIONS.items() if name not in BUILT_IN)
    return Knowing(func, truths, sigmas) if truths or sigmas else func

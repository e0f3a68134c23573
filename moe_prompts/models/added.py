"""Keep the truths that users add, by name: looked up by their model, carried to the workers of a study.

``moe_prompts.add_truth`` is the door; a study that uses added truths takes them along (``knowing``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, TypeVar

import numpy as np

from moe_prompts.checks import named
from moe_prompts.errors import InputError
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
            known = activations.ACTIVATIONS.setdefault(activation.name, activation)
            if not activations.same_activation(known, activation):
                raise _other("activation", activation.name)
        for one in self.truths:
            if not same_contents(ADDED.setdefault(one.name, one), one):
                raise _other("truth", one.name)
        return self.func(cell, replicates, entropy)


def _other(what: str, name: str) -> InputError:
    # Workers that outlive a command keep data and truths by their names, so a name cannot change what it
    # means.
    return InputError(
        f"this process knows another {what} named {name!r}, of a study that it ran before; expected a new name, or "
        "workers that are started anew"
    )


def same_contents(one: Any, other: Any) -> bool:
    """Return whether two values are the same: numbers, arrays, and dataclasses and tuples of them.

    A copy that was sent to another process is.
    """
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        return one.shape == other.shape and bool(np.array_equal(one, other))
    if isinstance(one, Activation):
        return activations.same_activation(one, other)
    if is_dataclass(one):
        return all(same_contents(getattr(one, field.name), getattr(other, field.name)) for field in fields(one))
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(same_contents, one, other))
    return bool(one == other)


def knowing(func: Callable[..., Any], names: Iterable[str]) -> Callable[..., Any]:
    """Return ``func`` with what was added: the truths among ``names``, and all activations.

    Where nothing was added it is ``func`` itself.
    """
    truths = tuple(ADDED[name] for name in names if name in ADDED)
    sigmas = tuple(one for name, one in activations.ACTIVATIONS.items() if name not in BUILT_IN)
    return Knowing(func, truths, sigmas) if truths or sigmas else func

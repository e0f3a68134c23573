"""Turn a grid of cells into a tidy table, with addressed seeds, resumable blocks and any executor.

Called as a function, ``moe_prompts.study(truth, seed=0)`` measures the rates of one truth in one call: it is
``moe_prompts.studies.study``. The part of the package and the function share their name, so the module itself
can be called, whichever of the two was imported first.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    """Make the module a function as well; Python allows a module's class to be replaced."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return import_module("moe_prompts.studies").study(*arguments, **options)


sys.modules[__name__].__class__ = _Callable

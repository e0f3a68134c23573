"""Choose the route of numerical loops, compiled by numba or in NumPy, and compile them.

The environment variable ``MOE_PROMPTS_PASSES`` is ``compiled`` (the default) or ``numpy``. Without numba the
route is NumPy, which a warning says once. Compiled code is kept on disk where numba can write (beside the
sources, or in the user's cache folder, or in ``NUMBA_CACHE_DIR``). Elsewhere each process compiles again,
which is said once too. Both routes give the same numbers up to rounding, and each gives the same to the last
bit with any number of workers and any state of that cache.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from moe_prompts.errors import InputError

VARIABLE = "MOE_PROMPTS_PASSES"
ROUTES = ("compiled", "numpy")


def route() -> str:
    """Return the route of loops that are begun now: "compiled" or "numpy".

    Raises ``InputError`` where the variable names neither.
    """
    asked = os.environ.get(VARIABLE, ROUTES[0])
    if asked not in ROUTES:
        raise InputError(f"{VARIABLE} = {asked!r}; expected compiled or numpy")
    if asked == "compiled" and not _installed():
        return "numpy"
    return asked


@cache
def _installed() -> bool:
    if find_spec("numba") is not None:
        return True
    warnings.warn(
        "numba is not installed: fits take the NumPy route, several times slower; pip install numba", stacklevel=2
    )
    return False


def kernels(module: str) -> ModuleType | None:
    """Return the module of compiled loops, or None on the NumPy route.

    It is compiled, or loaded from disk, on the first call.
    """
    return import_module(module) if route() == "compiled" else None


def compiled(signature: str) -> Callable[[Callable], Any]:
    """Return a decorator that compiles for this one signature, at once.

    Compiled functions release the interpreter's lock while they run. The result is kept on disk where that is
    possible. Use it in modules that ``kernels`` loads.
    """
    from numba import njit

    def decorate(function: Callable) -> Any:
        try:
            return njit(signature, cache=True, nogil=True)(function)
        except (OSError, RuntimeError) as error:  # numba: RuntimeError where no folder can be written, else OSError
            if isinstance(error, RuntimeError) and "cannot cache" not in str(error):
                raise
            _say_uncached(str(error))
            return njit(signature, nogil=True)(function)

    return decorate


@cache
def _say_uncached(reason: str) -> None:
    warnings.warn(
        f"compiled loops are not kept on disk ({reason}), so each process compiles them again; set NUMBA_CACHE_DIR to "
        "a folder that you may write to",
        stacklevel=3,
    )

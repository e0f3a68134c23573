"""Load the public names of a package when they are first asked for, so that its import is cheap."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def loaded(
    package: str, names: Mapping[str, str], modules: Mapping[str, str] | None = None, extra: str = ""
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return ``__getattr__`` and ``__dir__`` of a package, which load a name on first use and then keep it.

    package  its dotted name
    names    public name -> module below the package that holds it
    modules  public name -> module below the package that it is
    extra    extra of this project that the package needs: a missing library is then told with its command

    The functions raise ``AttributeError`` for other names, and ``ModuleNotFoundError`` where a library is
    not installed.

    >>> load, names = loaded("moe_prompts", {"InputError": "errors"})
    >>> load("InputError").__name__, "InputError" in names()
    ('InputError', True)
    """
    modules = modules or {}

    def load(name: str) -> Any:
        if name not in names and name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            found = import_module(f"{package}.{names.get(name, modules.get(name))}")
        except ModuleNotFoundError as error:
            if not extra:
                raise
            raise ModuleNotFoundError(
                f"{package}.{name} needs {error.name}, which is not installed; try: "
                f'pip install -e ".[{extra}]" -c requirements.lock',
                name=error.name,
            ) from error
        value = getattr(found, name) if name in names else found
        setattr(sys.modules[package], name, value)
        return value

    def known() -> list[str]:
        return sorted({*names, *modules, *getattr(sys.modules[package], "__all__", ())})

    return load, known

"""What is learned: VTAB-1K and FGVC from folders, and procedural stand-ins that need no download.

task        Task, ImageSet, Pixels, Subset: splits of labelled images, as training sees them
vtab, fgvc  from folders of images; ``check`` says what is wrong with them; ``images`` decodes and keeps them
procedural  drawn by formula from addressed seeds
subsets     stratified, nested
named       tasks by name, as command lines know them
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_PUBLIC = {
    "vtab_task": "vtab",
    "fgvc_task": "fgvc",
    "procedural_task": "procedural",
    "fresh": "procedural",
    "stratified_subset": "subsets",
    "TaskSpec": "named",
}

__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

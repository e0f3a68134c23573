"""Read settings that were tuned before, from the file of a run or the one that comes with the package."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from moe_prompts.errors import InputError

#: Names the file that comes with the package.
SHIPPED = "shipped"
T = TypeVar("T")


@dataclass(frozen=True)
class TunedFile:
    """Name a file of tuned settings.

    option   the command's option that gave it, for errors
    source   a path, or "shipped"
    name     what runs call such a file
    shipped  name of the file that comes with the package
    """

    option: str
    source: str
    name: str
    shipped: str

    def __str__(self) -> str:
        return f"{self.option} {self.source}"

    def read(self, take: Callable[[dict[str, Any]], T]) -> T:
        """Return what ``take`` finds in the content of the file.

        Raises ``InputError`` if there is no file, or none that a run wrote.
        """
        shipped = resources.files("moe_prompts.vision") / "data" / self.shipped
        try:
            content = (shipped if self.source == SHIPPED else Path(self.source)).read_bytes()
        except OSError as error:
            raise InputError(f"{self}: {error.strerror}; expected the {self.name} of a run") from error
        try:
            return take(json.loads(content))
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
            raise InputError(f"{self}: not written by a run ({error!r}); expected its {self.name}") from error


def differing(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Return, in words, where the case of a file differs from that of this run.

    A key that only one of the two has is told "as usual" for the other, which leaves out what has its usual
    value.
    """

    def told(case: Mapping[str, Any], key: str) -> str:
        return f"{case[key]}" if key in case else "as usual"

    keys = [key for key in {**there, **here} if there.get(key) != here.get(key)]
    return [f"{key} {told(there, key)} there, {told(here, key)} here" for key in keys]

"""Settings that were tuned before, as JSON: what a run chose, for which backbone and prompts, and how to get it again.

``run_plan`` chooses them; ``settings.json`` of a run can be given to another one, which then does not tune.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any

from moe_prompts.errors import InputError
from moe_prompts.vision.protocol import Place
from moe_prompts.vision.training import Setting

Chosen = dict[tuple[str, str], Setting]
#: The settings that come with the package, on the small backbone.
SHIPPED = "shipped"


def as_json(chosen: Mapping[tuple[str, str], Setting | None], place: Place, command: list[str]) -> str:
    """What ``settings.json`` holds; pairs without a sound setting are left out."""
    rows = [
        {"task": task, "method": method, **asdict(setting)}
        for (task, method), setting in chosen.items()
        if setting is not None
    ]
    head = {
        "backbone": place.backbone,
        "sizes": asdict(place.sizes),
        "recipe": asdict(place.recipe),
        "command": command,
    }
    lines = ",\n".join("    " + json.dumps(row) for row in rows)
    return json.dumps(head, indent=2)[:-2] + f',\n  "settings": [\n{lines}\n  ]\n}}\n'


def read_settings(source: str, place: Place) -> Chosen:
    """Settings by task and method from a file, or ``shipped``; raises if they belong to another backbone or prompts."""
    if source == SHIPPED:
        text = (resources.files("moe_prompts.vision") / "data" / "tuned.json").read_text(encoding="utf-8")
    else:
        try:
            text = Path(source).read_text(encoding="utf-8")
        except OSError as error:
            raise InputError(f"--settings {source}: {error.strerror}; expected the settings.json of a run") from error
    try:
        content: dict[str, Any] = json.loads(text)
        found = {"backbone": content["backbone"], "sizes": content["sizes"], "batch": content["recipe"]["batch"]}
        chosen = {(row["task"], row["method"]): Setting(row["lr"], row["weight_decay"]) for row in content["settings"]}
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise InputError(
            f"--settings {source}: not written by a run ({error!r}); expected its settings.json"
        ) from error
    wanted = {"backbone": place.backbone, "sizes": asdict(place.sizes), "batch": place.recipe.batch}
    if found != wanted:
        differing = ", ".join(
            f"{key} {found[key]} there, {wanted[key]} here" for key in wanted if found[key] != wanted[key]
        )
        raise InputError(
            f"--settings {source} were tuned for another case ({differing}); tune again without --settings"
        )
    return chosen

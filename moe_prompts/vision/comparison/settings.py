"""Keep the settings that a run tuned, as JSON: what it chose, for which backbone, and by which command.

``run_plan`` chooses them; ``settings.json`` of a run can be given to another one, which then does not tune.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from moe_prompts.errors import InputError
from moe_prompts.vision.comparison.plan import Plan
from moe_prompts.vision.training.sgd import Setting
from moe_prompts.vision.training.tuned import TunedFile, differing

Chosen = dict[tuple[str, str], Setting]


def as_json(chosen: Mapping[tuple[str, str], Setting | None], plan: Plan, command: list[str]) -> str:
    """Return the content of ``settings.json``: the settings that this plan tuned.

    Those that it was given stay where they came from.
    """
    rows = [
        {"task": task, "method": method, **asdict(setting)}
        for (task, method), setting in chosen.items()
        if setting is not None and (task, method) not in (plan.given or {})
    ]
    head = {"command": command, "case": case(plan), "tasks": plan.facts, "seed": plan.entropy}
    lines = ",\n".join("    " + json.dumps(row) for row in rows)
    return json.dumps(head, indent=2)[:-2] + f',\n  "settings": [\n{lines}\n  ]\n}}\n'


def case(plan: Plan) -> dict[str, Any]:
    """Return what tuned settings belong to; the device, and how many trials train at once, do not matter."""
    return {key: value for key, value in plan.place.items() if key not in ("device", "pack")}


def read_settings(source: str, plan: Plan) -> Chosen:
    """Return settings by task and method from a file, or the one that comes with the package ("shipped").

    Only those for the tasks and methods of the plan are returned. Raises ``InputError`` if they were tuned on
    another backbone, with other prompts, another recipe or other data.
    """
    file = TunedFile("--settings", source, "settings.json", shipped="tuned.json")
    facts = plan.facts

    def take(content: dict[str, Any]) -> tuple[Chosen, list[str]]:
        rows = {(row["task"], row["method"]): Setting(row["lr"], row["weight_decay"]) for row in content["settings"]}
        tasks = content["tasks"]
        others = [f"other data of {name}" for name in facts if name in tasks and tasks[name] != facts[name]]
        return rows, [*differing(content["case"], case(plan)), *others]

    rows, others = file.read(take)
    if others:
        raise InputError(f"{file} were tuned for another case ({'; '.join(others)}); tune again without --settings")
    return {(task.name, method): rows[task.name, method] for task, method in plan.pairs if (task.name, method) in rows}

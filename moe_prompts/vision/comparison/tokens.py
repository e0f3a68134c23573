"""Read the numbers of tokens that methods get: one for all tasks, or one for each.

10          every task has as many
published   those of VPT-deep, which its authors chose by validation for each task
FILE.json   an object with a number for each task: {"dtd": 10, "cifar": 10}

A file, and "published", may name more tasks than a run has, so that several runs share it.

Source of "published": arXiv 2203.12119 for VTAB-1K (the column ``prompt_length`` of its published table); the
configuration of Adapter+ (arXiv 2406.06820, ``conf/experiment/fgvc/vpt.yaml``) for FGVC, whose numbers for
VTAB-1K are the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from moe_prompts.checks import shown
from moe_prompts.errors import InputError
from moe_prompts.vision.comparison.report import published, published_fgvc
from moe_prompts.vision.tasks.named import task_names

#: What stands for the published numbers.
PUBLISHED = "published"
#: More tokens than any backbone has room for.
MOST = 10**6


def published_tokens() -> dict[str, int]:
    """Return the published number of tokens of each task of VTAB-1K and FGVC."""
    tables = (published(), published_fgvc())
    return {str(task): int(number) for table in tables for task, number in table["prompt_length"].items()}


def read_tokens(text: str, tasks: Sequence[str]) -> int | dict[str, int]:
    """Return the number of tokens for all tasks, or the numbers by task.

    text   of the option ``--tokens``
    tasks  names of the tasks that run

    Raises ``InputError`` for a number below 1, for a file that is no such object, that lacks a task of the
    run or names something that is no task.
    """
    if re.fullmatch(r"[+-]?\d{1,20}", text):
        return _whole(int(text), f"--tokens {text}")
    if text == PUBLISHED:
        found, source = published_tokens(), "--tokens published"
    else:
        found, source = _from_file(text), f"--tokens {text}"
    missing = [task for task in tasks if task not in found]
    if missing:
        raise InputError(f"{source}: no number for {missing[0]}; expected one for each task of the run")
    return found


def _from_file(text: str) -> dict[str, int]:
    twice: list[str] = []

    def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
        names = [name for name, _ in pairs]
        twice.extend(name for name in names if names.count(name) > 1)
        return dict(pairs)

    try:
        content = json.loads(Path(text).read_text(encoding="utf-8"), object_pairs_hook=once)
    except OSError as error:
        raise InputError(
            f"--tokens {text}: {error.strerror}; expected a whole number, published, or a file of JSON such as "
            '{"dtd": 10, "cifar": 5}'
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f'--tokens {text}: no JSON; expected an object such as {{"dtd": 10, "cifar": 5}}') from error
    if twice:
        raise InputError(f"--tokens {text}: {shown(twice[0])} stands there twice; expected one number for each task")
    if not isinstance(content, dict) or not content:
        raise InputError(f'--tokens {text}: expected an object such as {{"dtd": 10, "cifar": 5}}')
    for task, number in content.items():
        try:
            known = task_names(task, stand_ins=True) == [task]
        except InputError:
            known = False
        if not known:
            raise InputError(f"--tokens {text}: {shown(task)} is no task; expected names such as dtd or fgvc:cub")
        _whole(number, f"--tokens {text}: {task}")
    return content


def _whole(number: object, what: str) -> int:
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= MOST:
        raise InputError(f"{what} has {shown(number)} tokens; expected a whole number from 1 to {MOST}")
    return number

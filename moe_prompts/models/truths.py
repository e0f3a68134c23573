"""Make a truth of any model known by its name: ``add_truth``."""

from __future__ import annotations

import re
from typing import TypeVar

from moe_prompts.checks import expect
from moe_prompts.errors import InputError
from moe_prompts.models import expert_truths, prompt_truths
from moe_prompts.models.added import ADDED
from moe_prompts.models.expert_truths import ExpertTruth
from moe_prompts.models.gaussian_truths import TRUTHS, Truth
from moe_prompts.models.prompt_truths import PromptTruth
from moe_prompts.models.softmax_truths import SOFTMAX_TRUTHS, SoftmaxTruth

AnyTruth = TypeVar("AnyTruth", Truth, PromptTruth, SoftmaxTruth, ExpertTruth)

#: Names stand in the names of files, and between other parts of a block's name.
NAME, LONGEST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*"), 64


def add_truth(new: AnyTruth) -> AnyTruth:
    """Make ``new`` known by its name to the functions of its model and to studies, and return it.

    new  a ``Truth`` (Gaussian gates: ``truth``, ``sample``), a ``PromptTruth`` (``prompt_truth``,
         ``prompt_data``), a ``SoftmaxTruth`` (``softmax_truth``, ``softmax_sample``) or an ``ExpertTruth``
         of regression by gated experts (``models.expert_truths``: ``expert_truth``, ``expert_data``)

    A study made afterwards takes its added truths, and added activations, along to its workers, whatever the
    executor.

    Raises ``InputError`` where ``new`` is no truth, or its name is taken by a truth of any model (upper and
    lower case are one: some file systems do not tell them apart), longer than 64 characters, or not made of
    letters, digits, '.' and '-' after a letter or digit.

    >>> from dataclasses import replace
    >>> import moe_prompts as mp
    >>> mine = mp.add_truth(replace(mp.truth("gmoe-1"), name="example-of-mine"))
    >>> mp.sample("example-of-mine", n=50, seed=0).n
    50
    """
    if not isinstance(new, Truth | PromptTruth | SoftmaxTruth | ExpertTruth):
        raise InputError(
            f"add_truth: got {type(new).__name__}; expected a Truth, a PromptTruth, a SoftmaxTruth or an ExpertTruth"
        )
    name = new.name
    if not isinstance(name, str) or not NAME.fullmatch(name) or len(name) > LONGEST:
        raise InputError(
            f"the name of a truth {name!r}; expected letters, digits, '.' and '-' after a letter or digit, at most "
            f"{LONGEST} characters: it stands in names of files"
        )
    if _taken(name):
        raise InputError(f"the name of a truth {name!r} is taken; expected a new one: it is the address of the data")
    ADDED[name] = new
    return new


def add_prompt_truth(new: PromptTruth) -> PromptTruth:
    """Make a truth of prompt regression known by its name, and return it.

    ``add_truth`` does the same for the truths of every model.

    new  the truth; its name is how commands and studies find it

    Raises ``InputError`` where ``new`` is no ``PromptTruth``, and where ``add_truth`` does.

    >>> import dataclasses
    >>> import moe_prompts as mp
    >>> mine = dataclasses.replace(mp.prompt_truth("attention-fixed"), name="quieter", noise=0.01)
    >>> mp.add_prompt_truth(mine).name
    'quieter'
    >>> mp.prompt_truth("quieter").noise
    0.01
    """
    expect(new, PromptTruth, "add_prompt_truth")
    return add_truth(new)


def _taken(name: str) -> bool:
    """Return whether a truth of any model has this name, in upper or lower case."""
    folded = name.casefold()
    known = {one.casefold() for one in (*ADDED, *TRUTHS, *SOFTMAX_TRUTHS)}
    return folded in known or prompt_truths.names_one(folded) or expert_truths.names_one(folded)

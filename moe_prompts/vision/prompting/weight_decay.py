"""Say which parameters have weight decay: one rule for prompts, for packed trials, and for whole backbones.

no_decay  arrays with more than one axis decay; norms, biases and scales, which have one axis or none, do not
official  everything decays but the bias of the head, as in the published code
matrices  like ``no_decay``, and the class token and the position embeddings of a backbone do not decay either

Source of ``official``: the optimisers of the code of arXiv 2203.12119 and 2501.18936.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from moe_prompts.checks import real
from moe_prompts.errors import InputError

RULES = ("no_decay", "official", "matrices")
#: Parameters of a backbone that are no matrices, though they have several axes.
TOKENS = ("cls_token", "reg_token", "pos_embed")


def decays(name: str, axes: int, rule: str) -> bool:
    """Return whether a parameter has weight decay.

    name  dotted, as ``named_parameters`` and ``prompt_parameters`` give it
    axes  number of its axes; of stacked parameters (R, ...) those of one trial
    rule  one of ``RULES``

    Raises ``InputError`` for another rule.
    """
    if rule not in RULES:
        raise InputError(f"weight decay: rule {rule!r}; expected one of {', '.join(map(repr, RULES))}")
    if rule == "official":
        return name != "head.bias"
    return axes > 1 and not (rule == "matrices" and name.rpartition(".")[2] in TOKENS)


def decay_groups(
    parameters: Iterable[tuple[str, nn.Parameter]], weight_decay: float, rule: str
) -> list[dict[str, Any]]:
    """Return the two groups of a torch optimiser: parameters that decay, then those that do not.

    parameters    with their names
    weight_decay  of the first group, at least 0; the second one has 0
    rule          one of ``RULES``

    Raises ``InputError`` for another rule, and for a weight decay that is negative or not finite.
    """
    weight_decay = real(weight_decay, "[0, inf)", "weight_decay")
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, parameter in parameters:
        groups[decays(name, parameter.ndim, rule)].append(parameter)
    return [
        {"params": groups[True], "weight_decay": weight_decay},
        {"params": groups[False], "weight_decay": 0.0},
    ]

"""Speak with one voice about bad input: what was given, what was expected, what to try."""

from __future__ import annotations


class InputError(ValueError):
    """Say that input cannot be used; the message is one line that a command may print as it stands.

    >>> import moe_prompts as mp
    >>> try:
    ...     mp.truth("gmoe-9")
    ... except mp.InputError as error:
    ...     print(str(error).split(";")[0])
    unknown truth 'gmoe-9'
    """

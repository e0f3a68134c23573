"""Speak with one voice about bad input: what was given, what was expected, what to try."""

from __future__ import annotations

#: What would end a line.
BREAKS = {ord(sign): repr(sign)[1:-1] for sign in "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"}


class InputError(ValueError):
    """Say that input cannot be used; the message is one line that a command may print as it stands.

    A name with a line break in it, such as that of a folder, shows the break as an escape.

    >>> import moe_prompts as mp
    >>> try:
    ...     mp.truth("gmoe-9")
    ... except mp.InputError as error:
    ...     print(str(error).split(";")[0])
    unknown truth 'gmoe-9'
    """

    def __str__(self) -> str:
        return super().__str__().translate(BREAKS)

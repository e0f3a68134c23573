"""One voice for bad input: what was given, what was expected, what to try."""

from __future__ import annotations


class InputError(ValueError):
    """Input that cannot be used; the message is one line that a command may print as it stands."""

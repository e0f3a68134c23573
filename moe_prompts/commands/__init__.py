"""Hold what the commands do: ``moe-prompts NAME`` and ``python experiments/NAME.py`` call the same functions.

A module here parses its options, calls the library and prints what it found. ``console`` finds the module of a name.
"""

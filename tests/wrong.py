"""Wrong arguments of every kind, and what a call makes of them."""

import signal
from pathlib import Path

import numpy as np

from moe_prompts import InputError

#: What people hand in by mistake: nothing, text, a number outside, empty things, things of another kind.
WRONG = {
    "None": lambda: None,
    "text": lambda: "a",
    "bytes": lambda: b"a",
    "-1": lambda: -1,
    "0": lambda: 0,
    "0.5": lambda: 0.5,
    "nan": lambda: float("nan"),
    "inf": lambda: float("inf"),
    "huge": lambda: 10**400,
    "large": lambda: 10**30,
    "complex": lambda: 1j,
    "True": lambda: True,
    "[]": lambda: [],
    "{}": lambda: {},
    "set": lambda: {1},
    "list of text": lambda: [["a"]],
    "ragged": lambda: [[1], [1, 2]],
    "array of text": lambda: np.array(["a"]),
    "generator": lambda: (one for one in [1.0, 2.0]),
    "object": lambda: object(),
    "class": lambda: int,
    "path": lambda: Path("a"),
}
#: Seconds of the processor after which a call with a wrong argument hangs.
SECONDS = 5


def late(*_):
    raise TimeoutError(f"no end within {SECONDS} s")


def outcome(function, arguments) -> str:
    """How a call with a wrong argument fails, if not as it should; "" if it does or succeeds."""
    before = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        function(**arguments)
    except InputError as error:
        return "" if "\n" not in str(error) and len(str(error)) < 600 else f"{len(str(error))} characters"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
    return ""


def faults(name: str, call: tuple, works: bool = True) -> list[str]:
    """What a call makes of each of its arguments wrong, where that is neither a result nor one line."""
    function, arguments = call
    if works:
        function(**arguments)
    return [
        f"{name}({parameter} = {label}): {found}"
        for parameter in arguments
        for label, make in WRONG.items()
        if (found := outcome(function, arguments | {parameter: make()}))
    ]

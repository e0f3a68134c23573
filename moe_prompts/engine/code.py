"""Tell which code made a run: a fingerprint of the package's sources and of a user's own function.

    code = BLAKE2b(texts of the sources that compute | the function that a study outside the package runs)

Rows of two versions of the code must not stand in one table unnoticed. A comment, a docstring or a figure, on
the other hand, may change between two commands. So comments and docstrings are left out of the texts, and so
are the parts that print and draw. Sources are read as text: parsing them would take 30 times as long. A test
holds that what is left out computes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from hashlib import blake2b
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

PACKAGE = Path(__file__).parents[1]
#: Parts that print and draw; the data of claims are what is printed beside a verdict.
SHOWN = re.compile(r"(^|/)(figures|claims|commands)(/|\.py$)|(^|/)(cli|tables|summary)\.py$|report\.py$")
#: A comment on lines of its own; a string that is a statement of its own, as docstrings are.
COMMENT = re.compile(rb"^[ \t]*#.*\n", re.MULTILINE)
DOCSTRING = re.compile(rb'^[ \t]*r?"""(?:[^"\\]|\\.|"(?!""))*"""[ \t]*\n', re.MULTILINE | re.DOTALL)
BLANK = re.compile(rb"[ \t]*\n(?:[ \t]*\n)*")


def sources(package: Path = PACKAGE) -> list[Path]:
    """Return the files that rows depend on, in the order of their names.

    package  folder whose ``.py`` and ``.json`` files are looked at; the parts that print and draw are left
             out
    """
    found = [path for ending in ("*.py", "*.json") for path in package.rglob(ending)]
    names = {path.relative_to(package).as_posix(): path for path in found}
    return [names[name] for name in sorted(names) if not SHOWN.search(name)]


def computing(source: bytes) -> bytes:
    """Return the text of a source file without what computes nothing.

    That is: docstrings, lines that hold only a comment, blank lines, and spaces at the ends of lines.
    """
    return BLANK.sub(b"\n", COMMENT.sub(b"", DOCSTRING.sub(b"", source.replace(b"\r\n", b"\n"))))


@cache
def package_code(package: Path = PACKAGE) -> str:
    """Return the fingerprint of the package's sources, as 16 hexadecimal digits.

    It is the same in a checkout and where the package is installed.
    """
    digest = blake2b(digest_size=8)
    for path in sources(package):
        text = path.read_bytes()
        digest.update(f"{path.relative_to(package).as_posix()}\n".encode())
        digest.update(blake2b(computing(text) if path.suffix == ".py" else text).digest())
    return digest.hexdigest()


def code_of(run: Any) -> str:
    """Return the fingerprint of the package together with the function that a study runs.

    A function outside the package counts with its instructions, its constants, and everything of its own
    module that it calls. A function of the package is in the package's fingerprint already. Of other packages
    only the versions are known (``store.versions``).

    run  the function, method, partial or callable object of the study
    """
    own = sorted(set(_texts(run, set())))
    return blake2b("\n".join([package_code(), *own]).encode(), digest_size=8).hexdigest()


def _texts(value: Any, seen: set[int]) -> Iterator[str]:
    """Yield the functions that are reached from ``value`` within modules outside the package."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, FunctionType):
        if not value.__module__.startswith("moe_prompts."):
            yield f"{value.__qualname__} {_text(value.__code__)} {value.__defaults__!r} {value.__kwdefaults__!r}"
            for name in sorted(_names(value.__code__)):
                yield from _named(name, value, seen)
    elif isinstance(value, type):
        for member in vars(value).values():
            yield from _texts(getattr(member, "__func__", getattr(member, "fget", member)), seen)
    elif isinstance(value, dict):  # of functions by type, as of joined studies
        for one in value.values():
            yield from _texts(one, seen)
    elif callable(value):
        for part in (getattr(value, "func", None), getattr(value, "__func__", None), getattr(value, "runs", None)):
            yield from _texts(part, seen)
        if not type(value).__module__.startswith(("moe_prompts.", "builtins", "functools")):
            yield from _texts(type(value), seen)


def _named(name: str, function: FunctionType, seen: set[int]) -> Iterator[str]:
    """Yield what a name of a function's module stands for.

    Counted are functions and classes of that module, and plain values.
    """
    value = function.__globals__.get(name)
    if isinstance(value, bool | int | float | str | bytes | tuple):
        yield f"{name} = {value!r}"
    elif getattr(value, "__module__", None) == function.__module__:
        yield from _texts(value, seen)


def _names(code: CodeType) -> set[str]:
    return set(code.co_names).union(*(_names(part) for part in code.co_consts if isinstance(part, CodeType)))


def _text(code: CodeType) -> str:
    """Return instructions and constants of a function, whatever the lines they stand on."""
    # A function's docstring is its first constant; a function without one has None there, or a constant that
    # is used.
    constants = code.co_consts[1:] if isinstance(next(iter(code.co_consts), None), str) else code.co_consts
    parts = [_text(part) if isinstance(part, CodeType) else _plain(part) for part in constants]
    return f"{code.co_code.hex()} {code.co_names} {code.co_varnames} ({', '.join(parts)})"


def _plain(constant: Any) -> str:
    # The order of a set of texts differs from process to process.
    return repr(sorted(map(repr, constant))) if isinstance(constant, frozenset) else repr(constant)

"""Docstrings: every public name has one, it begins with a sentence, its lines are short, and its examples run."""

from __future__ import annotations

import ast
import doctest
import enum
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import taken_back

import moe_prompts as mp
from moe_prompts import vision

PACKAGE = Path(__file__).parents[1] / "moe_prompts"
WIDTH = 110
#: First words of scraps that only the name above them would complete, or that hold no verb.
SCRAPS = {"A", "All", "An", "As", "Each", "Every", "How", "In", "Of", "One", "The", "What", "When", "Whether", "Which"}


EVERY = sorted(PACKAGE.rglob("*.py"))


def modules() -> list[str]:
    """Return every module, as a path below the package."""
    every = (path.relative_to(PACKAGE).as_posix() for path in EVERY)
    # The docstrings of command modules are what --help shows; they have tests of their own.
    return sorted(path for path in every if not path.startswith("commands/"))


def public(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.FunctionDef | ast.ClassDef]]:
    """Yield the public functions, classes and methods below a node of the syntax tree, with their names."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.ClassDef) and not child.name.startswith("_"):
            yield prefix + child.name, child
            if isinstance(child, ast.ClassDef):
                yield from public(child, f"{prefix}{child.name}.")


def faults(source: str) -> list[str]:
    """Return what is wrong with the docstrings of a module."""
    tree = ast.parse(source)
    found = []
    for name, node in [("(module)", tree), *public(tree)]:
        text = ast.get_docstring(node, clean=False)
        if not text:
            found.append(f"{name}: no docstring")
            continue
        first = text.split("\n")[0]
        begins = first.split()[0]
        if begins in SCRAPS or not begins[0].isupper():
            found.append(f"{name}: begins with {begins!r}; expected a sentence with a verb, such as 'Return ...'")
        if not first.endswith("."):
            found.append(f"{name}: the first line is no sentence: {first!r}")
        lines = source.split("\n")[node.body[0].lineno - 1 : node.body[0].end_lineno]
        found += [f"{name}: a line of {len(line)} characters: {line!r}" for line in lines if len(line) > WIDTH]
    return found


@pytest.mark.parametrize("module", modules())
def test_public_names_have_docstrings_that_are_sentences(module):
    assert faults((PACKAGE / module).read_text(encoding="utf-8")) == []


def scraps(source: str) -> list[str]:
    """Return the docstrings of functions and classes, private ones too, that begin without a verb."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and (text := ast.get_docstring(node)):
            begins = text.split()[0]
            if begins in SCRAPS or not begins[0].isupper():
                found.append(f"{node.name}: {text.splitlines()[0]!r}")
    return found


def test_private_names_and_those_of_commands_have_no_scraps_for_docstrings():
    found = {path.relative_to(PACKAGE).as_posix(): scraps(path.read_text(encoding="utf-8")) for path in EVERY}
    assert {path: wrong for path, wrong in found.items() if wrong} == {}
    assert scraps('def _f():\n    """Of a block: its cost."""') == ["_f: 'Of a block: its cost.'"]


def callables(name: str, value: Any) -> Iterator[tuple[str, Any, str]]:
    """Yield what a public name lets a user call: itself and its public methods, with the docstrings of each."""
    if inspect.ismodule(value):
        own = [one for one in vars(value).values() if getattr(one, "__module__", None) == value.__name__]
        for inner in own:
            if not inner.__name__.startswith("_"):
                yield from callables(f"{name}.{inner.__name__}", inner)
    elif inspect.isclass(value) and not issubclass(value, enum.Enum | Exception):
        yield name, value, f"{inspect.getdoc(value)} {inspect.getdoc(value.__init__)}"
        for method in vars(value):
            function = getattr(value, method)
            if not method.startswith("_") and (inspect.isfunction(function) or inspect.ismethod(function)):
                yield f"{name}.{method}", function, str(inspect.getdoc(function))
    elif inspect.isfunction(value):
        yield name, value, str(inspect.getdoc(value))


def unnamed(function: Any, text: str) -> list[str]:
    """Return the parameters that a docstring does not name; * and ** take what others say."""
    parameters = inspect.signature(function).parameters.values()
    named = [one.name for one in parameters if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]
    return [one for one in named if one != "self" and not re.search(rf"(?<!\w){re.escape(one)}(?!\w)", text)]


def test_docstrings_of_public_names_name_every_parameter():
    asked = [(f"mp.{name}", getattr(mp, name)) for name in mp.__all__]
    asked += [(f"vision.{name}", getattr(vision, name)) for name in vision.__all__]
    found = {what: unnamed(call, text) for name, value in asked for what, call, text in callables(name, value)}
    assert len(found) > 200
    assert {what: names for what, names in found.items() if names} == {}
    assert unnamed(lambda images, block: None, "Return images.") == ["block"]


def wide_comments(source: str) -> list[str]:
    """Return the comments on lines of their own that are wider than prose is."""
    return [line for line in source.split("\n") if line.lstrip().startswith("#") and len(line) > WIDTH]


def test_comments_are_no_wider_than_docstrings():
    found = {path.relative_to(PACKAGE).as_posix(): wide_comments(path.read_text(encoding="utf-8")) for path in EVERY}
    assert {path: wide for path, wide in found.items() if wide} == {}
    assert len(wide_comments("x = 1\n    # " + "y" * 105 + "\n# short")) == 1


def test_faults_are_found():
    scrap = '    """A scrap:\n\n    ' + "x" * 110 + '\n    """\n'
    source = '"""No stop"""\ndef f():\n' + scrap + 'class C:\n    """The class."""\n    def m(self): ...'
    assert [fault.split(",")[0].split(" of ")[0].split(":")[0] for fault in faults(source)] == [
        "(module)",
        "f",
        "f",
        "f",
        "C",
        "C.m",
    ]


#: Examples on vision load torch, which takes seconds.
WITH_EXAMPLES = [
    name
    for path in EVERY
    if ">>>" in path.read_text(encoding="utf-8")
    and not (name := path.relative_to(PACKAGE.parent).with_suffix("").as_posix().replace("/", ".")).startswith(
        "moe_prompts.vision"
    )
]


@pytest.mark.parametrize("module", WITH_EXAMPLES)
def test_examples_in_docstrings_run(module):
    with taken_back():
        done = doctest.testmod(importlib.import_module(module))
    assert done.attempted > 0
    assert done.failed == 0

"""Docstrings: every public name has one, it begins with a sentence, its lines are short, and its examples run."""

from __future__ import annotations

import ast
import doctest
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "moe_prompts"
#: Folders and modules that are held to it.
HELD = (
    "claims",
    "cli",
    "engine",
    "errors",
    "estimators",
    "figures",
    "identifiability",
    "intervals",
    "losses",
    "models",
    "seeds",
    "slopes",
    "study",
    "tables",
    "theory",
    "vision",
)
#: Modules whose docstrings are still to be rewritten; the list only ever gets shorter.
PENDING = {
    "estimators/prompts/blocks.py",
    "estimators/prompts/kernels.py",
    "figures/attention.py",
    "figures/gates.py",
    "figures/replication.py",
    "figures/studies.py",
    "figures/style.py",
    "theory/__init__.py",
    "theory/certificates/basis.py",
    "theory/certificates/ranks.py",
    "theory/certificates/verify.py",
    "theory/dependences.py",
    "theory/exponents.py",
    "theory/jets.py",
    "theory/kernels.py",
    "theory/mixture.py",
    "theory/published.py",
    "theory/rows.py",
    "theory/solvability.py",
    "theory/study_predictions.py",
    "theory/systems.py",
    "theory/table.py",
}
WIDTH = 110


def modules(*names: str) -> list[str]:
    """Return the modules of these folders, and these modules, as paths below the package."""
    paths = [path for name in names for path in (*(PACKAGE / name).rglob("*.py"), PACKAGE / f"{name}.py")]
    return sorted(path.relative_to(PACKAGE).as_posix() for path in paths if path.exists())


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
        if first.startswith(("Of ", "As ")):
            found.append(f"{name}: begins with {first.split()[0]!r}, which needs the name above it")
        if not first.endswith("."):
            found.append(f"{name}: the first line is no sentence: {first!r}")
        lines = source.split("\n")[node.body[0].lineno - 1 : node.body[0].end_lineno]
        found += [f"{name}: a line of {len(line)} characters: {line!r}" for line in lines if len(line) > WIDTH]
    return found


@pytest.mark.parametrize("module", [module for module in modules(*HELD) if module not in PENDING])
def test_public_names_have_docstrings_that_are_sentences(module):
    assert faults((PACKAGE / module).read_text(encoding="utf-8")) == []


def test_faults_are_found():
    source = (
        '"""Of this."""\ndef f():\n    """A scrap:\n\n    ' + "x" * 110 + '\n    """\nclass C:\n    def m(self): ...'
    )
    assert [fault.split(",")[0].split(" of ")[0].split(":")[0] for fault in faults(source)] == [
        "(module)",
        "f",
        "f",
        "C",
        "C.m",
    ]


#: Examples on vision load torch, which takes seconds.
WITH_EXAMPLES = [
    name
    for path in sorted(PACKAGE.rglob("*.py"))
    if ">>>" in path.read_text(encoding="utf-8")
    and not (name := path.relative_to(PACKAGE.parent).with_suffix("").as_posix().replace("/", ".")).startswith(
        "moe_prompts.vision"
    )
]


@pytest.mark.parametrize("module", WITH_EXAMPLES)
def test_examples_in_docstrings_run(module):
    done = doctest.testmod(importlib.import_module(module))
    assert done.attempted > 0
    assert done.failed == 0

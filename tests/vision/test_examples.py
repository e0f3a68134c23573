"""The examples on vision of README, docs and docstrings."""

import doctest
import importlib

import pytest
import timm
from test_docs import python_pages
from test_docstrings import PACKAGE
from test_package import run_examples

#: Modules with examples; that of ``export`` takes half a minute.
WITH_EXAMPLES = [
    pytest.param(name, marks=pytest.mark.slow) if name.endswith(".export") else name
    for path in sorted((PACKAGE / "vision").rglob("*.py"))
    if ">>>" in path.read_text(encoding="utf-8")
    for name in [path.relative_to(PACKAGE.parent).with_suffix("").as_posix().replace("/", ".")]
]


def test_examples_run(tmp_path, monkeypatch):
    """Within this process, and with large models made small: every block of code is run."""
    create = timm.create_model

    def shallow(name, **options):
        return create(name, **({"depth": 2, "embed_dim": 96} if name.startswith("vit_") else {}) | options)

    monkeypatch.setattr(timm, "create_model", shallow)
    run_examples(python_pages(vision=True), tmp_path, vision=True)


@pytest.mark.slow
def test_examples_need_nothing_that_a_test_loaded(tmp_path):
    """As a reader runs them, in a process of their own, with models as they are."""
    run_examples(python_pages(vision=True), tmp_path, vision=True, own_process=True)


@pytest.mark.parametrize("module", WITH_EXAMPLES)
def test_examples_in_docstrings_of_vision_run(module, tmp_path, monkeypatch):
    """In a folder of their own, where some write files."""
    monkeypatch.chdir(tmp_path)
    done = doctest.testmod(importlib.import_module(module))
    assert done.attempted > 0
    assert done.failed == 0

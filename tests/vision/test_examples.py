"""The examples on vision of README and docs."""

import pytest
from test_docs import python_pages
from test_package import run_examples


def test_examples_run(tmp_path):
    run_examples(python_pages(vision=True), tmp_path, vision=True)


@pytest.mark.slow
def test_examples_need_nothing_that_a_test_loaded(tmp_path):
    """As a reader runs them, in a process of their own."""
    run_examples(python_pages(vision=True), tmp_path, vision=True, own_process=True)

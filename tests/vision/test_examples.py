"""The examples on vision of README and docs."""

from test_docs import python_pages
from test_package import run_examples


def test_examples_run(tmp_path):
    """All pages in one process, since torch takes seconds to load."""
    run_examples(python_pages(vision=True), tmp_path, vision=True)

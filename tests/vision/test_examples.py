"""The examples on vision of README and docs."""

from test_package import run_examples


def test_examples_run(tmp_path):
    """All pages in one process, since torch takes seconds to load."""
    run_examples(["README.md", "docs/vision.md", "docs/vtab.md"], tmp_path, vision=True)

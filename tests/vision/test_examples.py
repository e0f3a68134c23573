"""The examples on vision of README and docs."""

import pytest
from test_package import run_examples


@pytest.mark.parametrize("page", ["README.md", "docs/vision.md", "docs/vtab.md"])
def test_examples_run(page, tmp_path):
    run_examples(page, tmp_path, vision=True)

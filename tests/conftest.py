"""One thread per process before NumPy loads, no display, and the reference data where there are any."""

import os
from pathlib import Path

import pytest

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("MPLBACKEND", "Agg")


@pytest.fixture
def reference() -> Path:
    """The folder of published numbers; tests that need it skip elsewhere."""
    folder = os.environ.get("MOE_PROMPTS_REFERENCE")
    if not folder or not Path(folder).is_dir():
        pytest.skip("needs the published reference data: set MOE_PROMPTS_REFERENCE to their folder")
    return Path(folder)

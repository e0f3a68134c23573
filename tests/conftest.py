"""One thread per process before NumPy loads, no display, loops compiled once, and reference data if there are any."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("MPLBACKEND", "Agg")

#: Where numba has kept nothing yet, compiling takes half a minute, and every worker would do it.
COMPILE = """
import pathlib, sys
try:
    from moe_prompts.compilation import kernels
    for module in ("kernels", "gaussian.step_kernels", "prompts.kernels", "prompts.step_kernels"):
        kernels("moe_prompts.estimators." + module)
finally:
    pathlib.Path(sys.argv[1]).touch()
"""
compiling = pytest.StashKey[tuple[subprocess.Popen, tempfile.TemporaryDirectory]]()


def pytest_configure(config):
    """Compile the loops beside the workers of xdist, which load packages and collect tests meanwhile."""
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
        return
    folder = tempfile.TemporaryDirectory()
    command = [sys.executable, "-c", COMPILE, str(Path(folder.name, "done"))]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}  # what fails here fails in a test, and is seen
    config.stash[compiling] = subprocess.Popen(command, **quiet), folder


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node):
    if compiling in node.config.stash:
        node.workerinput["compiled"] = str(Path(node.config.stash[compiling][1].name, "done"))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Put slow tests at the start of both halves of the list: two workers take a half each and should end together."""
    slow = [item for item in items if item.get_closest_marker("slow")]
    rest = [item for item in items if not item.get_closest_marker("slow")]
    half = max((len(items) + 1) // 2 - len(slow[::2]), 0)
    items[:] = [*slow[::2], *rest[:half], *slow[1::2], *rest[half:]]


def pytest_collection_finish(session):
    """A worker begins when the loops are compiled; a compiler that was killed keeps it for two minutes at most."""
    done = getattr(session.config, "workerinput", {}).get("compiled")
    for _ in range(1200 if done else 0):
        if Path(done).exists():
            break
        time.sleep(0.1)


def pytest_unconfigure(config):
    if compiling in config.stash:
        process, folder = config.stash[compiling]
        process.wait()
        folder.cleanup()


@pytest.fixture
def reference() -> Path:
    """The folder of published numbers; tests that need it skip elsewhere."""
    folder = os.environ.get("MOE_PROMPTS_REFERENCE")
    if not folder or not Path(folder).is_dir():
        pytest.skip("needs the published reference data: set MOE_PROMPTS_REFERENCE to their folder")
    return Path(folder)

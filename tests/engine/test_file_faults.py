"""A crash or an error of the disk at any file operation of a command leaves what resumes to the same bytes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("file_faults.py")


def found(folder, *arguments):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder), *map(str, arguments)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("scene", "step", "how", "operations", "faults"),
    [
        ("study", 17, "once", 180, 50),
        ("gather", 29, "once", 90, 15),
        pytest.param("study", 1, "once", 180, 900, marks=pytest.mark.slow),
        pytest.param("gather", 1, "once", 90, 450, marks=pytest.mark.slow),
        pytest.param("study", 3, "lasting", 180, 240, marks=pytest.mark.slow),
        pytest.param("gather", 3, "lasting", 90, 120, marks=pytest.mark.slow),
    ],
)
def test_a_fault_at_any_file_operation_costs_nothing_but_a_resume(scene, step, how, operations, faults, tmp_path):
    """Crash, ENOSPC, EIO, EACCES and ESTALE: one line, no temporary file, the same table when it is completed."""
    result = found(tmp_path, scene, step, how)
    assert result["wrong"] == []
    assert len(result["operations"]) >= operations
    assert result["faults"] >= faults

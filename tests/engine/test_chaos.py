"""A command that is killed at random moments, 20 times under each executor, ends with the bytes of one that was not."""

import os
import random
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

COMMAND = Path(__file__).with_name("chaos_command.py")
KILLS = 20


def started(folder, executor, mark):
    path = os.pathsep.join([str(COMMAND.parent), *sys.path])
    environment = os.environ | {"MOE_PROMPTS_CHAOS": mark, "PYTHONPATH": path}
    command = [sys.executable, str(COMMAND), str(folder), executor]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def left(mark):
    """Processes that a command with this mark in its environment, or one of its own, has started and that live."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            marked = f"MOE_PROMPTS_CHAOS={mark}".encode() in (path / "environ").read_bytes().split(b"\0")
            if marked and (path / "stat").read_text().rpartition(")")[2].split()[0] != "Z":
                found.append((path / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:200])
        except OSError:  # it has ended, or is another user's
            continue
    return found


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["in-process", "joblib", "dask"])
def test_kills_at_random_moments_cost_nothing_but_a_resume(executor, tmp_path):
    draw, mark = random.Random(f"chaos {executor}"), uuid.uuid4().hex
    began = time.monotonic()
    first = started(tmp_path / "whole", executor, mark)
    said = first.communicate()[1]
    assert first.returncode == 0, said
    seconds = time.monotonic() - began
    whole = (tmp_path / "whole" / "results.parquet").read_bytes()
    kills, runs, deaths = 0, 0, []
    while kills < KILLS:
        folder, runs = tmp_path / f"run{runs}", runs + 1
        while True:
            process = started(folder, executor, mark)
            if kills < KILLS:
                try:
                    process.wait(draw.uniform(0, seconds))
                except subprocess.TimeoutExpired:
                    process.kill()
                    kills += 1
            said = process.communicate()[1]
            time.sleep(1)
            assert left(mark) == []
            # What Python's tracker of semaphores and dask's workers say of a killed or ended command is theirs.
            if process.returncode == 0:
                break
            assert process.returncode == -9, said
            deaths.append(len(list(folder.glob("*/*.arrow"))))
        assert (folder / "results.parquet").read_bytes() == whole
        assert not list(folder.rglob("*.tmp"))
    assert any(deaths)  # some kills came while blocks were written

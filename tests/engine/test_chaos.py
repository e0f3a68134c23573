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
#: Every other kill comes at a random moment before the first block of a start, the others at one after it.
KILLS = 20
#: Seconds after which no process of a killed command may be left.
GRACE = 1.0
#: Starts that are enough for so many kills, although some starts end before theirs.
MOST_STARTS = 4 * KILLS


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


def none_is_left(mark):
    until = time.monotonic() + GRACE
    while left(mark) and time.monotonic() < until:
        time.sleep(0.02)
    assert left(mark) == []


def files(folder):
    return {path.name for path in folder.glob("*/*.arrow")}


class Phases:
    """The shortest times seen from a command's start to its first new block, and from there to its end.

    The first start reads everything from the disk. Were its time kept, most later starts would end before their kill.
    """

    def __init__(self):
        self.starting = self.working = float("inf")

    def reached(self, process, folder, before):
        """Wait for the first block that is not among ``before``; return whether the command was still alive then."""
        began = time.monotonic()
        while process.poll() is None:
            if files(folder) - before:
                self.starting = min(self.starting, time.monotonic() - began)
                return True
            time.sleep(0.005)
        return False

    def ended(self, process):
        """Wait for the end of a command whose first block is there."""
        began = time.monotonic()
        said = process.communicate()[1]
        self.working = min(self.working, time.monotonic() - began)
        return said


def killed_after(process, seconds):
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        return True
    return False


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["in-process", "joblib", "dask"])
def test_kills_at_random_moments_cost_nothing_but_a_resume(executor, tmp_path):
    draw, mark, phases = random.Random(f"chaos {executor}"), uuid.uuid4().hex, Phases()
    for name in ("cold", "whole"):
        first = started(tmp_path / name, executor, mark)
        assert phases.reached(first, tmp_path / name, set())
        said = phases.ended(first)
        assert first.returncode == 0, said
    whole = (tmp_path / "whole" / "results.parquet").read_bytes()
    assert (tmp_path / "cold" / "results.parquet").read_bytes() == whole
    kills, folders, starts, at_work = 0, 0, 0, 0
    while kills < KILLS:
        folder, folders = tmp_path / f"run{folders}", folders + 1
        while True:
            before, starts = files(folder), starts + 1
            assert starts <= MOST_STARTS
            process = started(folder, executor, mark)
            if kills < KILLS:
                late = bool(kills % 2) and phases.reached(process, folder, before)
                done = killed_after(process, draw.uniform(0, phases.working if late else phases.starting))
                kills += done
                at_work += done and late
            said = process.communicate()[1]
            none_is_left(mark)
            # What Python's tracker of semaphores and dask's workers say of a killed or ended command is theirs.
            if process.returncode == 0:
                break
            assert process.returncode == -9, said
        assert (folder / "results.parquet").read_bytes() == whole
        assert not list(folder.rglob("*.tmp"))
    assert at_work == KILLS // 2
    print(f"{executor}: {kills} kills, {at_work} of them at work, in {starts} starts of {folders} runs")

"""Ends by signals, clocks that are set back, two starts in the same second, and bare environments."""

import os
import signal
import subprocess
import sys
import time
import uuid
from datetime import datetime

import pytest
from fault_cases import toys
from test_chaos import COMMAND, files, left, none_is_left

from moe_prompts import cli, run_study
from moe_prompts.engine.files import clear_left, write_atomically
from moe_prompts.engine.store import RESULTS

#: Runs its arguments with interrupts as a terminal gives them: what runs in the background inherits deaf ears.
LISTENING = (
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); signal.signal(signal.SIGHUP, "
    "signal.SIG_DFL); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)


def begun(folder, mark):
    """A command with two workers, in a group of its own as a terminal starts it, once its first blocks are there."""
    environment = os.environ | {
        "MOE_PROMPTS_CHAOS": mark,
        "PYTHONPATH": os.pathsep.join([str(COMMAND.parent), *sys.path]),
    }
    command = [sys.executable, "-c", LISTENING, str(COMMAND), str(folder), "joblib"]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while not files(folder) and process.poll() is None:
        time.sleep(0.01)
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGTERM], ids=str)
@pytest.mark.parametrize("whole_group", [True, False], ids=["group", "command"])
@pytest.mark.slow
def test_a_signal_costs_nothing_but_a_resume(number, whole_group, tmp_path):
    """Ctrl-C goes to every process of a terminal's group, and the end of a terminal, too."""
    folder, mark = tmp_path / "run", uuid.uuid4().hex
    process = begun(folder, mark)
    os.killpg(process.pid, number) if whole_group else os.kill(process.pid, number)
    said = process.communicate(timeout=60)[1]
    assert process.returncode in (130 if number == signal.SIGINT else -number, 0)
    if number == signal.SIGINT and process.returncode:
        assert said.count("\n") == 1, said
        assert "--resume" in said or "interrupted" in said
    none_is_left(mark)
    again = subprocess.run(
        [sys.executable, str(COMMAND), str(folder), "in-process"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(COMMAND.parent), *sys.path])},
        capture_output=True,
        text=True,
    )
    assert again.returncode == 0, again.stderr
    whole = subprocess.run(
        [sys.executable, str(COMMAND), str(tmp_path / "whole"), "in-process"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(COMMAND.parent), *sys.path])},
    )
    assert whole.returncode == 0
    assert (folder / RESULTS).read_bytes() == (tmp_path / "whole" / RESULTS).read_bytes()
    assert left(mark) == []


class Backwards:
    """Each look at the clock of the day shows an hour earlier than the last one."""

    def __init__(self):
        self.now = 2e9

    def time(self):
        self.now -= 3600
        return self.now

    def __getattr__(self, name):
        return getattr(time, name)


def test_a_clock_that_is_set_back_changes_no_row(tmp_path, monkeypatch):
    from moe_prompts.engine import files as engine_files
    from moe_prompts.engine import lock, store

    run_study(toys("", ""), tmp_path / "plain", progress=False)
    run_study(toys(""), tmp_path / "run", progress=False)
    clock = Backwards()

    class Earlier(datetime):
        @classmethod
        def now(cls, zone=None):
            return cls.fromtimestamp(clock.time(), zone)

    for module in (lock, store):
        monkeypatch.setattr(module, "datetime", Earlier)
    monkeypatch.setattr(engine_files, "time", clock)
    monkeypatch.setattr(time, "time", clock.time)
    for path in (tmp_path / "run").rglob("*"):  # what is there was written tomorrow
        os.utime(path, (4e9, 4e9))
    run_study(toys("", ""), tmp_path / "run", resume=True, progress=False)
    assert (tmp_path / "run" / RESULTS).read_bytes() == (tmp_path / "plain" / RESULTS).read_bytes()
    assert clock.now <= 2e9 - 7200  # it was looked at, by lock and meta.json


def test_commands_of_one_second_have_folders_of_their_own(monkeypatch):
    class Standing(datetime):
        @classmethod
        def now(cls, zone=None):
            return cls(2026, 1, 1)

    monkeypatch.setattr(cli, "datetime", Standing)
    names = set()
    for process in (11, 12):
        monkeypatch.setattr(os, "getpid", lambda process=process: process)
        names.add(cli.default_folder("claims"))
    assert len(names) == 2


def test_what_a_killed_command_left_beside_its_runs_is_removed(tmp_path):
    """The pages of ``claims.py`` lie beside the folders of its studies, whose locks do not guard them."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    host = os.uname().nodename
    gone = tmp_path / f".claims.md@{host}-{ended.pid}.tmp"
    old, fresh = tmp_path / ".claims.md@elsewhere-7.tmp", tmp_path / ".claims.json@elsewhere-7.tmp"
    alive, theirs = tmp_path / f".claims.json@{host}-{os.getpid()}.tmp", tmp_path / ".notes-2.tmp"
    for path in (gone, old, fresh, alive, theirs):
        path.write_text("half")
    os.utime(old, (0, 0))
    with cli.resumable("claims.py", tmp_path):
        write_atomically(tmp_path / "claims.md", b"whole")
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "claims.md", fresh, alive, theirs])
    clear_left(tmp_path / "nowhere")


def test_a_run_starts_no_threads_of_arrows(tmp_path):
    """One that still holds a file of Python's when Python ends would abort a command that is done."""
    program = """
import sys
from pathlib import Path

import pandas, pyarrow, pyarrow.parquet, tqdm

sys.path.insert(0, sys.argv[2])
from fault_cases import toys
from moe_prompts import run_study
from moe_prompts.engine import runner
from moe_prompts.engine.store import read_table

pyarrow.array([1.0]).to_pandas()
tqdm.tqdm.monitor_interval = 0  # a thread of Python's
count = lambda: len(list(Path("/proc/self/task").iterdir()))
runner.SEGMENT, before = 4, count()
run_study(toys(*[""] * 5), Path(sys.argv[1]), progress=False)
run_study(toys(*[""] * 6), Path(sys.argv[1]), resume=True, progress=False)
read_table(Path(sys.argv[1]))
print(count() - before)
"""
    command = [sys.executable, "-c", program, str(tmp_path / "run"), str(COMMAND.parent)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr


def test_a_bare_environment_is_enough(tmp_path):
    """No home to write to, a POSIX locale, warnings as errors, asserts left out, a folder with odd letters."""
    folder = tmp_path / "zwei Wörter ∂"
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHON", "HOME"))
    }
    environment |= {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "HOME": "/proc/none"}
    environment["PYTHONPATH"] = os.pathsep.join([str(COMMAND.parent), *filter(None, sys.path)])
    command = [sys.executable, "-O", "-W", "error", str(COMMAND), str(folder), "in-process"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(files(folder)) > 1

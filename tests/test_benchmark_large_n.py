"""The command that measures large samples, on small ones."""

import subprocess
import sys
from pathlib import Path

from commands import call

SCRIPT = Path(__file__).parents[1] / "experiments" / "benchmark_large_n.py"


def command(*arguments):
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, timeout=120)


def test_it_prints_a_line_for_each_fit():
    done = command("--n", "3e3", "--truths", "gmoe-1")
    assert done.returncode == 0, done.stderr
    row = [cell.strip() for cell in done.stdout.splitlines()[-1].split("|")[1:-1]]
    assert row[:5] == ["gmoe-1", "3", "3e+03", "held", "CERTIFIED"]
    assert 50 < float(row[-1]) < 1000  # MB of a process that has loaded NumPy and SciPy


def test_wrong_input_is_one_line():
    for arguments, message in (
        (["--truths", "nonsense"], "unknown truth 'nonsense'"),
        (["--n", "1e9"], "from 10 to 1e+08"),
        (["--seed", "-1"], "--seed -1; expected a whole number of at least 0"),
    ):
        done = call("benchmark_large_n.py", *arguments)
        assert done.returncode == 2
        assert message in done.stderr
        assert done.stderr.count("\n") == 1

"""The command that measures: its page, and what it keeps of it."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from commands import call

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("benchmarks", ROOT / "experiments" / "benchmarks.py")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "benchmarks", module)
        spec.loader.exec_module(module)
        yield module


def test_the_page_is_what_the_command_writes(script):
    rows = script.read(script.PAGE)
    assert script.page_of(rows) == script.PAGE.read_text(encoding="utf-8")
    assert rows, "an empty page shows nothing"


def test_the_readme_quotes_three_rows_of_the_page(script):
    """Each number of the sentence is one of the row that it speaks of, and all rows are of one machine."""
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    costs = readme.split("Costs on one machine")[1].split("Read on:")[0]
    rows = {
        what: (takes, beside, machine)
        for part in script.read(script.PAGE).values()
        for _, what, takes, beside, machine in part
    }
    study = rows["`sample_efficiency.py --n 1e3..1e6`"]
    fit = rows["certified fit, n = 1e6, k = 4"]
    step = rows["a training step of VAPT, vit_small_patch16_224, batch 8"]
    assert f"the main study {study[0]} on {study[1]};" in costs
    assert f"n = 1e6 points {fit[0].removesuffix(', CERTIFIED')} on one thread" in costs
    assert f"{float(step[1].split(' x')[0]):g} times one of VPT" in costs
    assert len({study[2], fit[2], step[2]}) == 1


def test_small_sizes_and_rows_of_parts_that_are_not_run_are_kept(script, tmp_path, monkeypatch):
    """Beside NumPy's exp alone: torch's, which another process loads, is in the slow test below."""
    known = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "torch" else known(name, *more)
    )
    page = tmp_path / "page.md"
    committed = script.PAGE.read_bytes()
    command = ["benchmarks.py", "--quick", "--page", page, "--only"]
    done = call(*command, "passes")  # in this process, which has loaded what it needs
    assert done.returncode == 0, done.stderr
    first = script.read(page)
    assert {part: len(rows) for part, rows in first.items()} == {"passes": 3}
    assert "Not measured here: fits, engine, large n, commands, vision." in page.read_text(encoding="utf-8")
    done = call(*command, "fits")
    assert done.returncode == 0, done.stderr
    second = script.read(page)
    assert {part: second[part] for part in first} == first
    assert "CERTIFIED" in second["fits"][0][2]
    assert all(row[-1] for rows in second.values() for row in rows), "every row names its processor"
    assert script.PAGE.read_bytes() == committed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("--only", "nonsense"), "expected some of passes"), (("--quick",), "name another file with --page")],
)
def test_wrong_input_is_one_line(arguments, message):
    done = call("benchmarks.py", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_every_part_runs_on_small_sizes(script, tmp_path):
    command = [
        sys.executable,
        str(ROOT / "experiments" / "benchmarks.py"),
        "--quick",
        "--page",
        str(tmp_path / "page.md"),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert list(script.read(tmp_path / "page.md")) == list(script.PARTS)

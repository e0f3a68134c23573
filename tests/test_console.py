"""The console command `moe-prompts`: its list, its names, and that it says how it was called."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from moe_prompts import cli
from moe_prompts.commands import console
from moe_prompts.errors import InputError

ROOT = Path(__file__).parents[1]
START = "from moe_prompts.commands.console import main; main()"


def call(monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["moe-prompts", *arguments])
    try:
        console.main()
    except SystemExit as ended:
        return ended.code or 0
    return 0


def test_every_script_is_a_command_and_the_entry_point_exists():
    """But for those that measure this machine, and stand in a clone."""
    scripts = {path.stem for path in (ROOT / "experiments").glob("*.py") if not path.stem.startswith("benchmark")}
    modules = {path.stem for path in (ROOT / "moe_prompts" / "commands").glob("*.py")} - {"__init__", "console"}
    assert scripts == modules == set(console.COMMANDS.values())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, _, name = project["scripts"]["moe-prompts"].partition(":")
    assert getattr(import_module(module), name) is console.main


def test_the_list_fits_a_terminal_and_loads_nothing(monkeypatch, capsys):
    assert call(monkeypatch, "--help") == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert all(name in shown for name in console.COMMANDS)
    code = (
        f"import sys; sys.argv = ['moe-prompts']\n{START}\nassert not {{'numpy', 'torch', 'pandas'}} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize("name", ["sample-efficiency", "rates", "power", "gather"])
def test_help_and_errors_name_the_command_as_it_was_called(name, monkeypatch, capsys):
    assert call(monkeypatch, name, "--help") == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: moe-prompts {name} ")
    assert "experiments/" not in shown
    assert call(monkeypatch, name, "--nonsense") == cli.BAD_INPUT
    assert capsys.readouterr().err.startswith(f"moe-prompts {name}: ")


def test_an_unknown_command_is_one_line(monkeypatch, capsys):
    assert call(monkeypatch, "rate") == cli.BAD_INPUT
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "no command 'rate'; did you mean rates?" in told


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("sample-efficency", "did you mean sample-efficiency?"),
        ("predicted-rates", "did you mean rates"),
        ("nonsense", "expected one of sample-efficiency, rates"),
    ],
)
def test_an_unknown_command_names_the_nearest_ones(monkeypatch, capsys, name, told):
    assert call(monkeypatch, name) == cli.BAD_INPUT
    assert told in capsys.readouterr().err


def test_a_command_runs_as_its_script_does(monkeypatch, capsys):
    assert call(monkeypatch, "rates", "--models") == 0
    named = capsys.readouterr().out
    script = [sys.executable, str(ROOT / "experiments" / "predicted_rates.py"), "--models"]
    assert subprocess.run(script, capture_output=True, text=True, check=True).stdout == named


def test_pages_of_the_repository_need_a_clone(monkeypatch, tmp_path):
    assert cli.checkout("docs") == ROOT / "docs"
    monkeypatch.setattr(cli, "__file__", str(tmp_path / "moe_prompts" / "cli.py"))
    with pytest.raises(InputError, match="installed without one"):
        cli.checkout("docs")

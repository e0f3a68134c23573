"""The command as a user types it: a small run of each paper, its files, and one clear line for each wrong input."""

import importlib
import json
import sys
from pathlib import Path

import pandas as pd
import pytest

from moe_prompts import cli

SMALL = {
    "gmoe": "--models 1 --k 4 --sizes 200,400 --reps 2",
    "sgame": "--k 2 --sizes 200,400 --reps 1",
}


@pytest.fixture(scope="module")
def script():
    return importlib.import_module("moe_prompts.commands.replicate")


@pytest.fixture
def command(script, monkeypatch, tmp_path):
    """Runs the command in an empty folder, without published losses unless they are given."""
    monkeypatch.delenv(script.REFERENCE, raising=False)
    monkeypatch.chdir(tmp_path)

    def call(arguments):
        monkeypatch.setattr(sys, "argv", ["replicate.py", *arguments.split()])
        try:
            cli.run(script.main, "replicate.py")
        except SystemExit as ended:
            return ended.code
        return 0

    return call


@pytest.mark.parametrize("paper", ["gmoe", pytest.param("sgame", marks=pytest.mark.slow)])
def test_a_small_run_prints_and_leaves_everything(paper, command, tmp_path, capsys):
    assert command(f"--paper {paper} {SMALL[paper]} --workers 1 --out run") == 0
    printed = capsys.readouterr().out
    assert "from data" in printed
    assert "Without --published" in printed
    assert f"replicate_{paper}.png" in printed
    for name in ("results.parquet", "timings.parquet", "meta.json", "summary.md", "summary.json"):
        assert (tmp_path / "run" / name).stat().st_size > 0
    assert (tmp_path / "run" / f"replicate_{paper}.pdf").read_bytes().startswith(b"%PDF")
    assert (tmp_path / "run" / f"replicate_{paper}.png").read_bytes().startswith(b"\x89PNG")
    lines = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert {line["source"] for line in lines} == {"start", "published", "certified", "certified-data"}
    rows = pd.read_parquet(tmp_path / "run" / "results.parquet")
    assert set(rows["n"]) == {200, 400}


def test_published_losses_are_found_in_the_reference_folder(script, monkeypatch):
    given = Path("losses.npz")
    monkeypatch.setenv(script.REFERENCE, "folder")
    assert script.published_file("sgame", None) == Path("folder/sgame_published_losses.npz")
    assert script.published_file("sgame", given) == given
    monkeypatch.delenv(script.REFERENCE)
    assert script.published_file("sgame", None) is None
    assert script.published_file("sgame", given) == given


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "the following arguments are required: --paper"),
        ("--paper moon", "invalid choice: 'moon'"),
        ("--paper gmoe --models 5", "models [5]; expected some of 1, 2, 3, 4"),
        ("--paper gmoe --models x", "'x' is not a number of models"),
        ("--paper sgame --models 1", "the paper sgame has one model; leave --models out"),
        ("--paper gmoe --k 2", "k = 2; the published start of gmoe needs at least 3 atoms"),
        ("--paper gmoe --sizes few", "--sizes few; 'few' is not a size"),
        ("--paper gmoe --sizes 50", "n = 50; expected at least 100 pairs"),
        ("--paper gmoe --reps 0", "'0' is not a number of replicates"),
        ("--paper gmoe --seed -1", "--seed -1; expected a whole number of at least 0"),
        ("--paper gmoe --published nowhere.npz", "cannot read nowhere.npz as published losses"),
        ("--paper gmoe --resume", "--resume needs --out"),
        ("--paper gmoe --resume --out nowhere", "nowhere holds no run to resume"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(arguments, message, command, tmp_path, capsys):
    assert command(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())

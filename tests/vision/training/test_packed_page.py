"""docs/packed_benchmark.md is what its script writes, and the script runs for every kind of method."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

from moe_prompts.tables import body_of

EXPERIMENTS = Path(__file__).parents[3] / "experiments"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    spec = importlib.util.spec_from_file_location("benchmark_packed", EXPERIMENTS / "benchmark_packed.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_script_writes(script):
    text = script.PAGE.read_text(encoding="utf-8")
    command, where = re.search(r"`python experiments/(.*)` on (.*)\.$", text, flags=re.M).groups()
    trials, steps, rounds = (
        int(re.search(words, text)[1]) for words in (r"(\d+) settings", r"(\d+) steps", r"(\d+) ro")
    )
    rows = body_of(text, script.COLUMNS)
    assert {row[0] for row in rows} == {*script.PACKED, *script.ALONE}
    assert script.page(rows, command, where, trials, steps, rounds) + "\n" == text


def test_it_measures_packed_methods_and_others(script, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(script, "PAGE", tmp_path / "page.md")
    short = ["--methods", "linear,bias", "--trials", "2", "--steps", "1", "--rounds", "1"]
    monkeypatch.setattr(sys, "argv", ["benchmark_packed.py", *short])
    script.main()
    packed, alone = body_of(script.PAGE.read_text(encoding="utf-8"), script.COLUMNS)
    assert (packed[0], alone[0], alone[2:]) == ("linear", "bias", ["", "", ""])
    assert float(packed[4]) < 1e-4
    assert f"`python experiments/benchmark_packed.py {' '.join(short)}`" in script.PAGE.read_text(encoding="utf-8")
    assert "page.md" in capsys.readouterr().out

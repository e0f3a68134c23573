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
    where = re.search(rf"^{script.MEASURED}(.*)\.$", text, flags=re.M)[1]
    rows = body_of(text, script.COLUMNS)
    small = {row[script.METHOD] for row in rows if row[0] == "small-random"}
    assert small == {*script.PROMPTS, *script.PEERS, *script.ALONE}
    assert "lora" in {row[script.METHOD] for row in rows if row[0] == "dinov2-small-focus"}
    assert script.page(rows, [], where) + "\n" == text


def test_it_measures_packed_methods_and_others(script, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(script, "PAGE", tmp_path / "page.md")
    short = ["--methods", "linear,lora,full", "--trials", "2", "--steps", "1", "--rounds", "1"]
    monkeypatch.setattr(sys, "argv", ["benchmark_packed.py", *short])
    script.main()
    text = script.PAGE.read_text(encoding="utf-8")
    *packed, alone = body_of(text, script.COLUMNS)
    assert [row[script.METHOD] for row in packed] == ["linear", "lora"]
    assert (alone[script.METHOD], alone[-3:]) == ("full", ["", "", ""])
    assert all(float(row[-1]) < 1e-4 for row in packed)
    assert f"benchmark_packed.py --backbone small-random {' '.join(short)}" in text
    kept = script.page([["dinov2-small-focus", "8", "2", "3", "bias", *["1"] * 4]], [*packed, alone], "here")
    assert len(body_of(kept, script.COLUMNS)) == 4, "rows of other settings stay"
    assert "page.md" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["small-random", "dinov2-small-focus"])
def test_it_measures_every_method_of_the_page(script, monkeypatch, tmp_path, backbone):
    """As the page's commands do, with one step of two trials."""
    rows = [row for row in body_of(script.PAGE.read_text(encoding="utf-8"), script.COLUMNS) if row[0] == backbone]
    methods = [row[script.METHOD] for row in rows]
    monkeypatch.setattr(script, "PAGE", tmp_path / "page.md")
    short = ["--methods", ",".join(methods), "--trials", "2", "--steps", "1", "--rounds", "1"]
    monkeypatch.setattr(sys, "argv", ["benchmark_packed.py", "--backbone", backbone, *short])
    script.main()
    measured = body_of(script.PAGE.read_text(encoding="utf-8"), script.COLUMNS)
    assert [row[script.METHOD] for row in measured] == methods

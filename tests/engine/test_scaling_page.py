"""docs/scaling_benchmark.md is what its script writes, and what it derives it derives from the other page."""

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("benchmark_engine", ROOT / "experiments" / "benchmark_engine.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["benchmark_engine"] = module  # its dataclasses look for their module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["benchmark_engine"]


def test_the_page_is_what_the_script_writes(script):
    rows = script.earlier_rows()
    assert {name: len(own) > 0 for name, own in rows.items()} == dict.fromkeys(script.SECTIONS, True)
    assert script.page(rows, script.machine_of_page()) == script.PAGE.read_text(encoding="utf-8")


def test_trainings_follow_from_packed_steps(script):
    pytest.importorskip("torch", reason="needs the extra vision")
    assert list(script.trainings()) == script.earlier_rows()["trainings"]


def test_a_section_measured_alone_keeps_the_others(script, monkeypatch, tmp_path):
    text = script.PAGE.read_text(encoding="utf-8")
    monkeypatch.setattr(script, "PAGE", tmp_path / "page.md")
    script.PAGE.write_text(text, encoding="utf-8")
    rows = script.earlier_rows() | {"engine": [["in-process", "1", "1000"]]}
    script.PAGE.write_text(script.page(rows, "A CPU"), encoding="utf-8")
    assert script.earlier_rows() == rows
    assert script.machine_of_page() == "A CPU"


def test_the_page_names_what_there_is():
    """Options, statuses and limits of the page are those of the code."""
    from moe_prompts.engine import executors, lock, shards
    from moe_prompts.estimators.result import FitStatus

    text = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    wanted = [f"at most {executors.AHEAD} of them", f"puts {shards.SEGMENT} at a time", f"`{lock.NAME}`"]
    wanted += [f"up to {executors.MOST_DEATHS} times", FitStatus.RAISED.name, FitStatus.FAILED.name]
    assert [part for part in wanted if part not in text] == []

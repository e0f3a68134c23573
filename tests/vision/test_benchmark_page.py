"""The page on costs: what its script reads back from it, and the commands it names."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def script(monkeypatch, tmp_path):
    spec = importlib.util.spec_from_file_location("benchmark_vision", ROOT / "experiments" / "benchmark_vision.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "PAGE", tmp_path / "page.md")
    return module


def rows(numbers, fused, rounds=9, device="A CPU, 1 thread"):
    ratios = {"VPT-deep": 1.0, "VPT-deep again": 0.99, "VAPT fused": fused}
    return [
        [device, "vit", "8", numbers, "eager", str(rounds), method, "2.0", str(ratio), ""]
        for method, ratio in ratios.items()
    ]


def test_runs_add_up_to_one_table(script):
    """One heading and one line under it after several runs; a setting measured again replaces its old rows."""
    for run in (rows("float32", 1.03), rows("bfloat16", 1.01), rows("float32", 1.02, rounds=25)):
        script.PAGE.write_text(script.page(run, script.earlier_rows()), encoding="utf-8")
    text = script.PAGE.read_text(encoding="utf-8")
    assert script.earlier_rows() == rows("bfloat16", 1.01) + rows("float32", 1.02, rounds=25)
    assert [text.count(part) for part in ("|-----", "| run on ")] == [10, 1]
    assert text.count("    python experiments/benchmark_vision.py --device cpu --models vit --batch 8 ") == 2
    assert "--numbers float32 --modes eager --rounds 25\n" in text
    assert "--rounds 9\n" in text
    assert "Met in 2 of 2 settings" in text


def test_the_target_is_said_as_it_is(script):
    assert "Not met in any of 1 settings: float32 eager 1.03 (twin 0.99). No GPU" in script.verdict(
        rows("float32", 1.03)
    )
    on_gpu = rows("float32", 1.03, device="A GPU")
    assert "No GPU" not in script.verdict(on_gpu)
    assert "--device cuda" in script.command(on_gpu[0])


def test_the_page_is_what_the_script_writes(script, monkeypatch):
    page = ROOT / "docs" / "vision_benchmark.md"
    monkeypatch.setattr(script, "PAGE", page)
    assert script.page([], script.earlier_rows()) == page.read_text(encoding="utf-8")


def test_the_page_beside_the_papers_says_how_its_rows_were_made(script):
    """A row for each way; a setting measured again replaces its old rows; the command makes them anew."""
    rows = [
        ["A CPU, 1 thread", "vit", "2", "float32", "eager", "5", method, "1.0", "10", "1.0", ""]
        for method in script.OFFICIAL
    ]
    text = script.official_page(rows, [])
    script.BESIDE = script.PAGE
    script.BESIDE.write_text(text, encoding="utf-8")
    assert script.earlier_rows(script.BESIDE, script.OFFICIAL_COLUMNS) == rows
    assert script.official_page(rows, rows) == text
    assert "benchmark_vision.py --official --device cpu --models vit --batch 2 --numbers float32 --modes eager" in text
    assert "No GPU was measured" in " ".join(text.split())

"""Four tasks of a reader, done with what the README says: the snippets are taken from it and run."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def snippet(page: str, mark: str) -> str:
    """Return the part of a page's Python that contains ``mark``, up to an empty line, with the imports of its block."""
    found = []
    for block in re.findall(r"```python\n(.*?)```", (ROOT / page).read_text("utf-8"), re.S):
        imports, *parts = re.split(r"\n\n", block)
        found += [f"{imports}\n{part}" for part in parts if mark in part]
    assert len(found) == 1, f"{page}: {len(found)} parts with {mark}"
    return found[0]


def statements(text: str) -> int:
    return len([line for line in text.splitlines() if line.strip() and not line.startswith("#")])


def run(text: str, folder: Path) -> str:
    done = subprocess.run([sys.executable, "-c", text], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("page", "mark", "most"),
    [
        ("README.md", "mp.study(mine", 6),
        ("README.md", 'mp.study("attention-isru"', 7),
        ("README.md", "draw_mass(again", 12),
    ],
)
def test_the_snippets_are_as_short_as_promised(page, mark, most):
    assert statements(snippet(page, mark)) <= most


@pytest.mark.slow
def test_the_rate_of_my_own_gaussian_gated_truth_in_two_dimensions(tmp_path):
    shown = run(snippet("README.md", "mp.study(mine"), tmp_path)
    assert re.search(r"loss D +-0.5 +-0\.\d\d \[-\d.\d\d, -\d.\d\d\]", shown), shown
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.slow
def test_predicted_and_simulated_rate_of_my_own_activation(tmp_path):
    shown = run(snippet("README.md", 'mp.study("attention-isru"'), tmp_path)
    assert "n^(-1/4)" in shown
    assert re.search(r"isru +2 +L2 +-0.5 +-0\.\d\d \[", shown), shown


@pytest.mark.slow
def test_vapt_trained_saved_loaded_and_drawn(tmp_path):
    pytest.importorskip("timm", reason="needs the extra vision")
    run(snippet("README.md", "draw_mass(again"), tmp_path)
    assert (tmp_path / "mass.png").stat().st_size > 1_000


def test_how_many_replicates_a_verdict_takes():
    """The command of the README's table, as the console runs it."""
    (line,) = re.findall(r"^\| count replicates for a verdict \| `moe-prompts (.+)` \|$", README, re.M)
    call = [sys.executable, "-c", "from moe_prompts.commands.console import main; main()", *shlex.split(line)]
    done = subprocess.run(call, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (needed,) = re.findall(r"(\d+) replicates do with probability 0\.8\.", " ".join(done.stdout.split()))
    assert int(needed) in (32, 64, 128, 256)
    assert max(map(len, done.stdout.splitlines())) <= 80

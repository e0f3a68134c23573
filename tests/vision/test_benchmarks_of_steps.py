"""The benchmarks of logits in bfloat16 and of kept states: what their rows say, and a whole run in small."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest
import torch

from moe_prompts.errors import InputError

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
SMALL = ("--backbone", "small-random", "--size", "32", "--steps", "1")


def loaded(name):
    spec = importlib.util.spec_from_file_location(name, EXPERIMENTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cells(text):
    """The cells of the table's rows, below its two lines of heading."""
    rows = [line for line in text.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_a_row_compares_answers_and_single_logits():
    """By hand: one of four answers changes, and with it the accuracy by a quarter."""
    plain = torch.tensor([[3.0, 0.0], [0.0, 3.0], [3.0, 0.0], [0.0, 0.1]])
    short = torch.tensor([[3.0, 0.0], [0.0, 3.0], [3.0, 0.0], [0.2, 0.1]])
    row = loaded("benchmark_bfloat16").compared(plain, short, torch.tensor([0, 1, 1, 1]))
    rms, apart = (27.01 / 8) ** 0.5, (0.04 / 8) ** 0.5
    assert row == [f"{rms:.3f}", f"{apart:.4f}", "0.2000", "75.0", "75.0", "50.0"]


def test_logits_in_bfloat16_are_compared_for_all_methods(monkeypatch, capsys):
    """An odd number of images, so that the last part is a short one; both precisions were used."""
    script = loaded("benchmark_bfloat16")
    monkeypatch.setattr(sys, "argv", ["benchmark_bfloat16.py", *SMALL, "--images", "103"])
    script.main()
    rows = cells(capsys.readouterr().out)
    assert [row[0] for row in rows] == list(script.METHODS)
    for row in rows:
        rms, apart = float(row[1]), float(row[2])
        # bfloat16 has 8 bits: differences are neither nothing nor as large as the logits.
        assert 0 < apart < 0.1 * rms
        assert float(row[4]) > 90


@pytest.mark.parametrize("bfloat16", [True, False])
def test_kept_states_are_timed_and_change_no_bit(monkeypatch, capsys, bfloat16):
    """Where the processor does not multiply bfloat16, its two columns are empty and nothing is said of a target."""
    script = loaded("benchmark_states")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": bfloat16}, raising=False)
    monkeypatch.setattr(
        sys, "argv", ["benchmark_states.py", *SMALL, *["--last-blocks", "2", "--trials", "2", "--rounds", "1"]]
    )
    script.main()
    shown = capsys.readouterr().out
    rows = cells(shown)
    assert [row[0] for row in rows] == list(script.METHODS)
    for row in rows:
        # One round: the ratio of the medians is the median of the ratios, to the digits that are shown.
        for column in (5, 6, *([7] if bfloat16 else [])):
            assert float(row[column]) == pytest.approx(float(row[1]) / float(row[column - 3]), rel=0.03)
        assert (row[4] == "-", row[7] == "-") == (not bfloat16, not bfloat16)
    assert re.search(r"^in float32: met in [012] of 2$", shown, flags=re.M)
    assert re.search(rf"^in bfloat16: {'met in [012] of 2' if bfloat16 else 'not measured'}$", shown, flags=re.M)


def test_other_parameters_from_kept_states_are_an_error(monkeypatch, capsys):
    script = loaded("benchmark_states")
    monkeypatch.setattr(script, "measure", lambda method, arguments: ([method, *"1111111"], False))
    monkeypatch.setattr(sys, "argv", ["benchmark_states.py", *SMALL])
    with pytest.raises(SystemExit, match="ended with other parameters"):
        script.main()
    capsys.readouterr()


def test_all_blocks_are_no_last_blocks():
    script = loaded("benchmark_states")
    arguments = script.parser().parse_args([*SMALL, "--last-blocks", "4"])
    with pytest.raises(InputError, match="--last-blocks 4: all of small-random; expected fewer, at most 3"):
        script.measure("vapt", arguments)

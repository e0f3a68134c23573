"""Students of planted prompts: crossings by hand, rows of a small study, the command and its wrong inputs."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from moe_prompts.errors import InputError
from moe_prompts.study.runner import run_study
from moe_prompts.vision import efficiency
from moe_prompts.vision.efficiency import FRESH, STUDENTS, Planting, crossing, curves, planted_study
from moe_prompts.vision.training import TRAINED

SCRIPT = Path(__file__).parents[2] / "experiments" / "data_efficiency.py"
TINY = Planting("small", 2, steps=2, fresh_steps=2)


@pytest.fixture(autouse=True)
def few_images(monkeypatch):
    monkeypatch.setattr(efficiency, "TEST_IMAGES", 64)
    monkeypatch.setattr(efficiency, "VALIDATION_IMAGES", 64)


def rows(fixed, adaptive, floors=(0.3, 0.1), counts=(100, 300)):
    """Excess risks {n: risks over replicates} of two students on the adaptive truth."""
    both = (("vpt", fixed, floors[0], counts[0]), ("vapt", adaptive, floors[1], counts[1]))
    return pd.DataFrame(
        {
            "truth": "planted-adaptive", "student": student, "n": n, "replicate": replicate, "parameters": count,
            "excess": risk, "status": TRAINED,
        }
        for student, by_n, floor, count in both
        for n, risks in (by_n | {FRESH: (floor, floor)}).items()
        for replicate, risk in enumerate(risks)
    )  # fmt: skip


def test_a_crossing_by_hand():
    """Differences -.2 and .1 at 100 and 10 000: two thirds of the way in log n; predicted 200 / (2 * .2)."""
    table = rows({100: (0.5, 0.7), 10_000: (0.4, 0.4)}, {100: (0.7, 0.9), 10_000: (0.3, 0.3)})
    found = crossing(table, "planted-adaptive", "vpt", "vapt", entropy=0)
    assert found["observed"] == pytest.approx(100 * 100 ** (2 / 3))
    assert found["predicted"] == pytest.approx(500)
    assert found["low"] == pytest.approx(found["observed"])  # all replicates differ alike
    assert found["high"] == pytest.approx(found["observed"])


def test_intervals_hold_what_resampled_replicates_say():
    """Three replicates whose own crossings are 1000, none and below 100: an interval from 0 to infinity."""
    fixed = {100: (0.4, 0.4, 0.6), 10_000: (0.6, 0.4, 0.6)}
    adaptive = {100: (0.5, 0.5, 0.5), 10_000: (0.5, 0.5, 0.5)}
    table = rows(fixed, adaptive)
    found = crossing(table[table["n"] > 0], "planted-adaptive", "vpt", "vapt", entropy=0)
    assert found["low"] == 0
    assert found["high"] == np.inf
    assert np.isnan(found["predicted"])


def test_no_crossing_within_the_sizes():
    up, down = {100: (0.5,) * 2, 1000: (0.5,) * 2}, {100: (0.4,) * 2, 1000: (0.4,) * 2}
    assert crossing(rows(up, down), "planted-adaptive", "vpt", "vapt", 0)["observed"] == 0
    assert crossing(rows(down, up), "planted-adaptive", "vpt", "vapt", 0)["observed"] == np.inf


def test_a_study_has_a_row_for_every_student_and_does_not_depend_on_the_others(tmp_path):
    study = planted_study(["planted-fixed"], STUDENTS, [16], 2, TINY, entropy=0)
    table = run_study(study, tmp_path / "all", progress=False)
    assert len(table) == len(STUDENTS) * 2 * 2
    assert (table["excess"] > 0).all()
    assert set(table["n"]) == {16, FRESH}
    parameters = table.groupby("student")["parameters"].first()
    assert parameters["vpt_matched"] >= parameters["vapt"] > parameters["vpt"]
    assert parameters["vapt_offset"] == parameters["vapt"] + 3 * 2 * 64
    alone = run_study(
        planted_study(["planted-fixed"], ["vapt"], [16], 2, TINY, 0, floors=False), tmp_path / "one", progress=False
    )
    same = table[(table["student"] == "vapt") & (table["n"] == 16)].reset_index(drop=True)
    pd.testing.assert_frame_equal(alone, same)
    found = curves(table)
    vapt = found[(found["student"] == "vapt") & (found["n"] == 16)].iloc[0]
    assert vapt["excess"] == pytest.approx(same["excess"].mean())
    assert vapt["error"] == pytest.approx(same["excess"].std() / 2**0.5)


def call(monkeypatch, *arguments):
    spec = importlib.util.spec_from_file_location("data_efficiency_script", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(sys, "argv", ["data_efficiency.py", *map(str, arguments)])
    script.main()


def test_the_command(tmp_path, monkeypatch, capsys):
    short = ("--n", "16,32", "--reps", 2, "--steps", 2, "--fresh-steps", 2, "--tokens", 2, "--workers", 1)
    call(monkeypatch, "--task", "planted-adaptive", "--students", "vpt,vapt", *short, "--out", tmp_path / "run")
    shown = capsys.readouterr().out
    assert "| truth | student | parameters | n = 16 | n = 32 | fresh images |" in shown
    assert "planted-adaptive: vapt is better than vpt from n = " in shown
    assert (tmp_path / "run" / "planted.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--task", "planted-fixed,count"), "planted truth 'count'; expected one of planted-fixed, planted-adaptive"),
        (("--students", "vpt,lora"), "student 'lora'; expected one of vpt"),
        (("--n", "5"), "not a whole number of pairs from 10"),
        (("--backbone", "none"), "no backbone 'none'"),
        (("--resume",), "--resume needs --out"),
    ],
)
def test_wrong_input_is_one_clear_error(monkeypatch, arguments, message):
    with pytest.raises(InputError) as raised:
        call(monkeypatch, *arguments)
    assert message in str(raised.value)

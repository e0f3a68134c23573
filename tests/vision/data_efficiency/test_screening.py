"""The screening of starts: rows of a run of few steps, and tables on rows that say what they must."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from commands import call

from moe_prompts.errors import InputError
from moe_prompts.intervals import half_width
from moe_prompts.vision.data_efficiency import screening as module
from moe_prompts.vision.data_efficiency.screening import (
    OPTIMISERS,
    STUDENTS,
    WIDER,
    against_official,
    run_cell,
    screening,
    screening_table,
    student_of,
    text,
)
from moe_prompts.vision.training.methods import Sizes
from moe_prompts.vision.training.runs import Setup
from moe_prompts.vision.training.sgd import Recipe, Score
from moe_prompts.vision.training.statuses import DIVERGED, TRAINED

SETUP = Setup("small-gain", sizes=Sizes(4), recipe=Recipe(steps=2, batch=4, normalisation="half"))


def rows_of(excess: dict[str, list[float]]) -> pd.DataFrame:
    """Rows of one truth and optimiser: a bad rate beside the one that validation chooses, for each teacher."""
    rows = []
    for student, values in excess.items():
        for teacher, value in enumerate(values):
            common = {"task": "planted-adaptive", "teacher": teacher, "student": student, "optimiser": "sgd"}
            common |= {"parameters": 10, "replicate": 0, "accuracy": 0.5, "train_loss": 1.0, "gradient_ratio": 2.0}
            rows.append(
                common | {"lr": 0.05, "chosen": True, "validation": 1 + value, "excess": value, "status": TRAINED}
            )
            rows.append(common | {"lr": 3.2, "chosen": False, "validation": 9.0, "excess": 0.0, "status": DIVERGED})
    return pd.DataFrame(rows)


def test_tables_count_the_chosen_rate_alone():
    """Student's interval of three differences by hand: .1, .2 and .3 have mean .2 and standard deviation .1."""
    table = rows_of({"official": [0.3, 0.5, 0.7], "tokens": [0.2, 0.3, 0.4], "fixed": [0.9, 0.2, 0.9]})
    found = screening_table(table).set_index("student")
    assert found.loc["official", "excess"] == pytest.approx(0.5)
    assert found.loc["official", "error"] == pytest.approx(0.2 / 3**0.5)
    assert found["best"].to_dict() == {"official": 0, "tokens": 2, "fixed": 1}
    gains = against_official(table).set_index("student")
    half = float(half_width(0.1 / np.sqrt(3), 3))
    assert gains.loc["tokens", ["gain", "low", "high"]].tolist() == pytest.approx([0.2, 0.2 - half, 0.2 + half])
    assert gains.loc["tokens", "wins"] == 3
    assert "official" not in gains.index
    printed = text(table)
    assert "| tokens   | sgd       | 10         | 0.300 +- 0.058 | 0.05 | 2.0            | 2 of 3 |" in printed
    assert "9 of 18 trainings diverged" in printed


def test_a_cell_gives_a_row_for_each_rate_and_chooses_one(monkeypatch):
    monkeypatch.setattr(module, "VALIDATION_IMAGES", 64)
    monkeypatch.setattr(module, "TEST_IMAGES", 64)
    study = screening(["official", "tokens"], ["sgd", "adamw-mu"], 2, 1, SETUP, 0)
    assert len(study.cells) == 2 * 2 * 2 * 2
    rows = pd.DataFrame(run_cell(study.cells[3], (0,), 0))
    assert rows["lr"].tolist() == list(OPTIMISERS["adamw-mu"])
    assert rows["chosen"].sum() == 1
    assert rows.loc[rows["chosen"], "validation"].item() == rows["validation"].min()
    assert (rows["excess"] > 0).all()
    assert rows["gradient_ratio"].max() < 10


def test_of_equal_rates_the_smaller_one_is_chosen(monkeypatch):
    """As ``rates.best`` chooses for curves over n, in whatever order rates stand."""
    monkeypatch.setattr(module, "VALIDATION_IMAGES", 64)
    monkeypatch.setattr(module, "TEST_IMAGES", 64)
    monkeypatch.setattr(module, "evaluate", lambda packed, *more: [Score(0.5, 1.0)] * 2)
    study = screening(["official"], ["sgd"], 1, 1, SETUP, 0, {"sgd": (0.2, 0.05)})
    rows = pd.DataFrame(run_cell(study.cells[0], (0,), 0))
    assert rows.loc[rows["chosen"], "lr"].tolist() == [0.05]


def test_a_wider_grid_goes_beyond_the_rates_that_were_taken_most_often():
    study = screening(["official"], ["sgd", "adamw"], 1, 1, SETUP, 0, WIDER)
    tried = {cell.optimiser: [setting.lr for setting in cell.settings] for cell in study.cells}
    assert tried["sgd"] == list(OPTIMISERS["sgd"])
    assert tried["adamw"] == [*OPTIMISERS["adamw"], 0.512, 2.048]
    assert study.identity["rates"]["adamw"] == tried["adamw"]


def test_students_have_the_starts_that_they_say():
    assert {student_of(name, 4).start for name in STUDENTS} == {"official", "tokens", "orthogonal", "gain", "vpt"}
    assert student_of("vpt", 4).n_parameters(64, 4, (4, 4)) == student_of("official+offset", 4).n_parameters(
        64, 4, (4, 4)
    )
    with pytest.raises(InputError, match="student 'vapt'; expected one of fixed"):
        student_of("vapt", 4)
    with pytest.raises(InputError, match="optimiser 'adam'; expected one of sgd"):
        screening(["official"], ["adam"], 1, 1, SETUP, 0)


@pytest.mark.slow
def test_the_command_runs_and_goes_on(tmp_path):
    options = ("starts.py", "--quick", "--workers", "1", "--out", tmp_path / "run")
    done = call(*options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "less excess than official" in done.stdout
    assert "planted-fixed: excess risk" in (tmp_path / "run" / "summary.md").read_text(encoding="utf-8")
    assert {"results.parquet", "summary.md", "starts.png"} <= {path.name for path in (tmp_path / "run").iterdir()}
    assert call(*options, "--resume", cwd=tmp_path).returncode == 0


def test_committed_screening_is_what_its_rows_say():
    run = Path(__file__).parents[3] / "paper_figures" / "data" / "starts"
    table = pd.read_parquet(run / "results.parquet")
    assert (run / "summary.md").read_text(encoding="utf-8") == text(table) + "\n"
    page = (run.parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    for line in markdown_rows(run):
        assert line in page


def markdown_rows(run: Path) -> list[str]:
    """Return the rows of the last table: what each start gains over the official one."""
    last = (run / "summary.md").read_text(encoding="utf-8").strip().split("\n\n")[-1]
    return last.splitlines()[2:]


def test_the_command_says_the_normalisation_that_its_backbone_is_given(monkeypatch, tmp_path):
    from moe_prompts.commands import starts
    from moe_prompts.vision.backbones.normalisation import normalisation_of

    made = []
    monkeypatch.setattr(starts.cli, "results", lambda study, *others: made.append(study))
    monkeypatch.setattr(starts, "tell", lambda *others: None)
    for backbone in ("small-gain", "dinov2-small-focus"):
        monkeypatch.setattr("sys.argv", ["starts.py", "--backbone", backbone, "--out", str(tmp_path)])
        starts.main()
        assert made[-1].identity["place"]["recipe"]["normalisation"] == normalisation_of(backbone)

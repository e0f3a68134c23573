"""experiments/claims.py as a user types it."""

import json
from pathlib import Path

import pandas as pd
import pytest
from commands import call

from moe_prompts.claims.claim import QUICK_SEED, REGISTERED_SEED

PAGE = Path(__file__).parents[1] / "docs" / "claims.md"


def command(*arguments, cwd):
    return call("claims.py", *arguments, cwd=cwd)


def test_one_claim_from_run_to_verdict_and_again(tmp_path):
    before = PAGE.read_bytes()
    done = command("--only", "G-exact", "--quick", "--workers", "1", "--seed", "5", "--out", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "\nG-exact " in done.stdout
    assert "stays as it is" in done.stdout
    (record,) = json.loads((tmp_path / "run" / "claims.json").read_text(encoding="utf-8"))
    assert record["id"] == "G-exact"
    assert len(record["evidence"]) == 2
    assert "## G-exact:" in (tmp_path / "run" / "claims.md").read_text(encoding="utf-8")
    rows = pd.read_parquet(tmp_path / "run" / "gaussian-gated" / "results.parquet")
    assert set(rows["truth"]) == {"gmoe-1", "gmoe-2"}

    again = ("--only", "G-exact", "--quick", "--workers", "1", "--seed", "5", "--out", "run")
    refused = command(*again, cwd=tmp_path)
    assert refused.returncode == 2
    assert "already holds runs; add --resume" in refused.stderr
    resumed = command(*again, "--resume", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads((tmp_path / "run" / "claims.json").read_text(encoding="utf-8")) == [record]
    assert PAGE.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--only", "P-everything"), "unknown claim 'P-everything'; expected some of P-density"),
        (("--resume",), "--resume needs --out"),
        (("--seed", "-1"), "--seed -1; expected a whole number of at least 0"),
        (("--workers", "0"), "not a number of workers"),
        (("--only", ","), "',' names nothing; expected one name"),
        (("--resume", "--out", "nowhere"), "nowhere holds no run to resume"),
        (("--rejudge", "--draw", "nothing"), "--rejudge with --draw; expected one of them"),
        (("--rejudge", "--list"), "--rejudge with --list; expected one of them"),
        (("--only", "A-rbar", "--out", "/proc/nowhere"), "cannot write to /proc/nowhere"),
    ],
)
def test_mistakes_are_answered_in_one_line(arguments, message, tmp_path):
    done = command(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert message in line
    assert not list(tmp_path.iterdir())


def test_quick_runs_draw_other_data_than_those_that_decide(tmp_path):
    done = command("--only", "A-rbar", "--quick", "--out", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "run" / "claims.md").read_text(encoding="utf-8")
    assert f"All data from seed {QUICK_SEED}." in page
    assert QUICK_SEED != REGISTERED_SEED


def test_the_list_names_every_rule(tmp_path):
    done = command("--list", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n\n") >= 15
    assert "P-rank (derived here)" in done.stdout

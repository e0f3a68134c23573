"""The command as a user types it: a small run, its files, and one clear line for each wrong input."""

import json
import os
import subprocess
import sys

import pandas as pd
import pytest
from commands import call


def command(*arguments, cwd):
    return call("sample_efficiency.py", *arguments, cwd=cwd)


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """Two sizes of the three, and two replicates of the eight."""
    folder = tmp_path_factory.mktemp("quick")
    options = "--quick --n 1e3,1e4 --reps 2 --workers 1 --out run"
    return command(*options.split(), cwd=folder), folder / "run"


def test_quick_run_prints_its_tables_and_says_where_things_are(quick):
    done, out = quick
    assert done.returncode == 0, done.stderr
    told = (out / "summary.md").read_text()
    lines = told.splitlines()
    headings = [index for index, line in enumerate(lines) if line.startswith("## ")]
    assert len(headings) == 4
    truths = []
    for heading in headings:
        table = [line for line in lines[heading + 2 :] if line][: lines[heading + 2 :].index("")]
        assert len({len(line) for line in table}) == 1
        truths.append({line.split("|")[1].strip() for line in table[2:]})
    attention = {"attention-fixed", "attention-decoupled", "attention-gelu"}
    assert truths == [attention] * 3 + [{"prompts-adaptive", "prompts-fixed", "gmoe-1"}]
    printed = done.stdout.splitlines()
    assert max(map(len, printed)) <= 80
    assert [line.split()[0] for line in printed if line.startswith("  ")][-8:] == [
        *("summary.md", "summary.json", "results.parquet", "meta.json"),
        *("attention.pdf", "attention.png", "sample_efficiency.pdf", "sample_efficiency.png"),
    ]
    assert "A smoke run" in done.stdout


def test_quick_run_showed_its_smallest_data_first(quick):
    done, out = quick
    text = (out / "first.md").read_text()
    assert done.stderr.count(str(out.relative_to(out.parent) / "first.md")) == 1
    assert text.startswith("# First rows: n = 1e3\n")
    lines = [line for line in text.splitlines() if line.startswith("|")][2:]
    rows = pd.read_parquet(out / "results.parquet")
    fits = rows[(rows["n"] == 1_000) & rows["status"].notna()]
    assert len(lines) == len(fits.groupby(["truth", "kind", "k"]))
    assert all(line.split("|")[5].strip().endswith("of 2") for line in lines)
    assert "left" in done.stderr


def test_quick_run_leaves_table_figures_and_metadata(quick):
    _, out = quick
    for name in ("results.parquet", "timings.parquet", "meta.json", "summary.md", "summary.json"):
        assert (out / name).stat().st_size > 0
    for name in ("attention", "sample_efficiency"):
        assert (out / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    meta = json.loads((out / "meta.json").read_text())
    assert meta["identity"]["entropy"] == 0
    assert meta["identity"]["truths_used"]["gmoe-1"]["weights"] == [0.3, 0.4, 0.3]
    assert meta["identity"]["prompt_truths_used"]["attention-fixed"]["b"] == [0.81, 0.88]
    assert meta["commands"][0]["command"][:2] == ["sample_efficiency.py", "--quick"]  # and not where the script stands
    assert {"git_commit", "commands", "host", "platform", "cells"} <= meta.keys()
    assert meta["identity"]["versions"]["moe-prompts"]
    timings = pd.read_parquet(out / "timings.parquet")
    assert (timings["seconds"] > 0).all()
    assert len(timings) == len(meta["cells"])  # 2 replicates are one block


def test_quick_run_shows_the_floor_of_fixed_prompts(quick):
    """At n = 1e4 the risk of two constant experts on the adaptive truth is far above that of two affine ones."""
    rows = pd.read_parquet(quick[1] / "results.parquet")
    last = rows[
        (rows["truth"] == "prompts-adaptive") & (rows["n"] == rows["n"].max()) & (rows["status"] == "CERTIFIED")
    ]
    medians = last.groupby(["kind", "k"])["relative_risk"].median()
    assert medians["fixed", 2] > 30 * medians["adaptive", 2]  # measured: about 500 times


@pytest.mark.slow
def test_kinds_select_lines_of_the_study_that_knows_them(tmp_path):
    options = "--n 1e3 --reps 2 --k 2 --truth fixed --workers 1 --kinds decoupled,adaptive:tanh --out run"
    done = command(*options.split(), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = pd.read_parquet(tmp_path / "run" / "results.parquet")
    assert set(rows["study"]) == {"attention", "attention-gap", "attention-profile"}
    fits = rows[rows["study"] == "attention"]
    assert set(fits["kind"]) == {"decoupled", "adaptive:tanh"}
    assert set(fits["truth"]) == {"attention-fixed", "attention-fixed-rank1"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--n", "1e6..1e3"], "the range runs downwards: expected low..high"),
        (["--n", "abc"], "'abc' is not a size: expected a range 1e3..1e6 or a list 1e3,1e4"),
        (["--n", "1e3..1e4..1e5"], "expected one range"),
        (["--n", "1000.5"], "not a whole number of pairs"),
        (["--n", "1e400"], "not a whole number of pairs from 10 to 1e+08"),
        (["--n", ""], "'' is not a size"),
        (["--k", "0"], "'0' is not a number of free atoms; expected a whole number of at least 1"),
        (["--reps", "0"], "'0' is not a number of replicates"),
        (["--reps", "two"], "'two' is not a number of replicates"),
        (["--study", "vision"], "unknown study 'vision'; expected one of gaussian, attention, softmax, all"),
        (["--kinds", "shared"], "unknown prompt kind 'shared'"),
        (["--kinds", "decoupled", "--study", "gaussian"], "unknown prompt kind 'decoupled'; expected fixed, adaptive,"),
        (["--kinds", "fixed:tied", "--study", "attention"], "expected fixed, decoupled, adaptive, adaptive:SIGMA"),
        (["--study", "attention", "--start", "data"], "start of prompts in attention = 'data'"),
        (["--kinds", ""], "argument --kinds: '' names nothing; expected one name"),
        (["--truth", "moon"], "--truth moon; expected one of adaptive"),
        (["--seed", "-1"], "--seed -1; expected a whole number of at least 0"),
        (["--resume"], "--resume needs --out"),
        (["--resume", "--out", "nowhere"], "nowhere holds no run to resume"),
        (["--points", "1"], "expected at least 2 sizes for a range"),
        (
            ["--n", "1e3", "--study", "gaussian", "--truth", "adaptive", "--k", "1", "--start", "near_truth"],
            "near_truth needs k >= 2",
        ),
        (["--study", "softmax", "--kinds", "fixed"], "softmax-gated experts have no kinds of prompts"),
        (["--study", "softmax", "--start", "data"], "the softmax study starts near_truth only"),
        (["--study", "softmax", "--truth", "fixed"], "the softmax study has no prompts"),
        (["--study", "softmax", "--k", "1"], "k = 1 atoms cannot sit at all 2 true ones of sgame"),
        (["--bogus"], "unrecognized arguments: --bogus"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(arguments, message, tmp_path):
    done = command(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_resume_on_a_folder_of_another_study(quick):
    done = command("--quick", "--seed", "1", "--out", "run", "--resume", cwd=quick[1].parent)
    assert done.returncode == 2
    assert "holds another study (entropy: 0 there, 1 here)" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_resume_on_a_folder_of_something_else(tmp_path):
    said = {"{}": "was begun by an earlier version of this package", "not JSON": "was not written by a study"}
    for content, message in said.items():
        (tmp_path / "meta.json").write_text(content)
        done = command("--quick", "--out", ".", "--resume", cwd=tmp_path)
        assert done.returncode == 2
        assert message in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1


def test_a_second_run_does_not_overwrite_the_first(quick):
    done = command("--quick", "--out", "run", cwd=quick[1].parent)
    assert done.returncode == 2
    assert "already holds a run; add --resume" in done.stderr


def test_unwritable_folder(tmp_path):
    (tmp_path / "file").write_text("")
    done = command("--quick", "--out", "file/run", cwd=tmp_path)
    assert done.returncode == 2
    assert "cannot write to file/run" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    done = command("--quick", "--out", str(tmp_path / "run"), cwd="/")
    assert done.returncode == 2
    assert "cannot write to" in done.stderr


@pytest.mark.slow
def test_parts_are_gathered_by_commands(tmp_path):
    """As docs/scaling.md says, on a small grid: the table is that of one run."""
    options = "--study gaussian --truth fixed --kinds fixed --k 2 --n 300,600 --reps 9 --workers 1"
    grid = options.split()
    for part in ("1", "2"):
        assert command(*grid, "--shard", f"{part}/2", "--out", f"part{part}", cwd=tmp_path).returncode == 0
    assert call("gather.py", "--out", "whole", "part1", "part2", cwd=tmp_path).returncode == 0
    assert command(*grid, "--out", "whole", "--resume", cwd=tmp_path).returncode == 0
    assert command(*grid, "--out", "alone", cwd=tmp_path).returncode == 0
    whole, alone = ((tmp_path / name / "results.parquet").read_bytes() for name in ("whole", "alone"))
    assert whole == alone


def test_what_a_locale_cannot_show_is_printed_as_an_escape(tmp_path):
    """In the POSIX locale a line with ± or an accent is printed, and the command ends as elsewhere."""
    code = r"from moe_prompts import cli; cli.run(lambda: print('\xb11'), 'command')"
    environment = os.environ | {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "\\xb11\n", "")

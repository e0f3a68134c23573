"""experiments/identifiability.py as a user types it."""

import pandas as pd
import pytest
from commands import call


def test_any_configuration_and_kind(tmp_path):
    options = "--configurations rank1,heads2,random-7 --kinds fixed --n 1e4,1e5 --reps 8 --workers 1 --out run"
    done = call("identifiability.py", *options.split(), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = pd.read_parquet(tmp_path / "run" / "results.parquet")
    assert set(rows["truth"]) == {"attention-fixed-rank1", "attention-fixed-heads2", "attention-random-7-fixed"}
    first = (tmp_path / "run" / "summary.md").read_text().split("\n\n")[0].splitlines()[2:]
    verdicts = {line.split("|")[1].strip(): line.split("|")[-2].strip() for line in first}
    printed = {line.split()[0]: line.split("  ")[-1].strip() for line in done.stdout.splitlines() if line[-10:].strip()}
    assert {printed[name.removeprefix("attention-")] for name in verdicts} == {
        verdict.removesuffix(" here") for verdict in verdicts.values()
    }
    assert verdicts.pop("attention-random-7-fixed") != "no rate"
    assert verdicts.pop("attention-fixed-heads2") == "n^-1/4"  # what one of its heads hides, the other sees
    assert set(verdicts.values()) == {"no rate"}
    for name in ("summary.md", "summary.json", "meta.json", "identifiability.png", "identifiability.pdf"):
        assert (tmp_path / "run" / name).stat().st_size > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--configurations", "moon"], "--configurations moon; expected reference, rank1, heads2, random-NUMBER"),
        (["--configurations", "random-"], "expected reference, rank1, heads2, random-NUMBER"),
        (["--kinds", "adaptive:swish"], "unknown prompt kind 'adaptive:swish'"),
        (["--kinds", "adaptive:tanh:bias"], "--kinds adaptive:tanh:bias; expected some of fixed, decoupled,"),
        (["--n", "abc"], "'abc' is not a size"),
        (["--quick", "--n", "abc"], "'abc' is not a size"),  # what is given stays, --quick or not
        (["--quick", "--configurations", "moon"], "--configurations moon; expected reference"),
        (["--reps", "0"], "'0' is not a number of data sets"),
        (["--seed", "-1"], "--seed -1; expected a whole number of at least 0"),
        (["--resume"], "--resume needs --out"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(arguments, message, tmp_path):
    done = call("identifiability.py", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())

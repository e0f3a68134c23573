"""The command that compares runs of the two routes: what it counts, what it refuses, and that it can fail."""

import importlib.util
from pathlib import Path

import pandas as pd
import pytest

from moe_prompts.errors import InputError


@pytest.fixture(scope="module")
def script():
    path = Path(__file__).parents[1] / "experiments" / "benchmark_agreement.py"
    spec = importlib.util.spec_from_file_location("agreement", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def fits(count=400, study="gaussian"):
    rows = [{"study": study, "replicate": i, "status": "CERTIFIED", "log_likelihood": -1e4 - i} for i in range(count)]
    return pd.DataFrame(rows).assign(truth="t", kind="fixed", k=2, n=1000, start="data")


def test_equal_runs_hold_in_any_order(script):
    both = pd.concat([fits(), fits(100, "attention"), fits(5, "attention-gap")])
    rows, holds = script.compared(both, both.sample(frac=1, random_state=0))
    assert holds
    assert [row[:6] for row in rows] == [
        ["attention", "100", "100 (100.00%)", "100", "100", "100"],
        ["gaussian", "400", "400 (100.00%)", "400", "400", "400"],
        ["all", "500", "500 (100.00%)", "500", "500", "500"],
    ]


@pytest.mark.parametrize(("changed", "holds"), [(2, True), (3, False)])
def test_statuses_may_differ_in_half_a_percent(script, changed, holds):
    one, other = fits(), fits()
    one.loc[: changed - 1, ["status", "log_likelihood"]] = ["STALLED", 0.0]  # a value that counts for nothing
    rows, found = script.compared(one, other)
    assert found is holds
    assert rows[-1][3:6] == [f"{400 - changed}", "400", f"{400 - changed}"]


@pytest.mark.parametrize(("off", "holds"), [(0.9e-9, True), (1.1e-9, False)])
def test_values_agree_to_their_size(script, off, holds):
    one, other = fits(), fits()
    one.loc[7, "log_likelihood"] *= 1 + off
    rows, found = script.compared(one, other)
    assert found is holds
    assert float(rows[-1][-1]) == pytest.approx(off, rel=0.1)


def test_other_fits_are_refused(script):
    with pytest.raises(InputError, match="not the same ones"):
        script.compared(fits(10), fits(11))
    with pytest.raises(InputError, match="0 and 0 fits"):
        script.compared(fits(3, "attention-gap"), fits(3, "attention-gap"))


def test_fits_that_one_run_alone_has_are_left_out_and_counted(script):
    one, other, alone = script.common(fits(10), fits(13).iloc[4:].sample(frac=1, random_state=1))
    assert alone == 4 + 3
    rows, holds = script.compared(one, other)
    assert holds
    assert rows[-1][1] == "6"


@pytest.mark.slow
def test_parts_of_two_runs_add_up(script, tmp_path, monkeypatch, capsys):
    """Both routes make part 1 of 2, then part 2; what is compared grows from some fits to all."""
    command = [
        "agreement",
        "--n",
        "1000",
        "--reps",
        "1",
        "--study",
        "softmax",
        "--workers",
        "1",
        "--out",
        str(tmp_path),
    ]
    counts = []
    for part in ("1/2", "2/2"):
        monkeypatch.setattr("sys.argv", [*command, "--shard", part])
        script.main()
        said = capsys.readouterr().out
        assert "holds" in said
        assert "none of the other yet" not in said
        counts.append(int(said.splitlines()[-2].split("|")[2]))
    assert 0 < counts[0] < counts[1] == 2 * counts[0]


def test_a_run_that_is_stopped_keeps_what_has_ended(script, tmp_path):
    with pytest.raises(InputError, match=r"expected the folder of a run|no block has ended|meta\.json"):
        script.rows_of(tmp_path)

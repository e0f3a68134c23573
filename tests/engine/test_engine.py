"""One table whatever the workers, the interruptions and the growth of the grid."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from moe_prompts import InputError, run_study
from moe_prompts.engine import store
from moe_prompts.engine.executors import Joblib
from moe_prompts.engine.grid import Study
from moe_prompts.engine.store import RunFolder
from moe_prompts.study import gaussian
from moe_prompts.study.gaussian import GaussianCell, gaussian_study, run_cell

SCRIPT = Path(__file__).parents[2] / "experiments" / "sample_efficiency.py"


def small(**changes):
    options = {
        "sizes": [300, 600],
        "replicates": 9,
        "entropy": 3,
        "truths": ["prompts-fixed"],
        "kinds": ["fixed"],
        "ks": [2, 3],
        "data_starts": 1,
    }
    return gaussian_study(**{**options, **changes})


@pytest.fixture(scope="module")
def baseline(tmp_path_factory):
    folder = tmp_path_factory.mktemp("baseline")
    return run_study(small(), folder, progress=False), (folder / "results.parquet").read_bytes()


@pytest.mark.slow
def test_two_workers_write_the_identical_table(baseline, tmp_path):
    run_study(small(), tmp_path, executor=Joblib(2), progress=False)
    assert (tmp_path / "results.parquet").read_bytes() == baseline[1]


def test_resume_completes_to_the_identical_table(baseline, tmp_path):
    run_study(small(), tmp_path, progress=False)
    shards = sorted((tmp_path / "blocks").glob("*.arrow"))
    shards[0].unlink()
    shards[3].write_bytes(shards[3].read_bytes()[:100])  # cut short, as by a dying disk
    (tmp_path / "results.parquet").unlink()
    run_study(small(), tmp_path, resume=True, progress=False)
    assert (tmp_path / "results.parquet").read_bytes() == baseline[1]


@pytest.mark.slow
def test_sigkill_and_resume_complete_to_the_identical_table(tmp_path):
    def command(out, *more):
        options = f"--n 1e3,2e3 --reps 9 --k 2,3 --workers 1 --truth fixed --study gaussian --out {out}"
        return [sys.executable, str(SCRIPT), *options.split(), *more]

    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = subprocess.Popen(command(killed), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(killed.glob("blocks/*.arrow")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list(killed.glob("blocks/*.arrow"))
    assert not (killed / "results.parquet").exists()
    subprocess.run(command(killed, "--resume"), check=True, capture_output=True)
    subprocess.run(command(whole), check=True, capture_output=True)
    assert (killed / "results.parquet").read_bytes() == (whole / "results.parquet").read_bytes()


#: Runs its arguments with interrupts as a terminal gives them: what runs in the background inherits deaf ears.
LISTENING = (
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); "
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)


def test_interrupt_says_how_to_go_on(tmp_path):
    command = [
        sys.executable,
        "-c",
        LISTENING,
        str(SCRIPT),
        "--n",
        "1e5",
        "--study",
        "gaussian",
        "--workers",
        "1",
        "--out",
        str(tmp_path / "run"),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    # From the first block on nothing is compiled: Python shows an interrupt that falls into a compiler's callback.
    while not any((tmp_path / "run" / "blocks").glob("*.arrow")) and process.poll() is None:
        time.sleep(0.02)
    for _ in range(10):  # an interrupt that falls into a C callback is lost: press again, as a user would
        process.send_signal(signal.SIGINT)
        try:
            _, error = process.communicate(timeout=6)
            break
        except subprocess.TimeoutExpired:
            continue
    else:
        process.kill()
        pytest.fail("ten interrupts did not end the run")
    assert process.returncode == 130
    assert f"repeat the command with --out {tmp_path / 'run'} --resume" in error
    assert "Traceback" not in error


def test_more_replicates_sizes_and_kinds_leave_existing_rows_unchanged(baseline, tmp_path):
    grown = small(replicates=10, sizes=[300, 450, 600], kinds=["adaptive", "fixed"])
    rows = run_study(grown, tmp_path, progress=False)
    key = ["truth", "kind", "k", "n", "replicate"]
    kept = rows.merge(baseline[0][key], on=key)
    pd.testing.assert_frame_equal(
        kept.sort_values(key, ignore_index=True), baseline[0].sort_values(key, ignore_index=True)
    )


def test_a_run_may_grow_in_its_own_folder(baseline, tmp_path):
    run_study(small(replicates=8, sizes=[300]), tmp_path, progress=False)
    grown = run_study(small(), tmp_path, resume=True, progress=False)
    pd.testing.assert_frame_equal(grown, baseline[0])
    assert (tmp_path / "results.parquet").read_bytes() == baseline[1]
    with pytest.raises(InputError, match="a run may grow, not shrink"):
        run_study(small(replicates=8), tmp_path, resume=True, progress=False)
    with pytest.raises(InputError, match="finished fits that this grid leaves out"):
        run_study(small(ks=[2]), tmp_path, resume=True, progress=False)


def test_a_run_by_other_versions_is_not_mixed_in(tmp_path, monkeypatch):
    run_study(small(replicates=1, sizes=[300]), tmp_path, progress=False)
    monkeypatch.setattr(store, "version_of", lambda name: "0.0")
    with pytest.raises(InputError, match=r"holds another study \(versions"):
        run_study(small(replicates=1, sizes=[300]), tmp_path, resume=True, progress=False)


def test_every_kind_and_k_sees_the_same_data(monkeypatch):
    seen = []
    original = gaussian.sample

    def spy(name, n, seed, replicate=0):
        data = original(name, n, seed, replicate)
        seen.append((float(data.x.sum()), float(data.y.sum())))
        return data

    monkeypatch.setattr(gaussian, "_data", spy)
    for kind in ("fixed", "adaptive", "adaptive:tied"):
        for k in (2, 3):
            run_cell(GaussianCell("prompts-adaptive", kind, k, 400, "data", 1), (5,), 1)
    assert len(seen) == 6
    assert len(set(seen)) == 1


def test_rows_are_tidy(baseline):
    rows = baseline[0]
    assert len(rows) == 2 * 9 * 2
    assert not rows.duplicated(["truth", "kind", "k", "n", "replicate", "start"]).any()
    certified = rows[rows["status"] == "CERTIFIED"]
    assert len(certified) > 0.5 * len(rows)
    assert (certified["gap_nats"] <= 1e-6).all()
    assert (certified["risk"] > 0).all()
    for column in ("hellinger", "loss_intrinsic", "mass_error", "start_share", "relative_lmin"):
        assert (certified[column] >= 0).all(), column


def test_a_fit_that_cannot_be_made_is_a_row(monkeypatch, tmp_path):
    original = gaussian.fit_replicate

    def sometimes(cell, replicate, entropy):
        if replicate == 1:
            raise np.linalg.LinAlgError("singular matrix")
        return original(cell, replicate, entropy)

    monkeypatch.setattr(gaussian, "fit_replicate", sometimes)
    rows = run_study(small(replicates=3), tmp_path, progress=False)
    failed = rows[rows["replicate"] == 1]
    assert (failed["status"] == "FAILED").all()
    assert (failed["message"] == "singular matrix").all()
    assert failed["risk"].isna().all()
    assert (rows[rows["replicate"] != 1]["status"] != "FAILED").all()


def test_a_folder_of_another_study_is_refused(tmp_path):
    run_study(small(replicates=1, sizes=[300]), tmp_path, progress=False)
    with pytest.raises(InputError, match="already holds a run; add --resume"):
        run_study(small(), tmp_path, progress=False)
    with pytest.raises(InputError, match=r"holds another study \(entropy: 3 there, 4 here\)"):
        run_study(small(entropy=4), tmp_path, resume=True, progress=False)
    with pytest.raises(InputError, match="truths_used"):
        run_study(small(truths=["gmoe-1"], kinds=["adaptive"], ks=[3]), tmp_path, resume=True, progress=False)


def test_of_nested_entries_only_those_that_differ_are_told(tmp_path):
    """The two objects begin with the same sixty characters and more; an entry that one of them lacks is nothing."""
    place = {"backbone": "b" * 70, "recipe": {"schedule": "smooth", "steps": 2}, "rates": ["r" * 70 + "1"]}
    other = {"backbone": "b" * 70, "recipe": {"schedule": "smooth", "steps": 3}, "rates": ["r" * 70 + "2"], "size": 56}
    many = {"kinds": {str(number): number for number in range(7)}}
    run = Study("toy", [Toy("a")], replicates=1, entropy=1, run=square, identity={"place": place, "kinds": {}})
    run_study(run, tmp_path, progress=False)
    with pytest.raises(InputError) as caught:
        run_study(replace(run, identity={"place": other, "kinds": {}}), tmp_path, resume=True, progress=False)
    assert str(caught.value).split(" holds another study ")[1] == (
        "(place.recipe.steps: 2 there, 3 here; "
        f'place.rates: ...{"r" * 20}1"] there, ...{"r" * 20}2"] here; place.size: nothing there, 56 here); '
        "give the same options or choose another --out"
    )
    with pytest.raises(InputError, match=r"kinds\.4: nothing there, 4 here; and 2 more\)"):
        run_study(replace(run, identity={"place": place} | many), tmp_path, resume=True, progress=False)


@dataclass(frozen=True)
class Toy:
    label: str
    cost: float = 1.0
    data_size: int = 1


def square(cell, replicates, entropy):
    return [{"cell": cell.label, "replicate": r, "value": (r + entropy) ** 2} for r in replicates]


def test_the_engine_takes_any_study(tmp_path):
    """What a model of one's own needs: cells with a label and a cost, and a function from a cell to rows."""
    study = Study("toy", [Toy("a"), Toy("b")], replicates=10, entropy=1, run=square)
    rows = run_study(study, tmp_path, progress=False)
    assert rows["value"].tolist() == [(r + 1) ** 2 for r in range(10)] * 2
    assert [block.name for block in study.blocks] == [
        "a_r0000-0007",
        "a_r0008-0009",
        "b_r0000-0007",
        "b_r0008-0009",
    ]
    with pytest.raises(InputError, match="cells twice: a"):
        replace(study, cells=[Toy("a"), Toy("a")])
    with pytest.raises(InputError, match="replicates = 0"):
        replace(study, replicates=0)
    with pytest.raises(InputError, match="no cells"):
        replace(study, cells=[])
    with pytest.raises(InputError, match="2 of 2 blocks are not there"):
        RunFolder(tmp_path).merge(replace(study, cells=[Toy("c")]), RunFolder(tmp_path).shards)


def test_nothing_temporary_is_left(baseline, tmp_path):
    run_study(small(replicates=1, sizes=[300]), tmp_path, progress=False)
    assert not [name for _, _, names in os.walk(tmp_path) for name in names if name.endswith(".tmp")]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kinds": ["shared"]}, "unknown prompt kind 'shared'"),
        ({"kinds": ["fixed:wide"]}, "expected fixed, adaptive, fixed:tied or adaptive:tied"),
        ({"start": "nowhere"}, "start = 'nowhere'; expected one of"),
        ({"ks": [0]}, "k = 0; expected at least 1"),
        ({"sizes": [10]}, "n = 10 is below the 15 free parameters of fixed, k = 3"),
        ({"start": "near_truth", "ks": [1]}, "near_truth needs k >= 2"),
        ({"truths": ["moon"]}, "unknown truth 'moon'"),
        ({"kinds": ["fixed"], "truths": ["gmoe-1"]}, "no cells"),
    ],
)
def test_bad_studies_get_one_clear_error(changes, message):
    with pytest.raises(InputError, match=message):
        small(**changes)


def test_failed_and_finished_rows_have_the_same_columns(monkeypatch):
    cell = GaussianCell("gmoe-1", "adaptive", 4, 300, "near_truth", 1)
    finished = run_cell(cell, (0,), 0)[0]

    def singular(*_):
        raise np.linalg.LinAlgError("singular matrix")

    monkeypatch.setattr(gaussian, "fit_replicate", singular)
    assert run_cell(cell, (0,), 0)[0].keys() == finished.keys()

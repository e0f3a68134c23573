"""``--truth FILE``: truths of one's own from JSON and Python files, and one line for whatever is wrong with them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from commands import call

import moe_prompts as mp
from moe_prompts.errors import InputError
from moe_prompts.models.truth_files import LARGEST, read_truth

GAUSSIAN = {
    "weights": [0.5, 0.5],
    "gate_means": [[-3], [3]],
    "gate_covs": [[[1]], [[1]]],
    "slopes": [[[1]], [[-1]]],
    "intercepts": [[0], [2]],
    "noise_covs": [[[0.1]], [[0.1]]],
}
SOFTMAX = {
    "gate_intercepts": [-8, 0],
    "gate_slopes": [[25], [0]],
    "slopes": [[-20], [20]],
    "intercepts": [15, -5],
    "noise_vars": [0.09, 0.16],
}
FIXED = {"kind": "fixed", "b": [0.81, 0.88], "prompts": [[-0.4, 0.8], [-0.68, -1.84]], "noise": 0.1}
ADAPTIVE = {
    "kind": "adaptive:gelu",
    "b": [0.81, 0.88],
    "W1": [[[-0.40, -0.23], [0.61, 0.71]], [[-0.57, -1.17], [0.54, -1.46]]],
    "W2": [[0.62, -0.89], [-0.53, -0.79]],
    "noise": 0.1,
}


def written(folder: Path, arrays: dict, name: str = "mine.json") -> Path:
    path = folder / name
    if path.suffix == ".json":
        path.write_text(json.dumps(arrays))
    else:
        path.write_text("import numpy as np\n" + "\n".join(f"{key} = {value!r}" for key, value in arrays.items()))
    return path


def test_a_file_is_the_truth_that_its_arrays_make(tmp_path):
    found = read_truth(written(tmp_path, GAUSSIAN))
    params = mp.GaussianGatedMoE(**{name: np.array(value, dtype=float) for name, value in GAUSSIAN.items()})
    x = np.linspace(-4, 4, 9)[:, None]
    np.testing.assert_array_equal(found.params.regression(x), params.regression(x))
    assert (found.kind, found.k_true) == ("adaptive", 2)
    assert found.name.startswith("mine-")


def test_prompts_are_those_of_the_reference_where_the_numbers_are(tmp_path):
    for arrays, name in ((FIXED, "attention-fixed"), (ADAPTIVE, "attention-gelu")):
        found, known = read_truth(written(tmp_path, arrays)), mp.prompt_truth(name)
        np.testing.assert_allclose(found.params.regression(found.x), known.params.regression(known.x), rtol=1e-14)
        assert found.noise == 0.1


def test_json_and_python_are_one_and_other_numbers_have_another_name(tmp_path):
    as_json, as_python = (read_truth(written(tmp_path, SOFTMAX, f"mine.{end}")) for end in ("json", "py"))
    assert as_json.name == as_python.name
    other = read_truth(written(tmp_path, SOFTMAX | {"intercepts": [15, -6]}))
    assert other.name != as_json.name
    assert as_json.sample(5, np.random.default_rng(0)).x.shape == (5, 1)


WRONG = [
    (GAUSSIAN | {"weights": [0.5, 0.3, 0.2]}, "mine.json", "expected"),
    ({name: value for name, value in GAUSSIAN.items() if name != "noise_covs"}, "mine.json", "no noise_covs; Gaussian"),
    (GAUSSIAN | {"intercepts": [[float("nan")], [2]]}, "mine.json", "intercepts has NaN"),
    (GAUSSIAN | {"weight": [1]}, "mine.json", "unknown name 'weight'"),
    (GAUSSIAN | {"name": "a/b"}, "mine.json", "the name of a truth 'a/b'"),
    (GAUSSIAN | {"name": "gmoe-1"}, "mine.json", "is taken"),
    (SOFTMAX | {"slopes": [["a"], [20]]}, "mine.json", "slopes"),
    (FIXED | {"kind": "moon"}, "mine.json", "unknown prompt kind 'moon'"),
    (FIXED | {"noise": -1}, "mine.json", "expected one positive number"),
    (FIXED | {"x": [[1, 2, 3]]}, "mine.json", "x of shape (1, 3); expected (points, 2)"),
    ({"A": [1]}, "mine.json", "no truth in it"),
    ([1, 2], "mine.json", "a list of JSON"),
    ("[" * 100_000, "mine.json", "no JSON"),
    ("{'weights': 1}", "mine.json", "no JSON"),
    ("raise ValueError('two\\nlines')", "mine.py", "raised ValueError: two lines; run it by itself"),
    ("import sys; sys.exit(3)", "mine.py", "raised SystemExit: 3"),
    ("x = ", "mine.py", "raised SyntaxError"),
    (GAUSSIAN, "mine.txt", "expected one of adaptive, fixed, both, random, or a file .json or .py"),
]


@pytest.mark.parametrize(("arrays", "name", "message"), WRONG, ids=[message[:30] for *_, message in WRONG])
def test_what_is_wrong_is_one_line_and_leaves_nothing(arrays, name, message, tmp_path):
    path = tmp_path / name
    path.write_text(arrays if isinstance(arrays, str) else json.dumps(arrays))
    done = call("sample_efficiency.py", "--truth", path, "--quick", "--out", tmp_path / "run")
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_folders_large_files_and_what_is_missing_are_not_read(tmp_path):
    (tmp_path / "folder.json").mkdir()
    with open(tmp_path / "large.json", "wb") as file:
        file.truncate(1_000_000_000)  # a hole, which takes no room
    for name, message in (
        ("folder.json", "no plain file"),
        ("large.json", f"1000 MB; expected parameters of at most {LARGEST / 1e6:.0f} MB"),
        ("missing.py", "no such file"),
        ("missing.json", r"^[^(]+missing\.json: no such file"),
    ):
        with pytest.raises(InputError, match=message):
            read_truth(tmp_path / name)
    os.mkfifo(tmp_path / "pipe.py")
    with pytest.raises(InputError, match="no plain file"):
        read_truth(tmp_path / "pipe.py")


def test_a_model_that_the_file_does_not_have_is_refused(tmp_path):
    done = call("sample_efficiency.py", "--truth", written(tmp_path, SOFTMAX), "--study", "gaussian")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "the file says the model" in done.stderr


def test_a_run_knows_its_truth_in_every_worker_and_refuses_another_file(tmp_path):
    """Two processes of joblib, which never saw the file; and --resume with other numbers under the same name."""
    path = written(tmp_path, GAUSSIAN | {"name": "far-apart"})
    options = ["--truth", str(path), "--n", "200,400", "--reps", "2", "--k", "2", "--out", "run"]
    command = ["sample_efficiency.py", *options, "--workers", "2", "--executor", "joblib"]
    done = call(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "far-apart" in done.stdout
    rows = pd.read_parquet(tmp_path / "run" / "results.parquet")
    assert set(rows["truth"]) == {"far-apart"}
    meta = json.loads((tmp_path / "run" / "meta.json").read_text())
    assert len(meta["identity"]["truth_file"]["sha256"]) == 64
    written(tmp_path, GAUSSIAN | {"name": "far-apart", "intercepts": [[0], [3]]})
    again = call(*command, "--resume", cwd=tmp_path)
    assert again.returncode == 2
    assert again.stderr.count("\n") == 1
    assert "truth" in again.stderr

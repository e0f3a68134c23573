"""The two routes: which one is taken, and what happens where compiled code cannot be kept or made."""

import subprocess
import sys

import pytest

from moe_prompts import InputError, compilation

#: A module of one compiled loop, and a program that runs it twice.
MODULE = """
from moe_prompts.compilation import compiled

@compiled("float64(float64)")
def twice(x):
    return 2 * x
"""
PROGRAM = "import sys; sys.path.insert(0, sys.argv[1]); import loop; assert loop.twice(1.5) == 3; print(loop.__file__)"


def run(folder, **environment):
    import os

    return subprocess.run(
        [sys.executable, "-W", "always", "-c", PROGRAM, str(folder)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **environment},
    )


def test_compiled_loops_are_kept_beside_their_source(tmp_path):
    (tmp_path / "loop.py").write_text(MODULE)
    assert "kept" not in run(tmp_path).stderr
    kept = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "__pycache__").glob("loop.twice-*")}
    assert len(kept) == 2  # an index and the code
    run(tmp_path)
    assert kept == {file.name: file.stat().st_mtime_ns for file in (tmp_path / "__pycache__").glob("loop.twice-*")}


def test_where_nothing_can_be_kept_loops_are_compiled_all_the_same(tmp_path):
    """A file stands where either folder would be made, which stops the superuser too."""
    (tmp_path / "loop.py").write_text(MODULE)
    (tmp_path / "__pycache__").write_text("")
    done = run(tmp_path, XDG_CACHE_HOME=str(tmp_path / "loop.py"), HOME=str(tmp_path / "loop.py"))
    assert done.stderr.count("compiled loops are not kept on disk") == 1
    assert "set NUMBA_CACHE_DIR" in done.stderr
    kept = tmp_path / "elsewhere"
    assert "not kept" not in run(tmp_path, NUMBA_CACHE_DIR=str(kept)).stderr
    assert list(kept.rglob("loop.twice-*"))


def test_without_numba_the_route_is_numpy_which_is_said_once(monkeypatch, recwarn):
    monkeypatch.delenv(compilation.VARIABLE, raising=False)
    assert compilation.route() == "compiled"
    monkeypatch.setattr(compilation, "find_spec", lambda name: None)
    compilation._installed.cache_clear()
    with pytest.warns(UserWarning, match="numba is not installed"):
        assert compilation.route() == "numpy"
    assert compilation.kernels("moe_prompts.estimators.kernels") is None
    assert not [w for w in recwarn if "numba is not installed" in str(w.message)][1:]
    compilation._installed.cache_clear()


def test_an_unknown_route_is_refused(monkeypatch):
    monkeypatch.setenv(compilation.VARIABLE, "fast")
    with pytest.raises(InputError, match="MOE_PROMPTS_PASSES = 'fast'; expected compiled or numpy"):
        compilation.route()

"""A command within this process: loading its packages anew for each wrong option would take the most of the tests."""

from __future__ import annotations

import io
import os
import runpy
import sys
from collections.abc import Iterator
from contextlib import ExitStack, chdir, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from subprocess import CompletedProcess, run
from unittest import mock

from moe_prompts.models import activations, added, expert_truths, gaussian_truths, prompt_truths, softmax_truths

EXPERIMENTS = Path(__file__).parents[1] / "experiments"


@contextmanager
def taken_back() -> Iterator[None]:
    """Forget afterwards the truths and activations that were added within."""
    kept = [(known, dict(known)) for known in (added.ADDED, activations.ACTIVATIONS)]
    try:
        yield
    finally:
        for known, before in kept:
            known.clear()
            known.update(before)
        for lookup in (prompt_truths, softmax_truths, gaussian_truths, expert_truths):
            lookup._found.cache_clear()


def call(script: str, *arguments: object, cwd: Path | str = ".") -> CompletedProcess[str]:
    """``python experiments/SCRIPT ARGUMENTS`` in the folder ``cwd``: the exit code and what was printed.

    A script from elsewhere is given with its whole path.
    """
    given = [str(EXPERIMENTS / script), *map(str, arguments)]
    out, error, code = io.StringIO(), io.StringIO(), 0
    beside = [str(Path(given[0]).parent), *sys.path]
    with ExitStack() as stack:
        for one in (mock.patch.object(sys, "argv", given), mock.patch.object(sys, "path", beside)):
            stack.enter_context(one)
        for one in (chdir(cwd), redirect_stdout(out), redirect_stderr(error)):
            stack.enter_context(one)
        try:
            runpy.run_path(given[0], run_name="__main__")
        except SystemExit as end:
            code = end.code or 0
    return CompletedProcess(given, code, out.getvalue(), error.getvalue())


def agree_when_compiled_and_loaded(program: str, folder: Path) -> None:
    """A program prints the same in a process that compiles its loops, into ``folder``, and in one that loads them."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder)}

    def said() -> bytes:
        return run([sys.executable, "-c", program], env=environment, capture_output=True, check=True).stdout

    compiles = said()
    assert list(folder.rglob("*.nbc"))
    assert said() == compiles

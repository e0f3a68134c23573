"""Notebooks: what a reader opens is what the script beside says, with outputs of a full run, and it runs.

Packages of Jupyter are loaded by the tests that need them: they take seconds, which each process of pytest would pay.
"""

import json
import re
import sys
from pathlib import Path

import pytest
from commands import call, taken_back

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "notebooks").glob("[0-9]*.py"))
LARGEST, MOST_LINES = 300_000, 60

pytestmark = pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)


@pytest.fixture(autouse=True)
def without_grammars(monkeypatch):
    """Loading jsonschema compiles grammars of Internet addresses where it finds them: seconds, for nothing here."""
    monkeypatch.setitem(sys.modules, "rfc3987_syntax", None)


def read(script):
    nbformat = pytest.importorskip("nbformat", reason="the extra `notebooks` is not installed")
    return nbformat.read(script.with_suffix(".ipynb"), as_version=4)


def outputs(script):
    return [output for cell in read(script).cells if cell.cell_type == "code" for output in cell.outputs]


def test_script_and_notebook_are_a_pair(script):
    jupytext = pytest.importorskip("jupytext", reason="the extra `notebooks` is not installed")
    import nbformat

    notebook, written = read(script), jupytext.read(script)
    nbformat.validate(notebook)
    assert [(cell.cell_type, cell.source) for cell in notebook.cells] == [
        (cell.cell_type, cell.source) for cell in written.cells
    ]
    mocks = [cell.metadata.get("nbmake") for cell in notebook.cells]
    assert mocks == [cell.metadata.get("nbmake") for cell in written.cells]


def test_outputs_are_committed_small_and_without_warnings(script):
    assert script.with_suffix(".ipynb").stat().st_size < LARGEST
    assert [cell.execution_count for cell in read(script).cells if cell.cell_type == "code"].count(None) == 0
    assert outputs(script)
    assert not [one for one in outputs(script) if one.output_type == "error" or one.get("name") == "stderr"]


def test_story_is_short_and_ends_with_a_question(script):
    cells = read(script).cells
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    lines = [line for line in code.splitlines() if line.strip() and not line.strip().startswith("#")]
    assert len(lines) < MOST_LINES
    assert cells[0].cell_type == cells[-1].cell_type == "markdown"
    assert re.search(r"\*\*Change one line:\*\*.+\?", cells[-1].source, re.S)


def test_links_lead_somewhere(script):
    text = "\n".join(cell.source for cell in read(script).cells if cell.cell_type == "markdown")
    for target in re.findall(r"\]\((?!http)([^)#]+)", text):
        assert (script.parent / target).exists(), target


def test_small_numbers_replace_names_that_are_set_there(script):
    """A mock of another name would leave the full run in place."""
    for cell in read(script).cells:
        mock = cell.metadata.get("nbmake", {}).get("mock", {})
        assert set(mock) <= set(re.findall(r"\w+", cell.source.split("=")[0])), json.dumps(mock)


def test_cells_run(script, tmp_path, monkeypatch):
    """With the small numbers that the cells name, as one script within this process; figures are drawn in full.

    The packages that a kernel of its own would load anew take longer than most cells.
    """
    lines = []
    for cell in read(script).cells:
        if cell.cell_type == "code":
            mock = cell.metadata.get("nbmake", {}).get("mock", {})
            lines += [cell.source, *(f"{name} = {value!r}" for name, value in mock.items())]
    whole = tmp_path / f"{script.stem}.py"
    whole.write_text("\n".join(lines), encoding="utf-8")
    import matplotlib.pyplot as plt

    def show():
        for number in plt.get_fignums():
            plt.figure(number).canvas.draw()
        plt.close("all")

    monkeypatch.setattr(plt, "show", show)
    with taken_back(), plt.rc_context():
        done = call(whole, cwd=script.parent)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_notebook_runs_in_a_kernel(script):
    """As Jupyter runs it, each in a kernel of its own."""
    from nbmake.nb_run import NotebookRun

    error = NotebookRun(script.with_suffix(".ipynb"), 120).execute().error
    assert error is None, error.trace

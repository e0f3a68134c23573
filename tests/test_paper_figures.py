"""Figures of the paper: each is drawn from its committed table, as a reader can print it; the page says where each is
from."""

import argparse
import dataclasses
import importlib
import json
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from test_docs import ParsedError, end_of
from test_package import ROOT

from moe_prompts import cli
from moe_prompts.errors import InputError
from moe_prompts.figures.gates import softmax_figure
from moe_prompts.figures.style import SINGLE, STYLE, draw_guide
from moe_prompts.study import softmax
from moe_prompts.study.report import of_study

FOLDER = ROOT / "paper_figures"
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in ("runs", "make_all"))
#: Least size in points of what is read; marks of exponents and indices are smaller.
LEAST_POINTS = 6.5


@pytest.fixture(scope="module")
def drawings():
    """As ``make figures`` has them; the folder leaves the path of imports again."""
    before = set(sys.modules)
    sys.path.insert(0, str(FOLDER))
    yield importlib.import_module("make_all").FIGURES
    sys.path.remove(str(FOLDER))
    for name in set(sys.modules) - before:
        if name in {"make_all", "runs", *SCRIPTS}:
            del sys.modules[name]


def table():
    """Row of the page by figure: shows, claims, table, command, time."""
    rows = {}
    for line in (FOLDER / "README.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("| `"):
            name, *cells = [cell.strip() for cell in line.strip("|").split("|")]
            rows[name.strip("`")] = cells
    return rows


def test_a_guide_without_dashes_is_one_clear_line():
    with pytest.raises(InputError, match=r"draw_guide: exponent = -0.3; expected one of -1, -0.5, -0.25, 1, 2"):
        draw_guide(plt.figure().gca(), -0.3, "slope")
    plt.close()


# Drawn ---------------------------------------------------------------------------------------------------------------


def own(name):
    """Slow, if the script draws another table with the function of another script."""
    shared = "def figure" not in (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    return pytest.param(name, marks=pytest.mark.slow) if shared else name


@pytest.mark.parametrize("name", [own(name) for name in SCRIPTS])
def test_figure_can_be_read_in_print(drawings, name):
    """Drawn from the committed table at the width of a column; no text is small, leaves the page or lies on
    another; axes are named."""
    drawing = drawings[name]
    figure = drawing.figure(drawing.data)
    with plt.rc_context(STYLE):
        canvas = FigureCanvasAgg(figure)
        # Lays out and draws in one pass; savefig takes two.
        canvas.draw()
    assert len(set(canvas.buffer_rgba().tobytes())) > 2
    assert figure.get_size_inches()[0] == SINGLE
    assert figure.get_size_inches()[1] <= 9.2
    for ax in figure.axes:
        if ax.axison:
            assert ax.lines or ax.collections or ax.texts
            assert ax.get_xlabel() or ax.get_shared_x_axes().get_siblings(ax) != [ax]
    drawn = shown(figure)
    page = figure.bbox
    for text, box in drawn:
        assert text.get_fontsize() >= LEAST_POINTS, text
        assert page.x0 - 1 <= box.x0, text
        assert box.x1 <= page.x1 + 1, text
        assert page.y0 - 1 <= box.y0, text
        assert box.y1 <= page.y1 + 1, text
    for place, (first, box) in enumerate(drawn):
        for second, other in drawn[place + 1 :]:
            assert not overlap(box, other), f"{first.get_text()!r} lies on {second.get_text()!r}"
    plt.close(figure)


def shown(figure):
    """Every text that is drawn, with its box in pixels: of tick labels those within the axis."""
    hidden = set()
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                if not (ax.axison and low <= tick.get_loc() <= high):
                    hidden |= {tick.label1, tick.label2}
    renderer = figure.canvas.get_renderer()
    texts = [text for text in figure.findobj(plt.Text) if text.get_visible() and text.get_text().strip()]
    return [(text, text.get_window_extent(renderer)) for text in texts if text not in hidden]


def overlap(first, second):
    """By more than a pixel: boxes of text are larger than the ink."""
    wide = min(first.x1, second.x1) - max(first.x0, second.x0)
    tall = min(first.y1, second.y1) - max(first.y0, second.y0)
    return wide > 1 and tall > 1.5


def test_experiments_draw_softmax_gates_in_the_same_style():
    """No script here draws them, but ``experiments/sample_efficiency.py`` does."""
    rows = pd.read_parquet(ROOT / "docs" / "claims" / "softmax-exact" / "results.parquet")
    figure = softmax_figure(of_study(rows, softmax.MODEL), 0)
    assert "2 experts" in {text.get_text() for text in figure.legends[0].get_texts()}
    plt.close(figure)


def test_the_same_figure_is_the_same_file(drawings, tmp_path):
    drawing = drawings["input_dependence"]
    written = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        written.append([path.read_bytes() for path in drawing.draw(to=folder)])
    first, second = written
    assert first == second
    assert first[0].startswith(b"%PDF")
    assert first[1].startswith(b"\x89PNG")
    # Embedded TrueType, no Type 3.
    assert b"/FontFile2" in first[0]
    assert b"/Type3" not in first[0]


def test_the_committed_run_is_known_however_its_folder_is_written(drawings, monkeypatch):
    """Beside it stand the runs on five other tasks and the mean of all."""
    gains, drawn = drawings["gains"], []
    monkeypatch.setattr("runs.save", lambda figure, to, name: drawn.append(figure) or [])
    monkeypatch.chdir(FOLDER)
    gains.draw(Path("data") / gains.data.name)
    assert len(drawn[0].axes[0].get_yticklabels()) == 7


def test_there_is_one_style():
    assert (FOLDER / "style.mplstyle").resolve() == (ROOT / "moe_prompts" / "figures" / "style.mplstyle").resolve()
    assert STYLE["pdf.fonttype"] == 42


def test_every_script_has_its_files(drawings):
    assert sorted(drawings) == SCRIPTS
    for suffix in ("pdf", "png"):
        assert sorted(path.stem for path in FOLDER.glob(f"*.{suffix}")) == SCRIPTS


@pytest.fixture
def make_all(drawings, monkeypatch):
    """Its command line with a stand-in for all figures, and the folders that it draws in."""
    drawn = []
    module = sys.modules["make_all"]
    monkeypatch.setattr(module, "FIGURES", {"one": SimpleNamespace(draw=lambda to: drawn.append(to) or [])})

    def call(*options):
        monkeypatch.setattr(sys, "argv", ["make_all.py", *map(str, options)])
        cli.run(module.main, "make_all.py")

    return call, drawn


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["nonsense"], 2, "make_all.py: unrecognized arguments: nonsense (see --help)\n"),
        (["--run", "a"], 2, "make_all.py: unrecognized arguments: --run a (see --help)\n"),
        (["--to", ""], 2, "make_all.py: argument --to: an empty name; expected a folder (see --help)\n"),
        (["--help"], 0, ""),
    ],
)
def test_make_all_draws_nothing_where_it_is_asked_for_something_else(make_all, capsys, options, code, said):
    call, drawn = make_all
    with pytest.raises(SystemExit) as end:
        call(*options)
    printed = capsys.readouterr()
    assert (end.value.code, printed.err, drawn) == (code, said, [])
    assert ("--to TO" in printed.out) == (options == ["--help"])


def test_make_all_draws_in_a_folder_of_its_own(make_all, tmp_path):
    call, drawn = make_all
    call("--to", tmp_path / "new" / "figures")
    assert drawn == [tmp_path / "new" / "figures"]
    assert drawn[0].is_dir()
    call()
    assert drawn[1] == FOLDER


# The page ------------------------------------------------------------------------------------------------------------


def test_the_page_names_every_figure_with_what_the_scripts_say(drawings):
    rows = table()
    assert sorted(rows) == SCRIPTS
    for name, (shows, _, data, command, time) in rows.items():
        drawing = drawings[name]
        assert shows
        assert (FOLDER / data.strip("`")).exists()
        assert (FOLDER / data.strip("`")).resolve() in (drawing.data.resolve(), drawing.data.resolve() / "claims.json")
        assert command == f"`{drawing.command}`"
        assert time == drawing.time


def test_claims_of_the_page_exist():
    known = {claim["id"] for claim in json.loads((ROOT / "docs" / "claims.json").read_text(encoding="utf-8"))}
    for name, (_, claims, *_) in table().items():
        named = set(re.findall(r"[PGSEAVT]-[a-z0-9-]+", claims))
        assert named <= known, name
        assert named or ".md)" in claims or ".ipynb)" in claims, name


def test_committed_tables_are_small_and_say_how_they_were_made(drawings):
    for drawing in drawings.values():
        if drawing.data.parent == FOLDER / "data":
            meta = json.loads((drawing.data / "meta.json").read_text(encoding="utf-8"))
            script = Path(shlex.split(drawing.command)[1]).name
            # Older runs have the command's words alone.
            commands = [one["command"] if isinstance(one, dict) else one for one in meta["commands"]]
            assert {command[0] for command in commands} == {script}
            assert not [word for command in commands for word in command if word.startswith("/")]
            assert (drawing.data / "results.parquet").stat().st_size < 600_000


# Regenerated ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quick", [False, True])
def test_commands_parse(drawings, monkeypatch, quick):
    """Those that ``--regenerate`` runs, with what it adds."""
    accept = argparse.ArgumentParser.parse_args

    def parse_and_stop(self, *given, **named):
        accept(self, *given, **named)
        raise ParsedError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
    for command in {drawing.command for drawing in drawings.values()}:
        script, *options = shlex.split(command)[1:]
        monkeypatch.setattr(sys, "argv", [script, *options, "--out", "folder", *(["--quick"] if quick else [])])
        assert end_of(runpy.run_path(str(ROOT / script))["main"]) == "parsed", command


#: Takes the options that an experiment is given and leaves a run where it is told to.
EXPERIMENT = """
import argparse, pathlib, shutil
parser = argparse.ArgumentParser()
parser.add_argument("--out"), parser.add_argument("--given"), parser.add_argument("--quick", action="store_true")
chosen = parser.parse_args()
shutil.copytree(pathlib.Path(chosen.given), chosen.out)
(pathlib.Path(chosen.out) / "quick").write_text(str(chosen.quick))
"""


def test_regenerate_makes_a_new_run_and_draws_it_there(drawings, monkeypatch, capfd, tmp_path):
    """The command is a process of its own; committed tables and pictures are not touched. Real ones are slow tests."""
    (tmp_path / "experiment.py").write_text(EXPERIMENT, encoding="utf-8")
    known = drawings["input_dependence"]
    drawing = dataclasses.replace(known, command=f"python {tmp_path}/experiment.py --given {known.data}")
    committed = {path: path.stat().st_mtime_ns for path in FOLDER.rglob("*") if path.suffix in (".png", ".parquet")}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["input_dependence.py", "--regenerate", "--quick"])
    drawing.main("what it draws")
    assert f"  took {known.time}; writes to results/input_dependence-" in capfd.readouterr().out
    [run] = (tmp_path / "results").iterdir()
    assert (run / "quick").read_text() == "True"
    assert (run / "input_dependence.png").read_bytes().startswith(b"\x89PNG")
    assert {path: path.stat().st_mtime_ns for path in committed} == committed


def test_an_experiment_that_fails_ends_with_one_line(drawings, monkeypatch, capfd, tmp_path):
    (tmp_path / "experiment.py").write_text("raise SystemExit(3)", encoding="utf-8")
    drawing = dataclasses.replace(drawings["input_dependence"], command=f"python {tmp_path}/experiment.py")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["input_dependence.py", "--regenerate"])
    with pytest.raises(SystemExit) as end:
        drawing.main("what it draws")
    assert end.value.code == 2
    assert "ended with code 3" in capfd.readouterr().err


def by_command() -> dict[str, list[str]]:
    """Figures by the command that makes their run, as the page says it."""
    found: dict[str, list[str]] = {}
    for name, (*_, command, _) in table().items():
        found.setdefault(command, []).append(name)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("names", by_command().values(), ids=lambda names: names[0])
def test_regenerate_with_quick(names, tmp_path):
    """The script and the experiment as processes; other figures of the same run are drawn from it."""

    def script(name, *options):
        command = [sys.executable, str(FOLDER / f"{name}.py"), *options]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    first, *others = names
    script(first, "--regenerate", "--quick")
    [run] = (tmp_path / "results").iterdir()
    for name in others:
        script(name, "--run", str(run), "--to", str(run))
    for name in names:
        assert (run / f"{name}.png").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--quick"], "--quick is for a new run; add --regenerate"),
        (["--run", "a", "--regenerate"], "choose one of them"),
        (["--run", "nowhere"], "expected the folder of a finished run"),
        (["--run", str(FOLDER / "data" / "planted_vit")], "a run of something else, without a column block"),
    ],
)
def test_wrong_options_end_with_one_line(drawings, monkeypatch, capsys, tmp_path, options, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["input_dependence.py", *options])
    with pytest.raises(SystemExit) as end:
        drawings["input_dependence"].main("what it draws")
    assert end.value.code == 2
    assert said in capsys.readouterr().err

"""What the system refuses at the edge of a command: one line, and files whole or not at all."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from commands import call

from moe_prompts import cli
from moe_prompts.commands import claims
from moe_prompts.engine.store import read_table
from moe_prompts.errors import InputError
from moe_prompts.figures.style import save

ROOT = Path(__file__).parents[1]
TABLES = sorted(path for path in ROOT.rglob("*.parquet") if path.is_relative_to(ROOT / "docs") or "data" in path.parts)


@pytest.mark.parametrize("code", ["ENOSPC", "EROFS", "EIO", "ESTALE", "ENOENT", "ENOTDIR"])
def test_an_error_of_the_system_is_one_line(code, capsys):
    number = getattr(errno, code)

    def main():
        raise OSError(number, os.strerror(number), "/there/file")

    with pytest.raises(SystemExit) as ended:
        cli.run(main, "some.py")
    told = capsys.readouterr().err
    assert ended.value.code == 2
    assert told.count("\n") == 1
    assert told.startswith(f"some.py: /there/file: {os.strerror(number)}; ")
    assert told.rstrip().endswith("and repeat the command")


@pytest.mark.parametrize(("called", "shown"), [("power.py", "power.py"), ("moe-prompts power", "moe-prompts power")])
def test_a_command_is_named_once_in_an_error(called, shown, capsys, monkeypatch):
    """The function that raises has the name of its command."""

    def main():
        raise InputError("power: scatter = -1.0; expected a number in (0, inf)")

    monkeypatch.setattr(sys, "argv", [called])
    with pytest.raises(SystemExit):
        cli.run(main, "power.py")
    assert capsys.readouterr().err == f"{shown}: scatter = -1.0; expected a number in (0, inf)\n"


def test_a_closed_pipe_ends_a_command_without_a_word():
    script = (
        "import sys\nfrom moe_prompts import cli\ncli.run(lambda: [print('x' * 100) for _ in range(10**5)], 'some.py')"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    ) as process:
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=60) == cli.BROKEN_PIPE


def test_a_figure_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    figure, _ = plt.subplots()
    save(figure, tmp_path, "one")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(before) == {"one.pdf", "one.png"}

    def full(self, file, **options):
        file.write(b"half a figure")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full)
    other, _ = plt.subplots()
    with pytest.raises(InputError, match=r"cannot write .*one\.png \(No space left on device\).*make room"):
        save(other, tmp_path, "one")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    plt.close("all")


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("experiments/sample_efficiency.py", ["--out", ""]),
        ("experiments/claims.py", ["--out", " "]),
        ("experiments/gather.py", ["--out", "", "part"]),
        ("paper_figures/sample_efficiency.py", ["--run", "README.md"]),
    ],
)
def test_a_name_that_is_no_folder_is_refused_before_anything_is_written(script, arguments, tmp_path):
    """An empty name would be the current folder."""
    (tmp_path / "README.md").write_text("")
    done = call(str(ROOT / script), *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "expected a folder" in done.stderr or "expected the folder of a finished run" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]


@pytest.mark.parametrize("table", TABLES, ids=lambda path: str(path.relative_to(ROOT)))
def test_committed_tables_are_those_that_their_runs_wrote(table):
    assert len(read_table(table.parent, table.name)) > 0


def test_there_are_committed_tables():
    assert len(TABLES) > 15


def flipped(run: Path, to: Path) -> Path:
    """A copy of a run with one bit of its table changed."""
    to.mkdir()
    (to / "meta.json").write_bytes((run / "meta.json").read_bytes())
    content = bytearray((run / "results.parquet").read_bytes())
    content[len(content) // 3] ^= 1
    (to / "results.parquet").write_bytes(content)
    return to


def test_readers_refuse_a_table_with_one_flipped_bit(tmp_path):
    run = flipped(ROOT / "paper_figures" / "data" / "sample_efficiency", tmp_path / "run")
    commands = [
        ["paper_figures/sample_efficiency.py", "--run", str(run), "--to", str(tmp_path)],
        ["experiments/power.py", "--run", str(run)],
    ]
    for command in commands:
        done = call(str(ROOT / command[0]), *command[1:])
        assert done.returncode == 2, done.stderr
        assert done.stderr.count("\n") == 1
        assert f"{run / 'results.parquet'} is not the file that the run wrote" in done.stderr


def test_claims_are_not_judged_on_a_changed_table(tmp_path, monkeypatch):
    docs = tmp_path / "docs"
    (docs / "claims").mkdir(parents=True)
    for run in (ROOT / "docs" / "claims").iterdir():
        flipped(run, docs / "claims" / run.name)
    monkeypatch.setattr(cli, "checkout", lambda *names: tmp_path.joinpath(*names))
    with pytest.raises(InputError, match="is not the file that the run wrote"):
        claims.rejudge(None)


def test_a_table_without_a_checksum_is_refused(tmp_path):
    (tmp_path / "meta.json").write_text('{"identity": {}}')
    pd.DataFrame({"n": [1]}).to_parquet(tmp_path / "results.parquet")
    with pytest.raises(InputError, match=r"has no sha256 of results\.parquet; the run is of an earlier version"):
        read_table(tmp_path)


@pytest.mark.parametrize(
    "meta",
    [
        "{",
        "[1]",
        "[" * 200_000,
        '{"sha256": ' + "9" * 6000 + "}",
        {"identity": []},
        {"identity": {"study": "x"}},
        {"identity": None},
        {"sha256": [1]},
    ],
    ids=lambda meta: str(meta)[:20],
)
def test_a_run_with_a_broken_description_is_one_line(meta, tmp_path):
    run = ROOT / "paper_figures" / "data" / "sample_efficiency"
    (tmp_path / "results.parquet").write_bytes((run / "results.parquet").read_bytes())
    text = meta if isinstance(meta, str) else json.dumps(json.loads((run / "meta.json").read_text()) | meta)
    (tmp_path / "meta.json").write_text(text)
    sys.path.insert(0, str(ROOT / "paper_figures"))
    import runs

    with pytest.raises(InputError, match=r"meta\.json (was not written by a study|has no sha256)") as told:
        runs.read(tmp_path, "gaussian")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("text", ["", "{", "[1]", "[{}]", '{"a": 1}', "[" * 200_000, "9" * 6000])
def test_broken_records_of_claims_are_one_line(text, tmp_path):
    (tmp_path / "claims.json").write_text(text)
    sys.path.insert(0, str(ROOT / "paper_figures"))
    import claims_map

    with pytest.raises(InputError, match=r"claims\.json was not written by experiments/claims\.py, or is damaged"):
        claims_map.figure(tmp_path)

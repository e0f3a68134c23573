"""No fault loses, doubles or changes a row, and each says what happened and what to do."""

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from fault_cases import Reversed, toys

from moe_prompts import InputError, cli, run_study
from moe_prompts.engine import files, runner, shards
from moe_prompts.engine.executors import InProcess
from moe_prompts.engine.files import write_atomically
from moe_prompts.engine.store import RunFolder, gather
from moe_prompts.study import gaussian
from moe_prompts.study.gaussian import gaussian_study

HERE = Path(__file__).parent


def bytes_of(folder):
    return (folder / "results.parquet").read_bytes()


@pytest.fixture
def whole(tmp_path):
    """Return what an undisturbed run of five cells gives."""
    run_study(toys(*[""] * 5), tmp_path / "whole", progress=False)
    return bytes_of(tmp_path / "whole")


@pytest.fixture
def segmented(tmp_path, monkeypatch):
    """The same run with segments of 4 blocks: two of them, and two shards."""
    monkeypatch.setattr(runner, "SEGMENT", 4)
    run_study(toys(*[""] * 5), tmp_path / "run", progress=False)
    folder = tmp_path / "run"
    assert [len(list((folder / name).glob("*.arrow"))) for name in ("segments", "blocks")] == [2, 2]
    return folder


def temporary(folder):
    return [path for path in folder.rglob("*") if path.name.endswith(".tmp")]


# Full disks ----------------------------------------------------------------------------------------------------------


def test_a_full_disk_ends_the_run_in_one_line(whole, tmp_path):
    """A real limit: no file of the process may grow beyond 300 bytes once three blocks are written."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; "
        "from fault_cases import FullAfter, toys; from moe_prompts import cli, run_study; "
        "cli.run(lambda: run_study(toys(*[''] * 5), Path(sys.argv[2]), executor=FullAfter(3), progress=False), 'it')"
    )
    out = tmp_path / "run"
    done = subprocess.run([sys.executable, "-c", code, str(HERE), str(out)], capture_output=True, text=True)
    assert done.returncode == cli.BAD_INPUT
    assert re.match(rf"it: cannot write {out}/blocks/cell1_r0008-0009\.\w{{16}}\.arrow \(File too large\)", done.stderr)
    assert "make room, and repeat the command, a study with --resume" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not temporary(out)
    assert len(RunFolder(out).shards.finished()) == 3
    run_study(toys(*[""] * 5), out, resume=True, progress=False)
    assert bytes_of(out) == whole


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_no_space_leaves_neither_file_nor_half(code, tmp_path, monkeypatch):
    write_atomically(tmp_path / "file", b"old")

    def full(descriptor):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(InputError, match=f"cannot write .*file .{os.strerror(code)}"):
        write_atomically(tmp_path / "file", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"old"


@pytest.mark.parametrize(("from_seconds", "waited"), [(0.0, True), (60.0, False)])
def test_only_blocks_that_take_long_are_waited_for(from_seconds, waited, tmp_path, monkeypatch):
    """Segments and tables always are."""
    synced, fsync = [], os.fsync
    monkeypatch.setattr(runner, "SYNCED_FROM", from_seconds)
    monkeypatch.setattr(runner, "SEGMENT", 2)
    monkeypatch.setattr(
        files.os, "fsync", lambda number: (synced.append(os.readlink(f"/proc/self/fd/{number}")), fsync(number))
    )
    run_study(toys("", ""), tmp_path, progress=False)
    assert sum("/blocks/" in path for path in synced) == (4 if waited else 0)
    assert sum("/segments/" in path for path in synced) == 2
    assert {".results", ".timings"} <= {Path(path).name[:8] for path in synced}


# Damaged files -------------------------------------------------------------------------------------------------------


def cut(content):
    return content[: len(content) // 2]


def flipped(content):
    """One bit of the rows, where no reader would stumble."""
    place = content.index(b"cell") + 4
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.mark.parametrize("damage", [cut, flipped, lambda content: b"", lambda content: content + b"x"])
@pytest.mark.parametrize("where", ["blocks", "segments"])
def test_damaged_files_are_set_aside_and_run_again(where, damage, segmented, whole, capsys):
    assert bytes_of(segmented) == whole
    path = sorted((segmented / where).glob("*.arrow"))[0]
    path.write_bytes(damage(path.read_bytes()))
    (segmented / "results.parquet").unlink()
    run_study(toys(*[""] * 5), segmented, resume=True, progress=False)
    assert bytes_of(segmented) == whole
    assert f"{path}.damaged: damaged and set aside; its blocks are run again" in capsys.readouterr().err
    assert path.with_name(path.name + ".damaged").exists()
    run_study(toys(*[""] * 5), segmented, resume=True, progress=False)
    assert capsys.readouterr().err == ""


def test_a_kill_between_segment_and_shards_doubles_nothing(segmented, whole):
    """The segment is there and its shards are not yet gone; and what was half written is cleared."""
    source = next(RunFolder(segmented).shards.pieces())
    row = 0
    for block in source.blocks:
        table = source.table.slice(row, block["rows"])
        (segmented / "blocks" / f"{block['block']}.{block['seal']}.arrow").write_bytes(
            shards.sealed(shards.Piece(table, [block]))
        )
        row += block["rows"]
    (segmented / "segments" / ".half.arrow.host-1.tmp").write_bytes(b"half")
    run_study(toys(*[""] * 5), segmented, resume=True, progress=False)
    assert bytes_of(segmented) == whole
    assert not temporary(segmented)


def test_blocks_with_other_columns_join_as_in_the_order_of_the_study(tmp_path, monkeypatch):
    """Columns and types of the table do not depend on who was finished or put together first."""
    study = replace(toys(*[""] * 4), run=ragged_rows)
    tables = []
    for number, size in enumerate((1024, 3)):
        monkeypatch.setattr(runner, "SEGMENT", size)
        out = tmp_path / str(number)
        order = InProcess() if number == 0 else Reversed()
        tables.append(run_study(study, out, executor=order, progress=False))
    assert bytes_of(tmp_path / "0") == bytes_of(tmp_path / "1")
    assert list(tables[0].columns) == ["cell", "replicate", "whole", "first", "second"]
    assert tables[0]["whole"].tolist()[:11] == [0.0] * 10 + [0.5]
    assert tables[0]["first"].notna().sum() == 20


def ragged_rows(cell, replicates, entropy):
    odd = cell.label in ("cell1", "cell3")
    extra = {"second": 2} if odd else {"first": "one"}
    return [{"cell": cell.label, "replicate": r, "whole": 0.5 if odd else 0} | extra for r in replicates]


# Two runs in one folder ----------------------------------------------------------------------------------------------


HOLDER = (
    "import sys, time; from pathlib import Path; from moe_prompts.engine.lock import locked\n"
    "with locked(Path(sys.argv[1])):\n    print('held', flush=True); time.sleep(60)"
)


def test_a_second_run_is_refused_while_the_first_lives(tmp_path):
    run_study(toys(""), tmp_path, progress=False)
    first = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout.readline() == "held\n"
        for resume in (True, False):
            with pytest.raises(InputError, match=f"is in use by process {first.pid} on .* wait for it, stop it, or"):
                run_study(toys(""), tmp_path, resume=resume, progress=False)
    finally:
        first.send_signal(signal.SIGKILL)
        first.communicate()
    run_study(toys(""), tmp_path, resume=True, progress=False)


# Errors in fits and in blocks ----------------------------------------------------------------------------------------


def fits(**changes):
    options = {
        "sizes": [300],
        "replicates": 3,
        "entropy": 3,
        "truths": ["prompts-fixed"],
        "kinds": ["fixed"],
        "ks": [2],
        "data_starts": 1,
    }
    return gaussian_study(**options | changes)


def raising(error):
    def fit(cell, replicate, entropy, original=gaussian.fit_replicate):
        if replicate == 1:
            raise error
        return original(cell, replicate, entropy)

    return fit


def test_a_fit_that_raises_is_a_row(monkeypatch, tmp_path):
    sound = run_study(fits(), tmp_path / "sound", progress=False)
    monkeypatch.setattr(gaussian, "fit_replicate", raising(KeyError("mistyped")))
    rows = run_study(fits(), tmp_path / "raised", progress=False)
    assert rows.loc[1, "status"] == "RAISED"
    assert rows.loc[1, "message"] == "KeyError: 'mistyped'"
    assert rows.loc[[1], "risk"].isna().all()
    assert list(rows.columns) == list(sound.columns)
    assert rows.loc[[0, 2]].equals(sound.loc[[0, 2]])


@pytest.mark.parametrize("error", [MemoryError("no room"), OSError("the disk is away")])
def test_what_the_machine_lacks_is_no_row(error, monkeypatch, tmp_path):
    monkeypatch.setattr(gaussian, "fit_replicate", raising(error))
    with pytest.raises(InputError, match=f"1 of 1 blocks raised an error.*{error}"):
        run_study(fits(), tmp_path, progress=False)
    monkeypatch.undo()
    assert run_study(fits(), tmp_path, resume=True, progress=False)["status"].notna().all()


def test_a_block_that_raises_is_told_and_the_others_are_kept(whole, tmp_path):
    out = tmp_path / "run"
    study = toys("", "raise", "", "raise", "", folder=tmp_path)
    message = (
        rf"4 of 10 blocks raised an error: cell1_r0000-0007, cell1_r0008-0009, cell3_r0000-0007 and 1 more; the first "
        rf"ZeroDivisionError: by a mistake. Tracebacks are in {out}/errors, all other blocks are kept: mend the cause "
        rf"and repeat the command with --out {out} --resume"
    )
    with pytest.raises(InputError, match=message):
        run_study(study, out, progress=False)
    assert len(RunFolder(out).shards.finished()) == 6
    assert not (out / "results.parquet").exists()
    assert "toy_rows" in (out / "errors" / "cell1_r0000-0007.txt").read_text()
    (tmp_path / "mark").touch()  # the cause is mended
    run_study(study, out, resume=True, progress=False)
    assert bytes_of(out) == whole
    assert not list((out / "errors").iterdir())


def test_a_run_gives_up_when_everything_raises(monkeypatch, tmp_path):
    monkeypatch.setattr(runner, "MOST_RAISED", 3)
    with pytest.raises(InputError, match="3 of 10 blocks raised an error"):
        run_study(toys(*["raise"] * 5, folder=tmp_path), tmp_path / "run", progress=False)


# Folders -------------------------------------------------------------------------------------------------------------


def test_a_folder_of_an_earlier_layout_is_refused(tmp_path):
    run_study(toys(""), tmp_path, progress=False)
    meta = (tmp_path / "meta.json").read_text()
    (tmp_path / "meta.json").write_text(meta.replace("sealed shards and segments of a known study", "one file each"))
    with pytest.raises(InputError, match="was begun by an earlier version of this package; choose another --out"):
        run_study(toys(""), tmp_path, resume=True, progress=False)


def test_gather_takes_parts_of_one_study_into_a_new_folder(tmp_path):
    run_study(toys("", ""), tmp_path / "one", progress=False)
    run_study(replace(toys("", ""), entropy=2), tmp_path / "other", progress=False)
    with pytest.raises(InputError, match=r"other and .*one are no parts of one study"):
        gather(tmp_path / "out", [tmp_path / "one", tmp_path / "other"])
    with pytest.raises(InputError, match="one already holds a run; choose another --out"):
        gather(tmp_path / "one", [tmp_path / "other"])
    with pytest.raises(InputError, match=r"nothing is no folder; expected the folders of parts"):
        gather(tmp_path / "out", [tmp_path / "nothing"])
    shutil.copytree(tmp_path / "one", tmp_path / "copy")
    assert gather(tmp_path / "out", [tmp_path / "one", tmp_path / "copy"]) == 4  # twice the same is once
    run_study(toys("", ""), tmp_path / "out", resume=True, progress=False)
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "one")


@pytest.mark.parametrize("kind", ["link", "second name", "pipe"])
def test_the_lock_is_no_way_to_another_file(kind, tmp_path):
    run, target = tmp_path / "run", tmp_path / "results.parquet"
    run.mkdir()
    target.write_text("thesis results")
    if kind == "link":
        (run / ".lock").symlink_to(target)
    elif kind == "second name":
        os.link(target, run / ".lock")
    else:
        os.mkfifo(run / ".lock")
    with pytest.raises(InputError, match=r"\.lock is .*; expected a file of its own, or none: remove"):
        run_study(toys(""), run, progress=False)
    assert target.read_text() == "thesis results"


def test_a_link_in_the_place_of_a_temporary_file_is_not_followed(tmp_path, monkeypatch):
    (tmp_path / "results.parquet").write_text("thesis results")
    temporary = f".file@{files.platform.node()}-{os.getpid()}.tmp"
    (tmp_path / temporary).symlink_to(tmp_path / "results.parquet")
    write_atomically(tmp_path / "file", b"new")
    assert (tmp_path / "results.parquet").read_text() == "thesis results"
    assert (tmp_path / "file").read_bytes() == b"new"
    assert not (tmp_path / "file").is_symlink()

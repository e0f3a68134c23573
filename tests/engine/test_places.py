"""Folders of odd names, links in the place of tables, masks of permissions, and folders that go away during work."""

import os
import shutil
import signal
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from fault_cases import toys

from moe_prompts import InputError, run_study
from moe_prompts.engine.executors import Dask, Joblib
from moe_prompts.engine.store import RESULTS, gather, read_table

#: The last is no UTF-8, as an archive from elsewhere may have it.
NAMES = ["two words", "Größe ∂ 数", "two\nlines", "a'b\"c;$d", "-x", os.fsdecode(b"caf\xe9")]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    run_study(toys("", ""), folder, progress=False)
    return (folder / RESULTS).read_bytes()


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_folder_may_have_any_name(name, whole, tmp_path):
    run = tmp_path / name
    run_study(toys(""), run, progress=False)
    with pytest.raises(InputError, match="already holds a run") as told:
        run_study(toys("", ""), run, progress=False)
    assert len(str(told.value).splitlines()) == 1
    run_study(toys("", ""), run, resume=True, progress=False)
    assert (run / RESULTS).read_bytes() == whole
    assert len(read_table(run)) == 20
    assert gather(tmp_path / f"{name} gathered", [run]) == 4


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_table_that_is_a_link_is_replaced_and_what_it_named_stays(link, whole, tmp_path):
    run, other = tmp_path / "run", tmp_path / "other"
    run_study(toys("", ""), run, progress=False)
    other.write_bytes(whole)
    (run / RESULTS).unlink()
    link(other, run / RESULTS)
    assert len(read_table(run)) == 20  # the same content is the same table
    other.write_bytes(b"another's")
    with pytest.raises(InputError, match="is not the file that the run wrote"):
        read_table(run)
    run_study(toys("", ""), run, resume=True, progress=False)
    assert (run / RESULTS).read_bytes() == whole
    assert not (run / RESULTS).is_symlink()
    assert other.read_bytes() == b"another's"


@pytest.mark.parametrize(("mask", "mode"), [(0o077, 0o600), (0, 0o666)])
def test_files_have_the_permissions_of_the_mask(mask, mode, whole, tmp_path):
    before = os.umask(mask)
    try:
        run_study(toys("", ""), tmp_path / "run", progress=False)
        run_study(toys("", ""), tmp_path / "run", resume=True, progress=False)
    finally:
        os.umask(before)
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert {path.stat().st_mode & 0o777 for path in files} == {mode}
    assert len(files) > 7
    assert (tmp_path / "run" / RESULTS).read_bytes() == whole


@pytest.mark.parametrize("how", ["swapped", "copied", "pipe", "folder"])
def test_files_of_blocks_count_by_what_they_hold(how, whole, tmp_path):
    """Not by their names: two that changed places lose nothing, one over another is a block to be run again."""
    run_study(toys("", ""), tmp_path, progress=False)
    (tmp_path / RESULTS).unlink()
    first, second, *_ = sorted((tmp_path / "blocks").glob("*.arrow"))
    one, two = first.read_bytes(), second.read_bytes()
    if how == "pipe":
        os.mkfifo(tmp_path / "blocks" / "x.arrow")
    elif how == "folder":
        (tmp_path / "segments" / "x.arrow").mkdir()
    else:
        first.write_bytes(two)
        second.write_bytes(one if how == "swapped" else two)
    run_study(toys("", ""), tmp_path, resume=True, progress=False)
    assert (tmp_path / RESULTS).read_bytes() == whole


# During work ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gone:
    """The folder goes away when two blocks are written: it is removed, or gets another name."""

    folder: Path
    how: str

    def map(self, run_block, blocks):
        for number, block in enumerate(blocks):
            if number == 2:
                shutil.rmtree(self.folder) if self.how == "removed" else self.folder.rename(f"{self.folder}-moved")
            yield run_block(block)


@pytest.mark.parametrize("how", ["removed", "moved"])
def test_a_folder_that_goes_away_during_work_ends_the_run_in_one_line(how, whole, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(InputError, match=r"run/.*No such file or directory") as told:
        run_study(toys("", ""), run, executor=Gone(run, how), progress=False)
    assert len(str(told.value).splitlines()) == 1
    assert not run.exists()
    kept = run if how == "removed" else tmp_path / "run-moved"
    run_study(toys("", ""), kept, resume=how == "moved", progress=False)
    assert (kept / RESULTS).read_bytes() == whole


@contextmanager
def signalled(number, at_least=1):
    """Send a signal to the workers of this process as soon as there are so many; where they stop, wake them later."""
    import threading
    import time

    import psutil

    sent, over = [], threading.Event()

    def send():
        while not over.is_set():
            own = [one for one in psutil.Process().children(recursive=True) if "python" in one.name()]
            workers = [one for one in own if any(word in " ".join(one.cmdline()) for word in ("loky", "spawn_main"))]
            if len(workers) >= at_least:
                chosen = workers[-1]
                chosen.send_signal(number)
                sent.append(chosen.pid)
                if number == signal.SIGSTOP:
                    time.sleep(3)
                    chosen.send_signal(signal.SIGCONT)
                return
            time.sleep(0.01)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield sent
    finally:
        over.set()
        thread.join()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:resource_tracker:UserWarning")  # joblib's own helper may be hit, which it says
@pytest.mark.parametrize("executor", [Joblib(2), Dask(2)], ids=["joblib", "dask"])
@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL], ids=["stopped", "killed"])
def test_a_worker_that_is_stopped_or_killed_while_workers_start_costs_no_row(number, executor, tmp_path):
    """The command ends with the whole table, or with one line after which a resume does."""
    pytest.importorskip("psutil")
    from multiprocessing import resource_tracker

    from joblib.externals.loky import get_reusable_executor
    from joblib.externals.loky.backend import resource_tracker as of_joblib

    get_reusable_executor().shutdown(wait=True, kill_workers=True)  # those of tests before
    study = toys(*[""] * 6)
    run_study(study, tmp_path / "whole", progress=False)
    with signalled(number) as sent:
        try:
            run_study(study, tmp_path / "run", executor=executor, progress=False)
            told = "one line"
        except InputError as error:
            told = str(error)
    for helper in (of_joblib, resource_tracker):  # where it was hit it starts again here, not in a later test
        helper.ensure_running()
    assert sent
    assert len(told.splitlines()) == 1
    assert number == signal.SIGKILL or told == "one line"  # a worker that sleeps is waited for
    run_study(study, tmp_path / "run", resume=True, progress=False)
    assert (tmp_path / "run" / RESULTS).read_bytes() == (tmp_path / "whole" / RESULTS).read_bytes()

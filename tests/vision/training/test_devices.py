"""Processes of a host go round its GPUs; the numbers of dead ones are taken again. No GPU is needed to test it."""

import os
import signal
import subprocess
import sys

import pytest

from moe_prompts import InputError
from moe_prompts.vision.training import devices
from moe_prompts.vision.training.devices import device_of, own_device, take_number

TAKER = (
    "import sys, time; from pathlib import Path; from moe_prompts.vision.training.devices import take_number\n"
    "print(take_number(Path(sys.argv[1])), flush=True); time.sleep(60)"
)


def test_processes_go_round_the_devices():
    assert [device_of(number, 3) for number in range(5)] == ["cuda:0", "cuda:1", "cuda:2", "cuda:0", "cuda:1"]
    assert device_of(7, 1) == "cuda:0"
    with pytest.raises(InputError, match="torch sees no GPU in this process: use cpu"):
        device_of(0, 0)


def test_living_processes_have_different_numbers_and_dead_ones_none(tmp_path):
    started = []

    def take():
        started.append(subprocess.Popen([sys.executable, "-c", TAKER, str(tmp_path)], stdout=subprocess.PIPE))
        return int(started[-1].stdout.readline())

    try:
        assert [take(), take()] == [0, 1]
        started[0].send_signal(signal.SIGKILL)
        started[0].wait()
        assert take_number(tmp_path) == 0
        assert take() == 2
    finally:
        for process in started:
            process.kill()
            process.communicate()
        for file in devices._held:
            os.close(file)
        devices._held.clear()


def test_the_cpu_is_the_cpu():
    assert own_device("cpu") == "cpu"


# A folder that others could reach -------------------------------------------------------------------------------------


@pytest.fixture
def results(tmp_path):
    """A file of the user's, which somebody else would like to see cut off."""
    (tmp_path / "results.parquet").write_text("thesis results")
    return tmp_path / "results.parquet"


def laid(folder, results, kind):
    folder.mkdir(mode=0o700)
    if kind == "link":
        (folder / "0").symlink_to(results)
    elif kind == "second name":
        os.link(results, folder / "0")
    elif kind == "pipe":
        os.mkfifo(folder / "0")
    elif kind == "open to others":
        folder.chmod(0o777)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("link", "0 cannot be opened .*remove it"),
        ("second name", "0 is no regular file of this user alone"),
        ("pipe", "0 is no regular file of this user alone"),
        ("open to others", "others may write to it; expected a folder of this user"),
    ],
)
def test_numbers_are_not_taken_where_others_laid_something(kind, message, results, tmp_path):
    laid(tmp_path / "numbers", results, kind)
    with pytest.raises(InputError, match=message):
        devices.take_number(tmp_path / "numbers")
    assert results.read_text() == "thesis results"


def test_a_link_in_the_place_of_the_folder_is_refused(results, tmp_path):
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "numbers").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="cannot hold device numbers"):
        devices.take_number(tmp_path / "numbers")
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.skipif(os.getuid() != 0, reason="needs two users")
def test_a_folder_of_another_user_is_refused(tmp_path):
    (tmp_path / "numbers").mkdir(mode=0o700)
    os.chown(tmp_path / "numbers", 65532, 65532)
    with pytest.raises(InputError, match="belongs to another user"):
        devices.take_number(tmp_path / "numbers")


def test_numbers_lie_in_the_runtime_folder_of_the_user(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert devices.runtime_folder() == tmp_path / "moe-prompts-devices"
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "nothing"))
    assert devices.runtime_folder().name == f"moe-prompts-devices-{os.getuid()}"

"""Processes of a host go round its GPUs; the numbers of dead ones are taken again. No GPU is needed to test it."""

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
            file.close()
        devices._held.clear()


def test_the_cpu_is_the_cpu():
    assert own_device("cpu") == "cpu"

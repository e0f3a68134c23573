"""One table whoever runs the blocks, in whatever order, and whoever dies meanwhile."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import dask
import pytest
from fault_cases import KilledAfter, Reversed, small, toys

from moe_prompts import InputError, run_study
from moe_prompts.cli import part
from moe_prompts.engine import executors, runner
from moe_prompts.engine.executors import Dask, InProcess, Joblib, executor_for
from moe_prompts.engine.grid import Part
from moe_prompts.engine.runner import check_worker, run_part
from moe_prompts.engine.store import RunFolder, gather, versions

HERE = Path(__file__).parent
#: Quiet, on any port.
OWN = {"dashboard_address": ":0", "memory_limit": 0, "silence_logs": 50}


@pytest.fixture(scope="module")
def cluster():
    """One worker, at an address; two are those of the example in docs/scaling.md."""
    from distributed import LocalCluster

    with LocalCluster(n_workers=1, threads_per_worker=1, **OWN) as cluster:
        yield cluster


def checksum(folder):
    return hashlib.sha256((folder / "results.parquet").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def baseline(tmp_path_factory):
    folder = tmp_path_factory.mktemp("baseline")
    run_study(small(), folder, progress=False)
    return checksum(folder)


def killed_runs(folder, *deaths):
    """For each (blocks, resume) of ``deaths`` a process that is killed when so many blocks are written."""
    code = (
        "import os, signal, sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; "
        "from fault_cases import KilledAfter, small; from moe_prompts import run_study; small()\n"  # loads once
        f"for blocks, resume in {deaths}:\n"
        "    if (child := os.fork()) == 0:\n"
        "        run_study(small(), Path(sys.argv[2]), executor=KilledAfter(blocks), resume=resume, progress=False)\n"
        "    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL"
    )
    subprocess.run([sys.executable, "-c", code, str(HERE), str(folder)], check=True)


def test_one_table_whatever_the_executor_order_kills_and_parts(baseline, cluster, tmp_path):
    runs = {
        "joblib": Joblib(2),
        "dask": Dask(scheduler=cluster.scheduler_address),
        "reversed": Reversed(),
    }
    for name, executor in runs.items():
        run_study(small(), tmp_path / name, executor=executor, progress=False)
    killed_runs(tmp_path / "killed", (2, False), (3, True))
    assert len(list((tmp_path / "killed" / "blocks").glob("*.arrow"))) == 5
    run_study(small(), tmp_path / "killed", resume=True, progress=False)
    parts = [tmp_path / f"part{number}" for number in (1, 2, 3)]
    for number, folder in enumerate(parts, start=1):
        run_part(small(), folder, Part(number, 3), progress=False)
    gather(tmp_path / "gathered", parts)
    run_study(small(), tmp_path / "gathered", resume=True, executor=KilledAfter(0), progress=False)  # nothing is left
    found = {name: checksum(tmp_path / name) for name in (*runs, "killed", "gathered")}
    assert set(found.values()) == {baseline}, found


@pytest.mark.slow
def test_dask_starts_a_cluster_of_its_own(tmp_path):
    plain, own = toys("", "", ""), tmp_path / "own"
    run_study(plain, own, executor=Dask(2), progress=False)
    run_study(plain, tmp_path / "plain", progress=False)
    assert checksum(own) == checksum(tmp_path / "plain")


def test_a_killed_joblib_worker_costs_nothing_but_time(tmp_path):
    rows = run_study(toys("", "kill-once", "", folder=tmp_path), tmp_path / "run", executor=Joblib(2), progress=False)
    assert (tmp_path / "mark").exists()
    assert len(rows) == 30
    assert not rows.duplicated(["cell", "replicate"]).any()


def test_joblib_workers_that_always_die_end_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(executors, "MOST_DEATHS", 1)
    study = toys("", "kill", folder=tmp_path, replicates=8)
    message = r"worker processes were killed 1 times.*finished blocks are kept: repeat the command with --resume"
    with pytest.raises(InputError, match=message):
        run_study(study, tmp_path / "run", executor=Joblib(2), progress=False)


def test_a_killed_dask_worker_costs_nothing_but_time(cluster, tmp_path):
    executor = Dask(scheduler=cluster.scheduler_address)
    rows = run_study(toys("", "kill-once", "", folder=tmp_path), tmp_path / "run", executor=executor, progress=False)
    assert (tmp_path / "mark").exists()
    assert len(rows) == 30
    assert not rows.duplicated(["cell", "replicate"]).any()


def test_a_block_that_kills_its_workers_is_named(cluster):
    """As the scheduler tells it."""
    with pytest.raises(
        InputError, match=r"cell0_r0000-0007 was on several workers that died.*finished blocks are kept"
    ):
        list(Dask(scheduler=cluster.scheduler_address).map(killer, toys("").blocks[:1]))


def killer(block):
    from distributed import KilledWorker

    raise KilledWorker(f"{block.name}-key", SimpleNamespace(address="tcp://host:1"), 3)


@pytest.mark.slow
def test_dask_workers_that_always_die_end_the_run(tmp_path):
    from distributed import LocalCluster

    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        LocalCluster(n_workers=1, threads_per_worker=1, **OWN) as cluster,
    ):
        study, executor = toys("kill", folder=tmp_path, replicates=8), Dask(scheduler=cluster.scheduler_address)
        with pytest.raises(InputError, match=r"cell0_r.* was on several workers that died.*finished blocks are kept"):
            run_study(study, tmp_path / "run", executor=executor, progress=False)


def test_few_blocks_wait_at_the_scheduler_the_costliest_first(cluster, monkeypatch):
    monkeypatch.setattr(executors, "AHEAD", 3)
    monkeypatch.setattr(executors, "AHEAD_PER_WORKER", 1)
    from distributed import Client

    sent = []
    original = Client.submit

    def spy(self, function, run_block, block, **options):
        sent.append(block.cost)
        return original(self, function, run_block, block, **options)

    monkeypatch.setattr(Client, "submit", spy)
    blocks = toys(*[""] * 10).blocks
    received = 0
    for _ in Dask(scheduler=cluster.scheduler_address).map(len_of_name, blocks):
        received += 1
        assert len(sent) - received <= 3
    assert received == len(blocks) == 20
    assert sent == sorted(sent, reverse=True)
    assert len(set(sent)) == 2  # a cell's second block has two replicates


def len_of_name(block):
    return len(block.name)


def test_workers_with_two_threads_are_refused(tmp_path):
    from distributed import LocalCluster

    with LocalCluster(n_workers=1, threads_per_worker=2, processes=False, **OWN) as cluster:
        executor = Dask(scheduler=cluster.scheduler_address)
        with pytest.raises(InputError, match="a dask worker has 2 threads; expected one thread in a process"):
            run_study(toys("", ""), tmp_path, executor=executor, progress=False)


@pytest.fixture
def dask_of_its_own(tmp_path):
    """Scheduler and worker as processes of their own, at an address; with and without this folder's modules."""
    started = []

    def start(path):
        file = tmp_path / "scheduler.json"
        common, quiet = ["--scheduler-file", str(file), "--no-dashboard"], {"stderr": subprocess.DEVNULL}
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
        for command in (["dask_scheduler", "--port", "0"], ["dask_worker", "--nthreads", "1", "--no-nanny"]):
            own = [sys.executable, "-m", f"distributed.cli.{command[0]}", *command[1:], *common]
            started.append(subprocess.Popen(own, env=environment, **quiet))
            while not file.exists():
                time.sleep(0.05)
        return json.loads(file.read_text())["address"], started[0].pid

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_lost_scheduler_leaves_a_folder_to_resume(dask_of_its_own, tmp_path, monkeypatch):
    """It is killed when the first block is written."""
    monkeypatch.setattr(executors, "PATIENCE", "60s")
    study, out = toys(*[""] * 300), tmp_path / "run"
    executor = KillsScheduler(*dask_of_its_own([HERE.parents[1], HERE]))
    with pytest.raises(InputError, match=r"the dask scheduler is gone.*repeat the command with --resume"):
        run_study(study, out, executor=executor, progress=False)
    assert RunFolder(out).shards.finished()
    assert len(run_study(study, out, resume=True, progress=False)) == 3000


@pytest.mark.slow
def test_a_scheduler_of_another_environment_gets_one_clear_error(dask_of_its_own, tmp_path, monkeypatch):
    monkeypatch.setattr(executors, "PATIENCE", "60s")
    address, _ = dask_of_its_own([HERE.parents[1]])
    with pytest.raises(InputError, match="dask's scheduler or workers cannot import fault_cases"):
        run_study(toys(""), tmp_path / "run", executor=Dask(scheduler=address), progress=False)


class KillsScheduler:
    def __init__(self, address, pid):
        self.address, self.pid = address, pid

    def map(self, run_block, blocks):
        for receipt in Dask(scheduler=self.address).map(run_block, blocks):
            if self.pid:
                os.kill(self.pid, signal.SIGKILL)
                self.pid = None
            yield receipt


def test_an_address_without_a_scheduler_gets_one_clear_error(monkeypatch):
    monkeypatch.setattr(executors, "PATIENCE", "0.5s")
    for address, message in [
        ("tcp://127.0.0.1:9", "no dask scheduler answers at tcp://127.0.0.1:9"),
        ("nowhere://else", "--scheduler 'nowhere://else' is no address; expected one such as tcp://host:8786"),
    ]:
        with pytest.raises(InputError, match=message):
            list(Dask(scheduler=address).map(len_of_name, toys("").blocks))


def test_dask_that_is_not_installed_gets_one_clear_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r"needs dask.distributed; try: pip install -e \"\.\[cluster\]\" -c req"):
        list(Dask(1).map(len_of_name, toys("").blocks))


def test_a_worker_must_see_the_very_folder_and_have_the_packages(tmp_path, monkeypatch):
    own = tuple(versions().items())
    with RunFolder(tmp_path / "run").opened(toys(""), False):
        token = runner.token_of(tmp_path / "run")
        check_worker(tmp_path / "run", token, own)
        for folder, seen in ((tmp_path / "elsewhere", token), (tmp_path / "run", "of another run")):
            with pytest.raises(
                InputError, match=r"worker .* does not see .* as this run's folder; expected one that all"
            ):
                check_worker(folder, seen, own)
        other = (*own[:-1], ("python", "2.7"))
        with pytest.raises(InputError, match=r"has other versions \(python .* there, 2.7 here\)"):
            check_worker(tmp_path / "run", token, other)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ((2, "spark"), "--executor spark; expected one of in-process, joblib, dask"),
        ((None, "joblib", "tcp://a:1"), "--scheduler tcp://a:1 without --executor dask"),
        ((None, None, "tcp://a:1"), "--scheduler tcp://a:1 without --executor dask"),
        ((4, "dask", "tcp://a:1"), "--workers 4 with --scheduler"),
        ((2, "in-process"), "--workers 2 with --executor in-process"),
        ((0, "dask"), "workers = 0; expected at least 1"),
    ],
)
def test_nonsense_choices_get_one_clear_error(choice, message):
    with pytest.raises(InputError, match=message):
        executor_for(*choice)


def test_choices_are_what_they_say():
    cores = executors.available_cores()
    assert executor_for(None) == (InProcess() if cores == 1 else Joblib(cores))
    assert executor_for(1) == executor_for(None, "in-process") == InProcess()
    assert executor_for(1, "joblib") == Joblib(1)
    assert executor_for(3, "dask") == Dask(3)
    assert executor_for(None, "dask", "tcp://a:1") == Dask(scheduler="tcp://a:1")


def test_parts_are_the_whole_and_about_as_costly():
    blocks = small().blocks
    parts = [Part(number, 3).chosen(blocks) for number in (1, 2, 3)]
    assert sorted(block.name for some in parts for block in some) == sorted(block.name for block in blocks)
    costs = [sum(block.cost for block in some) for some in parts]
    assert max(costs) - min(costs) <= max(block.cost for block in blocks)
    assert part("2/3") == Part(2, 3)
    with pytest.raises(InputError, match="part 4/3; expected one from 1/3 to 3/3"):
        Part(4, 3)

"""Measure what the engine costs beside the fits, and what a million rows take: write docs/scaling_benchmark.md.

python experiments/benchmark_engine.py                 all, about 10 minutes on one core
python experiments/benchmark_engine.py --only engine   one section; the page keeps the others
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"  # before NumPy loads: every figure is of one thread

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from moe_prompts import cli
from moe_prompts.errors import InputError
from moe_prompts.tables import body_of, markdown

PAGE = Path(__file__).parents[1] / "docs" / "scaling_benchmark.md"
PACKED = PAGE.with_name("packed_benchmark.md")
#: Columns of that page's table.
PACKED_COLUMNS = (
    *("backbone", "trials", "steps", "rounds", "method"),
    *("one by one, ms", "packed, ms", "times faster", "largest difference"),
)
#: Rows as wide as those of the study of Gaussian gates.
NUMBERS, WORDS = 34, ("study", "truth", "truth_kind", "kind", "fit_class", "start", "status", "message")
BLOCK, MILLION = 8, 1_000_000
REPLICATES_OF_A_CELL = 800


@dataclass(frozen=True)
class IdleCell:
    """Stand for a cell with nothing to fit."""

    label: str
    cost: float = 1.0
    data_size: int = 1


def idle(cell: IdleCell, replicates: tuple[int, ...], entropy: int) -> list[dict]:
    """Return rows without fits."""
    words = dict.fromkeys(WORDS, "prompts-adaptive")
    numbers = {f"error{i}": entropy + i / 7 for i in range(NUMBERS)}
    return [{**words, **numbers, "replicate": replicate} for replicate in replicates]


def idle_study(rows: int):
    from moe_prompts.engine.grid import Study

    cells = [IdleCell(f"cell{number}") for number in range(rows // REPLICATES_OF_A_CELL)]
    return Study("idle", cells, REPLICATES_OF_A_CELL, 0, idle)


# The engine alone ----------------------------------------------------------------------------------------------------


def engine() -> Iterator[list[str]]:
    """Time rows of blocks that fit nothing; starting workers is left out, by the difference of two lengths."""
    from moe_prompts.engine.executors import Dask, InProcess, Joblib

    for name, executor in (("in-process", InProcess()), ("joblib, 2 workers", Joblib(2)), ("dask, 2 workers", Dask(2))):
        short, long = (seconds_of(executor, rows) for rows in (1_600, 16_000))
        each = (long - short) / 14_400
        yield [name, f"{1e3 * each:.2f}", f"{1 / each:.0f}"]
    yield ["writing alone, in-process", f"{1e3 * writing(1_000, sync=False):.2f}", ""]


def seconds_of(executor, rows: int) -> float:
    from moe_prompts.engine.runner import run_study

    with tempfile.TemporaryDirectory(dir=".") as folder:
        began = time.perf_counter()
        run_study(idle_study(rows), Path(folder) / "run", executor=executor, progress=False)
        return time.perf_counter() - began


def writing(blocks: int, sync: bool) -> float:
    """Return seconds per row of the files of finished blocks; with ``sync`` each is waited for on the disk."""
    from moe_prompts.engine.shards import Shards

    rows = idle(IdleCell("cell"), tuple(range(BLOCK)), 0)
    with tempfile.TemporaryDirectory(dir=".") as folder:
        shards = Shards(Path(folder), ["0" * 16])
        shards.prepare()
        began = time.perf_counter()
        for number in range(blocks):
            shards.write(str(number), shards.content(str(number), rows, 0.0, "host"), sync)
        return (time.perf_counter() - began) / blocks / BLOCK


# A million rows ------------------------------------------------------------------------------------------------------


RESUME = """
import json, resource, sys, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import benchmark_engine as own
from moe_prompts.engine.runner import run_study
from moe_prompts.engine.store import RunFolder
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
study, folder, began = own.idle_study(own.MILLION), Path(sys.argv[2]), time.perf_counter()
with RunFolder(folder).opened(study, True) as (_, finished):
    missing = [block for block in study.blocks if block.name not in finished]
opened = time.perf_counter() - began, peak()
began = time.perf_counter()
rows = run_study(study, folder, resume=True, progress=False)
assert not missing and len(rows) == own.MILLION
print(json.dumps([*opened, time.perf_counter() - began, peak()]))
"""


def million() -> Iterator[list[str]]:
    with tempfile.TemporaryDirectory(dir=".") as folder:
        fill(Path(folder) / "run")
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file()) / 1e6
        command = [sys.executable, "-c", RESUME, str(Path(__file__).parent), f"{folder}/run"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        opening, before, whole, after = json.loads(done.stdout)
    yield ["resume: folder read and checked, missing blocks known", f"{opening:.1f} s", f"{before:.0f} MB"]
    table = f"its table of {NUMBERS + len(WORDS) + 1} columns written again"
    yield [f"resume of a finished run, with {table}", f"{whole:.1f} s", f"{after:.0f} MB"]
    yield ["finished blocks on disk", f"{size:.0f} MB", ""]


def fill(folder: Path) -> None:
    """Write blocks as a run leaves them, with random numbers, in another order than the study's."""
    import pyarrow as pa

    from moe_prompts.engine.shards import SEGMENT, Piece, record_of
    from moe_prompts.engine.store import RunFolder

    study, rng, run = idle_study(MILLION), np.random.default_rng(0), RunFolder(folder)
    with run.opened(study, False) as (shards, _):
        blocks = study.blocks
        order = rng.permutation(len(blocks))
        for start in range(0, len(order), SEGMENT):
            some = [blocks[index] for index in order[start : start + SEGMENT]]
            count = BLOCK * len(some)
            columns = {name: pa.array(["prompts-adaptive"] * count) for name in WORDS}
            columns |= {f"error{i}": pa.array(rng.random(count)) for i in range(NUMBERS)}
            columns["replicate"] = pa.array([replicate for block in some for replicate in block.replicates])
            said = [record_of(block.name, shards.seals[-1], BLOCK, 0.1, "host") for block in some]
            shards.write_segments([Piece(pa.table(columns), said)])


# Fits ----------------------------------------------------------------------------------------------------------------


SIZES = (1_000, 10_000, 100_000, 1_000_000)
TIMED_FITS = 2


def fits() -> Iterator[list[str]]:
    """Return CPU seconds of a fit, data drawn included, by kind, k and n."""
    from moe_prompts.study import attention, gaussian, softmax

    lines: list[tuple[str, Callable, Callable]] = []
    for kind, ks in (("fixed", (2, 4, 8)), ("adaptive", (2, 3))):
        for k in ks:
            cell = lambda n, kind=kind, k=k: gaussian.GaussianCell("prompts-adaptive", kind, k, n, "data", 4)
            lines.append((f"Gaussian gates, {kind}, k = {k}, best of 4 starts", cell, gaussian.run_cell))
    for k in (2, 3):
        lines.append((f"softmax gates, k = {k}", lambda n, k=k: softmax.SoftmaxCell("sgame", k, n), softmax.run_cell))
    for truth, kind, k in (("fixed", "fixed", 2), ("gelu", "adaptive:gelu", 2), ("gelu", "adaptive:gelu", 3)):
        cell = lambda n, truth=truth, kind=kind, k=k: attention.AttentionCell(
            f"attention-{truth}", kind, k, n, "near_truth"
        )
        lines.append((f"attention, {kind}, k = {k}", cell, attention.run_cell))
    for name, cell, run in lines:
        run(cell(SIZES[0]), (0,), 0)  # warms up
        each = []
        for n in SIZES:
            began = time.process_time()
            run(cell(n), tuple(range(1, 1 + TIMED_FITS)), 0)
            each.append((time.process_time() - began) / TIMED_FITS)
        yield [name, *(f"{seconds:.2g}" for seconds in each), f"{3600 / each[-1]:.0f}"]


def trainings() -> Iterator[list[str]]:
    """Return times of 100 epochs on 1000 images in batches of 64, from the rows of docs/packed_benchmark.md."""
    from moe_prompts.vision.training.sgd import Recipe

    steps = Recipe().total(1000)
    for name, *_, method, alone, packed, _, _ in body_of(PACKED.read_text(encoding="utf-8"), PACKED_COLUMNS):
        if name != "small-random":
            continue
        seconds = steps * float(packed or alone) / 1e3
        yield [method, f"{seconds:.0f}", f"{3600 / seconds:.0f}"]


@dataclass(frozen=True)
class Section:
    measure: Callable[[], Iterator[list[str]]]
    title: str
    text: str
    columns: tuple[str, ...]


SECTIONS = {
    "engine": Section(
        engine,
        "The engine alone",
        f"Rows of blocks that fit nothing, {NUMBERS + len(WORDS) + 1} columns, {BLOCK} rows a block: data that are not "
        "drawn, fits that are not\nmade, everything else as in a study. Starting workers is left out. Targets: under "
        "1 ms a row in-process, under 5 ms with dask.",
        ("executor", "ms a row", "rows a second"),
    ),
    "million": Section(
        million,
        "A study with 1e6 rows",
        f"{MILLION // BLOCK} blocks, all finished, random numbers. Memory is the peak of the process. Targets: resume "
        "under 10 s, memory under 1 GB.",
        ("what", "time", "memory"),
    ),
    "fits": Section(
        fits,
        "Seconds per fit",
        f"CPU seconds of one fit on one core, its data drawn, mean of {TIMED_FITS}; and fits of the largest n that a "
        "core makes in an hour.",
        ("fit", *(f"n = {n:.0e}".replace("e+0", "e") for n in SIZES), "an hour"),
    ),
    "trainings": Section(
        trainings,
        "Seconds per training",
        "On the small backbone (d 64, 4 blocks, 32 pixels), 100 epochs on 1000 images in batches of 64, 8 packed, one "
        "core; computed from\n[packed_benchmark.md](packed_benchmark.md).",
        ("method", "s", "an hour"),
    ),
}


def earlier_rows() -> dict[str, list[list[str]]]:
    """Return the rows of the page by section."""
    text = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    return {name: body_of(text, section.columns) for name, section in SECTIONS.items()}


def page(rows: dict[str, list[list[str]]], machine: str) -> str:
    lines = [
        "# What studies cost",
        "",
        f"Written by `python experiments/benchmark_engine.py` on {machine}.",
    ]
    for name, section in SECTIONS.items():
        lines += ["", f"## {section.title}", "", section.text, ""]
        lines.append(markdown(section.columns, rows[name]))
    return "\n".join(lines) + "\n"


def machine_of_page() -> str:
    return re.search(r"benchmark_engine.py` on (.*)\.$", PAGE.read_text(encoding="utf-8"), flags=re.M)[1]


def main() -> None:
    parser = cli.OneLineParser(
        "benchmark_engine.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", type=cli.names, default=list(SECTIONS), help=f"some of {', '.join(SECTIONS)}")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.only if name not in SECTIONS]
    if unknown:
        raise InputError(f"--only {unknown[0]}; expected some of {', '.join(SECTIONS)}")
    from benchmark_vision import where

    rows = earlier_rows()
    for name in arguments.only:
        rows[name] = []
        for row in SECTIONS[name].measure():
            print("  ".join(row), flush=True)
            rows[name].append(row)
    PAGE.write_text(page(rows, where("cpu")), encoding="utf-8")
    print(f"page      {PAGE}")


if __name__ == "__main__":
    # Workers import this module by its name.
    import benchmark_engine

    cli.run(benchmark_engine.main, "benchmark_engine.py")

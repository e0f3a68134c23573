"""Measure where the default study spends its time: processor seconds of every line and size, and of every stage.

python experiments/benchmark_study.py                           one replicate of every cell, in this process
python experiments/benchmark_study.py --study attention --n 1e4 --replicates 8
python experiments/benchmark_study.py --stages                  the same under a profiler: calls and shares

Processor time does not depend on what else runs, but for caches that others empty. Cells that share data
draw them once, as in a study; the first cell on them pays. Fits of attention are climbed eight replicates at
a time, so that one replicate alone takes more than an eighth of them.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"  # before NumPy loads

import argparse
import cProfile
import pstats
import resource
import sys
import time
from collections import defaultdict
from typing import Any

from moe_prompts import cli
from moe_prompts.errors import InputError
from moe_prompts.tables import markdown, short

STUDIES = ("gaussian", "attention", "softmax")
#: Functions of this package and of libraries that a stage spends its own time in; the rest is "everything else".
STAGES = {
    "passes, Gaussian": ("gaussian_pass",),
    "passes, softmax": ("softmax_pass", "softmax_em_pass"),
    "passes, attention": ("values", "derivatives"),
    "steps between passes": ("maximise", "coefficients", "curvature", "wide", "spread"),
    "eigenvalues": ("of", "eigh", "eigvalsh", "_spectrum"),
    "trust-region steps": ("trust_region_step", "brentq", "<lambda>"),
    "starts": ("draw", "from_clusters", "_squared_distances", "argmin"),
    "drawing data, compressing": ("_sample", "sample", "gather", "_chebyshev", "compress", "argsort", "normal"),
    "checks of parameters": ("__post_init__", "powers_of_two", "numbers", "plain"),
}


def study_of(name: str, n: str) -> Any:
    """The study that ``sample_efficiency.py --study NAME --n SIZES`` runs."""
    from moe_prompts.commands import sample_efficiency

    arguments = sample_efficiency.parser().parse_args(["--n", n])
    return getattr(sample_efficiency, name)(arguments, cli.sizes(n, 5), None)


def measured(study: Any, replicates: int, profile: cProfile.Profile | None) -> list[tuple[str, int, int, float]]:
    """Line, size, fits and processor seconds of the first replicates of every cell."""
    found = []
    blocks = [block for block in study.blocks if block.replicates[0] == 0]
    for block in sorted(blocks, key=lambda block: -block.cell.data_size):
        chosen = block.replicates[:replicates]
        if profile is not None:
            profile.enable()
        began = time.process_time()
        study.run(block.cell, chosen, study.entropy)
        took = time.process_time() - began
        if profile is not None:
            profile.disable()
        size = block.cell.data_size
        line = block.cell.label.removesuffix(f"_n{size}")
        found.append((line, size, len(chosen), took))
        print(f"{block.cell.label}: {took:.2f} s for {len(chosen)}", file=sys.stderr, flush=True)
    return found


def by_line(found: list[tuple[str, int, int, float]]) -> str:
    """One line of a table per line of the study: seconds a fit at each size."""
    sizes = sorted({size for _, size, _, _ in found if size})
    each: dict[str, dict[int, float]] = defaultdict(dict)
    for line, size, fits, took in found:
        each[line][size] = took / fits
    header = ["line", "no data", *(f"n = {short(size)}" for size in sizes)]
    body = []
    for line, row in each.items():
        body.append([line, *(f"{row[size]:.3f}" if size in row else "" for size in (0, *sizes))])
    totals = {size: sum(took for _, at, _, took in found if at == size) for size in (0, *sizes)}
    body.append(["all that was run, s", *(f"{totals[size]:.1f}" for size in (0, *sizes))])
    return markdown(header, body)


def by_stage(profile: cProfile.Profile) -> str:
    """Calls and own time of the functions of each stage."""
    stages: dict[str, list[float]] = {name: [0, 0.0] for name in (*STAGES, "everything else")}
    stage_of = {function: name for name, functions in STAGES.items() for function in functions}
    for (_, _, function), (calls, _, own, _, _) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        name = stage_of.get(function.split("'")[1] if "'" in function else function.strip("<>"), "everything else")
        stages[name][0] += calls
        stages[name][1] += own
    total = sum(own for _, own in stages.values())
    body = [[name, f"{calls:.0f}", f"{own:.2f}", f"{own / total:.0%}"] for name, (calls, own) in stages.items()]
    return markdown(["stage", "calls", "own time, s", "share"], body)


def main() -> None:
    parser = cli.OneLineParser(
        "benchmark_study.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--study", type=cli.names, default=["gaussian", "attention"], help="some of gaussian, attention, softmax")
    add("--n", default="1e3..1e6", metavar="SIZES", help="as sample_efficiency.py takes them")
    add("--replicates", type=cli.positive("replicates"), default=1, help="of each cell, at most 8 (default 1)")
    add("--stages", action="store_true", help="profile, which slows small calls down: shares, not seconds")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.study if name not in STUDIES]
    if unknown or not arguments.study:
        raise InputError(f"--study {','.join(arguments.study)}; expected some of {', '.join(STUDIES)}")
    profile = cProfile.Profile(time.process_time) if arguments.stages else None
    for name in arguments.study:
        print(f"\n{name}: processor seconds a fit\n")
        print(by_line(measured(study_of(name, arguments.n), min(arguments.replicates, 8), profile)), flush=True)
    if profile is not None:
        print(f"\nstages, under a profiler\n\n{by_stage(profile)}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\npeak memory of this process {peak:.0f} MB")


if __name__ == "__main__":
    cli.run(main, "benchmark_study.py")

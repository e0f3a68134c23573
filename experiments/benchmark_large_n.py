"""Measure one fit of a study at n pairs: time, passes over the data, and the largest memory of its process.

python experiments/benchmark_large_n.py                         n = 1e8, the exact number of atoms, 5 to 9 minutes
python experiments/benchmark_large_n.py --n 1e6,1e7 --k 2,3
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"  # before NumPy loads: every figure is of one thread

import argparse
import resource
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from moe_prompts import cli
from moe_prompts.tables import markdown

#: Enough pairs to time a pass.
TIMED_PAIRS = 2_000_000
COLUMNS = ("truth", "k", "n", "pairs", "status", "gap (nats)", "n x risk", "seconds", "CPU s", "passes", "peak MB")
SPEEDS = ("truth", "draw", "one EM step", "with curvature")


def fit(truth: str, k: int | None, n: int, seed: int) -> list[str]:
    """Fit replicate 0 of the study's cell, and say what its process needed; k = None: as many atoms as the truth.

    n x risk does not depend on n where parameters are estimated at the rate n^-1/2.
    """
    from moe_prompts.models.data import HELD_PAIRS
    from moe_prompts.study.gaussian import evaluation, fit_replicate, gaussian_study

    kind = known(truth).kind
    k = known(truth).k_true if k is None else k
    (cell,) = gaussian_study(sizes=[n], replicates=1, entropy=seed, truths=[truth], kinds=[kind], ks=[k]).cells
    began, spent = time.perf_counter(), time.process_time()
    best = fit_replicate(cell, 0, seed).best
    seconds = time.perf_counter() - began, time.process_time() - spent
    passes = ", ".join(f"{count} {name}" for name, count in best.passes.items() if "compressed" not in name)
    pairs = "held" if n <= HELD_PAIRS else "streamed"
    return [
        truth,
        str(k),
        f"{n:.0e}",
        pairs,
        best.status.name,
        f"{best.certificate.gap_nats:.1e}",
        f"{n * evaluation(truth).excess_risk(best.value):.2g}",
        *(f"{value:.0f}" for value in seconds),
        passes,
        f"{peak_megabytes():.0f}",
    ]


def speeds(truth: str, n: int, seed: int) -> list[str]:
    """Return seconds per 1e8 pairs of drawing alone, and of a pass with what it adds to drawing."""
    from moe_prompts.estimators.gaussian.chart import Chart
    from moe_prompts.estimators.gaussian.streaming import StreamedPasses
    from moe_prompts.models.gaussian_truths import streamed

    of = known(truth)
    passes, chart = StreamedPasses(of.family, streamed(truth, n, seed)), Chart(of.family)
    at = chart.coefficients(chart.atoms(chart.theta_of(passes.scale.inward(of.params))))
    draw = lambda: [pairs.n for pairs in passes.sample.chunks()]
    measured = [cli.fastest(call, 3) * 1e8 / n for call in (draw, lambda: passes.e1(*at), lambda: passes.e2(*at))]
    return [truth, *(f"{seconds:.1f}" for seconds in measured)]


def known(name: str):
    from moe_prompts.models.gaussian_truths import truth

    return truth(name)


def peak_megabytes() -> float:
    """Return the largest resident memory of this process so far (Linux counts kB, macOS bytes)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def alone(call: Callable[..., list[str]], *arguments: object) -> list[str]:
    """Run in a fresh process, whose peak is of this call."""
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as pool:
        return pool.submit(call, *arguments).result()


def table(heads: tuple[str, ...], rows: Iterator[list[str]]) -> None:
    """Print the table; a row goes to stderr as soon as it is measured, since the widths of columns need them all."""
    measured = []
    for row in rows:
        measured.append(row)
        print("  ".join(row), file=sys.stderr, flush=True)
    print(markdown(heads, measured), flush=True)


def main() -> None:
    parser = cli.OneLineParser(
        "benchmark_large_n.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--n", default="1e8", metavar="SIZES", help="a list such as 1e6,1e8 (default 1e8)")
    add("--truths", type=cli.names, default=["prompts-adaptive", "gmoe-1"], help="names of Gaussian-gated truths")
    add("--k", type=cli.positives("free atoms"), default=[None], help="free atoms (default: those of the truth)")
    add("--seed", type=int, default=0, help="entropy of data and starts (default 0)")
    arguments = parser.parse_args()
    sizes = cli.sizes(arguments.n, 2)
    cli.check_seed(arguments.seed)
    for name in arguments.truths:
        known(name)
    print("Seconds per 1e8 pairs drawn in chunks, one thread:\n")
    timed = min(TIMED_PAIRS, sizes[-1])
    table(SPEEDS, (alone(speeds, name, timed, arguments.seed) for name in arguments.truths))
    print("\nOne fit, in a process of its own:\n")
    cases = [(name, k, n, arguments.seed) for n in sizes for name in arguments.truths for k in arguments.k]
    table(COLUMNS, (alone(fit, *case) for case in cases))


if __name__ == "__main__":
    cli.run(main, "benchmark_large_n.py")

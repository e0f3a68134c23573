"""Measure what things cost here beside what they could: write docs/benchmarks.md.

python experiments/benchmarks.py                          all parts, on a quiet machine
python experiments/benchmarks.py --only passes,fits       these; rows of the others stay as they are
python experiments/benchmarks.py --quick --page results/benchmarks.md    a smoke run

Every time is of one thread, but for commands, which take all cores; ratios are of times measured one after the other.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"  # before NumPy loads

import argparse
import importlib.util
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np

from moe_prompts import cli
from moe_prompts.compilation import VARIABLE
from moe_prompts.engine.files import write_atomically
from moe_prompts.errors import InputError
from moe_prompts.tables import body_of, markdown, short

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "benchmarks.md"
COLUMNS = ("part", "what", "takes", "beside", "measured on")
#: What stands on pages of its own.
OTHERS = (
    "In detail: [what studies cost](scaling_benchmark.md), [what packing trials saves](packed_benchmark.md), [what "
    "prompts cost in a\ntraining step](vision_benchmark.md). Processor seconds of every line of the default study and "
    "of every stage of a fit:\n`python experiments/benchmark_study.py --stages` "
    "<!-- not run: measures this machine -->; whether compiled and NumPy passes\nend on the same fits: "
    "`python experiments/benchmark_agreement.py` <!-- not run: both routes make the default study -->. "
    "On an\nAMD EPYC they did with the same status in 2024 of 2025 fits; log-likelihoods of those that "
    "both certify agree to 1.5e-10 of their size."
)
#: EM steps after which a fit by EM is cut off.
EM_STEPS = {10_000: 4_000, 100_000: 2_000, 1_000_000: 300}


@dataclass(frozen=True)
class Sizes:
    """Say how large the cases of each part are."""

    pass_pairs: int = 1_000_000
    fits: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    rows: tuple[int, int] = (1_600, 16_000)
    large: int = 100_000_000
    commands: tuple[str, ...] = ("--quick", "--n 1e3..1e6")
    vision: tuple[str, int, int] = ("vit_small_patch16_224", 8, 15)
    repeats: int = 7


QUICK = Sizes(
    20_000,
    (1_000,),
    (800, 1_600),
    3_000,
    ("--quick --study softmax --n 1e3,1e4 --reps 1",),
    ("vit_tiny_patch16_224", 1, 1),
    2,
)
Row = tuple[str, str, str]
TORCH_EXP = """
import sys, time, torch
torch.set_num_threads(1)
x = -20 * torch.rand(int(sys.argv[1]), dtype=torch.float64)
out, times = torch.empty_like(x), []
for _ in range(int(sys.argv[2])):
    began = time.perf_counter()
    torch.exp(x, out=out)
    times.append(time.perf_counter() - began)
print(min(times))
"""


def beside(script: str) -> ModuleType:
    """Return another script of this folder as a module."""
    name = script.removesuffix(".py")
    spec = importlib.util.spec_from_file_location(name, HERE / script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # workers and dataclasses look for it there
    spec.loader.exec_module(module)
    return module


def passes(sizes: Sizes) -> Iterator[Row]:
    """Time a pass over Gaussian gates of k = 4 atoms, d = l = 1: the exponentials alone are its bound."""
    from moe_prompts import GaussianGatedFamily, sample, truth
    from moe_prompts.estimators.gaussian.chart import Chart
    from moe_prompts.estimators.gaussian.moments import DataPasses

    n, family = sizes.pass_pairs, GaussianGatedFamily(1, 1, 4)
    data, params = sample("gmoe-1", n, 0), truth("gmoe-1").params.atoms([0, 0, 1, 2])
    name, bound = exponentials(4 * n, sizes.repeats)
    took = {}
    for route in ("compiled", "numpy"):
        with_route(route)
        layout, chart = DataPasses(family, data), Chart(family)
        at = chart.coefficients(chart.atoms(chart.theta_of(layout.scale.inward(params))))
        layout.e1(*at)  # what is compiled or loaded on first use
        layout.e2(*at)
        took[route] = [cli.fastest(partial(one, *at), sizes.repeats) for one in (layout.e1, layout.e2)]
    with_route("compiled")
    step = peer_step(np.concatenate([data.x, data.y], axis=1), params, sizes.repeats)
    size = f"n = {short(n)}, k = 4, d = l = 1"
    (first, second), (plain_first, plain_second) = took["compiled"], took["numpy"]
    yield (
        f"pass with statistics, {size}",
        seconds(first),
        f"{first / bound:.1f} x its {short(4 * n)} exponentials ({name}, {seconds(bound)}); {plain_first / first:.1f} "
        f"x faster than the NumPy route; {step / first:.1f} x faster than a step of scikit-learn",
    )
    yield f"pass with exact curvature, {size}", seconds(second), f"{plain_second / second:.1f} x faster than NumPy"
    yield f"a step of scikit-learn's GaussianMixture, {size}", seconds(step), ""


def with_route(route: str) -> None:
    os.environ[VARIABLE] = route


def exponentials(count: int, repeats: int) -> tuple[str, float]:
    """Return the fastest vectorised exp at hand, and its time for so many float64 numbers."""
    x = np.random.default_rng(0).uniform(-20, 0, count)
    out = np.empty_like(x)
    found = {"NumPy's": cli.fastest(lambda: np.exp(x, out=out), repeats)}
    if importlib.util.find_spec("torch") is not None:
        # In a process of its own: what follows measures memory, and torch's would count.
        call = [sys.executable, "-c", TORCH_EXP, str(count), str(repeats)]
        found["torch's"] = float(subprocess.run(call, check=True, capture_output=True, text=True).stdout)
    name = min(found, key=lambda key: found[key])
    return name, found[name]


def peer_step(z: np.ndarray, params, repeats: int) -> float:
    """Return the seconds of one EM step of scikit-learn on the same joint data."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    weights, means, covs = params.to_joint()

    def fit(steps: int) -> None:
        mixture = GaussianMixture(
            len(weights),
            covariance_type="full",
            reg_covar=0,
            tol=0,
            max_iter=steps,
            weights_init=weights,
            means_init=means,
            precisions_init=np.linalg.inv(covs),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", category=ConvergenceWarning)  # a fixed number of steps is the point
            mixture.fit(z)

    few = max(repeats // 2, 1)
    return (cli.fastest(lambda: fit(7), few) - cli.fastest(lambda: fit(2), few)) / 5


def fits(sizes: Sizes) -> Iterator[Row]:
    """Time one fit from the published start, with a certificate, by EM, and by the published procedure."""
    from moe_prompts import EMOptions, GaussianGatedFamily, NewtonOptions, em, newton, sample, starts, truth
    from moe_prompts.seeds import start_rng

    known, family = truth("gmoe-1"), GaussianGatedFamily(1, 1, 4)
    for n in sizes.fits:
        data = sample("gmoe-1", n, 0)
        start = starts.near_truth(known.params).draw(family, data, start_rng(0, "gmoe-1", n, 0, "adaptive", 4, 0))
        newton(family, data, start, NewtonOptions(max_iterations=1))
        cut = EM_STEPS.get(n, 1_000)
        methods = {
            "newton": lambda: newton(family, data, start, NewtonOptions()),  # noqa: B023
            "EM": lambda: em(family, data, start, EMOptions(max_iterations=cut)),  # noqa: B023
            "published": lambda: em(family, data, start, EMOptions(max_iterations=1, certify=False)),  # noqa: B023
        }
        found, took = {}, {}
        for name, method in methods.items():
            began = time.perf_counter()
            found[name] = method()
            took[name] = time.perf_counter() - began
        gain = found["newton"].log_likelihood - found["EM"].log_likelihood
        yield (
            f"certified fit, n = {short(n)}, k = 4",
            f"{seconds(took['newton'])}, {found['newton'].status.name}",
            f"EM {seconds(took['EM'])}, {found['EM'].status.name} after {found['EM'].iterations} steps, {gain:.1g} "
            f"nats below; the published procedure, one step: {seconds(took['published'])}",
        )


def engine(sizes: Sizes) -> Iterator[Row]:
    """Time rows of blocks that fit nothing; what starts once is left out, by the difference of two lengths."""
    from moe_prompts.engine.executors import InProcess, Joblib

    script = beside("benchmark_engine.py")
    for name, executor in (("in-process", InProcess()), ("joblib, 2 workers", Joblib(2))):
        short_run, long_run = (script.seconds_of(executor, rows) for rows in sizes.rows)
        each = (long_run - short_run) / (sizes.rows[1] - sizes.rows[0])
        yield f"the engine's own time a row, {name}", f"{1e3 * each:.2f} ms", "43 columns, 8 rows a block"


def large_n(sizes: Sizes) -> Iterator[Row]:
    """Time a fit of more pairs than memory holds: each pass draws them again."""
    script = beside("benchmark_large_n.py")
    row = dict(zip(script.COLUMNS, script.alone(script.fit, "gmoe-1", None, sizes.large, 0), strict=True))
    yield (
        f"certified fit, n = {short(sizes.large)}, pairs {row['pairs']}",
        f"{row['seconds']} s, {row['status']}",
        f"{row['passes']}; peak {row['peak MB']} MB",
    )


def commands(sizes: Sizes) -> Iterator[Row]:
    """Time the default command and its quick form, as a user runs them."""
    for arguments in sizes.commands:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, str(HERE / "sample_efficiency.py"), *arguments.split(), "--out", f"{folder}/run"]
            began = time.perf_counter()
            done = subprocess.run(command, capture_output=True, text=True)
            took = time.perf_counter() - began
        if done.returncode:
            raise InputError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.splitlines()[-1:]}")
        yield f"`sample_efficiency.py {arguments}`", f"{took:.0f} s", f"{len(os.sched_getaffinity(0))} cores"


def vision(sizes: Sizes) -> Iterator[Row]:
    """Time a training step: forward, backward and SGD on random data."""
    if importlib.util.find_spec("timm") is None:
        raise InputError(
            'the part vision needs the extra: pip install -e ".[vision]" -c requirements.lock, or name others in --only'
        )
    script = beside("benchmark_vision.py")
    model, batch, rounds = sizes.vision
    names = ("VPT-deep", "VPT-deep again", "VAPT fused", "plain")
    steps = {name: script.training_step(name, model, batch, "float32", "eager", "cpu") for name in names}
    times = script.seconds(steps, rounds, time.process_time)
    ratio = lambda name: float(np.median(times[name] / times["VPT-deep"]))
    for name, words in (("VPT-deep", "VPT"), ("VAPT fused", "VAPT"), ("plain", "full fine-tuning")):
        yield (
            f"a training step of {words}, {model}, batch {batch}",
            seconds(float(np.median(times[name]))),
            f"{ratio(name):.3f} x VPT (its twin {ratio('VPT-deep again'):.3f})",
        )


PARTS = {"passes": passes, "fits": fits, "engine": engine, "large n": large_n, "commands": commands, "vision": vision}


def seconds(value: float) -> str:
    return f"{1e3 * value:.3g} ms" if value < 1 else f"{value:.3g} s"


def machine() -> str:
    """Return the processor, in words."""
    return beside("benchmark_vision.py").where("cpu").removesuffix(", 1 thread")


def read(page: Path) -> dict[str, list[list[str]]]:
    """Return the rows of a page by their part."""
    rows: dict[str, list[list[str]]] = {}
    for row in body_of(page.read_text(encoding="utf-8"), COLUMNS) if page.exists() else []:
        rows.setdefault(row[0], []).append(row)
    return rows


def page_of(rows: dict[str, list[list[str]]]) -> str:
    """Return the page: one table, in the order of the parts."""
    body = [row for part in PARTS for row in rows.get(part, [])]
    absent = [part for part in PARTS if part not in rows]
    not_run = f"\n\nNot measured here: {', '.join(absent)}." if absent else ""
    return (
        "# What things cost\n\nWritten by `make bench` (`python experiments/benchmarks.py` "
        "<!-- not run: measures this machine -->), on a quiet machine: where "
        "other work runs,\nratios hold and times are too long. Times are of one thread, "
        "but for commands, which take all cores; "
        f"each is\nbeside what it could be or what others take.\n\n{markdown(COLUMNS, body)}{not_run}\n\n{OTHERS}\n"
    )


def main() -> None:
    parser = cli.OneLineParser(
        "benchmarks.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--only", type=cli.names, default=list(PARTS), help=f"some of {', '.join(PARTS)} (default all)")
    add("--page", type=Path, default=PAGE, help="where the table is written (default docs/benchmarks.md)")
    add("--quick", action="store_true", help="small sizes, for a page of its own")
    arguments = parser.parse_args()
    unknown = [part for part in arguments.only if part not in PARTS]
    if unknown or not arguments.only:
        raise InputError(f"--only {','.join(arguments.only)}; expected some of {', '.join(PARTS)}")
    if arguments.quick and arguments.page.resolve() == PAGE.resolve():
        raise InputError("--quick would fill docs/benchmarks.md with small sizes; name another file with --page")
    rows, on = read(arguments.page), machine()
    for part in PARTS:
        if part in arguments.only:
            rows[part] = []
            for what, takes, other in PARTS[part](QUICK if arguments.quick else Sizes()):
                rows[part].append([part, what, takes, other, on])
                print(f"{part}: {what}: {takes} {other}", flush=True)
            # After each part, so that a long run that is stopped keeps what it measured.
            write_atomically(arguments.page, page_of(rows).encode())


if __name__ == "__main__":
    cli.run(main, "benchmarks.py")

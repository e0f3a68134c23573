"""Measure what things cost here: passes, certified fits, reliability, memory. Ratios are taken within one run.

python experiments/benchmark.py            all, about 50 minutes on 2 cores
python experiments/benchmark.py --only passes,memory
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"  # before NumPy loads: every figure is of one thread

import argparse
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

from moe_prompts import EMOptions, GaussianGatedFamily, NewtonOptions, cli, em, newton, sample, starts, truth
from moe_prompts.errors import InputError
from moe_prompts.estimators.gaussian.chart import Chart
from moe_prompts.estimators.gaussian.moments import DataPasses
from moe_prompts.estimators.prompts.least_squares import LeastSquaresOptions, climb, least_squares, vector_near_truth
from moe_prompts.estimators.prompts.levenberg_marquardt import minimise
from moe_prompts.estimators.prompts.objective import Box, PromptObjective
from moe_prompts.estimators.prompts.quadrature import quadrature
from moe_prompts.estimators.result import GAP_TOLERANCE
from moe_prompts.estimators.softmax.likelihood import SoftmaxOptions, softmax_em, softmax_newton
from moe_prompts.estimators.softmax.starts import published_start
from moe_prompts.models.gaussian_truths import prompt_data
from moe_prompts.models.prompt_truths import prompt_truth
from moe_prompts.models.softmax_truths import softmax_sample, softmax_truth
from moe_prompts.seeds import start_rng

COMMAND = Path(__file__).with_name("sample_efficiency.py")


def say(what: str, measured: str, target: str = "") -> None:
    print(f"{what:<62} {measured:<34} {target}", flush=True)


def sampling() -> None:
    """Time the drawing of 1e6 points of d = 2."""
    seconds = cli.fastest(lambda: sample("gmoe-3", 1_000_000, 0), 3)
    say("sampling 1e6 pairs, d = 2", f"{seconds:.2f} s", "well under 1 s")


def passes() -> None:
    """Time one E-step pass against one step of scikit-learn's GaussianMixture on the same joint data."""
    from benchmarks import peer_step

    data = sample("gmoe-1", 1_000_000, 0)
    family = GaussianGatedFamily(1, 1, 4)
    params = truth("gmoe-1").params.atoms([0, 0, 1, 2])
    layout, chart = DataPasses(family, data), Chart(family)
    coefficients = chart.coefficients(chart.atoms(chart.theta_of(layout.scale.inward(params))))
    first, second = cli.fastest(lambda: layout.e1(*coefficients), 7), cli.fastest(lambda: layout.e2(*coefficients), 7)
    z = np.concatenate([data.x, data.y], axis=1)

    step = peer_step(z, params, 7)
    say(
        "pass with statistics, n = 1e6, k = 4",
        f"{1e3 * first:.0f} ms, {step / first:.1f} x faster",
        ">= 5 x scikit-learn",
    )
    say("  pass with exact curvature", f"{1e3 * second:.0f} ms")
    say("  scikit-learn, one EM step", f"{1e3 * step:.0f} ms")


def against_em() -> None:
    """Time certified fits at n = 1e5, k = 4 by Newton (with and without compression) and by EM."""
    known, family, n = truth("gmoe-1"), GaussianGatedFamily(1, 1, 4), 100_000
    methods = {
        "newton": (newton, NewtonOptions()),
        "newton, not compressed": (newton, NewtonOptions(compress=False)),
        "EM": (em, EMOptions(max_iterations=40_000)),
    }
    rows = []
    for replicate in range(3):
        data = sample("gmoe-1", n, 0, replicate)
        rng = start_rng(0, "gmoe-1", n, replicate, "adaptive", 4, 0)
        start = starts.near_truth(known.params).draw(family, data, rng)
        rows.append(race(f"certified fit, n = 1e5, k = 4, data set {replicate}", methods, family, data, start))
    ratios = [row["EM"] / row["newton"] for row in rows]
    plain = [row["EM"] / row["newton, not compressed"] for row in rows]
    say("  EM (cut at 40 000 steps) / newton, CPU time", f"{min(ratios):.0f} to {max(ratios):.0f} x", ">= 40 x")
    say("  EM / newton without compression", f"{min(plain):.0f} to {max(plain):.0f} x")


def race(what: str, methods: dict, family, data, start) -> dict[str, float]:
    """Return the CPU seconds of "newton" and "EM", and of any others, from one start."""
    fits, seconds = {}, {}
    for name, (fit, options) in methods.items():
        began = time.process_time()
        fits[name] = fit(family, data, start, options)
        seconds[name] = time.process_time() - began
    gain = fits["newton"].log_likelihood - fits["EM"].log_likelihood
    say(
        what,
        f"newton {seconds['newton']:.2f} s, EM {seconds['EM']:.1f} s",
        f"newton: {fits['newton'].status.name}; EM: {fits['EM'].status.name}, {fits['EM'].iterations} steps; "
        f"newton - EM = {gain:+.2g} nats",
    )
    return seconds


def softmax() -> None:
    """Time softmax gates at k = 3, and count the fits that are certified from the published start at n >= 1e4."""
    known = softmax_truth("sgame")
    methods = {"newton": (softmax_newton, SoftmaxOptions()), "EM": (softmax_em, EMOptions(max_iterations=4_000))}
    rows = []
    for replicate in range(3):
        rng = start_rng(0, "sgame", 100_000, replicate, "softmax", 3, 0)
        start = published_start(known.params, 3, 100_000, rng, as_published=False)
        data = softmax_sample("sgame", 100_000, 0, replicate)
        what = f"softmax gates, n = 1e5, k = 3, data set {replicate}"
        rows.append(race(what, methods, known.family(3), data, start))
    ratios = [row["EM"] / row["newton"] for row in rows]
    say("  EM (cut at 4 000 steps) / newton, CPU time", f"{min(ratios):.0f} to {max(ratios):.0f} x", ">= 30 x")
    for n in (10_000, 100_000):
        for k in (2, 3, 4):
            statuses: Counter[str] = Counter()
            for replicate in range(20):
                rng = start_rng(0, "sgame", n, replicate, "published", k, 0)
                start = published_start(known.params, k, n, rng)
                data = softmax_sample("sgame", n, 0, replicate)
                statuses[softmax_newton(known.family(k), data, start).status.name] += 1
            share = statuses["CERTIFIED"] / statuses.total()
            say(f"softmax gates, published start, n = {n:.0e}, k = {k}", f"{share:.0%} {dict(statuses)}", ">= 95 %")


def published_grid() -> None:
    """Time models 1 and 2 at k = 3, 4, 5, n = 1e3..1e6 in 7 sizes, 20 replicates, and count certified fits."""
    from moe_prompts.engine.executors import Joblib
    from moe_prompts.engine.runner import run_study
    from moe_prompts.study.gaussian import gaussian_study

    for name in ("gmoe-1", "gmoe-2"):
        study = gaussian_study(
            sizes=cli.sizes("1e3..1e6", 7),
            replicates=20,
            entropy=1,
            truths=[name],
            kinds=["adaptive"],
            ks=[3, 4, 5],
        )
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            rows = run_study(study, Path(folder), executor=Joblib(2), progress=False)
            seconds = time.perf_counter() - began
        over = rows[rows["k"] > 3]
        ended = over["status"].value_counts().to_dict()
        say(f"{name}: 420 fits, 2 workers", f"{seconds:.0f} s", "< 300 s")
        certified = int((over["status"] == "CERTIFIED").sum())
        say(
            f"{name}: over-specified fits certified",
            f"{certified} of {len(over)} ({certified / len(over):.1%})",
            ">= 98 %",
        )
        say(f"{name}: how they ended", str(ended))


def memory() -> None:
    """Measure the peak memory of a worker that goes through several blocks of n = 1e6, keeping what it shares."""
    code = (
        "import resource; from moe_prompts.study.gaussian import GaussianCell, run_cell\n"
        "for name, kind, k, start, replicates in (\n"
        "    ('prompts-adaptive', 'fixed', 2, 'data', range(8)), ('prompts-fixed', 'fixed', 2, 'data', range(8)),\n"
        "    ('prompts-fixed', 'fixed', 8, 'data', range(2)), ('gmoe-1', 'adaptive', 5, 'near_truth', range(2)),\n"
        "): run_cell(GaussianCell(name, kind, k, 1_000_000, start, 2), tuple(replicates), 0)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
    )
    peak = float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)
    say("peak memory of a worker through blocks of n = 1e6", f"{peak:.0f} MB", "< 1000 MB")


def prompts() -> None:
    """Time least squares for prompts: 1e6 pairs of continuous x, and what the coordinates of a pair are worth."""
    known = prompt_truth("attention-gelu")
    sample = known.params.sample(1_000_000, np.random.default_rng(0), known.noise)
    began = time.perf_counter()
    short = quadrature(sample, known.params.kind)
    say("quadrature of 1e6 pairs, d = 2, 32 nodes per axis", f"{time.perf_counter() - began:.2f} s")
    rng = np.random.default_rng(1)
    starts = [np.array([vector_near_truth(known.params, 2, number, rng) for number in range(4)])]
    seconds = cli.fastest(lambda: least_squares(known.params.family, [short], starts, known.noise), 3)
    say("  certified fit on it, best of 4 starts", f"{seconds:.2f} s", "< 1.5 s")

    family = known.params.family.with_k(3)
    lower, upper = Box().bounds(family)
    for n in (1_000, 100_000, 10_000_000):
        data = [prompt_data(known.name, n, 0, replicate) for replicate in range(8)]
        objective, sets = PromptObjective(family, data, known.noise), np.repeat(np.arange(8), 4)
        begin = np.array([vector_near_truth(known.params, 3, number, rng) for number in [0, 1, 2, 3] * 8])
        routes = {
            "own coordinates": lambda: minimise(objective, begin, sets, lower, upper, 500, GAP_TOLERANCE),  # noqa: B023
            "with those of a pair": lambda: climb(objective, begin, sets, LeastSquaresOptions()),  # noqa: B023
        }
        loose = minimise(objective, begin, sets, lower, upper, 500, 1e-3)
        gain = loose.values - climb(objective, loose.vectors, sets, LeastSquaresOptions()).values
        say(f"one prompt too many, n = {n:.0e}, stopped at 1e-3 nats", f"up to {gain.max():.2g} nats above the end")
        for name, route in routes.items():
            began = time.perf_counter()
            found = route()
            say(
                f"one prompt too many, n = {n:.0e}, {name}",
                f"{(time.perf_counter() - began) / len(sets):.3f} s a start, {found.certified.mean():.0%} certified",
                f"median iterations {np.median(found.iterations):.0f}",
            )


def algebra() -> None:
    """Time dependences to second order, index sets and witnesses; nothing is cached between calls."""
    from moe_prompts.theory.atoms import PLAIN, atom
    from moe_prompts.theory.dependences import dependences
    from moe_prompts.theory.kernels import KERNELS
    from moe_prompts.theory.rows import taylor_rows
    from moe_prompts.theory.solvability import gauss_hermite_witness

    smooth = [name for name, kernel in KERNELS.items() if kernel.smooth]
    one = [*(atom(kind) for kind in PLAIN), atom("fixed"), atom("decoupled")]
    one += [atom(f"adaptive:{name}", d=1) for name in KERNELS]
    say("dependences, width 1, d = 1 and the plain atoms, together", f"{_seconds(one):.2f} s", "< 5 s")
    two = {name: _seconds([atom(f"adaptive:{name}", d=2)]) for name in smooth}
    say(
        "dependences, width 1, d = 2, slowest",
        "{1:.2f} s ({0})".format(*max(two.items(), key=lambda t: t[1])),
        "< 15 s",
    )
    wide = {name: _seconds([atom(f"adaptive:{name}", d=2, hidden=2)]) for name in KERNELS}
    say(
        "dependences, width 2, d = 2, slowest",
        "{1:.2f} s ({0})".format(*max(wide.items(), key=lambda t: t[1])),
        "< 60 s",
    )
    quartic = atom("adaptive:gelu", d=1)
    say("dependences to order 4, gelu, width 1, d = 1", f"{cli.fastest(lambda: dependences(quartic, 4), 1):.2f} s")
    for kind, order in (("softmax-gaussian", 6), ("gaussian-gated", 4)):
        made = atom(kind)
        say(f"rows of {kind} to order {order}", f"{cli.fastest(lambda: taylor_rows(made, order), 1):.2f} s")  # noqa: B023
    witnesses = cli.fastest(lambda: [gauss_hermite_witness(m) for m in range(2, 9)], 1)
    say("witnesses of rbar(m) >= 2m, m = 2..8, exact", f"{witnesses:.2f} s", "< 1 s")
    rates = [sys.executable, str(COMMAND.with_name("predicted_rates.py"))]
    for arguments in (["--model", "softmax-gaussian", "--cells", "1,2,3"], [], ["--verify"]):
        seconds = cli.fastest(lambda: subprocess.run([*rates, *arguments], check=True, capture_output=True), 1)  # noqa: B023
        say(f"predicted_rates.py {' '.join(arguments)}", f"{seconds:.1f} s")


def _slowest(seconds: dict[str, float]) -> str:
    name = max(seconds, key=lambda key: seconds[key])
    return f"{seconds[name]:.2f} s ({name})"


def _seconds(atoms: list) -> float:
    from moe_prompts.theory.dependences import dependences

    return cli.fastest(lambda: [dependences(made) for made in atoms], 1)


def commands() -> None:
    """Time the default commands and their quick forms, as a user runs them."""
    for arguments, target in (
        (["--quick", "--study", "gaussian"], "< 30 s"),
        (["--quick", "--study", "attention"], "< 40 s"),
        (["--study", "attention"], "< 360 s"),
        (["--study", "gaussian"], "< 360 s"),
        (["--n", "1e3..1e6"], "both studies"),
    ):
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            subprocess.run(
                [sys.executable, str(COMMAND), *arguments, "--out", f"{folder}/run"],
                check=True,
                capture_output=True,
            )
            say(f"sample_efficiency.py {' '.join(arguments)}", f"{time.perf_counter() - began:.0f} s", target)


SECTIONS = {
    "sampling": sampling,
    "passes": passes,
    "against_em": against_em,
    "softmax": softmax,
    "published_grid": published_grid,
    "memory": memory,
    "prompts": prompts,
    "algebra": algebra,
    "commands": commands,
}


def main() -> None:
    parser = cli.OneLineParser(
        "benchmark.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", type=cli.names, default=list(SECTIONS), help=f"some of {', '.join(SECTIONS)}")
    chosen = parser.parse_args().only
    unknown = [name for name in chosen if name not in SECTIONS]
    if unknown or not chosen:
        raise InputError(f"--only {','.join(chosen)}; expected some of {', '.join(SECTIONS)}")
    say("what", "measured", "target")
    for name in chosen:
        SECTIONS[name]()


if __name__ == "__main__":
    cli.run(main, "benchmark.py")

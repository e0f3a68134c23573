"""Say how many replicates a verdict on a slope takes, and over which sizes.

python experiments/power.py --n 1e3..1e6 --scatter .8 --replicates 16
python experiments/power.py --run docs/claims/softmax-over
"""

from __future__ import annotations

import argparse
from pathlib import Path

from moe_prompts import cli
from moe_prompts.errors import InputError

#: Columns of errors that runs have, in the order in which they are looked for.
LEGEND = (
    "holds if true: share of simulated runs of this design whose verdict is holds where the exponent is true; holds if "
    "wrong: the same where the exponent in brackets is true instead, which should be small."
)
COLUMNS = ("loss_intrinsic", "loss")


def parser() -> argparse.ArgumentParser:
    parser = cli.OneLineParser(prog="power.py", description=__doc__)
    add = parser.add_argument_group("the design").add_argument
    add("--n", metavar="SIZES", help="such as 1e3..1e6 or 1e3,1e4 (default 1e3..1e6)")
    add("--points", type=cli.positive("sizes"), default=5, help="sizes in a range (default 5)")
    add("--replicates", type=cli.positive("replicates"), help="data sets at each size (default 16)")
    add("--scatter", type=float, default=None, help="standard deviation of log errors at a size (default .5)")
    add("--run", type=Path, default=None, metavar="FOLDER", help="take sizes, replicates and scatter from a run")
    add("--column", default=None, help=f"errors of the run (default: the first of {', '.join(COLUMNS)})")
    add("--predicted", type=float, default=-0.5, help="exponent that is judged (default -0.5)")
    add("--statistic", default="median", help="median, mean or q90 (default median)")
    add("--wanted", type=float, default=0.8, help="share of true predictions that should hold (default .8)")
    add("--seed", type=int, default=0, help="of the simulation (default 0)")
    return parser


def main() -> None:
    arguments = parser().parse_args()
    given = [name for name in ("scatter", "n", "replicates") if getattr(arguments, name) is not None]
    if arguments.run is not None and given:
        raise InputError(f"--run brings its own {given[0]}; expected no --{given[0]} beside it")
    if arguments.run is None and arguments.column is not None:
        raise InputError(f"--column {arguments.column} without --run; expected the run whose column it is")
    if arguments.seed < 0:
        raise InputError(f"--seed {arguments.seed}; expected a whole number of at least 0")

    import numpy as np

    from moe_prompts.designs import nearest_wrong, power, replicates_needed
    from moe_prompts.shown import Ending
    from moe_prompts.tables import short

    designs = _of_run(arguments) if arguments.run is not None else [_asked(arguments)]
    body, findings = [], []
    for number, (name, sizes, replicates, scatter) in enumerate(designs):
        rng = np.random.default_rng([arguments.seed, number])
        asked = {"predicted": arguments.predicted, "statistic": arguments.statistic}
        right = power(sizes, replicates, scatter, rng, **asked)
        wrong = [
            f"{power(sizes, replicates, scatter, rng, true=other, **asked).holds:.2f} (n^{other:g})"
            for other in nearest_wrong(arguments.predicted)
        ]
        needed = replicates_needed(sizes, scatter, rng, wanted=arguments.wanted, **asked)
        shown = f"{short(min(sizes))} .. {short(max(sizes))}"
        enough = f"{needed} replicates" if needed else "more than 1024 replicates"
        findings.append(
            f"{name}: {replicates} replicates decide for n^{arguments.predicted:g} with probability {right.holds:.2f} "
            f"where it is true; {enough} do with probability {arguments.wanted:g}."
        )
        body.append([name, shown, str(replicates), f"{right.holds:.2f}", ", ".join(wrong), str(needed or "> 1024")])
    header = [
        "design",
        "n",
        "replicates",
        "holds if true",
        "holds if wrong",
        f"replicates for {arguments.wanted:g}",
    ]
    print(Ending(findings, header, body, LEGEND))


def _asked(arguments: argparse.Namespace) -> tuple:
    scatter = 0.5 if arguments.scatter is None else arguments.scatter
    sizes = cli.sizes(arguments.n or "1e3..1e6", arguments.points)
    return f"scatter {scatter:g}", sizes, arguments.replicates or 16, scatter


def _of_run(arguments: argparse.Namespace) -> list[tuple]:
    """Return one design for each truth, kind, k and start of a run, from its certified fits."""
    from moe_prompts.engine.store import read_table
    from moe_prompts.study.summary import errors_by_size

    rows = read_table(arguments.run)
    known = [arguments.column] if arguments.column else [name for name in COLUMNS if name in rows]
    if not known or known[0] not in rows or "status" not in rows:
        raise InputError(
            f"--column {arguments.column or COLUMNS[0]}; expected a column of its results.parquet that holds errors"
        )
    designs = []
    for (truth, kind, k), own in rows[rows[known[0]].notna()].groupby(["truth", "kind", "k"], sort=False):
        samples = {n: errors[errors > 0] for n, errors in errors_by_size(own, known[0]).items()}
        samples = {n: errors for n, errors in samples.items() if len(errors) > 1}
        if len(samples) > 1:
            replicates = min(len(errors) for errors in samples.values())
            designs.append((f"{truth}, {kind}, k = {k}: {known[0]}", sorted(samples), replicates, samples))
    if not designs:
        raise InputError(f"--run {arguments.run}; no line of it has certified errors at two sizes")
    return designs

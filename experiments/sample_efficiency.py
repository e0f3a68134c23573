"""Do fixed or adaptive prompts learn faster? Certified fits, slopes with intervals, one verdict table and one figure.

python experiments/sample_efficiency.py --n 1e3..1e6
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from moe_prompts import cli
from moe_prompts.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

STUDIES = ("gaussian", "all")
TRUTHS = {
    "adaptive": ["prompts-adaptive"],
    "fixed": ["prompts-fixed"],
    "both": ["prompts-adaptive", "prompts-fixed"],
    "random": [f"prompts-random-{number}" for number in range(1, 6)],
}
PUBLISHED = "gmoe-1"


def parser() -> argparse.ArgumentParser:
    parser = cli.OneLineParser(
        prog="sample_efficiency.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--n",
        default=None,
        metavar="SIZES",
        help="1e3..1e6 (log-spaced, see --points) or a list 1e3,1e4 (default 1e3..1e6)",
    )
    add("--points", type=cli.positive("sizes"), default=None, help="sizes in a range (default 5)")
    add("--reps", type=cli.positive("replicates"), default=None, help="replicates per size (default 16)")
    add("--study", default="all", help=f"one of {', '.join(STUDIES)} (default all)")
    add(
        "--kinds",
        type=cli.names,
        default=["fixed", "adaptive"],
        help="fixed, adaptive, fixed:tied, adaptive:tied",
    )
    add(
        "--k",
        type=cli.positives("free atoms"),
        default=None,
        help="free atoms, such as 2,3,4 (default: by kind)",
    )
    add(
        "--truth",
        choices=sorted(TRUTHS),
        default="both",
        help="what the true prompts are; random: five unselected draws",
    )
    add("--start", choices=("near_truth", "data", "random"), default=None,
        help="where fits begin (default: data; near_truth for the published model)")  # fmt: skip
    add("--workers", type=cli.positive("workers"), default=None, help="processes (default: all cores)")
    add("--seed", type=int, default=0, help="entropy of all data and starts (default 0)")
    add("--out", type=Path, default=None, help="folder of the run (default: a new one under results/)")
    add("--resume", action="store_true", help="complete the run in --out")
    add("--quick", action="store_true", help="a small grid that shows the way in seconds")
    return parser


def main() -> None:
    arguments = parser().parse_args()
    if arguments.study not in STUDIES:
        raise InputError(f"unknown study {arguments.study!r}; expected one of {', '.join(STUDIES)}")
    if arguments.resume and arguments.out is None:
        raise InputError("--resume needs --out: the folder of the run to complete")
    if not arguments.kinds:
        raise InputError("--kinds is empty; expected a list such as fixed,adaptive")
    if arguments.seed < 0:
        raise InputError(f"--seed {arguments.seed}; expected a whole number of at least 0")
    quick = arguments.quick
    sizes = cli.sizes(
        arguments.n if arguments.n is not None else "1e3..1e4" if quick else "1e3..1e6",
        arguments.points or (3 if quick else 5),
    )
    out = arguments.out or cli.default_folder("sample_efficiency")

    # Heavy imports come after the cheap checks, so that mistakes are answered at once.
    from moe_prompts.study.executors import available_cores, executor_for
    from moe_prompts.study.gaussian import gaussian_study

    study = gaussian_study(
        sizes=sizes,
        replicates=arguments.reps or (8 if quick else 16),
        entropy=arguments.seed,
        truths=[*TRUTHS[arguments.truth], PUBLISHED],
        kinds=arguments.kinds,
        ks=arguments.k or ([2, 3] if quick else None),
        start=arguments.start,
        data_starts=2 if quick else 4,
    )
    from moe_prompts.study.runner import run_study

    executor = executor_for(arguments.workers or available_cores())
    with cli.resumable("sample_efficiency.py", out):
        results = run_study(study, out, executor=executor, resume=arguments.resume)
    report(results, study.entropy, out, quick)


def report(results: pd.DataFrame, entropy: int, out: Path, quick: bool) -> None:
    """Print the verdict table and write it with the figure."""
    from moe_prompts import plots
    from moe_prompts.study.gaussian import MODEL
    from moe_prompts.study.store import write_atomically
    from moe_prompts.study.summary import as_markdown, comparison_lines, status_lines, summarise

    summary = summarise(results, MODEL, entropy)
    table = as_markdown(summary)
    caution = (
        ["", "quick run: few replicates over one decade; it shows the way, do not quote its verdicts"] if quick else []
    )
    text = "\n".join([table, "", *comparison_lines(results, entropy), "", *status_lines(results), *caution])
    print(text)
    write_atomically(out / "summary.md", (text + "\n").encode())
    write_atomically(out / "summary.json", summary.to_json(orient="records", indent=2).encode())
    figures = plots.save(plots.sample_efficiency_figure(results, entropy), out, "sample_efficiency")
    print(f"\nresults   {out / 'results.parquet'} ({len(results)} fits), summary.md, summary.json, meta.json")
    print(f"figure    {figures[0]} and {figures[1].name}")


if __name__ == "__main__":
    cli.run(main, "sample_efficiency.py")

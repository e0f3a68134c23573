"""Run two published simulations again, beside certified fits of the same data: table, findings and one figure.

python experiments/replicate.py --paper gmoe --published gmoe_published_losses.npz
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from moe_prompts import cli

if TYPE_CHECKING:
    import pandas as pd

PAPERS = {"gmoe": "Gaussian gates, arXiv 2305.07572", "sgame": "softmax gates, arXiv 2305.03288"}
#: Folder of the published losses where --published is not given.
REFERENCE = "MOE_PROMPTS_REFERENCE"
SMOKE = "A smoke run (--quick): few replicates and sizes; do not quote its findings."
NO_FILE = "Without --published the losses that the paper published are left out."
THINNED, QUICK_SIZES, QUICK_REPLICATES = "thinned", [1_000, 3_000, 10_000], 8


def parser() -> argparse.ArgumentParser:
    parser = cli.OneLineParser(prog="replicate.py", description=__doc__)
    add = parser.add_argument_group("what is run again").add_argument
    add("--paper", choices=PAPERS, required=True, help="; ".join(f"{name}: {what}" for name, what in PAPERS.items()))
    add(
        "--published",
        type=Path,
        default=None,
        metavar="FILE",
        help=f"the losses that the paper published, .npz (default: PAPER_published_losses.npz in ${REFERENCE})",
    )
    add("--models", type=cli.positives("models"), default=None, help="of gmoe: some of 1,2,3,4 (default all)")
    add("--k", type=cli.positives("atoms"), default=None, help="atoms (default: gmoe 4,5; sgame 2,3,4)")
    add(
        "--reps",
        type=cli.positive("replicates"),
        default=None,
        help="replicates (default: gmoe 20, sgame 8; published: 20, 40)",
    )
    add(
        "--sizes",
        help="thinned: some of the published sizes, even in log n (default); all: every one; or a list 1e3,1e4",
    )
    cli.add_execution(parser)
    cli.add_shard(parser)
    cli.add_run(parser)
    add("--quick", action="store_true", help="a smoke run: few sizes and replicates, in seconds")
    return parser


def main() -> None:
    arguments = parser().parse_args()
    paper, quick = arguments.paper, arguments.quick
    cli.check_run(arguments)
    sizes = None
    if arguments.sizes not in (None, THINNED, "all"):
        sizes = cli.sizes(arguments.sizes, 10, "--sizes")
    elif arguments.sizes is None and quick:
        sizes = QUICK_SIZES

    # Heavy imports come after the cheap checks, so that mistakes are answered at once.
    from moe_prompts.study import replication
    from moe_prompts.study.replication_report import published_lines

    study = replication.replication_study(
        paper,
        models=arguments.models or ([1] if quick and paper == "gmoe" else None),
        ks=arguments.k or ([4] if paper == "gmoe" else [2, 3]) if quick else arguments.k,
        sizes=sizes,
        every_size=arguments.sizes == "all",
        replicates=arguments.reps or (QUICK_REPLICATES if quick else None),
        entropy=arguments.seed,
    )
    file = published_file(paper, arguments.published)
    published = None if file is None else published_lines(paper, file)
    out = arguments.out or cli.default_folder(f"replicate-{paper}")
    results = cli.results(study, out, arguments, "replicate.py")
    report(results, published, study.entropy, out, quick)


def published_file(paper: str, given: Path | None) -> Path | None:
    """Return the file as given, else that of the reference folder if there is one."""
    folder = os.environ.get(REFERENCE)
    return given if given is not None or not folder else Path(folder) / f"{paper}_published_losses.npz"


def report(results: pd.DataFrame, published: pd.DataFrame | None, entropy: int, out: Path, quick: bool) -> None:
    """Write table and findings with the figure, and print them."""
    from moe_prompts.figures.replication import replication_figure
    from moe_prompts.figures.style import save
    from moe_prompts.study.replication_report import replication_ending, replication_report

    text, summary = replication_report(results, published, entropy)
    ending = replication_ending(summary)
    if published is None:
        ending = replace(ending, findings=[*ending.findings, NO_FILE])
    if quick:
        text += f"\n\n{SMOKE}"
        ending = replace(ending, findings=[*ending.findings, SMOKE])
    draw = lambda: save(replication_figure(summary, results), out, f"replicate_{results['paper'].iloc[0]}")
    cli.finish(out, text, ending, {"summary.json": summary.to_json(orient="records", indent=2)}, draw, len(results))

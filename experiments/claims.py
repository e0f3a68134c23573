"""Every claim of the field: what theory predicts, what certified simulation measures, and a verdict.

python experiments/claims.py --quick
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from moe_prompts import cli
from moe_prompts.errors import InputError


def parser() -> argparse.ArgumentParser:
    parser = cli.OneLineParser(
        prog="claims.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--only", type=cli.names, default=None, metavar="IDS", help="such as P-rank,G-over (default: all claims)")
    add("--list", action="store_true", help="print the claims with their rules, and stop")
    add("--quick", action="store_true", help="few sizes and replicates: shows the way, decides little")
    add("--seed", type=int, default=None, help="another seed than the registered one; docs/ stay as they are")
    add("--workers", type=cli.positive("workers"), default=None, help="processes (default: all cores)")
    add("--out", type=Path, default=None, help="folder of the runs (default: a new one under results/)")
    add("--resume", action="store_true", help="complete the runs in --out")
    return parser


def main() -> None:
    arguments = parser().parse_args()
    if arguments.resume and arguments.out is None:
        raise InputError("--resume needs --out: the folder of the runs to complete")
    if arguments.seed is not None and arguments.seed < 0:
        raise InputError(f"--seed {arguments.seed}; expected a whole number of at least 0")
    out = arguments.out or cli.default_folder("claims")

    from moe_prompts.claims import book
    from moe_prompts.claims.claim import REGISTERED_SEED, judged
    from moe_prompts.claims.runs import RUNS, Scale
    from moe_prompts.study.executors import available_cores, executor_for
    from moe_prompts.study.runner import run_study
    from moe_prompts.study.store import write_atomically

    claims = book.chosen(arguments.only)
    if arguments.list:
        print("\n\n".join(f"{claim.id} ({claim.source})\n  {claim.statement}\n  {claim.rule}" for claim in claims))
        return
    seed = REGISTERED_SEED if arguments.seed is None else arguments.seed
    scale = Scale(arguments.quick)
    studies = {run: RUNS[run](truths, scale, seed) for run, truths in book.needed(claims).items()}
    if not arguments.resume and any((out / run).exists() for run in studies):
        raise InputError(f"{out} already holds runs; add --resume to complete them or choose another --out")
    executor = executor_for(arguments.workers or available_cores())
    tables = {}
    with cli.resumable("claims.py", out):
        for number, (run, study) in enumerate(studies.items(), start=1):
            print(f"run {number} of {len(studies)}: {run}")
            # A kill between two runs leaves later ones without a folder.
            resume = arguments.resume and (out / run / "meta.json").exists()
            tables[run] = run_study(study, out / run, executor=executor, resume=resume)
    judgements = [judged(claim, tables, seed) for claim in claims]
    print(f"\n{book.summary(judgements)}\n")
    command = "python experiments/claims.py" + (" --quick" if arguments.quick else "")
    texts = {
        "claims.md": book.page(judgements, studies, ".", command, seed),
        "claims.json": json.dumps(book.records(judgements), indent=1) + "\n",
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        write_atomically(out / name, text.encode())
    print(f"claims    {out / 'claims.md'} with all evidence, claims.json")
    if arguments.only is None and arguments.seed is None and not arguments.quick:
        docs = Path(__file__).parents[1] / "docs"
        texts["claims.md"] = book.page(judgements, studies, "claims", command, seed)
        for name, text in texts.items():
            write_atomically(docs / name, text.encode())
        for run in studies:
            (docs / "claims" / run).mkdir(parents=True, exist_ok=True)
            for name in ("results.parquet", "meta.json"):
                write_atomically(docs / "claims" / run / name, (out / run / name).read_bytes())
        print(f"page      {docs / 'claims.md'}, with its runs in {docs / 'claims'}")
    else:
        print("page      docs/claims.md stays as it is: it shows all claims at full scale and the registered seed")


if __name__ == "__main__":
    cli.run(main, "claims.py")

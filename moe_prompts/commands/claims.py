"""Judge every claim of the field: what theory predicts, what certified simulation measures, and a verdict.

python experiments/claims.py --quick
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from moe_prompts import cli
from moe_prompts.errors import InputError

#: Options of which each is a command of its own.
ALONE = {
    "pretrained": "--pretrained",
    "published_slopes": "--published-slopes",
    "rejudge": "--rejudge",
    "draw": "--draw",
    "list": "--list",
}


def parser() -> argparse.ArgumentParser:
    parser = cli.OneLineParser(prog="claims.py", description=__doc__)
    add = parser.add_argument_group("which claims, and what happens to them").add_argument
    add("--only", type=cli.names, default=None, metavar="IDS", help="such as P-rank,G-over (default: all claims)")
    add("--list", action="store_true", help="print the claims with their rules, and stop")
    add(
        "--published-slopes",
        type=Path,
        default=None,
        metavar="FOLDER",
        help="write claims/published_slopes.json from gmoe_published_losses.npz and sgame_published_losses.npz there",
    )
    add(
        "--rejudge",
        action="store_true",
        help="judge the committed runs in docs/claims again, without new data, and write docs/claims.md and .json; "
        "with --only those claims alone, all others with their committed evidence",
    )
    add("--draw", default=None, metavar="RUN", help="draw one run with its registered seed into docs/claims, and stop")
    add(
        "--pretrained",
        type=Path,
        default=None,
        metavar="FOLDER",
        help="write claims/pretrained.json from the committed trainings there, such as paper_figures/data",
    )
    add("--quick", action="store_true", help="a smoke run: few sizes and replicates, decides little")
    cli.add_execution(parser)
    cli.add_run(parser, "another seed than the registered one; docs/ stay as they are", seed=None)
    return parser


def rejudge(only: list[str] | None) -> None:
    """Write the page again from its committed rows: for a change of words, of a rule's code, or of the page's form.

    only  claims that are judged again; None for all. The others keep the lines of docs/claims.json.
    """
    docs = cli.checkout("docs")
    from moe_prompts.claims import book
    from moe_prompts.claims.claim import REGISTERED_SEED, judged
    from moe_prompts.claims.runs import Scale, studies_of
    from moe_prompts.engine.store import read_table

    claims, again = book.chosen(None), {claim.id for claim in book.chosen(only)}
    tables = {run: read_table(docs / "claims" / run) for run in book.needed(book.chosen(only))}
    studies = studies_of(book.needed(claims), Scale(False))
    records = {} if only is None else book.committed(docs)
    new = [claim.id for claim in claims if claim.id not in again | set(records)]
    if new:
        raise InputError(f"--rejudge --only: docs/claims.json has no {', '.join(new)}; expected them in --only, too")
    judgements = [
        judged(claim, tables, REGISTERED_SEED) if claim.id in again else book.kept(records[claim.id])
        for claim in claims
    ]
    write_docs(judgements, studies, "")
    print(f"{book.ending_of(judgements)}\n")
    cli.print_files(docs, dict.fromkeys(["claims.md", "claims.json", "papers_tested.md", "results.md"], "written anew"))


def write_docs(judgements, studies, options: str) -> None:
    """Write the page, the same as records, the page of papers, and the table of results.md."""
    docs = cli.checkout("docs")
    from moe_prompts.claims import book
    from moe_prompts.claims.papers import papers_page
    from moe_prompts.engine.files import clear_left, write_atomically

    clear_left(docs)
    records, readme = book.records(judgements), docs / "results.md"
    for path, text in {
        docs / "claims.md": book.page(judgements, studies, "claims", options),
        docs / "claims.json": json.dumps(records, indent=1) + "\n",
        docs / "papers_tested.md": papers_page(records),
        readme: book.filled(readme.read_text(encoding="utf-8"), records),
    }.items():
        write_atomically(path, text.encode())


def draw(run: str, arguments: argparse.Namespace) -> None:
    """Draw one run of the page, at full scale and with its registered seed, for ``--rejudge`` to judge."""
    docs = cli.checkout("docs")
    from moe_prompts.claims import book
    from moe_prompts.claims.runs import Scale, studies_of
    from moe_prompts.engine.runner import run_study

    needed = book.needed([*book.chosen(None), *book.PENDING])
    if run not in needed:
        raise InputError(f"--draw {run}; expected one of {', '.join(needed)}")
    out = (arguments.out or cli.default_folder("claims")) / run
    resume = arguments.resume and (out / "meta.json").exists()
    study = studies_of({run: needed[run]}, Scale(False))[run]
    with cli.resumable("claims.py", out):
        run_study(study, out, executor=cli.executor(arguments), resume=resume, allow=cli.allowed(arguments))
    keep(out, run)
    print(f"run       {docs / 'claims' / run}; judge it with --rejudge")


def keep(out: Path, run: str) -> None:
    """Copy the table of a run and what it says of itself to docs/."""
    docs = cli.checkout("docs")
    from moe_prompts.engine.files import clear_left, write_atomically

    (docs / "claims" / run).mkdir(parents=True, exist_ok=True)
    clear_left(docs / "claims" / run)
    for name in ("results.parquet", "meta.json"):
        write_atomically(docs / "claims" / run / name, (out / name).read_bytes())


def published_slopes(folder: Path) -> None:
    """Write the slopes of the losses that the papers published anew, from their files in ``folder``."""
    from moe_prompts.claims.published import FILE, file_of_slopes
    from moe_prompts.engine.files import write_atomically

    target = cli.checkout("docs").parent / "moe_prompts" / "claims" / FILE
    write_atomically(target, file_of_slopes(folder).encode())
    print(f"slopes    {target}")


def pretrained(folder: Path) -> None:
    """Write the lines of evidence of the pretrained backbone anew, from its tables in ``folder``."""
    target = cli.checkout("docs").parent / "moe_prompts" / "claims"
    from moe_prompts.claims.pretrained import FILE
    from moe_prompts.engine.files import write_atomically
    from moe_prompts.vision.data_efficiency.claim_lines import file_of_records

    write_atomically(target / FILE, file_of_records(folder).encode())
    print(f"lines     {target / FILE}; judge them with --rejudge")


def main() -> None:
    arguments = parser().parse_args()
    asked = [option for option in ALONE if getattr(arguments, option)]
    if len(asked) > 1:
        raise InputError(f"{' with '.join(ALONE[option] for option in asked)}; expected one of them")
    if arguments.pretrained:
        pretrained(arguments.pretrained)
        return
    if arguments.published_slopes:
        published_slopes(arguments.published_slopes)
        return
    if arguments.rejudge:
        if arguments.quick or arguments.seed is not None or arguments.out or arguments.resume:
            raise InputError("--rejudge judges committed runs; expected no --quick, --seed, --out or --resume")
        rejudge(arguments.only)
        return
    cli.check_run(arguments)
    if arguments.draw:
        if arguments.only or arguments.quick or arguments.seed is not None:
            raise InputError("--draw takes the registered scale and seed; expected no --only, --quick or --seed")
        draw(arguments.draw, arguments)
        return
    out = arguments.out or cli.default_folder("claims")

    from moe_prompts.claims import book
    from moe_prompts.claims.claim import QUICK_SEED, REGISTERED_SEED
    from moe_prompts.claims.runs import Scale, studies_of
    from moe_prompts.engine.executors import Joblib
    from moe_prompts.engine.files import write_atomically
    from moe_prompts.engine.runner import run_study

    claims = book.chosen(arguments.only)
    if arguments.list:
        told = "\n\n".join(f"{claim.id} ({claim.source})\n  {claim.statement}\n  {claim.rule}" for claim in claims)
        print("\n".join(cli.wrapped(told)))
        return
    registered = arguments.seed is None and not arguments.quick
    # Quick runs see other data, so that nobody tunes a rule on those that decide. Registered runs have their
    # own seeds.
    seed = QUICK_SEED if arguments.seed is None and arguments.quick else arguments.seed
    scale = Scale(arguments.quick)
    studies = studies_of(book.needed(claims), scale, seed)
    begun = any((out / run / "meta.json").exists() for run in studies)
    if begun and not arguments.resume:
        raise InputError(f"{out} already holds runs; add --resume to complete them or choose another --out")
    if arguments.resume and studies and not begun:
        raise InputError(f"{out} holds no run to resume; check --out or leave out --resume")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to {out} ({error.strerror}); choose a folder with --out") from error
    executor = cli.executor(arguments)
    tables = {}
    with cli.resumable("claims.py", out):
        for number, (run, study) in enumerate(studies.items(), start=1):
            print(f"run {number} of {len(studies)}: {run}")
            # A kill between two runs leaves later ones without a folder.
            resume = arguments.resume and (out / run / "meta.json").exists()
            tables[run] = run_study(study, out / run, executor=executor, resume=resume, allow=cli.allowed(arguments))
    workers = executor.workers if isinstance(executor, Joblib) else 1
    judgements = book.judged_all(claims, tables, REGISTERED_SEED if seed is None else seed, workers)
    options = (" --quick" if arguments.quick else "") + (f" --seed {seed}" if arguments.seed is not None else "")
    texts = {
        "claims.md": book.page(judgements, studies, ".", options, seed),
        "claims.json": json.dumps(book.records(judgements), indent=1) + "\n",
    }
    for name, text in texts.items():
        write_atomically(out / name, text.encode())
    print(f"\n{book.ending_of(judgements)}\n")
    cli.print_files(out, {"claims.md": "rules and all evidence", "claims.json": "the same as records"})
    if arguments.only is None and registered and cli.in_checkout():
        docs = cli.checkout("docs")
        for run in studies:
            keep(out / run, run)
        write_docs(judgements, studies, options)
        cli.print_files(docs, {"claims.md": "written anew", "claims": "its runs"})
    else:
        print("docs/claims.md stays as it is: all claims at full scale, registered seed")

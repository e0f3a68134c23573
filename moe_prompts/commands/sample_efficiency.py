"""Measure whether fixed or adaptive prompts learn faster: certified fits, slopes with intervals, verdicts, a figure.

python experiments/sample_efficiency.py --n 1e3..1e6
python experiments/sample_efficiency.py --quick
python experiments/sample_efficiency.py --study attention --truth adaptive --n 1e4..1e6
python experiments/sample_efficiency.py --truth mine.json --n 1e3..1e5
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moe_prompts import cli
from moe_prompts.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from moe_prompts.engine.grid import Study

#: "all" holds the two that compare kinds of prompts.
STUDIES = ("gaussian", "attention", "softmax", "all")
#: Of Gaussian gates; of attention see ``attention_truths``.
TRUTHS = {
    "adaptive": ["prompts-adaptive"],
    "fixed": ["prompts-fixed"],
    "both": ["prompts-adaptive", "prompts-fixed"],
    "random": [f"prompts-random-{number}" for number in range(1, 6)],
}
PUBLISHED = "gmoe-1"
SMOKE = "A smoke run (--quick): few replicates over one decade; do not quote its verdicts."


def parser() -> argparse.ArgumentParser:
    parser = cli.OneLineParser(prog="sample_efficiency.py", description=__doc__)
    add = parser.add_argument_group("sizes and replicates").add_argument
    add("--quick", action="store_true", help="a smoke run: a small grid, in seconds")
    add(
        "--n",
        default=None,
        metavar="SIZES",
        help="1e3..1e6 (log-spaced, see --points) or a list 1e3,1e4 (default 1e3..1e6; attention alone 1e3..1e7, "
        "softmax 1e3..1e5); of more than 1e6 pairs Gaussian gates draw each pass again in chunks, softmax takes none",
    )
    add("--points", type=cli.positive("sizes"), default=None, help="sizes in a range (default 5)")
    add("--reps", type=cli.positive("replicates"), default=None, help="replicates per size (default 16)")
    add = parser.add_argument_group("what is studied").add_argument
    add("--study", default="all", help=f"one of {', '.join(STUDIES)} (default all)")
    add(
        "--kinds",
        type=cli.names,
        default=None,
        help="Gaussian gates: fixed, adaptive, fixed:tied, adaptive:tied; attention: fixed, decoupled, adaptive:gelu, "
        "adaptive:tanh:bias, ... (default: the lines of each study)",
    )
    add(
        "--k",
        type=cli.positives("free atoms"),
        default=None,
        help="free atoms, such as 2,3,4 (default: by kind)",
    )
    add(
        "--truth",
        default="both",
        metavar="WORD|FILE",
        help="adaptive, fixed, both (default) or random (draws that nobody selected); or a file .json or .py with the "
        "arrays of a truth of your own, see docs/extending.md",
    )
    add = parser.add_argument_group("how it is fitted").add_argument
    add(
        "--start",
        choices=("near_truth", "data", "random"),
        default=None,
        help="where fits begin (default: data for Gaussian gates, near_truth for the published model and attention)",
    )
    cli.add_execution(parser)
    cli.add_shard(parser)
    cli.add_run(parser)
    return parser


def main() -> None:
    arguments = parser().parse_args()
    if arguments.study not in STUDIES:
        raise InputError(f"unknown study {arguments.study!r}; expected one of {', '.join(STUDIES)}")
    cli.check_run(arguments)
    quick = arguments.quick
    longest = {"attention": "1e3..1e7", "softmax": "1e3..1e5"}.get(arguments.study, "1e3..1e6")
    sizes = cli.sizes(
        arguments.n if arguments.n is not None else "1e3..1e4" if quick else longest,
        arguments.points or (3 if quick else 5),
    )
    out = arguments.out or cli.default_folder("sample_efficiency")
    if arguments.truth not in TRUTHS:
        study = own(arguments, sizes)
        results = cli.results(study, out, arguments, "sample_efficiency.py", first_rows)
        report(results, study.entropy, out, quick)
        return

    # Heavy imports come after the cheap checks, so that mistakes are answered at once.
    from moe_prompts.engine.grid import joined

    kinds = known_kinds(arguments.kinds, arguments.study)
    builders: dict[str, Any] = {"gaussian": gaussian, "attention": attention, "softmax": softmax}
    studies = [builders[name](arguments, sizes, chosen) for name, chosen in kinds.items()]
    study = studies[0] if len(studies) == 1 else joined("all", studies)
    results = cli.results(study, out, arguments, "sample_efficiency.py", first_rows)
    report(results, study.entropy, out, quick)


def own(arguments: argparse.Namespace, sizes: list[int]) -> Study:
    """Return the study of the truth in the file that ``--truth`` names.

    The content of the file is part of the run's identity.
    """
    path = Path(arguments.truth)
    if path.suffix not in (".json", ".py"):
        raise InputError(f"--truth {path}; expected one of {', '.join(TRUTHS)}, or a file .json or .py")
    if arguments.study != "all":
        raise InputError(f"--study {arguments.study} with a file; expected no --study: the file says the model")

    from hashlib import sha256

    from moe_prompts.models.truth_files import read_truth
    from moe_prompts.models.truths import add_truth
    from moe_prompts.studies import study_of

    new: Any = read_truth(path)
    known = add_truth(new)
    reps = arguments.reps or (8 if arguments.quick else 16)
    study = study_of(known, arguments.kinds, arguments.k, sizes, reps, arguments.seed, arguments.start)
    content = sha256(path.read_bytes()).hexdigest()
    return replace(study, identity=study.identity | {"truth_file": {"name": known.name, "sha256": content}})


def known_kinds(asked: list[str] | None, study: str) -> dict[str, list[str] | None]:
    """Return the kinds for each study that is to run: with ``all`` each takes those that it knows."""
    from moe_prompts.models.prompt_attention import PromptKind
    from moe_prompts.study.gaussian import Kind

    if study == "softmax":
        if asked is not None:
            raise InputError("--kinds: softmax-gated experts have no kinds of prompts; leave it out")
        return {study: None}
    check = {"gaussian": Kind, "attention": PromptKind.parse}
    wanted = list(check) if study == "all" else [study]
    if asked is None:
        return dict.fromkeys(wanted)
    known: dict[str, list[str] | None] = {}
    for kind in asked:
        errors = []
        for name in wanted:
            try:
                check[name](kind)
            except InputError as error:
                errors.append(f"{name}: {error}")
            else:
                known[name] = [*(known.get(name) or []), kind]
        if len(errors) == len(wanted):
            raise InputError("; ".join(errors))
    return {name: known[name] for name in wanted if name in known}


def gaussian(arguments: argparse.Namespace, sizes: list[int], kinds: list[str] | None) -> Study:
    from moe_prompts.study.gaussian import gaussian_study

    quick = arguments.quick
    return gaussian_study(
        sizes=sizes,
        replicates=arguments.reps or (8 if quick else 16),
        entropy=arguments.seed,
        truths=[*TRUTHS[arguments.truth], PUBLISHED],
        kinds=kinds or ["fixed", "adaptive"],
        ks=arguments.k or ([2, 3] if quick else None),
        start=arguments.start,
        data_starts=2 if quick else 4,
    )


def softmax(arguments: argparse.Namespace, sizes: list[int], kinds: None) -> Study:
    from moe_prompts.study.softmax import softmax_study

    if arguments.start not in (None, "near_truth"):
        raise InputError(f"--start {arguments.start}; the softmax study starts near_truth only")
    if arguments.truth != "both":
        raise InputError(f"--truth {arguments.truth}; the softmax study has no prompts, leave it out")
    return softmax_study(
        sizes=sizes,
        replicates=arguments.reps or (8 if arguments.quick else 16),
        entropy=arguments.seed,
        ks=arguments.k or (2, 3),
    )


def attention(arguments: argparse.Namespace, sizes: list[int], kinds: list[str] | None) -> Study:
    from moe_prompts.study.attention import LINES, QUICK_LINES, RANDOM_TRUTHS, attention_study

    lines = QUICK_LINES if arguments.quick else LINES
    adaptive = tuple(name for name in lines if not name.startswith(("attention-fixed", "attention-decoupled")))
    truths = {
        "adaptive": adaptive,
        "fixed": tuple(name for name in lines if name.startswith("attention-fixed")),
        "both": tuple(lines),
        "random": RANDOM_TRUTHS,
    }
    # Without regions of data to start from, "data" is a choice of Gaussian gates only.
    start = None if arguments.start == "data" and arguments.study == "all" else arguments.start
    return attention_study(
        sizes=sizes,
        replicates=arguments.reps or (8 if arguments.quick else 16),
        entropy=arguments.seed,
        truths=truths[arguments.truth],
        lines=lines,
        kinds=kinds,
        ks=arguments.k,
        start=start,
    )


def first_rows(rows: pd.DataFrame) -> str:
    from moe_prompts.study.report import first_table

    return first_table(rows)


def report(results: pd.DataFrame, entropy: int, out: Path, quick: bool) -> None:
    """Write the verdict tables with the figures, and print them."""
    from moe_prompts.figures.studies import figures
    from moe_prompts.figures.style import save
    from moe_prompts.study.report import ending_of, report_of

    text, summary = report_of(results, entropy)
    ending = ending_of(results, summary)
    if quick:
        text += f"\n\n{SMOKE}"
        ending = replace(ending, findings=[*ending.findings, SMOKE])
    draw = lambda: [path for name, figure in figures(results, entropy).items() for path in save(figure, out, name)]
    cli.finish(out, text, ending, {"summary.json": summary.to_json(orient="records", indent=2)}, draw, len(results))

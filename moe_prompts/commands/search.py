"""Fit prompts planted in a Vision Transformer, certified: is it the landscape, the algorithm or the start?

Every fit is Levenberg-Marquardt on the exact cross-entropy of a frozen network, in float64, with a certificate. On the
teacher's own probabilities the least value is known, so that a certified fit above it is a local minimum. The rule of
T-search, with three outcomes, is in docs/search_for_prompts.md.

python experiments/search.py --quick
python experiments/search.py --preset judged --sgd paper_figures/data/planted_vit --out results/search
python experiments/search.py --preset whole --shard 1/4 --out results/search-1
python experiments/search.py --judge results/search --sgd paper_figures/data/planted_vit
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moe_prompts import cli
from moe_prompts.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

#: What a preset says where nothing else is given. "judged" holds the fits that the registered rule counts,
#: "whole" has other starts beside them, and "first" is a first part.
PRESETS: dict[str, dict[str, Any]] = {
    "whole": {
        "teachers": "0,1,2",
        "n": "1000",
        "targets": ["law"],
        "starts": ["official", "teacher's law", "teacher", "fixed first", "fixed alone"],
        "count": 4,
        "iterations": 100,
    },
    "judged": {
        "teachers": "0,1,2",
        "n": "1000",
        "targets": ["law"],
        "starts": ["official", "teacher's law"],
        "count": 4,
        "iterations": 100,
    },
    "first": {
        "teachers": "0",
        "n": "1000",
        "targets": ["law"],
        "starts": ["teacher", "official", "teacher's law"],
        "count": 2,
        "iterations": 100,
    },
    "crossing": {
        "teachers": "0",
        "n": "500,1000,2000,4000,8000",
        "targets": ["drawn"],
        "starts": ["official", "teacher's law", "teacher", "fixed alone"],
        "count": 3,
        "iterations": 100,
    },
}
QUICK = {
    "teachers": "0",
    "n": "20",
    "targets": ["law"],
    "starts": ["teacher", "official"],
    "count": 1,
    "iterations": 2,
}

#: What --judge heeds. Any other option would change nothing beside it.
OF_JUDGING = ("judge", "sgd", "out")

#: What the identity of a run of data_efficiency.py names only where it differs from what is searched here.
UNUSUAL = ("weights", "hidden", "blocks", "sharpness", "optimiser")


def parser() -> argparse.ArgumentParser:
    parser = cli.OneLineParser("search.py", description=__doc__)
    add = parser.add_argument_group("what is trained").add_argument
    add("--preset", choices=PRESETS, default="first", help="what is not given (default first: a part of whole)")
    add("--quick", action="store_true", help="tiny fits: a smoke run")
    add("--truth", default="planted-adaptive", help="planted-adaptive or planted-fixed (default planted-adaptive)")
    add("--teachers", metavar="LIST", help="numbers of teachers, each another draw")
    add("--n", metavar="SIZES", help="training images, a list 500,1000 or a range 500..8000 of five")
    add("--targets", type=cli.names, help="law (the teacher's probabilities), drawn (labels)")
    add("--starts", type=cli.names, help="official, teacher's law, teacher, fixed first, fixed alone")
    add("--count", type=cli.positive("fits"), help="from each start, with images of their own")
    add("--iterations", type=cli.positive("iterations"), help="after which a fit gives up")
    add("--threads", type=cli.positive("threads"), default=1, help="of each fit; results do not depend on them")
    add("--judge", type=Path, metavar="RUN", help="judge a finished run again, and fit nothing")
    add("--sgd", type=Path, metavar="RUN", help="a run of data_efficiency.py with fresh images, to stand beside")
    cli.add_execution(parser)
    cli.add_shard(parser)
    cli.add_run(parser, "entropy of teachers, images and starts")
    return parser


def main() -> None:
    cli.one_thread()
    arguments = parser().parse_args()
    if arguments.judge is not None:
        judge(arguments)
        return
    cli.check_run(arguments)
    cli.fill_in(arguments, PRESETS[arguments.preset] | (QUICK if arguments.quick else {}))
    teachers = whole_numbers(arguments.teachers)

    from moe_prompts.vision.data_efficiency.search import search_study
    from moe_prompts.vision.tasks.replicates import APART

    sizes = cli.sizes(arguments.n, 5, unit="images", most=APART)

    sgd = sgd_rows(arguments.sgd)
    study = search_study(
        arguments.truth,
        teachers,
        sizes,
        arguments.targets,
        arguments.starts,
        arguments.count,
        entropy=arguments.seed,
        iterations=arguments.iterations,
        threads=arguments.threads,
    )
    out = arguments.out or cli.default_folder("search")
    tell(cli.results(study, out, arguments, "search.py"), sgd, out)


def judge(arguments: argparse.Namespace) -> None:
    """Judge the rows of a run again, and write its report and figure to --out, or into its folder."""
    from moe_prompts.engine.store import read_table

    usual = vars(parser().parse_args([]))
    given = [name for name, value in vars(arguments).items() if name not in OF_JUDGING and value != usual[name]]
    if given:
        option = given[0].replace("_", "-")
        raise InputError(f"--judge fits nothing, and judges all rows of a run; expected no --{option} beside it")
    rows = read_table(arguments.judge)
    if missing := [name for name in ("targets", "start", "train_excess") if name not in rows]:
        raise InputError(f"--judge {arguments.judge}: no column {missing[0]}; expected a run of experiments/search.py")
    cli.check_writable(arguments.out, "--out")
    tell(rows, sgd_rows(arguments.sgd), arguments.out or arguments.judge)


def sgd_rows(folder: Path | None) -> pd.DataFrame | None:
    """Return the rows of a run of data_efficiency.py on planted truths, or None for None.

    Raises ``InputError`` for another run.
    """
    if folder is None:
        return None
    from moe_prompts.engine.store import described_in, identity_of, read_table
    from moe_prompts.vision.data_efficiency.search import SETUP

    rows = read_table(folder)
    if missing := [name for name in ("task", "n", "method", "excess", "status") if name not in rows]:
        raise InputError(
            f"--sgd {folder}: no column {missing[0]}; expected a run of experiments/data_efficiency.py on planted "
            "truths"
        )
    planting = identity_of(folder).get("planting", {})
    here = {"backbone": SETUP.backbone, "tokens": SETUP.sizes.tokens}
    with described_in(folder / "meta.json"):
        there = {name: planting[name] for name in (*here, *UNUSUAL) if name in planting}
    if any(here.get(name) != value for name, value in there.items()):
        found, wanted = (", ".join(f"{name} {value}" for name, value in one.items()) for one in (there, here))
        raise InputError(f"--sgd {folder}: planted with {found}; expected a run of SGD on what is searched, {wanted}")
    return rows


def tell(rows: pd.DataFrame, sgd: pd.DataFrame | None, out: Path) -> None:
    """Write the report with the figure, then print it."""
    from moe_prompts.figures.style import save
    from moe_prompts.vision.data_efficiency.figures import search_figure
    from moe_prompts.vision.data_efficiency.search_verdict import FIXED_FLOOR, REACHED, ending_of, text

    figure = search_figure(rows, REACHED, FIXED_FLOOR)
    out.mkdir(parents=True, exist_ok=True)
    there = len(rows) if (out / "results.parquet").exists() else None  # --judge may write elsewhere
    cli.finish(out, text(rows, sgd), ending_of(rows, sgd), {}, partial(save, figure, out, "search"), there)


def whole_numbers(text: str) -> list[int]:
    """Return the numbers of a list 0,1,2; raise ``InputError`` for another text, or where one stands there twice."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise InputError(f"--teachers {text}; expected whole numbers such as 0,1,2")
    found = [int(part) for part in parts]
    cli.once(found, f"--teachers {text}")
    return found

"""Find the least risk of a kind of prompt on a truth that its class does not contain, box by box.

python experiments/floors.py --truth attention-gelu --kinds fixed,decoupled --k 2,4,8
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from moe_prompts import cli
from moe_prompts.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from moe_prompts.shown import Ending

#: What the page shows: truth, kind, numbers of prompts.
PAGE = (
    ("attention-gelu", "fixed", (2, 3, 4, 6, 8)),
    ("attention-gelu", "decoupled", (2, 3, 4)),
    ("attention-gelu-heads2", "fixed", (2, 3, 4, 6, 8)),
    ("attention-decoupled", "fixed", (2, 4)),
    ("attention-decoupled", "adaptive:gelu", (2,)),
    ("attention-fixed", "adaptive:gelu", (2,)),
    ("attention-fixed", "adaptive:tanh", (2,)),
)
INTRODUCTION = """# Floors

Written by `python experiments/floors.py --write`.

A kind of prompt has a floor on a truth that its class does not contain: the least of E|f - f*|^2 / E|f*|^2
without noise. The parameters of a class lie in a box, and the box is part of the class. Where some of them stand
on a bound, a wider box has a lower floor. "Rest" is every parameter but the logit biases b. "2 b on a bound, 1.91 a
unit": two logit biases stand on a bound, and the floor would fall by at most 1.91 percentage points for each unit by
which the bound of one of them moved, to first order. All floors are upper bounds: the best of random starts, each
climbed to a certified local minimum ("?" where the best one has no certificate).

The studies and claims of this project use the first box.

"""


#: What is fitted where nothing else is given, and what --quick changes of it.
USUAL: dict[str, Any] = {
    "truth": "attention-gelu",
    "kinds": ["fixed"],
    "k": [2, 4],
    "boxes": ["study", "wide", "widest"],
    "starts": 48,
}
QUICK: dict[str, Any] = {"k": [2], "boxes": ["study", "wide"], "starts": 8}


def parser() -> argparse.ArgumentParser:
    parser = cli.OneLineParser(prog="floors.py", description=__doc__)
    add = parser.add_argument_group("what is fitted").add_argument
    add("--truth", metavar="NAME", help="default attention-gelu")
    add("--kinds", type=cli.names, help="what is fitted (default fixed)")
    add("--k", type=cli.positives("prompts"), help="numbers of prompts (default 2,4)")
    add("--boxes", type=cli.names, help="study,wide,widest (default: all)")
    add("--starts", type=cli.positive("starts"), help="random starts for each k (default 48)")
    add("--quick", action="store_true", help="k = 2, two boxes, 8 starts, where nothing else is given")
    add("--write", action="store_true", help="write docs/floors.md and what claims read of it, and stop")
    return parser


def main() -> None:
    arguments = parser().parse_args()

    import pandas as pd

    from moe_prompts.engine.files import write_atomically
    from moe_prompts.study.floors import floors

    if arguments.write:
        given = [name for name in ("truth", "kinds", "k", "boxes", "quick") if getattr(arguments, name)]
        if given:
            raise InputError(f"--write writes the whole page; expected no --{given[0]}")
        every = pd.concat(
            [floors(truth, kind, ks, starts=arguments.starts or USUAL["starts"]) for truth, kind, ks in PAGE]
        )
        root = cli.checkout("docs").parent
        page, records = root / "docs" / "floors.md", root / "moe_prompts" / "claims" / "floors.json"
        write_atomically(page, page_of(every).encode())
        # What claims look at: to seven digits, so that rounding between machines moves nothing.
        write_atomically(records, (every.round(7).to_json(orient="records", indent=1) + "\n").encode())
        print(f"page      {page}\nrecords   {records}")
        return
    cli.fill_in(arguments, USUAL | (QUICK if arguments.quick else {}))
    asked = (arguments.k, arguments.boxes, arguments.starts)
    tables = [floors(arguments.truth, kind, *asked) for kind in arguments.kinds]
    print(ending_of(pd.concat(tables)))


def page_of(every: pd.DataFrame) -> str:
    """Return the page of all floors, from the rows of ``PAGE`` together."""
    from moe_prompts.study.floors import floors_table

    return INTRODUCTION + floors_table(every) + "\n"


def ending_of(table: pd.DataFrame) -> Ending:
    """Return what is printed of the rows of ``floors``: each kind's least floor, and every k and box."""
    from moe_prompts.shown import Ending

    findings = []
    for (truth, kind), rows in table.groupby(["truth", "kind"], sort=False):
        least = rows.loc[rows["floor"].idxmin()]
        findings.append(
            f"{truth}: {kind} prompts come down to {least.floor:.2%} of E|f*|^2, with k = {least.k} in the box "
            f"{least.box}."
        )
    body = [
        [
            row.truth,
            row.kind,
            str(row.k),
            f"{row.box}: b in [{row.b_low:g}, {row.b_high:g}], rest in +-{row.theta_high:g}",
            f"{row.floor:.2%}" + ("" if row.certified else " ?"),
            str(row.b_on_bound + row.theta_on_bound),
        ]
        for row in table.itertuples()
    ]
    legend = (
        "floor: least E|f - f*|^2 / E|f*|^2 without noise that random starts found, an upper bound; ?: its minimum has "
        "no certificate. on a bound: parameters that stand on an end of their box; a wider box has a lower floor."
    )
    return Ending(findings, ["truth", "fitted", "k", "box", "floor", "on a bound"], body, legend, keys=3)

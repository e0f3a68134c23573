"""Derive by algebra how fast each group of parameters can be learned, with certificates.

python experiments/predicted_rates.py --model softmax-gaussian --cells 1,2,3
"""

from __future__ import annotations

import argparse
import json
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

from moe_prompts import cli
from moe_prompts.errors import InputError
from moe_prompts.tables import markdown


def parser() -> argparse.ArgumentParser:
    parser = cli.OneLineParser(prog="predicted_rates.py", description=__doc__)
    add = parser.add_argument_group("the model").add_argument
    add("--model", default=None, metavar="NAME", help="see --models; without it, the rates of all models are printed")
    add("--models", action="store_true", help="print the names of all models")
    add("--cells", type=cli.positives("fitted atoms", again=True), help="fitted atoms per true atom (default 1,2)")
    add("--frozen", type=int, default=None, help="known experts (default: 1 beside prompts, 0 otherwise)")
    add("--d", type=cli.positive("inputs"), default=None, help="inputs of a prompt (default 2)")
    add("--hidden", type=cli.positive("hidden units"), default=None, help="of an adaptive prompt (default 1)")
    add("--rank", type=cli.positive("directions"), default=None, help="directions of a prompt that its key sees (all)")
    add("--stratum", type=cli.names, default=[], metavar="c=0,..", help="parameters of the truth held at values")
    add = parser.add_argument_group("what is printed or written").add_argument
    add(
        "--dependences",
        type=cli.positive("orders"),
        default=None,
        metavar="ORDER",
        help="print instead all linear dependences among the derivatives of one atom up to ORDER",
    )
    add("--json", action="store_true", help="print rows and certificates as JSON")
    add("--verify", action="store_true", help="check every certificate again, by other means")
    add(
        "--write",
        action="store_true",
        help="write what studies read (theory/predictions.json) and docs/predicted_rates.md, and stop",
    )
    return parser


def stratum_of(parts: list[str]) -> dict[str, Fraction]:
    found = {}
    for part in parts:
        name, _, value = part.partition("=")
        try:
            found[name.strip()] = Fraction(value)
        except (ValueError, ZeroDivisionError):
            raise InputError(f"--stratum {part}; expected name=number, such as c=0 or w1_1=0,w1_2=0") from None
    return found


def main() -> None:
    arguments = parser().parse_args()
    refuse(arguments)
    if arguments.models:
        from moe_prompts.theory.atoms import KINDS

        print("\n".join(KINDS))
    elif arguments.write:
        write(arguments)
    elif arguments.model is None:
        for model, cells, options in OVERVIEW:
            print(report(model, cells, options, arguments))
    else:
        options = {name: getattr(arguments, name) for name in ("frozen", "d", "hidden", "rank")}
        options["stratum"] = stratum_of(arguments.stratum) or None
        print(report(arguments.model, arguments.cells or [1, 2], options, arguments))


def refuse(arguments: argparse.Namespace) -> None:
    """Raise ``InputError`` for options that would change nothing."""
    of_model = ("cells", "frozen", "d", "hidden", "rank", "stratum", "dependences")
    given = [name for name in of_model if getattr(arguments, name) not in (None, [])]
    alone = [name for name in ("models", "write") if getattr(arguments, name)]
    given = ["model", *given] if arguments.model is not None and alone else given
    if alone and given:
        raise InputError(f"--{alone[0]} with --{given[0]}; expected one of them: --{alone[0]} is of all models")
    if arguments.model is None and given:
        raise InputError(f"--{given[0]} without --model; expected the model that it is of (--models prints the names)")
    if arguments.dependences is not None and arguments.cells:
        raise InputError("--dependences with --cells; expected one of them: dependences are those of one atom")


#: Each model with a cell of one atom and cells of several, and the cases in which a neighbour decides.
OVERVIEW: list[tuple[str, list[int], dict[str, Any]]] = [
    ("location-scale", [1, 2, 3, 4], {}), ("covariate-free", [1, 2, 3], {}), ("gaussian-gated", [1, 2, 3], {}),
    ("gaussian-gated-constant", [1, 2, 3], {}), ("softmax-gaussian", [1, 2, 3], {}), ("softmax-gaussian", [2, 3], {}),
    ("softmax-linear", [1, 2], {}), ("fixed", [1, 2], {}), ("fixed", [1, 2], {"rank": 1}), ("prefix", [1, 2], {}),
    ("decoupled", [1, 2], {}), ("decoupled", [2, 2], {"frozen": 0}),
    *((f"adaptive:{name}", [1, 2], {"hidden": 2})
      for name in ("tanh", "sigmoid", "gelu", "silu", "softplus", "relu", "leaky_relu", "identity", "square")),
    ("adaptive:gelu", [1, 2], {"hidden": 2, "rank": 1}),
]  # fmt: skip


def report(
    model: str, cells: list[int], options: dict[str, Any], arguments: argparse.Namespace, page: bool = False
) -> str:
    """Return the text of one configuration, in Markdown for the page."""
    if arguments.dependences is not None:
        return "\n".join(cli.wrapped(dependences_of(model, options, arguments)))
    from moe_prompts.theory.table import rate_table

    table = rate_table(model, cells, **options)
    shown = f"## {table.title}\n\n{table.markdown()}\n" if page else f"{table}\n"
    text = table.to_json() if arguments.json else shown
    if arguments.verify:
        from moe_prompts.theory.certificates.verify import verify_table

        verdict = verify_table(json.loads(table.to_json()))
        if not verdict:
            raise InputError(f"the table of {table.title} does not hold: {verdict.reason}")
        print(f"{table.title}: {len(table.certificates)} certificates and every row verified", file=sys.stderr)
    return text


def dependences_of(model: str, options: dict[str, Any], arguments: argparse.Namespace) -> str:
    from moe_prompts.theory.atoms import atom
    from moe_prompts.theory.dependences import dependences

    chosen: dict[str, Any] = {name: options.get(name) for name in ("d", "hidden", "rank")}
    made = atom(model, **chosen)
    found = dependences(made, arguments.dependences, options.get("stratum"))
    return json.dumps(found.certificates(), indent=1) if arguments.json else f"{found}\n"


INTRODUCTION = """# Predicted rates

Written by `python experiments/predicted_rates.py --write`; how the numbers are derived: [algebra.md](algebra.md).

## How to read a table

A table has a title such as "gaussian-gated, cells 1,2": a model, and a truth of two atoms, of which the first is
fitted by one atom and the second by two. The fitted atoms of one true atom are its *cell*.
"""
#: What the page says of the columns of its tables, and of the words in them: header, then rows.
HOW_TO_READ: list[tuple[list[str], list[list[str]]]] = [
    (
        ["column", "says"],
        [
            [
                "group",
                "parameters with one rate, such as gate slopes (`beta`) or noise variances (`s`): "
                "[notation](notation.md)",
            ],
            [
                "cell, size",
                "which true atom, and how many fitted ones share it; `all`: parameters that all atoms share",
            ],
            ["theta, rate", "errors fall as n^(-1/(2 theta)); `none`: no data show these parameters"],
            ["status", "proved, numeric, one-sided or undetermined ([what each means](algebra.md#status))"],
            ["not slower because, not faster because", "the argument for either bound (next table)"],
            ["published, agrees?", "what papers state, and whether it is the same"],
        ],
    ),
    (
        ["not slower because", "the argument"],
        [
            ["first order", "one atom in the cell, and first derivatives are independent: n^(-1/2)"],
            ["definite", "every way to split an atom in two shows at second order: n^(-1/4)"],
            ["S1 block, homogeneous", "m atoms cannot cancel beyond order 2m in the published systems of equations"],
            ["peeled", "one row of the expansion holds this group alone, up to terms that are already bounded"],
        ],
    ),
    (
        ["not faster because", "the argument"],
        [
            ["one atom", "f is smooth in its parameters"],
            ["split", "two atoms on either side of the true one cancel to first order"],
            ["Gauss-Hermite", "m atoms at the nodes of a quadrature cancel below order 2m"],
            ["affine, cosh, orbit", "a curve of parameters along which f does not move at all; hence no rate"],
        ],
    ),
]


def introduction() -> str:
    """Return what the page says before its tables."""
    return "\n".join([INTRODUCTION, *(f"{markdown(*table)}\n" for table in HOW_TO_READ)])


def write(arguments: argparse.Namespace) -> None:
    from moe_prompts import theory
    from moe_prompts.engine.files import write_atomically
    from moe_prompts.theory.study_predictions import study_predictions, to_text

    table = study_predictions()
    target = Path(theory.__file__).with_name("predictions.json")
    write_atomically(target, to_text(table).encode())
    page = cli.checkout("docs") / "predicted_rates.md"
    write_atomically(page, page_of(arguments).encode())
    print(f"{len(table['predictions'])} predictions in {target.name}, {len(OVERVIEW)} configurations in {page.name}")


def page_of(arguments: argparse.Namespace) -> str:
    """Return docs/predicted_rates.md: how to read a table, then all configurations in turn."""
    parts = [report(model, cells, options, arguments, page=True) for model, cells, options in OVERVIEW]
    return "\n".join([introduction(), *parts])

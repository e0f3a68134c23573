"""Ask which prompts can be told apart, and how fast: kappas, noise-free profiles and likelihood gaps.

python experiments/identifiability.py --configurations reference,rank1,random-1 --kinds fixed,decoupled,adaptive:tanh
"""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING, Any

from moe_prompts import cli
from moe_prompts.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from moe_prompts.shown import Ending


#: What is looked at where nothing else is given, and with --quick.
USUAL: dict[str, Any] = {"configurations": ["reference", "rank1"], "n": "1e4,1e5,1e6", "reps": 16}
QUICK: dict[str, Any] = {
    "configurations": ["reference"],
    "kinds": ["fixed", "decoupled", "adaptive:gelu"],
    "n": "1e4,1e5",
    "reps": 8,
}


def parser() -> argparse.ArgumentParser:
    parser = cli.OneLineParser(prog="identifiability.py", description=__doc__)
    add = parser.add_argument_group("what is looked at").add_argument
    add(
        "--configurations",
        type=cli.names,
        default=None,
        help="reference, rank1 (keys of one dimension), heads2 (two heads that share their prompts), random-NUMBER, "
        "random-NUMBER-rank1, random-NUMBER-heads2 (default reference,rank1)",
    )
    add(
        "--kinds",
        type=cli.names,
        default=None,
        help="fixed, decoupled, adaptive:SIGMA (default: all of them)",
    )
    add("--n", metavar="SIZES", help="of the likelihood gaps, as 1e4..1e6 (default 1e4,1e5,1e6)")
    add("--points", type=cli.positive("sizes"), default=3, help="sizes in a range (default 3)")
    add("--reps", type=cli.positive("data sets"), help="data sets per size (default 16)")
    cli.add_execution(parser)
    cli.add_shard(parser)
    cli.add_run(parser)
    add("--quick", action="store_true", help="three kinds, two sizes, 8 data sets, where nothing else is given")
    return parser


def names_of(configurations: list[str], kinds: list[str]) -> list[str]:
    """Return names of truths: every kind in every configuration."""
    names = []
    for configuration in configurations:
        pattern = r"(?P<heads>rank1|heads2)|(?P<draw>reference|random-\d+)(?P<suffix>-rank1|-heads2)?"
        found = re.fullmatch(pattern, configuration)
        if not found:
            raise InputError(
                f"--configurations {configuration}; expected reference, rank1, heads2, random-NUMBER, "
                "random-NUMBER-rank1 or random-NUMBER-heads2"
            )
        draw = found["draw"] or "reference"
        prefix = "attention-" if draw == "reference" else f"attention-{draw}-"
        suffix = f"-{found['heads']}" if found["heads"] else found["suffix"] or ""
        names += [f"{prefix}{kind.removeprefix('adaptive:')}{suffix}" for kind in kinds]
    return names


def main() -> None:
    arguments = parser().parse_args()
    cli.check_run(arguments)
    cli.fill_in(arguments, QUICK if arguments.quick else USUAL)
    sizes = cli.sizes(arguments.n, arguments.points)

    from moe_prompts.models.prompt_attention import PromptKind
    from moe_prompts.models.prompt_truths import KINDS, prompt_truth
    from moe_prompts.study.attention import identifiability_study

    kinds = [str(PromptKind.parse(kind)) for kind in arguments.kinds or KINDS]
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise InputError(f"--kinds {unknown[0]}; expected some of {', '.join(KINDS)}")
    names = names_of(arguments.configurations, kinds)
    for name in names:
        prompt_truth(name)
    out = arguments.out or cli.default_folder("identifiability")
    study = identifiability_study(truths=names, sizes=sizes, replicates=arguments.reps, entropy=arguments.seed)
    results = cli.results(study, out, arguments, "identifiability.py")

    from moe_prompts.figures.attention import identifiability_figure
    from moe_prompts.figures.style import save
    from moe_prompts.study.attention_report import identifiability, identifiability_table, profile_table

    lines = identifiability(results)
    text = "\n\n".join([identifiability_table(lines), profile_table(results)])
    draw = lambda: save(identifiability_figure(results), out, "identifiability")
    cli.finish(
        out, text, ending_of(lines), {"summary.json": lines.to_json(orient="records", indent=2)}, draw, len(results)
    )


def ending_of(lines: pd.DataFrame) -> Ending:
    """Return what is printed: which splits data see, and the numbers that decide it."""
    import numpy as np

    from moe_prompts.identifiability import ZERO_KAPPA2
    from moe_prompts.shown import Ending
    from moe_prompts.study.attention_report import unit_of

    said = {"n^-1/4": "come together like n^-1/4", "no rate": "have no rate", None: "are not decided by these data"}
    findings, known = [], [word for word in said if word]
    for word, words in said.items():
        chosen = lines["verdict"] == word if word else ~lines["verdict"].isin(known)
        if chosen.any():
            names = ", ".join(str(name).removeprefix("attention-") for name in lines.loc[chosen, "truth"])
            findings.append(f"Split prompts {words}: {names}.")
    body = []
    for line in lines.itertuples():
        gap = line.mean_gap[-1] if len(line.mean_gap) else np.nan
        body.append(
            [
                str(line.truth).removeprefix("attention-"),
                f"{line.kappa1:.3f}",
                f"{line.kappa2:.3f}" if line.kappa2 > ZERO_KAPPA2 * unit_of(str(line.truth)) else "0",
                f"{line.exact_exponent:.2f}",
                f"{line.over_exponent:.2f}" if np.isfinite(line.over_exponent) else "none",
                f"{gap:.3g}" if np.isfinite(gap) else "none stays",
                line.verdict.removesuffix(" here"),
            ]
        )
    header = ["truth", "kappa1", "kappa2", "exponent, exact", "exponent, one more", "nats", "split prompts"]
    legend = (
        "kappa1: least singular value of the Jacobian at the truth; kappa2: how much data see of the smallest split; "
        "0: nothing. exponent: of the least noise-free error as a function of the distance held, for as many prompts "
        "as the truth has and for one more; none: the error is zero. nats: mean log-likelihood lost at the largest n "
        "where a split of .4 is held; below 5 at every n, data do not see it. split prompts: their rate."
    )
    return Ending(findings, header, body, legend)

"""Turn the committed runs on the pretrained backbone into lines of evidence for the page of claims.

A line is a difference of accuracies with Student's interval, or what a rule of ``link`` says. Its odds are
those of Student's test at the scatter that was seen: with m replicates of standard deviation s, a true
difference delta *holds* with probability

    P(T > t),    T ~ noncentral t with m - 1 degrees of freedom, shifted by delta sqrt(m) / s,

where t is the 95 % quantile of Student's law. delta is the published gain, and 0 for the nearest wrong claim.

The odds of V-excess come from simulated runs of as many cells, whose log ratios of observed to predicted
excess scatter as those of the run: around 0 where the prediction is true, and around log P / P_eff where
every parameter counts. V-floor, V-cross and V-winner need four tasks: with fewer they hold in no run,
whatever is true.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit
from scipy.stats import binom, nct

from moe_prompts.engine.store import identity_of, read_table
from moe_prompts.errors import InputError
from moe_prompts.intervals import TAILS, Verdict
from moe_prompts.seeds import bootstrap_rng
from moe_prompts.vision.data_efficiency import link, search_verdict
from moe_prompts.vision.data_efficiency.curves import differences, lead_changes, mean_differences
from moe_prompts.vision.data_efficiency.report import CLAIMS

#: Runs of each part, below the folder of committed tables.
PARTS = {
    "100 steps": ("pretrained_dsprites_loc", "pretrained_count"),
    "200 steps": ("pretrained_second_dsprites_loc", "pretrained_second_count"),
    "200 steps, with floors": (
        "pretrained_third_dsprites_ori",
        "pretrained_third_distance",
        "pretrained_third_letters",
        "pretrained_third_azimuth",
    ),
}
#: The part that trains on fresh images as well, whose losses there are floors.
FLOORS = "200 steps, with floors"
#: Runs that train one method more on the images of a part's runs, or at smaller n. A linear head is trained
#: again in those of one method more, which shows that the images are the same; all have the part's seed.
LATER = {
    "200 steps": ("pretrained_fourth_dsprites_loc", "pretrained_fourth_count"),
    FLOORS: (
        "pretrained_fifth_dsprites_ori",
        "pretrained_fifth_distance",
        "pretrained_fifth_letters",
        "pretrained_fifth_azimuth",
    ),
}
#: Runs of the part whose claims are on means over its tasks, runs of other methods on the same images, how
#: lines call both, and their claims.
SIXTH = tuple(f"pretrained_sixth_{task}" for task in ("letters", "count", "azimuth", "dsprites_loc"))
SEVENTH = tuple(run.replace("sixth", "seventh") + more for more in ("", "_more") for run in SIXTH)
ELEVENTH = tuple(run.replace("sixth", "eleventh") for run in SIXTH)
BY_ACCURACY = "rates by accuracy"
MEANS = {
    "V-small": ("vapt", "vpt_deep"),
    "V-blind": ("vapt", "vapt_constant"),
    "V-another": ("vapt", "vapt_shuffled"),
    "V-lora": ("vapt", "lora"),
    "V-bias": ("vapt", "bias_blocks"),
}
#: Runs on two of its tasks: of adaptive prompts and of full tuning, by AdamW, on the same new images; of
#: adaptive prompts in all blocks on these images; and of adaptive prompts by other optimisers on the sixth
#: part's.
TWO = ("letters", "count")
EIGHTH = tuple(f"pretrained_eighth_{task}{more}" for task in TWO for more in ("", "_full"))
NINTH = tuple(f"pretrained_ninth_{task}" for task in TWO)
OPTIMISERS = ("lamb", "adamw")
TENTH = {f"pretrained_tenth_{task}_{name}": {"vapt": f"vapt_{name}"} for task in TWO for name in OPTIMISERS}
#: Runs of both kinds of prompt on six tasks with 1000 images, by SGD and by LAMB.
SIX = (*TWO, "azimuth", "dsprites_loc", "distance", "dsprites_ori")
BY_LAMB = {name: f"{name}_lamb" for name in ("vapt", "vpt_deep")}
TWELFTH: dict[str, dict[str, str]] = {f"pretrained_twelfth_{task}": {} for task in SIX} | {
    f"pretrained_twelfth_{task}_lamb": BY_LAMB for task in SIX
}
#: Runs of the biases of the same blocks by LAMB, on the images of the twelfth part.
FOURTEENTH = {f"pretrained_fourteenth_{task}": {"bias_blocks": "bias_blocks_lamb"} for task in SIX}
#: Runs of both kinds of prompt by LAMB on these tasks with 100 images.
FIFTEENTH = {f"pretrained_fifteenth_{task}": BY_LAMB for task in SIX}
#: Runs of both by LAMB on two tasks with 1000 images and 600 steps, where all others have 200 at most.
SIXTEENTH = {
    f"pretrained_sixteenth_{task}": {name: f"{called}_600" for name, called in BY_LAMB.items()}
    for task in ("count", "dsprites_loc")
}
#: Runs of LoRA by LAMB, on the images of the twelfth part.
EIGHTEENTH = {f"pretrained_eighteenth_{task}": {"lora": "lora_lamb"} for task in SIX}
#: The sixteenth part's trainings on six tasks, with forward passes in bfloat16.
NINETEENTH = {
    f"pretrained_nineteenth_{task}": {name: f"{called}_600_bfloat16" for name, called in BY_LAMB.items()}
    for task in SIX
}
#: Runs by LAMB with 800 images of two tasks that are not drawn by formula.
NOT_DRAWN = {name: f"{name}_lamb" for name in ("linear", "vpt_deep", "vapt", "lora")}
TWENTIETH = {f"pretrained_twentieth_{task}": NOT_DRAWN for task in ("emoji", "digits")}
#: Trainings as in the nineteenth part with 3200 images.
TWENTY_FIRST = {
    f"pretrained_twenty_first_{task}": {name: f"{called}_600_bfloat16" for name, called in BY_LAMB.items()}
    for task in SIX
}
#: Trainings as in the fifteenth part with 400 images, with forward passes in bfloat16.
TWENTY_SECOND = {
    f"pretrained_twenty_second_{task}": {name: f"{called}_bfloat16" for name, called in BY_LAMB.items()} for task in SIX
}
#: Runs of full tuning by AdamW, on the images of the twelfth part.
TWENTY_THIRD: dict[str, dict[str, str]] = {f"pretrained_twenty_third_{task}": {} for task in SIX}
#: Trainings as in the twelfth part by LAMB, with prompts in all blocks and forward passes in bfloat16.
TWENTY_FOURTH = {
    f"pretrained_twenty_fourth_{task}": {name: f"{name}_all_lamb_bfloat16" for name in BY_LAMB} for task in SIX
}
#: What methods of some runs are called beside those of others.
CALLED = (
    {run: {"vapt": "vapt_all"} for run in NINTH}
    | TENTH
    | TWELFTH
    | FOURTEENTH
    | FIFTEENTH
    | SIXTEENTH
    | EIGHTEENTH
    | NINETEENTH
    | TWENTIETH
    | TWENTY_FIRST
    | TWENTY_SECOND
    | TWENTY_FOURTH
)
#: Runs that count the parameters that fits of a part use.
EFFECTIVE = {
    "100 steps": ("predicted_excess", "predicted_excess_count"),
    FLOORS: tuple(f"predicted_excess_{run.removeprefix('pretrained_')}" for run in (*PARTS[FLOORS], *LATER[FLOORS])),
}
#: The same fits counted again, with 1000 images and for all images; and what ends the names of their claims.
AGAIN = "-again"
EFFECTIVE_AGAIN = {part: tuple(f"{run}_again" for run in runs) for part, runs in EFFECTIVE.items()}
#: Counts with 3000 images: of the fits of the second count that 1000 images could not count, and of two that
#: they could. They were made after its verdicts and decide nothing.
MORE_IMAGES = tuple(f"predicted_excess_third_{task}_3000" for task in ("letters", "azimuth", "distance"))
#: The run of certified searches for planted prompts, and that of SGD beside them.
SEARCH, SGD = "search", "planted_vit"
#: Claim of the page -> claims of the study whose differences are its lines.
SHOWN = {
    "V-prompts": ("V-prompts",),
    "V-gain": ("V-gain", "V-gain-tokens", "V-gain-vpt", "V-gain-gain"),
    "V-dependence": ("V-dependence",),
    "V-start": ("V-start-tokens", "V-start-vpt", "V-start-gain"),
}
#: Mean accuracy of VAPT less that of VPT-deep on the 19 tasks of VTAB-1K as published: 72.91 and 69.43 %, and
#: less that of full tuning, 65.57 %; and that of VPT-deep less that of full tuning.
PUBLISHED_GAIN, PUBLISHED_OVER_FULL, FIXED_OVER_FULL = 0.0348, 0.0734, 0.0386
#: Both kinds of prompt after 600 steps in bfloat16.
LONG = ("vapt_lamb_600_bfloat16", "vpt_deep_lamb_600_bfloat16")
#: Other claims on means over tasks: runs, the pairs of methods, and the published difference that odds are
#: taken at.
OTHER_MEANS = (
    ((*EIGHTH, *NINTH), {"V-full": ("vapt", "full"), "V-full-all": ("vapt_all", "full")}, PUBLISHED_OVER_FULL),
    ((*EIGHTH, *NINTH), {"V-blocks": ("vapt_all", "vapt")}, PUBLISHED_GAIN),
    ((*SIXTH[:2], *TENTH), {f"V-{name}": (f"vapt_{name}", "vapt") for name in OPTIMISERS}, PUBLISHED_GAIN),
    (
        tuple(TWELFTH),
        {
            "V-thousand": ("vapt", "vpt_deep"),
            "V-thousand-lamb": ("vapt_lamb", "vpt_deep_lamb"),
            "V-lamb-again": ("vapt_lamb", "vapt"),
            "V-lamb-fixed": ("vpt_deep_lamb", "vpt_deep"),
        },
        PUBLISHED_GAIN,
    ),
    (
        (*TWELFTH, *FOURTEENTH),
        {
            "V-bias-lamb": ("vapt_lamb", "bias_blocks_lamb"),
            "V-bias-fixed": ("vpt_deep_lamb", "bias_blocks_lamb"),
        },
        PUBLISHED_GAIN,
    ),
    (tuple(FIFTEENTH), {"V-hundred-lamb": ("vapt_lamb", "vpt_deep_lamb")}, PUBLISHED_GAIN),
    (tuple(SIXTEENTH), {"V-steps-lamb": ("vapt_lamb_600", "vpt_deep_lamb_600")}, PUBLISHED_GAIN),
    (
        (*TWELFTH, *EIGHTEENTH),
        {"V-lora-lamb": ("vapt_lamb", "lora_lamb"), "V-lora-fixed": ("vpt_deep_lamb", "lora_lamb")},
        PUBLISHED_GAIN,
    ),
    (tuple(NINETEENTH), {"V-steps-six": LONG}, PUBLISHED_GAIN),
    (
        tuple(TWENTIETH),
        {
            "V-real-gain": ("vapt_lamb", "vpt_deep_lamb"),
            "V-real-prompts": ("vpt_deep_lamb", "linear_lamb"),
            "V-real-lora": ("vapt_lamb", "lora_lamb"),
        },
        PUBLISHED_GAIN,
    ),
    (tuple(TWENTY_FIRST), {"V-most": LONG}, PUBLISHED_GAIN),
    (tuple(TWENTY_SECOND), {"V-four-hundred": ("vapt_lamb_bfloat16", "vpt_deep_lamb_bfloat16")}, PUBLISHED_GAIN),
    ((*TWELFTH, *TWENTY_THIRD), {"V-full-lamb": ("vapt_lamb", "full")}, PUBLISHED_OVER_FULL),
    ((*TWELFTH, *TWENTY_THIRD), {"V-full-fixed": ("vpt_deep_lamb", "full")}, FIXED_OVER_FULL),
    (tuple(TWENTY_FOURTH), {"V-ten-blocks": ("vapt_all_lamb_bfloat16", "vpt_deep_all_lamb_bfloat16")}, PUBLISHED_GAIN),
    ((*TWENTY_THIRD, *TWENTY_FOURTH), {"V-ten-full": ("vapt_all_lamb_bfloat16", "full")}, PUBLISHED_OVER_FULL),
    ((*TWENTY_THIRD, *TWENTY_FOURTH), {"V-ten-full-fixed": ("vpt_deep_all_lamb_bfloat16", "full")}, FIXED_OVER_FULL),
)
#: Runs at two n, and the claim that a lead is larger where images are fewer.
AT_TWO_N = (
    (
        (*(run for run in TWELFTH if run.endswith("_lamb")), *FIFTEENTH),
        {"V-fewer-lamb": ("vapt_lamb", "vpt_deep_lamb")},
    ),
    ((*NINETEENTH, *TWENTY_FIRST), {"V-fewer-again": LONG}),
)
#: Simulated runs behind the odds of V-excess.
SIMULATIONS = 10_000
#: Power that is asked for, and the most replicates that are tried.
WANTED, MOST = 0.8, 1024

Record = dict[str, Any]


def claim_records(folder: Path) -> list[Record]:
    """Return the lines of evidence of all claims on the pretrained backbone, one record a line.

    folder  holds the committed runs of ``PARTS``, ``LATER``, ``SIXTH`` to ``SIXTEENTH``, ``EIGHTEENTH`` to
            ``TWENTY_FOURTH``, ``EFFECTIVE``, ``EFFECTIVE_AGAIN``, ``SEARCH`` and ``SGD``

    Raises ``InputError`` where a run is missing or damaged, or a later one has other images.
    """
    tables = {part: table_of(folder, part) for part in PARTS}
    lines = [line for claim in SHOWN for part, table in tables.items() for line in difference_lines(claim, part, table)]
    lines += lines_of_differences(mean_differences(joined(folder, SIXTH, (*SEVENTH, *ELEVENTH)), MEANS), BY_ACCURACY)
    for runs, pairs, published in OTHER_MEANS:
        lines += lines_of_differences(mean_differences(table_of_runs(folder, runs), pairs), BY_ACCURACY, published)
    for runs, pairs in AT_TWO_N:
        lines += lines_of_differences(lead_changes(table_of_runs(folder, runs), pairs), BY_ACCURACY)
    search = search_line(read_table(folder / SEARCH), read_table(folder / SGD))
    return [*lines, *rule_lines(tables, folder), search]


def table_of(folder: Path, part: str) -> pd.DataFrame:
    """Return the rows of a part with those of its later runs, as ``joined`` does."""
    return joined(folder, PARTS[part], LATER.get(part, ()))


def joined(folder: Path, runs: tuple[str, ...], later: tuple[str, ...]) -> pd.DataFrame:
    """Return the rows of some runs and of later ones on the same images, each training once.

    Raises ``InputError`` where the runs have several seeds, or a training that was repeated ends with another
    accuracy.
    """
    table = table_of_runs(folder, (*runs, *later))
    first, second = (table[table["run"].isin(names)] for names in (runs, later))
    key = ["task", "method", "n", "replicate"]
    for row in second.merge(first, on=key, suffixes=("", "_first")).itertuples():
        if row.accuracy != row.accuracy_first:
            raise InputError(
                f"{folder}: {row.method} on {row.task}, replicate {row.replicate}, has the accuracy {row.accuracy} in "
                f"a run of {later} and {row.accuracy_first} before; expected runs on the same images"
            )
    return table.drop_duplicates(key)


def table_of_runs(folder: Path, runs: tuple[str, ...]) -> pd.DataFrame:
    """Return the rows of some runs, with the run's name, and methods as ``CALLED`` says.

    Raises ``InputError`` where their seeds differ.
    """
    seeds = {run: seed_of(folder / run) for run in runs}
    if len(set(seeds.values())) > 1:
        raise InputError(
            f"{folder}: runs of one part with seeds {seeds}; expected one seed, so that images are the same"
        )
    tables = {run: read_table(folder / run) for run in runs}
    return pd.concat(
        [table.assign(run=run, method=table["method"].replace(CALLED.get(run, {}))) for run, table in tables.items()]
    )


def seed_of(run: Path) -> int:
    """Return the seed of a run."""
    return int(identity_of(run, entropy=int)["entropy"])


def excess_of(folder: Path, runs: tuple[str, ...], curves: pd.DataFrame) -> pd.DataFrame:
    """Return ``link.excess_table`` of the fits that some runs counted, whose rows are among ``curves``."""
    return link.excess_table(pd.concat([read_table(folder / run) for run in runs]), curves)


def all_counted(folder: Path, part: str, curves: pd.DataFrame) -> pd.DataFrame:
    """Return ``link.excess_table`` of a part's second count, from ``MORE_IMAGES`` where it has none."""
    again = pd.concat([read_table(folder / run) for run in EFFECTIVE_AGAIN[part]]).set_index(["task", "method", "n"])
    more = pd.concat([read_table(folder / run) for run in MORE_IMAGES]).set_index(["task", "method", "n"])
    missing = again["effective"].isna()
    again.loc[missing, "effective"] = more["effective"].reindex(again.index[missing])
    return link.excess_table(again.reset_index(), curves)


def counted_cells(folder: Path, part: str, runs: tuple[str, ...], curves: pd.DataFrame) -> pd.DataFrame:
    """Return ``excess_of`` of some runs, for the cells (task, method, n) of the part's first count."""
    key = ["task", "method", "n"]
    first = pd.concat([read_table(folder / run) for run in EFFECTIVE[part]])[key]
    return excess_of(folder, runs, curves).merge(first, on=key)


def file_of_records(folder: Path) -> str:
    """Return the text of the file that the claims read, with one record on each line."""
    return "[\n" + ",\n".join(f" {json.dumps(record)}" for record in claim_records(folder)) + "\n]\n"


def difference_lines(claim: str, part: str, table: pd.DataFrame) -> Iterator[Record]:
    """Yield a line for each difference of accuracies that a claim of the page looks at, in points.

    part   how the line calls the run
    table  rows of methods on tasks
    """
    for record in lines_of_differences(differences(table, {name: CLAIMS[name] for name in SHOWN[claim]}), part):
        yield record | {"claim": claim}


def lines_of_differences(table: pd.DataFrame, part: str, published: float = PUBLISHED_GAIN) -> Iterator[Record]:
    """Yield a line for each row of ``curves.differences``, in points, of the claim that the row names.

    part       how the line calls the run
    published  the difference that is taken for true in odds, as a share
    """
    for row in table.itertuples():
        ends = [100 * end for end in (row.difference, row.low, row.high)]
        value, low, high = (round(end, 6) for end in ends)
        # Of unrounded numbers, as the tables of the runs show them.
        shown = [f"{end:+.1f}" for end in ends]
        count, half = int(row.count), float(row.high - row.difference)
        deviation = half / float(stdtrit(count - 1, TAILS[1])) * np.sqrt(count)
        undecided = row.verdict == Verdict.UNDECIDED.value
        yield {
            "claim": row.claim,
            "name": f"{part}, {row.task.removeprefix('stand-in:')}: {row.better} above {row.other}, n = {row.n}",
            "claimed": "above 0 points",
            "found": f"{shown[0]} [{shown[1]}, {shown[2]}] points, {count} replicates",
            "verdict": row.verdict,
            "estimate": [value, low, high, count],
            "right": round(chance_to_hold(published, deviation, count), 6),
            "wrong": round(chance_to_hold(0.0, deviation, count), 6),
            "instead": "no difference",
            "needed": replicates_needed(published, deviation) if undecided else None,
        }


def chance_to_hold(difference: float, deviation: float, count: int) -> float:
    """Return how often Student's 90 % interval of ``count`` normal values lies above 0.

    difference  their mean
    deviation   their standard deviation, in the same unit

    >>> round(chance_to_hold(0.0, 1.0, 3), 3)
    0.05
    """
    shift = difference * np.sqrt(count) / deviation
    return float(nct.sf(stdtrit(count - 1, TAILS[1]), count - 1, shift))


def excess_odds(ratio: np.ndarray, instead: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """Return how often V-excess holds where its prediction is true, and where another one is.

    ratio    (m,) observed over predicted excess of each cell of a run; NaN where it was not counted, which is
             near nothing
    instead  (m,) the other prediction over the one that is judged
    rng      source of the simulation

    Log ratios are drawn from those of the run, less their median.
    """
    counted = ~np.isnan(ratio)
    seen = np.log(ratio[counted])
    drawn = rng.choice(seen - np.median(seen), size=(SIMULATIONS, len(seen)))
    near = lambda logs: (np.abs(logs) <= np.log(link.FACTOR)).sum(axis=1) >= link.MOST * len(ratio)
    return float(near(drawn).mean()), float(near(drawn + np.log(instead[counted])).mean())


def coin_odds(count: int, tasks: int | None = None, missing: int = 0) -> tuple[float, float]:
    """Return how often V-floor, V-cross or V-winner holds: if all agree, and if a coin decides.

    count    how many tasks are counted, or cells (task, n)
    tasks    of how many tasks they are; None: each is one
    missing  how many of them have no prediction, which agrees with nothing

    >>> coin_odds(2), coin_odds(4), coin_odds(6, tasks=3), coin_odds(8, tasks=4, missing=4)
    ((0.0, 0.0), (1.0, 0.0625), (0.0, 0.0), (0.0, 0.0))
    """
    tasks, able = count if tasks is None else tasks, count - missing
    enough = [k for k in range(able + 1) if link.coin_verdict(k, count, tasks) is Verdict.HOLDS]
    return (1.0, float(binom.sf(min(enough) - 1, able, 0.5))) if enough else (0.0, 0.0)


def replicates_needed(difference: float, deviation: float) -> int:
    """Return the fewest replicates with which four of five runs would hold; 0 if ``MOST`` would not do."""
    counts = range(3, MOST + 1)
    return next((m for m in counts if chance_to_hold(difference, deviation, m) >= WANTED), 0)


def rule_lines(tables: dict[str, pd.DataFrame], folder: Path) -> Iterator[Record]:
    """Yield what the rules of ``link`` say of the parts, claim by claim.

    tables  rows of each part
    folder  holds the runs that counted parameters
    """
    curves = tables[FLOORS]
    tasks, seed = curves["task"].unique(), seed_of(folder / PARTS[FLOORS][0])
    for counted, ending in ((EFFECTIVE, ""), (EFFECTIVE_AGAIN, AGAIN)):
        for part, runs in counted.items():
            table = counted_cells(folder, part, runs, tables[part])
            others = (table["all_parameters"] / table["effective"]).to_numpy()
            rng = bootstrap_rng(seed_of(folder / runs[0]), "odds", "V-excess")
            odds = excess_odds(table["ratio"].to_numpy(), others, rng)
            finding = link.excess_verdict(table)
            finding = replace(finding, claim=finding.claim + ending)
            yield rule_line(finding, part, table["task"].unique(), "within a factor of 2", odds, "all parameters count")
        table = counted_cells(folder, FLOORS, counted[FLOORS], curves)
        winners = link.winner_table(curves, table)
        winner = link.winner_verdict(winners)
        unknown = int((link.judged_winners(winners)["predicted"] == "").sum())
        findings = [(replace(winner, claim=winner.claim + ending), unknown)]
        if not ending:  # floors do not depend on the count, nor does n* of these tasks
            findings = [(link.floor_verdict(curves), 0), (link.cross_verdict(curves, table, seed), 0), *findings]
        for finding, missing in findings:
            odds = coin_odds(finding.counted, finding.tasks, missing)
            yield rule_line(finding, FLOORS, tasks, "more often than a coin", odds, "a coin")


def rule_line(
    finding: link.RuleFinding, part: str, tasks: np.ndarray, claimed: str, odds: tuple[float, float], instead: str
) -> Record:
    """Return the line of evidence of what a rule of ``link`` says of the tasks of a part."""
    found = (finding.found[0].lower() + finding.found[1:]).replace("stand-in:", "")
    return {
        "claim": finding.claim,
        "name": f"{part}: " + ", ".join(str(task).removeprefix("stand-in:") for task in tasks),
        "claimed": claimed,
        "found": f"not measured: {found}" if finding.verdict is None else found,
        "verdict": (finding.verdict or Verdict.UNDECIDED).value,
        "right": round(odds[0], 6),
        "wrong": round(odds[1], 6),
        "instead": instead,
        "needed": None,
    }


def search_line(rows: pd.DataFrame, sgd: pd.DataFrame) -> Record:
    """Return what the rule of ``search_verdict`` says of certified searches for planted prompts.

    rows  of the run of searches
    sgd   of the run of SGD on fresh images
    """
    own, verdict = search_verdict.ordinary(rows), search_verdict.search_verdict(rows, sgd)
    share, says, counted = search_verdict.SHARE, search_verdict.VERDICTS[verdict.outcome], verdict.counted
    tried = ", ".join(f"{part:.0%} of {name}" for name, part in verdict.sgd.items())
    left = f"{own['train_excess'].min():.3f} to {own['train_excess'].max():.3f}"
    return {
        "claim": "T-search",
        "name": f"n = {', '.join(map(str, sorted(own['n'].unique())))}, {own['teacher'].nunique()} teachers: "
        f"starts {' and '.join(own['start'].unique())}",
        "claimed": f"upper end of the share below {share:g}",
        "found": f"{verdict.outcome}: {verdict.reached} of {verdict.counted} certified fits reach "
        f"{search_verdict.REACHED:g} nats, share [{verdict.low:.2f}, {verdict.high:.2f}]; {verdict.fits} fits in all, "
        f"excess {own['excess'].min():.2f} to {own['excess'].max():.2f} nats on new images, "
        f"{left} on their own; SGD on fresh images: {tried}",
        "verdict": says.value,
        "estimate": [
            round(verdict.reached / max(counted, 1), 6),
            round(verdict.low, 6),
            round(verdict.high, 6),
            counted,
        ],
        "right": round(search_verdict.power(search_verdict.SELDOM, counted, False), 6),
        "wrong": round(search_verdict.power(share, counted, False), 6),
        "instead": f"a share of {share:g}",
        "needed": None,
    }

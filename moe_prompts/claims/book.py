"""Collect all claims, what they need, and the page of results."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from moe_prompts.claims import (
    algebra,
    experts,
    gated,
    heads,
    merging,
    planted,
    prefixes,
    pretrained,
    prompts,
    published,
    sigmoid,
    unselected,
    zero_initialised,
)
from moe_prompts.claims.claim import (
    EIGHTH_SEED,
    FIFTH_SEED,
    FOURTH_SEED,
    NINTH_SEED,
    REGISTERED_SEED,
    SECOND_SEED,
    SEVENTH_SEED,
    SIXTH_SEED,
    THIRD_SEED,
    Claim,
    Judgement,
    Line,
    Odds,
    Tables,
    judged,
)
from moe_prompts.claims.history import EARLIER, FIRST
from moe_prompts.engine.grid import Study
from moe_prompts.errors import InputError
from moe_prompts.intervals import Interval, Verdict
from moe_prompts.shown import Ending
from moe_prompts.slopes import BAND, slope_weights
from moe_prompts.tables import markdown, short

CLAIMS: dict[str, Claim] = {
    claim.id: claim
    for group in "PGSEAVT"
    for claim in (
        *(
            *prompts.CLAIMS,
            *heads.CLAIMS,
            *prefixes.CLAIMS,
            *zero_initialised.CLAIMS,
            *unselected.CLAIMS,
            *gated.CLAIMS,
            *merging.CLAIMS,
            *published.CLAIMS,
            *experts.CLAIMS,
            *sigmoid.CLAIMS,
            *algebra.CLAIMS,
            *pretrained.CLAIMS,
            *planted.CLAIMS,
        ),
    )
    if claim.id[0] == group
}

#: Headers of what designs could decide, where a claim has one row: its weakest line.
WEAKEST = ("weakest line holds if true", "weakest line holds if wrong")

#: Claims whose rule, seed and design are fixed and whose data are not drawn yet.
PENDING: tuple[Claim, ...] = (*prompts.PENDING, *gated.PENDING)


def chosen(ids: Sequence[str] | None) -> list[Claim]:
    """Return the named claims in the order of the book, or all for None.

    Raises ``InputError`` for unknown names and for an empty list.
    """
    if ids is not None and not ids:
        raise InputError(f"no claim is named; expected some of {', '.join(CLAIMS)}")
    unknown = [name for name in ids or [] if name not in CLAIMS]
    if unknown:
        raise InputError(f"unknown claim {unknown[0]!r}; expected some of {', '.join(CLAIMS)}")
    return [claim for claim in CLAIMS.values() if ids is None or claim.id in ids]


def judged_all(claims: Sequence[Claim], tables: Tables, seed: int, workers: int = 1) -> list[Judgement]:
    """Return the claims judged on the tables of their runs, in their order.

    tables   of all runs that they need, by name
    seed     of intervals and simulations
    workers  processes that judge; they do not change what is found
    """
    if workers == 1 or len(claims) < 2:
        return [judged(claim, tables, seed) for claim in claims]
    from moe_prompts.engine.executors import Joblib

    # A claim holds functions, which do not travel; its name, its tables and what was found do.
    asked: list[Any] = [(claim.id, {run: tables[run] for run in needed([claim])}) for claim in claims]
    found = dict(Joblib(workers).map(partial(_found, seed=seed), asked))
    return [Judgement(claim, *found[claim.id]) for claim in claims]


def _found(asked: tuple[str, Tables], seed: int) -> tuple[str, tuple[str, tuple[Line, ...]]]:
    """Return the name of a claim with its prediction and its lines."""
    name, tables = asked
    judgement = judged(CLAIMS[name], tables, seed)
    return name, (judgement.prediction, judgement.lines)


def committed(docs: Path) -> dict[str, Mapping[str, Any]]:
    """Return the records of claims.json in a folder, by the id of the claim."""
    return {record["id"]: record for record in json.loads((docs / "claims.json").read_text(encoding="utf-8"))}


def kept(record: Mapping[str, Any]) -> Judgement:
    """Return a judgement as it stands in a record of claims.json, for a claim that is not judged again.

    Statement, rule and limits are those of the code; the prediction and all lines are those of the record.
    """
    lines = []
    for one in record["evidence"]:
        number = lambda value: float("nan") if value is None else float(value)
        verdict = None if one["verdict"] == NOT_JUDGED else Verdict(one["verdict"])
        odds = None
        if "holds_if_true" in one:
            odds = Odds(one["holds_if_true"], one["holds_if_wrong"], one["wrong"], one.get("replicates_needed"))
        estimate = None
        if "estimate" in one:
            estimate = Interval(number(one["estimate"]), number(one["low"]), number(one["high"]), 0)
        lines.append(Line(one["name"], one["claimed"], one["found"], verdict, estimate, odds, one.get("exact", False)))
    return Judgement(CLAIMS[record["id"]], record["prediction"], tuple(lines))


def needed(claims: Sequence[Claim]) -> dict[str, list[str]]:
    """Return the runs that the claims need, each with the truths that some claim looks at."""
    runs: dict[str, list[str]] = {}
    for claim in claims:
        for run, truths in claim.needs.items():
            mine = runs.setdefault(run, [])
            mine += [name for name in truths if name not in mine]
    return runs


def summary(judgements: Sequence[Judgement]) -> str:
    """Return a Markdown table with one row per claim: its verdict, and what its designs could decide."""
    header = ["id", "claim", "source", *WEAKEST, "first edition", "verdict"]
    rows = [
        [
            j.claim.id,
            j.claim.statement,
            j.claim.source,
            _weakest(j.lines),
            _share(max((line.odds.wrong for line in j.lines if line.odds), default=None)) or _no_data(j.lines),
            _first(j.claim.id),
            j.verdict.value,
        ]
        for j in judgements
    ]
    return markdown(header, rows)


def ending_of(judgements: Sequence[Judgement]) -> Ending:
    """Return what the command prints: how many claims hold, and a row for each."""
    counts = {verdict: sum(j.verdict is verdict for j in judgements) for verdict in Verdict}
    said = ", ".join(f"{count} {verdict.value}" for verdict, count in counts.items() if count)
    findings = [f"{len(judgements)} claims: {said}."]
    findings += [f"{j.claim.id} fails: {j.claim.statement}" for j in judgements if j.verdict is Verdict.FAILS]
    rows = [
        [
            j.claim.id,
            j.claim.statement,
            _weakest(j.lines),
            j.verdict.value,
        ]
        for j in judgements
    ]
    legend = (
        f"{WEAKEST[0]}: how often the weakest line of the design would hold if its prediction is true; where it is "
        "small, a verdict that is not decidable says nothing of the claim."
    )
    return Ending(findings, ["id", "claim", WEAKEST[0], "verdict"], rows, legend)


#: Marks in the README between which the command writes ``readme_table``.
BEGIN, END = "<!-- claims, written by experiments/claims.py -->", "<!-- end of claims -->"


def readme_table(records: Sequence[Mapping[str, Any]]) -> str:
    """Return the lines of the README: one row per claim of ``records``, as they stand in claims.json."""
    header = ["id", "claim", WEAKEST[0], "verdict"]
    rows = [
        [
            record["id"],
            record["statement"],
            _weakest(kept(record).lines),
            record["verdict"],
        ]
        for record in records
    ]
    return "\n".join([BEGIN, "", markdown(header, rows), "", END])


def filled(readme: str, records: Sequence[Mapping[str, Any]]) -> str:
    """Return the README with these lines between its marks.

    Raises ``InputError`` where the marks are not there once each.
    """
    if readme.count(BEGIN) != 1 or readme.count(END) != 1:
        raise InputError(f"docs/results.md: expected the marks {BEGIN} and {END} once each")
    return readme.split(BEGIN)[0] + readme_table(records) + readme.split(END)[1].removeprefix(END)


#: What stands for odds where formulas decide.
NO_DATA = "no data"


def _weakest(lines: Sequence[Line]) -> str:
    """Return the smallest chance of a line to hold if true, or that there are no data."""
    return _share(min((line.odds.right for line in lines if line.odds), default=None)) or _no_data(lines)


def _no_data(lines: Sequence[Line]) -> str:
    """Return that there are no data if formulas decide every line that is judged, else nothing."""
    judged = [line for line in lines if line.verdict is not None]
    return NO_DATA if judged and all(line.exact for line in judged) else ""


def _share(share: float | None) -> str:
    return "" if share is None else f"{share:.2f}"


def _needed(line: Line) -> str:
    """Return how many replicates would hold in four of five runs, where the line asked for it."""
    if line.odds is None or line.odds.needed is None:
        return ""
    return f" (.8 from {line.odds.needed} replicates)" if line.odds.needed else " (.8 not with 1024 replicates)"


#: What stands for the verdict of a line that is shown and not judged.
NOT_JUDGED = "not judged"


def _verdict(line: Line) -> str:
    return line.verdict.value if line.verdict else NOT_JUDGED


def _first(name: str) -> str:
    if name not in FIRST:
        return "new"
    first = FIRST[name]
    return first.verdict.value + (f" ({first.id})" if first.id else "")


def section(judgement: Judgement, studies: dict[str, Study], folder: str, options: str) -> str:
    """Return the section of the page about one claim, in Markdown.

    studies  name of a run -> its study
    folder   where the runs lie
    options  of the command, beside ``--only``
    """
    claim = judgement.claim
    lines = [
        [
            line.name,
            line.claimed,
            line.found,
            _share(line.odds.right) + _needed(line) if line.odds else _no_data([line]),
            f"{line.odds.wrong:.2f} ({line.odds.instead})" if line.odds else _no_data([line]),
            _verdict(line),
        ]
        for line in judgement.lines
    ]
    runs = [f"[{run}]({folder}/{run}): {described(studies[run], truths)}" for run, truths in claim.needs.items()]
    studied = "; ".join([*([claim.basis] if claim.basis else []), *runs])
    earlier = EARLIER.get(claim.id)
    first = f"{_first(claim.id)}. {FIRST[claim.id].change}".rstrip() if claim.id in FIRST else ""
    return "\n\n".join(
        [
            f"## {claim.id}: {judgement.verdict.value}",
            claim.statement,
            "\n".join(
                [
                    f"- source: {claim.source}",
                    f"- prediction: {judgement.prediction}",
                    f"- study: {studied or 'none, formulas decide'}",
                    f"- rule: {claim.rule}",
                    *([f"- does not show: {claim.limits}"] if claim.limits else []),
                    *([f"- first edition: {first}"] if first else []),
                    *([f"- earlier draw: {earlier.verdict.value}. {earlier.reason}"] if earlier else []),
                    f"- again: `python experiments/claims.py --only {claim.id}{options}`",
                ]
            ),
            markdown(["looked at", "claimed", "found", "holds if true", "holds if wrong", "verdict"], lines),
        ]
    )


def described(study: Study, truths: Sequence[str]) -> str:
    """Return truths, sizes and replicates of a study, and the seed of its data, in words."""
    sizes = sorted({size for cell in study.cells if (size := cell.data_size)})
    few = sizes if len(sizes) <= 6 else [sizes[0], sizes[-1]]
    listed = (", " if len(sizes) <= 6 else " .. ").join(short(n) for n in few)
    return f"{', '.join(truths)}; n = {listed}; {study.replicates} replicates; seed {study.entropy}"


def slope_with_log(sizes: Sequence[int]) -> float:
    """Return the slope of (log n / n)^(1/2) on log n over some sizes: what a log factor does to -1/2 there.

    >>> round(slope_with_log([10**3, 10**4, 10**5, 10**6, 10**7]), 3)
    -0.454
    """
    log_n = np.log(np.array(sorted(sizes), dtype=float))
    return float(slope_weights(log_n) @ (0.5 * (np.log(log_n) - log_n)))


def page(
    judgements: Sequence[Judgement], studies: dict[str, Study], folder: str, options: str, seed: int | None = None
) -> str:
    """Return the whole page in Markdown.

    studies  name of a run -> its study
    folder   where the runs lie
    options  of the command that asks for all of it
    seed     of all data, where it is another than those registered for each run
    """
    counts = {verdict: sum(j.verdict is verdict for j in judgements) for verdict in Verdict}
    said = ", ".join(f"{count} {verdict.value}" for verdict, count in counts.items() if count)
    head = f"""# Claims

{len(judgements)} claims: {said}. Written by `python experiments/claims.py{options}`.

{RULES}{_logs(studies)}

{EDITIONS if seed is None else f"All data from seed {seed}."}"""
    sections = [section(j, studies, folder, options) for j in judgements]
    return "\n\n".join([head, summary(judgements), *sections, *pending()]) + "\n"


def pending() -> list[str]:
    """Return the part of the page on claims that are registered and not drawn, in Markdown.

    It is empty if there are none.
    """
    if not PENDING:
        return []
    said = [
        "\n".join(
            [
                f"**{claim.id}.** {claim.statement}\n",
                f"- source: {claim.source}",
                f"- prediction: {claim.prediction()}",
                f"- rule: {claim.rule}",
                *([f"- does not show: {claim.limits}"] if claim.limits else []),
                *(
                    f"- draw: `python experiments/claims.py --draw {run}` ({', '.join(truths)})"
                    for run, truths in claim.needs.items()
                ),
            ]
        )
        for claim in PENDING
    ]
    return ["## Registered, not drawn yet", "Rule, seed and design stand; there are no data and no verdict.", *said]


RULES = f"""A claim holds if every line of evidence holds, fails if one fails, is not decidable here if one of the
others is, and is faster than claimed if an upper bound holds with room to spare. Theorems bound errors from above, so
slopes are judged on their slow side. A slope holds if its 90 % interval ends in or below the band of {BAND:g} around
the prediction, fails if it lies above the band, and is faster than claimed if it lies below it. Verdicts are of
unrounded numbers (docs/sharp_bits.md says what slopes cannot show).

**What a design could decide.** "Holds if true" is how often a line would hold where its prediction is true. "Holds if
wrong" is how often it would where the nearest wrong prediction is true, which stands in brackets. Both are shares of
simulated runs with the sizes, the replicates and the scatter of the run itself, and with its shares of certified fits
where 90 % must be certified. An open verdict beside a small first number says nothing of the claim. Open lines with
enough certificates say how many replicates at the same sizes would hold in four of five runs, if the prediction is
true. The first table has one row per claim and shows its weakest lines: the smallest "holds if true" and the largest
"holds if wrong" of all. A claim holds only if all of its lines do, so that its own chance is at most the first of
these. "{NO_DATA}" stands where formulas decide: nothing is drawn at random, so there are no odds. A field is empty
where a line is shown and not judged, and where profiles and gaps decide for n^-1/4."""

EDITIONS = f"""**Editions.** These are the rules of the second edition. They judge the runs of the first one, of seed
{REGISTERED_SEED}, again, and runs that were drawn after the rules stood: of seed {SECOND_SEED}, and for claims added
since of seeds {THIRD_SEED}, {FOURTH_SEED}, {FIFTH_SEED}, {SIXTH_SEED}, {SEVENTH_SEED}, {EIGHTH_SEED} and
{NINTH_SEED}.
The data of the first runs were known when the rules were changed: to intervals whose coverage is measured, to the
one-sided rule, and to power beside each verdict. What the first edition said stands beside the verdict of each claim
that it had, with the reason of a change; the others are "new". Claims V and T judge trainings of a network by rules of
their own, which stand beside them; their runs have other seeds."""


def _logs(studies: Mapping[str, Study]) -> str:
    grids = [sorted({size for cell in study.cells if (size := cell.data_size)}) for study in studies.values()]
    slopes = [slope_with_log(sizes) for sizes in grids if len(sizes) > 1]
    if not slopes:
        return ""
    low, high = min(slopes), max(slopes)
    return f"""

**Log factors are not tested.** Theorems carry factors such as (log n)^(1/2). On these grids an error that falls as
(log n / n)^(1/2) has a slope between {low:.3f} and {high:.3f}, inside the band around -1/2: a line that holds there is
compatible with the factor and without it."""


def records(judgements: Sequence[Judgement]) -> list[dict[str, Any]]:
    """Return the judgements as records that JSON can hold, with numbers unrounded."""
    return [
        {
            "id": j.claim.id,
            "statement": j.claim.statement,
            "source": j.claim.source,
            "prediction": j.prediction,
            "needs": {run: list(truths) for run, truths in j.claim.needs.items()},
            "rule": j.claim.rule,
            "limits": j.claim.limits,
            "first_edition": FIRST[j.claim.id].verdict.value if j.claim.id in FIRST else None,
            **({"earlier_draw": EARLIER[j.claim.id].verdict.value} if j.claim.id in EARLIER else {}),
            "verdict": j.verdict.value,
            "evidence": [
                {"name": line.name, "claimed": line.claimed, "found": line.found, "verdict": _verdict(line)}
                | (
                    {"estimate": _number(line.estimate.value)}
                    | {"low": _number(line.estimate.low), "high": _number(line.estimate.high)}
                    if line.estimate
                    else {}
                )
                | (
                    {"holds_if_true": line.odds.right, "holds_if_wrong": line.odds.wrong, "wrong": line.odds.instead}
                    | ({} if line.odds.needed is None else {"replicates_needed": line.odds.needed})
                    if line.odds
                    else {}
                )
                | ({"exact": True} if line.exact else {})
                for line in j.lines
            ],
        }
        for j in judgements
    ]


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None

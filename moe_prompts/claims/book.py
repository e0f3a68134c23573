"""The book of claims: all of them, what they need, and the page that shows what came out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from moe_prompts.claims import algebra, gated, prompts, published
from moe_prompts.claims.claim import Claim, Judgement
from moe_prompts.engine.grid import Study
from moe_prompts.errors import InputError
from moe_prompts.intervals import Verdict
from moe_prompts.slopes import BAND
from moe_prompts.tables import markdown, short

CLAIMS: dict[str, Claim] = {
    claim.id: claim
    for group in "PGSA"
    for claim in (*prompts.CLAIMS, *gated.CLAIMS, *published.CLAIMS, *algebra.CLAIMS)
    if claim.id[0] == group
}


def chosen(ids: Sequence[str] | None) -> list[Claim]:
    """The named claims in the order of the book, or all."""
    if ids is not None and not ids:
        raise InputError(f"no claim is named; expected some of {', '.join(CLAIMS)}")
    unknown = [name for name in ids or [] if name not in CLAIMS]
    if unknown:
        raise InputError(f"unknown claim {unknown[0]!r}; expected some of {', '.join(CLAIMS)}")
    return [claim for claim in CLAIMS.values() if ids is None or claim.id in ids]


def needed(claims: Sequence[Claim]) -> dict[str, list[str]]:
    """Run -> the truths that some claim looks at."""
    runs: dict[str, list[str]] = {}
    for claim in claims:
        for run, truths in claim.needs.items():
            mine = runs.setdefault(run, [])
            mine += [name for name in truths if name not in mine]
    return runs


def summary(judgements: Sequence[Judgement]) -> str:
    """One row per claim."""
    header = ["id", "claim", "source", "verdict"]
    rows = [[j.claim.id, j.claim.statement, j.claim.source, j.verdict.value] for j in judgements]
    return markdown(header, rows)


def section(judgement: Judgement, studies: dict[str, Study], folder: str, options: str) -> str:
    """Everything about one claim; runs lie in ``folder``; ``options`` of the command beside ``--only``."""
    claim = judgement.claim
    lines = [[line.name, line.claimed, line.found, line.verdict.value] for line in judgement.lines]
    runs = [f"[{run}]({folder}/{run}): {described(studies[run], truths)}" for run, truths in claim.needs.items()]
    return "\n\n".join(
        [
            f"## {claim.id}: {judgement.verdict.value}",
            claim.statement,
            "\n".join(
                [
                    f"- source: {claim.source}",
                    f"- prediction: {judgement.prediction}",
                    f"- study: {'; '.join(runs) or 'none, formulas decide'}",
                    f"- rule: {claim.rule}",
                    *([f"- does not show: {claim.limits}"] if claim.limits else []),
                    f"- again: `python experiments/claims.py --only {claim.id}{options}`",
                ]
            ),
            markdown(["looked at", "claimed", "found", "verdict"], lines),
        ]
    )


def described(study: Study, truths: Sequence[str]) -> str:
    """Truths, sizes and replicates of a study in words."""
    sizes = sorted({size for cell in study.cells if (size := cell.data_size)})
    few = sizes if len(sizes) <= 6 else [sizes[0], sizes[-1]]
    listed = (", " if len(sizes) <= 6 else " .. ").join(short(n) for n in few)
    return f"{', '.join(truths)}; n = {listed}; {study.replicates} replicates"


def page(judgements: Sequence[Judgement], studies: dict[str, Study], folder: str, options: str, seed: int) -> str:
    """The whole page; ``options`` of the command that asks for all of it."""
    counts = {verdict: sum(j.verdict is verdict for j in judgements) for verdict in Verdict}
    said = ", ".join(f"{count} {verdict.value}" for verdict, count in counts.items() if count)
    head = f"""# Claims

{len(judgements)} claims: {said}. Written by `python experiments/claims.py{options}`, all data from seed {seed}.
The rules were fixed before these data were drawn (a first edition, of seed 1618033, was retired after a review).
One thing was changed afterwards: intervals of means are Student's, where they were the normal law's. No verdict moved.

A claim holds if every line of evidence holds, fails if one fails, and is not decidable here otherwise. A slope holds if
its 90 % interval lies within {BAND:g} of the prediction and fails if it is disjoint from that band
(docs/sharp_bits.md says what slopes cannot show)."""
    return "\n\n".join([head, summary(judgements), *(section(j, studies, folder, options) for j in judgements)]) + "\n"


def records(judgements: Sequence[Judgement]) -> list[dict[str, Any]]:
    """The same as JSON-able records."""
    return [
        {
            "id": j.claim.id,
            "statement": j.claim.statement,
            "source": j.claim.source,
            "prediction": j.prediction,
            "needs": {run: list(truths) for run, truths in j.claim.needs.items()},
            "rule": j.claim.rule,
            "limits": j.claim.limits,
            "verdict": j.verdict.value,
            "evidence": [
                {"name": line.name, "claimed": line.claimed, "found": line.found, "verdict": line.verdict.value}
                for line in j.lines
            ],
        }
        for j in judgements
    ]

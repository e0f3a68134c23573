"""Compute how low a kind of prompt gets on a truth that its class does not contain, and in which box.

A floor is the least risk without noise, E|f - f*|^2 / E|f*|^2, over a class whose parameters lie in a box.
The box is part of the class: where a minimum stands on a bound, a wider box has a lower floor. So every floor
is given with its box, with the number of parameters that stand on a bound, and with what the bound costs:

    price = max over bounded coordinates of |d (relative risk) / d (coordinate)|,

the multiplier of the bound. Where nothing stands on a bound, the floor is that of every larger box as far as
random starts can tell: all numbers are upper bounds, the best of many starts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from moe_prompts.errors import InputError
from moe_prompts.estimators.prompts.least_squares import LeastSquaresOptions, population_minima
from moe_prompts.estimators.prompts.objective import Box, PromptObjective
from moe_prompts.models.prompt_attention import PromptKind
from moe_prompts.models.prompt_truths import prompt_truth
from moe_prompts.seeds import start_rng
from moe_prompts.tables import markdown

#: The box of every study, one that is wider, and one in which masses differ by up to e^40.
BOXES = {"study": Box(), "wide": Box((-8.0, 4.0), (-8.0, 8.0)), "widest": Box((-20.0, 20.0), (-20.0, 20.0))}
#: Pairs that stand for the population, which set the scale of the tolerance.
PAIRS = 10_000
#: A coordinate this near to its bound stands on it.
ON_BOUND = 1e-9
#: Relative risks this near to the best are the same minimum.
SAME = 1e-7


def floors(
    truth: str, kind: str, ks: Iterable[int], boxes: Sequence[str] = tuple(BOXES), starts: int = 48, seed: int = 0
) -> pd.DataFrame:
    """Return one row for each k and box: the floor, how often it was reached, and what stands on a bound.

    truth   a name that ``prompt_truth`` knows
    kind    what is fitted, such as "fixed" or "adaptive:gelu"
    ks      numbers of prompts
    boxes   names in ``BOXES``
    starts  random starts for each k; the best fit with one prompt less is split as well
    seed    of the starts

    Raises ``InputError`` for unknown names and for numbers below 1.
    """
    known, parsed = prompt_truth(truth), PromptKind.parse(kind)
    unknown = [name for name in boxes if name not in BOXES]
    if unknown:
        raise InputError(f"floors: box {unknown[0]!r}; expected some of {', '.join(BOXES)}")
    if starts < 1:
        raise InputError(f"floors: starts = {starts}; expected at least 1")
    population = known.population(PAIRS)
    scale = 2 * known.noise**2 / (PAIRS * known.signal)
    rows = []
    for name in boxes:
        box, fewer = BOXES[name], None
        for k in sorted(set(ks)):
            family = known.family(parsed, k)
            rng = start_rng(seed, truth, 0, 0, kind, k, 0)
            also: list[np.ndarray] = []
            if fewer is not None:
                spare = k - fewer.k
                splits = [fewer.chosen([*range(fewer.k), *[one] * spare]).vector for one in range(fewer.k)]
                also = [one + 1e-2 * rng.standard_normal(family.size) for one in splits]
            options = replace(LeastSquaresOptions(), box=box)
            found = population_minima(family, population, known.noise, rng, starts, options, also)
            best = found.vectors[0]
            fewer = family.unpack(best)
            lower, upper = box.bounds(family)
            bounded = (best <= lower + ON_BOUND) | (best >= upper - ON_BOUND)
            objective = PromptObjective(family, [population], known.noise)
            gradient, *_ = objective.at(best[None], np.zeros(1, dtype=int)).derivatives(
                np.arange(1), np.zeros(1, dtype=bool)
            )
            values = np.maximum(found.values * scale, 0.0)
            rows.append(
                {
                    "truth": truth,
                    "kind": kind,
                    "k": k,
                    "box": name,
                    "b_low": box.b[0],
                    "b_high": box.b[1],
                    "theta_high": box.theta[1],
                    "floor": float(values[0]),
                    "certified": bool(found.certified[0]),
                    "reached": float((values <= values[0] + SAME).mean()),
                    "b_on_bound": int(bounded[:k].sum()),
                    "theta_on_bound": int(bounded[k:].sum()),
                    "price": float(np.abs(gradient[0, bounded] * scale).max(initial=0.0)),
                }
            )
    return pd.DataFrame(rows)


def floors_table(table: pd.DataFrame) -> str:
    """Return the rows of ``floors`` as Markdown.

    There is one line for each truth, kind and k, and one column for each box.
    """
    boxes = list(dict.fromkeys(table["box"]))
    ends = {row.box: f"b in [{row.b_low:g}, {row.b_high:g}], rest in ±{row.theta_high:g}" for row in table.itertuples()}
    body = []
    for (truth, kind, k), rows in table.groupby(["truth", "kind", "k"], sort=False):
        by_box = {row.box: row for row in rows.itertuples()}
        body.append([str(truth), str(kind), str(k), *(_cell(by_box[name]) for name in boxes)])
    return markdown(["truth", "fitted", "k", *(ends[name] for name in boxes)], body)


def _cell(row) -> str:
    """Return "27.85 % (1 b on a bound, 1.39 a unit)", with "?" where the minimum has no certificate."""
    counts = ((int(row.b_on_bound), "b"), (int(row.theta_on_bound), "rest"))
    held = " and ".join(f"{count} {name}" for count, name in counts if count)
    said = f" ({held} on a bound, {100 * row.price:.2f} a unit)" if held else ""
    return f"{row.floor:.2%}".replace("%", " %") + said + ("" if row.certified else " ?")

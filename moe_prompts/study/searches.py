"""Build the rows of searches for a global maximum, alike for every gated model.

There is one row per data set and number of atoms: the errors of the best certified fit, in how many of how
many starts and in which ways it was reached, how far below it the next summit lies, and what starts that
were held back found above it. One start beside the truth, as published, stands beside it: if it ends higher,
the search missed that summit, and it is the estimate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from moe_prompts.engine.grid import Row
from moe_prompts.estimators.result import FitResult
from moe_prompts.estimators.stages import SAME_SUMMIT
from moe_prompts.estimators.summits import GlobalResult
from moe_prompts.study.rows import failed

START = "global"


@dataclass(frozen=True)
class SearchCell:
    """Name searches with ``k`` atoms on n pairs from ``truth``."""

    truth: str
    k: int
    n: int

    @property
    def label(self) -> str:
        """Return the name of the cell."""
        return f"{self.truth}_global_k{self.k}_n{self.n}"

    @property
    def data_size(self) -> int:
        """Return the number of pairs in each of its data sets."""
        return self.n


def rows_of_searches(
    names: Row, replicates: Iterable[int], search: Callable[[int], Row], empty: Callable[[], Row]
) -> list[Row]:
    """Return the rows of one block, one per replicate.

    A search that cannot be made is a row with the status FAILED (or RAISED) and the reason.

    names       columns that say what the rows are about
    replicates  numbers of the data sets
    search      returns the other columns of the data set with a number
    empty       returns the columns of errors where a search fails
    """
    rows = []
    for replicate in replicates:
        fields = names | {"replicate": replicate, "start": START}
        try:
            rows.append(fields | search(replicate))
        except Exception as error:
            rows.append(fields | empty() | failed(error))
    return rows


def nats_above(near: FitResult, found: GlobalResult, counts: bool) -> float:
    """Return how many nats the fit beside the truth ends above the best one; NaN where it does not count."""
    return near.log_likelihood - found.best.log_likelihood if counts else float("nan")


def estimate(near: FitResult, found: GlobalResult, near_nats: float) -> FitResult:
    """Return the higher of the two: the best fit of the search, or the one beside the truth."""
    return near if near_nats > SAME_SUMMIT else found.best


def said(found: GlobalResult, near_nats: float) -> Row:
    """Return the columns about the search: nats are those of certified fits, NaN where there is none."""
    return {
        "starts_tried": found.starts,
        "reached": found.reached,
        "ways": ", ".join(found.ways),
        "next_nats": found.next_nats,
        "held_back": found.held_back,
        "missed": found.missed,
        "missed_nats": found.missed_nats,
        "near_nats": near_nats,
    }

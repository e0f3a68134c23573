"""Study the global maximum of over-fitted softmax-gated likelihoods, as far as a search finds it.

There is one row per data set and number of atoms, as ``searches`` describes; the search is
``softmax_global_maximum``. Columns of their own say how steep the gate of the estimate is, and how far above
it a path ended that left the compact set of gates, which does not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from moe_prompts.engine.grid import Row, Study
from moe_prompts.estimators.result import FitResult
from moe_prompts.estimators.softmax.global_search import (
    SoftmaxGlobalOptions,
    softmax_global_maximum,
    steepness,
)
from moe_prompts.estimators.softmax.likelihood import softmax_newton
from moe_prompts.estimators.softmax.starts import published_start
from moe_prompts.models.added import knowing
from moe_prompts.models.data import Sample
from moe_prompts.models.softmax_truths import softmax_sample, softmax_truth
from moe_prompts.seeds import start_rng
from moe_prompts.study.searches import START, SearchCell, estimate, nats_above, rows_of_searches, said
from moe_prompts.study.softmax import KIND, empty_errors, errors_of, plain

STUDY = "softmax-global"
OPTIONS = SoftmaxGlobalOptions(data_starts=4, inserts=8, growth=2, held_back=4)


@dataclass(frozen=True)
class SoftmaxGlobalCell(SearchCell):
    """Name searches with ``k`` softmax-gated atoms on n pairs from ``truth``."""

    @property
    def cost(self) -> float:
        """Return the expected cost, relative to that of other cells."""
        return (self.n + 20_000.0) * self.k**2


def softmax_global_study(
    *, sizes: Sequence[int], replicates: int, entropy: int, truths: Sequence[str], ks: Sequence[int]
) -> Study:
    """Return the study that searches for the global maximum with every number of atoms on every data set.

    sizes       numbers of pairs
    replicates  data sets of each size
    entropy     seed of data and starts
    truths      names that ``softmax_truth`` knows
    ks          numbers of atoms, each at least that of the truth
    """
    return Study(
        name=STUDY,
        cells=[SoftmaxGlobalCell(name, k, n) for name in truths for k in ks for n in sizes],
        replicates=replicates,
        entropy=entropy,
        run=knowing(run_cell, truths),
        identity={
            "softmax_truths_used": {name: plain(softmax_truth(name)) for name in truths},
            "options": asdict(OPTIONS),
        },
    )


def run_cell(cell: SoftmaxGlobalCell, replicates: tuple[int, ...], entropy: int) -> list[Row]:
    """Return the rows of one block, one per replicate."""
    known = softmax_truth(cell.truth)
    names: Row = {
        "study": STUDY,
        "truth": cell.truth,
        "truth_kind": KIND,
        "kind": KIND,
        "k": cell.k,
        "k_true": known.k_true,
        "fit_class": "exact" if cell.k == known.k_true else "over",
        "n": cell.n,
    }
    return rows_of_searches(names, replicates, lambda number: search_row(cell, number, entropy), empty_errors)


def search_row(cell: SoftmaxGlobalCell, replicate: int, entropy: int) -> Row:
    """Return the columns of one row: the errors of the best fit, and what the search says of itself."""
    known = softmax_truth(cell.truth)
    data, family = softmax_sample(cell.truth, cell.n, entropy, replicate), known.family(cell.k)
    rng_of = lambda number: start_rng(entropy, cell.truth, cell.n, replicate, START, cell.k, number)
    found, above = softmax_global_maximum(family, data, rng_of, OPTIONS)
    near = beside_the_truth(cell, data, replicate, entropy)
    # A summit counts in the compact set of gates alone.
    near_nats = nats_above(near, found, near.certified and steepness(near.value, data) <= OPTIONS.max_slope)
    best = estimate(near, found, near_nats)
    return (
        errors_of(best, known)
        | said(found, near_nats)
        | {
            "uncounted_nats": above,
            "steepness": steepness(best.value, data),
            "message": best.detail,
        }
    )


def beside_the_truth(cell: SoftmaxGlobalCell, data: Sample, replicate: int, entropy: int) -> FitResult:
    """Return the fit from one published start, with the guards of the search."""
    known = softmax_truth(cell.truth)
    rng = start_rng(entropy, cell.truth, cell.n, replicate, "near_truth", cell.k, 0)
    start = published_start(known.params, cell.k, cell.n, rng, as_published=False)
    return softmax_newton(known.family(cell.k), data, start, OPTIONS.newton)

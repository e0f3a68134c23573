"""Study the global maximum of over-fitted Gaussian-gated likelihoods, as far as a search finds it.

There is one row per data set and number of atoms, as ``searches`` describes; the search is ``grown``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from moe_prompts.engine.grid import Row, Study
from moe_prompts.estimators.gaussian.global_search import GlobalOptions, grown
from moe_prompts.estimators.gaussian.newton import newton
from moe_prompts.estimators.gaussian.starts import near_truth
from moe_prompts.estimators.result import FitResult
from moe_prompts.models.added import knowing
from moe_prompts.models.data import Data
from moe_prompts.models.gaussian_truths import Truth, sample, truth
from moe_prompts.seeds import start_rng
from moe_prompts.study.gaussian import Kind, empty_errors, errors_of, fit_class, plain
from moe_prompts.study.searches import START, SearchCell, estimate, nats_above, rows_of_searches, said

STUDY, KIND = "gaussian-global", "adaptive"
OPTIONS = GlobalOptions(data_starts=6, growth=2, held_back=6)


@dataclass(frozen=True)
class GlobalCell(SearchCell):
    """Name searches with ``k`` Gaussian-gated atoms on n pairs from ``truth``."""

    @property
    def cost(self) -> float:
        """Return the expected cost, relative to that of other cells."""
        return (min(self.n, 50_000) + 0.05 * self.n + 5_000.0) * self.k**2


def global_study(
    *, sizes: Sequence[int], replicates: int, entropy: int, truths: Sequence[str], ks: Sequence[int]
) -> Study:
    """Return the study that searches for the global maximum with every number of atoms on every data set.

    sizes       numbers of pairs
    replicates  data sets of each size
    entropy     seed of data and starts
    truths      names that ``truth`` knows, of published truths
    ks          numbers of atoms, each at least that of the truth
    """
    return Study(
        name=STUDY,
        cells=[GlobalCell(name, k, n) for name in truths for k in ks for n in sizes],
        replicates=replicates,
        entropy=entropy,
        run=knowing(run_cell, truths),
        identity={
            "truths_used": {name: plain(truth(name)) for name in truths},
            "options": asdict(OPTIONS),
        },
    )


def run_cell(cell: GlobalCell, replicates: tuple[int, ...], entropy: int) -> list[Row]:
    """Return the rows of one block, one per replicate."""
    known = truth(cell.truth)
    names: Row = {
        "study": STUDY,
        "truth": cell.truth,
        "truth_kind": known.kind,
        "kind": KIND,
        "k": cell.k,
        "k_true": known.k_true,
        "n_frozen": known.family.n_frozen,
        "fit_class": fit_class(known, Kind(KIND), cell.k),
        "n": cell.n,
    }
    return rows_of_searches(names, replicates, lambda number: search_row(cell, number, entropy), empty_errors)


def search_row(cell: GlobalCell, replicate: int, entropy: int) -> Row:
    """Return the columns of one row: the errors of the best fit, and what the search says of itself."""
    known, data = truth(cell.truth), sample(cell.truth, cell.n, entropy, replicate)
    family = Kind(KIND).family(known, cell.k)
    rng_of = lambda number: start_rng(entropy, cell.truth, cell.n, replicate, START, cell.k, number)
    found = grown(family, data, rng_of, OPTIONS)[-1]
    near = beside_the_truth(known, cell, data, replicate, entropy)
    near_nats = nats_above(near, found, near.certified)
    best = estimate(near, found, near_nats)
    return errors_of(best, cell.truth) | said(found, near_nats) | {"message": best.detail}


def beside_the_truth(known: Truth, cell: GlobalCell, data: Data, replicate: int, entropy: int) -> FitResult:
    """Return the fit from one published start, in the compact set that the search keeps to."""
    family = Kind(KIND).family(known, cell.k)
    rng = start_rng(entropy, cell.truth, cell.n, replicate, "near_truth", cell.k, 0)
    start = near_truth(known.params, known.k_true).draw(family, data, rng)
    return newton(family, data, start, OPTIONS.newton)

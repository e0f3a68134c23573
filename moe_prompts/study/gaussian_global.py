"""Study the global maximum of over-fitted Gaussian-gated likelihoods, as far as a search finds it.

There is one row per data set and number of atoms: the errors of the best certified fit of ``grown``, in how
many of how many starts and in which ways it was reached, how far below it the next summit lies, and what
starts that were held back found above it. One start beside the truth, as published, stands beside it: if it
ends higher, the search missed that summit, and it is the estimate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from moe_prompts.engine.grid import Row, Study
from moe_prompts.estimators.gaussian.global_search import GlobalOptions, grown
from moe_prompts.estimators.gaussian.newton import newton
from moe_prompts.estimators.gaussian.starts import near_truth
from moe_prompts.estimators.result import FitResult
from moe_prompts.estimators.stages import SAME_SUMMIT
from moe_prompts.estimators.summits import GlobalResult
from moe_prompts.models.added import knowing
from moe_prompts.models.data import Data
from moe_prompts.models.gaussian_truths import Truth, sample, truth
from moe_prompts.seeds import start_rng
from moe_prompts.study.gaussian import Kind, empty_errors, errors_of, fit_class, plain
from moe_prompts.study.rows import failed

KIND, START = "adaptive", "global"
OPTIONS = GlobalOptions(data_starts=6, growth=2, held_back=6)


@dataclass(frozen=True)
class GlobalCell:
    """Name searches with ``k`` atoms on n pairs from ``truth``."""

    truth: str
    k: int
    n: int

    @property
    def label(self) -> str:
        """Return the name of the cell."""
        return f"{self.truth}_global_k{self.k}_n{self.n}"

    @property
    def cost(self) -> float:
        """Return the expected cost, relative to that of other cells."""
        return (min(self.n, 50_000) + 0.05 * self.n + 5_000.0) * self.k**2

    @property
    def data_size(self) -> int:
        """Return the number of pairs in each of its data sets."""
        return self.n


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
        name="gaussian-global",
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
    """Return the rows of one block, one per replicate.

    A search that cannot be made is a row with the status FAILED (or RAISED) and the reason.
    """
    rows, known = [], truth(cell.truth)
    for replicate in replicates:
        fields: Row = {
            "study": "gaussian-global",
            "truth": cell.truth,
            "truth_kind": known.kind,
            "kind": KIND,
            "k": cell.k,
            "k_true": known.k_true,
            "n_frozen": known.family.n_frozen,
            "fit_class": fit_class(known, Kind(KIND), cell.k),
            "n": cell.n,
            "replicate": replicate,
            "start": START,
        }
        try:
            found, near = search_replicate(cell, replicate, entropy)
        except Exception as error:
            rows.append(fields | empty_errors() | failed(error))
        else:
            best = near if higher(near, found.best) else found.best
            rows.append(fields | errors_of(best, cell.truth) | said(found, near) | {"message": best.detail})
    return rows


def search_replicate(cell: GlobalCell, replicate: int, entropy: int) -> tuple[GlobalResult, FitResult]:
    """Return what the search of one row finds, and the fit from one start beside the truth."""
    known, data = truth(cell.truth), sample(cell.truth, cell.n, entropy, replicate)
    family = Kind(KIND).family(known, cell.k)
    rng_of = lambda number: start_rng(entropy, cell.truth, cell.n, replicate, START, cell.k, number)
    found = grown(family, data, rng_of, OPTIONS)[-1]
    return found, beside_the_truth(known, cell, data, replicate, entropy)


def beside_the_truth(known: Truth, cell: GlobalCell, data: Data, replicate: int, entropy: int) -> FitResult:
    """Return the fit from one published start, in the compact set that the search keeps to."""
    family = Kind(KIND).family(known, cell.k)
    rng = start_rng(entropy, cell.truth, cell.n, replicate, "near_truth", cell.k, 0)
    start = near_truth(known.params, known.k_true).draw(family, data, rng)
    return newton(family, data, start, OPTIONS.newton)


def said(found: GlobalResult, near: FitResult) -> Row:
    """Return the columns about the search: nats are those of certified fits, NaN where there is none."""
    return {
        "starts_tried": found.starts,
        "reached": found.reached,
        "ways": ", ".join(found.ways),
        "next_nats": found.next_nats,
        "held_back": found.held_back,
        "missed": found.missed,
        "missed_nats": found.missed_nats,
        "near_nats": near.log_likelihood - found.best.log_likelihood if near.certified else float("nan"),
    }


def higher(near: FitResult, best: FitResult) -> bool:
    """Say whether a fit is a certified summit above the best one."""
    return near.certified and near.log_likelihood > best.log_likelihood + SAME_SUMMIT

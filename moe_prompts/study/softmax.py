"""Study softmax-gated experts: certified fits beside the truth, and the rates of their parameters.

There is one row per fit. Fits start near the truth, so rates are those of the maximum next to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache

import numpy as np
import pandas as pd

from moe_prompts.engine.grid import BLOCK_SIZE, Row, Study
from moe_prompts.errors import InputError
from moe_prompts.estimators.result import FitResult
from moe_prompts.estimators.softmax.likelihood import SoftmaxOptions, softmax_newton
from moe_prompts.estimators.softmax.starts import published_start
from moe_prompts.losses.softmax_voronoi import SOFTMAX_GROUPS, UNIDENTIFIED, softmax_errors
from moe_prompts.models.added import knowing
from moe_prompts.models.data import HELD_PAIRS, Sample
from moe_prompts.models.softmax_truths import SoftmaxTruth, softmax_sample, softmax_truth
from moe_prompts.seeds import start_rng
from moe_prompts.study.rows import failed, outcome
from moe_prompts.study.summary import Measure, summarise

#: The model, and the word of its rows in the column ``study``.
MODEL = "softmax-gated"
KIND, START = "softmax", "near_truth"
OPTIONS = SoftmaxOptions()
D = Measure("D", "loss_intrinsic", "loss D")
SINGLETON = Measure("singleton", "singleton_error", "singleton")
SPLIT = Measure("split", "split_rms", "split", unpredicted=True)
MEASURES = (D, SINGLETON, SPLIT)


@dataclass(frozen=True)
class SoftmaxCell:
    """Name fits of ``k`` atoms to n pairs from ``truth``."""

    truth: str
    k: int
    n: int

    @property
    def label(self) -> str:
        """Return the name of the cell."""
        return f"{self.truth}_softmax_k{self.k}_n{self.n}"

    @property
    def cost(self) -> float:
        """Return the expected cost, relative to that of other cells."""
        return (self.n + 10_000.0) * self.k**2

    @property
    def data_size(self) -> int:
        """Return the number of pairs in each of its data sets."""
        return self.n


def softmax_study(
    *,
    sizes: Sequence[int],
    replicates: int,
    entropy: int,
    truths: Sequence[str] = ("sgame", "sgame-uniform"),
    ks: Sequence[int] = (2, 3),
) -> Study:
    """Return the study that fits every k to every truth, from near the truth.

    sizes       numbers of pairs
    replicates  data sets of each size
    entropy     seed of data and starts
    truths      names that ``softmax_truth`` knows
    ks          numbers of atoms, each at least that of the truth

    Raises ``InputError`` for n above ``HELD_PAIRS`` or below the number of parameters, and for k below that
    of the truth.
    """
    if max(sizes) > HELD_PAIRS:
        raise InputError(
            f"n = {max(sizes)}: softmax-gated fits hold all pairs in memory, at most {HELD_PAIRS}; lower --n (Gaussian "
            "gates and attention take n to 1e8)"
        )
    for name in truths:
        known = softmax_truth(name)
        if min(ks) < known.k_true:
            raise InputError(f"k = {min(ks)} atoms cannot sit at all {known.k_true} true ones of {name}; raise k")
        need = known.family(max(ks)).n_parameters
        if min(sizes) < need:
            raise InputError(f"n = {min(sizes)} is below the {need} parameters of {max(ks)} atoms; raise --n")
    return Study(
        name=MODEL,
        cells=[SoftmaxCell(name, k, n) for name in truths for k in ks for n in sizes],
        replicates=replicates,
        entropy=entropy,
        run=knowing(run_cell, truths),
        identity={
            "softmax_truths_used": {name: plain(softmax_truth(name)) for name in truths},
            "softmax_options": asdict(OPTIONS),
        },
    )


def plain(known: SoftmaxTruth) -> dict:
    """Return the parameters of a truth as lists, for the identity of a run."""
    return {name: getattr(known.params, name).tolist() for name in ("gate_intercepts", *SOFTMAX_GROUPS.values())}


@lru_cache(maxsize=2 * BLOCK_SIZE)
def _data(name: str, n: int, entropy: int, replicate: int) -> Sample:
    """Draw one data set; it is kept while the cells on the same data follow each other."""
    return softmax_sample(name, n, entropy, replicate)


def run_cell(cell: SoftmaxCell, replicates: tuple[int, ...], entropy: int) -> list[Row]:
    """Return the rows of one block, one per replicate.

    A fit that cannot be made is a row with the status FAILED (or RAISED) and the reason.
    """
    known, rows = softmax_truth(cell.truth), []
    for replicate in replicates:
        fields: Row = {
            "study": MODEL,
            "truth": cell.truth,
            "truth_kind": KIND,
            "kind": KIND,
            "k": cell.k,
            "k_true": known.k_true,
            "fit_class": "exact" if cell.k == known.k_true else "over",
            "n": cell.n,
            "replicate": replicate,
            "start": START,
        }
        rng = start_rng(entropy, cell.truth, cell.n, replicate, KIND, cell.k, 0)
        start = published_start(known.params, cell.k, cell.n, rng, as_published=False)
        try:
            fit = softmax_newton(known.family(cell.k), _data(cell.truth, cell.n, entropy, replicate), start, OPTIONS)
        except Exception as error:
            rows.append(fields | empty_errors() | failed(error))
        else:
            rows.append(fields | errors_of(fit, known) | {"message": fit.detail})
    return rows


def errors_of(fit: FitResult, known: SoftmaxTruth) -> Row:
    """Return every error of a fit as columns; NaN where an error is not defined."""
    errors = softmax_errors(fit.value, known.params)
    return {
        **outcome(fit),
        "loss_intrinsic": errors.loss("intrinsic"),
        "loss_published": errors.loss("published"),
        "notice": errors.notice,
        "mass_error": float(np.abs(errors.mass).sum()),
        "singleton_error": errors.singleton_error,
        "split_rms": errors.split_rms,
    }


def empty_errors() -> Row:
    """Return the columns of a fit that could not be made."""
    names = (
        *("gap_nats", "relative_lmin", "log_likelihood", "loss_intrinsic", "loss_published", "mass_error"),
        *("singleton_error", "split_rms"),
    )
    return {name: float("nan") for name in names} | {"iterations": 0, "notice": ""}


def summarise_softmax(results: pd.DataFrame, entropy: int) -> pd.DataFrame:
    """Return one line per truth, k and measure, as ``summary.summarise`` does.

    Fits whose gates are not identified are left out.
    """
    return summarise(results[results["notice"] == ""], MODEL, entropy, MEASURES, lambda _: KIND)


def notice_lines(results: pd.DataFrame) -> list[str]:
    """Return a line that says how many fits were left out of the slopes; no line if there are none."""
    count = int((results["notice"] == UNIDENTIFIED).sum())
    return [f"{count} of {len(results)} fits left out of the slopes: {UNIDENTIFIED}"] if count else []

"""Study how often merging the atoms of one over-fitted model tells how many experts there are.

There is one row per data set. A Gaussian-gated model with two atoms more than the truth is fitted from starts
that know the data only, its atoms are merged (``estimators.gaussian.merging``), and the row says what was
chosen, the loss of the model that was merged down to the true number, and the heights of the tree. Frozen
atoms of a truth are free here: nobody gives them away.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from moe_prompts.engine.grid import Row, Study
from moe_prompts.estimators.gaussian import starts
from moe_prompts.estimators.gaussian.merging import Choice, MergePath, choose_k, merge_path
from moe_prompts.estimators.gaussian.search import SearchOptions, best_of
from moe_prompts.losses.gaussian_voronoi import voronoi_loss
from moe_prompts.models.added import knowing
from moe_prompts.models.gaussian_gated import GaussianGatedFamily, GaussianGatedMoE
from moe_prompts.models.gaussian_truths import sample, truth
from moe_prompts.seeds import start_rng
from moe_prompts.study.gaussian import plain
from moe_prompts.study.rows import failed, outcome

#: Atoms of the fit beyond those of the truth, and starts from the data that each fit is the best of.
SURPLUS, STARTS = 2, 4
OPTIONS = SearchOptions()
#: Pairs that stand for the law of a truth, where its criterion is asked without the noise of a fit.
LAW_PAIRS, LAW_SEED = 200_000, 0


@dataclass(frozen=True)
class MergeCell:
    """Name fits with ``SURPLUS`` atoms too many to n pairs from ``truth``."""

    truth: str
    n: int

    @property
    def label(self) -> str:
        """Return the name of the cell."""
        return f"{self.truth}_merged_n{self.n}"

    @property
    def cost(self) -> float:
        """Return the expected cost, relative to that of other cells."""
        return self.n + 20_000.0

    @property
    def data_size(self) -> int:
        """Return the number of pairs in each of its data sets."""
        return self.n


def merging_study(
    *,
    sizes: Sequence[int],
    replicates: int,
    entropy: int,
    truths: Sequence[str],
    rescues: int = OPTIONS.rescues,
) -> Study:
    """Return the study of every truth at every size.

    sizes       numbers of pairs
    replicates  data sets of each size
    entropy     seed of data and starts
    truths      names that ``truth`` knows
    rescues     further starts, one at a time, while none has ended on a certificate
    """
    options = replace(OPTIONS, rescues=rescues)
    return Study(
        name="merging",
        cells=[MergeCell(name, n) for name in truths for n in sizes],
        replicates=replicates,
        entropy=entropy,
        run=knowing(partial(run_cell, options=options), truths),
        identity={
            "truths_used": {name: plain(truth(name)) for name in truths},
            "options": asdict(options) | {"surplus": SURPLUS, "starts": STARTS},
        },
    )


def run_cell(cell: MergeCell, replicates: tuple[int, ...], entropy: int, options: SearchOptions = OPTIONS) -> list[Row]:
    """Return the rows of one block, one per replicate.

    A fit that cannot be made is a row with the status FAILED (or RAISED) and the reason.
    """
    rows, known = [], truth(cell.truth).params
    k = known.k + SURPLUS
    for replicate in replicates:
        fields: Row = {
            "study": "merging",
            "truth": cell.truth,
            "truth_kind": "adaptive",
            "kind": "adaptive",
            "k": k,
            "k_true": known.k,
            "fit_class": "over",
            "n": cell.n,
            "replicate": replicate,
            "start": "data",
        }
        data = sample(cell.truth, cell.n, entropy, replicate)
        rng_of = lambda number: start_rng(entropy, cell.truth, cell.n, replicate, "merging", k, number)  # noqa: B023
        try:
            family = GaussianGatedFamily(known.d, known.l, k)
            fit = best_of(family, data, starts.data(STARTS), rng_of, options).best
            chosen = choose_k(fit, data)
        except Exception as error:
            rows.append(fields | _nothing() | failed(error))
        else:
            rows.append(fields | outcome(fit) | found(chosen, known) | {"message": fit.detail})
    return rows


def found(chosen: Choice[GaussianGatedMoE], known: GaussianGatedMoE) -> Row:
    """Return the columns of a choice, measured against the truth ``known``."""
    return {
        "chosen": chosen.k,
        "merged_loss": voronoi_loss(chosen.path.model(known.k), known),
        "fit_loss": voronoi_loss(chosen.path.models[0], known),
        "height_surplus": chosen.path.height(known.k + 1),
        "height_true": chosen.path.height(known.k),
    }


def _nothing() -> Row:
    """Return the columns of a fit that could not be made."""
    names = ("gap_nats", "relative_lmin", "log_likelihood", "merged_loss", "fit_loss", "height_surplus", "height_true")
    return {name: float("nan") for name in names} | {"iterations": 0, "chosen": 0}


def right_from(name: str) -> float:
    """Return the n from which the criterion of a truth itself, without a fit, chooses its number of atoms.

    The truth merged to k atoms has a height and a loss of log-likelihood per pair, KL(k). Its own number k*
    wins against every k from 2 to k* - 1 where

        log n > (height(k) - height(k*)) / KL(k).

    KL is a mean over ``LAW_PAIRS`` pairs drawn from the truth. The result is 1 where k* wins at every n.
    """
    known = truth(name).params
    law = known.sample(LAW_PAIRS, np.random.default_rng([LAW_SEED, known.k]))
    return size_from(merge_path(known), lambda model: model.log_density(law.x, law.y))


def size_from(path: MergePath, log_density: Callable[[Any], np.ndarray]) -> float:
    """Return the n from which the criterion on the tree of a truth is smallest at its own number of atoms.

    log_density  of a model of the tree at pairs that stand for the law of the truth
    """
    top = log_density(path.models[0]).mean()
    needed = [
        (path.height(k) - path.height(path.k)) / (top - log_density(path.model(k)).mean()) for k in range(2, path.k)
    ]
    return float(np.exp(max([0.0, *needed])))

"""Study how often merging the atoms of one over-fitted softmax-gated model tells how many experts there are.

There is one row per data set, as in ``study.merging``. The fit has k = 2 k* - 1 atoms, so that some true
atom has one of them to itself wherever the others go: where all are over-fitted, gates are not identified.
It grows from one atom, with starts that know the data only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from moe_prompts.engine.grid import Row, Study
from moe_prompts.estimators.gaussian.merging import Choice
from moe_prompts.estimators.softmax.global_search import steepness
from moe_prompts.estimators.softmax.merging import softmax_choose_k, softmax_merge_path
from moe_prompts.estimators.softmax.search import SoftmaxSearchOptions, softmax_grown
from moe_prompts.losses.softmax_voronoi import softmax_errors
from moe_prompts.models.added import knowing
from moe_prompts.models.data import Sample
from moe_prompts.models.softmax_gated import SoftmaxGatedMoE
from moe_prompts.models.softmax_truths import softmax_sample, softmax_truth
from moe_prompts.seeds import start_rng
from moe_prompts.study.merging import LAW_PAIRS, LAW_SEED, MergeCell, size_from
from moe_prompts.study.rows import failed, outcome
from moe_prompts.study.softmax import KIND, plain

STUDY, START = "softmax-merging", "data"
#: Starts at each number of atoms, and further ones while none has ended on a certificate.
STARTS = 6
OPTIONS = SoftmaxSearchOptions(rescues=32)


@dataclass(frozen=True)
class SoftmaxMergeCell(MergeCell):
    """Name fits with surplus atoms to n pairs from ``truth``."""

    @property
    def cost(self) -> float:
        """Return the expected cost, relative to that of other cells."""
        return (self.n + 20_000.0) * atoms_of(self.truth) ** 2


def atoms_of(name: str) -> int:
    """Return how many atoms the fits to a truth have: 2 k* - 1."""
    return 2 * softmax_truth(name).k_true - 1


def softmax_merging_study(*, sizes: Sequence[int], replicates: int, entropy: int, truths: Sequence[str]) -> Study:
    """Return the study of every truth at every size.

    sizes       numbers of pairs
    replicates  data sets of each size
    entropy     seed of data and starts
    truths      names that ``softmax_truth`` knows
    """
    return Study(
        name=STUDY,
        cells=[SoftmaxMergeCell(name, n) for name in truths for n in sizes],
        replicates=replicates,
        entropy=entropy,
        run=knowing(run_cell, truths),
        identity={
            "softmax_truths_used": {name: plain(softmax_truth(name)) for name in truths},
            "options": asdict(OPTIONS) | {"starts": STARTS},
        },
    )


def run_cell(cell: SoftmaxMergeCell, replicates: tuple[int, ...], entropy: int) -> list[Row]:
    """Return the rows of one block, one per replicate.

    A fit that cannot be made is a row with the status FAILED (or RAISED) and the reason.
    """
    rows, known, k = [], softmax_truth(cell.truth).params, atoms_of(cell.truth)
    for replicate in replicates:
        fields: Row = {
            "study": STUDY,
            "truth": cell.truth,
            "truth_kind": KIND,
            "kind": KIND,
            "k": k,
            "k_true": known.k,
            "fit_class": "over",
            "n": cell.n,
            "replicate": replicate,
            "start": START,
        }
        data = softmax_sample(cell.truth, cell.n, entropy, replicate)
        rng_of = lambda j, i: start_rng(entropy, cell.truth, cell.n, replicate, "merging", j, i)  # noqa: B023
        try:
            fit = softmax_grown(data, k, STARTS, rng_of, OPTIONS).best
            chosen = softmax_choose_k(fit, data)
        except Exception as error:
            rows.append(fields | _nothing() | failed(error))
        else:
            rows.append(fields | outcome(fit) | found(chosen, known, data) | {"message": fit.detail})
    return rows


def found(chosen: Choice[SoftmaxGatedMoE], known: SoftmaxGatedMoE, data: Sample) -> Row:
    """Return the columns of a choice, measured against the truth ``known``; losses are the intrinsic ones."""
    loss = lambda model: softmax_errors(model, known).loss("intrinsic")
    return {
        "chosen": chosen.k,
        "merged_loss": loss(chosen.path.model(known.k)),
        "fit_loss": loss(chosen.path.models[0]),
        "height_surplus": chosen.path.height(known.k + 1),
        "height_true": chosen.path.height(known.k),
        "steepness": steepness(chosen.path.models[0], data),
    }


def _nothing() -> Row:
    """Return the columns of a fit that could not be made."""
    names = (
        *("gap_nats", "relative_lmin", "log_likelihood", "merged_loss", "fit_loss", "height_surplus", "height_true"),
        "steepness",
    )
    return {name: float("nan") for name in names} | {"iterations": 0, "chosen": 0}


def softmax_right_from(name: str) -> float:
    """Return the n from which the criterion of a softmax-gated truth itself chooses its number of atoms.

    It is that of ``study.merging.right_from``.
    """
    known = softmax_truth(name)
    law = known.sample(LAW_PAIRS, np.random.default_rng([LAW_SEED, known.k_true]))
    return size_from(softmax_merge_path(known.params, law), lambda model: model.log_density(law))

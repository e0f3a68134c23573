"""Study regression by gated experts: as many as there are, and one more, by certified least squares.

Rows are fits, likelihood gaps and points of noise-free profiles, told apart by the column ``study`` in
the words of the study of attention, whose tables read them. A fit is the best certified minimum of starts
beside the truth and of starts that know the data only; two columns say what the best of either kind
misses, in nats.

Sigmoid gates that all have a slope cannot be split: with one expert more no parameters in the box have the
true f. Such fits are "misspecified", and their loss is that to the best of so many experts without noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache

import numpy as np

from moe_prompts.engine.grid import Row, Study
from moe_prompts.errors import InputError
from moe_prompts.estimators.experts.least_squares import (
    EXPERT_OPTIONS,
    data_start,
    fit_experts,
    near_experts,
    options_of,
    random_experts,
)
from moe_prompts.estimators.prompts.least_squares import SAME_MINIMUM
from moe_prompts.estimators.result import FitResult, SearchResult
from moe_prompts.losses.expert_voronoi import expert_errors
from moe_prompts.models.activations import said_of
from moe_prompts.models.added import knowing
from moe_prompts.models.data import RegressionData
from moe_prompts.models.expert_truths import ExpertTruth, expert_data, expert_truth
from moe_prompts.seeds import start_rng
from moe_prompts.study.attention import STUDY_FITS, STUDY_GAPS, STUDY_PROFILES
from moe_prompts.study.profiles import SPREAD, gap_rows, profile_rows
from moe_prompts.study.rows import failed, outcome

#: Starts beside the truth for each true expert that may be split, starts from the data, and random ones.
NEAR_STARTS, DATA_STARTS, RANDOM_STARTS = 1, 3, 1
#: Nats to which gaps are computed: they are compared with 5.
GAP_TOLERANCE = 1e-3
#: Blind starts of the search for the best fit without noise, and the pairs that stand for the population in
#: it.
BEST_STARTS, BEST_PAIRS, BEST_SEED = 24, 1_000_000, 0
#: What a fit has and a failed one has not.
ERRORS = (
    *("gap_nats", "relative_lmin", "log_likelihood", "risk", "l2", "loss", "mass_error", "singleton_error"),
    *("split_rms", "near_misses", "data_misses"),
)


@dataclass(frozen=True)
class ExpertCell:
    """Name fits of ``k`` experts to n pairs from ``truth``."""

    truth: str
    k: int
    n: int

    @property
    def label(self) -> str:
        """Return the name of the cell."""
        return f"{self.truth}_k{self.k}_n{self.n}"

    @property
    def cost(self) -> float:
        """Return the expected cost, relative to that of other cells."""
        return 1e4 * (10 if self.k > expert_truth(self.truth).k_true else 1)

    @property
    def data_size(self) -> int:
        """Return the number of pairs in each of its data sets."""
        return self.n

    def run(self, replicates: tuple[int, ...], entropy: int) -> list[Row]:
        """Return one row per replicate; where fits cannot be made, rows with a status and the reason."""
        known = expert_truth(self.truth)
        family = known.family(self.k)
        word = "exact" if self.k == known.k_true else "over" if known.can_split else "misspecified"
        fields = _common(STUDY_FITS, known, self.k) | {
            "fit_class": word,
            "n": self.n,
            "start": "near_truth and data",
            "n_parameters": family.n_parameters,
        }
        try:
            data = _data(self.truth, self.n, replicates, entropy)
            near = [near_starts(self, r, entropy) for r in replicates]
            blind = [blind_starts(self, one, r, entropy) for one, r in zip(data, replicates, strict=True)]
            options = options_of(family.gate)
            found = [fit_experts(family, data, starts, known.noise, options) for starts in (near, blind)]
        except Exception as error:
            empty = dict.fromkeys(ERRORS, float("nan")) | {"iterations": 0, "starts": 0}
            ended = failed(error)
            return [fields | {"replicate": replicate} | empty | ended for replicate in replicates]
        return [
            fields | {"replicate": r, "message": ""} | errors_of(beside, unaware, self)
            for r, beside, unaware in zip(replicates, *found, strict=True)
        ]


@dataclass(frozen=True)
class ExpertGapCell:
    """Name likelihood gaps, in nats, at spread ``SPREAD`` for one expert more than ``truth`` has.

    They are means that a few data sets tell: each costs as much as many fits.
    """

    truth: str
    n: int
    replicates: int = 8

    @property
    def label(self) -> str:
        """Return the name of the cell."""
        return f"{self.truth}_gap_n{self.n}"

    @property
    def cost(self) -> float:
        """Return the expected cost, relative to that of other cells."""
        return 1e5

    @property
    def data_size(self) -> int:
        """Return the number of pairs in each of its data sets."""
        return self.n

    def run(self, replicates: tuple[int, ...], entropy: int) -> list[Row]:
        """Return one row per replicate."""
        known, data = expert_truth(self.truth), _data(self.truth, self.n, replicates, entropy)
        options = replace(options_of(known.params.gate), tolerance=GAP_TOLERANCE)
        return gap_rows(known, data, replicates, entropy, options, _common(STUDY_GAPS, known, known.k_true + 1))


@dataclass(frozen=True)
class ExpertProfileCell:
    """Name the noise-free profiles of ``truth``, exact and with one expert too many, and its kappas."""

    truth: str
    replicates: int = 1
    data_size: int = 0

    @property
    def label(self) -> str:
        """Return the name of the cell."""
        return f"{self.truth}_profile"

    @property
    def cost(self) -> float:
        """Return the expected cost, relative to that of other cells."""
        return 1e6

    def run(self, replicates: tuple[int, ...], entropy: int) -> list[Row]:
        """Return one row per surplus and spread; they need no data."""
        known = expert_truth(self.truth)
        surpluses = (0, 1) if known.can_split else (0,)
        return profile_rows(known, entropy, lambda k: _common(STUDY_PROFILES, known, k), surpluses)


Cell = ExpertCell | ExpertGapCell | ExpertProfileCell


def experts_study(
    *,
    sizes: Sequence[int],
    replicates: int,
    entropy: int,
    ks: Mapping[str, Sequence[int]],
    gap_sizes: Sequence[int] = (),
) -> Study:
    """Return the study of some truths.

    sizes       numbers of pairs of fits
    replicates  data sets of each size
    entropy     seed of data and starts
    ks          truth -> numbers of experts that are fitted
    gap_sizes   numbers of pairs at which likelihood gaps are measured

    Raises ``InputError`` for unknown truths, for truths with both kinds of gates, and for n below the number
    of parameters of a fit.
    """
    cells: list[Cell] = []
    for name, counts in ks.items():
        for k in counts:
            need = expert_truth(name).family(k).n_parameters
            if min(sizes) < need:
                raise InputError(f"n = {min(sizes)} is below the {need} parameters of {k} experts of {name}; raise n")
            cells += [ExpertCell(name, k, n) for n in sizes]
    cells += [ExpertGapCell(name, n) for name in ks if expert_truth(name).can_split for n in gap_sizes]
    cells += [ExpertProfileCell(name) for name in ks]
    names = tuple(ks)
    gates = {expert_truth(name).params.gate for name in names}
    if len(gates) > 1:
        raise InputError("experts_study: truths with softmax and with sigmoid gates; expected one kind of gate")
    own = said_of(expert_truth(name).params.sigma for name in names)
    return Study(
        name="experts",
        cells=cells,
        replicates=replicates,
        entropy=entropy,
        run=knowing(run_cell, names),
        identity={
            "expert_truths_used": {name: _plain(expert_truth(name)) for name in names},
            "expert_options": asdict(options_of(gates.pop()) if gates else EXPERT_OPTIONS)
            | {"near": NEAR_STARTS, "data": DATA_STARTS, "random": RANDOM_STARTS, "spread": SPREAD},
        }
        | ({"expert_activations_used": own} if own else {}),
    )


def run_cell(cell: Cell, replicates: tuple[int, ...], entropy: int) -> list[Row]:
    """Return the rows of one block."""
    return cell.run(replicates, entropy)


def _plain(known: ExpertTruth) -> dict:
    params = known.params
    return {
        "kind": known.kind,
        "noise": known.noise,
        "cells": len(known.x),
        "b": params.b.tolist(),
        "atoms": params.atoms.tolist(),
    }


@lru_cache(maxsize=4)
def _data(truth: str, n: int, replicates: tuple[int, ...], entropy: int) -> list[RegressionData]:
    """Draw the data sets of a cell; they are kept while the cells on the same data follow each other."""
    return [expert_data(truth, n, entropy, replicate) for replicate in replicates]


def near_starts(cell: ExpertCell, replicate: int, entropy: int) -> np.ndarray:
    """Return the starts of one fit beside the truth, or the best fit where no parameters have its f."""
    known = expert_truth(cell.truth)
    if cell.k > known.k_true and not known.can_split:
        beside = best_of_more(cell.truth, cell.k).value
        rng = start_rng(entropy, cell.truth, cell.n, replicate, known.kind, cell.k, 0)
        return np.array([near_experts(beside, cell.k, 0, rng) for _ in range(NEAR_STARTS)])
    rng_of = lambda number: start_rng(entropy, cell.truth, cell.n, replicate, known.kind, cell.k, number)
    count = NEAR_STARTS * (known.k_true if cell.k > known.k_true else 1)
    return np.array([near_experts(known.params, cell.k, number, rng_of(number)) for number in range(count)])


def blind_starts(cell: ExpertCell, data: RegressionData, replicate: int, entropy: int) -> np.ndarray:
    """Return the starts of one fit that know its data only, and random ones."""
    known = expert_truth(cell.truth)
    family, box = known.family(cell.k), options_of(known.params.gate).box
    rng_of = lambda number: start_rng(entropy, cell.truth, cell.n, replicate, f"{known.kind} blind", cell.k, number)
    return np.array(
        [
            *(data_start(family, data, rng_of(number), box) for number in range(DATA_STARTS)),
            *(random_experts(family, rng_of(DATA_STARTS + number), box) for number in range(RANDOM_STARTS)),
        ]
    )


@lru_cache(maxsize=4)
def best_of_more(truth: str, k: int) -> FitResult:
    """Return the best fit of k experts to a truth without noise, of starts beside it and blind ones.

    truth  a named truth
    k      number of experts, above that of the truth

    It is a certified minimum that a search found, so that its distance to f is an upper bound of the least.
    """
    known = expert_truth(truth)
    family, options, population = known.family(k), options_of(known.params.gate), known.population(BEST_PAIRS)
    rng = np.random.default_rng(BEST_SEED)
    starts = [near_experts(known.params, k, number, rng) for number in range(2 * known.k_true)]
    for _ in range(BEST_STARTS // 2):
        starts += [data_start(family, population, rng, options.box), random_experts(family, rng, options.box)]
    (found,) = fit_experts(family, [population], [np.array(starts)], known.noise, options)
    return found.best


def _common(study: str, known: ExpertTruth, k: int) -> Row:
    return {
        "study": study,
        "truth": known.name,
        "truth_kind": known.kind,
        "kind": known.kind,
        "k": k,
        "k_true": known.k_true,
    }


def errors_of(beside: SearchResult, unaware: SearchResult, cell: ExpertCell) -> Row:
    """Return every error of the better of two searches as columns, and what either of them misses."""
    known = expert_truth(cell.truth)
    levels = [one.best.log_likelihood for one in (beside, unaware)]
    tied = [one for one, level in zip((beside, unaware), levels, strict=True) if level >= max(levels) - SAME_MINIMUM]
    fit = min(tied, key=lambda one: (not one.best.certified, -one.best.log_likelihood)).best
    risk = float(((fit.value.regression(known.x) - known.params.regression(known.x)) ** 2).mean())
    exists = cell.k == known.k_true or known.can_split
    errors = expert_errors(fit.value, known.params if exists else best_of_more(cell.truth, cell.k).value)
    return outcome(fit) | {
        "risk": risk,
        "l2": float(np.sqrt(risk)),
        "loss": errors.loss,
        "mass_error": errors.mass_error,
        "singleton_error": errors.singleton_error,
        "split_rms": errors.split_rms,
        "near_misses": max(levels) - levels[0],
        "data_misses": max(levels) - levels[1],
        "starts": beside.starts + unaware.starts,
    }

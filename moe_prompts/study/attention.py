"""Study prompts in attention: fixed, decoupled and adaptive ones beside the frozen experts of a head.

There are three sorts of rows, which the column ``study`` tells apart: ``attention`` (one per fit),
``attention-gap`` (nats lost by holding a split of given size, one per data set) and ``attention-profile``
(noise-free profiles, one per spread). All fits of a block are climbed together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache

import numpy as np

from moe_prompts.checks import one_of
from moe_prompts.engine.grid import Row, Study
from moe_prompts.errors import InputError
from moe_prompts.estimators.prompts.least_squares import (
    LeastSquaresOptions,
    least_squares,
    population_minima,
    random_start,
    vector_near_truth,
)
from moe_prompts.estimators.prompts.objective import PromptObjective
from moe_prompts.estimators.result import SearchResult
from moe_prompts.identifiability import by_biases
from moe_prompts.losses.prompt_voronoi import prompt_errors
from moe_prompts.models.activations import said_of
from moe_prompts.models.added import knowing
from moe_prompts.models.data import RegressionData
from moe_prompts.models.gaussian_truths import prompt_data
from moe_prompts.models.multi_head import MultiHead
from moe_prompts.models.prompt_attention import AnyHead, PromptFamily, PromptKind, ZeroInitialised
from moe_prompts.models.prompt_truths import PromptTruth, prompt_truth
from moe_prompts.models.zero_initialised import squared
from moe_prompts.seeds import start_rng
from moe_prompts.study.profiles import SPREAD, gap_rows, profile_rows
from moe_prompts.study.rows import failed, outcome

MODEL = "prompt-attention"
#: Words of the column ``study``: a row is a fit, a likelihood gap or a point of a noise-free profile.
STUDY_FITS, STUDY_GAPS, STUDY_PROFILES = "attention", "attention-gap", "attention-profile"
OPTIONS = LeastSquaresOptions()
#: Starts of a fit: near the truth (so many for each true prompt that may be split), or the best minima of the
#: noise-free problem, and random ones as an audit; random starts of the noise-free problem, noise on its
#: split ones.
NEAR_STARTS, PROJECTIONS, AUDITS, POPULATION_STARTS, SPLIT_NOISE = 2, 2, 2, 20, 0.01
#: Words of the column ``start``: so many random representations of a truth by a class that is singular there.
#: Fits from them are climbed in the coordinates of keys.
REPRESENTED = {"represented1": 1, "represented4": 4, "represented16": 16}
KEY_OPTIONS = LeastSquaresOptions(max_iterations=600)
#: How these starts are drawn (``represented_start``).
AT_MINIMUM, IN_TAIL, TAIL, NEAR, TRIES = 0.4, 0.15, -4.0, 0.03, 1_000
#: Sizes at which likelihood gaps decide.
GAP_SIZES = (10_000, 1_000_000)

#: Defined where fit and truth are of one kind; and all columns that a fit has and a failed one has not.
PARAMETER_ERRORS = (
    *("loss", "mass_error", "singleton_error", "split_rms", "barycentre_error", "w2_error", "factor_error"),
)
ERRORS = (
    *("gap_nats", "relative_lmin", "log_likelihood", "risk", "relative_risk", "l2", "gain", "start_share"),
    *("population_relative_risk", *PARAMETER_ERRORS),
)

#: What is fitted to each truth by default: (kind, numbers of prompts).
Lines = tuple[tuple[str, tuple[int, ...]], ...]
LINES: dict[str, Lines] = {
    "attention-fixed": (
        ("fixed", (2, 3)),
        ("decoupled", (2,)),
        ("adaptive:gelu", (2,)),
        ("adaptive:tanh", (2,)),
        ("adaptive:gelu:bias", (2,)),
    ),
    "attention-decoupled": (("decoupled", (2, 3)), ("fixed", (2,)), ("adaptive:gelu", (2,))),
    "attention-gelu": (("adaptive:gelu", (2, 3)), ("fixed", (2, 3, 4, 6, 8)), ("decoupled", (2, 4))),
    "attention-tanh": (("adaptive:tanh", (2, 3)),),
    "attention-relu": (("adaptive:relu", (2, 3)),),
    "attention-identity": (("adaptive:identity", (2, 3)),),
    "attention-fixed-rank1": (("fixed", (2, 3)),),
    "attention-gelu-rank1": (("adaptive:gelu", (2, 3)),),
}
QUICK_LINES: dict[str, Lines] = {
    "attention-fixed": (("fixed", (2, 3)),),
    "attention-decoupled": (("decoupled", (2, 3)),),
    "attention-gelu": (("adaptive:gelu", (2, 3)), ("fixed", (2,))),
}
RANDOM_TRUTHS = tuple(f"attention-random-{n}-{kind}" for n in (1, 2, 3) for kind in ("fixed", "gelu", "tanh"))


def fit_class(of: PromptTruth, kind: PromptKind, k: int) -> str:
    """Return how the fitted family stands to the truth, in the words of the predictions.

    "exact", "over" (the same kind with more prompts), "contained" (a larger kind that contains the truth) or
    "misspecified" (no prompt of this family is the truth).
    """
    true = of.params.kind
    if k < of.k_true:
        return "misspecified"
    if kind == true:
        return "exact" if k == of.k_true else "over"
    hidden = of.family(kind, k).hidden
    any_constant = kind.base == "decoupled" or (kind.bias and (kind.sigma == "identity" or of.k_true <= hidden))
    constants = (true.base == "fixed" and any_constant) or (true.base == "prefix" and kind.base == "decoupled")
    without_bias = kind.bias and kind.sigma == true.sigma
    return "contained" if constants or without_bias else "misspecified"


@dataclass(frozen=True)
class AttentionCell:
    """Name fits of ``k`` prompts of ``kind`` to n pairs from ``truth``, from starts of the kind ``start``."""

    truth: str
    kind: str
    k: int
    n: int
    start: str

    @property
    def label(self) -> str:
        """Return the name of the cell."""
        return f"{self.truth}_{self.kind.replace(':', '-')}_k{self.k}_{self.start}_n{self.n}"

    @property
    def cost(self) -> float:
        """Return the expected cost, relative to that of other cells."""
        family = prompt_truth(self.truth).family(PromptKind.parse(self.kind), self.k)
        easy = fit_class(prompt_truth(self.truth), family.kind, self.k) == "exact" or self.kind == "fixed"
        return family.size * (3e3 if easy else 15e3)

    @property
    def data_size(self) -> int:
        """Return the number of pairs in each of its data sets."""
        return self.n

    def run(self, replicates: tuple[int, ...], entropy: int) -> list[Row]:
        """Return the rows of the cell."""
        return fit_rows(self, replicates, entropy)


@dataclass(frozen=True)
class GapCell:
    """Name likelihood gaps, in nats, at spread ``SPREAD`` for one prompt more than ``truth`` has."""

    truth: str
    n: int

    @property
    def label(self) -> str:
        """Return the name of the cell."""
        return f"{self.truth}_gap_n{self.n}"

    @property
    def cost(self) -> float:
        """Return the expected cost, relative to that of other cells."""
        return 10e3 * prompt_truth(self.truth).params.family.size

    @property
    def data_size(self) -> int:
        """Return the number of pairs in each of its data sets."""
        return self.n

    def run(self, replicates: tuple[int, ...], entropy: int) -> list[Row]:
        """Return the rows of the cell."""
        known, data = prompt_truth(self.truth), _data(self.truth, self.n, replicates, entropy)
        common = _common(STUDY_GAPS, known, known.params.kind, known.k_true + 1)
        return gap_rows(known, data, replicates, entropy, OPTIONS, common)


@dataclass(frozen=True)
class ProfileCell:
    """Name the noise-free profiles of ``truth``, exact and with one prompt too many, and its kappas.

    They need no data and have one replicate.
    """

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
        return 100e3 * prompt_truth(self.truth).params.family.size

    def run(self, replicates: tuple[int, ...], entropy: int) -> list[Row]:
        """Return the rows of the cell."""
        known = prompt_truth(self.truth)
        return profile_rows(known, entropy, lambda k: _common(STUDY_PROFILES, known, known.params.kind, k))


def attention_study(
    *,
    sizes: Sequence[int],
    replicates: int,
    entropy: int,
    truths: Sequence[str] | None = None,
    lines: Mapping[str, Lines] = LINES,
    kinds: Sequence[str] | None = None,
    ks: Sequence[int] | None = None,
    start: str | None = None,
) -> Study:
    """Return the study of the fits that ``lines`` lists, with gaps and profiles of each truth.

    Fits start near the truth where their kind is the truth's. Otherwise they start at the best minima of the
    noise-free problem ("projection").

    sizes       numbers of pairs
    replicates  data sets of each size
    entropy     seed of data and starts
    truths      names; truths without lines get their own kind, exact and with one prompt too many
    lines       truth -> kinds and numbers of prompts that are fitted
    kinds       in place of the kinds of the lines, for every truth
    ks          in place of the numbers of prompts of the lines
    start       "near_truth" changes nothing; with "random" all fits start at random

    Raises ``InputError`` for unknown names, and for n below the number of parameters of a fit.
    """
    if start is not None:
        one_of(start, ("near_truth", "random"), "start of prompts in attention")
    if ks is not None and min(ks) < 1:
        raise InputError(f"k = {min(ks)}; expected at least 1 prompt")
    asked = None if kinds is None else [PromptKind.parse(kind) for kind in kinds]
    fits: list[AttentionCell] = []
    names = tuple(lines) if truths is None else tuple(truths)
    for name in names:
        known = prompt_truth(name)
        own: Lines = lines.get(name, ((str(known.params.kind), (known.k_true, known.k_true + 1)),))
        default = {PromptKind.parse(kind): counts for kind, counts in own}
        for kind in asked or default:
            for k in ks or default.get(kind, (known.k_true,)):
                same = kind == known.params.kind and k >= known.k_true
                chosen = "random" if start == "random" else "near_truth" if same else "projection"
                fits += [AttentionCell(name, str(kind), k, n, chosen) for n in sizes]
    for cell in fits:
        need = prompt_truth(cell.truth).family(PromptKind.parse(cell.kind), cell.k).n_parameters
        if cell.n < need:
            raise InputError(f"n = {cell.n} is below the {need} parameters of {cell.k} {cell.kind} prompts; raise --n")
    return _study(STUDY_FITS, [*fits, *identifiability_cells(names, sizes)], names, replicates, entropy)


def identifiability_study(*, truths: Sequence[str], sizes: Sequence[int], replicates: int, entropy: int) -> Study:
    """Return the study of gaps and profiles alone; arguments are those of ``attention_study``."""
    return _study("identifiability", identifiability_cells(truths, sizes), truths, replicates, entropy)


def identifiability_cells(truths: Sequence[str], sizes: Sequence[int]) -> list[GapCell | ProfileCell]:
    """Return the cells of gaps and profiles for some truths.

    Gaps are measured at those of ``sizes`` that lie in ``GAP_SIZES``, or at all sizes if none does.
    """
    low, high = GAP_SIZES
    deciding = [n for n in sizes if low <= n <= high] or list(sizes)
    return [*(GapCell(name, n) for name in truths for n in deciding), *(ProfileCell(name) for name in truths)]


def _study(
    name: str,
    cells: Sequence[AttentionCell | GapCell | ProfileCell],
    names: Sequence[str],
    replicates: int,
    entropy: int,
) -> Study:
    kinds = {str(prompt_truth(name).params.kind) for name in names}
    kinds |= {cell.kind for cell in cells if isinstance(cell, AttentionCell)}
    own = said_of(part for kind in kinds for part in kind.split(":"))
    return Study(
        name=name,
        cells=cells,
        replicates=replicates,
        entropy=entropy,
        run=knowing(run_cell, names),
        identity={
            "prompt_truths_used": {name: _plain(prompt_truth(name)) for name in names},
            "prompt_options": asdict(OPTIONS) | {"spread": SPREAD},
        }
        | ({"prompt_activations_used": own} if own else {}),
    )


def run_cell(cell: AttentionCell | GapCell | ProfileCell, replicates: tuple[int, ...], entropy: int) -> list[Row]:
    """Return the rows of one block."""
    return cell.run(replicates, entropy)


def _plain_head(head: AnyHead) -> dict:
    """Return the numbers of a head, or those of several heads one by one with their output projection."""
    if isinstance(head, ZeroInitialised):
        return {"zero_initialised": _plain_head(head.head)}
    numbers = {name: value for name, value in vars(head).items() if name != "heads"}
    plain = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in numbers.items()}
    return plain | {"heads": [_plain_head(one) for one in head.heads]} if isinstance(head, MultiHead) else plain


def _plain(known: PromptTruth) -> dict:
    params = known.params
    return {
        "kind": str(params.kind),
        "noise": known.noise,
        "cells": len(known.x),
        "head": _plain_head(params.head),
        "b": params.b.tolist(),
        "atoms": params.atoms.tolist(),
        "W2": params.W2.tolist(),
    } | ({"factor": params.factor.tolist()} if params.factor.size else {})


@lru_cache(maxsize=4)
def _data(truth: str, n: int, replicates: tuple[int, ...], entropy: int) -> list[RegressionData]:
    """Draw the data sets of a cell; they are kept while the cells on the same data follow each other."""
    return [prompt_data(truth, n, entropy, replicate) for replicate in replicates]


@lru_cache(maxsize=64)
def projections(truth: str, kind: str, k: int, entropy: int) -> tuple[np.ndarray, float]:
    """Return the best minima of the noise-free problem, and E |f - f*|^2 of the best one.

    The minima are vectors (``PROJECTIONS``, size). The search starts at random, and at the best fit of one
    prompt less with each of its prompts split.
    """
    known = prompt_truth(truth)
    family = known.family(PromptKind.parse(kind), k)
    population = known.population(10_000)
    also: list[np.ndarray] = []
    if k > 1:
        fewer = family.with_k(k - 1).unpack(projections(truth, kind, k - 1, entropy)[0][0])
        also = [fewer.chosen([*range(k - 1), prompt]).vector for prompt in range(k - 1)]
    rng = start_rng(entropy, truth, 0, 0, kind, k, 0)
    # Exactly split, a minimum is a saddle that no step leaves.
    also = [vector + SPLIT_NOISE * rng.standard_normal(len(vector)) for vector in also]
    found = population_minima(family, population, known.noise, rng, POPULATION_STARTS, OPTIONS, also)
    return found.vectors[:PROJECTIONS], max(2 * known.noise**2 * float(found.values[0]) / population.n, 0.0)


def fit_rows(cell: AttentionCell, replicates: tuple[int, ...], entropy: int) -> list[Row]:
    """Return one row per replicate of the fits of a cell.

    Where the fits of a block cannot be made, the rows have the status FAILED (or RAISED) and the reason.
    """
    known, kind = prompt_truth(cell.truth), PromptKind.parse(cell.kind)
    family, word = known.family(kind, cell.k), fit_class(known, kind, cell.k)
    fields = _common(STUDY_FITS, known, kind, cell.k) | {
        "fit_class": word,
        "n": cell.n,
        "start": cell.start,
        "n_parameters": family.n_parameters,
    }
    try:
        data = _data(cell.truth, cell.n, replicates, entropy)
        starts = [_starts(cell, family, known, replicate, entropy) for replicate in replicates]
        keys = cell.start in REPRESENTED
        found = least_squares(family, data, starts, known.noise, KEY_OPTIONS if keys else OPTIONS, keys)
    except Exception as error:
        empty = dict.fromkeys(ERRORS, float("nan")) | {"iterations": 0, "starts": 0}
        ended = failed(error)
        return [fields | {"replicate": replicate} | empty | ended for replicate in replicates]
    at_truth = PromptObjective(known.params.family, data, known.noise).at(
        np.tile(known.params.vector, (len(data), 1)), np.arange(len(data))
    )
    own = word in ("exact", "over") or keys
    floor = 0.0 if own else projections(cell.truth, cell.kind, cell.k, entropy)[1]
    signal = known.signal
    return [
        fields
        | {"replicate": replicate, "starts": one.starts, "start_share": one.share, "message": ""}
        | errors_of(one, known)
        | {"gain": one.best.log_likelihood + float(level), "population_relative_risk": floor / signal}
        for replicate, one, level in zip(replicates, found, at_truth.value, strict=True)
    ]


def _starts(cell: AttentionCell, family: PromptFamily, known: PromptTruth, replicate: int, entropy: int) -> np.ndarray:
    rng_of = lambda number: start_rng(entropy, cell.truth, cell.n, replicate, cell.kind, cell.k, number)
    if cell.start in REPRESENTED:
        return np.array([represented_start(known, family, n, rng_of(n)) for n in range(REPRESENTED[cell.start])])
    if cell.start == "near_truth":
        over = cell.k > known.k_true
        count = NEAR_STARTS * known.k_true if over else NEAR_STARTS
        first = [vector_near_truth(known.params, cell.k, number, rng_of(number)) for number in range(count)]
        head, enough = known.params.head, cell.k >= known.k_true * (known.k_true + 1) // 2
        linear = isinstance(head, ZeroInitialised) and known.params.kind.base == "fixed" and not head.head.c.any()
        if linear and enough:
            # Far away stand other parameters with the same f: a start beside each of the two that are known.
            other = squared(known.params)
            first += [vector_near_truth(other, cell.k, number, rng_of(100 + number)) for number in range(count)]
    elif cell.start == "projection":
        first = list(projections(cell.truth, cell.kind, cell.k, entropy)[0])
    else:
        first = [random_start(family, rng_of(number), OPTIONS.box) for number in range(2 * AUDITS)]
    audits = [random_start(family, rng_of(len(first) + number), OPTIONS.box) for number in range(AUDITS)]
    return np.array([*first, *audits])


def represented_start(known: PromptTruth, family: PromptFamily, number: int, rng: np.random.Generator) -> np.ndarray:
    """Return a start (size,) near a random representation of a truth of fixed prompts with its W2 in the box.

    known   truth of fixed prompts
    family  adaptive prompts with a bias, as many as the truth has
    number  of the start: with an even one biases are standard normal; with an odd one they are twice that,
            and each is moved to the minimum of sigma (probability ``AT_MINIMUM``), where a unit bends at
            second order, or to ``TAIL`` with a weight for x (``IN_TAIL``), where sigma is small and bent
    rng     source of the start

    Raises ``InputError`` where no representation in the box is found.
    """
    low, high = OPTIONS.box.theta
    grid = np.linspace(low, high, 10_001)
    lowest = grid[np.argmin(family.kind.activation.value(grid))]
    for _ in range(TRIES):
        biases = (1 + number % 2) * rng.standard_normal((family.k, family.hidden))
        share = rng.random(biases.shape)
        tail = np.zeros(biases.shape, dtype=bool)
        if number % 2:
            tail = (share >= AT_MINIMUM) & (share < AT_MINIMUM + IN_TAIL)
            biases = np.where(share < AT_MINIMUM, lowest, np.where(tail, TAIL, biases))
        params = by_biases(known, family.kind, biases)
        exact = np.abs(family.kind.activation.value(biases) @ params.W2.T - known.params.atoms).max() < 1e-9
        vector = params.vector.copy()
        if exact and np.all((vector[family.k :] >= low) & (vector[family.k :] <= high)):
            weights = vector[family.k : family.w2_slot.start].reshape(*biases.shape, -1)[:, :, :-1]
            weights[tail] = rng.standard_normal(weights[tail].shape)
            return np.clip(vector + NEAR * rng.standard_normal(family.size), *OPTIONS.box.bounds(family))
    raise InputError(f"{known.name} as {family.kind} prompts: no representation in the box in {TRIES} draws")


def _common(study: str, known: PromptTruth, kind: PromptKind, k: int) -> Row:
    return {
        "study": study,
        "truth": known.name,
        "truth_kind": known.kind,
        "kind": str(kind),
        "k": k,
        "k_true": known.k_true,
        "n_frozen": known.params.head.n_frozen,
    }


def errors_of(found: SearchResult, known: PromptTruth) -> Row:
    """Return every error of a fit as columns; NaN where an error is not defined."""
    fit = found.best
    risk = float(((fit.value.regression(known.x) - known.params.regression(known.x)) ** 2).sum(axis=1).mean())
    row: Row = {
        **outcome(fit),
        "risk": risk,
        "relative_risk": risk / known.signal,
        "l2": float(np.sqrt(risk)),
    }
    if fit.value.kind != known.params.kind:
        return row | dict.fromkeys(PARAMETER_ERRORS, float("nan"))
    errors = prompt_errors(fit.value, known.params)
    return row | {name: float(getattr(errors, name)) for name in PARAMETER_ERRORS}

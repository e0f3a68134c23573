"""Run two published simulations again: their own procedure, its start, and certified fits of their data.

One cell is one truth, k and n; each replicate gives one row per procedure, all on the same data:

    start           where the published procedure begins
    published       where it ends. Gaussian gates: one EM step. Softmax gates: EM until the log-likelihood
                    changes by less than 1e-6 of itself, the likeliest of 5 tries where k > 2
    certified       certified maximum likelihood from the same starts
    certified-data  the same from starts that know the data only

Losses are those of the papers beside the intrinsic one; of softmax gates also the smallest over translations.

Source: arXiv 2305.07572 (``gmoe``) and arXiv 2305.03288 (``sgame``), simulations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from moe_prompts.engine.grid import Row, Study
from moe_prompts.errors import InputError
from moe_prompts.estimators.gaussian import starts
from moe_prompts.estimators.gaussian.em import em
from moe_prompts.estimators.gaussian.search import best_of
from moe_prompts.estimators.result import FitResult, SearchResult
from moe_prompts.estimators.softmax.likelihood import SoftmaxOptions, softmax_em
from moe_prompts.estimators.softmax.search import SoftmaxSearchOptions, softmax_best_of, softmax_from_data
from moe_prompts.estimators.softmax.starts import published_start
from moe_prompts.estimators.trust_region import EMOptions
from moe_prompts.losses.gaussian_voronoi import voronoi_errors
from moe_prompts.losses.softmax_voronoi import softmax_errors
from moe_prompts.models.gaussian_gated import GaussianGatedMoE
from moe_prompts.models.gaussian_truths import sample, truth
from moe_prompts.models.softmax_gated import SoftmaxGatedMoE
from moe_prompts.models.softmax_truths import softmax_sample, softmax_truth
from moe_prompts.seeds import start_rng
from moe_prompts.study.gaussian import OPTIONS as GAUSSIAN_OPTIONS
from moe_prompts.study.rows import failed, outcome

PROCEDURES = ("start", "published", "certified", "certified-data")
#: Atoms fitted and replicates, as published.
PUBLISHED_K = {"gmoe": (4, 5), "sgame": (2, 3, 4)}
PUBLISHED_REPLICATES = {"gmoe": 20, "sgame": 40}
REPLICATES = {"gmoe": 20, "sgame": 8}
MODELS = (1, 2, 3, 4)
#: Sizes of the default run, even in log n over the published ones: two and a half in a decade, three where
#: the paper has one decade only.
THINNED, THINNED_DECADE = 8, 3
ONE_STEP = EMOptions(max_iterations=1, certify=False)
NO_STEP = EMOptions(max_iterations=0, certify=False)
TO_SMALL_CHANGE = EMOptions(certify=False, relative_change=1e-6)
#: Beside the truth atoms may become as narrow as they like, as published.
NEAR_TRUTH = SoftmaxSearchOptions(rescues=0, newton=SoftmaxOptions())
FROM_DATA = SoftmaxSearchOptions()
DATA_STARTS = 4
ERRORS = ("loss_published", "loss_translated", "loss_intrinsic", "log_likelihood", "gap_nats", "relative_lmin")


def published_sizes(paper: str, k: int) -> list[int]:
    """Return the sample sizes of the paper's own figure, ascending."""
    if paper == "gmoe":
        sizes = [*np.linspace(100, 500, 5), *np.linspace(500, 1e5, 95)]
    elif k == 2:
        sizes = [*np.linspace(100, 900, 5), *np.linspace(1000, 1e5, 195)]
    else:
        sizes = list(np.linspace(1e4, 1e5, 200))
    return sorted({int(n) for n in sizes})


def thinned_sizes(paper: str, k: int) -> list[int]:
    """Return the published sizes nearest to a few ones spread evenly in log n, ends included."""
    sizes = np.array(published_sizes(paper, k))
    wanted = np.geomspace(sizes[0], sizes[-1], THINNED if sizes[-1] > 10 * sizes[0] else THINNED_DECADE)
    return sorted({int(sizes[np.abs(np.log(sizes / n)).argmin()]) for n in wanted})


@dataclass(frozen=True)
class ReplicationCell:
    """Name the fits of some ``procedures`` with ``k`` atoms to n pairs from ``truth``."""

    paper: str
    truth: str
    k: int
    n: int
    procedures: tuple[str, ...] = PROCEDURES

    @property
    def label(self) -> str:
        """Return the name of the cell."""
        some = "" if self.procedures == PROCEDURES else "_" + "+".join(self.procedures)
        return f"{self.truth}_k{self.k}_n{self.n}{some}"

    @property
    def cost(self) -> float:
        """Return the expected cost, relative to that of other cells."""
        return (self.n + 20_000.0) * (self.k - 1)

    @property
    def data_size(self) -> int:
        """Return the number of pairs in each of its data sets."""
        return self.n


def replication_study(
    paper: str,
    *,
    models: Sequence[int] | None = None,
    ks: Sequence[int] | None = None,
    sizes: Sequence[int] | None = None,
    every_size: bool = False,
    replicates: int | None = None,
    entropy: int = 0,
    procedures: Sequence[str] = PROCEDURES,
) -> Study:
    """Return the study that runs the simulation of ``paper`` again.

    Its table goes to ``replication_report.summarise_replication``.

    paper       "gmoe" or "sgame"
    models      of "gmoe": truths ``gmoe-1`` to ``gmoe-4`` (default all); "sgame" has one truth and takes none
    ks          numbers of atoms (default as published)
    sizes       numbers of pairs, at least 100; by default some of the published ones (``thinned_sizes``)
    every_size  use all published sizes
    replicates  default 20 for "gmoe", as published, and 8 for "sgame" (published: 40)
    entropy     seed of data and starts
    procedures  some of ``PROCEDURES``

    Raises ``InputError`` for unknown names, and for k or n below what the published procedure can start from.
    """
    if paper not in PUBLISHED_K:
        raise InputError(f"unknown paper {paper!r}; expected one of {', '.join(PUBLISHED_K)}")
    if paper == "sgame" and models is not None:
        raise InputError("the paper sgame has one model; leave --models out")
    unknown_models = [model for model in models or () if model not in MODELS]
    if unknown_models:
        raise InputError(f"models {unknown_models}; expected some of {', '.join(map(str, MODELS))}")
    truths = [truth(f"gmoe-{model}").name for model in models or MODELS] if paper == "gmoe" else ["sgame"]
    k_true = {"gmoe": 3, "sgame": 2}[paper]
    ks = PUBLISHED_K[paper] if ks is None else ks
    unknown = [name for name in procedures if name not in PROCEDURES]
    if unknown or not procedures:
        raise InputError(f"procedures = {', '.join(procedures)}; expected some of {', '.join(PROCEDURES)}")
    if min(ks) < k_true:
        raise InputError(f"k = {min(ks)}; the published start of {paper} needs at least {k_true} atoms")

    def sizes_for(k: int) -> Sequence[int]:
        if sizes is not None:
            return sizes
        return published_sizes(paper, k) if every_size else thinned_sizes(paper, k)

    cells = [ReplicationCell(paper, name, k, n, tuple(procedures)) for name in truths for k in ks for n in sizes_for(k)]
    if cells and min(cell.n for cell in cells) < 100:
        raise InputError(f"n = {min(cell.n for cell in cells)}; expected at least 100 pairs, as published")
    return Study(
        name=f"replicate-{paper}",
        cells=cells,
        replicates=replicates or REPLICATES[paper],
        entropy=entropy,
        run=run_cell,
        identity={"options": _options(paper)},
        describe={"truths": truths},
    )


def _options(paper: str) -> dict[str, Any]:
    if paper == "gmoe":
        near, data = (asdict(GAUSSIAN_OPTIONS[name]) for name in ("near_truth", "data"))
        published = asdict(ONE_STEP)
    else:
        near, data, published = asdict(NEAR_TRUTH), asdict(FROM_DATA), asdict(TO_SMALL_CHANGE)
    return {"published": published, "certified": near, "certified-data": data, "data_starts": DATA_STARTS}


def tries(paper: str, k: int) -> int:
    """Return how many starts the published procedure takes."""
    return 5 if paper == "sgame" and k > 2 else 1


# Rows ----------------------------------------------------------------------------------------------


def run_cell(cell: ReplicationCell, replicates: tuple[int, ...], entropy: int) -> list[Row]:
    """Return the rows of one block, ``PROCEDURES`` in order.

    A fit that cannot be made is a row with the status FAILED (or RAISED) and the reason.
    """
    fits, errors_of = (gmoe_fits, gmoe_errors) if cell.paper == "gmoe" else (sgame_fits, sgame_errors)
    rows = []
    for replicate in replicates:
        ready = fits(cell, replicate, entropy)
        for procedure in cell.procedures:
            fields: Row = {
                "study": f"replicate-{cell.paper}",
                "paper": cell.paper,
                "truth": cell.truth,
                "k": cell.k,
                "n": cell.n,
                "replicate": replicate,
                "procedure": procedure,
            }
            try:
                found = ready[procedure]()
                rows.append(fields | columns(found) | errors_of(cell, procedure, found.best))
            except Exception as error:
                rows.append(fields | _empty() | failed(error))
    return rows


Fits = dict[str, Callable[[], SearchResult]]


def columns(found: SearchResult) -> Row:
    """Return how a fit ended, and how many starts it took, as columns."""
    fit = found.best
    return {
        **outcome(fit),
        "starts_tried": found.starts,
        "start_share": found.share,
        "message": fit.detail,
    }


def _empty() -> Row:
    """Return the columns of a fit that could not be made."""
    row: Row = dict.fromkeys(ERRORS, float("nan"))
    return row | {
        "iterations": 0,
        "starts_tried": 0,
        "start_share": float("nan"),
        "gate_identified": False,
        "notice": "",
    }


# Gaussian gates ------------------------------------------------------------------------------------


def gmoe_fits(cell: ReplicationCell, replicate: int, entropy: int) -> Fits:
    """Return the fits of one data set, by procedure and not yet computed.

    Their seeds are addressed as in the study of Gaussian gates.
    """
    known = truth(cell.truth)
    family = known.family_with(cell.k, "affine")
    data = sample(cell.truth, cell.n, entropy, replicate)
    rng_of = lambda number: start_rng(entropy, cell.truth, cell.n, replicate, "adaptive", cell.k, number)
    near = starts.near_truth(known.params)
    begin = near.draw(family, data, rng_of(0))
    return {
        "start": lambda: SearchResult(em(family, data, begin, NO_STEP), 1, 1.0),
        "published": lambda: SearchResult(em(family, data, begin, ONE_STEP), 1, 1.0),
        "certified": lambda: best_of(family, data, near, rng_of, GAUSSIAN_OPTIONS["near_truth"]),
        "certified-data": lambda: best_of(family, data, starts.data(DATA_STARTS), rng_of, GAUSSIAN_OPTIONS["data"]),
    }


def gmoe_errors(cell: ReplicationCell, procedure: str, fit: FitResult) -> Row:
    """Return the losses of a fit; the published loss is of type II where some c* = 0, else of type I."""
    known: GaussianGatedMoE = truth(cell.truth).params
    errors = voronoi_errors(fit.value, known)
    return {
        "loss_published": errors.loss("type2" if errors.centred.any() else "type1"),
        "loss_translated": float("nan"),
        "loss_intrinsic": errors.loss("intrinsic"),
        "gate_identified": True,
        "notice": "",
    }


# Softmax gates -------------------------------------------------------------------------------------


def sgame_fits(cell: ReplicationCell, replicate: int, entropy: int) -> Fits:
    """Return the fits of one data set, by procedure and not yet computed.

    The row ``start`` is the start of the try that ``published`` chooses.
    """
    known = softmax_truth(cell.truth)
    family = known.family(cell.k)
    data = softmax_sample(cell.truth, cell.n, entropy, replicate)
    rng_of = lambda number: start_rng(entropy, cell.truth, cell.n, replicate, "published", cell.k, number)
    draw = lambda rng: published_start(known.params, cell.k, cell.n, rng)
    count = tries(cell.paper, cell.k)

    @lru_cache(maxsize=1)
    def likeliest() -> tuple[SoftmaxGatedMoE, FitResult]:
        begins = [draw(rng_of(number)) for number in range(count)]
        ended = [(begin, softmax_em(family, data, begin, TO_SMALL_CHANGE)) for begin in begins]
        return max(ended, key=lambda pair: np.nan_to_num(pair[1].log_likelihood, nan=-np.inf))

    return {
        "start": lambda: SearchResult(softmax_em(family, data, likeliest()[0], NO_STEP), 1, 1.0),
        "published": lambda: SearchResult(likeliest()[1], count, 1 / count),
        "certified": lambda: softmax_best_of(family, data, draw, count, rng_of, NEAR_TRUTH),
        "certified-data": lambda: from_data(cell.truth, cell.n, replicate, entropy, cell.k),
    }


@lru_cache(maxsize=3 * PUBLISHED_REPLICATES["sgame"])
def from_data(name: str, n: int, replicate: int, entropy: int, k: int) -> SearchResult:
    """Return the certified fit of ``k`` atoms from starts that know the data only.

    Surplus atoms begin as halves of the atoms of the fit with one atom less. That fit is kept for the cell
    that asks for it.
    """
    smaller = None
    if k > softmax_truth(name).k_true:
        smaller = from_data(name, n, replicate, entropy, k - 1).best.value
    rng_of = lambda number: start_rng(entropy, name, n, replicate, "data", k, number)
    return softmax_from_data(softmax_sample(name, n, entropy, replicate), k, DATA_STARTS, rng_of, FROM_DATA, smaller)


def sgame_errors(cell: ReplicationCell, procedure: str, fit: FitResult) -> Row:
    """Return the losses of a fit.

    In the loss as published the last gate stands at 0; ``loss_translated`` and the intrinsic loss take the
    best translation. The loss as published asks which atom is the last: fits from data do not know, and have
    none (NaN).
    """
    known = softmax_truth(cell.truth).params
    free = softmax_errors(fit.value, known)
    pinned = softmax_errors(fit.value, known, translate=False, variant="published").loss("published")
    return {
        "loss_published": float("nan") if procedure == "certified-data" else pinned,
        "loss_translated": softmax_errors(fit.value, known, variant="published").loss("published"),
        "loss_intrinsic": free.loss("intrinsic"),
        "gate_identified": free.gate_identified,
        "notice": free.notice,
    }

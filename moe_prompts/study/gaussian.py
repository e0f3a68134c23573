"""Study Gaussian gates: fixed against adaptive prompts, and the published model for parameter rates.

There is one row per fit: what was fitted to what, every error, the status and the certificate. The best of
several starts is one row, which says how many there were and how many of them ended there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache, lru_cache

from moe_prompts.checks import one_of
from moe_prompts.engine.grid import BLOCK_SIZE, Row, Study
from moe_prompts.errors import InputError
from moe_prompts.estimators.gaussian import starts
from moe_prompts.estimators.gaussian.newton import NewtonOptions
from moe_prompts.estimators.gaussian.search import SearchOptions, best_of
from moe_prompts.estimators.result import FitResult, SearchResult
from moe_prompts.losses.gaussian_voronoi import GROUPS, voronoi_errors
from moe_prompts.losses.prediction import Evaluation
from moe_prompts.models.added import knowing
from moe_prompts.models.data import HELD_PAIRS, Data
from moe_prompts.models.gaussian_gated import GaussianGatedFamily
from moe_prompts.models.gaussian_truths import Truth, sample, streamed, truth
from moe_prompts.seeds import start_rng
from moe_prompts.study.rows import failed, outcome

MODEL = "gaussian-gated"
EXPERTS = {"fixed": "constant", "adaptive": "affine"}
DEFAULT_K = {"fixed": (2, 3, 4, 6, 8), "adaptive": (2, 3)}
PUBLISHED_K = (3, 4)
DATA_STARTS = 4
#: Near the truth atoms may become as narrow as they like, as published; from data they stay in a compact set.
OPTIONS = {"near_truth": SearchOptions(newton=NewtonOptions()), "data": SearchOptions(), "random": SearchOptions()}


@dataclass(frozen=True)
class Kind:
    """Read a kind of prompt as it is typed: ``fixed`` or ``adaptive``, with ``:tied`` for a common Gamma.

    A tied kind has one gate covariance Gamma for all free atoms. Raises ``InputError`` for other names.
    """

    name: str

    def __post_init__(self) -> None:
        base, _, option = self.name.partition(":")
        if base not in EXPERTS or option not in ("", "tied"):
            raise InputError(
                f"unknown prompt kind {self.name!r}; expected fixed, adaptive, fixed:tied or adaptive:tied"
            )

    @property
    def base(self) -> str:
        """Return the name without options: "fixed" or "adaptive"."""
        return self.name.partition(":")[0]

    @property
    def tied(self) -> bool:
        """Return whether the free atoms share one gate covariance."""
        return self.name.endswith(":tied")

    def family(self, of: Truth, k: int) -> GaussianGatedFamily:
        """Return the family of ``k`` free atoms of this kind beside the frozen experts of a truth."""
        return of.family_with(k, EXPERTS[self.base], tied_gate=self.tied)


def fit_class(of: Truth, kind: Kind, k: int) -> str:
    """Return how the fitted family stands to the truth, in the words of the predictions.

    "exact", "over" (more atoms than the truth has) or "misspecified" (the family does not contain the truth).
    """
    gates = of.params.gate_covs[: of.k_true]
    contains = k >= of.k_true and (kind.base == "adaptive" or of.kind == "fixed")
    contains = contains and not (kind.tied and (gates != gates[0]).any())
    return "misspecified" if not contains else "exact" if k == of.k_true else "over"


@dataclass(frozen=True)
class GaussianCell:
    """Name fits of ``k`` free atoms of ``kind`` to n pairs from ``truth``.

    Each fit climbs from ``starts`` draws of the kind of start ``start``.
    """

    truth: str
    kind: str
    k: int
    n: int
    start: str
    starts: int

    @property
    def label(self) -> str:
        """Return the name of the cell."""
        return f"{self.truth}_{self.kind.replace(':', '-')}_k{self.k}_{self.start}{self.starts}_n{self.n}"

    @property
    def cost(self) -> float:
        """Return the expected cost, relative to that of other cells."""
        # Starts climb the first pairs, the best of them a quadrature whose size hardly grows; the data are
        # passed once.
        return (5_000.0 + 3 * min(self.n, 5_000) + 0.7 * min(self.n, 25_000) + 0.045 * self.n) * self.k

    @property
    def data_size(self) -> int:
        """Return the number of pairs in each of its data sets."""
        return self.n


def gaussian_study(
    *,
    sizes: Sequence[int],
    replicates: int,
    entropy: int,
    truths: Sequence[str] = ("prompts-adaptive", "prompts-fixed", "gmoe-1"),
    kinds: Sequence[str] = ("fixed", "adaptive"),
    ks: Sequence[int] | None = None,
    start: str | None = None,
    data_starts: int = DATA_STARTS,
) -> Study:
    """Return the study that fits every kind and k to every truth.

    Prompt truths take every kind, from data by default. Published truths take affine experts, from near the
    truth.

    sizes        numbers of pairs
    replicates   data sets of each size
    entropy      seed of data and starts
    truths       names that ``truth`` knows
    kinds        names that ``Kind`` reads
    ks           numbers of free atoms, in place of the default ones of every kind
    start        "near_truth", "data" or "random", in place of the default
    data_starts  how many starts of the kinds "data" and "random" a fit climbs from

    Raises ``InputError`` for unknown names, for n below the number of parameters, and where a start near a
    truth has fewer atoms than that truth.
    """
    if start is not None:
        one_of(start, OPTIONS, "start")
    if ks is not None and min(ks) < 1:
        raise InputError(f"k = {min(ks)}; expected at least 1 free atom")
    cells = []
    for name in truths:
        known = truth(name)
        published = name.startswith("gmoe-")
        chosen_start = start or ("near_truth" if published else "data")
        for kind in (kind for kind in kinds if not published or Kind(kind).base == "adaptive"):
            for k in ks or (PUBLISHED_K if published else DEFAULT_K[Kind(kind).base]):
                if chosen_start == "near_truth" and k < known.k_true:
                    if published:
                        continue  # the published procedure is defined for k >= k_true only
                    raise InputError(f"start near_truth needs k >= {known.k_true} for {name}, not k = {k}; use data")
                count = 1 if chosen_start == "near_truth" else data_starts
                cells += [GaussianCell(name, kind, k, n, chosen_start, count) for n in sizes]
    for cell in cells:
        need = Kind(cell.kind).family(truth(cell.truth), cell.k).n_parameters
        if cell.n < need:
            raise InputError(
                f"n = {cell.n} is below the {need} free parameters of {cell.kind}, k = {cell.k}; raise --n"
            )
    return Study(
        name="gaussian",
        cells=cells,
        replicates=replicates,
        entropy=entropy,
        run=knowing(run_cell, truths),
        identity={
            "truths_used": {name: plain(truth(name)) for name in truths},
            "options": {name: asdict(options) for name, options in OPTIONS.items()},
        },
    )


def plain(known: Truth) -> dict:
    """Return a truth as numbers that JSON can hold."""
    return {
        "k_true": known.k_true,
        **{name: value.tolist() for name, value in vars(known.params).items() if name[0] != "_"},
    }


def run_cell(cell: GaussianCell, replicates: tuple[int, ...], entropy: int) -> list[Row]:
    """Return the rows of one block, one per replicate.

    A fit that cannot be made is a row with the status FAILED (or RAISED) and the reason.
    """
    rows = []
    for replicate in replicates:
        known = truth(cell.truth)
        fields: Row = {
            "study": "gaussian",
            "truth": cell.truth,
            "truth_kind": known.kind,
            "kind": cell.kind,
            "k": cell.k,
            "k_true": known.k_true,
            "n_frozen": known.family.n_frozen,
            "fit_class": fit_class(known, Kind(cell.kind), cell.k),
            "n": cell.n,
            "replicate": replicate,
            "start": cell.start,
            "starts": cell.starts,
        }
        try:
            found = fit_replicate(cell, replicate, entropy)
        except Exception as error:
            rows.append(fields | empty_errors() | failed(error))
        else:
            ended = {"starts_tried": found.starts, "start_share": found.share, "message": found.best.detail}
            rows.append(fields | errors_of(found.best, cell.truth) | ended)
    return rows


@lru_cache(maxsize=2 * BLOCK_SIZE)
def _data(name: str, n: int, entropy: int, replicate: int) -> Data:
    """Draw one data set; it is kept while the cells on the same data follow each other.

    More than ``HELD_PAIRS`` pairs are drawn again in each pass.
    """
    return (sample if n <= HELD_PAIRS else streamed)(name, n, entropy, replicate)


def fit_replicate(cell: GaussianCell, replicate: int, entropy: int) -> SearchResult:
    """Return the fit of one row, with how many starts it took."""
    known = truth(cell.truth)
    family = Kind(cell.kind).family(known, cell.k)
    data = _data(cell.truth, cell.n, entropy, replicate)
    chosen: dict[str, starts.Start] = {
        "near_truth": starts.near_truth(known.params, known.k_true),
        "data": starts.data(cell.starts),
        "random": starts.random(cell.starts),
    }
    rng_of = lambda number: start_rng(entropy, cell.truth, cell.n, replicate, cell.kind, cell.k, number)
    return best_of(family, data, chosen[cell.start], rng_of, OPTIONS[cell.start])


@cache
def evaluation(name: str) -> Evaluation:
    """Return the evaluation of prediction risk and Hellinger distance for a truth.

    Each process makes it once.
    """
    return Evaluation(truth(name).params)


def errors_of(fit: FitResult, truth_name: str) -> Row:
    """Return every error of a fit as columns; NaN where an error is not defined."""
    known, quadrature = truth(truth_name), evaluation(truth_name)
    voronoi = voronoi_errors(fit.value, known.params, known.family.n_frozen)
    risk = quadrature.excess_risk(fit.value)
    return {
        **outcome(fit),
        "min_weight": float(fit.value.weights.min()),
        "risk": risk,
        "relative_risk": risk / quadrature.signal,
        "hellinger": quadrature.hellinger(fit.value),
        "loss_type1": voronoi.loss("type1"),
        "loss_type2": voronoi.loss("type2"),
        "loss_intrinsic": voronoi.loss("intrinsic"),
        "mass_error": voronoi.mass_error,
        "singleton_error": voronoi.singleton_error,
        "split_rms": voronoi.split_rms,
        **{f"singleton_{group}": length for group, length in voronoi.singleton_lengths().items()},
        **{f"split_{group}": length for group, length in voronoi.split_lengths().items()},
    }


def empty_errors() -> Row:
    """Return the columns of a fit that could not be made."""
    names = (
        *("gap_nats", "relative_lmin", "log_likelihood", "min_weight", "risk", "relative_risk", "hellinger"),
        *("loss_type1", "loss_type2", "loss_intrinsic", "mass_error", "singleton_error", "split_rms", "start_share"),
        *(f"{where}_{group}" for where in ("singleton", "split") for group in GROUPS),
    )
    return {name: float("nan") for name in names} | {"iterations": 0, "starts_tried": 0}

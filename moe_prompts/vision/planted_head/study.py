"""Fit fixed and adaptive prompts, with certificates, to data from a planted head, in two stages.

``noise_free_study`` gives ranks and kappas of each truth, profiles of splits, and floors. A floor is the
least E |f - f*|^2 of a class that does not contain the truth, found from several starts, so it is an upper
bound. ``fit_study`` gives certified least squares on n pairs, beside s^2 P / n where the class contains the
truth. The second stage starts its wrong classes where the first one ended. Both are studies of
``moe_prompts.engine``.

Of all heads of a block, where a prompt has hundreds of parameters, the first stage also says what the first
heads see of a split (``block``), there are no floors, and the second stage fits the right classes alone, from
near the truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import pandas as pd

from moe_prompts.engine.grid import Row, Study
from moe_prompts.errors import InputError
from moe_prompts.estimators.prompts.least_squares import (
    LeastSquaresOptions,
    least_squares,
    population_minima,
    random_start,
    vector_near_truth,
)
from moe_prompts.estimators.prompts.objective import Box
from moe_prompts.estimators.result import FitStatus
from moe_prompts.identifiability import Profile, order_of_outputs, profile
from moe_prompts.models.multi_head import MultiHead
from moe_prompts.models.prompt_attention import PromptKind
from moe_prompts.seeds import data_rng, start_rng
from moe_prompts.study.attention import PARAMETER_ERRORS, errors_of, fit_class
from moe_prompts.vision.planted_head.block import heads_seen, held_split
from moe_prompts.vision.planted_head.head import (
    PlantedHead,
    constants_as_adaptive,
    family_of,
    identified,
    jacobian_sizes,
    silent_directions,
    split_change,
)

#: What a noise-free row tells, and the column ``study`` of fits.
FLOORS, KAPPAS, PROFILES, HEADS = "floor", "kappas", "profile", "heads"
FIT_ROWS = "fits"
#: Spreads of profiles: of the exact class, and with one prompt too many.
EPS = {0: (0.0125, 0.025), 1: (0.0125, 0.025, 0.1, 0.3)}
#: Random starts of the noise-free problem, standard deviation of what is added to its constructed ones, pairs
#: that it stands for.
POPULATION_STARTS, SHAKE, PAIRS = 12, 0.01, 10_000
#: Nats left to gain below which a fit in all heads of a block is certified: a millionth of its P / 2.
#: Rounding leaves some 1e-5, since the smallest and the largest curvature differ by 1e8 and more.
BLOCK_TOLERANCE = 1e-4
#: After so many iterations of a noise-free fit no further round begins: floors are upper bounds anyway.
POPULATION_ITERATIONS = 100
#: Data sets of classes in which the truth is a singular point, since fits in a flat valley are dear.
SINGULAR_REPLICATES = 8
#: Milliseconds of a free core for each parameter on 512 outputs: of a fit from two starts (times more where
#: the class is singular), of a floor from each start, of kappas and of profiles.
FIT_TIME, SLOW, FLOOR_TIME = 8.0, {"over": 5.0, "contained": 5.0}, 7.0
OTHER_TIME = {"kappas": 50.0, "profile": 250.0, "heads": 50.0}
ADAPTIVE = "adaptive:gelu"
BIASED = "adaptive:gelu:bias"


@dataclass(frozen=True)
class PromptClass:
    """Hold a class of prompts that is fitted to a truth.

    truth   "fixed" or "adaptive"
    kind    of the prompts, as ``PromptKind.parse`` reads it
    k       how many prompts
    fitted  False: only its floor is computed
    """

    truth: str
    kind: str
    k: int
    fitted: bool = True


def block_classes(prompts: int) -> list[PromptClass]:
    """Return the classes that are fitted in all heads of a block: each truth's own."""
    return [PromptClass("fixed", "fixed", prompts), PromptClass("adaptive", ADAPTIVE, prompts)]


def prompt_classes(prompts: int, hidden: int, quick: bool = False) -> list[PromptClass]:
    """Return the classes that are fitted to both truths.

    They are each kind on each truth; each truth's own kind with one prompt too many; on the fixed truth the
    adaptive class that contains constants; and on the adaptive truth twice as many fixed prompts, of which
    only the floor is computed.

    prompts  number of the truth's prompts
    hidden   hidden units of adaptive ones
    quick    True: only each kind on each truth
    """
    two_by_two = [PromptClass(truth, kind, prompts) for truth in ("fixed", "adaptive") for kind in ("fixed", ADAPTIVE)]
    if quick:
        return two_by_two
    contained = [PromptClass("fixed", BIASED, prompts)] if prompts <= hidden else []
    over = [PromptClass("fixed", "fixed", prompts + 1), PromptClass("adaptive", ADAPTIVE, prompts + 1)]
    return [*two_by_two, *contained, *over, PromptClass("adaptive", "fixed", 2 * prompts, fitted=False)]


@dataclass(frozen=True)
class NoiseFreeCell:
    """Hold one noise-free question: ``what`` of a truth, for ``k`` prompts of ``kind``.

    what  ``FLOORS``, ``KAPPAS``, ``PROFILES``, or ``HEADS`` with the profile of a split in all of them
    cost  expected time in milliseconds
    """

    what: str
    truth: str
    kind: str
    k: int
    cost: int
    replicates: int = 1

    @property
    def label(self) -> str:
        """Return the cell's name in file names."""
        return f"{self.what}_{self.truth}_{self.kind.replace(':', '-')}_k{self.k}"

    @property
    def data_size(self) -> int:
        """Return the cost, so that the longest cells come first."""
        return self.cost  # the longest first


@dataclass(frozen=True)
class FitCell:
    """Hold certified fits of ``k`` prompts of ``kind`` to n pairs.

    cost  expected time of a replicate in milliseconds
    """

    truth: str
    kind: str
    k: int
    n: int
    replicates: int
    cost: int

    @property
    def label(self) -> str:
        """Return the cell's name in file names."""
        return f"{self.truth}_{self.kind.replace(':', '-')}_k{self.k}_n{self.n}"

    @property
    def data_size(self) -> int:
        """Return the cost, so that the longest cells come first."""
        return self.cost


def fit_class_of(design: PlantedHead, one: PromptClass | FitCell | NoiseFreeCell) -> str:
    """Return "exact", "over", "contained" or "misspecified", with the meaning of the attention study."""
    return fit_class(design.truths[one.truth], PromptKind.parse(one.kind), one.k)


def noise_free_study(
    design: PlantedHead,
    classes: Sequence[PromptClass],
    entropy: int,
    profiles: bool = True,
    starts: int = POPULATION_STARTS,
) -> Study:
    """Return the first stage: kappas of both truths, profiles of their own kinds, and floors.

    Floors are computed for classes that do not contain the truth or have it at a singular point.

    profiles  False: none are computed
    starts    random starts of each floor
    """
    cells, block = [], isinstance(design.head, MultiHead)
    if block:
        own = design.truths["fixed"]
        time = round(OTHER_TIME[HEADS] * _load(design) * own.params.family.size)
        cells.append(NoiseFreeCell(HEADS, "fixed", "fixed", own.k_true + 1, time))
    for name, truth in design.truths.items():
        kind, k, unit = str(truth.params.kind), truth.k_true, _load(design) * truth.params.family.size
        cells.append(NoiseFreeCell(KAPPAS, name, kind, k, round(OTHER_TIME[KAPPAS] * unit)))
        if profiles and not block:
            time = round(OTHER_TIME[PROFILES] * unit)
            cells += [NoiseFreeCell(PROFILES, name, kind, k + surplus, (1 + surplus) * time) for surplus in (0, 1)]
    for one in classes:
        if fit_class_of(design, one) in ("misspecified", "contained"):
            size = family_of(design, one.truth, PromptKind.parse(one.kind), one.k).size
            time = round(FLOOR_TIME * _random_starts(design, one, starts) * _load(design) * size)
            cells.append(NoiseFreeCell(FLOORS, one.truth, one.kind, one.k, time))
    run, identity = NoiseFree(design, starts), {"head": _plain(design), "starts": starts}
    return Study("planted-head-noise-free", cells, 1, entropy, run, identity, weights=design.weights)


@dataclass(frozen=True)
class NoiseFree:
    """Run the cells of the first stage."""

    design: PlantedHead
    starts: int

    def __call__(self, cell: NoiseFreeCell, replicates: tuple[int, ...], entropy: int) -> list[Row]:
        truth = self.design.truths[cell.truth]
        rng = start_rng(entropy, truth.name, 0, 0, cell.kind, cell.k, 0)
        common = {"what": cell.what, "truth": cell.truth, "kind": cell.kind, "k": cell.k}
        if cell.what == KAPPAS:
            return [common | asdict(identified(self.design, cell.truth, rng)) | _facts(self.design, cell.truth)]
        if cell.what == HEADS:
            return _heads(self.design, common, rng)
        if cell.what == PROFILES:
            found = split_profile(self.design, cell.truth, cell.k - truth.k_true, rng)
            return [
                common | {"eps": float(eps), "profile": float(value), "certified": bool(certified)}
                for eps, value, certified in zip(found.eps, found.value, found.certified, strict=True)
            ]
        vectors, floor, certified = floor_of(self.design, cell, rng, self.starts)
        signal = _signal(self.design, cell.truth)
        return [
            common
            | {"floor": floor / signal, "certified": certified, "starts": self.starts, "vectors": vectors.tolist()}
        ]


def _heads(design: PlantedHead, common: Row, rng: np.random.Generator) -> list[Row]:
    """Return a row of ``HEADS`` for the first 1, 2, .. heads, and the profile of a split in all of them."""
    assert isinstance(design.head, MultiHead)
    rows = [common | asdict(heads_seen(design, count + 1)) for count in range(len(design.head.heads))]
    found = held_split(design.truths["fixed"], rng)
    profiled = common | {"what": PROFILES, "kappa2": found.kappa2}
    return rows + [
        profiled | {"eps": float(eps), "profile": float(value), "certified": bool(ended)}
        for eps, value, ended in zip(found.eps, found.value, found.ended, strict=True)
    ]


def split_profile(design: PlantedHead, name: str, surplus: int, rng: np.random.Generator) -> Profile:
    """Return the profile of a truth with ``surplus`` prompts too many.

    Where fixed prompts have silent splits, it is the change of f along one of them: an upper bound of the
    profile, which is then zero.
    """
    truth, eps = design.truths[name], np.array(EPS[surplus])
    if surplus and silent_directions(truth).shape[1]:
        value = np.array([split_change(truth, one) for one in eps])
        unit = order_of_outputs(truth.signal)
        return Profile(eps, value, np.zeros(len(eps), dtype=int), np.ones(len(eps), dtype=bool), unit)
    return profile(truth, rng, surplus, EPS[surplus], design.options(name).box)


def floor_of(
    design: PlantedHead, cell: NoiseFreeCell, rng: np.random.Generator, starts: int
) -> tuple[np.ndarray, float, bool]:
    """Return the best vector found without noise, its E |f - f*|^2, and whether that minimum is certified.

    Starts are random. For more prompts than the truth has, the best vector with one prompt less is also a
    start, with each of its prompts split; for a class that contains constant prompts, so is the truth itself,
    shaken.
    """
    truth, kind = design.truths[cell.truth], PromptKind.parse(cell.kind)
    family, options = family_of(design, cell.truth, kind, cell.k), design.options(cell.truth)
    also: list[np.ndarray] = []
    if kind.bias and truth.params.kind.base == "fixed":
        also = [constants_as_adaptive(truth, family)]
    elif cell.k > truth.k_true:
        fewer, *_ = floor_of(design, replace(cell, k=cell.k - 1), rng, starts)
        best = family.with_k(cell.k - 1).unpack(fewer)
        also = [best.chosen([*range(cell.k - 1), prompt]).vector for prompt in range(cell.k - 1)]
    also = [vector + SHAKE * rng.standard_normal(len(vector)) for vector in also]
    # Masses of a larger class may be smaller than the truth's.
    box = Box((options.box.b[0] - np.log(cell.k), options.box.b[1]), options.box.theta)
    found = population_minima(
        family,
        truth.population(PAIRS),
        truth.noise,
        rng,
        _random_starts(design, cell, starts),
        LeastSquaresOptions(box, POPULATION_ITERATIONS),
        also,
    )
    floor = max(2 * truth.noise**2 * float(found.values[0]) / PAIRS, 0.0)
    return found.vectors[0], floor, bool(found.certified[0])


def _random_starts(design: PlantedHead, of: PromptClass | NoiseFreeCell, starts: int) -> int:
    """Return the number of random starts: four times as many for wrong classes without a constructed one."""
    bare = fit_class_of(design, of) == "misspecified" and of.k <= design.truths[of.truth].k_true
    return 4 * starts if bare else starts


def fit_study(
    design: PlantedHead,
    classes: Sequence[PromptClass],
    noise_free: pd.DataFrame | None,
    sizes: Sequence[int],
    replicates: int,
    entropy: int,
) -> Study:
    """Return the second stage: every fitted class at every n.

    Where the truth is a singular point of the class, it is fitted at the largest n and at those 100 and 10
    000 times smaller.

    noise_free  rows of the first stage; None: the study can be priced, not run

    Raises ``InputError`` for an n below the number of parameters.
    """
    cells = []
    for one in classes:
        if not one.fitted:
            continue
        family = family_of(design, one.truth, PromptKind.parse(one.kind), one.k)
        word = fit_class_of(design, one)
        time = round(FIT_TIME * SLOW.get(word, 1.0) * _load(design) * family.size)
        for n in sizes:
            if n < family.n_parameters:
                raise InputError(
                    f"n = {n} is below the {family.n_parameters} parameters of {one.k} {one.kind} prompts; raise --n"
                )
            if word not in SLOW:
                cells.append(FitCell(one.truth, one.kind, one.k, n, replicates, time))
            elif any(np.isclose(n, max(sizes) / 100**i, rtol=0.01) for i in range(3)):
                few = min(replicates, SINGULAR_REPLICATES)
                cells.append(FitCell(one.truth, one.kind, one.k, n, few, time))
    if noise_free is None:
        return Study("planted-head", cells, replicates, entropy, _refused)
    run = Fits(design, starts_from(noise_free), splits_from(noise_free))
    identity = {"head": _plain(design)}
    return Study("planted-head", cells, replicates, entropy, run, identity, weights=design.weights)


def _refused(cell: FitCell, replicates: tuple[int, ...], entropy: int) -> list[Row]:
    raise InputError("fit_study without noise-free rows says what it would cost; it cannot run")


#: By truth, kind and k.
Starts = dict[tuple[str, str, int], tuple[np.ndarray, float]]


def starts_from(noise_free: pd.DataFrame) -> Starts:
    """Return where fits of wrong classes start, and their relative floors."""
    rows = noise_free[noise_free["what"] == FLOORS]
    return {(row.truth, row.kind, row.k): (np.array(row.vectors), float(row.floor)) for row in rows.itertuples()}


def splits_from(noise_free: pd.DataFrame) -> dict[str, Profile]:
    """Return, by truth, the profile with one prompt too many."""
    found = {}
    for truth, rows in noise_free[noise_free["what"] == PROFILES].groupby("truth", sort=False):
        own = rows[rows["k"] == rows["k"].max()].sort_values("eps")
        eps, value = own["eps"].to_numpy(float), own["profile"].to_numpy(float)
        known = noise_free[(noise_free["what"] == KAPPAS) & (noise_free["truth"] == truth)]
        unit = order_of_outputs(float(known["signal"].iloc[0])) if len(known) else 1.0
        found[str(truth)] = Profile(eps, value, np.zeros(len(eps), dtype=int), own["certified"].to_numpy(bool), unit)
    return found


@dataclass(frozen=True)
class Fits:
    """Run the cells of the second stage; each replicate is a row."""

    design: PlantedHead
    starts: Starts
    splits: dict[str, Profile]

    def __call__(self, cell: FitCell, replicates: tuple[int, ...], entropy: int) -> list[Row]:
        truth = self.design.truths[cell.truth]
        family = family_of(self.design, cell.truth, PromptKind.parse(cell.kind), cell.k)
        word, signal = fit_class_of(self.design, cell), _signal(self.design, cell.truth)
        price = truth.noise**2 * family.n_parameters / cell.n / signal
        _, floor = self.starts.get((cell.truth, cell.kind, cell.k), (None, 0.0))
        common: Row = {
            "study": FIT_ROWS,
            "truth": cell.truth,
            "kind": cell.kind,
            "k": cell.k,
            "n": cell.n,
            "fit_class": word,
            "n_parameters": family.n_parameters,
            "noise": truth.noise,
            "signal": signal,
            "floor": floor,
            "price": price,
            "predicted": floor * (word == "misspecified") + price,
        }
        if word == "over" and cell.truth in self.splits:
            common["predicted_split"] = float(self.splits[cell.truth].predicted_split(np.array(cell.n), truth.noise))
        try:
            data = [truth.data(cell.n, data_rng(entropy, truth.name, cell.n, replicate)) for replicate in replicates]
            starts = [self._starts(cell, word, replicate, entropy) for replicate in replicates]
            found = least_squares(family, data, starts, truth.noise, self._options(cell))
        except (np.linalg.LinAlgError, ArithmeticError) as error:
            nothing = dict.fromkeys(("risk", "relative_risk", "l2", *PARAMETER_ERRORS), float("nan"))
            failed = nothing | {"status": FitStatus.FAILED.name, "message": str(error)}
            return [common | {"replicate": replicate} | failed for replicate in replicates]
        return [
            common
            | {"replicate": replicate, "starts": one.starts, "start_share": one.share, "message": ""}
            | errors_of(one, truth)
            for replicate, one in zip(replicates, found, strict=True)
        ]

    def _options(self, cell: FitCell) -> LeastSquaresOptions:
        """Return the box of the truth with a lower end of b, since several prompts may share one's mass."""
        box = self.design.options(cell.truth).box
        made = LeastSquaresOptions(Box((box.b[0] - np.log(cell.k), box.b[1]), box.theta))
        return replace(made, tolerance=BLOCK_TOLERANCE) if isinstance(self.design.head, MultiHead) else made

    def _starts(self, cell: FitCell, word: str, replicate: int, entropy: int) -> np.ndarray:
        truth = self.design.truths[cell.truth]
        family = family_of(self.design, cell.truth, PromptKind.parse(cell.kind), cell.k)
        rng_of = lambda number: start_rng(entropy, truth.name, cell.n, replicate, cell.kind, cell.k, number)
        if word == "over":
            return np.array([vector_near_truth(truth.params, cell.k, i, rng_of(i)) for i in range(truth.k_true)])
        if word == "exact":
            first = vector_near_truth(truth.params, cell.k, 0, rng_of(0))
        else:
            first = self.starts[cell.truth, cell.kind, cell.k][0]
        if isinstance(self.design.head, MultiHead):
            return first[None]
        return np.array([first, random_start(family, rng_of(1), self._options(cell).box)])


def expected_seconds(study: Study) -> float:
    """Return roughly how many seconds the study takes on one free core."""
    return sum(block.cost for block in study.blocks) / 1000


def _load(design: PlantedHead) -> float:
    """Return the number of outputs on the design, in units of 512."""
    return design.z.shape[0] * design.head.l / 512


def _signal(design: PlantedHead, name: str) -> float:
    return design.truths[name].signal


def _facts(design: PlantedHead, name: str) -> Row:
    """Return what a reader wants to know of a truth: noise, sizes, gates, and how much the prompts do."""
    truth, k = design.truths[name], design.truths[name].k_true
    f, gates = truth.params.regression(truth.x), truth.params.gates(truth.x)[..., -k:]
    return {
        "n_parameters": truth.params.family.n_parameters,
        "noise": truth.noise,
        "signal": _signal(design, name),
        "effect": float(((f - design.plain) ** 2).sum(axis=1).mean()) / _signal(design, name),
        "mass": float(gates.sum(axis=-1).mean()),
        "sizes": jacobian_sizes(truth.params, truth.x).tolist(),
        **asdict(design.visibility),
        "kept": design.kept,
        "kept_outputs": design.kept_outputs,
        "tokens": design.head.n_frozen,
        "outputs": design.head.l,
    }


def _plain(design: PlantedHead) -> dict:
    """Return, for meta.json, the choice and sums by which a run knows its truths."""
    return {
        "choice": design.choice.facts(),
        "truths": {
            name: {"noise": round(truth.noise, 9), "signal": round(_signal(design, name), 9)}
            for name, truth in design.truths.items()
        },
        "options": {"eps": {str(k): list(v) for k, v in EPS.items()}},
    }

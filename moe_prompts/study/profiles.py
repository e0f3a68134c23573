"""Give the rows of likelihood gaps and of noise-free profiles, of truths of prompts and of gated experts.

Both studies of regressions on a design have them beside their fits, see ``study.attention`` and
``study.experts``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from moe_prompts.engine.grid import Row
from moe_prompts.estimators.prompts.least_squares import LeastSquaresOptions
from moe_prompts.identifiability import kappas, likelihood_gaps, profile
from moe_prompts.models.data import RegressionData
from moe_prompts.models.regression_truths import RegressionTruth
from moe_prompts.seeds import start_rng

#: Split at which likelihood gaps are measured.
SPREAD = 0.4


def gap_rows(
    known: RegressionTruth,
    data: Sequence[RegressionData],
    replicates: tuple[int, ...],
    entropy: int,
    options: LeastSquaresOptions,
    common: Row,
) -> list[Row]:
    """Return one row per replicate: the nats that a split of size ``SPREAD`` loses.

    known       the truth
    data        data sets of one n, one for each replicate
    replicates  their numbers
    entropy     seed of the run
    options     box and stopping rule of the fits
    common      columns that all rows of the truth have, for one atom more than it has
    """
    n = data[0].n
    rng = start_rng(entropy, known.name, n, replicates[0], "gap", known.k_true + 1, 0)
    gaps = likelihood_gaps(known, data, SPREAD, rng, options)
    common = common | {"n": n, "spread": SPREAD}
    return [common | {"replicate": r, "gap": float(gap)} for r, gap in zip(replicates, gaps, strict=True)]


def profile_rows(
    known: RegressionTruth, entropy: int, common: Callable[[int], Row], surpluses: Sequence[int] = (0, 1)
) -> list[Row]:
    """Return one row per surplus and spread: the profile there, and the kappas of the truth.

    known      the truth
    entropy    seed of the run
    common     gives the columns that all rows have for so many atoms
    surpluses  which profiles: 0 as many atoms as there are, 1 one too many

    Profiles are of the atoms of the truth, each moved alone, and of one atom too many.
    """
    rows: list[Row] = []
    for surplus in surpluses:
        k = known.k_true + surplus
        rng = start_rng(entropy, known.name, 0, 0, "profile", k, 0)
        size, found = kappas(known, rng), profile(known, rng, surplus)
        fields = common(k) | {"n": 0, "replicate": 0}
        fields |= {"kappa1": size.kappa1, "kappa2": size.kappa2, "noise": known.noise}
        rows += [
            fields | {"eps": float(eps), "profile": float(value), "profile_certified": bool(certified)}
            for eps, value, certified in zip(found.eps, found.value, found.certified, strict=True)
        ]
    return rows

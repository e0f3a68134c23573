"""Fit a model to data in one call: the family is named, and the best certified fit of a search returned.

    fit(data, k=3, seed=0)  ->  the best certified fit of several starts, with its errors and status

Which search is used follows from the family: Gaussian gates (``best_of``), softmax gates
(``softmax_from_data``) or prompts in attention (``least_squares``). Arguments that belong to another family
are refused.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from moe_prompts.checks import count as checked_count
from moe_prompts.checks import shown
from moe_prompts.errors import InputError
from moe_prompts.estimators.gaussian import starts as gaussian_starts
from moe_prompts.estimators.gaussian.search import best_of
from moe_prompts.estimators.prompts.least_squares import LeastSquaresOptions, least_squares, random_start
from moe_prompts.estimators.result import FitResult
from moe_prompts.estimators.softmax.search import softmax_from_data
from moe_prompts.models.data import RegressionData, Sample, StreamedSample
from moe_prompts.models.gaussian_gated import GaussianGatedFamily
from moe_prompts.models.prompt_attention import PromptFamily, PromptKind
from moe_prompts.models.prompt_truths import PromptTruth

#: Names of families that ``fit`` knows, and what their experts are.
GAUSSIAN = {"gaussian": "affine", "gaussian-constant": "constant"}
SOFTMAX = "softmax"
#: Starts of a search: random ones of prompts find the best minimum less often than clusters of data do.
STARTS, PROMPT_STARTS = 8, 12


def fit(
    data: Any,
    k: int | None = None,
    *,
    seed: int,
    family: str | GaussianGatedFamily | PromptFamily = "gaussian",
    truth: PromptTruth | None = None,
    noise: float | None = None,
    starts: int | None = None,
) -> FitResult:
    """Return the best certified fit of a family of models to data.

    data    pairs: a ``Sample``, or a tuple (x, y) of arrays (n, d) and (n, l); of prompts a
            ``RegressionData``, as ``prompt_data`` makes it, or (x, y) of any points
    k       number of atoms or prompts; not needed where ``family`` says it
    seed    of the starts
    family  "gaussian" (Gaussian gates with affine experts), "gaussian-constant", "softmax", a kind of prompts
            such as "fixed" or "adaptive:gelu", or a ``GaussianGatedFamily`` or ``PromptFamily``
    truth   of a kind of prompts: the truth whose head, noise and hidden units are taken, from
            ``prompt_truth``
    noise   of prompts without ``truth``: standard deviation of the outputs, known
    starts  how many starts climb (default 8; of prompts 12)

    The fit has value, status, certificate, log-likelihood, and the number of starts with the share of them
    that ended there. It is the best of those starts; no certificate says that it is the global maximum.

    Raises ``InputError`` for an unknown family, for arguments that the family does not take, and for data
    that do not fit it.

    >>> import moe_prompts as mp
    >>> data = mp.sample("gmoe-1", n=2_000, seed=0)
    >>> found = mp.fit(data, k=3, seed=0)
    >>> found.certified, found.starts
    (True, 8)
    >>> truth, data = mp.prompt_truth("attention-fixed"), mp.prompt_data("attention-fixed", 10_000, seed=0)
    >>> mp.fit(data, k=2, seed=0, family="fixed", truth=truth).certified
    True
    """
    seed = checked_count(seed, 0, "fit: seed", np.inf)
    if isinstance(family, PromptFamily):
        if truth is not None or (k is not None and k != family.k):
            raise InputError("fit: family has its own head and k; expected no truth, and no other k")
        return _prompts(data, family, noise, seed, starts)
    if isinstance(family, GaussianGatedFamily):
        if k is not None and k != family.k:
            raise InputError(f"fit: k = {k}, but family has k = {family.k}; leave k out")
        return _gated(data, family, seed, starts, truth, noise)
    if not isinstance(family, str):
        raise InputError(f"fit: family of type {type(family).__name__}; expected a name or a family")
    if k is None:
        raise InputError(
            f"fit: no k; expected the number of {'atoms' if family in _gates() else 'prompts'}, such as k=3"
        )
    k = checked_count(k, 1, "fit: k")
    if family in GAUSSIAN:
        pairs = _pairs(data)
        return _gated(pairs, GaussianGatedFamily(pairs.d, pairs.l, k, GAUSSIAN[family]), seed, starts, truth, noise)
    if family == SOFTMAX:
        _refuse(family, truth, noise)
        count = checked_count(STARTS if starts is None else starts, 1, "fit: starts")
        pairs = _pairs(data)
        if isinstance(pairs, StreamedSample):
            raise InputError("fit: softmax gates take data in memory; expected a Sample or (x, y)")
        return softmax_from_data(pairs, k, count, lambda i: np.random.default_rng([seed, i])).fit
    try:
        kind = PromptKind.parse(family)
    except InputError as error:
        raise InputError(
            f"fit: family {family!r}; expected {', '.join(_gates())}, or a kind of prompts: {error}"
        ) from None
    if not isinstance(truth, PromptTruth):
        given = "no truth" if truth is None else f"truth = {shown(truth)}"
        raise InputError(
            f"fit: family {family!r} with {given}; expected the truth whose head it takes, such as "
            "prompt_truth('attention-gelu')"
        )
    return _prompts(data, truth.family(kind, k), truth.noise if noise is None else noise, seed, starts)


def _gates() -> tuple[str, ...]:
    """Return the names of the families of gated experts."""
    return (*GAUSSIAN, SOFTMAX)


def _refuse(family: str, truth: Any, noise: float | None) -> None:
    """Raise ``InputError`` where arguments of prompts are given to gated experts."""
    if truth is not None or noise is not None:
        raise InputError(f"fit: family {family!r} takes no truth and no noise; they belong to prompts in attention")


def _pairs(data: Any) -> Sample | StreamedSample:
    """Return the data as pairs held in memory or streamed."""
    if isinstance(data, Sample | StreamedSample):
        return data
    if isinstance(data, tuple | list) and len(data) == 2:
        return Sample(*data)
    raise InputError(f"fit: data of type {type(data).__name__}; expected a Sample or a tuple (x, y) of arrays")


def _gated(
    data: Any, family: GaussianGatedFamily, seed: int, starts: int | None, truth: Any, noise: float | None
) -> FitResult:
    """Return the best fit of Gaussian gates; ``truth`` and ``noise`` are refused."""
    _refuse("gaussian", truth, noise)
    start = gaussian_starts.data(STARTS if starts is None else starts)
    return best_of(family, _pairs(data), start, lambda i: np.random.default_rng([seed, i])).fit


def _prompts(data: Any, family: PromptFamily, noise: float | None, seed: int, starts: int | None) -> FitResult:
    if noise is None:
        raise InputError("fit: no noise; expected the standard deviation of the outputs, such as noise=0.1, or truth")
    if not isinstance(data, RegressionData):
        pairs = _pairs(data)
        if isinstance(pairs, StreamedSample):
            raise InputError("fit: prompts take data in memory; expected a Sample, a RegressionData or (x, y)")
        data = RegressionData(pairs.x, np.ones(pairs.n), pairs.y, pairs.n)
    count = checked_count(PROMPT_STARTS if starts is None else starts, 1, "fit: starts")
    options = LeastSquaresOptions()
    vectors = [random_start(family, np.random.default_rng([seed, i]), options.box) for i in range(count)]
    [found] = least_squares(family, [data], [np.array(vectors)], noise, options)
    return found.fit

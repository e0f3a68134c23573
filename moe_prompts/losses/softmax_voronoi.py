"""Measure softmax-gated fits by a Voronoi loss, smallest over translations of the gate that change nothing.

    D = min_t sum_cells |sum_i e^{beta0_i + t0} - e^{beta0*}|
        + sum_i e^{beta0_i + t0} (|dbeta|^p + |db|^q + |da|^r + |ds|^s),     dbeta = beta_i + t1 - beta*.

A cell of one atom is measured linearly. In a cell of m atoms the published powers are rbar(m) for beta and b,
rbar(m)/2 for a and s. The intrinsic ones are 2 for beta and a, since these are n^{-1/4} in every cell as long
as some cell holds one atom (``experiments/predicted_rates.py --model softmax-gaussian``). Where every cell
holds several atoms beta is not identified at all. Those of a regression (``expert_voronoi``) are 2 for every
group.

Source: arXiv 2305.03288, whose last gate is zero and which takes no minimum (``translate=False``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from moe_prompts.checks import expect, flag, parameters
from moe_prompts.errors import InputError
from moe_prompts.losses.cells import farthest, root_mean_square
from moe_prompts.losses.gaussian_voronoi import rbar
from moe_prompts.models.softmax_gated import SoftmaxGatedMoE
from moe_prompts.shown import Shown

SOFTMAX_GROUPS = {"beta": "gate_slopes", "a": "slopes", "b": "intercepts", "s": "noise_vars"}
SoftmaxVariant = Literal["published", "intrinsic", "regression"]
UNIDENTIFIED = "every cell holds several atoms: the gate slopes are not identified"
#: Translations from which the minimum is sought: the best of those that put some atom on some true one.
REFINED = 3
#: Distance within which neighbouring cells are looked for, in units of the gates' slopes, and the rounding by
#: which a border may be passed, as a share of what is compared there.
NEARBY, BORDER = 1e-3, 1e-10
#: Largest logarithm of a mass that is a number.
MOST = 700.0


@dataclass(frozen=True, repr=False)
class SoftmaxErrors(Shown):
    """Hold the pieces of the loss at one translation (t0, t1).

    labels       (k,)       cell of each fitted atom
    cell_sizes   (k_true,)  fitted atoms in each cell; empty cells have 0
    mass         (k_true,)  fitted mass - true mass in each cell
    masses       (k,)       e^{beta0 + t0}
    distances    (4, k)     per group of ``SOFTMAX_GROUPS``, from each fitted atom to its true one
    translation             (t0, t1)
    """

    labels: np.ndarray
    cell_sizes: np.ndarray
    mass: np.ndarray
    masses: np.ndarray
    distances: np.ndarray
    translation: tuple[float, np.ndarray]

    @property
    def gate_identified(self) -> bool:
        """Say whether some cell holds at most one atom.

        If every cell holds several, splits of the gates are invisible.
        """
        return bool(self.cell_sizes.min() < 2)

    @property
    def notice(self) -> str:
        """Return what a table must say of the fit; empty where there is nothing to say."""
        return "" if self.gate_identified else UNIDENTIFIED

    def loss(self, variant: SoftmaxVariant = "intrinsic") -> float:
        """Return D with the powers of the variant; infinite where a mass is.

        Raises ``InputError`` for an unknown variant.
        """
        if not np.isfinite(self.mass).all():
            return np.inf
        return float(np.abs(self.mass).sum() + self.masses @ _weighed(self.distances, self._m, variant))

    @property
    def _m(self) -> np.ndarray:
        return self.cell_sizes[self.labels]

    @property
    def singleton_error(self) -> float:
        """Return the largest distance (all groups) of an atom alone in its cell; NaN where there is none."""
        return farthest(self.distances.sum(axis=0), self._m == 1)

    @property
    def split_rms(self) -> float:
        """Return the mass-weighted root mean square distance of the atoms that share a cell.

        It is NaN where none do.
        """
        return root_mean_square(self.distances.sum(axis=0), self.masses, self._m > 1)


def _powers(m: np.ndarray, variant: SoftmaxVariant) -> np.ndarray:
    """Return the powers (4, k) of the groups for atoms in cells of ``m`` (k,) atoms."""
    if variant not in get_args(SoftmaxVariant):
        raise InputError(
            f"softmax Voronoi loss: variant = {variant!r}; expected one of {', '.join(get_args(SoftmaxVariant))}"
        )
    if variant == "regression":
        return np.tile(np.where(m > 1, 2.0, 1.0), (4, 1))
    powers = np.ones((4, len(m)))
    for i, size in enumerate(m):
        if size > 1:
            r = float(rbar(int(size)))
            powers[:, i] = (r, r / 2, r, r / 2) if variant == "published" else (2.0, 2.0, r, r / 2)
    return powers


def _weighed(distances: np.ndarray, m: np.ndarray, variant: SoftmaxVariant) -> np.ndarray:
    """Return the sum over groups of |.|^power (k,)."""
    return (distances ** _powers(m, variant)).sum(axis=0)


def _distances(fitted: SoftmaxGatedMoE, truth: SoftmaxGatedMoE, slope: np.ndarray) -> np.ndarray:
    """Return the distances (4, k, k_true) per group of all atoms, with fitted gates moved by ``slope`` (d,)."""
    rows = [
        np.linalg.norm((fitted.gate_slopes + slope)[:, None] - truth.gate_slopes[None], axis=2),
        np.linalg.norm(fitted.slopes[:, None] - truth.slopes[None], axis=2),
        np.abs(fitted.intercepts[:, None] - truth.intercepts[None]),
        np.abs(fitted.noise_vars[:, None] - truth.noise_vars[None]),
    ]
    return np.stack(rows)


def _errors_at(
    fitted: SoftmaxGatedMoE,
    truth: SoftmaxGatedMoE,
    slope: np.ndarray,
    intercept: float | None,
    variant: SoftmaxVariant,
    labels: np.ndarray | None = None,
) -> SoftmaxErrors:
    """Return the pieces at the translation (intercept, slope).

    ``intercept`` None stands for the best one for that slope, ``labels`` None for the cells of the nearest
    true atoms.
    """
    table = _distances(fitted, truth, slope)
    if labels is None:
        labels = table.sum(axis=0).argmin(axis=1)
    sizes = np.bincount(labels, minlength=truth.k)
    distances = table[:, np.arange(fitted.k), labels]
    # The largest mass is taken out, so that fitted gates far from the true ones do not overflow.
    shift = fitted.gate_intercepts.max()
    relative = np.exp(fitted.gate_intercepts - shift)
    in_cells = np.bincount(labels, weights=relative, minlength=truth.k)
    if intercept is None:
        # D is convex and piecewise linear in e^{t0}, a kink where a cell has its true mass; the best kink is
        # taken: were the scale free to vanish, the loss of a runaway fit would be bounded by the true masses.
        cost = relative @ _weighed(distances, sizes[labels], variant)
        kinks = truth.masses[in_cells > 0] / in_cells[in_cells > 0]
        values = [np.abs(scale * in_cells - truth.masses).sum() + scale * cost for scale in kinks]
        scale = float(kinks[int(np.argmin(values))])
        intercept = float(np.log(scale) - shift)
    elif intercept + shift > MOST:
        endless = np.full(fitted.k, np.inf)
        return SoftmaxErrors(labels, sizes, np.full(truth.k, np.inf), endless, distances, (intercept, slope))
    else:
        scale = float(np.exp(intercept + shift))
    mass = scale * in_cells - truth.masses
    return SoftmaxErrors(labels, sizes, mass, scale * relative, distances, (intercept, slope))


class _AlongSlopes:
    """Give D, smallest over t0, at many translations t1 of the gate's slopes, for one fit and one truth.

    A simplex asks for hundreds of values, each to the last bit that of ``_errors_at``. What no translation
    moves is computed once, and what the cells alone decide once for all translations with these cells.
    """

    def __init__(self, fitted: SoftmaxGatedMoE, truth: SoftmaxGatedMoE, variant: SoftmaxVariant) -> None:
        self.variant, self.k_true, self.masses = variant, truth.k, truth.masses
        self.atoms = np.arange(fitted.k)
        self.slopes, self.true_slopes = fitted.gate_slopes, truth.gate_slopes[None]
        #: Distances (3, k, k_true) of all groups but the gates' slopes.
        self.rest = _distances(fitted, truth, np.zeros(fitted.d))[1:]
        self.relative = np.exp(fitted.gate_intercepts - fitted.gate_intercepts.max())
        self.of_cells: dict[bytes, tuple[np.ndarray, ...]] = {}

    def __call__(self, slope: np.ndarray) -> float:
        """Return D at the slope (d,) of the translation."""
        steps = (self.slopes + slope)[:, None] - self.true_slopes
        gates = np.sqrt(np.add.reduce(steps * steps, axis=2))
        first, second, third = self.rest
        labels = (gates + first + second + third).argmin(axis=1)
        key = labels.tobytes()
        if key not in self.of_cells:
            self.of_cells[key] = self._of_cells(labels)
        distances, powers, in_cells, kinks, misses = self.of_cells[key]
        distances[0] = gates[self.atoms, labels]
        weighed = (distances**powers).sum(axis=0)
        scale = kinks[(misses + kinks * (self.relative @ weighed)).argmin()]
        mass = scale * in_cells - self.masses
        if not np.isfinite(mass).all():
            return np.inf
        return float(np.abs(mass).sum() + (scale * self.relative) @ weighed)

    def _of_cells(self, labels: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return what the cells decide.

        These are the distances (4, k) to their true atoms, the first row to be filled, the powers (4, k), the
        masses in cells relative to the largest, the kinks, and by how much masses miss the true ones there.
        """
        distances = np.concatenate([np.zeros((1, len(labels))), self.rest[:, self.atoms, labels]])
        sizes = np.bincount(labels, minlength=self.k_true)
        in_cells = np.bincount(labels, weights=self.relative, minlength=self.k_true)
        kinks = self.masses[in_cells > 0] / in_cells[in_cells > 0]
        misses = np.array([np.abs(scale * in_cells - self.masses).sum() for scale in kinks])
        return distances, _powers(sizes[labels], self.variant), in_cells, kinks, misses


def _slopes_unit(fitted: SoftmaxGatedMoE, truth: SoftmaxGatedMoE) -> float:
    """Return the order of magnitude of the gates' slopes, in the unit of 1 / x.

    No translation changes it. It is a power of 100, so that it is 1 for slopes of .1 to 10 and moves with the
    unit of x.
    """
    sizes = [np.ptp(gates.gate_slopes, axis=0).max() for gates in (fitted, truth)]
    largest = max(sizes)
    return float(100.0 ** round(np.log10(largest) / 2)) if 0 < largest < np.inf else 1.0


def _descended(value: Callable[[np.ndarray], float], start: np.ndarray, unit: float) -> np.ndarray:
    """Return the slope (d,) at which a simplex that begins at ``start`` ends; ``unit`` of the slopes."""
    from scipy.optimize import minimize  # loaded where it is used: a refused option need not wait for it

    # A first simplex of the size of what is left to gain.
    at_first = value(start)
    spread = 0.5 * min(at_first, 1.0) + 1e-9
    simplex = np.concatenate([start[None] / unit, start / unit + spread * np.eye(len(start))])
    fatol = 1e-12 * min(at_first, 1.0)
    options = {"initial_simplex": simplex, "xatol": 1e-10, "fatol": fatol, "maxiter": 400}
    return unit * minimize(lambda x: value(unit * x), start / unit, method="Nelder-Mead", options=options).x


def _directions(steps: np.ndarray) -> np.ndarray:
    """Return steps (..., d) at length 1; those of length 0 as they are."""
    lengths = np.linalg.norm(steps, axis=-1, keepdims=True)
    return steps / np.where(lengths > 0, lengths, 1.0)


def _best_for_cells(
    fitted: SoftmaxGatedMoE,
    truth: SoftmaxGatedMoE,
    labels: np.ndarray,
    start: np.ndarray,
    variant: SoftmaxVariant,
    size: float,
) -> np.ndarray | None:
    """Return the slope (d,) of the smallest D that keeps atoms in the cells ``labels`` (k,), or on a border.

    For fixed cells D is smallest where the weighted distances of the gates are, whatever the masses: a smooth
    problem with the borders as constraints. It returns None where the solver left the cells. ``size`` is the
    unit of the slopes.
    """
    from scipy.optimize import minimize

    weights = np.exp(fitted.gate_intercepts - fitted.gate_intercepts.max())
    power = _powers(np.bincount(labels, minlength=truth.k)[labels], variant)[0]
    rest = _distances(fitted, truth, start)[1:].sum(axis=0)
    rest = rest[np.arange(fitted.k), labels][:, None] - rest
    to_own = fitted.gate_slopes - truth.gate_slopes[labels]
    to_all = fitted.gate_slopes[:, None] - truth.gate_slopes[None]

    def cost(x: np.ndarray) -> float:
        return float(weights @ np.linalg.norm(to_own + x, axis=1) ** power)

    def gradient(x: np.ndarray) -> np.ndarray:
        return (weights * power * np.linalg.norm(to_own + x, axis=1) ** (power - 1)) @ _directions(to_own + x)

    def inside(x: np.ndarray) -> np.ndarray:
        return (np.linalg.norm(to_all + x, axis=2) - np.linalg.norm(to_own + x, axis=1)[:, None] - rest).ravel()

    def border(x: np.ndarray) -> np.ndarray:
        return (_directions(to_all + x) - _directions(to_own + x)[:, None]).reshape(-1, fitted.d)

    # In units of what it costs at first, of the slopes and of what is compared: the solver's tolerance is
    # absolute.
    unit = max(cost(start), np.finfo(float).tiny)
    compared = max(size, float(np.abs(rest).max()))
    end = (
        size
        * minimize(
            lambda x: cost(size * x) / unit,
            start / size,
            jac=lambda x: gradient(size * x) * (size / unit),
            method="SLSQP",
            constraints={
                "type": "ineq",
                "fun": lambda x: inside(size * x) / compared,
                "jac": lambda x: border(size * x) * (size / compared),
            },
            options={"ftol": 1e-15, "maxiter": 200},
        ).x
    )
    return end if inside(end).min() > -BORDER * compared else None


def _within_cells(
    fitted: SoftmaxGatedMoE, truth: SoftmaxGatedMoE, slopes: np.ndarray, variant: SoftmaxVariant, unit: float
) -> Iterator[SoftmaxErrors]:
    """Yield the smallest loss for each way to put atoms into cells that is met from ``slopes`` (m, d) on.

    D jumps where an atom passes from one cell to another, and its infimum often lies on such a border. A
    simplex stops somewhere along the border, at a point that rounding decides. ``unit`` is that of the slopes.
    """
    around = NEARBY * unit * np.concatenate([np.zeros((1, fitted.d)), np.eye(fitted.d), -np.eye(fitted.d)])
    waiting: list[np.ndarray] = list(slopes)
    met: set[tuple[int, ...]] = set()
    while waiting:
        start = waiting.pop(0)
        for labels in [_distances(fitted, truth, start + x).sum(axis=0).argmin(axis=1) for x in around]:
            if tuple(labels) in met:
                continue
            met.add(tuple(labels))
            end = _best_for_cells(fitted, truth, labels, start, variant, unit)
            if end is not None:
                waiting.append(end)
                yield _errors_at(fitted, truth, end, None, variant, labels)


def softmax_errors(
    fitted: SoftmaxGatedMoE | Any,
    truth: SoftmaxGatedMoE | Any,
    translate: bool = True,
    variant: SoftmaxVariant = "intrinsic",
) -> SoftmaxErrors:
    """Return the pieces of the loss of a softmax-gated fit at the best translation of its gate.

    The best one is the smallest minimum that simplices and, for d > 1, searches within fixed cells find. For
    fits far from the truth with d > 1 nothing proves that no other is smaller.

    fitted     the fit, or its parameters
    truth      the true parameters
    translate  whether the best translation is sought; False takes both gates as they stand
    variant    powers: "published", "intrinsic" or "regression"

    Raises ``InputError`` where fit and truth have other inputs, or for another variant.

    >>> import moe_prompts as mp
    >>> truth = mp.softmax_truth("sgame").params
    >>> mp.softmax_errors(truth.atoms([0, 1, 1]), truth).cell_sizes
    array([1, 2])
    """
    fitted, truth = parameters(fitted), parameters(truth)
    expect(fitted, SoftmaxGatedMoE, "softmax Voronoi loss: fitted")
    expect(truth, SoftmaxGatedMoE, "softmax Voronoi loss: truth")
    if fitted.d != truth.d:
        raise InputError(f"softmax Voronoi loss: fitted atoms have d = {fitted.d}, the truth has d = {truth.d}")
    if not flag(translate, "softmax_errors: translate"):
        return _errors_at(fitted, truth, np.zeros(fitted.d), 0.0, variant)
    value = _AlongSlopes(fitted, truth, variant)
    starts = (truth.gate_slopes[None] - fitted.gate_slopes[:, None]).reshape(-1, fitted.d)
    starts = starts[np.argsort([value(slope) for slope in starts], kind="stable")]
    unit = _slopes_unit(fitted, truth)
    slopes = np.stack([*starts, *(_descended(value, start, unit) for start in starts[:REFINED])])
    found = [_errors_at(fitted, truth, slope, None, variant) for slope in slopes]
    if fitted.d > 1:
        found += _within_cells(fitted, truth, slopes, variant, unit)
    return min(found, key=lambda errors: errors.loss(variant))


def best_on_some_gate(fitted: SoftmaxGatedMoE, truth: SoftmaxGatedMoE, variant: SoftmaxVariant) -> SoftmaxErrors:
    """Return the pieces of the smallest loss over translations that put a fitted slope on a true one."""
    slopes = (truth.gate_slopes[None] - fitted.gate_slopes[:, None]).reshape(-1, fitted.d)
    found = [_errors_at(fitted, truth, slope, None, variant) for slope in slopes]
    return min(found, key=lambda errors: errors.loss(variant))


def softmax_loss(
    fitted: SoftmaxGatedMoE | Any,
    truth: SoftmaxGatedMoE | Any,
    variant: SoftmaxVariant = "intrinsic",
    translate: bool = True,
) -> float:
    """Return the Voronoi loss D of a softmax-gated fit.

    D is 0 exactly where the fitted parameters are the truth up to translation and the order of atoms. The
    arguments and errors are those of ``softmax_errors``.

    variant    powers: "published", "intrinsic" or "regression"
    translate  whether the best translation of the gate is sought; False takes both gates as they stand

    >>> import moe_prompts as mp
    >>> truth = mp.softmax_truth("sgame").params
    >>> mp.softmax_loss(truth.atoms([1, 0]), truth)
    0.0
    """
    return softmax_errors(fitted, truth, translate, variant).loss(variant)

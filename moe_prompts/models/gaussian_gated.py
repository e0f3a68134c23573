"""Describe the Gaussian-gated mixture of experts (GLLiM): a joint density of input and output.

Each atom owns a Gaussian region of input space and a Gaussian linear expert in it,

    p(x, y) = sum_k pi_k N(x; c_k, Gamma_k) N(y; A_k x + b_k, nu_k),   x in R^d, y in R^l.

Read as prompts, an atom with A_k = 0 is a *fixed* prompt (its expert is a constant) and an atom with a free
A_k is an *adaptive* one (its expert is a function of the input). Unconstrained, the model is a
full-covariance Gaussian mixture of (x, y).

Source: Nguyen et al., arXiv 2305.07572 (AISTATS 2024).
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np

from moe_prompts.checks import (
    chosen_of,
    count,
    expect,
    flag,
    generator,
    numbers,
    plain,
    real,
    rounding,
    shaped,
    shown,
    table,
    whole,
)
from moe_prompts.errors import InputError
from moe_prompts.models.data import CHUNK, Data, Sample, StreamedSample

LOG_2PI = float(np.log(2 * np.pi))
#: Weights that sum to 1 up to this are taken for rounded ones and divided by their sum.
WEIGHTS_OFF = 1e-6


def powers_of_two(sizes: np.ndarray) -> np.ndarray:
    """Return the powers of two nearest below ``sizes``, 1 for a size of 0.

    Units that are powers of two rescale without rounding.
    """
    return np.where(sizes > 0, 2.0 ** np.floor(np.log2(np.where(sizes > 0, sizes, 1.0))), 1.0)


def _log_sums(terms: np.ndarray) -> np.ndarray:
    """Return log sum_k exp(terms) of each row, -inf where all terms are.

    SciPy's does the same for numbers of every kind, and takes three times as long.
    """
    top = terms.max(axis=1)
    top[~np.isfinite(top)] = 0.0
    with np.errstate(divide="ignore"):
        return top + np.log(np.exp(terms - top[:, None]).sum(axis=1))


@dataclass(frozen=True, eq=False)
class GaussianGatedMoE:
    """Hold the parameters of a Gaussian-gated mixture of k experts; they check themselves.

    weights     (k,)       pi_k > 0, sum 1
    gate_means  (k, d)     c_k
    gate_covs   (k, d, d)  Gamma_k, symmetric positive definite
    slopes      (k, l, d)  A_k
    intercepts  (k, l)     b_k
    noise_covs  (k, l, l)  nu_k, symmetric positive definite

    Raises ``InputError`` for shapes that do not fit, weights that are not a distribution, non-finite values
    and covariances that are not symmetric positive definite.

    >>> import moe_prompts as mp
    >>> params = mp.GaussianGatedMoE.univariate([0.5, 0.5], [-1, 1], [0.2, 0.2], [1, -1], [0, 0], [0.1, 0.1])
    >>> params.k, params.d, params.l
    (2, 1, 1)
    """

    weights: np.ndarray
    gate_means: np.ndarray
    gate_covs: np.ndarray
    slopes: np.ndarray
    intercepts: np.ndarray
    noise_covs: np.ndarray

    def __post_init__(self) -> None:
        # Numbers made in float32 sum to 1, and are symmetric, up to its rounding.
        tolerance = {field.name: rounding(getattr(self, field.name)) for field in fields(self)}
        for field in fields(self):
            value = np.array(numbers(getattr(self, field.name), f"GaussianGatedMoE: {field.name}"))
            value.setflags(write=False)
            object.__setattr__(self, field.name, value)
        if self.weights.ndim != 1 or self.gate_means.ndim != 2 or self.intercepts.ndim != 2:
            raise InputError(
                f"GaussianGatedMoE: weights {self.weights.shape}, gate_means {self.gate_means.shape}, intercepts "
                f"{self.intercepts.shape}; expected (k,), (k, d), (k, l)"
            )
        k, d, l = self.k, self.d, self.l
        expected = {
            "weights": (k,),
            "gate_means": (k, d),
            "gate_covs": (k, d, d),
            "slopes": (k, l, d),
            "intercepts": (k, l),
            "noise_covs": (k, l, l),
        }
        for name, shape in expected.items():
            value = getattr(self, name)
            if value.shape != shape:
                raise InputError(
                    f"GaussianGatedMoE: {name} has shape {value.shape}; expected {shape} for k = {k} atoms, "
                    f"d = {d} inputs, l = {l} outputs"
                )
            if not np.isfinite(value).all():
                raise InputError(f"GaussianGatedMoE: {name} has NaN or infinite entries")
        if not k:
            raise InputError("GaussianGatedMoE: no atoms; expected at least one")
        total = self.weights.sum()
        if (self.weights <= 0).any() or abs(total - 1) > max(tolerance["weights"], WEIGHTS_OFF):
            raise InputError(
                f"GaussianGatedMoE: weights {np.round(self.weights, 6).tolist()} sum to {self.weights.sum():.8g}; "
                f"expected positive numbers with sum 1: divide by their sum, drop atoms of weight 0"
            )
        if abs(total - 1) > 1e-8:
            self._set("weights", self.weights / total)
        for name in ("gate_covs", "noise_covs"):
            value = getattr(self, name)
            if value.shape[1] == 1 and (value > 0).all():  # variances: there is nothing else to find
                continue
            scale = np.sqrt(np.abs(np.einsum("kii->ki", value)))
            off = np.abs(value - value.swapaxes(1, 2))
            if (off > tolerance[name] * scale[:, :, None] * scale[:, None, :]).any():
                raise InputError(f"GaussianGatedMoE: {name} has an asymmetric matrix; use (S + S') / 2")
            if off.any() and tolerance[name] > 1e-8:
                self._set(name, value := (value + value.swapaxes(1, 2)) / 2)
            # Of the correlations, which no unit of a coordinate changes.
            unit = powers_of_two(scale)
            smallest = np.linalg.eigvalsh(value / unit[:, :, None] / unit[:, None, :])[:, 0]
            if (smallest <= 0).any():
                smallest = np.where(smallest <= 0, np.linalg.eigvalsh(value)[:, 0], np.inf)
                atom = int(np.argmin(smallest))
                raise InputError(
                    f"GaussianGatedMoE: {name}[{atom}] has smallest eigenvalue {smallest[atom]:.3g}; expected a "
                    f"positive definite matrix (entries are variances, not standard deviations)"
                )

    @classmethod
    def univariate(cls, weights, gate_means, gate_covs, slopes, intercepts, noise_covs) -> GaussianGatedMoE:
        """Return parameters with d = l = 1, each argument a list of k numbers.

        weights         gate weights pi, positive with sum 1
        gate_means      means c of x
        gate_covs       variances Gamma of x
        slopes          slopes A of the experts
        intercepts      intercepts b of the experts
        noise_covs      noise variances nu

        Raises ``InputError`` for lists of different lengths, and as the class does for its arrays.
        """
        names = [field.name for field in fields(cls)]
        values = [weights, gate_means, gate_covs, slopes, intercepts, noise_covs]
        lists = [
            plain(value, f"GaussianGatedMoE.univariate: {name}") for name, value in zip(names, values, strict=True)
        ]
        k = lists[0].size
        for name, value in zip(names, lists, strict=True):
            if value.size != k or value.ndim > 1:
                raise InputError(
                    f"GaussianGatedMoE.univariate: {name} has shape {value.shape}; expected a list of {k} numbers, one "
                    "for each weight"
                )
        axes = (1, 2, 3, 3, 2, 3)
        return cls(*(value.reshape(k, *[1] * (ndim - 1)) for value, ndim in zip(lists, axes, strict=True)))

    def _set(self, name: str, value: np.ndarray) -> None:
        value.setflags(write=False)
        object.__setattr__(self, name, value)

    @classmethod
    def unchecked(cls, *arrays: np.ndarray) -> GaussianGatedMoE:
        """Return parameters without the checks.

        This is for the inner loops of estimators, where arrays are valid by construction.
        """
        params = object.__new__(cls)
        for field, value in zip(fields(cls), arrays, strict=True):
            object.__setattr__(params, field.name, value)
        return params

    @property
    def k(self) -> int:
        """Return the number of atoms."""
        return self.weights.shape[0]

    @property
    def d(self) -> int:
        """Return the number of inputs."""
        return self.gate_means.shape[1]

    @property
    def l(self) -> int:
        """Return the number of outputs."""
        return self.intercepts.shape[1]

    def atoms(self, index) -> GaussianGatedMoE:
        """Return the chosen atoms in the given order, weights rescaled to sum 1.

        index  numbers of the atoms, from 0; anything that indexes a NumPy array
        """
        index = chosen_of(index, self.k, "atoms")
        chosen = {f.name: getattr(self, f.name)[index] for f in fields(self)}
        chosen["weights"] = chosen["weights"] / chosen["weights"].sum()
        return GaussianGatedMoE(**chosen)

    def joined(self, other: GaussianGatedMoE, mass_of_other: float) -> GaussianGatedMoE:
        """Return both sets of atoms, those of ``self`` first.

        ``other`` receives the total weight ``mass_of_other`` in (0, 1).
        """
        expect(other, GaussianGatedMoE, "joined: other")
        mass_of_other = real(mass_of_other, "(0, 1)", "joined: mass_of_other")
        both = {f.name: np.concatenate([getattr(self, f.name), getattr(other, f.name)]) for f in fields(self)}
        both["weights"] = np.concatenate([self.weights * (1 - mass_of_other), other.weights * mass_of_other])
        return GaussianGatedMoE(**both)

    def rescaled(self, shift_x, scale_x, shift_y, scale_y) -> GaussianGatedMoE:
        """Return the law of ((x - shift_x) / scale_x, (y - shift_y) / scale_y).

        Shifts and scales are vectors, (d,) for x and (l,) for y, in the units of x and y.

        Raises ``InputError`` for other shapes, and for a scale of 0.
        """
        shift_x, scale_x = (shaped(value, (self.d,), "rescaled: a shift or scale of x") for value in (shift_x, scale_x))
        shift_y, scale_y = (shaped(value, (self.l,), "rescaled: a shift or scale of y") for value in (shift_y, scale_y))
        if not (scale_x.all() and scale_y.all()):
            raise InputError("rescaled: a scale is 0; expected units of x and y")
        return replace(
            self,
            gate_means=(self.gate_means - shift_x) / scale_x,
            gate_covs=self.gate_covs / np.outer(scale_x, scale_x),
            slopes=self.slopes * scale_x / scale_y[:, None],
            intercepts=(self.intercepts + self.slopes @ shift_x - shift_y) / scale_y,
            noise_covs=self.noise_covs / np.outer(scale_y, scale_y),
        )

    # -- the joint Gaussian mixture --------------------------------------------------------------------------

    def to_joint(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return weights (k,), means (k, d + l) and covariances (k, d + l, d + l) of the mixture of (x, y).

        An atom has mean (c, A c + b) and covariance [[Gamma, Gamma A'], [A Gamma, nu + A Gamma A']].
        """
        cross = self.slopes @ self.gate_covs
        mean_y = np.einsum("kld,kd->kl", self.slopes, self.gate_means) + self.intercepts
        cov_y = self.noise_covs + cross @ self.slopes.swapaxes(1, 2)
        means = np.concatenate([self.gate_means, mean_y], axis=1)
        covs = np.block([[self.gate_covs, cross.swapaxes(1, 2)], [cross, (cov_y + cov_y.swapaxes(1, 2)) / 2]])
        return self.weights, means, covs

    @classmethod
    def from_joint(cls, weights, means, covs, d: int) -> GaussianGatedMoE:
        """Return the parameters of a mixture of (x, y), the inverse of ``to_joint``.

            A = S_yx S_xx^-1,   b = m_y - A m_x,   nu = S_yy - A S_xy.

        weights  (k,), gate weights
        means    (k, D), means of (x, y), D = d + l
        covs     (k, D, D), covariances of (x, y)
        d        number of inputs

        Raises ``InputError`` where shapes do not fit or d is not in 1 .. D - 1.
        """
        means, covs = numbers(means, "from_joint: means"), numbers(covs, "from_joint: covs")
        d = whole(d, 1, "from_joint: d")
        if means.ndim != 2 or covs.shape != (*means.shape, means.shape[1]) or not 0 < d < means.shape[1]:
            raise InputError(
                f"from_joint: means {means.shape}, covs {covs.shape}, d = {d}; expected (k, D), (k, D, D), 0 < d < D"
            )
        xx, yx, yy = covs[:, :d, :d], covs[:, d:, :d], covs[:, d:, d:]
        # In balanced units of the inputs: pivots then do not depend on the units in which each is given.
        unit = powers_of_two(np.sqrt(np.abs(np.einsum("kii->ki", xx))))
        inside = np.linalg.solve(xx / unit[:, :, None] / unit[:, None, :], (yx / unit[:, None, :]).swapaxes(1, 2))
        slopes = inside.swapaxes(1, 2) / unit[:, None, :]
        noise = yy - slopes @ yx.swapaxes(1, 2)
        intercepts = means[:, d:] - np.einsum("kld,kd->kl", slopes, means[:, :d])
        return cls(weights, means[:, :d], xx, slopes, intercepts, (noise + noise.swapaxes(1, 2)) / 2)

    # -- densities -------------------------------------------------------------------------------------------

    @cached_property
    def _whiteners(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the inverse Cholesky factors of Gamma (k, d, d) and nu (k, l, l)."""

        def invert(covs: np.ndarray) -> np.ndarray:
            root = np.linalg.cholesky(covs)
            unit = powers_of_two(np.einsum("kii->ki", root))
            return np.linalg.inv(root / unit[:, :, None]) / unit[:, None, :]

        return invert(self.gate_covs), invert(self.noise_covs)

    def log_gate_terms(self, x) -> np.ndarray:
        """Return log pi_k + log N(x_i; c_k, Gamma_k) (n, k), for x (n, d)."""
        x, (whiten, _) = table(x, self.d, "x"), self._whiteners
        log_det = np.log(np.diagonal(whiten, axis1=1, axis2=2)).sum(axis=1)
        if self.d == 1:  # atom by atom along the points: rows of a few numbers are slow
            squares = (((x.T - self.gate_means) * whiten[:, 0]) ** 2).T
        else:
            scaled = np.stack([(x - c) @ w.T for c, w in zip(self.gate_means, whiten, strict=True)], axis=1)
            squares = (scaled**2).sum(axis=2)
        return np.log(self.weights) + log_det - 0.5 * (self.d * LOG_2PI + squares)

    def log_expert_terms(self, x, y) -> np.ndarray:
        """Return log N(y_i; A_k x_i + b_k, nu_k) (n, k), for x (n, d) and y (n, l)."""
        x, y, (_, whiten) = table(x, self.d, "x"), table(y, self.l, "y"), self._whiteners
        log_det = np.log(np.diagonal(whiten, axis1=1, axis2=2)).sum(axis=1)
        if self.d == self.l == 1:
            squares = (((y.T - x.T * self.slopes[:, 0] - self.intercepts) * whiten[:, 0]) ** 2).T
        else:
            scaled = np.stack(
                [(y - x @ a.T - b) @ w.T for a, b, w in zip(self.slopes, self.intercepts, whiten, strict=True)],
                axis=1,
            )
            squares = (scaled**2).sum(axis=2)
        return log_det - 0.5 * (self.l * LOG_2PI + squares)

    def _inputs(self, x) -> np.ndarray:
        """Return x as (n, d), finite, or raise ``InputError``."""
        x = numbers(x, "x")
        x = x[:, None] if x.ndim == 1 and self.d == 1 else x
        if x.ndim != 2 or x.shape[1] != self.d:
            raise InputError(f"x has shape {x.shape}; expected (n, {self.d})")
        if not np.isfinite(x).all():
            raise InputError("x has NaN or infinite values; drop or impute them first")
        return x

    def _pairs(self, x, y) -> tuple[np.ndarray, np.ndarray]:
        """Return x as (n, d) and y as (n, l), finite and of one length, or raise ``InputError``."""
        sample = Sample(self._inputs(x), y)
        if sample.y.shape[1] != self.l:
            raise InputError(f"y has shape {sample.y.shape}; expected (n, {self.l})")
        return sample.x, sample.y

    def log_density(self, x, y) -> np.ndarray:
        """Return log p(x_i, y_i) (n,), in nats.

        Raises ``InputError`` where x (n, d) or y (n, l) has another shape or is not finite.
        """
        x, y = self._pairs(x, y)
        return _log_sums(self.log_gate_terms(x) + self.log_expert_terms(x, y))

    def responsibilities(self, x, y) -> np.ndarray:
        """Return P(atom k | x_i, y_i) (n, k); rows sum to 1.

        Raises ``InputError`` where x (n, d) or y (n, l) has another shape or is not finite.
        """
        x, y = self._pairs(x, y)
        terms = self.log_gate_terms(x) + self.log_expert_terms(x, y)
        return np.exp(terms - _log_sums(terms)[:, None])

    def gates(self, x) -> np.ndarray:
        """Return P(atom k | x_i) (n, k), the weights that the prediction gives to the experts.

        Raises ``InputError`` where x (n, d) has another shape or is not finite.
        """
        terms = self.log_gate_terms(self._inputs(x))
        return np.exp(terms - _log_sums(terms)[:, None])

    def regression(self, x) -> np.ndarray:
        """Return m(x) = E[y | x] = sum_k gate_k(x) (A_k x + b_k) (n, l).

        Raises ``InputError`` where x (n, d) has another shape or is not finite.
        """
        x = self._inputs(x)
        experts = np.einsum("kld,nd->nkl", self.slopes, x) + self.intercepts
        return np.einsum("nk,nkl->nl", self.gates(x), experts)

    def sample(self, n: int, rng: np.random.Generator) -> Sample:
        """Draw n independent pairs (x, y).

        rng  generator that the pairs are drawn with

        Raises ``InputError`` where n < 1.
        """
        n = count(n, 1, "sample: n")
        generator(rng, "sample")
        uniforms = rng.random(n)
        return self.from_standard(uniforms, rng.standard_normal((n, self.d)), rng.standard_normal((n, self.l)))

    def streamed(self, n: int, rng: np.random.Generator, chunk: int = CHUNK) -> StreamedSample:
        """Return the pairs of ``sample(n, rng)`` as a stream, never more than ``chunk`` of them at once.

        The pairs are the same bit for bit where d = l = 1. With more columns, products of matrices may round
        otherwise in a chunk than in the whole: they are equal to 1e-15. ``rng`` stays where it is.

        Raises ``InputError`` for n or chunk below 1.
        """
        n = count(n, 1, "streamed: n")
        generator(rng, "streamed")
        return StreamedSample(_Drawing(self, n, deepcopy(rng)), n, self.d, self.l, chunk)

    def from_standard(self, uniforms: np.ndarray, x: np.ndarray, y: np.ndarray) -> Sample:
        """Return the pairs made from uniforms (n,) and standard normals x (n, d), y (n, l).

        The uniforms choose the atoms; x and y are overwritten.

        Raises ``InputError`` where their shapes do not belong together.
        """
        x, y, uniforms = table(x, self.d, "x"), table(y, self.l, "y"), numbers(uniforms, "from_standard: uniforms")
        if uniforms.shape != (len(x),) or len(y) != len(x):
            raise InputError(
                f"from_standard: uniforms {uniforms.shape}, x {x.shape}, y {y.shape}; expected (n,), (n, d), (n, l)"
            )
        labels = np.searchsorted(np.cumsum(self.weights)[:-1], uniforms, side="right")
        gate_root, noise_root = np.linalg.cholesky(self.gate_covs), np.linalg.cholesky(self.noise_covs)
        for atom in range(self.k):
            rows = np.flatnonzero(labels == atom)
            x_atom = x[rows] @ gate_root[atom].T + self.gate_means[atom]
            y[rows] = y[rows] @ noise_root[atom].T + x_atom @ self.slopes[atom].T + self.intercepts[atom]
            x[rows] = x_atom
        return Sample(x, y)


@dataclass(frozen=True, eq=False)
class _Drawing:
    """Draw ``params.sample(n, rng)`` in chunks.

    The sample reads n uniforms, then n d and n l normals, from one stream. Here three readers of that stream
    go side by side.
    """

    params: GaussianGatedMoE
    n: int
    rng: np.random.Generator

    @cached_property
    def readers(self) -> list[np.random.Generator]:
        """Return generators at the uniforms, at the normals of x and at those of y.

        A normal may take more than one number of the stream, so where those of y begin is known by drawing
        those of x once (1 s at n = 1e8).
        """
        readers = [deepcopy(self.rng)]
        for fill, columns in ((np.random.Generator.random, 1), (np.random.Generator.standard_normal, self.params.d)):
            readers.append(deepcopy(readers[-1]))
            for rows in _spans(self.n, CHUNK):
                fill(readers[-1], rows * columns)
        return readers

    def __call__(self, chunk: int) -> Iterator[Sample]:
        uniforms, inputs, outputs = deepcopy(self.readers)
        for rows in _spans(self.n, chunk):
            x = inputs.standard_normal((rows, self.params.d))
            y = outputs.standard_normal((rows, self.params.l))
            yield self.params.from_standard(uniforms.random(rows), x, y)


def _spans(n: int, chunk: int) -> Iterator[int]:
    """Return the lengths of consecutive chunks of n things, the last one shorter."""
    return (min(chunk, n - first) for first in range(0, n, chunk))


@dataclass(frozen=True)
class GaussianGatedFamily:
    """Say what an estimator may move: ``k`` free atoms beside ``frozen`` ones whose parameters are known.

    d, l       numbers of inputs and outputs
    k          number of free atoms
    experts    "affine" (adaptive prompts) or "constant" (fixed prompts, A_k = 0)
    tied_gate  whether the free atoms have one common Gamma: the faithful image of attention, whose logits are
               linear in the query
    frozen     known atoms with known relative weights (they sum to 1); their total mass is free

    Fitted parameters list the free atoms first and the frozen ones last.

    Raises ``InputError`` where a number is below 1, where ``experts`` is another word, or where frozen atoms
    have other inputs or outputs.

    >>> import moe_prompts as mp
    >>> mp.GaussianGatedFamily(d=1, l=1, k=3, experts="constant").n_parameters
    14
    """

    d: int
    l: int
    k: int
    experts: str = "affine"
    tied_gate: bool = False
    frozen: GaussianGatedMoE | None = None

    def __post_init__(self) -> None:
        for name in ("d", "l", "k"):
            object.__setattr__(self, name, count(getattr(self, name), 1, f"GaussianGatedFamily: {name}"))
        object.__setattr__(self, "tied_gate", flag(self.tied_gate, "GaussianGatedFamily: tied_gate"))
        if self.frozen is not None:
            expect(self.frozen, GaussianGatedMoE, "GaussianGatedFamily: frozen")
        if not isinstance(self.experts, str) or self.experts not in ("affine", "constant"):
            raise InputError(f"GaussianGatedFamily: experts = {shown(self.experts)}; expected 'affine' or 'constant'")
        if self.frozen is not None and (self.frozen.d, self.frozen.l) != (self.d, self.l):
            raise InputError(
                f"GaussianGatedFamily: frozen atoms have d = {self.frozen.d}, l = {self.frozen.l}; "
                f"the family has d = {self.d}, l = {self.l}"
            )

    @property
    def n_frozen(self) -> int:
        """Return the number of frozen atoms."""
        return 0 if self.frozen is None else self.frozen.k

    @property
    def n_parameters(self) -> int:
        """Return the number of free real parameters, counting the masses."""
        d, l, k = self.d, self.l, self.k
        masses = k if self.n_frozen else k - 1
        gates = k * d + (1 if self.tied_gate else k) * d * (d + 1) // 2
        experts = k * (l + l * (l + 1) // 2 + (l * d if self.experts == "affine" else 0))
        return masses + gates + experts

    def check_sample(self, sample: Data) -> None:
        """Raise ``InputError`` unless the sample has the family's shape and one pair for each atom."""
        expect(sample, (Sample, StreamedSample), "data")
        if (sample.d, sample.l) != (self.d, self.l):
            raise InputError(
                f"data have d = {sample.d} inputs and l = {sample.l} outputs; the family expects "
                f"d = {self.d}, l = {self.l}"
            )
        if sample.n < self.k:
            raise InputError(f"data have n = {sample.n} pairs for k = {self.k} atoms; expected n >= k: lower k")

    def project(self, params: GaussianGatedMoE) -> GaussianGatedMoE:
        """Return the parameters moved into the family.

        Each atom keeps its mass and its mean and variance of y.

        Constant experts absorb the slope: b <- A c + b, nu <- nu + A Gamma A'. A tied gate takes the weighted
        mean of the Gamma_k. ``params`` holds free atoms only, or free then frozen ones.

        Raises ``InputError`` where ``params`` have another number of atoms, inputs or outputs.
        """
        expect(params, GaussianGatedMoE, "start")
        if params.k not in (self.k, self.k + self.n_frozen) or (params.d, params.l) != (self.d, self.l):
            raise InputError(
                f"start has {params.k} atoms with d = {params.d}, l = {params.l}; the family expects {self.k} free "
                f"(+ {self.n_frozen} frozen) atoms with d = {self.d}, l = {self.l}"
            )
        free = params.atoms(np.arange(self.k))
        if self.experts == "constant" and free.slopes.any():
            _, means, covs = free.to_joint()
            free = replace(
                free,
                slopes=np.zeros_like(free.slopes),
                intercepts=means[:, self.d :],
                noise_covs=covs[:, self.d :, self.d :],
            )
        if self.tied_gate:
            common = np.einsum("k,kde->de", free.weights, free.gate_covs)
            free = replace(free, gate_covs=np.repeat(common[None], self.k, axis=0))
        if self.frozen is None:
            return free
        mass = params.weights[self.k :].sum() if params.k > self.k else self.n_frozen / (self.k + self.n_frozen)
        return free.joined(self.frozen, mass)

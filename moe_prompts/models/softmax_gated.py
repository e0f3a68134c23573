"""Describe the softmax-gated Gaussian mixture of experts: a density of the output given the input.

    p(y | x) = sum_k softmax_k(beta_k' x + beta0_k) N(y; a_k' x + b_k, s_k),   x in R^d, y in R

The gate is a function of x alone and says nothing about where x comes from. It is known up to a translation
common to all atoms: (beta0_k + t0, beta_k + t1) is the same gate for every t0, t1. A family pins the last
atom's gate to zero.

Source: Nguyen et al., arXiv 2305.03288 (NeurIPS 2023).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from scipy.special import logsumexp

from moe_prompts.checks import chosen_of, count, expect, generator, numbers, real, shaped
from moe_prompts.errors import InputError
from moe_prompts.models.data import Sample, StreamedSample

LOG_2PI = float(np.log(2 * np.pi))


@dataclass(frozen=True, eq=False)
class SoftmaxGatedMoE:
    """Hold the parameters of a softmax-gated mixture of k experts; they check themselves.

    gate_intercepts  (k,)    beta0_k; exp(beta0_k) is the mass of atom k
    gate_slopes      (k, d)  beta_k
    slopes           (k, d)  a_k
    intercepts       (k,)    b_k
    noise_vars       (k,)    s_k > 0, variances

    Raises ``InputError`` for shapes that do not fit, values that are not finite and variances that are not
    positive.

    >>> import numpy as np
    >>> import moe_prompts as mp
    >>> params = mp.SoftmaxGatedMoE([0, 0], [[5], [0]], [[1], [-1]], [0, 0], [0.1, 0.1])
    >>> params.gates(np.zeros((1, 1)))
    array([[0.5, 0.5]])
    """

    gate_intercepts: np.ndarray
    gate_slopes: np.ndarray
    slopes: np.ndarray
    intercepts: np.ndarray
    noise_vars: np.ndarray

    def __post_init__(self) -> None:
        for field in fields(self):
            value = np.array(numbers(getattr(self, field.name), f"SoftmaxGatedMoE: {field.name}"))
            value.setflags(write=False)
            object.__setattr__(self, field.name, value)
        if self.gate_intercepts.ndim != 1 or self.gate_slopes.ndim != 2:
            raise InputError(
                f"SoftmaxGatedMoE: gate_intercepts {self.gate_intercepts.shape}, gate_slopes {self.gate_slopes.shape}; "
                "expected (k,) and (k, d)"
            )
        k, d = self.gate_slopes.shape
        expected = {"gate_intercepts": (k,), "slopes": (k, d), "intercepts": (k,), "noise_vars": (k,)}
        for name, shape in expected.items():
            value = getattr(self, name)
            if value.shape != shape:
                raise InputError(
                    f"SoftmaxGatedMoE: {name} has shape {value.shape}; expected {shape} for k = {k} atoms, "
                    f"d = {d} inputs"
                )
        for field in fields(self):
            if not np.isfinite(getattr(self, field.name)).all():
                raise InputError(f"SoftmaxGatedMoE: {field.name} has NaN or infinite entries")
        if (self.noise_vars <= 0).any():
            raise InputError(
                f"SoftmaxGatedMoE: noise_vars {self.noise_vars.tolist()}; expected positive variances (not standard "
                "deviations)"
            )

    @property
    def k(self) -> int:
        """Return the number of atoms."""
        return self.gate_slopes.shape[0]

    @property
    def d(self) -> int:
        """Return the number of inputs."""
        return self.gate_slopes.shape[1]

    @property
    def masses(self) -> np.ndarray:
        """Return exp(beta0_k) (k,)."""
        return np.exp(self.gate_intercepts)

    def atoms(self, index) -> SoftmaxGatedMoE:
        """Return the chosen atoms in the given order, gates as they stand.

        index  numbers of the atoms, from 0; anything that indexes a NumPy array
        """
        index = chosen_of(index, self.k, "atoms")
        return SoftmaxGatedMoE(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def translated(self, intercept: float, slope) -> SoftmaxGatedMoE:
        """Return the same conditional density with ``intercept`` and ``slope`` (d,) added to every gate."""
        return replace(
            self,
            gate_intercepts=self.gate_intercepts + real(intercept, "(-inf, inf)", "translated: intercept"),
            gate_slopes=self.gate_slopes + shaped(slope, (self.d,), "translated: slope"),
        )

    def pinned(self) -> SoftmaxGatedMoE:
        """Return the same conditional density with the last gate zero."""
        return self.translated(-self.gate_intercepts[-1], -self.gate_slopes[-1])

    def gate_logits(self, x: np.ndarray) -> np.ndarray:
        """Return beta_k' x + beta0_k (n, k), for x (n, d)."""
        return self._inputs(x) @ self.gate_slopes.T + self.gate_intercepts

    def gates(self, x: np.ndarray) -> np.ndarray:
        """Return the softmax of the logits (n, k), for x (n, d)."""
        logits = self.gate_logits(x)
        return np.exp(logits - logsumexp(logits, axis=1, keepdims=True))

    def expert_means(self, x: np.ndarray) -> np.ndarray:
        """Return a_k' x + b_k (n, k), for x (n, d)."""
        return self._inputs(x) @ self.slopes.T + self.intercepts

    def _inputs(self, x: np.ndarray) -> np.ndarray:
        """Return x as (n, d), checked to be finite."""
        x = np.atleast_2d(numbers(x, "x"))
        if x.ndim != 2 or x.shape[1] != self.d:
            raise InputError(f"x has shape {x.shape}; expected (n, {self.d}) inputs")
        if not np.isfinite(x).all():
            raise InputError("x has NaN or infinite values; drop or impute them first")
        return x

    def regression(self, x: np.ndarray) -> np.ndarray:
        """Return m(x) = E[y | x] (n, 1), for x (n, d)."""
        return (self.gates(x) * self.expert_means(x)).sum(axis=1, keepdims=True)

    def log_density(self, sample: Sample) -> np.ndarray:
        """Return log p(y_i | x_i) (n,), in nats.

        Raises ``InputError`` where the sample has other than d inputs and one output.
        """
        x, y = expect(sample, (Sample, StreamedSample), "log_density: sample")
        if x.shape[1] != self.d or y.shape[1] != 1:
            raise InputError(f"sample has {x.shape[1]} inputs and {y.shape[1]} outputs; expected {self.d} and 1")
        logits = self.gate_logits(x)
        log_normal = -0.5 * (LOG_2PI + np.log(self.noise_vars) + (y - self.expert_means(x)) ** 2 / self.noise_vars)
        return logsumexp(logits + log_normal, axis=1) - logsumexp(logits, axis=1)

    def respond(self, x: np.ndarray, rng: np.random.Generator) -> Sample:
        """Draw one y for each row of x (n, d).

        rng  generator that y is drawn with

        Raises ``InputError`` where x has another shape.
        """
        x = numbers(x, "respond: x")
        if x.ndim != 2 or x.shape[1] != self.d:
            raise InputError(f"respond: x has shape {x.shape}; expected (n, {self.d}) inputs")
        generator(rng, "respond")
        # Gumbel: the largest of logit + noise is a draw from the softmax.
        atom = (self.gate_logits(x) + rng.gumbel(size=(len(x), self.k))).argmax(axis=1)
        mean = self.expert_means(x)[np.arange(len(x)), atom]
        return Sample(x, mean + np.sqrt(self.noise_vars[atom]) * rng.standard_normal(len(x)))

    def rescaled(self, shift_x, scale_x, shift_y: float, scale_y: float) -> SoftmaxGatedMoE:
        """Return the conditional law of (y - shift_y) / scale_y given (x - shift_x) / scale_x.

        Shifts and scales of x are vectors (d,), those of y numbers, in the units of x and y.

        Raises ``InputError`` for other shapes, and for a scale of 0.
        """
        shift_x, scale_x = (shaped(value, (self.d,), "rescaled: a shift or scale of x") for value in (shift_x, scale_x))
        shift_y = real(shift_y, "(-inf, inf)", "rescaled: shift_y")
        scale_y = real(scale_y, "(-inf, inf)", "rescaled: scale_y")
        if not (scale_x.all() and scale_y):
            raise InputError("rescaled: a scale is 0; expected units of x and y")
        return SoftmaxGatedMoE(
            self.gate_intercepts + self.gate_slopes @ shift_x,
            self.gate_slopes * scale_x,
            self.slopes * scale_x / scale_y,
            (self.intercepts + self.slopes @ shift_x - shift_y) / scale_y,
            self.noise_vars / scale_y**2,
        )


@dataclass(frozen=True)
class SoftmaxGatedFamily:
    """Say what a fit may be: all softmax-gated mixtures of ``k`` experts, the last gate pinned to zero.

    d  number of inputs
    k  number of atoms

    Raises ``InputError`` where one of them is below 1.

    >>> import moe_prompts as mp
    >>> mp.SoftmaxGatedFamily(d=1, k=2).n_parameters
    8
    """

    d: int
    k: int

    def __post_init__(self) -> None:
        for name in ("d", "k"):
            object.__setattr__(self, name, count(getattr(self, name), 1, f"SoftmaxGatedFamily: {name}"))

    @property
    def n_parameters(self) -> int:
        """Return the number of free parameters: (k - 1)(d + 1) of the gate and k (d + 2) of the experts."""
        return (self.k - 1) * (self.d + 1) + self.k * (self.d + 2)

    def check_sample(self, sample: Sample) -> None:
        """Raise ``InputError`` unless the sample has d inputs and one output."""
        expect(sample, (Sample, StreamedSample), "data")
        if sample.x.shape[1] != self.d or sample.y.shape[1] != 1:
            raise InputError(
                f"sample has {sample.x.shape[1]} inputs and {sample.y.shape[1]} outputs; expected d = {self.d} and 1"
            )
        if sample.n < self.k:
            raise InputError(f"data have n = {sample.n} pairs for k = {self.k} atoms; expected n >= k: lower k")

    def check(self, params: SoftmaxGatedMoE) -> SoftmaxGatedMoE:
        """Return ``params`` with the last gate pinned.

        Raises ``InputError`` where they have another number of atoms or inputs.
        """
        expect(params, SoftmaxGatedMoE, "start")
        if (params.k, params.d) != (self.k, self.d):
            raise InputError(f"start has k = {params.k}, d = {params.d}; expected k = {self.k}, d = {self.d}")
        return params.pinned()

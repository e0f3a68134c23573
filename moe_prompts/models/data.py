"""What models generate and estimators take: pairs (x, y), or the statistics that stand for them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from moe_prompts.errors import InputError


@dataclass(frozen=True, eq=False)
class Sample:
    """n pairs (x_i, y_i): ``x`` has shape (n, d) and ``y`` (n, l); both finite. Unpacks as ``x, y = sample``.

    Samples compare by identity, so that what is derived from one can be kept beside it.
    """

    x: np.ndarray
    y: np.ndarray

    def __post_init__(self) -> None:
        for name in ("x", "y"):
            value = np.asarray(getattr(self, name), dtype=float)
            if value.ndim == 1:
                value = value[:, None]
            if value.ndim != 2:
                raise InputError(f"Sample: {name} has shape {value.shape}; expected (n, columns)")
            if not np.isfinite(value).all():
                bad = int((~np.isfinite(value)).any(axis=1).sum())
                raise InputError(
                    f"Sample: {name} has {bad} rows with NaN or infinite values; drop or impute them first"
                )
            object.__setattr__(self, name, value)
        if len(self.x) != len(self.y):
            raise InputError(f"Sample: x has {len(self.x)} rows and y has {len(self.y)}; expected one y for each x")

    @property
    def n(self) -> int:
        return len(self.x)

    def head(self, n: int) -> Sample:
        """The first n pairs: a subsample, since the pairs are exchangeable."""
        return Sample(self.x[:n], self.y[:n])

    def thinned(self, n: int) -> Sample:
        """At most n pairs, every m-th from the first: a subsample that keeps the design where inputs are sorted."""
        step = -(-self.n // n)
        return Sample(self.x[::step], self.y[::step])

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter((self.x, self.y))


@dataclass(frozen=True, eq=False)
class RegressionData:
    """Statistics of a regression y = f(x) + noise: all that least squares needs, whatever n is.

    sum_i |y_i - f(x_i)|^2 = constant + sum_c [w_c |f(x_c)|^2 - 2 f(x_c)' s_c]

    x        (m, d)   points: the pairs themselves, the cells of a discrete design, or the nodes of a quadrature
    weights  (m,)     w_c: how many pairs stand at x_c (a quadrature may have small negative weights)
    sums     (m, l)   s_c: the sum of their outputs
    n                 pairs that these statistics stand for

    Exact for the pairs themselves and for a discrete design; for a quadrature see ``estimators.quadrature``.
    """

    x: np.ndarray
    weights: np.ndarray
    sums: np.ndarray
    n: int

    def __post_init__(self) -> None:
        for name, ndim in (("x", 2), ("weights", 1), ("sums", 2)):
            value = np.asarray(getattr(self, name), dtype=float)
            if value.ndim != ndim:
                raise InputError(f"RegressionData: {name} has shape {value.shape}; expected {ndim} axes")
            if not np.isfinite(value).all():
                raise InputError(f"RegressionData: {name} has NaN or infinite values; drop or impute these rows first")
            object.__setattr__(self, name, value)
        if not len(self.x) == len(self.weights) == len(self.sums):
            raise InputError(
                f"RegressionData: {len(self.x)} points, {len(self.weights)} weights and {len(self.sums)} sums; "
                "expected one of each per point"
            )

    @classmethod
    def of(cls, sample: Sample) -> RegressionData:
        """Every pair a point of weight 1."""
        return cls(sample.x, np.ones(sample.n), sample.y, sample.n)

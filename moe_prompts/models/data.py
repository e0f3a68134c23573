"""Hold what models generate and estimators take: pairs (x, y), whole or in chunks, or their statistics.

For least squares the statistics of pairs say all that the pairs do,

    sum_i |y_i - f(x_i)|^2 = constant + sum_c [w_c |f(x_c)|^2 - 2 f(x_c)' s_c].
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from moe_prompts.checks import LARGEST, expect, numbers, real, settings, shown, whole
from moe_prompts.errors import InputError

#: Pairs in a chunk: its arrays stay in cache, and what a chunk costs by itself is small beside its pairs.
CHUNK = 1 << 16
#: Pairs that a study holds in memory at most; a worker keeps some 16 samples and lays out one: 1 GB.
HELD_PAIRS = 1_000_000


@dataclass(frozen=True, eq=False)
class Sample:
    """Hold n pairs (x_i, y_i) in memory; unpacks as ``x, y = sample``.

    x  (n, d), finite; a vector counts as one column
    y  (n, l), finite; a vector counts as one column

    Samples compare by identity, so that what is derived from one can be kept beside it.

    Raises ``InputError`` where shapes do not fit or a value is not finite.

    >>> import moe_prompts as mp
    >>> sample = mp.Sample(x=[0.0, 0.5, 1.0], y=[1.0, 0.0, 1.0])
    >>> sample.n, sample.d, sample.l
    (3, 1, 1)
    """

    x: np.ndarray
    y: np.ndarray

    def __post_init__(self) -> None:
        for name in ("x", "y"):
            value = numbers(getattr(self, name), f"Sample: {name}")
            if value.ndim == 1:
                value = value[:, None]
            if value.ndim != 2:
                raise InputError(f"Sample: {name} has shape {value.shape}; expected (n, columns)")
            if not value.shape[1]:
                raise InputError(f"Sample: {name} has no columns; expected at least one")
            low, high = (value.min(), value.max()) if value.size else (0.0, 0.0)  # NaN where there is one
            if not np.isfinite([low, high]).all():
                bad = int((~np.isfinite(value)).any(axis=1).sum())
                raise InputError(
                    f"Sample: {name} has {bad} rows with NaN or infinite values; drop or impute them first"
                )
            if max(-low, high) > LARGEST:
                raise InputError(
                    f"Sample: {name} has values up to {max(-low, high):.1g}, whose squares are no numbers; expected a "
                    f"unit in which they are below {LARGEST:.0e}"
                )
            object.__setattr__(self, name, value)
        if len(self.x) != len(self.y):
            raise InputError(f"Sample: x has {len(self.x)} rows and y has {len(self.y)}; expected one y for each x")

    @property
    def n(self) -> int:
        """Return the number of pairs."""
        return len(self.x)

    @property
    def d(self) -> int:
        """Return the number of inputs."""
        return self.x.shape[1]

    @property
    def l(self) -> int:
        """Return the number of outputs."""
        return self.y.shape[1]

    def chunks(self) -> Iterator[Sample]:
        """Yield one chunk, the sample itself; ``StreamedSample`` yields several."""
        yield self

    def head(self, n: int) -> Sample:
        """Return the first n pairs: a subsample, since the pairs are exchangeable."""
        n = whole(n, 0, "head: n")
        return Sample(self.x[:n], self.y[:n])

    def thinned(self, n: int) -> Sample:
        """Return at most n pairs, every m-th from the first.

        This subsample keeps the design where inputs are sorted.
        """
        step = max(1, -(-self.n // whole(n, 1, "thinned: n")))
        return Sample(self.x[::step], self.y[::step])

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter((self.x, self.y))


@dataclass(frozen=True)
class Spread:
    """Summarise the columns of (x, y).

    mean  (d + l,)  means
    sd    (d + l,)  standard deviations
    low   (d + l,)  smallest values
    high  (d + l,)  largest values
    """

    mean: np.ndarray
    sd: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True, eq=False)
class StreamedSample:
    """Stand for n pairs (x_i, y_i) that are never held whole: every pass draws the same ones again.

    draw(chunk)  yields the pairs from the first on, as ``Sample``s of ``chunk`` pairs and a shorter last one;
                 every call and every ``chunk`` gives the same pairs
    n, d, l      how many pairs, inputs and outputs
    chunk        pairs in memory at once

    Estimators of Gaussian gates take it in place of a ``Sample``: their passes are sums over pairs. Drawing
    again needs no disk and takes one to two times as long as what a pass does with the pairs. Samples compare
    by identity, so that what is derived from one can be kept beside it.

    Raises ``InputError`` for sizes below 1, for ``x`` and ``y``, which do not exist, and where ``draw``
    yields other than n pairs of that many columns.

    >>> import moe_prompts as mp
    >>> stream = mp.streamed("gmoe-1", n=1000, seed=0, chunk=300)
    >>> [pairs.n for pairs in stream.chunks()]
    [300, 300, 300, 100]
    """

    draw: Callable[[int], Iterator[Sample]]
    n: int
    d: int
    l: int
    chunk: int = CHUNK

    def __post_init__(self) -> None:
        settings(self, n=1, d=1, l=1, chunk=1)
        if not callable(self.draw):
            raise InputError(f"StreamedSample: draw = {shown(self.draw)}; expected a function that yields samples")

    def chunks(self) -> Iterator[Sample]:
        """Yield all pairs in order, ``chunk`` at a time.

        Raises ``InputError`` where ``draw`` yields other than n pairs of d inputs and l outputs.
        """
        seen = 0
        for pairs in self.draw(self.chunk):
            if (pairs.d, pairs.l) != (self.d, self.l):
                raise InputError(
                    f"StreamedSample: drew d = {pairs.d} inputs and l = {pairs.l} outputs; expected {self.d} and "
                    f"{self.l}"
                )
            seen += pairs.n
            yield pairs
        if seen != self.n:
            raise InputError(f"StreamedSample: drew {seen} pairs; expected n = {self.n}")

    def head(self, n: int) -> Sample:
        """Return the first n pairs, in memory."""
        return next(self.draw(min(whole(n, 1, "head: n"), self.n)))

    def held(self) -> Sample:
        """Return all pairs in memory: 8 (d + l) bytes each."""
        return self.head(self.n)

    @cached_property
    def spread(self) -> Spread:
        """Return the spread of all columns, by one pass.

        Means and squares of chunks join as those of Chan, Golub and LeVeque (1983), which lose no digits: M
        <- M + M_c + (mean_c - mean)^2 n n_c / (n + n_c).
        """
        seen, mean, squares = 0, np.zeros(self.d + self.l), np.zeros(self.d + self.l)
        low, high = np.full(self.d + self.l, np.inf), np.full(self.d + self.l, -np.inf)
        for pairs in self.chunks():
            z = np.concatenate([pairs.x.T, pairs.y.T])
            own = z.mean(axis=1)
            apart, share = own - mean, pairs.n / (seen + pairs.n)
            squares += ((z - own[:, None]) ** 2).sum(axis=1) + apart**2 * seen * share
            mean += apart * share
            seen += pairs.n
            low, high = np.minimum(low, z.min(axis=1)), np.maximum(high, z.max(axis=1))
        return Spread(mean, np.sqrt(squares / seen), low, high)

    @property
    def x(self) -> np.ndarray:
        """Raise ``InputError``: the inputs are never held whole."""
        raise InputError(self._not_held("x"))

    @property
    def y(self) -> np.ndarray:
        """Raise ``InputError``: the outputs are never held whole."""
        raise InputError(self._not_held("y"))

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter((self.x, self.y))

    def _not_held(self, name: str) -> str:
        return (
            f"StreamedSample: {name} of n = {self.n} pairs is never held whole; estimators of Gaussian gates take it "
            "in chunks, others need pairs in memory: lower n, or use held() where memory allows"
        )


#: What estimators of Gaussian gates take.
Data = Sample | StreamedSample


@dataclass(frozen=True, eq=False)
class RegressionData:
    """Hold the statistics of a regression y = f(x) + noise: all that least squares needs, whatever n is.

        sum_i |y_i - f(x_i)|^2 = constant + sum_c [w_c |f(x_c)|^2 - 2 f(x_c)' s_c]

    x        (m, d)  points: the pairs themselves, the cells of a discrete design, or the nodes of a
                     quadrature
    weights  (m,)    w_c: how many pairs stand at x_c (a quadrature may have small negative weights)
    sums     (m, l)  s_c: the sum of their outputs
    n                pairs that these statistics stand for

    They are exact for the pairs themselves and for a discrete design; for a quadrature see ``mp.quadrature``.

    Raises ``InputError`` where shapes do not fit or a value is not finite.

    Two pairs at each of two points:

    >>> import numpy as np
    >>> import moe_prompts as mp
    >>> x, sums = np.array([[0.0], [1.0]]), np.array([[1.0], [3.0]])
    >>> data = mp.RegressionData(x=x, weights=np.ones(2) * 2, sums=sums, n=4)
    >>> data.n, data.sums / data.weights[:, None]
    (4, array([[0.5],
           [1.5]]))
    """

    x: np.ndarray
    weights: np.ndarray
    sums: np.ndarray
    n: int

    def __post_init__(self) -> None:
        for name, ndim in (("x", 2), ("weights", 1), ("sums", 2)):
            value = numbers(getattr(self, name), f"RegressionData: {name}")
            if value.ndim != ndim:
                raise InputError(f"RegressionData: {name} has shape {value.shape}; expected {ndim} axes")
            if not np.isfinite(value).all():
                raise InputError(f"RegressionData: {name} has NaN or infinite values; drop or impute these rows first")
            if value.size and np.abs(value).max() > LARGEST:
                raise InputError(
                    f"RegressionData: {name} has values up to {np.abs(value).max():.1g}, whose squares are no numbers; "
                    f"expected a unit in which they are below {LARGEST:.0e}"
                )
            object.__setattr__(self, name, value)
        real(self.n, "[0, inf)", "RegressionData: n")  # of an expectation it need not be whole
        if not len(self.x) == len(self.weights) == len(self.sums):
            raise InputError(
                f"RegressionData: {len(self.x)} points, {len(self.weights)} weights and {len(self.sums)} sums; "
                "expected one of each per point"
            )

    @classmethod
    def of(cls, sample: Sample) -> RegressionData:
        """Return every pair of the sample as a point of weight 1."""
        expect(sample, Sample, "RegressionData.of")
        return cls(sample.x, np.ones(sample.n), sample.y, sample.n)

"""Replace a large sample of z = (x, y) in the plane by a short quadrature, as a cheap guide to the exact fit.

In each cell of a grid,

    sum_i f(z_i) = sum_c w_c f(node_c)   with   w_c = sum_i l_c(z_i)

for every polynomial f of total degree <= p, where l_c is the Lagrange basis at the Padua points: as many as
such polynomials have coefficients, a bit more than half of a tensor grid of the same degree. The log density
of a Gaussian mixture is analytic. Where atoms are wider than a cell's node spacing, the log-likelihood is
therefore reproduced to many digits, and its cost no longer depends on n. It is never the final word: fits
end, and are certified, on the data themselves.

Source of the nodes: Caliari, De Marchi and Vianello (2005), Bivariate polynomial interpolation on the square
at new nodal sets.
"""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
from numpy.polynomial import chebyshev

from moe_prompts.errors import InputError
from moe_prompts.models.data import Data, Sample, StreamedSample

#: Cell width in standard deviations of the data, total degree of the polynomials that a cell sums exactly,
#: and how many nodes that takes.
CELL, DEGREE = 0.2, 9
NODES = (DEGREE + 1) * (DEGREE + 2) // 2
#: Atoms narrower than this (in the same units) are beyond the quadrature: a climb stops there and goes on on
#: the data.
RESOLUTION = 0.03
#: Points whose polynomials are computed together, unless one cell has more.
TOGETHER = 4096
#: Compression pays from here on: about as many nodes are needed whatever n is.
WORTHWHILE = 30_000

_COMPRESSED: WeakKeyDictionary[Data, tuple[Sample, np.ndarray]] = WeakKeyDictionary()


def compressed_once(sample: Data) -> tuple[Sample, np.ndarray]:
    """Return ``compress(sample)``, kept while the sample lives, since several families are fitted to it."""
    if sample not in _COMPRESSED:
        _COMPRESSED[sample] = compress(sample)
    return _COMPRESSED[sample]


def compress(sample: Data) -> tuple[Sample, np.ndarray]:
    """Return nodes (m pairs) and weights (m,) that sum smooth functions over the sample; m <= n.

    Some weights are negative. Cells with no more points than nodes keep their points with weight 1. A
    ``StreamedSample`` needs one pass over its chunks: a cell's points are held until there are more of them
    than nodes.

    Raises ``InputError`` unless d = l = 1.
    """
    if (sample.d, sample.l) != (1, 1):
        raise InputError(
            f"compress: d = {sample.d}, l = {sample.l}; expected d = l = 1: the number of nodes "
            f"grows as a power of d + l: fit the data themselves"
        )
    grid = _Grid.over(sample)
    moments: dict[int, np.ndarray] = {}
    kept = np.empty((2, 0))
    for pairs in sample.chunks():
        kept = grid.gather(np.concatenate([kept, np.concatenate([pairs.x.T, pairs.y.T])], axis=1), moments)

    # Sums of Chebyshev polynomials over a cell's points are kept, since a recurrence gives them quickly. The
    # Lagrange polynomials of the nodes are combinations of them, and so the weights are of those sums.
    at, used = padua(DEGREE), np.add.outer(np.arange(DEGREE + 1), np.arange(DEGREE + 1)) <= DEGREE
    to_weights = np.linalg.inv(chebyshev.chebvander2d(at[:, 0], at[:, 1], [DEGREE, DEGREE])[:, used.ravel()].T)
    dense = sorted(moments)
    weights = np.reshape([moments[key][used] for key in dense], (-1, NODES)) @ to_weights.T
    corners = np.stack(np.divmod(np.array(dense, dtype=np.int64), grid.columns), axis=1)
    nodes = grid.low.T + grid.width.T * (corners[:, None] + (at + 1) / 2).reshape(-1, 2)
    points = np.concatenate([kept.T, nodes])
    return Sample(points[:, :1], points[:, 1:]), np.concatenate([np.ones(kept.shape[1]), weights.ravel()])


def padua(degree: int) -> np.ndarray:
    """Return the Padua points of the square [-1, 1]^2, of shape ((degree + 1) (degree + 2) / 2, 2).

    A polynomial of total degree ``degree`` >= 1 is known by its values at them. They are every other point of
    the grid cos(pi j / degree) x cos(pi k / (degree + 1)).
    """
    j, k = np.indices((degree + 1, degree + 2))
    every_other = (j + k) % 2 == 0
    return np.cos(np.pi * np.stack([j[every_other] / degree, k[every_other] / (degree + 1)], axis=1))


@dataclass(frozen=True)
class _Grid:
    """Divide the plane in cells of ``width`` (2, 1) from ``low`` (2, 1) on.

    A cell's key is row * columns + column.
    """

    low: np.ndarray
    width: np.ndarray
    columns: int

    @classmethod
    def over(cls, sample: Data) -> _Grid:
        if isinstance(sample, StreamedSample):
            low, high, sd = (v[:, None] for v in (sample.spread.low, sample.spread.high, sample.spread.sd))
        else:
            z = np.concatenate([sample.x.T, sample.y.T])
            low, high, sd = z.min(axis=1, keepdims=True), z.max(axis=1, keepdims=True), z.std(axis=1, keepdims=True)
        width = CELL * sd
        return cls(low, width, int(np.floor((high - low) / width)[1, 0]) + 1)

    def gather(self, z: np.ndarray, moments: dict[int, np.ndarray]) -> np.ndarray:
        """Add points z (2, m) of dense cells to the cells' ``moments``; return the others, cell by cell.

        A cell is dense once more than NODES of its points stand together.
        """
        place = (z - self.low) / self.width
        cell = np.floor(place)
        key = cell[0] * self.columns + cell[1]
        key = key.astype(np.uint16 if key.max() < 2**16 else np.int64)  # 16 bits are sorted by radix
        order = np.argsort(key, kind="stable")
        key = key[order]
        first = np.flatnonzero(np.diff(key.astype(np.int64), prepend=-1))
        sizes = np.diff(first, append=len(key))
        dense = np.array([size > NODES or int(key[at]) in moments for at, size in zip(first, sizes, strict=True)])
        inside = 2 * (place - cell) - 1
        starts, ends = first[dense], (first + sizes)[dense]
        while len(starts):
            # A few cells at a time, whose polynomials stay in cache.
            few = max(1, int(np.searchsorted(ends, starts[0] + TOGETHER, side="right")))
            begin = starts[0]
            powers = [_chebyshev(axis[order[begin : ends[few - 1]]]) for axis in inside]
            for a, b in zip(starts[:few], ends[:few], strict=True):
                rows, name = slice(a - begin, b - begin), int(key[a])
                moments[name] = moments.get(name, 0.0) + powers[0][:, rows] @ powers[1][:, rows].T
            starts, ends = starts[few:], ends[few:]
        return z[:, order[~np.repeat(dense, sizes)]]


def _chebyshev(t: np.ndarray) -> np.ndarray:
    """Return T_0 .. T_DEGREE at t, of shape (DEGREE + 1, n)."""
    values = np.empty((DEGREE + 1, len(t)))
    values[0], values[1], twice = 1, t, 2 * t
    for degree in range(2, DEGREE + 1):
        np.multiply(twice, values[degree - 1], out=values[degree])
        values[degree] -= values[degree - 2]
    return values

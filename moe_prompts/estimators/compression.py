"""A large sample of z = (x, y) in the plane as a short quadrature: a cheap likelihood that leads to the exact one.

In each cell of a grid, sum_i f(z_i) = sum_c w_c f(node_c) for every polynomial f of degree < p per coordinate, with
w_c = sum_i l_c(z_i) the summed Lagrange basis at tensor Chebyshev nodes. The log density of a Gaussian mixture is
analytic, so where atoms are wider than a cell's node spacing the log-likelihood is reproduced to many digits and its
cost no longer depends on n. It is never the final word: fits end, and are certified, on the data themselves.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

import numpy as np
from numpy.polynomial import chebyshev

from moe_prompts.errors import InputError
from moe_prompts.models.data import Sample

#: Cell width in standard deviations of the data, and nodes per coordinate of a cell.
CELL, NODES = 0.15, 8
#: Atoms narrower than this (in the same units) are beyond the quadrature: a climb stops there and goes on on the data.
RESOLUTION = 0.03


#: Compression pays from here on: about as many nodes are needed whatever n is.
WORTHWHILE = 50_000

_COMPRESSED: WeakKeyDictionary[Sample, tuple[Sample, np.ndarray]] = WeakKeyDictionary()


def compressed_once(sample: Sample) -> tuple[Sample, np.ndarray]:
    """``compress(sample)``, kept for as long as the sample lives: several families are fitted to the same data."""
    if sample not in _COMPRESSED:
        _COMPRESSED[sample] = compress(sample)
    return _COMPRESSED[sample]


def compress(sample: Sample) -> tuple[Sample, np.ndarray]:
    """Nodes (m pairs) and weights (m,), m <= n, summing smooth functions over the sample; some are negative.

    For d = l = 1. Cells with no more points than nodes keep their points with weight 1.
    """
    if (sample.x.shape[1], sample.y.shape[1]) != (1, 1):
        raise InputError(
            f"compress: d = {sample.x.shape[1]}, l = {sample.y.shape[1]}; expected d = l = 1: the number of nodes "
            f"grows as a power of d + l: fit the data themselves"
        )
    z = np.concatenate([sample.x.T, sample.y.T])
    low, width = z.min(axis=1, keepdims=True), CELL * z.std(axis=1, keepdims=True)
    place = (z - low) / width
    cell = np.floor(place)
    columns = int(cell[1].max()) + 1
    key = cell[0] * columns + cell[1]
    key = key.astype(np.uint16 if key.max() < 2**16 else np.int64)  # 16 bits are sorted by radix
    order = np.argsort(key, kind="stable")
    key = key[order]
    first = np.flatnonzero(np.diff(key.astype(np.int64), prepend=-1))
    sizes = np.diff(first, append=len(key))
    dense = sizes > NODES**2

    powers = [_chebyshev(axis) for axis in (2 * (place - cell) - 1)[:, order]]
    moments = np.empty((int(dense.sum()), NODES, NODES))
    for index, (begin, size) in enumerate(zip(first[dense], sizes[dense], strict=True)):
        rows = slice(begin, begin + size)
        moments[index] = powers[0][:, rows] @ powers[1][:, rows].T
    at = chebyshev.chebpts1(NODES)
    to_lagrange = np.linalg.inv(chebyshev.chebvander(at, NODES - 1))
    weights = to_lagrange.T @ moments @ to_lagrange

    corners = np.stack(np.divmod(key[first[dense]].astype(np.int64), columns), axis=1)
    grid = np.stack(np.meshgrid(at, at, indexing="ij"), axis=-1).reshape(1, -1, 2)
    nodes = low.T + width.T * (corners[:, None] + (grid + 1) / 2).reshape(-1, 2)
    kept = z[:, order[~np.repeat(dense, sizes)]].T
    points = np.concatenate([kept, nodes])
    return Sample(points[:, :1], points[:, 1:]), np.concatenate([np.ones(len(kept)), weights.ravel()])


def _chebyshev(t: np.ndarray) -> np.ndarray:
    """T_0 .. T_(NODES - 1) at t: shape (NODES, n)."""
    values = np.empty((NODES, len(t)))
    values[0], values[1], twice = 1, t, 2 * t
    for degree in range(2, NODES):
        np.multiply(twice, values[degree - 1], out=values[degree])
        values[degree] -= values[degree - 2]
    return values

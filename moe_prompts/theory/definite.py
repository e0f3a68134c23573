"""Decide whether a split can hide to second order.

Atoms at theta* + Delta_l with masses w_l differ from one atom at theta* by

    first order + 1/2 sum_ij M_ij u_ij,     M = sum_l w_l Delta_l Delta_l',  a positive semidefinite matrix.

Let K be the space of second-order parts M of all dependences among derivatives of order <= 2. If K contains
no positive semidefinite M but 0, then, by compactness of {M >= 0, tr M = 1}, sum_l w_l |Delta_l|^2 <= C ||f -
f*||: all splits are n^{-1/4}. The certificate is a positive definite Y orthogonal to K, since <Y, M> > 0 for
M >= 0, M != 0. If K contains such an M, it names the parameters that can hide. By duality one of the two
exists; when neither is found in rational numbers the answer is "undetermined".
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import sympy as sp
from scipy.optimize import minimize

#: Candidates for Y are rounded to multiples of this; definiteness is open, so that rounding keeps it.
GRID = 1 << 20
#: Coefficients of Y where its numerical search ends.
BOX = 1e3


@dataclass(frozen=True)
class Definiteness:
    """Hold what decides: a separator, a hidden split, or neither.

    separator  Y > 0 orthogonal to K: no split hides
    hidden     M >= 0 in K, M != 0: a split that hides; where both are None the answer is undetermined
    """

    separator: sp.Matrix | None
    hidden: sp.Matrix | None


def positive(matrix: sp.Matrix, strictly: bool) -> bool:
    """Test exactly whether a rational symmetric matrix is positive definite, or semidefinite.

    The test is elimination: a zero pivot of a semidefinite matrix has a zero row.
    """
    rows = [[Fraction(int(v.p), int(v.q)) for v in matrix.row(i)] for i in range(matrix.rows)]
    for k, pivot_row in enumerate(rows):
        pivot = pivot_row[k]
        if pivot < 0 or (pivot == 0 and (strictly or any(pivot_row[k + 1 :]))):
            return False
        if pivot:
            for row in rows[k + 1 :]:
                factor = row[k] / pivot
                for j in range(k + 1, len(rows)):
                    row[j] -= factor * pivot_row[j]
    return True


def separate(space: tuple[sp.Matrix, ...], size: int) -> Definiteness:
    """Return Y or M for the space K spanned by ``space``, symmetric rational matrices of order ``size``."""
    if not space:
        return Definiteness(sp.eye(size), None)
    hidden = _hidden(space, size)
    return Definiteness(None, hidden) if hidden is not None else Definiteness(_separator(space, size), None)


def _inner(a: sp.Matrix, b: sp.Matrix) -> sp.Rational:
    return sum((x * y for x, y in zip(a, b, strict=True)), sp.Integer(0))


def _projection(target: sp.Matrix, space: list[sp.Matrix]) -> sp.Matrix:
    """Return the orthogonal projection on the span, exactly."""
    gram = sp.Matrix(len(space), len(space), lambda i, j: _inner(space[i], space[j]))
    right = sp.Matrix([_inner(target, m) for m in space])
    coefficients = gram.LUsolve(right)
    return sum((c * m for c, m in zip(coefficients, space, strict=True)), sp.zeros(*target.shape))


def _hidden(space: tuple[sp.Matrix, ...], size: int) -> sp.Matrix | None:
    """Return a positive semidefinite M in K, or None where none is found.

    Where every M in K has a zero on the diagonal, a semidefinite one has a zero row. Keeping those with that
    row zero may put more zeros on the diagonal. On what is left the projection of I is tried.
    """
    left, kept = list(space), list(range(size))
    while left:
        gone = [i for i in kept if all(m[i, i] == 0 for m in left)]
        if not gone:
            break
        kept = [i for i in kept if i not in gone]
        equations = sp.Matrix([[m[i, j] for m in left] for i in gone for j in range(size)])
        left = [
            sum((c * m for c, m in zip(vector, left, strict=True)), sp.zeros(size, size))
            for vector in equations.nullspace()
        ]
    if not left:
        return None
    face = sp.diag(*(int(i in kept) for i in range(size)))
    found = _projection(face, left)
    return found if any(found) and positive(found, strictly=False) else None


def _separator(space: tuple[sp.Matrix, ...], size: int) -> sp.Matrix | None:
    """Return Y > 0 orthogonal to K, or None where none is found.

    The identity without its part in K is tried first, then the numerical maximiser of the least eigenvalue,
    rounded and projected back.
    """
    basis = list(space)
    first = sp.eye(size) - _projection(sp.eye(size), basis)
    if positive(first, strictly=True):
        return first
    directions = _complement(space, size)
    if not len(directions):
        return None

    def soft_maximum(coefficients: np.ndarray) -> tuple[float, np.ndarray]:
        """Return log tr exp(-Y), about minus the least eigenvalue of Y, and its gradient."""
        values, vectors = np.linalg.eigh(np.tensordot(coefficients, directions, axes=1))
        shifted = np.exp(values.min() - values)
        density = (vectors * (shifted / shifted.sum())) @ vectors.T
        return np.log(shifted.sum()) - values.min(), -np.tensordot(directions, density, axes=2)

    # In a box, since every multiple of a separator separates.
    box = [(-BOX, BOX)] * len(directions)
    found = minimize(soft_maximum, np.zeros(len(directions)), jac=True, method="L-BFGS-B", bounds=box)
    numeric = np.tensordot(found.x, directions, axes=1)
    top = np.abs(numeric).max() or 1.0
    rounded = sp.Matrix(size, size, lambda i, j: sp.Rational(round(float(numeric[i, j] / top) * GRID), GRID))
    second = rounded - _projection(rounded, basis)
    return second if positive(second, strictly=True) else None


def _complement(space: tuple[sp.Matrix, ...], size: int) -> np.ndarray:
    """Return orthonormal symmetric matrices orthogonal to K."""
    upper = np.triu_indices(size)
    scale = np.where(upper[0] == upper[1], 1.0, np.sqrt(2))
    rows = np.array([np.array(m.tolist(), dtype=float)[upper] * scale for m in space])
    _, singular, right = np.linalg.svd(rows, full_matrices=True)
    rank = int((singular > 1e-9 * singular[0]).sum())
    made = np.zeros((len(right) - rank, size, size))
    for matrix, vector in zip(made, right[rank:], strict=True):
        matrix[upper] = vector / scale
        matrix[upper[::-1]] = vector / scale
    return made

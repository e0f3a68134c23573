import math
from itertools import combinations_with_replacement

import numpy as np
import pytest
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_prompts.theory.definite import Definiteness, positive, separate


def symmetric(size, entries):
    """The symmetric matrix with these entries on and above the diagonal, row by row."""
    matrix = sp.zeros(size, size)
    for (i, j), value in zip(combinations_with_replacement(range(size), 2), entries, strict=True):
        matrix[i, j] = matrix[j, i] = sp.Rational(value)
    return matrix


def unit(size, i, j):
    """e_i e_j' + e_j e_i', halved on the diagonal."""
    matrix = sp.zeros(size, size)
    matrix[i, j] = matrix[j, i] = 1
    return matrix


def inner(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def orthogonal_complement(matrices, size):
    """A basis of the symmetric matrices orthogonal to all of ``matrices``."""
    basis = [unit(size, i, j) for i, j in combinations_with_replacement(range(size), 2)]
    equations = sp.Matrix([[inner(matrix, element) for element in basis] for matrix in matrices])
    return tuple(
        sum((c * b for c, b in zip(vector, basis, strict=True)), sp.zeros(size, size))
        for vector in equations.nullspace()
    )


def rank(matrices):
    return sp.Matrix([list(matrix) for matrix in matrices]).rank() if matrices else 0


def eigenvalues(matrix):
    return np.linalg.eigvalsh(np.array(matrix.tolist(), dtype=float))


def check(found, space, size):
    """Never both, and what is given is what it claims to be: by eigenvalues, inner products and ranks."""
    assert found.separator is None or found.hidden is None
    if found.separator is not None:
        assert all(inner(found.separator, matrix) == 0 for matrix in space)
        assert found.separator == found.separator.T
        assert positive(found.separator, strictly=True)
        assert eigenvalues(found.separator).min() > 0
    if found.hidden is not None:
        assert any(found.hidden)
        assert positive(found.hidden, strictly=False)
        assert eigenvalues(found.hidden).min() > -1e-9 * max(map(abs, found.hidden))
        assert rank([*space, found.hidden]) == rank(space)


integers = st.integers(-3, 3)


@st.composite
def rational_symmetric(draw):
    """A A' - shift, over a common denominator: definite, singular and indefinite ones all occur."""
    size, inside = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    factor = sp.Matrix(size, inside, draw(st.lists(integers, min_size=size * inside, max_size=size * inside)))
    shift = sp.diag(*draw(st.lists(st.sampled_from([0, 0, 1, -1]), min_size=size, max_size=size)))
    return (factor * factor.T - shift) / draw(st.integers(1, 7))


@settings(max_examples=150, deadline=None)
@given(rational_symmetric())
def test_positive_agrees_with_eigenvalues(matrix):
    """Integer matrices with entries below 40 have |det| >= 1 or 0, so eigenvalues that are not 0 stay above 1e-6."""
    smallest = eigenvalues(matrix).min()
    assert positive(matrix, strictly=True) == (smallest > 1e-9)
    assert positive(matrix, strictly=False) == (smallest > -1e-9)


def test_positive_of_singular_matrices():
    singular = sp.Matrix([[1, 2], [2, 4]])
    assert positive(singular, strictly=False)
    assert not positive(singular, strictly=True)
    assert not positive(sp.Matrix([[0, 1], [1, 5]]), strictly=False)
    assert positive(sp.zeros(3, 3), strictly=False)
    assert not positive(sp.zeros(3, 3), strictly=True)


def test_nothing_invisible():
    """K = {0}: any Y > 0 will do."""
    assert separate((), 3) == Definiteness(sp.eye(3), None)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("codimension", [1, 2, 4])
def test_planted_separator_is_found(seed, codimension):
    """K = {Y, Z_2, ..}^perp with Y > 0 at random: K contains no M >= 0, since <Y, M> > 0 for these."""
    rng = np.random.default_rng([seed, codimension])
    size = int(rng.integers(2, 5))
    root = sp.Matrix(rng.integers(-4, 5, (size, size)).tolist()) + 6 * sp.eye(size)
    planted = root * root.T / 3
    others = [symmetric(size, rng.integers(-9, 10, size * (size + 1) // 2).tolist()) for _ in range(codimension - 1)]
    space = orthogonal_complement([planted, *others], size)
    found = separate(space, size)
    assert found.separator is not None
    check(found, space, size)


FAR = {
    "turned": (sp.Matrix([[1, 2, 0], [0, 1, -1], [1, 0, 3]]), (10, 1, 1), (-1, 15, -5)),
    "axes": (sp.eye(3), (9, 1, 1), (-1, 15, -6)),
}


@pytest.mark.parametrize("name", ["turned", "axes"])
def test_separator_far_from_the_identity(name):
    """K^perp is spanned by some Y > 0 and an indefinite Z, and holds an indefinite part of I: Y is searched for."""
    turn, *diagonals = FAR[name]
    normals = [turn.T * sp.diag(*entries) * turn for entries in diagonals]
    gram = sp.Matrix(2, 2, lambda i, j: inner(normals[i], normals[j]))
    coefficients = gram.LUsolve(sp.Matrix([normal.trace() for normal in normals]))
    nearest = sum((c * normal for c, normal in zip(coefficients, normals, strict=True)), sp.zeros(3, 3))
    assert eigenvalues(nearest).min() < 0
    space = orthogonal_complement(normals, 3)
    found = separate(space, 3)
    assert found.separator is not None
    check(found, space, 3)


HIDDEN = {
    "one coordinate": (3, [unit(3, 1, 1)]),
    "one coordinate beside mixed ones": (3, [unit(3, 1, 1), unit(3, 0, 2), unit(3, 0, 1)]),
    "beside an indefinite diagonal": (3, [unit(3, 0, 0), sp.diag(0, 1, -1)]),
    "all of two coordinates": (4, [unit(4, 0, 0), unit(4, 0, 2), unit(4, 2, 2), unit(4, 1, 3)]),
    "hidden behind two faces": (4, [sp.diag(1, 1, 0, 0) + unit(4, 2, 3), unit(4, 0, 3), unit(4, 2, 3)]),
    "rank one, rational": (2, [sp.Matrix([[1, -2], [-2, 4]])]),
    "minus a square": (2, [sp.Matrix([[-1, 2], [2, -4]])]),
    "the sum of two conjugates": (2, [sp.diag(1, 2), unit(2, 0, 1)]),  # v = (1, +-sqrt 2)
    "everything": (2, [unit(2, 0, 0), unit(2, 0, 1), unit(2, 1, 1)]),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_planted_semidefinite_matrix_is_found(name):
    size, space = HIDDEN[name]
    found = separate(tuple(space), size)
    assert found.hidden is not None
    check(found, space, size)


def test_coordinates_that_hide_are_named():
    """K = Sym(e_0, e_2) + span(e_1 e_3'): the diagonal of M is positive at 0 and 2 only."""
    size, space = HIDDEN["all of two coordinates"]
    hidden = separate(tuple(space), size).hidden
    assert [hidden[i, i] > 0 for i in range(size)] == [True, False, True, False]


def test_irrational_direction_is_undetermined():
    """vv' with v = (1, r, r^2), r^3 = 2, is A + r B + r^2 C; K = span(A, B, C) contains no other M >= 0.

    On Q(r) the matrices of K are the forms lambda sigma(z)^2 + mu tau(z)^2 + conjugate, sigma the real and tau a
    complex embedding: semidefinite only for mu = 0. So no rational M >= 0 exists, and no Y > 0: only "undetermined" is
    true.
    """
    a, b, c = (
        sp.Matrix([[1, 0, 0], [0, 0, 2], [0, 2, 0]]),
        sp.Matrix([[0, 1, 0], [1, 0, 0], [0, 0, 2]]),
        sp.Matrix([[0, 0, 1], [0, 1, 0], [1, 0, 0]]),
    )
    r = sp.cbrt(2)
    v = sp.Matrix([1, r, r**2])
    assert sp.simplify(a + r * b + r**2 * c - v * v.T) == sp.zeros(3, 3)
    assert separate((a, b, c), 3) == Definiteness(None, None)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(size=st.integers(2, 4), dimension=st.integers(1, 4), data=st.data())
def test_never_a_wrong_answer(size, dimension, data):
    count = size * (size + 1) // 2
    space = [symmetric(size, data.draw(st.lists(integers, min_size=count, max_size=count))) for _ in range(dimension)]
    space = tuple(matrix for k, matrix in enumerate(space) if rank(space[: k + 1]) > rank(space[:k]))
    check(separate(space, size), space, size)


@settings(max_examples=80, deadline=None)
@given(normal=st.tuples(integers, integers, integers).filter(any))
def test_planes_of_order_two_are_decided_by_their_normal(normal):
    """K = Y^perp in Sym(2): it contains no M >= 0 exactly if Y or -Y is positive definite, det Y > 0."""
    y = symmetric(2, normal)
    space = orthogonal_complement([y], 2)
    found = separate(space, 2)
    check(found, space, 2)
    assert (found.separator is not None) == (y.det() > 0)
    assert (found.hidden is not None) == (y.det() <= 0)


@settings(max_examples=60, deadline=None)
@given(
    entries=st.tuples(integers, integers, integers).filter(any), scale=st.sampled_from([1, sp.Rational(1, 97), 10**6])
)
def test_lines_of_order_two_are_decided(entries, scale):
    """K = span(M): an M of both signs can be separated, +-M >= 0 hides itself."""
    matrix = scale * symmetric(2, entries)
    found = separate((matrix,), 2)
    check(found, (matrix,), 2)
    indefinite = math.prod(eigenvalues(symmetric(2, entries))) < -1e-9
    assert (found.separator is not None) == indefinite
    assert (found.hidden is not None) == (not indefinite)

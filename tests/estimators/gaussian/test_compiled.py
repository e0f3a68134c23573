"""Compiled loops against NumPy ones, where sums are ordinary and where they are not."""

from concurrent.futures import ThreadPoolExecutor

import mpmath
import numpy as np
import pytest
from cases import FAMILIES, member, random_params
from commands import agree_when_compiled_and_loaded
from numpy.testing import assert_allclose, assert_array_equal

from moe_prompts import Sample, compilation
from moe_prompts.estimators.gaussian.compiled import KERNELS, CompiledLoops
from moe_prompts.estimators.gaussian.moments import DataPasses, quadratic_coefficients
from moe_prompts.estimators.gaussian.monomials import Monomials
from moe_prompts.estimators.gaussian.numpy_loops import NumpyLoops

loops = pytest.importorskip(KERNELS)
BLOCK = loops.BLOCK


def case(d, l, k, n, n_frozen=0, weights=None, seed=0):
    """Points, weights and coefficients of free and of frozen atoms."""
    rng = np.random.default_rng([seed, d, l, k, n])
    monomials = Monomials.of(d + l)
    W = quadratic_coefficients(random_params(rng, k, d, l), monomials)
    frozen = quadratic_coefficients(random_params(rng, n_frozen, d, l), monomials) if n_frozen else None
    z = rng.standard_normal((d + l, n))
    given = None if weights is None else rng.uniform(*weights, n)
    return (z, given, frozen, monomials, k), W, -0.7 if n_frozen else -np.inf


def assert_same(layout, W, log_mass, size=1e-13):
    """L, S and Q of both, to ``size`` of the sum of moduli of their terms."""
    z, weights, frozen, monomials, _ = layout
    plain, fast = NumpyLoops(*layout), CompiledLoops(loops, *layout)
    phi, moduli = np.abs(monomials.values(z)), np.ones(z.shape[1]) if weights is None else np.abs(weights)
    expected, got = plain.e2(W, log_mass), fast.e2(W, log_mass)
    atoms = W if frozen is None else np.concatenate([W, frozen])
    logs = np.abs(atoms @ monomials.values(z)).max(axis=0)
    assert abs(got[0] - expected[0]) <= size * (moduli @ (1 + logs))
    assert (np.abs(got[1] - expected[1]) <= size * (phi @ moduli)).all()
    assert (np.abs(got[2] - expected[2]) <= size * ((phi * moduli) @ phi.T)).all()
    for name, value in zip(("L", "S"), fast.e1(W, log_mass), strict=True):
        assert_array_equal(value, got[("L", "S").index(name)])
    assert all(np.isfinite(part).all() for part in got)
    return got


@pytest.mark.parametrize(("d", "l"), [(1, 1), (2, 1), (2, 2), (3, 2), (3, 3)])
@pytest.mark.parametrize("n_frozen", [0, 2])
@pytest.mark.parametrize("weights", [None, (0.5, 2.0), (-1.0, 2.0)])
def test_sums_are_those_of_numpy(d, l, n_frozen, weights):
    for k in (1, 2, 5):
        assert_same(*case(d, l, k, 2 * BLOCK + 17, n_frozen, weights))


@pytest.mark.parametrize("n", [1, 2, BLOCK - 1, BLOCK, BLOCK + 1])
def test_ends_of_blocks(n):
    for n_frozen in (0, 1):
        assert_same(*case(1, 1, 3, n, n_frozen))
        assert_same(*case(1, 1, 1, n, n_frozen, (-1.0, 2.0)))


@pytest.mark.parametrize("lift", [-5000, -800, -745, -690, -300, 300, 650, 690, 800, 5000])
@pytest.mark.parametrize("n_frozen", [0, 2])
@pytest.mark.parametrize("weights", [None, (-1.0, 2.0)])
def test_densities_beyond_the_range_of_doubles(lift, n_frozen, weights):
    """All atoms, one atom, or one point's densities multiplied by e^lift: denormal, infinite or 1e-300."""
    layout, W, log_mass = case(1, 1, 3, BLOCK + 20, n_frozen, weights)
    for rows in (slice(None), slice(1, 2)):
        lifted = W.copy()
        lifted[rows, 0] += lift
        assert_same(layout, lifted, log_mass)
    z = layout[0].copy()
    z[:, 5] *= np.sqrt(abs(lift))
    assert_same((z, *layout[1:]), W, log_mass)
    if n_frozen:
        assert_same((z, layout[1], layout[2] + [[lift, *np.zeros(5)]], *layout[3:]), W, log_mass)


def test_what_is_no_number_is_the_same_too():
    layout, W, log_mass = case(1, 1, 3, 50)
    for bad in (np.nan, np.inf, -np.inf):
        W[1, 0] = bad
        with np.errstate(all="ignore"):
            expected, got = NumpyLoops(*layout).e2(W, log_mass), CompiledLoops(loops, *layout).e2(W, log_mass)
        for one, other in zip(got, expected, strict=True):
            assert_array_equal(one, other)


def test_exponential_and_logarithm_are_right_to_four_ulp():
    """Against mpmath, over the whole range; and the coefficients are those of interpolation at Chebyshev points."""
    rng = np.random.default_rng(0)
    from numba import njit

    exp, log = njit(lambda x: loops.exp(x)), njit(lambda x: loops.log(x))
    for q in [*rng.uniform(-300, 650, 400), *rng.uniform(-1, 1, 400), 0.0, -300.0, 650.0, np.log(2) / 2]:
        true = float(mpmath.exp(mpmath.mpf(q)))
        assert abs(exp(q) - true) <= 4 * np.spacing(true)
    for t in [*np.exp(rng.uniform(-690, 690, 400)), *rng.uniform(0.4, 2.5, 400), 2.3e-308, 1.7e308, 1.0, np.sqrt(2)]:
        true = float(mpmath.log(mpmath.mpf(t)))
        assert abs(log(t) - true) <= 4 * np.spacing(max(abs(true), 0.1))
    with mpmath.workdps(40):
        half, end = mpmath.log(2) / 2, ((mpmath.sqrt(2) - 1) / (mpmath.sqrt(2) + 1)) ** 2
        series = lambda z: (2 * mpmath.atanh(mpmath.sqrt(z)) / mpmath.sqrt(z) - 2) / z
        assert interpolation(mpmath.exp, len(loops.EXP), -half, half) == loops.EXP
        assert interpolation(series, len(loops.LOG), mpmath.mpf(0), end) == loops.LOG


def interpolation(function, terms, low, high):
    points = [
        (low + high) / 2 + (high - low) / 2 * mpmath.cos(mpmath.pi * (2 * i + 1) / (2 * terms)) for i in range(terms)
    ]
    powers = mpmath.matrix(terms, terms)
    for i, point in enumerate(points):
        for j in range(terms):
            powers[i, j] = point**j
    return tuple(float(c) for c in mpmath.lu_solve(powers, mpmath.matrix([function(point) for point in points])))


def test_vectors_are_as_wide_as_the_processor_has():
    """512 bits where it has them, of which LLVM by itself takes half; the sums are the same."""
    import llvmlite.binding
    import numba

    def plain(a, b):
        total = 0.0
        for i in range(len(a)):
            total += a[i] * b[i]
        return total

    def widest(a, b):
        loops.wide()
        total = 0.0
        for i in range(len(a)):
            total += a[i] * b[i]
        return total

    made = [numba.njit("float64(float64[::1], float64[::1])", fastmath=True)(one) for one in (plain, widest)]
    a, b = np.random.default_rng(0).standard_normal((2, 1_000))
    assert_allclose([one(a, b) for one in made], a @ b, rtol=1e-12)
    has_them = llvmlite.binding.get_host_cpu_features().get("avx512f", False)
    text = "".join(made[1].inspect_asm().values())
    assert ("zmm" in text) == has_them


def test_rows_begin_with_a_line_of_the_cache():
    import numba

    @numba.njit
    def rows(count):
        return loops_aligned(count)

    loops_aligned = loops.aligned
    for count in (0, 1, 7):
        found = rows(count)
        assert found.shape == (count, loops.STRIDE)
        assert not found.any()
        assert all(row.ctypes.data % (8 * loops.LINE) == 0 for row in found)


def test_order_in_memory_and_threads_change_nothing(monkeypatch):
    monkeypatch.setenv(compilation.VARIABLE, "compiled")
    family = FAMILIES["tied beside frozen, d = 2"]
    params = member(family, 2)
    data = member(family, 0).sample(3000, np.random.default_rng(1))
    weights = np.random.default_rng(2).uniform(0.5, 2, (3000, 2))
    W = quadratic_coefficients(params, Monomials.of(3))[: family.k]
    passes = DataPasses(family, data, weights[:, 0].copy())
    turned = DataPasses(family, Sample(np.asfortranarray(data.x), data.y[::-1][::-1]), weights[:, 0])
    expected = passes.e2(W, -0.5)
    with ThreadPoolExecutor(4) as pool:
        every = list(pool.map(lambda _: passes.e2(W, -0.5), range(24)))
    for got in every:
        for one, other in zip(got, expected, strict=True):
            assert_array_equal(one, other)
    assert_array_equal(passes.e1(np.asfortranarray(W), -0.5)[1], expected[1])
    for one, other in zip(turned.e2(W, -0.5), expected, strict=True):  # means and spreads are summed in another order
        assert_allclose(one, other, rtol=1e-12, atol=1e-12 * np.abs(other).max())


SUMS = """
import hashlib, numpy as np, sys
from moe_prompts.estimators import kernels
from moe_prompts.estimators.gaussian.compiled import CompiledLoops
from moe_prompts.estimators.gaussian.monomials import Monomials
rng, said = np.random.default_rng(0), hashlib.sha256()
for d in (2, 3):
    W = rng.standard_normal((4, (d + 1) * (d + 2) // 2)) / 4
    layout = CompiledLoops(kernels, rng.standard_normal((d, 1300)), None, W[:1], Monomials.of(d), 3)
    for part in layout.e2(W[1:], -1.1):
        said.update(np.asarray(part).tobytes())
print(said.hexdigest())
"""


@pytest.mark.slow
def test_a_process_that_compiles_and_one_that_loads_agree_to_the_last_bit(tmp_path):
    agree_when_compiled_and_loaded(SUMS, tmp_path)

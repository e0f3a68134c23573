"""Steps and coordinates between two passes: the compiled route against NumPy, differences and eigenvalues."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from oracles import numeric_gradient
from prompt_cases import points, random_prompts

from moe_prompts.compilation import VARIABLE, kernels
from moe_prompts.estimators.prompts.coordinates import OnSphere, PairCoordinates
from moe_prompts.estimators.prompts.levenberg_marquardt import minimise
from moe_prompts.estimators.prompts.objective import Box, PromptObjective
from moe_prompts.estimators.prompts.steps import FLAT, KERNELS, ROUNDING, CompiledSteps, PlainSteps, steps_of
from moe_prompts.models.data import RegressionData

KINDS = ("fixed", "decoupled", "adaptive:gelu:bias", "adaptive:relu")
ROUTES = ("compiled", "numpy")


def objective(kind):
    """Q of random prompts on three data sets, vectors to stand at, and a data set for each."""
    params, rng = random_prompts(kind), np.random.default_rng(3)
    x = points(params, 40)
    sets = [RegressionData(x, rng.uniform(0.5, 2, 40), rng.standard_normal((40, params.head.l)), 80) for _ in range(3)]
    made = PromptObjective(params.family, sets, 0.3).stages()[0]
    vectors = np.array([params.vector, *(0.7 * rng.standard_normal((5, params.family.size)))])
    return made, made.retract(vectors), rng.integers(0, 3, len(vectors))


def held(base, how):
    """The objective in coordinates of a pair, on a sphere, or both, as ``identifiability`` holds a split."""
    if how == "pair":
        return PairCoordinates(base, (0, 1))
    eps = np.array([0.3, 0.05, 1.0])
    if how == "sphere":
        return OnSphere(base, base.family.slot(1), np.full(base.family.atom_size, 0.2), eps)
    pair = PairCoordinates(base, (1, 0))
    return OnSphere(pair, pair.split, np.zeros(base.family.atom_size), eps)


def coordinates_of(made, vectors):
    """Coordinates near some vectors, with v of length 1."""
    base = made.base if isinstance(made, OnSphere) else made
    phi = base.phi(vectors) if isinstance(base, PairCoordinates) else vectors.copy()
    return made.retract(phi) if isinstance(made, OnSphere) else phi


@pytest.mark.parametrize("how", ["pair", "sphere", "both"])
@pytest.mark.parametrize("kind", KINDS)
def test_coordinates_on_both_routes_and_by_differences(kind, how, monkeypatch):
    found = []
    for route in ROUTES:
        monkeypatch.setenv(VARIABLE, route)
        base, vectors, sets = objective(kind)
        made = held(base, how)
        phi = coordinates_of(made, vectors)
        which, exact = np.array([4, 0, 2, 1]), np.array([True, False, True, True])
        found.append((made.vectors(phi, sets), *made.at(phi, sets).derivatives(which, exact)))
        for s in (0, 3):
            value = lambda p, made=made, own=sets[[s]]: made.at(made.retract(p[None]), own).value[0]
            slope = made.at(phi[[s]], sets[[s]]).derivatives(np.zeros(1, int), np.ones(1, bool))[0][0]
            # Step 1e-5: truncation of order 1e-10 and rounding of order 1e-16 / 1e-5, of the largest entry.
            expected = numeric_gradient(value, phi[s], 1e-5)
            if kind != "adaptive:relu":  # differences step over its kinks, and retracting rescales its units
                assert_allclose(slope, expected, rtol=1e-6, atol=1e-7 * max(1.0, abs(value(phi[s]))))
    for compiled, plain in zip(*found, strict=True):
        assert_allclose(compiled, plain, rtol=0, atol=1e-12 * np.abs(plain).max())


@pytest.mark.parametrize("how", ["pair", "both"])
def test_curvature_in_coordinates_by_differences_of_the_gradient(how):
    base, vectors, sets = objective("decoupled")
    made = held(base, how)
    phi = coordinates_of(made, vectors)
    one, every = np.zeros(1, int), np.ones(1, bool)
    for s in range(len(phi)):
        _, metric, rest = made.at(phi[[s]], sets[[s]]).derivatives(one, every)
        slope = lambda p, s=s: made.at(made.retract(p[None]), sets[[s]]).derivatives(one, every)[0][0]
        expected = numeric_gradient(slope, phi[s], 1e-5)
        if how == "both":  # a gradient on a sphere turns with the point: what lies along the point is left out
            v = np.eye(phi.shape[1])
            of = phi[s][made.held]
            v[np.ix_(made.held, made.held)] -= np.outer(of, of)
            expected, found = v @ expected @ v, v @ (metric + rest)[0] @ v
        else:
            found = (metric + rest)[0]
        assert_allclose(found, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())


def states(loops):
    """Both routes at 40 random states: definite, indefinite and flat Hessians, parameters held at the box."""
    base, _, _ = objective("adaptive:relu")
    P, S, rng = base.family.size, 40, np.random.default_rng(0)
    lower, upper = base.bounds(Box())
    x = np.clip(2.5 * rng.standard_normal((S, P)), lower, upper)
    for steps in (CompiledSteps(loops, base, x.copy(), lower, upper), PlainSteps(base, x.copy(), lower, upper)):
        rng = np.random.default_rng(1)
        root = rng.standard_normal((S, P, P + 3))
        root[::4, :, 1:] = 0  # of rank 1, so that all else is flat
        steps.gauss_newton[:] = root @ root.swapaxes(1, 2)
        bend = rng.standard_normal((S, P, P)) * rng.choice([0.0, 0.1, 3.0], S)[:, None, None]
        steps.rest[:] = bend + bend.swapaxes(1, 2)
        steps.gradient[:] = rng.standard_normal((S, P))
        steps.value[:] = rng.uniform(1, 2, S)
        steps.damping[:] = 10.0 ** rng.uniform(-12, 2, S)
        yield steps


def test_steps_on_both_routes_agree():
    loops = kernels(KERNELS)
    one, other = states(loops)
    rows = np.array([3, 0, 7, *range(10, 40)])
    found = [steps.certify(rows) for steps in (one, other)]
    assert_array_equal(found[0][1], found[1][1])
    assert {True, False} == set(one.definite) == set(found[0][1])
    finite = np.isfinite(found[1][0])
    assert_array_equal(np.isfinite(found[0][0]), finite)
    # A flat direction's curvature is known to rounding only, and the decrease along it with it.
    clear = finite & (other.lmin[rows] > 1e3 * FLAT)
    assert_allclose(found[0][0][clear], found[1][0][clear], rtol=1e-7)
    which = np.flatnonzero(rows % 3 > 0)
    (trial, predicted), (expected, also) = (steps.propose(which) for steps in (one, other))
    assert_allclose(trial, expected, rtol=0, atol=1e-6)
    assert_allclose(predicted, also, rtol=1e-6, atol=1e-6)
    value = other.value[rows[which]] - np.random.default_rng(2).choice([-1, 1e-9, 0.3, 5], len(which)) * also
    better = [steps.judge(rows[which], expected, also, value) for steps in (one, other)]
    assert_array_equal(*better)
    assert 0 < better[0].sum() < len(which)
    for name in ("x", "damping", "factor"):
        assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-12)
    for steps in (one, other):
        steps.certify(rows)
    assert_allclose(one.lowest()[rows], other.lowest()[rows], rtol=0, atol=1e-12)


def test_the_predicted_decrease_is_that_of_a_solved_system():
    """Independent of both routes: g'H^-1 g / 2 on the parameters that are free, whatever their scale."""
    loops = kernels(KERNELS)
    for steps in states(loops):
        steps.objective = objective("fixed")[0]
        steps.objective.gauges = lambda x: np.zeros((*x.shape, 0))
        gap, _ = steps.certify(np.arange(40))
        tested = 0
        for s in np.flatnonzero(np.isfinite(gap)):
            low, high = steps.x[s] <= steps.lower, steps.x[s] >= steps.upper
            free = ~(low & (steps.gradient[s] > 0) | high & (steps.gradient[s] < 0))
            H, g = (steps.gauss_newton + steps.rest)[s][np.ix_(free, free)], steps.gradient[s][free]
            if np.linalg.eigvalsh(H)[0] > 1e-3:
                assert_allclose(gap[s], 0.5 * g @ np.linalg.solve(H, g), rtol=1e-9)
                tested += 1
        assert tested > 5


def test_a_hessian_without_numbers_is_never_definite():
    loops = kernels(KERNELS)
    base, vectors, _ = objective("fixed")
    steps = CompiledSteps(loops, base, vectors, *base.bounds(Box()))
    steps.gauss_newton[:] = np.eye(vectors.shape[1])
    steps.gauss_newton[2, 1, 1] = np.nan
    assert list(steps._hessians(np.arange(6))[-1]) == [True, True, False, True, True, True]
    steps.gauss_newton[:] = np.eye(vectors.shape[1])
    steps.gauss_newton[4, 1, 1] = ROUNDING / 2  # on the scale of the others it is 1, but for the floor of 1e-12
    assert steps._hessians(np.arange(6))[-1].all()


@pytest.mark.parametrize("route", ROUTES)
def test_each_route_takes_its_own_steps(route, monkeypatch):
    monkeypatch.setenv(VARIABLE, route)
    base, vectors, sets = objective("decoupled")
    made = steps_of(base, vectors, *base.bounds(Box()))
    assert isinstance(made, CompiledSteps) == (route == "compiled")
    alone = [minimise(base, vectors[[s]], sets[[s]], *base.bounds(Box()), 30, 1e-6).vectors[0] for s in range(6)]
    together = minimise(base, vectors, sets, *base.bounds(Box()), 30, 1e-6)
    assert_array_equal(together.vectors, alone)  # paths do not depend on which others are climbed beside them
    assert np.isfinite(together.relative_lmin).all()

"""The compiled route of Q against the NumPy route and finite differences, for every kind and shape."""

import threading

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from oracles import numeric_gradient
from prompt_cases import KINDS, SHAPES, points, random_prompts

from moe_prompts import Activation, prompt_truth
from moe_prompts.compilation import VARIABLE
from moe_prompts.estimators.prompts.least_squares import least_squares, near_truth
from moe_prompts.estimators.prompts.objective import PromptObjective, PromptPoint
from moe_prompts.models import activations
from moe_prompts.models.data import RegressionData
from moe_prompts.models.prompt_attention import PromptFamily, PromptKind, from_head

#: Points: fewer than a block, a block and some, several blocks.
COUNTS = (9, 128, 300)
NOISE = 0.3


def objective(kind, shape=None, count=9, sets=3):
    """Q of random prompts on data sets with weights of both signs, as ``quadrature`` makes them; some are 0."""
    params, rng = random_prompts(kind, **(shape or {})), np.random.default_rng(count)
    x = points(params, count)
    weights = rng.uniform(-0.2, 2, (sets, count))
    weights[:, ::5] = 0
    data = [RegressionData(x, w, rng.standard_normal((count, params.head.l)), 10) for w in weights]
    vectors = np.array([params.vector, *(0.7 * rng.standard_normal((4, params.family.size)))])
    made = PromptObjective(params.family, data, NOISE).stages()[0]
    return made, made.retract(vectors), rng.integers(0, sets, 5)


def both(made, vectors, sets):
    """Value, gradient, Gauss-Newton matrix and the rest on the compiled route, and by the formulas in NumPy."""
    assert made.compiled is not None
    which, exact = np.array([4, 0, 2, 1]), np.array([True, False, True, True])
    for point in (made.at(vectors, sets), PromptPoint(made, made.map.at(vectors), sets)):
        yield (point.value, *point.derivatives(which, exact))


@pytest.mark.parametrize("shape", SHAPES, ids=["distinct", "all 1", "p < d"])
@pytest.mark.parametrize("kind", KINDS)
def test_both_routes_agree(kind, shape):
    for count in COUNTS:
        made, vectors, sets = objective(kind, shape, count)
        for found, expected in zip(*both(made, vectors, sets), strict=True):
            scale = np.abs(expected).max()  # sums of `count` terms of both signs, in another order
            assert_allclose(found, expected, rtol=0, atol=1e-13 * count**0.5 * scale)


@pytest.mark.parametrize("route", ["compiled", "numpy"])
@pytest.mark.parametrize("kind", KINDS)
def test_derivatives_equal_central_differences(kind, route, monkeypatch):
    monkeypatch.setenv(VARIABLE, route)
    made, vectors, sets = objective(kind)
    assert (made.compiled is not None) == (route == "compiled")
    every = np.arange(len(vectors))
    gradient, metric, rest = made.at(vectors, sets).derivatives(every, np.ones(len(vectors), dtype=bool))
    for s, vector in enumerate(vectors):
        value = lambda v, s=s: made.at(v[None], sets[[s]]).value[0]
        slope = lambda v, s=s: made.at(v[None], sets[[s]]).derivatives(np.zeros(1, int), np.zeros(1, bool))[0][0]
        # Step 1e-5: truncation of order 1e-10 and rounding of order 1e-16 / 1e-5, of the largest entry.
        assert_allclose(gradient[s], numeric_gradient(value, vector, 1e-5), rtol=1e-6, atol=1e-7 * abs(value(vector)))
        if made.family.kind.sigma == "relu":
            continue  # differences step over its kinks, rounded over 1e-2
        hessian = numeric_gradient(slope, vector, 1e-5)
        assert_allclose((metric + rest)[s], hessian, rtol=1e-6, atol=1e-7 * np.abs(hessian).max())
        assert_allclose(rest[s], rest[s].T, rtol=1e-12, atol=1e-12 * np.abs(rest[s]).max())


@pytest.mark.parametrize("width", [50.0, 1e-2, 1e-8])
def test_a_rounded_relu_on_both_routes(width):
    made, vectors, sets = objective("adaptive:relu", count=300)
    rounded = made._rounded(width)
    for found, expected in zip(*both(rounded, vectors, sets), strict=True):
        assert_allclose(found, expected, rtol=0, atol=2e-12 * np.abs(expected).max())


def test_plain_relu_has_a_value_too():
    made, vectors, sets = objective("adaptive:relu")
    made = made._rounded(0.0) if made.map.activation.width == 0 else made
    made.map.activation = activations.RELU
    made._compile()
    for found, expected in zip(*both(made, vectors, sets), strict=True):
        assert_allclose(found, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


def test_large_logits_and_saturated_units_do_not_overflow():
    for kind in ("fixed", "adaptive:gelu", "adaptive:sigmoid", "adaptive:tanh"):
        made, vectors, sets = objective(kind)
        vectors = made.retract(vectors * 200)
        size = np.abs(
            made.at(vectors, sets).value
        ).max()  # saturated, derivatives are differences of terms of this size
        for found, expected in zip(*both(made, vectors, sets), strict=True):
            assert np.isfinite(found).all()
            assert_allclose(found, expected, rtol=1e-9, atol=1e-14 * size)


def test_vectors_do_not_meet_and_order_and_layout_do_not_matter():
    made, vectors, sets = objective("adaptive:gelu:bias", count=300)
    exact = np.ones(len(vectors), dtype=bool)
    every = np.arange(len(vectors))
    together = made.at(np.asfortranarray(vectors), sets).derivatives(every, exact)
    for s in every:
        alone = made.at(vectors[[s]], sets[[s]]).derivatives(np.zeros(1, int), exact[:1])
        for one, all_of_them in zip(alone, together, strict=True):
            assert_array_equal(one[0], all_of_them[s])


def test_threads_share_the_loops():
    """The loops release the interpreter's lock and keep all they write in arrays of their own."""
    made, vectors, sets = objective("adaptive:tanh", count=300)
    exact, every = np.ones(len(vectors), dtype=bool), np.arange(len(vectors))
    expected, found = made.at(vectors, sets).derivatives(every, exact), {}

    def work(number):
        found[number] = [made.at(vectors, sets).derivatives(every, exact) for _ in range(20)]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    for one in (one for many in found.values() for one in many):
        for got, wanted in zip(one, expected, strict=True):
            assert_array_equal(got, wanted)


def test_an_activation_of_a_users_takes_the_numpy_route(monkeypatch):
    """Its loops are Python functions; nobody is asked to say so."""
    monkeypatch.setattr(activations, "ACTIVATIONS", known := dict(activations.ACTIVATIONS))
    monkeypatch.setattr("moe_prompts.models.prompt_attention.ACTIVATIONS", known)
    sine = Activation("sine", np.sin, np.cos, lambda t: -np.sin(t), odd=True)
    activations.add_activation(sine)
    known_truth = prompt_truth("attention-tanh")
    family = known_truth.family(PromptKind.parse("adaptive:sine"), 2)
    data = [known_truth.data(1000, np.random.default_rng(0))]
    assert PromptObjective(family, data, 0.1).compiled is None
    assert PromptObjective(known_truth.params.family, data, 0.1).compiled is not None
    start = 0.3 * np.random.default_rng(1).standard_normal((1, family.size))
    assert least_squares(family, data, [start], 0.1)[0].best.iterations > 0


@pytest.mark.parametrize(("name", "surplus"), [("gelu", 0), ("fixed", 1), ("relu", 0), ("identity", 1)])
def test_fits_of_both_routes_are_the_same(name, surplus, monkeypatch):
    known = prompt_truth(f"attention-{name}")
    family = known.params.family.with_k(known.k_true + surplus)
    found = {}
    for route in ("compiled", "numpy"):
        monkeypatch.setenv(VARIABLE, route)
        rng = np.random.default_rng(5)
        data = [known.data(n, rng) for n in (2_000, 50_000)]
        starts = [np.array([near_truth(known.params, family.k, i, rng) for i in range(3)]) for _ in data]
        found[route] = least_squares(family, data, starts, known.noise)
    for one, other in zip(found["compiled"], found["numpy"], strict=True):
        assert one.best.status is other.best.status
        assert one.best.log_likelihood == pytest.approx(other.best.log_likelihood, rel=1e-9)


def test_a_real_head_whose_matrices_are_transposed():
    """``from_head`` hands over C = W_V', which lies in memory the other way round."""
    rng = np.random.default_rng(3)
    head = from_head(*(rng.standard_normal((3, 2)) for _ in range(3)), tokens=2)
    family = PromptFamily(head, PromptKind("fixed"), 2)
    x = rng.uniform(-1, 1, (40, head.d))
    made = PromptObjective(family, [RegressionData(x, np.ones(40), rng.standard_normal((40, head.l)), 40)], NOISE)
    vectors, sets = rng.standard_normal((5, family.size)), np.zeros(5, dtype=int)
    assert not made.family.head.C.flags.c_contiguous
    for found, expected in zip(*both(made, vectors, sets), strict=True):
        assert_allclose(found, expected, rtol=0, atol=1e-12 * np.abs(expected).max())

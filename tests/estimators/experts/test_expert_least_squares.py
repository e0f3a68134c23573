"""Fits of gated experts: derivatives against differences, known solutions, and another solver on the same data."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import least_squares as scipy_least_squares

from moe_prompts.compilation import ROUTES, VARIABLE
from moe_prompts.errors import InputError
from moe_prompts.estimators.experts.least_squares import (
    EXPERT_BOX,
    EXPERT_OPTIONS,
    ExpertObjective,
    data_start,
    fit_experts,
    near_experts,
    random_experts,
)
from moe_prompts.estimators.prompts.least_squares import _put_on_bounds, climb
from moe_prompts.estimators.result import FitStatus
from moe_prompts.identifiability import kappas, profile
from moe_prompts.losses.expert_voronoi import expert_errors
from moe_prompts.models.expert_regression import GATES, ExpertFamily, ExpertMap, ExpertRegression
from moe_prompts.models.expert_truths import expert_data, expert_truth

SIGMAS = ("tanh", "sigmoid", "gelu", "identity")
CASES = [(gate, sigma) for gate in GATES for sigma in SIGMAS]
ONE = np.array([0])


def written_out(params: ExpertRegression, x: np.ndarray) -> np.ndarray:
    """f point by point, as the formula stands."""
    out = []
    for point in x:
        logits = [params.beta[l] @ point + params.b[l] for l in range(params.k)]
        values = [
            params.family.activation.value(params.eta[l, :-1] @ point + params.eta[l, -1]) for l in range(params.k)
        ]
        if params.gate == "softmax":
            gates = np.exp(logits) / np.exp(logits).sum()
        else:
            gates = 1 / (1 + np.exp(-np.array(logits)))
        out.append(gates @ values)
    return np.array(out)


@pytest.mark.parametrize(("gate", "sigma"), CASES)
def test_values_and_derivatives_are_those_of_the_formula(gate, sigma):
    """Differences with a step of 1e-5 are off by rounding / 1e-5 and by its square: 1e-9 of the largest entry."""
    truth, rng = expert_truth(f"experts-{gate}-{sigma}"), np.random.default_rng(1)
    family, data = truth.family(3), truth.data(1000, rng)
    objective, vector = ExpertObjective(family, [data], truth.noise), random_experts(family, rng)
    values = ExpertMap(family, truth.x).at(vector[None])
    params = family.unpack(vector)
    np.testing.assert_allclose(values.f[0, 0], written_out(params, truth.x), atol=1e-13)

    def value(v):
        return objective.at(v[None], ONE).value[0]

    def derivatives(v):
        return objective.at(v[None], ONE).derivatives(ONE, np.array([True]))

    gradient, gauss_newton, rest = derivatives(vector)
    steps = 1e-5 * np.eye(family.size)
    differences = np.array([(value(vector + e) - value(vector - e)) / 2e-5 for e in steps])
    np.testing.assert_allclose(gradient[0], differences, atol=1e-8 * np.abs(differences).max())
    bends = np.array([(derivatives(vector + e)[0][0] - derivatives(vector - e)[0][0]) / 2e-5 for e in steps])
    np.testing.assert_allclose((gauss_newton + rest)[0], bends, atol=1e-8 * np.abs(bends).max())
    f = lambda v: ExpertMap(family, truth.x).at(v[None]).f[0, 0]
    jacobian = np.array([(f(vector + e) - f(vector - e)) / 2e-5 for e in steps])
    np.testing.assert_allclose(values.jacobian()[0, :, 0], jacobian, atol=1e-9)


@pytest.mark.parametrize("name", ["experts-softmax-tanh", "experts-softmax-identity", "experts-sigmoid-tanh-flat"])
def test_data_without_noise_give_the_truth_back(name):
    truth, rng = expert_truth(name), np.random.default_rng(0)
    starts = np.array([near_experts(truth.params, 2, number, rng) for number in range(4)])
    [found] = fit_experts(truth.family(2), [truth.population(1e6)], [starts], truth.noise)
    assert found.best.certified
    assert expert_errors(found.best, truth.params).loss < 1e-6


@pytest.mark.parametrize("route", ROUTES)
def test_another_solver_finds_the_same_minimum(route, monkeypatch):
    """scipy's trust region on the weighted residuals, from the same start; both stop within 1e-6 nats."""
    monkeypatch.setenv(VARIABLE, route)
    truth = expert_truth("experts-softmax-tanh")
    data, family = expert_data("experts-softmax-tanh", n=5000, seed=3), truth.family(2)
    start = near_experts(truth.params, 2, 0, np.random.default_rng(0))
    [ours] = fit_experts(family, [data], [start[None]], truth.noise)
    seen = data.weights > 0
    root, means = np.sqrt(data.weights[seen]) / truth.noise, data.sums[seen, 0] / data.weights[seen]

    def residuals(v):
        return root * (ExpertMap(family, data.x[seen]).at(v[None]).f[0, 0] - means)

    theirs = scipy_least_squares(residuals, start, xtol=1e-14, ftol=1e-14, gtol=1e-12)
    assert -ours.best.log_likelihood == pytest.approx(theirs.cost, abs=1e-5)
    ours_f, theirs_f = (family.unpack(v).regression(data.x) for v in (ours.best.value.vector, theirs.x))
    np.testing.assert_allclose(ours_f, theirs_f, atol=1e-5)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("name", ["experts-softmax-tanh", "experts-softmax-gelu"])
def test_fits_with_one_expert_too_many_are_certified(name, route, monkeypatch):
    monkeypatch.setenv(VARIABLE, route)
    truth = expert_truth(name)
    data = [expert_data(name, n=100_000, seed=5, replicate=r) for r in range(4)]
    rng = np.random.default_rng(0)
    starts = [np.array([near_experts(truth.params, 3, number, rng) for number in range(2)]) for _ in data]
    found = fit_experts(truth.family(3), data, starts, truth.noise)
    assert all(one.best.certified for one in found)
    at_truth = ExpertObjective(truth.family(2), data, truth.noise).at(
        np.tile(truth.params.vector, (4, 1)), np.arange(4)
    )
    gains = np.array([one.best.log_likelihood for one in found]) + at_truth.value
    # Twice the gain is about chi-squared with as many degrees of freedom as there are parameters: 5 % and 95 % of 18.
    assert (gains > 0).all()
    assert 9.4 / 2 < gains.mean() < 28.9 / 2


@pytest.mark.parametrize("route", ROUTES)
def test_a_fit_that_stalls_beside_the_box_is_certified_on_it_and_no_other(route, monkeypatch):
    """The surplus expert of this fit stands on its least b. A path that stops before may end there, or nowhere."""
    monkeypatch.setenv(VARIABLE, route)
    known = expert_truth("experts-softmax-gelu")
    data = [expert_data("experts-softmax-gelu", n=3_200_000, seed=0, replicate=4)]
    objective, sets = ExpertObjective(known.family(3), data, known.noise), np.zeros(1, dtype=int)
    atoms = [-0.53, -0.66, -1.51, 2.29, -0.05, -0.45, -0.6, -1.46, 2.2, -0.06, 0.0, 0.0, -1.66, -2.25, -0.47]
    ends = climb(objective, np.array([[-0.06, -2.5, 0.0, *atoms]]), sets, EXPERT_OPTIONS)
    assert ends.certified.all()
    assert ends.vectors[0, 1] == -2.5

    before = ends.vectors[0] + 1e-9 * (np.arange(len(ends.vectors[0])) == 1)
    far = ends.vectors[0] + 1e-3 * (np.arange(len(ends.vectors[0])) == 1)
    value, stalled = ends.values[0], np.array([FitStatus.STALLED])
    for vector, height, certified in ((before, value, True), (far, value, False), (before, value - 1e-3, False)):
        found = replace(ends, vectors=vector[None].copy(), values=np.array([height]), status=stalled.copy())
        _put_on_bounds(objective, found, sets, EXPERT_OPTIONS)
        assert found.certified[0] == certified
        # The tolerance is that of the certificate. What is not certified stays as it was.
        assert abs(found.values[0] - height) <= (EXPERT_OPTIONS.tolerance if certified else 0.0)
        assert found.vectors[0, 1] == (-2.5 if certified else vector[1])


def test_a_translation_of_softmax_gates_changes_nothing_and_the_reference_has_none():
    truth, rng = expert_truth("experts-softmax-gelu"), np.random.default_rng(0)
    objective = ExpertObjective(truth.family(3), [truth.population()], truth.noise)
    vector = random_experts(truth.family(3), rng)
    moved = vector.copy()
    moved[:3] += 0.7
    moved[objective.map.own[:, 1:3]] += rng.standard_normal(2)
    for other in (objective, objective.beside([2]), objective.beside([1, 2])):
        a, b = other.normal(vector[None]), other.normal(moved[None])
        np.testing.assert_allclose(a, b, atol=1e-12)
        assert not a[0, other.map.own[other.reference, :3]].any()
    np.testing.assert_allclose(
        truth.family(3).unpack(vector).regression(truth.x),
        truth.family(3).unpack(moved).regression(truth.x),
        atol=1e-12,
    )


def test_a_data_start_knows_the_data_only_and_lies_in_the_box():
    name = "experts-softmax-tanh"
    data, family = expert_data(name, n=1000, seed=0), expert_truth(name).family(3)
    one, two = (data_start(family, data, np.random.default_rng(4)) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    lower, upper = np.where(np.arange(family.size) < 3, EXPERT_BOX.b[0], EXPERT_BOX.theta[0]), EXPERT_BOX.theta[1]
    assert (one >= lower).all()
    assert (one <= upper).all()


def test_the_rate_of_splits_is_seen_without_noise():
    """Exponent 2 for a unit, which is n^-1/4; no size at all for linear experts."""
    rng = np.random.default_rng(0)
    assert profile(expert_truth("experts-softmax-tanh"), rng, eps=(0.05, 0.1)).exponents[0] == pytest.approx(
        2, abs=0.06
    )
    flat = expert_truth("experts-softmax-identity")
    assert kappas(flat, rng).kappa2 < 1e-5
    assert profile(flat, rng, eps=(0.1, 0.2)).vanishes


def test_linear_experts_between_two_others_are_the_same_function():
    truth = expert_truth("experts-softmax-identity").params
    three = truth.chosen([0, 1, 1])
    atoms = three.atoms.copy()
    atoms[1, 2:] += [0.3, -1.0, 2.0]
    atoms[2, 2:] -= [0.3, -1.0, 2.0]
    x = expert_truth("experts-softmax-identity").x
    np.testing.assert_allclose(replace(three, atoms=atoms).regression(x), truth.regression(x), atol=1e-13)


def test_losses_see_order_translation_and_nothing_else():
    truth = expert_truth("experts-softmax-tanh").params
    atoms = truth.atoms.copy()
    atoms[:, :2] += [3.0, -2.0]
    moved = ExpertRegression("softmax", "tanh", truth.b + 1.5, atoms)
    assert expert_errors(moved.chosen([1, 0]), truth).loss < 1e-7
    flat = expert_truth("experts-sigmoid-tanh-flat").params
    assert expert_errors(flat.chosen([1, 0]), flat).loss == 0
    off = flat.atoms.copy()
    off[1, 3] += 0.1
    errors = expert_errors(ExpertRegression("sigmoid", "tanh", flat.b, off), flat)
    assert errors.loss == pytest.approx(0.1)
    assert errors.singleton_error == pytest.approx(0.1)
    # A flat gate in two halves of half its height each, at distance .2 on either side: heights add up, squares count.
    halves = flat.chosen([0, 0, 1])
    apart = halves.atoms.copy()
    apart[0, 4] += 0.2
    apart[1, 4] -= 0.2
    errors = expert_errors(ExpertRegression("sigmoid", "tanh", halves.b, apart), flat)
    height = 1 / (1 + np.exp(-flat.b[0]))
    assert errors.loss == pytest.approx(height * 0.04)
    assert errors.split_rms == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ExpertFamily("hard", "tanh", 2, 2), "expected"),
        (lambda: ExpertFamily("softmax", "sine", 2, 2), "unknown activation"),
        (lambda: ExpertRegression("softmax", "tanh", np.zeros(2), np.zeros((2, 4))), "expected .k,. with k"),
        (lambda: expert_truth("experts-softmax-tanh-flat"), "unknown truth"),
        (lambda: fit_of("experts-softmax-relu"), "without a kink"),
        (lambda: near_experts(expert_truth("experts-softmax-tanh").params, 1, 0, np.random.default_rng(0)), "raise k"),
        (lambda: fit_of("experts-softmax-tanh", np.zeros((1, 3))), "expected .count, 12."),
    ],
)
def test_bad_input_is_named_in_one_line(call, message):
    with pytest.raises(InputError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def fit_of(name: str, starts: np.ndarray | None = None):
    truth = expert_truth(name)
    starts = truth.params.vector[None] if starts is None else starts
    return fit_experts(truth.family(2), [truth.population(1000)], [starts], truth.noise, EXPERT_OPTIONS)

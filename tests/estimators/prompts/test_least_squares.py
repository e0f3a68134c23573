"""Certified least squares for prompts, against SciPy, finite differences and statistics."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from oracles import numeric_gradient

from moe_prompts import FitStatus, InputError
from moe_prompts.compilation import ROUTES, VARIABLE
from moe_prompts.estimators.prompts.coordinates import OnSphere, PairCoordinates
from moe_prompts.estimators.prompts.least_squares import (
    LeastSquaresOptions,
    _nearest_first,
    climb,
    least_squares,
    near_truth,
    population_minima,
    random_start,
)
from moe_prompts.estimators.prompts.levenberg_marquardt import POLISHED, minimise
from moe_prompts.estimators.prompts.objective import WIDTHS, Box, PromptObjective
from moe_prompts.estimators.prompts.quadrature import quadrature
from moe_prompts.models.data import RegressionData, Sample
from moe_prompts.models.gaussian_truths import prompt_data
from moe_prompts.models.prompt_attention import PromptKind
from moe_prompts.models.prompt_truths import prompt_truth
from moe_prompts.seeds import start_rng
from moe_prompts.study.floors import BOXES

SMOOTH = ("fixed", "decoupled", "gelu", "tanh", "sigmoid", "identity", "prefix_tanh_gelu", "prefix_identity_tanh")
ONE = np.zeros(1, dtype=int)


def fits(name, n, replicates, surplus, seed=3, options=None):
    """Certified fits of the truth's own kind from near starts, with the gain over the truth in nats."""
    known = prompt_truth(f"attention-{name}")
    family = known.params.family.with_k(known.k_true + surplus)
    data = [prompt_data(known.name, n, seed, replicate) for replicate in range(replicates)]
    rng = np.random.default_rng([seed, n])
    starts = [np.array([near_truth(known.params, family.k, i, rng) for i in range(4)]) for _ in data]
    found = least_squares(family, data, starts, known.noise, options)
    truth = PromptObjective(known.params.family, data, known.noise)
    level = truth.at(np.tile(known.params.vector, (replicates, 1)), np.arange(replicates)).value
    return known, family, data, found, np.array([one.best.log_likelihood for one in found]) + level


@pytest.mark.parametrize("name", SMOOTH)
def test_the_minimum_is_scipys(name):
    from scipy.optimize import least_squares as peer

    known, family, data, found, _ = fits(name, 2_000, 1, 0)
    cells = data[0].weights > 0
    root = np.sqrt(data[0].weights[cells])[:, None] / known.noise

    def residual(vector):
        means = data[0].sums[cells] / data[0].weights[cells, None]
        return (root * (family.unpack(vector).regression(data[0].x[cells]) - means)).ravel()

    bounds = Box().bounds(family)
    tight = {"xtol": 1e-14, "ftol": 1e-14, "gtol": 1e-10, "max_nfev": 400}
    best = peer(residual, found[0].best.value.vector, bounds=bounds, **tight)
    # SciPy starts at the certified minimum: it may gain no more than the certificate allows, and rounding.
    assert -best.cost - found[0].best.log_likelihood < 1e-6 + 1e-10 * best.cost
    apart = peer(residual, np.clip(known.params.vector, *bounds), bounds=bounds, **tight)
    assert_allclose(apart.cost, -found[0].best.log_likelihood, rtol=1e-8)


@pytest.mark.parametrize("name", ["random-3-prefix_tanh_gelu", "prefix_identity_tanh"])
def test_prefixes_are_recovered_from_data_without_noise(name):
    """To the precision that 1e-6 nats of the certificate leave at 1e10 pairs: about 1e-5 / kappa1."""
    known = prompt_truth(f"attention-{name}")
    rng = np.random.default_rng(0)
    starts = np.array([near_truth(known.params, 2, i, rng) for i in range(4)])
    [found] = least_squares(known.params.family, [known.population(10**10)], [starts], known.noise)
    assert found.best.certified
    assert_allclose(found.best.value.vector, known.params.vector, rtol=0, atol=1e-6)


def test_the_kinks_of_a_prefix_are_rounded():
    """A relu key has a kink in p: the objective is minimised with it rounded ever less, as that of relu prompts."""
    known = prompt_truth("attention-prefix_relu_identity")
    stages = PromptObjective(known.params.family, [known.population(1000)], known.noise).stages()
    assert [stage.map.functions[0].width for stage in stages] == list(WIDTHS)
    assert all(stage.map.functions[1].name == "identity" for stage in stages)


@pytest.mark.parametrize("name", ["fixed", "gelu", "tanh", "relu"])
@pytest.mark.parametrize("n", [1_000, 10_000_000])
def test_fits_with_one_prompt_too_many_are_certified(name, n):
    """The valley that such fits live in defeats plain Gauss-Newton steps (hundreds do not suffice). At n = 1e7 one in
    some dozens stalls, where a negative curvature remains that Q does not resolve."""
    _, family, _, found, gain = fits(name, n, 4, 1)
    certified = [one.best for one in found if one.best.status is FitStatus.CERTIFIED]
    assert len(certified) >= (4 if n < 1e6 else 3)
    lower, upper = Box().bounds(family)
    for fit in certified:
        assert fit.certificate.gap_nats <= 1e-6
        assert ((fit.value.vector >= lower) & (fit.value.vector <= upper)).all()
    assert (gain > 0).all()


@pytest.mark.parametrize("name", ["fixed", "gelu"])
def test_no_direction_leads_below_a_certified_over_specified_fit(name):
    """In the family's own coordinates: the certificate was computed in those of a pair."""
    known, family, data, found, _ = fits(name, 100_000, 1, 1)
    objective = PromptObjective(family, data, known.noise)
    vector, rng = found[0].best.value.vector, np.random.default_rng(0)
    lower, upper = Box().bounds(family)
    for size in (1e-1, 1e-2, 1e-3, 1e-4):
        around = np.clip(vector + size * rng.standard_normal((300, family.size)), lower, upper)
        values = objective.at(around, np.zeros(300, dtype=int)).value
        # 1e-6 nats of the certificate, and the rounding of a sum of some hundred nats.
        assert values.min() > -found[0].best.log_likelihood - 2e-6


def test_a_minimum_on_a_kink_of_relu_is_one_of_relu_itself():
    """The certificate is of the rounded relu; on the exact one no step along any coordinate or at random gains."""
    known, family, data, found, _ = fits("relu", 1_000, 3, 1)
    rng = np.random.default_rng(0)
    kinks = 0
    for one, of in zip(found, data, strict=True):
        objective, vector = PromptObjective(family, [of], known.noise), one.best.value.vector
        exact = objective.at(vector[None], ONE)
        hidden = objective.map.at(vector[None]).hidden
        kinks += (np.abs(hidden) < WIDTHS[-1]).any()
        steps = np.concatenate([np.eye(family.size), -np.eye(family.size), rng.standard_normal((200, family.size))])
        for size in (1e-2, 1e-4, 1e-6):
            around = np.clip(vector + size * steps, *Box().bounds(family))
            assert objective.at(around, np.zeros(len(around), dtype=int)).value.min() > exact.value[0] - 2e-6
    assert kinks > 0, "no fit of this test ended on a kink: it shows nothing"


@pytest.mark.parametrize("name", [*SMOOTH[:4], "relu", "identity"])
def test_twice_the_gain_is_chi_squared(name):
    """Wilks: mean = number of parameters, variance twice that, for exact fits; 24 data sets, four standard errors."""
    _, family, _, found, gain = fits(name, 30_000, 24, 0)
    assert all(one.best.certified for one in found)
    p = family.n_parameters
    assert abs(2 * gain.mean() - p) < 4 * np.sqrt(2 * p / 24)


def test_over_specified_fits_gain_more_than_exact_ones():
    exact, over = fits("gelu", 10_000, 4, 0)[4], fits("gelu", 10_000, 4, 1)[4]
    assert (over >= exact - 2e-6).all()  # the larger family contains the smaller; certificates of 1e-6 each


@pytest.mark.parametrize("k", [2, 3, 4])
def test_floors_of_fixed_prompts_on_an_adaptive_truth(k):
    """Relative risks without noise: 27.8, 22.9 and 21.1 % in this box, upper bounds found with 20 random starts."""
    known = prompt_truth("attention-gelu")
    family = known.family(PromptKind("fixed"), k)
    found = population_minima(family, known.population(10_000), known.noise, np.random.default_rng(k))
    signal = (known.params.regression(known.x) ** 2).sum(axis=1).mean()
    floor = 2 * known.noise**2 * found.values[0] / 10_000 / signal
    assert found.certified[0]
    assert abs(floor / {2: 0.278, 3: 0.229, 4: 0.211}[k] - 1) < 0.05


def test_the_wide_box_lowers_the_floor():
    known = prompt_truth("attention-gelu")
    family, population = known.family(PromptKind("fixed"), 3), known.population(10_000)
    floors = [
        population_minima(
            family, population, known.noise, np.random.default_rng(0), 8, LeastSquaresOptions(box=box)
        ).values[0]
        for box in (BOXES["study"], BOXES["wide"])
    ]
    assert 0.8 < floors[1] / floors[0] < 0.9  # 19.8 against 22.9 %


class TestCoordinates:
    """Derivatives against finite differences, and the way back."""

    @staticmethod
    def objective(name="gelu"):
        known = prompt_truth(f"attention-{name}")
        family = known.params.family.with_k(3)
        rng = np.random.default_rng(1)
        vector = known.params.chosen([0, 1, 1]).vector + 0.1 * rng.standard_normal(family.size)
        return PromptObjective(family, [known.population(3)], known.noise), vector[None], rng

    @staticmethod
    def check(objective, phi):
        """Gradient and Hessian of the retracted objective."""
        phi = objective.retract(phi)
        value = lambda at: objective.at(objective.retract(at[None]), ONE).value[0]
        gradient, gauss_newton, rest = objective.at(phi, ONE).derivatives(ONE, np.array([True]))
        numeric = numeric_gradient(value, phi[0], 1e-5)
        scale = np.abs(numeric).max()
        assert_allclose(gradient[0], numeric, atol=1e-7 * scale)  # rounding over step and step squared: about 1e-8
        twice = numeric_gradient(lambda at: numeric_gradient(value, at, 1e-4), phi[0], 1e-4)
        assert_allclose((gauss_newton + rest)[0], twice, atol=1e-5 * np.abs(twice).max())

    @pytest.mark.parametrize("name", ["fixed", "gelu", "relu"])
    def test_own(self, name):
        objective, vector, _ = self.objective(name)
        self.check(objective, objective.retract(vector))

    @pytest.mark.parametrize("name", ["fixed", "gelu", "relu"])
    @pytest.mark.parametrize("pair", [(0, 2), (1, 2)])
    def test_pair(self, name, pair):
        objective, vector, _ = self.objective(name)
        coordinates = PairCoordinates(objective, pair)
        phi = coordinates.phi(vector)
        assert_allclose(coordinates.vectors(phi, ONE), vector, rtol=0, atol=1e-14)
        self.check(coordinates, phi)

    @pytest.mark.parametrize("name", ["fixed", "tanh", "relu"])
    def test_held_split(self, name):
        objective, vector, rng = self.objective(name)
        pair = PairCoordinates(objective, (1, 2))
        held = OnSphere(pair, pair.split, np.zeros(objective.family.atom_size), np.array([0.3]))
        phi = pair.phi(vector)
        phi[:, pair.split] = rng.standard_normal(objective.family.atom_size)
        self.check(held, phi)

    def test_the_held_length_is_the_weighted_spread(self):
        objective, vector, rng = self.objective()
        family = objective.family
        pair = PairCoordinates(objective, (1, 2))
        held = OnSphere(pair, pair.split, np.zeros(family.atom_size), np.array([0.3]))
        phi = pair.phi(vector)
        phi[:, pair.split] = rng.standard_normal(family.atom_size)
        b, atoms, _ = family.split(held.vectors(held.retract(phi), ONE)[0])
        masses = np.exp(b[1:])
        centre = masses @ atoms[1:] / masses.sum()
        spread = np.sqrt(masses @ ((atoms[1:] - centre) ** 2).sum(axis=1) / masses.sum())
        assert_allclose(spread, 0.3, rtol=1e-13)

    def test_on_sphere_about_a_centre(self):
        objective, vector, rng = self.objective()
        held = OnSphere(objective, objective.family.slot(0), vector[0, 3:7], np.array([0.2]))
        phi = vector.copy()
        phi[:, held.held] = rng.standard_normal(4)
        self.check(held, phi)


class TestQuadrature:
    KIND = PromptKind("adaptive", "gelu")

    def test_polynomials_are_summed_exactly(self):
        rng = np.random.default_rng(0)
        for d in (1, 2, 3):
            sample = Sample(rng.uniform(-1, 1, (500, d)), rng.standard_normal((500, 2)))
            short = quadrature(sample, self.KIND, nodes=8)
            power = np.array([7, 5, 6])[:d]
            of = lambda x, power=power: (x**power).prod(axis=1)
            assert_allclose(short.weights @ of(short.x), of(sample.x).sum(), rtol=0, atol=1e-10)
            assert_allclose(of(short.x) @ short.sums, of(sample.x) @ sample.y, rtol=0, atol=1e-10)
            assert short.n == 500

    @pytest.mark.parametrize(("nodes", "tolerance"), [(24, 3e-4), (32, 3e-6)])
    def test_the_fit_is_that_of_the_pairs(self, nodes, tolerance):
        """Geometric convergence in the number of nodes: 6e-5 and 7e-7 measured at another seed."""
        known = prompt_truth("attention-gelu")
        sample = known.params.sample(10_000, np.random.default_rng(4), known.noise)
        start = [known.params.vector[None]]
        options = LeastSquaresOptions(tolerance=1e-12)
        of = lambda data: least_squares(known.params.family, [data], start, known.noise, options)[0].best.value.vector
        assert np.abs(of(quadrature(sample, self.KIND, nodes)) - of(RegressionData.of(sample))).max() < tolerance

    def test_refusals(self):
        rng = np.random.default_rng(0)
        wide = Sample(rng.uniform(-1, 1, (10, 4)), rng.standard_normal((10, 1)))
        sample = Sample(wide.x[:, :2], wide.y)
        with pytest.raises(InputError, match=r"adaptive:relu prompts have a kink.*fit RegressionData.of"):
            quadrature(sample, PromptKind("adaptive", "relu"))
        with pytest.raises(InputError, match=r"d = 4 inputs would need 32\^4 nodes; expected d <= 3"):
            quadrature(wide, self.KIND)
        with pytest.raises(InputError, match=r"\|x\| up to 2.*within \[-1, 1\]: scale x"):
            quadrature(Sample(2 * np.ones((3, 2)), np.ones((3, 1))), self.KIND)
        with pytest.raises(InputError, match="nodes = 1; expected a whole number of at least 2"):
            quadrature(sample, self.KIND, nodes=1)


class TestWrongInput:
    known = prompt_truth("attention-fixed")
    family = known.params.family
    data = prompt_data("attention-fixed", 100, 0)

    def test_boxes(self):
        with pytest.raises(InputError, match=r"Box: b in \[2.0, 1.0\] is empty"):
            Box(b=(2, 1))
        with pytest.raises(InputError, match=r"theta in \[-inf, 5.*not finite"):
            Box(theta=(-np.inf, 5.0))

    def test_options(self):
        with pytest.raises(InputError, match="max_iterations = 0"):
            LeastSquaresOptions(max_iterations=0)
        with pytest.raises(InputError, match=r"tolerance = 0; expected a number in \(0, inf\)"):
            LeastSquaresOptions(tolerance=0)

    def test_data_and_starts(self):
        start = [self.known.params.vector[None]]
        with pytest.raises(InputError, match=r"expected \(count, 6\) for each"):
            least_squares(self.family, [self.data], [start[0][:, :5]], 0.1)
        with pytest.raises(InputError, match=r"starts of shapes.*for 2 data sets"):
            least_squares(self.family, [self.data, self.data], start, 0.1)
        with pytest.raises(InputError, match="starts have NaN or infinite entries"):
            least_squares(self.family, [self.data], [np.full((1, 6), np.nan)], 0.1)
        with pytest.raises(InputError, match=r"noise = 0; expected a number in \(0, inf\)"):
            least_squares(self.family, [self.data], start, 0)
        with pytest.raises(InputError, match="no data sets"):
            least_squares(self.family, [], [], 0.1)
        with pytest.raises(InputError, match="different points; fit them one by one"):
            least_squares(self.family, [self.data, replace(self.data, x=self.data.x + 0.1)], 2 * start, 0.1)
        with pytest.raises(InputError, match=r"data with d = 1.*the head has d = 2"):
            least_squares(self.family, [replace(self.data, x=self.data.x[:, :1])], start, 0.1)
        with pytest.raises(InputError, match="k = 1 prompts cannot sit at all 2 true ones"):
            near_truth(self.known.params, 1, 0, np.random.default_rng(0))

    def test_random_starts_are_in_the_box(self):
        box = Box(b=(0.0, 0.1), theta=(-0.2, 0.3))
        lower, upper = box.bounds(self.family)
        start = random_start(self.family, np.random.default_rng(0), box)
        assert ((start >= lower) & (start <= upper)).all()


class Quartic:
    """Q = 1 + x^4 / 4, a valley so flat that Newton leaves a fifth of its predicted decrease x^4 / 6 at each step.

    Below ``bent`` the Hessian that it gives is negative: there is no certificate. Q has so many ``digits``.
    """

    def __init__(self, bent=0.0, digits=16):
        self.bent, self.digits = bent, digits

    def at(self, vectors, sets):
        return QuarticPoint(self, vectors[:, 0])

    def retract(self, vectors):
        return vectors

    def gauges(self, vectors):
        return np.zeros((*vectors.shape, 0))


class QuarticPoint:
    def __init__(self, objective, x):
        self.objective, self.x, self.value = objective, x, np.round(1 + x**4 / 4, objective.digits)

    def derivatives(self, which, exact):
        x = self.x[which][:, None]
        metric = 3 * x[:, :, None] ** 2
        return x**3, metric, np.where(np.abs(x[:, :, None]) < self.objective.bent, -2 * metric, 0.0)


def minimum(objective, polish):
    ends = -np.ones(1), np.ones(1)
    return minimise(objective, np.array([[0.8]]), ONE, *ends, 100, 1e-6, polish)


@pytest.mark.parametrize("route", ROUTES)
def test_a_certified_minimum_is_polished(route, monkeypatch):
    """To 1e-4 of the tolerance, which bounds how far apart two routes may stop in a flat valley."""
    monkeypatch.setenv(VARIABLE, route)
    rough, fine = minimum(Quartic(), 0), minimum(Quartic(), 8)
    assert rough.status[0] is fine.status[0] is FitStatus.CERTIFIED
    assert 1e-7 < rough.gap[0] <= 1e-6
    assert fine.gap[0] <= POLISHED * 1e-6
    assert fine.values[0] - 1 < 2 * POLISHED * 1e-6 < rough.values[0] - 1
    assert rough.iterations[0] < fine.iterations[0] <= rough.iterations[0] + 8


@pytest.mark.parametrize("route", ROUTES)
def test_a_certificate_that_polishing_loses_is_none(route, monkeypatch):
    monkeypatch.setenv(VARIABLE, route)
    rough = minimum(Quartic(), 0)
    fine = minimum(Quartic(bent=0.9 * rough.vectors[0, 0]), 3)
    assert fine.status[0] is not FitStatus.CERTIFIED
    assert fine.gap[0] == np.inf


@pytest.mark.parametrize("route", ROUTES)
def test_a_certificate_holds_where_rounding_ends_polishing(route, monkeypatch):
    """No step decreases a Q of seven digits any more, where 1e-7 nats are left."""
    monkeypatch.setenv(VARIABLE, route)
    fine = minimum(Quartic(digits=7), 50)
    assert fine.status[0] is FitStatus.CERTIFIED
    assert POLISHED * 1e-6 < fine.gap[0] <= 1e-6


#: Two places in one curved valley of two gelu prompts with biases, which are too many numbers for a truth of fixed
#: prompts: 18, where the tangent at the truth has the rank 14.
HALFWAY = (
    *(0.8779, 0.8091, 2e-4, -3e-4, 1.3174, -0.0364, 0.0264, -0.7229, -0.6440),
    *(-0.0285, -4.0471, 0.0327, -0.0489, -0.7180, -0.2345, 2.3550, -2.2108, -4.7041),
)
DOWNHILL = (
    *(0.877953, 0.809136, 1.119e-3, -1.395e-3, 5.0, -0.036415, 0.026312, -0.722992, -0.753343),
    *(-0.033862, -3.701806, 0.032707, -0.048881, -0.717966, -0.055981, 2.355025, -0.527848, -4.704265),
)


@pytest.mark.parametrize("route", ROUTES)
def test_a_valley_that_runs_downhill_has_no_certificate(route, monkeypatch):
    """The Hessian is positive and predicts 2e-7 nats; three thousandths of a nat are there along the curve."""
    monkeypatch.setenv(VARIABLE, route)
    known = prompt_truth("attention-fixed")
    family = known.family(PromptKind.parse("adaptive:gelu:bias"), 2)
    objective = PromptObjective(family, [prompt_data(known.name, 177_828, 0, 6)], known.noise)
    ends, start = Box().bounds(family), np.array([HALFWAY])
    rough = minimise(objective, start, ONE, *ends, 40, 1e-6)
    assert rough.status[0] is FitStatus.CERTIFIED, "the parabola alone is deceived"
    assert objective.at(np.array([DOWNHILL]), ONE).value[0] < rough.values[0] - 2e-3
    assert minimise(objective, start, ONE, *ends, 40, 1e-6, 8).status[0] is not FitStatus.CERTIFIED


def test_routes_meet_where_a_surplus_prompt_makes_a_valley(monkeypatch):
    """At a minimum that is one: going on in other coordinates gains no more than the certificate leaves."""
    known = prompt_truth("attention-fixed")
    family, data = known.params.family.with_k(3), prompt_data(known.name, 31_623, 0, 3)
    starts = [near_truth(known.params, 3, i, start_rng(0, known.name, 31_623, 3, "fixed", 3, i)) for i in range(4)]
    found = {}
    for route in ROUTES:
        monkeypatch.setenv(VARIABLE, route)
        [found[route]] = least_squares(family, [data], [np.array(starts)], known.noise)
    one, other = (found[route].best for route in ROUTES)
    assert one.certified
    assert other.certified
    assert_allclose(one.log_likelihood, other.log_likelihood, rtol=1e-9)
    pair = PairCoordinates(PromptObjective(family, [data], known.noise), (0, 1))
    columns = _nearest_first(pair.base, one.value.vector[None])
    begin = pair.phi(np.take_along_axis(one.value.vector[None], columns, axis=1))
    further = minimise(pair, begin, ONE, *pair.bounds(Box()), 200, 1e-13)
    assert one.log_likelihood + further.values[0] > -1e-6


def test_the_two_nearest_prompts_come_first_and_f_stays():
    known = prompt_truth("attention-gelu")
    family = known.params.family.with_k(4)
    rng = np.random.default_rng(0)
    objective = PromptObjective(family, [prompt_data(known.name, 1_000, 0)], known.noise)
    vectors = np.array([random_start(family, rng, Box()) for _ in range(20)])
    columns = _nearest_first(objective, vectors)
    turned = np.take_along_axis(vectors, columns, axis=1)
    assert_array_equal(np.sort(columns, axis=1), np.tile(np.arange(family.size), (20, 1)))
    sets = np.zeros(20, dtype=int)
    assert_allclose(objective.at(turned, sets).value, objective.at(vectors, sets).value, rtol=1e-12)
    for vector in turned:
        _, atoms, _ = family.split(vector)
        apart = np.linalg.norm(atoms[:, None] - atoms, axis=2)[np.triu_indices(4, 1)]
        assert apart[0] == apart.min()


def test_starts_with_other_nearest_prompts_climb_as_if_alone():
    """Certified minima to what polishing leaves of them, 1e-10 nats, and to rounding."""
    known = prompt_truth("attention-fixed")
    family, data = known.params.family.with_k(3), [prompt_data("attention-fixed", 10_000, 0)]
    rng = np.random.default_rng(1)
    starts = np.array([near_truth(known.params, 3, i, rng) for i in range(4)])
    objective, options = PromptObjective(family, data, known.noise), LeastSquaresOptions()
    assert len(np.unique(_nearest_first(objective, starts)[:, :2], axis=0)) > 1
    together = climb(objective, starts, np.zeros(4, dtype=int), options)
    alone = [climb(objective, start[None], ONE, options) for start in starts]
    assert list(together.status) == [one.status[0] for one in alone]
    assert_allclose(together.values, [one.values[0] for one in alone], rtol=3e-10)

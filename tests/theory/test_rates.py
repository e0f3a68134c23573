import json
import math
from dataclasses import dataclass, field
from fractions import Fraction
from importlib import resources

import numpy as np
import pytest
from algebra import table
from numpy.polynomial.hermite_e import hermegauss
from scipy.optimize import least_squares

from moe_prompts import GaussianGatedMoE, InputError
from moe_prompts.losses.gaussian_voronoi import rbar
from moe_prompts.theory import predict
from moe_prompts.theory.dependences import RankWarning
from moe_prompts.theory.exponents import Bound, Exponent, settle, slowest_of
from moe_prompts.theory.published import Published, agreement, published
from moe_prompts.theory.study_predictions import intrinsic_power, prompt_power, study_predictions, to_text
from moe_prompts.theory.table import rate_table

ORBIT = "W1, W2 along their orbit"


def shown(exponent):
    """theta; "~" before what is numeric, ">" before what is one-sided, "?" for what is undetermined."""
    if exponent.theta is None:
        return "?"
    sign = {"proved": "", "numeric": "~", "one-sided": ">"}[exponent.status]
    return sign + ("none" if exponent.theta == math.inf else str(exponent.theta))


def found_in(rates):
    """Group -> what is shown for it in one cell after another."""
    groups = {}
    for rate in rates.rates:
        groups.setdefault(rate.group, []).append(shown(rate.exponent))
    return {group: " ".join(texts) for group, texts in groups.items()}


@dataclass(frozen=True)
class Case:
    """One configuration: for each group of parameters theta in one cell after another."""

    model: str
    cells: tuple
    expected: dict
    options: dict = field(default_factory=dict)

    @property
    def name(self):
        options = "".join(f" {key}={value}" for key, value in self.options.items())
        return f"{self.model} {','.join(map(str, self.cells))}{options}"

    @property
    def table(self):
        return table(self.model, self.cells, **self.options)


def gaussian_gated(*cells):
    """c, b: 2m; Gamma, nu, a: m; 1 where m = 1: for every c."""
    slow = " ".join(str(2 * m if m > 1 else 1) for m in cells)
    fast = " ".join(map(str, cells))
    return {"c": slow, "Gamma": fast, "a": fast, "b": slow, "nu": fast}


AT_ZERO = {"stratum": (("c", 0),)}
SMOOTH = ("tanh", "sigmoid", "gelu", "silu", "softplus")
PROMPT = {"W1": "1 2", "W2": "1"}

#: Section by section: joint densities, softmax gates with and without a cell of one atom, prompts.
CASES = [
    Case("location-scale", (1, 2, 3, 4), {"b": "1 4 6 8", "s": "1 2 3 4"}),
    Case("covariate-free", (1, 2, 3), {"a": "1 2 2", "b": "1 4 6", "s": "1 2 3"}),
    Case("gaussian-gated", (3,), gaussian_gated(3)),
    Case("softmax-gaussian", (1, 1), dict.fromkeys(("beta", "a", "b", "s"), "1 1")),
    Case("softmax-gaussian", (1, 2), {"beta": "1 2", "a": "1 2", "b": "1 4", "s": "1 2"}),
    Case("softmax-gaussian", (2, 2), {"beta": "2 2", "a": "2 2", "b": "4 4", "s": "2 2"}, {"frozen": 1}),
    Case("softmax-gaussian", (2, 3), {"beta": "none none", "a": ">2 >2", "b": ">4 >6", "s": ">2 >3"}),
    Case("softmax-gaussian", (1,), {"beta": "none", "a": "1", "b": "1", "s": "1"}),
    Case("softmax-linear", (1, 2), {"beta": "1 2", "a": "1 none", "b": "1 none"}),
    Case("softmax-linear", (2, 2), {"beta": "none none", "a": "none none", "b": "none none"}),
    Case("fixed", (1, 2), {"p": "1 2"}),
    Case("fixed", (2, 2), {"p": "2 2"}, {"frozen": 0}),
    Case("fixed", (1, 2), {"p seen by keys": "1 2", "p unseen by keys": "1 none"}, {"rank": 1}),
    Case("prefix", (1, 2), {"p": "1 2"}),
    Case("prefix", (2, 2), {"p": "2 2"}, {"frozen": 0}),
    Case("decoupled", (1, 2), {"k": "1 2", "v": "1 none"}),
    Case("decoupled", (1, 2), {"k": "1 2", "v": "1 none"}, {"frozen": 0}),
    Case("decoupled", (2, 2), {"k": "2 2", "v": "none none"}),
    Case("decoupled", (2, 2), {"k": "none none", "v": "none none"}, {"frozen": 0}),
    *(Case(f"adaptive:{name}", (1, 2), PROMPT) for name in SMOOTH),
    Case("adaptive:relu", (1, 2), {"W1": "~1 ~2", "W2": "~1", ORBIT: "none"}),
    Case("adaptive:relu", (1, 1), {"W1": "1 1", "W2": "1", ORBIT: "none"}),
    Case("adaptive:identity", (1, 2), {"W1": "1 none", ORBIT: "none"}, {"hidden": 2}),
]
LONGER = [
    Case("gaussian-gated", (1, 2, 3, 4), gaussian_gated(1, 2, 3, 4)),
    Case("gaussian-gated", (1, 2, 3, 4), gaussian_gated(1, 2, 3, 4), AT_ZERO),
    Case("gaussian-gated-constant", (1, 2, 3), {"c": "1 4 6", "Gamma": "1 2 3", "b": "1 4 6", "nu": "1 2 3"}),
    Case("softmax-gaussian", (1, 2, 3, 4), {"beta": "1 2 2 2", "a": "1 2 2 2", "b": "1 4 6 8", "s": "1 2 3 4"}),
    Case("softmax-gaussian", (2, 2), {"beta": "none none", "a": ">2 >2", "b": ">4 >4", "s": ">2 >2"}),
    Case("softmax-gaussian", (3, 4), {"beta": "none none", "a": ">3 >3", "b": ">6 >8", "s": ">3 >4"}),
    Case("adaptive:gelu", (1, 2), PROMPT, {"hidden": 2, "rank": 1}),
    *(Case(f"adaptive:{name}", (1, 2), PROMPT, {"hidden": 2}) for name in SMOOTH),
    Case("adaptive:relu", (1, 2), {"W1": "~1 ~2", "W2": "~1", ORBIT: "none"}, {"hidden": 2}),
]


@pytest.mark.parametrize(
    "case", [*CASES, *(pytest.param(case, marks=pytest.mark.slow) for case in LONGER)], ids=lambda case: case.name
)
def test_rates(case):
    assert found_in(case.table) == case.expected


@pytest.mark.parametrize("case", [case for case in CASES if 1 in case.cells], ids=lambda case: case.name)
def test_exact_cells_are_parametric(case):
    """theta = 1 and slope -1/2 in cells of one atom, except where no data show the parameter."""
    exact = [rate for rate in case.table.rates if rate.m == 1 and rate.exponent.theta != math.inf]
    assert exact
    assert {rate.slope for rate in exact} == {Fraction(-1, 2)}
    assert {rate.rate for rate in exact} == {"n^(-1/2)"}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_slopes_are_minus_one_over_two_theta(case):
    for rate in case.table.rates:
        theta = rate.exponent.theta
        assert rate.slope == (0 if theta == math.inf else -1 / (2 * theta))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_proved_means_bounds_from_both_sides(case):
    """theta of a parameter is proved by an upper and a lower bound that meet, or by a curve that no data show."""
    for part in (part for rate in case.table.rates for part in rate.parts.values()):
        if part.status in ("proved", "numeric") and part.theta != math.inf:
            assert part.upper.theta == part.lower.theta == part.theta
        elif part.status != "undetermined":
            assert part.upper is None
            assert part.lower.theta == part.theta


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_bound_has_a_certificate_by_name(case):
    """For every parameter of every group, on each side where there is a bound."""
    for rate in case.table.rates:
        for name, sides in case.table.certificates_of(rate).items():
            part = rate.parts[name]
            for side, bound in (("upper", part.upper), ("lower", part.lower)):
                given = None if sides[side] is None else case.table.certificates[sides[side]]
                assert given == (None if bound is None else bound.certificate)


def in_cell(rates, group, cell):
    return next(rate for rate in rates.rates if rate.group == group and rate.cell == cell)


def test_the_neighbour_decides_about_beta():
    """Beside a cell of two, an exact cell, or a frozen expert in its place, pins the gates of all others."""
    pinned, frozen, free = (
        in_cell(table("softmax-gaussian", cells, **options), "beta", cell).exponent
        for cells, options, cell in (((1, 2), {}, 1), ((2, 2), {"frozen": 1}, 1), ((2, 3), {}, 0))
    )
    assert (pinned.theta, pinned.status) == (frozen.theta, frozen.status) == (2, "proved")
    assert (free.theta, free.status, free.lower.method) == (math.inf, "proved", "cosh")


# Beside the published exponents ---------------------------------------------------------------------------------------


def test_agreement_with_the_published_exponents():
    softmax = table("softmax-gaussian", (1, 2))
    assert [in_cell(softmax, "beta", j).agrees for j in range(2)] == ["yes", "published is looser"]
    assert {in_cell(softmax, group, j).agrees for group in ("a", "b", "s") for j in range(2)} == {"yes"}
    location = table("location-scale", (1, 2, 3, 4))
    for group in ("b", "s"):
        assert {in_cell(location, group, j).agrees for j in range(4)} == {"yes"}
        assert in_cell(location, group, 3).published.bound
    typed = table("gaussian-gated", (3,))
    assert in_cell(typed, "a", 0).agrees == "no: published is too fast"
    assert {in_cell(typed, group, 0).agrees for group in ("c", "Gamma", "b", "nu")} == {"yes"}
    unpinned = table("softmax-gaussian", (2, 3))
    assert in_cell(unpinned, "beta", 0).agrees == "no: published is too fast"
    assert in_cell(unpinned, "a", 1).agrees == "consistent"
    assert in_cell(table("covariate-free", (1, 2, 3)), "a", 1).agrees == ""


@pytest.mark.slow
def test_softmax_gates_are_sharper_from_m_2_on_and_slopes_from_m_3_on():
    softmax = table("softmax-gaussian", (1, 2, 3, 4))
    assert [in_cell(softmax, "beta", j).agrees for j in range(4)] == ["yes", *3 * ["published is looser"]]
    assert [in_cell(softmax, "a", j).agrees for j in range(4)] == ["yes", "yes", *2 * ["published is looser"]]


@pytest.mark.slow
def test_types_one_and_two_of_the_gaussian_gate():
    """a in cells of 1, 2, 3, 4: where some c* = 0 the published rate holds, elsewhere it is too fast from m = 3 on."""
    first, second = (
        [in_cell(table("gaussian-gated", (1, 2, 3, 4), **options), "a", j).agrees for j in range(4)]
        for options in ({}, AT_ZERO)
    )
    assert first == ["yes", "yes", "no: published is too fast", "no: published is too fast"]
    assert second == ["yes"] * 4


def test_one_expert_has_no_gate_to_publish_about():
    alone = table("softmax-gaussian", (1,))
    assert in_cell(alone, "beta", 0).published is None
    assert in_cell(alone, "a", 0).published.theta == 1


@pytest.mark.parametrize(
    ("theta", "status", "known", "text"),
    [
        (4, "proved", Published(Fraction(4), False, ""), "yes"),
        (8, "proved", Published(Fraction(7), True, ""), "yes"),
        (8, "one-sided", Published(Fraction(7), True, ""), "consistent"),
        (math.inf, "proved", Published(Fraction(7), True, ""), "no: published is too fast"),
        (3, "proved", Published(Fraction(2), False, ""), "no: published is too fast"),
        (2, "proved", Published(Fraction(4), False, ""), "published is looser"),
        (2, "one-sided", Published(Fraction(4), False, ""), "consistent"),
        (4, "one-sided", Published(Fraction(4), False, ""), "consistent"),
        (6, "one-sided", Published(Fraction(4), False, ""), "no: published is too fast"),
        (None, "undetermined", Published(Fraction(4), False, ""), ""),
        (2, "proved", None, ""),
    ],
)
def test_agreement_in_words(theta, status, known, text):
    assert agreement(Exponent(theta, status, None, None), known) == text


def test_published_table():
    """r(m) = 4, 6, >= 7; type I: a is n^{-1/4} for every m; prompts n^{-1/4}, decoupled none."""
    for m, r, bound in ((2, 4, False), (3, 6, False), (4, 7, True), (5, 7, True)):
        citation = "Ho and Nguyen, Annals of Statistics 2016"
        assert published("location-scale", {}, "b", m, {}) == Published(Fraction(r), bound, citation)
        assert published("location-scale", {}, "s", m, {}) == Published(Fraction(r, 2), bound, citation)
        assert published("gaussian-gated", {}, "a", m, {"c": 0}).theta == Fraction(r, 2)
        assert published("gaussian-gated", {}, "a", m, {}).theta == 2
    assert published("decoupled", {}, "v", 2, {}).theta == math.inf
    assert published("decoupled", {}, "k", 2, {}) is None  # stated of key and value together
    assert published("adaptive:gelu", {"hidden": 2}, "W1", 2, {}).theta == 2
    assert published("fixed", {"rank": 1}, "p", 2, {}) is None
    assert published("covariate-free", {}, "a", 2, {}) is None


# The same exponents without algebra -----------------------------------------------------------------------------------


def normal(z, variance):
    return np.exp(-(z**2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)


def log_slope(eps, distances):
    return np.polyfit(np.log(eps), np.log(distances), 1)[0]


def quadrature(m):
    """Nodes and weights for N(0, 1)."""
    nodes, weights = hermegauss(m)
    return nodes, weights / weights.sum()


@pytest.mark.parametrize("c", [1.0, 0.0])
@pytest.mark.parametrize("m", [2, 3, 4])
def test_gauss_hermite_curve_of_the_gaussian_gate(c, m):
    """m atoms whose joint mean moves by eps X_l (1, v) and covariance by -eps^2 (1, v)(1, v)' differ from one atom by
    eps^{2m} in L1, while c moves by eps and a by eps^2: no rate of a beats n^{-1/(2m)}, at c* = 1 as at c* = 0."""
    G, a, b, nu, v = 1.0, 0.5, 0.3, 0.8, 0.7
    x, y = np.linspace(-7, 8, 181), np.linspace(-8, 9, 181)
    pairs = [grid.reshape(-1, 1) for grid in np.meshgrid(x, y, indexing="ij")]
    area = (x[1] - x[0]) * (y[1] - y[0])
    one = GaussianGatedMoE.univariate([1.0], [c], [G], [a], [b], [nu])
    nodes, weights = quadrature(m)
    eps = np.array([0.1, 0.14, 0.2]) if m < 4 else np.array([0.15, 0.2, 0.27])
    distances, moved_a, moved_c = [], [], []
    for e in eps:
        xx, xy, yy = np.array([G, a * G, nu + a**2 * G]) - e**2 * np.array([1, v, v**2])
        slope, means = xy / xx, c + e * nodes
        intercepts = a * c + b + e * v * nodes - slope * means
        full = np.ones(m)
        many = GaussianGatedMoE.univariate(
            weights, means, xx * full, slope * full, intercepts, (yy - slope * xy) * full
        )
        difference = np.exp(many.log_density(*pairs)) - np.exp(one.log_density(*pairs))
        distances.append(np.abs(difference).sum() * area)
        moved_a.append(abs(slope - a))
        moved_c.append(np.abs(means - c).max())
    # The curve's expansion is in powers of eps^2: slopes exceed their limit by about m^2 eps^2.
    assert abs(log_slope(eps, distances) - rbar(m)) < 0.3
    assert abs(log_slope(eps, moved_a) - 2) < 0.1
    assert abs(log_slope(eps, moved_c) - 1) < 1e-6


def softmax_density(atoms, x, y):
    """p(y given x), atoms in rows (log weight, beta, a, b, s), on the grid of x and y."""
    log_weight, beta, a, b, s = np.array(atoms).T
    gates = np.exp(log_weight + beta * x[:, None])
    experts = normal(y[None, :, None] - a * x[:, None, None] - b, s)
    return np.einsum("ik,ijk->ij", gates, experts) / gates.sum(axis=1)[:, None]


TRUTH = np.array([[0.0, 0.6, 0.5, -0.4, 0.7], [0.2, -0.5, -0.8, 0.6, 0.5]])
GRID = np.linspace(-2, 2, 13), np.linspace(-5, 5, 25)


def split(atom, place, eps):
    """Two atoms of half the mass at +-eps."""
    move = np.eye(len(atom))[place] * eps
    halved = atom - np.eye(len(atom))[0] * math.log(2)
    return [halved + move, halved - move]


@pytest.mark.parametrize("delta", [0.1, 0.5, 2.0])
def test_cosh(delta):
    """beta_j +- delta with half weight in every cell: p = p* whatever delta."""
    everywhere = [atom for cell in TRUTH for atom in split(cell, 1, delta)]
    assert np.abs(softmax_density(everywhere, *GRID) - softmax_density(TRUTH, *GRID)).max() < 1e-14


def test_an_exact_cell_shows_beta():
    """beta_2 +- eps in one cell beside an exact one: the distance is eps^2, not zero."""
    eps = np.array([0.02, 0.05, 0.1])
    distances = [
        np.abs(softmax_density([TRUTH[0], *split(TRUTH[1], 1, e)], *GRID) - softmax_density(TRUTH, *GRID)).max()
        for e in eps
    ]
    assert abs(log_slope(eps, distances) - 2) < 0.05


@pytest.mark.parametrize("m", [2, 3])
def test_all_cells_tilted_hide_a_to_order_2m(m):
    """beta, a, b, s move by eps lam X_l, -eps^2 lam, eps X_l, -eps^2 in every cell: numerators and gates gain the
    common factor e^{eps^2 lam^2 x^2 / 2} and differ by eps^{2m} otherwise, so a is no faster than n^{-1/(2m)}."""
    lam, (nodes, weights) = 0.8, quadrature(m)
    eps = np.array([0.08, 0.12, 0.18])
    distances = []
    for e in eps:
        atoms = [
            cell + np.array([math.log(w), e * lam * node, -(e**2) * lam, e * node, -(e**2)])
            for cell in TRUTH
            for node, w in zip(nodes, weights, strict=True)
        ]
        distances.append(np.abs(softmax_density(atoms, *GRID) - softmax_density(TRUTH, *GRID)).max())
    assert abs(log_slope(eps, distances) - rbar(m)) < 0.3


#: Place in an atom's row, theta at m = 2 beside an exact cell, half-differences at which the slope is read.
PROFILED = {"beta": (1, 2, (0.1, 0.05)), "a": (2, 2, (0.1, 0.05)), "b": (3, 4, (0.2, 0.14)), "s": (4, 2, (0.02, 0.01))}


@pytest.mark.parametrize("group", ["beta", "a", *(pytest.param(name, marks=pytest.mark.slow) for name in ("b", "s"))])
def test_least_distance_at_given_displacement(group):
    """The smallest L2 distance over all other parameters, where two atoms of a cell differ by 2 delta in one group, is
    delta^theta: both bounds at once, without derivatives. (Published for beta is theta = 4.)"""
    place, theta, deltas = PROFILED[group]
    target = softmax_density(TRUTH, *GRID)

    def residuals(free, delta):
        # The first atom's log weight and beta stay: gauges of the masses and of the gates.
        first, middle, half = TRUTH[0] + np.array([0, 0, *free[:3]]), TRUTH[1] + free[3:8], free[8:13].copy()
        half[place] = delta
        return (softmax_density([first, middle + half, middle - half], *GRID) - target).ravel()

    tight = {"xtol": 1e-15, "ftol": 1e-15, "gtol": 1e-15, "max_nfev": 400}
    least = [
        math.sqrt(2 * least_squares(residuals, np.zeros(13), args=(delta,), bounds=(-1, 1), **tight).cost)
        for delta in deltas
    ]
    assert in_cell(table("softmax-gaussian", (1, 2)), group, 1).exponent.theta == theta
    assert abs(math.log(least[0] / least[1]) / math.log(deltas[0] / deltas[1]) - theta) < 0.6


def prompt_function(atoms, x, frozen):
    """f = (e^{x'Ax} C x + sum_l w_l e^{x'k_l} v_l) / (e^{x'Ax} + sum_l w_l e^{x'k_l}), atoms (w, k, v)."""
    known = frozen * np.exp(0.3 * x[:, 0] * x[:, 1] - 0.2 * x[:, 0] ** 2)[:, None]
    top, bottom = known * (x @ np.array([[0.4, -0.3], [0.2, 0.7]])), known
    for w, k, v in atoms:
        gate = w * np.exp(x @ np.asarray(k))[:, None]
        top, bottom = top + gate * np.asarray(v), bottom + gate
    return top / bottom


INPUTS = np.random.default_rng(0).uniform(-1.5, 1.5, (60, 2))
KEYS, VALUES = np.array([[0.5, -0.4], [-0.7, 0.3]]), np.array([[0.8, 0.1], [-0.3, 0.9]])


@pytest.mark.parametrize("delta", [0.1, 1.0, 10.0])
def test_values_of_one_cell_cancel(delta):
    """v +- delta with one key and half the mass each: an expert affine in v is one atom, whatever delta."""
    k, v, move = KEYS[0], VALUES[0], delta * np.array([0.6, -0.8])
    several = prompt_function([(0.5, k, v + move), (0.5, k, v - move), (1, KEYS[1], VALUES[1])], INPUTS, frozen=1)
    one = prompt_function([(1, k, v), (1, KEYS[1], VALUES[1])], INPUTS, frozen=1)
    assert np.abs(several - one).max() < 1e-14 * max(1, delta)


def test_keys_show_beside_a_frozen_expert_only():
    """k +- eps in all cells: eps^2 beside a frozen expert; without one everything gains the factor cosh(eps x_1)."""
    eps = np.array([0.03, 0.06, 0.12])
    move = np.array([1.0, 0.0])
    for frozen in (1, 0):
        one = prompt_function(list(zip((1, 1), KEYS, VALUES, strict=True)), INPUTS, frozen)
        distances = [
            np.abs(
                prompt_function(
                    [(0.5, k + sign * e * move, v) for k, v in zip(KEYS, VALUES, strict=True) for sign in (1, -1)],
                    INPUTS,
                    frozen,
                )
                - one
            ).max()
            for e in eps
        ]
        if frozen:
            assert abs(log_slope(eps, distances) - 2) < 0.05
        else:
            assert max(distances) < 1e-14


# What is not known is not claimed -------------------------------------------------------------------------------------


def bound(theta, method="a method"):
    return Bound(Fraction(theta) if theta != math.inf else math.inf, method, {})


def test_settle():
    """Proved where bounds meet, one-sided where only a lower one says something, else undetermined."""
    assert settle([bound(4), bound(2)], [bound(1, "one atom"), bound(2, "split")], False).status == "proved"
    assert settle([bound(4), bound(2)], [bound(2, "split")], False).theta == 2
    assert settle([bound(2)], [bound(2, "split")], True).status == "numeric"
    one_sided = settle([], [bound(2, "split"), bound(4, "Gauss-Hermite")], False)
    assert (one_sided.theta, one_sided.status) == (4, "one-sided")
    loose = settle([bound(6)], [bound(4, "Gauss-Hermite")], False)
    assert (loose.theta, loose.status, loose.upper.theta) == (4, "one-sided", 6)
    for uppers in ([], [bound(4)]):
        unknown = settle(uppers, [bound(2, "split")], False)
        assert (unknown.theta, unknown.status) == (None, "undetermined")
    assert settle([], [], False) == Exponent(None, "undetermined", None, None)
    assert settle([bound(2)], [bound(math.inf, "cosh")], False) == Exponent(
        math.inf, "proved", None, bound(math.inf, "cosh")
    )


def test_bounds_that_contradict_each_other_are_an_error():
    with pytest.raises(ArithmeticError, match="contradict each other: definite 2, Gauss-Hermite 4"):
        settle([bound(2, "definite")], [bound(4, "Gauss-Hermite")], False)


def test_a_group_is_as_slow_as_its_slowest_parameter():
    """And no better known than the one of which least is known."""
    two, four = (Exponent(Fraction(n), "proved", bound(n), bound(n)) for n in (2, 4))
    none = Exponent(math.inf, "proved", None, bound(math.inf))
    unknown = Exponent(None, "undetermined", None, bound(2, "split"))
    one_sided = Exponent(Fraction(2), "one-sided", None, bound(2))
    assert slowest_of([two, four, two]) == four
    assert slowest_of([two, none, unknown]) == none
    assert slowest_of([two, four, unknown]) == unknown
    mixed = slowest_of([one_sided, four])
    assert (mixed.theta, mixed.status) == (4, "one-sided")
    assert slowest_of([two]) == two


DEPENDENT = {
    "adaptive:tanh": {"w1_1": 0, "w1_2": 0},
    "adaptive:sigmoid": {"z1_1": 0, "z2_1": 0},
    "decoupled": {"k1": 0, "k2": 0},
    "fixed": {"p1": 0, "p2": 0},
    "softmax-gaussian": {"a": 0, "b": 0, "s": 1},
}


@pytest.mark.parametrize("model", DEPENDENT)
def test_dependent_kernels_prove_no_upper_bound(model):
    """Atoms that coincide, or kernels at w = 0: a loud warning, a note, and no rate beyond what curves show."""
    with pytest.warns(RankWarning, match="formal rank"):
        found = rate_table(model, [1, 2], stratum=DEPENDENT[model])
    assert all(rate.exponent.upper is None for rate in found.rates)
    assert all(rate.exponent.theta == math.inf for rate in found.rates if rate.exponent.status in ("proved", "numeric"))
    assert found.notes[0].startswith("FORMAL RANK")
    assert "no upper bound is derived" in found.notes[0]


def test_undetermined_rates_say_so():
    """W1 = 0 in both cells: neither theta nor slope, and the trivial bound in words."""
    with pytest.warns(RankWarning):
        found = rate_table("adaptive:tanh", [1, 2], stratum=DEPENDENT["adaptive:tanh"])
    assert {rate.exponent.status for rate in found.rates} == {"undetermined"}
    assert {record["theta"] for record in found.records()} == {""}
    assert {record["slope"] for record in found.records()} == {None}
    assert {rate.agrees for rate in found.rates} == {""}
    assert in_cell(found, "W1", 1).rate == "no faster than n^(-1/4)"


def test_first_order_dependences_without_a_rank_warning():
    """v = 0 in all cells and nothing frozen: f* = 0 whatever the keys, so keys are lost to first order."""
    found = rate_table("decoupled", [1, 2], frozen=0, stratum={"v1": 0, "v2": 0})
    assert found_in(found) == {"k": "? ?", "v": "? none"}
    assert "no upper bound is derived" in found.notes[0]


# Input ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "moon"}, "unknown model 'moon'; expected one of location-scale"),
        ({"cells": []}, "cells is empty; expected the number of fitted atoms"),
        ({"cells": [0, 1]}, "cells 0,1; expected at most 6 whole numbers from 1 to 8"),
        ({"cells": [-2]}, "cells -2; expected"),
        ({"cells": [9]}, "cells 9; expected"),
        ({"cells": [1] * 7}, "cells 1,1,1,1,1,1,1; expected at most 6"),
        ({"cells": [True, 2]}, "cells True,2; expected"),
        ({"cells": [1.0]}, r"cells 1\.0; expected"),
        ({"frozen": -1}, "frozen = -1; expected a whole number of at least 0"),
        ({"frozen": 1}, "1 frozen experts in location-scale, a joint density"),
        ({"stratum": {"c": 0}}, "stratum 'c': location-scale has the parameters b, s"),
        ({"stratum": {"s": 0}}, "stratum s = 0; expected a positive number, it is a variance"),
        ({"d": 2}, "d = 2 for location-scale; only prompts have it"),
        ({"model": "fixed", "hidden": 2}, "hidden = 2 for fixed; only adaptive prompts have it"),
        ({"model": "fixed", "rank": 3}, "d = 2, rank = 3, hidden = 1; expected"),
        ({"model": "adaptive:relu", "d": 1, "hidden": 2}, "expected d >= 2 or hidden = 1"),
    ],
)
def test_wrong_input(arguments, message):
    with pytest.raises(InputError, match=message):
        rate_table(**{"model": "location-scale", "cells": [1, 2]} | arguments)


# Output ---------------------------------------------------------------------------------------------------------------


def test_json_says_what_the_table_says():
    found = table("softmax-gaussian", (2, 3))
    read = json.loads(found.to_json())
    assert read["rates"] == found.records()
    assert read["notes"] == ["beta: up to one translation common to all cells."]
    assert read["configuration"]["sizes"] == [2, 3]
    assert set(read["certificates"]) == {
        name
        for record in read["rates"]
        for sides in record["certificates"].values()
        for name in sides.values()
        if name is not None
    }
    assert [(record["group"], record["cell"], record["m"]) for record in read["rates"]] == [
        (group, cell, m) for cell, m in ((1, 2), (2, 3)) for group in ("beta", "a", "b", "s")
    ]
    first = read["rates"][0]
    assert (first["theta"], first["rate"], first["slope"], first["status"]) == ("infinite", "none", "0", "proved")
    assert (first["upper"], first["lower"]) == (None, "cosh")
    last = read["rates"][-1]
    assert (last["theta"], last["rate"], last["slope"]) == ("3", "no faster than n^(-1/6)", "-1/6")
    assert (last["published"], last["citation"]) == ("n^(-1/6)", "arXiv 2305.03288")


def test_markdown_has_one_line_per_group_and_cell():
    found = table("location-scale", (1, 2, 3, 4))
    lines = found.markdown().splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")]
    header, rule, *body = rows
    assert header[:6] == ["group", "cell", "size", "theta", "rate", "status"]
    assert set("".join(rule)) == {"-"}
    assert [row[:4] for row in body] == [[r["group"], str(r["cell"]), str(r["m"]), r["theta"]] for r in found.records()]
    assert body[-2][3:] == [
        "8",
        "n^(-1/16)",
        "proved",
        "S1 block",
        "Gauss-Hermite",
        "n^(-1/(2r)), r >= 7",
        "yes",
    ]
    assert len({len(line) for line in lines if line.startswith("|")}) == 1
    assert "Identities used: u_bb = 2 u_s." in lines
    assert "Published: Ho and Nguyen, Annals of Statistics 2016." in lines


def test_rows_of_shared_parameters_belong_to_all_cells():
    found = table("adaptive:relu", (1, 2))
    shared = [record for record in found.records() if record["cell"] is None]
    assert [record["group"] for record in shared] == ["W2", ORBIT]
    assert [record["m"] for record in shared] == [None, None]
    assert "| W2 " in found.markdown()
    assert "z1_1 = 1" in found.notes[0]
    assert "kink" in found.notes[1]
    assert found.title == "adaptive:relu d=2 hidden=1, cells 1,2, 1 frozen"


def test_certificates_are_named_once():
    """Rows that rest on the same certificate name the same one."""
    found = table("location-scale", (1, 2, 3, 4))
    upper = [record["certificates"][record["group"]]["upper"] for record in found.records()]
    assert upper[0] == upper[1] == "first order 1"
    assert upper[2:4] == ["S1 block 1"] * 2
    assert upper[4:6] == ["S1 block 2"] * 2
    assert len({json.dumps(certificate) for certificate in found.certificates.values()}) == len(found.certificates)


# Predictions of studies -----------------------------------------------------------------------------------------------


def slowest(rates, power, wanted=lambda m: True):
    """-min power(group, m) / (2 theta), by hand; None where some group has no rate."""
    if any(rate.exponent.theta in (None, math.inf) for rate in rates.rates if rate.group != ORBIT):
        return None
    exponents = [
        -Fraction(power(rate.group, rate.m or 1)) / (2 * rate.exponent.theta)
        for rate in rates.rates
        if rate.group != ORBIT and wanted(rate.m or 1)
    ]
    return max(exponents, default=None)


@pytest.mark.parametrize(
    "kind",
    [
        "fixed",
        "prefix",
        "decoupled",
        *(pytest.param(f"adaptive:{name}", marks=pytest.mark.slow) for name in ("tanh", "identity")),
    ],
)
@pytest.mark.parametrize(("cells", "name"), [((1, 1), "exact"), ((1, 2), "over")])
def test_predictions_of_attention_are_the_derived_rates(kind, cells, name):
    options = {"hidden": 2} if kind.startswith("adaptive") else {}
    rates = table(kind, cells, frozen=2, d=2, **options)
    for group, power, wanted in (
        ("D", prompt_power, lambda m: True),
        ("singleton", lambda *_: 1, lambda m: m == 1),
        ("split", lambda *_: 1, lambda m: m > 1),
    ):
        entry = predict("prompt-attention", kind, kind, name, group)
        assert (entry.exponent if entry else None) == slowest(rates, power, wanted)


def test_predictions_of_the_gaussian_gate_are_the_derived_rates():
    """D raises c and b to 2m, Gamma, nu and a to m: every term is n^{-1/2}, for cells of three as for those of one."""
    entry = predict("gaussian-gated", "adaptive", "adaptive", "over", "D")
    assert entry.exponent == slowest(table("gaussian-gated", (3,)), intrinsic_power) == Fraction(-1, 2)
    assert predict("gaussian-gated", "adaptive", "adaptive", "exact", "D").exponent == Fraction(-1, 2)


@pytest.mark.slow
def test_predictions_file_is_what_is_derived_now():
    written = resources.files("moe_prompts.theory").joinpath("predictions.json").read_text(encoding="utf-8")
    assert to_text(study_predictions()) == written

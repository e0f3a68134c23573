import json
from dataclasses import dataclass, field
from functools import cache

import mpmath
import numpy as np
import pytest
import sympy as sp

from moe_prompts import InputError
from moe_prompts.theory.atoms import KINDS, NETWORKS, PLAIN, PROMPTS, atom
from moe_prompts.theory.dependences import RankWarning, dependences, second_order_parts
from moe_prompts.theory.jets import multi_indices
from moe_prompts.theory.mixture import Mixture, mixture

SMOOTH = ("tanh", "sigmoid", "gelu", "silu", "softplus")


@dataclass(frozen=True)
class Case:
    """One row of the table of atoms: what must be found.

    primitive: identities that are no derivatives of others, as texts {"c b": {"a": "1/Gamma", "b": "-c/Gamma"}}, where
    "c b" is a derivative by these parameters and "" the atom itself.
    """

    kind: str
    rank: int
    columns: int
    primitive: dict = field(default_factory=dict)
    first: bool = True
    options: dict = field(default_factory=dict)
    order: int = 2
    stratum: dict | None = None

    def report(self):
        return dependences(atom(self.kind, **self.options), self.order, self.stratum)


GAUSSIAN_GATED = {
    "c c": {"Gamma": "2"},
    "c b": {"a": "1/Gamma", "b": "-c/Gamma"},
    "Gamma b": {"b": "(c**2 - Gamma)/(2*Gamma**2)", "a": "-c/(2*Gamma**2)", "c a": "1/(2*Gamma)"},
    "a b": {"nu": "2*c", "c nu": "2*Gamma"},
    "a a": {"nu": "2*(Gamma + c**2)", "c nu": "4*Gamma*c", "Gamma nu": "4*Gamma**2"},
    "b b": {"nu": "2"},
}
CENTRED = {
    "c c": {"Gamma": "2"},
    "c b": {"a": "1/Gamma"},
    "Gamma b": {"b": "-1/(2*Gamma)", "c a": "1/(2*Gamma)"},
    "a b": {"c nu": "2*Gamma"},
    "a a": {"nu": "2*Gamma", "Gamma nu": "4*Gamma**2"},
    "b b": {"nu": "2"},
}
SOFTMAX = {"beta b": {"a": "1"}, "a b": {"beta s": "2"}, "b b": {"s": "2"}}
LINEAR = {"beta b": {"a": "1"}, "a a": {}, "a b": {}, "b b": {}}
NO_DIRECTION_TWICE = {"v1 v1": {}, "v1 v2": {}, "v2 v2": {}}


def orbit(d, degree):
    """w . u_w = degree z . u_z, solved for the last z: one hidden unit, sigma(ct) = c^degree sigma(t)."""
    last = f"z{d}_1"
    weights = {f"w1_{i}": f"w1_{i}/({degree}*{last})" for i in range(1, d + 1)}
    return {last: weights | {f"z{i}_1": f"-z{i}_1/{last}" for i in range(1, d)}}


SWAPS = {"w1_2 w2_1": {"w1_1 w2_2": "1"}, "z2_1 z1_2": {"z1_1 z2_2": "1"}}
TABLE = {
    "location-scale": Case("location-scale", 5, 6, {"b b": {"s": "2"}}),
    "covariate-free": Case("covariate-free", 9, 10, {"b b": {"s": "2"}}),
    "gaussian-gated": Case("gaussian-gated", 15, 21, GAUSSIAN_GATED),
    "gaussian-gated, c = 0": Case("gaussian-gated", 15, 21, CENTRED, stratum={"c": 0}),
    "gaussian-gated, a = 0": Case("gaussian-gated", 15, 21, GAUSSIAN_GATED, stratum={"a": 0}),
    "gaussian-gated-constant": Case("gaussian-gated-constant", 13, 15, {"c c": {"Gamma": "2"}, "b b": {"nu": "2"}}),
    "softmax-gaussian": Case("softmax-gaussian", 12, 15, SOFTMAX),
    "softmax-gaussian / gate": Case("softmax-gaussian", 12, 15, SOFTMAX, options={"normaliser": True}),
    "softmax-linear / gate": Case("softmax-linear", 6, 10, LINEAR, options={"normaliser": True}),
    "decoupled": Case(
        "decoupled", 9, 15, {"v2": {"": "1/v2", "v1": "-v1/v2"}, "v1 v1": {}}, first=False, options={"d": 2}
    ),
    "decoupled / gate": Case("decoupled", 12, 15, NO_DIRECTION_TWICE, options={"d": 2, "normaliser": True}),
    "fixed": Case("fixed", 6, 6),
    "fixed / gate": Case("fixed", 6, 6, options={"normaliser": True}),
    "location-scale, bias": Case(
        "location-scale", 5, 10, {"logw": {"": "1"}, "b b": {"s": "2"}}, first=False, options={"bias": True}
    ),
    "softmax-gaussian, bias": Case(
        "softmax-gaussian", 12, 21, {"logw": {"": "1"}, **SOFTMAX}, first=False, options={"bias": True}
    ),
    "fixed / gate, bias": Case(
        "fixed", 6, 10, {"logw": {"": "1"}}, first=False, options={"bias": True, "normaliser": True}
    ),
    **{
        f"{name}, d = {d}": Case(f"adaptive:{name}", *((6, 6) if d == 1 else (15, 15)), options={"d": d})
        for name in SMOOTH
        for d in (1, 2)
    },
    **{
        f"{name}, d = {d}": Case(
            f"adaptive:{name}", *((3, 6) if d == 1 else (10, 15)), orbit(d, degree), first=False, options={"d": d}
        )
        for name, degree in (("identity", 1), ("relu", 1), ("leaky_relu", 1), ("square", 2))
        for d in (1, 2)
    },
    **{f"{name}, order 4": Case(f"adaptive:{name}", 15, 15, options={"d": 1}, order=4) for name in ("tanh", "sigmoid")},
    **{f"{name}, h = 2": Case(f"adaptive:{name}", 43, 45, SWAPS, options={"d": 2, "hidden": 2}) for name in SMOOTH},
    **{
        f"{name}, W2 = 0": Case(
            f"adaptive:{name}",
            3,
            6,
            {"": {}, "w1_1": {}, "w1_1 w1_1": {}},
            first=False,
            options={"d": 1},
            stratum={"z1_1": 0},
        )
        for name in SMOOTH
    },
}
#: W1 = 0 with an activation that vanishes at 0: only x and x^2 are left, and the formal rank sees it.
TABLE |= {
    f"{name}, W1 = 0": Case(
        f"adaptive:{name}",
        2,
        6,
        {"": {}, "z1_1": {}, "w1_1 z1_1": {"w1_1": "1/z1_1"}, "z1_1 z1_1": {}},
        first=False,
        options={"d": 1},
        stratum={"w1_1": 0},
    )
    for name in ("gelu", "silu")
}
#: The default run keeps two activations of two inputs, one of them with two hidden units.
LONGER = {name for name in TABLE if ", h = 2" in name or (", d = 2" in name and not name.startswith("relu"))}
LONGER |= {"gaussian-gated, a = 0", *(f"{name}, W2 = 0" for name in ("sigmoid", "silu", "softplus"))}
LONGER -= {"tanh, h = 2"}
DEPENDENT = [name for name, case in TABLE.items() if case.rank < case.columns]
LONGER_ORACLES = LONGER | {"tanh, h = 2", "tanh, order 4", "sigmoid, order 4", "softmax 3, 3", "softmax 3, 1"}


def marked(names, longer=LONGER):
    return [pytest.param(name, marks=pytest.mark.slow if name in longer else ()) for name in names]


@cache
def report_of(name):
    return TABLE[name].report() if name in TABLE else dependences(JOINT[name]())


def sees_first_order(report):
    """Whether no direction is lost to first order, the mass included."""
    return report.agree and not any(identity.column.order <= 1 for identity in report.identities)


def alpha_of(made, label):
    names = label.split()
    return tuple(names.count(str(p)) for p in made.params)


def closed_forms(made, table):
    """The table's texts as {alpha: {alpha: expression}}."""
    known = {str(p): p for p in made.params}
    return {
        alpha_of(made, left): {alpha_of(made, q): sp.sympify(value, known) for q, value in right.items()}
        for left, right in table.items()
    }


class TestTable:
    @pytest.mark.parametrize("name", marked(TABLE))
    def test_ranks_and_verdicts(self, name):
        case, report = TABLE[name], report_of(name)
        assert (report.formal_rank, report.numeric_rank, len(report.columns)) == (case.rank, case.rank, case.columns)
        assert len(report.identities) == len(report.null) == case.columns - case.rank
        assert sees_first_order(report) == case.first
        assert (not report.identities) == (case.rank == case.columns)
        assert report.order == case.order

    @pytest.mark.parametrize("name", marked(TABLE))
    def test_identities(self, name):
        """The primitive identities are exactly those of the table, with their closed forms."""
        case, report = TABLE[name], report_of(name)
        expected = closed_forms(report.mixture.atom, case.primitive)
        if case.stratum:
            expected = {
                left: {q: value.subs(case.stratum) for q, value in right.items()} for left, right in expected.items()
            }
        assert {identity.column.alpha for identity in report.primitive} == set(expected)
        for identity in report.primitive:
            found = {column.alpha: value for column, value in identity.coefficients.items() if value != 0}
            wanted = expected[identity.column.alpha]
            assert identity.closed
            assert set(found) == set(wanted)
            assert all(sp.cancel(found[q] - wanted[q]) == 0 for q in wanted)

    def test_decoupled_prompt_alone_without_its_value(self):
        """v . u_v = u is the only dependence to first order: without u there is none."""
        first = [i for i in report_of("decoupled").identities if i.column.order <= 1]
        assert len(first) == 1
        assert sum(column.order == 0 and value != 0 for column, value in first[0].coefficients.items()) == 1

    @pytest.mark.parametrize("kind", marked(KINDS, set(KINDS) - {"covariate-free", "decoupled", "adaptive:relu"}))
    def test_the_bias_adds_no_rank(self, kind):
        """u_logw = u, and u_(logw p) = u_p for every other parameter."""
        options = {"d": 1} if kind in PROMPTS else {}
        plain, biased = dependences(atom(kind, **options)), dependences(atom(kind, bias=True, **options))
        assert biased.numeric_rank == plain.numeric_rank
        made = biased.mixture.atom
        assert str(made.params[0]) == "logw"
        weight = alpha_of(made, "logw")
        found = {i.column.alpha: i for i in biased.identities}
        assert {column.alpha: v for column, v in found[weight].coefficients.items()} == {alpha_of(made, ""): 1}
        for alpha in multi_indices(len(made.params), 1):
            assert is_dependence(biased, {(0, (alpha[0] + 1, *alpha[1:])): 1, (0, alpha): -1})


class TestHiddenUnits:
    @pytest.mark.slow
    @pytest.mark.parametrize(("name", "rank", "orbits"), [("identity", 13, 4), ("relu", 26, 2)])
    def test_orbits_of_two_units(self, name, rank, orbits):
        """(W1, W2) -> (g W1, W2 g^-1): all first-order dependences are E W1 . u_W1 = W2 E . u_W2, E in the Lie algebra
        of the matrices g that commute with the activation: all of them, or the diagonal ones."""
        report = dependences(atom(f"adaptive:{name}", d=2, hidden=2))
        assert (report.formal_rank, report.numeric_rank, len(report.columns)) == (rank, rank, 45)
        made, theta = report.mixture.atom, report.mixture.cells[0].theta
        p = {str(q): q for q in made.params}
        W1 = sp.Matrix(2, 2, lambda j, i: theta[p[f"w{j + 1}_{i + 1}"]])
        W2 = sp.Matrix(2, 2, lambda i, j: theta[p[f"z{i + 1}_{j + 1}"]])
        directions = []
        for j, k in [(0, 0), (1, 1), (0, 1), (1, 0)][:orbits]:
            E = sp.zeros(2, 2)
            E[j, k] = 1
            directions.append([0, *(E * W1), *(-W2 * E).T])
        found = [
            [vector.get(column, 0) for column in report.columns[:9]]
            for identity, vector in zip(report.identities, report.null, strict=True)
            if identity.column.order <= 1
        ]
        assert list(p) == ["w1_1", "w1_2", "w2_1", "w2_2", "z1_1", "z2_1", "z1_2", "z2_2"]
        assert len(found) == orbits == sp.Matrix(directions).rank()
        assert sp.Matrix(found + directions).rank() == orbits
        assert not sees_first_order(report)


def softmax(*orders):
    return lambda: mixture(atom("softmax-gaussian"), list(orders))


def prompts(kind, *orders, frozen=0, d=1):
    return lambda: mixture(atom(kind, d=d), list(orders), frozen)


JOINT = {
    "softmax 2, 2": softmax(2, 2),
    "softmax 2, 1": softmax(2, 1),
    "softmax 3, 3": softmax(3, 3),
    "softmax 3, 1": softmax(3, 1),
    **{
        f"{kind} {order}, {order}, frozen {frozen}": prompts(kind, order, order, frozen=frozen)
        for kind in ("decoupled", "fixed")
        for order in (1, 2)
        for frozen in (0, 1)
    },
    "linear experts 2, 1": lambda: mixture(atom("softmax-linear"), [2, 1]),
    "linear experts 2, 1, frozen 1": lambda: mixture(atom("softmax-linear"), [2, 1], 1),
    "tanh 2, 1": prompts("adaptive:tanh", 2, 1),
    "tanh 2, 1, frozen 1": prompts("adaptive:tanh", 2, 1, frozen=1),
    "relu 2, 2": prompts("adaptive:relu", 2, 2, d=2),
    "relu 2, 1, frozen 1": prompts("adaptive:relu", 2, 1, frozen=1),
}
DEPENDENT_CELLS = [name for name in JOINT if "frozen 1" not in name] + ["decoupled 2, 2, frozen 1"]


def gauge(report, power):
    """sum_j w_j d^power u_j / d gate_shift^power, as a combination of columns."""
    joint = report.mixture
    (shift,) = (joint.atom.params.index(p) for p in joint.atom.gate_shift) if joint.atom.gate_shift else (0,)
    alpha = tuple(power * (i == shift) for i in range(len(joint.atom.params)))
    return {(j, alpha): cell.weight for j, cell in enumerate(joint.cells)}


def is_dependence(report, vector):
    """Whether the combination lies in the span of the dependences found."""
    place = {(column.cell, column.alpha): i for i, column in enumerate(report.columns)}
    rows = sp.zeros(len(report.null) + 1, len(place))
    for row, found in enumerate(report.null):
        for column, value in found.items():
            rows[row, place[column.cell, column.alpha]] = value
    for key, value in vector.items():
        rows[len(report.null), place[key]] = value
    return rows.rank() == len(report.null)


class TestJointMixtures:
    @pytest.mark.parametrize(
        ("name", "rank", "alone"),
        [
            ("softmax 2, 2", 21, 24),
            ("softmax 2, 1", 15, 17),
            pytest.param("softmax 3, 3", 40, 44, marks=pytest.mark.slow),
            pytest.param("softmax 3, 1", 25, 27, marks=pytest.mark.slow),
        ],
    )
    def test_softmax(self, name, rank, alone):
        """The normaliser ties cells: sum_j w_j x^l e^(beta_j x) (N_j - f) = 0 for every l that all of them see."""
        report = report_of(name)
        orders = [cell.order for cell in report.mixture.cells]
        singles = [dependences(atom("softmax-gaussian"), order).numeric_rank for order in orders]
        assert sum(singles) == alone
        assert report.formal_rank == report.numeric_rank == rank
        ties = [power for power in range(min(orders) + 1) if is_dependence(report, gauge(report, power))]
        assert len(ties) == min(orders) + 1 == alone - rank
        assert not sees_first_order(report)

    @pytest.mark.parametrize(
        ("kind", "order", "frozen", "rank", "nonzero"),
        [
            ("decoupled", 1, 0, 4, 6),
            ("decoupled", 2, 0, 7, 10),
            ("decoupled", 1, 1, 6, 6),
            ("decoupled", 2, 1, 10, 10),
            ("fixed", 1, 0, 3, 4),
            ("fixed", 2, 0, 5, 6),
            ("fixed", 1, 1, 4, 4),
            ("fixed", 2, 1, 6, 6),
        ],
    )
    def test_prompts(self, kind, order, frozen, rank, nonzero):
        """Beside a frozen expert nothing is lost; without one, only the gauge of the gates."""
        report = report_of(f"{kind} {order}, {order}, frozen {frozen}")
        vanishing = [i for i in report.identities if not any(i.coefficients.values())]
        assert len(report.columns) - len(vanishing) == nonzero
        assert report.formal_rank == report.numeric_rank == rank
        assert sees_first_order(report) == bool(frozen)
        powers = range(order + 1) if kind == "decoupled" else (0,)
        assert all(is_dependence(report, gauge(report, power)) == (not frozen) for power in powers)
        assert nonzero - rank == (0 if frozen else len(powers))

    @pytest.mark.parametrize(
        ("name", "rank", "columns"),
        [("tanh 2, 1", 5, 6), ("tanh 2, 1, frozen 1", 6, 6), ("relu 2, 2", 12, 13), ("relu 2, 1, frozen 1", 5, 5)],
    )
    def test_adaptive_prompts_share_their_values(self, name, rank, columns):
        """Own columns by W1, one common column by each free entry of W2; without a frozen expert the weights' scale."""
        report = report_of(name)
        assert (report.formal_rank, report.numeric_rank, len(report.columns)) == (rank, rank, columns)
        assert is_dependence(report, gauge(report, 0)) == (not report.mixture.frozen)

    @pytest.mark.parametrize("name", ["softmax 2, 1", "decoupled 1, 1, frozen 1", "tanh 2, 1, frozen 1"])
    def test_json(self, name):
        joint = JOINT[name]()
        assert Mixture.from_json(json.loads(json.dumps(joint.to_json()))) == joint

    def test_cells_of_a_joint_density_do_not_interact(self):
        report = dependences(mixture(atom("gaussian-gated"), [1, 1]))
        assert report.numeric_rank == report.formal_rank == len(report.columns) == 12
        assert sees_first_order(report)


class TestStrata:
    @pytest.mark.parametrize(("name", "rank"), [("tanh", 2), ("sigmoid", 5), ("softplus", 5)])
    def test_dependent_kernels_are_announced(self, name, rank):
        """W1 = 0: sigma(w x) is a constant, which formal unknowns do not know."""
        with pytest.warns(RankWarning, match=f"formal rank 6 but numeric rank {rank}"):
            report = dependences(atom(f"adaptive:{name}", d=1), stratum={"w1_1": 0})
        assert (report.formal_rank, report.numeric_rank) == (6, rank)
        assert not report.agree
        assert not sees_first_order(report)
        assert f"FORMAL RANK 6 DIFFERS FROM NUMERIC RANK {rank}" in str(report)
        assert self.exact_rank(name) == rank

    @pytest.mark.parametrize("name", ["gelu", "silu"])
    def test_formal_rank_that_is_right(self, name):
        report = report_of(f"{name}, W1 = 0")
        assert report.agree
        assert report.numeric_rank == self.exact_rank(name) == 2

    def exact_rank(self, name):
        """At W1 = 0 all derivatives are e^(z sigma(0) x) times polynomials in x."""
        made = atom(f"adaptive:{name}", d=1)
        (w, z), (x,) = made.params, made.inputs
        value, gate = (made.function(part) for part in (made.values[0], made.gate))
        factor = gate.subs(w, 0)
        rows = []
        for alpha in multi_indices(2, 2):
            at_zero = sp.diff(value, w, alpha[0], z, alpha[1]).subs(w, 0)
            polynomial = sp.Poly(sp.expand(at_zero / factor), x)
            rows.append([polynomial.coeff_monomial(x**i).subs(z, sp.Rational(7, 5)) for i in range(7)])
        return sp.Matrix(rows).rank(simplify=True)

    @pytest.mark.parametrize("name", ["relu", "leaky_relu"])
    def test_no_derivative_on_the_kink(self, name):
        with pytest.raises(InputError, match="kink of the activation"):
            dependences(atom(f"adaptive:{name}", d=1), stratum={"w1_1": 0})

    @pytest.mark.parametrize("slope", [-1, sp.Rational(1, 3), 2])
    def test_points_avoid_the_kinks_of_a_stratum(self, slope):
        """w . x = 0 at few of the points where u is evaluated: the others decide."""
        report = dependences(atom("adaptive:relu", d=2), 1, {"w1_1": 1, "w1_2": slope})
        assert (report.formal_rank, report.numeric_rank) == (4, 4)

    def test_a_mixture_may_bring_its_stratum(self):
        """The same report whether the stratum is named here or in the mixture."""
        report = dependences(mixture(atom("gaussian-gated"), [2], stratum={"c": 0}, alone=True))
        assert report.formal_rank == report.numeric_rank == 15
        assert set(map(frozenset, map(dict.items, report.null))) == set(
            map(frozenset, map(dict.items, report_of("gaussian-gated, c = 0").null))
        )


class TestPrimitive:
    """Relations that are generated by few of low order stay so at higher orders."""

    def test_heat_equation(self):
        report = dependences(atom("location-scale"), 4)
        assert report.numeric_rank == 9  # d^i/db^i, i <= 8
        assert [report.text(i) for i in report.primitive] == ["u_bb = 2 u_s"]

    def test_linear_experts(self):
        report, second = (dependences(atom("softmax-linear"), order) for order in (3, 2))
        assert report.numeric_rank == 5  # e^(beta x) x^i, i <= 4
        assert [report.text(i) for i in report.primitive] == [second.text(i) for i in second.primitive]

    def test_an_identity_of_least_order_is_primitive(self):
        for name in ("decoupled", "relu, d = 2", "location-scale, bias"):
            report = report_of(name)
            assert not min(report.identities, key=lambda identity: identity.column.order).derived
            assert len(report.primitive) < len(report.identities)


@cache
def derivative_tables(definition, order):
    """values(inputs, theta) -> [component][alpha]: SymPy's derivatives of the explicit functions, the gate last."""
    made = atom(**json.loads(definition))
    parts, alphas = made.values + ((made.gate,) if made.gate else ()), multi_indices(len(made.params), order)
    flat = []
    for part in parts:
        found = {alphas[0]: made.function(part)}
        for alpha in alphas[1:]:
            i = next(i for i, count in enumerate(alpha) if count)
            lower = found[(*alpha[:i], alpha[i] - 1, *alpha[i + 1 :])]
            found[alpha] = sp.diff(lower, made.params[i]).replace(sp.DiracDelta, lambda *_: sp.Integer(0))
        flat += found.values()
    step = {"Heaviside": lambda t, *_: mpmath.mpf(t > 0)}
    function = sp.lambdify([*made.params, *made.inputs], flat, modules=[step, "mpmath"], cse=True)

    def values(theta, point):
        results = function(*(theta[p] for p in made.params), *point)
        size = len(alphas)
        return [dict(zip(alphas, results[i * size : (i + 1) * size], strict=True)) for i in range(len(parts))]

    return values


def number(value):
    value = sp.Rational(value)
    return mpmath.mpf(int(value.p)) / int(value.q)


def columns_at(report, point, theta=None):
    """[component][column] of the report's mixture as real functions, by definition and in mpmath's precision.

    point, theta: rationals; theta replaces the parameters of an atom taken alone.
    """
    joint = report.mixture
    made = joint.atom
    point = [number(value) for value in point]
    order = max([cell.order for cell in joint.cells] + [1])
    tables = [
        derivative_tables(made.key(), order)({p: number(v) for p, v in (theta or cell.theta).items()}, point)
        for cell in joint.cells
    ]
    if joint.alone or made.gate is None:
        parts = range(len(made.components)) if joint.alone else [0]
        return [[tables[column.cell][part][column.alpha] for column in joint.columns] for part in parts]
    weights, zero = [number(cell.weight) for cell in joint.cells], (0,) * len(made.params)

    def total(part):
        """Numerator or, for the last part, denominator of the true function."""
        frozen = 0
        for values, gate in joint.frozen:
            component = (*values, gate)[part]
            expression = sp.exp(component.log_factor) * component.value
            frozen += sp.lambdify(made.inputs, expression, modules="mpmath")(*point)
        return frozen + sum(w * table[part][zero] for w, table in zip(weights, tables, strict=True))

    gate = len(made.values)
    numerators, denominator = [total(part) for part in range(gate)], total(gate)

    def moved(cell, part, alpha):
        return tables[cell][part][alpha] * denominator - tables[cell][gate][alpha] * numerators[part]

    return [
        [
            moved(column.cell, part, column.alpha)
            if column.cell is not None
            else sum(weights[j] * moved(j, part, column.alpha) for j in range(len(weights)))
            for column in joint.columns
        ]
        for part in range(gate)
    ]


def random_points(report, count, seed=0):
    rng = np.random.default_rng(seed)
    size = len(report.mixture.atom.inputs)
    return [
        [sp.Rational(int(rng.integers(1, 200)) * int(rng.choice([-1, 1])), 101) for _ in range(size)]
        for _ in range(count)
    ]


def vanishes(row, report, vector):
    """Whether the combination of columns is zero beside its largest terms."""
    place = {column: i for i, column in enumerate(report.columns)}
    terms = [value * row[place[column]] for column, value in vector.items()]
    return abs(sum(terms)) <= mpmath.mpf(10) ** -33 * sum(map(abs, terms))


class TestOracle:
    """The real functions, differentiated by SymPy and evaluated by mpmath: nothing of the exact rings is used."""

    @pytest.mark.parametrize("name", marked([*DEPENDENT, *DEPENDENT_CELLS], LONGER_ORACLES))
    def test_every_dependence_holds(self, name):
        report = report_of(name)
        assert report.null
        with mpmath.workdps(40):
            for point in random_points(report, 4):
                for row in columns_at(report, point):
                    for vector in report.null:
                        rational = {column: number(value) for column, value in vector.items()}
                        assert vanishes(row, report, rational)

    @pytest.mark.parametrize("name", marked(DEPENDENT, LONGER_ORACLES))
    def test_closed_forms_hold_at_other_parameters(self, name):
        report, stratum = report_of(name), TABLE[name].stratum or {}
        assert any(identity.closed for identity in report.identities)
        made, rng = report.mixture.atom, np.random.default_rng(1)
        theta = {p: sp.Rational(int(rng.integers(30, 90)), 61) for p in made.params}
        theta |= {p: sp.Rational(value) for p in made.params for q, value in stratum.items() if str(p) == q}
        with mpmath.workdps(40):
            for point in random_points(report, 3, seed=1):
                for row in columns_at(report, point, theta):
                    for identity in report.identities:
                        if identity.closed:
                            terms = {c: number(v.subs(theta)) for c, v in identity.coefficients.items()}
                            assert vanishes(row, report, terms | {identity.column: mpmath.mpf(-1)})

    @pytest.mark.parametrize("name", marked([*TABLE, *JOINT], LONGER_ORACLES))
    def test_minor(self, name):
        """The determinant does not vanish: what rounding leaves of a zero would change with the precision."""
        report = report_of(name)
        rows, columns = report.minor["rows"], report.minor["columns"]
        place = {(column.cell, column.alpha): i for i, column in enumerate(report.columns)}
        chosen = [place[cell, tuple(alpha)] for cell, alpha in columns]
        assert len(rows) == len(set(chosen)) == report.numeric_rank
        first, second = (self.determinant(report, rows, chosen, digits) for digits in (100, 130))
        assert first != 0
        assert abs(first / second - 1) < 1e-15

    def determinant(self, report, rows, chosen, digits):
        with mpmath.workdps(digits):
            table = {tuple(point): None for point, _ in rows}
            for point in table:
                table[point] = columns_at(report, point)
            entries = [[table[tuple(point)][component][j] for j in chosen] for point, component in rows]
            largest = [max(map(abs, row)) for row in entries]
            return mpmath.det(mpmath.matrix([[v / m for v in row] for row, m in zip(entries, largest, strict=True)]))

    @pytest.mark.slow
    def test_small_pivots_are_not_zeros(self):
        """The 35 derivatives up to third order of two tanh units of one input span 34 dimensions. On few points their
        pivots fall smoothly to 1e-49, without a gap at 1e-30: a rank read there is none."""
        report = dependences(atom("adaptive:tanh", d=1, hidden=2), 3)
        assert (report.formal_rank, report.numeric_rank) == (34, 34)

    @pytest.mark.slow
    def test_steps_are_idempotent(self):
        """Two relu units on a line: some dependences of third order need H^2 = H. Where one unit is on the other is
        off, so that u and the orders 1 to 3 by either unit's scale are all there is."""
        with pytest.warns(RankWarning, match="numeric rank 7"):
            report = dependences(atom("adaptive:relu", d=1, hidden=2), 3)
        assert len(report.null) == 35 - report.formal_rank
        with mpmath.workdps(40):
            for point in random_points(report, 4):
                for row in columns_at(report, point):
                    assert all(
                        vanishes(row, report, {c: number(v) for c, v in vector.items()}) for vector in report.null
                    )

    @pytest.mark.parametrize("name", ["gaussian-gated", "tanh, d = 1", "relu, d = 2"])
    def test_smallest_pivot_is_a_short_number(self, name):
        text = report_of(name).minor["smallest_pivot"]
        assert 0 < mpmath.mpf(text) < 10
        assert len(text) < 15

    @pytest.mark.parametrize("name", ["gaussian-gated", "softmax 2, 1", "decoupled / gate"])
    def test_second_order_parts(self, name):
        """sum_ij M_ij u_ij / 2 is minus the rest of its dependence: a combination of first orders."""
        report = report_of(name)
        parts = second_order_parts(report)
        vectors = [v for v in report.null if any(column.order == 2 and value for column, value in v.items())]
        assert len(parts.matrices) == len(vectors) > 0
        size = len(report.mixture.atom.params)
        with mpmath.workdps(40):
            (row, *_) = columns_at(report, random_points(report, 1, seed=2)[0])
            values = dict(zip(((c.cell, c.alpha) for c in report.columns), row, strict=True))
            for matrix, vector in zip(parts.matrices, vectors, strict=True):
                assert matrix == matrix.T
                total = sum(number(v) * values[c.cell, c.alpha] for c, v in vector.items() if c.order < 2)
                for a, (cell, i) in enumerate(parts.places):
                    for b, (other, j) in enumerate(parts.places):
                        if matrix[a, b]:
                            assert cell == other
                            alpha = tuple(int(k == i) + int(k == j) for k in range(size))
                            total += number(matrix[a, b]) * values[cell, alpha] / 2
                assert abs(total) < mpmath.mpf(10) ** -30


class TestReport:
    def test_text(self):
        lines = str(report_of("gaussian-gated, c = 0")).splitlines()
        assert lines[0] == "gaussian-gated, order 2: rank 15 of 21 columns"
        assert len(lines) == 7
        assert "and 3 that follow from these by differentiation" in str(report_of("location-scale, bias"))

    def test_repeatable(self):
        first, second = (dependences(atom("decoupled", d=1), 2) for _ in range(2))
        assert first.minor == second.minor
        assert first.null == second.null


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: atom("gaussian"), "unknown model 'gaussian'; expected one of location-scale"),
        (lambda: atom("adaptive:sine"), "unknown model 'adaptive:sine'"),
        (lambda: atom("decoupled", hidden=1), "hidden = 1 for decoupled; only adaptive prompts"),
        (lambda: atom("softmax-gaussian", d=2), "d = 2 for softmax-gaussian; only prompts"),
        (lambda: atom("fixed", d=4), "d = 4, rank = 4, hidden = 1; expected d and hidden 1 to 3"),
        (lambda: atom("fixed", d=2, rank=3), "rank 1 to d"),
        (lambda: atom("prefix", d=2, rank=1), "rank = 1 for prefix; expected d = 2"),
        (lambda: atom("adaptive:tanh", hidden=4), "hidden = 4"),
        (lambda: atom("gaussian-gated", normaliser=True), "joint density and has no normaliser"),
        (lambda: atom("location-scale", normaliser=True), "joint density and has no normaliser"),
        (lambda: dependences(atom("fixed", d=1), 0), "order = 0; expected a whole number of at least 1"),
        (lambda: dependences(atom("fixed", d=1), 2, {"q": 0}), "stratum 'q': fixed d=1 has the parameters p1"),
        (lambda: dependences(atom("location-scale"), 2, {"s": 0}), "stratum s = 0; expected a positive number"),
        (lambda: dependences(atom("gaussian-gated"), 2, {"Gamma": -1}), "stratum Gamma = -1; expected a positive"),
        (lambda: mixture(atom("gaussian-gated"), [1], frozen=1), "1 frozen experts in gaussian-gated, a joint density"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_every_kind_can_be_made():
    assert [atom(kind).spec["kind"] for kind in KINDS] == list(PLAIN + NETWORKS + PROMPTS)

import ast
import copy
import json
from fractions import Fraction
from functools import cache
from pathlib import Path

import mpmath
import pytest
import sympy as sp
from algebra import table

from moe_prompts import InputError, theory
from moe_prompts.theory.arithmetic import Real
from moe_prompts.theory.atoms import atom
from moe_prompts.theory.certificates.basis import REGISTER, claims
from moe_prompts.theory.certificates.verify import verify, verify_table
from moe_prompts.theory.dependences import ExactColumns, dependences, interval_pivots
from moe_prompts.theory.exponents import Analysis
from moe_prompts.theory.mixture import Column, mixture, real_place
from moe_prompts.theory.rows import taylor_rows
from moe_prompts.theory.solvability import gauss_hermite_witness, rational_witness, unequal_witness


@cache
def analysis(kind, cells, frozen=0, stratum=(), **options):
    return Analysis(atom(kind, **options), list(cells), frozen, dict(stratum))


def bound(rates, group, cell, side):
    rate = next(rate for rate in rates.rates if rate.group == group and rate.cell == cell)
    return getattr(rate.exponent, side).certificate


def identity(of, place, stratum=None):
    report = dependences(of, 2, stratum)
    return report.identity_certificate(report.identities[place])


LOCATION, PLANE = ("location-scale", (1, 2)), ("covariate-free", (2,))
LOOSE = ("decoupled", (2, 2))

#: Name, which begins with the kind -> how the certificate is made.
MADE = {
    "minor": lambda: analysis(*LOCATION).report.minor,
    "minor, conditional": lambda: analysis("fixed", (1, 2), 1).report.minor,
    "rank": lambda: analysis(*LOCATION).rank_certificate,
    "first-order": lambda: analysis(*LOCATION).first_order_certificate,
    "first-order, gauges": lambda: analysis("softmax-linear", (1, 1)).first_order_certificate,
    "definite": lambda: analysis("fixed", (1, 2), 1).second_order_certificate,
    "definite, harmless identity": lambda: analysis("adaptive:square", (2,), 1, hidden=2).second_order_certificate,
    "hidden": lambda: analysis(*LOCATION).second_order_certificate,
    "identity": lambda: identity(atom("softmax-linear"), 1),
    "identity, stratum": lambda: identity(atom("softmax-linear"), 0, {"a": 0}),
    "identity, two cells": lambda: identity(mixture(atom("softmax-linear"), [1, 1]), 0),
    "row": lambda: bound(table(*PLANE), "b", 0, "upper")["rows"][1],
    "s1-block": lambda: bound(table(*PLANE), "b", 0, "upper"),
    "peeled": lambda: bound(table(*PLANE), "a", 0, "upper"),
    "peeled, nested": lambda: bound(table("softmax-gaussian", (1, 3)), "a", 1, "upper"),
    "peeled, keys": lambda: bound(table("decoupled", (2, 2)), "k", 1, "upper"),
    "homogeneous": lambda: bound(table("softmax-gaussian", (1, 2)), "a", 1, "upper"),
    "gauss-hermite": lambda: bound(table(*PLANE), "b", 0, "lower"),
    "gauss-hermite, all cells": lambda: bound(table("softmax-gaussian", (3,)), "a", 0, "lower"),
    "gauss-hermite, joint": lambda: analysis("gaussian-gated", (2,))._lowers(0, sp.Symbol("a"))[-1].certificate,
    "split": lambda: bound(table("fixed", (1, 2)), "p", 1, "lower"),
    "split, kink": lambda: bound(table("adaptive:relu", (1, 2)), "W1", 1, "lower"),
    "one atom": lambda: bound(table("fixed", (1, 2)), "p", 0, "lower"),
    "invisible, affine": lambda: bound(table("decoupled", (1, 2)), "v", 1, "lower"),
    "invisible, cosh": lambda: bound(table(*LOOSE, frozen=0), "k", 1, "lower"),
    "invisible, alone": lambda: analysis("softmax-linear", (1,)).exponent(0, sp.Symbol("beta")).lower.certificate,
    "invisible, orbit": lambda: table("adaptive:relu", (1, 2)).rates[-1].exponent.lower.certificate,
    "s1-witness": lambda: gauss_hermite_witness(3),
    "s1-witness, rational": lambda: rational_witness(3),
    "s1-witness, unequal": lambda: unequal_witness(),
}


@cache
def _certificate(name):
    return json.dumps(MADE[name]())


def certificate(name):
    """As it is read back from JSON."""
    return json.loads(_certificate(name))


#: Softmax gates to order 4.
SLOW = ("homogeneous", "peeled, nested")


def slow_if(condition):
    return [pytest.mark.slow] if condition else []


@pytest.mark.parametrize("name", [pytest.param(name, marks=slow_if(name in SLOW)) for name in MADE])
def test_certificates_hold(name):
    verdict = verify(certificate(name))
    assert verdict, verdict.reason
    assert verdict.reason == "every statement holds"
    assert name.startswith(certificate(name)["kind"])


@pytest.mark.slow
def test_every_kind_of_certificate_is_here():
    assert {certificate(name)["kind"] for name in MADE} == set(REGISTER)
    ways = {certificate(name)["how"] for name in MADE if name.startswith("invisible")}
    assert ways == {"affine", "cosh", "alone", "orbit"}


# Tampering ------------------------------------------------------------------------------------------------------------


def altered(given, path, to):
    """A copy with the entry at ``path`` replaced; ``to`` may be a function of the old entry."""
    changed = copy.deepcopy(given)
    place = changed
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to(place[path[-1]]) if callable(to) else to
    return changed


def without(place):
    return lambda entries: [entry for i, entry in enumerate(entries) if i != place % len(entries)]


def repeated(entries):
    return [*entries, entries[0]]


def negative(rows):
    return [[str(-sp.Rational(value)) for value in row] for row in rows]


MIXTURE = ("rank", "minor", "mixture")

#: (certificate, entry, its new value, what is found wrong with it)
TAMPERED = [
    ("minor", ("columns",), lambda columns: [columns[1], *columns[1:]], "columns repeat or do not exist"),
    ("minor", ("columns", 0), lambda _: [1, [0, 9]], "columns repeat or do not exist"),
    ("minor", ("columns", 0), lambda _: [7, [0, 0]], "columns repeat or do not exist"),
    ("minor", ("rows",), lambda rows: [rows[1], *rows[1:]], "contains zero"),
    ("minor", ("rows",), without(0), "not square"),
    ("minor", ("digits",), 1, "contains zero"),
    ("minor, conditional", ("mixture", "frozen"), 0, "contains zero"),
    ("rank", ("null",), [], "do not account for every column"),
    ("rank", ("null", 0, 0, 1), "-7", "not a dependence"),
    ("rank", ("null", 0), without(0), "not a dependence"),
    ("rank", ("null",), repeated, "themselves dependent"),
    ("rank", ("minor", "mixture", "cells", 1, "order"), 1, "columns repeat or do not exist"),
    ("rank", ("minor", "mixture", "cells", 0, "order"), 2, "do not account for every column"),
    ("first-order", ("rank", "null"), [], "do not account for every column"),
    ("first-order", (*MIXTURE, "cells", 1, "theta"), lambda _: {"b": "1/3", "s": "0"}, ""),
    ("first-order, gauges", ("rank", "null"), without(1), "do not account for every column"),
    ("first-order, gauges", ("rank", "null", 0, 0, 1), "5", "not a dependence"),
    ("first-order, gauges", (*MIXTURE, "cells", 0, "weight"), "7", ""),
    ("definite", ("matrix",), [["1", "0"], ["0", "-1"]], "not positive definite"),
    ("definite", ("matrix",), [["1", "1"], ["1", "1"]], "not positive definite"),
    ("definite", ("matrix",), [["1", "0"], ["1/2", "1"]], "not symmetric"),
    ("definite", ("matrix",), [["1"]], "not symmetric"),
    ("definite", ("places",), lambda places: places[::-1], "not the parameters seen to second order"),
    ("definite", ("places", 0), [0, 0], "not the parameters seen to second order"),
    ("definite", (*MIXTURE, "atom"), {"kind": "decoupled", "d": 2}, ""),
    ("definite, harmless identity", ("rank", "null"), [], "do not account for every column"),
    ("definite, harmless identity", ("kind",), "hidden", "not the second-order part"),
    ("hidden", ("matrix",), negative, "not positive semidefinite"),
    ("hidden", ("matrix",), [["0", "0"], ["0", "0"]], "M is zero"),
    ("hidden", ("matrix",), [["1", "0"], ["0", "1"]], "not the second-order part"),
    ("hidden", ("matrix",), [["1", "1"], ["0", "0"]], "not symmetric"),
    ("hidden", ("kind",), "definite", "not orthogonal"),
    ("identity", ("terms", 1, 1), "7*b", "sum of derivatives is not zero"),
    ("identity", ("terms", 1, 1), "x1", "no rational function of the parameters"),
    ("identity", ("terms", 1, 1), "exp(b)", "no rational function of the parameters"),
    ("identity", ("terms",), without(0), "sum of derivatives is not zero"),
    ("identity", ("terms",), [], "has no terms"),
    ("identity", ("terms",), lambda terms: [[where, "0"] for where, _ in terms], "has no terms"),
    ("identity", ("terms",), repeated, "listed twice"),
    ("identity", ("terms", 0, 0, 1), [2, 1, 0], "not of this mixture"),
    ("identity", ("terms", 0, 0, 1), [2, 0, 0], "sum of derivatives is not zero"),
    ("identity", ("mixture", "alone"), False, "closed forms are for an atom by itself"),
    ("identity, stratum", ("terms", 1, 1), "beta", "not zero at the given parameters"),
    ("identity, two cells", ("terms", 0, 1), "-2", "not zero at the given parameters"),
    ("identity, two cells", ("mixture", "frozen"), 1, "not zero at the given parameters"),
    ("row", ("polynomial", 0, 1), "1", "not what its functional gives"),
    ("row", ("polynomial",), without(0), "not what its functional gives"),
    ("row", ("functional", 0, 2), "17", "not what its functional gives"),
    ("row", ("row",), [1, 0, 0], "misses its own row"),
    ("row", ("mixture", "cells", 0, "theta", "s"), "5", "not what its functional gives"),
    ("row", ("mixture", "alone"), False, "rows are for an atom by itself"),
    ("s1-block", ("kappa",), "1/3", "is not [t^"),
    ("s1-block", ("kappa",), "0", "kappa is 0"),
    ("s1-block", ("sizes",), [1], "sizes and orders differ"),
    ("s1-block", ("cell",), None, "a cell of several atoms"),
    ("s1-block", ("mixture", "atom"), {"kind": "location-scale"}, ""),
    ("s1-block", ("mixture", "cells", 0, "theta", "a"), "0", "another configuration"),
    ("s1-block", ("first order",), lambda _: analysis(*LOCATION).first_order_certificate, "another configuration"),
    ("s1-block", ("theorem",), "rbar(2) = 6", "the theorem is another one"),
    ("s1-block", ("rows",), without(3), "rows 1 to 4"),
    ("s1-block", ("rows",), lambda rows: [rows[1], rows[0], *rows[2:]], "row 1 is another one"),
    ("s1-block", ("q",), "a", "row 1 is another one"),
    ("s1-block", ("s",), "a", "is not [t^2]"),
    ("s1-block", ("s",), "z", "z is no parameter"),
    ("s1-block", ("rows", 1, "polynomial", 0, 1), "3", "not what its functional gives"),
    ("peeled", ("power",), 4, "no such pure even power"),
    ("peeled", ("power",), 1, "no such pure even power"),
    ("peeled", ("param",), "b", "no such pure even power"),
    ("peeled", ("row", "polynomial", 0, 1), "3", "not what its functional gives"),
    ("peeled", ("row", "functional", 0, 2), "3", "not what its functional gives"),
    ("peeled, nested", ("given",), [], "is not absorbed"),
    ("peeled", ("sizes",), [2, 2], "differ in number"),
    ("peeled", ("cell",), 1, "no such cell"),
    ("peeled, keys", ("mixture", "frozen"), 0, "nothing pins the gates"),
    ("peeled, keys", ("row", "mixture", "atom", "normaliser"), False, ""),
    ("peeled, nested", ("given", 0, "theta"), "1", "theta of beta is 2, not 1"),
    ("peeled, nested", ("given", 0, "certificate", "cell"), 0, "of another place"),
    ("peeled, nested", ("given", 0, "certificate", "kind"), "split", "is no row bound"),
    ("peeled, nested", ("given", 0, "certificate", "power"), 4, "no such pure even power"),
    ("homogeneous", ("weights", "s"), 3, "not that of S2"),
    ("homogeneous", ("weights", "a"), 1, "two generators"),
    ("homogeneous", ("rows", 0, "mixture", "atom", "kind"), "covariate-free", ""),
    ("homogeneous", ("rows",), without(-1), "rows are missing"),
    ("homogeneous", ("sizes",), [2, 2], "sizes and orders differ"),
    ("homogeneous", ("cell",), 0, "a cell of several atoms"),
    ("gauss-hermite", ("weight",), 2, "another order in eps"),
    ("gauss-hermite", ("weight",), 0, "another order in eps"),
    ("gauss-hermite", ("param",), "a", "does not move along the curve"),
    ("gauss-hermite", ("m",), 3, "another number of atoms"),
    ("gauss-hermite", ("witness",), gauss_hermite_witness(3), "another number of atoms"),
    ("gauss-hermite", ("sizes",), [1], "sizes and orders differ"),
    ("gauss-hermite", ("all cells",), True, "no curve that moves all cells alike"),
    (
        "gauss-hermite",
        ("mixture",),
        lambda _: analysis("softmax-linear", (2,)).configuration["mixture"],
        "no curve for",
    ),
    ("gauss-hermite", ("witness", "q2"), ["-1/3"], "residuals"),
    ("gauss-hermite", ("witness",), rational_witness(2), "q2 = -1/2"),
    ("gauss-hermite, all cells", ("all cells",), False, "does not move along the curve"),
    ("gauss-hermite, all cells", ("sizes",), [2], "a cell has fewer atoms"),
    ("gauss-hermite, all cells", ("mixture", "frozen"), 1, "no curve that moves all cells alike"),
    ("gauss-hermite, all cells", ("weight",), 1, "another order in eps"),
    ("gauss-hermite, joint", ("weight",), 1, "another order in eps"),
    ("gauss-hermite, joint", ("param",), "beta", "does not move along the curve"),
    ("split", ("sizes",), [1, 1], "sizes and orders differ"),
    ("split", ("sizes",), [1, 2, 2], "differ in number"),
    ("split", ("cell",), -1, "no such cell"),
    ("split", ("cell",), 0, "two atoms in its cell"),
    ("split", ("param",), "k1", "is no parameter"),
    ("split, kink", ("along",), "itself", "has a kink"),
    ("split, kink", ("mixture", "atom", "kind"), "adaptive:tanh", "not homogeneous"),
    ("split, kink", ("param",), "z2_1", "a parameter of all atoms"),
    ("one atom", ("param",), "k1", "is no parameter"),
    ("one atom", ("cell",), 1, "has several atoms"),
    ("one atom", ("cell",), 2, "no such cell"),
    ("one atom", ("cell",), None, "does not belong there"),
    ("one atom", ("mixture", "atom", "kind"), "decoupled", "not a well-formed certificate"),
    ("invisible, affine", ("direction",), {}, "does not move the parameter"),
    ("invisible, affine", ("param",), "k1", "does not move the parameter"),
    ("invisible, affine", ("direction",), {"v1": "1", "k1": "1"}, "the gate moves"),
    ("invisible, affine", ("sizes",), [1, 1], "sizes and orders differ"),
    ("invisible, affine", ("cell",), 0, "two atoms in its cell"),
    ("invisible, affine", ("cell",), None, "an orbit moves all cells"),
    ("invisible, affine", ("how",), "cosh", "frozen experts pin the gates"),
    ("invisible, affine", ("how",), "magic", "no such way to be invisible"),
    ("invisible, cosh", ("mixture", "frozen"), 1, "frozen experts pin the gates"),
    ("invisible, cosh", ("sizes",), [2, 1], "sizes and orders differ"),
    ("invisible, cosh", ("sizes",), [2], "differ in number"),
    ("invisible, cosh", ("cell",), 99, "no such cell"),
    ("invisible, cosh", ("param",), "v1", "does not shift gates"),
    ("invisible, alone", ("param",), "a", "does not shift gates"),
    ("invisible, alone", ("mixture", "frozen"), 1, "there are other experts"),
    ("invisible, orbit", ("degree",), 2, "not homogeneous of that degree"),
    ("invisible, orbit", ("param",), "z1_1", "no weight of the first unit"),
    ("invisible, orbit", ("cell",), 0, "an orbit moves all cells"),
    ("invisible, orbit", ("mixture", "atom", "kind"), "adaptive:tanh", "not homogeneous of that degree"),
    ("s1-witness", ("weights", 0), "1", "the masses are not"),
    ("s1-witness", ("modulus", -1), "1", "the modulus is not He_3"),
    ("s1-witness", ("q1",), ["0"], "all q1 are 0"),
    ("s1-witness", ("q1",), ["2", "0"], "residuals"),
    ("s1-witness", ("residuals", -1), "0", "residuals are other ones"),
    ("s1-witness", ("m",), 1, "expected m >= 2"),
    ("s1-witness, rational", ("weights", 0), "-1", "masses are not positive"),
    ("s1-witness, rational", ("weights",), without(0), "expected m atoms"),
    ("s1-witness, rational", ("q1",), ["0", "0", "0"], "all q1 are 0"),
    ("s1-witness, unequal", ("q2", 1), "-1/4", "residuals are other ones"),
]


@pytest.mark.parametrize(
    ("name", "path", "to", "reason"),
    [pytest.param(*row, marks=slow_if(row[0] in SLOW)) for row in TAMPERED],
    ids=[f"{i} {row[0]}" for i, row in enumerate(TAMPERED)],
)
def test_tampering_is_found(name, path, to, reason):
    changed = altered(certificate(name), path, to)
    assert changed != certificate(name)
    verdict = verify(changed)
    assert not verdict
    assert verdict.reason
    assert reason in verdict.reason


def test_each_kind_is_tampered_with_twice():
    kinds = [name.split(",")[0] for name, *_ in TAMPERED]
    assert all(kinds.count(kind) >= 2 for kind in REGISTER)
    assert all(sum(tampered == name for tampered, *_ in TAMPERED) >= 2 for name in MADE if name.startswith("invisible"))


def test_y_must_be_orthogonal_to_the_invisible_part():
    """<Y, M> = 0 for the M of the harmless identity; a Y > 0 that misses it proves nothing."""
    given = certificate("definite, harmless identity")
    (vector,) = given["rank"]["null"]
    (_, alpha), _ = next(term for term in vector if sum(term[0][1]) == 2)
    i, j = (given["places"].index([0, k]) for k, count in enumerate(alpha) for _ in range(count))
    assert i != j
    for a, b in ((i, j), (j, i)):
        given["matrix"][a][b] = "1/8"
    assert "not orthogonal" in verify(given).reason


@pytest.mark.parametrize(
    ("kind", "cells", "frozen", "stratum"),
    [
        ("decoupled", (1, 1), 0, (("v1", 0), ("v2", 0))),  # f* = 0 whatever the keys
        ("covariate-free", (1, 1), 0, (("a", 0), ("b", 0), ("s", 1))),  # the same atom twice
    ],
)
@pytest.mark.filterwarnings("ignore::moe_prompts.theory.dependences.RankWarning")
def test_no_first_order_certificate_where_a_direction_is_lost(kind, cells, frozen, stratum):
    assert not verify(analysis(kind, cells, frozen, stratum).first_order_certificate)


def test_split_minor_cannot_hold_dependent_columns():
    """u_bb = 2 u_s: both in one minor give a pivot that contains zero, at any digits."""
    given = certificate("minor")
    columns = given["columns"]
    assert [1, [0, 1]] in columns or [1, [2, 0]] in columns
    for wanted in ([1, [0, 1]], [1, [2, 0]]):
        if wanted not in columns:
            columns[columns.index([0, [0, 0]])] = wanted
    assert "contains zero" in verify(given).reason
    assert "contains zero" in verify(given | {"digits": 200}).reason


# What certificates prove ----------------------------------------------------------------------------------------------

CONFIGURATIONS = [
    ("covariate-free", (2,), {}),
    ("decoupled", (1, 2), {}),
    ("adaptive:relu", (1, 2), {}),
    *(
        pytest.param(*given, marks=pytest.mark.slow)
        for given in [
            ("fixed", (1, 2), {}),
            ("softmax-gaussian", (1, 2, 3), {}),
            ("softmax-gaussian", (3,), {}),
            ("gaussian-gated", (1, 2), {}),
            ("adaptive:softplus", (1, 2), {"hidden": 2}),
            ("adaptive:identity", (1, 2), {"hidden": 2}),
        ]
    ),
]


@pytest.mark.parametrize(("kind", "cells", "options"), CONFIGURATIONS)
def test_bounds_are_what_their_certificates_prove(kind, cells, options):
    """For every parameter of every row: each certificate by itself proves the theta of its bound, in that cell."""
    found = 0
    for rate in table(kind, cells, **options).rates:
        for name, part in rate.parts.items():
            for side in (part.upper, part.lower):
                if side is not None:
                    assert claims(side.certificate)[rate.cell, name] == side.theta
                    found += 1
    assert found


@pytest.mark.parametrize(("kind", "cells", "options"), CONFIGURATIONS)
def test_tables_hold(kind, cells, options):
    verdict = verify_table(json.loads(table(kind, cells, **options).to_json()))
    assert verdict, verdict.reason


@pytest.mark.parametrize(
    ("kind", "cells", "stratum"),
    [
        ("location-scale", (1, 2), (("b", 0), ("s", 1))),
        ("adaptive:tanh", (1, 2), (("w1_1", 0), ("w1_2", 0))),
        ("decoupled", (1, 2), (("k1", 0), ("k2", 0))),
    ],
)
@pytest.mark.filterwarnings("ignore::moe_prompts.theory.dependences.RankWarning")
def test_tables_without_upper_bounds_hold(kind, cells, stratum):
    rates = table(kind, cells, stratum=stratum)
    assert all(rate.exponent.upper is None for rate in rates.rates)
    verdict = verify_table(json.loads(rates.to_json()))
    assert verdict, verdict.reason


def test_pieces_of_a_proof_claim_nothing():
    for name in ("s1-witness", "row", "minor", "rank", "hidden", "identity"):
        assert claims(certificate(name)) == {}


def read(kind, cells, **options):
    return json.loads(table(kind, cells, **options).to_json())


ROW = ("rates", 2)

#: Of the table of location-scale, cells 1,3: rows b, s of the first cell, b, s of the second.
TABLES = [
    ((*ROW, "theta"), "4", "6, proved"),
    ((*ROW, "theta"), "1", "6, proved"),
    ((*ROW, "status"), "one-sided", "6, proved"),
    ((*ROW, "cell"), 1, "the cell has another size"),
    ((*ROW, "cell"), None, "the cell has another size"),
    (ROW, lambda row: row | {"cell": 1, "m": 1}, "is no upper bound of b"),
    ((*ROW, "m"), 2, "the cell has another size"),
    ((*ROW, "slope"), "-1/8", "slope -1/12"),
    ((*ROW, "certificates", "b", "upper"), "first order 1", "is no upper bound of b"),
    ((*ROW, "group"), "s", "does not cover its group"),
    ((*ROW, "group"), "moon", "does not cover its group"),
    ((*ROW, "certificates"), {}, "does not cover its group"),
    ((*ROW, "certificates", "b", "upper"), None, "6, one-sided"),
    ((*ROW, "certificates", "b", "lower"), None, "slope None"),
    ((*ROW, "certificates", "b", "upper"), "Gauss-Hermite 1", "is no upper bound of b"),
    ((*ROW, "certificates", "b", "lower"), "S1 block 1", "is no lower bound of b"),
    ((*ROW, "certificates", "b", "lower"), "Gauss-Hermite 2", "is no lower bound of b"),
    ((*ROW, "certificates", "b", "lower"), "moon", "KeyError"),
    (("certificates", "S1 block 1", "kappa"), "1/3", "is not [t^2]"),
    (("certificates", "S1 block 1"), lambda _: analysis(*LOCATION).report.minor, "bounds nothing"),
    (("configuration", "mixture", "cells", 0, "weight"), "7", "is about another configuration"),
    (("configuration", "mixture", "cells"), [], "InputError"),
    (("configuration",), None, "not a well-formed certificate"),
]


@pytest.mark.parametrize(("path", "to", "reason"), TABLES, ids=map(str, range(len(TABLES))))
def test_tampering_with_a_table_is_found(path, to, reason):
    given = read("location-scale", (1, 3))
    assert verify_table(given)
    verdict = verify_table(altered(given, path, to))
    assert not verdict
    assert reason in verdict.reason


def test_kinks_are_not_reported_as_proved():
    given = read("adaptive:relu", (1, 2))
    assert [row["status"] for row in given["rates"]] == ["numeric", "numeric", "numeric", "proved"]
    assert "numeric" in verify_table(altered(given, (*ROW, "status"), "proved")).reason


@pytest.mark.parametrize("given", [{}, [], None, "table", {"configuration": {}, "rates": [], "certificates": {}}])
def test_what_is_no_table_is_refused(given):
    assert "not a well-formed certificate" in verify_table(given).reason


# False certificates ---------------------------------------------------------------------------------------------------


def functional_of(made, order, kappa):
    """Weights on monomials that map D^kappa u to 1 and every other derivative up to ``order`` to 0."""
    joint = mixture(made, [order], alone=True)
    columns = ExactColumns(joint).columns
    keys = sorted(set().union(*columns))
    matrix = sp.Matrix([[sp.Rational(str(column.get(key, 0))) for key in keys] for column in columns])
    wanted = sp.Matrix([int(column.alpha == kappa) for column in joint.columns])
    solution, free = matrix.gauss_jordan_solve(wanted)
    weights = solution.subs(dict.fromkeys(free, 0))
    inputs = len(made.inputs)
    return [
        [component, list(exponents[:inputs]), str(value)]
        for (component, exponents), value in zip(keys, weights, strict=True)
        if value
    ]


def place(kind, cells, cell, **options):
    found = analysis(kind, cells, **options)
    return {**found.configuration, "cell": cell, "first order": found.first_order_certificate}


def peeled_by_an_exact_cell(decorated):
    """b: 2 in a cell of two (it is 4), from the row b^2 + s and theta_s = 1, which holds in cells of one atom only."""
    where = place(*LOCATION, 1)
    (row,) = (part for part in bound(table(*LOCATION), "b", 1, "upper")["rows"] if part["row"] == [2, 0])
    exact = analysis("location-scale", (1, 1)).first_order_certificate | (where if decorated else {})
    given = {"param": "s", "theta": "1", "certificate": exact}
    return {"kind": "peeled", **where, "param": "b", "power": 2, "row": row, "given": [given]}


def peeled_from_a_truncated_row(said):
    """s: 2 in a cell of three (it is 3): the row of u_ss to order 2 is s^2 / 2, b^2 s and b^4 being of higher order."""
    made = atom("location-scale")
    row = {
        "kind": "row",
        "mixture": mixture(made, [said], alone=True).to_json(),
        "order": 2,
        "row": [0, 2],
        "functional": functional_of(made, 2, (0, 2)),
        "polynomial": [[[0, 2], "1/2"]],
    }
    where = place("location-scale", (1, 3), 1)
    return {"kind": "peeled", **where, "param": "s", "power": 2, "row": row, "given": []}


def homogeneous_to_first_order(said):
    """a and s: 1 in a cell of two (they are 2): the rows to order 1 contain neither, so any weights fit them."""
    made = atom("softmax-gaussian")
    rows = taylor_rows(made, 1)
    of = {"mixture": mixture(made, [said], alone=True).to_json()}
    given = [rows.functional(kappa) | of for kappa in rows.reductions]
    return certificate("homogeneous") | {"weights": {"beta": 1, "a": 4, "b": 1, "s": 4}, "rows": given}


def block_in_coinciding_cells(first=None):
    """b: 4 in a cell of two, but its true atom is that of the other cell as well: three fitted atoms share one."""
    same = {"stratum": (("b", Fraction(1, 3)), ("s", 1))}
    where = place(*LOCATION, 1, **same)
    decoy = {} if first is None else {"first order": first(analysis(*LOCATION, **same))}
    return bound(table(*LOCATION), "b", 1, "upper") | where | decoy


def another_first_order(found):
    return found.exponent(0, sp.Symbol("b")).lower.certificate


def rank_with_a_dependence_twice():
    """A rank that is one too low: the minor without its last column, and the known dependence again, +-u_b added."""
    given = certificate("rank")
    minor, (vector,) = given["minor"], given["null"]
    for entries in ("rows", "columns"):
        minor[entries].pop()
    joint, numbers = analysis(*LOCATION).mixture, Real(intervals=True, digits=minor["digits"])
    wanted = [joint.columns.index(Column(cell, tuple(alpha))) for cell, alpha in minor["columns"]]
    matrix = []
    for point, component in minor["rows"]:
        place = real_place(joint, tuple(map(sp.Rational, point)), numbers)
        values = joint.evaluated(numbers, place)[component]
        matrix.append([numbers.context.mpf(0) if values[j] is None else values[j] for j in wanted])
    minor["smallest_pivot"] = mpmath.nstr(interval_pivots(matrix), 5)
    assert verify(minor)
    return given | {"null": [vector, [*vector, [[0, [1, 0]], "1"], [[0, [1, 0]], "-1"]]]}


def curve_of_all_cells(kind):
    """a no faster than n^{-1/6} (it is n^{-1/4}), along the curve of softmax gates."""
    return certificate("gauss-hermite, all cells") | place(kind, (3,), 0)


def curve_of_all_cells_beside_a_frozen_expert():
    return certificate("gauss-hermite, all cells") | place("softmax-gaussian", (3,), 0, frozen=1)


def split_of_a_shared_parameter():
    """W2 no faster than n^{-1/4} (it is n^{-1/2}): all atoms share it, so that nothing can be split."""
    return bound(table("adaptive:tanh", (1, 2)), "W1", 1, "lower") | {"param": "z1_1"}


def gates_of_an_atom_by_itself():
    """k +- delta is seen in the gate of a decoupled atom, where the gate is a component of its own."""
    alone = mixture(atom("decoupled", normaliser=True), [2], alone=True)
    return certificate("invisible, cosh") | {"mixture": alone.to_json(), "sizes": [2], "cell": 0}


def input_as_a_coefficient():
    """u_beta = x u is no linear dependence: its coefficient is the input."""
    made = mixture(atom("softmax-gaussian"), [1], alone=True)
    terms = [[[0, [1, 0, 0, 0]], "-1"], [[0, [0, 0, 0, 0]], "x1"]]
    return {"kind": "identity", "mixture": made.to_json(), "terms": terms, "at": None}


def identity_at_other_parameters():
    """A dependence with coefficients for theta*, said to hold at another theta."""
    report = dependences(mixture(atom("gaussian-gated"), [2]), 2)
    (found,) = (i for i in report.identities if i.column.alpha == (1, 0, 0, 1, 0))
    given = report.identity_certificate(found)
    return given | {"at": dict.fromkeys(given["at"], "7/3")}


def gate_of_an_atom_without_one():
    """v.u_v = u is a dependence of the decoupled atom by itself; a row of the gate, no part of it, hides that."""
    minor = dependences(atom("decoupled", normaliser=True), 1).minor
    alone = mixture(atom("decoupled"), [1], alone=True)
    rank = {"kind": "rank", "minor": minor | {"mixture": alone.to_json()}, "null": []}
    return {"kind": "first-order", "rank": rank}


def unfounded_weights():
    """theta = 1 of a parameter that there is not."""
    given = certificate("homogeneous")
    return given | {"weights": given["weights"] | {"moon": 4}}


#: Name -> certificate of a false statement.
FALSE = {
    "exact cell": lambda: peeled_by_an_exact_cell(False),
    "exact cell, decorated": lambda: peeled_by_an_exact_cell(True),
    "truncated row": lambda: peeled_from_a_truncated_row(2),
    "truncated row, decorated": lambda: peeled_from_a_truncated_row(4),
    "first-order rows": lambda: homogeneous_to_first_order(1),
    "first-order rows, decorated": lambda: homogeneous_to_first_order(4),
    "coinciding cells": block_in_coinciding_cells,
    "coinciding cells, decorated": lambda: block_in_coinciding_cells(another_first_order),
    "rank": rank_with_a_dependence_twice,
    "all cells, covariate-free": lambda: curve_of_all_cells("covariate-free"),
    "all cells, frozen": curve_of_all_cells_beside_a_frozen_expert,
    "shared parameter": split_of_a_shared_parameter,
    "an atom by itself": gates_of_an_atom_by_itself,
    "input as a coefficient": input_as_a_coefficient,
    "other parameters": identity_at_other_parameters,
    "gate": gate_of_an_atom_without_one,
    "weights": unfounded_weights,
    "theorem, S1": lambda: certificate("s1-block") | {"theorem": "rbar(2) = 1"},
    "theorem, S2": lambda: certificate("homogeneous") | {"theorem": "r~(2) = 1"},
    "pivot": lambda: certificate("minor") | {"smallest_pivot": "1e100"},
    "way of a split": lambda: certificate("split, kink") | {"along": "anything"},
}
LONG = ("first-order rows", "first-order rows, decorated", "weights", "theorem, S2")


@pytest.mark.parametrize("name", [pytest.param(name, marks=slow_if(name in LONG)) for name in FALSE])
@pytest.mark.filterwarnings("ignore::moe_prompts.theory.dependences.RankWarning")
def test_false_certificates_are_refused(name):
    """Single entries are consistent with each other, and the statement is false."""
    assert not verify(json.loads(json.dumps(FALSE[name]())))


def other_sizes():
    """theta = 6 in a cell of two: the certificates speak of a cell of three."""
    return altered(read("location-scale", (1, 3)), ("configuration", "sizes"), [1, 2])


def proved_at_kinks():
    """Sizes 1,1 would make rates at kinks proved; the certificates speak of sizes 1,2."""
    given = altered(read("adaptive:relu", (1, 2)), ("configuration", "sizes"), [1, 1])
    for row in given["rates"]:
        row["status"] = "proved"
    return given


def bounds_of_another_configuration():
    """Keys n^{-1/4} without a frozen expert (they have no rate): certificates beside one, under a misleading "rank"."""
    free, pinned = read("decoupled", (2, 2), frozen=0), read("decoupled", (2, 2), frozen=1)
    decoy = {"rank": {"mixture": free["configuration"]["mixture"]}}
    for row, other in zip(free["rates"], pinned["rates"], strict=True):
        if row["group"] == "k":
            row |= {key: other[key] for key in ("theta", "status", "certificates")}
    return free | {"certificates": {name: given | decoy for name, given in pinned["certificates"].items()}}


def another_parameter():
    """theta_s = 3 as a row of b."""
    return altered(read("location-scale", (1, 3)), ("rates", 3, "group"), "b along their orbit")


def other_words():
    """theta = 6 with the slope and the rate of theta = 1."""
    return altered(read("location-scale", (1, 3)), ROW, lambda row: row | {"slope": "-1/2", "rate": "n^(-1/2)"})


FALSE_TABLES = {
    "sizes": other_sizes,
    "kinks": proved_at_kinks,
    "configuration": bounds_of_another_configuration,
    "orbit": another_parameter,
    "slope": other_words,
}


@pytest.mark.parametrize("name", FALSE_TABLES)
def test_false_tables_are_refused(name):
    assert not verify_table(json.loads(json.dumps(FALSE_TABLES[name]())))


# What is no certificate -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [{}, {"kind": "moon"}, {"kind": None}, [], "minor", None, 3])
def test_unknown_kinds_are_input_errors(given):
    with pytest.raises(InputError, match="expected a dict with kind one of definite, first-order"):
        verify(given)


MALFORMED = [
    ("minor", ("rows", 0, 0), ["1/2", "1/2"]),
    ("minor", ("mixture",), None),
    ("minor", ("mixture", "cells"), []),
    ("rank", ("null",), 5),
    ("first-order", ("rank",), None),
    ("definite", ("matrix",), [["1", "0"], ["0"]]),
    ("definite", ("matrix", 0, 0), "nan"),
    ("definite", (*MIXTURE, "atom", "d"), 9),
    ("hidden", ("matrix", 0, 0), "x"),
    ("identity", ("terms", 0, 1), "(("),
    ("s1-block", ("rows", 0, "polynomial"), {"b": 1}),
    ("s1-block", ("kappa",), "nan"),
    ("homogeneous", ("rows",), []),
    ("s1-witness", ("weights",), ["a"]),
    ("invisible, orbit", ("degree",), "1.5"),
    ("invisible, affine", ("cell",), 5),
    ("homogeneous", ("weights",), []),
    ("identity, stratum", ("at",), ["a"]),
    ("identity", ("terms", 0, 0, 1), [-1, 0, 0]),
    ("row", ("mixture", "cells", 0, "theta"), lambda theta: {"s": theta["s"]}),
    ("row", ("mixture", "cells", 0, "theta", "s"), "0"),
    ("minor", ("mixture", "cells", 0, "weight"), "-1"),
    ("minor", ("rows", 0, 1), 1),
    ("minor", ("rows", 0, 1), -1),
    ("definite, harmless identity", (*MIXTURE, "cells", 0, "theta", "z1_1"), "2"),
    ("split, kink", ("param",), "z1_1"),
    ("peeled, keys", ("given",), [{"param": "v1", "theta": "inf", "certificate": gauss_hermite_witness(2)}]),
]


@pytest.mark.parametrize(("name", "path", "to"), MALFORMED)
def test_malformed_certificates_are_refused(name, path, to):
    verdict = verify(altered(certificate(name), path, to))
    assert not verdict
    assert verdict.reason


@pytest.mark.parametrize("name", ["minor", "rank", "definite", "s1-block", "split", "invisible, orbit", "s1-witness"])
def test_missing_entries_are_refused(name):
    """Every entry that is looked at must be there."""
    given = certificate(name)
    for key in set(given) - {"kind", "theorem", "smallest_pivot"}:
        verdict = verify({k: value for k, value in given.items() if k != key})
        assert not verdict, key
        assert "not a well-formed certificate" in verdict.reason


@pytest.mark.parametrize("mark", ["\n", "\x1d", "\u2028"])
def test_a_reason_is_one_line_whatever_it_quotes(mark):
    """Found by the fuzz of 500 files: SymPy's message quotes an entry, which may end lines in many ways."""
    verdict = verify({"kind": "s1-witness", "m": 3, "modulus": ["1", "0", "-3", "0"], "weights": [f"a{mark}b"] * 3})
    assert not verdict
    assert len(verdict.reason.splitlines()) == 1


# Independence ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", ["basis", "bounds", "ranks", "verify"])
def test_checks_import_nothing_that_makes_certificates(module):
    """They import errors, how results print, numbers, definitions of atoms and mixtures, and each other."""
    allowed = {"errors", "shown", *(f"theory.{name}" for name in ("arithmetic", "atoms", "mixture"))}
    allowed |= {
        "theory.certificates",
        *(f"theory.certificates.{name}" for name in ("basis", "bounds", "limits", "ranks")),
    }
    tree = ast.parse((Path(theory.__file__).parent / "certificates" / f"{module}.py").read_text(encoding="utf-8"))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add(node.module)
            if node.module in ("moe_prompts.theory", "moe_prompts.theory.certificates"):
                imported |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
    own = {name.removeprefix("moe_prompts.") for name in imported if name.split(".")[0] == "moe_prompts"}
    assert "moe_prompts" not in imported
    assert "theory.mixture" in own
    assert own <= allowed


def test_derivatives_of_the_checks_are_those_of_the_functions():
    """Fraction by fraction, at a rational place: the one derivative that both roads share is sympy's."""
    from moe_prompts.theory.certificates.basis import component_derivative

    made = atom("covariate-free")
    x, y = made.inputs
    a, b, s = made.params
    point = {x: Fraction(1, 3), y: Fraction(-2, 5), a: Fraction(1, 2), b: Fraction(3, 7), s: Fraction(4, 3)}
    explicit = made.function(made.values[0])
    for alpha in ((1, 0, 0), (0, 2, 0), (1, 1, 1)):
        derivative = explicit
        for p, count in zip(made.params, alpha, strict=True):
            derivative = sp.diff(derivative, p, count) if count else derivative
        ratio = sp.simplify((derivative / explicit).subs({k: sp.Rational(v) for k, v in point.items()}))
        found = component_derivative(made.key(), 0, alpha).subs({k: sp.Rational(v) for k, v in point.items()})
        assert sp.simplify(found - ratio) == 0

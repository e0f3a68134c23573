"""Expand a fit in an over-fitted cell: the rows that it must make small, as polynomials in displacements.

    sum_l w_l u(.; theta* + Delta_l) - u = sum_kappa Phi_kappa(Delta) D^kappa u + ..,
    Phi_kappa = sum_l w_l sum_alpha c_{alpha,kappa} Delta_l^alpha / alpha!,
    D^alpha u = sum_kappa c_{alpha,kappa} D^kappa u,

with kappa over the derivatives by few *generators*, onto which all others reduce. A row is a linear
functional of the difference of functions, so |Phi_kappa| <= C ||f - f*||; its functional is the certificate.
Parameters are graded: one whose derivative is a second derivative by p and q weighs wt(p) + wt(q), all others
1.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from math import factorial, prod
from typing import Any

import sympy as sp
from sympy.polys.matrices import DomainMatrix

from moe_prompts.errors import InputError
from moe_prompts.theory.atoms import Atom, atom
from moe_prompts.theory.dependences import DependenceReport, ExactColumns, dependences
from moe_prompts.theory.jets import Alpha, multi_indices
from moe_prompts.theory.mixture import Mixture, mixture

Polynomial = dict[Alpha, Fraction]


def grading(report: DependenceReport) -> dict[sp.Symbol, int]:
    """Return the weights of the parameters, from identities u_pq = k u_t + .. of the report.

    Such a t, other than p and q, weighs as much as p and q together. A derivative by t alone that is also a
    second derivative counts as one. Whatever is not pinned so has weight 1.
    """
    params = report.mixture.atom.params
    weights = dict.fromkeys(params, 1)
    for identity in report.primitive:
        second = [i for i, count in enumerate(identity.column.alpha) for _ in range(count)]
        terms = [column for column, value in identity.coefficients.items() if value != 0]
        if len(second) != 2 or any(column.order != 1 for column in terms):
            continue
        others = [i for column in terms for i, count in enumerate(column.alpha) if count and i not in second]
        if len(others) == 1:
            weights[params[others[0]]] = sum(weights[params[i]] for i in second)
    return weights


@dataclass(frozen=True)
class Rows:
    """Hold the rows of a Taylor expansion, at the rational parameters of ``mixture``.

    mixture     the atom and its parameters
    order       of the expansion
    weights     of the parameters (``grading``)
    reductions  ``reductions[kappa][alpha]`` is c_{alpha,kappa}, |alpha| <= order
    rank        of the derivatives to that order
    """

    mixture: Mixture
    order: int
    weights: dict[sp.Symbol, int]
    reductions: dict[Alpha, dict[Alpha, Fraction]]
    rank: int

    @property
    def params(self) -> tuple[sp.Symbol, ...]:
        """Return the parameters of the atom."""
        return self.mixture.atom.params

    def row(self, kappa: Alpha) -> Polynomial:
        """Return Phi_kappa of one atom: coefficients of the monomials Delta^alpha."""
        return {
            alpha: value / prod(map(factorial, alpha)) for alpha, value in self.reductions[kappa].items() if sum(alpha)
        }

    def weight(self, alpha: Alpha) -> int:
        """Return the weight of a monomial."""
        return sum(count * self.weights[p] for p, count in zip(self.params, alpha, strict=True))

    def leading(self, kappa: Alpha) -> Polynomial:
        """Return the part of least weight of a row, which is |kappa| for a row that the grading fits."""
        row = self.row(kappa)
        least = min(map(self.weight, row))
        return {alpha: value for alpha, value in row.items() if self.weight(alpha) == least}

    @cached_property
    def _functionals(self) -> dict[Alpha, list[list[Any]]]:
        """Return every row's weights on monomials of (component; inputs), solved for all rows at once."""
        columns = ExactColumns(self.mixture).columns
        keys, rows = sorted(set().union(*columns)), list(self.reductions)
        equations = []
        for column, values in zip(self.mixture.columns, columns, strict=True):
            wanted = [self.reductions[kappa].get(column.alpha, Fraction(0)) for kappa in rows]
            equations.append(
                [sp.QQ(values.get(key, 0)) for key in keys] + [sp.QQ(v.numerator, v.denominator) for v in wanted]
            )
        matrix = DomainMatrix(equations, (len(equations), len(keys) + len(rows)), sp.QQ)
        solved, pivots = matrix.to_sparse().rref()
        if pivots and pivots[-1] >= len(keys):
            raise ArithmeticError("a row is no functional of the derivatives")
        inputs, table = len(self.mixture.atom.inputs), solved.to_dod()
        found: dict[Alpha, list[list[Any]]] = {kappa: [] for kappa in rows}
        for i, p in enumerate(pivots):
            component, exponents = keys[p]
            for place, kappa in enumerate(rows):
                value = table[i].get(len(keys) + place)
                if value:
                    found[kappa].append([component, list(exponents[:inputs]), str(sp.QQ.to_sympy(value))])
        return found

    def functional(self, kappa: Alpha) -> dict[str, Any]:
        """Return the certificate of a row: weights on monomials of (component; inputs).

        They map each D^alpha u, |alpha| <= order, to c_{alpha,kappa}.
        """
        return {
            "kind": "row",
            "mixture": self.mixture.to_json(),
            "order": self.order,
            "row": list(kappa),
            "functional": self._functionals[kappa],
            "polynomial": [[list(alpha), str(value)] for alpha, value in self.row(kappa).items()],
        }


@lru_cache
def _weights(spec: str) -> dict[sp.Symbol, int]:
    return grading(dependences(atom(**json.loads(spec))))


def taylor_rows(made: Atom, order: int, stratum: Mapping[str, Any] | None = None) -> Rows:
    """Return the rows of an atom without hidden units, at generic parameters.

    made     the atom
    order    of the expansion, at least 1
    stratum  parameters held at given values, by name

    Raises ``InputError`` for an atom with hidden units, and for an order below 1.
    """
    if order < 1:
        raise InputError(f"order {order}; expected at least 1")
    if made.units:
        raise InputError(f"rows of {made.name}: expected an atom without hidden units; use second-order tests")
    joint = mixture(made, [order], stratum=stratum, alone=True)
    weights = _weights(made.key())
    generators = {i for i, p in enumerate(made.params) if weights[p] == 1}
    basis = [
        alpha
        for alpha in multi_indices(len(made.params), order)
        if all(i in generators for i, count in enumerate(alpha) if count)
    ]
    columns = {column.alpha: values for column, values in zip(joint.columns, ExactColumns(joint).columns, strict=True)}
    ordered = [*basis, *(column.alpha for column in joint.columns if column.alpha not in set(basis))]
    keys = sorted(set().union(*columns.values()))
    rows = [[sp.QQ(columns[alpha].get(key, 0)) for alpha in ordered] for key in keys]
    solved, pivots = DomainMatrix(rows, (len(rows), len(ordered)), sp.QQ).to_sparse().rref()
    table = solved.to_dod()
    reductions = {}
    for i, p in enumerate(pivots):
        if ordered[p] in basis and sum(ordered[p]):
            reductions[ordered[p]] = {
                ordered[j]: Fraction(int(v.numerator), int(v.denominator)) for j, v in table.get(i, {}).items()
            }
    return Rows(joint, order, weights, reductions, len(pivots))

"""Share among all checks of certificates: addresses of derivatives, derivatives, and the register of checks.

Derivatives are taken by sympy from the explicit functions. Of the code that makes certificates only the
definitions of atoms and mixtures are used. ``verify`` enters the checks of ``ranks`` and ``bounds`` in
``REGISTER``, so that a certificate inside another one is checked by its own kind and this module knows
neither.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import lru_cache
from itertools import product
from typing import Any

import sympy as sp

from moe_prompts.theory.atoms import Atom, Component, atom
from moe_prompts.theory.mixture import Mixture

Alpha = tuple[int, ...]
Address = tuple[int | None, Alpha]
#: (cell, or None for all; parameter) -> theta, an upper or a lower bound by the kind of certificate.
Claims = dict[tuple[int | None, str], Fraction | float]
UPPER = ("first-order", "definite", "s1-block", "homogeneous", "peeled")
LOWER = ("one atom", "split", "gauss-hermite", "invisible")
#: The group of what a continuous symmetry moves.
ORBIT = "W1, W2 along their orbit"
#: Kind of certificate -> its check, which returns the bounds that it proves or raises ``Refuted``.
REGISTER: dict[str, Callable[[Mapping[str, Any]], Claims]] = {}


class Refuted(Exception):
    """Say what is wrong with a certificate."""


def configuration_of(certificate: Mapping[str, Any]) -> Any:
    """Return the mixture that a bound is about."""
    if certificate["kind"] in ("first-order", "definite"):
        return certificate["rank"]["minor"]["mixture"]
    return certificate["mixture"]


def check_sizes(mixture: Mixture, sizes: Any) -> None:
    """Raise ``Refuted`` unless a mixture sees each cell as far as its number of fitted atoms asks for.

    A cell of one atom is seen to first order, others to second.
    """
    require(not mixture.alone, "an atom by itself is no configuration")
    require(len(sizes) == len(mixture.cells), "sizes and cells differ in number")
    require(all(isinstance(m, int) and m >= 1 for m in sizes), "sizes are no whole numbers of at least 1")
    require([cell.order for cell in mixture.cells] == [1 if m == 1 else 2 for m in sizes], "sizes and orders differ")


def claims(certificate: Mapping[str, Any]) -> Claims:
    """Return the bounds on theta that the certificate proves; raises ``Refuted`` where it proves none."""
    return REGISTER[certificate["kind"]](certificate)


def require(condition: bool, message: str) -> None:
    """Raise ``Refuted`` with the message unless the condition holds."""
    if not condition:
        raise Refuted(message)


def named(made: Atom) -> dict[str, sp.Symbol]:
    """Return the parameters of an atom by name."""
    return {str(p): p for p in made.params}


@lru_cache(maxsize=4096)
def component_derivative(spec: str, place: int, alpha: Alpha) -> sp.Expr:
    """Return (D^alpha u) / exp(log_factor) of one component, from the explicit function.

    At kinks it holds almost everywhere.
    """
    made = atom(**json.loads(spec))
    part = parts_of(made)[place]
    functions = {symbol: value for unit in made.units for symbol, value in unit.functions.items()}
    log_factor, value = part.log_factor.xreplace(functions), part.value.xreplace(functions)
    if not any(alpha):
        return value
    last = max(i for i, count in enumerate(alpha) if count)
    lower = tuple(count - (i == last) for i, count in enumerate(alpha))
    before, p = component_derivative(spec, place, lower), made.params[last]
    found = sp.diff(before, p) + before * sp.diff(log_factor, p)
    return found.replace(lambda e: isinstance(e, sp.DiracDelta), lambda e: sp.Integer(0))


def parts_of(made: Atom) -> tuple[Component, ...]:
    """Return all components of an atom, the gate last if there is one."""
    return made.values + ((made.gate,) if made.gate else ())


def derivative(mixture: Mixture, place: int, address: Address) -> sp.Expr:
    """Return the derivative of one component at the parameters of its cell."""
    cell, alpha = address
    theta = mixture.cells[cell or 0].theta
    return component_derivative(mixture.atom.key(), place, alpha).xreplace(theta)


def address(given: Any) -> Address:
    """Return the address (cell, alpha) that a certificate gives as a list."""
    cell, alpha = given
    return (None if cell is None else int(cell)), tuple(int(a) for a in alpha)


def all_addresses(mixture: Mixture) -> set[Address]:
    """Return every column of a mixture: derivatives in each cell to its order, and shared parameters once."""
    made = mixture.atom
    held = set() if mixture.alone else {*made.pinned, *made.shared}
    found: set[Address] = set()
    for j, cell in enumerate(mixture.cells):
        ranges = [range(1 if p in held else cell.order + 1) for p in made.params]
        found |= {(j, alpha) for alpha in product(*ranges) if sum(alpha) <= cell.order}
    if not mixture.alone:
        for i, p in enumerate(made.params):
            if p in made.shared and p not in made.pinned:
                found.add((None, tuple(int(i == k) for k in range(len(made.params)))))
    return found


def vanishes(expression: sp.Expr) -> bool:
    """Say whether an expression in inputs and functions is identically zero, functions taken as unknowns."""
    unknowns = {f: sp.Dummy() for f in expression.atoms(sp.Function)}
    steps = {unknowns[f] for f in unknowns if isinstance(f, sp.Heaviside)}
    flat = sp.expand(sp.numer(sp.together(expression.xreplace(unknowns))))
    return sp.expand(flat.replace(lambda e: e.is_Pow and e.base in steps, lambda e: e.base)) == 0


def theta_of(given: Mapping[str, Any], place: Mapping[str, Any]) -> Fraction:
    """Return the upper bound that a nested certificate proves for its parameter, at the same place."""
    nested, param = given["certificate"], given["param"]
    require(
        nested["kind"] in ("s1-block", "homogeneous", "peeled"), f"a bound of kind {nested['kind']} is no row bound"
    )
    require(
        all(nested.get(name) == place[name] for name in ("mixture", "sizes", "cell")),
        "a bound used is of another place",
    )
    found = claims(nested).get((place["cell"], param))
    if found is None or str(found) != given["theta"]:
        raise Refuted(f"theta of {param} is {found}, not {given['theta']}")
    return Fraction(found)

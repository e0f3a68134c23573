"""Write what one expert contributes to a mixture so that a computer can differentiate it.

It is u(x; theta) = exp(log_factor) value, and every derivative by theta is exp(log_factor) times a polynomial
in inputs and kernel symbols.

    Gaussian-gated     N(x; c, Gamma) N(y; a x + b, nu)           fixed prompt       e^{x'p} p
    softmax-gaussian   e^{beta x} N(y; a x + b, s)                decoupled prompt   e^{x'k} v
    softmax-linear     e^{beta x} (a x + b)                       prefix             e^{x'p} g(p)
    softmax-network    e^{beta x} sigma(a x + b)                  adaptive prompt    e^{x'phi(x)} phi(x),
    location-scale     N(y; b, s)                                                    phi = W2 sigma(W1 x)
    covariate-free     N(y; a x + b, s)                            (gaussian-gated-constant: a = 0)

A reparameterised prefix has key s1(q) and value s2(q). Where s1' is nowhere 0 the key is a parameter as good
as q: p = s1(q), g = s2(s1^-1(p)). To second order g is three numbers for each entry, and g(p) = p + p^2
stands for all: what is independent for one g is independent for all but a set of measure zero of those
numbers.

Conditional models divide the sum of these by the sum of their gates e^{..}; the gate is a component of its
own (``normaliser``). With B and C invertible a change of variables makes both the identity; a key projection
that loses directions is ``rank`` < d: then the logit is x_1 p_1 + ... + x_rank p_rank.

Sources: arXiv 2305.07572 (Gaussian-gated), 2305.03288 (softmax-gated), 2402.02952 (its regression),
2410.02200 (fixed, prefix, decoupled), 2501.18936 (adaptive).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import sympy as sp

from moe_prompts.checks import named, whole
from moe_prompts.errors import InputError
from moe_prompts.models.activations import ACTIVATIONS
from moe_prompts.theory.kernels import KERNELS, Kernel, T, kernel, known

X = sp.symbols("x1:4")
Y = sp.Symbol("y")
Symbols = tuple[sp.Symbol, ...]


@dataclass(frozen=True)
class Component:
    """Hold one component exp(log_factor) * value."""

    log_factor: sp.Expr
    value: sp.Expr


@dataclass(frozen=True)
class Unit:
    """Hold a hidden unit: ``kernel`` at ``argument``.

    ``symbol`` stands for the argument, and ``symbols`` for those of the kernel.
    """

    kernel: Kernel
    argument: sp.Expr
    symbol: sp.Symbol
    symbols: Symbols

    def localised(self, expression: sp.Expr) -> sp.Expr:
        """Return a polynomial in the kernel's t and symbols as one in this unit's symbols."""
        return expression.xreplace({T: self.symbol, **dict(zip(self.kernel.symbols, self.symbols, strict=True))})

    @property
    def functions(self) -> dict[sp.Symbol, sp.Expr]:
        """Return this unit's symbols as functions of inputs and parameters."""
        values = [function.subs(T, self.argument) for function in self.kernel.functions]
        return {self.symbol: self.argument, **dict(zip(self.symbols, values, strict=True))}


@dataclass(frozen=True)
class Atom:
    """Hold what one expert contributes, with what is known of its parameters.

    spec        how ``atom`` makes it, JSON-able
    groups      parameters that are estimated together
    inputs      symbols of the inputs (and of the output of a density)
    values      the components of the numerator
    gate        the component of the denominator, None for a joint density
    normaliser  whether the atom taken alone includes its gate
    units       hidden units
    positive    parameters that are variances
    gate_shift  parameters whose common translation leaves a conditional model as it is
    shared      parameters common to all atoms
    pinned      parameters that a continuous symmetry lets one choose, and the choice; they are known where
                rates are asked for
    """

    spec: dict[str, Any]
    groups: dict[str, Symbols]
    inputs: Symbols
    values: tuple[Component, ...]
    gate: Component | None = None
    normaliser: bool = False
    units: tuple[Unit, ...] = ()
    positive: Symbols = ()
    gate_shift: Symbols = ()
    shared: Symbols = ()
    pinned: dict[sp.Symbol, int] = field(default_factory=dict)

    @property
    def params(self) -> Symbols:
        """Return all parameters, group by group."""
        return tuple(p for group in self.groups.values() for p in group)

    @property
    def components(self) -> tuple[Component, ...]:
        """Return the components of the atom taken alone."""
        return self.values + ((self.gate,) if self.normaliser and self.gate else ())

    @property
    def name(self) -> str:
        """Return the name of the model with its options."""
        options = [f"{key}={value}" for key, value in self.spec.items() if key in ("d", "hidden", "rank")]
        flags = [key for key in ("normaliser", "bias") if self.spec.get(key)]
        return " ".join([self.spec["kind"], *options, *(f"with {flag}" for flag in flags)])

    def function(self, component: Component) -> sp.Expr:
        """Return a component as an explicit function of inputs and parameters."""
        functions = {symbol: value for unit in self.units for symbol, value in unit.functions.items()}
        return (sp.exp(component.log_factor) * component.value).xreplace(functions)

    def key(self) -> str:
        """Return the definition in one line, for hashing and comparing."""
        return json.dumps(self.spec, sort_keys=True)


PLAIN = (
    "location-scale",
    "covariate-free",
    "gaussian-gated",
    "gaussian-gated-constant",
    "softmax-gaussian",
    "softmax-linear",
)
#: Experts of one smooth unit, by the name of its kernel.
NETWORKS = tuple(f"softmax-network:{name}" for name in ("tanh", "sigmoid", "gelu"))
PROMPTS = ("fixed", "prefix", "decoupled", *(f"adaptive:{name}" for name in KERNELS))
KINDS = PLAIN + NETWORKS + PROMPTS


def is_prompt(kind: str) -> bool:
    """Say whether a model is one of prompts, among them adaptive ones with an activation that was added."""
    return kind in PROMPTS or kind.startswith("adaptive:")


def atom(
    kind: str,
    d: int | None = None,
    hidden: int | None = None,
    rank: int | None = None,
    normaliser: bool = False,
    bias: bool = False,
) -> Atom:
    """Return the atom of one model.

    kind        one of ``KINDS``
    d           number of inputs of a prompt, 1 to 3; 2 by default
    hidden      hidden units of an adaptive prompt, 1 to 3; 1 by default
    rank        directions of a prompt that its key sees, 1 to d; d by default
    normaliser  whether the atom taken alone includes its gate
    bias        whether the log-weight of the atom is a parameter; its derivative is the atom itself

    Raises ``InputError`` for an unknown kind, for options that a kind does not have, and for numbers outside
    their range.
    """
    adaptive = named(kind, "model").startswith("adaptive:")
    if kind not in KINDS and not (adaptive and known(kind.partition(":")[2])):
        if adaptive and kind.partition(":")[2] in ACTIVATIONS:
            kernel(kind.partition(":")[2])  # an added activation without a formula: says so
        raise InputError(f"unknown model {kind!r}; expected one of {', '.join(KINDS)}")
    for name, value, allowed in (
        ("d", d, is_prompt(kind)),
        ("rank", rank, is_prompt(kind)),
        ("hidden", hidden, adaptive),
    ):
        if value is not None and not allowed:
            raise InputError(
                f"{name} = {value} for {kind}; only {'adaptive ' if name == 'hidden' else ''}prompts have it"
            )
    if kind == "prefix" and rank not in (None, d or 2):
        raise InputError(
            f"rank = {rank} for prefix; expected d = {d or 2}: its key is the parameter only where all show"
        )
    if is_prompt(kind):
        d = 2 if d is None else whole(d, 1, "d")
        rank = d if rank is None else whole(rank, 1, "rank")
        hidden = 1 if hidden is None else whole(hidden, 1, "hidden")
        if not (1 <= d <= len(X) and 1 <= rank <= d and 1 <= hidden <= 3):
            raise InputError(f"d = {d}, rank = {rank}, hidden = {hidden}; expected d and hidden 1 to 3, rank 1 to d")
        made = _adaptive(kernel(kind.partition(":")[2]), d, hidden, rank) if adaptive else _PROMPTS[kind](d, rank)
        spec = {"kind": kind, "d": d} | ({"hidden": hidden} if adaptive else {}) | ({"rank": rank} if rank < d else {})
    elif kind in NETWORKS:
        made, spec = _softmax_network(kernel(kind.partition(":")[2])), {"kind": kind}
    else:
        made, spec = _PLAIN[kind](), {"kind": kind}
    if normaliser and made.gate is None:
        raise InputError(f"{kind} is a joint density and has no normaliser; expected normaliser=False")
    made = replace(made, spec=spec | {flag: True for flag, on in (("normaliser", normaliser), ("bias", bias)) if on})
    made = replace(made, normaliser=normaliser)
    return _with_bias(made) if bias else made


def _with_bias(made: Atom) -> Atom:
    log_weight = sp.Symbol("logw")

    def weighted(part: Component) -> Component:
        return replace(part, log_factor=part.log_factor + log_weight)

    return replace(
        made,
        groups={"weight": (log_weight,), **made.groups},
        values=tuple(weighted(part) for part in made.values),
        gate=weighted(made.gate) if made.gate else None,
    )


def log_normal(z: sp.Expr, variance: sp.Expr) -> sp.Expr:
    """Return log N(z; 0, variance) without its constant."""
    return -(z**2) / (2 * variance) - sp.log(variance) / 2


ONE = sp.Integer(1)


def _location_scale() -> Atom:
    b, s = sp.symbols("b s")
    return Atom({}, {"b": (b,), "s": (s,)}, (Y,), (Component(log_normal(Y - b, s), ONE),), positive=(s,))


def _covariate_free() -> Atom:
    a, b, s = sp.symbols("a b s")
    part = Component(log_normal(Y - a * X[0] - b, s), ONE)
    return Atom({}, {"a": (a,), "b": (b,), "s": (s,)}, (X[0], Y), (part,), positive=(s,))


def _gaussian_gated() -> Atom:
    c, G, a, b, nu = sp.symbols("c Gamma a b nu")
    x = X[0]
    part = Component(log_normal(x - c, G) + log_normal(Y - a * x - b, nu), ONE)
    groups = {"c": (c,), "Gamma": (G,), "a": (a,), "b": (b,), "nu": (nu,)}
    return Atom({}, groups, (x, Y), (part,), positive=(G, nu))


def _gaussian_gated_constant() -> Atom:
    c, G, b, nu = sp.symbols("c Gamma b nu")
    part = Component(log_normal(X[0] - c, G) + log_normal(Y - b, nu), ONE)
    groups = {"c": (c,), "Gamma": (G,), "b": (b,), "nu": (nu,)}
    return Atom({}, groups, (X[0], Y), (part,), positive=(G, nu))


def _softmax_gaussian() -> Atom:
    beta, a, b, s = sp.symbols("beta a b s")
    x = X[0]
    part = Component(beta * x + log_normal(Y - a * x - b, s), ONE)
    groups = {"beta": (beta,), "a": (a,), "b": (b,), "s": (s,)}
    return Atom({}, groups, (x, Y), (part,), Component(beta * x, ONE), positive=(s,), gate_shift=(beta,))


def _softmax_linear() -> Atom:
    beta, a, b = sp.symbols("beta a b")
    x = X[0]
    groups = {"beta": (beta,), "a": (a,), "b": (b,)}
    gate = Component(beta * x, ONE)
    return Atom({}, groups, (x,), (Component(beta * x, a * x + b),), gate, gate_shift=(beta,))


def _softmax_network(sigma: Kernel) -> Atom:
    beta, a, b = sp.symbols("beta a b")
    x = X[0]
    unit = Unit(sigma, a * x + b, sp.Symbol("t1"), tuple(sp.Symbol(f"{s.name}1") for s in sigma.symbols))
    groups = {"beta": (beta,), "a": (a,), "b": (b,)}
    value = Component(beta * x, unit.localised(sigma.value))
    return Atom({}, groups, (x,), (value,), Component(beta * x, ONE), units=(unit,), gate_shift=(beta,))


def _dot(a: Iterable, b: Iterable) -> sp.Expr:
    return sp.Add(*(p * q for p, q in zip(a, b, strict=False)))


def _fixed(d: int, rank: int) -> Atom:
    p, x = sp.symbols(f"p1:{d + 1}"), X[:d]
    logit = _dot(x, p[:rank])
    groups = {"p": p} if rank == d else {"p seen by keys": p[:rank], "p unseen by keys": p[rank:]}
    return Atom({}, groups, x, tuple(Component(logit, value) for value in p), Component(logit, ONE))


def _prefix(d: int, rank: int) -> Atom:
    p, x = sp.symbols(f"p1:{d + 1}"), X[:d]
    logit = _dot(x, p[:rank])
    return Atom({}, {"p": p}, x, tuple(Component(logit, value + value**2) for value in p), Component(logit, ONE))


def _decoupled(d: int, rank: int) -> Atom:
    k, v, x = sp.symbols(f"k1:{rank + 1}"), sp.symbols(f"v1:{d + 1}"), X[:d]
    logit = _dot(x, k)
    values = tuple(Component(logit, value) for value in v)
    return Atom({}, {"k": k, "v": v}, x, values, Component(logit, ONE), gate_shift=k)


def _adaptive(sigma: Kernel, d: int, hidden: int, rank: int) -> Atom:
    x, rows = X[:d], range(1, hidden + 1)
    W1 = [sp.symbols(" ".join(f"w{j}_{i}" for i in range(1, d + 1)) + ",") for j in rows]
    W2 = [sp.symbols(" ".join(f"z{i}_{j}" for i in range(1, d + 1)) + ",") for j in rows]
    units = tuple(
        Unit(sigma, _dot(w, x), sp.Symbol(f"t{j}"), tuple(sp.Symbol(f"{s.name}{j}") for s in sigma.symbols))
        for j, w in zip(rows, W1, strict=True)
    )
    sigmas = [unit.localised(sigma.value) for unit in units]
    phi = [_dot([column[i] for column in W2], sigmas) for i in range(d)]
    logit = _dot(x, phi[:rank])
    w, z = (tuple(p for row in rows_of for p in row) for rows_of in (W1, W2))
    # The scale of a unit can move between w and z; with the identity so can any invertible matrix.
    known = min(hidden, d) if sigma.name == "identity" else 1 if sigma.homogeneity else 0
    block = sigma.name == "identity"
    pinned = {p: int(i == j or not block) for j, column in enumerate(W2) for i, p in enumerate(column[:known])}
    return Atom(
        {},
        {"W1": w, "W2": z},
        x,
        tuple(Component(logit, value) for value in phi),
        Component(logit, ONE),
        units=units,
        shared=z,
        pinned=pinned,
    )


_PLAIN = {
    "location-scale": _location_scale,
    "covariate-free": _covariate_free,
    "gaussian-gated": _gaussian_gated,
    "gaussian-gated-constant": _gaussian_gated_constant,
    "softmax-gaussian": _softmax_gaussian,
    "softmax-linear": _softmax_linear,
}
_PROMPTS = {"fixed": _fixed, "prefix": _prefix, "decoupled": _decoupled}

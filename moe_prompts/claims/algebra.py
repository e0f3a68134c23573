"""Judge claims about formulas by computer algebra, whose certificates are checked again by other means."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from moe_prompts.claims.claim import DERIVED, Claim, Line, Tables, exact_line
from moe_prompts.intervals import Verdict
from moe_prompts.losses.gaussian_voronoi import rbar
from moe_prompts.models.data import Sample
from moe_prompts.models.softmax_gated import SoftmaxGatedMoE
from moe_prompts.models.softmax_truths import softmax_truth

if TYPE_CHECKING:
    from moe_prompts.theory.table import RateTable

#: Largest cell whose witness is checked, shifts of the cosh construction, and their largest relative
#: difference.
LARGEST_WITNESS, COSH_SHIFTS, SAME_DENSITY = 8, (0.1, 1.0, 4.0), 1e-14

#: Activations between the linear layer of a gate and its temperature, and those of them with sigma(c z) = c
#: sigma(z).
TEMPERED, HOMOGENEOUS = ("tanh", "sigmoid", "gelu", "relu"), ("relu",)
#: What the scaling of gate and temperature is to first order, as the algebra prints it.
SCALING = "u_tau = (-beta/tau) u_beta"


@cache
def table_of(model: str, *cells: int, **options: Any) -> RateTable:
    """Return the table of rates of a model whose true atoms are fitted by so many atoms each.

    SymPy is imported here, where it is needed. Model, cells and options are those of
    ``theory.table.rate_table``.
    """
    from moe_prompts.theory.table import rate_table

    return rate_table(model, cells, **options)


def rate_of(model: str, *cells: int, **options: Any) -> str:
    """Return the rates of the over-fitted cells (of more than one atom) in words."""
    said = [
        f"{rate.group} in a cell of {rate.m}: {rate.rate if rate.rate != 'none' else 'no rate'}, {rate.exponent.status}"
        for rate in table_of(model, *cells, **options).rates
        if rate.m is not None and rate.m > 1
    ]
    return f"{model}: " + "; ".join(dict.fromkeys(said))


@cache
def verified(model: str, *cells: int) -> Line:
    """Return the line that says whether a table of rates stands up to a check by other means.

    Every certificate of the table is checked, and every row that follows from one.
    """
    from moe_prompts.theory.certificates.verify import verify_table

    table = table_of(model, *cells)
    verdict = verify_table(json.loads(table.to_json()))
    found = f"{len(table.certificates)} certificates verified" if verdict else verdict.reason
    return exact_line(f"{table.title}: certificates", "valid", found, bool(verdict))


def typed(tables: Tables, seed: int) -> list[Line]:
    """Return the lines of G-type1: rates of slopes of Gaussian-gated experts, published against derived.

    A cell of three decides, as there the two differ.
    """
    lines = [verified("gaussian-gated", 1, 3)]
    for rate in table_of("gaussian-gated", 1, 3).rates:
        if rate.group != "a" or rate.m == 1 or rate.published is None:
            continue
        proved = rate.exponent.status == "proved"
        found = f"{rate.rate}, {rate.exponent.status}"
        line = exact_line(f"A in a cell of {rate.m}", rate.published.text, found, not rate.agrees.startswith("no"))
        lines.append(line if proved else replace(line, verdict=Verdict.UNDECIDED))
    return lines


def cosh(tables: Tables, seed: int) -> list[Line]:
    """Return the lines of S-cosh: whether a split of the published truth has the density of the truth.

    The densities are compared where they are largest: at the experts' values, for 1000 inputs.
    """
    known = softmax_truth("sgame").params
    x = np.linspace(0, 1, 1000)[:, None]
    lines = [verified("softmax-gaussian", 2, 2)]
    for shift in COSH_SHIFTS:
        split, worst = cosh_split(known, shift), 0.0
        for slope, intercept in zip(known.slopes, known.intercepts, strict=True):
            at_expert = Sample(x, x @ slope[:, None] + intercept)
            difference = split.log_density(at_expert) - known.log_density(at_expert)
            worst = max(worst, float(np.abs(np.expm1(difference)).max()))
        name = f"sgame, beta +- {shift:g}: relative difference of densities"
        lines.append(exact_line(name, "0", f"{worst:.0e}", worst < SAME_DENSITY))
    return lines


def cosh_split(known: SoftmaxGatedMoE, shift: float) -> SoftmaxGatedMoE:
    """Return a model of twice as many atoms and equal density: every atom is split in two of half its mass.

    The gate slopes of the halves lie ``shift`` to both sides. Numerator and denominator of every gate gain
    the same factor cosh(shift x), so the density stays.
    """
    twice = known.atoms(np.repeat(np.arange(known.k), 2))
    signs = np.tile([1.0, -1.0], known.k)
    return SoftmaxGatedMoE(
        twice.gate_intercepts,
        twice.gate_slopes + shift * signs[:, None],
        twice.slopes,
        twice.intercepts,
        twice.noise_vars,
    )


def temperature(tables: Tables, seed: int) -> list[Line]:
    """Return the lines of S-temperature: dependences of the derivatives of one expert, to second order.

    Without an activation the scaling of gate and temperature is the only one of first order. An activation
    keeps it exactly where it is positively homogeneous.
    """
    from moe_prompts.theory.dependences import dependences
    from moe_prompts.theory.temperature import tempered

    lines = []
    for name in (None, *TEMPERED):
        first, second = (dependences(tempered(name), order) for order in (1, 2))
        texts = [first.text(identity) for identity in first.identities]
        tied = [second.text(identity) for identity in second.identities if _ties(identity)]
        claimed = [SCALING] if name is None or name in HOMOGENEOUS else []
        shown = ", ".join(texts) or "no dependence of first order"
        logit = "beta x" if name is None else f"{name}(beta x)"
        found = f"{shown}; of second order between gate and expert: {', '.join(tied) or 'none'}"
        name = f"logit {logit} / tau"
        lines.append(exact_line(name, claimed[0] if claimed else "none", found, texts == claimed))
    return lines


def _ties(identity: Any) -> bool:
    """Return whether a dependence joins derivatives by gate and by expert, and is not the scaling again."""
    orders = [column.alpha for column in (identity.column, *identity.coefficients)]
    gate, expert = (any(any(alpha[i] for i in part) for alpha in orders) for part in ((0,), (2, 3)))
    return gate and expert and not any(alpha[1] for alpha in orders)


def solvability(tables: Tables, seed: int) -> list[Line]:
    """Return the lines of A-rbar: witnesses of rbar(m) >= 2m, and eliminations that show rbar(m) <= 2m.

    Elimination covers m = 2 and symmetric m = 3. For other m the upper bound is a proof by pen.
    """
    from moe_prompts.theory.certificates.verify import verify
    from moe_prompts.theory.solvability import eliminate_m2, gauss_hermite_witness, symmetric_family_m3

    lines = []
    for m in range(2, LARGEST_WITNESS + 1):
        witness, order = gauss_hermite_witness(m), rbar(m) - 1
        solved = [residual == "0" for residual in witness["residuals"][:order]]
        right = all(solved) and bool(verify(witness))
        found = f"{sum(solved)} of {order} equations solved exactly"
        lines.append(exact_line(f"m = {m}: a non-trivial solution to order {order}", "exists", found, right))
    two, three = eliminate_m2(), symmetric_family_m3()
    for name, zeros in (
        ("m = 2: one to order 4, normal form", two["zeros"]),
        ("m = 2: the same, Groebner basis", two["eliminant_zeros"]),
        ("m = 3: a symmetric one to order 6", three["zeros"]),
    ):
        lines.append(exact_line(name, "none", f"{zeros} zeros left", zeros == 0))
    return lines


CLAIMS = [
    Claim(
        id="A-rbar",
        statement="m atoms in one cell stop hiding each other at order rbar(m) = 2m (published: 4, 6 and at least 7 "
        "for m = 2, 3 and more). The upper bound is a short corollary of a proposition of Kalai, Moitra and Valiant.",
        source=f"{DERIVED}; Ho and Nguyen, Annals of Statistics 2016; Kalai, Moitra and Valiant, STOC 2010, Prop. 7",
        prediction=lambda: (
            "rbar(m) = 2m for all m >= 2: witnesses from below; from above by pen, from the number of "
            "sign changes of a sum of Gaussians (moe_prompts/theory/solvability.py)"
        ),
        needs={},
        rule=f"holds if witnesses of rbar(m) >= 2m are verified for m = 2..{LARGEST_WITNESS} and elimination leaves no "
        "zero for m = 2 and for symmetric m = 3; the upper bound for other m is the proof",
        judge=solvability,
    ),
    Claim(
        id="G-type1",
        statement="Gaussian-gated, every c* != 0 (type I): slopes A of over-fitted cells are learned at n^-1/4, "
        "however many atoms a cell holds.",
        source="arXiv 2305.07572",
        prediction=lambda: rate_of("gaussian-gated", 1, 3),
        needs={},
        rule="holds or fails in a cell of three by a proved rate whose certificates are verified",
        judge=typed,
        limits="n^-1/6 in data: no slope of A is measured here. Nor the theorem's own words, which were not seen: the "
        "power 2 of A is that of the paper's loss.",
    ),
    Claim(
        id="S-temperature",
        statement="Softmax-gated with an estimated temperature tau that divides all logits: neither tau nor any gate "
        "parameter is identified, with any number of experts; only beta / tau is. An activation before the temperature "
        "(tanh, sigmoid, gelu) ends that to first order; one that is positively homogeneous (relu) does not.",
        source=f"arXiv 2401.13875 (slower than any polynomial rate; the activation); the scaling: {DERIVED}",
        prediction=lambda: (
            "(c beta, c beta0, c tau) has the density of (beta, beta0, tau) for every c > 0 "
            "(moe_prompts/theory/temperature.py)"
        ),
        needs={},
        rule="holds if the algebra finds exactly one dependence of first order, the scaling, without an activation and "
        "with relu, and none with tanh, sigmoid and gelu",
        judge=temperature,
        limits="rates of beta / tau, which are those of S-exact and S-over, and rates with an activation; other "
        "activations; whether the paper fixes the scale by some condition was not looked up.",
    ),
    Claim(
        id="S-cosh",
        statement="Softmax-gated, every cell over-fitted: gate slopes are not identified at all.",
        source=DERIVED,
        prediction=lambda: rate_of("softmax-gaussian", 2, 2),
        needs={},
        rule=f"holds if certificates are verified and splits of the published truth have its density to "
        f"{SAME_DENSITY:g}",
        judge=cosh,
        limits="rates of the other groups: they are no faster than the prediction says, and how much slower is open.",
    ),
]

"""Derive the rate of every group of parameters in a configuration of cells, with proof and publication.

    print(rate_table("softmax-gaussian", cells=[1, 2]).markdown())

A configuration is the vector of cell sizes: cells=[1, 2, 3] are three true atoms, fitted by one, two and
three atoms. The rates of a cell depend on the others: a gate is pinned by a cell of one atom or by a frozen
expert. Beside each derived rate stands the published one, with its source.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import Any

from moe_prompts.checks import listed, shown
from moe_prompts.checks import whole as whole_number
from moe_prompts.errors import InputError
from moe_prompts.shown import fitted, html_table, paragraph
from moe_prompts.tables import markdown
from moe_prompts.theory.atoms import Atom, atom, is_prompt
from moe_prompts.theory.certificates.basis import ORBIT
from moe_prompts.theory.dependences import Identity, dependences
from moe_prompts.theory.exponents import Analysis, Bound, Certificate, Exponent, slowest_of
from moe_prompts.theory.mixture import Column, held
from moe_prompts.theory.published import Published, agreement, published

MOST_CELLS, LARGEST_CELL = 6, 8
#: Titles of columns in a terminal, where they are other than in Markdown, and what columns mean there.
HEADS = {"not slower because": "not slower", "not faster because": "not faster", "agrees?": "agrees"}
LEGEND = (
    "cell: a true atom; size: fitted atoms in it; theta: an error eps of the density moves the group by eps^(1/theta); "
    "rate: n^(-1/(2 theta)); not slower, not faster: what proves either bound, by its certificate."
)
#: Known experts beyond these make functions that no computer algebra handles.
MOST_FROZEN = 20


@dataclass(frozen=True)
class Rate:
    """Hold one row of a table of rates.

    group       parameters that are estimated together
    cell        number of the cell; None for parameters that all atoms share
    m           number of fitted atoms in the cell; None for shared parameters
    parts       the exponent of every parameter of the group
    identities  the dependences that the exponents use, in words
    published   what papers say, or None
    """

    group: str
    cell: int | None
    m: int | None
    parts: dict[str, Exponent]
    identities: tuple[str, ...]
    published: Published | None
    agrees: str

    @cached_property
    def exponent(self) -> Exponent:
        """Return the exponent of the group: the slowest of its parts."""
        return slowest_of(list(self.parts.values()))

    @property
    def slope(self) -> Fraction | None:
        """Return the exponent p of error ~ n^p, -1 / (2 theta).

        It is 0 where there is no rate, and None where nothing is known.
        """
        theta = self.exponent.theta
        return None if theta is None else Fraction(0) if theta == math.inf else -1 / (2 * Fraction(theta))

    @property
    def rate(self) -> str:
        """Return the rate as it is printed."""
        if self.exponent.theta is None:
            lower = self.exponent.lower
            return "not known" if lower is None else f"no faster than {_rate(lower.theta)}"
        text = _rate(self.exponent.theta)
        return f"no faster than {text}" if self.exponent.status == "one-sided" else text


def _rate(theta: Fraction | float) -> str:
    return "none" if theta == math.inf else f"n^(-1/{2 * Fraction(theta)})"


def _theta(theta: Fraction | float | None) -> str:
    return "" if theta is None else "infinite" if theta == math.inf else str(theta)


@dataclass(frozen=True, repr=False)
class RateTable:
    """Hold the rates of a configuration with their certificates.

    It prints as a table.

    model          one of ``atoms.KINDS``
    cells          fitted atoms per true atom
    frozen         number of known experts
    rates          one row for each cell and group of parameters
    configuration  as certificates name it
    certificates   by name, as the rates name them
    names          identity of a bound -> name of its certificate
    notes          what was assumed
    """

    model: str
    cells: tuple[int, ...]
    frozen: int
    rates: tuple[Rate, ...]
    configuration: dict[str, Any]
    certificates: dict[str, Certificate]
    names: dict[int, str]
    notes: tuple[str, ...]

    @property
    def title(self) -> str:
        """Return the model and its cells in one line."""
        known = f", {self.frozen} frozen" if self.frozen else ""
        return f"{self.model}, cells {','.join(map(str, self.cells))}{known}"

    def certificates_of(self, rate: Rate) -> dict[str, dict[str, str | None]]:
        """Return for each parameter the names of the certificates of its upper and lower bound."""
        return {
            name: {
                side: None if bound is None else self.names[id(bound)]
                for side, bound in (("upper", part.upper), ("lower", part.lower))
            }
            for name, part in rate.parts.items()
        }

    def records(self) -> list[dict[str, Any]]:
        """Return the rows as JSON-able records."""
        return [
            {
                "model": self.model,
                "cells": list(self.cells),
                "frozen": self.frozen,
                "group": rate.group,
                "cell": None if rate.cell is None else rate.cell + 1,
                "m": rate.m,
                "theta": _theta(rate.exponent.theta),
                "rate": rate.rate,
                "slope": None if rate.slope is None else str(rate.slope),
                "status": rate.exponent.status,
                "upper": rate.exponent.upper.method if rate.exponent.upper else None,
                "lower": rate.exponent.lower.method if rate.exponent.lower else None,
                "certificates": self.certificates_of(rate),
                "identities": list(rate.identities),
                "published": None if rate.published is None else rate.published.text,
                "citation": None if rate.published is None else rate.published.citation,
                "agrees": rate.agrees,
            }
            for rate in self.rates
        ]

    def to_json(self) -> str:
        """Return rows, certificates and notes as JSON: what ``verify_table`` checks."""
        table = {"configuration": self.configuration, "rates": self.records(), "certificates": self.certificates}
        return json.dumps(table | {"notes": self.notes}, indent=1)

    def markdown(self) -> str:
        """Return the table as Markdown, with the identities used and the papers compared."""
        header, body = self._cells
        return "\n".join([markdown(header, body), *self._told])

    def __str__(self) -> str:
        """Return the table in lines of at most 80 characters, with what its columns mean."""
        header, body = self._cells
        told_of = [place for place in range(len(header)) if place < 3 or any(row[place].strip() for row in body)]
        heads = [HEADS.get(header[place], header[place]) for place in told_of]
        shown = fitted(heads, [[row[place] for place in told_of] for row in body], keys=3)
        told = [paragraph(line, indent="  ") if line else "" for line in [*self._told, "", LEGEND]]
        return "\n".join([f"{self.title}\n", shown, *told])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """Return the table for a notebook."""
        return html_table(*self._cells, caption=self.title)

    @property
    def _cells(self) -> tuple[list[str], list[list[str]]]:
        """Return header and rows as text."""
        header = [
            "group",
            "cell",
            "size",
            "theta",
            "rate",
            "status",
            "not slower because",
            "not faster because",
            "published",
            "agrees?",
        ]
        body = []
        for rate in self.rates:
            bounds = [b.method if b else "" for b in (rate.exponent.upper, rate.exponent.lower)]
            body.append(
                [
                    rate.group,
                    "all" if rate.cell is None else str(rate.cell + 1),
                    str(rate.m or ""),
                    _theta(rate.exponent.theta),
                    rate.rate,
                    rate.exponent.status,
                    *bounds,
                    "" if rate.published is None else rate.published.text,
                    rate.agrees,
                ]
            )
        return header, body

    @property
    def _told(self) -> list[str]:
        """Return the lines below the table: identities, papers, notes."""
        used = list(dict.fromkeys(text for rate in self.rates for text in rate.identities))
        known = list(dict.fromkeys(rate.published.citation for rate in self.rates if rate.published))
        told = "; ".join(used).replace("+ -", "- ") if used else "none"
        lines = ["", f"Identities used: {told}."]
        lines += [f"Published: {', '.join(known)}."] if known else []
        return [*lines, *self.notes]


def rate_table(
    model: str,
    cells: Sequence[int],
    frozen: int | None = None,
    d: int | None = None,
    hidden: int | None = None,
    rank: int | None = None,
    stratum: Mapping[str, Any] | None = None,
) -> RateTable:
    """Derive the rates of all groups of parameters in a configuration of cells.

    model            one of ``atoms.KINDS``
    cells            fitted atoms per true atom, 1 to 8 each, at most 6 cells
    frozen           known experts beside them; 1 for prompts by default, 0 otherwise
    d, hidden, rank  as in ``atoms.atom``
    stratum          parameters of the truth held at given values, such as {"c": 0}; the others are generic

    Returns the table, with a certificate for every bound.

    Raises ``InputError`` for an unknown model, for other cells, and for options that the model does not have.

    >>> import moe_prompts as mp
    >>> table = mp.rate_table("softmax-gaussian", cells=[1, 1])
    >>> {rate.rate for rate in table.rates}
    {'n^(-1/2)'}
    """
    made = atom(model, d=d, hidden=hidden, rank=rank)
    if isinstance(cells, (str, int)):
        raise InputError(f"cells {shown(cells)}; expected a list of fitted atoms per true atom, such as [1, 2]")
    sizes = listed(cells, "cells of fitted atoms per true atom")
    if not sizes:
        raise InputError("cells is empty; expected the number of fitted atoms of each true atom, such as 1,2")
    wrong = [m for m in sizes if isinstance(m, bool) or not isinstance(m, int) or not 1 <= m <= LARGEST_CELL]
    if wrong or len(sizes) > MOST_CELLS:
        raise InputError(
            f"cells {','.join(map(str, sizes))}; expected at most {MOST_CELLS} whole numbers from 1 to {LARGEST_CELL}"
        )
    if made.units and not made.units[0].kernel.smooth and made.spec["d"] == 1 and made.spec["hidden"] > 1:
        raise InputError(
            f"{made.name}: with one input the signs of the weights decide which hidden units are told apart, and no "
            "answer is generic; expected d >= 2 or hidden = 1"
        )
    known = (1 if is_prompt(model) else 0) if frozen is None else whole_number(frozen, 0, "frozen", most=MOST_FROZEN)
    special = held(stratum)
    analysis = Analysis(made, sizes, known, special or None)
    within, across = _identities(analysis)
    rates = []
    for j, m in enumerate(sizes):
        for group, params in made.groups.items():
            free = [p for p in params if p not in analysis.mixture.held]
            if not free:
                continue
            parts = {str(p): analysis.exponent(j, p) for p in free}
            rates.append(_row(made, group, j, m, parts, (within if m > 1 else ()) + across, special))
    for group, params in made.groups.items():
        free = [p for p in params if p in made.shared and p not in made.pinned]
        if free:
            parts = {str(p): analysis.shared(p) for p in free}
            rates.append(_row(made, group, None, None, parts, across, special))
    rates += _orbits(made, analysis)
    certificates, names = _named(rates)
    return RateTable(
        made.name, tuple(sizes), known, tuple(rates), analysis.configuration, certificates, names, _notes(analysis)
    )


def _row(
    made: Atom,
    group: str,
    cell: int | None,
    m: int | None,
    parts: dict[str, Exponent],
    used: tuple[str, ...],
    stratum: Mapping[str, Any],
) -> Rate:
    rate = Rate(group, cell, m, parts, used, None, "")
    if rate.exponent.lower is not None and rate.exponent.lower.method == "one expert":
        # A single expert has no gate to publish about.
        return rate
    known = published(made.spec["kind"], made.spec, group, m or 1, stratum)
    return replace(rate, published=known, agrees=agreement(rate.exponent, known))


def _identities(analysis: Analysis) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return texts of the dependences within a cell of several atoms, and of those that tie cells."""
    report, made = analysis.report, analysis.atom

    def places(identity: Identity) -> set[int | None]:
        return {identity.column.cell} | {column.cell for column, value in identity.coefficients.items() if value}

    across = [identity for identity in report.identities if len(places(identity)) > 1]
    over = [j for j, m in enumerate(analysis.sizes) if m > 1]
    if not over:
        within: tuple[str, ...] = ()
    elif made.units:
        within = tuple(report.text(identity) for identity in report.identities if places(identity) == {over[0]})
    else:
        # The atom by itself, where coefficients have closed forms; its gate sees what a conditional model
        # sees.
        alone = dependences(atom(**made.spec | ({"normaliser": True} if made.gate else {})))
        within = tuple(alone.text(identity) for identity in alone.primitive)
    return within, tuple(_tie(analysis, identity) for identity in across)


def _tie(analysis: Analysis, identity: Identity) -> str:
    """Return the text of an identity that ties cells together.

    That is sum_j w_j u_j = 0 and its derivatives by gates, w_j the true masses; anything else as it stands.
    """
    params, weights = analysis.atom.params, [cell.weight for cell in analysis.mixture.cells]
    column, own = identity.column, identity.column.cell
    if own is not None and all(other.alpha == column.alpha for other in identity.coefficients):
        expected = {Column(j, column.alpha): -w / weights[own] for j, w in enumerate(weights) if j != own}
        if identity.coefficients == expected:
            return f"sum_j w_j {Column(None, column.alpha).label(params, 1).replace('u', 'u_j', 1)} = 0"
    return analysis.report.text(identity)


def _orbits(made: Atom, analysis: Analysis) -> list[Rate]:
    """Return what a continuous symmetry moves: no rate as parametrised, whatever the cells."""
    if not made.pinned:
        return []
    kernel = made.units[0].kernel
    certificate = {
        "kind": "invisible",
        "how": "orbit",
        **analysis.configuration,
        "cell": None,
        "param": str(made.groups["W1"][0]),
        "degree": kernel.homogeneity,
    }
    exponent = Exponent(math.inf, "proved", None, Bound(math.inf, "orbit", certificate))
    return [Rate(ORBIT, None, None, {str(made.groups["W1"][0]): exponent}, (), None, "")]


def _named(rates: Sequence[Rate]) -> tuple[dict[str, Certificate], dict[int, str]]:
    """Return names for certificates: the method, and a number where one method has several."""
    certificates: dict[str, Certificate] = {}
    names: dict[int, str] = {}
    texts: dict[str, str] = {}
    for part in (part for rate in rates for part in rate.parts.values()):
        for bound in (part.upper, part.lower):
            if bound is None:
                continue
            text = json.dumps(bound.certificate, sort_keys=True)
            if text not in texts:
                count = sum(name.startswith(bound.method + " ") for name in certificates) + 1
                texts[text] = f"{bound.method} {count}"
                certificates[texts[text]] = bound.certificate
            names[id(bound)] = texts[text]
    return certificates, names


def _notes(analysis: Analysis) -> tuple[str, ...]:
    made, report, notes = analysis.atom, analysis.report, []
    if not report.agree:
        notes.append(
            f"FORMAL RANK {report.formal_rank} DIFFERS FROM NUMERIC RANK {report.numeric_rank}: functions that are "
            "independent in general coincide at these parameters; no upper bound is derived."
        )
    elif analysis.lost:
        notes.append(
            "A first-order direction that is no gauge is invisible at these parameters: no upper bound is derived."
        )
    if made.gate_shift and not analysis.frozen:
        names = ", ".join(map(str, made.gate_shift))
        notes.append(f"{names}: up to one translation common to all cells.")
    # Only affine experts with one gate join into one: of units, the same f takes two atoms more.
    affine = not made.positive and not made.units and not analysis.frozen and min(analysis.sizes) == 1
    own_kind = analysis.frozen > 0 and not is_prompt(made.spec["kind"])
    if made.gate_shift and max(analysis.sizes) > 1 and (affine or own_kind):
        notes.append(
            "Local in the gates: numerator and denominator times 1 + c e^(delta x), delta the difference of two true "
            "gates, is the same f with an atom more, whose gate is far from every true one."
        )
    if made.pinned:
        fixed = ", ".join(f"{p} = {v}" for p, v in made.pinned.items())
        notes.append(f"W1, W2 otherwise: in the coordinates with {fixed}.")
    if any(not unit.kernel.smooth for unit in made.units):
        notes.append("The activation has a kink: derivatives exist almost everywhere, which proves no bound on splits.")
    return tuple(notes)

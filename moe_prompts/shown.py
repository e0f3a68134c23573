"""Show a value as a small table of names and values: in a terminal as text, in a notebook as HTML.

``Ending`` is what a command says at its end: findings, a table and its legend, in lines of at most 80
characters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from html import escape
from textwrap import wrap
from typing import Any

Rows = Sequence[tuple[str, str]]
#: Columns of a terminal that a shown value may take.
COLUMNS = 80
#: A cell of a table that is no longer than this is broken only where a single column is too wide.
SHORT = 24
#: Entries of an array or container that are shown one by one.
FEW = 6


def as_text(title: str, rows: Rows, columns: int = COLUMNS) -> str:
    """Return a title and rows of name and value as text of at most ``columns`` characters a line.

    >>> print(as_text("a fit", [("status", "certified"), ("gap", "1e-9 nats")]))
    a fit
      status  certified
      gap     1e-9 nats
    """
    width = max((len(name) for name, _ in rows), default=0)
    lines = [title]
    for name, value in rows:
        parts = wrap(value, columns - width - 4) or [""]
        lines.append(f"  {name.ljust(width)}  {parts[0]}".rstrip())
        lines += [" " * (width + 4) + part for part in parts[1:]]
    return "\n".join(lines)


def as_message(line: str, terminal: bool) -> str:
    """Return a line, broken at ``COLUMNS`` characters if it is longer and a terminal shows it.

    Elsewhere it stays one line, which programs and logs read.
    """
    if not terminal:
        return line
    return "\n".join(wrap(line, COLUMNS, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False))


def as_html(title: str, rows: Rows) -> str:
    """Return the same as an HTML table; text is escaped."""
    body = "".join(
        f"<tr><th style='text-align:left'>{escape(name)}</th><td style='text-align:left'>{escape(value)}</td></tr>"
        for name, value in rows
    )
    return f"<table><caption style='text-align:left'>{escape(title)}</caption>{body}</table>"


class Shown:
    """Print a dataclass as a small table of its fields, in a terminal and in a notebook.

    Arrays of more than six numbers are told by shape and range. The dataclass is made with ``repr=False``.

    >>> @dataclass(repr=False)
    ... class Found(Shown):
    ...     share: float
    ...     fits: int
    >>> Found(0.123456, 8)
    Found
      share  0.1235
      fits   8
    """

    def __repr__(self) -> str:
        return as_text(*self._shown)

    def _repr_html_(self) -> str:
        """Return the table for a notebook."""
        return as_html(*self._shown)

    @property
    def _shown(self) -> tuple[str, Rows]:
        named: Any = fields(self)  # type: ignore[arg-type]
        return type(self).__name__, [(field.name, told(getattr(self, field.name))) for field in named]


def told(value: Any) -> str:
    """Return a value in a few words: a number, a short array, or what a long one or a container holds.

    >>> told(0.123456), told([1, 2]), told({"a": 1})
    ('0.1235', '1, 2', 'a: 1')
    """
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, float):
        return f"{value:.4g}"
    if is_dataclass(value):
        return type(value).__name__
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        if math.prod(value.shape) <= FEW:
            return ", ".join(told(one) for one in value.reshape(-1).tolist())
        shape = " x ".join(map(str, value.shape))
        flat = [one for one in value.reshape(-1).tolist() if isinstance(one, int | float) and not math.isnan(one)]
        return f"array of {shape}" + (f", {told(float(min(flat)))} to {told(float(max(flat)))}" if flat else "")
    if isinstance(value, dict):
        held = [f"{told(key)}: {told(one)}" for key, one in value.items()]
        return ", ".join(held) if len(held) <= FEW else f"{len(held)} entries"
    if isinstance(value, list | tuple):
        return ", ".join(map(told, value)) if len(value) <= FEW else f"{len(value)} entries"
    return getattr(value, "__name__", None) or " ".join(str(value).split())


def aligned(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Return a table for a terminal: columns two spaces apart, a rule below the header, nothing else.

    >>> print(aligned(["n", "risk"], [["100", "0.1"]]))
    n    risk
    ---------
    100  0.1
    """
    widths = [max(len(row[column]) for row in [header, *body]) for column in range(len(header))]
    line = lambda row: "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    return "\n".join([line(header), "-" * (sum(widths) + 2 * len(widths) - 2), *map(line, body)])


def html_table(header: Sequence[str], body: Sequence[Sequence[str]], caption: str = "") -> str:
    """Return a table with a header as HTML; text is escaped."""
    head = "".join(f"<th style='text-align:left'>{escape(cell)}</th>" for cell in header)
    rows = "".join(
        "<tr>" + "".join(f"<td style='text-align:left'>{escape(cell)}</td>" for cell in row) + "</tr>" for row in body
    )
    shown = f"<caption style='text-align:left'>{escape(caption)}</caption>" if caption else ""
    return f"<table>{shown}<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def paragraph(text: str, columns: int = COLUMNS, indent: str = "") -> str:
    """Return text in lines of at most ``columns`` characters; lines after the first begin with ``indent``.

    A word that is longer than a line, such as the name of a folder, keeps its own line.
    """
    return "\n".join(wrap(text, columns, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False))


def fitted(header: Sequence[str], body: Sequence[Sequence[str]], keys: int = 1, columns: int = COLUMNS) -> str:
    """Return ``aligned`` so that no line is longer than ``columns`` characters; no cell is cut.

    header  titles of the columns
    body    rows of as many cells
    keys    leading columns that say what a row is; where one table is too wide its other columns follow in a
            second one, with these before them

    Titles and cells are broken at spaces where they are too long.

    >>> print(fitted(["kind", "slope of the median"], [["fixed", "-0.50"]], columns=16))
    kind   slope of
           the
           median
    ----------------
    fixed  -0.50
    """
    parts: list[str] = []
    first = keys
    while first < len(header) or not parts:
        last = max(len(header), keys)
        while last > first + 1 and _least(header, body, [*range(keys), *range(first, last)]) > columns:
            last -= 1
        parts.append(_narrow(header, body, [*range(keys), *range(first, last)], columns))
        first = max(last, first + 1)
    return "\n\n".join(parts)


def _least(header: Sequence[str], body: Sequence[Sequence[str]], chosen: Sequence[int]) -> int:
    """Return the width of the narrowest table of the chosen columns in which short cells are not broken."""
    whole = [max((len(row[c]) for row in body if len(row[c]) <= SHORT), default=0) for c in chosen]
    words = [_word([header[c], *(row[c] for row in body)]) for c in chosen]
    return sum(map(max, whole, words)) + 2 * len(chosen) - 2


def _word(texts: Sequence[str]) -> int:
    return max((len(word) for text in texts for word in text.split()), default=1)


def _narrow(header: Sequence[str], body: Sequence[Sequence[str]], chosen: Sequence[int], columns: int) -> str:
    """Return the chosen columns, the widest of them broken at spaces until the table fits."""
    rows = [[row[c] for c in chosen] for row in [header, *body]]
    widths = [max(len(row[c]) for row in rows) for c in range(len(chosen))]
    least = [_word([row[c] for row in rows]) for c in range(len(chosen))]
    while sum(widths) + 2 * len(widths) - 2 > columns:
        can = [c for c in range(len(widths)) if widths[c] > least[c]]
        if not can:
            break
        # Titles first: a broken title costs lines once, a broken cell in every row.
        widest = max(can, key=lambda c: (widths[c] > max((len(row[c]) for row in rows[1:]), default=0), widths[c]))
        widths[widest] -= 1
    lines = []
    for number, row in enumerate(rows):
        cells = [wrap(cell, width, break_long_words=False) or [""] for cell, width in zip(row, widths, strict=True)]
        for line in range(max(map(len, cells))):
            shown = [(cell[line] if line < len(cell) else "").ljust(w) for cell, w in zip(cells, widths, strict=True)]
            lines.append("  ".join(shown).rstrip())
        if number == 0:
            lines.append("-" * (sum(widths) + 2 * len(widths) - 2))
    return "\n".join(lines)


@dataclass(frozen=True)
class Ending:
    """Hold what a command says at its end; ``str`` gives it in lines of at most 80 characters.

    findings  sentences, one paragraph each
    header    titles of the table; () for none
    body      its rows
    legend    what the columns and marks mean
    keys      leading columns that say what a row is
    """

    findings: Sequence[str]
    header: Sequence[str] = ()
    body: Sequence[Sequence[str]] = ()
    legend: str = ""
    keys: int = 1

    def __str__(self) -> str:
        parts = ["\n".join(paragraph(text, indent="  " if text.startswith("- ") else "") for text in self.findings)]
        if self.header and self.body:
            parts.append(fitted(self.header, self.body, self.keys))
        return "\n\n".join(part for part in [*parts, paragraph(self.legend)] if part)

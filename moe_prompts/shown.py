"""Show a value as a small table of names and values: in a terminal as text, in a notebook as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from textwrap import wrap

Rows = Sequence[tuple[str, str]]
#: Columns of a terminal that a shown value may take.
COLUMNS = 80


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


def as_html(title: str, rows: Rows) -> str:
    """Return the same as an HTML table; text is escaped."""
    body = "".join(
        f"<tr><th style='text-align:left'>{escape(name)}</th><td style='text-align:left'>{escape(value)}</td></tr>"
        for name, value in rows
    )
    return f"<table><caption style='text-align:left'>{escape(title)}</caption>{body}</table>"


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

"""Write tables as Markdown, read their rows again, and write numbers as they are printed in them."""

from __future__ import annotations

import re
from collections.abc import Sequence


def markdown(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Return a table with aligned columns as Markdown.

    header  titles of the columns
    body    rows of as many cells; a ``|`` in a cell is escaped, or it would end the cell
    """
    header, *body = ([cell.replace("|", "\\|") for cell in row] for row in [header, *body])
    widths = [max(len(row[column]) for row in [header, *body]) for column in range(len(header))]
    text = lambda row: "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
    return "\n".join([text(header), "|" + "|".join("-" * (width + 2) for width in widths) + "|", *map(text, body)])


def cells(row: str) -> list[str]:
    """Return the cells of one line of a table in Markdown, without the spaces around them."""
    inner = row.strip().removeprefix("|").removesuffix("|")
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", inner)]


def body_of(text: str, header: Sequence[str]) -> list[list[str]]:
    """Return the rows of the first table in ``text`` that has this header; none if there is no such table.

    It reads what ``markdown`` writes, so a page can be written anew from its own rows.
    """
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if line.startswith("|") and cells(line) == list(header):
            rows = []
            for row in lines[number + 2 :]:
                if not row.startswith("|"):
                    break
                rows.append(cells(row))
            return rows
    return []


def short(n: float) -> str:
    """Return a number in short: 1000 -> 1e3, 4217 -> 4.2e3."""
    mantissa, exponent = f"{n:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"

"""Write tables as Markdown, and numbers as they are printed in them."""

from __future__ import annotations

from collections.abc import Sequence


def markdown(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Return a table with aligned columns as Markdown.

    header  titles of the columns
    body    rows of as many cells
    """
    widths = [max(len(row[column]) for row in [header, *body]) for column in range(len(header))]
    text = lambda row: "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
    return "\n".join([text(header), "|" + "|".join("-" * (width + 2) for width in widths) + "|", *map(text, body)])


def short(n: float) -> str:
    """Return a number in short: 1000 -> 1e3, 4217 -> 4.2e3."""
    mantissa, exponent = f"{n:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"

"""Small tables for people: aligned text, and HTML for notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

Rows = Sequence[Sequence[str]]


def _filled(header: Sequence[str], rows: Rows) -> list[int]:
    """Columns in which something stands."""
    return [j for j in range(len(header)) if any(row[j] for row in rows)]


def text_table(header: Sequence[str], rows: Rows) -> str:
    """Aligned text, two spaces in; empty columns are left out."""
    columns = _filled(header, rows)
    lines = [[line[j] for j in columns] for line in (header, *rows)]
    widths = [max(len(line[j]) for line in lines) for j in range(len(columns))]
    return "\n".join(
        "  " + "  ".join(f"{text:<{w}}" for text, w in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def html_table(header: Sequence[str], rows: Rows) -> str:
    """An HTML table; empty columns are left out."""
    columns = _filled(header, rows)
    head = "".join(f"<th>{escape(header[j])}</th>" for j in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(row[j])}</td>" for j in columns) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

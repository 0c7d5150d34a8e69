"""Columns of a table of text."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ensemblerl.records import FloatArray
from ensemblerl.simulations.readers.base import Reader, named, number

Rows = list[tuple[int, list[str]]]
"""(line in the file, cells)."""


@dataclass(frozen=True)
class Csv(Reader):
    """Columns of numbers, (row,) float64 each, from a table with one line of names above it.

    Empty lines do not count. A line with more or fewer cells than names is an error: so a file
    that was not written to its end is found out.

    Parameters
    ----------
    path : of the file in the working directory
    columns : variable -> name of the column; or a list of names; None: all columns of numbers
    delimiter : one character; None: any blanks, and a "#" before the names does not count

    Raises
    ------
    ValueError
        for an argument that is none of these
    """

    columns: Mapping[str, str] | Sequence[str] | None = None
    delimiter: str | None = ","

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "columns", named("columns", self.columns))
        if self.delimiter is not None and (
            not isinstance(self.delimiter, str) or len(self.delimiter) != 1
        ):
            raise ValueError(f"delimiter: wanted one character or None, got {self.delimiter!r}")

    def __call__(self, directory: Path) -> dict[str, FloatArray]:
        """Name -> (row,); InvalidResult where the file does not hold it."""
        names, rows = self._table(self.text(directory))
        if isinstance(self.columns, Mapping):
            return {
                variable: self._column(names, rows, name) for variable, name in self.columns.items()
            }
        numeric = [name for name, cell in zip(names, rows[0][1], strict=True) if _is_number(cell)]
        if not numeric:
            raise self.refuse("a column of numbers", f"columns {', '.join(names)} of text")
        return {name: self._column(names, rows, name) for name in numeric}

    def _table(self, text: str) -> tuple[list[str], Rows]:
        lines = self._lines(text)
        if len(lines) < 2:
            raise self.refuse("a line of names, and lines below it", f"{len(lines)} lines")
        names, rows = lines[0][1], lines[1:]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise self.refuse("each column once", f"{', '.join(map(repr, twice))} twice")
        for line, cells in rows:
            if len(cells) != len(names):
                raise self.refuse(
                    f"{len(names)} cells in each line, as in the line of names",
                    f"{len(cells)} in line {line}",
                )
        return names, rows

    def _lines(self, text: str) -> Rows:
        if self.delimiter is None:
            found = [(n, line.split()) for n, line in enumerate(text.splitlines(), 1)]
            found = [(n, cells) for n, cells in found if cells]
            if found:
                first = " ".join(found[0][1]).lstrip("# ").split()
                found[0] = (found[0][0], first)
            return found
        reader = csv.reader(text.splitlines(), delimiter=self.delimiter, skipinitialspace=True)
        try:
            rows = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
        except csv.Error as error:
            raise self.refuse("a table", f"{error} in line {reader.line_num}") from None
        return [(n, cells) for n, cells in rows if any(cells)]

    def _column(self, names: list[str], rows: Rows, name: str) -> FloatArray:
        if name not in names:
            raise self.refuse(f"a column {name!r}", f"columns {', '.join(names)}")
        place = names.index(name)
        out = np.empty(len(rows))
        for i, (line, cells) in enumerate(rows):
            try:
                out[i] = number(cells[place])
            except ValueError:
                raise self.refuse(
                    f"numbers in column {name!r}", f"{cells[place]!r} in line {line}"
                ) from None
        return out


def _is_number(text: str) -> bool:
    try:
        number(text)
    except ValueError:
        return False
    return True

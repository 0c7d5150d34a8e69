"""Columns of physical points out of whatever people keep them in."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ensemblerl.space import Space

TRUTH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def columns_of(space: Space, rows: Any) -> dict[str, Any]:
    """Name -> (n,) values, None where a cell is empty.

    Parameters
    ----------
    space : whose parameters are wanted
    rows : list of dicts, pandas DataFrame, xarray Dataset, mapping of columns, or CSV path

    Raises
    ------
    TypeError, ValueError
        for anything else, and for parameters that are missing
    """
    if isinstance(rows, (str, Path)):
        return _from_csv(space, Path(rows))
    if hasattr(rows, "columns") or hasattr(rows, "data_vars") or isinstance(rows, Mapping):
        return _from_columns(space, rows)
    if isinstance(rows, Sequence) and all(isinstance(row, Mapping) for row in rows):
        return _from_dicts(space, rows)
    raise TypeError(
        "rows: wanted a list of dicts, a pandas DataFrame, an xarray Dataset or the path of a "
        f"CSV file, got {type(rows).__name__}"
    )


def _from_dicts(space: Space, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    names = dict.fromkeys([*space.names, *(name for row in rows for name in row)])
    return {name: [row.get(name) for row in rows] for name in names}


def _from_columns(space: Space, rows: Any) -> dict[str, Any]:
    there = list(rows.variables) if hasattr(rows, "data_vars") else list(rows)
    _require(space, there, "rows")
    return {name: np.asarray(rows[name]) for name in space.names}


def _require(space: Space, there: Sequence[Any], where: str) -> None:
    missing = [name for name in space.names if name not in there]
    if missing:
        raise ValueError(f"{where}: wanted columns {list(space.names)}, {missing} are not there")


def _from_csv(space: Space, path: Path) -> dict[str, Any]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, skipinitialspace=True)
        rows = list(reader)
        _require(space, list(reader.fieldnames or []), str(path))
    kinds = {name: space[name].transform.dtype.kind for name in space.names}
    return {
        name: [_cell(row[name], kind, f"{path}, row {i}: {name}") for i, row in enumerate(rows)]
        for name, kind in kinds.items()
    }


def _cell(text: str | None, kind: str, where: str) -> Any:
    """A cell as the parameter's own type: f, i, b, or text."""
    text = (text or "").strip()
    if not text or (kind == "f" and text.lower() == "nan"):
        return None
    if kind == "U":
        return text
    try:
        return TRUTH[text.lower()] if kind == "b" else int(text) if kind == "i" else float(text)
    except (ValueError, KeyError):
        raise ValueError(f"{where}: wanted {_WANTED[kind]}, got {text!r}") from None


_WANTED = {"f": "a number", "i": "a whole number", "b": "true or false"}

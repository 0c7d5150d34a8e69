"""Columns of physical values: numbers or texts, with nothing where a parameter is inactive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ensemblerl.records import AnyArray, BoolArray

TYPES: dict[str, Callable[[Any], Any]] = {"f": float, "i": int, "b": bool, "U": str}
"""Python's own type by the kind of a dtype."""


def absent(column: AnyArray) -> BoolArray:
    """(n,) where a column holds nothing: NaN, or an empty text."""
    out: BoolArray = column == "" if column.dtype.kind == "U" else column != column
    return out


def blanked(column: AnyArray, active: BoolArray) -> AnyArray:
    """(n,) with nothing where not active; numbers become float64."""
    if column.dtype.kind == "U":
        return np.where(active, column, "")
    return np.where(active, column.astype(np.float64), np.nan)


def as_column(name: str, values: Any, dtype: np.dtype[Any]) -> AnyArray:
    """(n,) numbers or texts; None and NaN among texts, None among numbers stand for nothing.

    ``dtype`` is the parameter's; it decides only what nothing looks like.
    """
    column = np.asarray(values)
    if column.dtype.kind in "OT" or (dtype.kind == "U" and column.dtype.kind == "f"):
        nothing = "" if dtype.kind == "U" else np.nan
        items = column.tolist()
        column = np.asarray([nothing if x is None or x != x else x for x in items])
    if column.ndim != 1:
        raise ValueError(f"{name}: wanted one value a point, got shape {column.shape}")
    return column

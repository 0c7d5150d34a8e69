"""Layouts: names, dims, dtypes, shapes, coordinates and attributes of a result, as JSON.

``{"variables": {name: {"dims", "dtype", "shape", "attrs"}}, "coords": {name: {"dims", "dtype",
"shape", "attrs", "data"}}, "attrs": {...}}``; NaN is null, infinities are text, times are whole
numbers in the unit that their dtype names.
"""

from __future__ import annotations

import hashlib
import json
import math
import unicodedata
from collections.abc import Container, Mapping
from typing import Any

import numpy as np

from ensemblerl.records import AnyArray

LONGEST = 200
"""Bytes of a name; file systems take 255, and a prefix may come before it."""


class InvalidResult(ValueError):
    """A result that cannot be kept; says which variable, what was wanted and what came."""


def digest_of(layout: Mapping[str, Any]) -> str:
    """First 16 hex digits of the sha256 of variables and coordinates.

    The attributes of the whole result are left out: models write the date and the like there,
    and a layout is one for all members.
    """
    counted = {**layout, "attrs": {}}
    text = json.dumps(counted, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def check_name(name: Any) -> None:
    """Raises InvalidResult for what cannot be the name of a variable: a store makes files of it."""
    if not isinstance(name, str) or not _is_file_name(name):
        raise InvalidResult(
            f"variable {name!r}: wanted a name that is text of at most {LONGEST} bytes, without "
            f"'/', control characters or a leading '.', got {name!r} ({type(name).__name__})"
        )


def _is_file_name(name: str) -> bool:
    if not name or "/" in name or name.startswith("."):
        return False
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in name):
        return False
    return len(name.encode()) <= LONGEST


def own_dims(name: str, ndim: int, names: Container[str]) -> list[str]:
    """Dimensions of an array that came without, none of them the name of a variable.

    Examples
    --------
    >>> own_dims("x", 2, {"x", "x_0"})
    ['x_0_', 'x_1']
    """
    dims = [f"{name}_{i}" for i in range(ndim)]
    return [f"{dim}_" if dim in names else dim for dim in dims]


def plain(value: Any) -> Any:
    """An attribute as strict JSON; what JSON does not know becomes text."""
    if isinstance(value, np.generic | np.ndarray):
        array, value = np.asarray(value), value.tolist()
        if array.dtype.kind in "biu" or (array.dtype.kind == "f" and np.isfinite(array).all()):
            return value
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return value if isinstance(value, bool | int | float | str | type(None)) else str(value)


def coordinate(described: Mapping[str, Any], array: AnyArray) -> dict[str, Any]:
    """The entry of one coordinate: dims, dtype, shape, attrs, and the data."""
    data = array.astype("<i8") if array.dtype.kind in "Mm" else array
    return {**described, "data": plain(data)}


def coordinate_array(name: str, array: AnyArray) -> AnyArray:
    """A coordinate as little-endian numbers, times or text of fixed width.

    Raises
    ------
    InvalidResult
        when it holds neither numbers, times nor text
    """
    if array.dtype.kind in "OT" and all(isinstance(x, str) for x in array.flat):
        array = array.astype(np.str_)
    if array.dtype.kind not in "biufMmU" or array.dtype.char == "g":
        raise InvalidResult(
            f"coordinate {name!r}: wanted numbers, times or text, got {array.dtype} "
            "(a MultiIndex needs reset_index first)"
        )
    return array.astype(array.dtype.newbyteorder("<"), copy=False)

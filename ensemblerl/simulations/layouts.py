"""Layouts: names, dims, dtypes, shapes, coordinates and attributes of a result, as JSON.

``{"variables": {name: {"dims", "dtype", "shape", "attrs"}}, "coords": {name: {"dims", "dtype",
"shape", "attrs", "data"}}, "attrs": {...}}``; NaN is null, infinities are text, times are whole
numbers in the unit that their dtype names.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ensemblerl.records import AnyArray


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
    """Raises InvalidResult for what cannot be the name of a variable in a store."""
    if not isinstance(name, str) or not name or "/" in name or name.startswith("."):
        raise InvalidResult(
            f"variable {name!r}: wanted a name that is text, without '/' or a leading '.', "
            f"got {name!r} ({type(name).__name__})"
        )


def plain(value: Any) -> Any:
    """An attribute as strict JSON; what JSON does not know becomes text."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return value if isinstance(value, bool | int | float | str | type(None)) else str(value)


def coordinate(name: str, dims: tuple[Any, ...], values: Any, attrs: Any) -> dict[str, Any]:
    """The entry of one coordinate.

    Raises
    ------
    InvalidResult
        when it holds neither numbers, times nor text
    """
    array = _coordinate_array(name, np.asarray(values))
    data = array.astype("<i8") if array.dtype.kind in "Mm" else array
    return {
        "dims": [str(dim) for dim in dims],
        "dtype": array.dtype.str,
        "shape": list(array.shape),
        "attrs": plain(attrs),
        "data": plain(data),
    }


def _coordinate_array(name: str, array: AnyArray) -> AnyArray:
    if array.dtype.kind in "OT" and all(isinstance(x, str) for x in array.flat):
        array = array.astype(np.str_)
    if array.dtype.kind not in "biufMmU" or array.dtype.char == "g":
        raise InvalidResult(
            f"coordinate {name!r}: wanted numbers, times or text, got {array.dtype} "
            "(a MultiIndex needs reset_index first)"
        )
    return array.astype(array.dtype.newbyteorder("<"), copy=False)

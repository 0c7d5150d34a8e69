"""One value that a simulation returned: as an array, as a reference to a state, as text."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from ensemblerl.records import AnyArray
from ensemblerl.simulations.layouts import InvalidResult

WANTED = "wanted numbers (b, i, u, f, c)"
WIDEST = {16: "<f8", 32: "<c16"}


def state_of(result: Any) -> str:
    """The reference under ``"state"`` of a result as the simulation returned it, or ""."""
    if isinstance(result, xarray_classes()):
        state = getattr(result, "attrs", {}).get("state", "")
    else:
        state = result.get("state", "") if isinstance(result, Mapping) else ""
    return os.fspath(state) if isinstance(state, str | os.PathLike) else ""


def as_array(name: str, value: Any) -> AnyArray:
    """One variable as little-endian, C-contiguous numbers."""
    if type(value) is float:
        return np.array(value)
    if isinstance(value, bool | int | float | np.floating | np.integer | np.bool_):
        return np.array(_float(name, value))
    try:
        array = np.asarray(value.filled(np.nan) if isinstance(value, np.ma.MaskedArray) else value)
    except Exception as error:
        raise InvalidResult(f"variable {name!r}: {WANTED}, got {short(value)}: {error}") from error
    kind = array.dtype.kind
    if kind not in "biufc":
        raise InvalidResult(f"variable {name!r}: {WANTED}, got {short(value)}")
    width = WIDEST.get(array.dtype.itemsize) if kind in "fc" else None
    if width and array.dtype.char in "gG":
        return np.asarray(array, dtype=width, order="C")
    return np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")


def _float(name: str, value: Any) -> float:
    try:
        return float(value)
    except OverflowError as error:
        raise InvalidResult(
            f"variable {name!r}: wanted a number that float64 can hold, got a larger one"
        ) from error


def xarray_classes() -> tuple[type, ...]:
    """What xarray's results are made of; nothing where nobody imported xarray."""
    xarray: Any = sys.modules.get("xarray")
    try:
        return xarray.Dataset, xarray.DataArray, xarray.Variable
    except AttributeError:  # not there, or another thread is just importing it
        return ()


def short(value: Any) -> str:
    """A value and its type, for a message."""
    value = value.item() if isinstance(value, np.ndarray) and not value.ndim else value
    text = repr(value)
    text = text if len(text) <= 60 else text[:57] + "..."
    return f"{text} ({type(value).__name__})"

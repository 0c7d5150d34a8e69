"""Whatever a simulation returns, as named arrays and the layout that tells how to read them."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from ensemblerl.records import AnyArray
from ensemblerl.simulations.layouts import InvalidResult, check_name, digest_of

WANTED = "wanted numbers (b, i, u, f, c)"
WIDEST = {16: "<f8", 32: "<c16"}
Key = tuple[tuple[str, str, tuple[int, ...]], ...]


class Normal(NamedTuple):
    """A result in its normal form.

    Parameters
    ----------
    arrays : name -> array, sorted by name, little-endian and C-contiguous
    layout : see `ensemblerl.simulations.layouts`; shared between results, not to be written to
    digest : 16 hex digits that tell layouts apart
    state : reference to what the member leaves for its children, or ""
    """

    arrays: dict[str, AnyArray]
    layout: dict[str, Any]
    digest: str
    state: str = ""


def normalise(reduced: Any, *, max_bytes: int) -> Normal:
    """Take a number, an array, a mapping of them, a DataArray or a Dataset.

    Python numbers become float64 (so that 1 and 1.0 are one layout), arrays keep their dtype.

    Raises
    ------
    InvalidResult
        naming the variable, what was wanted and what came
    """
    if type(reduced) is float:
        return Normal({"value": np.array(reduced)}, *_plain((("value", "<f8", ()),)))
    if isinstance(reduced, _classes()):
        from ensemblerl.simulations.datasets import from_xarray

        normal = Normal(*from_xarray(reduced))
    else:
        normal = _from_mapping(reduced if isinstance(reduced, Mapping) else {"value": reduced})
    _weigh(normal.arrays, max_bytes)
    return normal


def state_of(result: Any) -> str:
    """The reference under ``"state"`` of a result as the simulation returned it, or ""."""
    if isinstance(result, _classes()):
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
        raise InvalidResult(f"variable {name!r}: {WANTED}, got {_short(value)}: {error}") from error
    kind = array.dtype.kind
    if kind not in "biufc":
        raise InvalidResult(f"variable {name!r}: {WANTED}, got {_short(value)}")
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


def _from_mapping(mapping: Mapping[str, Any]) -> Normal:
    state = state_of(mapping) if "state" in mapping else ""
    names = [name for name in mapping if not (state and name == "state")]
    if not names:
        raise InvalidResult(f"the result is empty: {WANTED} under names, got {_short(mapping)}")
    theirs = _classes()
    if any(isinstance(mapping[name], theirs) for name in names):
        from ensemblerl.simulations.datasets import from_mixed

        return Normal(*from_mixed({name: mapping[name] for name in names}), state)
    if not all(isinstance(name, str) for name in names):
        check_name(next(name for name in names if not isinstance(name, str)))
    arrays = {name: as_array(name, mapping[name]) for name in sorted(names)}
    key = tuple((name, array.dtype.str, array.shape) for name, array in arrays.items())
    return Normal(arrays, *_plain(key), state)


@lru_cache(maxsize=256)
def _plain(key: Key) -> tuple[dict[str, Any], str]:
    """Layout and digest of arrays without coordinates."""
    for name, _, _ in key:
        check_name(name)
    variables = {
        name: {
            "dims": [f"{name}_{i}" for i in range(len(shape))],
            "dtype": dtype,
            "shape": list(shape),
            "attrs": {},
        }
        for name, dtype, shape in key
    }
    layout = {"variables": variables, "coords": {}, "attrs": {}}
    return layout, digest_of(layout)


def _weigh(arrays: Mapping[str, AnyArray], max_bytes: int) -> None:
    total = sum(array.nbytes for array in arrays.values())
    if total > max_bytes:
        name = max(arrays, key=lambda name: arrays[name].nbytes)
        raise InvalidResult(
            f"variable {name!r}: wanted a result of at most {max_bytes} bytes "
            f"(max_result_bytes), got {total} bytes, {arrays[name].nbytes} of them here; reduce "
            "it on the worker with the goal's keep=..., return less, or raise max_result_bytes"
        )


def _classes() -> tuple[type, ...]:
    """What xarray's results are made of; nothing where nobody imported xarray."""
    xarray: Any = sys.modules.get("xarray")
    try:
        return xarray.Dataset, xarray.DataArray, xarray.Variable
    except AttributeError:  # not there, or another thread is just importing it
        return ()


def _short(value: Any) -> str:
    value = value.item() if isinstance(value, np.ndarray) and not value.ndim else value
    text = repr(value)
    text = text if len(text) <= 60 else text[:57] + "..."
    return f"{text} ({type(value).__name__})"

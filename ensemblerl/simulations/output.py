"""Whatever a simulation returns, as named arrays and the layout that tells how to read them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from ensemblerl.records import AnyArray
from ensemblerl.simulations.layouts import InvalidResult, check_name, digest_of, own_dims
from ensemblerl.simulations.values import WANTED, as_array, short, state_of, xarray_classes

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
    if isinstance(reduced, xarray_classes()):
        from ensemblerl.simulations.datasets import from_xarray

        normal = Normal(*from_xarray(reduced))
    else:
        normal = _from_mapping(reduced if isinstance(reduced, Mapping) else {"value": reduced})
    _weigh(normal.arrays, max_bytes)
    return normal


def _from_mapping(mapping: Mapping[str, Any]) -> Normal:
    state = state_of(mapping) if "state" in mapping else ""
    names = [name for name in mapping if not (state and name == "state")]
    if not names:
        raise InvalidResult(f"the result is empty: {WANTED} under names, got {short(mapping)}")
    theirs = xarray_classes()
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
    names = {name for name, _, _ in key}
    for name in names:
        check_name(name)
    variables = {
        name: {
            "dims": own_dims(name, len(shape), names),
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

"""Results that are xarray's: Datasets, DataArrays, and mappings that hold some."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import xarray as xr

from ensemblerl.names import uncoded
from ensemblerl.records import AnyArray
from ensemblerl.simulations.layouts import (
    InvalidResult,
    check_name,
    coordinate,
    coordinate_array,
    digest_of,
    own_dims,
    plain,
)
from ensemblerl.simulations.values import as_array, state_of

Parts = tuple[dict[str, AnyArray], dict[str, Any], str]


def from_xarray(result: Any) -> tuple[dict[str, AnyArray], dict[str, Any], str, str]:
    """(arrays, layout, digest, state) of a Dataset, DataArray or Variable."""
    return *_parts(_dataset(result)), state_of(result)


def from_mixed(mapping: Mapping[str, Any]) -> Parts:
    """(arrays, layout, digest) of a mapping some values of which are xarray's."""
    try:
        return _parts(_mixed(mapping))
    except InvalidResult:
        raise
    except Exception as error:
        raise InvalidResult(f"variables {sorted(map(str, mapping))}: {error}") from error


def _mixed(mapping: Mapping[str, Any]) -> xr.Dataset:
    theirs = xr.DataArray | xr.Variable
    variables: dict[str, Any] = {n: v for n, v in mapping.items() if isinstance(v, theirs)}
    for name in (name for name in mapping if name not in variables):
        array = as_array(name, mapping[name])
        variables[name] = own_dims(name, array.ndim, mapping), array
    return xr.Dataset(variables)


def _dataset(result: Any) -> xr.Dataset:
    if isinstance(result, xr.Dataset):
        return result
    array = xr.DataArray(result) if isinstance(result, xr.Variable) else result
    try:
        return array.to_dataset(name=array.name if array.name is not None else "value")
    except ValueError as error:
        raise InvalidResult(f"variable {array.name!r}: {error}") from error


def _parts(dataset: xr.Dataset) -> Parts:
    if "member" in dataset.dims or "member" in dataset.coords:
        raise InvalidResult("dimension 'member': wanted another name, this one is the ensemble's")
    if not dataset.data_vars:
        raise InvalidResult("the Dataset is empty: wanted at least one variable")
    for name in dataset.variables:
        check_name(name)
    names = sorted(map(str, dataset.data_vars))
    arrays = {name: as_array(name, dataset[name].values) for name in names}
    layout, digest = _layout(dataset, arrays)
    attrs = {name: value for name, value in uncoded(dataset.attrs).items() if name != "state"}
    return arrays, {**layout, "attrs": plain(attrs)}, digest


def _layout(dataset: xr.Dataset, arrays: Mapping[str, AnyArray]) -> tuple[dict[str, Any], str]:
    """Layout, without the attributes of the whole, and digest.

    A million numbers of a coordinate take a second to become JSON, and are mostly those of the
    last result: what was built is found again by a hash of the bytes.
    """
    variables = {name: _described(dataset[name].variable, a) for name, a in arrays.items()}
    coords = {
        str(name): (c.variable, coordinate_array(str(name), np.asarray(c.values)))
        for name, c in sorted(dataset.coords.items(), key=lambda item: str(item[0]))
    }
    described = {name: _described(*coord) for name, coord in coords.items()}
    key = hashlib.blake2b(json.dumps([variables, described]).encode(), digest_size=32)
    for _, array in coords.values():
        key.update(array.tobytes())
    slot = _slot(key.digest())
    if not slot:
        filled = {name: coordinate(described[name], array) for name, (_, array) in coords.items()}
        layout = {"variables": variables, "coords": filled, "attrs": {}}
        slot.append((layout, digest_of(layout)))
    return slot[0]


def _described(variable: xr.Variable, array: AnyArray) -> dict[str, Any]:
    """Dims, dtype, shape and attributes; xarray decoded the values, so none that it decodes by."""
    attrs = uncoded(variable.attrs)
    if array.dtype.kind in "Mm":  # their units stand in the dtype
        attrs = {name: value for name, value in attrs.items() if name not in ("units", "bounds")}
    return {
        "dims": [str(dim) for dim in variable.dims],
        "dtype": array.dtype.str,
        "shape": list(array.shape),
        "attrs": plain(attrs),
    }


@lru_cache(maxsize=16)
def _slot(key: bytes) -> list[tuple[dict[str, Any], str]]:
    """A place to keep what was built for this key: a cache that threads may share."""
    return []

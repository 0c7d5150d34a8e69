"""Results that are xarray's: Datasets, DataArrays, and mappings that hold some."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import xarray as xr

from ensemblerl.records import AnyArray
from ensemblerl.simulations.layouts import InvalidResult, check_name, coordinate, digest_of, plain
from ensemblerl.simulations.values import as_array, state_of

Parts = tuple[dict[str, AnyArray], dict[str, Any], str]


def from_xarray(result: Any) -> tuple[dict[str, AnyArray], dict[str, Any], str, str]:
    """(arrays, layout, digest, state) of a Dataset, DataArray or Variable."""
    return *_parts(_dataset(result)), state_of(result)


def from_mixed(mapping: Mapping[str, Any]) -> Parts:
    """(arrays, layout, digest) of a mapping some values of which are xarray's."""
    try:
        return _parts(xr.Dataset({name: _variable(name, v) for name, v in mapping.items()}))
    except InvalidResult:
        raise
    except Exception as error:
        raise InvalidResult(f"variables {sorted(map(str, mapping))}: {error}") from error


def _variable(name: str, value: Any) -> Any:
    if isinstance(value, xr.DataArray | xr.Variable):
        return value
    array = as_array(name, value)
    return tuple(f"{name}_{i}" for i in range(array.ndim)), array


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
    arrays, variables = {}, {}
    for name in sorted(map(str, dataset.data_vars)):
        variable = dataset[name].variable
        array = arrays[name] = as_array(name, variable.values)
        variables[name] = {
            "dims": [str(dim) for dim in variable.dims],
            "dtype": array.dtype.str,
            "shape": list(array.shape),
            "attrs": plain(variable.attrs),
        }
    coords = {
        str(name): coordinate(str(name), c.dims, c.values, c.attrs)
        for name, c in sorted(dataset.coords.items(), key=lambda item: str(item[0]))
    }
    attrs = {key: value for key, value in dataset.attrs.items() if key != "state"}
    layout = {"variables": variables, "coords": coords, "attrs": plain(attrs)}
    return arrays, layout, digest_of(layout)

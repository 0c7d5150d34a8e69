"""``xr.open_dataset(path, engine="ensemblerl")``, and files to hand on."""

from __future__ import annotations

import json
import os
from collections.abc import Container, Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends import BackendEntrypoint

from ensemblerl.report import accessor as accessor
from ensemblerl.store.dataset import read_dataset
from ensemblerl.store.reading import is_store
from ensemblerl.store.reading import read_ledger as read_ledger

_ENGINES = {"netcdf4": ("netCDF4",), "h5netcdf": ("h5netcdf", "h5py"), "scipy": ()}
"""What can write NetCDF, the best first, and the packages it needs."""


class EnsembleBackend(BackendEntrypoint):
    """Opens the directory of a campaign, also while it runs."""

    description = "Open the store of an EnsembleRL campaign, also while it runs"
    open_dataset_parameters = ("filename_or_obj", "drop_variables")

    def open_dataset(
        self, filename_or_obj: Any, *, drop_variables: str | Iterable[str] | None = None
    ) -> xr.Dataset:
        """The campaign as it stands; results are read when they are used."""
        dataset = read_dataset(Path(filename_or_obj))
        dropped = [drop_variables] if isinstance(drop_variables, str) else drop_variables
        return dataset.drop_vars(list(dropped or ()), errors="ignore")

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Whether this is the directory of a campaign."""
        return isinstance(filename_or_obj, str | os.PathLike) and is_store(filename_or_obj)


def open_store(path: str | os.PathLike[str]) -> xr.Dataset:
    """The campaign in this directory as one Dataset, lazily, also while it runs.

    Raises
    ------
    StoreError, StoreFormatError
        where there is no store, or one of another format
    """
    return xr.open_dataset(os.fspath(path), engine=EnsembleBackend)


def export_netcdf(
    source: str | os.PathLike[str] | xr.Dataset, target: str | os.PathLike[str]
) -> Path:
    """Write a campaign, or a Dataset opened from one, to one NetCDF file.

    Parameters
    ----------
    source : directory of a store, or a Dataset
    target : file to write

    Returns
    -------
    pathlib.Path
        ``target``
    """
    dataset = source if isinstance(source, xr.Dataset) else open_store(source)
    engine = next(e for e, needs in _ENGINES.items() if all(map(find_spec, needs)))
    ready = dataset.drop_encoding().load()
    taken = {*map(str, ready.variables), *map(str, ready.dims)}
    ready = ready.assign(
        {
            name: v
            for key in ready.data_vars
            for name, v in _parts(str(key), ready[key].variable, taken)
        }
    ).drop_vars([name for name, v in ready.data_vars.items() if v.dtype.kind == "c"])
    ready = ready.assign_coords({name: _portable(v.variable) for name, v in ready.coords.items()})
    ready.attrs = _attrs(ready.attrs)
    ready.to_netcdf(target, engine=engine)  # type: ignore[call-overload]
    return Path(target)


def _parts(
    name: str, variable: xr.Variable, taken: Container[str]
) -> list[tuple[str, xr.Variable]]:
    """Complex numbers as two variables: NetCDF knows none. Names that are taken get more ``_``."""
    if variable.dtype.kind != "c":
        return [(name, _portable(variable))]
    while f"{name}_real" in taken or f"{name}_imag" in taken:
        name += "_"
    return [(f"{name}_real", _portable(variable.real)), (f"{name}_imag", _portable(variable.imag))]


def _portable(variable: xr.Variable) -> xr.Variable:
    """Text as Python strings, times as seconds, attributes as NetCDF has them."""
    out = variable.copy(deep=False)
    if out.dtype.kind in "TU":
        out = out.astype(object)
    out.attrs = _attrs(variable.attrs)
    if out.dtype.kind == "M":
        out.encoding = {"units": "seconds since 1970-01-01", "dtype": "float64"}
    return out


def _attrs(attrs: Mapping[Any, Any]) -> dict[str, Any]:
    """What NetCDF has no attribute for, as JSON text; nothing for None."""
    return {str(k): _attr(v) for k, v in attrs.items() if v is not None}


def _attr(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    flat = isinstance(value, list) and value and len({type(v) for v in value}) == 1
    if isinstance(value, str | int | float | np.ndarray | np.generic):
        return value
    if flat and isinstance(value[0], str | int | float) and not isinstance(value[0], bool):
        return value
    return json.dumps(value, default=str)

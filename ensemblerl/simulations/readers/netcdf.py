"""Variables of a netCDF file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ensemblerl.simulations.readers.base import Reader, named

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True)
class NetCDF(Reader):
    """A netCDF file as `xarray.load_dataset` reads it, dims, coordinates and units with it.

    Files of version 4 need the package h5netcdf or netCDF4.

    Parameters
    ----------
    path : of the file in the working directory
    variables : variable -> name in the file; or a list of names; None: all variables

    Raises
    ------
    ValueError
        for an argument that is none of these
    """

    variables: Mapping[str, str] | Sequence[str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "variables", named("variables", self.variables))

    def __call__(self, directory: Path) -> xr.Dataset:
        """The Dataset, in memory; InvalidResult where the file does not hold it."""
        import xarray as xr

        path = self.file(directory)
        try:
            dataset = xr.load_dataset(path)
        except MemoryError:
            raise
        except Exception as error:  # each library underneath has errors of its own
            size = path.stat().st_size
            raise self.refuse("netCDF", f"{size} bytes that cannot be read: {error}") from error
        if not isinstance(self.variables, Mapping):
            return dataset
        for name in self.variables.values():
            if name not in dataset.data_vars:
                there = ", ".join(map(str, dataset.data_vars)) or "none"
                raise self.refuse(f"a variable {name!r}", f"variables {there}")
        return xr.Dataset(
            {variable: dataset[name] for variable, name in self.variables.items()},
            attrs=dataset.attrs,
        )

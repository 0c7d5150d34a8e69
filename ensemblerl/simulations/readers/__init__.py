"""Readers for `Command`: from the files that a program left behind to named numbers and arrays.

* `Json`: numbers and arrays of a JSON document
* `Csv`: columns of a table of text
* `NetCDF`: variables of a netCDF file, with dims, coordinates and units
* `Regex`: numbers from a log

A callable does as well: it gets the working directory, a `pathlib.Path`, and returns a mapping.
"""

from ensemblerl.simulations.readers.csv import Csv
from ensemblerl.simulations.readers.json import Json
from ensemblerl.simulations.readers.netcdf import NetCDF
from ensemblerl.simulations.readers.regex import Regex

__all__ = ["Csv", "Json", "NetCDF", "Regex"]


def __dir__() -> list[str]:
    return __all__

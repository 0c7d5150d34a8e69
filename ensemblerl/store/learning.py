"""What learners told of their lessons, as one Dataset."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemblerl.records import AnyArray
from ensemblerl.store.codec import number
from ensemblerl.store.kept import EVENTS, of_store
from ensemblerl.store.reading import read_provenance
from ensemblerl.store.telemetry import read_rows

if TYPE_CHECKING:
    import xarray as xr

DIM = "lesson"
KEPT = "learning"
"""Entry of ``Dataset.encoding`` with the rows, where the Dataset is to outlive the store."""
_COORDS = ("version", "time", "proposer")
_SPELT = {"Infinity", "-Infinity"}
_ABOUT: dict[str, tuple[str, str]] = {
    "version": ("version of the policy", "1"),
    "time": ("when the driver was told", "seconds since 1970-01-01"),
    "proposer": ("sampler that learnt", ""),
    "n_events": ("events of the campaign before", "1"),
    "loss": ("loss of the learner", "1"),
    "entropy": ("entropy of the policy relative to the prior", "nat"),
    "ess": ("effective sample size", "1"),
    "temperature": ("temperature alpha, in units of the utility", "1"),
    "clipped": ("share of the ratios that were clipped", "1"),
    "norm": ("norm of the gradient", "1"),
    "n_settled": ("members settled before", "1"),
    "n_pending": ("members on their way", "1"),
    "best_reward": ("largest reward so far", "1"),
    "goal_temperature": ("temperature that the goal asks for, in units of the utility", "1"),
    "lag": ("versions published between draw and lesson, mean over the new results", "1"),
    "lag_counts": (
        "new results by lag in versions: 0, 1, 2-3, 4-7, 8-15, 16-31, 32-63, 64 and more",
        "1",
    ),
    "log_Z": ("estimate of the log of the target's normalising constant", "nat"),
    "return": ("mean soft return", "1"),
    "critic": ("loss of the critic", "1"),
    "ratio": ("mean ratio of policy to behaviour", "1"),
}
"""long_name and units of rows' entries; what is not here is named by its own words."""


def read(path: str | os.PathLike[str]) -> xr.Dataset:
    """What learners told of their lessons, as it stands; also while the campaign runs.

    Parameters
    ----------
    path : directory of the store

    Returns
    -------
    xarray.Dataset
        dim ``lesson``, coordinates ``version``, ``time``, ``proposer``; NaN or "" where a row says
        nothing; entries that are lists have a second dim, ``<name>_bin``

    Raises
    ------
    ValueError
        when no agent learnt in this campaign
    StoreError, StoreFormatError
        where there is no store, or one of another format
    """
    root = Path(path)
    read_provenance(root)
    rows = list(read_rows(root))
    if not rows:
        raise ValueError(f"{root}: no agent learnt in this campaign")
    return dataset(rows)


def dataset(rows: list[dict[str, Any]]) -> xr.Dataset:
    """The rows as columns along ``lesson``."""
    import xarray as xr

    names = dict.fromkeys(name for row in rows for name in row)
    data = {name: _variable(name, [row.get(name) for row in rows]) for name in names}
    row = xr.Variable(DIM, np.arange(len(rows)), {"long_name": "row of the telemetry"})
    ends = {name: data.pop(name) for name in _COORDS if name in data}
    return xr.Dataset(data, {DIM: row, **ends})


def _variable(name: str, values: list[Any]) -> xr.Variable:
    import xarray as xr

    long_name, units = _ABOUT.get(name, (name.replace("_", " "), "1"))
    column = _column(values)
    attrs = {"long_name": long_name, "units": units}
    if column.dtype.kind == "U" or not units:
        del attrs["units"]
    variable = xr.Variable((DIM, f"{name}_bin")[: column.ndim], column, attrs)
    return xr.conventions.decode_cf_variable(name, variable) if name == "time" else variable


def _column(values: list[Any]) -> AnyArray:
    """(n,) or (n, longest list) of numbers, or (n,) text."""
    if any(isinstance(v, str) and v not in _SPELT for v in values):
        return np.array(["" if v is None else str(v) for v in values], dtype=np.str_)
    if any(isinstance(v, list) for v in values):
        lists = [v if isinstance(v, list) else [] if v is None else [v] for v in values]
        table = np.full((len(lists), max(map(len, lists))), np.nan)
        for row, entries in zip(table, lists, strict=True):
            row[: len(entries)] = [number(v) for v in entries]
        return table
    if all(isinstance(v, int) for v in values):
        return np.array(values)
    return np.array([number(v) for v in values], dtype=np.float64)


def in_memory(ds: xr.Dataset) -> xr.Dataset:
    """A Dataset opened from a store, in memory with telemetry and events: the store may go."""
    out, root = ds.load(), Path(ds.encoding["source"])
    out.encoding[KEPT] = list(read_rows(root))
    out.encoding[EVENTS] = of_store(root)
    return out

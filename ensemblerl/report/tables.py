"""The members of a campaign as tables: the best, the failures, all of them."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from ensemblerl.names import COLUMNS
from ensemblerl.records import AnyArray, Fate, IntArray

if TYPE_CHECKING:
    import pandas as pd

MEMBER = "member"
_FIRST = ("reward", "fate", "cause", "attempt", "runtime", "launch_time", "start_time", "end_time")


def column(ds: xr.Dataset, name: str) -> AnyArray:
    """(n,) one of the columns that every campaign has.

    Raises
    ------
    ValueError
        when the Dataset has no such column
    """
    if name not in ds.variables:
        there = ", ".join(map(str, ds.variables)) or "nothing"
        raise ValueError(f"ds: wanted a campaign's Dataset with {name!r} in it, there is: {there}")
    return np.atleast_1d(ds[name].values)


def members(ds: xr.Dataset) -> xr.Dataset:
    """The Dataset with its dimension ``member``, also where it is of one member.

    Raises
    ------
    ValueError
        when it has no members
    """
    column(ds, MEMBER)
    return ds if MEMBER in ds.dims else ds.expand_dims(MEMBER)


def settled(ds: xr.Dataset) -> set[int]:
    """Numbers of the members that the Dataset holds as settled."""
    numbers = column(ds, MEMBER)
    return {int(i) for i in numbers[column(ds, "fate") != Fate.pending]}


def ranked(ds: xr.Dataset) -> IntArray:
    """Rows of the ok members that can be the answer (not those that violate a constraint), best
    first; of equals the one with the lowest number first.
    """
    reward = column(ds, "reward").astype(np.float64)
    rows = np.flatnonzero((column(ds, "fate") == Fate.ok) & np.isfinite(reward))
    order = np.lexsort((column(ds, MEMBER)[rows], -reward[rows]))
    return np.asarray(rows[order], dtype=np.int64)


def best(ds: xr.Dataset, n: int) -> xr.Dataset:
    """See `ensemblerl.report.accessor.Erl.best`."""
    from ensemblerl.report.answers import answering
    from ensemblerl.resolve import whole

    n, ds = whole("n", n), members(ds)
    rows = ranked(ds)
    if not len(rows):
        if n_ok := np.count_nonzero(column(ds, "fate") == Fate.ok):
            raise ValueError(
                f"ds: wanted a member that keeps to the goal's constraints, none of {n_ok} ok "
                "members does; ds.erl.answer() says how many violate which"
            )
        raise ValueError(
            f"ds: wanted a member that is ok, none of {ds.sizes[MEMBER]} is; "
            "ds.erl.failures() says why"
        )
    return ds.isel({MEMBER: answering(ds, rows, once=True)[:n]})


def parameters(ds: xr.Dataset) -> list[str]:
    """Names of the parameters in the Dataset: its numbered coordinates but for the number."""
    coords = [str(name) for name in ds.coords if ds[name].dims in ((MEMBER,), ())]
    known = space_names(ds)
    return [name for name in coords if (name in known if known else name not in COLUMNS)]


def space_names(ds: xr.Dataset) -> list[str]:
    """Names of the parameters as the space in the attributes has them, none without."""
    return list(json.loads(ds.attrs["space"])["order"]) if "space" in ds.attrs else []


def failures(ds: xr.Dataset) -> pd.DataFrame:
    """See `ensemblerl.report.accessor.Erl.failures`."""
    ds = members(ds)
    fate = column(ds, "fate")
    part = ds.isel({MEMBER: np.flatnonzero((fate != Fate.ok) & (fate != Fate.pending))})
    sources = {"fate": "fate", "cause": "cause", "attempts": "attempt"}
    taken = {name: f"parameter_{name}" for name in sources}
    return _frame(part, sources | {taken.get(name, name): name for name in parameters(ds)})


def to_dataframe(ds: xr.Dataset) -> pd.DataFrame:
    """See `ensemblerl.report.accessor.Erl.to_dataframe`."""
    ds = members(ds)
    first = parameters(ds)
    rest = [str(name) for name, v in ds.variables.items() if v.dims == (MEMBER,)]
    results = [name for name in rest if name not in COLUMNS and not name.startswith("note_")]
    names = dict.fromkeys([*first, *results, *(n for n in _FIRST if n in rest), *rest])
    frame = _frame(ds, {name: name for name in names if name != MEMBER})
    frame.attrs["left_out"] = _dims(ds, (n for n in ds.data_vars if ds[n].dims != (MEMBER,)))
    return frame


def _dims(ds: xr.Dataset, names: Iterable[Hashable]) -> dict[str, list[str]]:
    return {str(n): [str(d) for d in ds[n].dims if d != MEMBER] for n in names if ds[n].dims}


def _frame(ds: xr.Dataset, sources: Mapping[str, str]) -> pd.DataFrame:
    """A table of ``sources``, column -> name in the Dataset; units stand in its attributes."""
    import pandas as pd

    index = pd.Index(column(ds, MEMBER), name=MEMBER)
    out = pd.DataFrame({name: column(ds, source) for name, source in sources.items()}, index)
    units = {name: ds[source].attrs.get("units") for name, source in sources.items()}
    out.attrs["units"] = {name: text for name, text in units.items() if text is not None}
    return out

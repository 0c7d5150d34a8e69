"""Names that are taken: by the dataset, the store's files, a simulation's call, and by xarray."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

COLUMNS = (
    *("member", "reward", "fate", "cause", "runtime", "worker", "attempt", "log_prob"),
    *("policy_version", "proposer", "launch_time", "start_time", "end_time", "seed", "group"),
    *("cycle", "task", "fidelity", "parent", "state", "left_state", "simulation_version"),
)
"""What the dataset says of every member, beside parameters and results."""

FILES = (
    *("campaign.json", "ledger.jsonl", "lock", "segments", "compacted.json", "zarr.json"),
    *("checkpoint.npz", "learning.jsonl", "policy", "warm_start.npz"),
)
"""What lies in the directory of a store, beside one directory a variable."""

RESERVED = frozenset([*COLUMNS, *filter(str.isidentifier, FILES), "point", "constraints", "start"])
"""Names no parameter may have."""

CODED = frozenset(
    [
        *("_FillValue", "missing_value", "scale_factor", "add_offset", "_Unsigned", "_Encoding"),
        *("dtype", "calendar", "coordinates"),
    ]
)
"""Attributes by which xarray takes the numbers of a file for something else (CF, chapter 8)."""


def uncoded(attrs: Mapping[Any, Any]) -> dict[Any, Any]:
    """The attributes of numbers that mean what they are: none that xarray decodes by.

    Examples
    --------
    >>> uncoded({"units": "m", "scale_factor": 0.1, "long_name": "depth"})
    {'units': 'm', 'long_name': 'depth'}
    >>> uncoded({"units": "days since 2000-01-01", "calendar": "noleap"})
    {}
    """
    out = {name: value for name, value in attrs.items() if name not in CODED}
    if "since" in str(out.get("units", "")):  # that is how xarray knows a time
        del out["units"]
    return out

"""What a store says about where its campaign came from, and what may not change on resume."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ensemblerl.protocols import Goal, Sampler, Simulation
from ensemblerl.space import Space

PACKAGES = ("ensemblerl", "numpy", "scipy", "xarray", "zarr", "dask", "distributed", "torch")


class Mismatch(ValueError):
    """The store was made for another space, goal or seed."""


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that matter, without importing them."""
    out = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            out[name] = version(name)
        except PackageNotFoundError:
            continue
    return out


def provenance(
    simulation: Simulation,
    space: Space,
    goal: Goal,
    sampler: Sampler,
    *,
    seed: int,
    tags: Mapping[str, str] | None = None,
    warm_start: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The provenance of a new campaign: JSON."""
    begun = {} if warm_start is None else {"warm_start": dict(warm_start)}
    return {
        **begun,
        "space": space.to_json(),
        "goal": {**goal.describe(), "k": goal.k},
        "sampler": sampler.describe(),
        "simulation": simulation.describe(),
        "seed": seed,
        "versions": versions(),
        "command_line": sys.argv,
        "python": sys.executable,
        "host": platform.node(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "tags": dict(tags or {}),
    }


def changes(before: Any, now: Any, path: str = "") -> list[str]:
    """Where two JSON values differ, a line each.

    Examples
    --------
    >>> changes({"a": 1, "b": 2}, {"a": 1, "b": 3})
    ['b: 2 in the store, 3 now']
    """
    if isinstance(before, dict) and isinstance(now, dict):
        out = []
        for key in dict.fromkeys([*before, *now]):
            inner = f"{path}.{key}" if path else str(key)
            if key not in now or key not in before:
                out.append(f"{inner}: only {'now' if key in now else 'in the store'}")
            else:
                out += changes(before[key], now[key], inner)
        return out
    return [] if before == now else [f"{path}: {before!r} in the store, {now!r} now"]


def check_same(path: str, kept: Mapping[str, Any], space: Space, goal: Goal) -> None:
    """Refuse another space or goal.

    Raises
    ------
    Mismatch
        naming what differs and how to go on
    """
    now = json.loads(json.dumps({"space": space.to_json(), "goal": goal.describe()}))
    before = {
        "space": kept["space"],
        "goal": {key: value for key, value in kept["goal"].items() if key != "k"},
    }
    now["goal"].pop("k", None)
    if differing := changes(before, now):
        lines = "\n  ".join(differing)
        raise Mismatch(
            f"store: {path} holds a campaign with another space or goal:\n  {lines}\n"
            "Give another store=, or start a new campaign from its data with "
            f"erl.fork({path!r}, 'NEW PATH', space=..., goal=...)."
        )

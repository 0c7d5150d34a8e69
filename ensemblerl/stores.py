"""Stores that are already there: open one, run one of its members again."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ensemblerl.simulations.function import as_simulation
from ensemblerl.space import Space
from ensemblerl.store.backend import open_store
from ensemblerl.store.reading import read_ledger

if TYPE_CHECKING:
    import xarray as xr


def open(path: str | Path) -> xr.Dataset:
    """The campaign in a store as one Dataset, lazily; complete also while it is being run.

    Parameters
    ----------
    path : directory of the store

    Returns
    -------
    xarray.Dataset
        as from `ensemblerl.explore`
    """
    return open_store(path)


def rerun(path: str | Path, member: int, *, simulation: Any = None) -> Any:
    """Run one member again, here and now, with its own point and seed; the store is not changed.

    Parameters
    ----------
    path : directory of the store
    member : its number
    simulation : found by the module and name in the store when None

    Returns
    -------
    object
        what the simulation returns

    Raises
    ------
    ValueError
        for a member that is not there, or a simulation that cannot be imported by its name
    """
    ledger, kept = read_ledger(path)
    if not 0 <= member < ledger.n:
        raise ValueError(f"member: wanted a number below {ledger.n}, got {member!r}")
    space = Space.from_json(kept["space"])
    run = as_simulation(simulation if simulation is not None else imported(kept["simulation"]))
    members = ledger.members([member], space.to_points)
    point = space.point(members.points, 0)
    about = {
        name: int(getattr(members, name)[0])
        for name in ("number", "attempt", "group", "cycle", "task", "fidelity", "parent")
    }
    return run(point, seed=int(members.seed[0]), member=about | {"state": str(members.state[0])})


def imported(described: dict[str, Any]) -> Any:
    """The simulation by its module and name.

    Raises
    ------
    ValueError
        when it stands in a script or inside a function, where no import finds it
    """
    module, name = described.get("module", ""), described.get("name", "")
    if module in ("", "__main__") or "<" in name:
        raise ValueError(
            f"simulation: {name!r} of {module or 'nowhere'!r} cannot be imported; give it as "
            "simulation="
        )
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"simulation: {module}.{name} cannot be imported ({error}); give it as simulation="
        ) from error
    return found

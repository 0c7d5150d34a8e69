"""Where Dask's scheduler is to listen, checked in words of our arguments before it starts."""

from __future__ import annotations

import importlib.util

from ensemblerl.cluster.interfaces import interfaces
from ensemblerl.cluster.settings import Settings, configured


def check_interface(settings: Settings) -> None:
    """Make sure that the scheduler can use the interface that the jobs are to use.

    Raises
    ------
    ValueError
        for one that this machine does not have
    """
    theirs = configured(settings.scheduler, "scheduler-options") or {}
    if settings.host is not None or {"host", "interface"} & theirs.keys():
        return  # then the interface is the jobs' affair alone
    name, names = _interface(settings), [interface.name for interface in interfaces()]
    if name is not None and name not in names:
        raise ValueError(
            f"interface: wanted one of this machine ({_listed(names)}), for the Dask scheduler "
            f"uses it as well as the jobs; got {name!r}. Where only nodes have it, give host= "
            "besides: the address by which they reach this machine"
        )


def check_dashboard(settings: Settings) -> None:
    """Make sure that a dashboard that is asked for can be drawn.

    Raises
    ------
    ValueError
        without bokeh
    """
    if settings.dashboard is not False and importlib.util.find_spec("bokeh") is None:
        raise ValueError(
            f"dashboard: wanted bokeh beside dashboard={settings.dashboard!r}, it is not "
            "installed here: pip install bokeh, or leave dashboard= out"
        )


def unreachable(settings: Settings, error: Exception) -> Exception:
    """What to say of a scheduler that did not start."""
    why = str(_first(error))
    if settings.host is None:
        return RuntimeError(f"the Dask scheduler does not start here: {why}")
    addresses = [str(interface) for interface in interfaces()]
    return ValueError(
        f"host: wanted an address of this machine ({_listed(addresses)}), got {settings.host!r}, "
        f"where the Dask scheduler does not start: {why}"
    )


def _first(error: BaseException) -> BaseException:
    """What it began with: dask-jobqueue stumbles over the cluster that did not start."""
    while (before := error.__cause__ or error.__context__) is not None:
        error = before
    return error


def _interface(settings: Settings) -> str | None:
    found = settings.interface or configured(settings.scheduler, "interface")
    return None if found is None else str(found)


def _listed(names: list[str]) -> str:
    return ", ".join(dict.fromkeys(names))

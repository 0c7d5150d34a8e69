"""EnsembleRL: a deep-RL agent picks the points of a large simulation ensemble.

Define a `Space`, call `explore`, read xarray. Names load when they are first used, so that
importing the package loads neither torch nor Dask's scheduler.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from ensemblerl import agents as agents
    from ensemblerl import samplers as samplers
    from ensemblerl.campaign import Campaign as Campaign
    from ensemblerl.cluster.batch import Cluster as Cluster
    from ensemblerl.executors.serial import Serial as Serial
    from ensemblerl.executors.simulated import Simulated as Simulated
    from ensemblerl.forking import fork as fork
    from ensemblerl.front import explore as explore
    from ensemblerl.front import prepare as prepare
    from ensemblerl.goals.maximize import Maximize as Maximize
    from ensemblerl.goals.minimize import Minimize as Minimize
    from ensemblerl.handle import Handle as Handle
    from ensemblerl.handle import launch as launch
    from ensemblerl.loop.stopping import CampaignFailed as CampaignFailed
    from ensemblerl.parameters import Choice as Choice
    from ensemblerl.parameters import Distribution as Distribution
    from ensemblerl.parameters import Integer as Integer
    from ensemblerl.parameters import LogNormal as LogNormal
    from ensemblerl.parameters import Normal as Normal
    from ensemblerl.parameters import Ordinal as Ordinal
    from ensemblerl.parameters import Real as Real
    from ensemblerl.parameters import Triangular as Triangular
    from ensemblerl.parameters import Uniform as Uniform
    from ensemblerl.provenance import Mismatch as Mismatch
    from ensemblerl.records import Fate as Fate
    from ensemblerl.simulations import readers as readers
    from ensemblerl.simulations.command import Command as Command
    from ensemblerl.simulations.function import Function as Function
    from ensemblerl.space import Space as Space
    from ensemblerl.store.backend import export_netcdf as export_netcdf
    from ensemblerl.stores import open as open
    from ensemblerl.stores import rerun as rerun
    from ensemblerl.warm.earlier import Earlier as Earlier
    from ensemblerl.warm.guess import Guess as Guess

_WHERE = {
    "campaign": ("Campaign",),
    "cluster.batch": ("Cluster",),
    "executors.serial": ("Serial",),
    "executors.simulated": ("Simulated",),
    "front": ("explore", "prepare"),
    "goals.maximize": ("Maximize",),
    "goals.minimize": ("Minimize",),
    "handle": ("Handle", "launch"),
    "parameters": (
        *("Choice", "Distribution", "Integer", "LogNormal", "Normal", "Ordinal", "Real"),
        *("Triangular", "Uniform"),
    ),
    "provenance": ("Mismatch",),
    "records": ("Fate",),
    "simulations.command": ("Command",),
    "simulations.function": ("Function",),
    "space": ("Space",),
    "loop.stopping": ("CampaignFailed",),
    "store.backend": ("export_netcdf",),
    "forking": ("fork",),
    "stores": ("open", "rerun"),
    "warm.earlier": ("Earlier",),
    "warm.guess": ("Guess",),
}
_MODULE = {name: module for module, names in _WHERE.items() for name in names}
_ROOMS = {"agents": "agents", "readers": "simulations.readers", "samplers": "samplers"}
__all__ = sorted([*_MODULE, *_ROOMS])


def __getattr__(name: str) -> Any:
    import importlib

    if name in _ROOMS:
        return importlib.import_module(f"ensemblerl.{_ROOMS[name]}")
    if name not in _MODULE:
        raise AttributeError(f"module 'ensemblerl' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"ensemblerl.{_MODULE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__

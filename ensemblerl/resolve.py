"""What people may write at the front door, and the object that it stands for."""

from __future__ import annotations

import concurrent.futures
import sys
from typing import Any

from ensemblerl.executors.futures import Futures
from ensemblerl.executors.serial import Serial
from ensemblerl.protocols import Executor, Sampler
from ensemblerl.samplers.chain import Chain
from ensemblerl.samplers.listed import Listed
from ensemblerl.samplers.sobol import Sobol
from ensemblerl.samplers.uniform import Uniform
from ensemblerl.space import Space

SAMPLERS = {"sobol": Sobol, "uniform": Uniform}


def whole(name: str, value: Any, *, least: int = 1) -> int:
    """A whole number, or a ValueError that names the argument."""
    try:
        out = int(value)
    except (TypeError, ValueError):
        out = least - 1
    if isinstance(value, bool) or out != value or out < least:
        raise ValueError(f"{name}: wanted a whole number >= {least}, got {value!r}")
    return out


def as_sampler(sampler: Any, space: Space) -> Sampler:
    """A sampler from a sampler, a callable of the cube, a name, or None; own points of the space
    (``start``) go first.

    Raises
    ------
    TypeError, ValueError
        for anything else
    """
    chosen = Sobol if sampler is None else sampler
    if isinstance(chosen, str):
        if chosen not in SAMPLERS:
            raise ValueError(f"sampler: wanted one of {sorted(SAMPLERS)}, got {chosen!r}")
        chosen = SAMPLERS[chosen]
    if isinstance(chosen, type) or not isinstance(chosen, Sampler):
        if not callable(chosen):
            raise TypeError(
                "sampler: wanted a sampler, a callable of the cube such as samplers.Sobol, or "
                f"{sorted(SAMPLERS)}; got {type(sampler).__name__}"
            )
        chosen = chosen(space.cube)
    if not isinstance(chosen, Sampler):
        raise TypeError(f"sampler: the callable gave no sampler but {type(chosen).__name__}")
    if not space.start:
        return chosen
    return Chain([Listed(space.cube, space.start_unit(), name="start"), chosen])


def as_executor(cluster: Any) -> Executor:
    """An executor from an executor, any ``concurrent.futures.Executor``, a Dask client or
    cluster, "serial", or None for local Dask workers.

    Raises
    ------
    TypeError, ValueError
        for anything else
    """
    if cluster is None:
        from ensemblerl.cluster.local import LocalDask

        return LocalDask()
    if isinstance(cluster, str):
        if cluster != "serial":
            raise ValueError(f'cluster: wanted "serial" or an object, got {cluster!r}')
        return Serial()
    if isinstance(cluster, concurrent.futures.Executor):
        return Futures(cluster)
    if isinstance(cluster, Executor):
        return cluster
    if "distributed" in sys.modules:
        from ensemblerl.cluster.dask import from_anything

        return from_anything(cluster)
    raise TypeError(
        "cluster: wanted None, an executor such as Serial(), a concurrent.futures.Executor, a "
        f"distributed.Client or a Dask cluster; got {type(cluster).__name__}"
    )

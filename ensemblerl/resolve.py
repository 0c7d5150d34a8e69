"""What people may write at the front door, and the object that it stands for."""

from __future__ import annotations

import concurrent.futures
import inspect
import sys
from collections.abc import Callable
from typing import Any

from ensemblerl.cluster.batch import Cluster
from ensemblerl.executors.futures import Futures
from ensemblerl.executors.serial import Serial
from ensemblerl.protocols import Executor, Sampler
from ensemblerl.records import Cube, cubes_differ
from ensemblerl.samplers.chain import Chain
from ensemblerl.samplers.differential_evolution import DifferentialEvolution
from ensemblerl.samplers.latin_hypercube import LatinHypercube
from ensemblerl.samplers.listed import Listed
from ensemblerl.samplers.portfolio import Portfolio
from ensemblerl.samplers.sobol import Sobol
from ensemblerl.samplers.uniform import Uniform
from ensemblerl.space import Space

SAMPLERS: dict[str, Any] = {"lhs": LatinHypercube, "sobol": Sobol, "uniform": Uniform}


def whole(name: str, value: Any, *, least: int = 1) -> int:
    """A whole number, or a ValueError that names the argument."""
    try:
        out = int(value)
    except (TypeError, ValueError):
        out = least - 1
    if isinstance(value, bool) or out != value or out < least:
        raise ValueError(f"{name}: wanted a whole number >= {least}, got {value!r}")
    return out


def default_sampler(cube: Cube) -> Sampler:
    """The agent, Sobol' points and a plain search, in shares that follow who finds what.

    They begin at 0.85, 0.05 and 0.1; none falls below 0.05.
    """
    from ensemblerl.agents.maxent import MaxEnt

    parts: list[Sampler] = [MaxEnt(cube), Sobol(cube), DifferentialEvolution(cube)]
    return Portfolio(parts, shares=[16, 0, 1], floor=0.05, credit=True)


def as_sampler(sampler: Any, space: Space, n_members: int) -> Sampler:
    """A sampler, `default_sampler` when None; own points of the space (``start``) go first.

    Parameters
    ----------
    sampler : a sampler on the cube of the space; a callable of the cube, also of the number of
        members where it has a required parameter ``n``; a name; or None
    space : where the points lie
    n_members : of the campaign

    Raises
    ------
    TypeError, ValueError
        for anything else, and for a sampler on another cube
    """
    chosen = default_sampler if sampler is None else sampler
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
        chosen = _made(chosen, space.cube, n_members)
    if not isinstance(chosen, Sampler):
        raise TypeError(f"sampler: the callable gave no sampler but {type(chosen).__name__}")
    _check_cube(chosen, space)
    if not space.start:
        return chosen
    return Chain([Listed(space.cube, space.start_unit(), name="start"), chosen])


def _made(factory: Callable[..., Any], cube: Cube, n_members: int) -> Any:
    """What it makes of the cube, and of ``n`` where it cannot do without."""
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):
        return factory(cube)
    n = signature.parameters.get("n")
    needed = n is not None and n.default is n.empty
    given = {"n": whole("n_members", n_members)} if needed else {}
    try:
        signature.bind(cube, **given)
    except TypeError as error:
        called = getattr(factory, "__name__", type(factory).__name__)
        raise TypeError(
            f"sampler: {called}{signature} cannot be called with the cube alone: {error}; wanted "
            f"a sampler, or a callable of the cube such as lambda cube: {called}(cube, ...)"
        ) from None
    return factory(cube, **given)


def _check_cube(sampler: Sampler, space: Space) -> None:
    """Refuse a sampler that was made for another space; one that has no cube may be right."""
    cube = getattr(sampler, "cube", None)
    if isinstance(cube, Cube) and (which := cubes_differ(cube, space.cube)):
        raise ValueError(
            f"sampler: wanted one on the cube of this space ({space.ndim} parameters), "
            f"{sampler!r} is on another cube: {which} differ"
        )


def as_executor(cluster: Any) -> Executor:
    """An executor from a `Cluster` or the TOML file of one, an executor, any
    ``concurrent.futures.Executor``, a Dask client or cluster, "serial", or None for local Dask
    workers.

    Raises
    ------
    TypeError, ValueError
        for anything else
    """
    if cluster is None:
        from ensemblerl.cluster.local import LocalDask

        return LocalDask()
    if isinstance(cluster, str):
        if cluster.endswith(".toml"):
            return Cluster.from_file(cluster).executor()
        if cluster != "serial":
            raise ValueError(
                'cluster: wanted "serial", the path of a .toml file, or an object such as '
                f"Cluster(...), got {cluster!r}"
            )
        return Serial()
    if isinstance(cluster, Cluster):
        return cluster.executor()
    if isinstance(cluster, concurrent.futures.Executor):
        return Futures(cluster)
    if isinstance(cluster, Executor):
        return cluster
    if "distributed" in sys.modules:
        from ensemblerl.cluster.dask import from_anything

        return from_anything(cluster)
    raise TypeError(
        "cluster: wanted None, a Cluster, an executor such as Serial(), a "
        f"concurrent.futures.Executor, a distributed.Client or a Dask cluster; "
        f"got {type(cluster).__name__}"
    )

"""Rows of earlier results as hints: mapped into the cube, ranked, the best of them first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ensemblerl.records import AnyArray, BoolArray, FloatArray, Hints
from ensemblerl.space import Space
from ensemblerl.spaces.columns import absent, as_column
from ensemblerl.spaces.priors import Parameter

FIRST = 8
"""Points worth running first, at most."""
APART = 0.05
"""How far these are from each other at least, in the coordinate in which they differ most."""
TOP = 0.05
"""The worth of a row falls by e with so many ranks, as a share of the rows; at least `LEAST`."""
LEAST = 4.0
MOST = 512
"""Best rows that are kept: the others are worth nothing."""
WORTH = 8
"""Members that hints count for at most, times one more than there are coordinates."""
TRIES = 64
"""Ways to fill in unknown coordinates, for one that the known constraint allows."""
STREAM = 0x4EAD
"""Of the random numbers that these are filled in with."""


@dataclass(frozen=True)
class Table:
    """Rows of earlier results.

    Parameters
    ----------
    columns : name -> (n,) physical values, None, NaN or "" where there is nothing
    reward : (n,) larger is better; NaN or -inf for rows that tell nothing
    read : what was read, in words: goes into the provenance
    """

    columns: Mapping[str, Any]
    reward: FloatArray
    read: dict[str, Any] = field(default_factory=dict)


def ranked(table: Table, space: Space) -> tuple[Hints, dict[str, Any]]:
    """Hints of the rows that lie in this space, and what became of the rows: JSON.

    Raises
    ------
    ValueError
        when no parameter is shared, or no row is left
    """
    shared = [name for name in space.names if name in table.columns]
    if not shared:
        raise ValueError(
            f"warm_start: wanted at least one of the parameters {', '.join(space.names)}, got "
            f"columns {', '.join(map(str, table.columns)) or 'none'}"
        )
    told = np.isfinite(table.reward)
    unit, inside = _mapped(table.columns, space, shared)
    known = ~np.isnan(unit).all(axis=1)
    complete = ~np.isnan(unit).any(axis=1)
    allowed = np.ones(len(unit), dtype=np.bool_)
    if space.constraints and (rows := np.flatnonzero(complete & inside)).size:
        allowed[rows] = space.feasible(space.cube.canonical(unit[rows]))
    used = told & inside & known & allowed
    left = {
        "without a reward": int((~told).sum()),
        "outside the space": int((told & ~inside).sum()),
        "without a parameter": int((told & inside & ~known).sum()),
        "infeasible": int((told & inside & known & ~allowed).sum()),
    }
    about = {
        **table.read,
        "rows": len(unit),
        "used": int(used.sum()),
        "left_out": {why: n for why, n in left.items() if n},
        "parameters": shared,
    }
    if not used.any():
        reasons = ", ".join(f"{n} {why}" for why, n in about["left_out"].items()) or "none at all"
        raise ValueError(
            f"warm_start: wanted rows with a result inside the space, got {len(unit)}: {reasons}"
        )
    rows = np.flatnonzero(used)
    rows = rows[np.argsort(-table.reward[rows], kind="stable")]
    best, reward = unit[rows[:MOST]], table.reward[rows]
    weight = worths(reward, space.ndim)[:MOST]
    return Hints(best, weight, first(best, space)), about


def _mapped(
    columns: Mapping[str, Any], space: Space, shared: list[str]
) -> tuple[FloatArray, BoolArray]:
    """(n, ndim) coordinates, NaN where there is nothing, and (n,) whether all others lie inside."""
    n = len(next(iter(columns.values())))
    unit, inside = np.full((n, space.ndim), np.nan), np.ones(n, dtype=np.bool_)
    for name in shared:
        parameter = space[name]
        column = _column(name, columns[name], parameter)
        if len(column) != n:
            raise ValueError(f"warm_start: wanted columns of {n} rows, got {len(column)} of {name}")
        nothing = absent(column)
        found = parameter.transform.unit(column)
        unit[:, space.names.index(name)] = np.where(nothing, np.nan, found)
        inside &= nothing | ~np.isnan(found)
    return unit, inside


def _column(name: str, values: Any, parameter: Parameter) -> AnyArray:
    """(n,) values of a parameter."""
    try:
        return as_column(name, values, parameter.transform.dtype)
    except (TypeError, ValueError) as error:
        told = str(error).removeprefix(f"{name}: ").splitlines()[0]
        raise ValueError(f"warm_start: wanted one value a row in column {name!r}: {told}") from None


def worths(reward: FloatArray, ndim: int) -> FloatArray:
    """(n,) rewards, best first -> (n,) weights by rank; equal rewards share theirs.

    They sum to the effective number of rows that they stand for, at most to `WORTH` times one more
    than there are coordinates: earlier results may be many, and are of another campaign.
    """
    by_rank = np.exp(-np.arange(len(reward)) / max(LEAST, TOP * len(reward)))
    _, group = np.unique(reward, return_inverse=True)
    out = (np.bincount(group, by_rank) / np.bincount(group))[group]
    effective = float(out.sum()) ** 2 / float((out**2).sum())
    return np.asarray(out * min(effective, WORTH * (ndim + 1)) / out.sum())


def first(unit: FloatArray, space: Space) -> FloatArray:
    """(k, ndim) of rows, best first: those that differ, complete and feasible."""
    rng, found = np.random.default_rng(STREAM), list[FloatArray]()
    for row in unit:
        if len(found) == FIRST:
            break
        point = _complete(row, space, rng)
        if point is not None and all(_far(point, other, space) for other in found):
            found.append(point)
    return np.array(found).reshape(-1, space.ndim)


def _complete(row: FloatArray, space: Space, rng: np.random.Generator) -> FloatArray | None:
    """(ndim,) with unknown coordinates drawn from the prior; None where that is never feasible."""
    ways = np.where(np.isnan(row), rng.random((TRIES, space.ndim)), row)
    ways = space.cube.canonical(ways)
    if space.constraints:
        ways = ways[space.feasible(ways)]
    return ways[0] if len(ways) else None


def _far(one: FloatArray, two: FloatArray, space: Space) -> bool:
    """Whether they are different enough to run both."""
    both = np.stack([one, two])
    cells, moved = space.cube.cells(both), np.abs(one - two) > APART
    return bool(np.where(cells[0] >= 0, cells[0] != cells[1], moved).any())


def completed(unit: FloatArray, n: int, space: Space) -> FloatArray:
    """(k, ndim) at most n points worth running first of (ndim,) one, unknown coordinates drawn."""
    ways = n if np.isnan(unit).any() else 1
    return first(np.tile(unit, (ways, 1)), space)

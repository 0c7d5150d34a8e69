"""Members one by one, in Python's own types: what a simulation is called with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ensemblerl.records import LINEAGE, AnyArray, Members

CASTS = {"int": int, "bool": bool}


class Task(NamedTuple):
    """One member, unpacked: what the simulation gets."""

    number: int
    attempt: int
    point: dict[str, Any]
    seed: int
    member: dict[str, Any]


def tasks(members: Members, casts: Mapping[str, str]) -> Iterator[Task]:
    """The members one by one; for ``casts`` see `points_of`."""
    number, attempt = members.number.tolist(), members.attempt.tolist()
    seed, state = members.seed.tolist(), members.state.tolist()
    lineage = [getattr(members, name).tolist() for name in LINEAGE]
    for row, point in enumerate(points_of(members.points, casts, len(members))):
        member = {name: column[row] for name, column in zip(LINEAGE, lineage, strict=True)}
        member.update(number=number[row], attempt=attempt[row], state=state[row])
        yield Task(number[row], attempt[row], point, seed[row], member)


def points_of(
    points: Mapping[str, AnyArray], casts: Mapping[str, str], n: int
) -> Iterator[dict[str, Any]]:
    """Columns, name -> (n,), to n points in Python's own types without inactive parameters.

    Inactive is NaN or "": a value of an active parameter is never one of these. ``casts`` names
    the conditional parameters that are "int" or "bool": their columns are float64, because
    inactive rows hold NaN.

    >>> import numpy as np
    >>> columns = {"a": np.array([1.0, np.nan]), "b": np.array(["", "x"])}
    >>> list(points_of(columns, {"a": "int"}, 2))
    [{'a': 1}, {'b': 'x'}]
    """
    names, columns = list(points), [column.tolist() for column in points.values()]
    kinds = {name: CASTS[kind] for name, kind in casts.items()}
    for row in zip(*columns, strict=True) if columns else [()] * n:
        point = {name: v for name, v in zip(names, row, strict=True) if v == v and v != ""}
        for name in kinds.keys() & point.keys():
            point[name] = kinds[name](point[name])
        yield point

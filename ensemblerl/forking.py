"""A new campaign from the data of an old one: another space, another goal, nothing run again."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ensemblerl.events import Closed, Event, Launched, Opened, Settled
from ensemblerl.ledger import Ledger
from ensemblerl.loop.numbering import number
from ensemblerl.protocols import Goal
from ensemblerl.provenance import versions
from ensemblerl.records import LINEAGE, AnyArray, Fate, FloatArray, IntArray, Outcome, Proposals
from ensemblerl.space import Space
from ensemblerl.store.backend import open_store
from ensemblerl.store.columns import field_names
from ensemblerl.store.directory import DirectoryStore
from ensemblerl.store.reading import read_ledger
from ensemblerl.store.segments import encode, encode_layout

ROWS = 1024
"""Members taken over at a time."""
KEPT = (Fate.ok, Fate.failed, Fate.invalid, Fate.timeout, Fate.out_of_memory)


def fork(
    path: str | Path,
    target: str | Path,
    *,
    space: Space | None = None,
    goal: Goal | None = None,
    fill: Mapping[str, Any] | None = None,
) -> dict[str, int]:
    """Begin a campaign in ``target`` with the settled members of the one in ``path``.

    Members outside the new space are left out. The others are there as if they had been told
    from a list: proposer ``"fork"``, no density, note ``origin`` with their old number. Go on
    with `explore` on ``target``.

    Parameters
    ----------
    path : the old store
    target : the new one, not there yet
    space : the new space; the old one when None
    goal : the new goal, read off the results that were kept; the old values when None
    fill : values that the old members had for parameters that are new

    Returns
    -------
    dict
        how many members were ``taken`` and how many ``left_out``

    Raises
    ------
    ValueError
        for a parameter that is new and has no value in ``fill``
    """
    ledger, kept = read_ledger(path)
    space = space or Space.from_json(kept["space"])
    rows = np.flatnonzero(np.isin(ledger.fate, [str(fate) for fate in KEPT]))
    before = Space.from_json(kept["space"])
    unit, rows = _mapped(ledger, before, space, rows, fill or {})
    made = {
        **kept,
        "space": space.to_json(),
        "goal": {**goal.describe(), "k": goal.k} if goal else kept["goal"],
        "forked_from": str(Path(path).absolute()),
        "versions": versions(),
    }
    for name in ("format", "warm_start"):  # its hints stay with the old one
        made.pop(name, None)
    store = DirectoryStore.create(Path(target), made)
    try:
        Transfer(store, ledger, open_store(path), before, goal).run(space, unit, rows)
    finally:
        store.close()
    return {"taken": len(rows), "left_out": ledger.n - len(rows)}


def _mapped(
    ledger: Ledger, old: Space, new: Space, rows: AnyArray, fill: Mapping[str, Any]
) -> tuple[AnyArray, AnyArray]:
    """Cube coordinates in the new space, and the rows that lie in it."""
    missing = sorted(set(new.names) - set(old.names) - set(fill))
    if missing:
        raise ValueError(
            f"fill: wanted a value for the new parameters {', '.join(missing)}, got {dict(fill)}"
        )
    points = old.to_points(ledger["unit"][rows])
    units, inside = [], []
    for row, i in enumerate(rows.tolist()):
        point = {name: v for name, v in old.point(points, row).items() if name in new.names}
        try:
            units.append(new.unit_of({**fill, **point}))
        except ValueError:  # outside the new space
            continue
        inside.append(i)
    shape = (len(units), new.ndim)
    return np.array(units, dtype=np.float64).reshape(shape), np.array(inside, dtype=np.int64)


class Transfer:
    """Takes members over, with their results, under new numbers."""

    def __init__(
        self, store: DirectoryStore, old: Ledger, ds: Any, before: Space, goal: Goal | None
    ) -> None:
        self._store, self._old, self._ds, self._goal = store, old, ds, goal
        self._schema = old.schema
        self._layout = old.schema.layout["variables"] if old.schema else {}
        self._names = field_names(self._layout, before.names)

    def run(self, space: Space, unit: FloatArray, rows: IntArray) -> None:
        """Write events and records of these rows of the old campaign; ``unit`` is (n, ndim)."""
        kept, now = self._store.provenance, time.time()
        fresh = Ledger(space.ndim, kept["goal"]["k"])
        if self._schema:
            self._store.keep(encode_layout(self._schema.digest, self._schema.layout))
        renumbered = {int(i): new for new, i in enumerate(rows)}
        for piece in self._pieces(rows):
            first = fresh.n
            proposals = Proposals(unit[first : first + len(piece)], self._notes(piece, renumbered))
            members = number(proposals.noted("fork"), space, fresh, kept["seed"])
            members = replace(members, seed=self._old["seed"][piece])
            settled = Settled(now, tuple(self._outcomes(piece, first)))
            version = str(self._old.version[piece[0]])
            opened = Opened(now, version, len(rows), pid=os.getpid(), executor="fork")
            fixed = [self._schema] if self._schema and not first else []
            self._keep(fresh, opened, *fixed, Launched(now, members), settled)
        self._keep(fresh, Closed(now, "forked"))
        self._store.compact(fresh, final=True)

    def _pieces(self, rows: IntArray) -> Iterator[IntArray]:
        """Rows in order, some at a time, each time of one version of the simulation."""
        versions = self._old.version[rows]
        changes = np.flatnonzero(versions[1:] != versions[:-1]) + 1
        for piece in np.split(rows, changes):
            for first in range(0, len(piece), ROWS):
                yield piece[first : first + ROWS]

    def _notes(self, rows: IntArray, renumbered: Mapping[int, int]) -> dict[str, AnyArray]:
        """Where they come from, and the lineage under the new numbers."""
        lineage = {name: self._old[name][rows] for name in LINEAGE}
        parents = [renumbered.get(int(i), -1) for i in lineage["parent"]]
        return {"origin": rows, **lineage, "parent": np.array(parents, dtype=np.int64)}

    def _keep(self, ledger: Ledger, *events: Event) -> None:
        self._store.append(*events)
        for event in events:
            ledger.apply(event)

    def _outcomes(self, rows: IntArray, first: int) -> Iterator[Outcome]:
        block = self._ds.isel(member=rows)
        columns = {name: block[self._names[name]].values for name in self._layout}
        fates = self._old.fates(rows)
        for row, i in enumerate(rows.tolist()):
            arrays = {
                name: np.asarray(column[row]).astype(self._layout[name]["dtype"])
                for name, column in columns.items()
                if fates[row] == Fate.ok
            }
            outcome = self._outcome(i, arrays)._replace(number=first + row)
            self._store.keep(encode(outcome, arrays, list(arrays)))
            yield outcome

    def _outcome(self, i: int, arrays: dict[str, AnyArray]) -> Outcome:
        old = self._old
        value, reward = old["value"][i], float(old["reward"][i])
        if self._goal and arrays:
            value = self._goal.value(arrays)
            reward = float(self._goal.rewards(value[None, :], old.fates([i]))[0])
        return Outcome(
            number=i,
            attempt=1,
            fate=str(old.fates(i)),
            cause=old.causes.get(i, ""),
            value=tuple(float(v) for v in value) if arrays else (),
            start=float(old["start"][i]),
            runtime=float(old["runtime"][i]),
            worker=str(old.worker[i]),
            state=old.left.get(i, ""),
            reward=reward,
            schema=self._schema.digest if arrays and self._schema else "",
        )

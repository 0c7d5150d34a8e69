"""Another goal on an old campaign: values and rewards anew, from the results that were kept."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr

from ensemblerl.events import Event, SchemaFixed, Settled
from ensemblerl.finishing import checked
from ensemblerl.goals.extremum import Extremum
from ensemblerl.protocols import Goal
from ensemblerl.records import AnyArray, Fate, Outcome
from ensemblerl.report.tables import MEMBER, column, members, settled
from ensemblerl.simulations.causes import cause_of
from ensemblerl.simulations.layouts import InvalidResult
from ensemblerl.simulations.output import normalise
from ensemblerl.store.codec import spelt
from ensemblerl.store.columns import Layout, Points, added
from ensemblerl.store.kept import EVENTS, Kept, of_dataset, retold

CHUNK_BYTES = 2**25
"""Size of the results that are read at a time, unless one member's are larger."""
ANY_SIZE = 2**62


class Found(NamedTuple):
    """What a goal made of a result: its value, or why it has none (``raised``: by an error)."""

    value: tuple[float, ...]
    cause: str = ""
    raised: bool = False


class Row(Mapping[str, AnyArray]):
    """The results of one member under the names that the simulation gave them.

    A variable is read, for all members of the chunk, when it is first asked for.

    Parameters
    ----------
    chunk : name -> (rows, ...) arrays
    row : which
    """

    def __init__(self, chunk: Chunk, row: int) -> None:
        self._chunk, self._row = chunk, row

    def __getitem__(self, name: str) -> AnyArray:
        return np.asarray(self._chunk[name][self._row])

    def __contains__(self, name: object) -> bool:
        return name in self._chunk

    def __iter__(self) -> Iterator[str]:
        return iter(self._chunk)

    def __len__(self) -> int:
        return len(self._chunk)


class Chunk(Mapping[str, AnyArray]):
    """Results of some members: name -> (rows, ...), each read once, in its own dtype.

    Parameters
    ----------
    ds : of these members
    names : name -> name in the Dataset
    dtypes : name -> dtype as the simulation gave it
    """

    def __init__(self, ds: xr.Dataset, names: Mapping[str, str], dtypes: Mapping[str, str]) -> None:
        self._ds, self._names, self._dtypes = ds, names, dtypes
        self._read: dict[str, AnyArray] = {}

    def __getitem__(self, name: str) -> AnyArray:
        if name not in self._read:
            values = self._ds[self._names[name]].transpose(MEMBER, ...).values
            self._read[name] = values.astype(self._dtypes[name], copy=False)
        return self._read[name]

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def reread(ds: xr.Dataset, goal: Goal) -> xr.Dataset:
    """See `ensemblerl.report.accessor.Erl.reread`."""
    if isinstance(goal, type) or not isinstance(goal, Goal):
        came = f"the class {goal.__name__}" if isinstance(goal, type) else type(goal).__name__
        raise TypeError(f"goal: wanted a goal such as Minimize('value'), got {came}")
    kept, ds = of_dataset(ds, "reread(goal)"), members(ds)
    told = _told(ds, kept.events, goal, _values(ds, kept, goal))
    events = tuple(retold(kept.events, lambda outcome: told.get(outcome.number)))
    description = {**goal.describe(), "k": goal.k}
    rows = [told.get(int(number)) for number in column(ds, MEMBER)]
    new = {
        "reward": np.array([np.nan if o is None else o.reward for o in rows]),
        "fate": np.array([str(Fate.pending) if o is None else o.fate for o in rows]),
        "cause": np.array(["" if o is None else o.cause for o in rows], dtype=np.str_),
    }
    before, after = Points(kept.provenance), Points({**kept.provenance, "goal": description})
    layout = next((e.layout for e in kept.events if isinstance(e, SchemaFixed)), None)
    out = ds.drop_vars(added(layout, before) if before.constraints else (), errors="ignore")
    out = out.assign({name: _like(ds, name, data) for name, data in new.items()})
    if after.constraints:
        violation, constraint = added(layout, after)
        nothing = (np.nan,) * goal.k
        values = np.array([nothing if o is None else o.value or nothing for o in rows])
        out = out.assign_coords({constraint: after.constraints})
        out = out.assign({violation: ((MEMBER, constraint), values.reshape(-1, goal.k)[:, 1:])})
    out.attrs = {**ds.attrs, "goal": json.dumps(spelt(description), allow_nan=False)}
    out.encoding = {
        **ds.encoding,
        EVENTS: Kept(events, {**kept.provenance, "goal": description}, goal),
    }
    return out


def _like(ds: xr.Dataset, name: str, data: AnyArray) -> xr.Variable:
    return xr.Variable((MEMBER,), data, ds[name].attrs if name in ds else {})


def _told(
    ds: xr.Dataset,
    events: Sequence[Event],
    goal: Goal,
    values: Mapping[int, Found],
) -> dict[int, Outcome]:
    """Number -> outcome under the goal, for the members of the Dataset that are settled in it."""
    held = settled(ds)
    outcomes = [
        _outcome(outcome, values.get(outcome.number))
        for event in events
        if isinstance(event, Settled)
        for outcome in event.outcomes
        if outcome.number in held
    ]
    table = np.array([o.value or (np.nan,) * goal.k for o in outcomes], dtype=np.float64)
    fates = np.array([o.fate for o in outcomes], dtype="U13")
    rewards = goal.rewards(table.reshape(-1, goal.k), fates).tolist()
    return {o.number: o._replace(reward=r) for o, r in zip(outcomes, rewards, strict=True)}


def _outcome(old: Outcome, found: Found | None) -> Outcome:
    """What became of a member under the goal; without results what it was."""
    if found is None:
        return old._replace(value=())
    fate = Fate.ok if found.value else Fate.invalid
    return old._replace(fate=str(fate), cause=found.cause, value=found.value)


def _values(ds: xr.Dataset, kept: Kept, goal: Goal) -> dict[int, Found]:
    """Number -> the goal's value, or why there is none, of the members with results."""
    fixed = next((e for e in kept.events if isinstance(e, SchemaFixed)), None)
    if fixed is None:
        return {}
    layout = Layout(fixed.layout, Points(kept.provenance))
    names = {f.source: name for name, f in layout.fields.items() if name in ds.data_vars}
    dtypes = {name: about["dtype"] for name, about in fixed.layout["variables"].items()}
    _check_names(goal, names)
    rows = _with_results(ds, kept.events, fixed.digest)
    size = max(1, CHUNK_BYTES // max(1, layout.member_bytes))
    out: dict[int, Found] = {}
    for first in range(0, len(rows), size):
        part = ds.isel({MEMBER: rows[first : first + size]})
        chunk = Chunk(part, names, dtypes)
        for row, number in enumerate(column(part, MEMBER)):
            out[int(number)] = _value(goal, Row(chunk, row))
    _check_some(goal, out, names)
    return out


def _with_results(ds: xr.Dataset, events: Sequence[Event], digest: str) -> list[int]:
    """Rows of the members whose results were kept, whatever an earlier goal thought of them."""
    there = {
        outcome.number
        for event in events
        if isinstance(event, Settled)
        for outcome in event.outcomes
        if outcome.schema == digest
    } & settled(ds)
    return [row for row, number in enumerate(column(ds, MEMBER)) if int(number) in there]


def _value(goal: Goal, result: Mapping[str, AnyArray]) -> Found:
    """As a worker does it."""
    try:
        reduced = goal.reduce(result)
        if reduced is not result:
            reduced = normalise(reduced, max_bytes=ANY_SIZE).arrays
        return Found(checked(goal, goal.value(reduced)))
    except InvalidResult as error:
        return Found((), str(error))
    except Exception as error:
        return Found((), cause_of(error), raised=True)


def _check_names(goal: Goal, names: Mapping[str, str]) -> None:
    """Say at once which variables are missing, where the goal can tell what it needs."""
    if not isinstance(goal, Extremum):
        return
    needed = goal.objective.names if goal.objective.given not in names else frozenset[str]()
    needed = needed.union(*(c.names for c in goal.subject_to))
    if missing := sorted({*needed, *(goal.keep or ())} - set(names)):
        raise ValueError(
            f"goal: {goal!r} wants variable {', '.join(missing)}; kept were: {_listed(names)}"
        )


def _check_some(goal: Goal, found: Mapping[int, Found], names: Mapping[str, str]) -> None:
    """A goal that fails for everybody was not meant for this campaign."""
    if found and all(one.raised for one in found.values()):
        raise ValueError(
            f"goal: {goal!r} fails for each of {len(found)} members; for the first: "
            f"{next(iter(found.values())).cause}\nvariables that were kept: {_listed(names)}"
        )


def _listed(names: Mapping[str, str]) -> str:
    return ", ".join(sorted(names)) or "none"

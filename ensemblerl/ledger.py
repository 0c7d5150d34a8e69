"""The ledger in memory: the campaign as columns in member order, built by applying events.

Whatever happens to a campaign is an event. The store appends events to a file, `Ledger.apply`
turns them into columns; a resumed campaign is the same events applied again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ensemblerl.events import (
    Closed,
    Ended,
    Event,
    Extended,
    Held,
    Launched,
    Opened,
    Published,
    Relaunched,
    SchemaFixed,
    Settled,
)
from ensemblerl.records import (
    LINEAGE,
    AnyArray,
    Fate,
    FloatArray,
    Members,
    Outcome,
    Results,
)

FATES: tuple[Fate, ...] = tuple(Fate)
"""A fate's code in columns and files is its place here; the order never changes."""
FATE_CODE: dict[str, int] = {str(fate): code for code, fate in enumerate(FATES)}


_FATE_TEXT = np.array(FATES, dtype="U13")


FIXED: dict[str, tuple[str, Any]] = {
    "seed": ("i8", 0),
    "attempt": ("i8", 1),
    "group": ("i8", 0),
    "cycle": ("i8", 0),
    "task": ("i8", 0),
    "fidelity": ("i8", 0),
    "parent": ("i8", -1),
    "session": ("i4", -1),
    "launch": ("f8", np.nan),
    "start": ("f8", np.nan),
    "end": ("f8", np.nan),
    "runtime": ("f8", np.nan),
    "fate_code": ("i1", 0),
    "worker_code": ("i4", 0),
}
"""Columns every ledger has, with dtype and what a row holds before anything is known."""


def missing(dtype: np.dtype[Any]) -> Any:
    """The value that stands for "nothing noted" in a column of this dtype."""
    return {"f": np.nan, "i": -1, "b": False, "U": ""}.get(dtype.kind, 0)


class Column:
    """A numpy column that grows by doubling.

    Parameters
    ----------
    dtype : to begin with
    shape : of a row
    fill : what a row holds before it is written; `missing` of the dtype when None
    fixed : keep the dtype; else it widens as values ask for it (longer text, int to float)
    """

    def __init__(
        self, dtype: Any, shape: tuple[int, ...] = (), fill: Any = None, *, fixed: bool = True
    ) -> None:
        self._fill = missing(np.dtype(dtype)) if fill is None else fill
        self._fixed = fixed
        self._data: AnyArray = np.full((64, *shape), self._fill, dtype=dtype)

    def view(self, n: int) -> AnyArray:
        """The first n rows, not to be written to. Reading never grows a column: another thread
        may be writing.
        """
        out = self._data[:n]
        out.flags.writeable = False
        return out

    def put(self, rows: Any, values: Any) -> None:
        """Write rows (an index array, slice or number) that were reserved."""
        values = np.asarray(values)
        if not self._fixed:
            dtype = np.promote_types(values.dtype, self._data.dtype)
            if dtype != self._data.dtype:
                self._data = self._data.astype(dtype)
        self._data[rows] = values

    def reserve(self, n: int) -> None:
        """Have room for n rows."""
        if n > len(self._data):
            shape = (max(n, 2 * len(self._data)), *self._data.shape[1:])
            grown = np.full(shape, self._fill, dtype=self._data.dtype)
            grown[: len(self._data)] = self._data
            self._data = grown


class Ledger:
    """Columns over members: row ``i`` is member ``i``. Grow it with `apply` only.

    Parameters
    ----------
    ndim : coordinates of the cube
    k : values of the goal

    Attributes
    ----------
    n, n_settled, n_events : members launched, members settled, events applied
    sessions : the drivers that worked on this campaign, in order
    schema : layout of the results, None before the first ok member
    n_members : the total that is worked towards, 0 before there is one
    published : newest version of a policy that was published, -1 before there is one
    best_member, best_reward : number of the member with the largest reward, -1 before there is one
    no_gain : members settled since ``best_member`` was
    attempts : number -> outcomes of the attempts that did not settle the member
    spans : number -> (launched, ended) of each of them, by the driver's clock; NaN where an attempt
        was told of after the next one was launched
    held : what jobs of a queue took, as it was told
    """

    def __init__(self, ndim: int, k: int = 1) -> None:
        self.ndim, self.k = ndim, k
        self.n = self.n_settled = self.n_events = 0
        self.counts = np.zeros(len(FATES), dtype=np.int64)
        self.sessions: list[Opened] = []
        self.schema: SchemaFixed | None = None
        self.reason, self.published, self.n_members = "", -1, 0
        self.best_member, self.best_reward, self.no_gain = -1, -np.inf, 0
        self.causes: dict[int, str] = {}
        self.left: dict[int, str] = {}
        self.schemas: dict[int, str] = {}
        self.attempts: dict[int, list[Outcome]] = {}
        self.spans: dict[int, list[tuple[float, float]]] = {}
        self.held: list[Held] = []
        self._state: dict[int, str] = {}
        self._workers = {"": 0}
        self._columns = {name: Column(dtype, (), fill) for name, (dtype, fill) in FIXED.items()}
        self._columns["unit"] = Column("f8", (ndim,))
        self._columns["value"] = Column("f8", (k,))
        self._columns["reward"] = Column("f8")
        self._notes: dict[str, Column] = {}

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, name: str) -> AnyArray:
        """(n, ...) column: one of `FIXED`, ``unit``, ``value``, ``reward`` or a note."""
        column = self._columns.get(name) or self._notes[name]
        return column.view(self.n)

    @property
    def notes(self) -> dict[str, AnyArray]:
        """Note name -> (n, ...)."""
        return {name: column.view(self.n) for name, column in self._notes.items()}

    @property
    def fate(self) -> AnyArray:
        """(n,) text."""
        return self.fates(slice(None))

    @property
    def worker(self) -> AnyArray:
        """(n,) text."""
        return np.array(list(self._workers), dtype=np.str_)[self["worker_code"]]

    @property
    def version(self) -> AnyArray:
        """(n,) version of the simulation that each member was launched with."""
        return np.array([s.version for s in self.sessions] + [""], dtype=np.str_)[self["session"]]

    @property
    def settled(self) -> AnyArray:
        """(n,) bool."""
        out: AnyArray = self["fate_code"] != FATE_CODE[Fate.pending]
        return out

    def pending(self, number: int) -> bool:
        """Whether this member was launched and is not settled."""
        return 0 <= number < self.n and int(self["fate_code"][number]) == 0

    def ended(self, number: int, attempt: int) -> bool:
        """Whether this attempt ended without settling its member."""
        return any(o.attempt == attempt for o in self.attempts.get(number, ()))

    def fates(self, number: Any) -> AnyArray:
        """Text fates of these members."""
        out: AnyArray = _FATE_TEXT[self["fate_code"][number]]
        return out

    def results(self, number: Any) -> Results:
        """What became of these members."""
        return Results(self["value"][number], self.fates(number), self["reward"][number])

    def members(
        self, number: Any, to_points: Callable[[FloatArray], dict[str, AnyArray]]
    ) -> Members:
        """The members of these numbers as they were launched, with their latest attempt."""
        number = np.asarray(number, dtype=np.int64)
        unit = self["unit"][number]
        return Members(
            number=number,
            unit=unit,
            points=to_points(unit),
            notes={name: column[number] for name, column in self.notes.items()},
            state=np.array([self._state.get(int(i), "") for i in number], dtype=np.str_),
            **{name: self[name][number] for name in ("seed", "attempt", *LINEAGE)},
        )

    def apply(self, event: Event) -> None:
        """Take one event in."""
        self.n_events += 1
        match event:
            case Launched():
                self._launched(event)
            case Relaunched():
                self._columns["attempt"].put(event.number, event.attempt)
                self._columns["launch"].put(event.number, event.time)
                self._columns["session"].put(event.number, len(self.sessions) - 1)
            case Ended():
                for outcome in event.outcomes:
                    self._ended(outcome, event.time)
            case Settled():
                self._settled(event)
            case Opened():
                self.sessions.append(event)
                self.reason, self.n_members = "", event.n_members
            case Extended():
                self.n_members = event.n_members
            case SchemaFixed():
                self.schema = event
            case Published():
                self.published = max(self.published, event.version)
            case Held():
                self.held.append(event)
            case Closed():
                self.reason = event.reason
            case _:
                pass

    def _launched(self, event: Launched) -> None:
        members, n = event.members, len(event.members)
        rows = slice(self.n, self.n + n)
        for name, values in members.notes.items():
            if name not in self._notes:
                self._notes[name] = Column(values.dtype, values.shape[1:], fixed=False)
        for column in (*self._columns.values(), *self._notes.values()):
            column.reserve(rows.stop)
        for name in ("unit", "seed", "attempt", *LINEAGE):
            self._columns[name].put(rows, getattr(members, name))
        self._columns["launch"].put(rows, event.time)
        self._columns["session"].put(rows, len(self.sessions) - 1)
        for name, values in members.notes.items():
            self._notes[name].put(rows, values)
        self._state.update(
            (int(i), str(s)) for i, s in zip(members.number, members.state, strict=True) if s
        )
        self.n += n
        self.counts[FATE_CODE[Fate.pending]] += n

    def _ended(self, outcome: Outcome, time: float) -> None:
        number = outcome.number
        current = number < self.n and outcome.attempt == self["attempt"][number]
        launched = float(self["launch"][number]) if current else np.nan
        self.attempts.setdefault(number, []).append(outcome)
        self.spans.setdefault(number, []).append((launched, time))

    def _settled(self, event: Settled) -> None:
        rows = np.array([o.number for o in event.outcomes], dtype=np.int64)
        codes = np.array([FATE_CODE[o.fate] for o in event.outcomes], dtype=np.int8)
        nothing = (np.nan,) * self.k
        value = np.array([o.value or nothing for o in event.outcomes], dtype=np.float64)
        put = {name: column.put for name, column in self._columns.items()}
        put["fate_code"](rows, codes)
        put["value"](rows, value)
        put["attempt"](rows, [o.attempt for o in event.outcomes])
        put["start"](rows, [o.start for o in event.outcomes])
        put["runtime"](rows, [o.runtime for o in event.outcomes])
        put["end"](rows, event.time)
        put["worker_code"](
            rows, [self._workers.setdefault(o.worker, len(self._workers)) for o in event.outcomes]
        )
        put["reward"](rows, [o.reward for o in event.outcomes])
        for outcome in event.outcomes:
            self._remember(outcome)
        self.n_settled += len(rows)
        self.counts += np.bincount(codes, minlength=len(FATES))
        self.counts[FATE_CODE[Fate.pending]] -= len(rows)

    def _remember(self, outcome: Outcome) -> None:
        number = outcome.number
        if outcome.cause:
            self.causes[number] = outcome.cause
        if outcome.state:
            self.left[number] = outcome.state
        if outcome.schema and (self.schema is None or outcome.schema != self.schema.digest):
            self.schemas[number] = outcome.schema
        if outcome.reward > self.best_reward:
            self.best_member, self.best_reward, self.no_gain = number, outcome.reward, 0
        else:
            self.no_gain += 1

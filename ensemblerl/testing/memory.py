"""Small sound parts that live in memory: for rehearsals, and the twins of the broken ones."""

from __future__ import annotations

import copy
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ensemblerl.events import Event
from ensemblerl.ledger import Ledger
from ensemblerl.protocols import Job, State
from ensemblerl.records import Answer, Fate, Members, Outcome, Snapshot
from ensemblerl.store.telemetry import Once

if TYPE_CHECKING:
    import xarray as xr


@dataclass
class Kept:
    """What outlives a `MemoryStore`: its "disk"."""

    events: list[Event] = field(default_factory=list)
    records: list[bytes] = field(default_factory=list)
    checkpoint: tuple[State, int] | None = None
    snapshots: dict[int, Snapshot] = field(default_factory=dict)
    telemetry: list[dict[str, Any]] = field(default_factory=list)


def toy_record(outcome: Outcome) -> bytes:
    """A record that `toy_outcome` reads: fields without arrays."""
    return json.dumps([*outcome[:4], list(outcome.value), *outcome[5:12]]).encode()


def toy_outcome(record: bytes) -> Outcome:
    """The outcome in a `toy_record`."""
    fields: list[Any] = json.loads(record)
    fields[4] = tuple(fields[4])
    return Outcome._make([*fields, None])


class MemoryStore:
    """A store on no disk.

    Parameters
    ----------
    kept : what another one left, to go on from
    decode : record -> `Outcome`
    """

    segments = ""

    def __init__(
        self,
        kept: Kept | None = None,
        decode: Callable[[bytes], Outcome] = toy_outcome,
    ) -> None:
        self.kept, self._decode, self._found = kept or Kept(), decode, 0
        self._once = Once(row["n_events"] for row in self.kept.telemetry)

    def append(self, *events: Event) -> None:
        """Keep copies."""
        self.kept.events.extend(copy.deepcopy(events))

    def events(self) -> Iterator[Event]:
        """In order."""
        yield from list(self.kept.events)

    def found(self) -> Iterator[tuple[Any, dict[str, Any]]]:
        """Records kept since the last call."""
        new, self._found = self.kept.records[self._found :], len(self.kept.records)
        yield from ((self._decode(record), {}) for record in new)

    def keep(self, record: bytes) -> None:
        """Remember the record."""
        self.kept.records.append(record)

    def running(self) -> set[tuple[int, int]]:
        """None: nothing runs but in an executor's care."""
        return set()

    def end(self, number: int, attempt: int) -> None:
        """Nothing to end."""

    def checkpoint(self, state: State, n_events: int) -> None:
        """Keep a copy."""
        self.kept.checkpoint = (copy.deepcopy(state), n_events)

    def restored(self) -> tuple[State, int] | None:
        """A copy of the newest."""
        return copy.deepcopy(self.kept.checkpoint)

    def publish(self, snapshot: Snapshot) -> None:
        """Keep a copy."""
        self.kept.snapshots[snapshot.version] = copy.deepcopy(snapshot)

    def snapshot(self, version: int) -> Snapshot | None:
        """A copy."""
        return copy.deepcopy(self.kept.snapshots.get(version))

    def log(self, rows: Iterable[Mapping[str, Any]], n_events: int) -> None:
        """Keep copies of those that are new."""
        self.kept.telemetry.extend(copy.deepcopy(self._once(rows, n_events)))

    def logged(self) -> Iterator[dict[str, Any]]:
        """Copies, in order."""
        yield from copy.deepcopy(self.kept.telemetry)

    def compact(self, ledger: Ledger, *, final: bool = False) -> None:
        """Nothing to do."""

    def unfinished(self, ledger: Ledger) -> bool:
        """Never: there is nothing to compact."""
        return False

    def open(self) -> xr.Dataset:
        """Nothing but the number of events."""
        import xarray as xr

        return xr.Dataset(attrs={"n_events": len(self.kept.events)})

    def close(self) -> None:
        """Nothing to do."""


class MemoryStores:
    """path -> `MemoryStore`; the same path finds what was kept there."""

    def __init__(self, kind: type[MemoryStore] = MemoryStore) -> None:
        self.kind, self.disk = kind, dict[Path, Kept]()

    def __call__(self, path: Path) -> MemoryStore:
        """A store of what was kept at this path."""
        return self.kind(self.disk.setdefault(path, Kept()))


class InlineExecutor:
    """Runs members inside ``wait``, first come first served, without a segment file."""

    n_workers = 1
    in_process = True
    inline = True

    def __init__(self) -> None:
        self.queue: list[tuple[Members, Future[Answer]]] = []
        self.job: Job | None = None
        self._woken = threading.Event()

    def start(self, job: Job) -> None:
        """Remember the job."""
        self.job = job

    def submit(self, bundle: Members) -> Future[Answer]:
        """Queue it."""
        future: Future[Answer] = Future()
        self.queue.append((bundle, future))
        return future

    def wait(self, timeout: float | None = None) -> Sequence[Future[Answer]]:
        """Everything queued, done; nothing queued waits for ``wake``."""
        if not self.queue:
            self._woken.wait(timeout)
        self._woken.clear()
        queue, self.queue = self.queue, []
        for bundle, future in queue:
            future.set_result(self.answer(bundle))
        return [future for _, future in queue]

    def answer(self, bundle: Members) -> Answer:
        """One outcome a member."""
        return Answer([self.run(bundle, row) for row in range(len(bundle))], {})

    def run(self, bundle: Members, row: int) -> Outcome:
        """Run one member; what its simulation raises is its cause."""
        assert self.job is not None, "start comes first"
        point = {name: column[row] for name, column in bundle.points.items()}
        head = (int(bundle.number[row]), int(bundle.attempt[row]))
        try:
            result = self.job.simulation(point, seed=int(bundle.seed[row]))
            value = self.job.goal.value(self.job.goal.reduce(result))
        except Exception as error:
            return Outcome(*head, str(Fate.failed), f"{type(error).__name__}: {error}")
        return Outcome(*head, str(Fate.ok), value=tuple(map(float, value)))

    def wake(self) -> None:
        """End a wait."""
        self._woken.set()

    def time(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def cancel(self, number: int) -> None:
        """Nothing runs between waits: its future ends in its turn."""

    def close(self) -> None:
        """Nothing to release."""

    def describe(self) -> dict[str, Any]:
        """Its name."""
        return {"executor": type(self).__name__}

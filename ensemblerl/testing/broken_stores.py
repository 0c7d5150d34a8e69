"""Stores that each break one law of `Store`; see `ensemblerl.testing.broken`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ensemblerl.events import Closed, Event, Launched
from ensemblerl.protocols import State, Store
from ensemblerl.records import Snapshot
from ensemblerl.testing.core import Control
from ensemblerl.testing.events import outcomes, sample_events
from ensemblerl.testing.memory import Kept, MemoryStore, MemoryStores, toy_record
from ensemblerl.testing.store_laws import check_store

LEDGER = "ledger.jsonl"


def check_in_memory(make: type[MemoryStore]) -> None:
    """`check_store` without a file, with toy records."""
    records = [(toy_record(outcome), outcome) for outcome in outcomes()]
    check_store(MemoryStores(make), ledger=None, records=records)


def check_on_disk(make: Callable[[Path], Store]) -> None:
    """`check_store` with a file."""
    check_store(make, ledger=LEDGER)


class DropsTheLast(MemoryStore):
    """The last event of the last driver is still in a buffer when it leaves."""

    def close(self) -> None:
        """Not flushed."""
        self.kept.events = self.kept.events[:-1]


class NewestFirst(MemoryStore):
    """Hands the events of one call out in reverse."""

    def append(self, *events: Event) -> None:
        """The wrong way round."""
        super().append(*events[::-1])


class SortsByTime(MemoryStore):
    """Orders events by their clock, which may stand still or go back."""

    def append(self, *events: Event) -> None:
        """Ties by reason."""
        super().append(*events)
        if all(isinstance(event, Closed) for event in self.kept.events):
            self.kept.events.sort(key=lambda e: (e.time, len(e.reason), e.reason[::-1]))  # type: ignore[union-attr]


class ForgetsOnOpening(MemoryStore):
    """Starts anew where the history has grown."""

    def __init__(self, kept: Kept | None = None) -> None:
        super().__init__(kept)
        if len(self.kept.events) > len(sample_events()):
            self.kept.events.clear()


class ForgetsLineage(MemoryStore):
    """Keeps no parents."""

    def append(self, *events: Event) -> None:
        """Every member an orphan."""
        super().append(*[self.orphaned(event) for event in events])

    def orphaned(self, event: Event) -> Event:
        """The same with parents at their default."""
        if not isinstance(event, Launched):
            return event
        orphans = replace(event.members, parent=np.full(len(event.members), -1))
        return replace(event, members=orphans)


class LosesRecords(MemoryStore):
    """Finds what it kept, in this life only."""

    def close(self) -> None:
        """Not written."""
        self.kept.records.clear()


class FindsAgain(MemoryStore):
    """Brings every record at every call."""

    def found(self) -> Iterator[tuple[Any, dict[str, Any]]]:
        """From the start."""
        self._found = 0
        yield from super().found()


class FirstCheckpoint(MemoryStore):
    """Never replaces a checkpoint."""

    def checkpoint(self, state: State, n_events: int) -> None:
        """The first one stays."""
        if self.kept.checkpoint is None:
            super().checkpoint(state, n_events)


class SingleWeights(MemoryStore):
    """Keeps weights in single precision."""

    def publish(self, snapshot: Snapshot) -> None:
        """Half the bytes."""
        weights = {k: v.astype("f4") if v.dtype == "f8" else v for k, v in snapshot.weights.items()}
        super().publish(replace(snapshot, weights=weights))


class OnePolicy(MemoryStore):
    """Has the newest version only, whichever is asked for."""

    def snapshot(self, version: int) -> Snapshot | None:
        """The newest."""
        return super().snapshot(max(self.kept.snapshots, default=version))


class LogsReplays(MemoryStore):
    """Keeps the telemetry of a replay once more."""

    def log(self, rows: Iterable[Mapping[str, Any]], n_events: int) -> None:
        """All of it."""
        self.kept.telemetry.extend({**row, "n_events": n_events} for row in rows)


class Lines(MemoryStore):
    """A file of lines with no checksum: an index into sample events, or a reason.

    Sound but for torn tails; ``parse`` says what is made of a line.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(_checkpoints.setdefault(path, Kept()))
        path.mkdir(parents=True, exist_ok=True)
        self.file = path / LEDGER
        self.file.touch()
        self.repair()

    def repair(self) -> None:
        """What is done about a torn tail at opening."""

    def append(self, *events: Event) -> None:
        """One line an event."""
        with self.file.open("a") as file:
            file.write("".join(map(self.line, events)))

    def line(self, event: Event) -> str:
        """Its text."""
        known = json.dumps([str(e) for e in sample_events()])
        index = json.loads(known).index(str(event)) if str(event) in json.loads(known) else -1
        closed = [event.time, event.reason] if isinstance(event, Closed) else []
        return json.dumps([index, *closed]) + "\n"

    def events(self) -> Iterator[Event]:
        """Line by line."""
        for line in self.file.read_bytes().decode(errors="replace").splitlines():
            yield from self.parse(line)

    def parse(self, line: str) -> list[Event]:
        """The event of a line."""
        try:
            index, *closed = json.loads(line)
            return [Closed(*closed)] if closed else [sample_events()[index]]
        except (ValueError, TypeError, IndexError):
            return self.torn(line)

    def torn(self, line: str) -> list[Event]:
        """A line that is no event."""
        return []


class AcceptsTornLines(Lines):
    """Takes what is left of a torn line for an event."""

    def torn(self, line: str) -> list[Event]:
        """Something all the same."""
        return [Closed(0.0, line)]


class GluesOntoTheTear(Lines):
    """Skips a torn line when reading, and appends the next event to it."""


class NoChecksum(Lines):
    """Cuts a torn tail off, and takes a damaged line at its word."""

    def repair(self) -> None:
        """Cut after the last whole line."""
        data = self.file.read_bytes()
        self.file.write_bytes(data[: data.rfind(b"\n") + 1])


_checkpoints: dict[Path, Any] = {}

_CASES: list[tuple[str, Callable[[Any], None], type[MemoryStore]]] = [
    ("events come back", check_in_memory, DropsTheLast),
    ("events come back", check_in_memory, NewestFirst),
    ("events outlive the driver, in order", check_in_memory, SortsByTime),
    ("events outlive the driver, in order", check_in_memory, ForgetsOnOpening),
    ("events come back", check_in_memory, ForgetsLineage),
    ("records are found by number and attempt", check_in_memory, LosesRecords),
    ("records are found by number and attempt", check_in_memory, FindsAgain),
    ("the newest checkpoint comes back", check_in_memory, FirstCheckpoint),
    ("a published version comes back", check_in_memory, SingleWeights),
    ("a published version comes back", check_in_memory, OnePolicy),
    ("telemetry is kept once", check_in_memory, LogsReplays),
    ("a torn tail is no event", check_on_disk, AcceptsTornLines),
    ("a torn tail is no event", check_on_disk, GluesOntoTheTear),
    ("a torn tail is no event", check_on_disk, NoChecksum),
]
BROKEN = [Control(make.__name__, law, check, make) for law, check, make in _CASES]

"""The store of a campaign: a directory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ensemblerl.events import Event
from ensemblerl.ledger import Ledger
from ensemblerl.protocols import State
from ensemblerl.records import Hints, Outcome, Snapshot
from ensemblerl.store import checkpoint, hints, policies
from ensemblerl.store.codec import encode, spelt
from ensemblerl.store.compactor import Compactor
from ensemblerl.store.errors import FORMAT, StoreError, failure
from ensemblerl.store.eventlog import LogFile, line, repair, scan
from ensemblerl.store.files import write_json
from ensemblerl.store.history import Offsets
from ensemblerl.store.index import SegmentIndex
from ensemblerl.store.lock import Lock
from ensemblerl.store.reading import CAMPAIGN, LEDGER, is_store, read_events, read_provenance
from ensemblerl.store.running import Running
from ensemblerl.store.segments import get_writer
from ensemblerl.store.telemetry import NAME, LearningLog, read_rows

if TYPE_CHECKING:
    import xarray as xr

_OURS = {"lock", CAMPAIGN + ".part", hints.NAME, hints.NAME + ".part"}
"""What a kill during `DirectoryStore.create` may leave behind."""


class DirectoryStore:
    """Keeps a campaign in a directory; one driver at a time.

    Construct it with `create` for a new campaign, with `resume` for one that is there.

    Parameters
    ----------
    root : the directory
    lock : held for it
    provenance : of the campaign

    Attributes
    ----------
    path : the directory
    segments : absolute path of the directory of the workers' files
    """

    def __init__(self, root: Path, lock: Lock, provenance: Mapping[str, Any]) -> None:
        self.path = root
        self.segments = str((root / "segments").absolute())
        self._lock, self._provenance, self._pid = lock, dict(provenance), os.getpid()
        self._offsets = Offsets()
        self._found = SegmentIndex(self.segments, keep=False)
        self._running = Running(root)
        self._compactor = Compactor(root, self._provenance, self._offsets)
        self._log, n_events = self._opened()
        try:
            self._learning = LearningLog(root / NAME, n_events)
        except BaseException:
            self._log.close()
            raise

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        provenance: Mapping[str, Any],
        warm: Hints | None = None,
    ) -> Self:
        """A new store, open for writing.

        Parameters
        ----------
        path : directory that is empty or not there yet
        provenance : JSON; ``space`` (`Space.to_json`) and ``goal`` (with ``k``) are what the
            dataset is read with
        warm : hints that the campaign begins with; ``warm_start`` of the provenance tells of them

        Raises
        ------
        StoreError
            when the directory holds something already, or cannot be written
        StoreLocked
            when another driver makes one here just now
        """
        root = Path(path)
        try:
            root.mkdir(parents=True, exist_ok=True)
            there = {entry.name for entry in root.iterdir()} - _OURS
        except OSError as error:
            raise failure(error, root, "make a store") from error
        if there:
            raise StoreError(17, _occupied(root, there), str(root))
        lock = Lock(root / "lock")
        try:
            if is_store(root):
                raise StoreError(17, _occupied(root, {CAMPAIGN}), str(root))
            if warm is not None:  # before the file that makes it a store
                hints.save(root, warm)
            write_json(root / CAMPAIGN, spelt({"format": FORMAT, **provenance}))
            return cls(root, lock, read_provenance(root))
        except BaseException:
            lock.release()
            raise

    @classmethod
    def resume(cls, path: str | os.PathLike[str]) -> Self:
        """The store at this path, open for writing.

        Raises
        ------
        StoreError
            when there is none, or it is damaged or cannot be written
        StoreFormatError
            when it was written in another format
        StoreLocked
            when another driver works on it
        """
        root = Path(path)
        read_provenance(root)
        lock = Lock(root / "lock")
        try:
            return cls(root, lock, read_provenance(root))
        except BaseException:
            lock.release()
            raise

    def _opened(self) -> tuple[LogFile, int]:
        """The ledger's file, its torn tail cut off, every launch in it noted; events in it."""
        file, stop, n_events = self.path / LEDGER, 0, 0
        try:
            if file.exists():
                for offset, text in scan(file):
                    stop = offset + len(text) + len(line(""))
                    self._offsets.note(offset, text, stop)
                    n_events += 1
                repair(file, stop)
            return LogFile(file, self._lock.beat), n_events
        except OSError as error:
            raise failure(error, file, "open the ledger") from error

    @property
    def provenance(self) -> dict[str, Any]:
        """What ``campaign.json`` says, without the format."""
        return dict(self._provenance)

    def update_provenance(self, **changes: Any) -> None:
        """Replace entries of the provenance."""
        content = spelt({**self._provenance, **changes})
        write_json(self.path / CAMPAIGN, {"format": FORMAT, **content})
        self._provenance.update(content)

    @property
    def warm(self) -> Hints | None:
        """The hints that the campaign was begun with, if any."""
        return hints.load(self.path) if self._provenance.get("warm_start") else None

    def append(self, *events: Event) -> None:
        """Keep these events, in one write; on return they are acknowledged.

        Raises
        ------
        StoreError
            when they could not be written; then none of them is kept
        """
        if not events:
            return
        texts = [encode(event) for event in events]
        offsets = self._log.append(texts)
        for offset, text, stop in zip(offsets, texts, [*offsets[1:], self._log.size], strict=True):
            self._offsets.note(offset, text.encode(), stop)

    def events(self) -> Iterator[Event]:
        """Every event kept, in order."""
        return read_events(self.path)

    def found(self) -> Iterator[tuple[Outcome, dict[str, Any]]]:
        """(outcome, layout) of every record that came since the last call.

        The layout is empty where there are no arrays.
        """
        for outcome, _ in self._found.poll():
            yield outcome, self._found.layouts.get(outcome.schema, {})

    def keep(self, record: bytes) -> None:
        """Write a record that a worker could not write (or several, one after the other)."""
        get_writer(self.segments).write_raw(record)

    def running(self) -> set[tuple[int, int]]:
        """(number, attempt) of members whose supervisor lives."""
        return self._running.all()

    def end(self, number: int, attempt: int) -> None:
        """Ask for the end of an attempt; one that has not begun does not begin."""
        self._running.end(number, attempt)

    def checkpoint(self, state: State, n_events: int) -> None:
        """Keep a sampler's state as it was after so many events."""
        checkpoint.save(self.path / "checkpoint.npz", state, n_events)

    def restored(self) -> tuple[State, int] | None:
        """The newest whole checkpoint, if any."""
        return checkpoint.load(self.path / "checkpoint.npz")

    def publish(self, snapshot: Snapshot) -> None:
        """Keep a version of a policy as a read-only file in ``policy/``.

        Raises
        ------
        StoreError
            when it cannot be written
        """
        policies.publish(self.path, snapshot)

    def snapshot(self, version: int) -> Snapshot | None:
        """The one published under this version, if any."""
        return policies.published(self.path, version)

    def log(self, rows: Iterable[Mapping[str, Any]], n_events: int) -> None:
        """Keep telemetry that came when so many events were known; none of it twice.

        Raises
        ------
        StoreError
            when it cannot be written
        """
        self._learning.append(rows, n_events)

    def logged(self) -> Iterator[dict[str, Any]]:
        """All telemetry, in order."""
        return read_rows(self.path)

    def compact(self, ledger: Ledger, *, final: bool = False) -> None:
        """Move complete blocks of settled members into shards; all there is when ``final``.

        Raises
        ------
        StoreError
            when a shard cannot be written; ledger and segments still hold everything
        """
        self._compactor.compact(ledger, final=final)
        if final and ledger.settled.all():
            self._running.clear()

    def unfinished(self, ledger: Ledger) -> bool:
        """Whether shards and group do not hold all of this ledger: ``compact(final=True)`` is due.

        So it is while a campaign runs, and when a kill cut the last compaction off.
        """
        return self._compactor.unfinished(ledger)

    def open(self) -> xr.Dataset:
        """The campaign as it stands, lazily."""
        from ensemblerl.store.backend import open_store

        return open_store(self.path)

    def close(self) -> None:
        """Bring everything to disk, release the lock; again does nothing."""
        if self._pid != os.getpid():
            return
        try:
            self._learning.close()
            get_writer(self.segments).close()
            self._log.close()
        finally:
            self._lock.release()


def _occupied(root: Path, there: set[str]) -> str:
    if CAMPAIGN in there:
        return "a campaign is here already; resume it, or choose another store= path"
    some = ", ".join(sorted(there)[:3])
    return f"the directory holds other files ({some}); choose an empty or new store= path"

"""The laws of `ensemblerl.protocols.Store`, one function a law."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ensemblerl.events import Closed, Event
from ensemblerl.protocols import State, Store
from ensemblerl.records import Outcome, Snapshot
from ensemblerl.testing.core import require, same
from ensemblerl.testing.events import same_event, sample_events

Make = Callable[[Path], Store]


def check_store(
    make: Make,
    *,
    ledger: str | None = "ledger.jsonl",
    records: Sequence[tuple[bytes, Outcome]] = (),
) -> None:
    """Hold a store to its laws.

    Parameters
    ----------
    make : path of a directory (perhaps not there yet) -> `Store` open for writing; the same path
        must find again what was kept there
    ledger : name of the file of events inside; None for a store without one, which spares it
        the laws of torn tails
    records : segment records as workers write them, with the outcome each holds; none spares
        the store the laws of records

    Raises
    ------
    BrokenLawError
        An AssertionError that names the law and says what came.
    """
    with tempfile.TemporaryDirectory(prefix="store-laws-") as name:
        folder = Path(name)
        round_trip_law(make, folder / "round")
        reopened_law(make, folder / "reopened")
        checkpoint_law(make, folder / "checkpoint")
        snapshot_law(make, folder / "snapshots")
        telemetry_law(make, folder / "telemetry")
        if ledger is not None:
            torn_tail_law(make, folder / "torn", ledger)
            damage_law(make, folder / "damaged", ledger)
        if records:
            records_law(make, folder / "records", records)


def round_trip_law(make: Make, path: Path) -> None:
    """Every event comes back with every column: while the store is open, and from a new one."""
    kept, store = sample_events(), make(path)
    store.append(kept[0])
    store.append(*kept[1:4])
    store.append(*kept[4:])
    _compare(list(store.events()), kept, "events come back")
    store.close()
    again = make(path)
    _compare(list(again.events()), kept, "events come back")
    again.close()


def reopened_law(make: Make, path: Path) -> None:
    """Drivers that come and go append to one history, in order."""
    law = "events outlive the driver, in order"
    kept: list[Event] = []
    for life in range(5):
        store = make(path)
        _compare(list(store.events()), kept, law)
        for call in range(8):
            new = [Closed(float(life), f"{life} {call} {i}") for i in range(1 + call % 3)]
            store.append(*new)
            kept += new
        _compare(list(store.events()), kept, law)
        store.close()


def _compare(came: list[Event], wanted: list[Event], law: str) -> None:
    require(len(came) == len(wanted), law, f"{len(came)} events, wanted {len(wanted)}")
    for i, (one, two) in enumerate(zip(came, wanted, strict=True)):
        require(same_event(one, two), law, f"event {i} came as {one}, wanted {two}")


def checkpoint_law(make: Make, path: Path) -> None:
    """The newest checkpoint comes back exactly, and there is none before the first."""
    law, store = "the newest checkpoint comes back", make(path)
    require(store.restored() is None, law, "one was there before the first")
    for n_events in (3, 70, 71):
        state = _state(n_events)
        store.checkpoint(state, n_events)
        _state_law(store.restored(), state, n_events, law)
    store.close()
    again = make(path)
    _state_law(again.restored(), state, n_events, law)
    again.close()


def _state(n: int) -> State:
    rng = np.random.default_rng(n)
    inner = {"weights": rng.standard_normal((2, 3)), "count": n, "empty": np.empty((0, 4))}
    flags, text = rng.random(3) < 0.5, np.array(["ünï", ""])
    lists = {"names": ["a", "ü"], "sizes": [1, 2]}
    return {"part": {"inner": inner, "nothing": {}}, "flags": flags, "text": text, **lists}


def _state_law(came: tuple[State, int] | None, state: State, n_events: int, law: str) -> None:
    require(came is not None, law, "none came")
    assert came is not None
    require(came[1] == n_events, law, f"after {came[1]} events, wanted {n_events}")
    require(same(came[0], state), law, f"state came as {came[0]}, wanted {state}")


def snapshot_law(make: Make, path: Path) -> None:
    """A version comes back as it was published, in this life and later; no other one does."""
    law, store = "a published version comes back", make(path)
    rng = np.random.default_rng(0)
    arrays = {"w": rng.standard_normal((3, 2)), "b/ü": np.array(1, "i4"), "none": np.empty((0, 2))}
    kept = [Snapshot(i, {**arrays, "i": np.array([i])}, {"a": [None, 0.1]}) for i in (0, 17)]
    for snapshot in kept:
        store.publish(snapshot)
        store.publish(snapshot)
    for _ in range(2):
        require(store.snapshot(3) is None, law, "version 3 came, which was never published")
        for snapshot in kept:
            came = store.snapshot(snapshot.version)
            require(same(came, snapshot), law, f"{snapshot} came as {came}")
        store.close()
        store = make(path)
    store.close()


def telemetry_law(make: Make, path: Path) -> None:
    """Rows come back in order; those of a replay are not kept again, those after it are."""
    law = "telemetry is kept once"
    rows = [{"loss": i / 3, "counts": [i, 0], "who": "ü"} for i in range(6)]
    calls = [(rows[:1], 2), (rows[1:3], 4), (rows[3:4], 4), (rows[4:], 5)]
    wanted = [{**row, "n_events": n} for some, n in calls for row in some]
    for life in (1, 3, 4, 4):
        store = make(path)
        store.append(*[Closed(0.0, "")] * (6 - len(list(store.events()))))
        for some, n in calls[:life]:
            store.log(some, n)
        store.close()
        store = make(path)
        came, until = list(store.logged()), sum(len(some) for some, _ in calls[:life])
        require(came == wanted[:until], law, f"after {life} calls {came} came")
        store.close()


def torn_tail_law(make: Make, path: Path, ledger: str) -> None:
    """Cut anywhere in its last line, a file gives all events before it, and takes new ones."""
    kept, data, start = _written(make, path, ledger)
    for cut in range(start, len(data)):
        whole = cut >= len(data.rstrip(b"\n"))
        _tail_law(make, path, ledger, data[:cut], kept, whole)


def damage_law(make: Make, path: Path, ledger: str) -> None:
    """The same with a last line in which a byte is wrong, or junk in its place."""
    kept, data, start = _written(make, path, ledger)
    for place in range(start, len(data.rstrip(b"\n")), 3):
        wrong = bytearray(data)
        wrong[place] ^= 1
        _tail_law(make, path, ledger, bytes(wrong), kept, False)
    rng = np.random.default_rng(0)
    for junk in (b"\0" * 700, b"\n", b"{}\n", rng.bytes(500), data[start + 1 :]):
        _tail_law(make, path, ledger, data[:start] + junk, kept, False)


def _written(make: Make, path: Path, ledger: str) -> tuple[list[Event], bytes, int]:
    """Events in a store, the bytes of its file, and where the last line starts."""
    kept = [*sample_events()[:4], Closed(1.7e9, "the end ✓")]
    store = make(path)
    for event in kept:
        store.append(event)
    store.close()
    data = (path / ledger).read_bytes()
    return kept, data, data.rstrip(b"\n").rfind(b"\n") + 1


def _tail_law(
    make: Make, path: Path, ledger: str, data: bytes, kept: list[Event], whole: bool
) -> None:
    """What a store makes of a file whose last line is not whole (or lacks its end only)."""
    law = "a torn tail is no event"
    (path / ledger).write_bytes(data)
    store = make(path)
    came = list(store.events())
    wanted = kept if whole and len(came) == len(kept) else kept[:-1]
    _compare(came, wanted, law)
    new = Closed(2e9, "after the tear")
    store.append(new)
    store.close()
    again = make(path)
    _compare(list(again.events()), [*wanted, new], law)
    again.close()


def records_law(make: Make, path: Path, records: Sequence[tuple[bytes, Outcome]]) -> None:
    """A record that was kept is found once by each driver, in the life that kept it and later."""
    law, store = "records are found by number and attempt", make(path)
    half = len(records) // 2
    for part in (records[:half], records[half:]):
        for record, _ in part:
            store.keep(record)
        _found_law(store.found(), [outcome for _, outcome in part], law)
    _found_law(store.found(), [], law)
    store.close()
    again = make(path)
    _found_law(again.found(), [outcome for _, outcome in records], law)
    again.close()


def _found_law(
    found: Iterator[tuple[Any, dict[str, Any]]], wanted: list[Outcome], law: str
) -> None:
    came = sorted((o._replace(record=None) for o, _ in found), key=lambda o: o[:2])
    wanted = sorted((o._replace(record=None) for o in wanted), key=lambda o: o[:2])
    require(same(came, wanted), law, f"found {came}, wanted {wanted}")

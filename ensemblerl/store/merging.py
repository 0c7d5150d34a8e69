"""Many small events as few large ones, for readers: columns are written once per thousands."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from ensemblerl.events import Event, Launched, Published, Settled
from ensemblerl.records import AnyArray, Members

MOST = 4096


def merged(events: Iterable[Event]) -> Iterator[Event]:
    """Events that leave a ledger with the same columns.

    Launches in a row with settlements become one launch and one settlement, with a time for each
    row in place of one; everything else stays where it is, but versions of policies, which no
    column depends on and which would cut the rows short.
    """
    launched: list[Launched] = []
    settled: list[Settled] = []
    for event in events:
        if isinstance(event, Launched):
            launched.append(event)
        elif isinstance(event, Settled):
            settled.append(event)
        elif isinstance(event, Published):
            yield event
        else:
            yield from _flush(launched, settled)
            yield event
        if len(launched) + len(settled) >= MOST:
            yield from _flush(launched, settled)
    yield from _flush(launched, settled)


def _flush(launched: list[Launched], settled: list[Settled]) -> Iterator[Event]:
    """The launches, then the settlements, each as few events; both lists are emptied."""
    for group in _alike(launched):
        yield _one(group)
    if settled:
        outcomes = tuple(o for event in settled for o in event.outcomes)
        yield Settled(_times(settled, [len(e.outcomes) for e in settled]), outcomes)
    launched.clear()
    settled.clear()


def _alike(events: list[Launched]) -> Iterator[list[Launched]]:
    """Launches in a row that have the same notes, of the same shapes."""
    group: list[Launched] = []
    for event in events:
        if group and _kinds(event) != _kinds(group[-1]):
            yield group
            group = []
        group.append(event)
    if group:
        yield group


def _kinds(event: Launched) -> dict[str, Any]:
    return {name: (v.dtype.kind, v.shape[1:]) for name, v in event.members.notes.items()}


def _one(events: list[Launched]) -> Launched:
    if len(events) == 1:
        return events[0]
    parts = [event.members for event in events]
    notes = {name: np.concatenate([p.notes[name] for p in parts]) for name in parts[0].notes}
    columns = {
        name: np.concatenate([getattr(p, name) for p in parts])
        for name in vars(parts[0])
        if name not in ("points", "notes")
    }
    members = Members(points={}, notes=notes, **columns)
    return Launched(_times(events, [len(p) for p in parts]), members)


def _times(events: Sequence[Launched | Settled], lengths: list[int]) -> Any:
    """(rows,) times: a ledger takes one for all, or one for each."""
    times: AnyArray = np.repeat([event.time for event in events], lengths)
    return times

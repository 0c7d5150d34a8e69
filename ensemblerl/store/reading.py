"""The ledger as a reader takes it in: whole, or only what is not in shards."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ensemblerl.events import Ended, Event, Launched, Relaunched, Settled
from ensemblerl.ledger import Ledger
from ensemblerl.store.codec import decode
from ensemblerl.store.columns import Points
from ensemblerl.store.errors import FORMAT, StoreError, StoreFormatError
from ensemblerl.store.eventlog import scan
from ensemblerl.store.files import read_json
from ensemblerl.store.manifest import Manifest
from ensemblerl.store.merging import merged

CAMPAIGN = "campaign.json"
LEDGER = "ledger.jsonl"


def is_store(path: str | os.PathLike[str]) -> bool:
    """Whether a campaign was begun in this directory."""
    return (Path(path) / CAMPAIGN).is_file()


def read_provenance(root: Path) -> dict[str, Any]:
    """The provenance of a store.

    Raises
    ------
    StoreError
        where there is none
    StoreFormatError
        when the store was written in another format
    """
    if not is_store(root):
        raise StoreError(2, f"no campaign here: there is no {CAMPAIGN}", str(root))
    try:
        provenance = read_json(root / CAMPAIGN)
        found = provenance.pop("format", None)
    except (ValueError, AttributeError) as error:
        raise StoreFormatError(f"{root / CAMPAIGN} is not the JSON of a campaign") from error
    if found != FORMAT:
        raise StoreFormatError(
            f"{root}: format {found!r} of the store is not known here (known: {FORMAT}); "
            "use the version of ensemblerl that wrote it, named in campaign.json"
        )
    content: dict[str, Any] = provenance
    return content


def read_ledger(path: str | os.PathLike[str]) -> tuple[Ledger, dict[str, Any]]:
    """(ledger, provenance) of a store, which may be in use."""
    root = Path(path)
    provenance = read_provenance(root)
    return build(root, provenance, Manifest()), provenance


def read_events(root: Path, offset: int = 0) -> Iterator[Event]:
    """Every event kept from this byte on."""
    if (root / LEDGER).exists():
        for _, text in scan(root / LEDGER, offset):
            yield decode(text)


def build(root: Path, provenance: Mapping[str, Any], manifest: Manifest) -> Ledger:
    """The ledger of the members from ``manifest.first`` on, which is its row 0."""
    goal = provenance.get("goal") or {}
    ndim = Points(provenance).ndim
    if ndim is None:
        ndim = _ndim(root, manifest.ledger_offset)
    ledger = Ledger(ndim, int(goal.get("k", 1)))
    for text in manifest.preamble:
        ledger.apply(decode(text))
    shifted = (
        _shifted(event, manifest.first) for event in read_events(root, manifest.ledger_offset)
    )
    for event in merged(event for event in shifted if event is not None):
        ledger.apply(event)
    return ledger


def _ndim(root: Path, offset: int) -> int:
    """Coordinates of the first launch found; 0 before there is one."""
    for event in read_events(root, offset):
        if isinstance(event, Launched):
            return int(event.members.unit.shape[1])
    return 0


def _shifted(event: Event, first: int) -> Event | None:
    """What an event says of the members from ``first`` on, counted from there."""
    if not first:
        return event
    match event:
        case Launched(members=members):
            rest = members.take(members.number >= first)
            rest = replace(rest, number=rest.number - first)
            return replace(event, members=rest) if len(rest) else None
        case Relaunched(number=number):
            rows = number >= first
            return replace(event, number=number[rows] - first, attempt=event.attempt[rows])
        case Settled() | Ended():
            told = tuple(
                o._replace(number=o.number - first) for o in event.outcomes if o.number >= first
            )
            return replace(event, outcomes=told) if told else None
        case _:
            return event

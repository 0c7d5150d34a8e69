"""The events of a campaign as its Dataset leads to them: in the store, or kept beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ensemblerl.events import Event, Launched, Settled
from ensemblerl.ledger import Ledger
from ensemblerl.protocols import Goal
from ensemblerl.records import Outcome
from ensemblerl.store.columns import Points
from ensemblerl.store.merging import merged
from ensemblerl.store.reading import is_store, read_events, read_provenance

if TYPE_CHECKING:
    import xarray as xr

EVENTS = "campaign"
"""Entry of ``Dataset.encoding`` with a `Kept`, where the Dataset does not stand for its store."""

Change = Callable[[Outcome], Outcome | None]


class Kept(NamedTuple):
    """What an answer is made of.

    Parameters
    ----------
    events : of the campaign, in order
    provenance : see `ensemblerl.provenance.provenance`
    goal : where it is another than the provenance's, and no description could give it back
    """

    events: Sequence[Event]
    provenance: Mapping[str, Any]
    goal: Goal | None = None


def of_store(root: Path) -> Kept:
    """Everything in a store as it is now."""
    provenance = read_provenance(root)  # first: it says when this is no store
    return Kept(tuple(read_events(root)), provenance)


def of_dataset(ds: xr.Dataset, call: str) -> Kept:
    """What the Dataset brings along, or else what is in its store now.

    Parameters
    ----------
    ds : the Dataset
    call : what was asked of ``ds.erl``, for the message

    Raises
    ------
    ValueError
        when it knows neither
    """
    if EVENTS in ds.encoding:
        kept: Kept = ds.encoding[EVENTS]
        return kept
    return of_store(store_of(ds, call))


def store_of(ds: xr.Dataset, call: str) -> Path:
    """The store that a Dataset was opened from.

    Parameters
    ----------
    ds : the Dataset
    call : what was asked of ``ds.erl``, for the message

    Raises
    ------
    ValueError
        when it does not know its store, or that is gone
    """
    source = str(ds.encoding.get("source", ""))
    if source and is_store(source):
        return Path(source)
    where = f"its store {source} is gone" if source else "it does not say from which store"
    raise ValueError(
        f"ds: wanted a Dataset as it was opened from a store, but {where}; keep the "
        f"campaign with explore(..., store=...) and ask erl.open(store).erl.{call}"
    )


def ledger_of(events: Iterable[Event], *, ndim: int | None, k: int) -> Ledger:
    """The ledger that these events make.

    Parameters
    ----------
    events : in order
    ndim : coordinates of the cube; those of the first launch when None
    k : values of the goal
    """
    ledger = None if ndim is None else Ledger(ndim, k)
    waiting: list[Event] = []
    for event in merged(events):
        if ledger is None:
            waiting.append(event)
            if not isinstance(event, Launched):
                continue
            ledger = Ledger(event.members.unit.shape[1], k)
            for before in waiting:
                ledger.apply(before)
        else:
            ledger.apply(event)
    return ledger if ledger is not None else Ledger(0, k)


def ledger(kept: Kept, *, change: Change, k: int) -> Ledger:
    """The ledger with every settlement as ``change`` would have it; None leaves it pending."""
    ndim = Points(kept.provenance).ndim
    return ledger_of(retold(kept.events, change), ndim=ndim, k=k)


def retold(events: Iterable[Event], change: Change) -> Iterator[Event]:
    """The events with every settlement as ``change`` would have it; None leaves it pending."""
    for event in events:
        if not isinstance(event, Settled):
            yield event
        elif outcomes := tuple(o for o in map(change, event.outcomes) if o is not None):
            yield replace(event, outcomes=outcomes)

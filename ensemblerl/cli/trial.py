"""Runs one member as the campaign would, in a small campaign of its own, and tells how it went."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ensemblerl.campaign import Campaign
from ensemblerl.cli.causes import placeless
from ensemblerl.cli.differing import by_share
from ensemblerl.cli.witness import NOTES, witness
from ensemblerl.front import Given
from ensemblerl.protocols import Executor
from ensemblerl.provenance import provenance
from ensemblerl.records import AnyArray, Fate
from ensemblerl.resolve import as_sampler
from ensemblerl.store.columns import Layout, Points
from ensemblerl.store.directory import DirectoryStore
from ensemblerl.store.reading import read_provenance

SEED = 0
"""Of the check, where the workflow names none."""


class Trial(NamedTuple):
    """How one member went.

    ``fate``, ``cause``, ``runtime`` (s) as in a ledger; ``result`` name -> array; ``dims`` name ->
    text; ``member_bytes`` in the store; ``worker`` where it ran; ``n_workers`` and ``startup`` (s)
    of the executor; ``died``: it ended the process it ran in; ``notes`` of the `Witness`, none
    where the store's place is not to be seen.
    """

    fate: str
    cause: str
    runtime: float
    result: dict[str, AnyArray]
    dims: dict[str, str]
    member_bytes: int
    worker: str
    n_workers: int
    startup: float
    died: bool
    notes: dict[str, Any]

    @property
    def ok(self) -> bool:
        """Whether the member is ok."""
        return self.fate == Fate.ok


@contextmanager
def beside(store: Path) -> Iterator[Path]:
    """A directory for stores of the check, as near to where the store will be as can be: there
    workers see it if they will see the store. Removed in the end.

    Raises
    ------
    OSError
        when nothing can be written there
    """
    near = next(place for place in store.absolute().parents if place.exists())
    place = Path(tempfile.mkdtemp(prefix=".ensemblerl-check-", dir=near))
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def trial(given: Given, executor: Executor, place: Path) -> Trial:
    """Run the first member on this executor.

    Parameters
    ----------
    given : what the workflow asked for
    executor : is started, and closed in the end
    place : directory for its store, which does not exist yet

    Raises
    ------
    TypeError
        when the simulation cannot be pickled for other processes
    RuntimeError
        when the executor cannot be started
    """
    seed = SEED if given.seed is None else int(given.seed)
    sampler = as_sampler("sobol", given.space, 1)
    made = provenance(given.simulation, given.space, given.goal, sampler, seed=seed)
    campaign = Campaign(
        witness(given.simulation, place),
        given.space,
        given.goal,
        sampler=sampler,
        executor=executor,
        store=DirectoryStore.create(place, made),
        n_members=1,
        seed=seed,
    )
    began = time.monotonic()
    with campaign:
        startup = time.monotonic() - began
        n_workers = executor.n_workers
        for _ in campaign.turns():
            pass
    return _told(campaign, place, n_workers, startup)


def _told(campaign: Campaign, place: Path, n_workers: int, startup: float) -> Trial:
    ledger, ds = campaign.ledger, campaign.store.open().isel(member=0).load()
    layout = Layout(ledger.schema.layout if ledger.schema else None, Points(read_provenance(place)))
    result = {name: np.asarray(ds[name].values) for name in layout.fields}
    file = place / NOTES
    notes = json.loads(file.read_text()) if file.exists() else {}
    return Trial(
        fate=str(ds["fate"].values),
        cause=placeless(str(ds["cause"].values)),
        runtime=float(notes.get("seconds", ledger["runtime"][0])),
        result=result if str(ds["fate"].values) == Fate.ok else {},
        dims={name: _described(ds[name]) for name in layout.fields},
        member_bytes=layout.member_bytes,
        worker=str(ds["worker"].values),
        n_workers=n_workers,
        startup=startup,
        died=any(o.fate == Fate.lost for o in ledger.attempts.get(0, ())),
        notes=notes,
    )


def _described(array: Any) -> str:
    """Such as ``float64 (depth 10) K``."""
    sizes = ", ".join(f"{dim} {array.sizes[dim]}" for dim in array.dims)
    units = str(array.attrs.get("units", ""))
    return " ".join(filter(None, [str(array.dtype), f"({sizes})" if sizes else "", units]))


def difference(one: Trial, other: Trial) -> tuple[str, float]:
    """(variable that differs, by how much relative to its size); ("", 0.0) for the same."""
    for name in sorted({*one.result, *other.result}):
        a, b = one.result.get(name), other.result.get(name)
        share = np.inf if a is None or b is None else by_share(a, b)
        if share:
            return name, float(share)
    return "", 0.0

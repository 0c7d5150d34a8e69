"""The store's directory before there is a store."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ensemblerl.cli.checking import Examined
from ensemblerl.cli.errors import flat
from ensemblerl.cli.finding import BAD, GOOD, NOTE, WARN, Finding
from ensemblerl.cli.trial import Trial
from ensemblerl.cli.units import amount
from ensemblerl.protocols import Detached
from ensemblerl.provenance import Mismatch, check_same
from ensemblerl.store.reading import is_store, read_ledger


def disk(examined: Examined) -> Iterator[Finding]:
    """Whether the store can be written and has room."""
    store = examined.given.store
    if examined.unwritable:
        remedy = "choose a store= path that you may write to"
        yield Finding(BAD, "store", f"{store}: {examined.unwritable}", remedy)
        return
    if temporary(store):
        remedy = "give store= to keep the results on disk and to be able to resume"
        yield Finding(WARN, "store", "none: the results are in memory only", remedy)
        return
    there = list(_there(examined))
    yield from there
    if any(finding.mark == BAD for finding in there):
        return
    yield from _room(examined)
    ran = examined.there
    if isinstance(ran, Trial) and ran.ok and not ran.notes:
        remedy = "fine for small ones; else choose a store= on a disk that all nodes share"
        yield Finding(
            WARN, "store", "the worker does not see it: results travel through the driver", remedy
        )


def _there(examined: Examined) -> Iterator[Finding]:
    """A campaign that is in the store already."""
    given = examined.given
    if not is_store(given.store):
        return
    ledger, kept = read_ledger(given.store)
    found = f"{given.store} holds {ledger.n_settled} settled members already"
    try:
        check_same(str(given.store), kept, given.space, given.goal)
    except Mismatch as error:
        *differing, remedy = str(error).splitlines()
        yield Finding(BAD, "store", flat("\n".join(differing)), remedy)
        return
    if ledger.n_settled >= given.n_members:
        remedy = "raise n_members= to go on, or give another store="
        yield Finding(WARN, "store", f"{found}: nothing is left to run", remedy)
    else:
        yield Finding(NOTE, "store", f"{found}: the campaign goes on")


def _room(examined: Examined) -> Iterator[Finding]:
    store, ran = examined.given.store, examined.trials
    near = next(place for place in [store, *store.absolute().parents] if place.exists())
    free = shutil.disk_usage(near).free
    wanted = examined.given.n_members * ran[0].member_bytes if ran else 0
    keep = " and what is kept of working directories" * isinstance(
        examined.given.simulation, Detached
    )
    found = f"{store} can be written, {amount(free)} free"
    if 2 * wanted <= free:  # while it is compacted, a block is there twice
        yield Finding(GOOD, "store", found)
    else:
        remedy = f"{amount(wanted)} of results{keep} are expected: keep less, or use another disk"
        yield Finding(BAD if wanted > free else WARN, "store", found, remedy)


def temporary(store: Path) -> bool:
    """Whether this is the directory of a campaign without a store."""
    above = store.parent
    return above.name.startswith("ensemblerl-") and above.parent == Path(tempfile.gettempdir())

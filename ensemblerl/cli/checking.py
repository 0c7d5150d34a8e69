"""What ``ensemblerl check`` does: one member here, one on a worker, and what follows from them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ensemblerl.cli.finding import NOTE, Finding
from ensemblerl.cli.trial import SEED, Trial, beside, difference, trial
from ensemblerl.cli.waiting import Say
from ensemblerl.cluster.settings import Settings
from ensemblerl.executors.serial import Serial
from ensemblerl.executors.shipping import packed
from ensemblerl.front import Given
from ensemblerl.loop.bundling import Bundling
from ensemblerl.loop.stopping import FailureLimit, Stop
from ensemblerl.protocols import Job
from ensemblerl.resolve import as_sampler
from ensemblerl.store.running import OWNER

AGAIN = 60.0
"""Seconds that a member may take to be run once more, to learn why two results differ."""
SHORTEST = 1e-3
"""Seconds of a member, for a clock that saw none pass."""
CRASHED = "not run: it ended the process of its worker"


class Examined(NamedTuple):
    """What was found out.

    Parameters
    ----------
    given : what the workflow asked for
    point, seed : of the member
    here : how it went in this process, or why it was not run
    there : how it went on a worker, or why it was not run; "" when nobody asked
    job_bytes : pickled size of what travels to a worker, or why it cannot be pickled
    differs : "", or the variable that differs between the two
    by : relative size of that difference
    repeats : whether two runs in this process gave the same, None when that was not tried
    unwritable : why the store cannot be written, "" when it can
    queued : what was found of the queue that its cluster takes jobs from
    """

    given: Given
    point: dict[str, Any]
    seed: int
    here: Trial | str
    there: Trial | str
    job_bytes: int | str
    differs: str = ""
    by: float = 0.0
    repeats: bool | None = None
    unwritable: str = ""
    queued: tuple[Finding, ...] = ()

    @property
    def trials(self) -> list[Trial]:
        """Those that ran, the worker's first."""
        return [t for t in (self.there, self.here) if isinstance(t, Trial)]


def examine(
    given: Given, *, worker: bool = True, queue: bool = False, say: Say = lambda text: None
) -> Examined:
    """Run one member here and, unless ``worker`` is False, one on a worker of its cluster.
    ``say`` is told what is being waited for.

    Where workers are jobs of a `Cluster` no member is run on one; with ``queue`` a preflight is.

    The worker's goes first: a member that ends the process it runs in is not run here.

    Raises
    ------
    ValueError, TypeError
        for arguments of the campaign that it would refuse later
    """
    if type(given.executor).__name__ == "ByHand":
        raise ValueError("simulation: this workflow runs its members by hand: nothing to check")
    Stop(given.stop), FailureLimit(given.max_failures), Bundling(given.bundle)
    with _place(given.store) as (place, unwritable):
        there: Trial | str = ""
        if worker and settings_of(given) is None:
            say("one member on a worker")
            there = _tried(given, given.executor, place / "worker")
        here: Trial | str = CRASHED
        if isinstance(there, str) or not there.died:
            say("one member here")
            here = _tried(given, Serial(), place / "here")
        found = Examined(given, *_member(given), here, there, _job_bytes(given))
        found = found._replace(unwritable=unwritable, queued=_queued(given, here, queue, say))
        return _compared(found, place, say)


def settings_of(given: Given) -> Settings | None:
    """Those of the `Cluster` that the executor takes its jobs from; None for any other."""
    settings = getattr(given.executor, "settings", None)
    return settings if isinstance(settings, Settings) else None


def _queued(given: Given, here: Trial | str, ask: bool, say: Say) -> tuple[Finding, ...]:
    """What a preflight finds, or that there was none."""
    settings = settings_of(given)
    if settings is None:
        found = "this workflow takes no jobs from a queue: --queue has nothing to try"
        return (Finding(NOTE, "queue", found),) if ask else ()
    from ensemblerl.cluster.verdicts import unfit

    wrong = unfit(settings, max(1, given.simulation.cores))
    if wrong is not None:
        return (wrong,)
    if not ask:
        remedy = "check it with --queue: that submits one small job, and says what would fail"
        return (Finding(NOTE, "queue", f"{settings.scheduler} was not tried", remedy),)
    from ensemblerl.cluster.preflight import preflight

    temporary = (given.store.parent / OWNER).exists()
    runtime = max(here.runtime, SHORTEST) if isinstance(here, Trial) and here.ok else None
    report = preflight(
        settings,
        member_cores=max(1, given.simulation.cores),
        expected_runtime=runtime,
        segments="" if temporary else str(given.store.absolute() / "segments"),
        say=say,
    )
    return report.findings


@contextmanager
def _place(store: Path) -> Iterator[tuple[Path, str]]:
    """A place for our stores, and why it is not beside the store."""
    try:
        with beside(store) as place:
            yield place, ""
            return
    except OSError as error:
        why = error.strerror or str(error)
    with tempfile.TemporaryDirectory(prefix="ensemblerl-check-") as elsewhere:
        yield Path(elsewhere), why


def _tried(given: Given, executor: Any, place: Path) -> Trial | str:
    """A trial, or why there is none."""
    try:
        return trial(given, executor, place)
    except (TypeError, RuntimeError, OSError) as error:
        return f"not run: {error}"


def _member(given: Given) -> tuple[dict[str, Any], int]:
    """(point, seed) of the first member, as in a `trial`."""
    from ensemblerl.loop.numbering import member_seeds

    seed = SEED if given.seed is None else int(given.seed)
    sampler = as_sampler("sobol", given.space, 1)
    unit = sampler.ask(1, np.random.default_rng([seed, 0])).unit
    point = given.space.point(given.space.to_points(unit), 0)
    return point, int(member_seeds(seed, 0, 1)[0])


def _job_bytes(given: Given) -> int | str:
    segments = str(given.store.absolute() / "segments")
    try:
        parcel = packed(Job(given.simulation, given.goal, segments, os.getpid(), given.space.casts))
    except TypeError as error:
        return str(error)
    return len(parcel.content)


def _compared(found: Examined, place: Path, say: Say) -> Examined:
    """With the difference between the two; when there is one, a third run says whose fault."""
    here, there = found.here, found.there
    if not (isinstance(here, Trial) and isinstance(there, Trial) and here.ok and there.ok):
        return found
    differs, by = difference(here, there)
    if not differs or here.runtime > AGAIN:
        return found._replace(differs=differs, by=by)
    say("one member here once more, to learn why the results differ")
    again = _tried(found.given, Serial(), place / "again")
    repeats = isinstance(again, Trial) and again.ok and not difference(here, again)[0]
    return found._replace(differs=differs, by=by, repeats=repeats)

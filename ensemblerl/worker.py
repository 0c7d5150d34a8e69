"""Runs a bundle of members where they land: on a worker, in a child process, or right here."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ensemblerl.finishing import Finished, begun, encoded, finish, stop
from ensemblerl.protocols import Detached, Job
from ensemblerl.records import Answer, Members, Place
from ensemblerl.simulations.points import Task, tasks
from ensemblerl.store.segments import get_writer
from ensemblerl.supervisor import start

ANYWHERE = Place()
"""All of the machine, for as long as it takes."""


class Recorder:
    """Writes what members found to the segment, as they end, and builds the answer.

    An outcome carries its record where it cannot be written here: no segments, no such
    directory on this machine, disk full.

    Attributes
    ----------
    answer : outcomes so far, and the layouts they use
    """

    def __init__(self, job: Job) -> None:
        self.answer = Answer([], {})
        # A store that is not visible from here must not be made anew on some local disk.
        visible = job.segments and Path(job.segments).parent.is_dir()
        self._writer = get_writer(job.segments) if visible else None

    def add(self, finished: Finished) -> None:
        """Take in how a member ended."""
        outcome, layout = finished.outcome, finished.layout
        if layout is not None:
            self.answer.schemas.setdefault(outcome.schema, layout)
        if not finished.written and not self._write(finished):
            outcome = outcome._replace(record=encoded(finished))
        self.answer.outcomes.append(outcome)

    def _write(self, finished: Finished) -> bool:
        if self._writer is None:
            return False
        outcome, arrays, layout = finished[:3]
        try:
            if outcome.record is not None:
                self._writer.write_raw(outcome.record)
            else:
                self._writer.write(outcome, arrays, layout, outcome.schema)
        except OSError:
            return False
        return True


def run_bundle(
    job: Job,
    members: Members,
    *,
    stopped: Collection[tuple[int, int]] = frozenset(),
    place: Place = ANYWHERE,
    again: bool = False,
) -> Answer:
    """Run members one after the other; each result is on disk before the next one starts.

    Never raises for what a simulation does: that is an outcome. A member that is expected to need
    longer than there is left is not begun, and comes back as stopped.

    Parameters
    ----------
    job : what to run
    members : whom to run it for
    stopped : (number, attempt) of members that are not to be started any more; may grow
    place : what there is for each member, and until when
    again : another worker was given them before: what it has written is not run

    Returns
    -------
    Answer
        One outcome a member, in order, and the layouts of the results.

    Raises
    ------
    KeyboardInterrupt
        in the driver's own process only
    """
    if os.getpid() != job.driver:
        _ignore_interrupts()
    recorder, doing = Recorder(job), list(tasks(members, job.casts))
    done = begun(job, {task[:2] for task in doing}) if again else {}
    for task in doing:
        if task[:2] in done:
            recorder.add(done[task[:2]])
        elif task[:2] in stopped:
            recorder.add(stop(task))
        elif late := too_late(place):
            recorder.add(stop(task, late))
        else:
            recorder.add(run(job, task, place, again=again))
    return recorder.answer


def too_late(place: Place) -> str:
    """Why no member is to begin here any more; "" while one may."""
    if place.until is None:
        return ""
    left = place.until - time.monotonic()
    if left >= place.needed and left > 0:
        return ""
    return f"not begun: its worker has {max(left, 0):.0f} s left, {place.needed:.0f} s are needed"


def deliver(job: Job, members: Members, results: Sequence[Any]) -> Answer:
    """The same for members that somebody else ran.

    Parameters
    ----------
    job : its goal and segments count
    members : whom it was run for
    results : (n,) what came back for each, or the exception that it raised

    Raises
    ------
    ValueError
        when there are more or fewer results than members
    """
    recorder = Recorder(job)
    for task, result in zip(tasks(members, job.casts), results, strict=True):
        recorder.add(finish(job, task, partial(_handed, result)))
    return recorder.answer


def _handed(result: Any) -> Any:
    if isinstance(result, BaseException):
        raise result
    return result


def run(job: Job, task: Task, place: Place = ANYWHERE, *, again: bool = False) -> Finished:
    """Run one member here and now; one that is a program, under a supervisor of its own.

    Parameters
    ----------
    job, task, place : what to run, for whom, and with what
    again : another worker was given it before, whose supervisor may just be done with it
    """
    if isinstance(job.simulation, Detached):
        return start.run(job, task, place, again=again)
    call = partial(job.simulation, task.point, seed=task.seed, member=task.member)
    return finish(job, task, call)


def _ignore_interrupts() -> None:
    """Ctrl-C in a terminal reaches every process of the group; it is for the driver alone."""
    if (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
    ):
        signal.signal(signal.SIGINT, signal.SIG_IGN)

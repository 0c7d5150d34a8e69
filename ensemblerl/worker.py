"""Runs a bundle of members where they land: on a worker, in a child process, or right here."""

from __future__ import annotations

import math
import os
import platform
import signal
import threading
import time
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ensemblerl.protocols import Goal, Job
from ensemblerl.records import Answer, AnyArray, Fate, Members, Outcome
from ensemblerl.simulations.causes import cause_of
from ensemblerl.simulations.layouts import InvalidResult
from ensemblerl.simulations.output import Normal, normalise
from ensemblerl.simulations.points import Task, tasks
from ensemblerl.simulations.processes import Stopped, TimedOut
from ensemblerl.simulations.values import state_of
from ensemblerl.store.segments import encode, encode_layout, get_writer


class Finished(NamedTuple):
    """How a member ended, with what it found where it is ok."""

    outcome: Outcome
    arrays: dict[str, AnyArray] = {}  # noqa: RUF012
    layout: dict[str, Any] | None = None


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
        outcome, arrays, layout = finished
        if layout is not None:
            self.answer.schemas.setdefault(outcome.schema, layout)
        if not self._written(finished):
            names = list(layout["variables"]) if layout is not None else []
            head = encode_layout(outcome.schema, layout) if layout is not None else b""
            outcome = outcome._replace(record=head + encode(outcome, arrays, names))
        self.answer.outcomes.append(outcome)

    def _written(self, finished: Finished) -> bool:
        if self._writer is None:
            return False
        outcome, arrays, layout = finished
        try:
            self._writer.write(outcome, arrays, layout, outcome.schema)
        except OSError:
            return False
        return True


def run_bundle(
    job: Job, members: Members, *, stopped: Collection[tuple[int, int]] = frozenset()
) -> Answer:
    """Run members one after the other; each result is on disk before the next one starts.

    Never raises for what a simulation does: that is an outcome.

    Parameters
    ----------
    job : what to run
    members : whom to run it for
    stopped : (number, attempt) of members that are not to be started any more; may grow

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
    recorder = Recorder(job)
    for task in tasks(members, job.casts):
        recorder.add(stop(task) if task[:2] in stopped else run(job, task))
    return recorder.answer


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


def run(job: Job, task: Task) -> Finished:
    """Run one member here and now."""
    call = partial(job.simulation, task.point, seed=task.seed, member=task.member)
    return finish(job, task, call)


def finish(job: Job, task: Task, call: Callable[[], Any]) -> Finished:
    """Call for a member's result, and say how it ended."""
    began, clock = time.time(), time.perf_counter()
    normal, value, fate, cause = _tried(job, call)
    outcome = Outcome(
        task.number,
        task.attempt,
        fate,
        cause,
        value,
        began,
        time.perf_counter() - clock,
        worker_id(),
        normal.digest if normal else "",
        normal.state if normal else "",
    )
    return Finished(outcome, normal.arrays, normal.layout) if normal else Finished(outcome)


def stop(task: Task) -> Finished:
    """The member is not run."""
    cause = "stopped before it began"
    return Finished(
        Outcome(task.number, task.attempt, str(Fate.stopped), cause, worker=worker_id())
    )


def _tried(job: Job, call: Callable[[], Any]) -> tuple[Normal | None, tuple[float, ...], str, str]:
    """(result, value, fate, cause); only KeyboardInterrupt in the driver itself is raised."""
    kind = Fate.failed
    try:
        result = call()
        kind = Fate.invalid
        state = state_of(result)
        reduced = job.goal.reduce(result)
        normal = normalise(reduced, max_bytes=job.simulation.max_result_bytes)
        value = checked(job.goal, job.goal.value(normal.arrays))
        return normal._replace(state=normal.state or state), value, _OK, ""
    except KeyboardInterrupt as error:
        if os.getpid() == job.driver:
            raise
        return None, (), str(kind), cause_of(error)
    except InvalidResult as error:
        return None, (), str(Fate.invalid), str(error)
    except BaseException as error:
        return None, (), str(_fate_of(error, kind)), cause_of(error)


_OK = str(Fate.ok)


def _fate_of(error: BaseException, kind: Fate) -> Fate:
    if isinstance(error, TimedOut):
        return Fate.timeout
    if isinstance(error, Stopped):
        return Fate.stopped
    return Fate.out_of_memory if isinstance(error, MemoryError) else kind


def checked(goal: Goal, value: Any) -> tuple[float, ...]:
    """What the goal's ``value`` gave, as its k finite floats.

    Raises
    ------
    InvalidResult
        saying what was wanted and what came
    """
    array, k = np.asarray(value, dtype=np.float64), goal.k
    wanted = "a finite number" if k == 1 else f"{k} finite numbers"
    if array.shape != (k,) and not (k == 1 and array.ndim == 0):
        raise InvalidResult(f"{_called(goal)}: wanted {wanted}, got shape {array.shape}")
    numbers = tuple(array.reshape(-1).tolist())
    if not all(map(math.isfinite, numbers)):
        came = numbers[0] if k == 1 else list(numbers)
        raise InvalidResult(f"{_called(goal)}: wanted {wanted}, got {came}")
    return numbers


def _called(goal: Goal) -> str:
    """How a goal shows itself, or its class where it does not."""
    return type(goal).__name__ if type(goal).__repr__ is object.__repr__ else repr(goal)


_here = threading.local()
_host = platform.node()


def worker_id() -> str:
    """``host:pid``, and ``/n`` for the n-th thread of the process that is not the main one."""
    pid = os.getpid()
    known: tuple[int, str] | None = getattr(_here, "known", None)
    if known is None or known[0] != pid:
        _here.known = known = (pid, f"{_host}:{pid}{_thread()}")
    return known[1]


_numbered: dict[int, int] = {}


def _thread() -> str:
    if threading.current_thread() is threading.main_thread():
        return ""
    return f"/{_numbered.setdefault(threading.get_ident(), len(_numbered) + 1)}"


def _ignore_interrupts() -> None:
    """Ctrl-C in a terminal reaches every process of the group; it is for the driver alone."""
    if (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
    ):
        signal.signal(signal.SIGINT, signal.SIG_IGN)

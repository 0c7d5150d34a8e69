"""One member and how it ended: its result reduced and valued, or its cause, in words."""

from __future__ import annotations

import math
import os
import platform
import threading
import time
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import numpy as np

from ensemblerl.protocols import Goal, Job
from ensemblerl.records import AnyArray, Fate, Outcome
from ensemblerl.simulations.causes import cause_of
from ensemblerl.simulations.layouts import InvalidResult
from ensemblerl.simulations.output import Normal, normalise
from ensemblerl.simulations.points import Task
from ensemblerl.simulations.processes import CutOff, NodeFull, Stopped, TimedOut
from ensemblerl.simulations.values import state_of
from ensemblerl.store.index import SegmentIndex
from ensemblerl.store.segments import encode, encode_layout


class Finished(NamedTuple):
    """How a member ended, with what it found where it is ok.

    ``written`` where its record is in a segment already; else ``outcome.record`` is the record if
    somebody has encoded it.
    """

    outcome: Outcome
    arrays: dict[str, AnyArray] = {}  # noqa: RUF012
    layout: dict[str, Any] | None = None
    written: bool = False


def encoded(finished: Finished) -> bytes:
    """Its record as a segment holds it, the layout before it."""
    outcome, arrays, layout = finished[:3]
    if outcome.record is not None:
        return outcome.record
    if layout is None:
        return encode(outcome, arrays, ())
    return encode_layout(outcome.schema, layout) + encode(outcome, arrays, [*layout["variables"]])


def finish(
    job: Job, task: Task, call: Callable[[], Any], *, worker: str = "", ran: float = 0.0
) -> Finished:
    """Call for a member's result, and say how it ended.

    Parameters
    ----------
    job, task : what is run, for whom
    call : gives the result, or raises
    worker : who runs it; this thread when empty
    ran : seconds for which it has run already
    """
    began, clock = time.time() - ran, time.perf_counter() - ran
    normal, value, fate, cause, blameless = _tried(job, call)
    outcome = Outcome(
        task.number,
        task.attempt,
        fate,
        cause,
        value,
        began,
        time.perf_counter() - clock,
        worker or worker_id(),
        normal.digest if normal else "",
        normal.state if normal else "",
        blameless=blameless,
    )
    return Finished(outcome, normal.arrays, normal.layout) if normal else Finished(outcome)


def stop(task: Task, cause: str = "stopped before it began") -> Finished:
    """The member is not run."""
    return Finished(
        Outcome(task.number, task.attempt, str(Fate.stopped), cause, worker=worker_id())
    )


def found(job: Job, keys: Collection[tuple[int, int]]) -> dict[tuple[int, int], Finished]:
    """What somebody has written of attempts, by (number, attempt); of several records one with a
    result, then one of a member that was begun.
    """
    out = dict[tuple[int, int], Finished]()
    if not job.segments:
        return out
    index = SegmentIndex(job.segments, verify=False, keep=False)
    for outcome, _ in index.poll():
        key = outcome.number, outcome.attempt
        if key in keys:
            there = Finished(outcome, {}, index.layouts.get(outcome.schema), written=True)
            out[key] = max(out.get(key, there), there, key=_told)
    return out


def begun(job: Job, keys: Collection[tuple[int, int]]) -> dict[tuple[int, int], Finished]:
    """The same, without those that were stopped: they may have to be run."""
    there = found(job, keys)
    return {key: one for key, one in there.items() if one.outcome.fate != Fate.stopped}


def _told(finished: Finished) -> tuple[bool, bool]:
    """How much a record says."""
    return bool(finished.outcome.schema), finished.outcome.fate != Fate.stopped


def _tried(
    job: Job, call: Callable[[], Any]
) -> tuple[Normal | None, tuple[float, ...], str, str, bool]:
    """(result, value, fate, cause, blameless); only KeyboardInterrupt in the driver is raised."""
    kind = Fate.failed
    try:
        result = call()
        kind = Fate.invalid
        state = state_of(result)
        reduced = job.goal.reduce(result)
        normal = normalise(reduced, max_bytes=job.simulation.max_result_bytes)
        value = checked(job.goal, job.goal.value(normal.arrays))
        return normal._replace(state=normal.state or state), value, _OK, "", False
    except KeyboardInterrupt as error:
        if os.getpid() == job.driver:
            raise
        return None, (), str(kind), cause_of(error), False
    except InvalidResult as error:
        return None, (), str(Fate.invalid), str(error), False
    except (CutOff, NodeFull) as error:  # the words alone: this is nobody's exception
        return None, (), str(Fate.lost), str(error), isinstance(error, CutOff)
    except BaseException as error:
        return None, (), str(_fate_of(error, kind)), cause_of(error), False


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

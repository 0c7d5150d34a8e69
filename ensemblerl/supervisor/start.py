"""The worker's side: fill a working directory, start a supervisor, wait for what it says."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from ensemblerl.finishing import Finished, finish, stop, worker_id
from ensemblerl.protocols import Detached, Job
from ensemblerl.records import Fate, Outcome, Place, Program
from ensemblerl.simulations.pipes import TAKEN, receive, send
from ensemblerl.simulations.points import Task
from ensemblerl.simulations.processes import how_it_ended
from ensemblerl.simulations.workdir import scratch_directory
from ensemblerl.store.codec import outcome as outcome_of
from ensemblerl.store.index import SegmentIndex
from ensemblerl.store.running import WORK, Running
from ensemblerl.store.segments import get_writer
from ensemblerl.supervisor.tree import end_marked

BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from ensemblerl.supervisor.main import supervise; supervise()"
)
"""What a supervisor runs. The main module of the driver is never imported."""
LOOK = 0.2
"""Seconds between looks at an attempt that another worker has started."""


def run(job: Job, task: Task, place: Place) -> Finished:
    """Run one member as a program, under a supervisor that goes on should this process end.

    An attempt that runs already (Dask may send a bundle a second time) is waited for.

    Raises
    ------
    KeyboardInterrupt
        in the driver's own process only; the program is ended
    """
    store = _store(job)
    if store is not None:
        running = Running(store)
        if running.asked(task.number, task.attempt):
            return stop(task)
        if not running.expect(task.number, task.attempt):
            return _awaited(job, task, running)
    try:
        return _prepared(job, task, store)
    finally:
        if store is not None:
            Running(store).over(task.number, task.attempt)


def _prepared(job: Job, task: Task, store: Path | None) -> Finished:
    simulation: Any = job.simulation
    directory = None
    try:
        directory = _directory(simulation, task, store)
        program = simulation.prepare(
            task.point, seed=task.seed, member=task.member, directory=directory
        )
        about = _about(job, task, program, directory, store)
    except Exception as error:
        if directory is not None:
            shutil.rmtree(directory, ignore_errors=True)
        return finish(job, task, partial(_raise, error))
    return _supervised(job, task, about)


def _supervised(job: Job, task: Task, about: dict[str, Any]) -> Finished:
    with _spawn(about, _parcel(job)) as process:
        try:
            return _taken(process, job)
        except EOFError:
            process.wait()
        except BaseException:
            process.terminate()
            raise
    end_marked(about["mark"])
    shutil.rmtree(about["directory"], ignore_errors=True)
    how = how_it_ended(process.returncode)
    return _lost(task, f"the supervisor of the member ended without a word: {how}")


def _lost(task: Task, cause: str) -> Finished:
    return Finished(Outcome(task.number, task.attempt, str(Fate.lost), cause, worker=worker_id()))


def _awaited(job: Job, task: Task, running: Running) -> Finished:
    """What becomes of an attempt that another worker has started."""
    key = task.number, task.attempt
    while key in running.all():
        time.sleep(LOOK)
    index = SegmentIndex(job.segments, keep=False)
    for outcome, _ in index.poll():
        if (outcome.number, outcome.attempt) == key:
            return Finished(outcome, {}, index.layouts.get(outcome.schema), written=True)
    return _lost(task, "another worker had begun it, and its supervisor is gone without a result")


def _taken(process: subprocess.Popen[bytes], job: Job) -> Finished:
    """What a supervisor hands over: the record is in the segment of this process when it is told
    so, or on its way to the driver.
    """
    assert process.stdin is not None
    assert process.stdout is not None
    fd = process.stdout.fileno()
    told, record = json.loads(receive(fd)), receive(fd)
    outcome, written = outcome_of(told["outcome"]), False
    if _store(job) is not None:
        with contextlib.suppress(OSError):
            get_writer(job.segments).write_raw(record)
            written = True
    with contextlib.suppress(BrokenPipeError):
        os.write(process.stdin.fileno(), TAKEN)
    outcome = outcome if written else outcome._replace(record=record)
    return Finished(outcome, {}, told["layout"], written=written)


def _about(
    job: Job, task: Task, program: Program, directory: Path, store: Path | None
) -> dict[str, Any]:
    simulation: Any = job.simulation
    return {
        "arguments": program.arguments,
        "environment": program.environment,
        "directory": str(directory),
        "store": None if store is None else str(store),
        "segments": job.segments,
        "number": task.number,
        "attempt": task.attempt,
        "timeout": simulation.timeout,
        "memory": simulation.memory,
        "keep": simulation.keep,
        "worker": worker_id(),
        "mark": f"{task.number}-{task.attempt}-{secrets.token_hex(8)}",
    }


def _spawn(about: dict[str, Any], parcel: bytes) -> subprocess.Popen[bytes]:
    path = [os.path.abspath(entry) for entry in sys.path]  # noqa: PTH100
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", BOOT, json.dumps(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
        start_new_session=True,
    )
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it ended at once: then that is what is told
        send(process.stdin.fileno(), json.dumps(about).encode())
        send(process.stdin.fileno(), parcel)
    return process


def _store(job: Job) -> Path | None:
    """The store's directory, None where there is none, or not on this machine."""
    store = Path(job.segments).parent if job.segments else None
    return store if store is not None and store.is_dir() else None


def _directory(simulation: Detached, task: Task, store: Path | None) -> Path:
    """An empty directory for this attempt."""
    name = f"{task.number}-{task.attempt}"
    if simulation.scratch is None and store is not None:
        path = store / WORK / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        return path
    root = None if simulation.scratch is None else scratch_directory(simulation.scratch)
    return Path(tempfile.mkdtemp(prefix=f"ensemblerl-{name}-", dir=root))


_newest: list[tuple[Job, bytes]] = []
"""The job that was pickled last: a worker has one for hours."""


def _parcel(job: Job) -> bytes:
    """The job, pickled once."""
    import cloudpickle

    for known, content in _newest:
        if known is job:
            return content
    parcel: bytes = cloudpickle.dumps(job)
    _newest[:] = [(job, parcel)]
    return parcel


def _raise(error: BaseException) -> Any:
    raise error

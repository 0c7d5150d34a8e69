"""The worker's side: fill a working directory, start a supervisor, wait for what it says."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from ensemblerl.finishing import Finished, finish, worker_id
from ensemblerl.protocols import Detached, Job
from ensemblerl.records import Fate, Outcome, Program
from ensemblerl.simulations.pipes import receive, send
from ensemblerl.simulations.points import Task
from ensemblerl.simulations.processes import how_it_ended
from ensemblerl.simulations.workdir import scratch_directory
from ensemblerl.store.codec import outcome as outcome_of
from ensemblerl.store.running import Running

BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from ensemblerl.supervisor.main import supervise; supervise()"
)
"""What a supervisor runs. The main module of the driver is never imported."""


def run(job: Job, task: Task) -> Finished:
    """Run one member as a program, under a supervisor that goes on should this process end.

    Raises
    ------
    KeyboardInterrupt
        in the driver's own process only; the program is ended
    """
    simulation: Any = job.simulation
    store = _store(job)
    try:
        directory = _directory(simulation, task, store)
    except Exception as error:
        return finish(job, task, partial(_raise, error))
    try:
        program = simulation.prepare(
            task.point, seed=task.seed, member=task.member, directory=directory
        )
        if store is not None:
            Running(store).expect(task.number, task.attempt)
    except Exception as error:
        shutil.rmtree(directory, ignore_errors=True)
        return finish(job, task, partial(_raise, error))
    return _supervised(job, task, program, directory, store)


def _supervised(
    job: Job, task: Task, program: Program, directory: Path, store: Path | None
) -> Finished:
    with _spawn(_about(job, task, program, directory, store), _parcel(job)) as process:
        assert process.stdout is not None
        try:
            return _read(process.stdout.fileno())
        except EOFError:
            process.wait()
        except BaseException:
            process.terminate()
            raise
    if store is not None:
        Running(store).over(task.number, task.attempt)
    how = how_it_ended(process.returncode)
    cause = f"the supervisor of the member ended without a word: {how}"
    lost = Outcome(task.number, task.attempt, str(Fate.lost), cause, worker=worker_id())
    return Finished(lost)


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
    }


def _spawn(about: dict[str, Any], parcel: bytes) -> subprocess.Popen[bytes]:
    path = [os.path.abspath(entry) for entry in sys.path]  # noqa: PTH100
    process = subprocess.Popen(
        [sys.executable, "-c", BOOT, json.dumps(path)],
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


def _read(fd: int) -> Finished:
    """What a supervisor said: how the member ended, and its record where it could not write it."""
    told = json.loads(receive(fd))
    record = receive(fd)
    outcome = outcome_of(told["outcome"])._replace(record=record or None)
    return Finished(outcome, {}, told["layout"], written=not record)


def _store(job: Job) -> Path | None:
    """The store's directory, None where there is none, or not on this machine."""
    store = Path(job.segments).parent if job.segments else None
    return store if store is not None and store.is_dir() else None


def _directory(simulation: Detached, task: Task, store: Path | None) -> Path:
    """An empty directory for this attempt."""
    name = f"{task.number}-{task.attempt}"
    if simulation.scratch is None and store is not None:
        path = store / "work" / name
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

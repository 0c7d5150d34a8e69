"""The worker's side: fill a working directory, start a supervisor, wait for what it says."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ensemblerl.finishing import Finished, begun, finish, found, stop, worker_id
from ensemblerl.protocols import Job
from ensemblerl.records import Fate, Outcome, Place, Program
from ensemblerl.simulations.pipes import TAKEN, receive, send
from ensemblerl.simulations.points import Task
from ensemblerl.simulations.processes import how_it_ended
from ensemblerl.store.codec import outcome as outcome_of
from ensemblerl.store.running import Running
from ensemblerl.store.segments import get_writer
from ensemblerl.supervisor.directories import leave, stamps, take
from ensemblerl.supervisor.steps import end_steps
from ensemblerl.supervisor.tree import end_marked

BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from ensemblerl.supervisor.main import supervise; supervise()"
)
"""What a supervisor runs. The main module of the driver is never imported."""
DEVICES = "CUDA_VISIBLE_DEVICES"
"""What CUDA shows of the machine's devices (CUDA C++ Programming Guide, environment variables)."""
FORKED = {"HYDRA_BOOTSTRAP": "fork", "I_MPI_HYDRA_BOOTSTRAP": "fork"}
"""Has an ``mpiexec`` of MPICH or Intel start ranks itself where a job has one node. In a Slurm job
it would have srun do it: ranks would be nobody's children here, and keep to no processors (MPICH,
"Using the Hydra process manager", bootstrap servers).
"""
LOOK = 0.2
"""Seconds between looks at an attempt that another worker has started."""


def run(job: Job, task: Task, place: Place, *, again: bool = False) -> Finished:
    """Run one member as a program, under a supervisor that goes on should this process end.

    An attempt that runs already (Dask may send a bundle a second time) is waited for.

    Parameters
    ----------
    job, task : what to run, for whom
    place : the program keeps to these processors and devices, and is ended in time
    again : another worker was given it before, and may be done with it

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
        simulation: Any = job.simulation
        if not running.expect(task.number, task.attempt, checkpoint=simulation.checkpoint):
            return _awaited(job, task, running)
    try:
        # looked for now: who writes a record does so before it stops running
        if again and (done := begun(job, [task[:2]])):
            return done[task[:2]]
        return _prepared(job, task, store, place)
    finally:
        if store is not None:
            Running(store).over(task.number, task.attempt)


def _prepared(job: Job, task: Task, store: Path | None, place: Place) -> Finished:
    simulation: Any = job.simulation
    directory = None
    try:
        directory = take(simulation, task[:2], store)
        before = stamps(directory)
        program = simulation.prepare(
            task.point, seed=task.seed, member=task.member, directory=directory
        )
        now = stamps(directory)
        inputs = [name for name in now if before.get(name) != now[name]]
        about = _about(job, task, program, directory, store) | _use(place, program.environment)
        about["inputs"] = inputs
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
            if about["store"]:  # else it would take this for a queue's
                Running(about["store"]).end(task.number, task.attempt)
            process.terminate()
            raise
    end_marked(about["mark"])
    end_steps()
    if about["checkpoint"] and about["store"]:
        leave(Path(about["directory"]), task[:2], Path(about["store"]))
    else:
        shutil.rmtree(about["directory"], ignore_errors=True)
    how = how_it_ended(process.returncode)
    cause = f"the supervisor of the member ended without a word: {how}"
    return _lost(task, cause, blameless=process.returncode == -signal.SIGTERM)


def _lost(task: Task, cause: str, *, blameless: bool = False) -> Finished:
    fate, worker = str(Fate.lost), worker_id()
    return Finished(
        Outcome(task.number, task.attempt, fate, cause, worker=worker, blameless=blameless)
    )


def _awaited(job: Job, task: Task, running: Running) -> Finished:
    """What becomes of an attempt that another worker has started."""
    key = task.number, task.attempt
    while key in running.all():
        time.sleep(LOOK)
    gone = "another worker had begun it, and its supervisor is gone without a result"
    return found(job, [key]).get(key) or _lost(task, gone)


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
        "directory": str(directory),
        "store": None if store is None else str(store),
        "segments": job.segments,
        "number": task.number,
        "attempt": task.attempt,
        "timeout": simulation.timeout,
        "memory": simulation.memory,
        "keep": simulation.keep,
        "checkpoint": simulation.checkpoint,
        "worker": worker_id(),
        "mark": f"{task.number}-{task.attempt}-{secrets.token_hex(8)}",
    }


def _use(place: Place, environment: Mapping[str, str]) -> dict[str, Any]:
    """What a place means to a supervisor, whose clock is that of this machine, too."""
    devices = {} if place.devices is None else {DEVICES: ",".join(place.devices)}
    here = FORKED if environment.get("SLURM_JOB_NUM_NODES") == "1" else {}
    return {
        "until": place.until,
        "cores": place.cores,
        "environment": {**here, **environment, **devices},
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

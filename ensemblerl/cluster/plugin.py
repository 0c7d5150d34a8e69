"""What a Dask worker holds of a campaign: the job, unpickled once, and the task that uses it."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import threading
from typing import Any

from distributed import Status, WorkerPlugin, get_worker

from ensemblerl.cluster.allocation import Allocation, job_id
from ensemblerl.executors.shipping import Parcel
from ensemblerl.protocols import Job
from ensemblerl.worker import run_bundle, too_late

_JOBS: dict[str, Job | str] = {}
"""Key of a campaign -> its job, or why that could not be unpickled here."""
_ALLOCATIONS: dict[str, Allocation] = {}
"""Address of a worker of this process -> its share of the queue's job; it outlives a campaign."""
METRIC = "ensemblerl"
"""Under this name heartbeats tell of the allocation."""
LOOK = 0.5
"""Seconds between looks at a worker that is to leave."""


class CarryJob(WorkerPlugin):
    """Brings a campaign's job to every worker, also to those that join later.

    Parameters
    ----------
    key : the campaign on this cluster; the plugin is registered under it
    parcel : the job, pickled
    driver : process id of the driver
    """

    def __init__(self, key: str, parcel: Parcel, driver: int) -> None:
        self.name, self.parcel, self.driver = key, parcel, driver

    def setup(self, worker: Any) -> None:
        """Unpickle the job; a failure is kept for the tasks, for here nobody would see it."""
        if self.name not in _JOBS:
            _JOBS[self.name] = _unpickled(self.parcel)
        in_main_thread = threading.current_thread() is threading.main_thread()
        if in_main_thread and os.getpid() != self.driver:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the driver alone

    def teardown(self, worker: Any) -> None:
        """Forget the job."""
        _JOBS.pop(self.name, None)


class CarryJobInQueue(CarryJob):
    """The same for a worker in a job of a queue: it also knows when that ends, and what each of
    its members may use.

    Parameters
    ----------
    cores : processor cores of one member
    ask : tells from the queue how long the job with an id goes on, where its script does not say
    """

    def __init__(self, key: str, parcel: Parcel, driver: int, cores: int, ask: Any) -> None:
        super().__init__(key, parcel, driver)
        self.cores, self.ask = cores, ask

    def setup(self, worker: Any) -> None:
        """See what there is; from now on heartbeats tell of it."""
        super().setup(worker)
        known = _ALLOCATIONS.get(worker.address)
        if known is None:
            slots, name = worker.state.nthreads, str(worker.name)
            known = Allocation(slots, self.cores, name=name)
            if known.until is None and (number := job_id(os.environ)):
                left = self._left(number)
                known = Allocation(slots, self.cores, left=left, name=name)
            known.claim()
            _ALLOCATIONS[worker.address] = known
        worker.metrics[METRIC] = lambda _: known.told()

    def _left(self, number: str) -> float | None:
        """Seconds, as the queue says; None where it does not answer on this node."""
        try:
            return None if (left := self.ask(number)) is None else float(left)
        except Exception:
            return None


def run_luggage(
    key: str, luggage: bytes, needed: float = 0.0, usual: float = 0.0, *, again: bool = False
) -> bytes:
    """Run a pickled bundle of members under the job of this key; gives the pickled `Answer`.

    Bytes both ways: Dask looks into the tuples it carries and makes a frame of every array.

    Parameters
    ----------
    needed : seconds that each of these is expected to need, where the queue ends the worker
    usual : seconds that most members need: a worker that has less left takes no other
    again : another worker was given it before, and may have run it

    Raises
    ------
    RuntimeError
        when this worker does not have the job
    """
    job = _JOBS.get(key, "it was never given the job")
    if isinstance(job, str):
        raise RuntimeError(f"a Dask worker cannot load the simulation or the goal: {job}")
    members = pickle.loads(luggage)
    worker: Any = get_worker() if _ALLOCATIONS else None
    allocation = None if worker is None else _ALLOCATIONS.get(worker.address)
    if allocation is None:
        return pickle.dumps(run_bundle(job, members, again=again), protocol=5)
    with allocation.place(needed) as place:
        answer = run_bundle(job, members, place=place, again=again)
    if too_late(place._replace(needed=usual)) and not allocation.draining:
        allocation.draining = True
        worker.loop.add_callback(_leave, worker)
    return pickle.dumps(answer, protocol=5)


async def _leave(worker: Any) -> None:
    """Take no more, finish what runs, and go: a job that can do nothing more is to end."""
    # Dask's own watch over memory would wake a worker that it did not send to sleep.
    worker.memory_manager.memory_pause_fraction = False
    worker.status = Status.paused
    while worker.state.executing_count or worker.state.long_running:
        await asyncio.sleep(LOOK)
    await worker.close_gracefully(restart=False, reason="the job ends soon")


def _unpickled(parcel: Parcel) -> Job | str:
    try:
        job: Job = pickle.loads(parcel.content)
    except Exception as error:  # a missing package, another version of one, anything
        return f"{type(error).__name__}: {error}"
    return job

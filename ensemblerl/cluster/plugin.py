"""What a Dask worker holds of a campaign: the job, unpickled once, and the task that uses it."""

from __future__ import annotations

import os
import pickle
import signal
import threading
from typing import Any

from distributed import WorkerPlugin

from ensemblerl.executors.shipping import Parcel
from ensemblerl.protocols import Job
from ensemblerl.worker import run_bundle

_JOBS: dict[str, Job | str] = {}
"""Key of a campaign -> its job, or why that could not be unpickled here."""


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


def run_luggage(key: str, luggage: bytes) -> bytes:
    """Run a pickled bundle of members under the job of this key; gives the pickled `Answer`.

    Bytes both ways: Dask looks into the tuples it carries and makes a frame of every array.

    Raises
    ------
    RuntimeError
        when this worker does not have the job
    """
    job = _JOBS.get(key, "it was never given the job")
    if isinstance(job, str):
        raise RuntimeError(f"a Dask worker cannot load the simulation or the goal: {job}")
    return pickle.dumps(run_bundle(job, pickle.loads(luggage)), protocol=5)


def _unpickled(parcel: Parcel) -> Job | str:
    try:
        job: Job = pickle.loads(parcel.content)
    except Exception as error:  # a missing package, another version of one, anything
        return f"{type(error).__name__}: {error}"
    return job

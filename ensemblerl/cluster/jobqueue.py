"""The one place that knows dask-jobqueue from inside; a test fails when what is used here changes.

A `dask_jobqueue.JobQueueCluster` submits each of its jobs once and never looks back, and ends a
job fifteen seconds after its worker went. Here its scheduler and its job scripts are used, and
its books (``worker_spec``, ``workers``) are kept up to date, so that ``scale`` and ``close`` go
on to work; submitting, watching and replacing is done by the reconciler.
"""

from __future__ import annotations

import itertools
import threading
import time
import types
from collections.abc import Iterable
from typing import Any

from distributed import Status
from distributed.deploy.cluster import Cluster

SCHEDULERS = {"SLURMJob": "slurm", "PBSJob": "pbs", "MoabJob": "pbs"}
"""Class of a job -> the queue that knows it."""
_NUMBERS = itertools.count(1)
"""Of the jobs of this process: no name is used twice, jobs that were dropped may live."""


def cluster_classes() -> dict[str, Any]:
    """Name of a queue -> dask-jobqueue's class for it.

    dask-jobqueue takes over Ctrl-C when it is imported (its ``runner`` does, 0.9), which would end
    a campaign in the middle, and cannot be done outside the main thread: it is kept from that.
    """
    import signal

    take, here = signal.signal, threading.get_ident()

    def keep(number: int, handler: Any) -> Any:
        return None if threading.get_ident() == here else take(number, handler)

    with _importing:
        vars(signal)["signal"] = keep
        try:
            from dask_jobqueue.pbs import PBSCluster
            from dask_jobqueue.slurm import SLURMCluster
        finally:
            vars(signal)["signal"] = take
    return {"slurm": SLURMCluster, "pbs": PBSCluster}


_importing = threading.Lock()


class JobQueue:
    """A dask-jobqueue cluster whose jobs somebody else looks after.

    Parameters
    ----------
    cluster : any ``dask_jobqueue.JobQueueCluster``, scaled already or not
    """

    def __init__(self, cluster: Any) -> None:
        self.cluster = cluster
        self._lock = threading.Lock()
        # Base method: tells the cluster of workers that come and go, and ends no job for it.
        base = Cluster._update_worker_status
        cluster._update_worker_status = types.MethodType(base, cluster)

    def release(self) -> None:
        """Let the cluster end jobs of lost workers again."""
        self.cluster.__dict__.pop("_update_worker_status", None)

    @property
    def scheduler(self) -> Any:
        """The Dask scheduler, in this process."""
        return self.cluster.scheduler

    def wanted(self) -> dict[str, str | None]:
        """Name of each job that the cluster wants -> its id in the queue; "" where it has not
        been submitted, None where that is being done just now.
        """
        with self._lock:
            spec, jobs = list(self.cluster.worker_spec), dict(self.cluster.workers)
        return {n: (jobs[n].job_id or "") if n in jobs else None for n in map(str, spec)}

    def add(self) -> str:
        """Name of one job more that is wanted; who calls this submits it."""
        with self._lock:
            name = f"{self.cluster.name}-e{next(_NUMBERS)}"
            job = self.cluster.workers[name] = self.make(name)
            job.status = Status.running  # else a client that connects would submit it, too
            self.cluster.worker_spec[name] = self.cluster.new_spec
        return name

    def make(self, name: str, title: str = "") -> Any:
        """dask-jobqueue's own object for a job: it writes the script."""
        options = dict(self.cluster.new_spec["options"])
        if title:
            options["job_name"] = title
        return self.cluster.new_spec["cls"](self.cluster.scheduler_address, name=name, **options)

    def script(self, name: str, title: str) -> str:
        """Text of the job's script; the queue will know the job as ``title``.

        Should the queue start it again, its worker has another name: two of a name are refused,
        and the first may not be gone yet.
        """
        return str(self.make(f"{name}-r$(date +%s)", title).job_script())

    @property
    def base(self) -> str:
        """What names of jobs begin with."""
        return str(self.cluster.new_spec["options"].get("job_name") or "ensemblerl")

    @property
    def cores(self) -> int:
        """Processor cores of a job: as many threads its worker has."""
        return int(self.make("example").worker_cores)

    @property
    def logs(self) -> str | None:
        """Directory for the output of jobs, where one was asked for."""
        return self.cluster.new_spec["options"].get("log_directory") or None

    def title(self, name: str) -> str:
        """What the queue calls a job that the cluster has submitted itself."""
        with self._lock:
            return str(getattr(self.cluster.workers.get(name), "job_name", ""))

    def submitted(self, name: str, job_id: str) -> None:
        """Enter the id of a job: ``close`` and ``scale`` end it by that."""
        with self._lock:
            if name in self.cluster.workers:
                self.cluster.workers[name].job_id = job_id

    def forget(self, addresses: Iterable[str]) -> None:
        """Let the scheduler know that these workers are gone, in case that nobody told it."""
        scheduler, now = self.scheduler, f"ensemblerl-{time.time()}"
        for address in addresses:
            if address in scheduler.workers:
                scheduler.loop.add_callback(
                    scheduler.remove_worker, address=address, stimulus_id=now, close=False
                )

    def drop(self, name: str) -> None:
        """A job that is wanted no more, and not to be ended by the cluster."""
        with self._lock:
            self.cluster.worker_spec.pop(name, None)
            self.cluster.workers.pop(name, None)


def queue_name(cluster: Any) -> str:
    """Name of its queue, "slurm" or "pbs"; "" for one that we cannot ask."""
    for kind in type.mro(getattr(cluster, "job_cls", object)):
        if kind.__name__ in SCHEDULERS:
            return SCHEDULERS[kind.__name__]
    return ""


def is_job_queue(cluster: Any) -> bool:
    """Whether it is a dask-jobqueue cluster with a queue that we can ask."""
    return bool(queue_name(cluster)) and hasattr(cluster, "new_worker_spec")

"""Dask workers on this machine, with nothing to set up."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack, suppress
from typing import Any

import dask
from dask.system import cpu_count
from distributed import Scheduler, Security
from distributed.deploy.cluster import Cluster
from distributed.deploy.spec import SpecCluster

from ensemblerl.cluster.dask import DaskExecutor, connected
from ensemblerl.cluster.processes import WorkerProcess
from ensemblerl.cluster.quiet import quiet
from ensemblerl.protocols import Job

PATIENCE = 60.0
"""Seconds for all workers to appear."""
SETTINGS: dict[str, Any] = {
    # A worker takes one bundle at a time, so that one which dies takes no other along.
    "distributed.scheduler.worker-saturation": 1.0,
    # Silence is no death: a simulation may hold the GIL for hours, a laptop may sleep.
    "distributed.scheduler.worker-ttl": None,
    "distributed.scheduler.active-memory-manager.start": False,
    "distributed.scheduler.http.routes": [],
}
KEYS = ("tls_ca_file", "tls_worker_key", "tls_worker_cert")
"""What a worker needs of the cluster's keys; they travel through a pipe, never a file."""


class LocalProcesses(SpecCluster):
    """A scheduler in this process, and worker processes that are replaced when they die."""

    def __init__(self, n_workers: int) -> None:
        self._things = ExitStack()
        self._things.enter_context(quiet())
        directory = self._things.enter_context(
            tempfile.TemporaryDirectory(prefix="ensemblerl-", ignore_cleanup_errors=True)
        )
        # Whoever reaches the port of a scheduler can run code: other users of this machine, too.
        security: Any = Security.temporary()  # type: ignore[no-untyped-call]
        keys = {name: getattr(security, name) for name in KEYS}
        worker = {"cls": WorkerProcess, "options": {"directory": directory, "keys": keys}}
        options = {
            "protocol": "tls://",
            "security": security,
            "host": "127.0.0.1",
            "port": 0,
            "dashboard": False,
            "dashboard_address": "127.0.0.1:0",
            "allowed_failures": 0,
        }
        with dask.config.set(SETTINGS):
            super().__init__(  # type: ignore[no-untyped-call]
                workers=dict.fromkeys(range(n_workers), worker),
                worker=worker,
                scheduler={"cls": Scheduler, "options": options},
                security=security,
                name="ensemblerl",
            )

    def close(self, timeout: float | None = None) -> Any:
        """End all processes."""
        closing = super().close(timeout)
        self._things.close()
        return closing

    def _update_worker_status(self, op: str, msg: Any) -> None:
        """Each process sees to its own replacement: nothing to give up after a while."""
        Cluster._update_worker_status(self, op, msg)  # type: ignore[no-untyped-call]


def local_cluster(n_workers: int | None = None) -> SpecCluster:
    """A cluster of processes with one thread each, on the loopback interface of this machine.

    Connections are encrypted, with keys that live as long as the cluster. It works from scripts
    without a ``__main__`` guard, from notebooks and from standard input: worker processes do not
    import the main module. Workers that die are replaced, and cost the bundle they ran; Ctrl-C
    does not reach them; they end with this process, however it ends. They have no memory limit:
    what a simulation needs is its own affair, and should the system end a worker for lack of
    memory, that costs its bundle.

    Parameters
    ----------
    n_workers : processes; when None, one for each processor that this one may use, by affinity
        and cgroup limits

    Raises
    ------
    ValueError
        when ``n_workers`` is no whole number >= 1
    RuntimeError
        when the workers do not come up; what they printed says why
    """
    n = _checked(n_workers)
    cluster = LocalProcesses(n)
    try:
        cluster.wait_for_workers(n, timeout=PATIENCE)
    except TimeoutError as error:
        cluster.close()
        raise RuntimeError(f"{n} local workers did not start in {PATIENCE:.0f} s") from error
    return cluster


class LocalDask(DaskExecutor):
    """Runs bundles on a `local_cluster` of its own, which lives from ``start`` to ``close``.

    After a `close` it can be started again, with a new cluster.

    Parameters
    ----------
    n_workers : processes; when None, as many as the machine has room for members of
        ``simulation.cores``
    """

    def __init__(self, n_workers: int | None = None) -> None:
        self._n_processes = n_workers if n_workers is None else _checked(n_workers)
        self._set_up(None, True, self._n_processes)

    def start(self, job: Job) -> None:
        """Start the cluster, and bring the job to its workers."""
        if self._client is None:
            self._wanted = self._n_processes or max(1, cpu_count() // job.simulation.cores)
            self._client = connected(local_cluster(self._wanted))
        super().start(job)

    def close(self) -> None:
        """End the cluster; never raises."""
        cluster = None if self._client is None else self._client.cluster
        super().close()
        self._client = None
        if cluster is not None:
            with suppress(Exception):
                cluster.close()


def _checked(n_workers: int | None) -> int:
    n = cpu_count() if n_workers is None else n_workers
    if not isinstance(n, int) or isinstance(n, bool) or n < 1:
        raise ValueError(f"n_workers: wanted a whole number >= 1, got {n_workers!r}")
    return n

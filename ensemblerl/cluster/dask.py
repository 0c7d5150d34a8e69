"""Execution on Dask: on any `distributed.Client`, or on any Dask cluster object."""

from __future__ import annotations

import os
import pickle
import secrets
import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, NamedTuple

from dask.task_spec import Task
from distributed import Client
from distributed.deploy.cluster import Cluster

from ensemblerl.cluster.gathering import Gathering
from ensemblerl.cluster.jobqueue import is_job_queue
from ensemblerl.cluster.once import Once
from ensemblerl.cluster.plugin import CarryJob, run_luggage
from ensemblerl.executors.base import Collector, Lost, attempts_of
from ensemblerl.executors.shipping import Parcel, packed
from ensemblerl.protocols import Job
from ensemblerl.records import Answer, Fate, Members, Outcome

DELAY = 0.005
"""Seconds after which what was submitted leaves, should nobody wait for it."""
FRESH = 1.0
"""Seconds for which the number of workers is taken to be what it was."""
GONE = (
    "the Dask client takes no work, it is {status}: its scheduler is gone or somebody closed it; "
    "go on with a new client (the store keeps what is done)"
)
ALIVE = ("running", "connecting")
"""States of a client that takes work; it may be on its way back to its scheduler."""
LAST = 999_999_999
"""Keys count down from here: `dask.order` takes equals in falling order of their keys."""


class Waiting(NamedTuple):
    """A bundle on its way."""

    bundle: Members
    ours: Future[Answer]


class DaskExecutor:
    """Runs bundles on the workers of a Dask cluster.

    The job travels once to each worker, a bundle as one small piece of bytes; bundles submitted
    between two waits leave in one graph. A bundle is one Dask task with no retries of its own,
    and waits at the scheduler until a worker is free, so that a worker that dies takes few along.
    Set ``distributed.scheduler.worker-ttl`` to null on a cluster of your own where simulations
    hold the GIL for minutes.

    Parameters
    ----------
    client : it stays open unless ``owned``
    owned : close the client at the end
    n_workers : how many bundles run at once; when None, the threads of the workers there are,
        divided by ``simulation.cores``

    Raises
    ------
    TypeError, ValueError
        naming the argument, what was wanted and what came
    """

    in_process = False

    def __init__(
        self, client: Client, *, owned: bool = False, n_workers: int | None = None
    ) -> None:
        if not isinstance(client, Client):
            raise TypeError(f"client: wanted a distributed.Client, got {client!r}")
        if client.asynchronous:
            raise ValueError("client: wanted a synchronous client, got Client(asynchronous=True)")
        self._set_up(client, owned, n_workers)

    def _set_up(self, client: Client | None, owned: bool, n_workers: int | None) -> None:
        self._client: Any = client
        self._owned, self._wanted = owned, n_workers
        self._threads, self._counted, self._cores = 0, -FRESH, 1
        self._renew()

    def _renew(self) -> None:
        """Know nothing of what was submitted before."""
        self._key = f"ensemblerl-{secrets.token_hex(6)}"
        self._collector = Collector(self._look)
        self._gathering: Gathering | None = None
        self._sent = 0
        self._lock = threading.Lock()
        self._buffer: list[Waiting] = []
        self._flying: dict[Future[Answer], tuple[Waiting, Any]] = {}

    @property
    def n_workers(self) -> int:
        """Bundles that run at once: the threads of all workers, as of the last second."""
        fresh = time.monotonic() - self._counted <= FRESH
        open_ = self._client is not None and self._client.status == "running"
        if self._wanted is None and not fresh and open_:
            with suppress(OSError):  # the scheduler may have just gone: then as many as before
                self._threads = self._slots()
            self._counted = time.monotonic()
        return self._wanted or max(1, self._threads)

    @n_workers.setter
    def n_workers(self, n_workers: int) -> None:
        self._wanted = n_workers

    def _slots(self) -> int:
        return int(sum(self._connected().nthreads().values())) // self._cores

    def start(self, job: Job) -> None:
        """Bring the job to the workers; once more after a `close`, if the client is still open.

        Raises
        ------
        TypeError
            when simulation or goal cannot be pickled
        RuntimeError
            when scheduler or workers have no usable ensemblerl
        """
        parcel = packed(job)
        self._cores = max(1, job.simulation.cores)
        client = self._connected()
        self._renew()
        try:
            Once.ask(client)
            client.register_plugin(self._carrier(parcel, job), name=self._key)
        except Exception as error:
            raise RuntimeError(
                f"the Dask scheduler and workers cannot take a job: {error}"
            ) from error
        self._gathering = Gathering(client, self._explain)

    def _carrier(self, parcel: Parcel, job: Job) -> CarryJob:
        """What brings the job to the workers."""
        return CarryJob(self._key, parcel, os.getpid())

    def _explain(self, address: str, key: str) -> Lost | None:
        """What was lost with the worker of this address."""
        return Lost(f"its worker died ({address})")

    def _needed(self, bundle: Members) -> tuple[float, float]:
        """Seconds that each of these members is expected to need, and that most do, where
        workers end.
        """
        return 0.0, 0.0

    def submit(self, bundle: Members) -> Future[Answer]:
        """Take a bundle; it leaves with the next `wait`, or after a few milliseconds.

        Raises
        ------
        RuntimeError
            when the client is closed, by somebody or for want of a scheduler
        """
        client, ours = self._connected(), Future[Answer]()
        if client.status not in ALIVE:
            raise RuntimeError(GONE.format(status=client.status))
        ours.set_running_or_notify_cancel()
        self._collector.add(ours)
        with self._lock:
            self._buffer.append(Waiting(bundle, ours))
            first = len(self._buffer) == 1
        if first:
            client.loop.add_callback(client.loop.call_later, DELAY, self._flush)
        return ours

    def wait(self, timeout: float | None = None) -> list[Future[Answer]]:
        """Block until a bundle is done; nothing at once when there is none to wait for.

        With a closed client all that are left are lost.
        """
        self._flush()
        self._look()
        done = self._collector.wait(timeout)
        for future in done:
            self._flying.pop(future, None)
        return done

    def _look(self) -> None:
        """Give up what is left when the client was closed: its event loop may not run any more,
        and then nobody else will.
        """
        if self._gathering is not None and self._connected().status == "closed":
            self._gathering.close(GONE.format(status="closed"))

    def wake(self) -> None:
        """Make a running `wait` return now; safe in a signal handler."""
        self._collector.wake()

    def time(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def cancel(self, number: int) -> None:
        """Take back a bundle of this member alone.

        Dask cannot end one that runs: its worker stays busy until it is done.
        """
        self._flush()
        for ours, (waiting, theirs) in list(self._flying.items()):
            pairs = attempts_of(number, [waiting.bundle])
            if len(pairs) == len(waiting.bundle):
                cause = "stopped before its result came"
                outcomes = [Outcome(*pair, str(Fate.stopped), cause) for pair in sorted(pairs)]
                if self._gathering is not None:
                    self._gathering.finish(theirs.key, Answer(outcomes, {}))
                self._flying.pop(ours, None)
                self._connected().cancel([theirs])

    def close(self) -> None:
        """Take back what has not begun, and the job from the workers."""
        client = self._client
        if client is None:
            return
        with self._lock:
            buffered, self._buffer = self._buffer, []
        for waiting in buffered:
            waiting.ours.set_exception(Lost("the executor was closed", begun=False))
        left = [theirs for ours, (_, theirs) in self._flying.items() if not ours.done()]
        if self._gathering is not None:
            self._gathering.close("the executor was closed")
            self._gathering = None
        if client.status == "running":
            with suppress(Exception):  # the scheduler may be gone
                client.cancel(left, reason="closed")
                client.unregister_worker_plugin(self._key)
        self._flying.clear()
        if self._owned:
            _quietly_closed(client)

    def describe(self) -> dict[str, Any]:
        """What it is: JSON."""
        return {"name": type(self).__name__, "n_workers": self.n_workers}

    def __repr__(self) -> str:
        scheduler = getattr(self._client, "scheduler", None)
        where = [scheduler.address] if scheduler is not None else []
        wanted = [f"n_workers={self._wanted}"] if self._wanted else []
        return f"{type(self).__name__}({', '.join(where + wanted)})"

    def _connected(self) -> Any:
        assert self._client is not None, "start(job) comes first"
        return self._client

    def _flush(self) -> None:
        """Send what was submitted as one graph, the oldest members first."""
        with self._lock:
            waiting, self._buffer = self._buffer, []
            try:
                if waiting:
                    self._send(waiting)
            except Exception as error:
                for w in waiting:
                    w.ours.set_exception(Lost(f"it could not be sent: {error}", begun=False))

    def _send(self, waiting: list[Waiting], workers: list[str] | None = None) -> None:
        """Bring bundles on their way, to any worker or to one of these."""
        gathering = self._gathering
        assert gathering is not None, "start(job) comes before submit()"
        gathering.n_workers = self._wanted or max(1, self._threads)
        waiting.sort(key=lambda w: int(w.bundle.number[0]))
        keys = [f"{self._key}-{LAST - self._sent - i:09d}" for i in range(len(waiting))]
        self._sent += len(keys)
        graph = {
            key: Task(
                key,
                run_luggage,
                self._key,
                _packed(w.bundle),
                *self._needed(w.bundle),
                _data_producer=True,
            )
            for key, w in zip(keys, waiting, strict=True)
        }
        oldest = int(waiting[0].bundle.number[0])
        get = self._connected().get
        theirs = get(graph, keys, workers=workers, sync=False, priority=-oldest)
        self._flying.update((w.ours, (w, f)) for w, f in zip(waiting, theirs, strict=True))
        gathering.add([w.ours for w in waiting], theirs)


def from_anything(cluster: Any) -> DaskExecutor:
    """An executor from a `distributed.Client` or any Dask cluster; both stay open.

    Raises
    ------
    TypeError
        for anything else
    """
    if isinstance(cluster, Client):
        return DaskExecutor(cluster)
    if is_job_queue(cluster):
        from ensemblerl.cluster.opening import given, taken
        from ensemblerl.cluster.queued import QueuedExecutor

        return QueuedExecutor(lambda job: taken(cluster), given)
    if isinstance(cluster, Cluster):
        return DaskExecutor(connected(cluster), owned=True)
    raise TypeError(
        "cluster: wanted None, an executor such as Serial(), a concurrent.futures.Executor, a "
        f"distributed.Client or a Dask cluster; got {type(cluster).__name__}"
    )


def connected(cluster: Cluster) -> Client:
    """A client of this cluster that does not become the default one."""
    return Client(cluster, set_as_default=False)  # type: ignore[no-untyped-call]


def _packed(bundle: Members) -> bytes:
    return pickle.dumps(bundle.luggage(), protocol=5)


def _quietly_closed(client: Any) -> None:
    with suppress(Exception):
        client.close()

"""The jobs of one cluster, from the first submission to the last trace: queue, reconciler, Dask."""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from ensemblerl.cluster.jobqueue import JobQueue, queue_name
from ensemblerl.cluster.queues.base import Queue, queue_of
from ensemblerl.cluster.reconciler import Reconciler
from ensemblerl.cluster.wish import Wish


class User(Protocol):
    """A campaign that has its members run in the jobs."""

    def needed(self) -> float:
        """Seconds that the next member is expected to need."""

    def load(self) -> int:
        """Members on their way that need a worker."""


class Pool:
    """Looks after a dask-jobqueue cluster until `close`, for one campaign or several at a time.

    Parameters
    ----------
    jobqueue : any ``dask_jobqueue`` cluster whose queue is known
    directory : for job scripts and the list of jobs; on a disk that nodes see
    wish : what is wanted of the jobs
    owned : end the jobs and close the cluster at the end
    clear : called at the very end

    Attributes
    ----------
    users : who is served now
    """

    def __init__(
        self,
        jobqueue: JobQueue,
        directory: Path,
        wish: Wish,
        *,
        owned: bool,
        clear: Callable[[], None] = lambda: None,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.jobqueue, self.cluster = jobqueue, jobqueue.cluster
        self.owned, self._clear = owned, clear
        self._process, self._leaves, self._closed = os.getpid(), False, False
        self.users: list[User] = []
        wish.needed = lambda: max((user.needed() for user in list(self.users)), default=0.0)
        wish.load = lambda: sum(user.load() for user in list(self.users))
        self.queue: Queue = queue_of(queue_name(self.cluster))
        self.reconciler = Reconciler(self.jobqueue, self.queue, directory, wish)

    @property
    def closed(self) -> bool:
        """Whether it looks after nothing any more."""
        return self._closed

    def serve(self, user: User) -> None:
        """Submit and replace jobs from now on, as this campaign and others need them."""
        self.users.append(user)
        self.reconciler.hope()
        if not self.reconciler.is_alive():
            atexit.register(self.close)
            self.reconciler.adopt()
            self.reconciler.start()

    def dismiss(self, user: User) -> None:
        """Serve a campaign no more."""
        if user in self.users:
            self.users.remove(user)

    def leave(self) -> None:
        """From now on a `close` ends what waits in the queue, and leaves running what runs."""
        self._leaves = True

    def close(self) -> None:
        """Leave nothing behind, unless told to. Again does nothing.

        Whoever interrupts it is heard, and it goes on all the same: in a thread of its own, which
        the interpreter waits for.
        """
        if self._closed or os.getpid() != self._process:  # a fork's exit is not ours
            return
        self._closed = True
        work = threading.Thread(target=self._end, name="ensemblerl-closing")
        try:
            work.start()
        except RuntimeError:  # the interpreter ends: from Python 3.12 on it starts no thread then
            self._end()
        else:
            work.join()

    def _end(self) -> None:
        with contextlib.suppress(Exception):
            self.reconciler.close(cancel=self.owned, leave=self._leaves)
        self.jobqueue.release()
        if self.owned:
            with contextlib.suppress(Exception):
                self.cluster.close()
            self._clear()
        atexit.unregister(self.close)

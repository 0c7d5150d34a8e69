"""The jobs of one cluster, from the first submission to the last trace: queue, reconciler, Dask."""

from __future__ import annotations

import atexit
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ensemblerl.cluster.jobqueue import JobQueue, queue_name
from ensemblerl.cluster.queues.base import Queue, queue_of
from ensemblerl.cluster.reconciler import Reconciler
from ensemblerl.cluster.wish import Wish


class Pool:
    """Looks after a dask-jobqueue cluster until `close`.

    Parameters
    ----------
    cluster : any ``dask_jobqueue`` cluster whose queue is known
    directory : for job scripts and the list of jobs; on a disk that nodes see
    wish : what is wanted of the jobs
    owned : end the jobs and close the cluster at the end
    clear : called at the very end
    """

    def __init__(
        self,
        cluster: Any,
        directory: Path,
        wish: Wish,
        *,
        owned: bool,
        clear: Callable[[], None] = lambda: None,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.cluster, self.owned, self._clear, self._leaves = cluster, owned, clear, False
        self.queue: Queue = queue_of(queue_name(cluster))
        self.jobqueue = JobQueue(cluster)
        self.reconciler = Reconciler(self.jobqueue, self.queue, directory, wish)

    def serve(self, needed: Callable[[], float], load: Callable[[], int]) -> None:
        """Submit and replace jobs from now on, as a campaign needs them.

        Parameters
        ----------
        needed : gives the seconds that the next member is expected to need
        load : gives the number of members on their way
        """
        wish = self.reconciler.wish
        wish.needed, wish.load = needed, load
        if not self.reconciler.is_alive():
            atexit.register(self.close)
            self.reconciler.adopt()
            self.reconciler.start()

    def leave(self) -> None:
        """From now on a `close` ends what waits in the queue, and leaves running what runs."""
        self._leaves = True

    def close(self) -> None:
        """Leave nothing behind, unless told to; never raises. Again does nothing."""
        atexit.unregister(self.close)
        with contextlib.suppress(Exception):
            self.reconciler.close(cancel=self.owned, leave=self._leaves)
        self.jobqueue.release()
        if self.owned:
            with contextlib.suppress(Exception):
                self.cluster.close()
            self._clear()

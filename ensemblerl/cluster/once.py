"""A bundle that is done is not done again, should its answer go with its worker."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from dask.task_spec import Task
from distributed import SchedulerPlugin

NAME = "ensemblerl-once"


class Once(SchedulerPlugin):
    """Has Dask run each bundle once, as far as that can be told.

    Left alone, the scheduler has another worker run a bundle when the one that had its answer, or
    was about to send it, ends. What the members found is on disk then.

    So of a bundle that is done, it forgets how to compute it: what is lost is looked for on disk.
    One whose worker died is not sent again: why it died is for the campaign to judge. Therefore
    none waits behind another at a worker, or it would be charged with an end that it had no part
    in. And one that is sent again all the same, by a worker that closes in good order, is looked
    for on disk before it is run.
    """

    name, idempotent = NAME, True
    _scheduler: Any = None

    @classmethod
    def ask(cls, client: Any) -> None:
        """Have it done by this client's scheduler, unless that takes no plugins.

        Raises
        ------
        ImportError
            where the scheduler has no ensemblerl
        """
        with suppress(OSError, ValueError):  # it is gone, which others say; it takes none
            client.register_plugin(cls(), name=NAME)

    async def start(self, scheduler: Any) -> None:
        """See `distributed.SchedulerPlugin`."""
        self._scheduler = scheduler
        scheduler.WORKER_SATURATION = min(scheduler.WORKER_SATURATION, 1.0)

    def transition(self, key: Any, start: Any, finish: Any, *args: Any, **kwargs: Any) -> None:
        """A task has another state; see `distributed.SchedulerPlugin`."""
        ours = str(key).startswith("ensemblerl-")
        task = self._scheduler.tasks.get(key) if ours else None
        if task is None:
            return
        if finish == "memory":
            task.run_spec = None  # as of data that somebody has put there
        elif finish == "processing":
            task.suspicious = max(task.suspicious, self._scheduler.allowed_failures)
        elif start == "processing" and isinstance(task.run_spec, Task):
            spec = task.run_spec
            given = {**spec.kwargs, "again": True}
            task.run_spec = Task(key, spec.func, *spec.args, _data_producer=True, **given)

"""A bundle that is done is not done again, should its answer go with its worker."""

from __future__ import annotations

from typing import Any

from distributed import SchedulerPlugin

NAME = "ensemblerl-once"


class Once(SchedulerPlugin):
    """Has Dask forget how to compute a bundle as soon as it is done.

    Else the scheduler would have another worker run it when the one that has the answer ends
    before that is fetched. What the members found is on disk then, and is looked for there.

    Parameters
    ----------
    scheduler : of Dask, in this process
    """

    name = NAME

    @classmethod
    def ask(cls, scheduler: Any) -> None:
        """Have it done by this scheduler; from any thread."""
        add = scheduler.add_plugin
        scheduler.loop.add_callback(add, cls(scheduler), name=NAME, idempotent=True)

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler

    def transition(self, key: Any, start: Any, finish: Any, *args: Any, **kwargs: Any) -> None:
        """A task has another state; see `distributed.SchedulerPlugin`."""
        if finish == "memory" and str(key).startswith("ensemblerl-"):
            task = self._scheduler.tasks.get(key)
            if task is not None:
                task.run_spec = None  # as of data that somebody has put there

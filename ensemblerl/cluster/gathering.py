"""Brings finished Dask futures home in batches: one gather for all that ended together."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from typing import Any

from distributed import KilledWorker, as_completed
from distributed.comm.core import CommClosedError
from distributed.scheduler import NoValidWorkerError, NoWorkerError

from ensemblerl.executors.base import Lost
from ensemblerl.records import Answer

LINGER, STEPS = 0.005, 4
"""Seconds to wait for company, and how often, while every worker has work waiting. A gather is
three messages through the driver's event loop whatever it carries, and so is what follows: a
line in the ledger, a question to the sampler, a graph."""
PATIENCE, POLL = 60.0, 0.2
"""Seconds to wait for the word on why a worker died, and between looks for it."""
LOSSES = (
    NoWorkerError,
    NoValidWorkerError,
    CommClosedError,
    CancelledError,
    asyncio.CancelledError,
)
"""What says nothing about the bundle: no workers, no scheduler, or somebody cancelled it."""


def _gone() -> Lost:
    """The bundle is done: what it found is in the segments, where the worker could write there."""
    return Lost("its worker ended before its answer was fetched", blameless=True)


def _dead(address: str, key: str) -> Lost:
    return Lost(f"its worker died ({address})")


class Gathering:
    """Completes our futures as the Dask futures beside them end; lives on the client's loop.

    Parameters
    ----------
    client : the `distributed.Client` whose futures they are
    explain : says of a dead worker, by address and key of the task, what was lost; None while
        that is not known yet
    """

    def __init__(
        self, client: Any, explain: Callable[[str, str], Lost | None] | None = None
    ) -> None:
        self.n_workers = 1
        self._explain = explain or _dead
        self._client = client
        self._done: Any = as_completed([], loop=client.loop)  # type: ignore[no-untyped-call]
        self._ours: dict[str, Future[Answer]] = {}
        self._more = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._client.loop.add_callback(self._begin)

    def add(self, ours: Sequence[Future[Answer]], theirs: Sequence[Any]) -> None:
        """Watch Dask futures; thread-safe."""
        self._ours.update((f.key, future) for f, future in zip(theirs, ours, strict=True))
        self._done.update(theirs)
        self._client.loop.add_callback(self._more.set)

    def close(self, cause: str) -> None:
        """Watch no more; what is left is lost."""
        with suppress(RuntimeError):  # the loop may be closed already
            self._client.loop.add_callback(self._cancel)
        self._done.clear()
        for key in list(self._ours):
            self.finish(key, Lost(cause, begun=False))

    def _begin(self) -> None:
        self._keep(self._collect())

    def _cancel(self) -> None:
        for task in self._tasks:
            task.cancel()

    def _keep(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _collect(self) -> None:
        while True:
            try:
                batch = [await anext(self._done)]
            except StopAsyncIteration:
                self._more.clear()
                await self._more.wait()
                continue
            await self._company()
            self._keep(self._settle(batch + self._done.next_batch(block=False)))

    async def _company(self) -> None:
        for _ in range(STEPS):
            if len(self._done.futures) <= 3 * self.n_workers:
                break
            await asyncio.sleep(LINGER)

    async def _settle(self, batch: list[Any]) -> None:
        """A task of its own: data lost with its worker may be a long time in coming again."""
        finished = {f.key: f for f in batch if f.status == "finished"}
        answers: dict[str, Any] = {}
        try:
            if finished:
                answers = await self._client.gather(finished, errors="skip", asynchronous=True)
        except Exception as error:  # the connection to the scheduler broke
            begun = None if self._client.status == "running" else False
            lost = Lost(f"{type(error).__name__}: {error}", begun=begun)
            answers = dict.fromkeys(finished, lost)
        gone = [finished[key] for key, answer in answers.items() if answer is None]
        for key, answer in answers.items():
            self.finish(key, _gone() if answer is None else answer)
        if gone:  # or Dask would have the members run once more
            with suppress(Exception):
                await self._client.cancel(gone, asynchronous=True)
        for future in batch:
            if future.key not in answers:
                self.finish(future.key, await self._why(future))

    async def _why(self, future: Any) -> Exception:
        """The error of a Dask future that brought nothing."""
        try:
            await self._client.gather(future, asynchronous=True)
        except KilledWorker as error:
            return await self._explained(error.last_worker.address, future.key)
        except LOSSES as error:
            return Lost(str(error) or type(error).__name__, begun=False)
        except Exception as error:
            wrapped = RuntimeError(f"a Dask worker could not run a bundle: {error}")
            wrapped.__cause__ = error
            return wrapped
        return Lost("cancelled", begun=False)

    async def _explained(self, address: str, key: str) -> Lost:
        """What ended a worker; a queue says so a little later than it does it."""
        for _ in range(round(PATIENCE / POLL)):
            if (lost := self._explain(address, key)) is not None:
                return lost
            await asyncio.sleep(POLL)
        return _dead(address, key)

    def finish(self, key: str, answer: bytes | Answer | Exception) -> None:
        """Complete our future beside this Dask key, unless it is already."""
        future = self._ours.pop(key, None)
        if future is None:
            return
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(pickle.loads(answer) if isinstance(answer, bytes) else answer)

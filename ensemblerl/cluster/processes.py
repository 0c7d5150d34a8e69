"""Worker processes on this machine, started plainly and started again when they die."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from contextlib import suppress
from typing import Any

import dask
from distributed.deploy.spec import ProcessInterface

BOOT = (
    "import json, sys; given = json.loads(sys.stdin.readline() or sys.exit()); "
    "sys.path[:] = given['path']; "
    "from ensemblerl.cluster.serve import serve; serve(given)"
)
"""What a worker process runs. The driver's main module is never imported: no guard is needed."""
YOUNG = 5.0
"""Seconds: a worker that dies younger failed to start, and the next one waits longer."""
GRACE = 5.0
"""Seconds that the system may take to end a process."""


class WorkerProcess(ProcessInterface):
    """A Dask worker with one thread in a process of its own, replaced when it dies.

    Its standard input is a pipe from here: it brings address and keys, and its end tells the worker
    that the driver is gone. The process leads a session, so that Ctrl-C in the driver's terminal
    does not reach it, and what it started can be ended with it.

    Parameters
    ----------
    scheduler : address
    name : of the worker
    directory : where it may leave files; gone with the cluster
    keys : name -> PEM text, as `distributed.Security` takes them
    """

    def __init__(self, scheduler: str, *, name: Any, directory: str, keys: dict[str, str]) -> None:
        super().__init__(scheduler=scheduler, name=name)  # type: ignore[no-untyped-call]
        given = {"scheduler": scheduler, "name": name, "directory": directory, "keys": keys}
        self._given: dict[str, Any] = given | {"path": _import_path(), "driver": os.getpid()}
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the process, and watch over it from now on."""
        self._process = await self._spawned()
        self._keeper = asyncio.create_task(self._keep(self._process))
        await super().start()  # type: ignore[no-untyped-call]

    async def close(self) -> None:
        """End the process and all that it started, at once: what is done is on disk."""
        if self._keeper is not None:
            self._keeper.cancel()
        if self._process is not None:
            _end(self._process)
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._process.wait(), GRACE)
        await super().close()  # type: ignore[no-untyped-call]

    async def _spawned(self) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            BOOT,
            stdin=asyncio.subprocess.PIPE,
            env=_environment(),
            start_new_session=True,
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps(self._given).encode() + b"\n")
        return process

    async def _keep(self, process: asyncio.subprocess.Process) -> None:
        failures = 0
        while True:
            born = time.monotonic()
            await process.wait()
            _end(process)
            failures = failures + 1 if time.monotonic() - born < YOUNG else 0
            await asyncio.sleep(min(0.05 * 2**failures, 30.0) if failures > 1 else 0.0)
            self._process = process = await self._spawned()


def _end(process: asyncio.subprocess.Process) -> None:
    """Kill the session of a worker: itself, and what it left behind when it died."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _import_path() -> list[str]:
    """The driver's, as `multiprocessing` passes it on."""
    return [os.path.abspath(entry) for entry in sys.path]  # noqa: PTH100


def _environment() -> dict[str, str]:
    """The driver's, with what Dask sets for its workers: one thread for numerical libraries."""
    preset = dask.config.get("distributed.nanny.pre-spawn-environ")
    return {name: str(value) for name, value in preset.items() if value is not None} | os.environ

"""What a worker process on this machine does; see `ensemblerl.cluster.processes`."""

from __future__ import annotations

import asyncio
import logging
import os
import select
import shutil
import signal
import threading
from typing import Any

import dask
from distributed import Security, Worker

OFF = {"distributed.worker.use-file-locking": False, "distributed.worker.profile.enabled": False}
"""A lock on the working directory and a sampling profiler, which nobody would look at."""

POLL = 2.0
"""Seconds between looks at the parent's process id."""


def serve(given: dict[str, Any]) -> None:
    """Be a worker until the scheduler says otherwise or the driver is gone.

    Parameters
    ----------
    given : ``scheduler``, an address; ``keys`` to it; ``name``; ``directory``; ``driver``, a
        process id
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    watch = threading.Thread(target=_leave_with, args=(_line(), given), daemon=True)
    watch.start()
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    try:
        with dask.config.set(OFF):
            asyncio.run(_work(given))
    finally:
        watch.join(timeout=POLL + 1.0)  # if it ended for lack of a driver, let the watch clear up


async def _work(given: dict[str, Any]) -> None:
    """No memory limit: it would pause a worker for good over memory that is its simulation's."""
    async with Worker(
        given["scheduler"],
        name=given["name"],
        local_directory=given["directory"],
        host="127.0.0.1",
        security=Security(require_encryption=True, **given["keys"]),  # type: ignore[no-untyped-call]
        nthreads=1,
        memory_limit=0,
        death_timeout=60,
    ) as worker:
        await worker.finished()


def _line() -> int:
    """The pipe from the driver, out of reach for simulations, whose standard input is empty."""
    line = os.dup(0)
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    return line


def _leave_with(line: int, given: dict[str, Any]) -> None:
    """Wait for the end of the driver, however it comes; then leave at once, children included.

    The pipe tells it. Where a process that the driver forked keeps the pipe open, the parent's
    process id does, two seconds later.
    """
    while os.getppid() == given["driver"]:
        readable, _, _ = select.select([line], [], [], POLL)
        if readable and not os.read(line, 1):
            break
    shutil.rmtree(given["directory"], ignore_errors=True)
    os.killpg(os.getpgrp(), signal.SIGKILL)

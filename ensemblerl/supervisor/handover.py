"""The supervisor's other end: what it found goes to its worker, or into the store."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ensemblerl.simulations.pipes import TAKEN, send
from ensemblerl.store.reading import is_store

PATIENCE = 60.0
"""Seconds to wait for the worker's word that it has the record; where SIGTERM came, it is written
at once: a queue leaves little time.
"""
LOOK = 0.1
"""Seconds between looks whether it came."""


def pipes() -> int:
    """The pipe to the worker; standard output is then empty."""
    worker = os.dup(1)
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.close(nothing)
    sys.stdout = sys.stderr
    return worker


def hand_over(finished: Any, worker: int, segments: str | None, hurry: Callable[[], bool]) -> None:
    """Give outcome and record to the worker; write the record where there is no worker any more.

    Parameters
    ----------
    finished : a `Finished`
    worker : the pipe to the worker
    segments : directory of the store's segments, None where there is no store
    hurry : whether SIGTERM has come
    """
    from ensemblerl.finishing import encoded
    from ensemblerl.store.codec import dumps, outcome_fields

    record = encoded(finished)
    told = {"outcome": outcome_fields(finished.outcome), "layout": finished.layout}
    try:
        send(worker, dumps(told).encode())
        send(worker, record)
        if _taken(hurry):
            return
    except OSError:
        pass
    if segments is not None:
        _write(segments, record)


def _taken(hurry: Callable[[], bool]) -> bool:
    """Wait for the worker's word."""
    until, ready = time.monotonic() + PATIENCE, False
    while not ready and not hurry() and time.monotonic() < until:
        ready = bool(select.select([0], [], [], LOOK)[0])
    ready = ready or bool(select.select([0], [], [], LOOK)[0])
    return ready and os.read(0, 1) == TAKEN


def _write(segments: str, record: bytes) -> None:
    from ensemblerl.store.segments import get_writer

    if is_store(Path(segments).parent):  # one that is gone is not to be made anew
        writer = get_writer(segments)
        with contextlib.suppress(OSError):
            writer.write_raw(record)
            writer.close()

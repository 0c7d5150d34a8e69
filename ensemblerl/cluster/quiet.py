"""Keeps Dask's log from the terminal while any local cluster of ours is open."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator

from distributed.utils import silence_logging_cmgr

_lock = threading.Lock()
_silence = contextlib.ExitStack()
_open = 0


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence from the first that enters to the last that leaves.

    Dask's own silence, one for each cluster, ends with whichever closes first.
    """
    global _open
    with _lock:
        _open += 1
        if _open == 1:
            _silence.enter_context(silence_logging_cmgr(level=logging.CRITICAL))
    try:
        yield
    finally:
        with _lock:
            _open -= 1
            if _open == 0:
                _silence.close()

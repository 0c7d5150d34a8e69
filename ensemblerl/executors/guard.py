"""Keeps the processes of a pool from outliving the driver that feeds them."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from multiprocessing.connection import wait

POLL = 1.0
"""Seconds between looks."""

_guarded: set[int] = set()


def leave_with(driver: int) -> None:
    """End this process when the driver is gone, however that ended; a second at most later.

    For processes that the driver or its fork server started; does nothing in others, nor when
    it was called here before. A thread looks: the kernel's own signal (``PR_SET_PDEATHSIG``)
    comes when the *thread* that forked ends, and pools outlive the threads that use them. Code
    that holds the GIL delays the end until it lets go.

    Parameters
    ----------
    driver : process id
    """
    parent = multiprocessing.parent_process()
    started_by = {os.getppid(), parent.pid if parent is not None else 0}
    if driver not in started_by or driver == os.getpid() or os.getpid() in _guarded:
        return
    _guarded.add(os.getpid())
    line = parent.sentinel if parent is not None else None
    threading.Thread(target=_watch, args=(os.getppid(), line), daemon=True).start()


def _watch(parent: int, line: int | None) -> None:
    """The parent's id changes when it dies. That of a fork server does not: then the pipe ends."""
    while os.getppid() == parent:
        if line is None:
            time.sleep(POLL)
        elif wait([line], POLL):
            break
    os._exit(1)

"""Looks after one attempt from its first moment to its last, whatever its supervisor is doing."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from pathlib import Path
from typing import Any

from ensemblerl.store.reading import is_store
from ensemblerl.store.running import BEAT, Running, orphaned
from ensemblerl.supervisor.tree import Tree

LOOK = 0.5
"""Seconds between looks at memory and requests."""
PATIENCE = 5.0
"""Seconds for the reading of results to stop; then the whole supervisor does."""


class Watch(threading.Thread):
    """Ends the program when its time is over, its memory used up, or somebody wants it.

    Parameters
    ----------
    given : see `ensemblerl.supervisor.start`
    tree : the program's processes
    worker : the pipe to the worker

    Attributes
    ----------
    code : exit code of the program, None for one that was ended
    ran : seconds that the program took
    reason : why it was ended, None when it was not
    terminated : this process got SIGTERM
    """

    def __init__(self, given: dict[str, Any], tree: Tree, worker: int) -> None:
        super().__init__(daemon=True)
        self.tree, self.worker = tree, worker
        self.timeout, self.most = given["timeout"], given["memory"]
        self.key = given["number"], given["attempt"]
        self.store = Path(given["store"]) if given["store"] else None
        self.running = Running(self.store) if self.store else None
        self.kept = self.store is not None and is_store(self.store)
        self.began = self.beaten = time.monotonic()
        self.code: int | None = None
        self.ran, self.terminated = 0.0, False
        self.ended, self.done = threading.Event(), threading.Event()
        self.interruptible = False
        self.reason: BaseException | None = None

    def run(self) -> None:
        """Until ``done`` is set."""
        while not self.ended.is_set():
            left = LOOK if self.timeout is None else self.began + self.timeout - time.monotonic()
            self.code = self.tree.wait(min(LOOK, max(0.0, left)))
            self.ran = time.monotonic() - self.began
            if self.code is None:
                self.reason = self._reason()
            if self.code is not None or self.reason is not None:
                self.tree.end()
                self.ended.set()
            self._beat()
        while not self.done.wait(LOOK):
            self._beat()
            if self.reason is None and (reason := self._reason()) is not None:
                self._interrupt(reason)

    def _interrupt(self, reason: BaseException) -> None:
        """End the reading of results, which happens in the main thread."""
        self.reason = reason
        self.tree.end()
        if self.interruptible:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
        if not self.done.wait(PATIENCE):
            if self.running is not None:
                self.running.over(*self.key)
            os._exit(1)

    def _reason(self) -> BaseException | None:
        """Why it has to end now, if it has to."""
        from ensemblerl.simulations.processes import Stopped, TimedOut

        if self.timeout is not None and time.monotonic() >= self.began + self.timeout:
            doing = ", of which its results were being read," if self.ended.is_set() else ""
            return TimedOut(f"the member took longer than {self.timeout:g} s{doing} and was ended")
        if self.terminated or self._unwanted():
            return Stopped("stopped while it ran")
        if self.most is not None and (used := self.tree.memory()) > self.most:
            return MemoryError(
                f"the processes of the member held {used / 1e6:.0f} MB, more than its memory of "
                f"{self.most / 1e6:.0f} MB, and were ended"
            )
        return None

    def _unwanted(self) -> bool:
        """Somebody asked for its end, or nobody is left who could take its result."""
        if self.running is None or self.store is None:
            return _hung_up(self.worker)
        removed = self.kept and not is_store(self.store)
        return removed or self.running.asked(*self.key) or orphaned(self.store)

    def _beat(self) -> None:
        if self.running is not None and time.monotonic() - self.beaten > BEAT:
            self.running.beat(*self.key)
            self.beaten = time.monotonic()


def _hung_up(pipe: int) -> bool:
    look = select.poll()
    look.register(pipe, 0)
    return bool(look.poll(0))

"""Ctrl-C: the first asks no more and lets running members finish, the second leaves."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self


class Interrupts:
    """While entered (in the main thread), the first SIGINT calls ``stop``, the next one raises
    KeyboardInterrupt. In other threads signals cannot be handled, and it does nothing.
    """

    def __init__(self, stop: Callable[[str], None]) -> None:
        self._stop = stop
        self._before: Any = None
        self.count = 0

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._handle)
        return self

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        self.count += 1
        if self.count > 1:
            raise KeyboardInterrupt
        print(
            "\nInterrupted: no new members; waiting for those that run "
            "(once more to leave now, they will be run again on resume).",
            file=sys.stderr,
        )
        self._stop("interrupted")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

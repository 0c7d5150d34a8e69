"""Ctrl-C: the first asks no more and lets running members finish, the second leaves. What a
closed terminal or the end of a job of a queue sends leaves at once, and lets what runs go on.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self


class Terminated(SystemExit):
    """SIGTERM or SIGHUP ended the driver; ``code`` is what a shell would say, 128 + the signal."""


class Interrupts:
    """While entered (in the main thread), the first SIGINT calls ``stop``, the next one raises
    KeyboardInterrupt; SIGTERM and SIGHUP raise `Terminated`, unless somebody else handles them.
    In other threads signals cannot be handled, and it does nothing.
    """

    def __init__(self, stop: Callable[[str], None]) -> None:
        self._stop = stop
        self._before: dict[int, Any] = {}
        self.count = 0

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before[signal.SIGINT] = signal.signal(signal.SIGINT, self._handle)
            for number in (signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(number) is signal.SIG_DFL:
                    self._before[number] = signal.signal(number, self._leave)
        return self

    def _leave(self, signum: int, frame: FrameType | None) -> None:
        for number in (signal.SIGTERM, signal.SIGHUP):  # once is enough: what follows takes a while
            if number in self._before:
                signal.signal(number, signal.SIG_IGN)
        raise Terminated(128 + signum)

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
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

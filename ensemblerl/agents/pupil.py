"""The far end of learning in the background: rows come in, versions go out.

Run by `spawn`; it lives as long as the pipe and the driver do.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
BEGIN = (
    "import sys; sys.path[:] = {path!r}; "
    "from ensemblerl.agents.pupil import main; main(*map(int, sys.argv[1:]))"
)
"""The modules of the driver, but not its ``__main__``: a script needs no guard."""
HURRY, WATCH = 0.2, 2.0
"""Longest waits for the pipe, seconds: with a lesson ahead, and with none."""


class Gone(Exception):
    """Nobody is at the near end any more."""


def spawn(connection: Connection) -> subprocess.Popen[bytes]:
    """Start the process at this end of a pipe, with one thread for its arithmetic."""
    path = [os.path.abspath(entry) for entry in sys.path]  # noqa: PTH100
    far = connection.fileno()
    return subprocess.Popen(
        [sys.executable, "-c", BEGIN.format(path=path), str(far), str(os.getpid())],
        pass_fds=[far],
        env={**os.environ, **dict.fromkeys(THREADS, "1")},
        stdin=subprocess.DEVNULL,
    )


def main(far: int, driver: int) -> None:
    """Learn until the near end is gone.

    Parameters
    ----------
    far : file descriptor of this end
    driver : its process id
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Connection(far) as connection, contextlib.suppress(Gone):
        Pupil(connection, driver).run()


class Pupil:
    """Takes in rows, gives itself lessons, sends versions.

    Parameters
    ----------
    connection : to the driver
    driver : its process id
    """

    def __init__(self, connection: Connection, driver: int) -> None:
        import cloudpickle

        from ensemblerl.agents.core import Core
        from ensemblerl.agents.replay import Replay

        self._connection, self._driver = connection, driver
        with _piped():
            _, packed = connection.recv()
        given: dict[str, Any] = cloudpickle.loads(packed)
        policy = given["policy"]
        self._share = float(given["machine_share"])
        self._core = Core(
            policy,
            given["learner"],
            Replay(policy.n_steps, policy.cube.ndim),
            every=given["every"],
            share=given["lesson_share"],
            name=given["name"],
        )
        self._core.resume(given["state"]["core"])
        self._core.memory.load_state_dict(given["state"]["memory"])

    def run(self) -> None:
        """Rows first, then a lesson if it is due, then a pause in proportion to the work."""
        owed, used, first = 0.0, time.process_time(), True
        while True:
            owed -= self._take(min(owed, HURRY) if self._core.due else WATCH)
            if owed <= 0 and self._core.due:
                if not self._learnt():
                    return
                if first:  # most of it was loading libraries, once
                    first, used = False, time.process_time()
            if self._core.snapshots:
                self._send()
            now = time.process_time()
            owed = max(0.0, owed) + (now - used) * (1.0 - self._share) / self._share
            used = now

    def _learnt(self) -> bool:
        """Give the lesson; an error in it goes to the driver, for another try would meet it too."""
        try:
            self._core.learn()
        except Exception as error:
            traceback.print_exc()
            with _piped():
                self._connection.send(f"{type(error).__name__}: {error}")
            return False
        return True

    def _take(self, timeout: float) -> float:
        """All that has come, waiting for the first so long; the wait, seconds."""
        began = time.monotonic()
        come = self._come(timeout)
        rested = time.monotonic() - began
        while come:
            with _piped():
                kind, *content = self._connection.recv()
            if kind == "tell":
                self._core.tell(*content)
            else:
                self._core.heed(*content)
            come = self._come(0.0)
        return rested

    def _come(self, timeout: float) -> bool:
        """Whether there is something to take.

        The pipe alone would not do: a process forked by the driver may hold its end open.
        """
        if os.getppid() != self._driver:
            raise Gone
        with _piped():
            return self._connection.poll(timeout)

    def _send(self) -> None:
        core = self._core
        with _piped():
            self._connection.send((list(core.snapshots), list(core.rows), core.progress()))
        core.snapshots.clear()
        core.rows.clear()


@contextlib.contextmanager
def _piped() -> Iterator[None]:
    """An error of the pipe is its end; one of a learner is an error."""
    try:
        yield
    except (EOFError, OSError) as error:
        raise Gone from error
